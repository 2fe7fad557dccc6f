package mailtest

import (
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// Message is one that a Sink has taken.
type Message struct {
	From string
	To   []string
	// Text is the message, octet for octet.
	Text string
}

// Header is the message's header, with the last line's end.
func (m *Message) Header() string { h, _, _ := strings.Cut(m.Text, "\r\n\r\n"); return h + "\r\n" }

// Body is what comes behind it.
func (m *Message) Body() string { _, b, _ := strings.Cut(m.Text, "\r\n\r\n"); return b }

// Fields returns the unfolded bodies of the fields of a name.
func (m *Message) Fields(name string) []string {
	var all []string
	for _, l := range strings.Split(strings.ReplaceAll(strings.ReplaceAll(m.Header(), "\r\n ", " "), "\r\n\t", " "), "\r\n") {
		if n, v, ok := strings.Cut(l, ":"); ok && strings.EqualFold(n, name) {
			all = append(all, strings.TrimSpace(v))
		}
	}
	return all
}

// Sink is a real SMTP server that keeps what it takes.
type Sink struct {
	// Addr is its address.
	Addr string

	mu   sync.Mutex
	got  []*Message
	rcpt func(to string) error
	data func(m *Message) error
}

// NewSink starts a sink, which ends with the test.
func NewSink(t testing.TB) *Sink {
	t.Helper()
	k := &Sink{}
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &sinkSession{k: k}, nil }))
	s.Domain, s.EnableSMTPUTF8 = "sink.example.net", true
	s.ReadTimeout, s.WriteTimeout = time.Minute, time.Minute
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k.Addr = l.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); l.Close(); <-done }) // the library closes only a listener that it has begun to serve
	return k
}

// Taken are the messages taken so far.
func (k *Sink) Taken() []*Message {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.got)
}

// Last is the newest message taken.
func (k *Sink) Last(t testing.TB) *Message {
	t.Helper()
	got := k.Taken()
	if len(got) == 0 {
		t.Fatal("nothing arrived")
	}
	return got[len(got)-1]
}

// Wait waits until n messages have been taken.
func (k *Sink) Wait(t testing.TB, n int) []*Message {
	t.Helper()
	for range 600 {
		if got := k.Taken(); len(got) >= n {
			return got
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%d messages arrived within 30 seconds, want %d", len(k.Taken()), n)
	return nil
}

// Forget drops what was taken.
func (k *Sink) Forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.got = nil
}

// Refuse sets what recipients and messages are answered from now on; nil takes them.
func (k *Sink) Refuse(rcpt func(to string) error, data func(m *Message) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rcpt, k.data = rcpt, data
}

type sinkSession struct {
	k *Sink
	m Message
}

func (s *sinkSession) Reset()        { s.m = Message{} }
func (s *sinkSession) Logout() error { return nil }
func (s *sinkSession) Mail(from string, _ *smtp.MailOptions) error {
	s.m.From = from
	return nil
}

func (s *sinkSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.k.mu.Lock()
	refuse := s.k.rcpt
	s.k.mu.Unlock()
	if refuse != nil {
		if err := refuse(to); err != nil {
			return err
		}
	}
	s.m.To = append(s.m.To, to)
	return nil
}

func (s *sinkSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m := &Message{From: s.m.From, To: s.m.To, Text: string(text)}
	s.k.mu.Lock()
	refuse := s.k.data
	s.k.mu.Unlock()
	if refuse != nil {
		if err := refuse(m); err != nil {
			return err
		}
	}
	s.k.mu.Lock()
	s.k.got = append(s.k.got, m)
	s.k.mu.Unlock()
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 6, 0}, Message: "queued as A1B2"}
}
