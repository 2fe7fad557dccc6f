package probe

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxMessage is the largest message that is looked at.
const maxMessage = 10 << 20

// Find looks for the message with an id in a mailbox: a Maildir, an mbox, or a file that is the message. It returns nil when
// it is not there yet.
func Find(path, id string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a mailbox may be made with its first message
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return inFile(path, id)
	}
	for _, folder := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(path, folder))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			m, err := inFile(filepath.Join(path, folder, e.Name()), id)
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // a mail program may have moved it meanwhile
				return nil, err
			}
			if m != nil {
				return m, nil
			}
		}
	}
	return nil, nil
}

// inFile looks through a file's newest octets.
func inFile(path, id string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		_, err = f.Seek(max(0, end-maxMessage), io.SeekStart)
		if err != nil {
			return nil, err
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxMessage))
	if err != nil {
		return nil, err
	}
	return In(text, id), nil
}

// In finds the message with an id among those of an mbox, or in a text that is one message; nil when it is not there.
func In(text []byte, id string) []byte {
	at := bytes.Index(text, []byte(id))
	if at < 0 {
		return nil
	}
	if i := bytes.LastIndex(text[:at], []byte("\nFrom ")); i >= 0 {
		text = text[i+1:]
	}
	if !bytes.HasPrefix(text, []byte("From ")) {
		return text
	}
	_, text, _ = bytes.Cut(text, []byte("\n")) // the mbox's own line
	if i := bytes.Index(text, []byte("\nFrom ")); i >= 0 {
		text = text[:i+1]
	}
	return text
}
