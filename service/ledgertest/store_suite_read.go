package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"optout/service/ledger"
)

// big is more than a store is likely to read at once.
const big = 20_000

// Both ends are included, downwards when first > last; what is not there is passed over.
func (su suite) scanRanges(t *testing.T) {
	s, c := su.open(t), newChain(6)
	defer closeStore(t, s)
	c.append(t, s, 100, 0, 0)
	for _, r := range [][2]uint64{{1, 1}, {100, 100}, {1, 100}, {100, 1}, {2, 99}, {99, 2}, {50, 51}, {51, 50}, {0, 3}, {3, 0}, {98, 200}, {200, 98},
		{101, 200}, {200, 101}, {0, 0}, {0, 1<<64 - 1}, {1<<64 - 1, 0}, {1<<64 - 1, 1<<64 - 1}} {
		sameRecords(t, scan(t, s, r[0], r[1]), c.between(r[0], r[1]))
	}
}

// Any range, long ones too.
func (su suite) scanAnyRange(t *testing.T) {
	s, c := su.open(t), newChain(7)
	defer closeStore(t, s)
	for len(c.records) < big {
		c.append(t, s, 5000, 0, 0)
	}
	rapid.Check(t, func(t *rapid.T) {
		position := rapid.Uint64Range(0, big+10)
		first, last := position.Draw(t, "first"), position.Draw(t, "last")
		if rapid.Bool().Draw(t, "short") {
			last = first + rapid.Uint64Range(0, 100).Draw(t, "length")
		}
		sameRecords(t, scan(t, s, first, last), c.between(first, last))
	})
}

// between is what Scan must give.
func (c *chain) between(first, last uint64) []ledger.Record {
	var want []ledger.Record
	for _, r := range c.records {
		if min(first, last) <= r.Position && r.Position <= max(first, last) {
			want = append(want, r)
		}
	}
	if first > last {
		slices.Reverse(want)
	}
	return want
}

// An error of the callback ends a scan at once and comes back.
func (su suite) scanEndsEarly(t *testing.T) {
	s, c := su.open(t), newChain(8)
	defer closeStore(t, s)
	c.append(t, s, big, 2000, 0)
	for range 700 {
		c.append(t, s, 1, 0, 0)
	}
	enough := errors.New("enough")
	for _, n := range []int{1, 2, 100, 650} {
		stop := func(calls *int) error {
			if *calls++; *calls == n {
				return enough
			}
			return nil
		}
		for name, run := range map[string]func(*int) error{
			"Scan": func(calls *int) error {
				return s.Scan(context.Background(), 1, big, func(ledger.Record) error { return stop(calls) })
			},
			"Scan downwards": func(calls *int) error {
				return s.Scan(context.Background(), big, 1, func(ledger.Record) error { return stop(calls) })
			},
			"ScanPersonal": func(calls *int) error {
				return s.ScanPersonal(context.Background(), 1, big, func(ledger.PersonalRow) error { return stop(calls) })
			},
			"Heads": func(calls *int) error {
				return s.Heads(context.Background(), 1, big+700, func(ledger.Head) error { return stop(calls) })
			},
		} {
			calls := 0
			if err := run(&calls); err != enough || calls != n {
				t.Errorf("%s: %v after %d calls, want the callback's own error after %d", name, err, calls, n)
			}
		}
	}
	c.check(t, s)
}

// A callback may use the store, from many goroutines at once.
func (su suite) callbacksMayRead(t *testing.T) {
	s, c := su.open(t), newChain(9)
	defer closeStore(t, s)
	c.append(t, s, 500, 200, 0)
	ctx := context.Background()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			err := s.Scan(ctx, 1, 300, func(r ledger.Record) error {
				if _, err := s.Tip(ctx); err != nil {
					return err
				}
				return s.Scan(ctx, r.Position, r.Position, func(again ledger.Record) error {
					if !sameRecord(r, again) {
						return errors.New("another record")
					}
					return nil
				})
			})
			if err == nil {
				err = s.ScanPersonal(ctx, 1, 100, func(p ledger.PersonalRow) error { _, err := s.Personal(ctx, p.Position); return err })
			}
			if err == nil {
				err = s.Heads(ctx, 1, 500, func(h ledger.Head) error { _, err := s.Get(ctx, h.Size); return err })
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// While one goroutine appends, readers see whole commits only, everything that was acknowledged, and never less than before.
func (su suite) readsDuringWrites(t *testing.T) {
	s, c := su.open(t), newChain(10)
	defer closeStore(t, s)
	ctx := context.Background()
	var acknowledged atomic.Uint64
	var sizes sync.Map // the sizes at which a commit may end
	sizes.Store(uint64(0), true)
	written := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for running := true; running; {
				select {
				case <-written:
					running = false
				default:
				}
				if err := readWhole(ctx, s, acknowledged.Load(), &sizes); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 150 {
		n := 1 + i%40
		sizes.Store(c.tip.Head.Size+uint64(n), true)
		c.append(t, s, n, i%2, i%3)
		acknowledged.Store(c.tip.Head.Size)
	}
	close(written)
	all.Wait()
	c.check(t, s)
}

// readWhole reads the newest entries, of which at least size were acknowledged.
func readWhole(ctx context.Context, s ledger.Store, size uint64, sizes *sync.Map) error {
	tip, err := s.Tip(ctx)
	if err != nil {
		return err
	}
	if tip.Head.Size < size {
		return fmt.Errorf("the tip is %d after %d were acknowledged", tip.Head.Size, size)
	}
	if _, whole := sizes.Load(tip.Head.Size); !whole {
		return fmt.Errorf("the tip is %d, within a commit", tip.Head.Size)
	}
	next := max(size, 100) - 99
	err = s.Scan(ctx, next, tip.Head.Size, func(r ledger.Record) error {
		if r.Position != next {
			return fmt.Errorf("position %d where %d should be", r.Position, next)
		}
		next++
		return nil
	})
	if err == nil && tip.Head.Size > 0 && next != tip.Head.Size+1 {
		return fmt.Errorf("the scan ended before %d, the tip is %d", next, tip.Head.Size)
	}
	return err
}

// A context that has ended ends a read with its error, and a write before it has begun.
func (su suite) contexts(t *testing.T) {
	s, c := su.open(t), newChain(11)
	defer closeStore(t, s)
	c.append(t, s, big, 10, 10)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	record := func(ledger.Record) error { return nil }
	for name, call := range map[string]func() error{
		"Tip":          func() error { _, err := s.Tip(ended); return err },
		"Get":          func() error { _, err := s.Get(ended, 1); return err },
		"Personal":     func() error { _, err := s.Personal(ended, 1); return err },
		"Request":      func() error { _, err := s.Request(ended, 1, [16]byte{}); return err },
		"Scan":         func() error { return s.Scan(ended, 1, 10, record) },
		"ScanPersonal": func() error { return s.ScanPersonal(ended, 1, 10, func(ledger.PersonalRow) error { return nil }) },
		"Heads":        func() error { return s.Heads(ended, 1, 10, func(ledger.Head) error { return nil }) },
		"Backup":       func() error { _, err := s.Backup(ended, t.TempDir(), nil); return err },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want the context's error", name, err)
		}
	}
	commit := c.next(1, 0, 0)
	switch err := s.Append(ended, commit); {
	case err == nil:
		c.accept(commit)
	case !errors.Is(err, context.Canceled):
		t.Errorf("Append: %v, want the context's error or none", err)
	}
	during, cancel := context.WithCancel(context.Background())
	defer cancel()
	calls := 0
	err := s.Scan(during, 1, big, func(ledger.Record) error {
		if calls++; calls == 10 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || calls == big {
		t.Errorf("Scan: %v after %d calls, want the context's error soon after it ended", err, calls)
	}
	c.check(t, s)
}
