package mailin

import (
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"

	"github.com/emersion/go-smtp"
)

const (
	// maxHeader is the largest header, in octets.
	maxHeader = 256 << 10
	// maxReceived is how many servers a message may have been through before it is taken for one that goes in a circle (RFC 5321
	// section 6.3); Postfix's limit is the same.
	maxReceived = 50
	// smallMessage is how much of a message is kept in memory without more ado; maxLarge is how many messages may be larger than
	// that at once, each up to Kept. One network may have a fifth of them.
	smallMessage = 64 << 10
	maxLarge     = 64
)

var (
	errOctets   = refuse(550, smtp.EnhancedCode{5, 6, 0}, "the message holds bare CR, bare LF or NUL (RFC 5321 section 2.3.8)")
	errHeader   = refuse(552, smtp.EnhancedCode{5, 3, 4}, "the header is larger than 256 KiB")
	errLoop     = refuse(554, smtp.EnhancedCode{5, 4, 6}, "the message has been through too many servers: it goes in a circle")
	errLine     = refuse(554, smtp.EnhancedCode{5, 6, 0}, "a line of the message is longer than 64 KiB")
	errMemory   = refuse(451, smtp.EnhancedCode{4, 3, 1}, "too many large messages at once, please try again later")
	errSlow     = refuse(421, smtp.EnhancedCode{4, 4, 2}, "the message did not come in time")
	errVanished = refuse(451, smtp.EnhancedCode{4, 4, 2}, "the message did not come to its end")
)

// read reads a whole message and keeps its beginning. It refuses octets that could be read in two ways. done gives back the memory,
// whatever is returned.
func (d *door) read(r io.Reader, from netip.Prefix) (m *Message, done func(), refused *smtp.SMTPError) {
	m, done = &Message{}, func() {}
	digest, check := sha256.New(), checker{header: true, field: true}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if refused := check.octets(buf[:n]); refused != nil {
			return nil, done, refused
		}
		digest.Write(buf[:n])
		m.Size += int64(n)
		kept := buf[:min(n, Kept-len(m.Raw))]
		if len(m.Raw) <= smallMessage && len(m.Raw)+len(kept) > smallMessage {
			if !d.hold(from) {
				return nil, done, errMemory
			}
			done = func() { d.release(from) }
			m.Raw = append(make([]byte, 0, Kept), m.Raw...)
		}
		m.Raw = append(m.Raw, kept...)
		switch {
		case err == io.EOF && check.last == '\r':
			return nil, done, errOctets
		case err == io.EOF:
			digest.Sum(m.Digest[:0])
			return m, done, nil
		case err != nil:
			return nil, done, unread(err)
		}
	}
}

// unread is what a client is told whose message could not be read. Only what will never be otherwise is refused for good.
func unread(err error) *smtp.SMTPError {
	if e := (*smtp.SMTPError)(nil); errors.As(err, &e) { // the library's: the message is too large
		return e
	}
	if errors.Is(err, smtp.ErrTooLongLine) {
		return errLine
	}
	if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
		return errSlow
	}
	return errVanished
}

// checker looks at the octets of a message as they come.
type checker struct {
	last byte
	// header: the empty line behind the header has not come yet. size is the header's, column that of the next octet in its line.
	header       bool
	size, column int
	// field: the line so far could be the beginning of a Received field, of which there were received.
	field    bool
	received int
}

const receivedField = "received:"

func (k *checker) octets(b []byte) *smtp.SMTPError {
	for _, c := range b {
		if c == 0 || (c == '\n') != (k.last == '\r') {
			return errOctets
		}
		k.last = c
		if !k.header {
			continue
		}
		if k.size++; k.size > maxHeader {
			return errHeader
		}
		if c == '\n' {
			k.header = k.column > 1 // the line was more than its CR
			k.column, k.field = 0, true
			continue
		}
		if k.field && k.column < len(receivedField) {
			lower := c
			if 'A' <= c && c <= 'Z' {
				lower += 'a' - 'A'
			}
			k.field = lower == receivedField[k.column]
			if k.field && k.column == len(receivedField)-1 {
				k.received++
			}
		}
		if k.column++; k.received > maxReceived {
			return errLoop
		}
	}
	return nil
}
