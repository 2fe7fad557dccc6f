package service_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/mailtest"
)

// sinkEnv makes the test program a mail server: its address and the file in which it keeps what it has taken, apart by a comma.
const sinkEnv = "OPTOUT_TEST_SINK"

// sinkProcess is a mail server that keeps each message durably before it answers, and that now and then wants to be asked again.
func sinkProcess() {
	addr, path, _ := strings.Cut(os.Getenv(sinkEnv), ",")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	var mu sync.Mutex
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &durable{waiting: path + ".wait", keep: func(line string) error {
			mu.Lock()
			_, err := f.WriteString(line)
			mu.Unlock()
			if err != nil {
				return err
			}
			return f.Sync()
		}}, nil
	}))
	s.Domain, s.Addr, s.ReadTimeout, s.WriteTimeout = "sink", addr, time.Minute, time.Minute
	for { // the port of the process before may not be free at once
		if err := s.ListenAndServe(); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type durable struct {
	to   []string
	keep func(string) error
	// waiting is a file; while it is there, recipients whose names begin with "wait" are not taken.
	waiting string
}

func (d *durable) Reset()                               { d.to = nil }
func (d *durable) Logout() error                        { return nil }
func (d *durable) Mail(string, *smtp.MailOptions) error { return nil }
func (d *durable) Rcpt(to string, _ *smtp.RcptOptions) error {
	_, err := os.Stat(d.waiting)
	if strings.HasPrefix(to, "later") && rand.IntN(2) == 0 || strings.HasPrefix(to, "wait") && err == nil {
		return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "later"}
	}
	d.to = append(d.to, to)
	return nil
}

func (d *durable) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	_, id, _ := strings.Cut(string(b), "Message-ID: <")
	id, _, _ = strings.Cut(id, "@")
	for _, to := range d.to {
		if err := d.keep(id + " " + to + "\n"); err != nil {
			return err
		}
	}
	return nil
}

// floor is mail on its way through a gate that is killed, and so is the server behind it.
type floor struct {
	t          *testing.T
	data, gate string
	sink, kept string
	service    *process
	upstream   *exec.Cmd
	secret     string

	mu       sync.Mutex
	inFlight map[int]bool // messages that somebody is sending at this moment
	excused  map[int]bool // messages that somebody was sending at a kill
}

func newFloor(t *testing.T) *floor {
	t.Helper()
	f := &floor{t: t, data: filepath.Join(t.TempDir(), "data"), gate: mailtest.FreeAddr(t), sink: mailtest.FreeAddr(t), kept: filepath.Join(t.TempDir(), "kept"), inFlight: map[int]bool{}, excused: map[int]bool{}}
	f.startSink()
	f.service = newInstallation(t, f.data, "--gate", f.gate, "--gate-upstream", f.sink)
	k, err := optoutv1.NewAdminServiceClient(f.service.conn).CreateApiKey(f.service.ctx(), &optoutv1.CreateApiKeyRequest{Key: &optoutv1.ApiKey{Role: optoutv1.Role_ROLE_MAILER, Label: "shop", DefaultTopic: "news"}})
	if err != nil {
		t.Fatal(err)
	}
	f.secret = k.Secret
	t.Cleanup(func() {
		f.service.kill()
		f.upstream.Process.Kill()
		f.upstream.Wait()
	})
	return f
}

func (f *floor) startSink() {
	f.t.Helper()
	f.upstream = exec.Command(os.Args[0])
	f.upstream.Env = append(os.Environ(), sinkEnv+"="+f.sink+","+f.kept)
	if err := f.upstream.Start(); err != nil {
		f.t.Fatal(err)
	}
	for range 1000 { // it builds up and listens
		if c, err := net.Dial("tcp", f.sink); err == nil {
			c.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.t.Fatal("the server behind the gate does not answer")
}

// kill kills the service or the server behind it, and starts it anew. Without memory what the gate remembers is taken away.
func (f *floor) kill(behind, memory bool) {
	f.t.Helper()
	f.mu.Lock()
	for i := range f.inFlight {
		f.excused[i] = true
	}
	if behind {
		f.upstream.Process.Kill()
	} else {
		f.service.cmd.Process.Kill()
	}
	f.mu.Unlock()
	if behind {
		f.upstream.Wait()
		f.startSink()
		return
	}
	f.service.kill()
	if !memory {
		os.Remove(filepath.Join(f.data, "gate", "accepted"))
	}
	var err error
	if f.service, err = serve(f.t, f.data, "--gate", f.gate, "--gate-upstream", f.sink); err != nil {
		f.t.Fatal(err)
	}
}

// deliver sends message i to two recipients until it is told that both have it.
func (f *floor) deliver(i int) {
	text := fmt.Sprintf("From: shop@example.com\r\nTo: you@example.com\r\nSubject: x\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <%d@shop.example>\r\n\r\nHello.\r\n", i)
	for {
		f.mu.Lock()
		f.inFlight[i] = true
		f.mu.Unlock()
		err := f.once(text, fmt.Sprintf("now%d@example.com", i), fmt.Sprintf("later%d@example.com", i))
		f.mu.Lock()
		delete(f.inFlight, i)
		f.mu.Unlock()
		if err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (f *floor) once(text string, to ...string) error {
	c, err := smtp.Dial(f.gate)
	if err != nil {
		return err
	}
	defer c.Close()
	c.CommandTimeout, c.SubmissionTimeout = 20*time.Second, 20*time.Second
	if err := c.Auth(sasl.NewPlainClient("", "shop", f.secret)); err != nil {
		return err
	}
	if err := c.SendMail("shop@example.com", to, strings.NewReader(text)); err != nil {
		return err
	}
	return c.Quit()
}

// run sends messages over 16 connections while kills come down, and counts what was lost, what was doubled, and what was doubled
// though nobody was sending it at a kill.
func (f *floor) run(random *rand.Rand, messages, kills int, memory bool) (lost, doubled, unexcused int) {
	f.t.Helper()
	jobs := make(chan int)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := range jobs {
				f.deliver(i)
			}
		})
	}
	fed := make(chan struct{})
	go func() {
		for i := range messages {
			jobs <- i
		}
		close(jobs)
		all.Wait()
		close(fed)
	}()
	for n := range kills {
		select {
		case <-fed:
			f.t.Logf("all was sent after %d kills", n)
		case <-time.After(time.Duration(50+random.IntN(250)) * time.Millisecond):
			f.kill(n%3 == 2, memory)
			continue
		}
		break
	}
	<-fed
	count := map[string]int{}
	file, err := os.Open(f.kept)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		count[lines.Text()]++
	}
	for i := range messages {
		for _, who := range []string{"now", "later"} {
			switch n := count[fmt.Sprintf("%d %s%d@example.com", i, who, i)]; {
			case n == 0:
				lost++
			case n > 1:
				doubled++
				if !f.excused[i] {
					unexcused++
				}
			}
		}
	}
	return lost, doubled, unexcused
}

// The gate and the server behind it are killed again and again: no message is lost, and at the most those are doubled that
// somebody was sending at a kill.
func TestKillsAtTheGate(t *testing.T) {
	messages, kills := 3000, 30
	if testing.Short() {
		messages, kills = 600, 6
	}
	random, _ := newSeed(t)
	f := newFloor(t)
	lost, doubled, unexcused := f.run(random, messages, kills, true)
	if lost > 0 || unexcused > 0 {
		t.Errorf("%d copies lost, %d doubled that nobody was sending at a kill", lost, unexcused)
	}
	if len(f.excused) == 0 {
		t.Error("no kill hit a session: the load was too light")
	}
	t.Logf("%d messages to two recipients each: none lost, %d copies doubled, %d sessions were open at kills", messages, doubled, len(f.excused))
}

// Of a message that some recipients have and some do not yet, the next try sends only the rest, also when the service was killed in
// between. The control: without its memory the gate sends again what they have.
func TestPartFailureAcrossAKill(t *testing.T) {
	for _, memory := range []bool{true, false} {
		f := newFloor(t)
		if err := os.WriteFile(f.kept+".wait", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		const text = "From: shop@example.com\r\nSubject: x\r\nMessage-ID: <1@shop.example>\r\n\r\nHello.\r\n"
		var e *smtp.SMTPError
		if err := f.once(text, "now@example.com", "wait@example.com"); !errors.As(err, &e) || e.Code != 451 || !strings.Contains(e.Message, "1 of 2 recipients have it") {
			t.Fatalf("part failure: %v", err)
		}
		f.kill(false, memory)
		if err := os.Remove(f.kept + ".wait"); err != nil {
			t.Fatal(err)
		}
		if err := f.once(text, "now@example.com", "wait@example.com"); err != nil {
			t.Fatalf("the next try: %v", err)
		}
		kept, err := os.ReadFile(f.kept)
		if err != nil {
			t.Fatal(err)
		}
		want := "1 now@example.com\n1 wait@example.com\n"
		if !memory {
			want = "1 now@example.com\n" + want
		}
		if string(kept) != want {
			t.Errorf("memory %v: arrived %q, want %q", memory, kept, want)
		}
	}
}
