package imapin_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"go.uber.org/goleak"

	"optout/service/imapin"
	"optout/service/mailtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reader takes messages and remembers how often it was given each.
type reader struct {
	t    *testing.T
	d    *mailtest.Dovecot
	mu   sync.Mutex
	got  map[string]int
	take func(subject string, times int) error // may be nil
}

func newReader(t *testing.T, settings ...string) *reader {
	t.Parallel() // each has a server of its own
	return &reader{t: t, d: mailtest.StartDovecot(t, settings...), got: map[string]int{}}
}

func (r *reader) count(subject string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[subject]
}

// run starts a poller of a folder; the function it returns ends it and waits.
func (r *reader) run(folder string, change ...func(*imapin.Options)) (stop func()) {
	r.t.Helper()
	o := imapin.Options{Mailbox: r.d.URL(folder), TLS: r.d.TLS, Now: time.Now, Log: slog.New(slog.DiscardHandler), Take: func(_ context.Context, raw []byte) error {
		_, rest, _ := strings.Cut(string(raw), "Subject: ")
		subject, _, _ := strings.Cut(rest, "\r\n")
		r.mu.Lock()
		r.got[subject]++
		n := r.got[subject]
		r.mu.Unlock()
		if r.take != nil {
			return r.take(subject, n)
		}
		return nil
	}}
	for _, f := range change {
		f(&o)
	}
	p, err := imapin.New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	imapin.RetrySoon(p)
	imapin.ClaimsEnd(p, 500*time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	r.t.Cleanup(stop)
	return stop
}

// until waits for a condition.
func (r *reader) until(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not within 30 seconds; Dovecot said:\n%s", what, r.d.Log())
		}
	}
}

// owner is another client of the mailbox.
func (r *reader) owner(folder string) *imapclient.Client {
	r.t.Helper()
	c, err := imapclient.DialTLS(r.d.Addr, &imapclient.Options{TLSConfig: r.d.TLS.Clone()})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if err := c.Login(mailtest.DovecotUser, "correct horse").Wait(); err != nil {
		r.t.Fatal(err)
	}
	if folder != "INBOX" {
		if err := c.Create(folder, nil).Wait(); err != nil {
			r.t.Fatal(err)
		}
	}
	if _, err := c.Select(folder, nil).Wait(); err != nil {
		r.t.Fatal(err)
	}
	return c
}

func put(t *testing.T, c *imapclient.Client, folder, subject, body string) {
	t.Helper()
	text := "From: ann@example.org\r\nSubject: " + subject + "\r\n\r\n" + body + "\r\n"
	cmd := c.Append(folder, int64(len(text)), nil)
	_, err := io.WriteString(cmd, text)
	if err == nil {
		err = cmd.Close()
	}
	if err == nil {
		_, err = cmd.Wait()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// flagged is how many messages of the folder have a flag, and without how many lack it.
func flagged(t *testing.T, c *imapclient.Client, flag imap.Flag) (with, without int) {
	t.Helper()
	if err := c.Noop().Wait(); err != nil {
		t.Fatal(err)
	}
	count := func(criteria *imap.SearchCriteria) int {
		found, err := c.UIDSearch(criteria, nil).Wait()
		if err != nil {
			t.Fatal(err)
		}
		return len(found.AllUIDs())
	}
	return count(&imap.SearchCriteria{Flag: []imap.Flag{flag}}), count(&imap.SearchCriteria{NotFlag: []imap.Flag{flag}})
}

// What lies there and what comes later is taken once and marked, without being seen or deleted; the server tells when mail comes.
func TestMailIsTakenAndMarked(t *testing.T) {
	r := newReader(t)
	for _, folder := range []string{"INBOX", "Wünsche & mehr"} {
		c := r.owner(folder)
		put(t, c, folder, folder+" before", "x")
		stop := r.run(folder, func(o *imapin.Options) { o.Poll = time.Hour })
		r.until("what was there", func() bool { return r.count(folder+" before") == 1 })
		r.until("marked", func() bool { n, _ := flagged(t, c, "$OptoutDone"); return n == 1 })
		put(t, c, folder, folder+" after", strings.Repeat("line\r\n", 100000))
		r.until("what comes later", func() bool { return r.count(folder+" after") == 1 })
		r.until("marked", func() bool { n, _ := flagged(t, c, "$OptoutDone"); return n == 2 })
		stop()
		stop = r.run(folder) // a new start reads nothing again
		put(t, c, folder, folder+" third", "x")
		r.until("after a new start", func() bool { return r.count(folder+" third") == 1 })
		stop()
		if r.count(folder+" before") != 1 || r.count(folder+" after") != 1 {
			t.Errorf("%s: taken again: %v", folder, r.got)
		}
		if seen, _ := flagged(t, c, imap.FlagSeen); seen != 0 {
			t.Errorf("%s: %d messages look read", folder, seen)
		}
	}
}

// A message is marked only when it was taken: one that fails, or whose taking panics, is tried again, and others do not wait for it.
func TestWhatFailsIsTriedAgain(t *testing.T) {
	r := newReader(t)
	c := r.owner("INBOX")
	r.take = func(subject string, times int) error {
		switch {
		case subject == "poison":
			panic("a fault")
		case subject == "later" && times < 4:
			return errors.New("not now")
		}
		return nil
	}
	for _, s := range []string{"poison", "later", "one", "two"} {
		put(t, c, "INBOX", s, "x")
	}
	r.run("INBOX")
	r.until("others", func() bool { return r.count("one") == 1 && r.count("two") == 1 })
	r.until("the fourth try", func() bool { return r.count("later") == 4 && r.count("poison") > 1 })
	r.until("marked", func() bool { n, rest := flagged(t, c, "$OptoutDone"); return n == 3 && rest == 1 })
}

// Two pollers at once lose nothing, and seldom do anything twice.
func TestTwoPollers(t *testing.T) {
	r := newReader(t)
	c := r.owner("INBOX")
	// Both are at work before either has taken anything, and taking takes a while, so that they do get into each other's way.
	var both sync.WaitGroup
	both.Add(2)
	var first [2]sync.Once
	working := func(i int) func(*imapin.Options) {
		return func(o *imapin.Options) {
			take := o.Take
			o.Take = func(ctx context.Context, raw []byte) error {
				first[i].Do(func() { both.Done(); both.Wait() })
				return take(ctx, raw)
			}
		}
	}
	r.take = func(string, int) error { time.Sleep(2 * time.Millisecond); return nil }
	const n = 200
	for i := range n {
		put(t, c, "INBOX", fmt.Sprintf("m%d", i), "x")
	}
	r.run("INBOX", working(0))
	r.run("INBOX", working(1))
	r.until("all marked", func() bool { marked, _ := flagged(t, c, "$OptoutDone"); return marked == n })
	total := 0
	for i := range n {
		k := r.count(fmt.Sprintf("m%d", i))
		if total += k; k == 0 {
			t.Errorf("m%d was never taken", i)
		}
	}
	t.Logf("%d messages were taken %d times", n, total)
	if total > n+n/20 {
		t.Errorf("%d messages were taken %d times: the pollers do the same work", n, total)
	}
}

// A server that ends between taking and marking, and comes back, loses nothing and has nothing taken twice.
func TestConnectionsEnd(t *testing.T) {
	r := newReader(t)
	c := r.owner("INBOX")
	cut := make(chan struct{}, 1)
	r.take = func(subject string, times int) error {
		if subject == "cut" {
			r.d.Stop() // the mark of this message can no longer be set
			cut <- struct{}{}
		}
		return nil
	}
	put(t, c, "INBOX", "cut", "x")
	r.run("INBOX")
	<-cut
	r.d.Start()
	c = r.owner("INBOX")
	r.until("marked", func() bool { n, _ := flagged(t, c, "$OptoutDone"); return n == 1 })
	put(t, c, "INBOX", "next", "x")
	r.until("the next", func() bool { return r.count("next") == 1 })
	if n := r.count("cut"); n != 1 {
		t.Errorf("it was taken %d times", n)
	}
}

// When the service itself ends between taking and marking, the next one takes the message again, in spite of the claim left on it.
func TestTheServiceEndsBeforeTheMark(t *testing.T) {
	r := newReader(t)
	c := r.owner("INBOX")
	cut := make(chan struct{}, 1)
	r.take = func(_ string, times int) error {
		if times == 1 {
			r.d.Stop()
			cut <- struct{}{}
		}
		return nil
	}
	put(t, c, "INBOX", "cut", "x")
	stop := r.run("INBOX")
	<-cut
	stop()
	r.d.Start()
	c = r.owner("INBOX")
	if n, _ := flagged(t, c, "$OptoutTaken"); n != 1 {
		t.Fatal("the message was not claimed, so this shows nothing")
	}
	r.run("INBOX")
	r.until("marked", func() bool { n, _ := flagged(t, c, "$OptoutDone"); return n == 1 })
	if n := r.count("cut"); n != 2 {
		t.Errorf("it was taken %d times", n)
	}
}

// rights are settings that leave the mailbox's owner only some rights to INBOX (RFC 4314): without w no keywords, without e no moving.
func rights(t *testing.T, letters string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "acl") // not t.TempDir: Dovecot's own users read it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "INBOX"), []byte("owner "+letters+"\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	return "mail_plugins = acl\nplugin {\n  acl = vfile:" + dir + "\n}"
}

// Where a folder takes no keywords what is done is moved, by MOVE or without it; also where the server has neither IDLE nor CONDSTORE.
func TestWithoutKeywords(t *testing.T) {
	for name, settings := range map[string][]string{"MOVE": nil, "UIDPLUS": {"imap_capability = IMAP4rev1 UIDPLUS LITERAL+"}} {
		t.Run(name, func(t *testing.T) {
			r := newReader(t, append(settings, rights(t, "lrstikxe"))...)
			r.take = func(subject string, times int) error {
				if subject == "later" && times == 1 {
					return errors.New("not now")
				}
				return nil
			}
			c := r.owner("INBOX")
			for _, s := range []string{"one", "later", "three"} {
				put(t, c, "INBOX", s, "x")
			}
			r.run("INBOX", func(o *imapin.Options) { o.Poll = 50 * time.Millisecond })
			r.until("moved", func() bool { n, rest := flagged(t, c, imap.FlagDeleted); return n+rest == 0 })
			put(t, c, "INBOX", "four", "x")
			r.until("what comes later", func() bool { return r.count("four") == 1 })
			r.until("moved too", func() bool { n, rest := flagged(t, c, imap.FlagDeleted); return n+rest == 0 })
			done, err := c.Select("optout-done", nil).Wait()
			if err != nil || done.NumMessages != 4 {
				t.Errorf("optout-done holds %d messages: %v", done.NumMessages, err)
			}
			if r.count("one") != 1 || r.count("later") != 2 {
				t.Errorf("taken: %v", r.got)
			}
		})
	}
}

// A server that refuses to mark messages keeps no other from being taken, has none taken twice, and the connection stays.
func TestMarkRefused(t *testing.T) {
	r := newReader(t, rights(t, "lrstikx"))
	c := r.owner("INBOX")
	for _, s := range []string{"one", "two", "three"} {
		put(t, c, "INBOX", s, "x")
	}
	var logged strings.Builder
	r.run("INBOX", func(o *imapin.Options) { o.Log = slog.New(slog.NewTextHandler(locked{&r.mu, &logged}, nil)) })
	said := func(text string) int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return strings.Count(logged.String(), text)
	}
	r.until("refused, and again", func() bool { return said("could not be taken or marked") > 6 })
	if r.count("one") != 1 || r.count("two") != 1 || r.count("three") != 1 || said("cannot be watched") != 0 {
		t.Errorf("taken %v, logged:\n%s", r.got, logged.String())
	}
}

// What is too large is left, flagged, and does not keep the rest from being read.
func TestTooLarge(t *testing.T) {
	r := newReader(t)
	c := r.owner("INBOX")
	put(t, c, "INBOX", "large", strings.Repeat(strings.Repeat("a", 998)+"\r\n", 32<<10))
	put(t, c, "INBOX", "small", "x")
	r.run("INBOX")
	r.until("the small one", func() bool { return r.count("small") == 1 })
	r.until("the flag", func() bool { n, _ := flagged(t, c, imap.FlagFlagged); return n == 1 })
	if r.count("large") != 0 {
		t.Error("the large one was read")
	}
}

// A wrong password is tried again, so that a new one in the file is found; it is in no log. Without TLS none is sent off loopback.
func TestPasswords(t *testing.T) {
	r := newReader(t)
	c := r.owner("INBOX")
	put(t, c, "INBOX", "hello", "x")
	if err := os.WriteFile(r.d.PasswordFile, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	var mu sync.Mutex
	r.run("INBOX", func(o *imapin.Options) {
		o.Log = slog.New(slog.NewTextHandler(locked{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	r.until("the refusal", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(log.String(), "refused user or password")
	})
	if err := os.WriteFile(r.d.PasswordFile, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.until("the new password", func() bool { return r.count("hello") == 1 })
	mu.Lock()
	defer mu.Unlock()
	if s := log.String(); strings.Contains(s, "hunter2") || strings.Contains(s, "correct horse") || strings.Contains(s, mailtest.DovecotUser) {
		t.Errorf("the log tells too much:\n%s", s)
	}
}

// A folder that is not there is named as what is wrong, and is watched once it is there.
func TestNoSuchFolder(t *testing.T) {
	r := newReader(t)
	c := r.owner("INBOX")
	var log strings.Builder
	var mu sync.Mutex
	r.run("Answers", func(o *imapin.Options) { o.Log = slog.New(slog.NewTextHandler(locked{&mu, &log}, nil)) })
	r.until("the refusal", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(log.String(), "the folder cannot be opened") && strings.Contains(log.String(), "see that the folder is there")
	})
	if err := c.Create("Answers", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	put(t, c, "Answers", "hello", "x")
	r.until("the message in the new folder", func() bool { return r.count("hello") == 1 })
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// With imap:// the session is encrypted before the password is sent.
func TestStartTLS(t *testing.T) {
	r := newReader(t)
	c := r.owner("INBOX")
	put(t, c, "INBOX", "hello", "x")
	plain := func(o *imapin.Options) {
		o.Mailbox = strings.Replace(strings.Replace(o.Mailbox, "imaps://", "imap://", 1), r.d.Addr, r.d.Plain, 1)
	}
	stop := r.run("INBOX", plain, func(o *imapin.Options) { o.TLS = &tls.Config{} }) // which does not trust the certificate
	time.Sleep(300 * time.Millisecond)
	stop()
	if r.count("hello") != 0 {
		t.Error("read from a server that nobody vouches for")
	}
	r.run("INBOX", plain)
	r.until("with STARTTLS", func() bool { return r.count("hello") == 1 })
}

func TestBadURLs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, u := range []string{"", "https://a@b/", "imaps://host/INBOX?password-file=" + file, "imaps://user:secret@host/?password-file=" + file, "imaps://user@host/INBOX",
		"imaps://user@host/INBOX?password-file=" + file, "imaps://user@host/INBOX?password-file=/nonexistent", "imaps://user@/"} {
		if _, err := imapin.New(imapin.Options{Mailbox: u}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", u, err)
		}
	}
}

// A connection that is made is not given up for lost: whoever watches the metric would be called for nothing.
func TestNoFalseAlarm(t *testing.T) {
	r := newReader(t)
	c := r.owner("INBOX")
	lost, n := 0, 40
	if testing.Short() {
		n = 10
	}
	for i := range n {
		subject := fmt.Sprintf("m%d", i)
		put(t, c, "INBOX", subject, "x")
		stop := r.run("INBOX", func(o *imapin.Options) {
			o.Observe = func(outcome string) {
				if outcome == imapin.Disconnected {
					lost++
				}
			}
		})
		r.until(subject, func() bool { return r.count(subject) > 0 })
		stop()
	}
	if lost != 0 {
		t.Errorf("%d of %d connections were given up", lost, n)
	}
}
