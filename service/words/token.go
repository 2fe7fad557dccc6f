package words

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// word is one word of a text; of Chinese and Japanese, which do not part them, one character.
type word struct {
	text string // folded: see fold
	line int
	// sentence counts sentences and what commas part.
	sentence int
	// question is the number of the question that it is part of; 0 when it is of none.
	question int
	// name: it is written as names are, with a capital first.
	name bool
	kind wordKind
}

type wordKind uint8

const (
	plainWord wordKind = iota
	wideWord           // a character of Chinese or Japanese
	number
	address
	webLink
)

// maxWords is how many words of a text are looked at. What is longer is no short demand.
const maxWords = 20000

// cutWords cuts a text into words. questions is how many questions it has, some perhaps of no words, and whole reports that nothing
// was left out.
func cutWords(text string) (all []word, questions int, whole bool) {
	line, sentence := 0, 0
	begin, asked, opened := 0, -1, false // of the full sentence; behind the last question; a question that has only its first mark yet
	ask := func() {
		sentence++
		if opened = false; len(all) == asked { // "??"
			return
		}
		questions++
		for i := range all[begin:] {
			all[begin+i].question = questions
		}
		begin, asked = len(all), len(all)
	}
	folder := newFolder()
	for text != "" {
		if len(all) == maxWords {
			return all, questions, false
		}
		c, size := utf8.DecodeRuneInString(text)
		switch {
		case c == '\n':
			line++
		case c == '?', c == '？', c == '؟', c == '吗', c == '嗎': // the last two are words that make a question
			ask()
		case c == '¿':
			sentence++
			begin, opened = len(all), true
		case c == '.' && (isLetter(firstRune(text[size:])) || unicode.IsDigit(firstVisible(text[size:]))): // of an abbreviation
		case isWide(c):
			all = append(all, word{text: folder.fold(text[:size]), line: line, sentence: sentence, kind: wideWord})
		case isLetter(c) || unicode.IsDigit(c):
			chunk := text[:chunkEnd(text)]
			w := word{line: line, sentence: sentence}
			switch {
			case strings.HasPrefix(chunk, "http://"), strings.HasPrefix(chunk, "https://"), strings.HasPrefix(chunk, "www."):
				w.kind, size = webLink, len(chunk)
			case strings.Contains(chunk, "@"):
				w.kind, size = address, len(chunk)
				w.text = strings.ToLower(strings.TrimRight(chunk, ".,;:!"))
			default:
				size = wordEnd(text)
				w.text = folder.fold(text[:size])
				w.name = isName(text[:size])
				if !strings.ContainsFunc(text[:size], isLetter) {
					w.kind = number
				}
			}
			all = append(all, w)
		case c == utf8.RuneError:
			all = append(all, word{text: string(utf8.RuneError), line: line, sentence: sentence})
		case strings.ContainsRune(".!,;:…。、！，；：．·()（）[]{}「」『』\"“”„«»/|", c):
			sentence++
			if strings.ContainsRune(".!…。！", c) && !unicode.IsLower(firstVisible(text[size:])) {
				begin = len(all)
			}
		}
		text = text[size:]
	}
	if opened {
		ask()
	}
	return all, questions, true
}

// isLetter includes the marks that belong to letters.
func isLetter(c rune) bool {
	return unicode.IsLetter(c) || unicode.IsMark(c) && c != 0xfe0f && c != 0x20e3
}

// isWide reports whether a character is of a script that does not part words.
func isWide(c rune) bool {
	return c >= 0x2e80 && (unicode.In(c, unicode.Han, unicode.Hiragana, unicode.Katakana) || c == 'ー' || c == '々')
}

// chunkEnd is where white space, or a script without it, ends the beginning of a text.
func chunkEnd(text string) int {
	const longest = 2000
	for i, c := range text {
		if i > longest || unicode.IsSpace(c) || isWide(c) || strings.ContainsRune("<>()\"", c) {
			return i
		}
	}
	return len(text)
}

// wordEnd is where a word ends. An apostrophe within is part of it.
func wordEnd(text string) int {
	for i, c := range text {
		switch {
		case isWide(c):
			return i
		case isLetter(c), unicode.IsDigit(c), c == 0xad:
		case isApostrophe(c) && isLetter(firstRune(text[i+utf8.RuneLen(c):])):
		default:
			return i
		}
	}
	return len(text)
}

func isApostrophe(c rune) bool {
	return c == '\'' || c == '’' || c == '‘' || c == 'ʼ' || c == '`' || c == '´'
}

// isName reports whether a word has a capital first and others besides.
func isName(s string) bool {
	c := firstRune(s)
	return unicode.IsUpper(c) && (utf8.RuneCountInString(s) == 1 || strings.ContainsFunc(s, func(c rune) bool { return unicode.IsLetter(c) && !unicode.IsUpper(c) })) // "Mª"
}

// firstVisible is the first character that is no white space.
func firstVisible(s string) rune { return firstRune(strings.TrimLeftFunc(s, unicode.IsSpace)) }

func firstRune(s string) rune { c, _ := utf8.DecodeRuneInString(s); return c }
func lastRune(s string) rune  { c, _ := utf8.DecodeLastRuneInString(s); return c }

// folder folds texts for comparison. It holds state, so each use makes its own.
type folder struct{ lower cases.Caser }

func newFolder() folder { return folder{cases.Fold()} }

// fold makes texts equal that people take for the same: of any case, full-width or not (NFKC), with Latin accents or without, with any apostrophe
// or none.
func (f folder) fold(s string) string {
	if isASCII(s) {
		return strings.ReplaceAll(strings.ReplaceAll(strings.ToLower(s), "'", ""), "`", "")
	}
	s = norm.NFD.String(f.lower.String(norm.NFKC.String(s)))
	s = strings.Map(func(c rune) rune {
		switch {
		case c >= 0x300 && c <= 0x36f, isApostrophe(c), c == 0xad:
			return -1
		case c == 'ł':
			return 'l'
		case c == 'ø':
			return 'o'
		}
		return c
	}, s)
	return norm.NFC.String(s)
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c >= utf8.RuneSelf })
}

// foldLine folds a line and makes each white space in it one blank.
func foldLine(s string) string {
	const longest = 2000
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "")
	}
	s = newFolder().fold(s)
	s = strings.Map(func(c rune) rune {
		if unicode.Is(unicode.Cf, c) {
			return -1
		}
		return c
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// phraseWords is a phrase of a dictionary as words; gap and slack are words of it.
func phraseWords(phrase string) []string {
	var all []string
	for phrase != "" {
		end := strings.IndexAny(phrase, gap+slack)
		if end == 0 {
			all, phrase = append(all, phrase[:1]), phrase[1:]
			continue
		}
		if end < 0 {
			end = len(phrase)
		}
		ws, _, _ := cutWords(phrase[:end])
		for _, w := range ws {
			all = append(all, w.text)
		}
		phrase = phrase[end:]
	}
	return slices.Clip(all)
}
