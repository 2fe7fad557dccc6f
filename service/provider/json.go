package provider

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxDepth is how deep JSON may nest. encoding/json stops only at 10 000.
const maxDepth = 32

// decode reads one JSON value that fills the whole of b, and refuses what nests too deep.
func decode(b []byte, v any) error {
	if !shallow(b) {
		return ErrMalformed
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(v); err != nil {
		return ErrMalformed // the decoder's own words may quote the request
	}
	if _, err := d.Token(); err != io.EOF {
		return ErrMalformed
	}
	return nil
}

func shallow(b []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return false
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return true
}

// loose is a JSON text or number, as a text. Providers write the same field now as the one, now as the other. It is empty for null
// and for every other type.
type loose string

// UnmarshalJSON reads it.
func (l *loose) UnmarshalJSON(b []byte) error {
	*l = ""
	switch {
	case len(b) > 0 && b[0] == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*l = loose(s)
	case len(b) > 0 && (b[0] == '-' || b[0] >= '0' && b[0] <= '9'):
		*l = loose(b)
	}
	return nil
}

// seconds reads seconds since 1970, whole or with a fraction; the zero time when it is none.
func seconds(s string) time.Time {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f > 0 && f < 1e11) {
		return time.Time{}
	}
	return time.UnixMilli(int64(f * 1000)).UTC()
}

// moment reads RFC 3339 or RFC 1123 times; the zero time when it is none.
func moment(s string) time.Time {
	for _, layout := range []string{time.RFC3339Nano, time.RFC1123, time.RFC1123Z, "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil && t.Year() > 1970 && t.Year() < 5000 {
			return t.UTC()
		}
	}
	return time.Time{}
}

// Limits of what is taken over from an event.
const (
	maxID    = 256
	maxWords = 1000
)

// text makes a provider's text fit for the record: valid UTF-8, no control characters, at most limit octets.
func text(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return strings.TrimSpace(s)
}

// mailbox is the address alone of what a provider writes for one. Some repeat a recipient as the mail had it, with a name before it
// or a comment behind (RFC 5322 section 3.4), as SES does now and then in spite of its documentation.
func mailbox(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.LastIndexByte(s, '<'); i >= 0 && strings.HasSuffix(s, ">") {
		return strings.TrimSpace(s[i+1 : len(s)-1])
	}
	if i := strings.IndexByte(s, '('); i > 0 && strings.HasSuffix(s, ")") {
		return strings.TrimSpace(s[:i])
	}
	return s
}

// usable tells whether id and address can be an event's. An id is kept as evidence, which takes no control characters.
func usable(id, address string) bool {
	return id != "" && len(id) <= maxID && utf8.ValidString(id) && !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f }) &&
		address != "" && len(address) <= 320
}
