// Package anchor keeps the ledger's newest tree head in a file beside the database, so that a shortened or silently
// rolled-back database is noticed at the next start. It touches nothing but that file.
package anchor

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"optout/service/ledger"
)

// File is an anchor in a file, in the C2SP tlog-checkpoint form without signatures: an origin line that names the ledger, the
// size of the tree, and its root in base64. It implements [ledger.Anchor].
type File struct{ path string }

// At returns the anchor in the file of that path, which need not exist yet.
func At(path string) *File { return &File{path} }

const origin = "optout/"

// Text writes a head in the form of the file.
func Text(ledgerID string, h ledger.Head) string {
	return fmt.Sprintf("%s%s\n%d\n%s\n", origin, ledgerID, h.Size, base64.StdEncoding.EncodeToString(h.Root[:]))
}

// Load reads the head saved last. Errors: ledger.ErrNotFound when there is no file; others when it cannot be read.
func (f *File) Load() (string, ledger.Head, error) {
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", ledger.Head{}, ledger.ErrNotFound
	}
	if err != nil {
		return "", ledger.Head{}, err
	}
	id, h, ok := parse(string(b))
	if !ok {
		return "", ledger.Head{}, fmt.Errorf("%s is not a checkpoint: restore it from where it was copied to; remove it only when you are sure that the ledger is whole", f.path)
	}
	return id, h, nil
}

func parse(s string) (id string, h ledger.Head, ok bool) {
	lines := strings.Split(s, "\n")
	if len(lines) != 4 || lines[3] != "" || !strings.HasPrefix(lines[0], origin) {
		return "", h, false
	}
	id = strings.TrimPrefix(lines[0], origin)
	size, err := strconv.ParseUint(lines[1], 10, 64)
	root, err2 := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || err2 != nil || len(root) != len(h.Root) {
		return "", h, false
	}
	h.Size = size
	copy(h.Root[:], root)
	return id, h, Text(id, h) == s
}

// Save replaces the file: written beside it, flushed, renamed, and the folder flushed.
func (f *File) Save(ledgerID string, h ledger.Head) error {
	temp := f.path + ".new"
	w, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = w.WriteString(Text(ledgerID, h))
	if err == nil {
		err = w.Sync()
	}
	if e := w.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp, f.path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
