package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"optout/service/ledgertest"
)

// The driver's own default loses acknowledged writes in a power cut. A connection that is not durable is refused.
func TestOpenRefusesWhatIsNotDurable(t *testing.T) {
	for _, level := range []string{"NORMAL", "OFF"} {
		path := filepath.Join(t.TempDir(), "optout.db")
		_, err := Open(context.Background(), path, Options{synchronous: level})
		if err == nil || !strings.Contains(err.Error(), "refusing to run: PRAGMA synchronous") {
			t.Errorf("opened with synchronous=%s: %v", level, err)
		}
		// The control: it is the read-back that refuses, and nothing else.
		mustClose(t, openWith(t, path, Options{synchronous: level, unchecked: true}))
	}
}

func TestEveryConnectionIsReadBack(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "optout.db"))
	defer mustClose(t, s)
	conns := []*conn{s.w.conn, s.checkpoints.conn}
	for range readers {
		r := <-s.pool
		defer func() { s.pool <- r }()
		conns = append(conns, r.conn)
	}
	for i, c := range conns {
		m := queryOnly
		if i == 0 {
			m = readWrite
		}
		if err := c.readBack(m); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
		for _, spoil := range []string{"synchronous = NORMAL", "secure_delete = OFF", "wal_autocheckpoint = 1000", "temp_store = FILE",
			"foreign_keys = OFF", "cell_size_check = OFF", "mmap_size = 1000000", fmt.Sprintf("query_only = %t", m == readWrite)} {
			before, err := c.value("PRAGMA " + strings.Fields(spoil)[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := c.exec("PRAGMA " + spoil); err != nil {
				t.Fatal(err)
			}
			if err := c.readBack(m); err == nil {
				t.Errorf("connection %d: %s was not noticed", i, spoil)
			}
			if err := c.exec(fmt.Sprintf("PRAGMA %s = %v", strings.Fields(spoil)[0], before)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestFilesAreTheOwnersOnly(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	dir := t.TempDir()
	path := filepath.Join(dir, "optout.db")
	for range 2 {
		s := openAt(t, path)
		resume(t, s).mustAppend(t, s, 1)
		seen := 0
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			seen++
			if info, err := d.Info(); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v (%v)", name, info.Mode(), err)
			}
			return nil
		})
		if err != nil || seen < 4 { // database, log, index of the log, lock
			t.Errorf("%d files (%v)", seen, err)
		}
		mustClose(t, s)
		if err := os.Chmod(path, 0o644); err != nil { // as after a careless restore
			t.Fatal(err)
		}
	}
}

func TestSecondInstanceIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "optout.db")
	s := openAt(t, path)
	if _, err := Open(context.Background(), path, Options{}); err == nil || !strings.Contains(err.Error(), "another optout has this data open") {
		t.Errorf("a second one in this process: %v", err)
	}
	if out := child(t, nil, path, "open", Options{}, 0); !strings.Contains(out.text, "another optout has this data open") {
		t.Errorf("a second one in another process: %s", out.text)
	}
	newGrower().mustAppend(t, s, 1) // the first one is none the worse
	mustClose(t, s)
	if out := child(t, nil, path, "open", Options{}, 0); out.text != "opened" { // the control
		t.Errorf("after the first one has ended: %s", out.text)
	}
}

func TestOpenRefusesOtherFiles(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(t *testing.T, path string)
		want string
	}{
		{"a newer schema", func(t *testing.T, path string) {
			s := openAt(t, path)
			if err := s.w.exec("PRAGMA user_version = 99"); err != nil {
				t.Fatal(err)
			}
			mustClose(t, s)
		}, "newer optout"},
		{"another program's database", func(t *testing.T, path string) { foreign(t, path, "CREATE TABLE t(x)") }, "not an optout database"},
		{"another program's marked database", func(t *testing.T, path string) { foreign(t, path, "PRAGMA application_id = 7") }, "not an optout database"},
		{"a text", func(t *testing.T, path string) { write(t, path, bytes.Repeat([]byte("address,date\n"), 1000)) }, "damaged or is not"},
		{"an empty database beside a log", func(t *testing.T, path string) { write(t, path, nil); write(t, path+"-wal", []byte("x")) }, "cut off"},
		{"a tip that is gone", func(t *testing.T, path string) {
			s := openAt(t, path)
			if err := s.w.exec("DROP TRIGGER tip_delete; DELETE FROM tip"); err != nil {
				t.Fatal(err)
			}
			mustClose(t, s)
		}, "tip is missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "optout.db")
			test.make(t, path)
			before := read(t, path)
			s, err := Open(context.Background(), path, Options{})
			if err == nil {
				mustClose(t, s)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Open: %v, want %q", err, test.want)
			}
			if !bytes.Equal(read(t, path), before) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestOpenAnyPath(t *testing.T) {
	for _, name := range []string{"a?b=c&d", "100%41", "x#y", "ü 漢字", "file:z"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "optout.db")
		s := openAt(t, path)
		newGrower().mustAppend(t, s, 3)
		backup := t.TempDir()
		if _, err := s.Backup(context.Background(), backup, nil); err != nil {
			t.Error(err)
		}
		mustClose(t, s)
		for _, path := range []string{path, filepath.Join(backup, "optout.db")} {
			if info, err := os.Stat(path); err != nil || info.Size() == 0 {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

func TestOpenFailsWithoutFolder(t *testing.T) {
	if _, err := Open(context.Background(), filepath.Join(t.TempDir(), "none", "optout.db"), Options{}); err == nil {
		t.Error("opened in a folder that does not exist")
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ended, filepath.Join(t.TempDir(), "optout.db"), Options{}); err != context.Canceled {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// Law 1, in the file too.
func TestEntriesAreAppendOnly(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "optout.db"))
	defer mustClose(t, s)
	newGrower().mustAppend(t, s, 3)
	for _, q := range []string{"UPDATE entry SET record = x'00'", "DELETE FROM entry WHERE position = 3", "UPDATE head SET root = x'00'", "DELETE FROM head",
		"UPDATE tip SET ledger = '0123456789abcdef'", "DELETE FROM tip"} {
		if err := s.w.exec(q); err == nil {
			t.Errorf("%s: was done", q)
		}
	}
	if n, err := fits(s); n != 3 || err != nil {
		t.Error(n, err)
	}
}

// Another program that wrote in spite of the lock is noticed inside the transaction, before anything is acknowledged.
func TestAppendNoticesAnotherWriter(t *testing.T) {
	s, g := openAt(t, filepath.Join(t.TempDir(), "optout.db")), newGrower()
	defer mustClose(t, s)
	g.mustAppend(t, s, 3)
	foreign(t, s.path, "UPDATE tip SET size = 4")
	if err := g.append(s, 1); err == nil {
		t.Error("appended to a tip that somebody else had moved")
	}
	if err := g.append(s, 1); err == nil || !strings.Contains(err.Error(), "opened anew") {
		t.Errorf("the store went on: %v", err)
	}
	foreign(t, s.path, "UPDATE tip SET size = 3") // nothing is held any more
}

// What is refused before or inside the transaction, with a known outcome, does not end writing.
func TestRefusedCommitsDoNoHarm(t *testing.T) {
	s, g := openAt(t, filepath.Join(t.TempDir(), "optout.db")), newGrower()
	defer mustClose(t, s)
	first := g.commit(1, 1)
	if err := s.Append(context.Background(), first); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(context.Background(), first); err == nil {
		t.Error("a commit was taken twice")
	}
	g.size++
	again := g.commit(1, 0)
	again.Requests = first.Requests
	if err := s.Append(context.Background(), again); err == nil {
		t.Error("a request id was taken twice")
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Append(ended, g.commit(1, 0)); err != context.Canceled {
		t.Errorf("with a context that has ended: %v", err)
	}
	g.mustAppend(t, s, 1)
	if n, err := fits(s); n != 2 || err != nil {
		t.Error(n, err)
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := t.TempDir()
	s, g := openAt(t, filepath.Join(dir, "optout.db")), newGrower()
	for range 10 {
		g.mustAppend(t, s, 100)
	}
	if n, err := fits(s); n != 1000 || err != nil {
		t.Error(n, err)
	}
	mustClose(t, s)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 { // the log was copied back and is gone
		t.Errorf("%v (%v), want database and lock", files, err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	ledgertest.Require(t, "open files are counted in /proc", err == nil)
	for _, f := range open {
		if name, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.HasPrefix(name, dir) {
			t.Errorf("%s is still open", name)
		}
	}
}

func TestMigrationsAreNumbered(t *testing.T) {
	all, err := migrations()
	if err != nil || len(all) == 0 {
		t.Fatal(len(all), err)
	}
	s := openAt(t, filepath.Join(t.TempDir(), "optout.db"))
	defer mustClose(t, s)
	if v, err := s.w.value("PRAGMA user_version"); err != nil || v != int64(len(all)) {
		t.Errorf("user_version is %v (%v), want %d", v, err, len(all))
	}
	if v, err := s.w.value("PRAGMA application_id"); err != nil || v != int64(applicationID) {
		t.Errorf("application_id is %v (%v)", v, err)
	}
	if v, err := s.w.value("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE '%STRICT%'"); err != nil || v != int64(0) {
		t.Errorf("%v tables are not STRICT (%v)", v, err)
	}
}

// foreign has another program run a statement on the database.
func foreign(t *testing.T, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
