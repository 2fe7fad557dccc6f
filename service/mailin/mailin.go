// Package mailin takes mail for signed addresses: u-<token>@<mail domain>, the address in the List-Unsubscribe field, and
// b-<token>@<mail domain>, the return path that the SMTP gate gives each message (VERP). The envelope recipient decides and nothing else does: mail programs send any subject or none,
// any body, and Apple's mark themselves as automatic replies (RFC 3834's rule against acting on those protects addresses that
// people and vacation responders know; nobody but the mailed person's programs ever saw this one). At a return path only reports
// of failure count, and only for the one whose message it was: whatever else comes there is taken and forgotten. It relays nothing and
// answers nothing: an address that is not ours is refused while the sender waits, so there is no backscatter.
package mailin

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"optout/service/ledger"
	"optout/service/link"
	"optout/service/report"
)

// Options are what the server needs.
type Options struct {
	Ledger *ledger.Ledger
	// Ring is the current ring of link keys.
	Ring func() *link.Ring
	// Domains are the mail domains in force.
	Domains func() []string
	// Hostname is said in greetings.
	Hostname string
	// TLS offers STARTTLS; nil does not.
	TLS *tls.Config
	Log *slog.Logger
}

// Limits. RFC 5321 section 4.5.3.1 asks for at least 64 KiB and 100 recipients.
const (
	// Bounces often repeat the whole message that they are about; only the beginning is kept.
	maxMessage    = 30 << 20
	maxKept       = report.MaxMessage
	maxRecipients = 100
	maxLine       = 2000
	readTimeout   = time.Minute
	writeTimeout  = time.Minute
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
func (b *backend) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{b: b}, nil }

// session is one connection's; the library calls it from one goroutine.
type session struct {
	b      *backend
	tokens []link.Token
}

func refuse(code int, enhanced smtp.EnhancedCode, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text}
}

// Reset begins a new transaction.
func (s *session) Reset() { s.tokens = nil }

// Logout ends the session.
func (s *session) Logout() error { return nil }

// Mail takes any sender, also the empty one: who forwards or bounces such mail is nobody's proof of anything, and to
// lose an opt-out is worse than to take one from a robot that was given the address.
func (s *session) Mail(string, *smtp.MailOptions) error { return nil }

// Rcpt takes addresses with a token of ours and refuses every other at once.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	t, ok := s.b.open(to)
	if !ok {
		return refuse(550, smtp.EnhancedCode{5, 1, 1}, "there is no such address here")
	}
	s.tokens = append(s.tokens, t)
	return nil
}

// open reads the token out of an address of ours.
func (b *backend) open(to string) (link.Token, bool) {
	at := strings.LastIndexByte(to, '@')
	if at < 0 {
		return link.Token{}, false
	}
	local, domain := to[:at], strings.TrimSuffix(to[at+1:], ".")
	ours := false
	for _, d := range b.Domains() {
		ours = ours || strings.EqualFold(d, domain)
	}
	if !ours {
		return link.Token{}, false
	}
	purpose := link.Unsubscribe
	if len(local) > len(bouncePrefix) && strings.EqualFold(local[:len(bouncePrefix)], bouncePrefix) {
		purpose = link.Bounce
	} else if len(local) < len(link.MailPrefix) || !strings.EqualFold(local[:len(link.MailPrefix)], link.MailPrefix) {
		return link.Token{}, false
	}
	t, err := b.Ring().Open(local[2:], purpose)
	if err != nil {
		return t, false
	}
	_, _, _, known := b.Ledger.Registry().Scope(t.Scope)
	return t, known
}

var errOctets = refuse(550, smtp.EnhancedCode{5, 6, 0}, "the message holds bare CR, bare LF or NUL (RFC 5321 section 2.3.8)")

// bouncePrefix begins the local part of a return path.
const bouncePrefix = "b-"

// Data reads the message, of which only the Message-ID is kept as evidence, and answers when every opt-out is durable and in
// force. Until then the sender keeps the message and tries again, which is harmless.
func (s *session) Data(r io.Reader) error {
	text, err := keep(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	evidence := evidenceOf(text)
	for _, t := range s.tokens {
		generation, ok := s.b.Ledger.Registry().LinkGeneration(t.KeyID)
		if !ok {
			return refuse(451, smtp.EnhancedCode{4, 3, 0}, "please try again later")
		}
		by := ledger.By{Channel: ledger.ByMailto, Mailing: t.Mailing, Evidence: evidence}
		if t.Purpose == link.Bounce {
			err = s.b.bounce(ctx, by, t, generation, text)
		} else {
			_, err = s.b.Ledger.Press(ctx, by, t.Scope, generation, t.Key)
		}
		if err != nil {
			s.b.Log.Error("mail could not be recorded; its sender will try again", "error", err)
			return refuse(451, smtp.EnhancedCode{4, 3, 0}, "the request could not be saved, please try again later")
		}
	}
	return nil
}

// bounce records what a report at a return path says of the one whose message it was. What is no report of failure, or of a
// failure that says nothing of the address, changes nothing: to refuse it would only make another bounce.
func (b *backend) bounce(ctx context.Context, by ledger.By, t link.Token, generation uint16, text []byte) error {
	r := report.Parse(text)
	if r.Kind != report.Bounce {
		return nil
	}
	var worst *report.Recipient
	for i := range r.Recipients {
		x := &r.Recipients[i]
		if x.Class == report.Hard || x.Class == report.Soft && (worst == nil || worst.Class != report.Hard) {
			worst = x
		}
	}
	if worst == nil {
		return nil
	}
	failure := ledger.SoftFailure
	if worst.Class == report.Hard {
		failure = ledger.HardFailure
	}
	detail := map[string]string{}
	if worst.Status != "" {
		detail["status"] = worst.Status
	}
	by.Evidence["diagnostic"] = short(worst.Diagnostic)
	_, err := b.Ledger.Bounce(ctx, by, ledger.Tokened{Scope: t.Scope, Generation: generation, Key: t.Key}, ledger.Failed{Failure: failure, Detail: detail})
	return err
}

// keep reads a whole message and keeps its beginning. It refuses octets that could be read in two ways.
func keep(r io.Reader) ([]byte, error) {
	var kept []byte
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
		kept = append(kept, buf[:min(n, maxKept-len(kept))]...)
		switch {
		case err == io.EOF && last == '\r':
			return nil, errOctets
		case err == io.EOF:
			return kept, nil
		case err != nil:
			return nil, err
		}
	}
}

// evidenceOf keeps what identifies the message and whether it called itself automatic; nothing of what a person wrote.
func evidenceOf(text []byte) map[string]string {
	const maxHeader = 64 << 10
	head, _, _ := bytes.Cut(text, []byte("\r\n\r\n"))
	if len(head) > maxHeader {
		return map[string]string{}
	}
	h, err := textproto.NewReader(bufio.NewReader(io.MultiReader(bytes.NewReader(head), strings.NewReader("\r\n\r\n")))).ReadMIMEHeader()
	if err != nil && len(h) == 0 {
		return map[string]string{}
	}
	return map[string]string{"message_id": short(h.Get("Message-Id")), "auto_submitted": short(h.Get("Auto-Submitted"))}
}

func short(s string) string {
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
