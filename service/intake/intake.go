// Package intake says what mail means that comes in: which addresses there are, and what a message to one of them records on the
// ledger. Every way in ends here: SMTP, LMTP, IMAP, SubmitReport and submitted files.
//
// There are four kinds of addresses. A signed unsubscribe address (u-TOKEN@) says everything itself: the message to it is not even
// read, for mail programs send any subject or none and mark such mail as automatic. At a signed return path (b-TOKEN@) reports of
// failure count, for the one whose message it was. At fbl@ complaints count, when they carry a token of ours and a listed reporter
// signed them. At unsubscribe@, stop@ and the sender's contact address people write in their own words: these count at once when
// it is certain who wrote them and clear what they want; everything else waits in the review queue, or goes to a person.
//
// It owns whom to believe. Reading is done by packages report and words, proof of who wrote by package mailauth, and what is true
// by the ledger. Taking a message again is harmless.
package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"optout/service/ledger"
	"optout/service/link"
	"optout/service/mailauth"
	"optout/service/mailin"
)

// Options are what the intake needs.
type Options struct {
	Ledger *ledger.Ledger
	// Ring is the current ring of link keys.
	Ring func() *link.Ring
	// MailDomain is the domain of senders that have none of their own; empty for none.
	MailDomain string
	// Auth tells who wrote a message.
	Auth *mailauth.Checker
	// Relays are the networks of mail servers of one's own that bring mail here: it is not known from where they have it.
	Relays []netip.Prefix
	// Reporters are those whose complaints are believed: addresses, or domains of addresses, besides the known ones.
	Reporters []string
	// Relay passes mail on, for questions and replies; nil when there is none.
	Relay *Relay
	// Reply answers those who are opted out by their own words (RFC 3834); it needs a Relay.
	Reply bool
	// Keep keeps the messages themselves; nil keeps only their digests.
	Keep *Keep
	Now  func() time.Time
	Log  *slog.Logger
	// Observe is told the outcome of every message at every address, for metrics; may be nil.
	Observe func(Outcome)
}

// Intake is safe for concurrent use.
type Intake struct {
	o         Options
	reporters map[string]bool
	// held is how many messages were held when that was last told; Run's alone.
	held    int
	replies chan reply
}

// New makes the intake.
func New(o Options) *Intake {
	in := &Intake{o: o, reporters: map[string]bool{}}
	for _, r := range append(knownReporters(), o.Reporters...) {
		in.reporters[lower(r)] = true
	}
	if o.Reply && o.Relay != nil {
		in.replies = make(chan reply, maxReplies)
	}
	return in
}

// Intervals of what Run does by the clock.
const (
	decideEvery = time.Minute
	keepEvery   = time.Hour
)

// Run does what must be done by the clock until ctx ends: it decides what is due in the review queue, sends replies, and destroys
// messages that were kept for long enough.
func (in *Intake) Run(ctx context.Context) {
	decide, clean := time.NewTicker(decideEvery), time.NewTicker(keepEvery)
	defer decide.Stop()
	defer clean.Stop()
	in.decideDue(ctx)
	in.clean()
	for {
		select {
		case <-ctx.Done():
			return
		case <-decide.C:
			in.decideDue(ctx)
		case <-clean.C:
			in.clean()
		case r := <-in.replies:
			in.send(ctx, r)
		}
	}
}

func (in *Intake) decideDue(ctx context.Context) {
	n, err := in.o.Ledger.DecideDue(ctx)
	if n > 0 {
		in.o.Log.Info("nobody decided in time, so the queue opted out", "messages", n)
	}
	if err != nil && ctx.Err() == nil {
		in.o.Log.Error("what is due in the review queue could not be decided; it is tried again", "error", err)
	}
	s := in.o.Ledger.QueueStats()
	if s.Held > in.held {
		in.o.Log.Warn("messages are held in the review queue: too many came at once, hard bounces of a domain jumped, or who was to be opted out has confirmed a subscription since", "held", s.Held, "storms", s.Storms,
			"remedy", "see \"optout queue list --held\"")
	}
	in.held = s.Held
}

func (in *Intake) clean() {
	if in.o.Keep == nil {
		return
	}
	if err := in.o.Keep.Clean(); err != nil {
		in.o.Log.Error("kept messages could not be destroyed; it is tried again", "error", err)
	}
}

// origin is the host that brought a message from outside; zero when that is not known, because a server of our own brought it here.
func (in *Intake) origin(e *mailin.Envelope) netip.Addr {
	a := e.Remote.Unmap()
	if a.IsLoopback() || slices.ContainsFunc(in.o.Relays, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return netip.Addr{}
	}
	return a
}

// Outcome is what became of a message at one address.
type Outcome string

// Outcomes.
const (
	OptedOut  Outcome = "opted out"
	Bounce    Outcome = "bounce"
	Complaint Outcome = "complaint"
	Queued    Outcome = "queued"
	Forwarded Outcome = "forwarded"
	Ignored   Outcome = "ignored"
	// NotOurs: the recipient is no address of ours.
	NotOurs Outcome = "not ours"
	// Failed: it could not be recorded and is to be tried again; see Result.Err.
	Failed Outcome = "failed"
)

// Result is what became of a message for one recipient.
type Result struct {
	Outcome Outcome
	// Entry is the entry written or found in force; 0 for none.
	Entry uint64
	// Why is a few words, without personal data.
	Why string
	// Err is why it could not be recorded.
	Err error
}

// Open tells whether an address is one of ours: the Box is for Take. Every other address is mailin.ErrNoSuchAddress.
func (in *Intake) Open(_ context.Context, _ *mailin.Envelope, rcpt string) (mailin.Box, error) {
	b, ok := in.box(rcpt)
	if !ok {
		return nil, mailin.ErrNoSuchAddress
	}
	return b, nil
}

// Take records what a message says for each box and returns when everything is durable and in force. An error asks the sender to
// try again.
func (in *Intake) Take(ctx context.Context, e *mailin.Envelope, boxes []mailin.Box, m *mailin.Message) []error {
	errs := make([]error, len(boxes))
	msg := &message{Message: m, envelope: e, origin: in.origin(e)}
	for i, b := range boxes {
		errs[i] = in.takeOnce(ctx, b.(*box), msg).Err
	}
	return errs
}

// Deliver takes a message that did not come by SMTP, for the recipients of its envelope; with none, for those addresses of ours
// that its header names. fallback, if not empty, is the address that it is taken for when it names none, such as that of the
// mailbox in which it was found. The results stand for the recipients, in order, or for those found.
func (in *Intake) Deliver(ctx context.Context, e *mailin.Envelope, recipients []string, fallback string, m *mailin.Message) []Result {
	msg := &message{Message: m, envelope: e, origin: in.origin(e)}
	if len(recipients) == 0 {
		for _, r := range msg.words().Recipients {
			if _, ours := in.box(r); ours {
				recipients = append(recipients, r)
			}
		}
		if len(recipients) == 0 && fallback != "" {
			recipients = []string{fallback}
		}
		if len(recipients) == 0 {
			return []Result{in.count(Result{Outcome: NotOurs, Why: "its header names no address of ours"})}
		}
	}
	results := make([]Result, len(recipients))
	for i, r := range recipients {
		b, ours := in.box(r)
		if !ours {
			results[i] = in.count(Result{Outcome: NotOurs, Why: "there is no such address"})
			continue
		}
		results[i] = in.takeOnce(ctx, b, msg)
	}
	return results
}

// takeOnce takes a message for one box, unless it was taken for the same address already: the same recipient may be named again, in
// other letters too, and a question must not be passed on for each of them.
func (in *Intake) takeOnce(ctx context.Context, b *box, m *message) Result {
	r, again := m.taken[b.address]
	if !again {
		r = in.take(ctx, b, m)
		if m.taken == nil {
			m.taken = map[string]Result{}
		}
		m.taken[b.address] = r
	}
	return r
}

// take records what a message says for one box. A fault of ours must not take the service down, for the sender will try the same
// message again: it is answered as one that could not be recorded.
func (in *Intake) take(ctx context.Context, b *box, m *message) (r Result) {
	defer func() {
		if fault := recover(); fault != nil {
			in.o.Log.Error("a message could not be read: a fault of the service", "fault", fault, "stack", string(debug.Stack()))
			r = in.count(failed(fmt.Errorf("fault: %v", fault)))
		}
	}()
	if in.o.Keep != nil {
		if err := in.o.Keep.Save(m.Message); err != nil { // what it asks for is done all the same: an opt-out must not wait for that
			in.o.Log.Error("a message could not be kept", "error", err)
		}
	}
	switch b.kind {
	case unsubscribeBox:
		r = in.press(ctx, b, m)
	case bounceBox:
		r = in.returned(ctx, b, m)
	case feedbackBox:
		r = in.feedback(ctx, b, m)
	default:
		r = in.written(ctx, b, m)
	}
	if r.Err != nil && ctx.Err() == nil {
		in.o.Log.Error("mail could not be recorded; its sender will try again", "error", r.Err)
	}
	return in.count(r)
}

func (in *Intake) count(r Result) Result {
	if in.o.Observe != nil {
		in.o.Observe(r.Outcome)
	}
	return r
}

// press opts out whom a signed unsubscribe address names.
func (in *Intake) press(ctx context.Context, b *box, m *message) Result {
	to := b.to
	by := ledger.By{Channel: ledger.ByMailto, Mailing: b.mailing, Evidence: m.evidence()}
	o, err := in.o.Ledger.Press(ctx, by, to.Scope, to.Generation, to.Key)
	return recorded(OptedOut, o, "signed address", err)
}

// recorded is the result of a write.
func recorded(what Outcome, o ledger.Outcome, why string, err error) Result {
	switch {
	case errors.Is(err, ledger.ErrRequestIDReused):
		// The id is a digest of the message, so it was recorded before; under other address keys, or it would be a plain repeat.
		return Result{Outcome: what, Why: why}
	case err != nil:
		return failed(err)
	}
	return Result{Outcome: what, Entry: o.Entry, Why: why}
}

// failed is the result of what is to be tried again.
func failed(err error) Result {
	return Result{Outcome: Failed, Why: "it could not be recorded: to be tried again", Err: err}
}

func ignored(why string) Result { return Result{Outcome: Ignored, Why: why} }
