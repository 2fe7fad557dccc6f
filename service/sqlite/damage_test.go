package sqlite

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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
	for _, damage := range []struct {
		query string
		// positions that are gone, or handed out damaged
		first, last uint64
		gone        bool
	}{
		{"DELETE FROM entry WHERE position = 1", 1, 1, true},
		{"DELETE FROM entry WHERE position = 70", 70, 70, true},
		{"DELETE FROM entry WHERE position = 2000", 2000, 2000, true},
		{"DELETE FROM entry WHERE position BETWEEN 60 AND 1990", 60, 1990, true},
		{"DELETE FROM entry", 1, 2000, true},
		{"UPDATE entry SET record = x'' WHERE position = 90", 90, 90, false},
		{"UPDATE entry SET record = zeroblob(1) WHERE position = 64", 64, 64, false},
		{"UPDATE entry SET record = CAST(x'ff' || substr(record, 2) AS BLOB) WHERE position = 91", 91, 91, false},
		{"UPDATE entry SET record = CAST(x'ffffffffffffffffffffffff' || record AS BLOB) WHERE position = 91", 91, 91, false},
		{"UPDATE entry SET record = substr(record, 1, 20) WHERE position = 2000", 2000, 2000, false},
		{"UPDATE entry SET record = CAST(record || x'00' AS BLOB) WHERE position = 1500", 1500, 1500, false},
		{"UPDATE entry SET record = CAST(record || x'00' AS BLOB) WHERE position = 2000", 2000, 2000, false},
		{"UPDATE entry SET record = CAST(substr(record, 1, 60) || x'00' || substr(record, 62) AS BLOB) WHERE position = 5", 5, 5, false},
	} {
		s, g := openAt(t, filepath.Join(t.TempDir(), "optout.db")), newGrower()
		g.mustAppend(t, s, 2000)
		before := all(t, s, 1, g.size)
		if err := s.w.exec("DROP TRIGGER entry_delete; DROP TRIGGER entry_update; " + damage.query); err != nil {
			t.Fatal(damage.query, err)
		}
		var want []ledger.Record
		for _, r := range before {
			if r.Position < damage.first || r.Position > damage.last || !damage.gone {
				want = append(want, r)
			}
		}
		sameButFor := func(way string, got []ledger.Record) {
			t.Helper()
			if len(got) != len(want) {
				t.Fatalf("%s: %s: %d records, want %d", damage.query, way, len(got), len(want))
			}
			for i, r := range got {
				bad := r.Position >= damage.first && r.Position <= damage.last
				if same := r.Leaf == want[i].Leaf && bytes.Equal(r.Body, want[i].Body); r.Position != want[i].Position || same == bad {
					t.Fatalf("%s: %s: record %d is that of position %d, want %d, and is the same: %v", damage.query, way, i, r.Position, want[i].Position, same)
				}
			}
		}
		sameButFor("up", all(t, s, 1, g.size))
		slices.Reverse(want)
		sameButFor("down", all(t, s, g.size, 1))
		mustClose(t, s)
	}
}

// A scan ends soon after its context, in the middle of what it has read too.
func TestScanEndsWithItsContext(t *testing.T) {
	s, g := openAt(t, filepath.Join(t.TempDir(), "optout.db")), newGrower()
	defer mustClose(t, s)
	g.mustAppend(t, s, 10_000)
	for _, at := range []int{1, 100, 2000, 6000} {
		ctx, cancel := context.WithCancel(context.Background())
		calls := 0
		err := s.Scan(ctx, 1, g.size, func(ledger.Record) error {
			if calls++; calls == at {
				cancel()
			}
			return nil
		})
		if err != context.Canceled || calls > at+64 {
			t.Errorf("cancelled at call %d: %v after %d calls", at, err, calls)
		}
		cancel()
	}
}

func all(t *testing.T, s *Store, first, last uint64) (records []ledger.Record) {
	t.Helper()
	err := s.Scan(context.Background(), first, last, func(r ledger.Record) error {
		r.Body = bytes.Clone(r.Body)
		records = append(records, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return records
}
