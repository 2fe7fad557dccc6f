package mailauth

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/mail"
	"strings"

	"optout/service/address"
)

// Limits of what is read. Real headers, with all that relays, lists and filters add, are well below.
const (
	maxMessage = 32 << 20
	maxHeader  = 128 << 10
	maxFields  = 1000
	maxLines   = 4000
	maxFrom    = 4 << 10
)

var (
	errTooLarge  = errors.New("the message or its header is beyond the limits")
	errMalformed = errors.New("the header is malformed")
)

// message is one in parts.
type message struct {
	fields []field
	body   []byte
}

// field is one header field.
type field struct {
	// name is in lower case.
	name string
	// text is the whole field with its folding, each line ended by CRLF.
	text string
}

// value is the field's body, unfolded.
func (f *field) value() string {
	_, v, _ := strings.Cut(f.text, ":")
	return strings.TrimSpace(strings.ReplaceAll(v, "\r\n", ""))
}

// read takes a message apart. Two readers that see different fields in one header are how forgeries get through: one verifies
// the signature over one From while the other shows another. So a header is refused that could be read in two ways: with bare CR
// or NUL, with lines that are no fields, or with names outside of RFC 5322 section 2.2 (the DKIM library, for one,
// takes a name after a no-break space for that name).
func read(raw []byte) (*message, error) {
	if len(raw) > maxMessage {
		return nil, errTooLarge
	}
	m := &message{}
	var text strings.Builder
	end := func() {
		if text.Len() > 0 {
			m.fields[len(m.fields)-1].text = text.String()
			text.Reset()
		}
	}
	rest := raw
	for lines := 0; len(rest) > 0; lines++ {
		n := bytes.IndexByte(rest[:min(len(rest), maxHeader)], '\n')
		line := rest
		if n >= 0 {
			line, rest = rest[:n], rest[n+1:]
		} else if rest = nil; len(line) > maxHeader {
			return nil, errTooLarge
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			break
		}
		if len(raw)-len(rest) > maxHeader || lines == maxLines || len(m.fields) > maxFields {
			return nil, errTooLarge
		}
		if bytes.ContainsAny(line, "\r\x00") {
			return nil, errMalformed
		}
		if line[0] == ' ' || line[0] == '\t' {
			if len(m.fields) == 0 {
				return nil, errMalformed
			}
		} else {
			end()
			name, ok := fieldName(line)
			if !ok {
				return nil, errMalformed
			}
			m.fields = append(m.fields, field{name: name})
		}
		text.Write(line)
		text.WriteString("\r\n")
	}
	end()
	m.body = rest
	return m, nil
}

// fieldName is the name before the colon, in lower case. White space between the two is obsolete but allowed (RFC 5322 section 4.5).
func fieldName(line []byte) (string, bool) {
	name, _, ok := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return "", false
		}
	}
	return strings.ToLower(string(name)), ok && len(name) > 0
}

// count is how many fields bear a name.
func (m *message) count(name string) (n int) {
	for i := range m.fields {
		if m.fields[i].name == name {
			n++
		}
	}
	return n
}

// author is who a message says wrote it.
type author struct{ address, domain string }

// author is the one mailbox of the one From field; zero when there are more or none, as RFC 7489 section 6.6.1 demands that such
// messages are not evaluated.
func (m *message) author() author {
	if m.count("from") != 1 {
		return author{}
	}
	var value string
	for i := range m.fields {
		if m.fields[i].name == "from" {
			value = m.fields[i].value()
		}
	}
	if len(value) > maxFrom {
		return author{}
	}
	// Display names do not matter here, so those in unknown charsets need no decoding.
	p := mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil }}}
	list, err := p.ParseList(strings.ToValidUTF8(value, "?")) // names stand there unencoded too, in any charset
	if err != nil || len(list) != 1 {
		return author{}
	}
	// The library drops quotes; its String puts back those that are needed.
	spec := strings.TrimSuffix(strings.TrimPrefix((&mail.Address{Address: list[0].Address}).String(), "<"), ">")
	a, err := address.Parse(spec)
	if err != nil {
		return author{}
	}
	return author{spec, a.Domain()}
}
