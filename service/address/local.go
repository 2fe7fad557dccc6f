package address

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// checkWhole refuses what is wrong anywhere in an address.
func checkWhole(s string) Fault {
	switch {
	case s == "":
		return FaultEmpty
	case len(s) > MaxMailbox:
		return FaultTooLong
	case strings.ContainsRune(s, utf8.RuneError):
		// That is invalid UTF-8 or U+FFFD, which stands where somebody lost the real character: two addresses spoilt alike
		// would become one.
		return FaultNotUTF8
	case strings.ContainsFunc(s, unicode.IsControl):
		return FaultControlChar
	}
	return 0
}

// cutLocal takes the local part off an address and returns its content, quotes and quoted pairs resolved, and what follows
// the @.
func cutLocal(s string) (content, domain string, f Fault) {
	if s[0] == '"' {
		return cutQuoted(s)
	}
	at := strings.IndexByte(s, '@')
	if at < 0 {
		return "", "", diagnose(s, FaultNoAt)
	}
	local := s[:at]
	for i := range len(local) {
		if c := local[i]; c < utf8.RuneSelf && atomFold[c] == 0 {
			if c == '"' || c == '\\' {
				return "", "", diagnose(s, FaultQuoting)
			}
			return "", "", diagnose(s, FaultLocalChar)
		}
	}
	if local == "" {
		return "", "", diagnose(s, FaultNoLocal)
	}
	if !dotted(local) {
		return "", "", FaultDots
	}
	return local, s[at+1:], 0
}

// cutQuoted is cutLocal for a Quoted-string (RFC 5321 section 4.1.2): printable ASCII, space, and beyond ASCII what RFC 6531
// section 3.3 adds; a backslash takes the meaning off the printable ASCII character or space that follows it.
func cutQuoted(s string) (content, domain string, f Fault) {
	b := make([]byte, 0, len(s))
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			switch rest := s[i+1:]; {
			case rest == "":
				return "", "", FaultNoAt
			case rest[0] != '@':
				return "", "", diagnose(rest, FaultQuoting)
			case len(b) == 0:
				return "", "", FaultNoLocal
			default:
				return string(b), rest[1:], 0
			}
		case '\\':
			if i++; i == len(s) || s[i] >= utf8.RuneSelf {
				return "", "", FaultQuoting
			}
		}
		b = append(b, s[i])
	}
	return "", "", FaultQuoting
}

// canonicalLocal brings the content of a local part into canonical form: NFC (RFC 6532 section 3.1), ASCII lower case, and
// quotes only where they are needed, with as few backslashes as can be (RFC 5321 section 4.1.2).
func canonicalLocal(content string) (string, Fault) {
	if f := checkLocal(content); f != 0 {
		return "", f
	}
	// Folding can undo NFC: H with a line below is two characters and h with a line below is one. Hence once more after it.
	local := norm.NFC.String(foldASCII(norm.NFC.String(content)))
	// Long runs of combining marks come back from package norm with a joiner put into them.
	if f := checkLocal(local); f != 0 {
		return "", f
	}
	if needsQuotes(local) {
		local = `"` + quotedPairs.Replace(local) + `"`
	}
	if len(local) > MaxLocal {
		return "", FaultLocalTooLong
	}
	return local, 0
}

var quotedPairs = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// checkLocal refuses the characters beyond ASCII that no local part may have.
func checkLocal(content string) Fault {
	for _, r := range content {
		if r >= utf8.RuneSelf {
			if f := checkRune(r); f != 0 {
				return f
			}
		}
	}
	return 0
}

// checkRune refuses characters that cannot be seen, that have no meaning of their own, or that would change into ASCII.
//
// Only characters that Unicode has assigned are taken, and of these NFC never changes: so a later Unicode version may accept
// addresses that were refused before, but it cannot move an address to another key (T10).
func checkRune(r rune) Fault {
	switch {
	case r == '\u037e' || r == '\u1fef' || r == '\u212a':
		// NFC turns the Greek question mark, the Greek varia and the Kelvin sign into ";", "`" and "K": taken as they are they
		// would reach the mailbox of somebody who said no, and folded they would join what looks like two people (T14).
		return FaultAmbiguous
	case unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Cf):
		return FaultInvisible
	case unicode.Is(unicode.Z, r):
		return FaultSpace
	case unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S):
		return 0
	}
	return FaultUnassigned
}

// needsQuotes tells whether content is no Dot-string.
func needsQuotes(content string) bool {
	for i := range len(content) {
		if c := content[i]; c < utf8.RuneSelf && atomFold[c] == 0 {
			return true
		}
	}
	return !dotted(content)
}

// dotted tells whether the dots stand as in a Dot-string: not first, not last, not two together.
func dotted(s string) bool {
	return s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
}
