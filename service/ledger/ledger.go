package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"optout/service/address"
	"optout/service/standing"
)

// Position is an entry's number together with the identity of its ledger. The zero value asks for nothing.
type Position struct {
	LedgerID string
	Number   uint64
}

// Anchor keeps the newest tree head off the database, so that a shortened or silently rolled-back ledger is noticed.
type Anchor interface {
	// Load returns the head saved last, and the ledger's identity with it; ErrNotFound when none was saved yet.
	Load() (ledgerID string, h Head, err error)
	// Save makes h durable.
	Save(ledgerID string, h Head) error
}

// AnchorInterval is how far the anchor may lag behind the ledger.
const AnchorInterval = time.Second

// Options are what a ledger needs besides its store.
type Options struct {
	// Keys turns addresses into address keys. Required.
	Keys *address.Keyring
	// Anchor keeps the head off the database. Required.
	Anchor Anchor
	// Now is the wall clock. Required.
	Now func() time.Time
	// Random is a source of secure random octets. Required.
	Random io.Reader
	// Log takes what an operator must know. Required.
	Log *slog.Logger
	// QueueDelay is after how long an opt-out in the review queue is done by itself; 0 means DefaultQueueDelay.
	QueueDelay time.Duration
	// SourceLimit is how many opt-outs in doubt one source may bring within a day before they wait for a person; 0 means
	// DefaultSourceLimit.
	SourceLimit int
	// Progress, if not nil, is told while standing is built at start.
	Progress func(read, total uint64)
}

// Ledger is the core. Its methods are safe for concurrent use.
type Ledger struct {
	store Store
	opt   Options
	id    string

	table    *standing.Table
	persons  *standing.Persons
	registry atomic.Pointer[Registry]
	queue    *queue
	mailed   *mailed
	head     atomic.Uint64 // published: every later check sees all entries up to here
	lastAt   atomic.Int64  // time of the newest entry, unix ms: the clock never runs back behind it
	scratch  sync.Pool

	proposals chan *proposal
	quit      chan struct{} // closed by Close
	stopped   chan struct{} // closed when the commit loop has ended
	ended     sync.WaitGroup
	failed    atomic.Pointer[error]
	done      chan struct{} // closed when the ledger has failed
	closeOnce sync.Once

	loop   commitState
	recent recentRequests

	treeHead atomic.Pointer[Head]
	stats    Stats
}

// Stats counts what the ledger has done since it was opened.
type Stats struct {
	Checks, Refused, Commits, Entries, Replays atomic.Uint64
	AnchorFailures                             atomic.Uint64
}

// Open reads the whole ledger from the store into standing and begins to take writes. It refuses (ErrDamaged) a ledger that
// has gaps, that cannot be read, that does not extend its anchor, or that was made with other keys. It does not close store.
func Open(ctx context.Context, store Store, opt Options) (*Ledger, error) {
	tip, err := store.Tip(ctx)
	if err != nil {
		return nil, err
	}
	opt.QueueDelay = cmp.Or(opt.QueueDelay, DefaultQueueDelay)
	l := &Ledger{store: store, opt: opt, id: tip.LedgerID, queue: newQueue(cmp.Or(opt.SourceLimit, DefaultSourceLimit)), mailed: newMailed(), table: standing.New(), persons: standing.NewPersons(),
		proposals: make(chan *proposal, maxBatch), quit: make(chan struct{}), stopped: make(chan struct{}), done: make(chan struct{})}
	l.scratch.New = func() any { return newScratch() }
	if err := checkAnchor(ctx, store, tip, opt.Anchor); err != nil {
		return nil, err
	}
	t, ok := newTree(tip.Head.Size, tip.Edge)
	if !ok || t.root() != tip.Head.Root {
		return nil, damaged("the stored tree head does not fit its own edge")
	}
	reg := newRegistry()
	if err := l.rebuild(ctx, tip.Head.Size, reg); err != nil {
		return nil, err
	}
	if err := checkKeys(reg, opt.Keys); err != nil {
		return nil, err
	}
	l.registry.Store(reg)
	l.head.Store(tip.Head.Size)
	l.treeHead.Store(&tip.Head)
	l.loop.tree = t
	l.ended.Add(2)
	go l.commitLoop()
	go l.anchorLoop()
	return l, nil
}

// rebuild folds every entry of the store into standing and reg.
func (l *Ledger) rebuild(ctx context.Context, size uint64, reg *Registry) error {
	var e Entry
	var rec standing.Record
	var members []standing.Key
	next := uint64(1)
	if size == 0 {
		return nil
	}
	err := l.store.Scan(ctx, 1, size, func(r Record) error {
		if r.Position != next {
			return damaged("entry %d is missing", next)
		}
		next++
		if err := e.Decode(r.Position, r.Body); err != nil {
			return damaged("%v", err)
		}
		l.lastAt.Store(e.At)
		if l.queue.concerns(&e) {
			l.queue.apply(&e)
		}
		if e.Key.IsZero() {
			if err := reg.apply(&e); err != nil {
				return damaged("%v", err)
			}
		} else {
			members = foldInto(l.table, l.persons, &rec, members, &e)
		}
		if l.opt.Progress != nil && r.Position%65536 == 0 {
			l.opt.Progress(r.Position, size)
		}
		return nil
	})
	if err == nil && next != size+1 {
		err = damaged("entry %d is missing", next)
	}
	return err
}

// foldInto folds one entry straight into the tables; rec and members are scratch.
func foldInto(table *standing.Table, persons *standing.Persons, rec *standing.Record, members []standing.Key, e *Entry) []standing.Key {
	table.Get(standing.Key(e.Key), rec)
	if person, ok := personOf(rec, e); ok {
		members = foldPerson(persons.Members(person, members[:0]), e)
		persons.Set(person, members)
	}
	fold(rec, e)
	table.Set(standing.Key(e.Key), rec)
	return members
}

// personOf tells whose members an entry changes, given the record before it.
func personOf(rec *standing.Record, e *Entry) (standing.Key, bool) {
	switch e.Kind {
	case Joined:
		return standing.Key(e.Person), true
	case Unlinked:
		return rec.Person, rec.Person != standing.Key{}
	}
	return standing.Key{}, false
}

// checkAnchor compares the ledger with the head kept off the database.
func checkAnchor(ctx context.Context, store Store, tip Tip, anchor Anchor) error {
	id, want, err := anchor.Load()
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the anchor: %w", err)
	}
	if id != tip.LedgerID {
		return damaged("the anchor belongs to ledger %s, the database is ledger %s", id, tip.LedgerID)
	}
	if want.Size > tip.Head.Size {
		return damaged("the ledger ends at entry %d, but entry %d was acknowledged: it was shortened or rolled back", tip.Head.Size, want.Size)
	}
	if want.Size == 0 {
		return nil
	}
	fits := false
	err = store.Heads(ctx, want.Size, want.Size, func(h Head) error {
		fits = h == want
		return nil
	})
	if err == nil && !fits {
		err = damaged("the ledger does not extend the head that was anchored at entry %d", want.Size)
	}
	return err
}

// checkKeys compares the address keys with those the ledger was made with: another key would silently allow everyone.
func checkKeys(reg *Registry, keys *address.Keyring) error {
	for _, s := range reg.Secrets("address") {
		check, ok := keys.CheckValue(s.ID)
		switch {
		case !ok:
			return damaged("address key %d, which this ledger was made with, is missing from the key folder", s.ID)
		case fmt.Sprintf("%x", check) != s.Check:
			return damaged("address key %d in the key folder is not the one this ledger was made with", s.ID)
		}
	}
	return nil
}

// ID returns the ledger's identity.
func (l *Ledger) ID() string { return l.id }

// Head returns the newest tree head.
func (l *Ledger) Head() Head { return *l.treeHead.Load() }

// Position returns the head of the ledger as a position.
func (l *Ledger) Position() Position { return Position{l.id, l.head.Load()} }

// Registry returns what administration has set up, as of now. It never changes.
func (l *Ledger) Registry() *Registry { return l.registry.Load() }

// Counters returns the live counters.
func (l *Ledger) Counters() *Stats { return &l.stats }

// Known returns how many address keys standing holds, and its memory in octets.
func (l *Ledger) Known() (addresses int, octets int64) {
	return l.table.Len(), l.table.Bytes() + l.persons.Bytes()
}

// Done is closed when the ledger has failed: it acknowledges nothing more and answers no check. Err tells why.
func (l *Ledger) Done() <-chan struct{} { return l.done }

// Err returns why the ledger failed, or nil.
func (l *Ledger) Err() error {
	if p := l.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Writable returns nil when writes are taken, ErrStorageFull, or why they are not.
func (l *Ledger) Writable() error {
	if l.Err() != nil {
		return ErrClosed
	}
	return l.store.Writable()
}

// fail ends acknowledging for good (law 4).
func (l *Ledger) fail(err error) {
	if l.failed.CompareAndSwap(nil, &err) {
		l.opt.Log.Error("the ledger has stopped acknowledging: restart to recover", "error", err)
		close(l.done)
	}
}

// Close answers what has been proposed, saves the anchor and ends. It does not close the store.
func (l *Ledger) Close() error {
	l.closeOnce.Do(func() { close(l.quit) })
	l.ended.Wait()
	return nil
}

func (l *Ledger) anchorLoop() {
	defer l.ended.Done()
	tick := time.NewTicker(AnchorInterval)
	defer tick.Stop()
	var saved Head
	save := func() {
		if h := l.Head(); h != saved {
			if err := l.opt.Anchor.Save(l.id, h); err != nil {
				l.stats.AnchorFailures.Add(1)
				l.opt.Log.Error("the tree head could not be written off the database", "error", err)
				return
			}
			saved = h
		}
	}
	save()
	for {
		select {
		case <-tick.C:
			save()
		case <-l.stopped:
			save()
			return
		}
	}
}

// now is the wall clock in unix milliseconds, never behind the newest entry: a clock set back revives no consent.
func (l *Ledger) now() int64 { return max(l.opt.Now().UnixMilli(), l.lastAt.Load()) }

// ClockBehind is how far the wall clock is behind the newest entry, whose time new entries take meanwhile; 0 when it is not. More than
// seconds of it mean that the clock stood wrong and was set back.
func (l *Ledger) ClockBehind() time.Duration {
	return max(0, time.UnixMilli(l.lastAt.Load()).Sub(l.opt.Now()))
}

// atLeast waits until the ledger has reached p.
func (l *Ledger) atLeast(ctx context.Context, p Position) error {
	if p.Number == 0 {
		return nil
	}
	if p.LedgerID != l.id {
		return &Error{Kind: ErrOtherLedger, Field: "at_least", Problem: "the position belongs to another ledger",
			Remedy: "use positions that this service returned"}
	}
	for wait := time.Millisecond; l.head.Load() < p.Number; wait = min(2*wait, 50*time.Millisecond) {
		select {
		case <-ctx.Done():
			return &Error{Kind: ErrNotYet, Field: "at_least", Problem: "the position was not reached in time", Remedy: "repeat the call"}
		case <-l.done:
			return ErrClosed
		case <-time.After(wait):
		}
	}
	return nil
}
