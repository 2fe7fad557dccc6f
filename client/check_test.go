package client_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
)

// Nothing but VERDICT_SEND permits; a verdict that the client does not know is an error.
func TestOnlySendPermits(t *testing.T) {
	if (client.Decision{}).Send() || (client.Answer{}).Send() {
		t.Error("the zero value permits")
	}
	s := newScripted()
	c := s.client(t)
	for v, want := range map[optoutv1.Verdict]bool{1: true, 2: false} {
		s.check = func(*optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
			return &optoutv1.CheckSendResponse{Verdict: v}, nil
		}
		if d, err := c.CheckSend(t.Context(), "news", "a@example.com"); err != nil || d.Send() != want {
			t.Errorf("verdict %d: %v, %v", v, d, err)
		}
	}
	for _, v := range []optoutv1.Verdict{0, 3, -1, 257} {
		s.check = func(*optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
			return &optoutv1.CheckSendResponse{Verdict: v}, nil
		}
		if d, err := c.CheckSend(t.Context(), "news", "a@example.com"); !errors.Is(err, client.ErrCannotAsk) || d.Send() {
			t.Errorf("verdict %d: %v, %v", v, d, err)
		}
	}
}

// A service may be newer than the client: reasons that it does not know are shown, not stumbled over.
func TestDecisionShowsReasonsItDoesNotKnow(t *testing.T) {
	for reason, want := range map[optoutv1.DenialReason]string{99: "DO_NOT_SEND: 99", optoutv1.DenialReason_DENIAL_REASON_COMPLAINT: "DO_NOT_SEND: COMPLAINT"} {
		if got := (client.Decision{Denials: []*optoutv1.Denial{{Reason: reason}}}).String(); got != want {
			t.Errorf("reason %d: %q, want %q", reason, got, want)
		}
	}
}

func TestCheckSendOptionsReachTheService(t *testing.T) {
	s := newSetup(t)
	scope := &optoutv1.Scope{Kind: optoutv1.ScopeKind_SCOPE_KIND_TOPIC, Topic: "news"}
	d, err := s.client.CheckSend(t.Context(), "news", "a@example.com", client.WithHeaders(), client.WithLinkScope(scope), client.WithMailing(7))
	if err != nil || !d.Send() || d.Link == nil {
		t.Fatalf("%v, %v", d, err)
	}
	link, err := optoutv1.NewLinkServiceClient(s.client.Conn()).InspectLink(t.Context(), &optoutv1.InspectLinkRequest{Token: d.Link.Url})
	if err != nil || link.Mailing != 7 || link.Scope.GetTopic() != "news" {
		t.Errorf("the link is %v, %v", link, err)
	}
	if d, err := s.client.CheckSend(t.Context(), "news", "a@example.com"); err != nil || d.Link != nil {
		t.Errorf("a link that nobody wanted: %v, %v", d.Link, err)
	}
	written, err := s.client.Unsubscribe(t.Context(), "a@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err = s.client.CheckSend(t.Context(), "news", "a@example.com", client.AtLeast(written.Position))
	if err != nil || d.Send() || d.Position.GetNumber() < written.Position.Number || d.Denials[0].Entry != written.Entry {
		t.Errorf("after the no: %v, %v", d, err)
	}
	_, err = s.client.CheckSend(t.Context(), "news", "a@example.com", client.AtLeast(&optoutv1.Position{LedgerId: strings.Repeat("0", 16), Number: 1}))
	if client.Reason(err) != optoutv1.ErrorReason_ERROR_REASON_OTHER_LEDGER {
		t.Errorf("a position of another ledger: %v", err)
	}
}

func TestYesAndNo(t *testing.T) {
	s := newSetup(t)
	ctx := t.Context()
	s.optOut(t, "a@example.com")
	yes, err := s.client.Subscribe(ctx, &optoutv1.SubscribeRequest{Topic: "news", Address: "a@example.com",
		Evidence: &optoutv1.ConsentEvidence{Source: "https://example.com/form", Wording: "Yes", Method: "tick-box"}})
	if err != nil || yes.State != optoutv1.SubscriptionState_SUBSCRIPTION_STATE_CONFIRMATION_NEEDED {
		t.Fatalf("%v, %v", yes, err)
	}
	if d, err := s.client.CheckSend(ctx, "news", "a@example.com"); err != nil || d.Send() {
		t.Errorf("before the confirmation: %v, %v", d, err)
	}
	if _, err := s.client.ConfirmSubscription(ctx, yes.ConfirmationToken); err != nil {
		t.Fatal(err)
	}
	if d, err := s.client.CheckSend(ctx, "news", "a@example.com"); err != nil || !d.Send() {
		t.Errorf("after the confirmation: %v, %v", d, err)
	}
}

func TestLinks(t *testing.T) {
	s := newSetup(t)
	one, err := s.client.IssueLink(t.Context(), "news", "p0@example.com", nil, 3)
	if err != nil || !strings.HasPrefix(one.Url, "https://mail.example.com/u/") {
		t.Fatalf("%v, %v", one, err)
	}
	list := make([]string, 1001)
	for i := range list {
		list[i] = "p" + strings.Repeat("0", i%3) + "@example.com"
	}
	list[1000] = "no address"
	links, err := s.client.BatchIssueLinks(t.Context(), "news", list, nil, 3)
	if err != nil || len(links) != 1001 {
		t.Fatalf("%d links, %v", len(links), err)
	}
	if links[1].GetLink().GetUrl() != one.Url || links[999].GetLink().GetUrl() == one.Url || links[1000].GetMalformed() == "" {
		t.Errorf("links stand at the wrong addresses: %v, %v, %v", links[1], links[999], links[1000])
	}
	if none, err := s.client.BatchIssueLinks(t.Context(), "news", nil, nil, 0); err != nil || len(none) != 0 {
		t.Errorf("no addresses: %v, %v", none, err)
	}
}

func TestInAnswerToPassesANo(t *testing.T) {
	s := newSetup(t)
	s.required(t, "password-reset")
	s.optOut(t, "a@example.com")
	if d, err := s.client.CheckSend(t.Context(), "password-reset", "a@example.com"); err != nil || d.Send() {
		t.Errorf("without an act: %v, %v", d, err)
	}
	d, err := s.client.CheckSend(t.Context(), "password-reset", "a@example.com", client.InAnswerTo("password reset requested", time.Now().Add(-time.Minute)))
	if err != nil || !d.Send() || len(d.Denials) == 0 {
		t.Errorf("in answer to an act: %v with %v, %v", d, d.Denials, err)
	}
}
