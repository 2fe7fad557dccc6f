package ledger

import (
	"optout/service/standing"
)

// Denial is one reason that denies, or that a required topic passed.
type Denial struct {
	Reason Reason
	// Scope is the scope number of what the no covers; 0 for reasons that have none.
	Scope uint32
	// Since is when the no was said, unix milliseconds; 0 where there is no such moment.
	Since int64
	// Entry said it; 0 where no entry did.
	Entry uint64
	// Joined: it was said at another address of the same person.
	Joined bool
}

// Verdict is the answer to "may I send?". The zero value means do not send.
type Verdict struct {
	// Send is true only when the mail may leave now.
	Send bool
	// Denials are the reasons, strongest first; with Send those that the required topic passed.
	Denials []Denial
	// Topic is what was asked about.
	Topic *Topic
	// Sender is its sender.
	Sender *Sender
	// Position is the head of the ledger that the verdict reflects.
	Position uint64
	// InSpite is the entry that records a SEND given in spite of a no; 0 for every other verdict.
	InSpite uint64
	// WirelessFrom is when a listed wireless domain will begin to deny, unix milliseconds; 0 for none.
	WirelessFrom int64

	// Key and Generation are the suppression key of the address, for its link.
	Key        [16]byte
	Generation uint16

	passed bool // some no was passed
}

// question is a check with its names resolved.
type question struct {
	reg    *Registry
	sender *Sender
	topic  *Topic
	now    int64
	// position is the head that the answer reflects at least
	position uint64
	// domain rules that the address falls under
	blocked, wireless     DomainRule
	isBlocked, isWireless bool
}

// WirelessGrace is how long after a domain's first listing mail to it may still be sent without authorisation
// (47 CFR 64.3100(a)(4)), in milliseconds.
const WirelessGrace = 30 * day

const day = int64(24 * 60 * 60 * 1000)

// evidence of one address, gathered from standing: its own facts under every generation of keys, with yeses for other
// consent forms left out, and the opt-outs from ALL of the person's other addresses, or of the mailbox that it is a sub-address of.
type bearing struct {
	own    []standing.Fact
	joined []standing.Fact
}

// evaluate gives the verdict: law 2's table over the facts. It is the only place that decides.
func evaluate(q *question, b *bearing, v *Verdict) {
	topic, class := q.topic.Number, q.topic.Class
	all, commercial := q.sender.All(), q.sender.Commercial()
	yes, consent := strongestYes(b.own, topic)

	var found [reasonEnd]Denial
	deny := func(d Denial) {
		if f := &found[d.Reason]; f.Reason == 0 || (f.Joined && !d.Joined) {
			*f = d
		}
	}
	var newestNo uint64                      // newest no covering the topic: an older consent is withdrawn
	authorised, stoppedAt := false, int64(0) // wireless: an authorisation ends with the next stop
	for i := range b.own {
		f := &b.own[i]
		d := Denial{Scope: f.Scope, Since: f.At, Entry: f.Entry}
		switch kindOf(f) {
		case Under13, Restricted:
			d.Reason = reasonOf(kindOf(f))
			deny(d)
		case Undeliverable, Erased:
			if f.Position > yes && (f.Until == 0 || f.Until > q.now) {
				d.Reason = reasonOf(kindOf(f))
				deny(d)
			}
			if kindOf(f) == Erased {
				newestNo = max(newestNo, f.Position)
			}
		case OptedOut:
			switch f.Scope {
			case all:
				d.Reason = ReasonOptedOutAll
			case commercial:
				d.Reason = ReasonOptedOutCommercial
			case topic:
				d.Reason = ReasonOptedOutTopic
			default:
				continue
			}
			if f.Scope != commercial || class == Commercial {
				newestNo = max(newestNo, f.Position)
			}
			if f.Position > yes && (f.Scope != topic || !liftedBySubscribe(b.own, f)) {
				deny(d)
			}
			if f.Scope == all || f.Scope == commercial {
				authorised, stoppedAt = false, f.At
			}
		case Complained:
			if class != Required && (class == Commercial || f.Scope == topic) {
				newestNo = max(newestNo, f.Position)
				if f.Position > yes {
					d.Reason = ReasonComplaint
					deny(d)
				}
			}
			authorised, stoppedAt = false, f.At
		case Paused:
			if f.Until > q.now && (f.Scope == all || f.Scope == topic || f.Scope == commercial && class == Commercial) {
				d.Reason = ReasonPaused
				deny(d)
			}
		case WirelessAuthorized:
			authorised = f.Occurred == 0 || f.Occurred >= stoppedAt
		}
	}
	for i := range b.joined {
		if f := &b.joined[i]; f.Position > yes {
			deny(Denial{Reason: ReasonOptedOutAll, Scope: f.Scope, Since: f.At, Entry: f.Entry, Joined: true})
		}
	}
	if q.isBlocked && q.blocked.Position > yes {
		deny(Denial{Reason: ReasonBlockedDomain, Since: millis(q.blocked.Since), Entry: q.blocked.Position})
	}
	if q.isWireless && !authorised && class == Commercial {
		from := millis(q.wireless.Since) + WirelessGrace
		if q.now >= from {
			deny(Denial{Reason: ReasonWirelessDomain, Since: from, Entry: q.wireless.Position})
		} else {
			v.WirelessFrom = from
		}
	}
	if q.topic.Rule == OptInRule {
		switch {
		case consent == nil || consent.Position < newestNo:
			deny(Denial{Reason: ReasonNoConsent, Scope: topic})
		case consent.Until != 0 && consent.Until <= q.now:
			deny(Denial{Reason: ReasonConsentExpired, Scope: topic, Since: consent.Until, Entry: consent.Entry})
		}
	}

	v.Denials = v.Denials[:0]
	v.Send, v.passed = true, false
	for r := Reason(1); r < reasonEnd; r++ {
		if found[r].Reason == 0 {
			continue
		}
		does := r.effectOn(class)
		if r == ReasonComplaint {
			does = applies // only the complaints that bear on this topic were found
		}
		switch does {
		case applies:
			v.Send = false
		case passes:
			v.passed = true
		case absent:
			continue
		}
		v.Denials = append(v.Denials, found[r])
	}
	if v.passed && !v.Send {
		v.passed = false
	}
}

// strongestYes returns the position at which the newest confirmed yes to the topic counts (0 for none), and that yes.
func strongestYes(facts []standing.Fact, topic uint32) (uint64, *standing.Fact) {
	var best *standing.Fact
	for i := range facts {
		if f := &facts[i]; kindOf(f) == Confirmed && f.Scope == topic && (best == nil || f.Position > best.Position) {
			best = f
		}
	}
	if best == nil {
		return 0, nil
	}
	return best.Position, best
}

// liftedBySubscribe reports whether a collector's yes with full evidence, given after the topic's no, lifts it. The order of
// positions decides; the reported time may only weaken.
func liftedBySubscribe(facts []standing.Fact, no *standing.Fact) bool {
	for i := range facts {
		f := &facts[i]
		if kindOf(f) == Subscribed && f.Scope == no.Scope && f.Flags&factLifts != 0 && f.Position > no.Position &&
			(f.Occurred == 0 || f.Occurred >= no.At) {
			return true
		}
	}
	return false
}
