package client

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
)

// Decision is the answer to "may I send?". The zero value forbids.
type Decision struct {
	verdict optoutv1.Verdict
	// Denials are the reasons, strongest first. When Send is true they are the noes that a required topic passed.
	Denials []*optoutv1.Denial
	// Malformed tells what is wrong with the address, if it could not be read; such a one is never sent to.
	Malformed string
	// Link has the URL and the header fields to put on the message; nil unless wanted, allowed, and of use for the topic.
	Link *optoutv1.UnsubscribeLink
	// Receipt is the value of the field X-Optout-Receipt, which proves later that this was asked: 136 characters without white
	// space. Empty unless wanted and allowed.
	Receipt string
	// Position is what the answer reflects.
	Position *optoutv1.Position
	// Warnings are what a careful mailer should know though the mail may go out.
	Warnings []string
}

// Send reports whether the mail may leave now.
func (d Decision) Send() bool { return d.verdict == optoutv1.Verdict_VERDICT_SEND }

// String tells the verdict and its strongest reason.
func (d Decision) String() string {
	switch {
	case d.Send():
		return "SEND"
	case d.Malformed != "":
		return "DO_NOT_SEND: malformed address: " + d.Malformed
	case len(d.Denials) > 0:
		return "DO_NOT_SEND: " + strings.TrimPrefix(d.Denials[0].Reason.String(), "DENIAL_REASON_")
	}
	return "DO_NOT_SEND"
}

// CheckOption changes what a check asks. It is a MailerOption too.
type CheckOption func(*optoutv1.BatchCheckSendRequest)

// WithHeaders asks for link and header fields too.
func WithHeaders() CheckOption {
	return func(r *optoutv1.BatchCheckSendRequest) { r.WantHeaders = true }
}

// WithReceipt asks for a receipt of every SEND too.
func WithReceipt() CheckOption {
	return func(r *optoutv1.BatchCheckSendRequest) { r.WantReceipt = true }
}

// WithMailing puts a number into the links, so that opt-outs can be counted per campaign.
func WithMailing(n uint32) CheckOption {
	return func(r *optoutv1.BatchCheckSendRequest) { r.Mailing = n }
}

// WithLinkScope makes links stop this rather than ALL correspondence.
func WithLinkScope(scope *optoutv1.Scope) CheckOption {
	return func(r *optoutv1.BatchCheckSendRequest) { r.LinkScope = scope }
}

// InAnswerTo names what the person has just done that the mail answers, such as "password reset requested", without personal
// data: required topics with ground "answer" pass a no only so. It is at most 30 days ago.
func InAnswerTo(act string, at time.Time) CheckOption {
	return func(r *optoutv1.BatchCheckSendRequest) {
		r.InAnswerTo = &optoutv1.InAnswerTo{Act: act, At: timestamppb.New(at)}
	}
}

// AtLeast answers only from a ledger that has reached a position that another call returned.
func AtLeast(p *optoutv1.Position) CheckOption {
	return func(r *optoutv1.BatchCheckSendRequest) { r.AtLeast = p }
}

func (c *Client) checkRequest(topic string, options []CheckOption) *optoutv1.BatchCheckSendRequest {
	r := &optoutv1.BatchCheckSendRequest{Sender: c.sender, Topic: topic}
	for _, o := range options {
		o(r)
	}
	return r
}

// CheckSend asks about one address, right before its message leaves. With an error the Decision forbids. Errors: *Error, and
// ErrCannotAsk for an answer that this client does not understand.
func (c *Client) CheckSend(ctx context.Context, topic, address string, options ...CheckOption) (Decision, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	r := c.checkRequest(topic, options)
	resp, err := c.suppression.CheckSend(ctx, &optoutv1.CheckSendRequest{Sender: r.Sender, Topic: r.Topic, Address: address, WantHeaders: r.WantHeaders,
		LinkScope: r.LinkScope, Mailing: r.Mailing, InAnswerTo: r.InAnswerTo, AtLeast: r.AtLeast, WantReceipt: r.WantReceipt})
	if err != nil {
		return Decision{}, wrap(err)
	}
	if err := understood(resp.Verdict); err != nil {
		return Decision{}, err
	}
	d := Decision{verdict: resp.Verdict, Denials: resp.Denials, Link: resp.Link, Receipt: resp.Receipt, Position: resp.Position, Warnings: resp.Warnings}
	if err := d.receipted(r); err != nil {
		return Decision{}, err
	}
	return d, nil
}

// receipted refuses a SEND without the receipt that was asked for: the mail would look unchecked.
func (d Decision) receipted(r *optoutv1.BatchCheckSendRequest) error {
	if r.WantReceipt && d.Send() && d.Receipt == "" {
		return fmt.Errorf("%w: the service gave no receipt: bring the service up to date, or do without WithReceipt", ErrCannotAsk)
	}
	return nil
}

// understood refuses verdicts that are neither yes nor no: they come from a service newer than this client.
func understood(v optoutv1.Verdict) error {
	if v != optoutv1.Verdict_VERDICT_SEND && v != optoutv1.Verdict_VERDICT_DO_NOT_SEND {
		return fmt.Errorf("%w: the service answered with verdict number %d, which this client does not know: bring the client up to date", ErrCannotAsk, v)
	}
	return nil
}
