package mailgate

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// watchedListener bounds how many connections are open at once, and how many of them come from one address; more wait in the
// kernel, or are closed.
type watchedListener struct {
	net.Listener
	open    chan struct{}
	perAddr int
	mu      sync.Mutex
	from    map[netip.Addr]int
}

func watched(l net.Listener, n int) *watchedListener {
	return &watchedListener{Listener: l, open: make(chan struct{}, n), perAddr: max(1, n/5), from: map[netip.Addr]int{}}
}

func (l *watchedListener) Accept() (net.Conn, error) {
	for {
		l.open <- struct{}{}
		c, err := l.Listener.Accept()
		if err != nil {
			<-l.open
			return nil, err
		}
		w := &watchedConn{Conn: c, l: l}
		if a, ok := netip.AddrFromSlice(addrOf(c)); ok {
			w.addr = a.Unmap()
		}
		if l.enter(w.addr) {
			return w, nil
		}
		<-l.open
		c.Close()
	}
}

func addrOf(c net.Conn) net.IP {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP
	}
	return nil
}

func (l *watchedListener) enter(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !a.IsLoopback() && l.from[a] >= l.perAddr {
		return false
	}
	l.from[a]++
	return true
}

func (l *watchedListener) leave(a netip.Addr) {
	l.mu.Lock()
	if l.from[a]--; l.from[a] == 0 {
		delete(l.from, a)
	}
	l.mu.Unlock()
	<-l.open
}

// watchedConn counts what is written on it: a session tells by it whether anything was said after an answer.
type watchedConn struct {
	net.Conn
	l      *watchedListener
	addr   netip.Addr
	writes atomic.Int64
	once   sync.Once
}

func (c *watchedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil {
		c.writes.Add(1)
	}
	return n, err
}

func (c *watchedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.l.leave(c.addr) })
	return err
}

// face is the listener of one of the two SMTP servers: connections are handed to it.
type face struct {
	net.Listener
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newFace(l net.Listener) *face {
	return &face{Listener: l, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (f *face) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

// Close ends the listener behind it too: a server that shuts down takes no more connections.
func (f *face) Close() error {
	f.once.Do(func() { close(f.done) })
	return f.Listener.Close()
}

func (f *face) hand(c net.Conn) {
	select {
	case f.conns <- c:
	case <-f.done:
		c.Close()
	}
}
