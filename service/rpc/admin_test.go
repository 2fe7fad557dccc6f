package rpc_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
	"optout/service/rpc"
)

// A sender's own settings win over the installation's, in what it shows and in the links it issues.
func TestSenders(t *testing.T) {
	r := newRig(t, nil)
	made, err := r.admin.CreateSender(r.ctx(), &optoutv1.CreateSenderRequest{Sender: &optoutv1.Sender{Name: "shop", DisplayName: "The Shop",
		PublicUrl: "https://shop.example/", MailDomain: "out.shop.example"}})
	if err != nil || made.Sender.Number == 0 || made.Sender.CreatedAt == nil || made.Position.Number != r.ledger.Position().Number {
		t.Fatal(made, err)
	}
	if _, err := r.admin.CreateTopic(r.ctx(), &optoutv1.CreateTopicRequest{Sender: "shop", Topic: &optoutv1.Topic{Name: "offers"}}); err != nil {
		t.Fatal(err)
	}
	issued, err := r.link.IssueLink(r.ctx(), &optoutv1.IssueLinkRequest{Sender: "shop", Topic: "offers", Address: "ann@example.com"})
	if err != nil || !strings.HasPrefix(issued.Link.Url, "https://shop.example/u/") || !strings.Contains(issued.Link.Mailto, "@out.shop.example?") {
		t.Errorf("%v, %v", issued, err)
	}
	postal, plain, nothing := "1 Example Street", "http://shop.example", ""
	changed, err := r.admin.UpdateSender(r.ctx(), &optoutv1.UpdateSenderRequest{Name: "shop", PostalAddress: &postal, PublicUrl: &plain, MailDomain: &nothing})
	if err != nil || changed.Sender.PostalAddress != postal || changed.Sender.DisplayName != "The Shop" || changed.Sender.EffectiveMailDomain != "unsub.example.com" {
		t.Errorf("%v, %v", changed, err)
	}
	issued, err = r.link.IssueLink(r.ctx(), &optoutv1.IssueLinkRequest{Sender: "shop", Topic: "offers", Address: "ann@example.com"})
	if err != nil || len(issued.Link.Headers) != 1 || issued.Link.Warning == "" {
		t.Errorf("without https: %v, %v", issued, err)
	}
	got, err := r.admin.GetSender(r.ctx(), &optoutv1.GetSenderRequest{})
	if err != nil || got.Sender.Name != "default" || got.Sender.PublicUrl != "" || got.Sender.EffectivePublicUrl != "https://mail.example.com" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := r.admin.GetSender(r.ctx(), &optoutv1.GetSenderRequest{Name: "nosuch"}); reason(err) != "UNKNOWN_SENDER" {
		t.Error(err)
	}
	list, err := r.admin.ListSenders(r.ctx(), &optoutv1.ListSendersRequest{})
	if err != nil || len(list.Senders) != 2 || list.Senders[1].Name != "shop" {
		t.Errorf("%v, %v", list, err)
	}
}

func TestTopics(t *testing.T) {
	r := newRig(t, nil)
	made, err := r.admin.CreateTopic(r.ctx(), &optoutv1.CreateTopicRequest{Topic: &optoutv1.Topic{Name: "status"}})
	if err != nil || made.Topic.Class != optoutv1.TopicClass_TOPIC_CLASS_COMMERCIAL || made.Topic.ConsentRule != optoutv1.ConsentRule_CONSENT_RULE_OPT_OUT || made.Topic.Number == 0 {
		t.Fatal(made, err)
	}
	text := "news of the service"
	changed, err := r.admin.UpdateTopic(r.ctx(), &optoutv1.UpdateTopicRequest{Name: "status", Description: &text, ConsentRule: optoutv1.ConsentRule_CONSENT_RULE_OPT_IN})
	if err != nil || changed.Topic.Description != text || changed.Topic.ConsentRule != optoutv1.ConsentRule_CONSENT_RULE_OPT_IN {
		t.Errorf("%v, %v", changed, err)
	}
	r.want("status", "ann@example.com", noConsent)
	list, err := r.admin.ListTopics(r.ctx(), &optoutv1.ListTopicsRequest{})
	if err != nil || len(list.Topics) != 8 || list.NewestImport != nil {
		t.Errorf("%v, %v", list, err)
	}
	for _, topic := range list.GetTopics() {
		if topic.BuiltIn != (topic.Name == "privacy" || topic.Name == "confirmation") {
			t.Errorf("%v", topic)
		}
	}
	rows := []*optoutv1.ImportedSuppression{{Address: "old@example.com", OccurredAt: timestamppb.New(time.Now().AddDate(-3, 0, 0)), Note: "bounced off"},
		{Address: "bad"}, {Address: "OLD@example.com"}}
	dry, err := r.suppression.ImportSuppressions(r.ctx(), &optoutv1.ImportSuppressionsRequest{Source: "old.csv", Rows: rows, DryRun: true, Last: true})
	if err != nil || dry.Added != 1 || dry.Unchanged != 1 || len(dry.Malformed) != 1 || dry.Malformed[0].Index != 1 {
		t.Errorf("dry run: %v, %v", dry, err)
	}
	r.want("news", "old@example.com")
	wet, err := r.suppression.ImportSuppressions(r.ctx(), &optoutv1.ImportSuppressionsRequest{Source: "old.csv", Rows: rows, Last: true})
	if err != nil || wet.Added != dry.Added || wet.Unchanged != dry.Unchanged {
		t.Errorf("%v, %v", wet, err)
	}
	r.want("news", "old@example.com", optedOutAll)
	list, err = r.admin.ListTopics(r.ctx(), &optoutv1.ListTopicsRequest{})
	if err != nil || list.NewestImport.GetSource() != "old.csv" || list.NewestImport.Entry == 0 || list.NewestImport.At == nil {
		t.Errorf("%v, %v", list, err)
	}
}

// Blocked by an operator, and listed by the FCC: the rule of 47 CFR 64.3100 and its 30 days.
func TestDomainRules(t *testing.T) {
	r := newRig(t, nil)
	blocked, err := r.admin.BlockDomain(r.ctx(), &optoutv1.BlockDomainRequest{Domain: "Bad.Example", Justification: "a spam trap"})
	if err != nil || blocked.Entry == 0 {
		t.Fatal(blocked, err)
	}
	r.want("receipts", "ann@mail.bad.example", optoutv1.DenialReason_DENIAL_REASON_BLOCKED_DOMAIN)
	r.want("receipts", "ann@notbad.example")
	day := func(ago int) *timestamppb.Timestamp { return timestamppb.New(time.Now().AddDate(0, 0, -ago)) }
	listed, err := r.admin.ImportWirelessDomains(r.ctx(), &optoutv1.ImportWirelessDomainsRequest{ListDate: day(0), Domains: []*optoutv1.WirelessDomain{
		{Domain: "old.example", FirstListedAt: day(31)}, {Domain: "new.example", FirstListedAt: day(29)}}})
	if err != nil || listed.Listed != 2 || listed.Delisted != 0 {
		t.Fatal(listed, err)
	}
	r.want("news", "5551234@sms.old.example", optoutv1.DenialReason_DENIAL_REASON_WIRELESS_DOMAIN)
	r.want("receipts", "5551234@sms.old.example") // transactional mail is exempt
	resp, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Topic: "news", Address: "5551234@new.example"})
	if until := time.Now().AddDate(0, 0, 1).UTC().Format(time.DateOnly); err != nil || resp.Verdict != send || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], until) {
		t.Errorf("%v, %v", resp, err)
	}
	rules, err := r.admin.ListDomainRules(r.ctx(), &optoutv1.ListDomainRulesRequest{})
	if err != nil || len(rules.Rules) != 3 || rules.Rules[0].Domain != "bad.example" || rules.Rules[0].Justification == "" || rules.WirelessListDate == nil {
		t.Errorf("%v, %v", rules, err)
	}
	if _, err := r.admin.UnblockDomain(r.ctx(), &optoutv1.UnblockDomainRequest{Domain: "bad.example", Justification: "mended", RequestId: "1"}); err != nil {
		t.Fatal(err)
	}
	r.want("receipts", "ann@mail.bad.example")
}

// What a machine said in error can be lifted or voided; what stands meanwhile denies.
func TestLiftAndVoid(t *testing.T) {
	r := newRig(t, nil)
	undeliverable := optoutv1.DenialReason_DENIAL_REASON_UNDELIVERABLE
	var entries []uint64
	for _, addr := range []string{"a@example.com", "b@example.com"} {
		made, err := r.suppression.CreateSuppression(r.as(optoutv1.Role_ROLE_FEEDBACK), &optoutv1.CreateSuppressionRequest{Address: addr, Reason: undeliverable, Note: "5.1.1"})
		if err != nil || !made.Created {
			t.Fatal(made, err)
		}
		entries = append(entries, made.Entry)
		r.want("receipts", addr, undeliverable)
	}
	if again, err := r.suppression.CreateSuppression(r.ctx(), &optoutv1.CreateSuppressionRequest{Address: "a@example.com", Reason: undeliverable}); err != nil || again.Created || again.Entry != entries[0] {
		t.Errorf("a repeat: %v, %v", again, err)
	}
	operator := r.as(optoutv1.Role_ROLE_OPERATOR)
	lifted, err := r.suppression.LiftSuppression(operator, &optoutv1.LiftSuppressionRequest{Address: "a@example.com", Reason: undeliverable, Justification: "mailbox is back", RequestId: "1"})
	if err != nil || lifted.Entry == 0 {
		t.Errorf("%v, %v", lifted, err)
	}
	r.want("receipts", "a@example.com")
	nothing, err := r.suppression.LiftSuppression(operator, &optoutv1.LiftSuppressionRequest{Address: "a@example.com", Reason: undeliverable, Justification: "again", RequestId: "2"})
	if err != nil || nothing.Entry != 0 {
		t.Errorf("%v, %v", nothing, err)
	}
	voided, err := r.suppression.VoidEntries(operator, &optoutv1.VoidEntriesRequest{Entries: entries, Justification: "a bounce storm", Evidence: "incident 7", RequestId: "3"})
	if err != nil || voided.Voided != 1 {
		t.Errorf("%v, %v", voided, err)
	}
	r.want("receipts", "b@example.com")
	story, err := r.suppression.ExplainAddress(operator, &optoutv1.ExplainAddressRequest{Address: "b@example.com"})
	if err != nil || len(story.Entries) != 2 || story.Entries[1].Ref != entries[1] || story.Entries[1].Detail["justification"] == "" || story.Entries[1].Evidence["evidence"] != "incident 7" {
		t.Errorf("%v, %v", story, err)
	}
}

func TestAPIKeys(t *testing.T) {
	r := newRig(t, nil)
	secret, number := r.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_MAILER, Topics: []string{"news"}})
	if len(secret) != len("optout_")+52 || !strings.HasPrefix(secret, "optout_") {
		t.Errorf("the secret is %q", secret)
	}
	list, err := r.admin.ListApiKeys(r.ctx(), &optoutv1.ListApiKeysRequest{})
	if err != nil || len(list.Keys) != 2 || list.Keys[1].Number != number || list.Keys[1].Role != optoutv1.Role_ROLE_MAILER || list.Keys[1].Topics[0] != "news" || list.Keys[1].RevokedAt != nil {
		t.Errorf("%v, %v", list, err)
	}
	if strings.Contains(list.String(), secret[10:]) {
		t.Error("the list shows a secret")
	}
	mailer := with(t.Context(), secret)
	check := &optoutv1.CheckSendRequest{Topic: "news", Address: "ann@example.com"}
	if _, err := r.suppression.CheckSend(mailer, check); err != nil {
		t.Error(err)
	}
	gone, err := r.admin.RevokeApiKey(r.ctx(), &optoutv1.RevokeApiKeyRequest{Number: number})
	if err != nil || gone.Key.RevokedAt == nil {
		t.Errorf("%v, %v", gone, err)
	}
	if _, err := r.suppression.CheckSend(mailer, check); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a revoked key checks: %v", err)
	}
}

// Links of the old key keep working after a rotation.
func TestLinkKeys(t *testing.T) {
	r := newRig(t, nil)
	issue := func() string {
		l, err := r.link.IssueLink(r.ctx(), &optoutv1.IssueLinkRequest{Topic: "news", Address: "ann@example.com"})
		if err != nil {
			t.Fatal(err)
		}
		return l.Link.Url
	}
	old := issue()
	made, err := r.admin.RotateLinkKey(r.ctx(), &optoutv1.RotateLinkKeyRequest{})
	if err != nil || made.Key.Id != 2 || !made.Key.Current || made.Position.Number != r.ledger.Position().Number {
		t.Fatal(made, err)
	}
	for url, id := range map[string]uint32{old: 1, issue(): 2} {
		if i, err := r.link.InspectLink(r.ctx(), &optoutv1.InspectLinkRequest{Token: url}); err != nil || i.LinkKeyId != id {
			t.Errorf("%v, %v, want key %d", i, err, id)
		}
	}
	list, err := r.admin.ListLinkKeys(r.ctx(), &optoutv1.ListLinkKeysRequest{})
	if err != nil || len(list.Keys) != 2 || list.Keys[0].Current || !list.Keys[1].Current || len(list.Keys[0].CheckValue) != 32 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := r.subscription.Unsubscribe(r.ctx(), &optoutv1.UnsubscribeRequest{Token: old}); err != nil {
		t.Error(err)
	}
	r.want("news", "ann@example.com", optedOutAll)
}

// The head in the C2SP tlog-checkpoint form, and it is the head that a verification finds.
func TestCheckpoint(t *testing.T) {
	r := newRig(t, nil)
	c, err := r.entries.GetCheckpoint(r.ctx(), &optoutv1.GetCheckpointRequest{})
	want := fmt.Sprintf("optout/%s\n%d\n%s\n", r.ledger.ID(), r.ledger.Position().Number, base64.StdEncoding.EncodeToString(c.GetRootHash()))
	if err != nil || c.Text != want || len(c.RootHash) != 32 || c.At == nil {
		t.Errorf("%v, %v", c, err)
	}
	if err := r.verify(); err != nil {
		t.Error(err)
	}
}

func TestBackup(t *testing.T) {
	r := newRig(t, nil)
	backup := func(r *rig, dir string) (*optoutv1.BackupResponse, error) {
		s, err := r.admin.Backup(r.ctx(), &optoutv1.BackupRequest{Directory: dir})
		if err != nil {
			return nil, err
		}
		var last *optoutv1.BackupResponse
		for {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return last, nil
			}
			if err != nil {
				return nil, err
			}
			last = m
		}
	}
	dir := t.TempDir()
	c, err := r.entries.GetCheckpoint(r.ctx(), &optoutv1.GetCheckpointRequest{})
	if err != nil {
		t.Fatal(err)
	}
	done, err := backup(r, dir)
	if err != nil || !done.Done || done.Position.Number != c.Position.Number || string(done.RootHash) != string(c.RootHash) {
		t.Errorf("%v, %v", done, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) == 0 {
		t.Errorf("nothing was written: %v", err)
	}
	if _, err := backup(r, "relative/path"); reason(err) != "INVALID_FIELD" {
		t.Errorf("a relative path: %v", err)
	}
	taken := newRig(t, func(o *rpc.Options) {
		o.Backup = func(context.Context, string, bool, func(copied, total uint64)) (ledger.Position, ledger.Hash, error) {
			return ledger.Position{}, ledger.Hash{}, &ledger.Error{Kind: ledger.ErrInvalidField, Field: "directory", Problem: "it is not empty", Remedy: "name another"}
		}
	})
	if _, err := backup(taken, dir); reason(err) != "BACKUP_TARGET" || status.Code(err) != codes.FailedPrecondition || info(err).Metadata["remedy"] != "name another" {
		t.Errorf("a folder in use: %v", err)
	}
}
