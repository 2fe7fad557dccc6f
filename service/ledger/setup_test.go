package ledger_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"optout/service/address"
	"optout/service/anchor"
	"optout/service/ledger"
	"optout/service/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a ledger on a real SQLite store, with a clock that the test sets.
type world struct {
	*ledger.Ledger
	t     testing.TB
	dir   string
	store ledger.Store
	keys  *address.Keyring
	now   time.Time
	n     int
	// sourceLimit is the queue's; 0 for the usual one.
	sourceLimit int
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newWorld opens a new ledger with the sender "default" and four topics: news (commercial), receipts (transactional), digest
// (commercial, opt-in), law and reset (required, by law and in answer).
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), now: start}
	var err error
	if w.keys, err = address.NewKeyring(address.Generation{ID: 1, Secret: [32]byte{1}, Rules: 1}); err != nil {
		t.Fatal(err)
	}
	w.open()
	t.Cleanup(func() { w.close() })
	w.must(w.CreateSender(w.ctx(), w.admin(), "default", ledger.SenderSettings{}))
	for _, topic := range []ledger.Topic{
		{Name: "news"},
		{Name: "receipts", Class: ledger.Transactional},
		{Name: "digest", Rule: ledger.OptInRule},
		{Name: "law", Class: ledger.Required, Ground: ledger.GroundLaw, Justification: "recall notices are demanded by law"},
		{Name: "reset", Class: ledger.Required, Ground: ledger.GroundAnswer, Justification: "password resets answer a request"},
	} {
		w.must(w.CreateTopic(w.ctx(), w.admin(), "", topic))
	}
	return w
}

// wrapStore lets a test put something between ledger and store.
var plain = func(s ledger.Store) ledger.Store { return s }

func (w *world) open() {
	w.t.Helper()
	w.openWith(plain)
}

func (w *world) openWith(wrap func(ledger.Store) ledger.Store) {
	w.t.Helper()
	if err := w.tryOpen(wrap); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tryOpen(wrap func(ledger.Store) ledger.Store) error {
	s, err := sqlite.Open(w.ctx(), w.database(), sqlite.Options{})
	if err != nil {
		return err
	}
	l, err := ledger.Open(w.ctx(), wrap(s), ledger.Options{Keys: w.keys, Anchor: anchor.At(filepath.Join(w.dir, "checkpoint")),
		Now: func() time.Time { return w.now }, Random: rand.Reader, Log: slog.New(slog.DiscardHandler),
		SourceLimit: w.sourceLimit})
	if err != nil {
		s.Close()
		return err
	}
	w.store, w.Ledger = s, l
	return nil
}

func (w *world) database() string { return filepath.Join(w.dir, "optout.db") }

func (w *world) close() {
	if w.Ledger != nil {
		w.Ledger.Close()
		w.store.Close()
		w.Ledger = nil
	}
}

// reopen closes everything and builds standing anew from the store.
func (w *world) reopen() {
	w.t.Helper()
	w.close()
	w.open()
}

func (w *world) ctx() context.Context { return context.Background() }

// id makes a request id.
func (w *world) id() string {
	w.n++
	return fmt.Sprintf("request-%d", w.n)
}

func (w *world) admin() ledger.By {
	return ledger.By{Key: 1, Role: ledger.RoleAdmin, Channel: ledger.ByAPI, RequestID: w.id()}
}

func (w *world) as(role ledger.Role) ledger.By {
	by := w.admin()
	by.Role = role
	return by
}

func (w *world) must(o ledger.Outcome, err error) ledger.Outcome {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// pass lets time go by.
func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

// number is the scope number of a topic, of "ALL" or of "COMMERCIAL".
func (w *world) number(name string) uint32 {
	s := w.Registry().Sender("")
	switch name {
	case "ALL":
		return s.All()
	case "COMMERCIAL":
		return s.Commercial()
	}
	return s.Topic(name).Number
}

func scopeOf(name string) ledger.Scope {
	switch name {
	case "ALL":
		return ledger.Scope{Kind: ledger.ScopeAll}
	case "COMMERCIAL":
		return ledger.Scope{Kind: ledger.ScopeCommercial}
	}
	return ledger.Scope{Kind: ledger.ScopeTopic, Topic: name}
}

// press presses an unsubscribe link of the address.
func (w *world) press(addr, scope string, channel ledger.Channel) ledger.Outcome {
	w.t.Helper()
	return w.must(w.Press(w.ctx(), ledger.By{Channel: channel}, w.number(scope), 1, w.key(addr)))
}

// key is the suppression key of an address, as a link to it carries.
func (w *world) key(addr string) address.Key {
	w.t.Helper()
	a, err := address.Parse(addr)
	if err != nil {
		w.t.Fatal(err)
	}
	var keys address.Keys
	w.keys.Keys(w.Registry().Sender("").Number, &a, &keys)
	return keys.Of[0].Suppression
}

// full is a subscription with full evidence.
func full(topic, addr string) ledger.Subscription {
	return ledger.Subscription{Topic: topic, Address: addr, Source: "https://example.com/signup", Wording: "Yes, send me the " + topic, Method: "tick-box"}
}

func (w *world) subscribe(s ledger.Subscription) ledger.SubscribeOutcome {
	w.t.Helper()
	o, err := w.Subscribe(w.ctx(), w.as(ledger.RoleCollector), s)
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// confirm brings the confirmation of a request back.
func (w *world) confirm(o ledger.SubscribeOutcome) ledger.ConfirmOutcome {
	w.t.Helper()
	c, err := w.Confirm(w.ctx(), w.as(ledger.RoleCollector), o.Topic.Number, o.Entry, [8]byte(o.Key[:8]))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// check asks for the verdict and writes it as "SEND" or as the strongest reason; "SEND in spite of R" when R was passed.
func (w *world) check(topic, addr string, act ...ledger.Act) string {
	w.t.Helper()
	req := ledger.CheckRequest{Topic: topic, Address: addr}
	if len(act) > 0 {
		req.Act = act[0]
	}
	var v ledger.Verdict
	if err := w.Check(w.ctx(), &req, &v); err != nil {
		w.t.Fatal(err)
	}
	switch {
	case v.Send && v.InSpite != 0:
		return "SEND in spite of " + v.Denials[0].Reason.String()
	case v.Send && len(v.Denials) == 0:
		return "SEND"
	case !v.Send && len(v.Denials) > 0:
		return v.Denials[0].Reason.String()
	}
	w.t.Fatalf("the verdict contradicts itself: %+v", v)
	return ""
}

func (w *world) want(topic, addr, verdict string) {
	w.t.Helper()
	if got := w.check(topic, addr); got != verdict {
		w.t.Errorf("%s to %s: %s, want %s", topic, addr, got, verdict)
	}
}

// otherKeys is a keyring with another secret under an id.
func otherKeys(t *testing.T, id uint16) *address.Keyring {
	t.Helper()
	k, err := address.NewKeyring(address.Generation{ID: id, Secret: [32]byte{9}, Rules: 1})
	if err != nil {
		t.Fatal(err)
	}
	return k
}
