// Package mailbox walks over mail that lies in files: an mbox, a Maildir, a single message, each perhaps compressed. It gives one
// message after the other as a stream, so that it needs as little memory for a million of them as for one, and takes whatever
// octets come. What a message says is not its business.
package mailbox

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Format is how messages are kept.
type Format string

// Formats.
const (
	// Auto finds the format by the first octets.
	Auto    Format = "auto"
	Mbox    Format = "mbox"
	Maildir Format = "maildir"
	// EML is a single message.
	EML Format = "eml"
)

// Formats are all of them.
func Formats() []Format { return []Format{Auto, Mbox, Maildir, EML} }

// Message is one message.
type Message struct {
	// Where it was found: file and line, or file.
	Where string
	// Since is when it came, as the line says that begins it in an mbox; zero elsewhere.
	Since time.Time
	// Text is the message, with the line ends that the file has; in an mbox without what it adds: the line "From ", the quoting of
	// such lines, the blank line at the end. It is valid until the next message is asked for, and need not be read to its end.
	Text io.Reader
}

// ErrNothing: what was read holds no message of its format.
var ErrNothing = errors.New("it holds no mail: is it an mbox, a Maildir or a message?")

// Path reads a file or a Maildir; progress, if not nil, takes the number of octets that were read since it was called last. After
// an error, which is yielded alone, it ends.
func Path(path string, format Format, progress func(octets int)) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			yield(Message{}, err)
		case info.IsDir() && (format == Auto || format == Maildir):
			Folder(path, progress)(yield)
		case info.IsDir():
			yield(Message{}, fmt.Errorf("%s is a folder, which %s is not", path, format))
		case format == Maildir:
			yield(Message{}, fmt.Errorf("%s is a file, which a Maildir is not", path))
		default:
			f, err := os.Open(path)
			if err != nil {
				yield(Message{}, err)
				return
			}
			defer f.Close()
			Read(f, filepath.Base(path), format, progress)(yield)
		}
	}
}

// Read reads a stream, which may be compressed with gzip; name says in Message.Where what it is. After an error, which is yielded
// alone, it ends. An empty stream has no messages; one with octets but without a message is ErrNothing.
func Read(r io.Reader, name string, format Format, progress func(octets int)) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		in, head, err := Open(r, progress)
		if err != nil {
			yield(Message{}, err)
			return
		}
		if len(head) == 0 {
			return
		}
		if format == Auto {
			format = Detect(head)
		}
		switch format {
		case Mbox:
			Split(in, name)(yield)
		case EML:
			yield(Message{Where: name, Text: in}, nil)
		default:
			yield(Message{}, ErrNothing)
		}
	}
}

// bufferSize is how much is read at once, and how much of a line is looked at.
const bufferSize = 64 << 10

// peekSize is how much Open looks at.
const peekSize = 4096

// Open begins to read a stream, decompressed. head is its beginning, which is not taken from it; it is empty when there is nothing
// but white space.
func Open(r io.Reader, progress func(octets int)) (in *bufio.Reader, head []byte, err error) {
	in = bufio.NewReaderSize(&meter{r, progress}, bufferSize)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, err
		}
		in = bufio.NewReaderSize(z, bufferSize)
	}
	head, err = in.Peek(peekSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	if len(bytes.TrimSpace(head)) == 0 && len(head) < peekSize {
		return in, nil, nil
	}
	return in, head, nil
}

var fieldLine = regexp.MustCompile(`^[!-9;-~]+[ \t]*:`)

// Detect tells the format by the first line that is not blank; Auto when it cannot.
func Detect(head []byte) Format {
	line, _, _ := strings.Cut(strings.TrimLeft(string(head), "\r\n"), "\n")
	switch {
	case strings.HasPrefix(line, "From "):
		return Mbox
	case fieldLine.MatchString(line):
		return EML
	}
	return Auto
}

// Folder reads the messages of a Maildir's folders cur and new.
func Folder(path string, progress func(octets int)) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		folders := 0
		for _, sub := range []string{"cur", "new"} {
			d, err := os.Open(filepath.Join(path, sub))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				yield(Message{}, err)
				return
			}
			folders++
			more := letters(d, filepath.Join(path, sub), progress, yield)
			d.Close()
			if !more {
				return
			}
		}
		if folders == 0 {
			yield(Message{}, fmt.Errorf("%s is no Maildir: it has neither cur nor new", path))
		}
	}
}

// letters reads the files of one folder, some names at a time, and reports whether to go on.
func letters(d *os.File, path string, progress func(int), yield func(Message, error) bool) bool {
	for {
		names, err := d.Readdirnames(1000)
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			yield(Message{}, err)
			return false
		}
		for _, name := range names {
			if strings.HasPrefix(name, ".") {
				continue
			}
			f, err := os.Open(filepath.Join(path, name))
			if errors.Is(err, os.ErrNotExist) {
				continue // read, moved or deleted by somebody meanwhile
			}
			if err != nil {
				yield(Message{}, err)
				return false
			}
			more := letter(f, name, progress, yield)
			f.Close()
			if !more {
				return false
			}
		}
	}
}

// letter reads one file of a Maildir, which Dovecot may have compressed (its plugin mail_compress), and reports whether to go on.
func letter(f *os.File, name string, progress func(int), yield func(Message, error) bool) bool {
	in, _, err := Open(f, progress)
	if err != nil {
		yield(Message{}, fmt.Errorf("%s: %w", name, err))
		return false
	}
	return yield(Message{Where: name, Text: in}, nil)
}

// meter tells how many octets are read.
type meter struct {
	r    io.Reader
	tell func(int)
}

// Read reads, and tells how much.
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.tell != nil {
		m.tell(n)
	}
	return n, err
}
