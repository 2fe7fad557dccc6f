package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"

	"optout/service/address"
	"optout/service/standing"
)

// Basis is the legal ground of a yes.
type Basis uint8

// Bases, with how long the implied ones last at the most (CASL s. 10).
const (
	Express         Basis = 1
	ImpliedPurchase Basis = 2
	ImpliedInquiry  Basis = 3
)

// Subscription is a person's yes to one topic.
type Subscription struct {
	Sender, Topic, Address string
	// Basis is express when 0.
	Basis Basis
	// Expires is when the consent ends; required for the implied bases.
	Expires time.Time
	// Source, Wording and Method make the evidence full: where it was said, what the person was told, how they said it.
	Source, Wording, Method string
	// Wireless: the person expressly authorised commercial mail to a wireless domain (47 CFR 64.3100(d)).
	Wireless bool
	// PersonID is the caller's own name for the person; optional.
	PersonID string
}

// MaxYesDelay is how late a yes may be reported and still lift the no of its topic. What was said in between may have been
// taken for a repeat and not written, so an older yes gives consent but lifts nothing.
const MaxYesDelay = 10 * time.Minute

// SubscribeOutcome tells what a yes achieved.
type SubscribeOutcome struct {
	Outcome
	// NeedsConfirmation: the topic is opt-in, or a no stands that only a yes through the mailbox lifts.
	NeedsConfirmation bool
	// Denials still deny the topic.
	Denials []Denial
	// Topic and Key are for the confirmation token.
	Topic *Topic
	Key   address.Key
	At    time.Time
}

// Subscribe records a person's yes to one topic. It needs a RequestID. It joins the address to the person when PersonID is
// given. It lifts at most the no of its own topic, and only with full evidence, said after it. Errors: ErrUnknownSender,
// ErrUnknownTopic, ErrInvalidAddress, ErrInvalidField, ErrRequestIDRequired, ErrRequestIDReused, ErrPersonConflict,
// ErrPersonFull, ErrTooManyChanges, and those of a write.
func (l *Ledger) Subscribe(ctx context.Context, by By, s Subscription) (SubscribeOutcome, error) {
	var out SubscribeOutcome
	if err := requireRequestID(by.RequestID); err != nil {
		return out, err
	}
	m, err := l.mailbox(s.Sender, s.Address)
	if err != nil {
		return out, err
	}
	topic, err := topicOf(m.sender, "topic", s.Topic)
	if err != nil {
		return out, err
	}
	if topic.Class == Required {
		return out, invalid("topic", "a required topic needs no yes", "name a commercial or transactional topic")
	}
	if err := l.checkBy(&by); err != nil {
		return out, err
	}
	if err := l.checkConsent(&s, &by); err != nil {
		return out, err
	}
	var person address.Key
	if s.PersonID != "" {
		if person, err = l.opt.Keys.Person(m.sender.Number, s.PersonID); err != nil {
			return out, invalid("person_id", err.Error(), "")
		}
	}
	k := &m.keys.Of[0]
	req, err := l.beginRequest(ctx, m.sender.Number, by.RequestID, "subscribe", k.Suppression, k.Consent, topic.Number, s.Basis,
		millis(s.Expires), millis(by.Occurred), s.Wireless, person)
	if err != nil {
		return out, err
	}
	evidence := map[string]string{"address": s.Address, "source": s.Source, "wording": s.Wording, "method": s.Method}
	row, err := l.newPersonal(evidence, by.Evidence)
	if err != nil {
		return out, err
	}
	joinRow, err := l.newPersonal(map[string]string{"address": s.Address})
	if err != nil {
		return out, err
	}
	e := m.target(Subscribed, by)
	e.Scope, e.Until = topic.Number, millis(s.Expires)
	if k.ConsentDiffers {
		e.Consent = k.Consent
	}
	full := s.Source != "" && s.Wording != "" && s.Method != ""
	if full && s.Basis <= Express && (by.Occurred.IsZero() || l.opt.Now().Sub(by.Occurred) <= MaxYesDelay) {
		e.Flags |= FlagLifts
	}
	e.Detail = map[string]string{"basis": s.Basis.String(), "evidence": map[bool]string{true: "full", false: "partial"}[full]}
	out.Outcome, err = l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		rec := t.record(standing.Key(k.Suppression))
		join, err := mayJoin(t, rec, person)
		if err != nil {
			return 0, false, err
		}
		if len(rec.Facts) >= MaxFacts {
			return 0, false, &Error{Kind: ErrTooManyChanges, Field: "address", Problem: "this address has changed its mind too often for a person",
				Remedy: "look at \"optout explain\"; noes are still taken"}
		}
		if join {
			j := m.target(Joined, by)
			j.Person = person
			if _, err := t.add(&j, joinRow); err != nil {
				return 0, false, err
			}
		}
		if s.Wireless && full {
			w := m.target(WirelessAuthorized, by)
			w.Scope = m.sender.Commercial()
			if _, err := t.add(&w, nil); err != nil {
				return 0, false, err
			}
		}
		e := e
		e.Request = req.id
		at, err := t.add(&e, row)
		return at, true, err
	}, false)
	if err != nil {
		return out, err
	}
	written, err := l.entry(ctx, out.Entry)
	if err != nil {
		return out, err
	}
	out.Topic, out.Key, out.At = topic, written.Key, Time(written.At)
	out.Denials, out.NeedsConfirmation = l.stillDenied(m, topic)
	return out, nil
}

// String names the basis.
func (b Basis) String() string {
	switch b {
	case ImpliedPurchase:
		return "implied-purchase"
	case ImpliedInquiry:
		return "implied-inquiry"
	}
	return "express"
}

func (l *Ledger) checkConsent(s *Subscription, by *By) error {
	for _, c := range []struct {
		field, text string
		limit       int
	}{{"evidence.source", s.Source, 500}, {"evidence.wording", s.Wording, 2000}, {"evidence.method", s.Method, 100}} {
		if err := checkText(c.field, c.text, c.limit, false); err != nil {
			return err
		}
	}
	given := by.Occurred
	if given.IsZero() {
		given = l.opt.Now()
	}
	var latest time.Time
	switch s.Basis {
	case 0, Express:
	case ImpliedPurchase:
		latest = given.AddDate(2, 0, 0)
	case ImpliedInquiry:
		latest = given.AddDate(0, 6, 0)
	default:
		return invalid("basis", "unknown basis", "use EXPRESS, IMPLIED_PURCHASE or IMPLIED_INQUIRY")
	}
	switch {
	case !latest.IsZero() && s.Expires.IsZero():
		return invalid("expires_at", "an implied consent runs out", "say when: at most 2 years after a purchase, 6 months after an inquiry")
	case !latest.IsZero() && s.Expires.After(latest):
		return invalid("expires_at", "it is later than an implied consent lasts", "at most 2 years after a purchase, 6 months after an inquiry")
	case !s.Expires.IsZero() && !s.Expires.After(l.opt.Now()):
		return invalid("expires_at", "it is in the past", "give a later moment, or leave it out")
	case s.Wireless && (s.Source == "" || s.Wording == "" || s.Method == ""):
		return invalid("evidence.wireless_authorization", "an authorisation needs source, wording and method", "give all three")
	}
	return nil
}

// mayJoin tells whether the address must be joined to the person, and refuses what would move it or overfill the person.
func mayJoin(t *tx, rec *standing.Record, person address.Key) (bool, error) {
	p := standing.Key(person)
	switch {
	case person.IsZero() || rec.Person == p:
		return false, nil
	case rec.Person != standing.Key{}:
		return false, &Error{Kind: ErrPersonConflict, Field: "person_id", Problem: "the address belongs to another person already",
			Remedy: "unlink it first (UnlinkPerson), if that was an error"}
	case len(t.members(p)) >= MaxPersonAddresses:
		return false, &Error{Kind: ErrPersonFull, Field: "person_id", Problem: fmt.Sprintf("the person has %d addresses already", MaxPersonAddresses),
			Remedy: "check that person_id names one person, not a group"}
	}
	return true, nil
}

// stillDenied tells what denies a topic now, and whether a yes through the mailbox would help.
func (l *Ledger) stillDenied(m *mailbox, topic *Topic) ([]Denial, bool) {
	v := l.verdictNow(m, topic)
	needs := slices.ContainsFunc(v.Denials, func(d Denial) bool {
		switch d.Reason {
		case ReasonUnder13, ReasonRestricted, ReasonPaused, ReasonWirelessDomain:
			return false
		}
		return true
	})
	return slices.Clone(v.Denials), needs && !v.Send
}

// verdictNow is what a check would answer now, without writing anything: for a required topic, what it would get when its act
// is named.
func (l *Ledger) verdictNow(m *mailbox, topic *Topic) *Verdict {
	sc := l.borrow()
	defer l.scratch.Put(sc)
	q := question{reg: l.Registry(), sender: m.sender, topic: topic, now: l.now(), position: l.head.Load()}
	q.domainRules(&m.addr)
	gather(sc.record, sc.person, &m.keys, &m.base, m.sender.All(), &sc.b)
	v := &Verdict{Topic: topic, Sender: m.sender, Position: q.position}
	evaluate(&q, &sc.b, v)
	return v
}

// ConfirmationWindow is how long a confirmation token is good.
const ConfirmationWindow = 30 * 24 * time.Hour

// ConfirmOutcome tells what a confirmation achieved.
type ConfirmOutcome struct {
	Outcome
	Topic *Topic
	// Denials still deny the topic at this address, such as a no that came after the request.
	Denials []Denial
}

// Confirm records that a yes was proved through the mailbox: scope, position and keyPrefix come out of the confirmation token,
// which the caller has opened. It counts at the position of the request that it confirms, so that any later no stands. It
// needs a RequestID. Confirming twice changes nothing. Errors: ErrConfirmationStale, ErrRequestIDRequired,
// ErrRequestIDReused, and those of a write.
func (l *Ledger) Confirm(ctx context.Context, by By, scope uint32, position uint64, keyPrefix [8]byte) (ConfirmOutcome, error) {
	var out ConfirmOutcome
	if err := requireRequestID(by.RequestID); err != nil {
		return out, err
	}
	if err := l.checkBy(&by); err != nil {
		return out, err
	}
	stale := &Error{Kind: ErrConfirmationStale, Field: "token", Problem: "the request it confirms is too old or no longer stands",
		Remedy: "let the person subscribe again"}
	asked, err := l.entry(ctx, position)
	if notFound(err) {
		return out, stale
	}
	if err != nil {
		return out, err
	}
	if asked.Kind != Subscribed || asked.Scope != scope || [8]byte(asked.Key[:8]) != keyPrefix {
		return out, stale
	}
	req, err := l.beginRequest(ctx, asked.Sender, by.RequestID, "confirm", position)
	if err != nil {
		return out, err
	}
	row, err := l.newPersonal(by.Evidence)
	if err != nil {
		return out, err
	}
	e := Entry{Kind: Confirmed, Channel: by.Channel, Generation: asked.Generation, Sender: asked.Sender, Scope: asked.Scope, Actor: by.Key,
		Key: asked.Key, Consent: asked.Consent, Ref: position, Until: asked.Until}
	out.Outcome, err = l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		rec := t.record(standing.Key(asked.Key))
		for i := range rec.Facts {
			f := &rec.Facts[i]
			if f.Position != position {
				continue
			}
			if kindOf(f) == Confirmed {
				return f.Entry, false, nil
			}
			if t.now > asked.At+ConfirmationWindow.Milliseconds() {
				break
			}
			e := e
			e.Request = req.id
			at, err := t.add(&e, row)
			return at, true, err
		}
		return 0, false, stale
	}, false)
	if err != nil {
		return out, err
	}
	s, _, topic, _ := l.Registry().Scope(asked.Scope)
	out.Topic = topic
	m := &mailbox{sender: s}
	m.keys.N = 1
	m.keys.Of[0] = address.GenerationKeys{Generation: asked.Generation, Suppression: asked.Key, Consent: asked.Consent, ConsentDiffers: !asked.Consent.IsZero()}
	out.Denials, _ = l.stillDenied(m, topic)
	return out, nil
}
