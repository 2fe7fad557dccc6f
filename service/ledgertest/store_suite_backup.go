package ledgertest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// A backup taken while others write and read is of one moment in between, whole, and can be written on.
func (su suite) backupWhileWriting(t *testing.T) {
	s, c := su.open(t), newChain(12)
	defer closeStore(t, s)
	for range 4 {
		c.append(t, s, 5000, 1000, 1000)
	}
	before := c.tip.Head.Size
	identity, err := s.Tip(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := c.tryAppend(s, 30, 3, 3); err != nil {
					t.Errorf("Append during the backup: %v", err)
					return
				}
			}
		}
	})
	time.Sleep(20 * time.Millisecond)
	dir := t.TempDir()
	type step struct{ copied, total uint64 }
	var steps []step
	began := time.Now()
	tip, err := s.Backup(context.Background(), dir, func(copied, total uint64) { steps = append(steps, step{copied, total}) })
	took := time.Since(began)
	time.Sleep(20 * time.Millisecond)
	close(stop)
	writing.Wait()
	if err != nil {
		t.Fatalf("Backup: %v", err)
	}
	if tip.LedgerID != identity.LedgerID || tip.Head.Size < before || tip.Head.Size >= c.tip.Head.Size {
		t.Errorf("the copy's tip is that of ledger %s at entry %d; %s was written from entry %d on to %d meanwhile",
			tip.LedgerID, tip.Head.Size, identity.LedgerID, before, c.tip.Head.Size)
	}
	if took > 30*time.Second {
		t.Errorf("it took %v: writing held it up", took)
	}
	if len(steps) == 0 || steps[len(steps)-1].copied != steps[len(steps)-1].total {
		t.Errorf("progress ended with %v", steps[max(0, len(steps)-1):])
	}
	c.check(t, s)

	copied := su.restored(t, dir)
	defer closeStore(t, copied)
	past := c.cut(tip.Head.Size)
	past.check(t, copied)
	if got, err := copied.Tip(context.Background()); err != nil || got.LedgerID != tip.LedgerID || got.Head != tip.Head || !slices.Equal(got.Edge, tip.Edge) {
		t.Errorf("Backup said %+v, the copy says %+v (%v)", tip, got, err)
	}
	past.append(t, copied, 10, 5, 5)
	past.check(t, copied)
}

// A backup that is given up says so and does no harm.
func (su suite) backupCancelled(t *testing.T) {
	s, c := su.open(t), newChain(13)
	defer closeStore(t, s)
	for range 4 {
		c.append(t, s, 5000, 0, 0)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := s.Backup(ctx, t.TempDir(), func(copied, total uint64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Backup: %v, want the context's error", err)
	}
	c.append(t, s, 10, 0, 0)
	c.check(t, s)
	if _, err := s.Backup(context.Background(), t.TempDir(), nil); err != nil {
		t.Errorf("the next backup: %v", err)
	}
}
