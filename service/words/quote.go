package words

import (
	"slices"
	"strings"
	"unicode"
)

// maxLines is how many lines of a body are looked at; people's own words stand in the first or the last.
const maxLines = 5000

// ownWords takes off what is not the person's own: quotations, what announces them, signatures, and what programs and employers
// add, our own footer among it.
//
// People write above what they quote, below it, and in between. Where quoted lines are marked, only these go; where they are not,
// everything behind the line that announces them does.
func ownWords(text string) string {
	d := dictionaries()
	lines := cutLines(text)
	folded := make([]string, len(lines)) // for comparison
	for i, l := range lines {
		folded[i] = foldLine(l)
	}
	var own []string
	for i := 0; i < len(lines); i++ {
		f := folded[i]
		switch {
		case f == "":
			own = append(own, "")
			continue
		case isMarked(f):
			continue
		case f == "--", f == "—", f == "- -": // the usual sign of a signature, "-- ", often without its space
			return join(own)
		case d.original(f), headerBlock(d, folded[i:]), isFence(f) && headerBlock(d, after(folded, i)), d.notOwn(f):
			return join(own)
		case isFence(f) && closesMessage(folded[i+1:]):
			return join(own)
		case d.device(f):
			continue
		}
		if n := d.attribution(folded[i:]); n > 0 {
			if rest := after(folded, i+n-1); len(rest) == 0 || !isMarked(rest[0]) {
				return join(own)
			}
			i += n - 1
			continue
		}
		own = append(own, lines[i])
	}
	return join(own)
}

// cutLines cuts a text into lines, without the white space at their ends.
func cutLines(text string) []string {
	var lines []string
	for l := range strings.Lines(text) {
		if len(lines) == maxLines {
			break
		}
		lines = append(lines, strings.TrimRightFunc(l, unicode.IsSpace))
	}
	return lines
}

func join(lines []string) string { return strings.TrimSpace(strings.Join(lines, "\n")) }

// after is what follows line i, from the first line that is not empty.
func after(lines []string, i int) []string {
	for j := i + 1; j < len(lines); j++ {
		if lines[j] != "" {
			return lines[j:]
		}
	}
	return nil
}

// isMarked reports whether a line is marked as quoted; full-width marks are folded already.
func isMarked(f string) bool { return f[0] == '>' || f[0] == '|' }

// isFence reports whether a line is drawn, as between a message and what it answers, or around a signature.
func isFence(f string) bool {
	n := 0
	for _, c := range f {
		switch c {
		case '-', '_', '=', '*', '~', '#', '+', '─', '━', '—', '–', '═', '・', '…', '☆', '★', '◆', '◇', '■', '□', '▲', '●', '○', '┏', '┓', '┗', '┛', ' ':
			n++
		default:
			return false
		}
	}
	return n >= 5
}

// closesMessage reports whether what follows a drawn line is a signature: a few short lines, to the end or to a quotation.
func closesMessage(folded []string) bool {
	const most, longest = 12, 120
	n := 0
	for _, f := range folded {
		if f == "" {
			continue
		}
		if isMarked(f) {
			break
		}
		if n++; n > most || len(f) > longest {
			return false
		}
	}
	return true
}

// headerBlock reports whether lines begin with the header of a message as programs write it above what they quote: three fields
// or more, one below the other, sender or date first.
func headerBlock(d *dictionary, folded []string) bool {
	if len(folded) == 0 || !d.field(folded[0]) {
		return false
	}
	const window = 8
	n := 0
	for _, f := range folded[:min(len(folded), window)] {
		if d.field(f) {
			n++
		}
	}
	return n >= 3
}

// field reports whether a line is a field of a header, named in any of the languages.
func (d *dictionary) field(f string) bool {
	f = strings.TrimLeft(f, "* ")
	name, _, ok := strings.Cut(f, ":")
	return ok && slices.Contains(d.fields, strings.Trim(name, "* "))
}

// original reports whether a line announces a message that is repeated below: "-----Original Message-----", "Begin forwarded
// message:".
func (d *dictionary) original(f string) bool {
	bare := strings.Trim(f, "-_=*: ")
	return len(bare) < len(f) && slices.Contains(d.originals, bare)
}

// device reports whether a mail program wrote the line: "Sent from my phone".
func (d *dictionary) device(f string) bool {
	const longest = 120
	return len(f) <= longest && hasAnyPrefix(strings.TrimLeft(f, "-*_[( "), d.devices)
}

// notOwn reports whether a line begins a disclaimer, or a footer such as ours.
func (d *dictionary) notOwn(f string) bool {
	return hasAnyPrefix(strings.TrimLeft(f, "*_[( "), d.foreign)
}

// attribution reports how many lines announce a quotation, such as "On Monday, Ann <ann@example.com> wrote:", which programs break
// anywhere; 0 when they do not. It ends with a colon, and has a date and besides it an address or the word for writing.
func (d *dictionary) attribution(folded []string) int {
	n, _ := d.announced(folded)
	if n > 1 {
		if m, digits := d.announced(folded[1:]); m > 0 && digits >= fullDate || !strings.ContainsFunc(folded[0], isOfDateOrAddress) {
			return 0 // the first line is the person's, and what announces comes right behind it
		}
	}
	return n
}

// fullDate is how many digits a date and a time have at least.
const fullDate = 6

func isOfDateOrAddress(c rune) bool { return unicode.IsDigit(c) || c == '@' || c == '<' }

// announced is attribution, whatever its first line is; and how many digits it has.
func (d *dictionary) announced(folded []string) (lines, digits int) {
	const most, longest = 4, 400
	joined := ""
	for i, f := range folded[:min(len(folded), most)] {
		if f == "" || isMarked(f) {
			return 0, 0
		}
		if joined += " " + f; len(joined) > longest {
			return 0, 0
		}
		if !strings.HasSuffix(f, ":") {
			continue
		}
		for _, c := range joined {
			if unicode.IsDigit(c) {
				digits++
			}
		}
		wrote := slices.ContainsFunc(d.wrote, func(w string) bool { return holdsWord(joined, w) })
		address := strings.Contains(joined, "@")
		if wrote && (digits >= 2 || address) || address && digits >= fullDate {
			return i + 1, digits
		}
		return 0, 0
	}
	return 0, 0
}

// holdsWord reports whether a text holds a phrase that no letters go on with, before or behind.
func holdsWord(text, phrase string) bool {
	for at := 0; ; {
		i := strings.Index(text[at:], phrase)
		if i < 0 {
			return false
		}
		i += at
		at = i + len(phrase)
		before, behind := lastRune(text[:i]), firstRune(text[at:])
		if isWide(firstRune(phrase)) || !unicode.IsLetter(before) && !unicode.IsLetter(behind) {
			return true
		}
	}
}

func hasAnyPrefix(s string, all []string) bool {
	return slices.ContainsFunc(all, func(p string) bool { return strings.HasPrefix(s, p) })
}
