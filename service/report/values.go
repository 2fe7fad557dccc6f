package report

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// typedAddress reads "rfc822; ann@example.com" (RFC 3464 section 2.1.2), also of type utf-8 with its escapes (RFC 6533 section 3).
func typedAddress(v string) string {
	kind, addr, ok := strings.Cut(v, ";")
	if !ok {
		return bareAddress(v)
	}
	addr = strings.TrimSpace(addr)
	if strings.EqualFold(strings.TrimSpace(kind), "utf-8") {
		addr = unescape(addr)
	}
	return bareAddress(addr)
}

var escape = regexp.MustCompile(`\\x\{([0-9A-Fa-f]{2,6})\}`)

// unescape undoes utf-8-addr-xtext (RFC 6533 section 3): \x{HEX} for characters.
func unescape(s string) string {
	return escape.ReplaceAllStringFunc(s, func(m string) string {
		n, err := strconv.ParseUint(m[3:len(m)-1], 16, 32)
		if err != nil || n > unicode.MaxRune || !unicode.IsPrint(rune(n)) {
			return m
		}
		return string(rune(n))
	})
}

// bareAddress takes an address out of brackets, comments and words around it; "" when there is none.
func bareAddress(v string) string {
	v = strings.TrimSpace(v)
	if i, j := strings.LastIndexByte(v, '<'), strings.LastIndexByte(v, '>'); i >= 0 && j > i {
		v = v[i+1 : j]
	}
	v, _, _ = strings.Cut(v, " (")
	v = strings.TrimSpace(v)
	at := strings.LastIndexByte(v, '@')
	if at < 1 || at == len(v)-1 || len(v) > 320 || !utf8.ValidString(v) || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return ""
	}
	return v
}

// word is the first word of a field, without comments.
func word(v string) string {
	v, _, _ = strings.Cut(v, "(")
	f := strings.Fields(v)
	if len(f) == 0 {
		return ""
	}
	return strings.TrimRight(f[0], ";")
}

var statusForm = regexp.MustCompile(`^[245]\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})$`)

// status reads a status code (RFC 3464 section 2.3.4), which a comment may follow; "" when it is none.
func status(v string) string {
	if s := word(v); statusForm.MatchString(s) {
		return s
	}
	return ""
}

// action reads what was done (RFC 3464 section 2.3.3), also in the words of servers that do not know the standard's.
func action(v string) string {
	a := strings.ToLower(word(v))
	switch a {
	case "failure", "error", "undeliverable", "bounced", "fail":
		return "failed"
	case "delay":
		return "delayed"
	}
	return a
}

// oneLine makes a text of a server's one line of at most 500 octets.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "")), " ")
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "")
	}
	return s
}
