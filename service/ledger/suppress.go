package ledger

import (
	"context"
	"fmt"
	"slices"

	"optout/service/address"
	"optout/service/standing"
)

// Suppression is a no, or a fact that denies, recorded on behalf of a person.
type Suppression struct {
	Sender, Address string
	// Reason: ReasonOptedOutAll, …Commercial, …Topic, ReasonComplaint, ReasonUndeliverable, ReasonRestricted or ReasonUnder13.
	Reason Reason
	// Topic goes with ReasonOptedOutTopic, and names what a complaint was about.
	Topic string
}

// suppressionEntry makes the entry that a reason asks for.
func suppressionEntry(e *Entry, s *Sender, reason Reason, topic string) error {
	var t *Topic
	if topic != "" || reason == ReasonOptedOutTopic {
		var err error
		if t, err = topicOf(s, "topic", topic); err != nil {
			return err
		}
	}
	if t != nil && reason != ReasonOptedOutTopic && reason != ReasonComplaint {
		return invalid("topic", "a topic goes only with OPTED_OUT_TOPIC and COMPLAINT", "leave it out")
	}
	switch reason {
	case ReasonOptedOutAll:
		e.Kind, e.Scope = OptedOut, s.All()
	case ReasonOptedOutCommercial:
		e.Kind, e.Scope = OptedOut, s.Commercial()
	case ReasonOptedOutTopic:
		e.Kind, e.Scope = OptedOut, t.Number
	case ReasonComplaint:
		e.Kind, e.Scope = Complained, s.Commercial()
		if t != nil {
			e.Scope = t.Number
		}
	case ReasonUndeliverable:
		e.Kind = Undeliverable
	case ReasonRestricted:
		e.Kind = Restricted
	case ReasonUnder13:
		e.Kind = Under13
	default:
		return invalid("reason", "it cannot be recorded", "use OPTED_OUT_ALL, OPTED_OUT_COMMERCIAL, OPTED_OUT_TOPIC, COMPLAINT, UNDELIVERABLE, RESTRICTED or UNDER_13")
	}
	return nil
}

// standingFact returns an entry in force that says the same as e, or 0.
func standingFact(t *tx, keys *address.Keys, e *Entry) uint64 {
	if e.Kind == OptedOut {
		return standingNo(t, keys, e)
	}
	for g := range keys.N {
		rec := t.record(standing.Key(keys.Of[g].Suppression))
		yes := newestYes(rec)
		for i := range rec.Facts {
			f := &rec.Facts[i]
			if kindOf(f) != e.Kind || f.Scope != e.Scope || f.Position < yes || f.Until != 0 && (f.Until <= t.now || e.Until == 0) {
				continue
			}
			if f.Flags&factOwn != 0 || e.Channel.Voidable() {
				return f.Entry
			}
		}
	}
	return 0
}

// Suppress records a no or a fact that denies. Restricted and under 13 are the privacy role's. Bounces and complaints are
// feedback, which can be voided; opt-outs are a person's word. Errors: ErrUnknownSender, ErrUnknownTopic, ErrInvalidAddress,
// ErrInvalidField, ErrRoleRequired, ErrRequestIDReused, and those of a write.
func (l *Ledger) Suppress(ctx context.Context, by By, s Suppression) (Outcome, error) {
	m, err := l.mailbox(s.Sender, s.Address)
	if err != nil {
		return Outcome{}, err
	}
	if (s.Reason == ReasonUndeliverable || s.Reason == ReasonComplaint) && by.Channel != ByWebhook {
		by.Channel = ByFeedback
	}
	if s.Reason == ReasonRestricted || s.Reason == ReasonUnder13 {
		if err := requireRole(by, RolePrivacy); err != nil {
			return Outcome{}, err
		}
	}
	if err := l.checkBy(&by); err != nil {
		return Outcome{}, err
	}
	e := m.target(0, by)
	if err := suppressionEntry(&e, m.sender, s.Reason, s.Topic); err != nil {
		return Outcome{}, err
	}
	req, err := l.beginRequest(ctx, m.sender.Number, by.RequestID, "suppress", e.Key, e.Kind, e.Scope, e.Occurred)
	if err != nil {
		return Outcome{}, err
	}
	row, err := l.newPersonal(map[string]string{"address": s.Address}, by.Evidence)
	if err != nil {
		return Outcome{}, err
	}
	return l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		e := e
		if at := standingFact(t, &m.keys, &e); at != 0 {
			return at, false, nil
		}
		if req != nil {
			e.Request = req.id
		}
		at, err := t.add(&e, row)
		return at, true, err
	}, false)
}

// requireRole allows the roles named, and admin.
func requireRole(by By, roles ...Role) error {
	if by.Role == RoleAdmin || slices.Contains(roles, by.Role) {
		return nil
	}
	return &Error{Kind: ErrRoleRequired, Problem: fmt.Sprintf("this needs the role %v, the API key has %v", roles, by.Role),
		Remedy: "use a key with that role", Needs: append(slices.Clone(roles), RoleAdmin)}
}

// Lift lifts a reason that people other than the recipient may lift: undeliverable by an operator, restricted and under 13 by
// the privacy role. It needs a RequestID. Outcome.Entry is 0 when nothing of the kind stood. Errors: ErrNotLiftable,
// ErrRoleRequired, ErrRequestIDRequired, and those of Suppress.
func (l *Ledger) Lift(ctx context.Context, by By, sender, addr string, reason Reason, justification string) (Outcome, error) {
	if err := requireRequestID(by.RequestID); err != nil {
		return Outcome{}, err
	}
	m, err := l.mailbox(sender, addr)
	if err != nil {
		return Outcome{}, err
	}
	role := RolePrivacy
	switch reason {
	case ReasonUndeliverable:
		role = RoleOperator
	case ReasonRestricted, ReasonUnder13:
	case ReasonBlockedDomain:
		return Outcome{}, invalid("reason", "a domain's block is lifted for the whole domain", "use AdminService.UnblockDomain")
	case ReasonWirelessDomain, ReasonPaused, ReasonNoConsent, ReasonConsentExpired, ReasonErased, ReasonOptedOutAll, ReasonOptedOutCommercial,
		ReasonOptedOutTopic, ReasonComplaint:
		return Outcome{}, &Error{Kind: ErrNotLiftable, Field: "reason", Problem: "only a later yes by the person lifts this",
			Remedy: "let the person subscribe and confirm through the mailbox"}
	default:
		return Outcome{}, invalid("reason", "unknown reason", "use UNDELIVERABLE, RESTRICTED or UNDER_13")
	}
	if err := requireRole(by, role); err != nil {
		return Outcome{}, err
	}
	if err := checkText("justification", justification, 500, true); err != nil {
		return Outcome{}, err
	}
	req, err := l.beginRequest(ctx, m.sender.Number, by.RequestID, "lift", m.key(), reason)
	if err != nil {
		return Outcome{}, err
	}
	row, err := l.newPersonal(map[string]string{"address": addr}, by.Evidence)
	if err != nil {
		return Outcome{}, err
	}
	return l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		var last uint64
		for g := range m.keys.N {
			k := &m.keys.Of[g]
			rec := t.record(standing.Key(k.Suppression))
			stands := slices.ContainsFunc(rec.Facts, func(f standing.Fact) bool { return reasonOf(kindOf(&f)) == reason })
			if !stands {
				continue
			}
			e := m.target(Lifted, by)
			e.Generation, e.Key, e.Reason, e.Request = k.Generation, k.Suppression, reason, req.id
			e.Detail = map[string]string{"justification": justification}
			at, err := t.add(&e, row)
			if err != nil {
				return 0, false, err
			}
			last = at
		}
		return last, last != 0, nil
	}, false)
}

// MaxVoidEntries is how many entries one call may void.
const MaxVoidEntries = 1000

// Void voids what machines said in error: all of the entries named, or none. It needs a RequestID. It returns how many are void
// now that were not before. Errors: ErrNotVoidable, ErrNotFound, ErrRoleRequired, ErrRequestIDRequired, and those of a write.
func (l *Ledger) Void(ctx context.Context, by By, sender string, entries []uint64, justification, evidence string) (int, Outcome, error) {
	if err := requireRequestID(by.RequestID); err != nil {
		return 0, Outcome{}, err
	}
	s, err := l.sender(l.Registry(), sender)
	if err != nil {
		return 0, Outcome{}, err
	}
	if err := requireRole(by, RoleOperator); err != nil {
		return 0, Outcome{}, err
	}
	if len(entries) == 0 || len(entries) > MaxVoidEntries {
		return 0, Outcome{}, &Error{Kind: ErrTooManyItems, Field: "entries", Problem: fmt.Sprintf("a call takes 1 to %d entries", MaxVoidEntries), Remedy: "split the list"}
	}
	for field, text := range map[string]string{"justification": justification, "evidence": evidence} {
		if err := checkText(field, text, 500, true); err != nil {
			return 0, Outcome{}, err
		}
	}
	var wrong []*Entry
	for _, p := range entries {
		e, err := l.entry(ctx, p)
		if notFound(err) || err == nil && e.Sender != s.Number {
			return 0, Outcome{}, &Error{Kind: ErrNotFound, Field: "entries", Problem: fmt.Sprintf("sender %q has no entry %d", s.Name, p)}
		}
		if err != nil {
			return 0, Outcome{}, err
		}
		switch e.Kind {
		case OptedOut, Complained, Undeliverable:
		default:
			return 0, Outcome{}, notVoidable(p, "it is not an opt-out, a complaint or a bounce")
		}
		if !e.Channel.Voidable() {
			return 0, Outcome{}, notVoidable(p, "a person said it")
		}
		wrong = append(wrong, e)
	}
	req, err := l.beginRequest(ctx, s.Number, by.RequestID, "void", entries)
	if err != nil {
		return 0, Outcome{}, err
	}
	row, err := l.newPersonal(map[string]string{"evidence": evidence}, by.Evidence)
	if err != nil {
		return 0, Outcome{}, err
	}
	voided := 0
	o, err := l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		var last uint64
		voided = 0
		for _, e := range wrong {
			if !holds(t.record(standing.Key(e.Key)), e.Position) {
				continue
			}
			v := Entry{Kind: Voided, Channel: by.Channel, Generation: e.Generation, Sender: e.Sender, Scope: e.Scope, Actor: by.Key, Key: e.Key,
				Ref: e.Position, Request: req.id, Detail: map[string]string{"justification": justification}}
			at, err := t.add(&v, row)
			if err != nil {
				return 0, false, err
			}
			voided, last = voided+1, at
		}
		return last, last != 0, nil
	}, false)
	if err != nil { // of which voided says nothing: the commit loop may still be at it
		return 0, Outcome{}, err
	}
	if req.replay && o.Created {
		voided, err = l.writtenBy(ctx, req, Voided)
	}
	return voided, o, err
}

// writtenBy counts the entries of a kind that a request wrote, walking back from its last one.
func (l *Ledger) writtenBy(ctx context.Context, req *request, kind Kind) (n int, err error) {
	for at := req.position; ; at-- {
		e, err := l.entry(ctx, at)
		if notFound(err) || err == nil && e.Request != req.id {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		if e.Kind == kind {
			n++
		}
	}
}

func notVoidable(p uint64, why string) error {
	return &Error{Kind: ErrNotVoidable, Field: "entries", Problem: fmt.Sprintf("entry %d cannot be void: %s", p, why),
		Remedy: "only a later yes by the person lifts what a person said"}
}
