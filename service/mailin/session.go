package mailin

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/emersion/go-smtp"
)

type backend struct {
	Options
	door *door
}

// NewSession begins a session.
func (b *backend) NewSession(c *smtp.Conn) (smtp.Session, error) {
	beneath := c.Conn()
	t, encrypted := beneath.(*tls.Conn)
	if encrypted {
		beneath = t.NetConn()
	}
	return &session{b: b, helo: c, conn: beneath.(*conn), encrypted: encrypted}, nil
}

// session is one connection's. The library calls it from one goroutine, but for Data: of a message in chunks (RFC 3030) it may
// run while the next command is read.
type session struct {
	b         *backend
	helo      interface{ Hostname() string }
	conn      *conn
	encrypted bool

	mu       sync.Mutex
	envelope *Envelope
	boxes    []Box
	to       []string
}

func refuse(code int, enhanced smtp.EnhancedCode, text string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text}
}

var (
	errNotASCII = refuse(553, smtp.EnhancedCode{5, 6, 7}, "the address is not ASCII, and SMTPUTF8 is not offered (RFC 6531 section 3.5)")
	errTooFast  = refuse(451, smtp.EnhancedCode{4, 7, 1}, "too many recipients from your network at once, please try again later")
	errOver     = refuse(421, smtp.EnhancedCode{4, 7, 0}, "too many errors, closing the connection")
	errUnknown  = refuse(550, smtp.EnhancedCode{5, 1, 1}, ErrNoSuchAddress.Error())
	errUnsaved  = refuse(451, smtp.EnhancedCode{4, 3, 0}, "the request could not be saved, please try again later")
)

// Reset begins a new transaction.
func (s *session) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.envelope, s.boxes, s.to = nil, nil, nil
}

// Logout ends the session.
func (s *session) Logout() error { return nil }

// Mail takes any sender, also the empty one: who forwards or bounces such mail is nobody's proof of anything, and to
// lose an opt-out is worse than to take one from a robot that was given the address.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if s.conn.over.Load() {
		return errOver
	}
	if !ascii(from) {
		return s.fault(errNotASCII)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.envelope, s.boxes, s.to = &Envelope{Remote: s.conn.addr, Helo: printable(s.helo.Hostname()), MailFrom: from, TLS: s.encrypted}, nil, nil
	return nil
}

// Rcpt takes the addresses that the intake knows and refuses every other at once.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.conn.over.Load() {
		return errOver
	}
	if !s.b.door.allow(s.conn.network) {
		return errTooFast
	}
	if !ascii(to) {
		return s.fault(errNotASCII)
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	box, err := s.b.Intake.Open(ctx, s.envelope, to)
	switch {
	case errors.Is(err, ErrNoSuchAddress):
		return s.fault(errUnknown)
	case err != nil:
		return errUnsaved
	}
	s.boxes, s.to = append(s.boxes, box), append(s.to, to)
	return nil
}

// fault counts a permanent refusal. A client with too many of them guesses addresses, or does not understand: it is told to go.
func (s *session) fault(err *smtp.SMTPError) error {
	if !err.Temporary() && s.conn.fault() {
		return errOver
	}
	return err
}

// Data takes a message over SMTP, where one answer stands for all recipients.
func (s *session) Data(r io.Reader) error {
	results, _, refused := s.take(r)
	if refused != nil {
		return s.fault(refused)
	}
	if errors.Join(results...) != nil {
		return errUnsaved
	}
	s.conn.renew()
	return nil
}

// LMTPData takes a message over LMTP, where each recipient has an answer of its own (RFC 2033 section 4.2).
func (s *session) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	results, to, refused := s.take(r)
	if refused != nil {
		return s.fault(refused)
	}
	for i, err := range results {
		if err != nil {
			status.SetStatus(to[i], errUnsaved)
			continue
		}
		s.conn.renew()
		status.SetStatus(to[i], nil)
	}
	return nil
}

// take reads the message, and returns the intake's results and the recipients for which they stand.
func (s *session) take(r io.Reader) (results []error, to []string, refused *smtp.SMTPError) {
	s.mu.Lock()
	envelope, boxes, to := s.envelope, s.boxes, s.to
	s.mu.Unlock()
	if s.conn.over.Load() {
		return nil, nil, errOver
	}
	s.conn.octets.Store(commandOctets + messageOctets) // the library reads to the end also a message that is refused here
	m, done, refused := s.b.door.read(r, s.conn.network)
	defer done()
	if refused != nil {
		return nil, nil, refused
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	results = s.b.Intake.Take(ctx, envelope, boxes, m)
	if len(results) != len(boxes) {
		s.b.Log.Error("mail could not be recorded: the intake has not answered for each recipient")
		return nil, nil, errUnsaved
	}
	return results, to, nil
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

// printable makes a client's name fit for the record.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f {
			return -1
		}
		return c
	}, s)
	return s[:min(len(s), 250)]
}
