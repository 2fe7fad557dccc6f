// Package keydir keeps the folder of secrets (--keys): address keys, link keys and receipt keys, one file each, outside the
// database. It touches nothing else. Whoever has the address keys can test guesses against the ledger, whoever has the link
// keys can make links, whoever has the receipt keys can make receipts, and without the first two the service cannot go on. So
// the folder is 0700, its files are 0600, and nothing is overwritten.
package keydir

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Kind says what a key is for.
type Kind string

// Kinds.
const (
	Address Kind = "address"
	Link    Kind = "link"
	// Receipt keys are Ed25519 seeds.
	Receipt Kind = "receipt"
)

// Key is one secret.
type Key struct {
	Kind    Kind
	ID      uint16
	Secret  [32]byte
	Created time.Time
}

// CheckValue tells which key it is and nothing of its secret, so that the database can know the key it was made with.
func (k Key) CheckValue() [16]byte {
	m := hmac.New(sha256.New, k.Secret[:])
	fmt.Fprintf(m, "optout key check v1|%s|%d", k.Kind, k.ID)
	return [16]byte(m.Sum(nil)[:16])
}

// Format shows the key without its secret.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, fmt.Sprintf("%s key %d", k.Kind, k.ID)) }

// LogValue shows the key without its secret.
func (k Key) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf("%s key %d", k.Kind, k.ID)) }

// MarshalJSON refuses: a secret belongs in its file alone.
func (k Key) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a key is not to be written as JSON")
}

const (
	header    = "optout-key v1"
	extension = ".key"
	// maxFile is far more than a key file has.
	maxFile = 4096
)

// text is the file of a key. Its check value finds a typing error or a copy that was cut short.
func (k Key) text() string {
	return fmt.Sprintf("%s\nkind: %s\nid: %d\ncreated: %s\nsecret: %x\ncheck: %x\n", header, k.Kind, k.ID, k.Created.UTC().Format(time.RFC3339), k.Secret, k.CheckValue())
}

// parse reads the file of a key; it takes only what text writes.
func parse(b []byte) (k Key, ok bool) {
	fields := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	if !lines.Scan() || lines.Text() != header {
		return k, false
	}
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		fields[name] = value
	}
	id, err := strconv.ParseUint(fields["id"], 10, 16)
	secret, err2 := hex.DecodeString(fields["secret"])
	created, err3 := time.Parse(time.RFC3339, fields["created"])
	if err != nil || err2 != nil || err3 != nil || len(secret) != len(k.Secret) || id == 0 {
		return k, false
	}
	k = Key{Kind: Kind(fields["kind"]), ID: uint16(id), Created: created}
	copy(k.Secret[:], secret)
	return k, (k.Kind == Address || k.Kind == Link || k.Kind == Receipt) && k.text() == string(b)
}

// Dir is the folder, read once; it is safe for concurrent use.
type Dir struct {
	path string
	mu   sync.Mutex
	keys map[Kind][]Key
}

// Open reads the folder, which it makes (0700) if it is missing. It refuses a folder or file that others may read or write, a
// file that is not a whole key, and two files of one id.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("key folder: %w", err)
	}
	if err := private(path, "0700"); err != nil {
		return nil, err
	}
	d := &Dir{path: path, keys: map[Kind][]Key{}}
	files, err := filepath.Glob(filepath.Join(path, "*"+extension))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		k, err := read(f)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(d.keys[k.Kind], func(o Key) bool { return o.ID == k.ID }) {
			return nil, fmt.Errorf("%s: there is another file with %v: take one away", f, k)
		}
		d.keys[k.Kind] = append(d.keys[k.Kind], k)
	}
	for _, all := range d.keys {
		slices.SortFunc(all, func(a, b Key) int { return cmp.Compare(a.ID, b.ID) })
	}
	return d, nil
}

func private(path, mode string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s: others may read or write it: chmod %s %s", path, mode, path)
	}
	return nil
}

func read(path string) (Key, error) {
	if err := private(path, "0600"); err != nil {
		return Key{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return Key{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return Key{}, err
	}
	k, ok := parse(b)
	if !ok {
		return Key{}, fmt.Errorf("%s: it is not a whole key file: bring it back from a backup", path)
	}
	return k, nil
}

// Keys returns the keys of a kind by id.
func (d *Dir) Keys(kind Kind) []Key {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.keys[kind])
}

// Create makes a key of 256 random bits. When it returns, the key is on disk; before, it must not be used. It never
// overwrites: an id that is taken, also by another process meanwhile, is an error (fs.ErrExist).
func (d *Dir) Create(kind Kind, id uint16, random io.Reader, now time.Time) (Key, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := Key{Kind: kind, ID: id, Created: now.UTC().Truncate(time.Second)}
	if _, err := io.ReadFull(random, k.Secret[:]); err != nil {
		return Key{}, err
	}
	if err := write(d.path, k); err != nil {
		return Key{}, err
	}
	d.keys[kind] = append(d.keys[kind], k)
	slices.SortFunc(d.keys[kind], func(a, b Key) int { return cmp.Compare(a.ID, b.ID) })
	return k, nil
}

// write makes the file of a key whole or not at all: written under another name, flushed, linked to its own, the folder
// flushed. Link fails where the name is taken.
func write(folder string, k Key) (err error) {
	temp, err := os.CreateTemp(folder, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.WriteString(k.text())
	err = errors.Join(err, temp.Chmod(0o600), temp.Sync(), temp.Close())
	if err != nil {
		return err
	}
	name := filepath.Join(folder, fmt.Sprintf("%s-%d%s", k.Kind, k.ID, extension))
	if err := os.Link(temp.Name(), name); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already and is never overwritten: %w", name, fs.ErrExist)
	} else if err != nil {
		return err
	}
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// CopyTo copies all keys durably into a folder that it makes, and reads them back.
func (d *Dir) CopyTo(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	for _, all := range d.keys {
		for _, k := range all {
			if err := write(path, k); err != nil {
				return err
			}
		}
	}
	copied, err := Open(path)
	if err != nil {
		return err
	}
	for kind, all := range d.keys {
		if !slices.Equal(copied.keys[kind], all) {
			return fmt.Errorf("%s: the keys read back are not those written", path)
		}
	}
	return nil
}
