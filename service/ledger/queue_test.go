package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"optout/service/ledger"
)

// queue puts an opt-out that is in doubt into the queue.
func (w *world) queue(addr, source string) uint64 {
	w.t.Helper()
	o := w.must(w.Queue(w.ctx(), ledger.By{Channel: ledger.ByMail, Evidence: map[string]string{"subject": "stop"}},
		ledger.QueueItem{Address: addr, Claim: ledger.ClaimOptOut, Doubt: ledger.DoubtUnproved, Source: source, Network: true}))
	return o.Entry
}

func (w *world) due() int {
	w.t.Helper()
	n, err := w.DecideDue(w.ctx())
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// known makes the ledger know an address, without a no.
func (w *world) known(addr string) { w.t.Helper(); w.subscribe(full("news", addr)) }

func (w *world) listQueue(f ledger.QueueFilter) []ledger.InQueue {
	w.t.Helper()
	all, _, err := w.Waiting(w.ctx(), ledger.Page{Size: 1000}, f)
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// What waits changes nothing; after a day it is done by itself where the ledger knows the address, also across a restart.
func TestQueueDecidesByItself(t *testing.T) {
	w := newWorld(t)
	w.known(ann)
	at, stranger := w.queue(ann, "192.0.2.0/24"), w.queue("stranger@example.net", "192.0.2.0/24")
	again := w.queue("stranger@example.net", "192.0.2.0/24") // to have written twice is not to be known
	w.want("news", ann, "SEND")
	w.pass(ledger.DefaultQueueDelay - time.Minute)
	if n := w.due(); n != 0 {
		t.Fatalf("%d decided too early", n)
	}
	w.reopen()
	w.pass(time.Minute)
	if n := w.due(); n != 1 {
		t.Fatalf("%d decided", n)
	}
	w.want("news", ann, "OPTED_OUT_ALL")
	w.want("news", "ann+letters@example.com", "OPTED_OUT_ALL") // as if it had been certain who wrote
	w.want("news", "stranger@example.net", "SEND")
	if n := w.due(); n != 0 {
		t.Errorf("%d decided once more", n)
	}
	left := w.listQueue(ledger.QueueFilter{})
	if len(left) != 2 || left[0].Waiting.Position != stranger || left[1].Waiting.Position != again || left[0].Known || left[0].Line.Evidence["subject"] != "stop" {
		t.Errorf("left: %+v", left)
	}
	w.known("stranger@example.net") // once the ledger knows it, the mail counts
	if n := w.due(); n != 2 {
		t.Errorf("%d decided when it became known", n)
	}
	w.want("news", "stranger@example.net", "OPTED_OUT_ALL")
	item, err := w.InQueue(w.ctx(), "", at)
	if err != nil || item.Waiting.Position != 0 {
		t.Errorf("decided, but %+v, %v", item, err)
	}
	st, err := w.Explain(w.ctx(), "", ann)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []ledger.Kind
	for _, l := range st.Lines {
		kinds = append(kinds, l.Kind)
	}
	if fmt.Sprint(kinds) != fmt.Sprint([]ledger.Kind{ledger.Subscribed, ledger.Queued, ledger.OptedOut, ledger.Decided}) {
		t.Errorf("story: %v", kinds)
	}
	if _, _, err := w.Void(w.ctx(), w.admin(), "", []uint64{st.Lines[2].Position}, "it was forged", "ticket 7"); err != nil {
		t.Errorf("what the queue did cannot be voided: %v", err)
	}
	w.want("news", ann, "SEND")
}

// A clock that stood a year ahead for a while, and was put right, keeps nobody's mail waiting for a year.
func TestQueueOutlivesAClockThatWasAhead(t *testing.T) {
	w := newWorld(t)
	w.known(ann)
	w.known(bob)
	w.pass(365 * 24 * time.Hour)
	w.queue(ann, "192.0.2.0/24")
	w.pass(-365 * 24 * time.Hour)
	w.queue(bob, "192.0.2.0/24")
	if behind := w.ClockBehind(); behind != 365*24*time.Hour {
		t.Errorf("the clock is said to be %v behind", behind)
	}
	if n := w.due(); n != 0 {
		t.Errorf("%d decided at once", n)
	}
	w.pass(ledger.DefaultQueueDelay - time.Minute)
	if n := w.due(); n != 0 {
		t.Errorf("%d decided too early", n)
	}
	w.pass(time.Minute)
	if n := w.due(); n != 2 {
		t.Errorf("%d decided, want both", n)
	}
	w.want("news", ann, "OPTED_OUT_ALL")
}

// An operator decides, by what each message claims; nobody else does.
func TestDecide(t *testing.T) {
	w := newWorld(t)
	optOut, complaint := w.queue(ann, ""), uint64(0)
	o := w.must(w.Queue(w.ctx(), ledger.By{Channel: ledger.ByFeedback}, ledger.QueueItem{Address: "bob@example.com", Claim: ledger.ClaimComplaint, Doubt: ledger.DoubtReporter, Scope: scopeOf("receipts")}))
	complaint = o.Entry
	question := w.must(w.Queue(w.ctx(), ledger.By{Channel: ledger.ByMail}, ledger.QueueItem{Claim: ledger.ClaimMessage, Doubt: ledger.DoubtUnread})).Entry
	asked := w.must(w.Queue(w.ctx(), ledger.By{Channel: ledger.ByMail}, ledger.QueueItem{Address: "cy@example.com", Claim: ledger.ClaimMessage, Doubt: ledger.DoubtUnread})).Entry
	decide := func(by ledger.By, d ledger.Decision, entries ...uint64) (int, error) {
		n, _, err := w.Decide(w.ctx(), by, "", entries, d, "read by hand")
		return n, err
	}
	if _, err := decide(w.as(ledger.RoleSupport), ledger.DecideSuppress, optOut); !errors.Is(err, ledger.ErrRoleRequired) {
		t.Errorf("support decides: %v", err)
	}
	if _, err := decide(w.admin(), ledger.DecideSuppress, optOut, question); !errors.Is(err, ledger.ErrInvalidField) {
		t.Errorf("whom to suppress? %v", err)
	}
	if _, err := decide(w.admin(), ledger.DecideSuppress, optOut, 1); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("no message: %v", err)
	}
	w.want("news", ann, "SEND") // all or none
	by := w.as(ledger.RoleOperator)
	for range 2 { // a retry is answered as the first try
		if n, err := decide(by, ledger.DecideSuppress, optOut, complaint, asked); n != 3 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if n, err := decide(w.admin(), ledger.DecideDismiss, question, optOut); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	w.want("news", ann, "OPTED_OUT_ALL")
	w.want("news", "bob@example.com", "COMPLAINT")
	w.want("receipts", "bob@example.com", "COMPLAINT")
	w.want("receipts", "cy@example.com", "OPTED_OUT_ALL")
	if left := w.listQueue(ledger.QueueFilter{}); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	if rep, err := w.Verify(w.ctx(), nil); err != nil || rep.FirstBad != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// The queue is bounded, by source and by message.
func TestQueueIsBounded(t *testing.T) {
	w := newWorld(t)
	for i := range ledger.MaxPerSource {
		w.queue(fmt.Sprintf("p%d@example.com", i), "192.0.2.0/24")
	}
	item := ledger.QueueItem{Address: ann, Claim: ledger.ClaimOptOut, Doubt: ledger.DoubtUnproved, Source: "192.0.2.0/24", Network: true}
	if _, err := w.Queue(w.ctx(), ledger.By{Channel: ledger.ByMail}, item); !errors.Is(err, ledger.ErrQueueFull) {
		t.Errorf("taken: %v", err)
	}
	item.Source = "198.51.100.0/24"
	by := ledger.By{Channel: ledger.ByMail, RequestID: "digest-1"}
	first := w.must(w.Queue(w.ctx(), by, item))
	if again := w.must(w.Queue(w.ctx(), by, item)); again.Entry != first.Entry {
		t.Errorf("the same message waits twice: %+v, %+v", first, again)
	}
	w.pass(25 * time.Hour)
	w.queue(ann, "192.0.2.0/24")
}

// Nothing makes the queue longer than it may be: neither messages nor a storm of bounces. What is not taken is to come again.
func TestQueueIsFull(t *testing.T) {
	w := newWorld(t)
	bounce := func(i int) error {
		_, err := w.BounceAddress(w.ctx(), ledger.By{}, "", fmt.Sprintf("p%d@big.example", i), ledger.Failed{Failure: ledger.HardFailure})
		return err
	}
	for i := range ledger.StormLeast {
		if err := bounce(i); err != nil {
			t.Fatal(err)
		}
	}
	w.FillQueue()
	if _, err := w.Queue(w.ctx(), ledger.By{Channel: ledger.ByMail}, ledger.QueueItem{Address: ann, Claim: ledger.ClaimOptOut, Doubt: ledger.DoubtUnproved}); !errors.Is(err, ledger.ErrQueueFull) {
		t.Errorf("a message is taken: %v", err)
	}
	if err := bounce(ledger.StormLeast); !errors.Is(err, ledger.ErrQueueFull) {
		t.Errorf("a bounce of a storm is taken: %v", err)
	}
	w.reopen() // nobody waits there any more
	if err := bounce(ledger.StormLeast); err != nil {
		t.Error(err)
	}
}

// counting counts how often single entries are read.
type counting struct {
	ledger.Store
	reads atomic.Int64
}

func (c *counting) Get(ctx context.Context, position uint64) (ledger.Record, error) {
	c.reads.Add(1)
	return c.Store.Get(ctx, position)
}

// Many messages in one name make the queue no slower to list than as many in different names: the store is read once for each, and once
// more for each of the address.
func TestManyInOneName(t *testing.T) {
	w := newWorld(t)
	const n = 300
	for i := range n {
		w.queue(bob, fmt.Sprintf("10.0.%d.0/24", i))
	}
	w.close()
	store := &counting{}
	w.openWith(func(s ledger.Store) ledger.Store { store.Store = s; return store })
	store.reads.Store(0)
	if got := len(w.listQueue(ledger.QueueFilter{})); got != n {
		t.Fatalf("%d listed", got)
	}
	if reads := store.reads.Load(); reads > 4*n {
		t.Errorf("%d reads of the store to list %d messages", reads, n)
	}
	w.known(bob)
	if !w.listQueue(ledger.QueueFilter{})[0].Known {
		t.Error("known, but not listed so")
	}
}

// Whoever writes from ann@ also speaks of ann+anything@, known or not; the other way round only where the domain is known for it.
func TestOwnWordsCoverSubaddresses(t *testing.T) {
	w := newWorld(t)
	by := ledger.By{Channel: ledger.ByMail}
	must := func(addr string) { w.must(w.OptOutMailbox(w.ctx(), by, "", addr)) }
	must(ann)
	w.want("news", "ann+news@example.com", "OPTED_OUT_ALL")
	w.want("news", "Ann+a+b@example.com", "OPTED_OUT_ALL")
	w.want("news", "anne@example.com", "SEND")
	must("bob+x@example.com") // may be somebody else than bob@
	w.want("news", "bob+x@example.com", "OPTED_OUT_ALL")
	w.want("news", "bob@example.com", "SEND")
	w.want("news", "bob+y@example.com", "SEND")
	must("c.y+shop@gmail.com")
	for _, a := range []string{"cy@gmail.com", "c.y@googlemail.com", "cy+letters@gmail.com", "c.y+shop@gmail.com"} {
		w.want("news", a, "OPTED_OUT_ALL")
	}
	w.press("dee@example.com", "ALL", ledger.ByOneClick) // a link stops one address: the tag is one that the person chose
	w.want("news", "dee+news@example.com", "SEND")
	if o := w.must(w.OptOutMailbox(w.ctx(), by, "", "dee@example.com")); !o.Created {
		t.Error("a wider no is not written")
	}
	w.want("news", "dee+news@example.com", "OPTED_OUT_ALL")
	w.confirm(w.subscribe(full("news", "dee+news@example.com"))) // its own later yes lifts it there, and there alone
	w.want("news", "dee+news@example.com", "SEND")
	w.want("receipts", "dee+news@example.com", "OPTED_OUT_ALL")
	w.want("news", "dee+other@example.com", "OPTED_OUT_ALL")
	w.reopen()
	w.want("news", "ann+news@example.com", "OPTED_OUT_ALL")
	st, err := w.Explain(w.ctx(), "", "ann+news@example.com")
	if err != nil || len(st.Lines) != 1 || st.Lines[0].Kind != ledger.OptedOut {
		t.Errorf("the story does not tell why: %+v, %v", st.Lines, err)
	}
}

// Who is named by a token of ours was mailed, though the ledger has no entry of them: what they ask for in doubt decides itself too.
func TestNamedByTokenIsKnown(t *testing.T) {
	w := newWorld(t)
	w.must(w.Queue(w.ctx(), ledger.By{Channel: ledger.ByMail}, ledger.QueueItem{Token: &ledger.Tokened{Scope: w.number("ALL"), Generation: 1, Key: w.key(ann)}, Claim: ledger.ClaimOptOut, Doubt: ledger.DoubtUnclear}))
	w.reopen()
	w.pass(ledger.DefaultQueueDelay + time.Minute)
	if n := w.due(); n != 1 {
		t.Errorf("%d decided", n)
	}
	w.want("news", ann, "OPTED_OUT_ALL")
}

// A yes through the mailbox that is newer than what waits is not undone by it, also when that was queued before anybody knew the address.
func TestQueueDoesNotBeatALaterYes(t *testing.T) {
	w := newWorld(t)
	at := w.queue(ann, "192.0.2.0/24")
	w.pass(ledger.DefaultQueueDelay + time.Minute)
	w.confirm(w.subscribe(full("news", ann)))
	for range 2 {
		if n := w.due(); n != 0 {
			t.Errorf("%d decided", n)
		}
		w.want("news", ann, "SEND")
		if held := w.listQueue(ledger.QueueFilter{Held: true}); len(held) != 1 || held[0].Waiting.Position != at {
			t.Errorf("held: %+v", held)
		}
		w.reopen()
		w.due()
	}
	if n, _, err := w.Decide(w.ctx(), w.admin(), "", []uint64{at}, ledger.DecideSuppress, "she meant it"); n != 1 || err != nil {
		t.Errorf("a person decides: %d, %v", n, err)
	}
	w.want("news", ann, "OPTED_OUT_ALL")
}

// Nor does an older yes keep what is newer from being done; and what was done meanwhile is not done twice.
func TestQueueBeatsAnEarlierYes(t *testing.T) {
	w := newWorld(t)
	w.confirm(w.subscribe(full("news", ann)))
	w.queue(ann, "192.0.2.0/24")
	w.queue(ann, "192.0.2.0/24")
	w.pass(ledger.DefaultQueueDelay)
	if n := w.due(); n != 2 {
		t.Errorf("%d decided", n)
	}
	w.want("news", ann, "OPTED_OUT_ALL")
	st, err := w.Explain(w.ctx(), "", ann)
	if err != nil {
		t.Fatal(err)
	}
	noes := 0
	for _, l := range st.Lines {
		if l.Kind == ledger.OptedOut {
			noes++
		}
	}
	if noes != 1 {
		t.Errorf("%d noes are written", noes)
	}
}

// What could not be written was not decided: not by the count that is told, and not on the ledger; it is decided when there is room.
func TestDecidingOnAFullDisk(t *testing.T) {
	w := newWorld(t)
	w.known(ann)
	w.queue(ann, "192.0.2.0/24")
	w.close()
	f := &faulty{}
	w.openWith(func(s ledger.Store) ledger.Store { f.Store = s; return f })
	w.pass(ledger.DefaultQueueDelay)
	full := error(ledger.ErrStorageFull)
	f.fail.Store(&full)
	if n, err := w.DecideDue(w.ctx()); n != 0 || !errors.Is(err, ledger.ErrStorageFull) {
		t.Errorf("%d decided, %v", n, err)
	}
	w.want("news", ann, "SEND")
	f.fail.Store(nil)
	if n := w.due(); n != 1 {
		t.Errorf("%d decided when there was room", n)
	}
}

// slow is a store whose commits wait.
type slow struct {
	ledger.Store
	wait chan struct{}
}

func (s *slow) Append(ctx context.Context, c *ledger.Commit) error {
	<-s.wait
	return s.Store.Append(ctx, c)
}

// Who does not wait for a commit is not told of what may become of it.
func TestGivenUpWrites(t *testing.T) {
	for name, write := range map[string]func(w *world, ctx context.Context, queued, wrong uint64) (int, error){
		"decided by a person": func(w *world, ctx context.Context, queued, _ uint64) (int, error) {
			n, _, err := w.Decide(ctx, w.admin(), "", []uint64{queued}, ledger.DecideDismiss, "read by hand")
			return n, err
		},
		"decided by itself": func(w *world, ctx context.Context, _, _ uint64) (int, error) { return w.DecideDue(ctx) },
		"voided": func(w *world, ctx context.Context, _, wrong uint64) (int, error) {
			n, _, err := w.Void(ctx, w.admin(), "", []uint64{wrong}, "it was forged", "ticket 7")
			return n, err
		},
		"imported": func(w *world, ctx context.Context, _, _ uint64) (int, error) {
			o, err := w.Import(ctx, w.admin(), "", "list", []ledger.ImportRow{{Address: ann}}, false, false)
			return o.Added, err
		},
		"preferences": func(w *world, ctx context.Context, _, _ uint64) (int, error) {
			written, _, err := w.UpdatePreferences(ctx, w.admin(), "", ann, []ledger.Preference{{Kind: ledger.OptedOut}})
			return len(written), err
		},
	} {
		w := newWorld(t)
		w.known(ann)
		queued := w.queue(ann, "192.0.2.0/24")
		wrong := w.must(w.Suppress(w.ctx(), w.admin(), ledger.Suppression{Address: "bob@example.com", Reason: ledger.ReasonComplaint})).Entry
		w.close()
		wait := make(chan struct{})
		w.openWith(func(s ledger.Store) ledger.Store { return &slow{s, wait} })
		w.pass(ledger.DefaultQueueDelay)
		ctx, cancel := context.WithTimeout(w.ctx(), 100*time.Millisecond)
		if n, err := write(w, ctx, queued, wrong); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %d written, %v", name, n, err)
		}
		cancel()
		close(wait)
		w.close()
	}
}
