package rpc

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

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
		resp.ConfirmationToken = h.Ring().Seal(link.Token{Purpose: link.Confirm, Scope: o.Topic.Number, Mailing: uint32(o.At.Unix() / 60),
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
	o, err := h.Ledger.Confirm(ctx, who, t.Scope, position, prefix)
	if err != nil {
		return nil, err
	}
	return &optoutv1.ConfirmSubscriptionResponse{Entry: o.Entry, Topic: o.Topic.Name, Denials: denialsOut(h.Ledger.Registry(), o.Denials),
		Position: h.position(o.Position)}, nil
}

// openToken opens a token and checks that the caller may act for its sender and topic.
func (h *handlers) openToken(ctx context.Context, s string, purpose link.Purpose) (link.Token, error) {
	t, err := h.Ring().Open(tokenOf(s), purpose)
	if err != nil {
		return t, err
	}
	sender, _, topic, ok := h.Ledger.Registry().Scope(t.Scope)
	if !ok {
		return t, link.ErrInvalid
	}
	k := caller(ctx)
	if !k.MayUseSender(sender.Name) {
		return t, errSenderNotAllowed
	}
	if topic != nil && purpose == link.Confirm && !k.MayUseTopic(topic) {
		return t, errTopicNotAllowed
	}
	return t, nil
}

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
	filter := proto.CloneOf(r)
	filter.PageSize, filter.PageToken = 0, ""
	p, err := pageIn(r.PageSize, r.PageToken, filter)
	if err != nil {
		return nil, err
	}
	found, p, err := h.Ledger.Subscriptions(ctx, p, r.Sender, r.Topic)
	if err != nil {
		return nil, err
	}
	resp := &optoutv1.ListSubscriptionsResponse{NextPageToken: pageOut(p, filter), Position: h.position(p.Bound)}
	for i := range found {
		x := &found[i]
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
