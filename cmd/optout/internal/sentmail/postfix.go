package sentmail

import (
	"container/list"
	"errors"
	"io"
	"iter"
	"regexp"
	"slices"
	"strings"
	"time"
)

// logLine is a line of Postfix about a message: when (as syslog has it, or RFC 3339), which machine, which of Postfix's
// programs, which queue id, and what. Queue ids are hexadecimal, or long ones of digits and consonants.
var logLine = regexp.MustCompile(`^(?:<\d{1,3}>)?((?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\S*) \S+ \S*?([a-z]+)\[\d+\]: (?:([0-9A-Zb-df-hj-np-tv-z]{6,24}): )?(.*)$`)

// Limits on what is held of a log.
const (
	// maxUnderWay is how many messages may be under way at once; of more, the oldest is told as it is by then.
	maxUnderWay = 100_000
	// maxDone is how many ids of messages that are done are remembered, to know them again as what a filter gave back.
	maxDone = 10_000
	// maxHeld is how many recipients of one message are held until it is told.
	maxHeld = 10_000
	// together is how far apart the deliveries of one message may be and still be told as one.
	together = time.Minute
)

// transit is a message under way.
type transit struct {
	queueID, id, receipt string
	sent                 []delivery
	known                []string // every recipient, whatever became of it
	place                *list.Element
}

type delivery struct {
	to string
	at time.Time
}

// postfix reads a log of Postfix and tells each message that its program smtp delivered: its recipients are those of lines
// with status=sent, as the sender named them (orig_to). The receipt is in the log only where a header check has put it there:
// "/^X-Optout-Receipt:/ INFO". A message that went through a filter on this machine and came back is told once, as it came back.
func postfix(l *lines, o Options) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		p := &postfixLog{o: o, all: map[string]*transit{}, order: list.New(), done: map[string]bool{}}
		any := false
		for {
			line, err := l.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				yield(Message{}, err)
				return
			}
			m := logLine.FindSubmatch(line)
			if m == nil {
				continue
			}
			any = true
			if len(m[3]) == 0 || string(m[3]) == "NOQUEUE" {
				continue
			}
			for _, found := range p.line(string(m[1]), string(m[2]), string(m[3]), string(m[4])) {
				if !yield(found, nil) {
					return
				}
			}
		}
		for p.order.Len() > 0 {
			for _, found := range p.end(p.order.Front().Value.(*transit)) {
				if !yield(found, nil) {
					return
				}
			}
		}
		if !any {
			yield(Message{}, ErrNothing)
		}
	}
}

// postfixLog is what is held of a log.
type postfixLog struct {
	o     Options
	all   map[string]*transit // under way, by queue id
	order *list.List          // of them, oldest first
	done  map[string]bool
	ended []string // the keys of done, oldest first
}

// line takes a line, and returns the messages that are complete with it.
func (p *postfixLog) line(when, program, queueID, text string) (complete []Message) {
	t := p.all[queueID]
	if t == nil {
		if program == "qmgr" && text == "removed" { // of a message that began before the log
			return nil
		}
		if p.order.Len() >= maxUnderWay {
			complete = p.end(p.order.Front().Value.(*transit))
		}
		t = &transit{queueID: queueID}
		t.place = p.order.PushBack(t)
		p.all[queueID] = t
	}
	switch {
	case program == "cleanup":
		t.cleanup(text)
	case program == "smtp":
		if at, ok := p.time(when); ok {
			p.delivered(t, at, text)
		}
	case program == "qmgr" && text == "removed":
		complete = append(complete, p.end(t)...)
	}
	return complete
}

// cleanup reads the message's id, and the receipt where a header check logs it.
func (t *transit) cleanup(text string) {
	if id, ok := strings.CutPrefix(text, "message-id="); ok {
		t.id = id
		return
	}
	rest, ok := strings.CutPrefix(text, "info: header ")
	name, value, _ := strings.Cut(rest, ":")
	if !ok || !strings.EqualFold(name, "X-Optout-Receipt") || t.receipt != "" {
		return
	}
	if i := strings.LastIndex(value, " from "); i >= 0 {
		value = value[:i]
	}
	// The line's ends of a folded field are logged as question marks, which no receipt has.
	t.receipt = strings.TrimSpace(strings.ReplaceAll(value, "?", ""))
}

var (
	toPart   = regexp.MustCompile(`^to=<(.*?)>, (?:orig_to=<(.*?)>, )?relay=([^,]*), `)
	queuedAs = regexp.MustCompile(`queued as ([0-9A-Za-z]{6,24})\)?`)
)

// delivered reads what became of one recipient.
func (p *postfixLog) delivered(t *transit, at time.Time, text string) {
	m := toPart.FindStringSubmatch(text)
	if m == nil {
		return
	}
	to := m[1]
	if m[2] != "" {
		to = m[2]
	}
	if len(t.known) < maxHeld && !slices.Contains(t.known, to) {
		t.known = append(t.known, to)
	}
	if !strings.Contains(text, ", status=sent ") || len(t.sent) >= maxHeld {
		return
	}
	// What a filter on this machine gives back is a message of its own.
	if again := queuedAs.FindStringSubmatch(text); again != nil && (p.all[again[1]] != nil || p.done[again[1]]) {
		return
	}
	t.sent = append(t.sent, delivery{to, at})
}

// end forgets a message and tells it: once for each time at which it left.
func (p *postfixLog) end(t *transit) (found []Message) {
	p.order.Remove(t.place)
	delete(p.all, t.queueID)
	if len(p.ended) >= maxDone {
		delete(p.done, p.ended[0])
		p.ended = p.ended[1:]
	}
	p.done[t.queueID] = true
	p.ended = append(p.ended, t.queueID)

	slices.SortStableFunc(t.sent, func(a, b delivery) int { return a.at.Compare(b.at) })
	for _, d := range t.sent {
		last := len(found) - 1
		if last < 0 || d.at.Sub(found[last].Left) > together || len(found[last].To) == MaxRecipients {
			found = append(found, Message{Where: t.queueID, ID: t.id, Receipt: t.receipt, Left: d.at, To: []string{d.to}})
			continue
		}
		if !slices.Contains(found[last].To, d.to) {
			found[last].To = append(found[last].To, d.to)
		}
	}
	if len(t.known) <= MaxRecipients {
		for i := range found {
			for _, to := range t.known {
				if !slices.Contains(found[i].To, to) {
					found[i].Joined = append(found[i].Joined, to)
				}
			}
		}
	}
	return found
}

// time reads the time of a line. syslog's has no year: it is the newest that does not lie in the future, with a day's grace for
// clocks and zones.
func (p *postfixLog) time(text string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05Z0700"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.Truncate(time.Second), true
		}
	}
	if t, err := time.ParseInLocation("2006-01-02T15:04:05", text, p.o.Zone); err == nil {
		return t.Truncate(time.Second), true
	}
	t, err := time.Parse("Jan _2 15:04:05", text)
	for year := p.o.Now.Year() + 1; err == nil && year > p.o.Now.Year()-8; year-- {
		full := time.Date(year, t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, p.o.Zone)
		if full.Day() == t.Day() && !full.After(p.o.Now.Add(24*time.Hour)) { // the 29th of February is not in every year
			return full, true
		}
	}
	return time.Time{}, false
}
