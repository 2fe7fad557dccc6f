package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/wneessen/go-mail"
	"go.uber.org/goleak"

	"optout/client"
	"optout/client/clienttest"
	optoutv1 "optout/proto/optout/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink is a real mail server that keeps what arrives. before, if set, runs when a client begins a message's transaction.
type sink struct {
	mu       sync.Mutex
	messages map[string][]string // by envelope recipient
	before   func(to string)
	refuse   string // a recipient it refuses
	host     string
	port     int
}

func newSink(t *testing.T) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{messages: map[string][]string{}}
	srv := smtp.NewServer(s)
	srv.Domain, srv.EnableSMTPUTF8 = "localhost", true
	srv.ReadTimeout, srv.WriteTimeout, srv.MaxMessageBytes, srv.MaxRecipients = 10*time.Second, 10*time.Second, 1<<20, 10
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	s.host, s.port = "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	return s
}

func (s *sink) NewSession(*smtp.Conn) (smtp.Session, error) { return &sinkSession{s: s}, nil }

func (s *sink) to(addr string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.messages[addr]
}

func (s *sink) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages {
		n += len(m)
	}
	return n
}

type sinkSession struct {
	s  *sink
	to []string
}

func (x *sinkSession) Reset()                               { x.to = nil }
func (x *sinkSession) Logout() error                        { return nil }
func (x *sinkSession) Mail(string, *smtp.MailOptions) error { return nil }
func (x *sinkSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if to == x.s.refuse {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	x.to = append(x.to, to)
	return nil
}
func (x *sinkSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	for _, to := range x.to {
		x.s.messages[to] = append(x.s.messages[to], string(b))
	}
	if x.s.before != nil {
		for _, to := range x.to {
			x.s.before(to)
		}
	}
	return nil
}

type setup struct {
	svc    *clienttest.Service
	client *client.Client
	mailer *client.Mailer
	sink   *sink
}

func newSetup(t *testing.T) *setup {
	t.Helper()
	s := &setup{svc: clienttest.Start(t), sink: newSink(t)}
	s.svc.CreateTopic(t, "news")
	s.client = s.svc.Client(t)
	m, err := mail.NewClient(s.sink.host, mail.WithPort(s.sink.port), mail.WithTLSPolicy(mail.NoTLS), mail.WithHELO("test.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	s.mailer = client.NewMailer(s.client, m)
	return s
}

func message(t *testing.T, to, cc, bcc []string) *mail.Msg {
	t.Helper()
	m := mail.NewMsg()
	if err := errors.Join(m.From("letters@example.com"), m.To(to...), m.Cc(cc...), m.Bcc(bcc...)); err != nil {
		t.Fatal(err)
	}
	m.Subject("hello")
	m.SetBodyString(mail.TypeTextPlain, "Hello.\n")
	return m
}

func (s *setup) optOut(t *testing.T, addr string) {
	t.Helper()
	if _, err := s.client.Unsubscribe(context.Background(), addr, nil); err != nil {
		t.Fatal(err)
	}
}

func outcomes(r client.Report) map[string]client.Outcome {
	m := map[string]client.Outcome{}
	for _, x := range r {
		m[x.Recipient] = x.Outcome
	}
	return m
}

func TestMailerDropsTheRefusedAndSaysSo(t *testing.T) {
	s := newSetup(t)
	s.optOut(t, "cc-out@example.com")
	s.optOut(t, "bcc-out@example.com")
	report, err := s.mailer.Send(t.Context(), "news", message(t, []string{"to@example.com"}, []string{"cc-out@example.com", "cc@example.com"},
		[]string{"bcc-out@example.com", "bcc@example.com"}))
	if err != nil {
		t.Fatal(err)
	}
	got := outcomes(report)
	for addr, want := range map[string]client.Outcome{"to@example.com": client.Sent, "cc@example.com": client.Sent, "bcc@example.com": client.Sent,
		"cc-out@example.com": client.Refused, "bcc-out@example.com": client.Refused} {
		if got[addr] != want {
			t.Errorf("%s: %v, want %v", addr, got[addr], want)
		}
	}
	if s.sink.total() != 3 {
		t.Errorf("%d messages arrived, want 3", s.sink.total())
	}
	links := map[string]bool{}
	for _, addr := range []string{"to@example.com", "cc@example.com", "bcc@example.com"} {
		for _, m := range s.sink.to(addr) {
			head, _, _ := strings.Cut(m, "\r\n\r\n")
			if strings.Contains(m, "bcc@") || strings.Contains(m, "-out@") {
				t.Errorf("the message to %s shows who else got it or was refused:\n%s", addr, head)
			}
			if strings.Count(head, "List-Unsubscribe: <https://mail.example.com/u/") != 1 || strings.Count(head, "\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n") != 1 {
				t.Errorf("the message to %s has not exactly one of each list field:\n%s", addr, head)
			}
			_, link, _ := strings.Cut(head, "List-Unsubscribe: <")
			link, _, _ = strings.Cut(link, ">")
			if links[link] {
				t.Error("two recipients got the same link")
			}
			links[link] = true
			press(t, s.svc, link)
			d, err := s.client.CheckSend(t.Context(), "news", addr)
			if err != nil || d.Send() {
				t.Errorf("the arriving link did not stop mail to %s: %v, %v", addr, d, err)
			}
		}
	}
}

func press(t *testing.T, svc *clienttest.Service, link string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	resp, err := c.Post("http://"+svc.HTTP+clienttest.PressPath(link), "application/x-www-form-urlencoded", strings.NewReader("List-Unsubscribe=One-Click"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatalf("pressing answered %s", resp.Status)
	}
}

// Somebody opts out after the first look and before their message leaves: it does not leave.
func TestMailerAsksAgainBeforeEachMessage(t *testing.T) {
	s := newSetup(t)
	s.sink.before = func(to string) {
		if to == "first@example.com" {
			s.client.Unsubscribe(context.Background(), "second@example.com", nil)
		}
	}
	report, err := s.mailer.Send(t.Context(), "news", message(t, []string{"first@example.com"}, nil, nil), message(t, []string{"second@example.com"}, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if report[0].Outcome != client.Sent || report[1].Outcome != client.Refused || len(s.sink.to("second@example.com")) != 0 {
		t.Errorf("%v", report)
	}
}

func TestMailerSendsNothingWhenItCannotAsk(t *testing.T) {
	s := newSetup(t)
	t.Run("unknown topic", func(t *testing.T) {
		report, err := s.mailer.Send(t.Context(), "nosuch", message(t, []string{"a@example.com"}, nil, nil))
		if !errors.Is(err, client.ErrCannotAsk) || client.Reason(err) != optoutv1.ErrorReason_ERROR_REASON_UNKNOWN_TOPIC || report.Count(client.NotAsked) != 1 {
			t.Errorf("%v, %v", report, err)
		}
	})
	t.Run("service gone in the middle", func(t *testing.T) {
		s.sink.before = func(string) { go s.svc.Stop(); time.Sleep(300 * time.Millisecond) }
		c := s.svc.Client(t, client.WithTimeout(time.Second))
		m, err := mail.NewClient(s.sink.host, mail.WithPort(s.sink.port), mail.WithTLSPolicy(mail.NoTLS), mail.WithHELO("test.example.com"))
		if err != nil {
			t.Fatal(err)
		}
		report, err := client.NewMailer(c, m).Send(t.Context(), "news", message(t, []string{"a@example.com"}, nil, nil), message(t, []string{"b@example.com"}, nil, nil),
			message(t, []string{"c@example.com"}, nil, nil))
		if !errors.Is(err, client.ErrCannotAsk) || report.Count(client.Sent) != 1 || report.Count(client.NotAsked) != 2 || s.sink.total() != 1 {
			t.Errorf("%v, %v; %d arrived", report, err, s.sink.total())
		}
	})
}

func TestMailerRefusesCommercialMailWithoutPostalAddress(t *testing.T) {
	s := newSetup(t)
	none := ""
	admin := optoutv1.NewAdminServiceClient(s.client.Conn())
	if _, err := admin.UpdateSender(t.Context(), &optoutv1.UpdateSenderRequest{PostalAddress: &none}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.mailer.Send(t.Context(), "news", message(t, []string{"a@example.com"}, nil, nil)); !errors.Is(err, client.ErrPostalAddress) {
		t.Errorf("%v", err)
	}
	if s.sink.total() != 0 {
		t.Error("a message left")
	}
}

func TestMailerTellsWhatTheServerRefused(t *testing.T) {
	s := newSetup(t)
	s.sink.refuse = "gone@example.com"
	report, err := s.mailer.Send(t.Context(), "news", message(t, []string{"gone@example.com", "here@example.com"}, nil, nil))
	got := outcomes(report)
	if err == nil || got["gone@example.com"] != client.Failed || got["here@example.com"] != client.Sent {
		t.Errorf("%v, %v", report, err)
	}
}

// A caller's own list fields are replaced, whichever way they were set.
func TestMailerReplacesListFields(t *testing.T) {
	s := newSetup(t)
	for name, set := range map[string]func(*mail.Msg){
		"generic":      func(m *mail.Msg) { m.SetListUnsubscribe("<https://old.example.com/x>") },
		"preformatted": func(m *mail.Msg) { m.SetGenHeaderPreformatted("List-Unsubscribe", "<https://old.example.com/x>") },
	} {
		m := message(t, []string{name + "@example.com"}, nil, nil)
		set(m)
		if _, err := s.mailer.Send(t.Context(), "news", m); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := s.sink.to(name + "@example.com")[0]; strings.Contains(got, "old.example.com") || strings.Count(got, "List-Unsubscribe: ") != 1 {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}

func TestBatchCheckSendSplitsByItself(t *testing.T) {
	s := newSetup(t)
	s.optOut(t, "p1000@example.com")
	for _, n := range []int{0, 1, 1000, 1001, 2500} {
		addresses := make([]string, n)
		for i := range addresses {
			addresses[i] = "p" + strconv.Itoa(i) + "@example.com"
		}
		if n > 1 {
			addresses[n-1] = "not an address"
		}
		decisions, err := s.client.BatchCheckSend(t.Context(), "news", addresses)
		if err != nil || len(decisions) != n {
			t.Fatalf("%d: %d decisions, %v", n, len(decisions), err)
		}
		for i, d := range decisions {
			want := i != 1000 && !(n > 1 && i == n-1)
			if d.Send() != want {
				t.Errorf("%d: address %d: %v", n, i, d)
			}
		}
		if n > 1 && decisions[n-1].Malformed == "" {
			t.Errorf("%d: the malformed one is not told", n)
		}
	}
	var zero client.Decision
	if zero.Send() {
		t.Error("the zero Decision permits")
	}
}
