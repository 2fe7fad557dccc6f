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
	k := &Keep{Folder: filepath.Join(t.TempDir(), "mail"), For: 24 * time.Hour, Now: func() time.Time { return now }}
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
	k := &Keep{Folder: filepath.Join(t.TempDir(), "mail"), For: 24 * time.Hour, Now: func() time.Time { return now }}
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
	restarted := &Keep{Folder: k.Folder, For: k.For, Now: k.Now}
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

// oneOf is the name of the only file in a folder.
func oneOf(t *testing.T, folder string) string {
	t.Helper()
	files, err := os.ReadDir(folder)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	return files[0].Name()
}
