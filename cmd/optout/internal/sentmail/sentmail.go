// Package sentmail reads mail that has left, in whatever form it was kept: mbox, Maildir, single messages, Postfix's log. It
// reads headers only, never a body, holds one message at a time (of a log, the messages that are under way), and takes whatever
// octets come: what it cannot read it passes over. It knows nothing of optout but the name of the receipt's field.
package sentmail

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

// Message is one message as it left.
type Message struct {
	// Where it was found: file and line, file, or queue id.
	Where string
	// ID is its Message-ID with the brackets; "" when it has none.
	ID string
	// To are its recipients, each once, at most MaxRecipients.
	To []string
	// Shown: To are those that the header shows (To, Cc), not the envelope's.
	Shown bool
	// Joined are recipients of the same transaction besides To, who did not get it, or not then; only of a log.
	Joined []string
	// Receipt is the value of the topmost X-Optout-Receipt; "" when there is none.
	Receipt string
	// Left is when it left; zero when that cannot be read.
	Left time.Time
}

// MaxRecipients is how many recipients a Message has at the most; a log's message to more is told in parts.
const MaxRecipients = 1000

// Format is a form in which sent mail is kept.
type Format string

// Formats.
const (
	// Auto finds the format by the first octets.
	Auto    Format = "auto"
	Mbox    Format = "mbox"
	Maildir Format = "maildir"
	EML     Format = "eml"
	Postfix Format = "postfix"
)

// Formats are all of them.
func Formats() []Format { return []Format{Auto, Mbox, Maildir, EML, Postfix} }

// Options say how to read.
type Options struct {
	Format Format
	// Now and Zone complete the times of a log, which have neither year nor zone.
	Now  time.Time
	Zone *time.Location
	// Internal tells addresses whose mail is of no interest: of a header's fields of recipients those are taken that have
	// others. May be nil.
	Internal func(address string) bool
	// Progress takes the number of octets that were read since it was called last; may be nil.
	Progress func(octets int)
}

// ErrNothing: what was read holds no message of its format.
var ErrNothing = errors.New("it holds no sent mail: is it an mbox, a Maildir, a message or a log of Postfix?")

// Path reads a file or a Maildir. After an error, which is yielded alone, it ends.
func Path(path string, o Options) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			yield(Message{}, err)
		case info.IsDir() && (o.Format == Auto || o.Format == Maildir):
			maildir(path, o)(yield)
		case info.IsDir():
			yield(Message{}, fmt.Errorf("%s is a folder, which %s is not", path, o.Format))
		case o.Format == Maildir:
			yield(Message{}, fmt.Errorf("%s is a file, which a Maildir is not", path))
		default:
			f, err := os.Open(path)
			if err != nil {
				yield(Message{}, err)
				return
			}
			defer f.Close()
			Read(f, filepath.Base(path), o)(yield)
		}
	}
}

// Read reads a stream, which may be compressed with gzip; name says in Message.Where what it is. After an error, which is yielded
// alone, it ends. An empty stream has no messages; one with octets but without any is ErrNothing.
func Read(r io.Reader, name string, o Options) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		in := bufio.NewReaderSize(&meter{r, o.Progress}, maxLine)
		if head, _ := in.Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
			z, err := gzip.NewReader(in)
			if err != nil {
				yield(Message{}, err)
				return
			}
			defer z.Close()
			in = bufio.NewReaderSize(z, maxLine)
		}
		head, err := in.Peek(maxPeek)
		if err != nil && !errors.Is(err, io.EOF) {
			yield(Message{}, err)
			return
		}
		if len(bytes.TrimSpace(head)) == 0 && len(head) < maxPeek {
			return
		}
		format := o.Format
		if format == Auto {
			format = detect(head)
		}
		l := &lines{r: in}
		var found iter.Seq2[Message, error]
		switch format {
		case Mbox:
			found = mbox(l, name, o)
		case Postfix:
			found = postfix(l, o)
		case EML:
			found = message(l, name, o)
		default:
			yield(Message{}, ErrNothing)
			return
		}
		none := true
		for m, err := range found {
			none = false
			if !yield(m, err) || err != nil {
				return
			}
		}
		if none && format != Postfix { // a log says by itself whether it is one
			yield(Message{}, ErrNothing)
		}
	}
}

// maxPeek is how much is looked at to find the format.
const maxPeek = 4096

var (
	fieldLine = regexp.MustCompile(`^[!-9;-~]+[ \t]*:`)
	logTime   = regexp.MustCompile(`^(?:<\d{1,3}>)?(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)`)
)

// detect tells the format by the first line that is not blank; Auto when it cannot.
func detect(head []byte) Format {
	line, rest, _ := strings.Cut(strings.TrimLeft(string(head), "\r\n"), "\n")
	for strings.HasPrefix(line, "-- ") { // journalctl tells so when its logs begin, and when the machine did
		line, rest, _ = strings.Cut(rest, "\n")
	}
	switch {
	case strings.HasPrefix(line, "From "):
		return Mbox
	case logTime.MatchString(line):
		return Postfix
	case fieldLine.MatchString(line):
		return EML
	}
	return Auto
}

// maildir reads the messages of a Maildir's folders cur and new.
func maildir(path string, o Options) iter.Seq2[Message, error] {
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
			more := letters(d, filepath.Join(path, sub), o, yield)
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
func letters(d *os.File, path string, o Options, yield func(Message, error) bool) bool {
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
			m, err := letter(filepath.Join(path, name), name, o)
			if errors.Is(err, os.ErrNotExist) {
				continue // read, moved or deleted by somebody meanwhile
			}
			if !yield(m, err) || err != nil {
				return false
			}
		}
	}
}

func letter(path, name string, o Options) (Message, error) {
	f, err := os.Open(path)
	if err != nil {
		return Message{}, err
	}
	defer f.Close()
	for m, err := range message(&lines{r: bufio.NewReaderSize(&meter{f, o.Progress}, maxLine)}, name, o) {
		return m, err
	}
	return Message{Where: name, Shown: true}, nil // no field at all: mail that nobody can know anything of
}

// meter tells how many octets are read.
type meter struct {
	r    io.Reader
	tell func(int)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.tell != nil {
		m.tell(n)
	}
	return n, err
}

// maxLine is how much of a line is looked at, in octets. What follows is passed over.
const maxLine = 64 << 10

// lines reads lines in constant memory.
type lines struct {
	r      *bufio.Reader
	number int
	long   []byte
}

// next is the next line without its end, at most maxLine octets of it, valid until the call after; io.EOF after the last.
func (l *lines) next() ([]byte, error) {
	b, err := l.r.ReadSlice('\n')
	if len(b) == 0 && err != nil {
		return nil, err
	}
	l.number++
	if errors.Is(err, bufio.ErrBufferFull) {
		l.long = append(l.long[:0], b...)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = l.r.ReadSlice('\n')
		}
		b = l.long
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r")), nil
}
