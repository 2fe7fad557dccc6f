// Package mailin is the server for mail that comes in: sessions, limits, and answers. What an address is and what a message means
// the Intake says; 250 is answered only after the intake has it durable. It relays nothing and sends nothing: an address that the
// intake does not know is refused while the sender waits, so there is no backscatter.
package mailin

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Options are what the server needs.
type Options struct {
	// Intake knows the addresses and takes the messages.
	Intake Intake
	// Hostname is said in greetings.
	Hostname string
	// TLS offers STARTTLS; nil does not.
	TLS *tls.Config
	Log *slog.Logger
}

// Limits. RFC 5321 section 4.5.3.1 asks for at least 64 KiB and 100 recipients.
const (
	maxMessage    = 30 << 20
	maxRecipients = 100
	maxLine       = 2000
	readTimeout   = time.Minute
	writeTimeout  = time.Minute
	// openTimeout is how long the answer to a recipient may take.
	openTimeout = 10 * time.Second
	// commitTimeout is how long the answer to the final dot waits for the opt-outs to be durable.
	commitTimeout = 30 * time.Second
	// maxConnections at once.
	maxConnections = 500
)

// Server is an SMTP server for unsubscribe mail.
type Server struct {
	smtp *smtp.Server

	mu        sync.Mutex
	listeners []net.Listener
	closed    bool
}

// New makes the server.
func New(o Options) *Server {
	s := smtp.NewServer(&backend{o})
	s.Domain = o.Hostname
	s.TLSConfig = o.TLS
	s.ReadTimeout, s.WriteTimeout = readTimeout, writeTimeout
	s.MaxMessageBytes, s.MaxRecipients, s.MaxLineLength = maxMessage, maxRecipients, maxLine
	s.ErrorLog = slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug)
	return &Server{smtp: s}
}

// Serve answers on l until the server is closed.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners = append(s.listeners, l)
	s.mu.Unlock()
	err := s.smtp.Serve(limited(l, maxConnections))
	if errors.Is(err, smtp.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Close ends the server: sessions get their answers first, for a moment.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, l := range s.listeners { // the library closes only those that it has begun to serve
		l.Close()
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.smtp.Shutdown(ctx); err != nil {
		return s.smtp.Close()
	}
	return nil
}

type backend struct{ Options }

// NewSession begins a session.
func (b *backend) NewSession(c *smtp.Conn) (smtp.Session, error) {
	s := &session{b: b, conn: c}
	if a, ok := c.Conn().RemoteAddr().(*net.TCPAddr); ok {
		s.remote = a.AddrPort().Addr().Unmap()
	}
	return s, nil
}

// session is one connection's; the library calls it from one goroutine.
type session struct {
	b      *backend
	conn   *smtp.Conn
	remote netip.Addr

	envelope *Envelope
	boxes    []Box
}

func refuse(code int, enhanced smtp.EnhancedCode, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text}
}

// Reset begins a new transaction.
func (s *session) Reset() { s.envelope, s.boxes = nil, nil }

// Logout ends the session.
func (s *session) Logout() error { return nil }

// Mail takes any sender, also the empty one: who forwards or bounces such mail is nobody's proof of anything, and to
// lose an opt-out is worse than to take one from a robot that was given the address.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	_, encrypted := s.conn.TLSConnectionState()
	s.envelope = &Envelope{Remote: s.remote, Helo: s.conn.Hostname(), MailFrom: from, TLS: encrypted}
	return nil
}

// Rcpt takes the addresses that the intake knows and refuses every other at once.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	box, err := s.b.Intake.Open(ctx, s.envelope, to)
	if errors.Is(err, ErrNoSuchAddress) {
		return refuse(550, smtp.EnhancedCode{5, 1, 1}, ErrNoSuchAddress.Error())
	}
	if err != nil {
		return answer(err)
	}
	s.boxes = append(s.boxes, box)
	return nil
}

// Data reads the message and answers when the intake has it durable and in force for every recipient.
func (s *session) Data(r io.Reader) error {
	results, err := s.take(r)
	if err != nil {
		return err
	}
	var refused error
	for _, err := range results {
		switch e := answer(err); {
		case e == nil:
		case temporary(e):
			return e
		default:
			refused = e
		}
	}
	return refused
}

func (s *session) take(r io.Reader) ([]error, error) {
	m, err := read(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	return s.b.Intake.Take(ctx, s.envelope, s.boxes, m), nil
}

// answer is what a sender is told of an intake's error; nil for nil.
func answer(err error) error {
	if err == nil {
		return nil
	}
	if refused := (*Refused)(nil); errors.As(err, &refused) {
		return refuse(550, smtp.EnhancedCode{5, 7, 1}, printable(refused.Text))
	}
	return refuse(451, smtp.EnhancedCode{4, 3, 0}, "the request could not be saved, please try again later")
}

func temporary(err error) bool {
	e, ok := err.(*smtp.SMTPError)
	return ok && e.Temporary()
}

var errOctets = refuse(550, smtp.EnhancedCode{5, 6, 0}, "the message holds bare CR, bare LF or NUL (RFC 5321 section 2.3.8)")

// read reads a whole message and keeps its beginning. It refuses octets that could be read in two ways.
func read(r io.Reader) (*Message, error) {
	m, digest := &Message{}, sha256.New()
	var last byte
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		for _, c := range buf[:n] {
			if c == 0 || (c == '\n') != (last == '\r') {
				return nil, errOctets
			}
			last = c
		}
		digest.Write(buf[:n])
		m.Size += int64(n)
		m.Raw = append(m.Raw, buf[:min(n, Kept-len(m.Raw))]...)
		switch {
		case err == io.EOF && last == '\r':
			return nil, errOctets
		case err == io.EOF:
			digest.Sum(m.Digest[:0])
			return m, nil
		case err != nil:
			return nil, err
		}
	}
}

// printable makes a text fit for a line of an answer.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f {
			return -1
		}
		return c
	}, s)
	return s[:min(len(s), 250)]
}

// limited bounds how many connections are open at once; more wait in the kernel.
func limited(l net.Listener, n int) net.Listener {
	return &limitedListener{l, make(chan struct{}, n)}
}

type limitedListener struct {
	net.Listener
	open chan struct{}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	l.open <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.open
		return nil, err
	}
	return &limitedConn{Conn: c, open: l.open}, nil
}

type limitedConn struct {
	net.Conn
	open chan struct{}
	once sync.Once
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.open })
	return err
}
