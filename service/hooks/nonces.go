package hooks

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"optout/service/provider"
)

// nonces remembers which body each signed token came with, on disk before the request is acted on, so that neither a crash nor a
// restart lets a token be used for another.
type nonces struct {
	mu    sync.Mutex
	file  *os.File
	path  string
	known map[[16]byte]nonce
	lines int
	fault error // a write failed: what the file holds is not known
}

type nonce struct {
	body [16]byte
	ends int64 // unix seconds
}

// maxNonces bounds memory. Only genuine requests get here.
const maxNonces = 2 << 20

// openNonces reads the file and writes it anew without what has ended.
func openNonces(path string, now time.Time) (*nonces, error) {
	n := &nonces{path: path, known: map[[16]byte]nonce{}}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return n, nil // the file is made when it is needed
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := n.read(f, now); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w: delete it, and each token that it held can come with another body once, until it is too old (9 hours)", path, err)
	}
	return n, n.rewrite(now)
}

// read takes the lines of a file: end, token digest, body digest. A line that a crash has cut was never acted on.
func (n *nonces) read(f *os.File, now time.Time) error {
	s := bufio.NewScanner(f)
	for s.Scan() {
		n.lines++
		parts := strings.Fields(s.Text())
		if len(parts) != 3 {
			continue
		}
		ends, err := strconv.ParseInt(parts[0], 10, 64)
		token, err1 := hex.DecodeString(parts[1])
		body, err2 := hex.DecodeString(parts[2])
		if err == nil && err1 == nil && err2 == nil && len(token) == 16 && len(body) == 16 && ends > now.Unix() {
			n.known[[16]byte(token)] = nonce{[16]byte(body), ends}
		}
	}
	return s.Err()
}

// take uses a token for a body: again for the same, never for another. Errors: ErrForged, ErrLater.
func (n *nonces) take(token string, body []byte, ends, now time.Time) error {
	t, b := sha256.Sum256([]byte(token)), sha256.Sum256(body)
	key, want := [16]byte(t[:16]), nonce{[16]byte(b[:16]), ends.Unix()}
	n.mu.Lock()
	defer n.mu.Unlock()
	if had, ok := n.known[key]; ok {
		if had.body != want.body {
			return fmt.Errorf("%w: its token came before with another body", provider.ErrForged)
		}
		return nil
	}
	if n.fault != nil || n.file == nil || n.lines > 2*len(n.known)+4096 || len(n.known) >= maxNonces {
		if n.fault = n.rewrite(now); n.fault != nil || len(n.known) >= maxNonces {
			return fmt.Errorf("%w: the token cannot be remembered", provider.ErrLater)
		}
	}
	_, err := fmt.Fprintf(n.file, "%d %x %x\n", want.ends, key, want.body)
	if err == nil {
		err = n.file.Sync()
	}
	if err != nil {
		n.fault = err
		return fmt.Errorf("%w: the token cannot be remembered", provider.ErrLater)
	}
	n.known[key] = want
	n.lines++
	return nil
}

// rewrite writes what still counts into a new file, and goes on with that.
func (n *nonces) rewrite(now time.Time) error {
	for k, v := range n.known {
		if v.ends <= now.Unix() {
			delete(n.known, k)
		}
	}
	var b strings.Builder
	for k, v := range n.known {
		fmt.Fprintf(&b, "%d %x %x\n", v.ends, k, v.body)
	}
	if err := replaceFile(n.path, []byte(b.String())); err != nil {
		return err
	}
	f, err := os.OpenFile(n.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if n.file != nil {
		n.file.Close()
	}
	n.file, n.lines = f, len(n.known)
	return nil
}

func (n *nonces) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		return nil
	}
	err := n.file.Close()
	n.file = nil
	return err
}

// replaceFile puts content in the place of a file: all of it, or the old one stays. It is durable when this returns.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content) // CreateTemp makes it 0600
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
