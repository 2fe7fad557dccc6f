// Package mailgate is the SMTP gate: a submission server (RFC 6409) in front of any mail server, at which every recipient is
// checked when named and again before the message goes on. It has no queue: the answer of the server behind it is the caller's,
// and when the ledger or that server cannot be asked the answer is 451. What a message may carry, and to whom, package outgoing
// says; this one speaks SMTP on both sides.
package mailgate

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"optout/service/outgoing"
)

// Options are what the gate needs. All but TLS and Observe are required.
type Options struct {
	Judge  *outgoing.Judge
	Signer *outgoing.Signer
	// Upstream is the server behind the gate.
	Upstream Upstream
	// Profile is what kind of server that is.
	Profile Profile
	// VERP gives each copy a return path of its own, where the profile keeps the envelope.
	VERP bool
	// Hostname is said in greetings and to the upstream.
	Hostname string
	// TLS offers STARTTLS, and is needed for implicit TLS; nil does not.
	TLS *tls.Config
	// PlaintextAuth takes credentials on connections without TLS.
	PlaintextAuth bool
	// Folder is where large messages are spooled while they are sent, and where accepted recipients are remembered; made 0700.
	Folder string
	Limits Limits
	Now    func() time.Time
	Log    *slog.Logger
	// Observe takes what happens, for metrics; may be nil.
	Observe func(Event)
}

// Limits bound what callers may take. Zero values mean the defaults.
type Limits struct {
	// MessageBytes is the largest message; 50 MiB by default.
	MessageBytes int64
	// Connections at once; 500 by default. One address may have a fifth of them, but on loopback.
	Connections int
	// Rate is how many recipients one credential may name a second, with bursts of ten seconds' worth; 1000 by default.
	Rate int
}

const (
	maxRecipients = 100
	// maxCommand is the longest line that is read at all; a message's lines have their own, shorter limit.
	maxCommand = 64 << 10
	// readTimeout is for a command, and for a whole message (RFC 5321 section 4.5.3.2.7).
	readTimeout  = 5 * time.Minute
	writeTimeout = time.Minute
	// sendTimeout is how long the answer to the final dot may take: less than the ten minutes for which callers wait (RFC 5321
	// section 4.5.3.2.6).
	sendTimeout = 8 * time.Minute
)

// Event is something that happened, for metrics. Recipients are counted by Outcome, messages by Code.
type Event struct {
	// Outcome is what became of one recipient: "accepted", "refused" (when named), "withheld" (refused before the message went on),
	// "observed" (let through in observe mode), "rejected" or "deferred" by the upstream, "repeated" (had it from an earlier try).
	Outcome string
	// Code is the answer to one message; 0 when the event is about a recipient.
	Code int
	// CheckToAccepted is, for "accepted" and "observed", the time from the beginning of the last check to the upstream's 250.
	CheckToAccepted time.Duration
}

// Server is the gate.
type Server struct {
	o        Options
	backend  *backend
	upstream *upstream
	memory   *memory
	// servers are two faces of the gate: whether SMTPUTF8 is offered depends on what the upstream said last.
	plain, utf8 *smtp.Server
	quit        context.CancelFunc
	probing     sync.WaitGroup
	once        sync.Once

	mu        sync.Mutex
	listeners []net.Listener
	closed    bool
}

// New makes the gate.
func New(o Options) (*Server, error) {
	if o.Limits.MessageBytes == 0 {
		o.Limits.MessageBytes = 50 << 20
	}
	if o.Limits.Connections == 0 {
		o.Limits.Connections = 500
	}
	if o.Limits.Rate == 0 {
		o.Limits.Rate = 1000
	}
	up, err := newUpstream(o.Upstream, o.Hostname, o.Log)
	if err != nil {
		return nil, err
	}
	mem, err := openMemory(o.Folder, o.Now)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, upstream: up, memory: mem}
	s.backend = newBackend(s)
	s.plain, s.utf8 = s.face(false), s.face(true)
	ctx, quit := context.WithCancel(context.Background())
	s.quit = quit
	s.probing.Go(func() { up.watch(ctx) })
	return s, nil
}

func (s *Server) face(utf8 bool) *smtp.Server {
	f := smtp.NewServer(s.backend)
	f.Domain, f.TLSConfig, f.AllowInsecureAuth = s.o.Hostname, s.o.TLS, s.o.PlaintextAuth
	f.ReadTimeout, f.WriteTimeout = readTimeout, writeTimeout
	f.MaxMessageBytes, f.MaxRecipients, f.MaxLineLength = s.o.Limits.MessageBytes, maxRecipients, maxCommand
	f.EnableSMTPUTF8 = utf8
	f.ErrorLog = slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug)
	return f
}

// Serve answers on l until the gate is closed. With implicit, TLS begins with the connection (RFC 8314 section 3.3); otherwise
// it is offered by STARTTLS.
func (s *Server) Serve(l net.Listener, implicit bool) error {
	if !s.enter(l) {
		return nil
	}
	in := watched(l, s.o.Limits.Connections)
	faces := map[*smtp.Server]*face{s.plain: newFace(in), s.utf8: newFace(in)}
	var serving sync.WaitGroup
	for f, listener := range faces {
		serving.Go(func() { _ = f.Serve(listener) })
	}
	defer serving.Wait()
	defer func() {
		for _, f := range faces {
			f.Close()
		}
	}()
	for {
		c, err := in.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		if implicit {
			c = tls.Server(c, s.o.TLS)
		}
		f := faces[s.plain]
		if s.upstream.features.Load().utf8 {
			f = faces[s.utf8]
		}
		f.hand(c)
	}
}

// enter takes a listener that is to be closed with the gate. It reports false when that has happened already.
func (s *Server) enter(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		l.Close()
		return false
	}
	s.listeners = append(s.listeners, l)
	return true
}

// Close ends the gate: messages that are being sent get their answers first, for as long as ctx lasts. A second Close does nothing.
func (s *Server) Close(ctx context.Context) (err error) {
	s.once.Do(func() { err = s.end(ctx) })
	return err
}

func (s *Server) end(ctx context.Context) error {
	s.quit()
	s.mu.Lock()
	s.closed = true
	for _, l := range s.listeners { // the library closes only those that it has begun to serve
		l.Close()
	}
	s.mu.Unlock()
	var all sync.WaitGroup
	for _, f := range []*smtp.Server{s.plain, s.utf8} {
		all.Go(func() {
			if f.Shutdown(ctx) != nil {
				f.Close()
			}
		})
	}
	all.Wait()
	s.probing.Wait()
	s.upstream.close()
	return s.memory.close()
}

func (s *Server) observe(e Event) {
	if s.o.Observe != nil {
		s.o.Observe(e)
	}
}
