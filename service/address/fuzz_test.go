package address

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse throws anything at Parse. The seeds are the golden table and what is known to break other parsers.
func FuzzParse(f *testing.F) {
	table, err := os.ReadFile("testdata/canonical.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if q, err := strconv.QuotedPrefix(line); err == nil {
			if s, err := strconv.Unquote(q); err == nil {
				f.Add(s)
			}
		}
	}
	for _, s := range []string{
		`"\"@\"@example.com"@example.com`,
		"h\u0331.H\u0331@example.com",
		"jo@e" + strings.Repeat("\u0301", 31) + ".com",
		strings.Repeat("\u0344", 16) + "@example.com",
		"jo@xn--99999999999999.com",
		"jo@xn--.xn--.com",
		"jo@\u200b.com",
		"jo@a.\u00ad",
		"=\u0338<\u0338@example.com",
		"\"<\u0338\"@example.com",
		strings.Repeat(`"\`, 100),
		strings.Repeat("@", 254),
		strings.Repeat("\xf0\x90\x80\x80", 64),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkInvariants(t, s) })
}

// checkInvariants holds what must be true of every string.
func checkInvariants(t interface{ Fatalf(string, ...any) }, s string) {
	a, err := Parse(s)
	if err != nil {
		if a != (Address{}) || err.(*Error).Fault == 0 || err.(*Error).Problem == "" {
			t.Fatalf("%+q: a bad error, or an address besides it: %v", s, err)
		}
		return
	}
	if a.Given() != s {
		t.Fatalf("%+q: given as %+q", s, a.Given())
	}
	var whole Address
	if f := whole.general(s); f != 0 || whole != a {
		t.Fatalf("%+q: read as %+q, and the general way as %+q (%v)", s, a.ConsentForm(), whole.ConsentForm(), f)
	}
	consent, suppression := a.ConsentForm(), a.Canonical()
	if len(suppression) > len(consent) || (len(suppression) == len(consent)) != (suppression == consent) {
		t.Fatalf("%+q: suppression form %+q, consent form %+q", s, suppression, consent)
	}
	for _, form := range []string{s, consent, suppression} {
		at := strings.LastIndexByte(form, '@')
		if len(form) > MaxMailbox || at < 1 || at > MaxLocal || !utf8.ValidString(form) {
			t.Fatalf("%+q: limits do not hold for %+q", s, form)
		}
	}
	for label := range strings.SplitSeq(a.Domain(), ".") {
		if len(label) < 1 || len(label) > MaxLabel || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Fatalf("%+q: label %+q", s, label)
		}
	}
	if strings.ContainsAny(consent, "\r\n\x00ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t.Fatalf("%+q: not folded: %+q", s, consent)
	}
	// Each form stands for itself.
	for _, form := range []string{consent, suppression} {
		b, err := Parse(form)
		if err != nil || b.ConsentForm() != form || b.Canonical() != suppression {
			t.Fatalf("%+q: %+q is read as %+q and %+q (%v)", s, form, b.ConsentForm(), b.Canonical(), err)
		}
	}
	// ASCII case never matters.
	b, err := Parse(flipASCII(s))
	if err != nil || b.ConsentForm() != consent || b.Canonical() != suppression {
		t.Fatalf("%+q: with other case %+q, %+q (%v)", s, b.ConsentForm(), consent, err)
	}
}

// flipASCII swaps the case of ASCII letters, but for those that a combining mark may follow: together they are a character
// beyond ASCII, which is not folded.
func flipASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if (i+1 == len(b) || b[i+1] < utf8.RuneSelf) && (c|0x20) >= 'a' && (c|0x20) <= 'z' {
			b[i] ^= 0x20
		}
	}
	return string(b)
}
