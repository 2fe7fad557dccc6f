package address

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// mailboxes draws strings of ASCII that are mailboxes, or mailboxes but for one part.
func mailboxes() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		local := rapid.StringMatching(`[A-Za-z0-9+_'-]{1,9}(\.[A-Z]{1,9}){0,2}`).Draw(t, "local")
		labels := rapid.SliceOfN(rapid.OneOf(
			rapid.StringMatching(`[A-Za-z][A-Za-z0-9-]{0,6}[A-Za-z0-9]`),
			rapid.SampledFrom([]string{"gmail", "GMAIL", "googlemail", "xn--bcher-kva", "42", strings.Repeat("x", 63)})), 0, 4).Draw(t, "labels")
		at, end := "@", rapid.SampledFrom([]string{"com", "COM", "com.", "d1"}).Draw(t, "end")
		switch rapid.IntRange(0, 9).Draw(t, "spoilt") {
		case 0:
			local = rapid.StringMatching(`[A-Za-z.]{0,6}|[a-z]{62,66}|"[A-Z .\\"a@]{0,9}"`).Draw(t, "odd local")
		case 1:
			labels = append(labels, rapid.StringMatching(`-?[a-z_]{0,3}-{0,3}[a-z]?|[0-9]{1,3}|[A-Z]{62,65}|[xX][nN]--[a-z0-9-]{0,6}`).Draw(t, "odd label"))
		case 2:
			at = rapid.SampledFrom([]string{"", "@@", " @", "@ ", "@."}).Draw(t, "odd at")
		case 3:
			end = rapid.SampledFrom([]string{"", ".", "com..", "com ", "7"}).Draw(t, "odd end")
		}
		return local + at + strings.Join(append(labels, end), ".")
	})
}

// TestPlainIsGeneral: the short cut and the definition say the same of whatever both can read.
func TestPlainIsGeneral(t *testing.T) {
	short := 0
	rapid.Check(t, func(t *rapid.T) {
		s := mailboxes().Draw(t, "mailbox")
		var plain, general Address
		if !plain.plain(s) {
			return
		}
		short++
		if f := general.general(s); f != 0 || plain != general {
			t.Fatalf("%q: plain reads %q, general %q (%v)", s, plain.ConsentForm(), general.ConsentForm(), f)
		}
	})
	if short == 0 {
		t.Error("no address went the short way")
	}
	// The other half: nothing that deserves the short way is kept off it.
	for _, s := range []string{"jo@example.com", "Jo+x@A-B.C-D.example", "a@b.c", strings.Repeat("a", 64) + "@" + strings.Repeat("b", 63) + ".d1"} {
		if !new(Address).plain(s) {
			t.Errorf("%q does not go the short way", s)
		}
	}
}

// TestProperties: what FuzzParse checks, on addresses that are more often right than the fuzzer's.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := mailboxes().Draw(t, "mailbox")
		if rapid.Bool().Draw(t, "beyond ASCII") {
			at := rapid.IntRange(0, len(s)).Draw(t, "at")
			s = s[:at] + rapid.StringOfN(rapid.SampledFrom([]rune("éßẞİıſKÅſ\u0301\u0307\u0331한漢一字✉אب。．\u200bßüñ\u0958")), 1, 4, -1).Draw(t, "runes") + s[at:]
		}
		checkInvariants(t, s)
	})
}

// TestEveryRune goes through all of Unicode: what a local part may have, NFC keeps beyond ASCII and within what it may have.
// So no address beyond ASCII can meet one of ASCII (T14), and normalising what was accepted gives what is accepted.
func TestEveryRune(t *testing.T) {
	accepted := 0
	for r := rune(utf8.RuneSelf); r <= unicode.MaxRune; r++ {
		if checkRune(r) != 0 {
			continue
		}
		accepted++
		for _, n := range norm.NFC.String(string(r)) {
			if n < utf8.RuneSelf || checkRune(n) != 0 {
				t.Errorf("%U is accepted and becomes %U", r, n)
			}
		}
	}
	if accepted < 140_000 {
		t.Errorf("only %d characters are accepted", accepted)
	}
}

// TestCombiningRun: package norm puts a joiner into more than 30 combining marks; that must be refused, not kept.
func TestCombiningRun(t *testing.T) {
	marks := strings.Repeat("\u0301", 31)
	for _, s := range []string{marks + "@example.com", "jo@e" + marks + ".com"} {
		if _, err := Parse(s); err == nil {
			t.Errorf("Parse(%+q) gives no error", s)
		}
	}
	if _, err := Parse(marks[2:] + "@example.com"); err != nil {
		t.Errorf("30 marks: %v", err)
	}
}

// TestUnicodeVersion stops whoever comes with tables of a Unicode version that nobody has compared with those the ledgers
// were keyed by. For a new version: run this package's tests with it, compare what profile makes of every character with what
// it made before, and where an accepted address would get another form, map that character here as capitalSharpS is or make
// version 2 of the rules (T10). Then add it.
func TestUnicodeVersion(t *testing.T) {
	compared := map[string]bool{"15.0.0": true, "17.0.0": true}
	if !compared[norm.Version] || !compared[unicode.Version] {
		t.Errorf("Unicode %s (x/text) and %s (Go) have not been compared", norm.Version, unicode.Version)
	}
}
