package intake_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"go.uber.org/goleak"

	"optout/client"
	"optout/client/clienttest"
	optoutv1 "optout/proto/optout/v1"
	"optout/service"
	"optout/service/keydir"
	"optout/service/link"
	"optout/service/mailtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// office is a real service that takes mail, with a name server that it asks, and a clock that the test can set.
type office struct {
	t        *testing.T
	c        *client.Client
	feedback optoutv1.FeedbackServiceClient
	dns      *mailtest.DNS
	data     string
	smtp     string // the server's address, where an option has turned it on
	signer   ed25519.PrivateKey
	n        int

	mu     sync.Mutex
	offset time.Duration
}

const domain = "unsub.example.com"

func newOffice(t *testing.T, change func(*service.Config)) *office {
	t.Helper()
	o := &office{t: t, dns: mailtest.NewDNS(t)}
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o.signer = private
	key := "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)
	for _, d := range []string{"example.org", "arf.mail.yahoo.com", "evil.example"} {
		o.dns.TXT("s._domainkey."+d, key)
		o.dns.TXT("_dmarc."+d, "v=DMARC1; p=reject")
	}
	svc := clienttest.Start(t, func(c *service.Config) {
		c.Inbound.DNS, c.MailDomain, o.data = o.dns.Addr, domain, c.Data
		c.Now = func() time.Time {
			o.mu.Lock()
			defer o.mu.Unlock()
			return time.Now().Add(o.offset)
		}
		if change != nil {
			change(c)
		}
	})
	o.smtp = svc.SMTP
	svc.CreateTopic(t, "news")
	o.c = svc.Client(t)
	o.feedback = optoutv1.NewFeedbackServiceClient(o.c.Conn())
	return o
}

func (o *office) pass(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.offset += d
}

// sign signs a message for a domain, as its mail server does; fields are what is signed.
func (o *office) sign(domain, message string, fields ...string) string {
	o.t.Helper()
	if len(fields) == 0 {
		fields = []string{"From", "To", "Subject"}
	}
	var b bytes.Buffer
	if err := dkim.Sign(&b, strings.NewReader(message), &dkim.SignOptions{Domain: domain, Selector: "s", Signer: o.signer, HeaderKeys: fields}); err != nil {
		o.t.Fatal(err)
	}
	return b.String()
}

// mail is a message of a person; each has an id of its own.
func (o *office) mail(from, to, subject, body string) string {
	o.n++
	return fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: Mon, 02 Mar 2026 10:00:00 +0000\r\nMessage-ID: <%d@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%s\r\n", from, to, subject, o.n, body)
}

// take hands a message in as it came from a host, and tells what became of it.
func (o *office) take(to, message string, change ...func(*optoutv1.SubmitReportRequest)) *optoutv1.SubmitResult {
	o.t.Helper()
	r := &optoutv1.SubmitReportRequest{Message: []byte(message), Recipients: []string{to}, RemoteIp: "203.0.113.9", Helo: "mx.forwarder.example", MailFrom: "somebody@forwarder.example"}
	for _, f := range change {
		f(r)
	}
	resp, err := o.feedback.SubmitReport(o.t.Context(), r)
	if err != nil {
		o.t.Fatal(err)
	}
	return resp.Results[0]
}

// want checks what became of a message, and whether the address is out.
func (o *office) want(name string, r *optoutv1.SubmitResult, outcome string, addr string, out bool) {
	o.t.Helper()
	if got := strings.ToLower(strings.TrimPrefix(r.Outcome.String(), "SUBMIT_OUTCOME_")); got != outcome {
		o.t.Errorf("%s: %s (%s), want %s", name, got, r.Why, outcome)
	}
	if addr != "" && o.out(addr) != out {
		o.t.Errorf("%s: %s is out: %v (%s)", name, addr, !out, r.Why)
	}
}

func (o *office) out(addr string) bool {
	o.t.Helper()
	d, err := o.c.CheckSend(o.t.Context(), "news", addr)
	if err != nil {
		o.t.Fatal(err)
	}
	return !d.Send()
}

// confirm says yes again to the news, through the mailbox.
func (o *office) confirm(addr string) {
	o.t.Helper()
	o.n++
	id := fmt.Sprint("yes", o.n)
	sub := optoutv1.NewSubscriptionServiceClient(o.c.Conn())
	s, err := sub.Subscribe(o.t.Context(), &optoutv1.SubscribeRequest{Topic: "news", Address: addr, RequestId: id,
		Evidence: &optoutv1.ConsentEvidence{Source: "https://example.org/form", Wording: "Yes", Method: "tick-box"}})
	if err == nil {
		_, err = sub.ConfirmSubscription(o.t.Context(), &optoutv1.ConfirmSubscriptionRequest{Token: s.ConfirmationToken, RequestId: id + "c"})
	}
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o *office) story(addr string) []*optoutv1.Entry {
	o.t.Helper()
	s, err := optoutv1.NewSuppressionServiceClient(o.c.Conn()).ExplainAddress(o.t.Context(), &optoutv1.ExplainAddressRequest{Address: addr})
	if err != nil {
		o.t.Fatal(err)
	}
	return s.Entries
}

func (o *office) queue() []*optoutv1.QueuedMessage {
	o.t.Helper()
	r, err := o.feedback.ListQueue(o.t.Context(), &optoutv1.ListQueueRequest{PageSize: 1000})
	if err != nil {
		o.t.Fatal(err)
	}
	return r.Messages
}

// link is the unsubscribe URL of an address, as the mail to it carries.
func (o *office) link(addr string) string { return o.issue(addr).Url }

func (o *office) issue(addr string) *optoutv1.UnsubscribeLink {
	o.t.Helper()
	l, err := o.c.IssueLink(o.t.Context(), "news", addr, nil, 0)
	if err != nil {
		o.t.Fatal(err)
	}
	return l
}

// token is a token of ours for an address.
func (o *office) token(addr string, p link.Purpose) string {
	o.t.Helper()
	dir, err := keydir.Open(filepath.Join(o.data, "keys"))
	if err != nil {
		o.t.Fatal(err)
	}
	k := dir.Keys(keydir.Link)[0]
	ring, err := link.NewRing(uint8(k.ID), link.Key{ID: uint8(k.ID), Secret: k.Secret})
	if err != nil {
		o.t.Fatal(err)
	}
	url := o.link(addr)
	t, err := ring.Open(url[strings.LastIndexByte(url, '/')+1:], link.Unsubscribe)
	if err != nil {
		o.t.Fatal(err)
	}
	t.Purpose = p
	return string(ring.Append(nil, t))
}
