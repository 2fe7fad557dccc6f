package mailgate_test

import (
	"bufio"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"optout/service"
)

// logged is a log that tests look into.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() < 1<<20 {
		l.b.Write(p)
	}
	return len(p), nil
}

func (l *logged) has(words string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), words)
}

// Whatever comes in whatever state of a session: it does not panic or hang, nobody who opted out is sent anything, nothing leaves
// that could be read in two ways, and the next session works.
func FuzzSession(f *testing.F) {
	log := &logged{}
	r := newRig(f, func(c *service.Config) {
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.Gate.Rate = 1 << 20
	}, nil)
	r.optOut(bob)
	auth := "AUTH PLAIN " + b64([]byte("\x00x\x00"+r.secret)) + "\r\n"
	states := []string{
		"",
		"EHLO x\r\n",
		"EHLO x\r\nAUTH PLAIN\r\n",
		"EHLO x\r\nAUTH LOGIN\r\n",
		"EHLO x\r\nAUTH LOGIN\r\neA==\r\n",
		"EHLO x\r\n" + auth,
		"EHLO x\r\n" + auth + "MAIL FROM:<a@b.example>\r\n",
		"EHLO x\r\n" + auth + "MAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.com>\r\n",
		"EHLO x\r\n" + auth + "MAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.com>\r\nDATA\r\n",
		"EHLO x\r\n" + auth + "MAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.com>\r\nBDAT 20\r\n",
		"EHLO x\r\n" + auth + "MAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.com>\r\nDATA\r\n" + mailText() + ".\r\n",
	}
	for i := range states {
		f.Add(byte(i), []byte("QUIT\r\n"))
		f.Add(byte(i), []byte("MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"))
		f.Add(byte(i), []byte("RCPT TO:<bob@example.org>\r\nDATA\r\n\r\n\n.\nMAIL FROM:<a@b.example>\r\n.\r\n"))
		f.Add(byte(i), []byte("\x00\xff\r\n.\r\n\r\n"))
		f.Add(byte(i), []byte("BDAT 3 LAST\r\nabc"))
		f.Add(byte(i), []byte("STARTTLS\r\n*\r\n"))
	}
	f.Fuzz(func(t *testing.T, state byte, input []byte) {
		conn, err := net.Dial("tcp", r.gate)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			io.WriteString(conn, states[int(state)%len(states)])
			conn.Write(input)
			conn.(*net.TCPConn).CloseWrite()
		}()
		if _, err := io.Copy(io.Discard, bufio.NewReader(conn)); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Fatal("the session hangs")
		}
		// The library recovers from a panic of its own when a caller goes away at the beginning of a chunk.
		if log.has("panic serving") && !log.has("handleBdat") {
			t.Fatal("the session panicked")
		}
		for _, a := range r.sink.Taken() {
			for _, to := range a.To {
				if strings.EqualFold(to, bob) {
					t.Fatal("one who opted out was sent mail")
				}
			}
			if strings.Contains(strings.ReplaceAll(a.Text, "\r\n", ""), "\n") || strings.Contains(strings.ReplaceAll(a.Text, "\r\n", ""), "\r") || strings.Contains(a.Text, "\x00") {
				t.Fatalf("left: %q", a.Text)
			}
		}
		r.sink.Forget()
		next := *r
		next.t = t
		if refused, _, err := next.send(mailText("X-Fuzz: "+rand.Text()), ann); err != nil || len(refused) > 0 {
			t.Fatalf("the next session: %v %v", refused, err)
		}
	})
}
