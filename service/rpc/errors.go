package rpc

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
	"optout/service/link"
)

// Errors of this edge.
var (
	errUnauthenticated = errors.New("unauthenticated")
	errRole            = errors.New("role required")
	errSender          = errors.New("sender not allowed")
	errTopic           = errors.New("topic not allowed")
	errBusy            = errors.New("busy")
	errBackupTarget    = errors.New("backup target")
	errProvider        = errors.New("provider")
	// ErrMailOut: what was submitted is to be passed on by the mail server behind --mail-out, which takes nothing for now.
	ErrMailOut = errors.New("mail out")
	// errTooSlow is why a call ends that its caller would have let go on.
	errTooSlow = errors.New("too slow")

	errSenderNotAllowed = &ledger.Error{Kind: errSender, Field: "sender", Problem: "the API key is not bound to this sender", Remedy: "use a key of this sender"}
)

func errTopicNotAllowed(field string) error {
	return &ledger.Error{Kind: errTopic, Field: field, Problem: "the API key may not name this topic", Remedy: "use a key whose topics list it; required topics must be listed by name"}
}

func needsRole(roles []ledger.Role) error {
	return &ledger.Error{Kind: errRole, Problem: "the API key's role does not allow this method", Needs: roles}
}

// row says how an error leaves.
type row struct {
	err    error
	code   codes.Code
	reason optoutv1.ErrorReason
	// text is said when the error itself has no words for callers.
	text, remedy string
}

// table maps every error of the core to code and reason. A test fails when one is missing.
var table = []row{
	{ledger.ErrInvalidField, codes.InvalidArgument, optoutv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "", ""},
	{ledger.ErrInvalidAddress, codes.InvalidArgument, optoutv1.ErrorReason_ERROR_REASON_INVALID_ADDRESS, "", ""},
	{ledger.ErrTooManyItems, codes.InvalidArgument, optoutv1.ErrorReason_ERROR_REASON_TOO_MANY_ITEMS, "", ""},
	{ledger.ErrInvalidPageToken, codes.InvalidArgument, optoutv1.ErrorReason_ERROR_REASON_INVALID_PAGE_TOKEN, "", ""},
	{ledger.ErrRequestIDRequired, codes.InvalidArgument, optoutv1.ErrorReason_ERROR_REASON_REQUEST_ID_REQUIRED, "", ""},
	{ledger.ErrRequestIDReused, codes.AlreadyExists, optoutv1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED, "", ""},
	{ledger.ErrUnknownSender, codes.NotFound, optoutv1.ErrorReason_ERROR_REASON_UNKNOWN_SENDER, "", ""},
	{ledger.ErrUnknownTopic, codes.NotFound, optoutv1.ErrorReason_ERROR_REASON_UNKNOWN_TOPIC, "", ""},
	{ledger.ErrNotFound, codes.NotFound, optoutv1.ErrorReason_ERROR_REASON_NOT_FOUND, "there is no such thing", ""},
	{ledger.ErrNameTaken, codes.AlreadyExists, optoutv1.ErrorReason_ERROR_REASON_NAME_TAKEN, "", ""},
	{ledger.ErrNotLiftable, codes.FailedPrecondition, optoutv1.ErrorReason_ERROR_REASON_NOT_LIFTABLE, "", ""},
	{ledger.ErrNotVoidable, codes.FailedPrecondition, optoutv1.ErrorReason_ERROR_REASON_NOT_VOIDABLE, "", ""},
	{ledger.ErrLoosening, codes.FailedPrecondition, optoutv1.ErrorReason_ERROR_REASON_LOOSENING, "", ""},
	{ledger.ErrPersonConflict, codes.FailedPrecondition, optoutv1.ErrorReason_ERROR_REASON_PERSON_CONFLICT, "", ""},
	{ledger.ErrPersonFull, codes.FailedPrecondition, optoutv1.ErrorReason_ERROR_REASON_PERSON_FULL, "", ""},
	{ledger.ErrOtherLedger, codes.FailedPrecondition, optoutv1.ErrorReason_ERROR_REASON_OTHER_LEDGER, "", ""},
	{ledger.ErrNotYet, codes.DeadlineExceeded, optoutv1.ErrorReason_ERROR_REASON_NOT_YET, "", ""},
	{ledger.ErrConfirmationStale, codes.FailedPrecondition, optoutv1.ErrorReason_ERROR_REASON_CONFIRMATION_STALE, "", ""},
	{ledger.ErrUndoStale, codes.FailedPrecondition, optoutv1.ErrorReason_ERROR_REASON_CONFIRMATION_STALE, "", ""},
	{ledger.ErrTooManyChanges, codes.FailedPrecondition, optoutv1.ErrorReason_ERROR_REASON_TOO_MANY_CHANGES, "", ""},
	{ledger.ErrRoleRequired, codes.PermissionDenied, optoutv1.ErrorReason_ERROR_REASON_ROLE_REQUIRED, "", ""},
	{ledger.ErrQueueFull, codes.ResourceExhausted, optoutv1.ErrorReason_ERROR_REASON_QUEUE_FULL, "", ""},
	{ledger.ErrLastAdmin, codes.FailedPrecondition, optoutv1.ErrorReason_ERROR_REASON_LAST_ADMIN, "", ""},
	{ledger.ErrDamaged, codes.DataLoss, optoutv1.ErrorReason_ERROR_REASON_LEDGER_DAMAGED, "", ""},
	{ledger.ErrStorageFull, codes.ResourceExhausted, optoutv1.ErrorReason_ERROR_REASON_STORAGE_FULL, "the disk is full or nearly so: nothing was written", "repeat the call later; checks go on"},
	{ledger.ErrStorageUnavailable, codes.Unavailable, optoutv1.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE, "the ledger cannot be reached now: the outcome is unknown", "repeat the call"},
	{ledger.ErrClosed, codes.Unavailable, optoutv1.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE, "the service is stopping: the outcome is unknown", "repeat the call"},
	{link.ErrInvalid, codes.NotFound, optoutv1.ErrorReason_ERROR_REASON_INVALID_TOKEN, "the token opens nothing here", "give the token exactly as it was issued"},

	{errUnauthenticated, codes.Unauthenticated, optoutv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, "no valid API key", "send \"authorization: Bearer SECRET\""},
	{errRole, codes.PermissionDenied, optoutv1.ErrorReason_ERROR_REASON_ROLE_REQUIRED, "", ""},
	{errSender, codes.PermissionDenied, optoutv1.ErrorReason_ERROR_REASON_SENDER_NOT_ALLOWED, "", ""},
	{errTopic, codes.PermissionDenied, optoutv1.ErrorReason_ERROR_REASON_TOPIC_NOT_ALLOWED, "", ""},
	{errBusy, codes.ResourceExhausted, optoutv1.ErrorReason_ERROR_REASON_OVERLOADED, "another call of this kind is running", "repeat the call later"},
	{errBackupTarget, codes.FailedPrecondition, optoutv1.ErrorReason_ERROR_REASON_BACKUP_TARGET, "", ""},
	{errProvider, codes.FailedPrecondition, optoutv1.ErrorReason_ERROR_REASON_PROVIDER, "", ""},
	{ErrMailOut, codes.Unavailable, optoutv1.ErrorReason_ERROR_REASON_MAIL_OUT, "the message is for a person to read, and the server behind --mail-out takes nothing now", "see to that server, and repeat the call"},
	{errTooSlow, codes.Unavailable, optoutv1.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE, "no answer within " + unaryTimeout.String() + ": the outcome of a write is unknown", "repeat the call"},

	{context.DeadlineExceeded, codes.DeadlineExceeded, optoutv1.ErrorReason_ERROR_REASON_DEADLINE_PASSED, "the caller's deadline passed: the outcome of a write is unknown", "repeat the call, with more time"},
	{context.Canceled, codes.Canceled, optoutv1.ErrorReason_ERROR_REASON_CALLER_GONE, "the caller went away: the outcome of a write is unknown", "repeat the call"},
}

const errorDomain = "optout"

// status makes the answer of an error. What is not in the table is a fault of ours.
func (h *handlers) status(method string, err error) error {
	for _, r := range table {
		if errors.Is(err, r.err) {
			return r.answer(method, err)
		}
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		return err // gRPC's own, such as UNIMPLEMENTED or a stream that broke
	}
	return h.incident("a call failed", method, "error", err)
}

// answer says the error in the API's words.
func (r *row) answer(method string, err error) error {
	text, meta := r.text, map[string]string{}
	if r.remedy != "" {
		meta["remedy"] = r.remedy
	}
	var e *ledger.Error
	if errors.As(err, &e) {
		text = e.Problem
		if e.Field != "" {
			meta["field"] = e.Field
			text = e.Field + ": " + text
		}
		if e.Remedy != "" {
			meta["remedy"] = e.Remedy
		}
		if len(e.Needs) > 0 {
			names := make([]string, len(e.Needs))
			for i, role := range e.Needs {
				names[i] = role.String()
			}
			meta["needs"] = strings.Join(names, ", ")
			meta["remedy"] = "use a key with one of the roles " + meta["needs"]
		}
	}
	if r.err == ledger.ErrTooManyItems && limits[method] != 0 {
		meta["limit"] = strconv.Itoa(limits[method])
	}
	return withInfo(r.code, r.reason, text, meta)
}

// incident logs a fault of ours under an id, and answers with the id alone.
func (h *handlers) incident(what, method string, attributes ...any) error {
	var b [6]byte
	io.ReadFull(h.Random, b[:]) // an id that is all zeros still finds the method and the time
	id := hex.EncodeToString(b[:])
	h.Log.Error(what, append([]any{"method", method, "incident", id}, attributes...)...)
	return withInfo(codes.Internal, optoutv1.ErrorReason_ERROR_REASON_INTERNAL, "a fault of the service",
		map[string]string{"incident": id, "remedy": "tell the service's operator the incident's id: it is in the log"})
}

// limits are told in the metadata of TOO_MANY_ITEMS.
var limits = map[string]int{
	"/optout.v1.SuppressionService/BatchCheckSend":     ledger.MaxBatchAddresses,
	"/optout.v1.SuppressionService/ImportSuppressions": ledger.MaxImportRows,
	"/optout.v1.SuppressionService/VoidEntries":        ledger.MaxVoidEntries,
	"/optout.v1.LinkService/BatchIssueLinks":           ledger.MaxBatchAddresses,
	"/optout.v1.LedgerService/AuditMail":               maxAuditItems,
	"/optout.v1.FeedbackService/SubmitReport":          maxEnvelope,
	"/optout.v1.FeedbackService/DecideQueue":           ledger.MaxDecide,
	"/optout.v1.SubscriptionService/UpdatePreferences": ledger.MaxPreferences,
	"/optout.v1.AdminService/ImportWirelessDomains":    ledger.MaxWirelessDomains,
}

func withInfo(code codes.Code, reason optoutv1.ErrorReason, text string, meta map[string]string) error {
	s := status.New(code, text)
	d, err := s.WithDetails(&errdetails.ErrorInfo{Domain: errorDomain, Reason: strings.TrimPrefix(reason.String(), "ERROR_REASON_"), Metadata: meta})
	if err != nil {
		return s.Err()
	}
	return d.Err()
}

func invalid(field, format string, args ...any) error {
	return &ledger.Error{Kind: ledger.ErrInvalidField, Field: field, Problem: fmt.Sprintf(format, args...)}
}
