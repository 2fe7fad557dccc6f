package mailin_test

import (
	"bufio"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"optout/client"
	"optout/client/clienttest"
	optoutv1 "optout/proto/optout/v1"
	"optout/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// post is a real service with mail in.
type post struct {
	t    testing.TB
	svc  *clienttest.Service
	c    *client.Client
	smtp string
	data string
	n    int
}

func newPost(t *testing.T) *post {
	t.Helper()
	p := &post{t: t}
	p.svc = clienttest.Start(t, func(c *service.Config) { c.SMTP, c.Admin, p.data = "127.0.0.1:0", "127.0.0.1:0", c.Data })
	p.smtp = p.svc.SMTP
	p.svc.CreateTopic(t, "news")
	p.c = p.svc.Client(t)
	return p
}

// person makes a new address and the mail address that unsubscribes it.
func (p *post) person() (addr, unsubscribe string) {
	p.t.Helper()
	p.n++
	addr = fmt.Sprintf("person%d@example.com", p.n)
	l, err := p.c.IssueLink(p.t.Context(), "news", addr, nil, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	unsubscribe, _, _ = strings.Cut(strings.TrimPrefix(l.Mailto, "mailto:"), "?")
	return addr, unsubscribe
}

func (p *post) out(addr string) bool {
	p.t.Helper()
	d, err := p.c.CheckSend(p.t.Context(), "news", addr)
	if err != nil {
		p.t.Fatal(err)
	}
	return !d.Send()
}

// say speaks SMTP: each line is a command, and its answer's code must begin with the digits before the colon.
func (p *post) say(lines ...string) {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.smtp)
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	r := textproto.NewReader(bufio.NewReader(conn))
	if _, _, err := r.ReadResponse(220); err != nil {
		p.t.Fatal(err)
	}
	for _, l := range append([]string{"250:EHLO mx.example.org"}, lines...) {
		code, command, _ := strings.Cut(l, ":")
		fmt.Fprintf(conn, "%s\r\n", command)
		got, text, err := r.ReadResponse(0)
		if err != nil {
			p.t.Fatalf("%.60q: %v", command, err)
		}
		if !strings.HasPrefix(fmt.Sprint(got), code) {
			p.t.Errorf("%.60q: %d %s, want %s", command, got, text, code)
		}
	}
}

// Apple marks its unsubscribe mail as an automatic reply (T1); Outlook leaves the subject empty (T2); a bounce address is empty
// where a forwarder made it so. The address decides.
func TestTokenedMailUnsubscribes(t *testing.T) {
	p := newPost(t)
	for name, message := range map[string]string{
		"Apple":                  "From: ann@icloud.com\r\nTo: x\r\nSubject: unsubscribe\r\nAuto-Submitted: auto-replied\r\nX-Apple-Unsubscribe: true\r\nMessage-ID: <1@icloud.com>\r\n\r\nApple Mail sent this email to unsubscribe\r\n",
		"Outlook, empty subject": "From: ann@outlook.com\r\nSubject: \r\n\r\n\r\n",
		"no header at all":       "stop\r\n",
		"a bulk list message":    "Precedence: bulk\r\nList-Id: <x.example.com>\r\n\r\nhello\r\n",
		"another sender":         "From: somebody-else@example.net\r\nSubject: hello\r\n\r\nI do not want to unsubscribe\r\n",
	} {
		addr, to := p.person()
		p.say("250:MAIL FROM:<>", "250:RCPT TO:<"+strings.ToUpper(to)+">", "354:DATA", "250:"+message+".")
		if !p.out(addr) {
			t.Errorf("%s: answered 250, but mail may still be sent", name)
		}
		story, err := optoutv1.NewSuppressionServiceClient(p.c.Conn()).ExplainAddress(t.Context(), &optoutv1.ExplainAddressRequest{Address: addr})
		if err != nil || len(story.Entries) != 1 || story.Entries[0].Channel != optoutv1.Channel_CHANNEL_MAILTO {
			t.Errorf("%s: %v, %v", name, story, err)
		}
	}
	first, a := p.person()
	second, b := p.person()
	p.say("250:MAIL FROM:<x@example.org>", "250:RCPT TO:<"+a+">", "250:RCPT TO:<"+b+">", "354:DATA", "250:Subject: x\r\n\r\nx\r\n.")
	if !p.out(first) || !p.out(second) {
		t.Error("one of two recipients was lost")
	}
}

// Everything else is refused while the sender waits: no relay, no backscatter, no second way to read a message.
func TestOtherMailIsRefused(t *testing.T) {
	p := newPost(t)
	addr, to := p.person()
	local, domain, _ := strings.Cut(to, "@")
	swap := "a"
	if strings.HasSuffix(local, "a") {
		swap = "b"
	}
	for _, rcpt := range []string{"newsletter@" + domain, "unsubscribe@example.org", "someone@example.org", "u-@" + domain, local[:len(local)-1] + "@" + domain,
		local[:40] + swap + local[41:] + "x@" + domain, "b-" + local[2:] + "@" + domain, "webmaster@" + domain} {
		p.say("250:MAIL FROM:<x@example.org>", "550:RCPT TO:<"+rcpt+">")
	}
	for name, message := range map[string]string{"bare LF": "Subject: x\r\n\r\nhello\nworld\r\n.", "bare CR": "Subject: x\r\n\r\nhello\rworld\r\n.", "NUL": "Subject: x\r\n\r\nhel\x00lo\r\n."} {
		p.say("250:MAIL FROM:<x@example.org>", "250:RCPT TO:<"+to+">", "354:DATA", "55:"+message)
		if p.out(addr) {
			t.Errorf("%s: refused, and unsubscribed all the same", name)
		}
	}
	p.say("250:MAIL FROM:<x@example.org>", "250:RCPT TO:<"+to+">", "354:DATA", "552:Subject: x\r\n\r\n"+strings.Repeat(strings.Repeat("a", 998)+"\r\n", 32000)+".")
	var many []string
	for range 100 {
		many = append(many, "250:RCPT TO:<"+to+">")
	}
	p.say(append(append([]string{"250:MAIL FROM:<x@example.org>"}, many...), "452:RCPT TO:<"+to+">")...)
}
