package mailgate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Upstream is the server behind the gate.
type Upstream struct {
	// Address is host:port.
	Address string
	// TLS is "starttls", "implicit" or "off"; empty means implicit at port 465, off on loopback, and starttls elsewhere.
	TLS string
	// Config verifies the server's certificate; nil means the system's authorities.
	Config *tls.Config
	// User and Password authenticate the gate, if not empty.
	User, Password string
}

const (
	dialTimeout = 20 * time.Second
	// commandTimeout is for one reply (RFC 5321 section 4.5.3.2), and acceptTimeout for the one to the final dot.
	commandTimeout = 2 * time.Minute
	acceptTimeout  = 7 * time.Minute
	// idleTime is how long a connection waits for its next message, and maxIdle how many wait.
	idleTime = 20 * time.Second
	maxIdle  = 64
	// watchEvery is how often the upstream is asked what it can, until it is used.
	watchEvery = 30 * time.Second
)

// upstream keeps connections to the server behind.
type upstream struct {
	Upstream
	hostname string
	log      *slog.Logger
	features atomic.Pointer[features]
	mu       sync.Mutex
	idle     []*wire
	closed   bool
}

// features are what the upstream said that it can.
type features struct{ known, utf8, eightBit bool }

// wire is one connection.
type wire struct {
	*smtp.Client
	features
	since time.Time // when it became idle
	used  bool
}

func newUpstream(u Upstream, hostname string, log *slog.Logger) (*upstream, error) {
	host, port, err := net.SplitHostPort(u.Address)
	if err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("--gate-upstream %q: give HOST:PORT", u.Address)
	}
	switch u.TLS {
	case "":
		switch {
		case port == "465":
			u.TLS = "implicit"
		case isLoopback(host):
			u.TLS = "off"
		default:
			u.TLS = "starttls"
		}
	case "starttls", "implicit", "off":
	default:
		return nil, fmt.Errorf("--gate-upstream-tls %q: use starttls, implicit or off", u.TLS)
	}
	if u.Password != "" && u.TLS == "off" && !isLoopback(host) {
		return nil, errors.New("--gate-upstream-tls off: the password would cross the network in clear: use starttls or implicit")
	}
	c := &tls.Config{}
	if u.Config != nil {
		c = u.Config.Clone()
	}
	if c.ServerName == "" {
		c.ServerName = host
	}
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	u.Config = c
	up := &upstream{Upstream: u, hostname: hostname, log: log}
	up.features.Store(&features{})
	return up, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// get returns a connection, an idle one if there is one.
func (u *upstream) get(ctx context.Context) (*wire, error) {
	u.mu.Lock()
	for n := len(u.idle); n > 0; n = len(u.idle) {
		w := u.idle[n-1]
		u.idle = u.idle[:n-1]
		if time.Since(w.since) < idleTime {
			u.mu.Unlock()
			return w, nil
		}
		w.Close()
	}
	u.mu.Unlock()
	return u.dial(ctx)
}

func (u *upstream) dial(ctx context.Context) (*wire, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", u.Address)
	if err != nil {
		return nil, err
	}
	if u.TLS == "implicit" {
		c = tls.Client(c, u.Config)
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	w, err := u.greet(c)
	if !stop() && err == nil {
		w.Close()
		return nil, ctx.Err()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	u.features.Store(&features{true, w.utf8, w.eightBit})
	return w, nil
}

func (u *upstream) greet(c net.Conn) (*wire, error) {
	var client *smtp.Client
	if u.TLS == "starttls" {
		var err error
		if client, err = smtp.NewClientStartTLS(c, u.Config); err != nil {
			return nil, err
		}
	} else {
		client = smtp.NewClient(c)
	}
	client.CommandTimeout, client.SubmissionTimeout = commandTimeout, acceptTimeout
	if err := client.Hello(u.hostname); err != nil {
		return nil, err
	}
	if u.User != "" {
		var auth sasl.Client = sasl.NewPlainClient("", u.User, u.Password)
		if !client.SupportsAuth(sasl.Plain) && client.SupportsAuth(sasl.Login) {
			auth = sasl.NewLoginClient(u.User, u.Password)
		}
		if err := client.Auth(auth); err != nil {
			return nil, fmt.Errorf("the upstream refused the gate's user and password: %w", err)
		}
	}
	w := &wire{Client: client}
	w.utf8, _ = client.Extension("SMTPUTF8")
	w.eightBit, _ = client.Extension("8BITMIME")
	return w, nil
}

// put gives a connection back after a whole transaction.
func (u *upstream) put(w *wire) {
	w.used, w.since = true, time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed || len(u.idle) >= maxIdle {
		w.Close()
		return
	}
	u.idle = append(u.idle, w)
}

// watch learns what the upstream can before the first message comes, and ends idle connections in good order.
func (u *upstream) watch(ctx context.Context) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		if !u.features.Load().known {
			if w, err := u.dial(ctx); err == nil {
				u.put(w)
			} else if ctx.Err() == nil {
				u.log.Warn("the gate's upstream does not answer; until it does, the gate answers 451", "upstream", u.Address, "error", err)
			}
		}
		u.sweep()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// sweep ends the connections that have waited too long.
func (u *upstream) sweep() {
	u.mu.Lock()
	var old, kept []*wire
	for _, w := range u.idle {
		if time.Since(w.since) < idleTime {
			kept = append(kept, w)
		} else {
			old = append(old, w)
		}
	}
	u.idle = kept
	u.mu.Unlock()
	for _, w := range old {
		w.end()
	}
}

// end says QUIT and closes, without waiting long.
func (w *wire) end() {
	w.CommandTimeout = time.Second
	if w.Quit() != nil {
		w.Close()
	}
}

func (u *upstream) close() {
	u.mu.Lock()
	u.closed = true
	idle := u.idle
	u.idle = nil
	u.mu.Unlock()
	for _, w := range idle {
		w.end()
	}
}

// letter is one transaction.
type letter struct {
	from string
	to   []string
	opts smtp.MailOptions
	// text writes header and body.
	text func(io.Writer) error
}

// reply is what became of one recipient of a transaction: nil err when the upstream has taken the message for them.
type reply struct {
	text string
	err  error
}

// errLost: the upstream was lost, or never reached. taken tells that it may have the message all the same.
type errLost struct {
	err   error
	taken bool
}

func (e *errLost) Error() string { return "the upstream was lost: " + e.err.Error() }
func (e *errLost) Unwrap() error { return e.err }

// send does one transaction, on an idle connection or a new one. It tries again, on a new connection, only when an idle one
// turns out to be dead before the message began.
func (u *upstream) send(ctx context.Context, w *wire, l *letter) []reply {
	all := make([]reply, len(l.to))
	fail := func(err error) []reply {
		for i := range all {
			if all[i].err == nil {
				all[i].err = err
			}
		}
		return all
	}
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer stop()
	if err := w.Mail(l.from, &l.opts); err != nil {
		if !isReply(err) {
			w.Close()
			if !w.used || ctx.Err() != nil {
				return fail(&errLost{err: err})
			}
			stop()
			fresh, err := u.dial(ctx)
			if err != nil {
				return fail(&errLost{err: err})
			}
			return u.send(ctx, fresh, l)
		}
		u.reset(w)
		return fail(err)
	}
	some := false
	for i, to := range l.to {
		err := w.Rcpt(to, nil)
		if err != nil && !isReply(err) {
			w.Close()
			return fail(&errLost{err: err})
		}
		all[i].err = err
		some = some || err == nil
	}
	if !some {
		u.reset(w)
		return all
	}
	d, err := w.Data()
	if err != nil {
		if isReply(err) {
			u.reset(w)
			return fail(err)
		}
		w.Close()
		return fail(&errLost{err: err})
	}
	if err := l.text(d); err != nil {
		w.Close() // without the final dot the upstream has taken nothing
		return fail(&errLost{err: err})
	}
	answer, err := d.CloseWithResponse()
	if err != nil {
		if isReply(err) {
			u.put(w)
			return fail(err)
		}
		w.Close()
		return fail(&errLost{err: err, taken: true})
	}
	u.put(w)
	for i := range all {
		all[i].text = answer.StatusText
	}
	return all
}

func (u *upstream) reset(w *wire) {
	if w.Reset() != nil {
		w.Close()
		return
	}
	u.put(w)
}

func isReply(err error) bool {
	var e *smtp.SMTPError
	return errors.As(err, &e)
}

// plainText makes an upstream's answer one line of printable ASCII without its enhanced code.
func plainText(s string) (enhanced smtp.EnhancedCode, text string) {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return -1
		}
		return r
	}, s)
	var e smtp.EnhancedCode
	if n, _ := fmt.Sscanf(s, "%d.%d.%d ", &e[0], &e[1], &e[2]); n == 3 && e[0] >= 2 && e[0] <= 5 {
		_, s, _ = strings.Cut(s, " ")
		enhanced = e
	}
	return enhanced, s[:min(len(s), 400)]
}
