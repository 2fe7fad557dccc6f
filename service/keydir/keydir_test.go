package keydir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newDir(t *testing.T) (*Dir, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return d, path
}

func create(t *testing.T, d *Dir, kind Kind, id uint16) Key {
	t.Helper()
	k, err := d.Create(kind, id, rand.Reader, now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysComeBack(t *testing.T) {
	d, path := newDir(t)
	second, first, address, receipt := create(t, d, Link, 2), create(t, d, Link, 1), create(t, d, Address, 1), create(t, d, Receipt, 1)
	for _, p := range []string{path, filepath.Join(path, "link-1.key")} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", p, info.Mode(), err)
		}
	}
	again, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Keys(Link); len(got) != 2 || got[0] != first || got[1] != second || again.Keys(Address)[0] != address || again.Keys(Receipt)[0] != receipt {
		t.Errorf("read back %v", got)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if err := d.CopyTo(copied); err != nil {
		t.Fatal(err)
	}
	if c, err := Open(copied); err != nil || c.Keys(Address)[0] != address {
		t.Errorf("the copy: %v", err)
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	d, path := newDir(t)
	k := create(t, d, Link, 1)
	other, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []*Dir{d, other} {
		if _, err := dir.Create(Link, 1, rand.Reader, now); !errors.Is(err, fs.ErrExist) {
			t.Errorf("created twice: %v", err)
		}
	}
	if again, err := Open(path); err != nil || again.Keys(Link)[0] != k {
		t.Errorf("the key has changed: %v", err)
	}
}

// What is not a whole, private key file stops the start, and the message says which file and what to do, and shows no secret.
func TestRefusals(t *testing.T) {
	for name, spoil := range map[string]func(path, text string) error{
		"readable file":   func(path, _ string) error { return os.Chmod(path, 0o644) },
		"readable folder": func(path, _ string) error { return os.Chmod(filepath.Dir(path), 0o755) },
		"torn":            func(path, text string) error { return os.WriteFile(path, []byte(text[:len(text)-9]), 0o600) },
		"empty":           func(path, _ string) error { return os.WriteFile(path, nil, 0o600) },
		"edited secret": func(path, text string) error {
			i := strings.Index(text, "secret: ") + 8
			flipped := byte('0')
			if text[i] == '0' {
				flipped = '1'
			}
			return os.WriteFile(path, []byte(text[:i]+string(flipped)+text[i+1:]), 0o600)
		},
		"more lines": func(path, text string) error { return os.WriteFile(path, []byte(text+"more: 1\n"), 0o600) },
		"same id":    func(path, text string) error { return os.WriteFile(path+".copy.key", []byte(text), 0o600) },
		"other kind": func(path, text string) error {
			return os.WriteFile(path, []byte(strings.Replace(text, "link", "pink", 1)), 0o600)
		},
		"other order": func(path, text string) error {
			return os.WriteFile(path, []byte(strings.Replace(text, "kind: link\nid: 1\n", "id: 1\nkind: link\n", 1)), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, folder := newDir(t)
			k := create(t, d, Link, 1)
			path := filepath.Join(folder, "link-1.key")
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(path, string(text)); err != nil {
				t.Fatal(err)
			}
			_, err = Open(folder)
			if err == nil {
				t.Fatal("it was taken")
			}
			if !strings.Contains(err.Error(), folder) || strings.Contains(err.Error(), fmt.Sprintf("%x", k.Secret[:8])) {
				t.Errorf("the message: %v", err)
			}
		})
	}
}

func TestSecretsDoNotShow(t *testing.T) {
	d, _ := newDir(t)
	k := create(t, d, Address, 1)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if s := fmt.Sprintf(verb, k); strings.Contains(s, fmt.Sprintf("%x", k.Secret[:4])) || s != "address key 1" {
			t.Errorf("%s shows %s", verb, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(Key{Kind: Link, ID: 1, Created: now, Secret: [32]byte{1}}.text()))
	f.Add([]byte("optout-key v1\nid: 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, ok := parse(b); ok && k.text() != string(b) {
			t.Fatalf("%q was taken, and is written %q", b, k.text())
		}
	})
}
