package rpc

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
	"optout/service/receipt"
)

// ReceiptKey is a public key that verifies receipts.
type ReceiptKey struct {
	ID      byte
	Created time.Time
	Public  ed25519.PublicKey
}

func verifier(keys []ReceiptKey) (*receipt.Verifier, error) {
	byID := map[byte]ed25519.PublicKey{}
	for _, k := range keys {
		byID[k.ID] = k.Public
	}
	return receipt.NewVerifier(byID)
}

// receipt signs that a SEND was given now.
func (h *handlers) receipt(v *ledger.Verdict) string {
	return h.Receipts.Sign(receipt.Claims{Sender: v.Sender.Number, Topic: v.Topic.Number, Key: v.Key, Position: v.Position, Minute: uint32(h.Now().Unix() / 60)})
}

// ListReceiptKeys gives the public receipt keys.
func (h *handlers) ListReceiptKeys(context.Context, *optoutv1.ListReceiptKeysRequest) (*optoutv1.ListReceiptKeysResponse, error) {
	resp := &optoutv1.ListReceiptKeysResponse{}
	for _, k := range h.ReceiptKeys {
		der, err := x509.MarshalPKIXPublicKey(k.Public)
		if err != nil {
			return nil, err
		}
		resp.Keys = append(resp.Keys, &optoutv1.ReceiptKey{Id: uint32(k.ID), Created: stamp(k.Created), Algorithm: "Ed25519",
			PublicKey: base64.StdEncoding.EncodeToString(k.Public), Text: receipt.PublicText(k.ID, k.Public),
			Pem: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))})
	}
	return resp, nil
}

const (
	// maxAuditItems and maxAuditAddresses bound a call of AuditMail: messages, and addresses of one message.
	maxAuditItems     = 1000
	maxAuditAddresses = 1000
	defaultMaxAge     = time.Hour
)

// AuditMail judges mail that has left.
func (h *handlers) AuditMail(ctx context.Context, r *optoutv1.AuditMailRequest) (*optoutv1.AuditMailResponse, error) {
	s, err := h.sender("sender", r.Sender)
	if err != nil {
		return nil, err
	}
	if n := len(r.Items); n == 0 || n > maxAuditItems {
		return nil, &ledger.Error{Kind: ledger.ErrTooManyItems, Field: "items", Problem: fmt.Sprintf("a call takes 1 to %d messages", maxAuditItems), Remedy: "split the list"}
	}
	a := audit{h: h, sender: s, maxAge: defaultMaxAge}
	if r.MaxAge != nil {
		if a.maxAge = r.MaxAge.AsDuration(); r.MaxAge.CheckValid() != nil || a.maxAge < 0 {
			return nil, invalid("max_age", "it is no length of time of 0 or more")
		}
	}
	resp := &optoutv1.AuditMailResponse{Position: h.position(h.Ledger.Position().Number)}
	for i, x := range r.Items {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		result, err := a.judge(ctx, fmt.Sprintf("items[%d]", i), x)
		if err != nil {
			return nil, err
		}
		resp.Results = append(resp.Results, result)
	}
	return resp, nil
}

// audit judges messages of one sender.
type audit struct {
	h      *handlers
	sender *ledger.Sender
	maxAge time.Duration
}

func (a *audit) judge(ctx context.Context, field string, x *optoutv1.AuditItem) (*optoutv1.AuditResult, error) {
	if n := len(x.Addresses); n == 0 && !x.Shown || n > maxAuditAddresses {
		return nil, invalid(field+".addresses", "a message has 1 to %d; it may show none", maxAuditAddresses)
	}
	left, err := moment(field+".left_at", x.LeftAt)
	if err != nil {
		return nil, err
	}
	var about *ledger.Topic
	if x.Topic != "" {
		if about, err = topic(a.sender, field+".topic", x.Topic); err != nil {
			return nil, err
		}
	}
	result := &optoutv1.AuditResult{}
	keys, err := a.keys(x.Addresses, result)
	if err != nil {
		return nil, err
	}
	var claims receipt.Claims
	result.Finding, claims = a.receiptOf(x.Receipt, keys)
	if x.Shown && result.Finding == optoutv1.AuditFinding_AUDIT_FINDING_OTHER_ADDRESS {
		if len(keys) == 0 {
			result.Finding = optoutv1.AuditFinding_AUDIT_FINDING_OK
		} else if only := named(claims.Key, keys); only != nil {
			result.Finding, keys = optoutv1.AuditFinding_AUDIT_FINDING_OK, only
		}
	}
	if result.Checked = result.Finding == optoutv1.AuditFinding_AUDIT_FINDING_OK; result.Checked {
		_, _, about, _ = a.h.Ledger.Registry().Scope(claims.Topic)
		minute := time.Unix(int64(claims.Minute)*60, 0)
		result.CheckedAt, result.CheckedPosition = stamp(minute), claims.Position
		if !left.IsZero() && left.Before(minute) {
			left = minute
		}
		if left.Sub(minute) > a.maxAge {
			result.Finding = optoutv1.AuditFinding_AUDIT_FINDING_STALE
		}
	}
	if about != nil {
		result.Topic = about.Name
	}
	if left.IsZero() {
		return result, nil
	}
	for i, addr := range x.Addresses {
		if keys[i] == nil {
			continue
		}
		v, err := a.h.Ledger.VerdictAt(ctx, a.sender, about, addr, left, result.CheckedPosition)
		if err != nil {
			return nil, err
		}
		if !v.Send {
			result.Finding = optoutv1.AuditFinding_AUDIT_FINDING_AFTER_OPT_OUT
			result.Refused = append(result.Refused, &optoutv1.RefusedThen{Index: uint32(i), Denials: denialsOut(a.h.Ledger.Registry(), v.Denials)})
		}
	}
	return result, nil
}

// keys are the keys of every address, newest generation first; nil for one that cannot be read, which result tells.
func (a *audit) keys(addresses []string, result *optoutv1.AuditResult) ([][][16]byte, error) {
	all := make([][][16]byte, len(addresses))
	for i, addr := range addresses {
		keys, err := a.h.Ledger.AddressKeys(a.sender, addr)
		switch {
		case errors.Is(err, ledger.ErrInvalidAddress):
			result.Unread = append(result.Unread, &optoutv1.UnreadAddress{Index: uint32(i), Message: err.Error()})
		case err != nil:
			return nil, err
		}
		all[i] = keys
	}
	return all, nil
}

// receiptOf tells what a receipt says of a message to the addresses of these keys: OK, or the gravest fault.
func (a *audit) receiptOf(text string, addresses [][][16]byte) (optoutv1.AuditFinding, receipt.Claims) {
	if text == "" {
		return optoutv1.AuditFinding_AUDIT_FINDING_UNCHECKED, receipt.Claims{}
	}
	c, err := a.h.receipts.Verify(text)
	if err != nil {
		return optoutv1.AuditFinding_AUDIT_FINDING_FORGED, c
	}
	s, _, t, known := a.h.Ledger.Registry().Scope(c.Topic)
	if c.Sender != a.sender.Number || !known || t == nil || s.Number != a.sender.Number {
		return optoutv1.AuditFinding_AUDIT_FINDING_OTHER_SENDER, c
	}
	if !covers(c.Key, addresses) {
		return optoutv1.AuditFinding_AUDIT_FINDING_OTHER_ADDRESS, c
	}
	return optoutv1.AuditFinding_AUDIT_FINDING_OK, c
}

// covers tells whether a receipt's key is that of all these addresses together, under one generation of address keys.
func covers(key [16]byte, addresses [][][16]byte) bool {
	generations := 0
	if len(addresses) > 0 {
		generations = len(addresses[0])
	}
	for g := range generations {
		together := make([][16]byte, len(addresses))
		for i, keys := range addresses {
			if keys == nil { // it cannot be read: no check has ever said SEND to it
				return false
			}
			together[i] = keys[g]
		}
		if receipt.JoinKeys(together) == key {
			return true
		}
	}
	return false
}

// named leaves of these addresses the one whose key the receipt has; nil when none has it.
func named(key [16]byte, addresses [][][16]byte) [][][16]byte {
	for i, generations := range addresses {
		if slices.Contains(generations, key) {
			only := make([][][16]byte, len(addresses))
			only[i] = generations
			return only
		}
	}
	return nil
}
