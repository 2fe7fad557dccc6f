package imapin_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"optout/service/imapin"
	"optout/service/mailtest"
)

// A server that says nothing, or sends without end, costs bounded time and memory.
func TestHostileServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connected := make(chan struct{}, 100)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connected <- struct{}{}
			io.WriteString(c, "* OK hello\r\n")
			io.WriteString(c, "* CAPABILITY IMAP4rev1\r\n* 99999999999999999999 EXISTS\r\nnonsense\r\n* {99999999999}\r\n")
			c.Close()
		}
	})
	file := filepath.Join(t.TempDir(), "pw")
	os.WriteFile(file, []byte("x\n"), 0o600)
	p, err := imapin.New(imapin.Options{Mailbox: "imap://u@" + l.Addr().String() + "/?password-file=" + file, Take: func(context.Context, []byte) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	imapin.RetrySoon(p)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	for range 3 {
		<-connected
	}
	cancel()
	running.Wait()
	l.Close()
	serving.Wait()
}

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
	s := watch(t, "imap://u%40example.com@"+l.Addr().String()+"/?password-file="+file, 2)
	l.Close()
	serving.Wait()
	if strings.Contains(s, "example") || strings.Contains(s, "hunter2") || !strings.Contains(s, "AUTHENTICATIONFAILED") {
		t.Errorf("the log says:\n%s", s)
	}
}

// watch runs a poller against whatever there is until it has reported the mailbox as disconnected so many times, and returns its log.
func watch(t *testing.T, mailbox string, losses int, change ...func(*imapin.Options)) string {
	t.Helper()
	var mu sync.Mutex
	var text strings.Builder
	lost := make(chan string, 100)
	o := imapin.Options{Mailbox: mailbox, Log: slog.New(slog.NewTextHandler(locked{&mu, &text}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Take: func(context.Context, []byte) error { return nil }, Observe: func(outcome string) { lost <- outcome }}
	for _, f := range change {
		f(&o)
	}
	p, err := imapin.New(o)
	if err != nil {
		t.Fatal(err)
	}
	imapin.RetrySoon(p)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	for range losses {
		if outcome := <-lost; outcome != imapin.Disconnected {
			t.Errorf("told of %q", outcome)
		}
	}
	cancel()
	running.Wait()
	return text.String()
}

// A token server that answers anything but a token costs bounded time and memory, and what it writes is in no log. No redirect is followed.
func TestHostileTokenServer(t *testing.T) {
	elsewhere := mailtest.StartTokenServer(t)
	var sent atomic.Int64
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		},
			"the token server refused with 307 a redirect, which is not followed: token_url must be the address itself"},
		"without end": {func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"access_token":"`)
			for {
				n, err := w.Write(make([]byte, 32<<10))
				if sent.Add(int64(n)); err != nil {
					return
				}
			}
		}, "the token server's answer could not be read"},
		"not JSON":      {say(200, "text/html", "ann@example.org is welcome"), "the token server's answer could not be read"},
		"empty":         {say(200, "application/json", `{"ann@example.org":1}`), "the token server's answer could not be read"},
		"too long":      {say(200, "application/json", `{"access_token":"a","ann@example.org":"`+strings.Repeat("x", 70<<10)+`"}`), "the token server's answer could not be read"},
		"other type":    {say(200, "application/json", `{"access_token":"ann@example.org","token_type":"mac"}`), "another type than Bearer"},
		"control":       {say(200, "application/json", `{"access_token":"ann@example.org\r\nA2 DELETE INBOX"}`), "characters that none may have"},
		"failing":       {say(503, "text/plain", "ann@example.org cannot be served"), "the token server failed with 503\""},
		"unknown code":  {say(400, "application/json", `{"error":"ann@example.org"}`), "the token server refused with 400\""},
		"error with OK": {say(200, "application/json", `{"error":"invalid_scope","error_description":"ann@example.org"}`), "invalid_scope: scope is wrong\""},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			"the token server's answer could not be read"},
	} {
		t.Run(name, func(t *testing.T) {
			s := mailtest.StartTokenServer(t)
			s.Instead(tc.answer)
			log := watch(t, "imap://u%40example.com@127.0.0.1:1/?oauth-file="+s.File(t), 2)
			if !strings.Contains(log, tc.want) || strings.Contains(log, "example") || strings.Contains(log, s.Secret()) || strings.Contains(log, "DELETE") {
				t.Errorf("the log says:\n%s", log)
			}
		})
	}
	if elsewhere.Given() != 0 {
		t.Error("the redirect was followed")
	}
	if n := sent.Load(); n > 32<<20 {
		t.Errorf("%d octets were taken from the answer without end", n)
	}
	s := mailtest.StartTokenServer(t)
	file := s.File(t)
	s.Close()
	if log := watch(t, "imap://u%40example.com@127.0.0.1:1/?oauth-file="+file, 2); !strings.Contains(log, "the token server cannot be reached: dial tcp 127.0.0.1:") {
		t.Errorf("the log says:\n%s", log)
	}
}

func say(status int, kind, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		io.WriteString(w, text)
	}
}

// Over a connection that is not encrypted, and not on loopback, no token is sent, whatever the server offers.
func TestNoTokenInPlaintext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var got strings.Builder
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2 AUTH=OAUTHBEARER] hello\r\n")
			for in := bufio.NewScanner(c); in.Scan(); {
				tag, command, _ := strings.Cut(in.Text(), " ")
				got.WriteString(command + "\n")
				fmt.Fprintf(c, "%s BAD no\r\n", tag)
			}
			c.Close()
		}
	})
	s := mailtest.StartTokenServer(t)
	// TLS that is given makes loopback count for nothing.
	log := watch(t, "imap://u%40example.com@"+l.Addr().String()+"/?oauth-file="+s.File(t), 2, func(o *imapin.Options) { o.TLS = &tls.Config{} })
	l.Close()
	serving.Wait()
	if !strings.Contains(log, "the server offers no STARTTLS") || strings.Contains(got.String(), "AUTHENTICATE") {
		t.Errorf("it was sent\n%s\nthe log says:\n%s", got.String(), log)
	}
}
