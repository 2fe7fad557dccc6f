package sqlite

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"optout/service/ledgertest"
)

// A child's commits, and at which of its writer's system calls a fault strikes: after the start, before the end.
const (
	commits = 200
	strike  = "60"
)

func needStrace(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath("strace")
	ledgertest.Require(t, "faults at system calls need strace", err == nil)
}

// Every commit is an fsync.
func TestEveryCommitIsSynced(t *testing.T) {
	needStrace(t)
	syncs := func(o Options) int {
		dir := t.TempDir()
		trace := filepath.Join(dir, "trace")
		if out := child(t, []string{"-o", trace, "-e", "trace=fsync,fdatasync"}, filepath.Join(dir, "optout.db"), "append", o, commits); out.acks != commits {
			t.Fatalf("%d of %d were acknowledged", out.acks, commits)
		}
		return bytes.Count(read(t, trace), []byte("sync("))
	}
	if n := syncs(Options{}); n < commits {
		t.Errorf("%d calls of fsync for %d commits", n, commits)
	}
	if n := syncs(Options{synchronous: "NORMAL"}); n > commits/2 {
		t.Errorf("the control: %d calls of fsync for %d commits with synchronous=NORMAL", n, commits)
	}
}

// Law 4: after a commit whose fsync failed nothing is acknowledged any more, even though the disk works again. What
// was acknowledged before is there; the failed commit may be.
func TestFailedFsyncEndsWriting(t *testing.T) {
	needStrace(t)
	path := filepath.Join(t.TempDir(), "optout.db")
	faults := []string{"-P", path + "-wal", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=" + strike}
	out := child(t, faults, path, "append", Options{}, commits)
	if out.unknown != 1 || out.acksAfterUnknown > 0 || out.refused == 0 || out.acks+1+out.refused != commits || out.acks < 10 {
		t.Fatalf("%d acknowledged, %d unknown, then %d acknowledged and %d refused\n%.2000s", out.acks, out.unknown, out.acksAfterUnknown, out.refused, out.text)
	}
	s := openAt(t, path)
	n, err := fits(s)
	if err != nil || n < out.acked || n > out.acked+1 {
		t.Errorf("%d entries after the restart (%v); %d were acknowledged", n, err, out.acked)
	}
	t.Logf("%d acknowledged, %d there; the error was: %s", out.acked, n, out.firstUnknown)
	resume(t, s).mustAppend(t, s, 5)
	mustClose(t, s)

	// The control: a store that is not durable never learns of it.
	path = filepath.Join(t.TempDir(), "optout.db")
	faults[1] = path + "-wal"
	if out := child(t, faults, path, "append", Options{synchronous: "NORMAL"}, commits); out.acks != commits {
		t.Errorf("the control: with synchronous=NORMAL %d of %d were acknowledged: the fault proves nothing", out.acks, commits)
	}
}

// A failed fsync or write of the checkpointer ends writing too.
func TestFailedCheckpointEndsWriting(t *testing.T) {
	needStrace(t)
	for _, call := range []string{"fsync,fdatasync", "pwrite64"} {
		t.Run(call, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "optout.db")
			// The first ones on the database itself are the writer's, when it makes the file.
			faults := []string{"-P", path, "-e", "trace=" + call, "-e", "inject=" + call + ":error=EIO:when=1+"}
			mustClose(t, openAt(t, path))
			out := child(t, faults, path, "append", Options{logPages: 50}, 3000)
			if out.acks < 10 || out.unknown > 0 || out.refused == 0 {
				t.Fatalf("%d acknowledged, %d unknown, %d refused", out.acks, out.unknown, out.refused)
			}
			s := openAt(t, path)
			defer mustClose(t, s)
			if n, err := fits(s); err != nil || n != out.acked {
				t.Errorf("%d entries after the restart (%v); %d were acknowledged", n, err, out.acked)
			}
		})
	}
}

// A write of the log that finds no space, or no quota, is no bad disk: nothing was kept, and writing goes on when it can.
func TestNoSpaceForTheLog(t *testing.T) {
	needStrace(t)
	for _, errno := range []string{"ENOSPC", "EDQUOT"} {
		t.Run(errno, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "optout.db")
			faults := []string{"-P", path + "-wal", "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=" + errno + ":when=200..204"}
			out := child(t, faults, path, "append", Options{}, commits)
			if out.full != 5 || out.unknown > 0 || out.refused > 0 || out.acks != commits-5 {
				t.Fatalf("%d acknowledged, %d full, %d unknown, %d refused\n%.2000s", out.acks, out.full, out.unknown, out.refused, out.text)
			}
			t.Log(out.lastFull)
			s := openAt(t, path)
			defer mustClose(t, s)
			if n, err := fits(s); err != nil || n != out.acked {
				t.Errorf("%d entries after the restart (%v); %d were acknowledged", n, err, out.acked)
			}
		})
	}
	// The control: EIO at the same place is a bad disk.
	path := filepath.Join(t.TempDir(), "optout.db")
	faults := []string{"-P", path + "-wal", "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EIO:when=200..204"}
	if out := child(t, faults, path, "append", Options{}, commits); out.full != 0 || out.unknown != 1 || out.refused == 0 {
		t.Errorf("the control: %d full, %d unknown, %d refused", out.full, out.unknown, out.refused)
	}
}

// The index of the log is extended after the commit's fsync: no space for it leaves the outcome open, and is not called full.
func TestNoSpaceForTheIndexOfTheLog(t *testing.T) {
	needStrace(t)
	path := filepath.Join(t.TempDir(), "optout.db")
	mustClose(t, openAt(t, path))
	faults := []string{"-P", path + "-shm", "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC:when=9+"} // 8 are the first part of it
	out := child(t, faults, path, "append", Options{logPages: 1 << 40}, 1500)
	if out.unknown != 1 || out.full > 0 || out.acksAfterUnknown > 0 || out.refused == 0 || out.acks < 500 {
		t.Fatalf("%d acknowledged, %d full, %d unknown, %d refused\n%.500s", out.acks, out.full, out.unknown, out.refused, out.text)
	}
	s := openAt(t, path)
	defer mustClose(t, s)
	n, err := fits(s)
	if err != nil || n < out.acked || n > out.acked+1 {
		t.Errorf("%d entries after the restart (%v); %d were acknowledged", n, err, out.acked)
	}
	t.Logf("%d acknowledged, %d there; the error was: %s", out.acked, n, out.firstUnknown)
}

// Reads of a disk that fails are errors, not answers.
func TestFailedReadsAreErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "optout.db")
	s, g := openAt(t, path), newGrower()
	for range 20 {
		g.mustAppend(t, s, 1000)
	}
	mustClose(t, s)
	s = openAt(t, path)
	defer func() {
		if err := s.Close(); err != nil {
			t.Log(err)
		}
	}()
	if err := exec.Command("truncate", "-s", "200000", path).Run(); err != nil { // behind the open store's back
		t.Fatal(err)
	}
	_, err := fits(s)
	if err == nil || strings.Contains(err.Error(), "missing") {
		t.Errorf("a cut file was read as %v, want an error of the store", err)
	}
	if _, err := s.Get(context.Background(), 19_000); err == nil {
		t.Error("an entry behind the cut was found")
	}
}
