package mailbox

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"
)

// Split reads an mbox: messages, each begun by a line "From " (RFC 4155) after a blank line. Bodies quote such lines: as ">From "
// (mboxo), or with one ">" more than they had (mboxrd), which is taken off.
func Split(in *bufio.Reader, name string) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		s := &splitter{in: in, blank: true, start: true}
		any := false
		for {
			for { // what is left of the message before, or stands before the first
				if _, err := s.next(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					yield(Message{}, err)
					return
				}
			}
			if !s.begun {
				if !any {
					yield(Message{}, ErrNothing)
				}
				return
			}
			any, s.begun = true, false
			if !yield(Message{Where: name + ":" + strconv.Itoa(s.line), Since: s.since, Text: s}, nil) {
				return
			}
		}
	}
}

// splitter reads one message of an mbox after the other.
type splitter struct {
	in *bufio.Reader
	// line is the number of the line last read, of which start tells whether the next octets begin another.
	line  int
	start bool
	// blank: the line before was blank. held is such a line whose turn it is when another of the message follows.
	blank bool
	held  []byte
	// begun: a line "From " was read, and since is its time; the next message follows.
	begun bool
	since time.Time
	// rest are octets that were read and have not been given out, last those not yet read of what next gave.
	rest, last []byte
}

var (
	fromWord = []byte("From ")
	newline  = []byte("\n")
	returned = []byte("\r\n")
)

// Read reads of the message.
func (s *splitter) Read(p []byte) (int, error) {
	for len(s.last) == 0 {
		var err error
		if s.last, err = s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.last)
	s.last = s.last[n:]
	return n, nil
}

// next is the next piece of the message, at most a line, valid until the call after; io.EOF at its end.
func (s *splitter) next() ([]byte, error) {
	s.last = nil
	if rest := s.rest; rest != nil {
		s.rest = nil
		return rest, nil
	}
	for !s.begun {
		b, err := s.in.ReadSlice('\n')
		if len(b) == 0 && err != nil {
			return nil, err
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		begins := s.start
		s.start = !errors.Is(err, bufio.ErrBufferFull)
		if !begins {
			return b, nil
		}
		s.line++
		if s.blank && bytes.HasPrefix(b, fromWord) {
			if t, ok := fromLine(b); ok {
				s.begun, s.since, s.held = true, t, nil
				break
			}
		}
		held := s.held
		s.held = nil
		if s.blank = bytes.Equal(b, newline) || bytes.Equal(b, returned); s.blank {
			s.held = newline
			if len(b) > 1 {
				s.held = returned
			}
			if held == nil {
				continue
			}
			return held, nil
		}
		if bytes.HasPrefix(bytes.TrimLeft(b, ">"), fromWord) && b[0] == '>' {
			b = b[1:]
		}
		if held != nil {
			s.rest = b
			return held, nil
		}
		return b, nil
	}
	return nil, io.EOF
}

// fromLine reads the line that begins a message of an mbox: "From ", who sent it, and when, in the form of asctime; a zone may
// stand before or after the year. Without one the time is UTC (RFC 4155).
func fromLine(line []byte) (time.Time, bool) {
	words := strings.Fields(string(line[:min(len(line), 1000)]))
	for i := 1; i+4 < len(words) && i < 12; i++ { // a sender may hold spaces, in quotes
		when := strings.Join(words[i:], " ")
		for _, layout := range []string{"Mon Jan 2 15:04:05 2006", "Mon Jan 2 15:04:05 -0700 2006", "Mon Jan 2 15:04:05 2006 -0700", "Mon Jan 2 15:04:05 MST 2006",
			"Mon Jan 2 15:04 2006", "Mon, 2 Jan 2006 15:04:05 -0700"} {
			if t, err := time.Parse(layout, when); err == nil {
				return t, true
			}
		}
	}
	return time.Time{}, false
}
