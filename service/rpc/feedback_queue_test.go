package rpc_test

import (
	"fmt"
	"slices"
	"testing"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
)

// Who decides must read what was said; where a person was is for privacy, auditor and admin alone.
func TestQueueByRole(t *testing.T) {
	r := newRig(t, nil)
	at := r.queue(unproved("ann@example.com"), map[string]string{"subject": "please stop", "words": "stop it", "from": "ann@example.com", "authentication": "dkim none", "ip": "192.0.2.7", "message_id": "<1@example.com>", "digest": "00ff"})
	for role, whole := range map[optoutv1.Role]bool{optoutv1.Role_ROLE_SUPPORT: false, optoutv1.Role_ROLE_OPERATOR: false, optoutv1.Role_ROLE_PRIVACY: true, optoutv1.Role_ROLE_AUDITOR: true, optoutv1.Role_ROLE_ADMIN: true} {
		ctx := r.as(role)
		list, err := r.feedback.ListQueue(ctx, &optoutv1.ListQueueRequest{})
		got, err2 := r.feedback.GetQueuedMessage(ctx, &optoutv1.GetQueuedMessageRequest{Entry: at})
		if err != nil || err2 != nil || len(list.Messages) != 1 {
			t.Fatal(role, list, err, got, err2)
		}
		for _, m := range []*optoutv1.QueuedMessage{list.Messages[0], got.Message} {
			e := m.Evidence
			if m.Address != "ann@example.com" || e["subject"] != "please stop" || e["words"] != "stop it" || e["from"] != "ann@example.com" || e["authentication"] != "dkim none" {
				t.Errorf("%v cannot read what to decide: %v", role, m)
			}
			if sees := e["ip"] != "" && e["message_id"] != "" && e["digest"] != ""; sees != whole || !whole && len(e) != 4 {
				t.Errorf("%v sees %v", role, e)
			}
			if m.Entry != at || m.Claim != optoutv1.QueueClaim_QUEUE_CLAIM_OPT_OUT || m.Doubt != optoutv1.QueueDoubt_QUEUE_DOUBT_UNPROVED || m.Scope.GetKind() != optoutv1.ScopeKind_SCOPE_KIND_ALL || len(m.AddressKey) != 32 ||
				!m.Waiting || m.Held || m.Known || m.Channel != optoutv1.Channel_CHANNEL_MAIL || m.DueAt.AsTime().Sub(m.ReceivedAt.AsTime()) != ledger.DefaultQueueDelay {
				t.Errorf("%v: %v", role, m)
			}
		}
		if _, err := r.feedback.DecideQueue(ctx, &optoutv1.DecideQueueRequest{Entries: []uint64{at}, Decision: 1}); (reason(err) == "ROLE_REQUIRED") != (role != optoutv1.Role_ROLE_OPERATOR && role != optoutv1.Role_ROLE_ADMIN) {
			t.Errorf("%v decides: %v", role, err)
		}
	}
}

// Pages come oldest first, each message once, also while others come; a page token is good for its own filter alone.
func TestQueuePages(t *testing.T) {
	r := newRig(t, nil)
	var want []uint64
	for i := range 25 {
		item := unproved(fmt.Sprintf("p%d@example.com", i))
		if i%5 == 0 {
			item.Doubt = ledger.DoubtForged
		}
		want = append(want, r.queue(item, nil))
	}
	var got []uint64
	q := &optoutv1.ListQueueRequest{PageSize: 7}
	for {
		resp, err := r.feedback.ListQueue(r.ctx(), q)
		if err != nil || len(resp.Messages) > 7 {
			t.Fatal(resp, err)
		}
		for _, m := range resp.Messages {
			got = append(got, m.Entry)
		}
		if q.PageToken = resp.NextPageToken; q.PageToken == "" {
			break
		}
		r.queue(unproved(fmt.Sprintf("late%d@example.com", len(got))), nil)
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages: %v, want %v", got, want)
	}
	forged := []optoutv1.QueueDoubt{optoutv1.QueueDoubt_QUEUE_DOUBT_FORGED}
	first, err := r.feedback.ListQueue(r.ctx(), &optoutv1.ListQueueRequest{Doubts: forged, PageSize: 3})
	if err != nil || len(first.Messages) != 3 || first.NextPageToken == "" {
		t.Fatal(first, err)
	}
	if _, err := r.feedback.ListQueue(r.ctx(), &optoutv1.ListQueueRequest{PageSize: 3, PageToken: first.NextPageToken}); reason(err) != "INVALID_PAGE_TOKEN" {
		t.Errorf("another filter's page token: %v", err)
	}
	rest, err := r.feedback.ListQueue(r.ctx(), &optoutv1.ListQueueRequest{Doubts: forged, PageToken: first.NextPageToken})
	if err != nil || len(rest.Messages) != 2 || rest.NextPageToken != "" {
		t.Errorf("the rest: %v, %v", rest, err)
	}
}

// A decision does what the message claims, can be voided, and is shown as decided.
func TestDecideQueue(t *testing.T) {
	r := newRig(t, nil)
	optOut, complaint := r.queue(unproved("ann@example.com"), nil), r.queue(ledger.QueueItem{Address: "bob@example.com", Claim: ledger.ClaimComplaint, Doubt: ledger.DoubtReporter,
		Scope: ledger.Scope{Kind: ledger.ScopeCommercial}}, nil)
	forged := r.queue(ledger.QueueItem{Address: "cy@example.com", Claim: ledger.ClaimOptOut, Doubt: ledger.DoubtForged}, nil)
	ctx := r.as(optoutv1.Role_ROLE_OPERATOR)
	decide := func(d optoutv1.QueueDecision, entries ...uint64) (uint32, error) {
		resp, err := r.feedback.DecideQueue(ctx, &optoutv1.DecideQueueRequest{Entries: entries, Decision: d, Justification: "read by hand"})
		return resp.GetDecided(), err
	}
	r.want("news", "ann@example.com")
	if n, err := decide(optoutv1.QueueDecision_QUEUE_DECISION_SUPPRESS, optOut, complaint, optOut); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := decide(optoutv1.QueueDecision_QUEUE_DECISION_DISMISS, forged, optOut); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	r.want("receipts", "ann@example.com", optedOutAll)
	r.want("news", "bob@example.com", complained)
	r.want("news", "cy@example.com")
	shown, err := r.feedback.GetQueuedMessage(ctx, &optoutv1.GetQueuedMessageRequest{Entry: optOut})
	if err != nil || shown.Message.Waiting || shown.Message.Address != "ann@example.com" {
		t.Errorf("decided: %v, %v", shown, err)
	}
	if list, err := r.feedback.ListQueue(ctx, &optoutv1.ListQueueRequest{}); err != nil || len(list.Messages) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
	no, err := r.suppression.ListSuppressions(r.ctx(), &optoutv1.ListSuppressionsRequest{Reasons: []optoutv1.DenialReason{optedOutAll}})
	if err != nil || len(no.Suppressions) != 1 || no.Suppressions[0].Address != "ann@example.com" {
		t.Fatal(no, err)
	}
	if v, err := r.suppression.VoidEntries(ctx, &optoutv1.VoidEntriesRequest{Entries: []uint64{no.Suppressions[0].Entry}, Justification: "forged after all", Evidence: "ticket 7", RequestId: "v"}); err != nil || v.Voided != 1 {
		t.Errorf("voided: %v, %v", v, err)
	}
	r.want("news", "ann@example.com")
}
