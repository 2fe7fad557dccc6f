package mailin

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// door bounds what clients take before and beneath the protocol: connections and large messages, in all and from one network;
// recipients a second; the time for which a connection is held; and the octets that are read from it for nothing.
type door struct {
	limits Limits
	now    func() time.Time

	mu       sync.Mutex
	open     int
	large    int
	networks map[netip.Prefix]*network
	swept    time.Time
}

// network is what is known of the clients of one network.
type network struct {
	open, large int
	rate        *rate.Limiter
}

// share is how much of something one network may have.
func share(n int) int { return max(1, n/5) }

const (
	// burstSeconds is how many seconds' worth of recipients may come at once.
	burstSeconds = 10
	// sweepEvery is how often networks that are of no interest any more are forgotten.
	sweepEvery = 10 * time.Second
	// Octets that are read from a client before it has had a message taken: of commands, and of a message. A message that is too
	// large is read to its end, so that its sender hears so, but not for ever.
	commandOctets = 1 << 20
	messageOctets = 4 * maxMessage
)

func newDoor(l Limits, now func() time.Time) *door {
	return &door{limits: l, now: now, networks: map[netip.Prefix]*network{}, swept: now()}
}

// networkOf is the network whose clients share limits; the zero Prefix for none, as our own mail server on loopback or on a unix
// socket has.
func networkOf(a netip.Addr) netip.Prefix {
	bits := 48
	if a.Is4() {
		bits = 24
	}
	if !a.IsValid() || a.IsLoopback() {
		return netip.Prefix{}
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}

func (d *door) at(n netip.Prefix) *network {
	x := d.networks[n]
	if x == nil {
		x = &network{rate: rate.NewLimiter(rate.Limit(d.limits.Rate), burstSeconds*d.limits.Rate)}
		d.networks[n] = x
	}
	return x
}

// enter lets a connection in, or says what it is told.
func (d *door) enter(n netip.Prefix) (refusal string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweep()
	if d.open >= d.limits.Connections {
		return "421 4.3.2 too many connections, please try again later\r\n"
	}
	if n.IsValid() {
		x := d.at(n)
		if x.open >= share(d.limits.Connections) {
			return "421 4.7.0 too many connections from your network, please try again later\r\n"
		}
		x.open++
	}
	d.open++
	return ""
}

func (d *door) leave(n netip.Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	if n.IsValid() {
		d.networks[n].open--
	}
}

// sweep forgets networks that have no connection and their whole rate again.
func (d *door) sweep() {
	now := d.now()
	if now.Sub(d.swept) < sweepEvery {
		return
	}
	d.swept = now
	for n, x := range d.networks {
		if x.open == 0 && x.large == 0 && x.rate.TokensAt(now) >= float64(x.rate.Burst()) {
			delete(d.networks, n)
		}
	}
}

// allow counts a recipient.
func (d *door) allow(n netip.Prefix) bool {
	if !n.IsValid() {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at(n).rate.AllowN(d.now(), 1)
}

// hold lets a large message into memory; release ends that.
func (d *door) hold(n netip.Prefix) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.large >= maxLarge {
		return false
	}
	if n.IsValid() {
		x := d.at(n)
		if x.large >= share(maxLarge) {
			return false
		}
		x.large++
	}
	d.large++
	return true
}

func (d *door) release(n netip.Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.large--
	if n.IsValid() {
		d.networks[n].large--
	}
}

// patience is how long to wait for an octet and for a message.
func (d *door) patience() (idle, work time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if 2*d.open > d.limits.Connections {
		return d.limits.Idle / 30, d.limits.Work / 10
	}
	return d.limits.Idle, d.limits.Work
}

type doorListener struct {
	net.Listener
	d *door
}

func (l *doorListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		var addr netip.Addr
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			addr = a.AddrPort().Addr().Unmap()
		}
		n := networkOf(addr)
		if refusal := l.d.enter(n); refusal != "" {
			c.SetWriteDeadline(time.Now().Add(time.Second)) // the first octets fit the kernel's buffer: nothing is waited for
			io.WriteString(c, refusal)
			c.Close()
			continue
		}
		x := &conn{Conn: c, d: l.d, addr: addr, network: n}
		x.renew()
		return x, nil
	}
}

// conn is a client's connection, beneath TLS.
type conn struct {
	net.Conn
	d       *door
	addr    netip.Addr
	network netip.Prefix

	// end is when the session ends that has no message taken before, in Unix nanoseconds.
	end atomic.Int64
	// octets may still be read before it ends.
	octets atomic.Int64
	// faults are the unknown recipients and refused messages so far.
	faults atomic.Int32
	// over: the client has been told that the session is at its end.
	over atomic.Bool
	once sync.Once
}

var errOctetsSpent = errors.New("mailin: too much was sent and no message in it")

// renew gives a session what it may take up to its next message.
func (c *conn) renew() {
	_, work := c.d.patience()
	c.end.Store(time.Now().Add(work).UnixNano())
	c.octets.Store(commandOctets)
}

// Read ends a session whose time or octets are spent: the library answers 421 to that, and closes.
func (c *conn) Read(b []byte) (int, error) {
	if c.over.Load() {
		return 0, io.EOF
	}
	if c.octets.Load() <= 0 {
		return 0, errOctetsSpent
	}
	idle, _ := c.d.patience()
	deadline, end := time.Now().Add(idle), time.Unix(0, c.end.Load())
	if end.Before(deadline) {
		deadline = end
	}
	c.Conn.SetReadDeadline(deadline)
	n, err := c.Conn.Read(b)
	c.octets.Add(-int64(n))
	return n, err
}

// fault counts one, and reports whether the client had its last.
func (c *conn) fault() bool {
	if c.faults.Add(1) >= maxFaults {
		c.over.Store(true)
	}
	return c.over.Load()
}

// Close ends the connection. What a client had sent ahead is read for a moment, lest the kernel answers it with a reset and the
// client never hears why its session ended.
func (c *conn) Close() (err error) {
	c.once.Do(func() {
		if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && (c.over.Load() || c.octets.Load() <= 0) && half.CloseWrite() == nil {
			c.Conn.SetReadDeadline(time.Now().Add(time.Second))
			io.CopyN(io.Discard, c.Conn, commandOctets)
		}
		err = c.Conn.Close()
		c.d.leave(c.network)
	})
	return err
}
