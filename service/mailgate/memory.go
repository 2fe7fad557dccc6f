package mailgate

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// remembered is how long accepted recipients are: as long as mail programs try again (RFC 5321 section 4.5.4.1).
const remembered = 5 * 24 * time.Hour

// mark stands for one recipient of one message under one credential.
type mark [16]byte

func markOf(credential uint32, digest [32]byte, recipient string) mark {
	h := sha256.New()
	fmt.Fprintf(h, "optout gate %d\n%x\n%s", credential, digest, recipient)
	return mark(h.Sum(nil)[:16])
}

// memory knows which recipients have a message already whose other recipients do not, so that its caller's next try sends only
// the rest; and which are being sent it at this moment. What must outlast the process is in a file.
type memory struct {
	mu    sync.Mutex
	marks map[mark]note
	file  *os.File
	size  int64 // of the file's whole records
	swept time.Time
	now   func() time.Time
}

// note is what is known of a mark: until when it is accepted, in unix seconds; 0 while it is being sent.
type note struct {
	until  int64
	onDisk bool
}

const recordSize = len(mark{}) + 8

// openMemory opens the memory in a folder, which it makes. What has expired is dropped from the file.
func openMemory(folder string, now func() time.Time) (*memory, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	m := &memory{marks: map[mark]note{}, now: now}
	path := filepath.Join(folder, "accepted")
	if err := m.load(path); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	fresh, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriter(fresh)
	for k, n := range m.marks {
		w.Write(record(k, n.until))
	}
	err = errors.Join(w.Flush(), fresh.Sync())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncFolder(folder)
	}
	if err != nil {
		fresh.Close()
		return nil, err
	}
	m.file, m.size, m.swept = fresh, int64(len(m.marks)*recordSize), now()
	return m, nil
}

func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func record(k mark, until int64) []byte { return binary.BigEndian.AppendUint64(k[:], uint64(until)) }

// load reads the file. A last record that is not whole was not acknowledged.
func (m *memory) load(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	var rec [recordSize]byte
	for {
		if _, err := io.ReadFull(r, rec[:]); err != nil {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return nil
			}
			return err
		}
		k, until := mark(rec[:16]), int64(binary.BigEndian.Uint64(rec[16:]))
		if until > m.now().Unix() {
			m.marks[k] = note{until, true}
		} else {
			delete(m.marks, k)
		}
	}
}

// claim begins to send to a recipient. It tells whether they have the message already, or are being sent it by another session.
func (m *memory) claim(k mark) (accepted, busy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, known := m.marks[k]
	switch {
	case known && n.until == 0:
		return false, true
	case known && n.until > m.now().Unix():
		return true, false
	}
	m.marks[k] = note{}
	return false, false
}

// release ends a claim whose recipient did not get the message.
func (m *memory) release(k mark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n, ok := m.marks[k]; ok && n.until == 0 {
		delete(m.marks, k)
	}
}

// accept ends a claim whose recipient got the message.
func (m *memory) accept(k mark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.marks[k] = note{until: now.Add(remembered).Unix()}
	if now.Sub(m.swept) > time.Hour {
		m.swept = now
		for k, n := range m.marks {
			if n.until != 0 && n.until <= now.Unix() {
				delete(m.marks, k)
			}
		}
	}
}

// keep makes what was accepted outlast the process.
func (m *memory) keep(marks []mark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b []byte
	for _, k := range marks {
		if n, ok := m.marks[k]; ok && n.until != 0 && !n.onDisk {
			b = append(b, record(k, n.until)...)
			m.marks[k] = note{n.until, true}
		}
	}
	return m.append(b)
}

// forget drops marks: the caller knows that everybody has the message, and will not try again.
func (m *memory) forget(marks []mark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b []byte
	for _, k := range marks {
		if m.marks[k].onDisk {
			b = append(b, record(k, 0)...)
		}
		delete(m.marks, k)
	}
	return m.append(b)
}

func (m *memory) append(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if _, err := m.file.WriteAt(b, m.size); err != nil {
		return err // the next write goes over what is not whole
	}
	m.size += int64(len(b))
	return m.file.Sync()
}

func (m *memory) close() error { return m.file.Close() }
