package mailgate

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"

	"github.com/emersion/go-smtp"

	"optout/service/outgoing"
)

// maxInMemory is how much of a message is held in memory; the rest of a larger one is in a file that has no name any more.
const maxInMemory = outgoing.MaxHeader

// maxTextLine is the longest line of a message (RFC 5321 section 4.5.3.1.6). Servers fold longer ones, which breaks signatures.
const maxTextLine = 998

var (
	errOctets   = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "the message holds a bare CR, a bare LF or a NUL (RFC 5321 section 2.3.8): end lines with CR LF"}
	errTextLine = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "a line of the message is longer than 998 octets (RFC 5321 section 4.5.3.1.6): encode the text as quoted-printable or base64"}
	errNoRoom   = &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 3, 1}, Message: "there is no room for the message now: try again later"}
	errCut      = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 4, 2}, Message: "the message did not arrive whole"}
)

// message is a message as it came, held until the upstream has answered.
type message struct {
	head   []byte // its first octets
	file   *os.File
	size   int64
	digest [32]byte
	// eightBit is whether any octet is above 127.
	eightBit bool
}

// receive reads a whole message, and refuses octets that could be read in two ways.
func receive(r io.Reader, folder string) (*message, error) {
	m := &message{}
	if err := m.read(r, folder); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *message) read(r io.Reader, folder string) error {
	hash := sha256.New()
	buf := make([]byte, 32<<10)
	var look scanner
	for {
		n, err := r.Read(buf)
		b := buf[:n]
		hash.Write(b)
		look.scan(b)
		if look.bad {
			return errOctets
		}
		if look.long {
			return errTextLine
		}
		if err := m.keep(b, folder); err != nil {
			return err
		}
		switch {
		case err == io.EOF:
			if look.last == '\r' {
				return errOctets
			}
			m.eightBit = look.eightBit
			hash.Sum(m.digest[:0])
			return nil
		case err == smtp.ErrDataTooLarge:
			return err
		case err != nil:
			return errCut
		}
	}
}

func (m *message) keep(b []byte, folder string) error {
	m.size += int64(len(b))
	if room := maxInMemory - len(m.head); room > 0 {
		n := min(room, len(b))
		m.head, b = append(m.head, b[:n]...), b[n:]
	}
	if len(b) == 0 {
		return nil
	}
	var err error
	if m.file == nil {
		if m.file, err = os.CreateTemp(folder, "spool-"); err == nil {
			err = os.Remove(m.file.Name()) // nobody else reads it, and it ends with the process
		}
	}
	if err == nil {
		_, err = m.file.Write(b)
	}
	if err != nil {
		return errNoRoom
	}
	return nil
}

// body reads the message from an offset within its first octets. Each reader is independent.
func (m *message) body(from int) io.Reader {
	head := bytes.NewReader(m.head[from:])
	if m.file == nil {
		return head
	}
	return io.MultiReader(head, io.NewSectionReader(m.file, 0, m.size-int64(len(m.head))))
}

func (m *message) close() {
	if m.file != nil {
		m.file.Close()
		m.file = nil
	}
}

// scanner looks for octets that mail must not hold, over the bounds of reads.
type scanner struct {
	last                byte
	line                int
	bad, long, eightBit bool
}

func (s *scanner) scan(b []byte) {
	for _, c := range b {
		switch {
		case c == 0, (c == '\n') != (s.last == '\r'):
			s.bad = true
			return
		case c == '\n':
			s.line = 0
		case c != '\r':
			if s.line++; s.line > maxTextLine {
				s.long = true
			}
			s.eightBit = s.eightBit || c >= 0x80
		}
		s.last = c
	}
}
