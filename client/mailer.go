package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	netmail "net/mail"
	"net/textproto"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	optoutv1 "optout/proto/optout/v1"
)

// Mailer sends mail through go-mail, and asks before each message leaves. It has no way to send without asking. A Mailer is
// for one goroutine at a time.
type Mailer struct {
	client  *Client
	mail    *mail.Client
	options []CheckOption
	// own are the messages of a call whose caller set the Message-ID.
	own map[*mail.Msg]bool
}

// NewMailer makes a mailer of a client and a configured go-mail client. Options apply to every check, such as WithMailing.
func NewMailer(c *Client, m *mail.Client, options ...CheckOption) *Mailer {
	return &Mailer{client: c, mail: m, options: options}
}

// Outcome says what became of one recipient.
type Outcome int

// Outcomes. The zero value means that nothing was sent.
const (
	// NotAsked: optout could not be asked, so nothing was sent.
	NotAsked Outcome = iota
	// Sent: the server took the message.
	Sent
	// Refused: the person said stop, or another reason denies; see Decision.
	Refused
	// Malformed: it is no address that can be checked; see Decision.
	Malformed
	// Failed: the server refused the message for certain; see Err. It may be sent again.
	Failed
	// Unknown: the connection ended while the server had the whole message. It may have taken it: sending again may double it.
	Unknown
)

// String names the outcome.
func (o Outcome) String() string {
	return [...]string{"not asked", "sent", "refused", "malformed", "failed", "unknown"}[o]
}

// Result is what became of one recipient of one message.
type Result struct {
	// Message is the message's index in the call.
	Message int
	// Recipient is the address as the caller gave it.
	Recipient string
	Outcome   Outcome
	// Decision is the last verdict.
	Decision Decision
	// Err tells why nothing was sent, for Failed, Unknown and NotAsked.
	Err error
}

// Report is the results of a call, one for every recipient of every message.
type Report []Result

// Count tells how many recipients had an outcome.
func (r Report) Count(o Outcome) (n int) {
	for _, x := range r {
		if x.Outcome == o {
			n++
		}
	}
	return n
}

// ErrPostalAddress: commercial mail needs the sender's valid physical postal address (15 USC 7704(a)(5)(A)(iii)).
var ErrPostalAddress = errors.New("the sender has no postal address, which commercial mail must show: set it with \"optout sender update --postal-address\"")

// Send sends messages of a topic to all their recipients (To, Cc and Bcc) that may be written to. It checks all of them first,
// then each once more right before its message leaves. Each recipient gets a message, and in it a link, of their own: the
// envelope names them alone, the fields To and Cc stay as they are but for those who are refused, and Bcc never shows. The
// fields List-Unsubscribe and List-Unsubscribe-Post are set on the message, in place of any that were there. A DKIM signer
// belongs on the message (Msg.SetDKIM) and must cover both: see DKIMHeaders.
//
// It returns a result for every recipient, and the first error besides refusals: ErrCannotAsk, ErrPostalAddress, or the
// server's. With ErrPostalAddress nothing was sent; with ErrCannotAsk nothing after it was asked in vain.
func (m *Mailer) Send(ctx context.Context, topic string, messages ...*mail.Msg) (Report, error) {
	report, err := recipients(messages)
	if err != nil {
		return report, err
	}
	m.own = map[*mail.Msg]bool{}
	for _, msg := range messages {
		m.own[msg] = msg.GetMessageID() != ""
	}
	if err := m.mayCommercial(ctx, topic); err != nil {
		return report.fail(err), err
	}
	addresses := make([]string, len(report))
	for i := range report {
		addresses[i] = report[i].Recipient
	}
	// A first look without writing links: nothing is connected, let alone sent, when nobody may be written to.
	decisions, err := m.client.BatchCheckSend(ctx, topic, addresses, m.options...)
	if err != nil {
		err = cannotAsk(err)
		return report.fail(err), err
	}
	wanted := false
	for i := range report {
		report[i].decide(decisions[i])
		wanted = wanted || decisions[i].Send()
	}
	if !wanted {
		return report, nil
	}
	s := &session{mailer: m}
	defer s.close()
	var first error
	for i := range report {
		r := &report[i]
		if !r.Decision.Send() {
			continue
		}
		if errors.Is(first, ErrCannotAsk) {
			r.Outcome, r.Err = NotAsked, first // whoever cannot ask sends nothing more
			continue
		}
		s.send(ctx, topic, messages[r.Message], report, r)
		if first == nil {
			first = r.Err
		}
	}
	return report, first
}

// DKIMHeaders are the fields that a DKIM signature must cover besides the usual ones (RFC 8058 section 4). go-mail's own list
// leaves them out.
func DKIMHeaders() []string { return []string{"List-Unsubscribe", "List-Unsubscribe-Post"} }

func cannotAsk(err error) error {
	if errors.Is(err, ErrCannotAsk) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCannotAsk, err)
}

func (r Report) fail(err error) Report {
	for i := range r {
		r[i].Outcome, r[i].Err = NotAsked, err
	}
	return r
}

// recipients lists the recipients of all messages, each once a message.
func recipients(messages []*mail.Msg) (Report, error) {
	var report Report
	for n, msg := range messages {
		seen := map[string]bool{}
		for _, list := range [][]*netmail.Address{msg.GetTo(), msg.GetCc(), msg.GetBcc()} {
			for _, a := range list {
				if !seen[a.Address] {
					seen[a.Address] = true
					report = append(report, Result{Message: n, Recipient: a.Address})
				}
			}
		}
		if len(seen) == 0 {
			return report, fmt.Errorf("optout client: message %d has no recipients", n)
		}
	}
	return report, nil
}

// mayCommercial refuses commercial mail of a sender without a postal address.
func (m *Mailer) mayCommercial(ctx context.Context, topic string) error {
	t, err := m.client.Topic(ctx, topic)
	if err != nil {
		return cannotAsk(err)
	}
	if t.Class != optoutv1.TopicClass_TOPIC_CLASS_COMMERCIAL {
		return nil
	}
	s, err := m.client.Sender(ctx)
	if err != nil {
		return cannotAsk(err)
	}
	if strings.TrimSpace(s.PostalAddress) == "" {
		return ErrPostalAddress
	}
	return nil
}

// decide takes over a verdict.
func (r *Result) decide(d Decision) {
	r.Decision = d
	switch {
	case d.Malformed != "":
		r.Outcome = Malformed
	case !d.Send():
		r.Outcome = Refused
	}
}

// session is a connection to the mail server that the messages of a call share.
type session struct {
	mailer *Mailer
	smtp   *smtp.Client
}

func (s *session) close() {
	if s.smtp != nil {
		s.mailer.mail.CloseWithSMTPClient(s.smtp)
	}
}

// drop ends a connection that can no longer be used.
func (s *session) drop() {
	if s.smtp != nil {
		s.smtp.Close()
		s.smtp = nil
	}
}

// send checks one recipient for the last time, and sends them their message.
func (s *session) send(ctx context.Context, topic string, msg *mail.Msg, report Report, r *Result) {
	fail := func(o Outcome, err error) { r.Outcome, r.Err = o, err }
	if s.smtp == nil || s.smtp.UpdateDeadline(serverTimeout) != nil || s.smtp.Reset() != nil {
		s.drop()
		c, err := s.mailer.mail.DialToSMTPClientWithContext(ctx)
		if err != nil {
			fail(Failed, err)
			return
		}
		s.smtp = c
	}
	// The connection stands; from here to the server's answer nothing waits but the check and the message itself.
	d, err := s.mailer.client.CheckSend(ctx, topic, r.Recipient, append([]CheckOption{WithHeaders()}, s.mailer.options...)...)
	if err != nil {
		fail(NotAsked, cannotAsk(err))
		return
	}
	if r.decide(d); !d.Send() {
		return
	}
	from, err := msg.GetSender(false)
	if err != nil {
		fail(Failed, err)
		return
	}
	if !s.mailer.own[msg] {
		msg.SetMessageID() // each recipient's message is one of its own
	}
	text, err := render(msg, d.Link, report, r.Message)
	if err != nil {
		fail(Failed, err)
		return
	}
	if err := s.smtp.UpdateDeadline(serverTimeout); err != nil {
		s.drop()
		fail(Failed, err)
		return
	}
	fail(s.transact(from, r.Recipient, text))
}

// serverTimeout is how long one transaction with the mail server may take (RFC 5321 section 4.5.3.2.6 asks for ten minutes
// after the final dot).
const serverTimeout = 10 * time.Minute

// transact is one SMTP transaction for one recipient. Until the final dot is sent, a failure is certain; after it, only an
// answer of the server is.
func (s *session) transact(from, to string, text []byte) (Outcome, error) {
	step := func(err error) (Outcome, error) {
		var answer *textproto.Error
		if !errors.As(err, &answer) {
			s.drop()
		}
		return Failed, err
	}
	if err := s.smtp.Mail(from); err != nil {
		return step(err)
	}
	if err := s.smtp.Rcpt(to); err != nil {
		return step(err)
	}
	w, err := s.smtp.Data()
	if err != nil {
		return step(err)
	}
	if _, err := w.Write(text); err != nil {
		s.drop() // without the final dot the server has taken nothing
		return Failed, err
	}
	if err := w.Close(); err != nil {
		var answer *textproto.Error
		if errors.As(err, &answer) {
			return Failed, err
		}
		s.drop()
		return Unknown, err
	}
	return Sent, nil
}

const (
	fieldUnsubscribe = "List-Unsubscribe"
	fieldPost        = "List-Unsubscribe-Post"
)

// render writes the message for one recipient: with the link's fields, and without those who were refused.
func render(msg *mail.Msg, link *optoutv1.UnsubscribeLink, report Report, index int) ([]byte, error) {
	refused := map[string]bool{}
	for i := range report {
		if report[i].Message == index && (report[i].Outcome == Refused || report[i].Outcome == Malformed) {
			refused[report[i].Recipient] = true
		}
	}
	to, cc := msg.GetTo(), msg.GetCc()
	msg.SetAddrHeaderFromMailAddress(mail.HeaderTo, without(to, refused)...)
	msg.SetAddrHeaderFromMailAddress(mail.HeaderCc, without(cc, refused)...)
	defer func() {
		msg.SetAddrHeaderFromMailAddress(mail.HeaderTo, to...)
		msg.SetAddrHeaderFromMailAddress(mail.HeaderCc, cc...)
	}()
	want := map[string]int{}
	for _, h := range link.GetHeaders() {
		want[h.Name]++
		setField(msg, h.Name, h.Value)
	}
	var b bytes.Buffer
	if _, err := msg.WriteTo(&b); err != nil {
		return nil, err
	}
	head, _, _ := strings.Cut(b.String(), "\r\n\r\n")
	for _, name := range []string{fieldUnsubscribe, fieldPost} {
		if n := strings.Count("\r\n"+strings.ToLower(head), "\r\n"+strings.ToLower(name)+":"); n != want[name] {
			return nil, fmt.Errorf("optout client: the message has %d fields %s of its own: leave them to the Mailer (RFC 8058 section 3.1)", n-want[name], name)
		}
	}
	return b.Bytes(), nil
}

// setField sets a field in whichever of go-mail's two lists has it, so that it is there once.
func setField(msg *mail.Msg, name, value string) {
	if len(msg.GetGenHeader(mail.Header(name))) > 0 {
		msg.SetGenHeader(mail.Header(name), value)
		return
	}
	msg.SetGenHeaderPreformatted(mail.Header(name), fold(name, value))
}

// fold breaks a long field after its comma (RFC 5322 section 2.2.3); nothing within the angle brackets is touched.
func fold(name, value string) string {
	if len(name)+2+len(value) <= 78 {
		return value
	}
	return strings.ReplaceAll(value, ">, <", ">,\r\n <")
}

func without(list []*netmail.Address, gone map[string]bool) []*netmail.Address {
	var kept []*netmail.Address
	for _, a := range list {
		if !gone[a.Address] {
			kept = append(kept, a)
		}
	}
	return kept
}
