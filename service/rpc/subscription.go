package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
	"optout/service/link"
)

// Subscribe records a person's yes.
func (h *handlers) Subscribe(ctx context.Context, r *optoutv1.SubscribeRequest) (*optoutv1.SubscribeResponse, error) {
	who, e := by(ctx), r.Evidence
	who.RequestID = r.RequestId
	who.Evidence = map[string]string{"language": e.GetLanguage(), "policy_version": e.GetPolicyVersion(), "ip": e.GetIp(), "user_agent": e.GetUserAgent()}
	var err error
	if who.Occurred, err = moment("occurred_at", r.OccurredAt); err != nil {
		return nil, err
	}
	s := ledger.Subscription{Sender: r.Sender, Topic: r.Topic, Address: r.Address, Basis: ledger.Basis(r.Basis), Source: e.GetSource(), Wording: e.GetWording(),
		Method: e.GetMethod(), Wireless: e.GetWirelessAuthorization(), PersonID: r.PersonId}
	if s.Expires, err = moment("expires_at", r.ExpiresAt); err != nil {
		return nil, err
	}
	if err := checkLength("evidence.user_agent", e.GetUserAgent(), 500); err != nil {
		return nil, err
	}
	o, err := h.Ledger.Subscribe(ctx, who, s)
	if err != nil {
		return nil, err
	}
	resp := &optoutv1.SubscribeResponse{Entry: o.Entry, State: optoutv1.SubscriptionState_SUBSCRIPTION_STATE_ACTIVE, Position: h.position(o.Position),
		Denials: denialsOut(h.Ledger.Registry(), o.Denials)}
	if o.NeedsConfirmation {
		resp.State = optoutv1.SubscriptionState_SUBSCRIPTION_STATE_CONFIRMATION_NEEDED
		// Made of the entry alone, so that a retry gets the same token.
		resp.ConfirmationToken = h.Ring().Seal(link.Token{Purpose: link.Confirm, Scope: o.Topic.Number, Mailing: minuteOf(o.At),
			Key: ledger.PackRef(o.Entry, o.Key)})
	}
	return resp, nil
}

// ConfirmSubscription records that a yes was proved through the mailbox.
func (h *handlers) ConfirmSubscription(ctx context.Context, r *optoutv1.ConfirmSubscriptionRequest) (*optoutv1.ConfirmSubscriptionResponse, error) {
	t, err := h.openToken(ctx, r.Token, link.Confirm)
	if err != nil {
		return nil, err
	}
	if err := checkLength("user_agent", r.UserAgent, 500); err != nil {
		return nil, err
	}
	who := by(ctx)
	who.RequestID, who.Evidence = r.RequestId, map[string]string{"ip": r.Ip, "user_agent": r.UserAgent}
	position, prefix := ledger.UnpackRef(t.Key)
	if err := h.askedAt(ctx, position, t.Mailing); err != nil {
		return nil, err
	}
	o, err := h.Ledger.Confirm(ctx, who, t.Scope, position, prefix)
	if err != nil {
		return nil, err
	}
	return &optoutv1.ConfirmSubscriptionResponse{Entry: o.Entry, Topic: o.Topic.Name, Denials: denialsOut(h.Ledger.Registry(), o.Denials),
		Position: h.position(o.Position)}, nil
}

// askedAt checks that the request at a position was made in the minute that its token says. It was not when the ledger was
// rolled back since, and the position is another request's.
func (h *handlers) askedAt(ctx context.Context, position uint64, minute uint32) error {
	l, err := h.Ledger.Line(ctx, position)
	if errors.Is(err, ledger.ErrNotFound) || err == nil && minuteOf(ledger.Time(l.At)) != minute {
		return &ledger.Error{Kind: ledger.ErrConfirmationStale, Field: "token", Problem: "the request it confirms is not on the ledger", Remedy: "let the person subscribe again"}
	}
	return err
}

// minuteOf is a time as tokens carry it.
func minuteOf(t time.Time) uint32 { return uint32(t.Unix() / 60) }

// Unsubscribe records a person's no.
func (h *handlers) Unsubscribe(ctx context.Context, r *optoutv1.UnsubscribeRequest) (*optoutv1.UnsubscribeResponse, error) {
	who := by(ctx)
	who.RequestID, who.Evidence = r.RequestId, map[string]string{"note": r.Note}
	var err error
	if who.Occurred, err = moment("occurred_at", r.OccurredAt); err != nil {
		return nil, err
	}
	if err := checkLength("note", r.Note, 500); err != nil {
		return nil, err
	}
	var o ledger.Outcome
	if r.Token == "" {
		o, err = h.Ledger.OptOut(ctx, who, r.Sender, r.Address, scopeIn(r.Scope))
	} else {
		if r.Address != "" || r.Sender != "" || r.Scope != nil {
			return nil, invalid("token", "a token says address, sender and scope itself: give it alone")
		}
		var t link.Token
		if t, err = h.openToken(ctx, r.Token, link.Unsubscribe); err != nil {
			return nil, err
		}
		generation, ok := h.Ledger.Registry().LinkGeneration(t.KeyID)
		if !ok {
			return nil, link.ErrInvalid
		}
		who.Mailing = t.Mailing
		o, err = h.Ledger.Press(ctx, who, t.Scope, generation, t.Key)
	}
	if err != nil {
		return nil, err
	}
	return &optoutv1.UnsubscribeResponse{Entry: o.Entry, Created: o.Created, Position: h.position(o.Position)}, nil
}

// GetRecipient tells how an address stands.
func (h *handlers) GetRecipient(ctx context.Context, r *optoutv1.GetRecipientRequest) (*optoutv1.GetRecipientResponse, error) {
	st, err := h.Ledger.Recipient(ctx, r.Sender, r.Address)
	if err != nil {
		return nil, err
	}
	return &optoutv1.GetRecipientResponse{AddressKey: st.Key.String(), Verdicts: topicVerdicts(h.Ledger.Registry(), st.Verdicts),
		PersonAddresses: uint32(st.PersonAddresses), Known: st.Known, Position: h.position(st.Position)}, nil
}

// ListSubscriptions lists yeses in force.
func (h *handlers) ListSubscriptions(ctx context.Context, r *optoutv1.ListSubscriptionsRequest) (*optoutv1.ListSubscriptionsResponse, error) {
	p, err := h.pageIn(r)
	if err != nil {
		return nil, err
	}
	found, next, err := h.Ledger.Subscriptions(ctx, p.page, r.Sender, r.Topic)
	if err != nil {
		return nil, err
	}
	resp := &optoutv1.ListSubscriptionsResponse{NextPageToken: p.next(next), Position: h.position(next.Bound)}
	for i := range found {
		x := &found[i]
		if !caller(ctx).MayUseTopic(x.Topic) {
			continue
		}
		resp.Subscriptions = append(resp.Subscriptions, &optoutv1.Subscription{Topic: x.Topic.Name, Entry: x.Position, Since: stampMillis(x.At),
			ExpiresAt: stampMillis(x.Until), Confirmed: x.Confirmed, AddressKey: x.Key.String(), Address: x.Address})
	}
	return resp, nil
}

// UpdatePreferences records choices that a person made together.
func (h *handlers) UpdatePreferences(ctx context.Context, r *optoutv1.UpdatePreferencesRequest) (*optoutv1.UpdatePreferencesResponse, error) {
	choices := make([]ledger.Preference, len(r.Changes))
	for i, c := range r.Changes {
		switch c := c.Change.(type) {
		case *optoutv1.PreferenceChange_OptOut:
			choices[i] = ledger.Preference{Kind: ledger.OptedOut, Scope: scopeIn(c.OptOut)}
		case *optoutv1.PreferenceChange_Resume:
			choices[i] = ledger.Preference{Kind: ledger.Resumed, Scope: scopeIn(c.Resume)}
		case *optoutv1.PreferenceChange_Pause:
			until, err := moment(fmt.Sprintf("changes[%d].pause.until", i), c.Pause.GetUntil())
			if err != nil {
				return nil, err
			}
			choices[i] = ledger.Preference{Kind: ledger.Paused, Scope: scopeIn(c.Pause.GetScope()), Until: until}
		}
	}
	who := by(ctx)
	who.RequestID = r.RequestId
	entries, o, err := h.Ledger.UpdatePreferences(ctx, who, r.Sender, r.Address, choices)
	if err != nil {
		return nil, err
	}
	return &optoutv1.UpdatePreferencesResponse{Entries: entries, Position: h.position(o.Position)}, nil
}

// UnlinkPerson parts an address from its person.
func (h *handlers) UnlinkPerson(ctx context.Context, r *optoutv1.UnlinkPersonRequest) (*optoutv1.UnlinkPersonResponse, error) {
	who := by(ctx)
	who.RequestID = r.RequestId
	o, err := h.Ledger.UnlinkPerson(ctx, who, r.Sender, r.Address, r.Justification)
	if err != nil {
		return nil, err
	}
	return &optoutv1.UnlinkPersonResponse{Entry: o.Entry, Position: h.position(o.Position)}, nil
}
