package client

import (
	"bytes"
	"strings"
	"testing"

	optoutv1 "optout/proto/optout/v1"
)

// nested is a message n multiparts deep.
func nested(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("Content-Type: multipart/mixed; boundary=b" + strings.Repeat("x", i) + "\r\n\r\n--b" + strings.Repeat("x", i) + "\r\n")
	}
	b.WriteString("\r\nHello.\r\n")
	for i := n - 1; i >= 0; i-- {
		b.WriteString("--b" + strings.Repeat("x", i) + "--\r\n")
	}
	return b.String()
}

func TestParts(t *testing.T) {
	for name, c := range map[string]struct{ text, want, fault string }{
		"plain":       {"Subject: x\r\n\r\nHello.\r\n", "text/plain shown [Hello.\r\n]", ""},
		"alternative": {"Content-Type: multipart/alternative; boundary=\"a b\"\r\n\r\nskip\r\n--a b\r\n\r\none\r\n--a b  \r\nContent-Type: text/html\r\n\r\ntwo\r\n--a b--\r\nskip", "text/plain shown [one] text/html shown [two]", ""},
		"mixed":       {"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--bb\r\n--b\r\nContent-Type: text/html\r\nContent-Disposition: attachment; filename=x\r\n\r\ntwo\r\n--b--", "text/plain shown [one\r\n--bb] text/html [two]", ""},
		"empty part":  {"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n--b--\r\n", "text/plain shown []", ""},
		"LF":          {"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Transfer-Encoding: base64\n\nT25l\nLg==\n--b--\n", "text/plain shown [One.]", ""},
		"qp":          {"Content-Transfer-Encoding: Quoted-Printable\r\n\r\none =\r\ntwo=21", "text/plain shown [one two!]", ""},
		"signed":      {"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b--", "text/plain shown sealed [one]", ""},
		"no boundary": {"Content-Type: multipart/mixed\r\n\r\n--b\r\n", "", "no boundary"},
		"cut off":     {"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n", "", "last boundary"},
		"nested":      {nested(8), "text/plain shown [Hello.]", ""},
		"too deep":    {nested(1000), "", "nested"},
	} {
		fields, body, err := parse([]byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		found, err := parts(fields, body)
		for _, p := range found {
			s := p.kind
			if p.shown {
				s += " shown"
			}
			if p.sealed {
				s += " sealed"
			}
			b, err := p.decode(body)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, s+" ["+string(b)+"]")
		}
		if strings.Join(got, " ") != c.want || (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %q, %v, want %q, %q", name, got, err, c.want, c.fault)
		}
	}
}

// Whatever a body holds: parts lie in it one after the other, a message without placeholder and footer keeps its octets, and with
// a footer every text that is shown has the link, and what lies between the parts stays.
func FuzzParts(f *testing.F) {
	f.Add("Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+aGk8L2I+\r\n")
	f.Add("Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>two</body>\r\n--b--\r\nafter")
	f.Add("Content-Type: multipart/mixed; boundary=b\n\nbefore\n--b\nContent-Transfer-Encoding: quoted-printable\n\n" + UnsubscribeURLPlaceholder + "\n--b\nContent-Type: image/png\n\nx\n--b--")
	f.Add(nested(3))
	f.Add("Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r,x\r\n--b--")                                            // a CR alone
	f.Add("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\none\r\n=2D-b\r\n\r\n--b--") // a boundary, hidden
	f.Fuzz(func(t *testing.T, text string) {
		fields, body, err := parse([]byte(text))
		if err != nil {
			return
		}
		found, err := parts(fields, body)
		end := 0
		for _, p := range found {
			if p.head >= 0 && (p.head < end || p.at < p.head) || p.end < p.at || p.end > len(body) {
				t.Fatalf("a part lies from %d over %d to %d, after %d", p.head, p.at, p.end, end)
			}
			end = p.end
		}
		if len(found) > maxParts {
			t.Fatalf("%d parts", len(found))
		}
		link := &optoutv1.UnsubscribeLink{Url: "https://mail.example.com/u/token"}
		l := &letter{fields: fields, body: body}
		if l.personalise(nil, true) == nil && len(l.personal) == 0 {
			if _, got, err := l.fill(link); err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%q became %q, %v", body, got, err)
			}
		}
		l = &letter{fields: fields, body: body}
		if l.personalise(&Footer{Lang: "en", Sender: "Example"}, true) != nil || err != nil {
			return
		}
		fields, got, err := l.fill(link)
		if err != nil {
			t.Fatal(err)
		}
		after, err := parts(fields, got)
		if err != nil || len(after) != len(found) {
			t.Fatalf("%d parts became %d, %v: %q", len(found), len(after), err, got)
		}
		for i, p := range after {
			content, err := p.decode(got)
			if p.text() && p.shown {
				if err != nil || !bytes.Contains(content, []byte(link.Url)) {
					t.Fatalf("a part has no link: %q, %v", content, err)
				}
			} else if before, fault := found[i].decode(body); fault == nil && !bytes.Contains(before, []byte(UnsubscribeURLPlaceholder)) && !bytes.Equal(before, content) {
				t.Fatalf("%q became %q", before, content)
			}
		}
	})
}
