package intake_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	optoutv1 "optout/proto/optout/v1"
	"optout/service"
)

// outAt tells whether an address may not be mailed by a sender.
func (o *office) outAt(sender, addr string) bool {
	o.t.Helper()
	r, err := optoutv1.NewSuppressionServiceClient(o.c.Conn()).CheckSend(o.t.Context(), &optoutv1.CheckSendRequest{Sender: sender, Topic: "news", Address: addr})
	if err != nil {
		o.t.Fatal(err)
	}
	return r.Verdict != optoutv1.Verdict_VERDICT_SEND
}

// brand makes a second sender with a topic.
func (o *office) brand(s *optoutv1.Sender) {
	o.t.Helper()
	admin := optoutv1.NewAdminServiceClient(o.c.Conn())
	if _, err := admin.CreateSender(o.t.Context(), &optoutv1.CreateSenderRequest{Sender: s}); err != nil {
		o.t.Fatal(err)
	}
	if _, err := admin.CreateTopic(o.t.Context(), &optoutv1.CreateTopicRequest{Sender: s.Name, Topic: &optoutv1.Topic{Name: "news"}}); err != nil {
		o.t.Fatal(err)
	}
}

// Own words at a mail domain that senders share are for all of them; at a sender's own they are for it, and for the sender of the
// mail that is quoted.
func TestWhichSenderIsMeant(t *testing.T) {
	o := newOffice(t, nil)
	o.brand(&optoutv1.Sender{Name: "shared"})
	o.brand(&optoutv1.Sender{Name: "apart", MailDomain: "apart.example.com"})
	apart := "unsubscribe@apart.example.com"

	o.want("shared", o.take(at, o.sign("example.org", o.mail("ann@example.org", at, "unsubscribe", ""))), "opted_out", "ann@example.org", true)
	if !o.outAt("shared", "ann@example.org") || o.outAt("apart", "ann@example.org") {
		t.Error("the senders of the domain, and no other, are meant")
	}
	o.want("apart", o.take(apart, o.sign("example.org", o.mail("bob@example.org", apart, "unsubscribe", ""))), "opted_out", "bob@example.org", false)
	if o.outAt("shared", "bob@example.org") || !o.outAt("apart", "bob@example.org") {
		t.Error("the sender of the domain, and no other, is meant")
	}
	quote := "Please unsubscribe me.\r\n\r\nOn Mon, 2 Mar 2026 at 10:00, Example Letters <letters@example.com> wrote:\r\n> " + o.link("cy@work.example.net")
	o.want("apart, quoting default's", o.take(apart, o.sign("example.org", o.mail("cy@example.org", apart, "stop", quote))), "opted_out", "cy@work.example.net", true)
	if !o.outAt("apart", "cy@example.org") || o.out("cy@example.org") || o.outAt("shared", "cy@work.example.net") {
		t.Error("the sender that was written to is meant too, by the address that wrote")
	}
}

// A question at an address that senders share goes to the people of the default sender, whatever the others are called: a new brand
// does not take it from them.
func TestWhoReadsQuestionsAtASharedAddress(t *testing.T) {
	o := newOffice(t, nil)
	o.brand(&optoutv1.Sender{Name: "a-brand"})
	o.want("question", o.take(at, o.mail("ann@example.org", at, "Your opening hours?", "When do you open on Saturday?")), "queued", "ann@example.org", false)
	if q := o.queue(); len(q) != 1 || q[0].Address != "ann@example.org" {
		t.Errorf("the default sender's queue: %v", q)
	}
}

// The service's mail domain stays one of ours when every sender has its own: old footers and feedback loops name it.
func TestMailDomainOfTheServiceStays(t *testing.T) {
	o := newOffice(t, nil)
	apart := "apart.example.com"
	if _, err := optoutv1.NewAdminServiceClient(o.c.Conn()).UpdateSender(t.Context(), &optoutv1.UpdateSenderRequest{MailDomain: &apart}); err != nil {
		t.Fatal(err)
	}
	for i, to := range []string{at, "unsubscribe@" + apart} {
		addr := fmt.Sprintf("p%d@example.org", i)
		o.want(to, o.take(to, o.sign("example.org", o.mail(addr, to, "unsubscribe", ""))), "opted_out", addr, true)
	}
	fbl, yahoo := "fbl@"+domain, "Yahoo <feedback@arf.mail.yahoo.com>"
	o.want(fbl, o.take(fbl, o.sign("arf.mail.yahoo.com", o.arf(yahoo, "abuse", "List-Unsubscribe: <"+o.link("cy@example.net")+">\r\n"))), "complaint", "cy@example.net", true)
}

// That a message cannot be kept keeps nobody from being opted out.
func TestKeepingFails(t *testing.T) {
	o := newOffice(t, func(c *service.Config) { c.Inbound.KeepMail = time.Hour })
	if err := os.WriteFile(filepath.Join(o.data, "mail"), []byte("no folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	mailto := "u-" + o.link("bob@example.net")[strings.LastIndexByte(o.link("bob@example.net"), '/')+1:] + "@" + domain
	o.want("tokened", o.take(mailto, "Subject: x\r\n\r\nx\r\n"), "opted_out", "bob@example.net", true)
}

// Of mail that a server of our own brings it is not known what host it came from: SPF neither proves nor disproves it.
func TestRelays(t *testing.T) {
	for relays, want := range map[string]optoutv1.QueueDoubt{"": optoutv1.QueueDoubt_QUEUE_DOUBT_FORGED, "203.0.113.0/24": optoutv1.QueueDoubt_QUEUE_DOUBT_UNPROVED} {
		o := newOffice(t, func(c *service.Config) {
			if relays != "" {
				c.Inbound.Relays = []string{relays}
			}
		})
		o.dns.TXT("example.org", "v=spf1 ip4:203.0.113.9 -all")
		o.want("unsigned, by its host or a relay", o.take(at, o.mail("ann@example.org", at, "stop", ""), fromHost("203.0.113.9", "mx", "ann@example.org")), map[bool]string{true: "opted_out", false: "queued"}[relays == ""], "", false)
		o.take(at, o.mail("bob@example.org", at, "stop", ""), fromHost("203.0.113.10", "mx", "bob@example.org"))
		if q := o.queue(); len(q) == 0 || q[len(q)-1].Doubt != want {
			t.Errorf("relays %q: %v, want %v", relays, q, want)
		}
	}
}
