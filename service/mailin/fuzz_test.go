package mailin_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"optout/client/clienttest"
	"optout/service"
)

// panics is a log in which panics of ours are looked for. The library has some of its own, from which it recovers: it goes on with
// commands that were sent ahead behind QUIT, for one.
type panics struct{ last atomic.Pointer[string] }

func (l *panics) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("panic")) && bytes.Contains(p, []byte("optout/service")) {
		said := string(p)
		l.last.Store(&said)
	}
	return len(p), nil
}

// fuzzed is a real service whose sessions are fuzzed over one protocol.
type fuzzed struct {
	*post
	network, greet string
	log            *panics
	// states are what was said before the fuzzed octets.
	states []string
	// bystander is somebody whom none of it names.
	bystander string
	times     int
}

// In states and in fuzzed octets these stand for the addresses of a person who is still to be written to.
const (
	unsubscribeMark = "{u}"
	returnMark      = "{b}"
)

func newFuzzed(f *testing.F, lmtp bool) *fuzzed {
	f.Helper()
	z := &fuzzed{post: &post{t: f}, network: "tcp", greet: "EHLO", log: &panics{}}
	listen := "127.0.0.1:0"
	if lmtp {
		z.network, z.greet, z.smtp = "unix", "LHLO", f.TempDir()+"/lmtp"
		listen = "unix:" + z.smtp
	}
	z.svc = clienttest.Start(f, func(c *service.Config) {
		c.SMTP, z.data = listen, c.Data
		c.Log = slog.New(slog.NewTextHandler(z.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	if !lmtp {
		z.smtp = z.svc.SMTP
	}
	z.svc.CreateTopic(f, "news")
	z.c = z.svc.Client(f)
	z.bystander, _ = z.person()
	hello := z.greet + " x\r\n"
	open := hello + "MAIL FROM:<a@b.example>\r\n"
	ready := open + "RCPT TO:<{u}>\r\n"
	z.states = []string{
		"", hello, hello + "STARTTLS\r\n", open, ready, open + "RCPT TO:<u-unknown@unsub.example.com>\r\n",
		ready + "DATA\r\n", ready + "DATA\r\nSubject: x\r\n\r\nx\r\n", ready + "BDAT 20\r\n", ready + "BDAT 2\r\nab", ready + "BDAT 40 LAST\r\n",
		ready + "RSET\r\n", ready + hello, ready + "DATA\r\nx\r\n.\r\n", open + "RCPT TO:<{b}>\r\nDATA\r\n",
	}
	for i := range z.states {
		f.Add(byte(i), []byte("QUIT\r\n"))
		f.Add(byte(i), []byte("MAIL FROM:<a@b.example>\r\nRCPT TO:<{u}>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"))
		f.Add(byte(i), []byte("RCPT TO:<{u}>\r\nDATA\r\n\r\n\n.\nMAIL FROM:<a@b.example>\r\n.\r\n"))
		f.Add(byte(i), []byte("\x00\xff\r\n.\r\n\r\n"))
		f.Add(byte(i), []byte("BDAT 3 LAST\r\nabc"))
		f.Add(byte(i), []byte("STARTTLS\r\nRSET\r\n"+z.greet+" y\r\n"))
	}
	f.Add(byte(len(z.states)-1), []byte(dsn("failed", "5.1.1", "550 no such user")+".\r\n"))
	return z
}

// fuzz says octets in a state of a session, and checks that the session ends, that nobody is opted out who was not named and
// whose message was not answered with 250, and that the next session is served.
func (z *fuzzed) fuzz(t *testing.T, state byte, input []byte) {
	p := *z.post
	p.t = t
	addr, unsubscribe := p.person()
	z.n = p.n
	said := z.states[int(state)%len(z.states)] + string(input)
	if said = strings.ReplaceAll(said, unsubscribeMark, unsubscribe); strings.Contains(said, returnMark) {
		said = strings.ReplaceAll(said, returnMark, p.returnPath(addr))
	}
	conn, err := net.Dial(z.network, z.smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		io.WriteString(conn, said)
		conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	heard, err := io.ReadAll(conn)
	if err != nil && strings.Contains(err.Error(), "timeout") {
		t.Fatal("the session hangs")
	}
	if said := z.log.last.Load(); said != nil {
		t.Fatalf("the session panicked: %s", *said)
	}
	if p.out(addr) && !(strings.Contains(string(heard), "250 2.0.0 I'll make sure") && strings.Contains(string(heard), "OK: queued")) {
		t.Fatalf("opted out, but no recipient was taken or no message answered with 250: %q", heard)
	}
	if p.out(z.bystander) {
		t.Fatal("one whom nobody named is opted out")
	}
	if z.times++; z.times%16 == 1 {
		dial(t, z.network, z.smtp, "220").say("250 "+z.greet+" x", "250 MAIL FROM:<>", "550 RCPT TO:<u-unknown@unsub.example.com>", "221 QUIT").ends()
	}
}

// Whatever comes in whatever state of an SMTP session.
func FuzzSMTP(f *testing.F) { f.Fuzz(newFuzzed(f, false).fuzz) }

// Whatever comes in whatever state of an LMTP session.
func FuzzLMTP(f *testing.F) { f.Fuzz(newFuzzed(f, true).fuzz) }
