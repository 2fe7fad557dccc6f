package rpc

import (
	"context"
	"fmt"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
	"optout/service/link"
)

// linkTopic resolves sender and topic of mail that will carry links.
func (h *handlers) linkTopic(sender, topic string) (*ledger.Sender, *ledger.Topic, error) {
	s := h.Ledger.Registry().Sender(sender)
	if s == nil {
		return nil, nil, &ledger.Error{Kind: ledger.ErrUnknownSender, Field: "sender", Problem: "there is no such sender", Remedy: "see \"optout sender list\""}
	}
	if topic == "" {
		return nil, nil, invalid("topic", "it is empty")
	}
	t := s.Topic(topic)
	if t == nil {
		return nil, nil, &ledger.Error{Kind: ledger.ErrUnknownTopic, Field: "topic", Problem: "the sender has no such topic", Remedy: "see \"optout topic list\""}
	}
	if t.Class == ledger.Required {
		return nil, nil, invalid("topic", "mail of a required topic is stopped by no link")
	}
	return s, t, nil
}

// IssueLink issues the link of one address.
func (h *handlers) IssueLink(_ context.Context, r *optoutv1.IssueLinkRequest) (*optoutv1.IssueLinkResponse, error) {
	s, t, err := h.linkTopic(r.Sender, r.Topic)
	if err != nil {
		return nil, err
	}
	issue, err := h.issuer(s, t, r.Scope, r.Mailing)
	if err != nil {
		return nil, err
	}
	key, _, err := h.Ledger.AddressKey(s, r.Address)
	if err != nil {
		return nil, err
	}
	return &optoutv1.IssueLinkResponse{Link: issue(key)}, nil
}

// BatchIssueLinks issues the links of many addresses.
func (h *handlers) BatchIssueLinks(ctx context.Context, r *optoutv1.BatchIssueLinksRequest) (*optoutv1.BatchIssueLinksResponse, error) {
	s, t, err := h.linkTopic(r.Sender, r.Topic)
	if err != nil {
		return nil, err
	}
	issue, err := h.issuer(s, t, r.Scope, r.Mailing)
	if err != nil {
		return nil, err
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
		resp.Results[i] = &optoutv1.LinkResult{Result: &optoutv1.LinkResult_Link{Link: issue(key)}}
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
	resp := &optoutv1.InspectLinkResponse{Sender: s.Name, Scope: scopeOut(reg, t.Scope), Mailing: t.Mailing, LinkKeyId: uint32(t.KeyID), AddressKey: keyHex(t.Key)}
	entry, since := h.Ledger.InForce(t.Scope, t.Key)
	resp.InForce, resp.Since = entry, stampMillis(since)
	return resp, nil
}
