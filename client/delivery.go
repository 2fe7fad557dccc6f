package client

import (
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	optoutv1 "optout/proto/optout/v1"
)

// Time limits of the SMTP dialogue.
const (
	// serverTimeout is for one transaction (RFC 5321 section 4.5.3.2.6 asks for ten minutes after the final dot).
	serverTimeout = 10 * time.Minute
	// lastWord is how long the server may take to acknowledge a whole message once the caller has given up.
	lastWord = 10 * time.Second
)

// run is one call of Send: the connection that its messages share, and why it must not go on.
type run struct {
	mailer *Mailer
	topic  string
	// linked: the topic is one that an unsubscribe link stops, so that no message of it leaves without one.
	linked bool
	// footer goes under every message; nil: none does.
	footer *Footer
	smtp   *smtp.Client
	// stuck ends the sending for everybody who is left, with its outcome.
	stuck   error
	outcome Outcome
}

// one checks a recipient for the last time, and sends them their message. A connection that is lost before the server can have
// taken the message is dialled anew, once, and then the service is asked again.
func (x *run) one(ctx context.Context, j *job, r *Result) {
	if x.stuck == nil && ctx.Err() != nil {
		x.stuck, x.outcome = cannotAsk(ctx.Err()), NotAsked
	}
	if x.stuck != nil {
		r.Outcome, r.Err = x.outcome, x.stuck
		return
	}
	if j.letter == nil && j.err == nil {
		j.letter, j.err = compose(j.msg, x.footer, x.linked)
	}
	if j.err != nil {
		r.Outcome, r.Err = Failed, fmt.Errorf("optout client: message %d: %w", r.Message, j.err)
		return
	}
	for again := true; x.attempt(ctx, j, r) && again; again = false {
	}
}

// attempt reports whether the connection was lost with the message certainly not taken.
func (x *run) attempt(ctx context.Context, j *job, r *Result) (lost bool) {
	fail := func(o Outcome, err error) { r.Outcome, r.Err = o, err }
	if err := x.connect(ctx); err != nil {
		// Whoever cannot reach the mail server would wait for it once a recipient.
		e := &DeliveryError{Step: "connecting", err: err}
		if answer := (*textproto.Error)(nil); errors.As(err, &answer) {
			e.Code = answer.Code
		}
		x.stuck, x.outcome = e, Failed
		fail(Failed, x.stuck)
		return false
	}
	// The connection stands; from here to the server's answer nothing waits but the check and the message itself.
	d, err := x.mailer.client.CheckSend(ctx, x.topic, r.Recipient, append([]CheckOption{WithHeaders()}, x.mailer.checks...)...)
	if Reason(err) == optoutv1.ErrorReason_ERROR_REASON_INVALID_ADDRESS {
		var e *Error
		errors.As(err, &e)
		d, err = Decision{Malformed: e.Message}, nil
	}
	if err != nil {
		x.stuck, x.outcome = cannotAsk(err), NotAsked // and so for everybody after
		fail(NotAsked, x.stuck)
		return false
	}
	fail(NotAsked, nil)
	if r.decide(d); !d.Send() {
		j.refused[r.Recipient] = true
		return false
	}
	text, err := j.letter.write(d.Link, x.linked, j.refused)
	if errors.Is(err, ErrCannotAsk) {
		x.stuck, x.outcome = err, NotAsked
		fail(NotAsked, x.stuck)
		return false
	}
	if err != nil {
		fail(Failed, err)
		return false
	}
	if text, err = receipted(d.Receipt, text); err != nil {
		x.stuck, x.outcome = cannotAsk(err), NotAsked
		fail(NotAsked, x.stuck)
		return false
	}
	if s := x.mailer.signer; s != nil {
		if text, err = sign(*s, text); err != nil {
			fail(Failed, err)
			return false
		}
	}
	o, lost, err := x.transact(ctx, j.letter, r.Recipient, text)
	fail(o, err)
	return lost && ctx.Err() == nil
}

// connect makes sure of a connection without a transaction.
func (x *run) connect(ctx context.Context) error {
	if x.smtp != nil && x.smtp.UpdateDeadline(serverTimeout) == nil && x.smtp.Reset() == nil {
		return nil
	}
	x.drop()
	c, err := x.mailer.mail.DialToSMTPClientWithContext(ctx)
	if err == nil {
		x.smtp = c
	}
	return err
}

func (x *run) close() {
	if x.smtp != nil && x.smtp.UpdateDeadline(lastWord) == nil {
		x.mailer.mail.CloseWithSMTPClient(x.smtp)
	}
	x.drop()
}

// drop ends the connection without a word. It must never be QUIT while a message is half out: net/textproto would end the
// message first, and the server would take the half.
func (x *run) drop() {
	if x.smtp != nil {
		x.smtp.Close()
		x.smtp = nil
	}
}

// transact is one SMTP transaction for one recipient. Until the final dot is sent, a failure is certain; after it, only an
// answer of the server is.
func (x *run) transact(ctx context.Context, l *letter, to string, text []byte) (o Outcome, lost bool, err error) {
	c := x.smtp
	step := func(name string, err error) (Outcome, bool, error) {
		e := &DeliveryError{Step: name, err: err}
		var answer *textproto.Error
		if errors.As(err, &answer) {
			e.Code = answer.Code
		} else if ctx.Err() != nil {
			e.err = ctx.Err()
		}
		lost := e.Code == 0 || e.Code == 421 // 421: the server closes (RFC 5321 section 3.8)
		if lost {
			x.drop()
		}
		return Failed, lost, e
	}
	if err := c.UpdateDeadline(serverTimeout); err != nil {
		return step("MAIL", err)
	}
	if l.eightBit {
		if ok, _ := c.Extension("8BITMIME"); !ok {
			return Failed, false, mail.ErrServerNoUnencoded
		}
	}
	silence := context.AfterFunc(ctx, func() { c.Text.Close() }) // Text: Client.Close waits for the command that it should end
	defer silence()
	if err := c.Mail(l.from); err != nil {
		return step("MAIL", err)
	}
	if err := c.Rcpt("<" + to + ">"); err != nil {
		return step("RCPT", err)
	}
	w, err := c.Data()
	if err != nil {
		return step("DATA", err)
	}
	if _, err := w.Write(text); err != nil {
		x.drop() // without the final dot the server has taken nothing
		return step("DATA", err)
	}
	if !silence() { // ctx has ended: the dot will not reach the server
		x.drop()
		return step("DATA", ctx.Err())
	}
	answered := make(chan struct{})
	hurry := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(lastWord):
			c.Text.Close()
		case <-answered:
		}
	})
	defer hurry()
	err = w.Close()
	close(answered)
	if err == nil {
		return Sent, false, nil
	}
	o, lost, err = step("the message", err)
	var e *DeliveryError
	if errors.As(err, &e) && e.Code == 0 {
		o = Unknown
	}
	return o, false, err
}
