package mailgate

import (
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"optout/service/ledger"
	"optout/service/outgoing"
)

// maxHops is how many servers a message may have passed (RFC 5321 section 6.3).
const maxHops = 50

// delivery is one message on its way to the upstream.
type delivery struct {
	b    *backend
	s    *session
	m    *message
	head *outgoing.Header
	body int // where it begins
	q    *outgoing.Question
	id   string
	// what became of its recipients
	accepted, repeated []mark
	withheld, observed int
	denial             *outgoing.Refusal
	last               string // the upstream's words when it accepted
	failed             []error
}

// deliver sends a message to all its recipients, each checked right before, and makes the answer to its caller. settled are the
// marks of its recipients when all of them have it.
func (b *backend) deliver(ctx context.Context, s *session, m *message) (answer *smtp.SMTPError, settled []mark) {
	d := &delivery{b: b, s: s, m: m}
	if r := d.read(); r != nil {
		return wireError(r), nil
	}
	if d.q.Linked() {
		for _, to := range s.to {
			d.one(ctx, to)
		}
	} else {
		d.joint(ctx)
	}
	b.o.Log.Info("message", "credential", s.key.Number, "topic", d.q.Topic.Name, "mailing", d.q.Mailing, "recipients", len(s.to), "accepted", len(d.accepted),
		"repeated", len(d.repeated), "withheld", d.withheld, "observed", d.observed, "failed", len(d.failed))
	return d.answer()
}

// read reads the header and what the message asks.
func (d *delivery) read() *outgoing.Refusal {
	key := d.b.o.Judge.Current(d.s.key.Number)
	if key == nil {
		return outgoing.Fault(errRevoked.Code, errRevoked.EnhancedCode, "%s", errRevoked.Message)
	}
	var r *outgoing.Refusal
	if d.head, d.body, r = outgoing.ParseHeader(d.m.head); r != nil {
		return r
	}
	if len(d.head.Values("Received")) > maxHops {
		return outgoing.Fault(554, [3]int{5, 4, 6}, "the message has passed more than %d servers: it goes round in a loop", maxHops)
	}
	if d.q, r = d.b.o.Judge.Ask(key, d.head, ""); r != nil {
		return r
	}
	d.id = strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(d.m.digest[:16]))
	return nil
}

// one sends to one recipient a copy of their own.
func (d *delivery) one(ctx context.Context, to string) {
	k := markOf(d.q.Key.Number, d.m.digest, to)
	if !d.claim(k) {
		return
	}
	defer d.b.memory.release(k)
	w, err := d.b.upstream.get(ctx) // before the check: a connection may take its time
	if err != nil {
		d.fail(&errLost{err: err})
		return
	}
	start := time.Now()
	v, r := d.b.o.Judge.Check(ctx, d.q, to)
	if r != nil {
		d.b.upstream.put(w)
		d.refused(ctx, &v, r)
		return
	}
	l, err := d.letter(w, []string{to}, &v)
	if err != nil {
		d.b.upstream.put(w)
		d.fail(err)
		return
	}
	d.count(start, k, d.b.o.Judge.Observed(d.q, &v), d.b.upstream.send(ctx, w, l)[0])
}

// joint sends to all recipients in one transaction, with nothing personal on the message.
func (d *delivery) joint(ctx context.Context) {
	var marks []mark
	var to []string
	var verdicts []*ledger.Verdict
	w, err := d.b.upstream.get(ctx)
	if err != nil {
		d.fail(&errLost{err: err})
		return
	}
	start := time.Now()
	for _, x := range d.s.to {
		k := markOf(d.q.Key.Number, d.m.digest, x)
		if !d.claim(k) {
			continue
		}
		defer d.b.memory.release(k)
		v, r := d.b.o.Judge.Check(ctx, d.q, x)
		if r != nil {
			d.refused(ctx, &v, r)
			continue
		}
		marks, to, verdicts = append(marks, k), append(to, x), append(verdicts, &v)
	}
	if len(to) == 0 {
		d.b.upstream.put(w)
		return
	}
	l, err := d.letter(w, to, verdicts...)
	if err != nil {
		d.b.upstream.put(w)
		d.fail(err)
		return
	}
	for i, r := range d.b.upstream.send(ctx, w, l) {
		d.count(start, marks[i], d.b.o.Judge.Observed(d.q, verdicts[i]), r)
	}
}

// claim reports whether the recipient of a mark is to be sent the message now.
func (d *delivery) claim(k mark) bool {
	accepted, busy := d.b.memory.claim(k)
	if accepted {
		d.repeated = append(d.repeated, k)
		d.b.observe(Event{Outcome: "repeated"})
	}
	if busy {
		d.fail(&smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 5, 0}, Message: "the same message is being sent to this recipient on another connection: try again later"})
	}
	return !accepted && !busy
}

// refused takes note of a recipient whom the last check refused.
func (d *delivery) refused(ctx context.Context, v *ledger.Verdict, r *outgoing.Refusal) {
	if !r.Denied {
		d.fail(wireError(r))
		return
	}
	d.withheld++
	d.denial = r
	d.b.o.Judge.Withheld(ctx, d.q, v)
	d.b.observe(Event{Outcome: "withheld"})
}

func (d *delivery) fail(err error) { d.failed = append(d.failed, err) }

// count takes note of what the upstream said about one recipient.
func (d *delivery) count(start time.Time, k mark, observed bool, r reply) {
	var e *smtp.SMTPError
	switch {
	case r.err == nil:
		d.b.memory.accept(k)
		d.accepted, d.last = append(d.accepted, k), r.text
		outcome := "accepted"
		if observed {
			outcome = "observed"
			d.observed++
		}
		d.b.observe(Event{Outcome: outcome, CheckToAccepted: time.Since(start)})
	case errors.As(r.err, &e) && e.Code/100 == 5:
		d.fail(r.err)
		d.b.observe(Event{Outcome: "rejected"})
	default:
		d.fail(r.err)
		d.b.observe(Event{Outcome: "deferred"})
	}
}

// letter makes the copy for recipients who may be sent it.
func (d *delivery) letter(w *wire, to []string, verdicts ...*ledger.Verdict) (*letter, error) {
	if d.m.eightBit && !w.eightBit {
		return nil, &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 3}, Message: "the message has octets above 127 and the upstream does not take them (RFC 6152): encode the text as quoted-printable or base64"}
	}
	if d.s.opts.UTF8 && !w.utf8 {
		return nil, &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 6, 7}, Message: "the upstream does not take SMTPUTF8 (RFC 6531)"}
	}
	judge, profile := d.b.o.Judge, &d.b.o.Profile
	h := judge.Rewrite(d.q, d.head, d.id, verdicts...)
	signature := ""
	if profile.Signs {
		var err error
		if signature, err = d.b.o.Signer.Sign(h, d.text); err != nil {
			var r *outgoing.Refusal
			if errors.As(err, &r) {
				return nil, wireError(r)
			}
			return nil, err
		}
	}
	from := d.s.from
	if d.b.o.VERP && profile.KeepsEnvelope && d.q.Linked() {
		if path := judge.ReturnPath(d.q, verdicts[0]); path != "" {
			from = path
		}
	}
	front := append([]byte(signature), d.received()...)
	for _, f := range profile.Adds {
		front = append(front, f.Name+": "+f.Value+"\r\n"...)
	}
	front = h.AppendTo(front)
	return &letter{from: from, to: to, opts: smtp.MailOptions{Size: int64(len(front)) + d.m.size - int64(d.body), UTF8: d.s.opts.UTF8},
		text: func(out io.Writer) error {
			if _, err := out.Write(front); err != nil {
				return err
			}
			_, err := io.Copy(out, d.text())
			return err
		}}, nil
}

// text is the message's body, octet for octet.
func (d *delivery) text() io.Reader { return d.m.body(d.body) }

// received is the trace field (RFC 5321 section 4.4), without the caller's network address.
func (d *delivery) received() string {
	with := "ESMTPA" // RFC 3848
	if d.s.secure {
		with = "ESMTPSA"
	}
	return fmt.Sprintf("Received: by %s (optout gate) with %s id %s;\r\n %s\r\n", d.b.o.Hostname, with, d.id, d.b.o.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
}

// answer is the one answer to the message: the upstream's, where all agree; 451 where some have it and some do not yet, so that the
// caller's next try sends to the rest.
func (d *delivery) answer() (*smtp.SMTPError, []mark) {
	have := append(d.accepted, d.repeated...)
	total := len(d.s.to)
	if len(d.failed) == 0 {
		switch {
		case len(have) == 0:
			return wireError(d.denial), nil
		case d.withheld > 0:
			enhanced, text := ok(d.last)
			return &smtp.SMTPError{Code: 250, EnhancedCode: enhanced, Message: fmt.Sprintf("%s (left out: %d of %d, who may not be written to)", text, d.withheld, total)}, have
		}
		enhanced, text := ok(d.last)
		return &smtp.SMTPError{Code: 250, EnhancedCode: enhanced, Message: text}, have
	}
	worst := d.worst()
	if len(have) == 0 {
		return worst, nil
	}
	if len(d.accepted) == 0 && worst.Code/100 == 5 { // all others have it, and these never will
		return worst, nil
	}
	if err := d.b.memory.keep(have); err != nil {
		d.b.o.Log.Error("the gate's memory could not be written: after a restart the next try of a message may send some copies twice", "error", err)
	}
	return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 5, 1}, Message: fmt.Sprintf("%d of %d recipients have it; try again for the rest: %s", len(have), total, worst.Message)}, nil
}

// worst is the failure that decides: one that may pass, before one that will not.
func (d *delivery) worst() *smtp.SMTPError {
	var worst *smtp.SMTPError
	for _, err := range d.failed {
		e := d.reply(err)
		if worst == nil || worst.Code/100 == 5 && e.Code/100 == 4 {
			worst = e
		}
	}
	return worst
}

// reply turns a failure into what the caller is told: the upstream's own words, or 451.
func (d *delivery) reply(err error) *smtp.SMTPError {
	var e *smtp.SMTPError
	if errors.As(err, &e) && (e.Code/100 == 4 || e.Code/100 == 5) {
		_, text := plainText(e.Message)
		return &smtp.SMTPError{Code: e.Code, EnhancedCode: e.EnhancedCode, Message: text}
	}
	d.b.o.Log.Warn("the upstream was lost", "error", err)
	return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 4, 1}, Message: "the server behind the gate cannot be reached, or was lost: try again later"}
}

// ok is the upstream's answer to a message it took.
func ok(text string) (smtp.EnhancedCode, string) {
	enhanced, text := plainText(text)
	if enhanced[0] != 2 {
		enhanced = smtp.EnhancedCode{2, 0, 0}
	}
	if text == "" {
		text = "OK"
	}
	return enhanced, text
}
