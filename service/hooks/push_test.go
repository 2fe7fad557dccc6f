package hooks_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"optout/service/hooks"
	"optout/service/ledger"
	"optout/service/providertest"
)

// Opt-outs from ALL are pushed, in order, once; nothing else is; and what we pushed and read back is no new no.
func TestPushing(t *testing.T) {
	r := newRig(t, ", push: true")
	r.stop("out@example.com")
	by := ledger.By{Channel: ledger.ByAPI}
	r.must(r.OptOut(t.Context(), by, "", "topic@example.com", ledger.Scope{Kind: ledger.ScopeTopic, Topic: "news"}))
	r.must(r.OptOut(t.Context(), by, "", "commercial@example.com", ledger.Scope{Kind: ledger.ScopeCommercial}))
	r.must(r.Suppress(t.Context(), by, ledger.Suppression{Address: "gone@example.com", Reason: ledger.ReasonUndeliverable}))
	r.must(r.Suppress(t.Context(), by, ledger.Suppression{Address: "cross@example.com", Reason: ledger.ReasonComplaint}))
	r.stop("back@example.com")
	r.wish("back@example.com")
	// By a link of which only the key is known; and one whose address an earlier entry tells.
	s := r.Registry().Sender("")
	stranger, generation, err := r.AddressKey(s, "stranger@example.com")
	r.must(nil, err)
	r.must(r.Press(t.Context(), ledger.By{Channel: ledger.ByOneClick}, s.All(), generation, stranger))
	linked, generation, err := r.AddressKey(s, "topic@example.com")
	r.must(nil, err)
	r.must(r.Press(t.Context(), ledger.By{Channel: ledger.ByOneClick}, s.All(), generation, linked))
	for _, kind := range pollable {
		told := kind + "-told@example.com"
		r.tell(http.StatusOK, kind, "unsubscribe", "t"+kind, told)
		done := r.sync(kind)
		want := []string{"out@example.com", "topic@example.com"}
		for _, other := range pollable {
			if other == kind {
				break
			}
			want = append(want, other+"-told@example.com") // what one provider told goes to the others
		}
		slices.Sort(want)
		if got := r.api(kind).Addresses(""); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", kind, got, want)
		}
		if last := done[len(done)-1]; last.Unknown != 1 || last.Pushed != len(want) {
			t.Errorf("%s: %+v", kind, last)
		}
		// Read back: nothing new; and after a later yes it stops nobody.
		before := r.size()
		r.pass(time.Minute)
		r.must(nil, r.hooks.Sync(t.Context(), kind, true, func(hooks.Progress) {}))
		if r.size() != before {
			st, _ := r.Explain(t.Context(), "", "out@example.com")
			t.Errorf("%s: an echo wrote %d entries: %+v", kind, r.size()-before, st.Lines)
		}
	}
	r.wish("out@example.com")
	for _, kind := range pollable {
		r.api(kind).Calls()
		r.must(nil, r.hooks.Sync(t.Context(), kind, true, func(hooks.Progress) {}))
		if d := r.denials("news", "out@example.com"); d != "" {
			t.Errorf("%s: what we pushed ourselves beats a later yes: %s", kind, d)
		}
	}
	// A restarted service pushes only what is new.
	r.reopen()
	for _, kind := range pollable {
		r.api(kind).Calls()
		r.sync(kind)
		if calls := strings.Join(r.api(kind).Calls(), " "); strings.Contains(calls, "PUT") || strings.Contains(calls, "POST") {
			t.Errorf("%s: pushed again: %s", kind, calls)
		}
	}
	// Taken off the list by hand after that yes, and stopped there anew: that is a no of the person.
	r.sendgrid.Remove("out@example.com")
	r.pass(time.Hour)
	r.list("sendgrid", "out@example.com")
	r.must(nil, r.hooks.Sync(t.Context(), "sendgrid", true, func(hooks.Progress) {}))
	if r.denials("news", "out@example.com") == "" {
		t.Error("a new no on the list passes for what we pushed")
	}
}

// A provider of one topic gets what stops that topic.
func TestPushingOfATopic(t *testing.T) {
	r := newRig(t, ", push: true, topic: news, scope: TOPIC")
	by := ledger.By{Channel: ledger.ByAPI}
	r.must(r.OptOut(t.Context(), by, "", "topic@example.com", ledger.Scope{Kind: ledger.ScopeTopic, Topic: "news"}))
	r.must(r.OptOut(t.Context(), by, "", "commercial@example.com", ledger.Scope{Kind: ledger.ScopeCommercial}))
	r.must(r.OptOut(t.Context(), by, "", "receipts@example.com", ledger.Scope{Kind: ledger.ScopeTopic, Topic: "receipts"}))
	r.sync("postmark")
	if got := r.postmark.Addresses(""); !slices.Equal(got, []string{"commercial@example.com", "topic@example.com"}) {
		t.Errorf("%q", got)
	}
	r.tell(http.StatusOK, "postmark", "unsubscribe", "x", "reader@example.com")
	if r.denials("news", "reader@example.com") == "" || r.denials("receipts", "reader@example.com") != "" {
		t.Errorf("%q, %q", r.denials("news", "reader@example.com"), r.denials("receipts", "reader@example.com"))
	}
}

// A press that can still be undone is not pushed: nothing is ever taken off a list.
func TestUndoablePresses(t *testing.T) {
	r := newRig(t, ", push: true")
	s := r.Registry().Sender("")
	press := func(addr string) ledger.Outcome {
		r.must(r.OptOut(t.Context(), ledger.By{Channel: ledger.ByAPI}, "", addr, ledger.Scope{Kind: ledger.ScopeTopic, Topic: "news"}))
		key, generation, err := r.AddressKey(s, addr)
		r.must(nil, err)
		o, err := r.Press(t.Context(), ledger.By{Channel: ledger.ByPage}, s.All(), generation, key)
		r.must(nil, err)
		return o
	}
	kept, undone := press("kept@example.com"), press("undone@example.com")
	r.sync("sendgrid")
	if got := r.sendgrid.Addresses(""); len(got) != 0 || !kept.Undoable {
		t.Errorf("%q", got)
	}
	key, _, _ := r.AddressKey(s, "undone@example.com")
	r.must(r.Undo(t.Context(), ledger.By{Channel: ledger.ByPage}, undone.Entry, [8]byte(key[:8])))
	r.pass(ledger.UndoWindow)
	r.sync("sendgrid")
	if got := r.sendgrid.Addresses(""); !slices.Equal(got, []string{"kept@example.com"}) {
		t.Errorf("%q", got)
	}
}

// The worker pushes by itself, holds back as long as the provider asks, and goes on where it was after a failure in between.
func TestPushingGoesOn(t *testing.T) {
	r := newRig(t, ", push: true, poll: 1h")
	for i := range 120 {
		r.stop(fmt.Sprintf("p%03d@example.com", i))
	}
	r.list("mailgun", "listed@example.com")
	r.postmark.Fail("1", 0, 0, 429, 500) // the list; the first 50; then trouble
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.hooks.Run(ctx) }()
	deadline := time.Now().Add(30 * time.Second)
	for len(r.postmark.Addresses("")) < 120 || r.denials("news", "listed@example.com") == "" {
		if time.Now().After(deadline) {
			t.Fatalf("%d pushed: %+v", len(r.postmark.Addresses("")), r.hooks.List())
		}
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	<-ended
}

// An address that the provider takes for none keeps back no other; when it takes none at all, that is a fault, and nothing is lost.
func TestOddAddresses(t *testing.T) {
	r := newRig(t, ", push: true")
	for i := range 60 {
		r.stop(fmt.Sprintf("p%02d@example.com", i))
		if i%25 == 7 {
			r.stop(fmt.Sprintf("odd%02d@example.com", i))
		}
	}
	for _, kind := range []string{"ses", "sendgrid", "mailgun"} {
		done := r.sync(kind)
		if last := done[len(done)-1]; len(r.api(kind).Addresses("")) != 60 || last.Pushed != 60 || last.Refused != 3 {
			t.Errorf("%s: %d on the list, %+v", kind, len(r.api(kind).Addresses("")), last)
		}
	}
	for i := range 40 {
		r.stop(fmt.Sprintf("odd-again%02d@example.com", i))
	}
	r.stop("last@example.com")
	for _, kind := range []string{"sendgrid", "mailgun"} {
		if err := r.hooks.Sync(t.Context(), kind, false, func(hooks.Progress) {}); err == nil || slices.Contains(r.api(kind).Addresses(""), "last@example.com") {
			t.Errorf("%s: 40 refusals in a row: %v", kind, err)
		}
	}
}

// A provider that refuses every address is wrongly set up, or in trouble: none of those opt-outs is passed over, whether they came at
// once or one by one, and whether the calls take one address or many.
func TestRefusalsOfAllAreNoRefusals(t *testing.T) {
	r := newRig(t, ", push: true")
	said := 0
	more := func(n int) {
		for range n {
			r.stop(fmt.Sprintf("p%03d@example.com", said))
			said++
		}
	}
	refuse := func(n int) {
		r.ses.Fail("", append([]int{0}, slices.Repeat([]int{400}, n)...)...) // the list; then what is pushed
	}
	pushed := func(when string) {
		t.Helper()
		r.ses.Fail("")
		r.sync("ses")
		if got := r.ses.Addresses(""); len(got) != said {
			t.Fatalf("%s: %d of %d opt-outs are on the list", when, len(got), said)
		}
	}
	more(30)
	refuse(30)
	if err := r.hooks.Sync(t.Context(), "ses", false, func(hooks.Progress) {}); err == nil {
		t.Error("30 refusals in a row pass for success")
	}
	pushed("at once")
	for range 3 {
		more(8)
		refuse(8)
		r.hooks.Sync(t.Context(), "ses", false, func(hooks.Progress) {}) // the third is an error
	}
	if r.hooks.List()[0].PushError == "" {
		t.Error("24 refusals in a row are no fault")
	}
	pushed("one by one")
	// SES answers 400 too when it wants fewer calls, or the key may not do this (its "common errors").
	more(3)
	r.ses.FailAs("ThrottlingException", 0, 400)
	if err := r.hooks.Sync(t.Context(), "ses", false, func(hooks.Progress) {}); err == nil {
		t.Error("a call that was throttled passes for one that was refused for its address")
	}
	pushed("throttled")
}

// A group, or a tag, is not the whole list: whoever is out of it there and of ALL here is pushed, also when it was the provider who
// told, and until then the comparison says so.
func TestAPartIsNotTheWhole(t *testing.T) {
	r := newRig(t, ", push: true")
	at := r.clock().Add(-time.Minute)
	body := []byte(`[{"email":"hook@example.com","event":"group_unsubscribe","asm_group_id":11,"sg_event_id":"g1"}]`) // a group of no topic: ALL
	if got := r.post("/hooks/sendgrid/sendgrid", r.sendgridKey.Sign(body, r.clock()), body); got != http.StatusOK {
		t.Fatal(got)
	}
	for group, addr := range map[int]string{11: "hook@example.com", 12: "list@example.com", 10: "news@example.com"} {
		r.sendgrid.Add(providertest.Listed{List: "groups", Group: group, Address: addr, Created: at})
	}
	r.mailgun.Add(providertest.Listed{List: "unsubscribes", Tags: []string{"sale"}, Address: "list@example.com", Created: at})
	r.sendgrid.Add(providertest.Listed{List: "groups", Group: 10, Address: "both@example.com", Created: at}) // one is said here too, one is not
	r.sendgrid.Add(providertest.Listed{List: "groups", Group: 13, Address: "both@example.com", Created: at})
	by := ledger.By{Channel: ledger.ByAPI}
	r.must(r.OptOut(t.Context(), by, "", "both@example.com", ledger.Scope{Kind: ledger.ScopeTopic, Topic: "news"}))
	r.must(r.OptOut(t.Context(), by, "", "news@example.com", ledger.Scope{Kind: ledger.ScopeTopic, Topic: "news"}))
	r.stop("list@example.com")
	if got, d := r.compare("sendgrid"); got != "false both@example.com, true hook@example.com, true list@example.com" || d.HereOnly != 2 || d.ThereOnly != 1 || d.Agreed != 1 || d.Listed != 4 {
		t.Errorf("sendgrid: %s, %+v", got, d)
	}
	if got, d := r.compare("mailgun"); got != "true hook@example.com, true list@example.com" || d.HereOnly != 2 || d.Agreed != 0 {
		t.Errorf("mailgun: %s, %+v", got, d)
	}
	for range 2 {
		r.sync("sendgrid")
		r.sync("mailgun")
	}
	if got := r.sendgrid.Addresses("unsubscribes"); !slices.Equal(got, []string{"both@example.com", "hook@example.com", "list@example.com"}) {
		t.Errorf("sendgrid: %q", got)
	}
	if got, d := r.compare("sendgrid"); got != "" || d.Agreed != 4 {
		t.Errorf("sendgrid, after pushing: %s, %+v", got, d)
	}
	// What was pushed and is read back stops nobody who has said yes again.
	r.pass(time.Minute)
	r.wish("hook@example.com")
	r.must(nil, r.hooks.Sync(t.Context(), "sendgrid", true, func(hooks.Progress) {}))
	if d := r.denials("news", "hook@example.com"); d != "" {
		t.Errorf("an echo beats a later yes: %s", d)
	}
}

// Drift is told in both directions, and nothing is changed.
func TestDrift(t *testing.T) {
	r := newRig(t, "")
	for _, kind := range pollable {
		r.list(kind, "both@example.com")
		r.list(kind, "there@example.com")
		r.list(kind, "Back@Example.com")
	}
	r.sendgrid.Add(providertest.Listed{List: "spam_reports", Address: "there@example.com", Created: r.clock()}) // on two lists
	r.stop("both@example.com")
	r.stop("here@example.com")
	r.stop("back@example.com")
	r.wish("back@example.com")
	key, generation, err := r.AddressKey(r.Registry().Sender(""), "stranger@example.com")
	r.must(nil, err)
	r.must(r.Press(t.Context(), ledger.By{Channel: ledger.ByOneClick}, r.Registry().Sender("").All(), generation, key))
	before := r.size()
	for _, kind := range pollable {
		r.api(kind).Calls()
		found, d := r.compare(kind)
		if found != "false Back@Example.com, false there@example.com, true here@example.com" || d.ThereOnly != 2 || d.HereOnly != 1 || d.Agreed != 1 || d.Unknown != 1 || d.Listed != 3 {
			t.Errorf("%s: %q, %+v", kind, found, d)
		}
		for _, c := range r.api(kind).Calls() {
			if !strings.HasPrefix(c, "GET ") {
				t.Errorf("%s: a comparison made the call %s", kind, c)
			}
		}
	}
	if r.size() != before {
		t.Error("a comparison wrote entries")
	}
	if _, err := r.hooks.Compare(t.Context(), "generic", nil); err == nil {
		t.Error("a provider without an API can be compared")
	}
}
