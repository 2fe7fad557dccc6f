package intake_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	optoutv1 "optout/proto/optout/v1"
	"optout/service"
	"optout/service/ledger"
	"optout/service/link"
	"optout/service/mailtest"
)

// What somebody signed for another list does not become ours by fields that anybody can add, or that two readers read in two ways.
func TestReaddressedByOtherFields(t *testing.T) {
	o := newOffice(t, nil)
	n := 0
	elsewhere := func(to string) (addr, message string) {
		n++
		addr = fmt.Sprintf("p%d@example.org", n)
		return addr, o.sign("example.org", o.mail(addr, to, "unsubscribe", "unsubscribe"))
	}
	for _, field := range []string{"Cc", "Delivered-To", "X-Original-To", "Envelope-To"} {
		addr, message := elsewhere("leave@evil.example")
		o.want(field, o.take(at, field+": "+at+"\r\n"+message), "queued", addr, false)
	}
	for _, to := range []string{at + " <leave@evil.example>", `"` + at + `" <leave@evil.example>`, "leave@evil.example (" + at + ")"} {
		addr, message := elsewhere(to)
		o.want(to, o.take(at, message), "queued", addr, false)
	}
	addr, message := elsewhere("leave@lists.example.net, " + at)
	o.want("to both", o.take(at, message), "opted_out", addr, true)
}

// A message to one address of ours counts once there, however often and in whatever letters the envelope names it.
func TestOneRecipientManyTimes(t *testing.T) {
	sink := mailtest.NewSink(t)
	o := newOffice(t, func(c *service.Config) { c.Inbound.MailOut = sink.Addr })
	people := "people@example.com"
	if _, err := optoutv1.NewAdminServiceClient(o.c.Conn()).UpdateSender(t.Context(), &optoutv1.UpdateSenderRequest{ForwardAddress: &people}); err != nil {
		t.Fatal(err)
	}
	o.take(at, o.mail("fred@example.org", at, "opening hours", "When is your shop open on Sundays?"), func(r *optoutv1.SubmitReportRequest) {
		r.Recipients = []string{at, strings.ToUpper(at), "Unsubscribe@" + domain, at + "."}
	})
	if n := len(sink.Taken()); n != 1 {
		t.Errorf("passed on %d times", n)
	}
}

// A server's refusal names the recipient; the log does not.
func TestRefusedReplyKeepsTheAddressOutOfTheLog(t *testing.T) {
	sink := mailtest.NewSink(t)
	var mu sync.Mutex
	var log bytes.Buffer
	o := newOffice(t, func(c *service.Config) {
		c.Inbound.MailOut, c.Inbound.Reply = sink.Addr, true
		c.Log = slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return log.Write(p)
		}), nil))
	})
	sink.Refuse(func(to string) error { return &smtp.SMTPError{Code: 450, Message: "<" + to + ">: greylisted"} }, nil)
	o.take(at, o.sign("example.org", o.mail("ann@example.org", at, "unsubscribe", "")))
	text := func() string { mu.Lock(); defer mu.Unlock(); return log.String() }
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(text(), "a reply could not be sent"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no word of the reply")
		}
	}
	if strings.Contains(text(), "ann@") {
		t.Errorf("the log names the person:\n%s", text())
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// Whoever has return paths of their own can make no storm of another's domain with them, nor fill the queue in one.
func TestForgedStorm(t *testing.T) {
	o := newOffice(t, nil)
	daemon := fromHost("203.0.113.9", "mx.evil.example", "")
	bounce := func(addr, named string) *optoutv1.SubmitResult {
		o.n++ // each is another report
		return o.take("b-"+o.token(addr, link.Bounce)+"@"+domain, fmt.Sprintf("Message-ID: <%d@mx.evil.example>\r\n", o.n)+dsn(named, "5.1.1"), daemon)
	}
	for i := range 60 {
		bounce(fmt.Sprintf("m%d@evil.example", i), fmt.Sprintf("m%d@example.net", i))
	}
	o.want("a real one", bounce("gone@example.net", "gone@example.net"), "bounce", "gone@example.net", true)
	before := len(o.queue())
	for range 5 {
		bounce("m70@evil.example", "m70@example.net")
	}
	if n := len(o.queue()) - before; n != 1 {
		t.Errorf("one address waits %d times", n)
	}
}

func truncated(r *optoutv1.SubmitReportRequest) { r.Truncated = true }

// A part of a message neither proves nor disproves who wrote it: its signature is of the whole.
func TestPartsProveNothing(t *testing.T) {
	o := newOffice(t, nil)
	whole := o.sign("example.org", o.mail("ann@example.org", at, "unsubscribe", "unsubscribe")+"Ann\r\n")
	o.want("a part", o.take(at, strings.TrimSuffix(whole, "Ann\r\n"), truncated), "queued", "ann@example.org", false)
	if q := o.queue(); len(q) != 1 || q[0].Doubt != optoutv1.QueueDoubt_QUEUE_DOUBT_UNPROVED {
		t.Errorf("%v", q)
	}
}

// What comes from one network is one flood, however many hosts of it bring it.
func TestFloodOfANetwork(t *testing.T) {
	for name, c := range map[string]struct {
		host string
		held bool
	}{
		"one IPv4 /24": {"203.0.113.%d", true}, "several": {"203.0.%d.1", false},
		"one IPv6 /48": {"2001:db8:1:%d::1", true}, "several of IPv6": {"2001:db8:%d::1", false},
	} {
		o := newOffice(t, func(c *service.Config) { c.Inbound.SourceLimit = 2 })
		for i := range 3 {
			addr := fmt.Sprintf("p%d@example.net", i)
			o.take(at, o.mail(addr, at, "stop", ""), fromHost(fmt.Sprintf(c.host, i+1), "mx.example.net", addr))
		}
		for _, q := range o.queue() {
			if q.Held != c.held {
				t.Errorf("%s: held %v, want %v", name, q.Held, c.held)
			}
		}
	}
}

// No sender takes over what another's mail domain is for by naming it as its contact address.
func TestContactAddressInAMailDomain(t *testing.T) {
	o := newOffice(t, nil)
	admin := optoutv1.NewAdminServiceClient(o.c.Conn())
	if _, err := admin.CreateSender(t.Context(), &optoutv1.CreateSenderRequest{Sender: &optoutv1.Sender{Name: "other"}}); err != nil {
		t.Fatal(err)
	}
	taken, other := at, "other"
	if _, err := admin.UpdateSender(t.Context(), &optoutv1.UpdateSenderRequest{Name: other, ContactAddress: &taken}); err != nil {
		t.Fatal(err)
	}
	o.want("unsubscribe@ of the first", o.take(at, o.sign("example.org", o.mail("ann@example.org", at, "", ""))), "opted_out", "ann@example.org", true)
}

// Some providers, Microsoft for one, sign From and Subject but not To. What their own host brings, or a trusted server vouches for, is
// as certain as if they did not sign at all.
func TestSignatureWithoutTo(t *testing.T) {
	o := newOffice(t, func(c *service.Config) { c.Inbound.AuthservIDs = []string{"mx.example.com"} })
	o.dns.TXT("example.org", "v=spf1 ip4:192.0.2.1 -all")
	signed := func(addr string) string {
		return o.sign("example.org", o.mail(addr, at, "unsubscribe", "unsubscribe"), "From", "Date", "Subject", "Message-ID", "Content-Type", "MIME-Version")
	}
	o.want("from its own host", o.take(at, signed("p1@example.org"), fromHost("192.0.2.1", "mx.example.org", "p1@example.org")), "opted_out", "p1@example.org", true)
	o.want("vouched for", o.take(at, "Authentication-Results: mx.example.com; dmarc=pass header.from=example.org\r\n"+signed("p2@example.org")), "opted_out", "p2@example.org", true)
	o.want("forwarded by her provider for another customer", o.take(at, o.sign("example.org", o.mail("p4@example.org", "bob@example.org", "unsubscribe", "unsubscribe")), fromHost("192.0.2.1", "mx.example.org", "bob+forward@example.org")), "queued", "p4@example.org", false)
	o.want("forwarded unsigned", o.take(at, o.mail("p5@example.org", "bob@example.org", "unsubscribe", "unsubscribe"), fromHost("192.0.2.1", "mx.example.org", "bob+forward@example.org")), "queued", "p5@example.org", false)
	o.want("sent on by another host", o.take(at, signed("p3@example.org")), "queued", "p3@example.org", false)
}

// Who writes from a domain cannot use up what others of it may bring: where it is not known from where mail comes, only the message says
// so. A mailbox with years of mail is read to its end, too.
func TestManyOfOneDomain(t *testing.T) {
	o := newOffice(t, nil)
	for i := range ledger.MaxPerSource + 1 {
		r := o.take(at, o.mail(fmt.Sprintf("p%d@example.net", i), at, "opening hours", "When is your shop open on Sundays?"), fromHost("", "", ""))
		if r.Outcome != optoutv1.SubmitOutcome_SUBMIT_OUTCOME_QUEUED {
			t.Fatalf("message %d: %v", i, r)
		}
	}
}

// An address of the sender's may be forwarded to another of its: whoever writes to one has written to the sender.
func TestWrittenToAnotherAddressOfTheSender(t *testing.T) {
	o := newOffice(t, nil)
	o.brand(&optoutv1.Sender{Name: "apart", MailDomain: "apart.example.com"})
	contact := "help@example.com"
	if _, err := optoutv1.NewAdminServiceClient(o.c.Conn()).UpdateSender(t.Context(), &optoutv1.UpdateSenderRequest{ContactAddress: &contact}); err != nil {
		t.Fatal(err)
	}
	to := func(addr, to string) string {
		return o.sign("example.org", o.mail(addr, to, "unsubscribe", "unsubscribe"))
	}
	o.want("its contact address", o.take(at, to("p1@example.org", contact)), "opted_out", "p1@example.org", true)
	o.want("another sender's address", o.take(at, to("p2@example.org", "unsubscribe@apart.example.com")), "queued", "p2@example.org", false)
	o.want("its address for complaints", o.take(at, to("p3@example.org", "fbl@"+domain)), "queued", "p3@example.org", false)
}

// A Message-ID is handed on by whoever answers, to all whom they copy. It says whose message a reply or complaint is about; nobody can
// make its recipient undeliverable with it, as the return path can.
func TestMessageIDIsNoReturnPath(t *testing.T) {
	o := newOffice(t, nil)
	l := o.issue("ann@example.net")
	o.want("of the Message-ID", o.take("b-"+l.MessageToken+"@"+domain, dsn("ann@example.net", "5.1.1")), "not_ours", "ann@example.net", false)
	o.want("of the return path", o.take("b-"+l.ReturnToken+"@"+domain, dsn("ann@example.net", "5.1.1")), "bounce", "ann@example.net", true)
	o.want("a complaint that quotes the Message-ID", o.take("fbl@"+domain, o.sign("arf.mail.yahoo.com", o.arf("Yahoo <feedback@arf.mail.yahoo.com>", "abuse",
		"Message-ID: <1.b-"+o.issue("bob@example.net").MessageToken+"@example.com>\r\n"))), "complaint", "bob@example.net", true)
}
