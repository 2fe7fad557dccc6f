// Package provider speaks the formats of email service providers: it checks and reads their webhooks, pages through their
// suppression lists, and adds addresses to them. It knows no ledger and keeps no state; package hooks turns what it reads into
// entries.
//
// One file per provider, one small interface for each thing a provider can do: [Receiver], [Lister], [Suppresser]. Whatever comes
// from outside is bounded before it is read, and read strictly where it decides about a person.
package provider

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Kind is a provider's name in configuration and URLs.
type Kind string

// Kinds.
const (
	SES      Kind = "ses"
	SendGrid Kind = "sendgrid"
	Mailgun  Kind = "mailgun"
	Postmark Kind = "postmark"
	Generic  Kind = "generic"
)

// Kinds lists every kind, for help and errors.
func Kinds() []Kind { return []Kind{SES, SendGrid, Mailgun, Postmark, Generic} }

// What is what an event says about an address.
type What uint8

// What events say. There is no yes among them: a provider's "resubscribed" lifts nothing.
const (
	// Unsubscribed: the person said stop.
	Unsubscribed What = 1
	// Complained: the person reported the mail as spam.
	Complained What = 2
	// HardBounce: the mailbox or its domain does not exist.
	HardBounce What = 3
	// SoftBounce: the mailbox did not take mail for now.
	SoftBounce What = 4
)

// String is the name that logs, metrics and evidence use.
func (w What) String() string {
	switch w {
	case Unsubscribed:
		return "unsubscribe"
	case Complained:
		return "complaint"
	case HardBounce:
		return "hard-bounce"
	case SoftBounce:
		return "soft-bounce"
	}
	return "nothing"
}

// Event is one thing that a provider says about one address.
type Event struct {
	// ID is the provider's id of the event: unique for this provider, the same whenever the event is repeated.
	ID string
	// What it says.
	What What
	// Address as the provider writes it.
	Address string
	// Occurred is when it happened as the provider says; zero when it does not.
	Occurred time.Time
	// Group is the provider's own name of the part of the mail that a person unsubscribed from (a SendGrid group, an SES topic, a
	// Mailgun tag); empty for all of it.
	Group string
	// Source is the provider's own name of the event, such as "bounce/Permanent/NoEmail".
	Source string
	// Status is the enhanced status code of a bounce (RFC 3463), if known.
	Status string
	// Words are the words of the server that bounced. They may hold personal data.
	Words string
	// Among is how many addresses a complaint named when the provider cannot tell which of them complained; 0 or 1 when it can.
	Among int
	// Listed: it is the state of a list, not an act that was seen, and may be there because we put it there.
	Listed bool
}

// Request is a webhook request as it came.
type Request struct {
	// Header holds its header fields.
	Header http.Header
	// Body is the whole body, at most [MaxBody] octets.
	Body []byte
	// At is when it came.
	At time.Time
}

// MaxBody is the most octets that a webhook request may have: a notification of SNS (256 KiB before it is quoted) and a batch of
// SendGrid (768 KiB) fit.
const MaxBody = 1 << 20

// Delivery is what a genuine webhook request holds.
type Delivery struct {
	// Events bear on addresses.
	Events []Event
	// Ignored counts what bears on nobody: deliveries, opens, mail that was not tried.
	Ignored int
	// Resubscribed counts events by which the provider would mail somebody again. They lift nothing.
	Resubscribed int
	// Unreadable counts events that would bear on somebody but cannot be read.
	Unreadable int
	// Nonce was signed in place of the body. It must be taken with one body only, until NonceEnds.
	Nonce     string
	NonceEnds time.Time
	// Control is what became of a message about the webhook itself; empty for all others.
	Control string
}

// add takes over an event: one that says nothing about a mailbox is ignored, and one that no record takes is unreadable.
func (d *Delivery) add(e Event) {
	e.Address = mailbox(e.Address)
	switch {
	case e.What == 0:
		d.Ignored++
	case !usable(e.ID, e.Address):
		d.Unreadable++
	default:
		d.Events = append(d.Events, e)
	}
}

// Receiver reads webhooks.
type Receiver interface {
	// Receive checks that the request is genuine and reads it. Errors: ErrCredential, ErrForged, ErrStale, ErrMalformed, ErrLater.
	Receive(ctx context.Context, r *Request) (*Delivery, error)
}

// What can be wrong with a webhook request. The errors that wrap these hold no personal data and nothing of the request.
var (
	// ErrCredential: no credential, or a wrong one.
	ErrCredential = errors.New("no valid credential")
	// ErrForged: the signature is missing or does not fit.
	ErrForged = errors.New("the signature does not fit")
	// ErrStale: genuine once, but too old now.
	ErrStale = errors.New("the request is too old")
	// ErrMalformed: genuine, but not the provider's documented form.
	ErrMalformed = errors.New("the request cannot be read")
	// ErrLater: it could not be decided now; the provider is to repeat it.
	ErrLater = errors.New("it cannot be decided now")
)

// Window is how far the clock of a signed timestamp may be from ours, for providers that sign each attempt anew.
const Window = 5 * time.Minute

// inWindow tells whether a signed time is acceptable: not more than Window in the future, and at most age old.
func inWindow(signed, now time.Time, age time.Duration) bool {
	d := now.Sub(signed)
	return d <= age && d >= -Window
}

// Page is one page of a suppression list.
type Page struct {
	// Items are the addresses on it.
	Items []Event
	// Next is the cursor of the page after; empty on the last.
	Next string
	// Unreadable counts items that could not be read.
	Unreadable int
}

// Lister pages through a provider's suppression lists.
type Lister interface {
	// Lists names the lists, in the order to read them.
	Lists() []string
	// List reads one page of a list: of what was put on it since then (zero: ever) where the provider can tell, beginning at the
	// cursor of the page before. Errors: *APIError and those of the connection.
	List(ctx context.Context, list string, since time.Time, cursor string) (*Page, error)
}

// Suppresser adds addresses to a provider's suppression list.
type Suppresser interface {
	// SuppressAtOnce is how many addresses a call takes.
	SuppressAtOnce() int
	// Suppress adds addresses. Adding one that is there already changes nothing. refused are those that the provider will not take,
	// by index; all others are on the list when err is nil. Errors: *APIError and those of the connection.
	Suppress(ctx context.Context, addresses []string) (refused []int, err error)
}
