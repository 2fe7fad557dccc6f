package rpc

import (
	"context"
	"fmt"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
)

func (h *handlers) senderOut(s *ledger.Sender) *optoutv1.Sender {
	b := h.base(s)
	return &optoutv1.Sender{Name: s.Name, DisplayName: s.DisplayName, PostalAddress: s.PostalAddress, PublicUrl: s.PublicURL, MailDomain: s.MailDomain,
		PrivacyPolicyUrl: s.PrivacyPolicyURL, PrivacyPolicyVersion: s.PrivacyPolicyVersion, DataProtectionContact: s.DataProtection, Number: s.Number,
		CreatedAt: stamp(s.Created), EffectivePublicUrl: b.PublicURL, EffectiveMailDomain: b.MailDomain,
		ContactAddress: s.ContactAddress, ForwardAddress: s.ForwardAddress}
}

// CreateSender creates a sender.
func (h *handlers) CreateSender(ctx context.Context, r *optoutv1.CreateSenderRequest) (*optoutv1.CreateSenderResponse, error) {
	s := r.GetSender()
	given := func(v string) *string {
		if v == "" {
			return nil
		}
		return &v
	}
	o, err := h.Ledger.CreateSender(ctx, by(ctx), s.GetName(), ledger.SenderSettings{DisplayName: given(s.GetDisplayName()), PostalAddress: given(s.GetPostalAddress()),
		PublicURL: given(s.GetPublicUrl()), MailDomain: given(s.GetMailDomain()), PrivacyPolicyURL: given(s.GetPrivacyPolicyUrl()),
		PrivacyPolicyVersion: given(s.GetPrivacyPolicyVersion()), DataProtection: given(s.GetDataProtectionContact()), ContactAddress: given(s.GetContactAddress()),
		ForwardAddress: given(s.GetForwardAddress())})
	if err != nil {
		return nil, err
	}
	return &optoutv1.CreateSenderResponse{Sender: h.senderOut(h.Ledger.Registry().Sender(s.GetName())), Position: h.position(o.Position)}, nil
}

// UpdateSender changes the settings that are given.
func (h *handlers) UpdateSender(ctx context.Context, r *optoutv1.UpdateSenderRequest) (*optoutv1.UpdateSenderResponse, error) {
	o, err := h.Ledger.UpdateSender(ctx, by(ctx), r.Name, ledger.SenderSettings{DisplayName: r.DisplayName, PostalAddress: r.PostalAddress, PublicURL: r.PublicUrl,
		MailDomain: r.MailDomain, PrivacyPolicyURL: r.PrivacyPolicyUrl, PrivacyPolicyVersion: r.PrivacyPolicyVersion, DataProtection: r.DataProtectionContact, ContactAddress: r.ContactAddress,
		ForwardAddress: r.ForwardAddress})
	if err != nil {
		return nil, err
	}
	return &optoutv1.UpdateSenderResponse{Sender: h.senderOut(h.Ledger.Registry().Sender(r.Name)), Position: h.position(o.Position)}, nil
}

// GetSender shows one sender.
func (h *handlers) GetSender(_ context.Context, r *optoutv1.GetSenderRequest) (*optoutv1.GetSenderResponse, error) {
	s, err := h.sender("name", r.Name)
	if err != nil {
		return nil, err
	}
	return &optoutv1.GetSenderResponse{Sender: h.senderOut(s)}, nil
}

// ListSenders lists the senders that the key is bound to.
func (h *handlers) ListSenders(ctx context.Context, _ *optoutv1.ListSendersRequest) (*optoutv1.ListSendersResponse, error) {
	resp := &optoutv1.ListSendersResponse{}
	for _, s := range h.Ledger.Registry().Senders() {
		if caller(ctx).MayUseSender(s.Name) {
			resp.Senders = append(resp.Senders, h.senderOut(s))
		}
	}
	return resp, nil
}

func topicOut(t *ledger.Topic) *optoutv1.Topic {
	return &optoutv1.Topic{Name: t.Name, Description: t.Description, Class: optoutv1.TopicClass(t.Class), ConsentRule: optoutv1.ConsentRule(t.Rule),
		Ground: optoutv1.RequiredGround(t.Ground), Justification: t.Justification, Number: t.Number, CreatedAt: stamp(t.Created), BuiltIn: t.BuiltIn}
}

// CreateTopic creates a topic.
func (h *handlers) CreateTopic(ctx context.Context, r *optoutv1.CreateTopicRequest) (*optoutv1.CreateTopicResponse, error) {
	t := r.GetTopic()
	o, err := h.Ledger.CreateTopic(ctx, by(ctx), r.Sender, ledger.Topic{Name: t.GetName(), Description: t.GetDescription(), Class: ledger.Class(t.GetClass()),
		Rule: ledger.ConsentRule(t.GetConsentRule()), Ground: ledger.Ground(t.GetGround()), Justification: t.GetJustification()})
	if err != nil {
		return nil, err
	}
	return &optoutv1.CreateTopicResponse{Topic: topicOut(h.Ledger.Registry().Sender(r.Sender).Topic(t.GetName())), Position: h.position(o.Position)}, nil
}

// UpdateTopic tightens or re-describes a topic.
func (h *handlers) UpdateTopic(ctx context.Context, r *optoutv1.UpdateTopicRequest) (*optoutv1.UpdateTopicResponse, error) {
	o, err := h.Ledger.UpdateTopic(ctx, by(ctx), r.Sender, r.Name, ledger.TopicChange{Description: r.Description, Class: ledger.Class(r.Class), Rule: ledger.ConsentRule(r.ConsentRule)})
	if err != nil {
		return nil, err
	}
	return &optoutv1.UpdateTopicResponse{Topic: topicOut(h.Ledger.Registry().Sender(r.Sender).Topic(r.Name)), Position: h.position(o.Position)}, nil
}

// ListTopics lists a sender's topics.
func (h *handlers) ListTopics(_ context.Context, r *optoutv1.ListTopicsRequest) (*optoutv1.ListTopicsResponse, error) {
	s, err := h.sender("sender", r.Sender)
	if err != nil {
		return nil, err
	}
	resp := &optoutv1.ListTopicsResponse{}
	for _, t := range s.Topics() {
		resp.Topics = append(resp.Topics, topicOut(t))
	}
	if i := s.NewestImport; i.Position != 0 {
		resp.NewestImport = &optoutv1.ImportInfo{Source: i.Source, At: stamp(i.At), Entry: i.Position}
	}
	return resp, nil
}

// BlockDomain suppresses a whole domain.
func (h *handlers) BlockDomain(ctx context.Context, r *optoutv1.BlockDomainRequest) (*optoutv1.BlockDomainResponse, error) {
	o, err := h.Ledger.BlockDomain(ctx, by(ctx), r.Sender, r.Domain, r.Justification)
	if err != nil {
		return nil, err
	}
	return &optoutv1.BlockDomainResponse{Entry: o.Entry, Position: h.position(o.Position)}, nil
}

// UnblockDomain lifts the block of a domain.
func (h *handlers) UnblockDomain(ctx context.Context, r *optoutv1.UnblockDomainRequest) (*optoutv1.UnblockDomainResponse, error) {
	who := by(ctx)
	who.RequestID = r.RequestId
	o, err := h.Ledger.UnblockDomain(ctx, who, r.Sender, r.Domain, r.Justification)
	if err != nil {
		return nil, err
	}
	return &optoutv1.UnblockDomainResponse{Entry: o.Entry, Position: h.position(o.Position)}, nil
}

// ImportWirelessDomains takes over the FCC's list.
func (h *handlers) ImportWirelessDomains(ctx context.Context, r *optoutv1.ImportWirelessDomainsRequest) (*optoutv1.ImportWirelessDomainsResponse, error) {
	at, err := moment("list_date", r.ListDate)
	if err != nil {
		return nil, err
	}
	domains := make([]ledger.WirelessDomain, len(r.Domains))
	for i, d := range r.Domains {
		domains[i].Domain = d.Domain
		if domains[i].FirstListed, err = moment(fmt.Sprintf("domains[%d].first_listed_at", i), d.FirstListedAt); err != nil {
			return nil, err
		}
	}
	listed, delisted, position, err := h.Ledger.ImportWireless(ctx, by(ctx), domains, at)
	if err != nil {
		return nil, err
	}
	return &optoutv1.ImportWirelessDomainsResponse{Listed: uint32(listed), Delisted: uint32(delisted), Position: h.position(position)}, nil
}

// ListDomainRules lists blocked and wireless domains.
func (h *handlers) ListDomainRules(_ context.Context, r *optoutv1.ListDomainRulesRequest) (*optoutv1.ListDomainRulesResponse, error) {
	s, err := h.sender("sender", r.Sender)
	if err != nil {
		return nil, err
	}
	reg := h.Ledger.Registry()
	resp := &optoutv1.ListDomainRulesResponse{WirelessListDate: stamp(reg.WirelessListDate)}
	add := func(rules []ledger.DomainRule, reason optoutv1.DenialReason) {
		for _, d := range rules {
			resp.Rules = append(resp.Rules, &optoutv1.DomainRule{Domain: d.Domain, Reason: reason, Entry: d.Position, Since: stamp(d.Since), Justification: d.Justification})
		}
	}
	add(s.Blocked(), optoutv1.DenialReason_DENIAL_REASON_BLOCKED_DOMAIN)
	add(reg.Wireless(), optoutv1.DenialReason_DENIAL_REASON_WIRELESS_DOMAIN)
	return resp, nil
}

func apiKeyOut(k *ledger.APIKey) *optoutv1.ApiKey {
	return &optoutv1.ApiKey{Number: k.Number, Label: k.Label, Role: optoutv1.Role(k.Role), Senders: k.Senders, Topics: k.Topics, CreatedAt: stamp(k.Created), RevokedAt: stamp(k.Revoked),
		DefaultTopic: k.DefaultTopic, ListSoftware: k.ListSoftware, ObserveUntil: stamp(k.ObserveUntil)}
}

// CreateApiKey creates an API key and shows its secret this once.
func (h *handlers) CreateApiKey(ctx context.Context, r *optoutv1.CreateApiKeyRequest) (*optoutv1.CreateApiKeyResponse, error) {
	secret, err := NewSecret(h.Random)
	if err != nil {
		return nil, err
	}
	k, o, err := h.Ledger.CreateAPIKey(ctx, by(ctx), ledger.NewAPIKey{Label: r.Key.GetLabel(), Role: ledger.Role(r.Key.GetRole()), Senders: r.Key.GetSenders(), Topics: r.Key.GetTopics(),
		DefaultTopic: r.Key.GetDefaultTopic(), ListSoftware: r.Key.GetListSoftware()}, secret)
	if err != nil {
		return nil, err
	}
	return &optoutv1.CreateApiKeyResponse{Key: apiKeyOut(k), Secret: secret, Position: h.position(o.Position)}, nil
}

// ListApiKeys lists API keys.
func (h *handlers) ListApiKeys(context.Context, *optoutv1.ListApiKeysRequest) (*optoutv1.ListApiKeysResponse, error) {
	resp := &optoutv1.ListApiKeysResponse{}
	for _, k := range h.Ledger.Registry().APIKeys() {
		resp.Keys = append(resp.Keys, apiKeyOut(k))
	}
	return resp, nil
}

// UpdateApiKey changes an API key's settings.
func (h *handlers) UpdateApiKey(ctx context.Context, r *optoutv1.UpdateApiKeyRequest) (*optoutv1.UpdateApiKeyResponse, error) {
	until, err := moment("observe_until", r.ObserveUntil)
	if err != nil {
		return nil, err
	}
	change := ledger.KeyChange{DefaultTopic: r.DefaultTopic, ListSoftware: r.ListSoftware}
	if r.ObserveUntil != nil {
		change.ObserveUntil = &until
	}
	o, err := h.Ledger.UpdateAPIKey(ctx, by(ctx), r.Number, change)
	if err != nil {
		return nil, err
	}
	return &optoutv1.UpdateApiKeyResponse{Key: apiKeyOut(h.Ledger.Registry().APIKey(r.Number)), Position: h.position(o.Position)}, nil
}

// RevokeApiKey revokes an API key.
func (h *handlers) RevokeApiKey(ctx context.Context, r *optoutv1.RevokeApiKeyRequest) (*optoutv1.RevokeApiKeyResponse, error) {
	o, err := h.Ledger.RevokeAPIKey(ctx, by(ctx), r.Number)
	if err != nil {
		return nil, err
	}
	return &optoutv1.RevokeApiKeyResponse{Key: apiKeyOut(h.Ledger.Registry().APIKey(r.Number)), Position: h.position(o.Position)}, nil
}

func (h *handlers) linkKeyOut(s ledger.Secret) *optoutv1.LinkKey {
	return &optoutv1.LinkKey{Id: uint32(s.ID), Current: s.ID == uint16(h.Ring().Current()), CreatedAt: stamp(s.Created), CheckValue: s.Check}
}

// RotateLinkKey makes a new link key the current one.
func (h *handlers) RotateLinkKey(ctx context.Context, _ *optoutv1.RotateLinkKeyRequest) (*optoutv1.RotateLinkKeyResponse, error) {
	s, o, err := h.Options.RotateLinkKey(ctx, by(ctx))
	if err != nil {
		return nil, err
	}
	return &optoutv1.RotateLinkKeyResponse{Key: h.linkKeyOut(s), Position: h.position(o.Position)}, nil
}

// ListLinkKeys lists the link keys.
func (h *handlers) ListLinkKeys(context.Context, *optoutv1.ListLinkKeysRequest) (*optoutv1.ListLinkKeysResponse, error) {
	resp := &optoutv1.ListLinkKeysResponse{}
	for _, s := range h.Ledger.Registry().Secrets("link") {
		resp.Keys = append(resp.Keys, h.linkKeyOut(s))
	}
	return resp, nil
}
