package mailin_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"optout/client/clienttest"
	optoutv1 "optout/proto/optout/v1"
	"optout/service"
	"optout/service/mailtest"
)

// entries are the kinds of entries of a person, newest first.
func (p *post) entries(addr string) (kinds []optoutv1.EntryKind) {
	p.t.Helper()
	story, err := optoutv1.NewSuppressionServiceClient(p.c.Conn()).ExplainAddress(p.t.Context(), &optoutv1.ExplainAddressRequest{Address: addr})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range story.Entries {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// metrics are the service's.
func (p *post) metrics() string {
	p.t.Helper()
	resp, err := http.Get("http://" + p.svc.Admin + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// within waits for up to 30 seconds.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 seconds", what)
		}
	}
}

// submit gives a message to a mail server.
func submit(t *testing.T, addr, from, to, text string) {
	t.Helper()
	c, err := smtp.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SendMail(from, []string{to}, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if err := c.Quit(); err != nil {
		t.Fatal(err)
	}
}

// Real mail servers bring unsubscribe mail, and really bounce: the letters to a server that refuses their recipients for good, for
// now until the letter is given up, or for reasons that say nothing of them. The bounces go to the signed return paths.
func TestRealMailServers(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T, relay, ours string) string{
		"Postfix": func(t *testing.T, relay, ours string) string {
			return mailtest.StartPostfix(t, relay, "transport_maps = inline:{ {unsub.example.com = smtp:["+strings.Replace(ours, ":", "]:", 1)+"} }",
				"maximal_queue_lifetime = 3s", "bounce_queue_lifetime = 5m").Addr
		},
		"Exim": func(t *testing.T, relay, ours string) string {
			return mailtest.StartExim(t, relay, map[string]string{"unsub.example.com": ours}).Addr
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, recipients := newPost(t), mailtest.NewSink(t)
			recipients.Refuse(func(to string) error {
				switch local, _, _ := strings.Cut(to, "@"); local {
				case "unknown":
					return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "user unknown"}
				case "full":
					return &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "mailbox full"}
				case "blocked":
					return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "refused by policy"}
				}
				return nil
			}, nil)
			server := start(t, recipients.Addr, p.smtp)
			const letter = "From: shop@example.com\r\nTo: you@example.org\r\nSubject: the letter\r\nMessage-ID: <1@shop.example>\r\n\r\nUnsubscribe below.\r\n"
			want := map[string][]optoutv1.EntryKind{}
			for who, kind := range map[string]optoutv1.EntryKind{"unknown": optoutv1.EntryKind_ENTRY_KIND_UNDELIVERABLE, "full": optoutv1.EntryKind_ENTRY_KIND_BOUNCED, "blocked": 0, "well": 0} {
				addr, _ := p.person()
				if want[addr] = nil; kind != 0 {
					want[addr] = []optoutv1.EntryKind{kind}
				}
				submit(t, server, p.returnPath(addr), who+"@example.org", letter)
			}
			addr, unsubscribe := p.person()
			want[addr] = []optoutv1.EntryKind{optoutv1.EntryKind_ENTRY_KIND_OPTED_OUT}
			submit(t, server, "ann@example.org", unsubscribe, "From: ann@example.org\r\nSubject: unsubscribe\r\n\r\n")

			recipients.Wait(t, 1)
			for addr, kinds := range want {
				within(t, name+", "+addr, func() bool { return len(p.entries(addr)) >= len(kinds) })
			}
			within(t, "the bounce that says nothing of its recipient", func() bool { return strings.Contains(p.metrics(), `optout_mail_in_total{outcome="ignored"} 1`) })
			for addr, kinds := range want {
				if got := p.entries(addr); len(got) != len(kinds) || len(got) > 0 && got[0] != kinds[0] {
					t.Errorf("%s: %v, want %v", addr, got, kinds)
				}
			}
		})
	}
}

// A real Postfix brings mail over LMTP on a unix socket, and hears of each recipient apart.
func TestPostfixOverLMTP(t *testing.T) {
	dir, err := os.MkdirTemp("", "lmtp") // not t.TempDir: Postfix's user must get through
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "lmtp")
	p := &post{t: t}
	p.svc = clienttest.Start(t, func(c *service.Config) { c.SMTP, p.data = "unix:"+socket, c.Data })
	p.svc.CreateTopic(t, "news")
	p.c = p.svc.Client(t)
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o660 {
		t.Errorf("the socket's mode is %v, want that its owner and group may use it", info.Mode().Perm())
	}
	if err := os.Chmod(socket, 0o666); err != nil { // in place of a common group
		t.Fatal(err)
	}
	postfix := mailtest.StartPostfix(t, "127.0.0.1:1", "transport_maps = inline:{ {unsub.example.com = lmtp:unix:"+socket+"} }")
	first, a := p.person()
	second, b := p.person()
	c, err := smtp.Dial(postfix.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SendMail("", []string{a, "u-unknown@unsub.example.com", b}, strings.NewReader("Subject: x\r\n\r\nx\r\n")); err != nil {
		t.Fatal(err)
	}
	within(t, "two people", func() bool { return p.out(first) && p.out(second) })
	within(t, "Postfix's log", func() bool {
		log, err := os.ReadFile(postfix.Log)
		return err == nil && strings.Count(string(log), "dsn=2.0.0, status=sent") == 2 && strings.Contains(string(log), "dsn=5.1.1, status=bounced")
	})
}
