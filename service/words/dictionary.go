package words

import (
	"embed"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"
)

//go:embed languages/*.txt
var files embed.FS

// order is the order of the languages: where several have a phrase, the first is named.
var order = []string{"en", "de", "fr", "es", "pt", "it", "nl", "pl", "ja", "zh"}

// class is what a phrase does. Where two phrases of a length fit, the lower class is taken.
type class uint8

const (
	refuses class = iota + 1 // not, never
	doubts                   // but, only, how
	stops                    // a demand to stop
	cancels                  // a demand to end a subscription, of mail or of something else
	asks                     // can you: makes a question of a demand, which it stays
	alone                    // a demand to stop if nothing else is said
	closes                   // best regards: names follow
	greets                   // dear: names follow
	calls                    // behind a name, as in Japanese
	joins                    // and
	fills                    // please, me, from your list
)

// gap stands in a phrase for one to maxGap words that no phrase begins with, or maxWideGap characters; slack for none to slackness times
// as many that say nothing: filler, and the writer's own address.
const (
	gap        = "*"
	slack      = "~"
	maxGap     = 4
	maxWideGap = 14
	slackness  = 2
)

// dictionary is all that the files in languages say.
type dictionary struct {
	languages []*language
	// What programs write, in all languages together: mail programs use that of their owner, not of the text.
	wrote, originals, fields, devices, foreign, aways, replies []string
}

// language is the phrases of one language.
type language struct {
	tag  string
	root node
	// speaks are beginnings of words, and phrases, that speak of stopping without being a demand.
	stems  []string
	speaks node
	// kana: its sentences have Hiragana in them, and names have none.
	kana bool
}

// node is a place within phrases, from which words lead on. The ways of a phrase's alternatives meet again; those of two phrases do not.
type node struct {
	next map[string][]*node
	// class is that of the phrase that ends here; 0 when none does.
	class class
}

// dictionaries reads the files, once: they are part of the program and never change. A fault in them panics; the tests read them.
var dictionaries = sync.OnceValue(func() *dictionary {
	d := &dictionary{}
	for _, tag := range order {
		text, err := files.ReadFile("languages/" + tag + ".txt")
		if err != nil {
			panic(err)
		}
		l, err := d.read(tag, string(text))
		if err != nil {
			panic(err)
		}
		d.languages = append(d.languages, l)
	}
	return d
})

// read reads a language's file: sections named in brackets, one phrase a line, "#" before remarks. The sections of phrases are the
// classes; "(a|b|)" in a phrase stands for a, b or nothing, and "$x" for the choices that a line "$x = a|b" above names. "speaks" has
// what speaks of stopping without being a demand; "*" at the end there stands for any ending. The rest is what lines and subjects begin
// with that programs write: "wrote" is the word for writing in the line above a quotation, "original" the title of a message repeated
// below, "field" the name of a field of its header; "device" is what phones add, "footer" what senders and employers do, our own footer
// among it; "away" is the subject of out-of-office notices, and "reply" the mark of replies and forwards.
func (d *dictionary) read(tag, text string) (*language, error) {
	l := &language{tag: tag}
	classes := map[string]class{"not": refuses, "doubt": doubts, "stop": stops, "cancel": cancels, "ask": asks, "alone": alone,
		"closing": closes, "greeting": greets, "behind names": calls, "and": joins, "filler": fills}
	programs := map[string]*[]string{"wrote": &d.wrote, "original": &d.originals, "field": &d.fields, "device": &d.devices,
		"footer": &d.foreign, "away": &d.aways, "reply": &d.replies}
	section := ""
	names := strings.NewReplacer()
	var named []string
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if name, ok := strings.CutPrefix(line, "["); ok {
			section = strings.TrimSuffix(name, "]")
			continue
		}
		if name, choices, ok := strings.Cut(line, " = "); ok && strings.HasPrefix(name, "$") {
			named = append(named, name, "("+choices+")")
			names = strings.NewReplacer(named...)
			continue
		}
		line = names.Replace(line)
		if strings.Count(line, "(") != strings.Count(line, ")") || strings.Contains(line, "$") {
			return nil, fmt.Errorf("languages/%s.txt, line %d: a bracket that is not closed, or a name before it is defined", tag, n)
		}
		switch c, list := classes[section], programs[section]; {
		case c != 0:
			for _, end := range lay(line, []*node{&l.root}) {
				end.class = c
			}
			l.kana = l.kana || strings.ContainsFunc(line, isHiragana)
		case list != nil:
			*list = append(*list, foldLine(line))
		case section == "speaks":
			if stem, ok := strings.CutSuffix(line, "*"); ok {
				l.stems = append(l.stems, foldLine(stem))
				continue
			}
			for _, end := range lay(line, []*node{&l.speaks}) {
				end.class = stops
			}
		default:
			return nil, fmt.Errorf("languages/%s.txt, line %d: no section is called %q", tag, n, section)
		}
	}
	return l, nil
}

// lay lays a phrase as ways on from nodes, and returns the nodes where it ends.
func lay(phrase string, from []*node) []*node {
	before, group, found := strings.Cut(phrase, "(")
	for _, w := range phraseWords(before) {
		to := &node{}
		for _, n := range from {
			if n.next == nil {
				n.next = map[string][]*node{}
			}
			n.next[w] = append(n.next[w], to)
		}
		from = []*node{to}
	}
	if !found {
		return from
	}
	var ends []*node
	depth, begin := 0, 0
	for i, c := range group {
		switch {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth == 0 && (c == '|' || c == ')'):
			ends = append(ends, lay(group[begin:i], from)...)
			if begin = i + 1; c == ')' {
				return lay(group[begin:], ends)
			}
		}
	}
	return ends
}

// away reports whether a subject is that of an out-of-office notice.
func (d *dictionary) away(subject string) bool {
	return hasAnyPrefix(foldLine(subject), d.aways)
}

// reply takes the marks of replies and forwards off a subject, and reports whether there were any.
func (d *dictionary) reply(subject string) (rest string, is bool) {
	const most = 20
	for range most {
		mark, after, ok := strings.Cut(subject, ":")
		if m, a, wide := strings.Cut(subject, "："); wide && (!ok || len(m) < len(mark)) {
			mark, after, ok = m, a, true
		}
		mark, _, _ = strings.Cut(strings.TrimSpace(mark), "[") // Re[2]:
		if !ok || !slices.Contains(d.replies, foldLine(strings.TrimRight(mark, "0123456789^() "))) {
			break
		}
		subject, is = strings.TrimSpace(after), true
	}
	return subject, is
}

func isHiragana(c rune) bool { return unicode.Is(unicode.Hiragana, c) }
