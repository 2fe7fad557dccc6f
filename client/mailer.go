package client

import (
	"context"
	"errors"
	"fmt"
	netmail "net/mail"
	"slices"
	"strings"

	"github.com/wneessen/go-mail"

	optoutv1 "optout/proto/optout/v1"
)

// Mailer sends mail through go-mail, and asks before each message leaves. It has no way to send without asking. It may be used
// by many goroutines at once; each call of Send has a connection of its own.
type Mailer struct {
	client *Client
	mail   *mail.Client
	checks []CheckOption
	signer *mail.DKIMSigner
	footer string // its language; "" without one
	err    error

	signedBehind bool // the server signs
	dkimDemanded bool
}

// MailerOption changes how a Mailer asks or sends. Every CheckOption is one and applies to every check: WithMailing,
// WithLinkScope, InAnswerTo.
type MailerOption interface{ apply(*Mailer) }

func (o CheckOption) apply(m *Mailer) { m.checks = append(m.checks, o) }

// NewMailer makes a mailer of a client and a configured go-mail client: host, port, TLS, authentication and time limit of the
// connection are go-mail's. Two of go-mail's options the Mailer cannot honour, and Send refuses to go on with them:
// WithAlwaysDKIMSign (use WithDKIM) and WithDSN (bounces come to the envelope's sender without it).
//
// The Mailer signs with DKIM only when it has WithDKIM. Where the mail server signs, its list of fields must have the DKIMHeaders;
// WithDKIMByServer has the Mailer look at the list, WithDKIMDemanded makes one of the two a condition of sending.
//
// A Mailer costs nothing to make. What holds for one mail only, such as InAnswerTo, goes to a Mailer made for it.
func NewMailer(c *Client, m *mail.Client, options ...MailerOption) *Mailer {
	x := &Mailer{client: c, mail: m}
	for _, o := range options {
		o.apply(x)
	}
	return x
}

// Send sends messages of a topic to all their recipients (To, Cc and Bcc) that may be written to. It checks all of them first,
// then each once more right before its message leaves, on a connection that stands already. For `required` topics there is the
// second check only, since each SEND that passes a no is an entry of the ledger and must stand for one mail.
//
// Each recipient gets a message, and in it a link, of their own:
//
//   - The envelope names them alone.
//   - To and Cc show whom the caller put there, but for those known to be refused: nobody shall answer to them either, or think
//     that they got the mail. Bcc never shows.
//   - List-Unsubscribe and List-Unsubscribe-Post are there once each, as the service gave them (RFC 8058 section 3.1), whatever
//     the caller or a middleware had set. On topics of class `required`, which no link stops, they are not there at all.
//   - Message-ID is the caller's, or else one of the recipient's own.
//
// The caller's messages are rendered once and not changed, but for what go-mail itself adds to a message that it renders: Date,
// Message-ID, MIME-Version and User-Agent, where missing. Make a new message for each mailing. A message that is signed with
// DKIM already is refused with ErrSigned, for a signature made before the list fields cannot cover them: see WithDKIM.
//
// The messages of a call share one connection, which is dialled anew if it is lost. No message is repeated that the server may
// have taken. When ctx ends, no further message leaves; one whose last octet is out has ten seconds left to be acknowledged.
//
// Send returns a result for every recipient, and the error that ended the sending, or else the first one; a refusal is none.
// ErrPostalAddress: nothing was sent. ErrCannotAsk: nothing was sent after it was asked in vain. *DeliveryError: at Step
// "connecting" nothing was sent after it, otherwise it is about one message. Any other is what is wrong with a message.
func (m *Mailer) Send(ctx context.Context, topic string, messages ...*mail.Msg) (Report, error) {
	report, jobs, err := recipients(messages)
	if err == nil {
		err = m.fit()
	}
	if err != nil {
		return report.fail(err)
	}
	run, err := m.prepare(ctx, topic)
	if err != nil {
		return report.fail(err)
	}
	if run.linked {
		if err := m.firstLook(ctx, topic, report, jobs); err != nil {
			return report.fail(err)
		}
	}
	defer run.close()
	var first error
	for i := range report {
		r := &report[i]
		if r.Outcome == Refused || r.Outcome == Malformed {
			continue
		}
		run.one(ctx, &jobs[r.Message], r)
		if first == nil {
			first = r.Err
		}
		if i+1 < len(report) && report[i+1].Message != r.Message {
			jobs[r.Message].letter = nil // recipients stand in order of their messages
		}
	}
	if run.stuck != nil {
		return report, run.stuck
	}
	return report, first
}

// prepare makes sure that mail of a topic may be sent at all, and makes the run that sends it.
func (m *Mailer) prepare(ctx context.Context, topic string) (run, error) {
	x := run{mailer: m, topic: topic}
	class, sender, err := m.mayCarry(ctx, topic)
	if err != nil {
		return x, err
	}
	x.linked = class != optoutv1.TopicClass_TOPIC_CLASS_REQUIRED
	if x.linked && m.dkimDemanded && m.signer == nil && !m.signedBehind {
		return x, ErrUnsigned
	}
	if m.footer != "" {
		f := footerOf(m.footer, sender)
		x.footer = &f
	}
	return x, nil
}

// job is one message of a call.
type job struct {
	msg *mail.Msg
	// refused are those of its recipients, by Result.Recipient, who are known to be refused.
	refused map[string]bool
	// letter is the message as rendered, once it was needed; err tells why it could not be.
	letter *letter
	err    error
}

// recipients lists the recipients of all messages, each once a message.
func recipients(messages []*mail.Msg) (Report, []job, error) {
	var report Report
	var err error
	jobs := make([]job, len(messages))
	for n, msg := range messages {
		jobs[n] = job{msg: msg, refused: map[string]bool{}}
		if msg == nil {
			err = errors.Join(err, fmt.Errorf("optout client: message %d is nil", n))
			continue
		}
		seen := map[string]bool{}
		for _, list := range [][]*netmail.Address{msg.GetTo(), msg.GetCc(), msg.GetBcc()} {
			for _, a := range list {
				if s := addrSpec(a); !seen[s] {
					seen[s] = true
					report = append(report, Result{Message: n, Recipient: s})
				}
			}
		}
		if len(seen) == 0 {
			err = errors.Join(err, fmt.Errorf("optout client: message %d has no recipients: set To, Cc or Bcc", n))
		}
	}
	return report, jobs, err
}

// addrSpec is the address without name and brackets. net/mail takes the quotes off a local part; here they are put back on.
func addrSpec(a *netmail.Address) string {
	s := (&netmail.Address{Address: a.Address}).String()
	return strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">")
}

// mayCarry tells the topic's class and, where they are needed, the sender's settings, and refuses commercial mail of a sender
// without a postal address. A class that this client does not know is taken for commercial.
func (m *Mailer) mayCarry(ctx context.Context, topic string) (optoutv1.TopicClass, *optoutv1.Sender, error) {
	t, err := m.client.Topic(ctx, topic)
	if err != nil {
		return 0, nil, cannotAsk(err)
	}
	commercial := t.Class != optoutv1.TopicClass_TOPIC_CLASS_TRANSACTIONAL && t.Class != optoutv1.TopicClass_TOPIC_CLASS_REQUIRED
	if !commercial && m.footer == "" {
		return t.Class, nil, nil
	}
	s, err := m.client.Sender(ctx)
	if err != nil {
		return 0, nil, cannotAsk(err)
	}
	if commercial && strings.TrimSpace(s.GetPostalAddress()) == "" {
		return 0, nil, ErrPostalAddress
	}
	return t.Class, s, nil
}

// firstLook checks everybody, without asking for links: nothing is connected, let alone sent, when nobody may be written to, and
// To and Cc can leave out the refused from the first message on.
func (m *Mailer) firstLook(ctx context.Context, topic string, report Report, jobs []job) error {
	addresses := make([]string, len(report))
	for i := range report {
		addresses[i] = report[i].Recipient
	}
	decisions, err := m.lookAhead(ctx, topic, addresses)
	if err != nil {
		return cannotAsk(err)
	}
	for i := range report {
		r := &report[i]
		if r.decide(decisions[i]); !decisions[i].Send() {
			jobs[r.Message].refused[r.Recipient] = true
		}
	}
	return nil
}

// lookAhead checks addresses ahead: nothing leaves after this check, so it gives neither link nor receipt.
func (m *Mailer) lookAhead(ctx context.Context, topic string, addresses []string) ([]Decision, error) {
	return m.client.BatchCheckSend(ctx, topic, addresses, append(slices.Clip(m.checks), withoutReceipt)...)
}
