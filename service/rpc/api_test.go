package rpc_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reason is the ErrorInfo's reason; 0 for no error. An error without ErrorInfo is -1.
func reason(err error) optoutv1.ErrorReason {
	if err == nil {
		return 0
	}
	for _, d := range status.Convert(err).Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok && i.Domain == "optout" {
			return optoutv1.ErrorReason(optoutv1.ErrorReason_value["ERROR_REASON_"+i.Reason])
		}
	}
	return -1
}

// The numbers of the core are those of the API: they are cast from one to the other.
func TestNumbersAgree(t *testing.T) {
	for got, want := range map[string]string{
		optoutv1.DenialReason(ledger.ReasonConsentExpired).String():             "DENIAL_REASON_CONSENT_EXPIRED",
		optoutv1.DenialReason(ledger.ReasonComplaint).String():                  "DENIAL_REASON_COMPLAINT",
		optoutv1.EntryKind(ledger.WirelessAuthorized).String():                  "ENTRY_KIND_WIRELESS_AUTHORIZED",
		optoutv1.EntryKind(ledger.ImportCompleted).String():                     "ENTRY_KIND_IMPORT_COMPLETED",
		optoutv1.EntryKind(ledger.Undone).String():                              "ENTRY_KIND_UNDONE",
		optoutv1.Channel(ledger.BySystem).String():                              "CHANNEL_SYSTEM",
		optoutv1.Channel(ledger.ByMailto).String():                              "CHANNEL_MAILTO",
		optoutv1.Role(ledger.RoleAdmin).String():                                "ROLE_ADMIN",
		optoutv1.TopicClass(ledger.Required).String():                           "TOPIC_CLASS_REQUIRED",
		optoutv1.ConsentRule(ledger.OptInRule).String():                         "CONSENT_RULE_OPT_IN",
		optoutv1.RequiredGround(ledger.GroundAnswer).String():                   "REQUIRED_GROUND_ANSWER",
		optoutv1.ScopeKind(ledger.ScopeTopic).String():                          "SCOPE_KIND_TOPIC",
		optoutv1.ConsentBasis(ledger.ImpliedInquiry).String():                   "CONSENT_BASIS_IMPLIED_INQUIRY",
		fmt.Sprint(len(optoutv1.DenialReason_name) - 1):                         "13",
		strings.TrimPrefix(optoutv1.DenialReason(6).String(), "DENIAL_REASON_"): ledger.ReasonOptedOutAll.String(),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// Every exported error of the core has a row in this edge's table.
func TestEveryErrorIsMapped(t *testing.T) {
	mapped, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../ledger/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	found := 0
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok {
				for _, name := range v.Names {
					if strings.HasPrefix(name.Name, "Err") {
						found++
						if !strings.Contains(string(mapped), "{ledger."+name.Name+",") {
							t.Errorf("ledger.%s has no row in the error table", name.Name)
						}
					}
				}
			}
			return true
		})
	}
	if found < 20 {
		t.Errorf("only %d errors found", found)
	}
}

// Bad input gets a code, a reason, a field and a remedy, and no personal data.
func TestErrorsTellWhatToDo(t *testing.T) {
	a := newAPI(t)
	a.svc.CreateTopic(t, "news")
	checks, subs, links := optoutv1.NewSuppressionServiceClient(a.conn), optoutv1.NewSubscriptionServiceClient(a.conn), optoutv1.NewLinkServiceClient(a.conn)
	many := make([]string, 10001)
	for name, c := range map[string]struct {
		call func() error
		code codes.Code
		want string
	}{
		"unknown topic": {func() error {
			_, err := checks.CheckSend(a.ctx(), &optoutv1.CheckSendRequest{Topic: "nosuch", Address: "a@example.com"})
			return err
		}, codes.NotFound, "UNKNOWN_TOPIC"},
		"unknown sender": {func() error {
			_, err := checks.CheckSend(a.ctx(), &optoutv1.CheckSendRequest{Sender: "nosuch", Topic: "news", Address: "a@example.com"})
			return err
		}, codes.NotFound, "UNKNOWN_SENDER"},
		"no topic": {func() error {
			_, err := checks.CheckSend(a.ctx(), &optoutv1.CheckSendRequest{Address: "a@example.com"})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"malformed address": {func() error {
			_, err := checks.CheckSend(a.ctx(), &optoutv1.CheckSendRequest{Topic: "news", Address: "Secret Name <secret@example.com>"})
			return err
		}, codes.InvalidArgument, "INVALID_ADDRESS"},
		"too many addresses": {func() error {
			_, err := checks.BatchCheckSend(a.ctx(), &optoutv1.BatchCheckSendRequest{Topic: "news", Addresses: many})
			return err
		}, codes.InvalidArgument, "TOO_MANY_ITEMS"},
		"page too large": {func() error {
			_, err := checks.ListSuppressions(a.ctx(), &optoutv1.ListSuppressionsRequest{PageSize: 1001})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"foreign page token": {func() error {
			_, err := checks.ListSuppressions(a.ctx(), &optoutv1.ListSuppressionsRequest{PageToken: "AAAA"})
			return err
		}, codes.InvalidArgument, "INVALID_PAGE_TOKEN"},
		"yes without request_id": {func() error {
			_, err := subs.Subscribe(a.ctx(), &optoutv1.SubscribeRequest{Topic: "news", Address: "a@example.com"})
			return err
		}, codes.InvalidArgument, "REQUEST_ID_REQUIRED"},
		"lifting an opt-out": {func() error {
			_, err := checks.LiftSuppression(a.ctx(), &optoutv1.LiftSuppressionRequest{Address: "a@example.com", Reason: optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_ALL, Justification: "please", RequestId: "1"})
			return err
		}, codes.FailedPrecondition, "NOT_LIFTABLE"},
		"random token": {func() error {
			_, err := links.InspectLink(a.ctx(), &optoutv1.InspectLinkRequest{Token: strings.Repeat("a", 61)})
			return err
		}, codes.NotFound, "INVALID_TOKEN"},
		"link for a required topic": {func() error {
			_, err := links.IssueLink(a.ctx(), &optoutv1.IssueLinkRequest{Topic: "privacy", Address: "a@example.com"})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"position of another ledger": {func() error {
			_, err := checks.CheckSend(a.ctx(), &optoutv1.CheckSendRequest{Topic: "news", Address: "a@example.com", AtLeast: &optoutv1.Position{LedgerId: "another", Number: 1}})
			return err
		}, codes.FailedPrecondition, "OTHER_LEDGER"},
		"loosening a topic": {func() error {
			_, err := a.admin().UpdateTopic(a.ctx(), &optoutv1.UpdateTopicRequest{Name: "news", Class: optoutv1.TopicClass_TOPIC_CLASS_TRANSACTIONAL})
			return err
		}, codes.FailedPrecondition, "LOOSENING"},
		"topic name taken": {func() error {
			_, err := a.admin().CreateTopic(a.ctx(), &optoutv1.CreateTopicRequest{Topic: &optoutv1.Topic{Name: "news"}})
			return err
		}, codes.AlreadyExists, "NAME_TAKEN"},
		"required topic without justification": {func() error {
			_, err := a.admin().CreateTopic(a.ctx(), &optoutv1.CreateTopicRequest{Topic: &optoutv1.Topic{Name: "must", Class: optoutv1.TopicClass_TOPIC_CLASS_REQUIRED, Ground: optoutv1.RequiredGround_REQUIRED_GROUND_LAW}})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"revoking the last admin key": {func() error {
			_, err := a.admin().RevokeApiKey(a.ctx(), &optoutv1.RevokeApiKeyRequest{Number: 1})
			return err
		}, codes.FailedPrecondition, "INVALID_FIELD"},
	} {
		err := c.call()
		s := status.Convert(err)
		if s.Code() != c.code || "ERROR_REASON_"+c.want != reason(err).String() {
			t.Errorf("%s: %v (%v)", name, err, reason(err))
			continue
		}
		if strings.Contains(strings.ToLower(err.Error()), "secret") {
			t.Errorf("%s: the message carries personal data: %v", name, err)
		}
		info := s.Details()[0].(*errdetails.ErrorInfo)
		if info.Metadata["remedy"] == "" && info.Metadata["field"] == "" || s.Message() == "" {
			t.Errorf("%s: no field and no remedy: %v", name, s)
		}
		if c.want == "TOO_MANY_ITEMS" && info.Metadata["limit"] != "10000" {
			t.Errorf("%s: limit %q", name, info.Metadata["limit"])
		}
	}
}

func TestCheckSendGivesHeaders(t *testing.T) {
	a := newAPI(t)
	a.svc.CreateTopic(t, "news")
	checks := optoutv1.NewSuppressionServiceClient(a.conn)
	resp, err := checks.CheckSend(a.ctx(), &optoutv1.CheckSendRequest{Topic: "news", Address: "ann@example.com", WantHeaders: true, Mailing: 7})
	if err != nil || resp.Verdict != optoutv1.Verdict_VERDICT_SEND || len(resp.Link.GetHeaders()) != 2 || len(resp.Link.DkimSign) != 2 {
		t.Fatalf("%v, %v", resp, err)
	}
	if strings.Contains(resp.Link.Url, "ann") {
		t.Error("the link carries the address")
	}
	inspect, err := optoutv1.NewLinkServiceClient(a.conn).InspectLink(a.ctx(), &optoutv1.InspectLinkRequest{Token: resp.Link.Mailto})
	if err != nil || inspect.Mailing != 7 || inspect.Scope.Kind != optoutv1.ScopeKind_SCOPE_KIND_ALL || inspect.InForce != 0 {
		t.Errorf("%v, %v", inspect, err)
	}
	out, err := optoutv1.NewSubscriptionServiceClient(a.conn).Unsubscribe(a.ctx(), &optoutv1.UnsubscribeRequest{Token: resp.Link.Url})
	if err != nil || !out.Created {
		t.Fatalf("%v, %v", out, err)
	}
	resp, err = checks.CheckSend(a.ctx(), &optoutv1.CheckSendRequest{Topic: "news", Address: "Ann@EXAMPLE.com", WantHeaders: true, AtLeast: out.Position})
	if err != nil || resp.Verdict != optoutv1.Verdict_VERDICT_DO_NOT_SEND || resp.Link != nil || resp.Denials[0].Entry != out.Entry || resp.Position.Number < out.Position.Number {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestBatchCheckSendAnswersByIndex(t *testing.T) {
	a := newAPI(t)
	a.svc.CreateTopic(t, "news")
	if _, err := optoutv1.NewSubscriptionServiceClient(a.conn).Unsubscribe(a.ctx(), &optoutv1.UnsubscribeRequest{Address: "out@example.com"}); err != nil {
		t.Fatal(err)
	}
	resp, err := optoutv1.NewSuppressionServiceClient(a.conn).BatchCheckSend(a.ctx(), &optoutv1.BatchCheckSendRequest{Topic: "news", WantHeaders: true,
		Addresses: []string{"a@example.com", "out@example.com", "not an address", "OUT@example.com", "b@example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	if string(resp.Verdicts) != "\x01\x02\x02\x02\x01" || len(resp.Refused) != 2 || resp.Refused[0].Index != 1 || resp.Refused[1].Index != 3 ||
		len(resp.Malformed) != 1 || resp.Malformed[0].Index != 2 || len(resp.Links) != 2 || resp.Links[1].Index != 4 {
		t.Errorf("%v", resp)
	}
}

// Confirmation end to end: the token proves the mailbox, and a retry gets the same one.
func TestSubscribeAndConfirm(t *testing.T) {
	a := newAPI(t)
	if _, err := a.admin().CreateTopic(a.ctx(), &optoutv1.CreateTopicRequest{Topic: &optoutv1.Topic{Name: "digest", ConsentRule: optoutv1.ConsentRule_CONSENT_RULE_OPT_IN}}); err != nil {
		t.Fatal(err)
	}
	subs, checks := optoutv1.NewSubscriptionServiceClient(a.conn), optoutv1.NewSuppressionServiceClient(a.conn)
	req := &optoutv1.SubscribeRequest{Topic: "digest", Address: "j.doe@gmail.com", RequestId: "r1"}
	first, err := subs.Subscribe(a.ctx(), req)
	if err != nil || first.State != optoutv1.SubscriptionState_SUBSCRIPTION_STATE_CONFIRMATION_NEEDED || first.ConfirmationToken == "" {
		t.Fatalf("%v, %v", first, err)
	}
	again, err := subs.Subscribe(a.ctx(), req)
	if err != nil || again.Entry != first.Entry || again.ConfirmationToken != first.ConfirmationToken {
		t.Errorf("the retry got %v, %v", again, err)
	}
	req.Address = "other@example.com"
	if _, err := subs.Subscribe(a.ctx(), req); reason(err) != optoutv1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED {
		t.Errorf("%v", err)
	}
	if _, err := subs.Unsubscribe(a.ctx(), &optoutv1.UnsubscribeRequest{Token: first.ConfirmationToken}); reason(err) != optoutv1.ErrorReason_ERROR_REASON_INVALID_TOKEN {
		t.Errorf("a confirmation token unsubscribes: %v", err)
	}
	conf, err := subs.ConfirmSubscription(a.ctx(), &optoutv1.ConfirmSubscriptionRequest{Token: first.ConfirmationToken, RequestId: "c1"})
	if err != nil || conf.Topic != "digest" || len(conf.Denials) != 0 {
		t.Fatalf("%v, %v", conf, err)
	}
	for addr, want := range map[string]optoutv1.Verdict{"j.doe@gmail.com": optoutv1.Verdict_VERDICT_SEND, "jdoe@gmail.com": optoutv1.Verdict_VERDICT_DO_NOT_SEND} {
		if resp, err := checks.CheckSend(a.ctx(), &optoutv1.CheckSendRequest{Topic: "digest", Address: addr}); err != nil || resp.Verdict != want {
			t.Errorf("%s: %v, %v: consent is narrow", addr, resp, err)
		}
	}
	// Suppression is broad: any spelling of the mailbox stops all.
	if _, err := subs.Unsubscribe(a.ctx(), &optoutv1.UnsubscribeRequest{Address: "jd.oe@googlemail.com"}); err != nil {
		t.Fatal(err)
	}
	if resp, err := checks.CheckSend(a.ctx(), &optoutv1.CheckSendRequest{Topic: "digest", Address: "j.doe@gmail.com"}); err != nil || resp.Verdict != optoutv1.Verdict_VERDICT_DO_NOT_SEND {
		t.Errorf("%v, %v", resp, err)
	}
}

// Support sees the story without where the person was; operators list no evidence; a mailer sees none.
func TestEvidenceByRole(t *testing.T) {
	a := newAPI(t)
	a.svc.CreateTopic(t, "news")
	_, err := optoutv1.NewSubscriptionServiceClient(a.conn).Subscribe(a.ctx(), &optoutv1.SubscribeRequest{Topic: "news", Address: "ann@example.com", RequestId: "1",
		Evidence: &optoutv1.ConsentEvidence{Source: "form", Ip: "192.0.2.7", UserAgent: "Browser"}})
	if err != nil {
		t.Fatal(err)
	}
	for role, want := range map[optoutv1.Role][2]bool{optoutv1.Role_ROLE_SUPPORT: {true, false}, optoutv1.Role_ROLE_OPERATOR: {true, false},
		optoutv1.Role_ROLE_PRIVACY: {true, true}, optoutv1.Role_ROLE_AUDITOR: {true, true}} {
		secret, _ := a.key(&optoutv1.ApiKey{Role: role})
		resp, err := optoutv1.NewSuppressionServiceClient(a.conn).ExplainAddress(with(t.Context(), secret), &optoutv1.ExplainAddressRequest{Address: "ann@example.com"})
		if err != nil || len(resp.Entries) != 1 {
			t.Fatalf("%v, %v", resp, err)
		}
		e := resp.Entries[0].Evidence
		if (e["source"] != "") != want[0] || (e["ip"] != "") != want[1] || (e["user_agent"] != "") != want[1] {
			t.Errorf("%v sees %v", role, e)
		}
	}
	secret, _ := a.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_OPERATOR})
	list, err := optoutv1.NewLedgerServiceClient(a.conn).ListEntries(with(t.Context(), secret), &optoutv1.ListEntriesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Entries {
		if len(e.Evidence) != 0 {
			t.Errorf("a listing shows an operator %v", e.Evidence)
		}
	}
}

// Pages stay whole while others write: each entry that was there at the first page comes exactly once, in order.
func TestPagesStayWhole(t *testing.T) {
	a := newAPI(t)
	a.svc.CreateTopic(t, "news")
	subs, list := optoutv1.NewSubscriptionServiceClient(a.conn), optoutv1.NewSuppressionServiceClient(a.conn)
	for i := range 50 {
		if _, err := subs.Unsubscribe(a.ctx(), &optoutv1.UnsubscribeRequest{Address: fmt.Sprintf("p%d@example.com", i)}); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				subs.Unsubscribe(a.ctx(), &optoutv1.UnsubscribeRequest{Address: fmt.Sprintf("new%d@example.org", i)})
			}
		}
	})
	defer writer.Wait()
	defer close(stop)
	for _, order := range []optoutv1.ListOrder{optoutv1.ListOrder_LIST_ORDER_NEWEST_FIRST, optoutv1.ListOrder_LIST_ORDER_POSITION} {
		var entries []uint64
		old := 0
		for token := ""; ; {
			resp, err := list.ListSuppressions(a.ctx(), &optoutv1.ListSuppressionsRequest{Order: order, PageSize: 7, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range resp.Suppressions {
				entries = append(entries, s.Entry)
				if strings.HasPrefix(s.Address, "p") {
					old++
				}
			}
			if token = resp.NextPageToken; token == "" {
				break
			}
		}
		for i := 1; i < len(entries); i++ {
			if order == optoutv1.ListOrder_LIST_ORDER_POSITION && entries[i] <= entries[i-1] || order != optoutv1.ListOrder_LIST_ORDER_POSITION && entries[i] >= entries[i-1] {
				t.Fatalf("%v: entry %d after %d", order, entries[i], entries[i-1])
			}
		}
		if old != 50 {
			t.Errorf("%v: %d of the 50 that were there", order, old)
		}
	}
	resp, err := list.ListSuppressions(a.ctx(), &optoutv1.ListSuppressionsRequest{Domain: "example.com", Channel: optoutv1.Channel_CHANNEL_API,
		Reasons: []optoutv1.DenialReason{optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_ALL}, From: timestamppb.New(time.Now().Add(-time.Hour)), PageSize: 1000})
	if err != nil || len(resp.Suppressions) != 50 {
		t.Errorf("filtered: %d, %v", len(resp.Suppressions), err)
	}
}

func TestVerifyAndCheckpoint(t *testing.T) {
	a := newAPI(t)
	l := optoutv1.NewLedgerServiceClient(a.conn)
	s, err := l.Verify(a.ctx(), &optoutv1.VerifyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var last *optoutv1.VerifyResponse
	for {
		m, err := s.Recv()
		if err != nil {
			break
		}
		last = m
	}
	if last == nil || !last.Done || last.FirstBad != 0 || last.Verified == 0 {
		t.Errorf("%v", last)
	}
	c, err := l.GetCheckpoint(a.ctx(), &optoutv1.GetCheckpointRequest{})
	if err != nil || !strings.HasPrefix(c.Text, "optout/"+c.Position.LedgerId+"\n") || len(c.RootHash) != 32 {
		t.Errorf("%v, %v", c, err)
	}
}
