package mailin_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"optout/service/mailin"
)

// office is a server before an intake that knows every address at example.com but those that begin with "no", and remembers what it has taken. It stands for
// a ledger where only the transport is tried.
type office struct {
	t    testing.TB
	addr string

	mu    sync.Mutex
	taken []*mailin.Message
	// from is the network address that the next clients seem to come from.
	from netip.AddrPort
	// wait, if not nil, holds up large messages until it is closed; waiting is how many it holds up.
	wait    chan struct{}
	waiting atomic.Int32
}

func (o *office) Open(_ context.Context, _ *mailin.Envelope, rcpt string) (mailin.Box, error) {
	switch {
	case strings.HasPrefix(rcpt, "busy"):
		return nil, errors.New("for now")
	case strings.HasPrefix(rcpt, "no"), !strings.HasSuffix(rcpt, "@example.com"):
		return nil, mailin.ErrNoSuchAddress
	}
	return rcpt, nil
}

func (o *office) Take(_ context.Context, _ *mailin.Envelope, boxes []mailin.Box, m *mailin.Message) []error {
	if o.wait != nil && m.Size > 64<<10 {
		o.waiting.Add(1)
		<-o.wait
	}
	o.mu.Lock()
	o.taken = append(o.taken, m)
	o.mu.Unlock()
	results := make([]error, len(boxes))
	for i, b := range boxes {
		switch local, _, _ := strings.Cut(b.(string), "@"); local {
		case "mute":
			return nil // an intake that forgets to answer
		case "later":
			results[i] = errors.New("for now")
		}
	}
	return results
}

func (o *office) got() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.taken)
}

// elsewhere is a listener whose clients seem to come from another network: limits of networks do not count on loopback.
type elsewhere struct {
	net.Listener
	o *office
}

type elsewhereConn struct {
	*net.TCPConn
	from net.Addr
}

func (c elsewhereConn) RemoteAddr() net.Addr { return c.from }

func (l elsewhere) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.o.mu.Lock()
	defer l.o.mu.Unlock()
	if !l.o.from.IsValid() {
		return c, nil
	}
	return elsewhereConn{c.(*net.TCPConn), net.TCPAddrFromAddrPort(l.o.from)}, nil
}

func newOffice(t testing.TB, set func(*mailin.Options)) *office {
	t.Helper()
	o := &office{t: t}
	options := mailin.Options{Intake: o, Hostname: "mx.example.com", Log: slog.New(slog.DiscardHandler)}
	if set != nil {
		set(&options)
	}
	s := mailin.New(options)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.addr = l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- s.Serve(elsewhere{l, o}) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return o
}

// line is an open session.
type line struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// dial opens one and reads the greeting, whose code must be that.
func dial(t testing.TB, network, addr, code string) *line {
	t.Helper()
	l := call(t, network, addr)
	l.expect(code)
	return l
}

func call(t testing.TB, network, addr string) *line {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &line{t: t, conn: conn, r: bufio.NewReader(conn)}
}

// write sends octets as they are.
func (l *line) write(octets string) {
	l.t.Helper()
	if _, err := io.WriteString(l.conn, octets); err != nil {
		l.t.Fatalf("%.60q: %v", octets, err)
	}
}

// expect reads an answer, which must begin so; it returns all of its lines.
func (l *line) expect(begin string) string {
	l.t.Helper()
	var all strings.Builder
	for {
		s, err := l.r.ReadString('\n')
		if err != nil {
			l.t.Fatalf("waiting for %q: %v after %q", begin, err, all.String())
		}
		all.WriteString(s)
		if len(s) > 3 && s[3] == ' ' {
			break
		}
	}
	if !strings.HasPrefix(all.String(), begin) {
		l.t.Errorf("answered %q, want %q", all.String(), begin)
	}
	return all.String()
}

// say sends commands and reads the answer to each: "250 MAIL FROM:<>" is an answer and a command.
func (l *line) say(exchanges ...string) *line {
	l.t.Helper()
	for _, x := range exchanges {
		want, command, _ := strings.Cut(x, " ")
		l.write(command + "\r\n")
		l.expect(want)
	}
	return l
}

// ends expects that the server says no more and closes.
func (l *line) ends() {
	l.t.Helper()
	if rest, err := io.ReadAll(l.r); err != nil || len(rest) > 0 {
		l.t.Errorf("the session goes on: %q, %v", rest, err)
	}
}

// begun is a session with a sender and a recipient.
func (o *office) begun(t testing.TB) *line {
	t.Helper()
	return dial(t, "tcp", o.addr, "220").say("250 EHLO client.example", "250 MAIL FROM:<a@client.example>", "250 RCPT TO:<box@example.com>")
}

// works checks that a well-behaved session is served.
func (o *office) works(t testing.TB) {
	t.Helper()
	before := o.got()
	o.begun(t).say("354 DATA", "250 Subject: x\r\n\r\nx\r\n.", "221 QUIT").ends()
	if o.got() != before+1 {
		t.Errorf("%d messages taken, want one", o.got()-before)
	}
}

func seq(n int, format string) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf(format, i))
	}
	return all
}
