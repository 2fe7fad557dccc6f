package intake

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A kept message is destroyed when its time is over, and not before; what else lies in the folder is left alone.
func TestKeepEnds(t *testing.T) {
	now := time.Date(2026, 3, 1, 23, 59, 0, 0, time.UTC)
	k := &Keep{Folder: filepath.Join(t.TempDir(), "mail"), For: 24 * time.Hour, Spares: always, Now: func() time.Time { return now }}
	if err := k.Clean(); err != nil {
		t.Fatalf("nothing kept yet: %v", err)
	}
	for range 2 { // again is harmless
		if err := k.Save(NewMessage([]byte("hello"))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(k.Folder, "notes"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		pass time.Duration
		left int
	}{{24 * time.Hour, 1}, {time.Minute, 1}, {24 * time.Hour, 0}} {
		now = now.Add(step.pass)
		if err := k.Clean(); err != nil {
			t.Fatal(err)
		}
		if found, _ := filepath.Glob(filepath.Join(k.Folder, "*", "*.eml")); len(found) != step.left {
			t.Errorf("at %v: %v, want %d", now, found, step.left)
		}
	}
	if _, err := os.Stat(filepath.Join(k.Folder, "notes")); err != nil {
		t.Error(err)
	}
}

// A flood cannot fill the disk with what is kept; the next day there is room again.
func TestKeepIsBounded(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	k := &Keep{Folder: filepath.Join(t.TempDir(), "mail"), For: 24 * time.Hour, Spares: always, Now: func() time.Time { return now }}
	if err := k.Save(NewMessage([]byte("first"))); err != nil {
		t.Fatal(err)
	}
	k.octets = maxKept
	if err := k.Save(NewMessage([]byte("told"))); err == nil {
		t.Error("nobody is told that no more is kept")
	}
	if err := k.Save(NewMessage([]byte("not told again"))); err != nil {
		t.Error(err)
	}
	day := filepath.Join(k.Folder, "2026-03-01")
	if err := os.Truncate(filepath.Join(day, oneOf(t, day)), maxKept); err != nil { // as if as much were kept
		t.Fatal(err)
	}
	restarted := &Keep{Folder: k.Folder, For: k.For, Spares: always, Now: k.Now}
	if err := restarted.Save(NewMessage([]byte("after a restart"))); err == nil {
		t.Error("a restart makes room")
	}
	now = now.Add(24 * time.Hour)
	if err := k.Save(NewMessage([]byte("next day"))); err != nil {
		t.Error(err)
	}
	if found, _ := filepath.Glob(filepath.Join(k.Folder, "*", "*.eml")); len(found) != 2 {
		t.Errorf("kept: %v", found)
	}
}

// Nothing is kept that the ledger's volume cannot spare, however many are being written at once: that is told once a
// day, and when there is space again messages are kept again.
func TestKeepLeavesTheLedgerItsSpace(t *testing.T) {
	space, now := int64(100), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	k := &Keep{Folder: filepath.Join(t.TempDir(), "mail"), For: time.Hour, Spares: func(n int64) bool { return n <= space }, Now: func() time.Time { return now }}
	big := make([]byte, 101)
	for i, told := range []bool{true, false, false} {
		big[0] = byte(i)
		if err := k.Save(NewMessage(big)); (err != nil) != told {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if ok, _ := k.room(k.day, 60); !ok {
		t.Error("60 of 100 octets are refused")
	}
	if ok, _ := k.room(k.day, 60); ok {
		t.Error("two messages at once are given 120 of 100 octets")
	}
	k.written(60)
	space = 200
	for i := range 2 {
		big[1] = byte(i + 1)
		if err := k.Save(NewMessage(big)); err != nil {
			t.Error(err)
		}
	}
	if found, _ := filepath.Glob(filepath.Join(k.Folder, "*", "*.eml")); len(found) != 2 {
		t.Errorf("kept: %v", found)
	}
	space, now = 0, now.Add(24*time.Hour)
	if err := k.Save(NewMessage([]byte("again"))); err == nil {
		t.Error("it is not told on the next day")
	}
}

func always(int64) bool { return true }

// oneOf is the name of the only file in a folder.
func oneOf(t *testing.T, folder string) string {
	t.Helper()
	files, err := os.ReadDir(folder)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	return files[0].Name()
}
