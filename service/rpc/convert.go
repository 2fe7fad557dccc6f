package rpc

import (
	"fmt"
	"maps"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
)

// moment reads a timestamp; none is the zero time.
func moment(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, invalid(field, "it is no valid time")
	}
	return t.AsTime(), nil
}

// stamp writes a time; the zero time is none.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func stampMillis(ms int64) *timestamppb.Timestamp { return stamp(ledger.Time(ms)) }

func (h *handlers) position(n uint64) *optoutv1.Position {
	return &optoutv1.Position{LedgerId: h.Ledger.ID(), Number: n}
}

func atLeast(p *optoutv1.Position) ledger.Position {
	return ledger.Position{LedgerID: p.GetLedgerId(), Number: p.GetNumber()}
}

func scopeIn(s *optoutv1.Scope) ledger.Scope {
	return ledger.Scope{Kind: ledger.ScopeKind(s.GetKind()), Topic: s.GetTopic()}
}

// scopeOut names a scope number; nil for none.
func scopeOut(reg *ledger.Registry, n uint32) *optoutv1.Scope {
	_, kind, topic, ok := reg.Scope(n)
	if !ok {
		return nil
	}
	s := &optoutv1.Scope{Kind: optoutv1.ScopeKind(kind)}
	if topic != nil {
		s.Topic = topic.Name
	}
	return s
}

func denialsOut(reg *ledger.Registry, denials []ledger.Denial) []*optoutv1.Denial {
	if len(denials) == 0 {
		return nil
	}
	out := make([]*optoutv1.Denial, len(denials))
	for i, d := range denials {
		out[i] = &optoutv1.Denial{Reason: optoutv1.DenialReason(d.Reason), Scope: scopeOut(reg, d.Scope), Since: stampMillis(d.Since), Entry: d.Entry, Joined: d.Joined}
	}
	return out
}

func verdictOut(v *ledger.Verdict) optoutv1.Verdict {
	if v.Send {
		return optoutv1.Verdict_VERDICT_SEND
	}
	return optoutv1.Verdict_VERDICT_DO_NOT_SEND
}

func topicVerdicts(reg *ledger.Registry, verdicts []*ledger.Verdict) []*optoutv1.TopicVerdict {
	out := make([]*optoutv1.TopicVerdict, len(verdicts))
	for i, v := range verdicts {
		out[i] = &optoutv1.TopicVerdict{Topic: v.Topic.Name, Verdict: verdictOut(v), Denials: denialsOut(reg, v.Denials)}
	}
	return out
}

// actor names who wrote an entry.
func actor(reg *ledger.Registry, e *ledger.Entry) string {
	switch k := reg.APIKey(e.Actor); {
	case k != nil:
		return fmt.Sprintf("API key %d (%s)", k.Number, k.Label)
	case e.Channel == ledger.BySystem:
		return "service"
	}
	return "recipient"
}

// entryOut shows an entry, with as much of its evidence as see allows. own tells whether it is about the address asked about.
func entryOut(reg *ledger.Registry, l *ledger.Line, see detail, own bool) *optoutv1.Entry {
	e := &optoutv1.Entry{Position: l.Position, Kind: optoutv1.EntryKind(l.Kind), Channel: optoutv1.Channel(l.Channel), At: stampMillis(l.At),
		OccurredAt: stampMillis(l.Occurred), Scope: scopeOut(reg, l.Scope), Mailing: l.Mailing, Actor: actor(reg, &l.Entry), Prev: l.Prev, Ref: l.Ref,
		Until: stampMillis(l.Until), Detail: maps.Clone(l.Detail), Evidence: evidenceOut(l.Evidence, see, own), LeafHash: l.Leaf[:]}
	if s, _, _, ok := reg.Scope(l.Sender); ok {
		e.Sender = s.Name
	}
	if !l.Key.IsZero() {
		e.AddressKey = l.Key.String()
	}
	if l.Reason != 0 {
		if e.Detail == nil {
			e.Detail = map[string]string{}
		}
		e.Detail["reason"] = l.Reason.String()
	}
	return e
}

// sender finds a sender by name.
func (h *handlers) sender(field, name string) (*ledger.Sender, error) {
	s := h.Ledger.Registry().Sender(name)
	if s == nil {
		return nil, &ledger.Error{Kind: ledger.ErrUnknownSender, Field: field, Problem: "there is no such sender", Remedy: "see \"optout sender list\""}
	}
	return s, nil
}

// topic finds a topic by name.
func topic(s *ledger.Sender, field, name string) (*ledger.Topic, error) {
	if name == "" {
		return nil, invalid(field, "it is empty")
	}
	t := s.Topic(name)
	if t == nil {
		return nil, &ledger.Error{Kind: ledger.ErrUnknownTopic, Field: field, Problem: "the sender has no such topic", Remedy: "see \"optout topic list\""}
	}
	return t, nil
}
