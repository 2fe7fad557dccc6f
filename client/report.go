package client

import (
	"fmt"

	"google.golang.org/grpc/codes"

	optoutv1 "optout/proto/optout/v1"
)

// Outcome says what became of one recipient.
type Outcome int

// Outcomes. The zero value means that nothing was sent.
const (
	// NotAsked: optout could not be asked, or gave no answer to send by, or the sending ended before it came to this recipient, so
	// nothing was sent.
	NotAsked Outcome = iota
	// Sent: the server took the message.
	Sent
	// Refused: the person said stop, or another reason denies; see Decision.
	Refused
	// Malformed: it is no address that can be checked; see Decision.
	Malformed
	// Failed: the server does not have the message, for certain; see Err. It may be sent again.
	Failed
	// Unknown: the connection ended while the server had the whole message. It may have taken it: sending again may double it.
	Unknown
)

// String names the outcome.
func (o Outcome) String() string {
	names := [...]string{"not asked", "sent", "refused", "malformed", "failed", "unknown"}
	if o < 0 || int(o) >= len(names) {
		return fmt.Sprintf("outcome %d", int(o))
	}
	return names[o]
}

// Result is what became of one recipient of one message.
type Result struct {
	// Message is the message's index in the call.
	Message int
	// Recipient is the address, as it is asked about and as it stands on the envelope: without a name, quoted where it must be.
	Recipient string
	Outcome   Outcome
	// Decision is the last verdict.
	Decision Decision
	// Err tells why nothing was sent, for Failed, Unknown and NotAsked.
	Err error
}

// decide takes over a verdict.
func (r *Result) decide(d Decision) {
	r.Decision = d
	switch {
	case d.Malformed != "":
		r.Outcome = Malformed
	case !d.Send():
		r.Outcome = Refused
	}
}

// Report is the results of a call, one for every recipient of every message.
type Report []Result

// Count tells how many recipients had an outcome.
func (r Report) Count(o Outcome) (n int) {
	for _, x := range r {
		if x.Outcome == o {
			n++
		}
	}
	return n
}

// fail says of everybody that nothing was sent, and why.
func (r Report) fail(err error) (Report, error) {
	for i := range r {
		r[i].Outcome, r[i].Err = NotAsked, err
	}
	return r, err
}

// ErrPostalAddress: commercial mail needs the sender's valid physical postal address (15 USC 7704(a)(5)(A)(iii)). Its Reason is
// POSTAL_ADDRESS_MISSING.
var ErrPostalAddress error = &Error{Code: codes.FailedPrecondition, Reason: optoutv1.ErrorReason_ERROR_REASON_POSTAL_ADDRESS_MISSING, Field: "postal_address",
	Message: "the sender has no postal address, which commercial mail must show", Remedy: "set it with \"optout sender update --postal-address\""}

// DeliveryError tells at which step of its SMTP transaction a message failed. Its text holds no personal data; what the server
// said, which often repeats the recipient's address, is in the error that it wraps (a *textproto.Error).
type DeliveryError struct {
	// Step is the SMTP command that failed, such as "RCPT", or "connecting".
	Step string
	// Code is the server's reply code (RFC 5321 section 4.2.1); 0 when there was no reply.
	Code int
	err  error
}

// Error names the step and the code.
func (e *DeliveryError) Error() string {
	if e.Code == 0 {
		return "the mail server was lost at " + e.Step
	}
	return fmt.Sprintf("the mail server answered %d to %s", e.Code, e.Step)
}

// Unwrap returns the server's reply, or the connection's error.
func (e *DeliveryError) Unwrap() error { return e.err }

// Temporary reports whether the same message may be taken later.
func (e *DeliveryError) Temporary() bool { return e.Code == 0 || e.Code/100 == 4 }
