package words

import (
	"slices"
	"strings"
)

// match is the words of a text and what the phrases of one language make of them.
type match struct {
	l     *language
	words []word
	// hard marks the words where a phrase begins that no gap may swallow; soft those that slack may.
	hard, soft []bool
	// class is that of the phrase that a word is part of; 0 when it is of none. begins marks the first word of each phrase.
	class  []class
	begins []bool
	ends   []int // of the phrase that begins at a word
	// known marks words that are of no phrase and may be: names, and addresses of the person.
	known []bool
}

// matched looks for the phrases of a language in a text, always the longest from where the one before ended.
func (l *language) matched(ws []word, from string) *match {
	m := &match{l: l, words: ws, class: make([]class, len(ws)), begins: make([]bool, len(ws)), ends: make([]int, len(ws)), known: make([]bool, len(ws))}
	soft, hard := make([]bool, len(ws)), make([]bool, len(ws))
	for i := range ws {
		if ws[i].kind == address {
			m.known[i] = strings.EqualFold(ws[i].text, from)
			soft[i] = m.known[i]
		}
		m.walk(&l.root, i, i, func(end int, n *node) {
			for j := i; n.class == fills && j < end; j++ {
				soft[j] = true
			}
		})
	}
	m.soft = soft
	for i := range ws {
		size, _ := m.longest(i, alone)
		hard[i] = size > 0
	}
	m.hard = hard
	for i := 0; i < len(ws); {
		size, end := m.longest(i, fills)
		if size == 0 {
			i++
			continue
		}
		m.begins[i], m.ends[i] = true, i+size
		for j := i; j < i+size; j++ {
			m.class[j] = end.class
		}
		i += size
	}
	return m
}

// longest finds the longest phrase that begins at word i, of a class not above most; 0 when there is none.
func (m *match) longest(i int, most class) (size int, end *node) {
	m.walk(&m.l.root, i, i, func(at int, x *node) {
		if x.class <= most && (at-i > size || at-i == size && x.class < end.class) {
			size, end = at-i, x
		}
	})
	return size, end
}

// walk calls found for each phrase that begins at word i, the part up to word at being n. A phrase stays within a sentence.
func (m *match) walk(n *node, i, at int, found func(int, *node)) {
	if n.class != 0 && at > i {
		found(at, n)
	}
	if at == len(m.words) || n.next == nil || m.words[at].sentence != m.words[i].sentence {
		return
	}
	if m.words[at].kind != address {
		for _, next := range n.next[m.words[at].text] {
			m.walk(next, i, at+1, found)
		}
	}
	for _, next := range n.next[slack] {
		m.walk(next, i, at, found)
		size := 0.0
		for k := at; m.slackens(k, m.words[i].sentence); k++ {
			if size += breadth(m.words[k]); size > slackness {
				break
			}
			m.walk(next, i, k+1, found)
		}
	}
	for _, next := range n.next[gap] {
		size := 0.0
		for k := at; m.hard != nil && k < len(m.words) && m.words[k].sentence == m.words[i].sentence && !m.hard[k] && m.words[k].kind != address; k++ {
			if size += breadth(m.words[k]); size > 1 {
				break
			}
			m.walk(next, i, k+1, found)
		}
	}
}

// slackens reports whether slack may swallow word k, in a phrase of that sentence.
func (m *match) slackens(k, sentence int) bool {
	return k < len(m.soft) && m.soft[k] && m.words[k].sentence == sentence && (m.hard == nil || !m.hard[k])
}

// breadth is how much of a gap a word fills.
func breadth(w word) float64 {
	if w.kind == wideWord {
		return 1.0 / maxWideGap
	}
	return 1.0 / maxGap
}

// rest counts the words that are of no phrase and not known.
func (m *match) rest() (n int) {
	for i, c := range m.class {
		if c == 0 && !m.known[i] {
			n++
		}
	}
	return n
}

// names finds what are names and the like, and makes it known: behind a greeting, before a word of address and, if the text is one
// that people sign, under a closing and at the end.
func (m *match) names(signed bool) {
	for i := range m.words {
		if !m.begins[i] {
			continue
		}
		switch m.class[i] {
		case greets:
			m.greeted(m.ends[i])
		case calls:
			m.called(i)
		}
	}
	if signed {
		m.signed()
	}
}

// greeted knows the names from word i to the end of the sentence or line, if there is nothing else before it.
func (m *match) greeted(i int) {
	size := 0.0
	j := i
	for ; j < len(m.words) && j > 0 && m.words[j].sentence == m.words[j-1].sentence && m.words[j].line == m.words[j-1].line; j++ {
		if c := m.class[j]; c != 0 && c < greets {
			return
		} else if c == 0 {
			size += breadth(m.words[j])
		}
	}
	if size <= 1 {
		m.know(i, j)
	}
}

// called knows the name before word i.
func (m *match) called(i int) {
	size := 0.0
	j := i
	for j > 0 && m.class[j-1] == 0 && m.words[j-1].sentence == m.words[i].sentence && m.words[j-1].line == m.words[i].line {
		j--
		if size += breadth(m.words[j]); size > 1 || isHiragana(firstRune(m.words[j].text)) {
			return
		}
	}
	m.know(j, i)
}

func (m *match) know(from, to int) {
	for i := from; i < to; i++ {
		m.known[i] = true
	}
}

// signed knows the names at the end: under a closing, with the address and numbers that people add; or, without one, in the last two
// lines under the demand.
func (m *match) signed() {
	last, closing := 0, -1
	for i := range m.words {
		if !m.begins[i] {
			continue
		}
		switch c := m.class[i]; {
		case c <= alone:
			last, closing = m.ends[i], -1
		case c == closes && closing < 0:
			closing = m.ends[i]
		}
	}
	if closing >= 0 {
		const mostLines, mostWords = 10, 60
		lines := m.lines(closing)
		if len(lines) > mostLines || len(m.words)-closing > mostWords {
			return
		}
		for n, l := range lines {
			sameLine := n == 0 && m.words[l[0]].line == m.words[closing-1].line
			if sameLine && !m.areNames(l, 3) || !sameLine && !m.areNames(l, 6) && l[1]-l[0] > 1 {
				return
			}
		}
		m.know(closing, len(m.words))
		return
	}
	from := last
	for from < len(m.words) && from > 0 && m.words[from].line == m.words[from-1].line {
		from++
	}
	lines := m.lines(from)
	if len(lines) > 2 {
		return
	}
	for _, l := range lines {
		if !m.areNames(l, 3) || m.words[l[0]].kind == wideWord {
			return
		}
	}
	m.know(from, len(m.words))
}

// lines are the beginnings and ends of the lines from word i on.
func (m *match) lines(i int) (all [][2]int) {
	for i < len(m.words) {
		j := i + 1
		for j < len(m.words) && m.words[j].line == m.words[i].line {
			j++
		}
		all = append(all, [2]int{i, j})
		i = j
	}
	return all
}

// companies are what companies' names end with, as far as it is written small.
var companies = []string{"gmbh", "mbh", "ltd", "inc", "llc", "bv", "nv", "srl", "spa", "sarl"}

// areNames reports whether the words of a line may all be of a name, a company or how to reach them, and no sentence.
func (m *match) areNames(line [2]int, most int) bool {
	const mostWide, mostWideNames = 4, 24
	wide := 0
	for i := line[0]; i < line[1]; i++ {
		w := m.words[i]
		switch {
		case m.class[i] != 0:
		case w.kind == wideWord:
			if wide++; isHiragana(firstRune(w.text)) {
				return false
			}
		case w.kind == plainWord && !w.name && !slices.Contains(companies, w.text):
			return false
		default:
			most--
		}
	}
	return most >= 0 && (wide <= mostWide || m.l.kana && wide <= mostWideNames)
}
