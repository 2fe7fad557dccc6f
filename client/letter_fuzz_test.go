package client

import (
	"bytes"
	netmail "net/mail"
	"strings"
	"testing"

	optoutv1 "optout/proto/optout/v1"
)

// Whatever a header holds, as SMTP would read it: the copy has exactly the list fields of the link, no Bcc, and the same body.
func FuzzLetter(f *testing.F) {
	for _, s := range []string{"From: <a@example.com>\r\nTo: <b@example.com>\r\n\r\nHello.\r\n", "X: a\nList-Unsubscribe: <x>\r\n\r\n", "list-unsubscribe-POST : x\r\n y\r\nBCC: z\r\n",
		"To: <b@example.com>,\r\n\t<c@example.com>\r\nMessage-ID: <a@b>\r\n\n\r\nbody", " folded: first\r\n", "A: b\r\rList-Unsubscribe: x\r\n"} {
		f.Add(s)
	}
	link := &optoutv1.UnsubscribeLink{Headers: []*optoutv1.Header{{Name: fieldUnsubscribe, Value: "<https://mail.example.com/u/token>"}, {Name: fieldPost, Value: "List-Unsubscribe=One-Click"}}}
	f.Fuzz(func(t *testing.T, text string) {
		fields, body, err := parse([]byte(text))
		if err != nil {
			return
		}
		l := &letter{fields: fields, body: body, to: []*netmail.Address{{Address: "b@example.com"}, {Address: "c@example.com"}}}
		out, err := l.write(link, true, map[string]bool{"c@example.com": true})
		if err != nil {
			t.Fatal(err)
		}
		// As it reads after net/textproto's dot writer, which turns a bare LF into CRLF.
		wire := bytes.ReplaceAll(bytes.ReplaceAll(out, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
		head, rest, ok := bytes.Cut(wire, []byte("\r\n\r\n"))
		if !ok || !bytes.Equal(bytes.ReplaceAll(rest, []byte("\r\n"), []byte("\n")), bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n"))) {
			t.Fatalf("the body changed from %q to %q", body, rest)
		}
		count := map[string]int{}
		for line := range strings.SplitSeq(string(head), "\r\n") {
			name, _, _ := strings.Cut(line, ":")
			count[strings.ToLower(strings.TrimRight(name, " \t"))]++
		}
		if count["list-unsubscribe"] != 1 || count["list-unsubscribe-post"] != 1 || count["bcc"] != 0 {
			t.Fatalf("fields %v of %q", count, head)
		}
	})
}
