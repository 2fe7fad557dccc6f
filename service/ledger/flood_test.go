package ledger_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"optout/service/ledger"
)

// More than a limit a day from one source, or far more than usual in all, waits for a person, the first of them too.
func TestFloodsAreHeld(t *testing.T) {
	for name, c := range map[string]struct {
		source func(i int) string
		n      int
		held   bool
	}{
		"as many as one source may":    {func(int) string { return "192.0.2.0/24" }, ledger.DefaultSourceLimit, false},
		"one more from one source":     {func(int) string { return "192.0.2.0/24" }, ledger.DefaultSourceLimit + 1, true},
		"a hundred from many":          {func(i int) string { return fmt.Sprintf("10.%d.0.0/24", i) }, 100, false},
		"a hundred and one from many":  {func(i int) string { return fmt.Sprintf("10.%d.0.0/24", i) }, 101, true},
		"as many from unknown sources": {func(int) string { return "" }, 50, false},
	} {
		w := newWorld(t)
		for i := range c.n {
			addr := fmt.Sprintf("p%d@example.com", i)
			w.known(addr)
			w.queue(addr, c.source(i))
		}
		w.reopen()
		w.pass(25 * time.Hour)
		want := c.n
		if c.held {
			want = 0
		}
		if n := w.due(); n != want {
			t.Errorf("%s: %d decided themselves, want %d", name, n, want)
		}
		held := w.listQueue(ledger.QueueFilter{Held: true})
		if c.held != (len(held) == c.n) || w.QueueStats().Held != len(held) {
			t.Errorf("%s: %d held", name, len(held))
		}
		w.close()
	}
}

// A flood holds what asks to stop, and that day's: no question, and nothing that comes on the next day. It does not end at midnight for
// those who go on.
func TestFloodsEnd(t *testing.T) {
	w := newWorld(t)
	question := w.must(w.Queue(w.ctx(), ledger.By{Channel: ledger.ByMail}, ledger.QueueItem{Address: "asks@example.org", Claim: ledger.ClaimMessage, Doubt: ledger.DoubtUnread, Source: "10.0.0.0/24"})).Entry
	for i := range 101 {
		w.queue(fmt.Sprintf("p%d@example.com", i), fmt.Sprintf("10.0.%d.0/24", i/20))
	}
	if held := w.listQueue(ledger.QueueFilter{Held: true}); len(held) != 101 || held[0].Waiting.Position == question {
		t.Errorf("%d held", len(held))
	}
	w.pass(12*time.Hour + time.Minute) // past midnight
	w.known(ann)
	w.queue(ann, "192.0.2.0/24")
	w.queue("p200@example.com", "10.0.0.0/24") // the 21st within a day
	if held := w.QueueStats().Held; held != 102 {
		t.Errorf("%d held on the next day, want one more", held)
	}
	w.pass(ledger.DefaultQueueDelay)
	if n := w.due(); n != 1 {
		t.Errorf("%d decided themselves, want the one that is no part of a flood", n)
	}
	w.want("news", ann, "OPTED_OUT_ALL")
}

// What is usual grows with the days, so a busy sender's queue is not held for being busy.
func TestUsualDaysAreNotHeld(t *testing.T) {
	w := newWorld(t)
	n := 0
	days := func(count, each int) (held int) {
		for range count {
			for i := range each {
				n++
				w.queue(fmt.Sprintf("p%d@example.com", n), fmt.Sprintf("10.%d.%d.0/24", n/250, i%250))
			}
			held = w.QueueStats().Held
			w.pass(24 * time.Hour)
		}
		return held
	}
	if held := days(30, 80); held != 0 {
		t.Fatalf("%d held on usual days", held)
	}
	if held := days(1, 400); held != 0 {
		t.Errorf("%d held on a day with five times the usual", held)
	}
	if held := days(1, 900); held < 900 {
		t.Errorf("%d held on a day with more than ten times the usual", held)
	}
}

// When hard bounces of one domain jump, those that follow are held until somebody decides; other domains are not concerned.
func TestBounceStorm(t *testing.T) {
	w := newWorld(t)
	n := 0
	bounce := func(domain string) *ledger.Line {
		n++
		o := w.must(w.Bounce(w.ctx(), ledger.By{}, ledger.Tokened{Scope: w.number("ALL"), Generation: 1, Key: w.key(fmt.Sprintf("p%d@%s", n, domain))},
			ledger.Failed{Failure: ledger.HardFailure, Domain: domain, Detail: map[string]string{"status": "5.1.1"}}))
		line, err := w.Line(w.ctx(), o.Entry)
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	for i := range ledger.StormLeast {
		if l := bounce("big.example"); l.Kind != ledger.Undeliverable {
			t.Fatalf("bounce %d is held", i)
		}
	}
	held := bounce("big.example")
	if held.Kind != ledger.Queued {
		t.Fatal("a storm is not held")
	}
	w.want("news", fmt.Sprintf("p%d@big.example", n), "SEND")
	if l := bounce("small.example"); l.Kind != ledger.Undeliverable {
		t.Error("another domain is held")
	}
	w.pass(48 * time.Hour)
	w.reopen()
	if n := w.due(); n != 0 {
		t.Errorf("%d of a storm decided themselves", n)
	}
	if l := bounce("big.example"); l.Kind != ledger.Queued {
		t.Error("the storm is over while nobody has decided")
	}
	if s := w.QueueStats(); s.Storms != 1 || s.Held != 2 {
		t.Errorf("%+v", s)
	}
	var all []uint64
	for _, x := range w.listQueue(ledger.QueueFilter{Doubts: []ledger.Doubt{ledger.DoubtStorm}}) {
		all = append(all, x.Waiting.Position)
	}
	if _, _, err := w.Decide(w.ctx(), w.admin(), "", all[:1], ledger.DecideSuppress, "they are gone"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Decide(w.ctx(), w.admin(), "", all[1:], ledger.DecideDismiss, "their servers erred"); err != nil {
		t.Fatal(err)
	}
	w.want("news", fmt.Sprintf("p%d@big.example", ledger.StormLeast+1), "UNDELIVERABLE")
	w.want("news", fmt.Sprintf("p%d@big.example", n), "SEND")
	if l := bounce("big.example"); l.Kind != ledger.Undeliverable {
		t.Error("held though everything was decided")
	}
}

// A large mailing meets mailboxes that are gone: that is no storm as long as they are few of those who were mailed, lately, and at
// that domain.
func TestLargeMailingIsNoStorm(t *testing.T) {
	for name, c := range map[string]struct {
		mailed, bounced int
		domain          string
		later           time.Duration
		want            bool
	}{
		"one in a hundred bounces":         {20000, 200, "big.example", 0, false},
		"they bounce a day later":          {20000, 200, "big.example", 24 * time.Hour, false},
		"one in ten bounces":               {2000, 200, "big.example", 0, true},
		"another domain was mailed":        {20000, 200, "other.example", 0, true},
		"it was mailed days ago":           {20000, 200, "big.example", 48 * time.Hour, true},
		"few are asked about all the time": {200, 200, "big.example", 0, true},
	} {
		w := newWorld(t)
		for i := range 20000 {
			w.check("news", fmt.Sprintf("p%d@%s", i%c.mailed, c.domain))
		}
		w.pass(c.later)
		for i := range c.bounced {
			w.must(w.Bounce(w.ctx(), ledger.By{}, ledger.Tokened{Scope: w.number("ALL"), Generation: 1, Key: w.key(fmt.Sprintf("p%d@big.example", i))},
				ledger.Failed{Failure: ledger.HardFailure, Domain: "Big.example"}))
		}
		if storm := w.QueueStats().Storms > 0; storm != c.want {
			t.Errorf("%s: held: %v", name, storm)
		}
		w.close()
	}
}

// A storm or flood of yesterday is not what is usual today: that of a second day is held as the first.
func TestFloodsDoNotBecomeUsual(t *testing.T) {
	w := newWorld(t)
	n, believed := 0, 0
	day := func() (floodHeld int) {
		believed = 0
		for range 600 {
			n++
			addr := fmt.Sprintf("p%d@big.example", n)
			o := w.must(w.Bounce(w.ctx(), ledger.By{}, ledger.Tokened{Scope: w.number("ALL"), Generation: 1, Key: w.key(addr)}, ledger.Failed{Failure: ledger.HardFailure, Domain: "big.example"}))
			if line, err := w.Line(w.ctx(), o.Entry); err != nil {
				t.Fatal(err)
			} else if line.Kind == ledger.Undeliverable {
				believed++
			}
			w.queue(fmt.Sprintf("q%d@example.com", n), fmt.Sprintf("10.%d.%d.0/24", n/250, n%250))
		}
		var all []uint64
		waiting := append(w.listQueue(ledger.QueueFilter{Doubts: []ledger.Doubt{ledger.DoubtStorm}}), w.listQueue(ledger.QueueFilter{Doubts: []ledger.Doubt{ledger.DoubtUnproved}})...)
		for _, x := range waiting {
			if all = append(all, x.Waiting.Position); x.Waiting.Held {
				floodHeld++
			}
		}
		for part := range slices.Chunk(all, ledger.MaxDecide) {
			if _, _, err := w.Decide(w.ctx(), w.admin(), "", part, ledger.DecideDismiss, "a flood"); err != nil {
				t.Fatal(err)
			}
		}
		w.pass(24 * time.Hour)
		return floodHeld
	}
	for i := range 3 {
		if held := day(); held != 600 || believed != ledger.StormLeast {
			t.Errorf("day %d: %d opt-outs held, %d bounces believed", i+1, held, believed)
		}
	}
}

// bounces makes n mailboxes of a domain fail for good, at once, and tells how many of them are held.
func (w *world) bounces(domain string, n int) (held int) {
	w.t.Helper()
	var all sync.WaitGroup
	entries := make([]uint64, n)
	for i := range n {
		w.n++
		addr := fmt.Sprintf("p%d@%s", w.n, domain)
		all.Go(func() {
			o, err := w.BounceAddress(w.ctx(), ledger.By{}, "", addr, ledger.Failed{Failure: ledger.HardFailure})
			if entries[i] = o.Entry; err != nil {
				w.t.Error(err)
			}
		})
	}
	all.Wait()
	for _, at := range entries {
		if line, err := w.Line(w.ctx(), at); err != nil {
			w.t.Fatal(err)
		} else if line.Kind == ledger.Queued {
			held++
		}
	}
	return held
}

// A storm is told by what is usual at the domain: as many a day as before are none, and those that come at once are counted each.
func TestUsualBouncesAreNoStorm(t *testing.T) {
	w := newWorld(t)
	for range 30 {
		if held := w.bounces("busy.example", 20); held != 0 {
			t.Fatalf("%d held on a usual day", held)
		}
		w.pass(24 * time.Hour)
	}
	if held := w.bounces("busy.example", 100); held != 0 {
		t.Errorf("%d held, which is not ten times the usual", held)
	}
	for range 3 {
		if held := w.bounces("quiet.example", ledger.StormLeast); held != 0 {
			t.Errorf("%d held, of no more than any domain may have", held)
		}
		w.pass(24 * time.Hour)
	}
	w.close()
	wait := make(chan struct{})
	w.openWith(func(s ledger.Store) ledger.Store { return &slow{s, wait} })
	time.AfterFunc(50*time.Millisecond, func() { close(wait) }) // by then they stand in line for one commit
	if held := w.bounces("new.example", ledger.StormLeast+25); held != 25 {
		t.Errorf("%d held of %d", held, ledger.StormLeast+25)
	}
}

// Questions are no flood: however many come from where an opt-out comes from, it decides itself.
func TestQuestionsHoldNoOptOut(t *testing.T) {
	w := newWorld(t)
	w.known(ann)
	for range ledger.DefaultSourceLimit + 5 {
		w.must(w.Queue(w.ctx(), ledger.By{Channel: ledger.ByMail}, ledger.QueueItem{Address: "asks@example.org", Claim: ledger.ClaimMessage, Doubt: ledger.DoubtUnread, Source: "domain example.org"}))
	}
	w.queue(ann, "domain example.org")
	w.pass(ledger.DefaultQueueDelay + time.Minute)
	if n := w.due(); n != 1 {
		t.Errorf("%d decided", n)
	}
}
