package imapin

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
)

// fault is an error of our own words, which the log may hold.
type fault string

func (f fault) Error() string { return string(f) }

const (
	// errRefused: the server does not let the account in.
	errRefused = fault("the server refused user or password")
	// errNoMechanism: it knows no way to send a token.
	errNoMechanism = fault("the server takes no tokens: it offers neither AUTH=OAUTHBEARER nor AUTH=XOAUTH2")
	// errNoFolder: the server does not open the folder, and does not say that this will pass.
	errNoFolder = fault("the folder cannot be opened")
	// errSlow and errFlood: the server keeps no measure.
	errSlow  = fault("the server did not answer in time")
	errFlood = fault("the server sent more than was asked for")
	errLost  = fault("the connection was lost")
	errTLS   = fault("no TLS connection comes about")
)

// wire is the connection below the protocol (and below TLS). It lets through only as many octets as the command in hand may bring:
// the library reads answers of any length into memory.
type wire struct {
	net.Conn
	left atomic.Int64
	slow atomic.Bool
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if w.left.Add(-int64(n)) < 0 {
		return 0, errFlood
	}
	return n, err
}

// tap sees what comes over the connection in clear, and keeps it while it is told to. The library does not hand on the response code
// MODIFIED of a conditional STORE that did not come about (RFC 7162 section 3.1.3): its command ends well.
type tap struct {
	mu   sync.Mutex
	on   bool
	seen bytes.Buffer
}

func (t *tap) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.on && t.seen.Len() < answerOctets {
		t.seen.Write(b)
	}
	return len(b), nil
}

// during returns what came while f ran.
func (t *tap) during(f func() error) ([]byte, error) {
	t.mu.Lock()
	t.seen.Reset()
	t.on = true
	t.mu.Unlock()
	err := f()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.on = false
	return t.seen.Bytes(), err
}

// answerOctets is how much any answer may have but a message's.
const answerOctets = 1 << 20

// within runs commands that together may take so long and bring so many octets. Past either the connection is cut: there is no
// other way to take a command back.
func (s *session) within(limit time.Duration, octets int64, f func() error) error {
	s.wire.left.Store(octets)
	timer := time.AfterFunc(limit, func() {
		s.wire.slow.Store(true)
		s.wire.Close()
	})
	err := f()
	timer.Stop()
	switch {
	case err == nil:
		return nil
	case s.wire.slow.Load():
		return errSlow
	case s.wire.left.Load() < 0:
		return errFlood
	}
	return err
}

// command runs a command with a short answer.
func (s *session) command(f func() error) error { return s.within(s.p.pace.command, answerOctets, f) }

// connect dials, encrypts and authenticates. The connection ends a little after ctx, unless the session has ended before.
func (s *session) connect(ctx context.Context, ended <-chan struct{}) error {
	p, m := s.p, &s.p.mailbox
	by, err := p.proof(ctx)
	if err != nil {
		return err
	}
	s.until = by.until
	dialing, cancel := context.WithTimeout(ctx, p.pace.command)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(dialing, "tcp", m.Address)
	if err != nil {
		return err
	}
	s.wire = &wire{Conn: conn}
	s.wire.left.Store(answerOctets)
	s.tap = &tap{}
	s.unwatch = context.AfterFunc(ctx, func() {
		select {
		case <-time.After(grace):
			s.wire.Close()
		case <-ended:
		}
	})
	secure := &tls.Config{}
	if p.o.TLS != nil {
		secure = p.o.TLS.Clone()
	}
	if secure.ServerName == "" {
		secure.ServerName = m.Host
	}
	o := &imapclient.Options{TLSConfig: secure, DebugWriter: s.tap, UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(*imapclient.UnilateralDataMailbox) { s.nudge() },
		Expunge: func(uint32) { s.expunged.Add(1) },
	}}
	switch {
	case m.TLS:
		t := tls.Client(s.wire, secure)
		if err := t.HandshakeContext(dialing); err != nil {
			return fmt.Errorf("%w: %w", errTLS, err)
		}
		s.client = imapclient.New(t, o)
	case m.Loopback && p.o.TLS == nil:
		s.client = imapclient.New(s.wire, o)
	default:
		err = s.command(func() (err error) { s.client, err = imapclient.NewStartTLS(s.wire, o); return })
		if err != nil {
			if refusal(err) != nil {
				return fault("the server offers no STARTTLS: use imaps://")
			}
			return err
		}
	}
	return s.command(func() error { return s.login(by) })
}

// login authenticates with the first way that the server offers.
func (s *session) login(by proof) error {
	if err := s.client.WaitGreeting(); err != nil {
		return err
	}
	if s.client.State() != imap.ConnStateNotAuthenticated {
		return fault("the server takes the connection for somebody's without a password (PREAUTH): see to its settings")
	}
	caps, user, word := s.client.Caps(), s.p.mailbox.User, by.word
	var err error
	switch {
	case by.token && caps.Has(imap.AuthCap(sasl.OAuthBearer)):
		err = s.client.Authenticate(newOAuthBearer(user, word, s.p.mailbox.Address))
	case by.token && caps.Has(imap.AuthCap(xoauth2Mechanism)):
		err = s.client.Authenticate(xoauth2{user: user, token: word})
	case by.token:
		return errNoMechanism
	case caps.Has(imap.AuthCap(sasl.Plain)):
		err = s.client.Authenticate(sasl.NewPlainClient("", user, word))
	case caps.Has(imap.CapLoginDisabled):
		return fmt.Errorf("%w: it takes no passwords here (LOGINDISABLED); use imaps://", errRefused)
	default:
		err = s.client.Login(user, word).Wait()
	}
	e := refusal(err)
	if err == nil || e != nil && e.Code == imap.ResponseCodeUnavailable {
		return err
	}
	if by.token {
		// A token may be revoked before it expires, so the next connection asks for another.
		s.p.tokens.forget()
	}
	switch {
	case e == nil:
		return err
	case by.kept:
		return errTokenStale
	case by.token:
		return fmt.Errorf("%w (%s)", errTokenRefused, told(err))
	}
	return fmt.Errorf("%w (%s)", errRefused, told(err))
}

// refusal returns what the server says to a command that it does not do; nil when err is something else, such as a lost connection.
func refusal(err error) *imap.Error {
	if e := (*imap.Error)(nil); errors.As(err, &e) {
		return e
	}
	return nil
}

// told is what the log may say of an error. What a server writes in words, and the library's errors, which quote it, may hold addresses.
func told(err error) string {
	var (
		ours        fault
		network     *net.OpError
		certificate *tls.CertificateVerificationError
		file        *fs.PathError
		take        *notTaken
	)
	e := refusal(err)
	switch {
	case e != nil && e.Code != "":
		return fmt.Sprintf("the server answered %s [%s]", clip(string(e.Type)), clip(string(e.Code)))
	case e != nil:
		return "the server answered " + clip(string(e.Type))
	case errors.As(err, &ours), errors.As(err, &network), errors.As(err, &certificate), errors.As(err, &file), errors.As(err, &take):
		return err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errLost.Error()
	}
	return "the server's answer could not be read"
}
