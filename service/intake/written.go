package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"optout/service/ledger"
	"optout/service/mailauth"
	"optout/service/report"
	"optout/service/words"
)

// written takes what somebody wrote in their own words.
func (in *Intake) written(ctx context.Context, b *box, m *message) Result {
	switch k := m.report().Kind; k {
	case report.Complaint: // some providers know only the one address of a sender
		return in.feedback(ctx, b, m)
	case report.Bounce, report.Automatic:
		return ignored("automatic mail never counts")
	}
	r := m.words()
	if r.Automatic || m.envelope.MailFrom == "" && m.envelope.Helo != "" {
		return ignored("automatic mail never counts") // RFC 3834 section 2; a null path that a session named is one
	}
	meaning := r.Meaning
	switch contact := b.kind == contactBox; {
	case contact && meaning == words.Empty:
		meaning = words.Other
	case contact && meaning == words.Cancel: // perhaps of something that they pay for
		meaning = words.Perhaps
	case meaning == words.Empty, meaning == words.Cancel:
		// To have written to unsubscribe@ at all is to have said it: some programs leave out the subject that a link asks for.
		meaning = words.Stop
	}
	if meaning == words.Other {
		return in.question(ctx, b, m)
	}
	doubt := ledger.Doubt("")
	if meaning == words.Perhaps {
		doubt = ledger.DoubtUnclear
	}
	var results []Result
	token := in.quoted(m)
	if token.token != nil {
		token.doubt = or(token.doubt, doubt)
		results = append(results, in.stop(ctx, token.token.sender, b, m, token))
	}
	// Whoever answers one sender's mail at another's address means that other too.
	if senders := append([]string{b.sender}, b.others...); token.token == nil || !slices.Contains(senders, token.token.sender) {
		w := in.author(ctx, b, m)
		w.doubt = or(w.doubt, doubt)
		for _, s := range senders {
			results = append(results, in.stop(ctx, s, b, m, w))
		}
	}
	for _, r := range results {
		if r.Err != nil {
			return r
		}
	}
	return results[0]
}

// stop opts a writer out of ALL mail of a sender, or queues that where it is in doubt.
func (in *Intake) stop(ctx context.Context, sender string, b *box, m *message, w writer) Result {
	if w.doubt != "" {
		return in.queue(ctx, sender, b, m, w, ledger.ClaimOptOut)
	}
	by := ledger.By{Channel: ledger.ByMail, Evidence: m.said()}
	if w.token != nil {
		s, _, _, _ := in.o.Ledger.Registry().Scope(w.token.to.Scope)
		by.Mailing, by.RequestID = w.token.mailing, m.requestID("stop", w.token.to.Key)
		o, err := in.o.Ledger.Press(ctx, by, s.All(), w.token.to.Generation, w.token.to.Key)
		return recorded(OptedOut, o, "own words, in reply to a signed message", err)
	}
	by.RequestID = m.requestID("stop", sender, m.words().From)
	o, err := in.o.Ledger.OptOutMailbox(ctx, by, sender, m.words().From)
	if errors.Is(err, ledger.ErrInvalidAddress) { // nobody can be mailed at it, but a person may know what it means
		w.doubt = ledger.DoubtUnclear
		return in.queue(ctx, sender, b, m, w, ledger.ClaimOptOut)
	}
	if err == nil && o.Created && sender == b.sender {
		in.reply(sender, m)
	}
	return recorded(OptedOut, o, "own words, authenticated", err)
}

// writer is who wrote a message, as far as it is known.
type writer struct {
	// token names them by a token of ours that the message quotes; nil when none does.
	token *box
	// doubt is why that is not certain; empty when it is.
	doubt ledger.Doubt
	// source is by what a flood of theirs is told; network is false when it is only what the message says of itself.
	source  string
	network bool
}

// writer is whoever wrote a message, of whom nothing is known yet.
func (m *message) writer() (w writer) {
	w.source, w.network = m.source()
	return w
}

// quoted finds out who wrote by a token of ours that the message quotes: it names the address that was mailed, and whoever holds it
// could press the link in the same message (RFC 8058 section 6).
func (in *Intake) quoted(m *message) writer {
	token, sure := in.named(m.words().Tokens)
	w := m.writer()
	w.token = token
	if token != nil && !sure {
		w.doubt = ledger.DoubtUnclear // it quotes mail to several people
	}
	return w
}

// author finds out who wrote without a token: the address in From, when its domain vouches for it.
func (in *Intake) author(ctx context.Context, b *box, m *message) writer {
	w := m.writer()
	v := m.auth(ctx, in.o.Auth)
	switch {
	case v.Result == mailauth.Proved && lower(v.From) == lower(m.words().From) && in.toUs(v, b, m): // two readers, one address
		w.source, w.network = "address "+lower(v.From), true
	case v.Result == mailauth.Disproved:
		w.doubt = ledger.DoubtForged
	default: // also when DNS does not answer: who opts out must not depend on it
		w.doubt = ledger.DoubtUnproved
	}
	return w
}

// toUs reports whether what was proved was written to us. A DKIM signature proves who wrote a message, not that they wrote it to
// us: a message that somebody wrote to another list can be sent on to us whole. So the signature must cover To and Subject, and To
// must name an address of the sender's, be it the one at which it came or one that is forwarded there: Cc, Delivered-To and the like
// anybody can add on the way. SPF proves that the author's own provider sent it here, perhaps because another of its customers has their
// mail forwarded here: so some field must name an address of the sender's, as a forward does not.
func (in *Intake) toUs(v *mailauth.Verdict, b *box, m *message) bool {
	senders := append([]string{b.sender}, b.others...)
	named := func(all []string) bool {
		return slices.ContainsFunc(all, func(a string) bool {
			to, ours := in.box(a)
			return ours && (to.kind == wordsBox || to.kind == contactBox) && slices.Contains(senders, to.sender)
		})
	}
	return v.Sent && named(m.words().Recipients) || (v.Signed || v.Vouched) && named(m.words().To)
}

// said is the evidence of a message in a person's own words.
func (m *message) said() map[string]string {
	e, r := m.evidence(), m.words()
	e["from"], e["subject"], e["language"] = short(r.From), fit(r.Subject), r.Language
	if m.verdict != nil {
		e["authentication"] = short(m.verdict.Detail)
	}
	return e
}

// queue puts a message to a sender into the review queue.
func (in *Intake) queue(ctx context.Context, sender string, b *box, m *message, w writer, claim ledger.Claim) Result {
	item := ledger.QueueItem{Sender: sender, Claim: claim, Doubt: w.doubt, Source: w.source, Network: w.network, Address: m.words().From}
	by := ledger.By{Channel: ledger.ByMail, Evidence: m.said()}
	by.Evidence["words"] = fit(m.words().Own)
	if !m.whole() {
		by.Evidence["note"] = fmt.Sprintf("the message was too large to keep: only its first %d octets were read, and what was attached is gone", len(m.Raw))
	}
	var about ledger.Tokened
	if w.token != nil {
		s, _, _, _ := in.o.Ledger.Registry().Scope(w.token.to.Scope)
		to := w.token.to
		to.Scope = s.All()
		item.Sender, item.Token, item.Address, by.Mailing, about = w.token.sender, &to, "", w.token.mailing, to
	}
	by.RequestID = m.requestID("queue", item.Sender, claim, w.doubt, item.Address, b.address, about.Key)
	return in.enqueue(ctx, by, item)
}

// enqueue queues an item, without its address where that is none that anybody could be mailed at: a person may know what it means.
func (in *Intake) enqueue(ctx context.Context, by ledger.By, item ledger.QueueItem) Result {
	o, err := in.o.Ledger.Queue(ctx, by, item)
	if errors.Is(err, ledger.ErrInvalidAddress) {
		item.Address = ""
		o, err = in.o.Ledger.Queue(ctx, by, item)
	}
	return recorded(Queued, o, "waits for review: "+string(item.Doubt), err)
}

// patience is for how long a question whose way on is barred is asked to come again later. Its writer's server gives up after some
// days; before that the queue takes it.
const patience = 24 * time.Hour

// question passes on what is for a person to read, or queues it: it is never lost.
func (in *Intake) question(ctx context.Context, b *box, m *message) Result {
	s := in.o.Ledger.Registry().Sender(b.sender)
	if s != nil && s.ForwardAddress != "" && in.o.Relay != nil && m.whole() {
		err := in.o.Relay.Forward(ctx, s.ForwardAddress, m.Raw)
		if err == nil {
			return Result{Outcome: Forwarded, Why: "a question"}
		}
		if errors.Is(err, ErrMailOut) && !m.sentBefore(in.o.Now().Add(-patience)) {
			return failed(err)
		}
		in.o.Log.Warn("a question could not be passed on; it waits in the review queue", "sender", s.Name, "error", err)
	}
	w := m.writer()
	w.doubt = ledger.DoubtUnread
	return in.queue(ctx, b.sender, b, m, w, ledger.ClaimMessage)
}
