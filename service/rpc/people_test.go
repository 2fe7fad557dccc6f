package rpc_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
	"optout/service/link"
)

// full is full evidence of a yes.
func full() *optoutv1.ConsentEvidence {
	return &optoutv1.ConsentEvidence{Source: "https://example.com/signup", Wording: "Yes, send me the digest", Method: "tick-box", Language: "en",
		PolicyVersion: "3", Ip: "192.0.2.7", UserAgent: "Browser"}
}

// Confirmation end to end: the token proves the mailbox, and a retry gets the same one.
func TestSubscribeAndConfirm(t *testing.T) {
	r := newRig(t, nil)
	req := &optoutv1.SubscribeRequest{Topic: "digest", Address: "j.doe@gmail.com", RequestId: "r1", Evidence: full()}
	first, err := r.subscription.Subscribe(r.ctx(), req)
	if err != nil || first.State != optoutv1.SubscriptionState_SUBSCRIPTION_STATE_CONFIRMATION_NEEDED || first.ConfirmationToken == "" {
		t.Fatalf("%v, %v", first, err)
	}
	again, err := r.subscription.Subscribe(r.ctx(), req)
	if err != nil || again.Entry != first.Entry || again.ConfirmationToken != first.ConfirmationToken {
		t.Errorf("the retry got %v, %v", again, err)
	}
	if _, err := r.subscription.Unsubscribe(r.ctx(), &optoutv1.UnsubscribeRequest{Token: first.ConfirmationToken}); reason(err) != "INVALID_TOKEN" {
		t.Errorf("a confirmation token unsubscribes: %v", err)
	}
	confirm := &optoutv1.ConfirmSubscriptionRequest{Token: first.ConfirmationToken, RequestId: "c1", Ip: "192.0.2.8"}
	conf, err := r.subscription.ConfirmSubscription(r.ctx(), confirm)
	if err != nil || conf.Topic != "digest" || len(conf.Denials) != 0 {
		t.Fatalf("%v, %v", conf, err)
	}
	confirm.RequestId = "c2" // the person presses again
	if twice, err := r.subscription.ConfirmSubscription(r.ctx(), confirm); err != nil || twice.Entry != conf.Entry {
		t.Errorf("confirmed twice: %v, %v", twice, err)
	}
	r.want("digest", "j.doe@gmail.com")
	r.want("digest", "jdoe@gmail.com", noConsent) // consent is narrow
	r.optOut("jd.oe@googlemail.com")              // suppression is broad: any spelling of the mailbox stops all
	r.want("digest", "j.doe@gmail.com", optedOutAll, noConsent)
	if late, err := r.subscription.ConfirmSubscription(r.ctx(), confirm); err != nil || late.Entry != conf.Entry || len(late.Denials) == 0 {
		t.Errorf("an old confirmation after the no: %v, %v", late, err)
	}
	r.want("digest", "j.doe@gmail.com", optedOutAll, noConsent)
}

// A confirmation token is good for the request that it was made for, and for no other that may stand in its place.
func TestConfirmationTokensFit(t *testing.T) {
	r := newRig(t, nil)
	asked, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "digest", Address: "ann@example.com", RequestId: "1"})
	if err != nil {
		t.Fatal(err)
	}
	good, err := r.ring.Load().Open(asked.ConfirmationToken, link.Confirm)
	if err != nil {
		t.Fatal(err)
	}
	position, _ := ledger.UnpackRef(good.Key)
	for name, change := range map[string]func(*link.Token){
		"another minute":   func(t *link.Token) { t.Mailing++ },
		"another topic":    func(t *link.Token) { t.Scope-- },
		"another address":  func(t *link.Token) { t.Key[15]++ },
		"another position": func(t *link.Token) { t.Key = ledger.PackRef(position-1, [16]byte(append(t.Key[8:], t.Key[8:]...))) },
		"no such position": func(t *link.Token) { t.Key = ledger.PackRef(1<<40, [16]byte(append(t.Key[8:], t.Key[8:]...))) },
	} {
		tok := good
		change(&tok)
		_, err := r.subscription.ConfirmSubscription(r.ctx(), &optoutv1.ConfirmSubscriptionRequest{Token: r.ring.Load().Seal(tok), RequestId: name[:2]})
		if reason(err) != "CONFIRMATION_STALE" {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.want("digest", "ann@example.com", noConsent)
	if _, err := r.subscription.ConfirmSubscription(r.ctx(), &optoutv1.ConfirmSubscriptionRequest{Token: r.ring.Load().Seal(good), RequestId: "good"}); err != nil {
		t.Error(err)
	}
	r.want("digest", "ann@example.com")
}

// Every write that can let mail flow needs a request_id, is answered alike when it is repeated, and refuses the id for anything
// else. Those that only stop mail take one.
func TestRequestIDs(t *testing.T) {
	r := newRig(t, nil)
	r.optOut("ann@example.com")
	suppress := func(reason optoutv1.DenialReason, addr string) uint64 {
		resp, err := r.suppression.CreateSuppression(r.ctx(), &optoutv1.CreateSuppressionRequest{Address: addr, Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		return resp.Entry
	}
	undeliverable := optoutv1.DenialReason_DENIAL_REASON_UNDELIVERABLE
	suppress(undeliverable, "gone@example.com")
	bounced := []uint64{suppress(undeliverable, "void1@example.com"), suppress(undeliverable, "void2@example.com")}
	if _, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "digest", Address: "joined@example.com", PersonId: "p", RequestId: "join"}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"blocked.example", "other.example"} {
		if _, err := r.admin.BlockDomain(r.ctx(), &optoutv1.BlockDomainRequest{Domain: d, Justification: "spam trap"}); err != nil {
			t.Fatal(err)
		}
	}
	asked, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "digest", Address: "ann@example.com", RequestId: "ask"})
	if err != nil {
		t.Fatal(err)
	}
	asked2, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "digest", Address: "bob@example.com", RequestId: "ask2"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		needs bool
		call  func(id string, other bool) (proto.Message, error)
	}{
		"Subscribe": {true, func(id string, other bool) (proto.Message, error) {
			return r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "news", Address: pick(other, "s1@example.com", "s2@example.com"), RequestId: id})
		}},
		"ConfirmSubscription": {true, func(id string, other bool) (proto.Message, error) {
			return r.subscription.ConfirmSubscription(r.ctx(), &optoutv1.ConfirmSubscriptionRequest{Token: pick(other, asked.ConfirmationToken, asked2.ConfirmationToken), RequestId: id})
		}},
		"Unsubscribe": {false, func(id string, other bool) (proto.Message, error) {
			return r.subscription.Unsubscribe(r.ctx(), &optoutv1.UnsubscribeRequest{Address: pick(other, "u1@example.com", "u2@example.com"), RequestId: id})
		}},
		"UpdatePreferences": {true, func(id string, other bool) (proto.Message, error) {
			return r.subscription.UpdatePreferences(r.ctx(), &optoutv1.UpdatePreferencesRequest{Address: pick(other, "p1@example.com", "p2@example.com"), RequestId: id,
				Changes: []*optoutv1.PreferenceChange{{Change: &optoutv1.PreferenceChange_OptOut{OptOut: &optoutv1.Scope{Topic: "news"}}},
					{Change: &optoutv1.PreferenceChange_OptOut{OptOut: &optoutv1.Scope{Topic: "receipts"}}}}})
		}},
		"UnlinkPerson": {true, func(id string, other bool) (proto.Message, error) {
			return r.subscription.UnlinkPerson(r.ctx(), &optoutv1.UnlinkPersonRequest{Address: pick(other, "joined@example.com", "x@example.com"), Justification: "an error", RequestId: id})
		}},
		"CreateSuppression": {false, func(id string, other bool) (proto.Message, error) {
			return r.suppression.CreateSuppression(r.ctx(), &optoutv1.CreateSuppressionRequest{Address: pick(other, "c1@example.com", "c2@example.com"), Reason: optedOutAll, RequestId: id})
		}},
		"LiftSuppression": {true, func(id string, other bool) (proto.Message, error) {
			return r.suppression.LiftSuppression(r.ctx(), &optoutv1.LiftSuppressionRequest{Address: pick(other, "gone@example.com", "x@example.com"), Reason: undeliverable, Justification: "mailbox is back", RequestId: id})
		}},
		"VoidEntries": {true, func(id string, other bool) (proto.Message, error) {
			return r.suppression.VoidEntries(r.ctx(), &optoutv1.VoidEntriesRequest{Entries: bounced[:pick(other, 2, 1)], Justification: "a storm", Evidence: "incident 7", RequestId: id})
		}},
		"UnblockDomain": {true, func(id string, other bool) (proto.Message, error) {
			return r.admin.UnblockDomain(r.ctx(), &optoutv1.UnblockDomainRequest{Domain: pick(other, "blocked.example", "other.example"), Justification: "mended", RequestId: id})
		}},
	} {
		if _, err := c.call("", true); c.needs != (reason(err) == "REQUEST_ID_REQUIRED") || !c.needs && err != nil {
			t.Errorf("%s without an id: %v", name, err)
		}
		if _, err := c.call("white space", false); reason(err) != "INVALID_FIELD" {
			t.Errorf("%s with a bad id: %v", name, err)
		}
		id := "id-of-" + name
		first, err := c.call(id, false)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		head := r.ledger.Position().Number
		again, err := c.call(id, false)
		if err != nil || !proto.Equal(withoutPosition(again), withoutPosition(first)) {
			t.Errorf("%s again: %v, %v, first %v", name, again, err, first)
		}
		if now := r.ledger.Position().Number; now != head {
			t.Errorf("%s again wrote %d entries", name, now-head)
		}
		if _, err = c.call(id, true); reason(err) != "REQUEST_ID_REUSED" || status.Code(err) != codes.AlreadyExists {
			t.Errorf("%s with the id of another: %v", name, err)
		}
	}
}

func pick[T any](other bool, a, b T) T {
	if other {
		return b
	}
	return a
}

// withoutPosition is an answer without the head, which moves on.
func withoutPosition(m proto.Message) proto.Message {
	m = proto.Clone(m)
	m.ProtoReflect().Clear(m.ProtoReflect().Descriptor().Fields().ByName("position"))
	return m
}

// A person's own word: by address, by scope, and by token; a repeat writes nothing.
func TestUnsubscribe(t *testing.T) {
	r := newRig(t, nil)
	topicOnly := &optoutv1.UnsubscribeRequest{Address: "ann@example.com", Scope: &optoutv1.Scope{Topic: "news"}, Note: "said so on the phone"}
	first, err := r.subscription.Unsubscribe(r.ctx(), topicOnly)
	if err != nil || !first.Created {
		t.Fatal(first, err)
	}
	r.want("news", "ann@example.com", optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_TOPIC)
	r.want("receipts", "ann@example.com")
	if again, err := r.subscription.Unsubscribe(r.ctx(), topicOnly); err != nil || again.Created || again.Entry != first.Entry {
		t.Errorf("a repeat: %v, %v", again, err)
	}
	if all := r.optOut("ann@example.com"); !all.Created {
		t.Error("a narrower no swallowed the wider one")
	}
	r.want("receipts", "ann@example.com", optedOutAll)

	issued, err := r.link.IssueLink(r.ctx(), &optoutv1.IssueLinkRequest{Topic: "news", Address: "bob@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	token := issued.Link.Url[strings.LastIndexByte(issued.Link.Url, '/')+1:]
	for name, req := range map[string]*optoutv1.UnsubscribeRequest{
		"token and address": {Token: token, Address: "bob@example.com"},
		"token and sender":  {Token: token, Sender: "default"},
		"token and scope":   {Token: token, Scope: &optoutv1.Scope{}},
		"nothing":           {},
		"a note too long":   {Token: token, Note: strings.Repeat("x", 501)},
		"no time":           {Token: token, OccurredAt: &timestamppb.Timestamp{Seconds: 1 << 60}},
		"in the future":     {Token: token, OccurredAt: timestamppb.New(time.Now().Add(time.Hour))},
	} {
		if _, err := r.subscription.Unsubscribe(r.ctx(), req); status.Code(err) != codes.InvalidArgument || reason(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string]string{"altered": token[:30] + swap(token[30]) + token[31:], "cut": token[:60], "longer": token + "a", "random": strings.Repeat("q", 61)} {
		if _, err := r.subscription.Unsubscribe(r.ctx(), &optoutv1.UnsubscribeRequest{Token: bad}); reason(err) != "INVALID_TOKEN" || status.Code(err) != codes.NotFound {
			t.Errorf("a token that is %s: %v", name, err)
		}
	}
	r.want("news", "bob@example.com")
	if _, err := r.subscription.Unsubscribe(r.ctx(), &optoutv1.UnsubscribeRequest{Token: token, OccurredAt: timestamppb.New(time.Now().Add(-time.Hour))}); err != nil {
		t.Error(err)
	}
	r.want("news", "bob@example.com", optedOutAll)
}

// swap is another character of the token's alphabet.
func swap(c byte) string {
	if c == 'a' {
		return "b"
	}
	return "a"
}

func TestPreferences(t *testing.T) {
	r := newRig(t, nil)
	until := timestamppb.New(time.Now().Add(24 * time.Hour))
	pause := &optoutv1.PreferenceChange{Change: &optoutv1.PreferenceChange_Pause{Pause: &optoutv1.Pause{Scope: &optoutv1.Scope{Topic: "news"}, Until: until}}}
	stop := &optoutv1.PreferenceChange{Change: &optoutv1.PreferenceChange_OptOut{OptOut: &optoutv1.Scope{Topic: "receipts"}}}
	resume := &optoutv1.PreferenceChange{Change: &optoutv1.PreferenceChange_Resume{Resume: &optoutv1.Scope{Topic: "news"}}}
	resp, err := r.subscription.UpdatePreferences(r.ctx(), &optoutv1.UpdatePreferencesRequest{Address: "ann@example.com", RequestId: "1", Changes: []*optoutv1.PreferenceChange{pause, stop}})
	if err != nil || len(resp.Entries) != 2 {
		t.Fatal(resp, err)
	}
	r.want("news", "ann@example.com", optoutv1.DenialReason_DENIAL_REASON_PAUSED)
	r.want("receipts", "ann@example.com", optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_TOPIC)
	if _, err := r.subscription.UpdatePreferences(r.ctx(), &optoutv1.UpdatePreferencesRequest{Address: "ann@example.com", RequestId: "2", Changes: []*optoutv1.PreferenceChange{resume}}); err != nil {
		t.Fatal(err)
	}
	r.want("news", "ann@example.com")
	bad := proto.CloneOf(pause)
	bad.GetPause().Until = &timestamppb.Timestamp{Nanos: -1}
	unknown := proto.CloneOf(stop)
	unknown.GetOptOut().Topic = "nosuch"
	many := make([]*optoutv1.PreferenceChange, 101)
	for i := range many {
		many[i] = stop
	}
	for want, changes := range map[string][]*optoutv1.PreferenceChange{"INVALID_FIELD": {stop, bad}, "UNKNOWN_TOPIC": {pause, unknown}, "TOO_MANY_ITEMS": many} {
		_, err := r.subscription.UpdatePreferences(r.ctx(), &optoutv1.UpdatePreferencesRequest{Address: "bob@example.com", RequestId: want, Changes: changes})
		if reason(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := r.subscription.UpdatePreferences(r.ctx(), &optoutv1.UpdatePreferencesRequest{Address: "bob@example.com", RequestId: "none", Changes: []*optoutv1.PreferenceChange{{}}}); reason(err) != "INVALID_FIELD" {
		t.Errorf("a change that says nothing: %v", err)
	}
	r.want("news", "bob@example.com") // all or none
	r.want("receipts", "bob@example.com")
}

// One person, two addresses: one opt-out from ALL covers both.
func TestPersons(t *testing.T) {
	r := newRig(t, nil)
	for i, addr := range []string{"ann@example.com", "ann@example.org"} {
		if _, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "news", Address: addr, PersonId: "42", RequestId: string(rune('a' + i))}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "news", Address: "ann@example.org", PersonId: "43", RequestId: "c"})
	if reason(err) != "PERSON_CONFLICT" || info(err).Metadata["field"] != "person_id" {
		t.Errorf("an address of another person: %v", err)
	}
	r.optOut("ann@example.com")
	r.want("news", "ann@example.org", optedOutAll)
	st, err := r.subscription.GetRecipient(r.ctx(), &optoutv1.GetRecipientRequest{Address: "ann@example.org"})
	if err != nil || st.PersonAddresses != 2 || !st.Known || len(st.AddressKey) != 32 {
		t.Errorf("%v, %v", st, err)
	}
	for _, v := range st.GetVerdicts() {
		if v.Topic == "news" && (v.Verdict != doNotSend || !v.Denials[0].Joined) {
			t.Errorf("%v", v)
		}
	}
	if _, err := r.subscription.UnlinkPerson(r.ctx(), &optoutv1.UnlinkPersonRequest{Address: "ann@example.org", Justification: "two people share a name", RequestId: "d"}); err != nil {
		t.Fatal(err)
	}
	r.want("news", "ann@example.org")
	r.want("news", "ann@example.com", optedOutAll)
}
