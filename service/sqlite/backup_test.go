package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"optout/service/ledger"
)

// While others write without a pause, and the log starts over again and again, a copy begun is never begun anew.
func TestBackupIsNeverBegunAnew(t *testing.T) {
	s, g := openWith(t, filepath.Join(t.TempDir(), "optout.db"), Options{logPages: 300}), newGrower()
	defer mustClose(t, s)
	for range 20 {
		g.mustAppend(t, s, 5000)
	}
	began := g.size
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := g.append(s, 20); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	dir, steps, copied := t.TempDir(), 0, uint64(0)
	tip, err := s.Backup(context.Background(), dir, func(now, total uint64) {
		if steps++; now < copied {
			t.Errorf("step %d: %d of %d pages, after %d", steps, now, total, copied)
		}
		copied = now
		time.Sleep(5 * time.Millisecond) // let them write more
	})
	close(stop)
	writing.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if g.size < began+1000 || steps < 10 {
		t.Errorf("%d entries were written during %d steps: too little to show anything", g.size-began, steps)
	}
	t.Logf("%d entries written during %d steps; the copy has %d of %d", g.size-began, steps, tip.Head.Size, g.size)

	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("the folder holds %v (%v), want the copy alone", files, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "optout.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v (%v)", info.Mode(), err)
	}
	c := openAt(t, filepath.Join(dir, "optout.db"))
	defer mustClose(t, c)
	if n, err := fits(c); n != tip.Head.Size || err != nil {
		t.Errorf("the copy has %d entries (%v), Backup said %d", n, err, tip.Head.Size)
	}
}

// The control of the above: a copy through another connection is begun anew by every commit.
func TestBackupThroughAnotherConnectionIsBegunAnew(t *testing.T) {
	s, g := openAt(t, filepath.Join(t.TempDir(), "optout.db")), newGrower()
	defer mustClose(t, s)
	g.mustAppend(t, s, 50_000)
	to, err := open(filepath.Join(t.TempDir(), "copy.db"), parameters(&Options{}, readWrite))
	if err != nil {
		t.Fatal(err)
	}
	defer to.close()
	r := <-s.pool
	defer func() { s.pool <- r }()
	b, err := to.Backup("main", r.SQLiteConn, "main")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finish()
	for range 100 {
		if ready, err := b.Step(backupPages); err != nil || ready {
			t.Fatalf("it came to an end (%v, %v)", ready, err)
		}
		g.mustAppend(t, s, 1)
	}
}

func TestBackupFails(t *testing.T) {
	s, g := openAt(t, filepath.Join(t.TempDir(), "optout.db")), newGrower()
	defer mustClose(t, s)
	g.mustAppend(t, s, 20_000)

	small := smallDisk(t, 1)
	if _, err := s.Backup(context.Background(), small, nil); !errors.Is(err, ledger.ErrStorageFull) {
		t.Errorf("onto a disk that is too small: %v, want ErrStorageFull", err)
	}
	if files, err := os.ReadDir(small); err != nil || len(files) > 0 {
		t.Errorf("it left %v behind (%v)", files, err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "optout.db"), []byte("somebody's"))
	if _, err := s.Backup(context.Background(), dir, nil); err == nil || !strings.Contains(err.Error(), "empty folder") {
		t.Errorf("over a file that is there: %v", err)
	}
	if string(read(t, filepath.Join(dir, "optout.db"))) != "somebody's" {
		t.Error("the file that was there was changed")
	}
	if _, err := s.Backup(context.Background(), filepath.Join(dir, "none"), nil); err == nil {
		t.Error("into a folder that does not exist")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	steps := 0
	if _, err := s.Backup(ctx, mkdir(t, dir, "given-up"), func(uint64, uint64) { steps++; cancel() }); err != context.Canceled || steps != 1 {
		t.Errorf("given up in the first step: %v after %d steps", err, steps)
	}
	g.mustAppend(t, s, 1)
	if n, err := fits(s); n != g.size || err != nil {
		t.Error(n, err)
	}
}
