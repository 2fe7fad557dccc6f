package outgoing

import (
	"bytes"
	"strings"
)

// Header is a message's header, field by field, each kept octet for octet as it came.
type Header struct{ fields []field }

type field struct {
	name string
	raw  string // the whole field with its line ends
}

// Limits of a header.
const (
	MaxHeader = 256 << 10
	maxFields = 2000
	maxLine   = 998 // RFC 5322 section 2.1.1
)

var (
	errHeader     = Fault(550, [3]int{5, 6, 0}, "a line of the message's header is no field (RFC 5322 section 2.2): mend the program that writes it")
	errHeaderSize = Fault(552, [3]int{5, 3, 4}, "the message's header is larger than 256 KiB or has more than 2000 fields")
	errLongLine   = Fault(550, [3]int{5, 6, 0}, "a line of the message's header is longer than 998 octets (RFC 5322 section 2.1.1)")
)

// ParseHeader takes the header off the beginning of a message, of which MaxHeader octets or all of it are needed. size is where the body begins. Lines must end in CRLF; the
// header may end with the message, without an empty line.
func ParseHeader(text []byte) (h *Header, size int, r *Refusal) {
	h = &Header{}
	begin := 0 // of the last field, which may go on
	end := func() {
		if n := len(h.fields); n > 0 {
			h.fields[n-1].raw = string(text[begin:size])
		}
	}
	for size < len(text) {
		i := bytes.Index(text[size:], []byte("\r\n"))
		if i < 0 && len(text) >= MaxHeader {
			return nil, 0, errHeaderSize
		}
		if i < 0 {
			return nil, 0, errHeader
		}
		line := text[size : size+i]
		switch {
		case size+i+2 > MaxHeader:
			return nil, 0, errHeaderSize
		case i == 0:
			end()
			return h, size + 2, nil
		case i > maxLine:
			return nil, 0, errLongLine
		}
		if line[0] == ' ' || line[0] == '\t' {
			if len(h.fields) == 0 {
				return nil, 0, errHeader
			}
			size += i + 2
			continue
		}
		name, _, ok := bytes.Cut(line, []byte(":"))
		name = bytes.TrimRight(name, " \t") // RFC 5322 section 4.5: obsolete, but read
		if !ok || len(name) == 0 || bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, 0, errHeader
		}
		if len(h.fields) == maxFields {
			return nil, 0, errHeaderSize
		}
		end()
		h.fields = append(h.fields, field{name: string(name)})
		begin = size
		size += i + 2
	}
	end()
	return h, size, nil
}

// Values returns the unfolded bodies of the fields of a name, in order.
func (h *Header) Values(name string) []string {
	var all []string
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			_, body, _ := strings.Cut(f.raw, ":")
			all = append(all, strings.TrimSpace(strings.ReplaceAll(body, "\r\n", "")))
		}
	}
	return all
}

// Value returns the body of the first field of a name, or "".
func (h *Header) Value(name string) string {
	if v := h.Values(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Names returns the fields' names, in order.
func (h *Header) Names() []string {
	names := make([]string, len(h.fields))
	for i, f := range h.fields {
		names[i] = f.name
	}
	return names
}

// without returns the header without the fields that drop names.
func (h *Header) without(drop func(name string) bool) *Header {
	kept := &Header{fields: make([]field, 0, len(h.fields)+8)}
	for _, f := range h.fields {
		if !drop(f.name) {
			kept.fields = append(kept.fields, f)
		}
	}
	return kept
}

// prepend puts fields in front.
func (h *Header) prepend(fields ...field) {
	h.fields = append(append(make([]field, 0, len(fields)+len(h.fields)), fields...), h.fields...)
}

// AppendTo appends the header's octets and the empty line that ends it.
func (h *Header) AppendTo(b []byte) []byte {
	for _, f := range h.fields {
		b = append(b, f.raw...)
	}
	return append(b, "\r\n"...)
}
