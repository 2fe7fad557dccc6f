package ledger_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"optout/service/anchor"
	"optout/service/ledger"
	"optout/service/sqlite"
)

// verifyData verifies the closed ledger in the world's folder.
func (w *world) verifyData() ledger.Report {
	w.t.Helper()
	s, err := sqlite.Open(w.ctx(), w.database(), sqlite.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.Close()
	rep, err := ledger.VerifyStore(w.ctx(), s, anchor.At(filepath.Join(w.dir, "checkpoint")), w.keys, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return rep
}

// filled is a world with a few dozen entries of all sorts, closed.
func filled(t *testing.T) *world {
	w := newWorld(t)
	for i := range 20 {
		w.press(fmt.Sprintf("p%d@example.com", i), "ALL", ledger.ByOneClick)
		w.subscribe(full("news", fmt.Sprintf("s%d@example.com", i)))
	}
	w.close()
	return w
}

func TestVerifyOfAWholeLedger(t *testing.T) {
	w := filled(t)
	if rep := w.verifyData(); rep.FirstBad != 0 || rep.Entries == 0 || rep.Personal == 0 {
		t.Errorf("%+v", rep)
	}
	w.open()
	for i := range 3 { // and while it is written to
		w.press(fmt.Sprintf("q%d@example.com", i), "ALL", ledger.ByOneClick)
		if rep, err := w.Verify(w.ctx(), nil); err != nil || rep.FirstBad != 0 || rep.Head != w.Head() {
			t.Errorf("%+v, %v", rep, err)
		}
	}
}

// Whatever is done to the database behind the ledger's back, verify names the first entry that does not fit.
func TestVerifyNamesTheDamage(t *testing.T) {
	const bad = 30
	flip := func(at int) func([]byte) []byte {
		return func(record []byte) []byte {
			record[(len(record)+at)%len(record)] ^= 4
			return record
		}
	}
	for name, c := range map[string]struct {
		change func(record []byte) []byte // of entry 30
		sql    []string
		want   uint64
	}{
		"a flipped bit at the beginning": {flip(0), nil, bad},
		"a flipped bit in the leaf":      {flip(3), nil, bad},
		"a flipped bit in the body":      {flip(20), nil, bad},
		"a flipped bit at the end":       {flip(-1), nil, bad},
		"an octet appended":              {func(r []byte) []byte { return append(r, 0) }, nil, bad},
		"an octet cut off":               {func(r []byte) []byte { return r[:len(r)-1] }, nil, bad},
		"a deleted row":                  {nil, []string{"DELETE FROM entry WHERE position = 30"}, bad},
		"swapped rows": {nil, []string{"UPDATE entry SET position = -1 WHERE position = 30", "UPDATE entry SET position = 30 WHERE position = 31",
			"UPDATE entry SET position = 31 WHERE position = -1"}, bad},
		"a copied row":           {nil, []string{"UPDATE entry SET record = (SELECT record FROM entry WHERE position = 28) WHERE position = 30"}, bad},
		"a changed personal row": {nil, []string{"UPDATE personal SET body = zeroblob(40) WHERE position = (SELECT min(position) FROM personal WHERE position >= 30)"}, 0},
		"a changed root":         {nil, []string{"UPDATE head SET root = zeroblob(32) WHERE size = 30"}, bad},
		"a shortened ledger": {nil, []string{"DELETE FROM entry WHERE position > 30", "DELETE FROM personal WHERE position > 30", "DELETE FROM head WHERE size > 30",
			"UPDATE tip SET size = 30, root = (SELECT root FROM head WHERE size = 30)"}, 31},
	} {
		t.Run(name, func(t *testing.T) {
			w := filled(t)
			db, err := sql.Open("sqlite3", w.database())
			if err != nil {
				t.Fatal(err)
			}
			for _, trigger := range triggers(t, db) { // whoever can write the file can drop them
				if _, err := db.Exec("DROP TRIGGER " + trigger); err != nil {
					t.Fatal(err)
				}
			}
			changed := int64(0)
			if c.change != nil {
				var record []byte
				if err := db.QueryRow("SELECT record FROM entry WHERE position = 30").Scan(&record); err != nil {
					t.Fatal(err)
				}
				if _, err := db.Exec("UPDATE entry SET record = ? WHERE position = 30", c.change(record)); err != nil {
					t.Fatal(err)
				}
				changed++
			}
			for _, stmt := range c.sql {
				r, err := db.Exec(stmt)
				if err != nil {
					t.Fatal(err)
				}
				n, _ := r.RowsAffected()
				changed += n
			}
			if err := db.Close(); err != nil || changed == 0 {
				t.Fatalf("%d rows changed, %v", changed, err)
			}
			rep := w.verifyData()
			if rep.FirstBad == 0 || rep.Fault == "" || c.want != 0 && rep.FirstBad != c.want {
				t.Errorf("%+v, want the first bad entry %d", rep, c.want)
			}
		})
	}
}

func triggers(t *testing.T, db *sql.DB) (names []string) {
	t.Helper()
	rows, err := db.Query("SELECT name FROM sqlite_master WHERE type = 'trigger'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		names = append(names, n)
	}
	return names
}

// A WAL that was lost, with acknowledged entries in it: the database alone looks whole, the anchor tells.
func TestLostWALIsNoticed(t *testing.T) {
	w := newWorld(t)
	w.press("a@example.com", "ALL", ledger.ByOneClick)
	w.close()
	old, err := os.ReadFile(w.database())
	if err != nil {
		t.Fatal(err)
	}
	w.open()
	w.press("b@example.com", "ALL", ledger.ByOneClick)
	w.close()
	for _, suffix := range []string{"-wal", "-shm"} {
		os.Remove(w.database() + suffix)
	}
	if err := os.WriteFile(w.database(), old, 0o600); err != nil { // the state before: as if later frames had never been written
		t.Fatal(err)
	}
	if err := w.tryOpen(plain); !errors.Is(err, ledger.ErrDamaged) || !strings.Contains(err.Error(), "shortened or rolled back") {
		t.Errorf("a rolled-back ledger opens: %v", err)
	}
	if rep := w.verifyData(); rep.FirstBad == 0 {
		t.Errorf("%+v", rep)
	}
}

// Without its keys, or with others, nobody would be suppressed: the ledger does not open.
func TestOtherKeysAreRefused(t *testing.T) {
	w := newWorld(t)
	check, _ := w.keys.CheckValue(1)
	w.must(w.RegisterSecret(w.ctx(), w.admin(), ledger.Secret{Kind: "address", ID: 1, Check: fmt.Sprintf("%x", check)}))
	w.close()
	right := w.keys
	w.keys = otherKeys(t, 1)
	if err := w.tryOpen(plain); !errors.Is(err, ledger.ErrDamaged) {
		t.Errorf("another key: %v", err)
	}
	w.keys = otherKeys(t, 2)
	if err := w.tryOpen(plain); !errors.Is(err, ledger.ErrDamaged) {
		t.Errorf("the key is missing: %v", err)
	}
	w.keys = right
	w.open()
}
