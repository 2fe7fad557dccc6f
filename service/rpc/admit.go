package rpc

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
)

// call is a call's context: it carries the API key that calls.
type call struct {
	context.Context
	key *ledger.APIKey
}

type callerKey struct{}

func (c *call) Value(name any) any {
	if name == (callerKey{}) {
		return c.key
	}
	return c.Context.Value(name)
}

// caller is the API key that calls. Behind the interceptors there always is one, but for open methods.
func caller(ctx context.Context) *ledger.APIKey {
	return ctx.Value(callerKey{}).(*ledger.APIKey)
}

// by is what the core is told of the caller.
func by(ctx context.Context) ledger.By {
	k := caller(ctx)
	return ledger.By{Key: k.Number, Role: k.Role, Channel: ledger.ByAPI}
}

// admit authenticates the caller and looks up the role. Whatever is wrong with a credential, the answer is the same.
func (h *handlers) admit(ctx context.Context, method string) (*ledger.APIKey, error) {
	if open[method] {
		return nil, nil
	}
	var k *ledger.APIKey
	if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) == 1 {
		if scheme, secret, ok := strings.Cut(values[0], " "); ok && strings.EqualFold(scheme, "bearer") {
			k = h.Ledger.Registry().Authenticate(secret)
		}
	}
	if k == nil {
		return nil, errUnauthenticated
	}
	if !slices.Contains(policy[method], k.Role) {
		return nil, needsRole(policy[method])
	}
	if global[method] && len(k.Senders) > 0 {
		return nil, errSenderNotAllowed
	}
	return k, nil
}

// bounds checks the sender and the topic of a request against those that the key is bound to. A key that is bound learns
// nothing of other senders, not even whether they exist.
func (h *handlers) bounds(k *ledger.APIKey, method string, req any) error {
	name, named := senderOf(req)
	if k == nil || !named {
		return nil
	}
	if name == "" {
		name = ledger.DefaultSender
	}
	if !k.MayUseSender(name) {
		return errSenderNotAllowed
	}
	r, ok := req.(interface{ GetTopic() string })
	if !ok || !topical[method] {
		return nil
	}
	s := h.Ledger.Registry().Sender(name)
	if s == nil {
		return nil // the core says that it is unknown
	}
	if t := s.Topic(r.GetTopic()); t != nil && !k.MayUseTopic(t) {
		return errTopicNotAllowed("topic")
	}
	return nil
}

// senderOf tells the sender that a request names. Requests that name none are of global methods, or their handlers check
// what the key is bound to: ListSenders, and those that take a token (see openToken).
func senderOf(req any) (name string, named bool) {
	switch r := req.(type) {
	case *optoutv1.GetSenderRequest:
		return r.Name, true
	case *optoutv1.UpdateSenderRequest:
		return r.Name, true
	case *optoutv1.ListEntriesRequest:
		return r.Sender, r.Sender != "" // none named: all of the key's
	case *optoutv1.UnsubscribeRequest:
		return r.Sender, r.Token == "" // a token says the sender
	case *optoutv1.RecordBounceRequest:
		return r.Sender, r.Token == ""
	case *optoutv1.RecordComplaintRequest:
		return r.Sender, r.Token == ""
	case interface{ GetSender() string }:
		return r.GetSender(), true
	}
	return "", false
}
