package rpc

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
	"optout/service/link"
)

// issuer makes the links of one mailing. A nil issuer makes none.
type issuer struct {
	ring *link.Ring
	base link.Base
	// token lacks only the address key.
	token link.Token
	topic uint32
}

// issuer resolves sender and topic of mail, and returns what makes the links on it; a nil issuer for a required topic, which no
// link stops. field is the name of the request's field that scope came in.
func (h *handlers) issuer(sender, topicName, field string, scope *optoutv1.Scope, mailing uint32) (*ledger.Sender, *issuer, error) {
	s, err := h.sender("sender", sender)
	if err != nil {
		return nil, nil, err
	}
	t, err := topic(s, "topic", topicName)
	if err != nil || t.Class == ledger.Required {
		return s, nil, err
	}
	n, err := linkScope(s, t, field, scope)
	if err != nil {
		return nil, nil, err
	}
	return s, &issuer{h.Ring(), h.base(s), link.Token{Scope: n, Mailing: mailing}, t.Number}, nil
}

// base is where a sender's links point.
func (h *handlers) base(s *ledger.Sender) link.Base {
	b := link.Base{PublicURL: h.PublicURL, MailDomain: h.MailDomain}
	if s.PublicURL != "" {
		b.PublicURL = s.PublicURL
	}
	if s.MailDomain != "" {
		b.MailDomain = s.MailDomain
	}
	return b
}

// linkScope resolves the scope of a link on mail of topic t. Whoever presses it must not get such mail again (RFC 8058 section
// 1), so the scope has to cover the topic.
func linkScope(s *ledger.Sender, t *ledger.Topic, field string, scope *optoutv1.Scope) (uint32, error) {
	kind, name := scope.GetKind(), scope.GetTopic()
	switch {
	case kind == optoutv1.ScopeKind_SCOPE_KIND_TOPIC || kind == optoutv1.ScopeKind_SCOPE_KIND_UNSPECIFIED && name != "":
		only, err := topic(s, field+".topic", name)
		if err == nil && only != t {
			err = invalid(field+".topic", "the link would not stop the mail that carries it: name the mail's own topic, or leave the scope out")
		}
		return t.Number, err
	case name != "":
		return 0, invalid(field+".topic", "a topic goes only with SCOPE_KIND_TOPIC")
	case kind == optoutv1.ScopeKind_SCOPE_KIND_UNSPECIFIED || kind == optoutv1.ScopeKind_SCOPE_KIND_ALL:
		return s.All(), nil
	case kind == optoutv1.ScopeKind_SCOPE_KIND_COMMERCIAL && t.Class != ledger.Commercial:
		return 0, invalid(field+".kind", "the mail is not commercial, so the link would not stop it: leave the scope out, or name the topic")
	case kind == optoutv1.ScopeKind_SCOPE_KIND_COMMERCIAL:
		return s.Commercial(), nil
	}
	return 0, invalid(field+".kind", "unknown scope")
}

// link makes the link of one address key.
func (i *issuer) link(key [16]byte) *optoutv1.UnsubscribeLink {
	t := i.token
	t.Key = key
	l := i.ring.Issue(i.base, t)
	out := &optoutv1.UnsubscribeLink{Url: l.URL, Mailto: l.Mailto, DkimSign: l.DKIMSign, Warning: l.Warning}
	t.Purpose, t.Scope = link.Message, i.topic
	out.MessageToken = string(i.ring.Append(make([]byte, 0, link.Length), t))
	t.Purpose = link.Bounce
	out.ReturnToken = string(i.ring.Append(make([]byte, 0, link.Length), t))
	for _, x := range l.Headers {
		out.Headers = append(out.Headers, &optoutv1.Header{Name: x.Name, Value: x.Value})
	}
	return out
}

var errNoLink = invalid("topic", "mail of a required topic is stopped by no link")

// IssueLink issues the link of one address.
func (h *handlers) IssueLink(_ context.Context, r *optoutv1.IssueLinkRequest) (*optoutv1.IssueLinkResponse, error) {
	s, issue, err := h.issuer(r.Sender, r.Topic, "scope", r.Scope, r.Mailing)
	if err != nil {
		return nil, err
	}
	if issue == nil {
		return nil, errNoLink
	}
	key, _, err := h.Ledger.AddressKey(s, r.Address)
	if err != nil {
		return nil, err
	}
	return &optoutv1.IssueLinkResponse{Link: issue.link(key)}, nil
}

// BatchIssueLinks issues the links of many addresses.
func (h *handlers) BatchIssueLinks(ctx context.Context, r *optoutv1.BatchIssueLinksRequest) (*optoutv1.BatchIssueLinksResponse, error) {
	s, issue, err := h.issuer(r.Sender, r.Topic, "scope", r.Scope, r.Mailing)
	if err != nil {
		return nil, err
	}
	if issue == nil {
		return nil, errNoLink
	}
	if n := len(r.Addresses); n == 0 || n > ledger.MaxBatchAddresses {
		return nil, &ledger.Error{Kind: ledger.ErrTooManyItems, Field: "addresses", Problem: fmt.Sprintf("a call takes 1 to %d addresses", ledger.MaxBatchAddresses), Remedy: "split the list"}
	}
	resp := &optoutv1.BatchIssueLinksResponse{Results: make([]*optoutv1.LinkResult, len(r.Addresses))}
	for i, a := range r.Addresses {
		if i%256 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		key, _, err := h.Ledger.AddressKey(s, a)
		if err != nil {
			resp.Results[i] = &optoutv1.LinkResult{Result: &optoutv1.LinkResult_Malformed{Malformed: err.Error()}}
			continue
		}
		resp.Results[i] = &optoutv1.LinkResult{Result: &optoutv1.LinkResult_Link{Link: issue.link(key)}}
	}
	return resp, nil
}

// InspectLink tells what a link would do.
func (h *handlers) InspectLink(ctx context.Context, r *optoutv1.InspectLinkRequest) (*optoutv1.InspectLinkResponse, error) {
	t, err := h.openToken(ctx, r.Token, link.Unsubscribe)
	if err != nil {
		return nil, err
	}
	reg := h.Ledger.Registry()
	s, _, _, _ := reg.Scope(t.Scope)
	resp := &optoutv1.InspectLinkResponse{Sender: s.Name, Scope: scopeOut(reg, t.Scope), Mailing: t.Mailing, LinkKeyId: uint32(t.KeyID),
		AddressKey: hex.EncodeToString(t.Key[:])}
	entry, since := h.Ledger.InForce(t.Scope, t.Key)
	resp.InForce, resp.Since = entry, stampMillis(since)
	return resp, nil
}

// openToken opens a token, alone or in a URL or mailto, and checks that the caller may act for its sender and, where it says a
// yes, for its topic.
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
		return t, errTopicNotAllowed("token")
	}
	return t, nil
}

// tokenOf takes the token out of a URL or mailto.
func tokenOf(s string) string {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "mailto:"), "?")
	s, _, _ = strings.Cut(s, "@")
	s = strings.TrimRight(s, "/")
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		s = s[i+1:]
	}
	return strings.TrimPrefix(s, link.MailPrefix)
}
