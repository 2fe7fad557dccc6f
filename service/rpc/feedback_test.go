package rpc_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/address"
	"optout/service/ledger"
	"optout/service/link"
	"optout/service/rpc"
)

const (
	hard          = optoutv1.BounceType_BOUNCE_TYPE_HARD
	soft          = optoutv1.BounceType_BOUNCE_TYPE_SOFT
	undeliverable = optoutv1.DenialReason_DENIAL_REASON_UNDELIVERABLE
	complained    = optoutv1.DenialReason_DENIAL_REASON_COMPLAINT
)

// token seals a token of a purpose for an address, of scope ALL or of a topic.
func (r *rig) token(p link.Purpose, topic, addr string) string {
	r.t.Helper()
	s := r.ledger.Registry().Sender(ledger.DefaultSender)
	keys, err := r.ledger.AddressKeys(s, addr)
	if err != nil {
		r.t.Fatal(err)
	}
	scope := s.All()
	if topic != "" {
		scope = s.Topic(topic).Number
	}
	return r.ring.Load().Seal(link.Token{Purpose: p, Scope: scope, Mailing: 4711, Key: address.Key(keys[0])})
}

// queue puts a message into the review queue, as a way in for mail does.
func (r *rig) queue(item ledger.QueueItem, evidence map[string]string) uint64 {
	r.t.Helper()
	o, err := r.ledger.Queue(r.t.Context(), ledger.By{Channel: ledger.ByMail, Evidence: evidence}, item)
	if err != nil {
		r.t.Fatal(err)
	}
	return o.Entry
}

func unproved(addr string) ledger.QueueItem {
	return ledger.QueueItem{Address: addr, Claim: ledger.ClaimOptOut, Doubt: ledger.DoubtUnproved}
}

// A hard bounce makes undeliverable at once, by address and by the token of the return path, for every kind of mail; a soft one does not.
func TestRecordBounce(t *testing.T) {
	r := newRig(t, nil)
	feedback := r.as(optoutv1.Role_ROLE_FEEDBACK)
	record := func(q *optoutv1.RecordBounceRequest) *optoutv1.RecordBounceResponse {
		t.Helper()
		resp, err := r.feedback.RecordBounce(feedback, q)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	first := record(&optoutv1.RecordBounceRequest{Address: "gone@example.com", Type: hard, Status: "5.1.1", Diagnostic: "no such user"})
	if !first.Created || first.Held || first.Entry == 0 || first.Position.GetNumber() < first.Entry {
		t.Errorf("hard: %v", first)
	}
	r.want("news", "gone@example.com", undeliverable)
	r.want("receipts", "gone@example.com", undeliverable)
	if again := record(&optoutv1.RecordBounceRequest{Address: "Gone@example.com", Type: hard}); again.Created || again.Entry != first.Entry {
		t.Errorf("again: %v, first %v", again, first)
	}
	if x := record(&optoutv1.RecordBounceRequest{Token: r.token(link.Bounce, "news", "token@example.com"), Type: hard, Status: "5.1.10"}); !x.Created {
		t.Errorf("by token: %v", x)
	}
	r.want("receipts", "token@example.com", undeliverable)
	if x := record(&optoutv1.RecordBounceRequest{Address: "full@example.com", Type: soft, Status: "4.2.2"}); !x.Created {
		t.Errorf("soft: %v", x)
	}
	if x := record(&optoutv1.RecordBounceRequest{Address: "full@example.com", Type: soft, Status: "5.2.2"}); x.Created {
		t.Errorf("soft, twice on one day: %v", x)
	}
	r.want("news", "full@example.com")

	story, err := r.suppression.ExplainAddress(r.ctx(), &optoutv1.ExplainAddressRequest{Address: "gone@example.com"})
	if err != nil || len(story.Entries) != 1 || story.Entries[0].Detail["status"] != "5.1.1" || story.Entries[0].Evidence["diagnostic"] != "no such user" || story.Entries[0].Channel != optoutv1.Channel_CHANNEL_FEEDBACK {
		t.Errorf("on the ledger: %v, %v", story, err)
	}
	story, err = r.suppression.ExplainAddress(r.ctx(), &optoutv1.ExplainAddressRequest{Address: "token@example.com"})
	if err != nil || len(story.Entries) != 1 || story.Entries[0].Mailing != 4711 {
		t.Errorf("of the token: %v, %v", story, err)
	}
}

// When hard bounces of a domain jump, those that follow are held, and the caller is told so.
func TestRecordBounceStorm(t *testing.T) {
	r := newRig(t, nil)
	for i := range ledger.StormLeast + 3 {
		addr := fmt.Sprintf("p%d@big.example", i)
		resp, err := r.feedback.RecordBounce(r.ctx(), &optoutv1.RecordBounceRequest{Address: addr, Type: hard})
		if err != nil || resp.Held != (i >= ledger.StormLeast) || !resp.Created {
			t.Fatalf("bounce %d: %v, %v", i, resp, err)
		}
		if resp.Held {
			r.want("news", addr)
		}
	}
	list, err := r.feedback.ListQueue(r.ctx(), &optoutv1.ListQueueRequest{Held: true, Doubts: []optoutv1.QueueDoubt{optoutv1.QueueDoubt_QUEUE_DOUBT_STORM}})
	if err != nil || len(list.Messages) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, m := range list.Messages {
		if m.Claim != optoutv1.QueueClaim_QUEUE_CLAIM_BOUNCE || !m.Held || m.DueAt != nil || !strings.HasSuffix(m.Address, "@big.example") {
			t.Errorf("held: %v", m)
		}
	}
}

// A complaint denies COMMERCIAL mail and the topic complained of, and no more.
func TestRecordComplaint(t *testing.T) {
	r := newRig(t, nil)
	feedback := r.as(optoutv1.Role_ROLE_FEEDBACK)
	for name, c := range map[string]struct {
		q    *optoutv1.RecordComplaintRequest
		addr string
		also string // another topic that it denies
	}{
		"by address":              {&optoutv1.RecordComplaintRequest{Address: "ann@example.com", Note: "report 7"}, "ann@example.com", ""},
		"of a topic":              {&optoutv1.RecordComplaintRequest{Address: "bob@example.com", Topic: "receipts"}, "bob@example.com", "receipts"},
		"by a link's token":       {&optoutv1.RecordComplaintRequest{Token: r.token(link.Unsubscribe, "", "cy@example.com")}, "cy@example.com", ""},
		"by a return path":        {&optoutv1.RecordComplaintRequest{Token: r.token(link.Bounce, "receipts", "dan@example.com")}, "dan@example.com", "receipts"},
		"by a link as it was put": {&optoutv1.RecordComplaintRequest{Token: "https://mail.example.com/u/" + r.token(link.Unsubscribe, "", "eve@example.com")}, "eve@example.com", ""},
	} {
		resp, err := r.feedback.RecordComplaint(feedback, c.q)
		if err != nil || !resp.Created || resp.Entry == 0 || resp.Position.GetNumber() < resp.Entry {
			t.Errorf("%s: %v, %v", name, resp, err)
			continue
		}
		r.want("news", c.addr, complained)
		if c.also == "" {
			r.want("receipts", c.addr)
		} else {
			r.want(c.also, c.addr, complained)
		}
	}
}

// The same request_id is answered as the first time, and with other content it is refused.
func TestFeedbackReplay(t *testing.T) {
	r := newRig(t, nil)
	q := &optoutv1.RecordBounceRequest{Address: "gone@example.com", Type: hard, RequestId: "bounce-1"}
	first, err := r.feedback.RecordBounce(r.ctx(), q)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.feedback.RecordBounce(r.ctx(), q); err != nil || again.Entry != first.Entry || again.Created != first.Created || again.Held {
		t.Errorf("again: %v, %v, first %v", again, err, first)
	}
	if _, err := r.feedback.RecordBounce(r.ctx(), &optoutv1.RecordBounceRequest{Address: "other@example.com", Type: hard, RequestId: "bounce-1"}); reason(err) != "REQUEST_ID_REUSED" || status.Code(err) != codes.AlreadyExists {
		t.Errorf("another address: %v", err)
	}
	r.want("news", "other@example.com")
	c := &optoutv1.RecordComplaintRequest{Address: "ann@example.com", RequestId: "complaint-1"}
	one, err := r.feedback.RecordComplaint(r.ctx(), c)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := r.feedback.RecordComplaint(r.ctx(), c); err != nil || two.Entry != one.Entry || two.Created != one.Created {
		t.Errorf("again: %v, %v, first %v", two, err, one)
	}
	if _, err := r.feedback.RecordComplaint(r.ctx(), &optoutv1.RecordComplaintRequest{Address: "bob@example.com", RequestId: "complaint-1"}); reason(err) != "REQUEST_ID_REUSED" {
		t.Errorf("another address: %v", err)
	}
	at := r.queue(unproved("cy@example.com"), nil)
	d := &optoutv1.DecideQueueRequest{Entries: []uint64{at}, Decision: optoutv1.QueueDecision_QUEUE_DECISION_SUPPRESS, Justification: "x", RequestId: "decision-1"}
	for range 2 {
		if resp, err := r.feedback.DecideQueue(r.ctx(), d); err != nil || resp.Decided != 1 {
			t.Errorf("decided %v, %v", resp, err)
		}
	}
	d.Decision = optoutv1.QueueDecision_QUEUE_DECISION_DISMISS
	if _, err := r.feedback.DecideQueue(r.ctx(), d); reason(err) != "REQUEST_ID_REUSED" {
		t.Errorf("another decision: %v", err)
	}
}

// What is wrong is refused with its field and a remedy, before anything is written, and the error holds nothing personal.
func TestFeedbackFaults(t *testing.T) {
	r := newRig(t, nil)
	at := r.queue(ledger.QueueItem{Claim: ledger.ClaimMessage, Doubt: ledger.DoubtUnread}, nil)
	none := &timestamppb.Timestamp{Nanos: -1}
	long := strings.Repeat("s", 501)
	const secret = "secret@example.com"
	unsubscribe, bounce := r.token(link.Unsubscribe, "", secret), r.token(link.Bounce, "", secret)
	confirm, preference := r.token(link.Confirm, "news", secret), r.token(link.Preferences, "", secret)
	before := r.ledger.Position().Number
	bounced := func(q *optoutv1.RecordBounceRequest) func() error {
		return func() error { _, err := r.feedback.RecordBounce(r.ctx(), q); return err }
	}
	complaint := func(q *optoutv1.RecordComplaintRequest) func() error {
		return func() error { _, err := r.feedback.RecordComplaint(r.ctx(), q); return err }
	}
	submit := func(q *optoutv1.SubmitReportRequest) func() error {
		return func() error { _, err := r.feedback.SubmitReport(r.ctx(), q); return err }
	}
	list := func(q *optoutv1.ListQueueRequest) func() error {
		return func() error { _, err := r.feedback.ListQueue(r.ctx(), q); return err }
	}
	decide := func(q *optoutv1.DecideQueueRequest) func() error {
		return func() error { _, err := r.feedback.DecideQueue(r.ctx(), q); return err }
	}
	for name, c := range map[string]struct {
		call        func() error
		code        codes.Code
		want, field string
	}{
		"a bounce of no type":        {bounced(&optoutv1.RecordBounceRequest{Address: secret}), codes.InvalidArgument, "INVALID_FIELD", "type"},
		"of an unknown type":         {bounced(&optoutv1.RecordBounceRequest{Address: secret, Type: 9}), codes.InvalidArgument, "INVALID_FIELD", "type"},
		"of nobody":                  {bounced(&optoutv1.RecordBounceRequest{Type: hard}), codes.InvalidArgument, "INVALID_ADDRESS", "address"},
		"of no address":              {bounced(&optoutv1.RecordBounceRequest{Type: hard, Address: "secret"}), codes.InvalidArgument, "INVALID_ADDRESS", "address"},
		"of success":                 {bounced(&optoutv1.RecordBounceRequest{Type: hard, Address: secret, Status: "2.1.1"}), codes.InvalidArgument, "INVALID_FIELD", "status"},
		"of a bad status":            {bounced(&optoutv1.RecordBounceRequest{Type: hard, Address: secret, Status: "5.01.1"}), codes.InvalidArgument, "INVALID_FIELD", "status"},
		"of words for a status":      {bounced(&optoutv1.RecordBounceRequest{Type: hard, Address: secret, Status: "5.1.1 secret"}), codes.InvalidArgument, "INVALID_FIELD", "status"},
		"with too long a diagnostic": {bounced(&optoutv1.RecordBounceRequest{Type: hard, Address: secret, Diagnostic: long}), codes.InvalidArgument, "INVALID_FIELD", "diagnostic"},
		"at no time":                 {bounced(&optoutv1.RecordBounceRequest{Type: hard, Address: secret, OccurredAt: none}), codes.InvalidArgument, "INVALID_FIELD", "occurred_at"},
		"of no sender":               {bounced(&optoutv1.RecordBounceRequest{Type: hard, Address: secret, Sender: "nosuch"}), codes.NotFound, "UNKNOWN_SENDER", "sender"},
		"with a bad request_id":      {bounced(&optoutv1.RecordBounceRequest{Type: hard, Address: secret, RequestId: "a\nb"}), codes.InvalidArgument, "INVALID_FIELD", "request_id"},
		"by token and address":       {bounced(&optoutv1.RecordBounceRequest{Type: hard, Address: secret, Token: bounce}), codes.InvalidArgument, "INVALID_FIELD", "token"},
		"by token and sender":        {bounced(&optoutv1.RecordBounceRequest{Type: hard, Sender: "default", Token: bounce}), codes.InvalidArgument, "INVALID_FIELD", "token"},
		"by an unsubscribe token":    {bounced(&optoutv1.RecordBounceRequest{Type: hard, Token: unsubscribe}), codes.NotFound, "INVALID_TOKEN", ""},
		"by a confirmation token":    {bounced(&optoutv1.RecordBounceRequest{Type: hard, Token: confirm}), codes.NotFound, "INVALID_TOKEN", ""},
		"by a token of none":         {bounced(&optoutv1.RecordBounceRequest{Type: hard, Token: "secret"}), codes.NotFound, "INVALID_TOKEN", ""},
		"a complaint of nobody":      {complaint(&optoutv1.RecordComplaintRequest{}), codes.InvalidArgument, "INVALID_ADDRESS", "address"},
		"of an unknown topic":        {complaint(&optoutv1.RecordComplaintRequest{Address: secret, Topic: "nosuch"}), codes.NotFound, "UNKNOWN_TOPIC", "topic"},
		"with too long a note":       {complaint(&optoutv1.RecordComplaintRequest{Address: secret, Note: long}), codes.InvalidArgument, "INVALID_FIELD", "note"},
		"of a time that is none":     {complaint(&optoutv1.RecordComplaintRequest{Address: secret, OccurredAt: none}), codes.InvalidArgument, "INVALID_FIELD", "occurred_at"},
		"by token and topic":         {complaint(&optoutv1.RecordComplaintRequest{Topic: "news", Token: bounce}), codes.InvalidArgument, "INVALID_FIELD", "token"},
		"by a confirmation's":        {complaint(&optoutv1.RecordComplaintRequest{Token: confirm}), codes.NotFound, "INVALID_TOKEN", ""},
		"by a preference token":      {complaint(&optoutv1.RecordComplaintRequest{Token: preference}), codes.NotFound, "INVALID_TOKEN", ""},
		"no message":                 {submit(&optoutv1.SubmitReportRequest{}), codes.InvalidArgument, "INVALID_FIELD", "message"},
		"too large a message":        {submit(&optoutv1.SubmitReportRequest{Message: make([]byte, 3<<20+1)}), codes.InvalidArgument, "INVALID_FIELD", "message"},
		"too many recipients":        {submit(&optoutv1.SubmitReportRequest{Message: []byte("x"), Recipients: slices.Repeat([]string{secret}, 101)}), codes.InvalidArgument, "TOO_MANY_ITEMS", "recipients"},
		"from no IP address":         {submit(&optoutv1.SubmitReportRequest{Message: []byte("x"), RemoteIp: "secret"}), codes.InvalidArgument, "INVALID_FIELD", "remote_ip"},
		"from an address of a zone":  {submit(&optoutv1.SubmitReportRequest{Message: []byte("x"), RemoteIp: "fe80::1%secret"}), codes.InvalidArgument, "INVALID_FIELD", "remote_ip"},
		"an unknown doubt":           {list(&optoutv1.ListQueueRequest{Doubts: []optoutv1.QueueDoubt{9}}), codes.InvalidArgument, "INVALID_FIELD", "doubts"},
		"too large a page":           {list(&optoutv1.ListQueueRequest{PageSize: 1001}), codes.InvalidArgument, "INVALID_FIELD", "page_size"},
		"no page token":              {list(&optoutv1.ListQueueRequest{PageToken: "secret"}), codes.InvalidArgument, "INVALID_PAGE_TOKEN", "page_token"},
		"the queue of nobody":        {list(&optoutv1.ListQueueRequest{Sender: "nosuch"}), codes.NotFound, "UNKNOWN_SENDER", "sender"},
		"no decision":                {decide(&optoutv1.DecideQueueRequest{Entries: []uint64{at}, Justification: "x"}), codes.InvalidArgument, "INVALID_FIELD", "decision"},
		"a decision without a why":   {decide(&optoutv1.DecideQueueRequest{Entries: []uint64{at}, Decision: 2}), codes.InvalidArgument, "INVALID_FIELD", "justification"},
		"with too long a why":        {decide(&optoutv1.DecideQueueRequest{Entries: []uint64{at}, Decision: 2, Justification: long}), codes.InvalidArgument, "INVALID_FIELD", "justification"},
		"on nothing":                 {decide(&optoutv1.DecideQueueRequest{Decision: 2, Justification: "x"}), codes.InvalidArgument, "TOO_MANY_ITEMS", "entries"},
		"on too many":                {decide(&optoutv1.DecideQueueRequest{Entries: make([]uint64, 1001), Decision: 2, Justification: "x"}), codes.InvalidArgument, "TOO_MANY_ITEMS", "entries"},
		"on what is no message":      {decide(&optoutv1.DecideQueueRequest{Entries: []uint64{at, 1}, Decision: 2, Justification: "x"}), codes.NotFound, "NOT_FOUND", "entries"},
		"to suppress nobody":         {decide(&optoutv1.DecideQueueRequest{Entries: []uint64{at}, Decision: 1, Justification: "x"}), codes.InvalidArgument, "INVALID_FIELD", "entries"},
		"to show what is no message": {func() error {
			_, err := r.feedback.GetQueuedMessage(r.ctx(), &optoutv1.GetQueuedMessageRequest{Entry: 1})
			return err
		}, codes.NotFound, "NOT_FOUND", "entry"},
		"to show what is not written": {func() error {
			_, err := r.feedback.GetQueuedMessage(r.ctx(), &optoutv1.GetQueuedMessageRequest{Entry: 1 << 40})
			return err
		}, codes.NotFound, "NOT_FOUND", "entry"},
	} {
		err := c.call()
		if status.Code(err) != c.code || reason(err) != c.want {
			t.Errorf("%s: %v (%s), want %v %s", name, err, reason(err), c.code, c.want)
			continue
		}
		i := info(err)
		if limit := i.Metadata["limit"]; c.want == "TOO_MANY_ITEMS" && limit != map[string]string{"recipients": "100", "entries": "1000"}[c.field] {
			t.Errorf("%s: limit %q", name, limit)
		}
		if i.Metadata["field"] != c.field || i.Metadata["field"] == "" && i.Metadata["remedy"] == "" {
			t.Errorf("%s: field %q, remedy %q, want %q", name, i.Metadata["field"], i.Metadata["remedy"], c.field)
		}
		if strings.Contains(err.Error()+i.String(), "secret") {
			t.Errorf("%s: it carries personal data: %v", name, err)
		}
	}
	if now := r.ledger.Position().Number; now != before {
		t.Errorf("%d entries were written", now-before)
	}
	if len(r.submitted) != 0 {
		t.Errorf("submitted: %v", r.submitted)
	}
}

// SubmitReport hands the message on as it is, with what is known of its way, and tells what became of it.
func TestSubmitReport(t *testing.T) {
	r := newRig(t, nil)
	secret, number := r.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_FEEDBACK})
	raw := []byte("From: a@example.com\r\n\r\n\x00\xff")
	resp, err := r.feedback.SubmitReport(with(t.Context(), secret), &optoutv1.SubmitReportRequest{Message: raw, Recipients: []string{"stop@unsub.example.com"},
		MailFrom: "a@example.com", RemoteIp: "2001:db8::7", Helo: "mx.example.com", Truncated: true})
	if err != nil || len(resp.Results) != 1 || resp.Position.GetNumber() == 0 {
		t.Fatal(resp, err)
	}
	if x := resp.Results[0]; x.Outcome != optoutv1.SubmitOutcome_SUBMIT_OUTCOME_OPTED_OUT || x.Entry != 7 || x.Why != "signed address" {
		t.Errorf("result: %v", x)
	}
	if m := r.submitted[0]; string(m.Raw) != string(raw) || fmt.Sprint(m.Recipients) != "[stop@unsub.example.com]" || m.MailFrom != "a@example.com" || m.Remote.String() != "2001:db8::7" || m.Helo != "mx.example.com" ||
		m.Key != number || !m.Truncated {
		t.Errorf("handed on: %+v", m)
	}
	if _, err := r.feedback.SubmitReport(r.ctx(), &optoutv1.SubmitReportRequest{Message: make([]byte, 3<<20)}); err != nil || r.submitted[1].Remote.IsValid() || r.submitted[1].Truncated {
		t.Errorf("at the limit: %v", err)
	}
}

// A key that is bound to a sender acts for no other, neither by name nor by token, and hands in no messages, which may name any.
func TestFeedbackOfBoundKeys(t *testing.T) {
	r := newRig(t, nil)
	r.twoSenders()
	theirs := r.queue(ledger.QueueItem{Sender: "two", Address: "a@example.com", Claim: ledger.ClaimOptOut, Doubt: ledger.DoubtUnproved}, nil)
	secret, _ := r.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_ADMIN, Senders: []string{"one"}})
	ctx := with(t.Context(), secret)
	for name, err := range map[string]error{
		"a bounce":        second(r.feedback.RecordBounce(ctx, &optoutv1.RecordBounceRequest{Sender: "two", Address: "a@example.com", Type: hard})),
		"by token":        second(r.feedback.RecordBounce(ctx, &optoutv1.RecordBounceRequest{Token: r.token(link.Bounce, "news", "a@example.com"), Type: hard})),
		"a complaint":     second(r.feedback.RecordComplaint(ctx, &optoutv1.RecordComplaintRequest{Address: "a@example.com"})),
		"one by token":    second(r.feedback.RecordComplaint(ctx, &optoutv1.RecordComplaintRequest{Token: r.token(link.Unsubscribe, "", "a@example.com")})),
		"a report":        second(r.feedback.SubmitReport(ctx, &optoutv1.SubmitReportRequest{Message: []byte("x")})),
		"another's queue": second(r.feedback.ListQueue(ctx, &optoutv1.ListQueueRequest{Sender: "two"})),
		"its message":     second(r.feedback.GetQueuedMessage(ctx, &optoutv1.GetQueuedMessageRequest{Sender: "two", Entry: theirs})),
		"its decision":    second(r.feedback.DecideQueue(ctx, &optoutv1.DecideQueueRequest{Sender: "two", Entries: []uint64{theirs}, Decision: 2, Justification: "x"})),
	} {
		if reason(err) != "SENDER_NOT_ALLOWED" || status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{ // under its own sender there is no such message
		"shown":   second(r.feedback.GetQueuedMessage(ctx, &optoutv1.GetQueuedMessageRequest{Sender: "one", Entry: theirs})),
		"decided": second(r.feedback.DecideQueue(ctx, &optoutv1.DecideQueueRequest{Sender: "one", Entries: []uint64{theirs}, Decision: 2, Justification: "x"})),
	} {
		if reason(err) != "NOT_FOUND" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if resp, err := r.feedback.RecordBounce(ctx, &optoutv1.RecordBounceRequest{Sender: "one", Address: "a@example.com", Type: hard}); err != nil || !resp.Created {
		t.Errorf("its own: %v, %v", resp, err)
	}
	if list, err := r.feedback.ListQueue(ctx, &optoutv1.ListQueueRequest{Sender: "one"}); err != nil || len(list.Messages) != 0 {
		t.Errorf("its own queue: %v, %v", list, err)
	}
}

func second[T any](_ T, err error) error { return err }

// As JSON the same handlers answer.
func TestFeedbackJSON(t *testing.T) {
	r := newJSONRig(t)
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	post := func(method, body string) (int, string) {
		code, _, text := r.post(t, r.secret, "FeedbackService/"+method, "application/json", []byte(body))
		return code, text
	}
	if code, text := post("RecordBounce", `{"address":"gone@example.com","type":"BOUNCE_TYPE_HARD","status":"5.1.1"}`); code != 200 || !strings.Contains(text, `"created":true`) {
		t.Errorf("%d %s", code, text)
	}
	r.want("news", "gone@example.com", undeliverable)
	if code, text := post("RecordComplaint", `{"token":"`+r.token(link.Unsubscribe, "", "ann@example.com")+`","note":"report 7"}`); code != 200 || !strings.Contains(text, `"created":true`) {
		t.Errorf("%d %s", code, text)
	}
	r.want("news", "ann@example.com", complained)
	raw := base64.StdEncoding.EncodeToString([]byte("From: a@example.com\r\n\r\nstop"))
	if code, text := post("SubmitReport", `{"message":"`+raw+`","recipients":["stop@unsub.example.com"]}`); code != 200 || !strings.Contains(text, `"outcome":"SUBMIT_OUTCOME_OPTED_OUT"`) || len(r.submitted) != 1 {
		t.Errorf("%d %s", code, text)
	}
	at := r.queue(unproved("bob@example.com"), map[string]string{"words": "stop"})
	code, text := post("ListQueue", `{"doubts":["QUEUE_DOUBT_UNPROVED"]}`)
	var list optoutv1.ListQueueResponse
	if err := protojson.Unmarshal([]byte(text), &list); code != 200 || err != nil || len(list.Messages) != 1 || list.Messages[0].Entry != at || list.Messages[0].Evidence["words"] != "stop" {
		t.Errorf("%d %s, %v", code, text, err)
	}
	if code, text := post("DecideQueue", fmt.Sprintf(`{"entries":["%d"],"decision":"QUEUE_DECISION_SUPPRESS","justification":"asked twice"}`, at)); code != 200 || !strings.Contains(text, `"decided":1`) {
		t.Errorf("%d %s", code, text)
	}
	r.want("news", "bob@example.com", optedOutAll)
	for method, body := range map[string]string{"RecordBounce": `{"address":"gone@example.com"}`, "DecideQueue": `{"entries":["1"],"decision":2,"justification":"x"}`, "GetQueuedMessage": `{"entry":"1"}`} {
		if code, text := post(method, body); code/100 != 4 || errorOf(t, text).Field == "" {
			t.Errorf("%s: %d %s", method, code, text)
		}
	}
}

// What is behind SubmitReport may fail: the caller is told so and asked to repeat.
func TestSubmitReportFails(t *testing.T) {
	for _, c := range []struct {
		fault error
		code  codes.Code
		want  string
	}{
		{ledger.ErrQueueFull, codes.ResourceExhausted, "QUEUE_FULL"},
		{ledger.ErrStorageFull, codes.ResourceExhausted, "STORAGE_FULL"},
		{fmt.Errorf("%w: secret@example.com", ledger.ErrStorageUnavailable), codes.Unavailable, "STORAGE_UNAVAILABLE"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, ""},
	} {
		r := newRig(t, func(o *rpc.Options) {
			o.Submit = func(context.Context, *rpc.Message) ([]rpc.Submitted, error) { return nil, c.fault }
		})
		ctx, cancel := context.WithTimeout(r.ctx(), 10*time.Second)
		_, err := r.feedback.SubmitReport(ctx, &optoutv1.SubmitReportRequest{Message: []byte("x")})
		cancel()
		if status.Code(err) != c.code || c.want != "" && reason(err) != c.want || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: %v", c.fault, err)
		}
	}
}
