package rpc_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/receipt"
)

// receiptFor checks and returns the receipt; "" when refused.
func (r *rig) receiptFor(sender, topic, addr string) string {
	r.t.Helper()
	resp, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Sender: sender, Topic: topic, Address: addr, WantReceipt: true})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.Receipt
}

// A receipt says what was answered, to anybody who has the public key.
func TestReceiptsSayWhatWasAnswered(t *testing.T) {
	r := newRig(t, nil)
	r.optOut("no@example.com")
	keys, err := r.entries.ListReceiptKeys(r.ctx(), &optoutv1.ListReceiptKeysRequest{})
	if err != nil || len(keys.Keys) != 1 || keys.Keys[0].Algorithm != "Ed25519" || keys.Keys[0].Created == nil {
		t.Fatal(keys, err)
	}
	id, public, err := receipt.ParsePublicText(keys.Keys[0].Text)
	if err != nil || uint32(id) != keys.Keys[0].Id {
		t.Fatal(keys, err)
	}
	block, _ := pem.Decode([]byte(keys.Keys[0].Pem))
	if same, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil || !public.Equal(same.(ed25519.PublicKey)) {
		t.Errorf("the PEM is of another key: %v", err)
	}
	v, err := receipt.NewVerifier(map[byte]ed25519.PublicKey{id: public})
	if err != nil {
		t.Fatal(err)
	}
	before := uint32(time.Now().Unix() / 60)
	one, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Topic: "news", Address: "A@Example.com", WantReceipt: true})
	if err != nil {
		t.Fatal(err)
	}
	many, err := r.suppression.BatchCheckSend(r.ctx(), &optoutv1.BatchCheckSendRequest{Topic: "news", WantReceipt: true,
		Addresses: []string{"no@example.com", "bad", "a@example.com", "b@example.com"}})
	if err != nil || len(many.Receipts) != 2 || many.Receipts[0].Index != 2 || many.Receipts[1].Index != 3 || len(many.Refused) != 1 {
		t.Fatal(many, err)
	}
	for _, text := range []string{one.Receipt, many.Receipts[0].Receipt} {
		c, err := v.Verify(text)
		s := r.ledger.Registry().Sender("")
		key, _, _ := r.ledger.AddressKey(s, "a@example.com")
		if err != nil || c.Sender != s.Number || c.Topic != s.Topic("news").Number || c.Key != key || c.Position != one.Position.Number || c.Minute < before || c.Minute > before+1 {
			t.Errorf("%+v, %v", c, err)
		}
	}
	if got := r.receiptFor("", "news", "no@example.com"); got != "" {
		t.Errorf("a refusal has a receipt: %s", got)
	}
	if resp, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Topic: "news", Address: "a@example.com"}); err != nil || resp.Receipt != "" {
		t.Errorf("a receipt that nobody wanted: %v, %v", resp, err)
	}
}

func TestAuditMail(t *testing.T) {
	r := newRig(t, nil)
	r.twoSenders()
	soon := time.Now().Add(time.Second) // after what follows here, as far as entries go
	good := r.receiptFor("", "news", "a@example.com")
	later := r.receiptFor("", "news", "late@example.com")
	digest := r.receiptFor("", "receipts", "topic@example.com")
	stranger, err := receipt.NewSigner(2, []byte(strings.Repeat("x", 32)))
	if err != nil {
		t.Fatal(err)
	}
	impostor, err := receipt.NewSigner(1, []byte(strings.Repeat("x", 32)))
	if err != nil {
		t.Fatal(err)
	}
	s := r.ledger.Registry().Sender("")
	key := func(addr string) [16]byte {
		k, _, err := r.ledger.AddressKey(s, addr)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	both := r.receipts.Sign(receipt.Claims{Sender: s.Number, Topic: s.Topic("news").Number, Minute: uint32(soon.Unix() / 60),
		Key: receipt.JoinKeys([][16]byte{key("b@example.com"), key("a@example.com")})})
	law := r.receiptFor("", "law", "late@example.com")
	for _, addr := range []string{"late@example.com", "two@example.com"} {
		r.optOut(addr)
	}
	if _, err := r.subscription.Unsubscribe(r.ctx(), &optoutv1.UnsubscribeRequest{Address: "topic@example.com", Scope: &optoutv1.Scope{Topic: "news"}}); err != nil {
		t.Fatal(err)
	}
	inSpite := r.receiptFor("", "law", "late@example.com")
	soon = time.Now().Add(time.Second)
	yesterday := soon.Add(-24 * time.Hour)

	for name, c := range map[string]struct {
		to      []string
		topic   string
		receipt string
		left    time.Time
		shown   bool
		want    string
	}{
		"checked":                         {to: []string{"a@example.com"}, receipt: good, left: soon, want: "OK checked news"},
		"checked, another spelling":       {to: []string{"A@EXAMPLE.com"}, receipt: good[:50] + "\r\n\t" + good[50:], left: soon, want: "OK checked news"},
		"another topic is claimed":        {to: []string{"a@example.com"}, topic: "receipts", receipt: good, left: soon, want: "OK checked news"},
		"unchecked":                       {to: []string{"a@example.com"}, left: soon, want: "UNCHECKED"},
		"unchecked, topic known":          {to: []string{"a@example.com"}, topic: "news", left: soon, want: "UNCHECKED news"},
		"unknown key":                     {to: []string{"a@example.com"}, receipt: stranger.Sign(receipt.Claims{}), left: soon, want: "FORGED"},
		"another's key":                   {to: []string{"a@example.com"}, receipt: impostor.Sign(receipt.Claims{}), left: soon, want: "FORGED"},
		"no receipt at all":               {to: []string{"a@example.com"}, receipt: "yes, checked", left: soon, want: "FORGED"},
		"another address":                 {to: []string{"b@example.com"}, receipt: good, left: soon, want: "OTHER_ADDRESS"},
		"one more address":                {to: []string{"a@example.com", "b@example.com"}, receipt: good, left: soon, want: "OTHER_ADDRESS"},
		"shown with one more":             {to: []string{"b@example.com", "a@example.com"}, receipt: good, left: soon, shown: true, want: "OK checked news"},
		"shown with one who said no":      {to: []string{"two@example.com", "a@example.com"}, receipt: good, left: soon, shown: true, want: "OK checked news"},
		"shown with another":              {to: []string{"b@example.com"}, receipt: good, left: soon, shown: true, want: "OTHER_ADDRESS"},
		"shows nobody":                    {receipt: good, left: soon, shown: true, want: "OK checked news"},
		"shows nobody, unchecked":         {left: soon, shown: true, want: "UNCHECKED"},
		"two together":                    {to: []string{"a@example.com", "b@example.com"}, receipt: both, left: soon, want: "OK checked news"},
		"one of two":                      {to: []string{"a@example.com"}, receipt: both, left: soon, want: "OTHER_ADDRESS"},
		"two of three":                    {to: []string{"a@example.com", "b@example.com", "bad"}, receipt: both, left: soon, want: "OTHER_ADDRESS unread 2"},
		"another sender":                  {to: []string{"a@example.com"}, receipt: r.receiptFor("one", "news", "a@example.com"), left: soon, want: "OTHER_SENDER"},
		"a sender that there is not":      {to: []string{"a@example.com"}, receipt: r.receipts.Sign(receipt.Claims{Sender: 9e6, Topic: 9e6}), left: soon, want: "OTHER_SENDER"},
		"queued for long":                 {to: []string{"a@example.com"}, receipt: good, left: soon.Add(2 * time.Hour), want: "STALE checked news"},
		"older than its check":            {to: []string{"a@example.com"}, receipt: good, left: yesterday, want: "OK checked news"},
		"nobody knows when":               {to: []string{"late@example.com"}, want: "UNCHECKED"},
		"before the opt-out":              {to: []string{"late@example.com"}, left: yesterday, want: "UNCHECKED"},
		"after the opt-out":               {to: []string{"late@example.com"}, left: soon, want: "AFTER_OPT_OUT 0 OPTED_OUT_ALL"},
		"checked before the opt-out":      {to: []string{"late@example.com"}, receipt: later, left: soon, want: "AFTER_OPT_OUT checked news 0 OPTED_OUT_ALL"},
		"forged after the opt-out":        {to: []string{"late@example.com"}, receipt: "x", left: soon, want: "AFTER_OPT_OUT 0 OPTED_OUT_ALL"},
		"one of two after the opt-out":    {to: []string{"a@example.com", "two@example.com"}, left: soon, want: "AFTER_OPT_OUT 1 OPTED_OUT_ALL"},
		"required, before":                {to: []string{"late@example.com"}, receipt: law, left: soon, want: "OK checked law"},
		"required, in spite":              {to: []string{"late@example.com"}, receipt: inSpite, left: soon, want: "OK checked law"},
		"another topic than the no":       {to: []string{"topic@example.com"}, receipt: digest, left: soon, want: "OK checked receipts"},
		"the topic of the no":             {to: []string{"topic@example.com"}, topic: "news", left: soon, want: "AFTER_OPT_OUT news 0 OPTED_OUT_TOPIC"},
		"a topic's no, topic not known":   {to: []string{"topic@example.com"}, left: soon, want: "UNCHECKED"},
		"opt-in without consent":          {to: []string{"a@example.com"}, topic: "digest", left: soon, want: "AFTER_OPT_OUT digest 0 NO_CONSENT"},
		"an address that cannot be read":  {to: []string{"bad"}, left: soon, want: "UNCHECKED unread 0"},
		"unread, and the receipt of none": {to: []string{"bad"}, receipt: good, left: soon, want: "OTHER_ADDRESS unread 0"},
	} {
		item := &optoutv1.AuditItem{Addresses: c.to, Topic: c.topic, Receipt: c.receipt, Shown: c.shown}
		if !c.left.IsZero() {
			item.LeftAt = timestamppb.New(c.left)
		}
		resp, err := r.entries.AuditMail(r.ctx(), &optoutv1.AuditMailRequest{Items: []*optoutv1.AuditItem{item}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := resultText(resp.Results[0]); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	strict := &optoutv1.AuditMailRequest{MaxAge: durationpb.New(0), Items: []*optoutv1.AuditItem{{Addresses: []string{"a@example.com"}, Receipt: good, LeftAt: timestamppb.New(soon.Add(time.Minute))}}}
	if resp, err := r.entries.AuditMail(r.ctx(), strict); err != nil || resp.Results[0].Finding != optoutv1.AuditFinding_AUDIT_FINDING_STALE {
		t.Errorf("with a shorter age: %v, %v", resp, err)
	}
}

func resultText(x *optoutv1.AuditResult) string {
	words := []string{strings.TrimPrefix(x.Finding.String(), "AUDIT_FINDING_")}
	if x.Checked {
		words = append(words, "checked")
	}
	if x.Checked != (x.CheckedAt != nil) {
		words = append(words, "contradiction")
	}
	if x.Topic != "" {
		words = append(words, x.Topic)
	}
	for _, a := range x.Refused {
		words = append(words, fmt.Sprintf("%d %s", a.Index, strings.TrimPrefix(a.Denials[0].Reason.String(), "DENIAL_REASON_")))
	}
	for _, a := range x.Unread {
		words = append(words, fmt.Sprintf("unread %d", a.Index))
	}
	return strings.Join(words, " ")
}

// A key that is bound to a sender audits no other's mail.
func TestAuditIsBoundToSenders(t *testing.T) {
	r := newRig(t, nil)
	r.twoSenders()
	auditor, _ := r.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_AUDITOR, Senders: []string{"one"}})
	for sender, want := range map[string]string{"one": "", "two": "SENDER_NOT_ALLOWED", "": "SENDER_NOT_ALLOWED"} {
		_, err := r.entries.AuditMail(with(t.Context(), auditor), &optoutv1.AuditMailRequest{Sender: sender,
			Items: []*optoutv1.AuditItem{{Addresses: []string{"a@example.com"}, Receipt: r.receiptFor("two", "news", "a@example.com")}}})
		if reason(err) != want {
			t.Errorf("sender %q: %v, want %q", sender, err, want)
		}
	}
}
