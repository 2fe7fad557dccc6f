package mailin_test

import (
	"path/filepath"
	"strings"
	"testing"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/keydir"
	"optout/service/link"
)

// returnPath is the address that bounces of mail to a person come back to, signed with the service's own key.
func (p *post) returnPath(addr string) string {
	p.t.Helper()
	l, err := p.c.IssueLink(p.t.Context(), "news", addr, nil, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	dir, err := keydir.Open(filepath.Join(p.data, "keys"))
	if err != nil {
		p.t.Fatal(err)
	}
	k := dir.Keys(keydir.Link)[0]
	ring, err := link.NewRing(uint8(k.ID), link.Key{ID: uint8(k.ID), Secret: k.Secret})
	if err != nil {
		p.t.Fatal(err)
	}
	t, err := ring.Open(l.Url[strings.LastIndexByte(l.Url, '/')+1:], link.Unsubscribe)
	if err != nil {
		p.t.Fatal(err)
	}
	t.Purpose = link.Bounce
	return "b-" + string(ring.Append(nil, t)) + "@unsub.example.com"
}

// dsn is a delivery status notification as Postfix writes it.
func dsn(action, status, diagnostic string) string {
	return "From: MAILER-DAEMON@mx.example.org (Mail Delivery System)\r\nSubject: Undelivered Mail Returned to Sender\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"XYZ/mx\"\r\n\r\nThis is a MIME-encapsulated message.\r\n\r\n--XYZ/mx\r\nContent-Description: Notification\r\n\r\nThis is the mail system.\r\n\r\n" +
		"--XYZ/mx\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.org\r\n\r\nFinal-Recipient: rfc822; somebody@example.org\r\nAction: " + action + "\r\nStatus: " + status +
		"\r\nDiagnostic-Code: smtp; " + diagnostic + "\r\n\r\n--XYZ/mx\r\nContent-Type: message/rfc822\r\n\r\nSubject: the letter\r\n\r\n" + strings.Repeat("text\r\n", 60000) + "\r\n--XYZ/mx--\r\n"
}

// A bounce counts for the one whose message it was, whatever address it names, and only when it says that the mail did not get
// there.
func TestBounces(t *testing.T) {
	p := newPost(t)
	for name, c := range map[string]struct {
		message string
		want    optoutv1.EntryKind // 0: nothing is written
	}{
		"no such user":     {dsn("failed", "5.1.1", "550 5.1.1 user unknown"), optoutv1.EntryKind_ENTRY_KIND_UNDELIVERABLE},
		"10 MB":            {dsn("failed", "5.1.1", "550 no such user") + strings.Repeat(strings.Repeat("y", 998)+"\r\n", 10000), optoutv1.EntryKind_ENTRY_KIND_UNDELIVERABLE},
		"mailbox full":     {dsn("failed", "5.2.2", "552 5.2.2 mailbox full"), optoutv1.EntryKind_ENTRY_KIND_BOUNCED},
		"host unreachable": {dsn("failed", "4.4.1", "connection timed out"), optoutv1.EntryKind_ENTRY_KIND_BOUNCED},
		"delayed":          {dsn("delayed", "4.4.1", "connection timed out"), 0},
		"delivered":        {dsn("delivered", "2.0.0", "250 ok"), 0},
		"policy":           {dsn("failed", "5.7.1", "550 5.7.1 blocked by policy"), 0},
		"out of office":    {"From: bob@example.org\r\nSubject: Out of office\r\nAuto-Submitted: auto-replied\r\n\r\nI am away until 550 5.1.1.\r\n", 0},
		"a person":         {"From: bob@example.org\r\nSubject: Re: the letter\r\n\r\nplease unsubscribe me\r\n", 0},
		"spam":             {"From: x@example.org\r\nSubject: buy\r\n\r\nbuy now\r\n", 0},
	} {
		addr, _ := p.person()
		p.say("250:MAIL FROM:<>", "250:RCPT TO:<"+strings.ToUpper(p.returnPath(addr))+">", "354:DATA", "250:"+c.message+".")
		story, err := optoutv1.NewSuppressionServiceClient(p.c.Conn()).ExplainAddress(t.Context(), &optoutv1.ExplainAddressRequest{Address: addr})
		if err != nil {
			t.Fatal(err)
		}
		got := optoutv1.EntryKind(0)
		if len(story.Entries) > 0 {
			got = story.Entries[0].Kind
		}
		if got != c.want || len(story.Entries) > 1 {
			t.Errorf("%s: %v, want %v", name, story.Entries, c.want)
		}
		if out := p.out(addr); out != (c.want == optoutv1.EntryKind_ENTRY_KIND_UNDELIVERABLE) {
			t.Errorf("%s: refused %v", name, out)
		}
	}
}

// A report that does not come to a signed return path suppresses nobody: the sender is told that there is no such address.
func TestForgedBouncesAreRefused(t *testing.T) {
	p := newPost(t)
	addr, unsubscribe := p.person()
	token := p.returnPath(addr)[2 : 2+link.Length]
	swap := "a"
	if token[30] == 'a' {
		swap = "b"
	}
	for _, local := range []string{"nobody", "b-", "u-" + token, "b-" + unsubscribe[2:2+link.Length], "b-" + token[:30] + swap + token[31:], "c-" + token} {
		p.say("250:MAIL FROM:<>", "550:RCPT TO:<"+local+"@unsub.example.com>")
	}
	if p.out(addr) {
		t.Error("suppressed")
	}
}
