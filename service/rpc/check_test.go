package rpc_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/rpc"
)

const (
	send      = optoutv1.Verdict_VERDICT_SEND
	doNotSend = optoutv1.Verdict_VERDICT_DO_NOT_SEND

	optedOutAll = optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_ALL
	noConsent   = optoutv1.DenialReason_DENIAL_REASON_NO_CONSENT
)

// From the check to the link, from the link to the no, from the no to the next check.
func TestCheckSendGivesHeaders(t *testing.T) {
	r := newRig(t, nil)
	resp, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Topic: "news", Address: "ann@example.com", WantHeaders: true, Mailing: 7})
	if err != nil || resp.Verdict != send || len(resp.Link.GetHeaders()) != 2 || len(resp.Link.DkimSign) != 2 {
		t.Fatalf("%v, %v", resp, err)
	}
	if strings.Contains(resp.Link.Url, "ann") || !strings.HasPrefix(resp.Link.Url, "https://mail.example.com/u/") {
		t.Errorf("the link is %s", resp.Link.Url)
	}
	for _, spelling := range []string{resp.Link.Url, resp.Link.Mailto, resp.Link.Url[len("https://mail.example.com/u/"):], strings.ToUpper(resp.Link.Url[len("https://mail.example.com/u/"):])} {
		inspect, err := r.link.InspectLink(r.ctx(), &optoutv1.InspectLinkRequest{Token: spelling})
		if err != nil || inspect.Mailing != 7 || inspect.Sender != "default" || inspect.Scope.Kind != optoutv1.ScopeKind_SCOPE_KIND_ALL || inspect.InForce != 0 || inspect.LinkKeyId != 1 {
			t.Errorf("%s: %v, %v", spelling, inspect, err)
		}
	}
	out, err := r.subscription.Unsubscribe(r.ctx(), &optoutv1.UnsubscribeRequest{Token: resp.Link.Url})
	if err != nil || !out.Created {
		t.Fatalf("%v, %v", out, err)
	}
	resp, err = r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Topic: "news", Address: "Ann@EXAMPLE.com", WantHeaders: true, AtLeast: out.Position})
	if err != nil || resp.Verdict != doNotSend || resp.Link != nil || len(resp.Denials) != 1 || resp.Denials[0].Entry != out.Entry ||
		resp.Denials[0].Reason != optedOutAll || resp.Denials[0].Since == nil || resp.Position.Number < out.Position.Number || resp.Position.LedgerId != out.Position.LedgerId {
		t.Errorf("%v, %v", resp, err)
	}
	inspect, err := r.link.InspectLink(r.ctx(), &optoutv1.InspectLinkRequest{Token: out.Position.LedgerId})
	if reason(err) != "INVALID_TOKEN" {
		t.Errorf("no token at all: %v, %v", inspect, err)
	}
	e, err := r.entries.ListEntries(r.ctx(), &optoutv1.ListEntriesRequest{After: out.Entry - 1, PageSize: 1})
	if err != nil || len(e.Entries) != 1 || e.Entries[0].Channel != optoutv1.Channel_CHANNEL_API || e.Entries[0].Mailing != 7 || e.Entries[0].Actor != "API key 1 (first)" {
		t.Errorf("on the ledger: %v, %v", e, err)
	}
}

// Whoever presses a link gets no more mail like the one that carried it, so no link is issued whose scope leaves that out.
func TestLinksStopTheMailThatCarriesThem(t *testing.T) {
	r := newRig(t, nil)
	all, commercial, topic := optoutv1.ScopeKind_SCOPE_KIND_ALL, optoutv1.ScopeKind_SCOPE_KIND_COMMERCIAL, optoutv1.ScopeKind_SCOPE_KIND_TOPIC
	for _, c := range []struct {
		topic string
		scope *optoutv1.Scope
		want  string // the reason of the error, or the kind of the link's scope
	}{
		{"news", nil, all.String()},
		{"news", &optoutv1.Scope{}, all.String()},
		{"news", &optoutv1.Scope{Kind: commercial}, commercial.String()},
		{"news", &optoutv1.Scope{Topic: "news"}, topic.String()},
		{"news", &optoutv1.Scope{Kind: topic, Topic: "news"}, topic.String()},
		{"news", &optoutv1.Scope{Topic: "receipts"}, "INVALID_FIELD"},
		{"news", &optoutv1.Scope{Topic: "nosuch"}, "UNKNOWN_TOPIC"},
		{"news", &optoutv1.Scope{Topic: "law"}, "INVALID_FIELD"},
		{"news", &optoutv1.Scope{Kind: all, Topic: "news"}, "INVALID_FIELD"},
		{"news", &optoutv1.Scope{Kind: topic}, "INVALID_FIELD"},
		{"news", &optoutv1.Scope{Kind: 9}, "INVALID_FIELD"},
		{"receipts", &optoutv1.Scope{Kind: commercial}, "INVALID_FIELD"},
		{"law", nil, "INVALID_FIELD"},
	} {
		got := func(l *optoutv1.UnsubscribeLink, err error) string {
			if err != nil {
				return reason(err)
			}
			i, err := r.link.InspectLink(r.ctx(), &optoutv1.InspectLinkRequest{Token: l.GetUrl()})
			if err != nil {
				return reason(err)
			}
			return i.Scope.Kind.String()
		}
		issued, err := r.link.IssueLink(r.ctx(), &optoutv1.IssueLinkRequest{Topic: c.topic, Address: "a@example.com", Scope: c.scope})
		if g := got(issued.GetLink(), err); g != c.want {
			t.Errorf("IssueLink for %s, scope %v: %s, want %s (%v)", c.topic, c.scope, g, c.want, err)
		}
		if c.topic == "law" {
			continue // a check of it succeeds, without a link
		}
		checked, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Topic: c.topic, Address: "a@example.com", WantHeaders: true, LinkScope: c.scope})
		if g := got(checked.GetLink(), err); g != c.want {
			t.Errorf("CheckSend for %s, scope %v: %s, want %s (%v)", c.topic, c.scope, g, c.want, err)
		}
	}
}

func TestBatchCheckSendAnswersByIndex(t *testing.T) {
	r := newRig(t, nil)
	r.optOut("out@example.com")
	req := &optoutv1.BatchCheckSendRequest{Topic: "news", WantHeaders: true, Mailing: 9,
		Addresses: []string{"a@example.com", "out@example.com", "not an address", "OUT@example.com", "b@example.com"}}
	resp, err := r.suppression.BatchCheckSend(r.ctx(), req)
	if err != nil {
		t.Fatal(err)
	}
	if string(resp.Verdicts) != "\x01\x02\x02\x02\x01" || len(resp.Refused) != 2 || resp.Refused[0].Index != 1 || resp.Refused[1].Index != 3 ||
		resp.Refused[1].Denials[0].Reason != optedOutAll || len(resp.Malformed) != 1 || resp.Malformed[0].Index != 2 || len(resp.Links) != 2 ||
		resp.Links[0].Index != 0 || resp.Links[1].Index != 4 || resp.Position.GetNumber() == 0 {
		t.Errorf("%v", resp)
	}
	if strings.Contains(resp.Malformed[0].Message, "not an address") || resp.Malformed[0].Message == "" {
		t.Errorf("the fault is told as %q", resp.Malformed[0].Message)
	}
	// Each link is its own address's, the very one that is issued alone and in a batch.
	issued, err := r.link.BatchIssueLinks(r.ctx(), &optoutv1.BatchIssueLinksRequest{Topic: "news", Mailing: 9, Addresses: req.Addresses})
	if err != nil || len(issued.Results) != 5 || issued.Results[2].GetMalformed() != resp.Malformed[0].Message ||
		issued.Results[4].GetLink().GetUrl() != resp.Links[1].Link.Url || issued.Results[0].GetLink().GetUrl() == issued.Results[4].GetLink().GetUrl() {
		t.Errorf("%v, %v", issued, err)
	}
	req.WantHeaders = false
	if resp, err = r.suppression.BatchCheckSend(r.ctx(), req); err != nil || len(resp.Links) != 0 {
		t.Errorf("links that nobody wanted: %v, %v", resp.GetLinks(), err)
	}
}

// What a batch says of each refused address is what a check of it alone says.
func TestBatchDetailsAreThoseOfACheckAlone(t *testing.T) {
	r := newRig(t, nil)
	var addresses []string
	for i := range 150 {
		addr := fmt.Sprintf("p%d@example.com", i)
		addresses = append(addresses, addr)
		req := &optoutv1.UnsubscribeRequest{Address: addr}
		switch i % 4 {
		case 0:
			req.Scope = &optoutv1.Scope{Kind: optoutv1.ScopeKind_SCOPE_KIND_COMMERCIAL}
		case 1:
			req.Scope = &optoutv1.Scope{Topic: "digest"}
		case 2:
			continue // no consent
		}
		if _, err := r.subscription.Unsubscribe(r.ctx(), req); err != nil {
			t.Fatal(err)
		}
	}
	for i, addr := range []string{"j1@example.com", "j2@example.com"} {
		if _, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "news", Address: addr, PersonId: "p", RequestId: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, addr)
	}
	r.optOut("j1@example.com")
	for _, topic := range []string{"news", "digest", "receipts"} {
		batch, err := r.suppression.BatchCheckSend(r.ctx(), &optoutv1.BatchCheckSendRequest{Topic: topic, Addresses: addresses})
		if err != nil {
			t.Fatal(err)
		}
		refused := map[uint32][]*optoutv1.Denial{}
		for _, x := range batch.Refused {
			refused[x.Index] = x.Denials
		}
		for i, addr := range addresses {
			alone, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Topic: topic, Address: addr})
			if err != nil {
				t.Fatal(err)
			}
			same := slices.EqualFunc(refused[uint32(i)], alone.Denials, func(a, b *optoutv1.Denial) bool { return proto.Equal(a, b) })
			if optoutv1.Verdict(batch.Verdicts[i]) != alone.Verdict || !same {
				t.Errorf("%s to %s: %v %v in the batch, %v %v alone", topic, addr, batch.Verdicts[i], refused[uint32(i)], alone.Verdict, alone.Denials)
			}
		}
	}
}

func TestBatchLimits(t *testing.T) {
	r := newRig(t, nil)
	longest := make([]string, 10000) // 10 000 addresses of 254 octets, the longest there are
	for i := range longest {
		n := fmt.Sprintf("%06d", i)
		longest[i] = n + strings.Repeat("a", 58) + "@" + strings.Repeat("b", 60) + "." + strings.Repeat("c", 60) + "." + strings.Repeat("d", 59) + ".example"
	}
	if len(longest[0]) != 254 {
		t.Fatal(len(longest[0]))
	}
	resp, err := r.suppression.BatchCheckSend(r.ctx(), &optoutv1.BatchCheckSendRequest{Topic: "news", Addresses: longest})
	if err != nil || len(resp.Verdicts) != 10000 || len(resp.Malformed) != 0 {
		t.Errorf("the largest batch: %d verdicts, %v", len(resp.GetVerdicts()), err)
	}
	for _, addresses := range [][]string{nil, append(longest, "a@example.com")} {
		_, err := r.suppression.BatchCheckSend(r.ctx(), &optoutv1.BatchCheckSendRequest{Topic: "news", Addresses: addresses})
		if reason(err) != "TOO_MANY_ITEMS" || info(err).Metadata["limit"] != "10000" {
			t.Errorf("BatchCheckSend of %d: %v", len(addresses), err)
		}
		_, err = r.link.BatchIssueLinks(r.ctx(), &optoutv1.BatchIssueLinksRequest{Topic: "news", Addresses: addresses})
		if reason(err) != "TOO_MANY_ITEMS" || info(err).Metadata["limit"] != "10000" {
			t.Errorf("BatchIssueLinks of %d: %v", len(addresses), err)
		}
	}
}

// A required topic passes a person's no, on the record; ground "answer" only when the person's act is named.
func TestRequiredTopics(t *testing.T) {
	r := newRig(t, nil)
	no := r.optOut("ann@example.com")
	act := func(what string, ago time.Duration) *optoutv1.InAnswerTo {
		return &optoutv1.InAnswerTo{Act: what, At: timestamppb.New(time.Now().Add(-ago))}
	}
	for name, c := range map[string]struct {
		topic   string
		act     *optoutv1.InAnswerTo
		want    optoutv1.Verdict
		refused string // the reason of the error
	}{
		"by law":               {"law", nil, send, ""},
		"no act named":         {"reset", nil, doNotSend, ""},
		"an act":               {"reset", act("password reset requested", time.Minute), send, ""},
		"30 days ago":          {"reset", act("password reset requested", 30*24*time.Hour-time.Minute), send, ""},
		"more than 30 days":    {"reset", act("password reset requested", 30*24*time.Hour+time.Minute), 0, "INVALID_FIELD"},
		"in the future":        {"reset", act("password reset requested", -time.Hour), 0, "INVALID_FIELD"},
		"an act without when":  {"reset", &optoutv1.InAnswerTo{Act: "password reset requested"}, 0, "INVALID_FIELD"},
		"when without what":    {"reset", act("", time.Minute), 0, "INVALID_FIELD"},
		"when that is no time": {"reset", &optoutv1.InAnswerTo{Act: "x", At: &timestamppb.Timestamp{Nanos: -1}}, 0, "INVALID_FIELD"},
		"not a required topic": {"news", act("password reset requested", time.Minute), doNotSend, ""},
	} {
		before := r.ledger.Position().Number
		resp, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Topic: c.topic, Address: "ann@example.com", InAnswerTo: c.act, WantHeaders: true})
		if reason(err) != c.refused || resp.GetVerdict() != c.want || resp.GetLink() != nil {
			t.Errorf("%s: %v, %v", name, resp, err)
			continue
		}
		if c.want != send {
			if after := r.ledger.Position().Number; after != before {
				t.Errorf("%s: %d entries were written", name, after-before)
			}
			continue
		}
		list, err := r.entries.ListEntries(r.ctx(), &optoutv1.ListEntriesRequest{After: before})
		if err != nil || len(list.Entries) != 1 || list.Entries[0].Kind != optoutv1.EntryKind_ENTRY_KIND_SENT_IN_SPITE || list.Entries[0].Ref != no.Entry ||
			list.Entries[0].Scope.GetTopic() != c.topic || list.Entries[0].Detail["in_answer_to"] != c.act.GetAct() || list.Entries[0].Actor != "API key 1 (first)" {
			t.Errorf("%s: on the ledger: %v, %v", name, list, err)
		}
		if len(resp.Denials) != 1 || resp.Denials[0].Entry != no.Entry || resp.Position.Number <= before {
			t.Errorf("%s: it does not say which no was passed: %v", name, resp)
		}
	}
	// In a batch too; a scope of link that is wrong leaves no entry behind.
	before := r.ledger.Position().Number
	batch := &optoutv1.BatchCheckSendRequest{Topic: "reset", Addresses: []string{"ann@example.com", "bob@example.com"}}
	if resp, err := r.suppression.BatchCheckSend(r.ctx(), batch); err != nil || string(resp.Verdicts) != "\x02\x01" {
		t.Errorf("%v, %v", resp, err)
	}
	batch.InAnswerTo = act("password reset requested", time.Minute)
	if resp, err := r.suppression.BatchCheckSend(r.ctx(), batch); err != nil || string(resp.Verdicts) != "\x01\x01" {
		t.Errorf("%v, %v", resp, err)
	}
	if after := r.ledger.Position().Number; after != before+1 {
		t.Errorf("%d entries, want 1: only one was sent in spite", after-before)
	}
}

// A check with at_least waits for the position, and gives up with the caller's deadline.
func TestAtLeast(t *testing.T) {
	answered := make(chan codes.Code, 8)
	r := newRig(t, func(o *rpc.Options) {
		o.Observe = func(method string, code codes.Code, _ time.Duration) {
			if method == "/optout.v1.SuppressionService/CheckSend" {
				answered <- code
			}
		}
	})
	check := func(ctx context.Context, number uint64) (*optoutv1.CheckSendResponse, error) {
		return r.suppression.CheckSend(ctx, &optoutv1.CheckSendRequest{Topic: "news", Address: "ann@example.com",
			AtLeast: &optoutv1.Position{LedgerId: r.ledger.ID(), Number: number}})
	}
	wanted := r.ledger.Position().Number + 1
	written := make(chan *optoutv1.UnsubscribeResponse)
	go func() {
		time.Sleep(50 * time.Millisecond)
		written <- r.optOut("ann@example.com")
	}()
	resp, err := check(r.ctx(), wanted)
	if err != nil || resp.Verdict != doNotSend || resp.Position.Number < wanted {
		t.Errorf("%v, %v", resp, err)
	}
	<-written
	if code := <-answered; code != codes.OK {
		t.Errorf("answered %v", code)
	}
	ctx, cancel := context.WithTimeout(r.ctx(), 100*time.Millisecond)
	defer cancel()
	if _, err := check(ctx, wanted+1000); err == nil {
		t.Error("a position that nobody reached was answered")
	}
	if code := <-answered; code != codes.DeadlineExceeded {
		t.Errorf("answered %v", code)
	}
}

// Consent is narrow: it holds for the form of the address that gave it.
func TestOptInTopics(t *testing.T) {
	r := newRig(t, nil)
	r.want("digest", "ann@example.com", noConsent)
	r.optOut("ann@example.com")
	r.want("digest", "ann@example.com", optedOutAll, noConsent)
}
