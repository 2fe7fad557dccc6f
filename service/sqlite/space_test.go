package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"optout/service/ledger"
)

// Law 4: a disk that is full refuses writes and nothing else: everything acknowledged is there, reads go on, and writing
// resumes by itself.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, 12)
	path := filepath.Join(dir, "optout.db")
	ballast := filepath.Join(dir, "ballast")
	write(t, ballast, make([]byte, 5<<20))
	s, g := openWith(t, path, Options{MinFree: 1, logPages: 300}), newGrower()
	fill := func() (acked uint64) {
		t.Helper()
		began := g.size
		for refusals := 0; refusals < 100; {
			switch err := g.append(s, 20); {
			case errors.Is(err, ledger.ErrStorageFull):
				refusals++
				time.Sleep(time.Millisecond) // a checkpoint may still make some space
			case err != nil:
				t.Fatalf("after %d entries: %v", g.size, err)
			case g.size > 1_000_000:
				t.Fatal("the disk never got full")
			}
		}
		return g.size - began
	}
	if n := fill(); n < 5000 {
		t.Errorf("full after %d entries", n)
	}
	if n, err := fits(s); n != g.size || err != nil {
		t.Errorf("full disk: %d entries read (%v), %d were acknowledged", n, err, g.size)
	}
	if _, err := s.Backup(context.Background(), mkdir(t, dir, "backup"), nil); !errors.Is(err, ledger.ErrStorageFull) {
		t.Errorf("a backup onto the full disk: %v, want ErrStorageFull", err)
	}
	if n := fill(); n > 2000 {
		t.Errorf("the control: %d entries more although nothing was freed", n)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if n := fill(); n < 5000 {
		t.Errorf("only %d entries more after 5 MiB were freed", n)
	}
	if n, err := fits(s); n != g.size || err != nil {
		t.Errorf("full again: %d entries read (%v), %d were acknowledged", n, err, g.size)
	}
	t.Logf("%d entries", g.size)
	if err := s.Close(); err != nil { // cannot copy back on a full disk
		t.Log("Close:", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=40m"); err != nil {
		t.Fatal(err)
	}
	s = openWith(t, path, Options{MinFree: 1})
	defer mustClose(t, s)
	if n, err := fits(s); n != g.size || err != nil {
		t.Errorf("after the restart: %d entries read (%v), %d were acknowledged", n, err, g.size)
	}
	g.mustAppend(t, s, 20)
}

// Writes are refused before the disk really is full, and taken again once there is space.
func TestWatermark(t *testing.T) {
	dir := smallDisk(t, 40)
	s := openWith(t, filepath.Join(dir, "optout.db"), Options{MinFree: 20 << 20})
	defer mustClose(t, s)
	if err := s.Writable(); err != nil {
		t.Fatalf("with 40 MiB free: %v", err)
	}
	ballast := filepath.Join(dir, "ballast")
	write(t, ballast, make([]byte, 25<<20))
	within(t, func() bool { return errors.Is(s.Writable(), ledger.ErrStorageFull) }, "15 MiB are free and writes are still taken")
	newGrower().mustAppend(t, s, 1) // what is under way is carried through
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	within(t, func() bool { return s.Writable() == nil }, "there is space again and writes are still refused")

	write(t, ballast, make([]byte, 25<<20))
	late := openWith(t, filepath.Join(dir, "late.db"), Options{MinFree: 20 << 20})
	defer mustClose(t, late)
	if !errors.Is(late.Writable(), ledger.ErrStorageFull) {
		t.Error("a store that is opened on a full disk takes writes at first")
	}
}

func TestDefaultMinFree(t *testing.T) {
	for size, want := range map[uint64]uint64{10 << 20: 16 << 20, 2_000_000_000: 40_000_000, 1 << 40: 256 << 20} {
		if got := defaultMinFree(size); got != want {
			t.Errorf("of a volume of %d octets %d are to stay free, want %d", size, got, want)
		}
	}
}

func within(t *testing.T, reached func() bool, otherwise string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !reached(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(otherwise)
		}
	}
}

func mkdir(t *testing.T, parent, name string) string {
	t.Helper()
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
