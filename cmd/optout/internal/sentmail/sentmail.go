// Package sentmail reads mail that has left, in whatever form it was kept: mbox, Maildir, single messages, Postfix's log. It
// reads headers only, never a body, holds one message at a time (of a log, the messages that are under way), and takes whatever
// octets come: what it cannot read it passes over. Package mailbox finds the messages. It knows nothing of optout but the name of the
// receipt's field.
package sentmail

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"optout/cmd/optout/internal/mailbox"
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
	Auto    = Format(mailbox.Auto)
	Mbox    = Format(mailbox.Mbox)
	Maildir = Format(mailbox.Maildir)
	EML     = Format(mailbox.EML)
	Postfix = Format("postfix")
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
		if err == nil && (info.IsDir() || o.Format == Maildir) {
			headers(mailbox.Path(path, mailbox.Format(o.Format), o.Progress), true, o)(yield)
			return
		}
		f, err := os.Open(path)
		if err != nil {
			yield(Message{}, err)
			return
		}
		defer f.Close()
		Read(f, filepath.Base(path), o)(yield)
	}
}

// Read reads a stream, which may be compressed with gzip; name says in Message.Where what it is. After an error, which is yielded
// alone, it ends. An empty stream has no messages; one with octets but without any is ErrNothing.
func Read(r io.Reader, name string, o Options) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		in, head, err := mailbox.Open(r, o.Progress)
		if err != nil {
			yield(Message{}, err)
			return
		}
		if len(head) == 0 {
			return
		}
		format := o.Format
		if format == Auto {
			format = detect(head)
		}
		var found iter.Seq2[Message, error]
		switch format {
		case Postfix:
			found = postfix(&lines{r: in}, o)
		case Mbox:
			found = headers(mailbox.Split(in, name), false, o)
		case EML:
			found = headers(one(mailbox.Message{Where: name, Text: in}), false, o)
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

func one(m mailbox.Message) iter.Seq2[mailbox.Message, error] {
	return func(yield func(mailbox.Message, error) bool) { yield(m, nil) }
}

var logTime = regexp.MustCompile(`^(?:<\d{1,3}>)?(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)`)

// detect tells the format by the first line that is not blank; Auto when it cannot.
func detect(head []byte) Format {
	line, rest, _ := strings.Cut(strings.TrimLeft(string(head), "\r\n"), "\n")
	for strings.HasPrefix(line, "-- ") { // journalctl tells so when its logs begin, and when the machine did
		line, rest, _ = strings.Cut(rest, "\n")
	}
	if logTime.MatchString(line) {
		return Postfix
	}
	return Format(mailbox.Detect(head))
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
