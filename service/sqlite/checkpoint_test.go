package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"optout/service/ledger"
)

// The log stays bounded however long writing goes on without a pause and whatever is read meanwhile.
func TestLogIsBounded(t *testing.T) {
	const pages = 300
	longest := func(t *testing.T, o Options) int64 {
		s, g := openWith(t, filepath.Join(t.TempDir(), "optout.db"), o), newGrower()
		defer mustClose(t, s)
		stop := make(chan struct{})
		var reading sync.WaitGroup
		for range 2 { // one after another, with a slow caller
			reading.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					err := s.Scan(context.Background(), 1, 1<<40, func(r ledger.Record) error {
						if r.Position%5000 == 0 {
							time.Sleep(10 * time.Millisecond)
						}
						return nil
					})
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for i := range 2 { // always one in the middle of a read
			r := <-s.pool
			defer func() { s.pool <- r }()
			reading.Go(func() {
				time.Sleep(time.Duration(4*i) * time.Millisecond)
				for {
					select {
					case <-stop:
						return
					default:
					}
					err := r.exec("BEGIN DEFERRED; SELECT size FROM tip")
					time.Sleep(8 * time.Millisecond)
					if err = errors.Join(err, r.exec("COMMIT")); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		defer reading.Wait()
		defer close(stop)
		longest := int64(0)
		for range 800 {
			g.mustAppend(t, s, 100)
			if info, err := os.Stat(s.path + "-wal"); err == nil {
				longest = max(longest, info.Size()/4120)
			}
		}
		return longest
	}
	if got := longest(t, Options{logPages: pages}); got > 10*pages {
		t.Errorf("the log grew to %d pages, it should start over at %d", got, pages)
	} else {
		t.Logf("%d pages", got)
	}
	// The control: without starting over it grows with what is written.
	if got := longest(t, Options{logPages: 1 << 40}); got < 10*pages {
		t.Errorf("the control: the log grew to %d pages only: too little was written", got)
	}
}

// What was written before a pause is copied back within moments, so that a restart has little to recover.
func TestLogIsCopiedWhenIdle(t *testing.T) {
	s, g := openAt(t, filepath.Join(t.TempDir(), "optout.db")), newGrower()
	defer mustClose(t, s)
	for range 20 {
		g.mustAppend(t, s, 100)
	}
	within(t, func() bool {
		info, err := os.Stat(s.path)
		return err == nil && info.Size() > 2000*75
	}, "the database file did not grow")
}
