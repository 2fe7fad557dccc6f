package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/wneessen/go-mail"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
)

// fast is a Mailer whose service always permits, so that only the delivery is under test.
func fast(t *testing.T, s *sink) *client.Mailer {
	t.Helper()
	return client.NewMailer(newScripted().client(t), s.mail(t))
}

func three(t *testing.T) *mail.Msg {
	return message(t, []string{"a@example.com"}, []string{"b@example.com"}, []string{"c@example.com"})
}

// The messages of a call share a connection, and each is a transaction for one recipient, in brackets (RFC 5321 section 4.1.1).
func TestOneConnectionOneRecipientATransaction(t *testing.T) {
	k := newSink(t)
	m := three(t)
	if err := m.AddBcc(`"odd one"@example.com`); err != nil {
		t.Fatal(err)
	}
	report, err := fast(t, k).Send(t.Context(), "news", m)
	if err != nil || report.Count(client.Sent) != 4 || report[3].Recipient != `"odd one"@example.com` {
		t.Fatalf("%v, %v", report, err)
	}
	if k.dialled != 1 {
		t.Errorf("dialled %d times, want 1", k.dialled)
	}
	wire := k.octets()
	for _, want := range []string{"MAIL FROM:<letters@example.com>", "RCPT TO:<a@example.com>\r\n", "RCPT TO:<b@example.com>\r\n", "RCPT TO:<c@example.com>\r\n",
		"RCPT TO:<\"odd one\"@example.com>\r\n"} {
		if !strings.Contains(wire, want) {
			t.Errorf("no %q was sent", want)
		}
	}
	if n := strings.Count(wire, "RCPT TO:"); n != 4 {
		t.Errorf("%d recipients in four transactions", n)
	}
}

// A server that closes between messages, or says 421 to the next one, is dialled again, and nobody gets a message twice.
func TestLostConnectionIsDialledAgain(t *testing.T) {
	for name, onMail := range map[string]func(n int, c *smtp.Conn) error{
		"closed": func(n int, c *smtp.Conn) error {
			if n == 2 {
				c.Conn().Close()
				return errors.New("closed")
			}
			return nil
		},
		"421": func(n int, _ *smtp.Conn) error {
			if n == 2 {
				return &smtp.SMTPError{Code: 421, Message: "too many messages on this connection"}
			}
			return nil
		},
	} {
		k := newSink(t)
		k.onMail = onMail
		report, err := fast(t, k).Send(t.Context(), "news", three(t))
		if err != nil || report.Count(client.Sent) != 3 || k.total() != 3 || k.dialled != 2 {
			t.Errorf("%s: %v, %v; %d arrived over %d connections, want 3 over 2", name, report, err, k.total(), k.dialled)
		}
	}
}

// Before a message leaves over a new connection, the service is asked anew.
func TestDialledAgainAskedAgain(t *testing.T) {
	k := newSink(t)
	s := newScripted()
	var lost atomic.Bool
	k.onMail = func(n int, c *smtp.Conn) error {
		lost.Store(true)
		c.Conn().Close()
		return errors.New("closed")
	}
	permit := s.check
	s.check = func(r *optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
		if lost.Load() {
			return &optoutv1.CheckSendResponse{Verdict: optoutv1.Verdict_VERDICT_DO_NOT_SEND}, nil
		}
		return permit(r)
	}
	report, err := client.NewMailer(s.client(t), k.mail(t)).Send(t.Context(), "news", message(t, []string{"a@example.com"}, nil, nil))
	if err != nil || report[0].Outcome != client.Refused || k.total() != 0 {
		t.Errorf("%v, %v; %d arrived", report, err, k.total())
	}
}

// A connection that ends after the whole message and before its acknowledgement leaves it unknown whether the server has it. It
// is never repeated; the others go on.
func TestUnknownIsNeverRepeated(t *testing.T) {
	k := newSink(t)
	k.onData = func(to string, c *smtp.Conn) error {
		if to == "b@example.com" {
			c.Conn().Close()
		}
		return nil
	}
	report, err := fast(t, k).Send(t.Context(), "news", three(t))
	got := outcomes(report)
	if got["a@example.com"] != client.Sent || got["b@example.com"] != client.Unknown || got["c@example.com"] != client.Sent || len(k.to("b@example.com")) != 1 {
		t.Errorf("%v; %d messages for b", got, len(k.to("b@example.com")))
	}
	var e *client.DeliveryError
	if !errors.As(err, &e) || e.Code != 0 {
		t.Errorf("%v", err)
	}
}

// A connection that ends within the message has delivered nothing, so the message goes out again, whole.
func TestHalfAMessageIsNone(t *testing.T) {
	k := newSink(t)
	var cuts atomic.Int32
	k.unread = func(string, *smtp.Conn) int {
		if cuts.Add(1) == 1 {
			return 100
		}
		return 0
	}
	m := message(t, []string{"a@example.com"}, nil, nil)
	m.SetBodyString(mail.TypeTextPlain, strings.Repeat("A line of text that is long enough.\n", 300000)+"The end.\n")
	report, err := fast(t, k).Send(t.Context(), "news", m)
	if err != nil || report[0].Outcome != client.Sent || k.total() != 1 || !strings.HasSuffix(k.to("a@example.com")[0], "The end.\r\n") {
		t.Errorf("%v, %v; %d arrived", report[0], err, k.total())
	}
}

// A body that cannot be written sends nothing of that message, and does not hold up the others.
func TestUnwritableMessage(t *testing.T) {
	k := newSink(t)
	broken := message(t, []string{"a@example.com"}, nil, nil)
	broken.SetBodyWriter(mail.TypeTextPlain, func(w io.Writer) (int64, error) {
		n, _ := io.WriteString(w, "Dear ")
		return int64(n), errors.New("no such template")
	})
	report, err := fast(t, k).Send(t.Context(), "news", broken, message(t, []string{"b@example.com"}, nil, nil))
	if err == nil || !strings.Contains(err.Error(), "no such template") || report[0].Outcome != client.Failed || report[1].Outcome != client.Sent || k.total() != 1 {
		t.Errorf("%v, %v; %d arrived", report, err, k.total())
	}
	if strings.Contains(k.octets(), "Dear ") {
		t.Error("half a message was sent")
	}
}

func TestServerRefusals(t *testing.T) {
	k := newSink(t)
	k.refuse = "b@example.com"
	k.onData = func(to string, _ *smtp.Conn) error {
		if to == "c@example.com" {
			return &smtp.SMTPError{Code: 451, Message: "come back later"}
		}
		return nil
	}
	report, err := fast(t, k).Send(t.Context(), "news", three(t))
	got := outcomes(report)
	if got["a@example.com"] != client.Sent || got["b@example.com"] != client.Failed || got["c@example.com"] != client.Failed {
		t.Errorf("%v", got)
	}
	var b, c *client.DeliveryError
	if !errors.As(report[1].Err, &b) || b.Code != 550 || b.Step != "RCPT" || b.Temporary() || !errors.As(report[2].Err, &c) || c.Code != 451 || !c.Temporary() {
		t.Errorf("%v, %v", report[1].Err, report[2].Err)
	}
	var said *textproto.Error
	if strings.Contains(err.Error(), "b@example.com") || !errors.As(err, &said) || !strings.Contains(said.Msg, "b@example.com") {
		t.Errorf("the address belongs into what the server said, not into the text of the error: %v, %v", err, said)
	}
}

// A mail server that is away is dialled once, not once a recipient.
func TestMailServerAway(t *testing.T) {
	dialled := 0
	m, err := mail.NewClient("127.0.0.1", mail.WithTLSPolicy(mail.NoTLS), mail.WithDialContextFunc(func(context.Context, string, string) (net.Conn, error) {
		dialled++
		return nil, errors.New("connection refused")
	}))
	if err != nil {
		t.Fatal(err)
	}
	s := newScripted()
	report, err := client.NewMailer(s.client(t), m).Send(t.Context(), "news", three(t))
	var e *client.DeliveryError
	if !errors.As(err, &e) || e.Step != "connecting" || report.Count(client.Failed) != 3 || dialled != 1 || s.called("CheckSend") != 0 {
		t.Errorf("%v, %v; dialled %d times, asked %d times", report, err, dialled, s.called("CheckSend"))
	}
}

// When the caller gives up, no further message leaves; one that is out already is still acknowledged.
func TestGivingUp(t *testing.T) {
	k := newSink(t)
	ctx, cancel := context.WithCancel(t.Context())
	k.onData = func(to string, _ *smtp.Conn) error {
		if to == "b@example.com" {
			cancel()
			time.Sleep(50 * time.Millisecond)
		}
		return nil
	}
	report, err := fast(t, k).Send(ctx, "news", three(t))
	got := outcomes(report)
	if !errors.Is(err, context.Canceled) || got["a@example.com"] != client.Sent || got["b@example.com"] != client.Sent || got["c@example.com"] != client.NotAsked || k.total() != 2 {
		t.Errorf("%v, %v; %d arrived", got, err, k.total())
	}
}

// A server that does not answer does not hold a caller who gives up.
func TestGivingUpOnASilentServer(t *testing.T) {
	k := newSink(t)
	ctx, cancel := context.WithCancel(t.Context())
	silent := make(chan struct{})
	defer close(silent)
	k.onMail = func(int, *smtp.Conn) error {
		cancel()
		<-silent
		return nil
	}
	ended := make(chan client.Report, 1)
	mailer := fast(t, k)
	go func() {
		report, _ := mailer.Send(ctx, "news", three(t))
		ended <- report
	}()
	select {
	case report := <-ended:
		if report.Count(client.Sent) != 0 || report[0].Outcome != client.Failed || !errors.Is(report[0].Err, context.Canceled) || report[1].Outcome != client.NotAsked {
			t.Errorf("%v", report)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("still waiting")
	}
}

// A Mailer may be used by many at once.
func TestConcurrentSends(t *testing.T) {
	k := newSink(t)
	mailer := fast(t, k)
	ended := make(chan error, 8)
	for range cap(ended) {
		m := three(t)
		go func() {
			_, err := mailer.Send(t.Context(), "news", m)
			ended <- err
		}()
	}
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if k.total() != 3*cap(ended) {
		t.Errorf("%d arrived, want %d", k.total(), 3*cap(ended))
	}
}
