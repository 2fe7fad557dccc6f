package ledger

import (
	"errors"
	"fmt"
)

// What can go wrong in a use case, besides the errors of [Store]. Each edge has one table that maps these to its own codes.
var (
	// ErrInvalidField: a value is missing, malformed or out of range.
	ErrInvalidField = errors.New("invalid field")
	// ErrInvalidAddress: not a usable addr-spec.
	ErrInvalidAddress = errors.New("invalid address")
	// ErrTooManyItems: more items than the call's limit.
	ErrTooManyItems = errors.New("too many items")
	// ErrInvalidPageToken: not a page token of this listing.
	ErrInvalidPageToken = errors.New("invalid page token")
	// ErrRequestIDRequired: what can say yes must carry a request id.
	ErrRequestIDRequired = errors.New("request_id required")
	// ErrRequestIDReused: the id came before with other content.
	ErrRequestIDReused = errors.New("request_id reused")
	// ErrUnknownSender and ErrUnknownTopic: fail closed, never "send anyway".
	ErrUnknownSender = errors.New("unknown sender")
	ErrUnknownTopic  = errors.New("unknown topic")
	// ErrNameTaken: names are never reused.
	ErrNameTaken = errors.New("name taken")
	// ErrNotLiftable: only a later yes by the person lifts this no (law 3).
	ErrNotLiftable = errors.New("not liftable")
	// ErrNotVoidable: a person said it, or it is no statement that can be void.
	ErrNotVoidable = errors.New("not voidable")
	// ErrLoosening: class and consent rule may only be tightened.
	ErrLoosening = errors.New("loosening")
	// ErrPersonConflict: the address belongs to another person.
	ErrPersonConflict = errors.New("person conflict")
	// ErrPersonFull: a person has at most MaxPersonAddresses addresses.
	ErrPersonFull = errors.New("person full")
	// ErrOtherLedger: a position of another ledger.
	ErrOtherLedger = errors.New("other ledger")
	// ErrNotYet: the position asked for was not reached in time.
	ErrNotYet = errors.New("position not reached")
	// ErrConfirmationStale: the request it confirms is too old or no longer stands.
	ErrConfirmationStale = errors.New("confirmation stale")
	// ErrUndoStale: too late to undo, or undone before.
	ErrUndoStale = errors.New("undo stale")
	// ErrTooManyChanges: the address has said yes more often than MaxFacts allows.
	ErrTooManyChanges = errors.New("too many changes")
	// ErrRoleRequired: the actor's role may not do this.
	ErrRoleRequired = errors.New("role required")
	// ErrQueueFull: the review queue takes no more for now, of this source or at all.
	ErrQueueFull = errors.New("queue full")
	// ErrLastAdmin: the last admin key cannot be revoked.
	ErrLastAdmin = errors.New("last admin key")
	// ErrDamaged: the ledger does not fit its tree, its chain, its anchor or its keys.
	ErrDamaged = errors.New("ledger damaged")
	// ErrClosed: the ledger is shutting down or has stopped acknowledging; the outcome of a write is unknown.
	ErrClosed = errors.New("ledger closed")
)

// Error is an error of the core with what its reader needs to mend it. It never holds personal data.
type Error struct {
	// Kind is one of the sentinel errors.
	Kind error
	// Field names the field at fault, in the API's spelling; may be empty.
	Field string
	// Problem is the value's fault in plain words.
	Problem string
	// Remedy says what to do.
	Remedy string
	// Needs, with ErrRoleRequired, are the roles that may.
	Needs []Role
}

// Error joins field, problem and remedy.
func (e *Error) Error() string {
	s := e.Problem
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if e.Remedy != "" {
		s += " (" + e.Remedy + ")"
	}
	return s
}

// Unwrap returns the sentinel.
func (e *Error) Unwrap() error { return e.Kind }

func invalid(field, problem, remedy string) error {
	return &Error{Kind: ErrInvalidField, Field: field, Problem: problem, Remedy: remedy}
}

func damaged(format string, args ...any) error {
	return &Error{Kind: ErrDamaged, Problem: fmt.Sprintf(format, args...),
		Remedy: "stop writing, keep the data folder as it is, run \"optout verify --data DIR\", restore the newest good backup"}
}
