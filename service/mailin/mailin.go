// Package mailin is the server for mail that comes in: sessions, limits, and answers. What an address is and what a message means
// the Intake says; 250 is answered only after the intake has it durable. It relays nothing and sends nothing: an address that the
// intake does not know is refused while the sender waits, so there is no backscatter.
package mailin

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Options are what the server needs. Intake, Hostname and Log are required.
type Options struct {
	// Intake knows the addresses and takes the messages.
	Intake Intake
	// Hostname is said in greetings.
	Hostname string
	// LMTP speaks LMTP (RFC 2033) in place of SMTP: behind the final dot each recipient has an answer of its own.
	LMTP bool
	// TLS offers STARTTLS (RFC 3207); nil does not.
	TLS    *tls.Config
	Limits Limits
	// Now is the clock of the rates; nil means the wall clock.
	Now func() time.Time
	Log *slog.Logger
}

// Limits bound what clients may take. Zero values mean the defaults. What is over a limit is asked to come again later, never
// refused for good: an opt-out that is refused is lost.
type Limits struct {
	// Connections at once; 500 by default. One network (an IPv4 /24 or IPv6 /48) may have a fifth of them. Loopback and unix
	// sockets have no such share: there is our own mail server.
	Connections int
	// Rate is how many recipients one network may name a second, with bursts of ten seconds' worth; 200 by default. A provider sends
	// the mail of all its users from a few networks. Loopback and unix sockets have no such limit.
	Rate int
	// Idle is how long the server waits for the next octet; 5 minutes by default (RFC 5321 section 4.5.3.2.7). While more than half
	// of the connections are in use it waits a thirtieth of that, so that nobody holds them all by being slow.
	Idle time.Duration
	// Work is how long a session may last from its beginning, or from the last message that was taken, to the next one; 10 minutes
	// by default, and a tenth of that while more than half of the connections are in use.
	Work time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.Connections == 0 {
		l.Connections = 500
	}
	if l.Rate == 0 {
		l.Rate = 200
	}
	if l.Idle == 0 {
		l.Idle = 5 * time.Minute
	}
	if l.Work == 0 {
		l.Work = 10 * time.Minute
	}
	return l
}

// Limits that no installation needs otherwise. RFC 5321 section 4.5.3.1 asks for at least 64 KiB and 100 recipients.
const (
	maxMessage    = 30 << 20
	maxRecipients = 100
	// maxLine is the longest line that is read, of a command or a message. RFC 5321 section 4.5.3.1.6 allows 1000 octets; some mail
	// programs write more, and their users want to opt out too.
	maxLine = 64 << 10
	// maxFaults is how many unknown recipients and refused messages a session may have before it is ended.
	maxFaults    = 20
	writeTimeout = time.Minute
	// openTimeout is how long the answer to a recipient may take.
	openTimeout = 10 * time.Second
	// commitTimeout is how long the answer to the final dot waits for the opt-outs to be durable.
	commitTimeout = 30 * time.Second
)

// Server is an SMTP or LMTP server.
type Server struct {
	smtp *smtp.Server
	door *door

	mu        sync.Mutex
	listeners []net.Listener
	closed    bool
}

// New makes the server.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Limits = o.Limits.withDefaults()
	d := newDoor(o.Limits, o.Now)
	s := smtp.NewServer(&backend{Options: o, door: d})
	s.Domain, s.LMTP, s.TLSConfig = o.Hostname, o.LMTP, o.TLS
	s.WriteTimeout = writeTimeout // how long is read, the door says
	s.MaxMessageBytes, s.MaxRecipients, s.MaxLineLength = maxMessage, maxRecipients, maxLine
	s.ErrorLog = slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug)
	return &Server{smtp: s, door: d}
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
	err := s.smtp.Serve(&doorListener{l, s.door})
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
