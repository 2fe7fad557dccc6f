package mailgate

import (
	"context"
	"crypto/tls"
	"io"
	"net/netip"
	"strings"
	"sync"

	"github.com/emersion/go-smtp"
	"golang.org/x/time/rate"

	"optout/service/ledger"
	"optout/service/outgoing"
)

type backend struct {
	*Server
	tries tries
	rates rates
}

func newBackend(s *Server) *backend {
	return &backend{Server: s, tries: tries{by: map[netip.Addr]*rate.Limiter{}}, rates: rates{per: s.o.Limits.Rate, by: map[uint32]*rate.Limiter{}}}
}

// NewSession begins a session.
func (b *backend) NewSession(c *smtp.Conn) (smtp.Session, error) {
	conn := c.Conn()
	t, secure := conn.(*tls.Conn)
	if secure {
		conn = t.NetConn()
	}
	w, _ := conn.(*watchedConn)
	return &session{b: b, conn: w, secure: secure}, nil
}

// session is one connection's; the library calls it from one goroutine, but for Logout.
type session struct {
	b    *backend
	conn *watchedConn
	// secure: the connection is TLS.
	secure bool
	key    *ledger.APIKey

	from string
	opts smtp.MailOptions
	to   []string

	// settled are the marks of a message that all its recipients have: it is forgotten when the caller turns out to know. writes
	// is how much had been written before its answer.
	mu      sync.Mutex
	settled []mark
	writes  int64
}

// settle takes the marks of the last message that all its recipients have, and leaves those of the next one.
func (s *session) settle(next []mark) (marks []mark, writes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	marks, writes, s.settled = s.settled, s.writes, next
	if s.conn != nil {
		s.writes = s.conn.writes.Load()
	}
	return marks, writes
}

func (s *session) addr() netip.Addr {
	if s.conn == nil {
		return netip.Addr{}
	}
	return s.conn.addr
}

// Reset begins a new transaction.
func (s *session) Reset() { s.from, s.opts, s.to = "", smtp.MailOptions{}, nil }

// Logout ends the session. A caller that was answered anything after the answer to its message (to QUIT, say) has read that one;
// one that went away may try again, so that what its recipients have is kept.
func (s *session) Logout() error {
	settled, writes := s.settle(nil)
	if len(settled) == 0 {
		return nil
	}
	if s.conn != nil && s.conn.writes.Load() > writes+1 {
		return s.b.memory.forget(settled)
	}
	return s.b.memory.keep(settled)
}

// Mail begins a message. Nobody sends without a credential: the gate is no relay.
func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	if s.key == nil {
		return errNeedAuth
	}
	if settled, _ := s.settle(nil); len(settled) > 0 { // the caller goes on, so it has read the answer to its last message
		if err := s.b.memory.forget(settled); err != nil {
			s.b.o.Log.Warn("the gate's memory could not be written", "error", err)
		}
	}
	if s.key = s.b.o.Judge.Current(s.key.Number); s.key == nil {
		return errRevoked
	}
	if !opts.UTF8 && !ascii(from) {
		return errNotUTF8
	}
	s.from, s.opts, s.to = from, *opts, nil
	return nil
}

var (
	errNotUTF8 = &smtp.SMTPError{Code: 553, EnhancedCode: smtp.EnhancedCode{5, 6, 7}, Message: "the address is not ASCII: it needs SMTPUTF8 (RFC 6531 section 3.5)"}
	errTwice   = &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 1, 5}, Message: "it is named already"}
)

// Rcpt checks a recipient the moment it is named.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if !s.opts.UTF8 && !ascii(to) {
		return errNotUTF8
	}
	if !s.b.rates.allow(s.key) {
		return errTooFast
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	if r := s.b.o.Judge.Foresee(ctx, s.key, "", to); r != nil {
		if r.Denied {
			s.b.observe(Event{Outcome: "refused"})
		}
		return wireError(r)
	}
	for _, have := range s.to {
		if have == to {
			return errTwice
		}
	}
	s.to = append(s.to, to)
	return nil
}

// Data takes the message, and sends it before it answers.
func (s *session) Data(r io.Reader) error {
	m, err := receive(r, s.b.o.Folder)
	if err != nil {
		return err
	}
	defer m.close()
	if len(s.to) == 0 {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 5, 1}, Message: "no valid recipients"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	answer, settled := s.b.deliver(ctx, s, m)
	s.settle(settled)
	s.b.observe(Event{Code: answer.Code})
	return answer
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

func wireError(r *outgoing.Refusal) *smtp.SMTPError {
	return &smtp.SMTPError{Code: r.Code, EnhancedCode: smtp.EnhancedCode(r.Enhanced), Message: r.Text}
}
