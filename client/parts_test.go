package client

import (
	"strings"
	"testing"
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
