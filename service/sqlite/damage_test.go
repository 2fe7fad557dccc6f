package sqlite

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"optout/service/ledger"
)

// A file that was flipped or cut off is an error, or reads as entries that do not fit their leaves; it never ends the process,
// and never reads as a sound ledger that is shorter or other.
func TestDamagedFiles(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole.db")
	s, g := openAt(t, whole), newGrower()
	for range 10 {
		g.mustAppend(t, s, 300)
	}
	mustClose(t, s)
	sound := read(t, whole)
	random := rand.New(rand.NewPCG(7, 7))
	noticed, refused := 0, 0
	const runs = 300
	for i := range runs {
		damaged := append([]byte(nil), sound...)
		if i%3 == 0 {
			damaged = damaged[:1+random.IntN(len(damaged)-1)]
		} else {
			for range 1 + random.IntN(8) {
				damaged[random.IntN(len(damaged))] ^= 1 << random.IntN(8)
			}
		}
		path := filepath.Join(dir, "damaged.db")
		write(t, path, damaged)
		switch n, opened, err := tryDamaged(path); {
		case !opened:
			refused++
		case err != nil:
			noticed++
		case n != g.size:
			t.Errorf("run %d: it reads as a sound ledger of %d entries", i, n)
		}
		for _, name := range []string{path, path + "-wal", path + "-shm"} {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d refused, %d noticed on reading, %d in octets that are not in use", refused, noticed, runs-refused-noticed)
	if refused < runs/20 || noticed < runs/2 {
		t.Error("too few were noticed: the test does not damage what it means to")
	}
	write(t, whole, sound) // the control
	if n, opened, err := tryDamaged(whole); n != g.size || !opened || err != nil {
		t.Errorf("the control: %d entries, %v", n, err)
	}
}

func tryDamaged(path string) (n uint64, opened bool, err error) {
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		return 0, false, err
	}
	n, err = fits(s)
	if e := s.Close(); err == nil {
		err = e
	}
	return n, true, err
}

// Rows that are gone are passed over, and damaged ones handed out, so that whoever verifies can name them; the rest is read.
func TestScanAroundDamage(t *testing.T) {
	s, g := openAt(t, filepath.Join(t.TempDir(), "optout.db")), newGrower()
	defer mustClose(t, s)
	for range 10 {
		g.mustAppend(t, s, 1000)
	}
	before := all(t, s, 1, g.size)
	for _, q := range []string{"DROP TRIGGER entry_delete", "DROP TRIGGER entry_update", "DELETE FROM entry WHERE position IN (1, 70, 5000, 5001, 10000)",
		"DELETE FROM entry WHERE position BETWEEN 6000 AND 9500",
		"UPDATE entry SET record = x'' WHERE position = 3000",
		"UPDATE entry SET record = CAST(x'ff' || substr(record, 2) AS BLOB) WHERE position = 3001",
		"UPDATE entry SET record = substr(record, 1, 20) WHERE position = 3002",
		"UPDATE entry SET record = CAST(record || x'00' AS BLOB) WHERE position = 3003"} {
		if err := s.w.exec(q); err != nil {
			t.Fatal(q, err)
		}
	}
	gone := map[uint64]bool{1: true, 70: true, 5000: true, 5001: true, 10000: true}
	for p := uint64(6000); p <= 9500; p++ {
		gone[p] = true
	}
	var want []ledger.Record
	for _, r := range before {
		if !gone[r.Position] {
			want = append(want, r)
		}
	}
	for _, down := range []bool{false, true} {
		first, last := uint64(1), g.size
		if down {
			first, last = last, first
		}
		got := all(t, s, first, last)
		if len(got) != len(want) {
			t.Fatalf("%d records, want %d", len(got), len(want))
		}
		for i, r := range got {
			w := want[i]
			if down {
				w = want[len(want)-1-i]
			}
			bad := r.Position >= 3000 && r.Position <= 3003
			if r.Position != w.Position || (r.Leaf == w.Leaf && string(r.Body) == string(w.Body)) == bad {
				t.Fatalf("record %d is that of position %d, want %d, damaged: %v", i, r.Position, w.Position, bad)
			}
		}
	}
}

func all(t *testing.T, s *Store, first, last uint64) (records []ledger.Record) {
	t.Helper()
	err := s.Scan(context.Background(), first, last, func(r ledger.Record) error {
		r.Body = append([]byte(nil), r.Body...)
		records = append(records, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return records
}
