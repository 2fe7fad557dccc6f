package client_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/wneessen/go-mail"
	"google.golang.org/protobuf/types/known/timestamppb"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
)

// Each recipient's copy carries a receipt of its own, which the service finds genuine for that recipient alone.
func TestMailerPutsReceiptsOnMessages(t *testing.T) {
	s := newSetup(t)
	m := message(t, []string{"a@example.com", "b@example.com"}, nil, nil)
	m.SetGenHeader(mail.Header("x-optout-receipt"), "made up")
	if _, err := client.NewMailer(s.client, s.sink.mail(t), client.WithReceipts()).Send(t.Context(), "news", m); err != nil {
		t.Fatal(err)
	}
	receipts := map[string]string{}
	for _, to := range []string{"a@example.com", "b@example.com"} {
		head := header(s.sink.to(to)[0])
		if n := strings.Count(strings.ToLower(head), "x-optout-receipt:"); n != 1 || strings.Contains(head, "made up") {
			t.Errorf("%d receipts on the message to %s:\n%s", n, to, head)
		}
		receipts[to] = regexp.MustCompile(`X-Optout-Receipt: \S+\r\n \S+\r\n`).FindString(head)
		for line := range strings.SplitSeq(receipts[to], "\r\n") {
			if len(line) > 78 {
				t.Errorf("a line of %d characters", len(line))
			}
		}
	}
	for _, c := range []struct {
		to, of string
		want   optoutv1.AuditFinding
	}{{"a@example.com", "a@example.com", optoutv1.AuditFinding_AUDIT_FINDING_OK}, {"b@example.com", "a@example.com", optoutv1.AuditFinding_AUDIT_FINDING_OTHER_ADDRESS}} {
		_, text, _ := strings.Cut(receipts[c.of], ": ")
		found, err := optoutv1.NewLedgerServiceClient(s.client.Conn()).AuditMail(t.Context(), &optoutv1.AuditMailRequest{
			Items: []*optoutv1.AuditItem{{Addresses: []string{c.to}, Receipt: text, LeftAt: timestamppb.Now()}}})
		if err != nil || found.Results[0].Finding != c.want {
			t.Errorf("the receipt of %s on mail to %s: %v, %v", c.of, c.to, found, err)
		}
	}
	bulk := message(t, []string{"bulk@example.com"}, nil, nil)
	if _, err := client.NewMailer(s.client, s.sink.mail(t), client.WithReceipts()).SendBulk(t.Context(), "news", func(yield func(*mail.Msg, error) bool) { yield(bulk, nil) }); err != nil ||
		!strings.Contains(header(s.sink.to("bulk@example.com")[0]), "X-Optout-Receipt: ") {
		t.Errorf("mail in bulk has no receipt: %v", err)
	}
	plain := message(t, []string{"c@example.com"}, nil, nil)
	plain.SetGenHeader(mail.Header("X-Optout-Receipt"), "made up")
	if _, err := s.mailer.Send(t.Context(), "news", plain); err != nil || strings.Contains(header(s.sink.to("c@example.com")[0]), "Receipt") {
		t.Errorf("a receipt that nobody wanted: %v", err)
	}
}

// What wants receipts and gets none does not send: its mail would look unchecked.
func TestMissingReceiptsAreErrors(t *testing.T) {
	s := newScripted()
	c := s.client(t)
	s.check = func(*optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
		return &optoutv1.CheckSendResponse{Verdict: optoutv1.Verdict_VERDICT_SEND, Link: exampleLink()}, nil
	}
	s.batch = func(r *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
		resp := &optoutv1.BatchCheckSendResponse{Verdicts: []byte{1, 2}[:len(r.Addresses)]}
		return resp, nil
	}
	if d, err := c.CheckSend(t.Context(), "news", "a@example.com", client.WithReceipt()); !errors.Is(err, client.ErrCannotAsk) || d.Send() {
		t.Errorf("%v, %v", d, err)
	}
	if d, err := c.BatchCheckSend(t.Context(), "news", []string{"a@example.com", "b@example.com"}, client.WithReceipt()); !errors.Is(err, client.ErrCannotAsk) || d[0].Send() {
		t.Errorf("%v, %v", d, err)
	}
	s.check = func(*optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
		return &optoutv1.CheckSendResponse{Verdict: optoutv1.Verdict_VERDICT_SEND, Link: exampleLink(), Receipt: strings.Repeat("x", 100) + "\r\nBcc: x@example.com"}, nil
	}
	sink := newSink(t)
	report, err := client.NewMailer(c, sink.mail(t), client.WithReceipts()).Send(t.Context(), "news", message(t, []string{"a@example.com"}, nil, nil))
	if !errors.Is(err, client.ErrCannotAsk) || sink.total() != 0 {
		t.Errorf("a receipt with a line break: %v, %v", report, err)
	}
}

func TestReceiptsComeWithBatches(t *testing.T) {
	s := newSetup(t)
	s.optOut(t, "no@example.com")
	d, err := s.client.BatchCheckSend(t.Context(), "news", []string{"a@example.com", "no@example.com", "bad", "b@example.com"}, client.WithReceipt())
	if err != nil || len(d[0].Receipt) != 136 || d[1].Receipt+d[2].Receipt != "" || len(d[3].Receipt) != 136 || d[0].Receipt == d[3].Receipt {
		t.Errorf("%v, %v", d, err)
	}
}
