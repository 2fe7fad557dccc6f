package intake

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Relay passes mail on to a mail server of one's own: questions to people, and replies.
type Relay struct {
	// Address is host:port. Off loopback the server must offer STARTTLS with a certificate for host.
	Address string
	// Hostname is said in EHLO.
	Hostname string
	// TLS verifies the server's certificate; nil means the system's authorities.
	TLS *tls.Config
	// Timeout bounds a whole delivery; 0 means 20 seconds, which leaves time for the answer to who brought the message.
	Timeout time.Duration
	// Now is the clock; nil means the wall clock.
	Now func() time.Time

	mu sync.Mutex
	// restUntil is until when nothing is tried: the server used up the time of a delivery.
	restUntil time.Time
	// passed is what was passed on of late; order is a ring of it whose oldest stands at next.
	passed map[[sha256.Size]byte]struct{}
	order  [][sha256.Size]byte
	next   int
}

const (
	// maxPassed is how many messages passed on are remembered, so that one that is handed in again is passed on once.
	maxPassed = 10_000

	relayTimeout = 20 * time.Second
	// relayRest is how long a server is left alone that used up the time of a delivery. Mail comes from a server of our own over a few
	// connections, and while it waits here for that server, opt-outs wait behind it.
	relayRest = time.Minute
)

// ErrMailOut: the server behind --mail-out takes nothing for now; what it is to pass on must come again.
var ErrMailOut = errors.New("--mail-out")

var (
	// errRefused: the server refuses the message for good.
	errRefused = errors.New("the server behind --mail-out refuses it")
	// errLoop: the message has been here before.
	errLoop = errors.New("it has been passed on before")
)

// loopField marks what was passed on, so that a forward address that leads back here makes no loop (RFC 5321 section 6.3).
const loopField = "X-Optout-Forwarded"

// Forward passes a message on as it is, to one address, with the null return path: nobody waits for its bounce. Its content is not
// touched, so its signatures hold. It returns when the server has taken it. What it took already, since the start and among the last
// 10,000, is not passed on again. Errors: errLoop, errRefused, ErrMailOut.
func (r *Relay) Forward(ctx context.Context, to string, raw []byte) error {
	end := max(headerEnd(raw), 0)
	if fieldOf(raw[:end], "x-optout-forwarded") != "" {
		return errLoop
	}
	digest := sha256.New()
	io.WriteString(digest, to+"\n")
	digest.Write(raw)
	id := [sha256.Size]byte(digest.Sum(nil))
	if r.passedOn(id) {
		return nil
	}
	err := r.deliver(ctx, to, io.MultiReader(bytes.NewReader([]byte(loopField+": yes\r\n")), bytes.NewReader(raw)))
	if err == nil {
		r.remember(id)
	}
	return err
}

func (r *Relay) passedOn(id [sha256.Size]byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.passed[id]
	return ok
}

func (r *Relay) remember(id [sha256.Size]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.passed == nil {
		r.passed = map[[sha256.Size]byte]struct{}{}
	}
	if len(r.order) < maxPassed {
		r.order = append(r.order, id)
	} else {
		delete(r.passed, r.order[r.next])
		r.order[r.next], r.next = id, (r.next+1)%maxPassed
	}
	r.passed[id] = struct{}{}
}

func (r *Relay) deliver(ctx context.Context, to string, message io.Reader) error {
	if r.rest(0) {
		return fmt.Errorf("%w: the server did not answer in time a moment ago", ErrMailOut)
	}
	limited, cancel := context.WithTimeout(ctx, cmp.Or(r.Timeout, relayTimeout))
	defer cancel()
	err := r.send(limited, to, message)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		r.rest(relayRest)
	}
	return err
}

// rest lets the server rest for some time from now, and reports whether it rests.
func (r *Relay) rest(d time.Duration) bool {
	now := time.Now
	if r.Now != nil {
		now = r.Now
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if d != 0 {
		r.restUntil = now().Add(d)
	}
	return now().Before(r.restUntil)
}

// send makes one delivery, for which ctx has the time.
func (r *Relay) send(ctx context.Context, to string, message io.Reader) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.Address)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMailOut, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c, err := r.greet(conn)
	if err != nil {
		conn.Close()
		return fmt.Errorf("%w: %w", ErrMailOut, err)
	}
	defer c.Close()
	err = c.SendMail("", []string{to}, message)
	var answer *smtp.SMTPError
	switch {
	case errors.As(err, &answer) && answer.Code >= 500:
		return fmt.Errorf("%w: %d", errRefused, answer.Code)
	case answer != nil: // its words may name the recipient
		return fmt.Errorf("%w: the server answers %d", ErrMailOut, answer.Code)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrMailOut, err)
	}
	_ = c.Quit() // the message is taken; how the connection ends is of no matter
	return nil
}

// greet makes a session, without TLS only on this machine.
func (r *Relay) greet(conn net.Conn) (*smtp.Client, error) {
	host, _, err := net.SplitHostPort(r.Address)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		c := smtp.NewClient(conn)
		return c, c.Hello(r.Hostname)
	}
	config := &tls.Config{}
	if r.TLS != nil {
		config = r.TLS.Clone()
	}
	config.ServerName = host
	c, err := smtp.NewClientStartTLS(conn, config)
	if err != nil {
		return nil, err
	}
	return c, c.Hello(r.Hostname) // the library has called itself localhost up to here
}
