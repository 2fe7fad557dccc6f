package rpc

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
)

// actIn reads the act that a mail answers.
func actIn(a *optoutv1.InAnswerTo) (ledger.Act, error) {
	if a == nil {
		return ledger.Act{}, nil
	}
	at, err := moment("in_answer_to.at", a.At)
	return ledger.Act{What: a.Act, At: at}, err
}

// CheckSend answers for one address.
func (h *handlers) CheckSend(ctx context.Context, r *optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
	act, err := actIn(r.InAnswerTo)
	if err != nil {
		return nil, err
	}
	var issue *issuer
	if r.WantHeaders { // before the check, so that a scope that is wrong never leaves the entry of a SEND behind
		if _, issue, err = h.issuer(r.Sender, r.Topic, "link_scope", r.LinkScope, r.Mailing); err != nil {
			return nil, err
		}
	}
	req := ledger.CheckRequest{Sender: r.Sender, Topic: r.Topic, Address: r.Address, Act: act, AtLeast: atLeast(r.AtLeast), Key: caller(ctx).Number}
	var v ledger.Verdict
	if err := h.Ledger.Check(ctx, &req, &v); err != nil {
		return nil, err
	}
	resp := &optoutv1.CheckSendResponse{Verdict: verdictOut(&v), Position: h.position(v.Position), Denials: denialsOut(h.Ledger.Registry(), v.Denials)}
	if v.Send && v.WirelessFrom != 0 {
		resp.Warnings = []string{fmt.Sprintf("the domain is on the FCC's list of wireless domains: without authorisation commercial mail to it ends on %s", ledger.Time(v.WirelessFrom).Format(time.DateOnly))}
	}
	if v.Send && issue != nil {
		resp.Link = issue.link(v.Key)
	}
	if v.Send && r.WantReceipt {
		resp.Receipt = h.receipt(&v)
	}
	return resp, nil
}

// BatchCheckSend answers for many addresses.
func (h *handlers) BatchCheckSend(ctx context.Context, r *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
	act, err := actIn(r.InAnswerTo)
	if err != nil {
		return nil, err
	}
	var issue *issuer
	if r.WantHeaders {
		if _, issue, err = h.issuer(r.Sender, r.Topic, "link_scope", r.LinkScope, r.Mailing); err != nil {
			return nil, err
		}
	}
	req := ledger.CheckRequest{Sender: r.Sender, Topic: r.Topic, Act: act, AtLeast: atLeast(r.AtLeast), Key: caller(ctx).Number}
	resp := &optoutv1.BatchCheckSendResponse{Verdicts: make([]byte, len(r.Addresses))}
	details := batchDetails{reg: h.Ledger.Registry(), scopes: map[uint32]*optoutv1.Scope{}}
	position, err := h.Ledger.CheckBatch(ctx, &req, r.Addresses, func(i int, v *ledger.Verdict, malformed error) {
		resp.Verdicts[i] = byte(verdictOut(v))
		if v.Send && r.WantReceipt {
			resp.Receipts = append(resp.Receipts, &optoutv1.AddressReceipt{Index: uint32(i), Receipt: h.receipt(v)})
		}
		switch {
		case malformed != nil:
			resp.Malformed = append(resp.Malformed, &optoutv1.MalformedAddress{Index: uint32(i), Message: malformed.Error()})
		case !v.Send:
			resp.Refused = append(resp.Refused, details.refused(i, v.Denials))
		case issue != nil:
			resp.Links = append(resp.Links, &optoutv1.AddressLink{Index: uint32(i), Link: issue.link(v.Key)})
		}
	})
	if err != nil {
		return nil, err
	}
	resp.Position = h.position(position)
	return resp, nil
}

// batchDetails makes the details of the refused of one batch, a slab at a time: a long list may have many.
type batchDetails struct {
	reg    *ledger.Registry
	scopes map[uint32]*optoutv1.Scope
	slab   []refusal
}

// refusal is the details of one refused address with one reason, the usual case, in one piece of memory.
type refusal struct {
	address optoutv1.RefusedAddress
	denial  optoutv1.Denial
	since   timestamppb.Timestamp
	list    [1]*optoutv1.Denial
}

func (d *batchDetails) refused(index int, denials []ledger.Denial) *optoutv1.RefusedAddress {
	if len(denials) != 1 || denials[0].Since == 0 {
		return &optoutv1.RefusedAddress{Index: uint32(index), Denials: denialsOut(d.reg, denials)}
	}
	if len(d.slab) == 0 {
		d.slab = make([]refusal, 64)
	}
	r := &d.slab[0]
	d.slab = d.slab[1:]
	x := &denials[0]
	scope, ok := d.scopes[x.Scope]
	if !ok {
		scope = scopeOut(d.reg, x.Scope)
		d.scopes[x.Scope] = scope
	}
	r.since.Seconds, r.since.Nanos = x.Since/1000, int32(x.Since%1000)*1e6
	r.denial.Reason, r.denial.Scope, r.denial.Since = optoutv1.DenialReason(x.Reason), scope, &r.since
	r.denial.Entry, r.denial.Joined = x.Entry, x.Joined
	r.list[0] = &r.denial
	r.address.Index, r.address.Denials = uint32(index), r.list[:]
	return &r.address
}

// ListSuppressions lists the noes in force.
func (h *handlers) ListSuppressions(ctx context.Context, r *optoutv1.ListSuppressionsRequest) (*optoutv1.ListSuppressionsResponse, error) {
	p, err := h.pageIn(r)
	if err != nil {
		return nil, err
	}
	f := ledger.SuppressionFilter{Sender: r.Sender, Scoped: r.Scope != nil, Scope: scopeIn(r.Scope), Channel: ledger.Channel(r.Channel), Domain: r.Domain}
	for _, x := range r.Reasons {
		f.Reasons = append(f.Reasons, ledger.Reason(x))
	}
	if f.From, err = moment("from", r.From); err != nil {
		return nil, err
	}
	if f.To, err = moment("to", r.To); err != nil {
		return nil, err
	}
	switch r.Order {
	case optoutv1.ListOrder_LIST_ORDER_UNSPECIFIED, optoutv1.ListOrder_LIST_ORDER_NEWEST_FIRST:
		f.Down = true
	case optoutv1.ListOrder_LIST_ORDER_POSITION:
	default:
		return nil, invalid("order", "unknown order")
	}
	found, next, err := h.Ledger.Suppressions(ctx, p.page, f)
	if err != nil {
		return nil, err
	}
	reg, see := h.Ledger.Registry(), sights[caller(ctx).Role]
	resp := &optoutv1.ListSuppressionsResponse{NextPageToken: p.next(next), Position: h.position(next.Bound)}
	for i := range found {
		x := &found[i]
		s := &optoutv1.Suppression{Reason: optoutv1.DenialReason(x.Reason), Scope: scopeOut(reg, x.Scope), Since: stampMillis(x.At), Entry: x.Position,
			Channel: optoutv1.Channel(x.Channel), Actor: actor(reg, &x.Entry), AddressKey: x.Key.String(), Mailing: x.Mailing}
		if see.listed {
			s.Address = x.Address
		}
		resp.Suppressions = append(resp.Suppressions, s)
	}
	return resp, nil
}

// CreateSuppression records a no.
func (h *handlers) CreateSuppression(ctx context.Context, r *optoutv1.CreateSuppressionRequest) (*optoutv1.CreateSuppressionResponse, error) {
	who := by(ctx)
	who.RequestID, who.Evidence = r.RequestId, map[string]string{"note": r.Note}
	var err error
	if who.Occurred, err = moment("occurred_at", r.OccurredAt); err != nil {
		return nil, err
	}
	if err := checkLength("note", r.Note, 500); err != nil {
		return nil, err
	}
	o, err := h.Ledger.Suppress(ctx, who, ledger.Suppression{Sender: r.Sender, Address: r.Address, Reason: ledger.Reason(r.Reason), Topic: r.Topic})
	if err != nil {
		return nil, err
	}
	return &optoutv1.CreateSuppressionResponse{Entry: o.Entry, Created: o.Created, Position: h.position(o.Position)}, nil
}

func checkLength(field, s string, limit int) error {
	if len([]rune(s)) > limit {
		return invalid(field, "it must be at most %d characters", limit)
	}
	return nil
}

// LiftSuppression lifts what others than the recipient may lift.
func (h *handlers) LiftSuppression(ctx context.Context, r *optoutv1.LiftSuppressionRequest) (*optoutv1.LiftSuppressionResponse, error) {
	who := by(ctx)
	who.RequestID = r.RequestId
	o, err := h.Ledger.Lift(ctx, who, r.Sender, r.Address, ledger.Reason(r.Reason), r.Justification)
	if err != nil {
		return nil, err
	}
	return &optoutv1.LiftSuppressionResponse{Entry: o.Entry, Position: h.position(o.Position)}, nil
}

// VoidEntries voids what machines said in error.
func (h *handlers) VoidEntries(ctx context.Context, r *optoutv1.VoidEntriesRequest) (*optoutv1.VoidEntriesResponse, error) {
	who := by(ctx)
	who.RequestID = r.RequestId
	n, o, err := h.Ledger.Void(ctx, who, r.Sender, r.Entries, r.Justification, r.Evidence)
	if err != nil {
		return nil, err
	}
	return &optoutv1.VoidEntriesResponse{Voided: uint32(n), Position: h.position(o.Position)}, nil
}

// ImportSuppressions records opt-outs kept elsewhere.
func (h *handlers) ImportSuppressions(ctx context.Context, r *optoutv1.ImportSuppressionsRequest) (*optoutv1.ImportSuppressionsResponse, error) {
	rows := make([]ledger.ImportRow, len(r.Rows))
	for i, x := range r.Rows {
		at, err := moment(fmt.Sprintf("rows[%d].occurred_at", i), x.OccurredAt)
		if err != nil {
			return nil, err
		}
		rows[i] = ledger.ImportRow{Address: x.Address, Occurred: at, Reason: ledger.Reason(x.Reason), Topic: x.Topic, Note: x.Note}
	}
	o, err := h.Ledger.Import(ctx, by(ctx), r.Sender, r.Source, rows, r.DryRun, r.Last)
	if err != nil {
		return nil, err
	}
	resp := &optoutv1.ImportSuppressionsResponse{Added: uint32(o.Added), Unchanged: uint32(o.Unchanged), Position: h.position(o.Position)}
	for i := range rows {
		if err := o.Malformed[i]; err != nil {
			resp.Malformed = append(resp.Malformed, &optoutv1.MalformedAddress{Index: uint32(i), Message: err.Error()})
		}
	}
	return resp, nil
}

// ExplainAddress tells everything that bears on an address.
func (h *handlers) ExplainAddress(ctx context.Context, r *optoutv1.ExplainAddressRequest) (*optoutv1.ExplainAddressResponse, error) {
	st, err := h.Ledger.Explain(ctx, r.Sender, r.Address)
	if err != nil {
		return nil, err
	}
	reg, see := h.Ledger.Registry(), sights[caller(ctx).Role]
	resp := &optoutv1.ExplainAddressResponse{Verdicts: topicVerdicts(reg, st.Verdicts), Position: h.position(st.Position),
		PersonAddresses: uint32(st.PersonAddresses), AddressKey: st.Key.String(), Truncated: st.Truncated}
	for i := range st.Lines {
		resp.Entries = append(resp.Entries, entryOut(reg, &st.Lines[i], see.story, st.Lines[i].Key == st.Key))
	}
	return resp, nil
}
