package link

import "slices"

// FindTokens finds the texts that have the form of a token where one of ours stands: behind "/x/" as in a link, or behind "x-"
// as in an address, x being any letter. Each is given once, in lower case, in the order of the text; at most limit of them.
//
// They prove nothing until Open has opened them.
//
// Mail breaks long lines, so a token is read across folded header lines (RFC 5322 section 2.2.3), the soft line breaks of
// quoted-printable (RFC 2045 section 6.7), plain line ends and the marks of a quotation ("> "). The time it takes grows with
// the length of the text and with nothing else.
func FindTokens(text []byte, limit int) []string {
	var found []string
	var before, last byte           // the two characters in front of text[i], line breaks left out
	var breakBeforeLast, broke bool // a line break lies in front of last, and behind it
	for i := 0; i < len(text) && len(found) < limit; {
		if n := lineBreak(text[i:]); n > 0 {
			broke, i = true, i+n
			continue
		}
		c := text[i]
		i++
		if isLetter(last) && (c == '/' && before == '/' || c == '-' && (breakBeforeLast || !isWord(before))) {
			if token := tokenAt(text[i:]); token != "" && !slices.Contains(found, token) {
				found = append(found, token)
			}
		}
		before, last, breakBeforeLast, broke = last, c, broke, false
	}
	return found
}

// tokenAt reads the token that the text begins with; "" when there is none. It never reads past a character that no token has,
// and what leads to a token ends in such a one: so no octet is read for two tokens.
func tokenAt(text []byte) string {
	var token [Length]byte
	have, i := 0, 0
	for i < len(text) && have < Length {
		if n := lineBreak(text[i:]); n > 0 {
			i += n
			continue
		}
		c := text[i] | 0x20
		if !isLetter(c) && (text[i] < '2' || text[i] > '7') {
			return ""
		}
		token[have] = c
		have, i = have+1, i+1
	}
	if have < Length || i < len(text) && isWord(text[i]) && text[i] != '_' {
		return ""
	}
	return string(token[:])
}

// lineBreak is the length of the line break that the text begins with, with what the next line is indented or quoted by; 0 when
// there is none.
func lineBreak(text []byte) int {
	i := 0
	soft := len(text) > 0 && text[0] == '='
	if soft {
		i++
	}
	if i < len(text) && text[i] == '\r' {
		i++
	}
	if i >= len(text) || text[i] != '\n' {
		return 0
	}
	for i++; !soft && i < len(text) && (text[i] == ' ' || text[i] == '\t' || text[i] == '>'); i++ {
	}
	return i
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isWord(c byte) bool { return isLetter(c) || '0' <= c && c <= '9' || c == '_' }
