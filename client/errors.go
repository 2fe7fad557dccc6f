package client

import (
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
)

// Error is an answer of the service that is no success.
type Error struct {
	// Code is the gRPC code.
	Code codes.Code
	// Reason is for machines; ERROR_REASON_UNSPECIFIED when the service did not answer.
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

// Unwrap returns the gRPC error.
func (e *Error) Unwrap() error { return e.err }

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

// ErrCannotAsk: the service gave no answer that can be relied on, so nothing may be sent.
var ErrCannotAsk = errors.New("optout could not be asked, so nothing may be sent")

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
