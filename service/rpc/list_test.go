package rpc_test

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
)

// Pages stay whole while others write: each entry that was there at the first page comes exactly once, in order.
func TestPagesStayWhole(t *testing.T) {
	r := newRig(t, nil)
	for i := range 50 {
		r.optOut(fmt.Sprintf("p%d@example.com", i))
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				r.subscription.Unsubscribe(r.ctx(), &optoutv1.UnsubscribeRequest{Address: fmt.Sprintf("new%d@example.org", i)})
			}
		}
	})
	defer writer.Wait()
	defer close(stop)
	for _, order := range []optoutv1.ListOrder{optoutv1.ListOrder_LIST_ORDER_NEWEST_FIRST, optoutv1.ListOrder_LIST_ORDER_POSITION} {
		var entries []uint64
		var bound uint64
		old, fresh := 0, 0
		for token := ""; ; {
			resp, err := r.suppression.ListSuppressions(r.ctx(), &optoutv1.ListSuppressionsRequest{Order: order, PageSize: 7, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			if bound == 0 {
				bound = resp.Position.Number
			}
			if len(resp.Suppressions) > 7 || resp.Position.Number != bound {
				t.Fatalf("%v: a page of %d, bounded by %d, the first by %d", order, len(resp.Suppressions), resp.Position.Number, bound)
			}
			for _, s := range resp.Suppressions {
				entries = append(entries, s.Entry)
				if strings.HasPrefix(s.Address, "p") {
					old++
				} else if s.Entry > bound {
					fresh++
				}
			}
			if token = resp.NextPageToken; token == "" {
				break
			}
		}
		inOrder := slices.IsSorted(entries)
		if order != optoutv1.ListOrder_LIST_ORDER_POSITION {
			slices.Reverse(entries)
			inOrder = slices.IsSorted(entries)
		}
		if all := len(entries); !inOrder || len(slices.Compact(entries)) != all {
			t.Errorf("%v: out of order, or twice: %v", order, entries)
		}
		if old != 50 || fresh != 0 {
			t.Errorf("%v: %d of the 50 that were there, %d newer than the bound", order, old, fresh)
		}
	}
}

func TestListSuppressionsFilters(t *testing.T) {
	r := newRig(t, nil)
	began := time.Now().Add(-time.Second)
	r.optOut("all@example.com")
	r.optOut("sub@mail.example.com")
	r.optOut("other@notexample.com")
	if _, err := r.subscription.Unsubscribe(r.ctx(), &optoutv1.UnsubscribeRequest{Address: "topic@example.com", Scope: &optoutv1.Scope{Topic: "news"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.suppression.CreateSuppression(r.ctx(), &optoutv1.CreateSuppressionRequest{Address: "gone@example.com", Reason: optoutv1.DenialReason_DENIAL_REASON_UNDELIVERABLE}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.suppression.ImportSuppressions(r.ctx(), &optoutv1.ImportSuppressionsRequest{Source: "old.csv", Rows: []*optoutv1.ImportedSuppression{{Address: "old@example.com"}}}); err != nil {
		t.Fatal(err)
	}
	now, none := timestamppb.New(time.Now().Add(time.Second)), &timestamppb.Timestamp{Nanos: -1}
	for name, c := range map[string]struct {
		req  *optoutv1.ListSuppressionsRequest
		want string // addresses, newest first; or the reason of the error
	}{
		"none":            {&optoutv1.ListSuppressionsRequest{}, "old gone topic other sub all"},
		"by position":     {&optoutv1.ListSuppressionsRequest{Order: optoutv1.ListOrder_LIST_ORDER_POSITION}, "all sub other topic gone old"},
		"reason":          {&optoutv1.ListSuppressionsRequest{Reasons: []optoutv1.DenialReason{optedOutAll}}, "old other sub all"},
		"two reasons":     {&optoutv1.ListSuppressionsRequest{Reasons: []optoutv1.DenialReason{2, 10}}, "gone topic"},
		"scope ALL":       {&optoutv1.ListSuppressionsRequest{Scope: &optoutv1.Scope{}}, "old other sub all"},
		"a topic":         {&optoutv1.ListSuppressionsRequest{Scope: &optoutv1.Scope{Topic: "news"}}, "topic"},
		"channel":         {&optoutv1.ListSuppressionsRequest{Channel: optoutv1.Channel_CHANNEL_IMPORT}, "old"},
		"domain":          {&optoutv1.ListSuppressionsRequest{Domain: "Example.COM"}, "old gone topic sub all"},
		"time":            {&optoutv1.ListSuppressionsRequest{From: timestamppb.New(began), To: now}, "old gone topic other sub all"},
		"before":          {&optoutv1.ListSuppressionsRequest{To: timestamppb.New(began)}, ""},
		"together":        {&optoutv1.ListSuppressionsRequest{Domain: "example.com", Channel: optoutv1.Channel_CHANNEL_API, Reasons: []optoutv1.DenialReason{optedOutAll}}, "sub all"},
		"no such topic":   {&optoutv1.ListSuppressionsRequest{Scope: &optoutv1.Scope{Topic: "nosuch"}}, "UNKNOWN_TOPIC"},
		"no domain":       {&optoutv1.ListSuppressionsRequest{Domain: "a b"}, "INVALID_FIELD"},
		"no time":         {&optoutv1.ListSuppressionsRequest{From: none}, "INVALID_FIELD"},
		"no order":        {&optoutv1.ListSuppressionsRequest{Order: 9}, "INVALID_FIELD"},
		"page too large":  {&optoutv1.ListSuppressionsRequest{PageSize: 1001}, "INVALID_FIELD"},
		"page below none": {&optoutv1.ListSuppressionsRequest{PageSize: -1}, "INVALID_FIELD"},
	} {
		resp, err := r.suppression.ListSuppressions(r.ctx(), c.req)
		got := reason(err)
		var names []string
		for _, s := range resp.GetSuppressions() {
			name, _, _ := strings.Cut(s.Address, "@")
			names = append(names, name)
			if s.Entry == 0 || s.Since == nil || s.Reason == 0 || len(s.AddressKey) != 32 || s.Actor != "API key 1 (first)" {
				t.Errorf("%s: incomplete: %v", name, s)
			}
		}
		if got += strings.Join(names, " "); got != c.want {
			t.Errorf("%s: %q, want %q (%v)", name, got, c.want, err)
		}
	}
}

// A page token is good for the listing that gave it and for no other; whatever else comes is refused as one.
func TestPageTokens(t *testing.T) {
	r := newRig(t, nil)
	for i := range 5 {
		r.optOut(fmt.Sprintf("p%d@example.com", i))
	}
	first, err := r.suppression.ListSuppressions(r.ctx(), &optoutv1.ListSuppressionsRequest{PageSize: 2, Domain: "example.com"})
	if err != nil || first.NextPageToken == "" {
		t.Fatal(first, err)
	}
	token := first.NextPageToken
	if _, err := r.suppression.ListSuppressions(r.ctx(), &optoutv1.ListSuppressionsRequest{PageSize: 3, Domain: "example.com", PageToken: token}); err != nil {
		t.Errorf("with another page size: %v", err)
	}
	for name, req := range map[string]*optoutv1.ListSuppressionsRequest{
		"another filter":   {PageToken: token},
		"another sender":   {PageToken: token, Domain: "example.com", Sender: "default"},
		"garbage":          {PageToken: "garbage", Domain: "example.com"},
		"a line feed":      {PageToken: token[:4] + "\n" + token[4:], Domain: "example.com"},
		"cut":              {PageToken: token[:len(token)-1], Domain: "example.com"},
		"beyond the bound": {PageToken: strings.Repeat("_", 10) + token[10:], Domain: "example.com"},
		"altered":          {PageToken: token[:len(token)-1] + swap(token[len(token)-1]), Domain: "example.com"},
		"position nothing": {PageToken: strings.Repeat("A", 11) + token[11:], Domain: "example.com"},
	} {
		if _, err := r.suppression.ListSuppressions(r.ctx(), req); reason(err) != "INVALID_PAGE_TOKEN" || info(err).Metadata["remedy"] == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A token whose next page begins beyond everything, as one of a ledger that was rolled back may.
	beyond, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	beyond[0], beyond[8] = 1, 1
	if _, err := r.suppression.ListSuppressions(r.ctx(), &optoutv1.ListSuppressionsRequest{Domain: "example.com", PageToken: base64.RawURLEncoding.EncodeToString(beyond)}); reason(err) != "INVALID_PAGE_TOKEN" {
		t.Errorf("bounded beyond the head: %v", err)
	}
	first, err = r.suppression.ListSuppressions(r.ctx(), &optoutv1.ListSuppressionsRequest{PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	token = first.NextPageToken
	if _, err := r.entries.ListEntries(r.ctx(), &optoutv1.ListEntriesRequest{PageToken: token}); reason(err) != "INVALID_PAGE_TOKEN" {
		t.Errorf("another method's: %v", err)
	}
	if _, err := r.subscription.ListSubscriptions(r.ctx(), &optoutv1.ListSubscriptionsRequest{PageToken: token}); reason(err) != "INVALID_PAGE_TOKEN" {
		t.Errorf("another method's: %v", err)
	}
}

func FuzzPageToken(f *testing.F) {
	r := newRig(f, nil)
	for i := range 3 {
		r.optOut(fmt.Sprintf("p%d@example.com", i))
	}
	first, err := r.suppression.ListSuppressions(r.ctx(), &optoutv1.ListSuppressionsRequest{PageSize: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(first.NextPageToken)
	f.Add("")
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, token string) {
		if !utf8.ValidString(token) {
			t.Skip("cannot be sent")
		}
		_, err := r.suppression.ListSuppressions(with(t.Context(), r.secret), &optoutv1.ListSuppressionsRequest{PageSize: 1, PageToken: token})
		if got := reason(err); got != "" && got != "INVALID_PAGE_TOKEN" || got == "" && token != "" && len(token) != len(first.NextPageToken) {
			t.Errorf("%q: %v", token, err)
		}
	})
}

func TestListEntries(t *testing.T) {
	r := newRig(t, nil)
	r.optOut("ann@example.com")
	head := r.ledger.Position().Number
	for after, want := range map[uint64]uint64{0: head, head - 1: 1, head: 0, head + 1: 0, math.MaxUint64: 0} {
		list, err := r.entries.ListEntries(r.ctx(), &optoutv1.ListEntriesRequest{After: after, PageSize: 1000})
		if err != nil || uint64(len(list.Entries)) != want {
			t.Errorf("after %d: %d entries, want %d: %v", after, len(list.GetEntries()), want, err)
		}
	}
	list, err := r.entries.ListEntries(r.ctx(), &optoutv1.ListEntriesRequest{Kinds: []optoutv1.EntryKind{optoutv1.EntryKind_ENTRY_KIND_OPTED_OUT}, Sender: "default"})
	if err != nil || len(list.Entries) != 1 || list.Entries[0].Evidence["address"] != "ann@example.com" || len(list.Entries[0].LeafHash) != 32 ||
		list.Entries[0].At == nil || list.Entries[0].Scope.Kind != optoutv1.ScopeKind_SCOPE_KIND_ALL || list.Position.Number != head {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := r.entries.ListEntries(r.ctx(), &optoutv1.ListEntriesRequest{Sender: "nosuch"}); reason(err) != "UNKNOWN_SENDER" {
		t.Errorf("%v", err)
	}
	var pages, entries int
	for token := ""; ; pages++ {
		list, err := r.entries.ListEntries(r.ctx(), &optoutv1.ListEntriesRequest{PageSize: 3, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Entries {
			if entries++; e.Position != uint64(entries) {
				t.Fatalf("entry %d comes as number %d", e.Position, entries)
			}
		}
		if token = list.NextPageToken; token == "" {
			break
		}
	}
	if uint64(entries) != head || pages != int(head-1)/3 {
		t.Errorf("%d entries on %d pages, want %d", entries, pages+1, head)
	}
}

// Who sees what of people's data: the table of policy.go, written out anew.
func TestEvidenceByRole(t *testing.T) {
	r := newRig(t, nil)
	for i, addr := range []string{"ann@example.com", "ann@example.org"} {
		if _, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "news", Address: addr, PersonId: "42", RequestId: fmt.Sprint(i), Evidence: full()}); err != nil {
			t.Fatal(err)
		}
	}
	// At the other address the person says no, which bears on the first.
	if _, err := r.subscription.Unsubscribe(r.ctx(), &optoutv1.UnsubscribeRequest{Address: "ann@example.org", Note: "on the phone"}); err != nil {
		t.Fatal(err)
	}
	type sees struct{ words, place, other, listed, ledger bool }
	for role, want := range map[optoutv1.Role]sees{
		optoutv1.Role_ROLE_SUPPORT:  {words: true},
		optoutv1.Role_ROLE_OPERATOR: {words: true, listed: true},
		optoutv1.Role_ROLE_PRIVACY:  {true, true, true, true, true},
		optoutv1.Role_ROLE_AUDITOR:  {true, true, true, true, true},
		optoutv1.Role_ROLE_ADMIN:    {true, true, true, true, true},
	} {
		ctx := r.as(role)
		story, err := r.suppression.ExplainAddress(ctx, &optoutv1.ExplainAddressRequest{Address: "ann@example.com"})
		if err != nil || story.PersonAddresses != 2 || len(story.Entries) != 3 { // joined, subscribed, and the other address's no
			t.Fatalf("%v: %v, %v", role, story, err)
		}
		yes, no := story.Entries[1].Evidence, story.Entries[2].Evidence
		if yes["address"] != "ann@example.com" || yes["source"] == "" || no["note"] != "on the phone" {
			t.Errorf("%v does not see the story: %v, %v", role, yes, no)
		}
		got := sees{words: yes["wording"] != "", place: yes["ip"] != "" && yes["user_agent"] != "", other: no["address"] != ""}
		if !got.place && (yes["ip"] != "" || yes["user_agent"] != "") {
			t.Errorf("%v sees half: %v", role, yes)
		}
		list, err := r.suppression.ListSuppressions(ctx, &optoutv1.ListSuppressionsRequest{})
		if err != nil || len(list.Suppressions) != 1 {
			t.Fatalf("%v: %v, %v", role, list, err)
		}
		got.listed = list.Suppressions[0].Address != ""
		if role != optoutv1.Role_ROLE_SUPPORT {
			entries, err := r.entries.ListEntries(ctx, &optoutv1.ListEntriesRequest{PageSize: 1000})
			if err != nil {
				t.Fatal(role, err)
			}
			for _, e := range entries.Entries {
				got.ledger = got.ledger || len(e.Evidence) > 0
			}
		}
		if got != want {
			t.Errorf("%v sees %+v, want %+v", role, got, want)
		}
	}
}

// Never the address of anyone who has opted out (15 USC 7704(a)(4)(A)(iv)), and only topics that the key may name.
func TestListSubscriptions(t *testing.T) {
	r := newRig(t, nil)
	for i, addr := range []string{"ann@example.com", "bob@example.com"} {
		for _, topic := range []string{"news", "receipts"} {
			if _, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: topic, Address: addr, RequestId: fmt.Sprint(topic, i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.optOut("bob@example.com")
	named, _ := r.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_COLLECTOR, Topics: []string{"receipts"}})
	for name, c := range map[string]struct {
		secret, topic, want string
	}{
		"all":               {r.secret, "", "news receipts"},
		"one topic":         {r.secret, "receipts", "receipts"},
		"topics of the key": {named, "", "receipts"},
		"no topic of it":    {named, "news", "TOPIC_NOT_ALLOWED"},
		"no such topic":     {r.secret, "nosuch", "UNKNOWN_TOPIC"},
	} {
		list, err := r.subscription.ListSubscriptions(with(t.Context(), c.secret), &optoutv1.ListSubscriptionsRequest{Topic: c.topic})
		got := reason(err)
		var topics []string
		for _, s := range list.GetSubscriptions() {
			topics = append(topics, s.Topic)
			if s.Address != "ann@example.com" || s.Entry == 0 || s.Since == nil {
				t.Errorf("%s: %v", name, s)
			}
		}
		if got += strings.Join(topics, " "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
