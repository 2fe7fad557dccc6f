package words

import (
	"slices"
	"strings"
)

// neutral is the meaning of what says nothing by itself: greetings, thanks, a name.
const neutral Meaning = 0xff

// Bounds of what is short.
const (
	maxShort     = 60  // words
	maxShortWide = 160 // characters of Chinese or Japanese
	// maxLoose is up to how many words a lone "stop", which may be about anything, is taken to speak of mail.
	maxLoose = 12
	// maxTopic is how many words a subject may have that speaks of something else.
	maxTopic = 6
)

// verdict is what a text asks for.
type verdict struct {
	meaning  Meaning
	language string
	// clear: the demand is clear by itself, wherever it stands.
	clear bool
	// cancels: it demands the end of a subscription, and does not say that mail is meant.
	cancels bool
	// words is how many it has.
	words int
	// topic: it only names what it is about, as "mailing list" does: no word is left unexplained and nothing in it is doubtful.
	topic bool
	// own: the person wrote it. Of a subject that is not always so.
	own bool
}

// judge says what a text of the person's asks for.
//
// A text is neutral only if no language finds a doubt in it: "no" is a word of Portuguese that means little.
func (d *dictionary) judge(text, from string) verdict {
	return d.weighWords(text, from, true)
}

func (d *dictionary) weighWords(text, from string, signed bool) verdict {
	ws, questions, whole := cutWords(text)
	v := verdict{meaning: Other, words: len(ws), own: true}
	if len(ws) == 0 {
		if questions == 0 && whole {
			v.meaning = Empty
		}
		return v
	}
	long, explained, doubt := !isShort(ws), false, questions > 0 || !whole
	bestStop, bestRest := 0, len(ws)+1
	for _, l := range d.languages {
		f := l.find(ws, questions, from, signed)
		explained, doubt = explained || f.rest == 0, doubt || f.doubt
		switch {
		case f.demand > 0 && f.rest == 0 && !f.doubt && whole && !long:
			if f.demand > bestStop {
				bestStop = f.demand
				v.meaning, v.language, v.clear, v.cancels = Stop, l.tag, f.clear, f.cancels
			}
		case v.meaning == Stop:
		case f.speaks:
			if f.rest < bestRest {
				bestRest = f.rest
				v.meaning, v.language = Perhaps, l.tag
				v.topic = f.rest == 0 && f.demand == 0
			}
		}
	}
	v.topic = v.topic && v.meaning == Perhaps && !doubt && !long
	if v.meaning == Other && explained && !doubt {
		v.meaning = neutral
	}
	return v
}

// isShort reports whether a text is short enough for a demand and nothing else.
func isShort(ws []word) bool {
	size := 0.0
	for _, w := range ws {
		if w.kind == wideWord {
			size += 1.0 / maxShortWide
		} else {
			size += 1.0 / maxShort
		}
	}
	return size <= 1
}

// findings are what the phrases of one language find in a text.
type findings struct {
	// demand is of how many words its demands to stop are. clear and cancels are as in a verdict.
	demand         int
	clear, cancels bool
	// speaks: it speaks of stopping.
	speaks bool
	// doubt: it denies, sets conditions, or asks what is no demand.
	doubt bool
	// rest is how many words no phrase explains.
	rest int
}

func (l *language) find(ws []word, questions int, from string, signed bool) (f findings) {
	m := l.matched(ws, from)
	m.names(signed)
	clause, negative, loose := 0, -1, 0
	asked := make([]bool, questions+1)
	for i := range ws {
		if i > 0 && ws[i].sentence != ws[i-1].sentence {
			clause++
		}
		for _, stem := range l.stems {
			f.speaks = f.speaks || strings.HasPrefix(ws[i].text, stem)
		}
		if l.speaks.next[ws[i].text] != nil {
			spoken := &match{l: &language{root: l.speaks}, words: ws, hard: m.hard}
			size, _ := spoken.longest(i, stops)
			f.speaks = f.speaks || size > 0
		}
		if !m.begins[i] {
			continue
		}
		switch m.class[i] {
		case refuses, doubts:
			f.doubt = true
		case joins:
			clause++
		case asks:
			asked[ws[i].question] = true
		case alone:
			f.demand += m.ends[i] - i
			loose++
			f.doubt = f.doubt || negative == clause // "I do not want this to stop"
		case stops, cancels:
			f.demand += m.ends[i] - i
			f.speaks = true
			f.clear = f.clear || m.class[i] == stops
			f.cancels = f.cancels || m.class[i] == cancels
			f.doubt = f.doubt || negative == clause
			if m.negative(i) {
				negative = clause
			}
		}
	}
	f.doubt = f.doubt || slices.Contains(asked[1:], false)
	f.rest = m.rest()
	f.speaks = f.speaks || loose > 0 && len(ws) <= maxLoose
	return f
}

// negative reports whether the demand that begins at word i is made with a negation, as "do not mail me".
func (m *match) negative(i int) bool {
	for j := i; j < m.ends[i]; j++ {
		if size, _ := m.longest(j, refuses); size > 0 && j+size <= m.ends[i] {
			return true
		}
	}
	return false
}

// judgeSubject says what a subject asks for, and whether the person wrote it: the subject of a reply or forward is that of what it
// answers, though it may be that the person put their own in its place.
func (d *dictionary) judgeSubject(subject, from string, answers bool) verdict {
	rest, reply := d.reply(subject)
	v := d.weighWords(rest, from, false)
	v.own = !reply && (!answers || v.meaning == Stop)
	return v
}

// doubtful joins the verdicts on two texts that should say the same and do not.
func doubtful(a, b verdict) verdict {
	for _, v := range []verdict{a, b} {
		if v.meaning == Stop || v.meaning == Perhaps {
			v.meaning = Perhaps
			return v
		}
	}
	if a.meaning == Other || b.meaning == Other {
		a.meaning = Other
	} else {
		a.meaning = neutral
	}
	return a
}

// weigh joins what subject and body ask for.
func weigh(subject, body verdict) verdict {
	perhaps := func(v verdict) verdict {
		v.meaning = Perhaps
		return v
	}
	switch body.meaning {
	case Empty, neutral:
		switch {
		case subject.own && subject.meaning != Empty:
			return subject
		case subject.meaning == Stop, // "Re: unsubscribe" answers something of that name
			subject.meaning == Perhaps && body.meaning == Empty:
			return perhaps(subject)
		}
	case Stop:
		switch {
		case !subject.own || subject.meaning == Stop || subject.meaning == neutral || subject.meaning == Empty:
		case subject.topic && body.clear:
		case subject.meaning == Perhaps, !body.clear, subject.words > maxTopic:
			return perhaps(body)
		}
		body.cancels = body.cancels || subject.own && subject.cancels
	case Other:
		if subject.own && (subject.meaning == Stop || subject.meaning == Perhaps) {
			return perhaps(subject)
		}
	}
	return body
}
