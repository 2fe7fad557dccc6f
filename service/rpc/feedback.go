package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
	"optout/service/link"
)

// Message is a message handed in by SubmitReport.
type Message struct {
	Raw            []byte
	Recipients     []string
	MailFrom, Helo string
	Remote         netip.Addr // zero when it is not known
	Key            uint32     // the API key that handed it in
	// Truncated: Raw is only the beginning of a larger message.
	Truncated bool
}

// Submitted is what became of a message for one recipient.
type Submitted struct {
	Index int
	// Outcome is one of the API's, in words: "opted out", "bounce", "complaint", "queued", "forwarded", "ignored" or "not ours".
	Outcome string
	Entry   uint64
	Why     string
}

// RecordBounce records that mail to an address could not be delivered.
func (h *handlers) RecordBounce(ctx context.Context, r *optoutv1.RecordBounceRequest) (*optoutv1.RecordBounceResponse, error) {
	who := by(ctx)
	who.RequestID, who.Evidence = r.RequestId, map[string]string{"diagnostic": r.Diagnostic}
	var err error
	if who.Occurred, err = moment("occurred_at", r.OccurredAt); err != nil {
		return nil, err
	}
	if err := checkLength("diagnostic", r.Diagnostic, 500); err != nil {
		return nil, err
	}
	f := ledger.Failed{}
	switch r.Type {
	case optoutv1.BounceType_BOUNCE_TYPE_HARD:
		f.Failure = ledger.HardFailure
	case optoutv1.BounceType_BOUNCE_TYPE_SOFT:
		f.Failure = ledger.SoftFailure
	default:
		return nil, invalid("type", "it must be BOUNCE_TYPE_HARD or BOUNCE_TYPE_SOFT")
	}
	if r.Status != "" {
		if !isStatus(r.Status) {
			return nil, invalid("status", "it is no enhanced status code (RFC 3463), such as 5.1.1")
		}
		f.Detail = map[string]string{"status": r.Status}
	}
	var o ledger.Outcome
	if r.Token == "" {
		o, err = h.Ledger.BounceAddress(ctx, who, r.Sender, r.Address, f)
	} else {
		var to ledger.Tokened
		if to, who.Mailing, err = h.tokened(ctx, r.Token, r.Address+r.Sender, link.Bounce); err != nil {
			return nil, err
		}
		o, err = h.Ledger.Bounce(ctx, who, to, f)
	}
	if err != nil {
		return nil, err
	}
	line, err := h.Ledger.Line(ctx, o.Entry)
	if err != nil {
		return nil, err
	}
	return &optoutv1.RecordBounceResponse{Entry: o.Entry, Created: o.Created, Held: line.Kind == ledger.Queued, Position: h.position(o.Position)}, nil
}

// isStatus tells an enhanced status code of a failure: 4 or 5, and two numbers of up to three digits (RFC 3463 section 2).
func isStatus(s string) bool {
	var class, subject, detail int
	n, err := fmt.Sscanf(s, "%d.%d.%d", &class, &subject, &detail)
	return err == nil && n == 3 && (class == 4 || class == 5) && subject >= 0 && subject < 1000 && detail >= 0 && detail < 1000 &&
		s == fmt.Sprintf("%d.%d.%d", class, subject, detail)
}

// tokened opens a token of one of the purposes, which is given alone, and tells whom and which mailing it names.
func (h *handlers) tokened(ctx context.Context, token, others string, purposes ...link.Purpose) (ledger.Tokened, uint32, error) {
	if others != "" {
		return ledger.Tokened{}, 0, invalid("token", "a token says sender, address and topic itself: give it alone")
	}
	var t link.Token
	var err error
	for _, p := range purposes {
		if t, err = h.openToken(ctx, token, p); !errors.Is(err, link.ErrInvalid) {
			break
		}
	}
	if err != nil {
		return ledger.Tokened{}, 0, err
	}
	generation, ok := h.Ledger.Registry().LinkGeneration(t.KeyID)
	if !ok {
		return ledger.Tokened{}, 0, link.ErrInvalid
	}
	return ledger.Tokened{Scope: t.Scope, Generation: generation, Key: t.Key}, t.Mailing, nil
}

// RecordComplaint records that a recipient reported mail as spam.
func (h *handlers) RecordComplaint(ctx context.Context, r *optoutv1.RecordComplaintRequest) (*optoutv1.RecordComplaintResponse, error) {
	who := by(ctx)
	who.RequestID, who.Evidence = r.RequestId, map[string]string{"note": r.Note}
	var err error
	if who.Occurred, err = moment("occurred_at", r.OccurredAt); err != nil {
		return nil, err
	}
	if err := checkLength("note", r.Note, 500); err != nil {
		return nil, err
	}
	var o ledger.Outcome
	if r.Token == "" {
		o, err = h.Ledger.Suppress(ctx, who, ledger.Suppression{Sender: r.Sender, Address: r.Address, Reason: ledger.ReasonComplaint, Topic: r.Topic})
	} else {
		var about ledger.Tokened
		if about, who.Mailing, err = h.tokened(ctx, r.Token, r.Address+r.Sender+r.Topic, link.Unsubscribe, link.Message, link.Bounce); err != nil {
			return nil, err
		}
		o, err = h.Ledger.Complain(ctx, who, about)
	}
	if err != nil {
		return nil, err
	}
	return &optoutv1.RecordComplaintResponse{Entry: o.Entry, Created: o.Created, Position: h.position(o.Position)}, nil
}

// maxSubmitted bounds a message of SubmitReport, in octets; maxEnvelope its recipients.
const (
	maxSubmitted = 3 << 20
	maxEnvelope  = 100
)

// SubmitReport takes a message as if it had come by SMTP.
func (h *handlers) SubmitReport(ctx context.Context, r *optoutv1.SubmitReportRequest) (*optoutv1.SubmitReportResponse, error) {
	switch {
	case len(r.Message) == 0:
		return nil, invalid("message", "it is empty")
	case len(r.Message) > maxSubmitted:
		return nil, invalid("message", "it must be at most %d octets", maxSubmitted)
	case len(r.Recipients) > maxEnvelope:
		return nil, &ledger.Error{Kind: ledger.ErrTooManyItems, Field: "recipients", Problem: fmt.Sprintf("a message has at most %d", maxEnvelope), Remedy: "split them"}
	}
	m := &Message{Raw: r.Message, Recipients: r.Recipients, MailFrom: r.MailFrom, Helo: r.Helo, Key: caller(ctx).Number, Truncated: r.Truncated}
	if r.RemoteIp != "" {
		var err error
		if m.Remote, err = netip.ParseAddr(r.RemoteIp); err != nil || m.Remote.Zone() != "" {
			return nil, invalid("remote_ip", "it is no IP address, such as 192.0.2.7 or 2001:db8::7")
		}
	}
	results, err := h.Submit(ctx, m)
	if err != nil {
		return nil, err
	}
	resp := &optoutv1.SubmitReportResponse{Position: h.position(h.Ledger.Position().Number)}
	for _, x := range results {
		resp.Results = append(resp.Results, &optoutv1.SubmitResult{Index: uint32(x.Index), Outcome: outcomeOut(x.Outcome), Entry: x.Entry, Why: x.Why})
	}
	return resp, nil
}

// outcomeOut finds the API's number of an outcome.
func outcomeOut(words string) optoutv1.SubmitOutcome {
	return optoutv1.SubmitOutcome(optoutv1.SubmitOutcome_value["SUBMIT_OUTCOME_"+strings.ToUpper(strings.ReplaceAll(words, " ", "_"))])
}

// claims and doubts are the core's names of what the API numbers.
var (
	claims = map[ledger.Claim]optoutv1.QueueClaim{ledger.ClaimOptOut: optoutv1.QueueClaim_QUEUE_CLAIM_OPT_OUT, ledger.ClaimComplaint: optoutv1.QueueClaim_QUEUE_CLAIM_COMPLAINT,
		ledger.ClaimBounce: optoutv1.QueueClaim_QUEUE_CLAIM_BOUNCE, ledger.ClaimMessage: optoutv1.QueueClaim_QUEUE_CLAIM_MESSAGE}
	doubts = map[ledger.Doubt]optoutv1.QueueDoubt{ledger.DoubtUnproved: optoutv1.QueueDoubt_QUEUE_DOUBT_UNPROVED, ledger.DoubtForged: optoutv1.QueueDoubt_QUEUE_DOUBT_FORGED,
		ledger.DoubtUnclear: optoutv1.QueueDoubt_QUEUE_DOUBT_UNCLEAR, ledger.DoubtUnread: optoutv1.QueueDoubt_QUEUE_DOUBT_UNREAD,
		ledger.DoubtReporter: optoutv1.QueueDoubt_QUEUE_DOUBT_REPORTER, ledger.DoubtStorm: optoutv1.QueueDoubt_QUEUE_DOUBT_STORM}
	decisions = map[optoutv1.QueueDecision]ledger.Decision{optoutv1.QueueDecision_QUEUE_DECISION_SUPPRESS: ledger.DecideSuppress,
		optoutv1.QueueDecision_QUEUE_DECISION_DISMISS: ledger.DecideDismiss}
)

// ListQueue lists what waits for review.
func (h *handlers) ListQueue(ctx context.Context, r *optoutv1.ListQueueRequest) (*optoutv1.ListQueueResponse, error) {
	p, err := h.pageIn(r)
	if err != nil {
		return nil, err
	}
	f := ledger.QueueFilter{Sender: r.Sender, Held: r.Held}
	for _, x := range r.Doubts {
		for doubt, number := range doubts {
			if number == x {
				f.Doubts = append(f.Doubts, doubt)
			}
		}
	}
	if len(f.Doubts) != len(r.Doubts) {
		return nil, invalid("doubts", "unknown doubt")
	}
	items, next, err := h.Ledger.Waiting(ctx, p.page, f)
	if err != nil {
		return nil, err
	}
	resp := &optoutv1.ListQueueResponse{NextPageToken: p.next(next), Position: h.position(next.Bound)}
	for i := range items {
		resp.Messages = append(resp.Messages, h.queuedOut(ctx, &items[i]))
	}
	return resp, nil
}

// GetQueuedMessage shows one message.
func (h *handlers) GetQueuedMessage(ctx context.Context, r *optoutv1.GetQueuedMessageRequest) (*optoutv1.GetQueuedMessageResponse, error) {
	item, err := h.Ledger.InQueue(ctx, r.Sender, r.Entry)
	if err != nil {
		return nil, err
	}
	return &optoutv1.GetQueuedMessageResponse{Message: h.queuedOut(ctx, item)}, nil
}

// DecideQueue decides messages.
func (h *handlers) DecideQueue(ctx context.Context, r *optoutv1.DecideQueueRequest) (*optoutv1.DecideQueueResponse, error) {
	d, ok := decisions[r.Decision]
	if !ok {
		return nil, invalid("decision", "it must be QUEUE_DECISION_SUPPRESS or QUEUE_DECISION_DISMISS")
	}
	who := by(ctx)
	who.RequestID = r.RequestId
	n, o, err := h.Ledger.Decide(ctx, who, r.Sender, r.Entries, d, r.Justification)
	if err != nil {
		return nil, err
	}
	return &optoutv1.DecideQueueResponse{Decided: uint32(n), Position: h.position(o.Position)}, nil
}

// queuedOut shows a message, with as much of what was said as the caller may see.
func (h *handlers) queuedOut(ctx context.Context, q *ledger.InQueue) *optoutv1.QueuedMessage {
	reg, see := h.Ledger.Registry(), sights[caller(ctx).Role].queue
	m := &optoutv1.QueuedMessage{Entry: q.Line.Position, Claim: claims[ledger.Claim(q.Line.Detail["claim"])], Doubt: doubts[ledger.Doubt(q.Line.Detail["doubt"])],
		Scope: scopeOut(reg, q.Line.Scope), ReceivedAt: stampMillis(q.Line.At), DueAt: stampMillis(q.Line.Until), Held: q.Waiting.Held || q.Waiting.Doubt == ledger.DoubtStorm,
		Known: q.Known, Waiting: q.Waiting.Position != 0, Channel: optoutv1.Channel(q.Line.Channel), Detail: maps.Clone(q.Line.Detail),
		Evidence: evidenceOut(q.Line.Evidence, see, true)}
	if !q.Line.Key.IsZero() {
		m.AddressKey = q.Line.Key.String()
	}
	m.Address = m.Evidence["address"]
	delete(m.Evidence, "address")
	delete(m.Detail, "claim")
	delete(m.Detail, "doubt")
	return m
}
