package intake

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// greeted is a mail server that refuses those who do not say their name, as many do (RFC 5321 section 4.1.1.1).
type greeted struct {
	mu    sync.Mutex
	names []string
}

func (g *greeted) NewSession(c *smtp.Conn) (smtp.Session, error) { return &greetedSession{g, c}, nil }

type greetedSession struct {
	g *greeted
	c *smtp.Conn
}

func (s *greetedSession) Reset()                               {}
func (s *greetedSession) Logout() error                        { return nil }
func (s *greetedSession) Data(r io.Reader) error               { _, err := io.Copy(io.Discard, r); return err }
func (s *greetedSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s *greetedSession) Mail(string, *smtp.MailOptions) error {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	s.g.names = append(s.g.names, s.c.Hostname())
	if _, encrypted := s.c.TLSConnectionState(); !encrypted {
		return errors.New("plaintext")
	}
	return nil
}

// A mail server off this machine is spoken to by TLS alone, with a certificate for its name, and hears ours.
func TestRelayOffThisMachine(t *testing.T) {
	certified := httptest.NewTLSServer(nil) // for its certificate, which is for example.com
	defer certified.Close()
	authorities := x509.NewCertPool()
	authorities.AddCert(certified.Certificate())
	g := &greeted{}
	serve := func(config *tls.Config) net.Conn {
		s := smtp.NewServer(g)
		s.Domain, s.TLSConfig, s.ReadTimeout, s.WriteTimeout = "example.com", config, time.Minute, time.Minute
		s.ErrorLog = log.New(io.Discard, "", 0)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() { s.Serve(l) })
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(); s.Close(); l.Close(); serving.Wait() })
		return conn
	}
	offered := &tls.Config{Certificates: certified.TLS.Certificates}

	r := &Relay{Address: "example.com:25", Hostname: "mx.unsub.example", TLS: &tls.Config{RootCAs: authorities}}
	c, err := r.greet(serve(offered))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("", nil); err != nil {
		t.Error(err)
	}
	g.mu.Lock()
	if len(g.names) != 1 || g.names[0] != r.Hostname {
		t.Errorf("the server heard %q, want %q", g.names, r.Hostname)
	}
	g.mu.Unlock()

	for name, wrong := range map[string]struct {
		address string
		offered *tls.Config
	}{"a certificate for another": {"elsewhere.example.net:25", offered}, "no TLS": {"example.com:25", nil}} {
		r := &Relay{Address: wrong.address, Hostname: "mx.unsub.example", TLS: r.TLS}
		if c, err := r.greet(serve(wrong.offered)); err == nil {
			if err = c.Mail("", nil); err == nil {
				t.Errorf("%s: spoken to", name)
			}
		}
	}
}

// A server that takes connections and says nothing is waited for once, and then left alone for a minute: what is to be recorded waits
// behind it.
func TestSilentRelayIsNotWaitedForAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tried := make(chan net.Conn, 10)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			tried <- c
		}
	})
	defer accepting.Wait()
	defer l.Close()
	now := time.Now()
	r := &Relay{Address: l.Addr().String(), Hostname: "mail.example.com", Timeout: 50 * time.Millisecond, Now: func() time.Time { return now }}
	forward := func() error { return r.Forward(t.Context(), "people@example.com", []byte("Subject: x\r\n\r\nx\r\n")) }
	for range 5 {
		if err := forward(); !errors.Is(err, ErrMailOut) {
			t.Fatal(err)
		}
	}
	(<-tried).Close()
	now = now.Add(relayRest)
	if err := forward(); !errors.Is(err, ErrMailOut) {
		t.Fatal(err)
	}
	(<-tried).Close() // it was tried again
	if len(tried) != 0 {
		t.Errorf("tried %d times more", len(tried))
	}
}
