package client

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
)

// Error is an answer of the service that is no success, or the lack of an answer. It never holds personal data.
// errors.Is(err, context.Canceled) and errors.Is(err, context.DeadlineExceeded) tell which context ended the call.
type Error struct {
	// Code is the gRPC code.
	Code codes.Code
	// Reason is for machines; ERROR_REASON_UNSPECIFIED when the service did not answer, or gave a reason newer than this client.
	Reason optoutv1.ErrorReason
	// Message, Field and Remedy are for people: what is wrong, with which field of the request, and what to do.
	Message, Field, Remedy string
	err                    error
}

// Error joins what is known.
func (e *Error) Error() string {
	if e.Remedy != "" {
		return fmt.Sprintf("optout: %s (%s)", e.Message, e.Remedy)
	}
	return "optout: " + e.Message
}

// Unwrap returns the gRPC error; nil where the client itself found the fault.
func (e *Error) Unwrap() error { return e.err }

// Is makes the codes of an ended context match the context's own errors.
func (e *Error) Is(target error) bool {
	return target == context.Canceled && e.Code == codes.Canceled || target == context.DeadlineExceeded && e.Code == codes.DeadlineExceeded
}

// Temporary reports whether repeating the call may help.
func (e *Error) Temporary() bool {
	switch e.Code {
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Aborted:
		return true
	}
	return false
}

// Reason returns the machine-readable reason of an error of this package; ERROR_REASON_UNSPECIFIED for any other.
func Reason(err error) optoutv1.ErrorReason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return optoutv1.ErrorReason_ERROR_REASON_UNSPECIFIED
}

// IsUnknownTopic reports whether the service knows no topic of the name: most often a typing error, never "send anyway".
func IsUnknownTopic(err error) bool {
	return Reason(err) == optoutv1.ErrorReason_ERROR_REASON_UNKNOWN_TOPIC
}

// IsUnknownSender reports whether the service knows no sender of the name given to WithSender.
func IsUnknownSender(err error) bool {
	return Reason(err) == optoutv1.ErrorReason_ERROR_REASON_UNKNOWN_SENDER
}

// ErrCannotAsk: the service gave no answer that can be relied on, so nothing may be sent.
var ErrCannotAsk = errors.New("optout could not be asked, so nothing may be sent")

// cannotAsk marks an error as the reason why nothing may be sent.
func cannotAsk(err error) error {
	if errors.Is(err, ErrCannotAsk) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCannotAsk, err)
}

// wrap makes an *Error of a gRPC error.
func wrap(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	e := &Error{Code: s.Code(), Message: s.Message(), err: err}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Domain == "optout" {
			e.Reason = optoutv1.ErrorReason(optoutv1.ErrorReason_value["ERROR_REASON_"+info.Reason])
			e.Field, e.Remedy = info.Metadata["field"], info.Metadata["remedy"]
		}
	}
	return e
}
