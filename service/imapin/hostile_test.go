package imapin_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"optout/service/imapin"
)

// A server that announces more octets than a message may have is believed no further than what it sends.
func TestAnnouncedOctetsAreNotReserved(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	announced := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "* OK [CAPABILITY IMAP4rev1] hello\r\n")
		for in := bufio.NewScanner(c); in.Scan(); {
			tag, command, _ := strings.Cut(in.Text(), " ")
			if strings.HasPrefix(command, "LOGIN") {
				io.WriteString(c, "* LIST () {3000000000}\r\nx")
				close(announced)
				io.Copy(io.Discard, c)
				return
			}
			fmt.Fprintf(c, "* CAPABILITY IMAP4rev1\r\n%s OK done\r\n", tag)
		}
	})
	file := filepath.Join(t.TempDir(), "pw")
	os.WriteFile(file, []byte("x\n"), 0o600)
	p, err := imapin.New(imapin.Options{Mailbox: "imap://u@" + l.Addr().String() + "/?password-file=" + file, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Take: func(context.Context, []byte) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	<-announced
	time.Sleep(300 * time.Millisecond) // long enough to read what was sent; a slower machine only proves less
	cancel()
	running.Wait()
	l.Close()
	serving.Wait()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d MiB were reserved for one octet", n>>20)
	}
}

// What a server says in words may hold addresses: none of it is logged.
func TestServersWordsAreNotLogged(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "* OK [CAPABILITY IMAP4rev1] hello\r\n")
			for in := bufio.NewScanner(c); in.Scan(); {
				tag, _, _ := strings.Cut(in.Text(), " ")
				fmt.Fprintf(c, "%s NO [AUTHENTICATIONFAILED] ann@example.org may not come in\r\n", tag)
			}
			c.Close()
		}
	})
	file := filepath.Join(t.TempDir(), "pw")
	os.WriteFile(file, []byte("hunter2\n"), 0o600)
	var mu sync.Mutex
	var text strings.Builder
	refused := make(chan string, 10)
	p, err := imapin.New(imapin.Options{Mailbox: "imap://u%40example.com@" + l.Addr().String() + "/?password-file=" + file,
		Log:  slog.New(slog.NewTextHandler(locked{&mu, &text}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Take: func(context.Context, []byte) error { return nil }, Observe: func(outcome string) { refused <- outcome }})
	if err != nil {
		t.Fatal(err)
	}
	imapin.RetrySoon(p)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	for range 2 {
		if outcome := <-refused; outcome != imapin.Disconnected {
			t.Errorf("told of %q", outcome)
		}
	}
	cancel()
	running.Wait()
	l.Close()
	serving.Wait()
	if s := text.String(); strings.Contains(s, "example") || strings.Contains(s, "hunter2") || !strings.Contains(s, "AUTHENTICATIONFAILED") {
		t.Errorf("the log says:\n%s", s)
	}
}
