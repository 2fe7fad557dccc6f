package ledgertest

import (
	"slices"
	"strings"
	"time"

	"optout/service/ledger"
)

// Model is the reference: what the ledger means, written from the laws and as plainly as can be. It keeps what was said in a
// list and reads the whole list for every answer. It shares nothing with the core but the names of things.
type Model struct {
	Now    time.Time
	Topics map[string]ledger.Topic
	said   []*statement
	person map[string]string // mailbox to person
}

// statement is one thing that was said of a mailbox. Its place in the list is its position.
type statement struct {
	mailbox string
	form    string // the consent form, for yeses
	kind    ledger.Kind
	scope   string // "ALL", "COMMERCIAL" or a topic
	at      time.Time
	given   time.Time // as reported; zero for at
	until   time.Time
	counts  int  // the position it counts at
	lifts   bool // a yes that lifts its own topic's no
	machine bool // a machine's word, which can be void
	page    bool // a press on a page, which can be undone
	family  bool // own words, which speak for sub-addresses too
	gone    bool // void, undone, lifted or ended
}

// NewModel makes an empty model of these topics.
func NewModel(now time.Time, topics map[string]ledger.Topic) *Model {
	return &Model{Now: now, Topics: topics, person: map[string]string{}, said: []*statement{{gone: true}}} // positions begin at 1
}

// mailbox is the form that a no covers: case and, at Gmail, dots do not matter.
func mailbox(addr string) string {
	addr = strings.ToLower(addr)
	local, domain, _ := strings.Cut(addr, "@")
	if domain == "googlemail.com" || domain == "gmail.com" {
		return strings.ReplaceAll(local, ".", "") + "@gmail.com"
	}
	return addr
}

func (m *Model) say(s statement) int {
	s.at = m.Now
	if s.counts == 0 {
		s.counts = len(m.said)
	}
	m.said = append(m.said, &s)
	return len(m.said) - 1
}

// covers tells whether a no of the wide scope includes the narrow one.
func (m *Model) covers(wide, narrow string) bool {
	return wide == narrow || wide == "ALL" || wide == "COMMERCIAL" && narrow != "ALL" && m.Topics[narrow].Class == ledger.Commercial
}

// No says no. It returns the statement's number, or -1 when a no that stands makes it superfluous: one that covers it, that
// nothing said since can lift, that cannot be undone any more, and that is the person's own unless this one is a machine's.
func (m *Model) No(addr, scope string, machine, page bool) int {
	return m.no(mailbox(addr), scope, machine, page, false)
}

// OwnWords says no to ALL in the person's own words: at the address and its sub-addresses. A sub-address speaks for its mailbox
// only where it is known to belong to it.
func (m *Model) OwnWords(addr string) int {
	box, family := mailbox(addr), true
	if base := baseOf(box); base != "" {
		if family = strings.HasSuffix(box, "@gmail.com"); family {
			box = base
		}
	}
	return m.no(box, "ALL", true, false, family)
}

// baseOf is the mailbox that a sub-address would belong to; "" when it is none.
func baseOf(box string) string {
	local, domain, _ := strings.Cut(box, "@")
	if base, _, tagged := strings.Cut(local, "+"); tagged && base != "" {
		return base + "@" + domain
	}
	return ""
}

// Said is how many things were said so far.
func (m *Model) Said() int { return len(m.said) }

// ConfirmedSince tells whether whoever writes from an address has said a yes through the mailbox since so many things were said.
func (m *Model) ConfirmedSince(addr string, said int) bool {
	box := mailbox(addr)
	if base := baseOf(box); base != "" && strings.HasSuffix(box, "@gmail.com") {
		box = base
	}
	return slices.ContainsFunc(m.said, func(s *statement) bool { return s.mailbox == box && s.kind == ledger.Confirmed && s.counts >= said })
}

// Known tells whether anything was ever said of a mailbox.
func (m *Model) Known(addr string) bool {
	return slices.ContainsFunc(m.said, func(s *statement) bool { return s.mailbox == mailbox(addr) })
}

func (m *Model) no(box, scope string, machine, page, family bool) int {
	for i, s := range m.said {
		if s.mailbox != box || s.gone || s.kind != ledger.OptedOut || !m.covers(s.scope, scope) || s.machine && !machine || family && !s.family {
			continue
		}
		if s.page && m.Now.Before(s.at.Add(10*time.Minute)) {
			continue
		}
		if !slices.ContainsFunc(m.said[i:], func(y *statement) bool { return y.mailbox == box && y.kind == ledger.Subscribed }) {
			return -1
		}
	}
	return m.say(statement{mailbox: box, kind: ledger.OptedOut, scope: scope, machine: machine, page: page, family: family})
}

// Yes says yes to a topic, and joins the address to a person if one is named.
func (m *Model) Yes(addr, topic, person string, full bool, given time.Time) int {
	if person != "" {
		m.person[mailbox(addr)] = person
	}
	lifts := full && (given.IsZero() || m.Now.Sub(given) <= 10*time.Minute)
	return m.say(statement{mailbox: mailbox(addr), form: strings.ToLower(addr), kind: ledger.Subscribed, scope: topic, lifts: lifts, given: given})
}

// Confirm proves a yes through the mailbox: it counts where the yes was said.
func (m *Model) Confirm(yes int) {
	y := m.said[yes]
	m.say(statement{mailbox: y.mailbox, form: y.form, kind: ledger.Confirmed, scope: y.scope, counts: y.counts})
}

// Fact records a complaint (scope: the topic or COMMERCIAL), a bounce, a restriction or an age.
func (m *Model) Fact(addr string, kind ledger.Kind, scope string) {
	m.say(statement{mailbox: mailbox(addr), kind: kind, scope: scope, machine: kind == ledger.Complained || kind == ledger.Undeliverable})
}

// Lift ends all facts of a kind.
func (m *Model) Lift(addr string, kind ledger.Kind) {
	for _, s := range m.said {
		if s.mailbox == mailbox(addr) && s.kind == kind {
			s.gone = true
		}
	}
}

// Pause pauses a scope until a moment; the zero time ends the pause.
func (m *Model) Pause(addr, scope string, until time.Time) {
	for _, s := range m.said {
		if s.mailbox == mailbox(addr) && s.kind == ledger.Paused && s.scope == scope {
			s.gone = true
		}
	}
	if !until.IsZero() {
		m.say(statement{mailbox: mailbox(addr), kind: ledger.Paused, scope: scope, until: until})
	}
}

// Void takes a statement back, if it is a machine's; Undo, if it is a press on a page of the last ten minutes. Both tell
// whether they may.
func (m *Model) Void(n int) bool { return m.said[n].machine && m.take(n) }

// Undo takes back a press on a page.
func (m *Model) Undo(n int) bool {
	s := m.said[n]
	return s.page && !s.gone && m.Now.Before(s.at.Add(10*time.Minute)) && m.take(n)
}

func (m *Model) take(n int) bool {
	m.said[n].gone = true
	return true
}

// Unlink parts an address from its person.
func (m *Model) Unlink(addr string) { delete(m.person, mailbox(addr)) }

// Person tells the person of an address.
func (m *Model) Person(addr string) string { return m.person[mailbox(addr)] }

// Denials are the reasons that deny mail of a topic to an address, or that a required topic must pass: strongest first.
func (m *Model) Denials(addr, topic string) (reasons []ledger.Reason) {
	t, box, form := m.Topics[topic], mailbox(addr), strings.ToLower(addr)
	commercial, required := t.Class == ledger.Commercial, t.Class == ledger.Required
	yes, expires := -1, time.Time{}
	for _, s := range m.said {
		if s.mailbox == box && s.form == form && s.kind == ledger.Confirmed && s.scope == topic && s.counts > yes {
			yes, expires = s.counts, s.until
		}
	}
	deny := map[ledger.Reason]bool{}
	withdrawn := -1
	for i, s := range m.said {
		other := s.mailbox != box && m.person[box] != "" && m.person[s.mailbox] == m.person[box]
		other = other || s.family && s.mailbox == baseOf(box)
		if s.gone || s.mailbox != box && !other {
			continue
		}
		stands := i > yes
		if other {
			if s.kind == ledger.OptedOut && s.scope == "ALL" && stands {
				deny[ledger.ReasonOptedOutAll] = true
			}
			continue
		}
		switch s.kind {
		case ledger.Under13:
			deny[ledger.ReasonUnder13] = true
		case ledger.Restricted:
			deny[ledger.ReasonRestricted] = true
		case ledger.Undeliverable:
			if stands {
				deny[ledger.ReasonUndeliverable] = true
			}
		case ledger.OptedOut:
			if !m.covers(s.scope, topic) {
				continue
			}
			withdrawn = i
			lifted := s.scope == topic && slices.ContainsFunc(m.said[i:], func(y *statement) bool {
				return y.mailbox == box && y.form == form && y.kind == ledger.Subscribed && y.scope == topic && y.lifts && (y.given.IsZero() || !y.given.Before(s.at))
			})
			if stands && !lifted {
				deny[map[string]ledger.Reason{"ALL": ledger.ReasonOptedOutAll, "COMMERCIAL": ledger.ReasonOptedOutCommercial, topic: ledger.ReasonOptedOutTopic}[s.scope]] = true
			}
		case ledger.Complained:
			if !required && (commercial || s.scope == topic) {
				withdrawn = i
				if stands {
					deny[ledger.ReasonComplaint] = true
				}
			}
		case ledger.Paused:
			if s.until.After(m.Now) && m.covers(s.scope, topic) {
				deny[ledger.ReasonPaused] = true
			}
		}
	}
	if t.Rule == ledger.OptInRule {
		switch {
		case yes < 0 || yes < withdrawn:
			deny[ledger.ReasonNoConsent] = true
		case !expires.IsZero() && !expires.After(m.Now):
			deny[ledger.ReasonConsentExpired] = true
		}
	}
	for r := range deny {
		reasons = append(reasons, r)
	}
	slices.Sort(reasons)
	return reasons
}

// Send tells whether mail may go out, given those denials: only a required topic passes any, and never the first three.
func (m *Model) Send(topic string, denials []ledger.Reason, act bool) bool {
	if len(denials) == 0 {
		return true
	}
	t := m.Topics[topic]
	return t.Class == ledger.Required && denials[0] > ledger.ReasonBlockedDomain && (t.Ground == ledger.GroundLaw || act)
}
