package service_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledgertest"
	"optout/service/mailtest"
)

const floodDomain = "unsub.example.com"

// flood is a real Postfix with tokened unsubscribe mail in its queue, and the service to which it brings them.
type flood struct {
	t       *testing.T
	dir     string // a small file system, where the data folder is
	smtp    string
	service *process
	postfix *mailtest.Postfix
	// eager is the control's server in front, which answers before the ledger has it; nil otherwise.
	eager     *exec.Cmd
	eagerAddr string
	people    recipients
	addresses []string
	sent      atomic.Bool
}

func newFlood(t *testing.T, eager bool, seed uint64) *flood {
	t.Helper()
	ledgertest.Require(t, "a small file system needs root", os.Getuid() == 0)
	f := &flood{t: t, dir: t.TempDir(), smtp: mailtest.FreeAddr(t), people: recipients{seed: seed}}
	must(t, "mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", f.dir)
	t.Cleanup(func() { exec.Command("umount", "-l", f.dir).Run() })
	relay := f.smtp
	if eager {
		f.eagerAddr = mailtest.FreeAddr(t)
		relay = f.eagerAddr
		f.startEager()
		t.Cleanup(func() { f.eager.Process.Kill(); f.eager.Wait() })
	}
	// A server that is away for a moment is tried again at once, by mail that waits for a second or two.
	f.postfix = mailtest.StartPostfix(t, relay, "default_destination_concurrency_limit = 20", "default_destination_concurrency_failed_cohort_limit = 0",
		"default_process_limit = 40", "in_flow_delay = 0")
	f.service = newInstallation(t, f.data(), f.flags()...)
	t.Cleanup(func() {
		f.service.kill()
		if t.Failed() {
			t.Logf("the service said:\n%s", f.service.log.String())
		}
	})
	return f
}

func (f *flood) data() string { return filepath.Join(f.dir, "data") }

func (f *flood) flags() []string {
	return []string{"--smtp", f.smtp, "--mail-domain", floodDomain}
}

// send puts a message for each token into Postfix's queue, over eight connections.
func (f *flood) send(tokens []string) {
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			c, err := smtp.Dial(f.postfix.Addr)
			if err != nil {
				f.t.Error(err)
				return
			}
			defer c.Close()
			for i := w; i < len(tokens); i += 8 {
				from := fmt.Sprintf("p%d@example.com", i)
				text := "From: " + from + "\r\nSubject: unsubscribe\r\nAuto-Submitted: auto-replied\r\n\r\nApple Mail sent this email to unsubscribe\r\n"
				if err := c.SendMail(from, []string{"u-" + tokens[i] + "@" + floodDomain}, strings.NewReader(text)); err != nil {
					f.t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// out is how many people are out.
func (f *flood) out() int { return len(f.addresses) - len(f.service.inForce(f.t, f.addresses)) }

// reach waits until so many are out, or Postfix has no more to bring.
func (f *flood) reach(n int) {
	f.t.Helper()
	f.wait(func() bool { return f.out() >= n || f.brought() })
}

// wait waits for up to two minutes.
func (f *flood) wait(ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("%d of %d are out after two minutes", f.out(), len(f.addresses))
		}
	}
}

// brought tells whether everything was sent, and Postfix has none of it left.
func (f *flood) brought() bool { return f.sent.Load() && f.empty() }

// empty tells whether Postfix has nothing left to deliver.
func (f *flood) empty() bool {
	said, _ := f.postfix.Run("", "postqueue", "-p")
	return strings.Contains(said, "Mail queue is empty")
}

// kill kills the service, and the server in front, and starts them anew.
func (f *flood) kill() {
	f.t.Helper()
	if f.eager != nil {
		f.eager.Process.Kill()
		f.eager.Wait()
	}
	f.service.kill()
	var err error
	if f.service, err = serve(f.t, f.data(), f.flags()...); err != nil {
		f.t.Fatal(err)
	}
	if f.eager != nil {
		f.startEager()
	}
}

// fill fills the disk until messages are put off, and frees it.
func (f *flood) fill() {
	f.t.Helper()
	name := filepath.Join(f.dir, "filler")
	filler, err := os.Create(name)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := io.Copy(filler, io.LimitReader(zeroes{}, 1<<30)); err == nil {
		f.t.Fatal("the disk is not full")
	}
	filler.Close()
	before := f.count("said: 451")
	waitFor(f.t, func() bool { return f.count("said: 451") > before || f.empty() })
	if err := os.Remove(name); err != nil {
		f.t.Fatal(err)
	}
}

// count counts lines of Postfix's log.
func (f *flood) count(words string) int {
	b, err := os.ReadFile(f.postfix.Log)
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.Count(string(b), words)
}

// run brings n people's mail while faults come down, spread over the flood, and returns who is not out when Postfix has no more.
func (f *flood) run(random *rand.Rand, n, kills, fulls int) (lost []string) {
	f.t.Helper()
	faults := slices.Repeat([]func(){f.kill}, kills)
	for range fulls {
		faults = append(faults, f.fill)
	}
	random.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	addresses, tokens := f.people.take(f.t, f.service, n)
	f.addresses = addresses
	began := time.Now()
	var sending sync.WaitGroup
	sending.Go(func() { f.send(tokens); f.sent.Store(true) })
	defer sending.Wait()
	for i, strike := range faults {
		f.reach((i + 1) * n / (len(faults) + 2))
		if f.eager == nil && f.brought() {
			// A fault that hits nothing shows nothing. A short flood may be through before. (The control's server has some left for long.)
			if f.t.Logf("all was brought before fault %d of %d", i+1, len(faults)); i == 0 || !testing.Short() {
				f.t.Error("that is too early")
			}
			break
		}
		strike()
	}
	f.wait(f.brought)
	if f.eager != nil {
		f.drain()
	}
	f.t.Logf("%d messages, %d kills, %d times a full disk: %d deliveries deferred, in %v", n, kills, fulls, f.count("status=deferred"), time.Since(began).Round(time.Second))
	return f.service.inForce(f.t, f.addresses)
}

// uneven counts the entries of each person, and returns who has not exactly one.
func (f *flood) uneven() (who []string) {
	f.t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	ledger := optoutv1.NewSuppressionServiceClient(f.service.conn)
	for w := range 16 {
		all.Go(func() {
			for i := w; i < len(f.addresses); i += 16 {
				story, err := ledger.ExplainAddress(f.service.ctx(), &optoutv1.ExplainAddressRequest{Address: f.addresses[i]})
				if err != nil {
					f.t.Error(err)
					return
				}
				if len(story.Entries) != 1 {
					mu.Lock()
					who = append(who, f.addresses[i])
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	return who
}

// A flood of unsubscribe mail from a real Postfix, while the service is killed and its disk is full again and again: after
// Postfix's retries every person is out, and none is twice on the ledger.
func TestMailFlood(t *testing.T) {
	n, kills, fulls := 20000, 6, 2
	if testing.Short() {
		n, kills, fulls = 1000, 2, 1
	}
	random, seed := newSeed(t)
	f := newFlood(t, false, seed)
	if lost := f.run(random, n, kills, fulls); len(lost) > 0 {
		t.Errorf("%d of %d people are not out", len(lost), n)
	}
	if uneven := f.uneven(); len(uneven) > 0 {
		t.Errorf("%d of %d people have not exactly one entry", len(uneven), n)
	}
	if f.count("status=deferred") == 0 {
		t.Error("nothing was deferred: the faults hit nothing")
	}
	if bounced := f.count("status=bounced"); bounced > 0 {
		t.Errorf("%d messages were refused for good", bounced)
	}
	f.service.kill()
	verified(t, f.data())
}

// The control of TestMailFlood: a server that answers before the ledger has the message loses people when it is killed, and only
// then.
func TestMailFloodControl(t *testing.T) {
	for _, kills := range []int{0, 2} {
		random, seed := newSeed(t)
		f := newFlood(t, true, seed)
		lost := f.run(random, 1000, kills, 0)
		if (len(lost) > 0) != (kills > 0) {
			t.Errorf("%d kills behind a server that answers too early: %d people lost", kills, len(lost))
		}
		t.Logf("the control lost %d of 1000", len(lost))
	}
}

// eagerEnv makes the test program the control's server: where it listens and where it forwards to, apart by a comma.
const eagerEnv = "OPTOUT_TEST_EAGER"

// startEager starts it.
func (f *flood) startEager() {
	f.t.Helper()
	f.eager = exec.Command(os.Args[0])
	f.eager.Env = append(os.Environ(), eagerEnv+"="+f.eagerAddr+","+f.smtp)
	if err := f.eager.Start(); err != nil {
		f.t.Fatal(err)
	}
	waitFor(f.t, func() bool {
		c, err := net.Dial("tcp", f.eagerAddr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// idle is the sender that the control's server answers when it has nothing left to bring.
const idle = "idle@example.com"

// drain waits until it has nothing left.
func (f *flood) drain() {
	f.t.Helper()
	c, err := smtp.Dial(f.eagerAddr)
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	if err := c.Mail(idle, nil); err != nil {
		f.t.Fatal(err)
	}
}

// eagerProcess takes mail, answers 250, and brings it to the service afterwards, as often as it takes.
func eagerProcess() {
	addr, behind, _ := strings.Cut(os.Getenv(eagerEnv), ",")
	q := &eagerQueue{mail: make(chan *eager, 1<<16)}
	go func() {
		for m := range q.mail {
			for m.bring(behind) != nil {
				time.Sleep(20 * time.Millisecond)
			}
			time.Sleep(3 * time.Millisecond) // slower than Postfix, so that a kill finds some left
			q.left.Add(-1)
		}
	}()
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &eager{q: q}, nil }))
	s.Domain, s.Addr, s.ReadTimeout, s.WriteTimeout = "eager", addr, time.Minute, time.Minute
	if err := s.ListenAndServe(); err != nil {
		panic(err)
	}
}

type eagerQueue struct {
	mail chan *eager
	left atomic.Int64
}

// eager is a session, and a message on its way.
type eager struct {
	q    *eagerQueue
	from string
	to   []string
	text string
}

func (e *eager) bring(addr string) error {
	c, err := smtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.SendMail(e.from, e.to, strings.NewReader(e.text))
}

func (e *eager) Reset()        { *e = eager{q: e.q} }
func (e *eager) Logout() error { return nil }
func (e *eager) Mail(from string, _ *smtp.MailOptions) error {
	for from == idle && e.q.left.Load() > 0 {
		time.Sleep(20 * time.Millisecond)
	}
	e.from = from
	return nil
}

func (e *eager) Rcpt(to string, _ *smtp.RcptOptions) error {
	e.to = append(e.to, to)
	return nil
}

func (e *eager) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	e.q.left.Add(1)
	e.q.mail <- &eager{from: e.from, to: e.to, text: string(b)}
	return nil
}
