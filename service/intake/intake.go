// Package intake says what mail means that comes in: which addresses there are, and what a message to one of them records on the
// ledger. They are signed addresses: u-<token>@<mail domain>, the address in the List-Unsubscribe field, and
// b-<token>@<mail domain>, the return path that the SMTP gate gives each message (VERP). The envelope recipient decides and nothing else does: mail programs send any subject or none,
// any body, and Apple's mark themselves as automatic replies (RFC 3834's rule against acting on those protects addresses that
// people and vacation responders know; nobody but the mailed person's programs ever saw this one). At a return path only reports
// of failure count, and only for the one whose message it was: whatever else comes there is taken and forgotten.
package intake

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/textproto"
	"strings"

	"optout/service/ledger"
	"optout/service/link"
	"optout/service/mailin"
	"optout/service/report"
)

// Options are what the intake needs.
type Options struct {
	Ledger *ledger.Ledger
	// Ring is the current ring of link keys.
	Ring func() *link.Ring
	// Domains are the mail domains in force.
	Domains func() []string
	Log     *slog.Logger
}

// Intake is the mail brain behind the servers; safe for concurrent use.
type Intake struct{ o Options }

// New makes the intake.
func New(o Options) *Intake { return &Intake{o} }

// bouncePrefix begins the local part of a return path.
const bouncePrefix = "b-"

// Open reads the token out of an address of ours: the Box is a link.Token. Every other address is mailin.ErrNoSuchAddress.
func (in *Intake) Open(_ context.Context, _ *mailin.Envelope, rcpt string) (mailin.Box, error) {
	at := strings.LastIndexByte(rcpt, '@')
	if at < 0 {
		return nil, mailin.ErrNoSuchAddress
	}
	local, domain := rcpt[:at], strings.TrimSuffix(rcpt[at+1:], ".")
	ours := false
	for _, d := range in.o.Domains() {
		ours = ours || strings.EqualFold(d, domain)
	}
	if !ours {
		return nil, mailin.ErrNoSuchAddress
	}
	purpose := link.Unsubscribe
	if len(local) > len(bouncePrefix) && strings.EqualFold(local[:len(bouncePrefix)], bouncePrefix) {
		purpose = link.Bounce
	} else if len(local) < len(link.MailPrefix) || !strings.EqualFold(local[:len(link.MailPrefix)], link.MailPrefix) {
		return nil, mailin.ErrNoSuchAddress
	}
	t, err := in.o.Ring().Open(local[2:], purpose)
	if err != nil {
		return nil, mailin.ErrNoSuchAddress
	}
	if _, _, _, known := in.o.Ledger.Registry().Scope(t.Scope); !known {
		return nil, mailin.ErrNoSuchAddress
	}
	return t, nil
}

// Take records what a message says for each box, of which only the Message-ID is kept as evidence, and returns when every
// opt-out is durable and in force. An error asks the sender to try again, which is harmless.
func (in *Intake) Take(ctx context.Context, _ *mailin.Envelope, boxes []mailin.Box, m *mailin.Message) []error {
	results := make([]error, len(boxes))
	evidence := evidenceOf(m.Raw)
	for i, box := range boxes {
		results[i] = in.record(ctx, box.(link.Token), evidence, m.Raw)
		if results[i] != nil {
			in.o.Log.Error("mail could not be recorded; its sender will try again", "error", results[i])
		}
	}
	return results
}

func (in *Intake) record(ctx context.Context, t link.Token, evidence map[string]string, text []byte) error {
	generation, ok := in.o.Ledger.Registry().LinkGeneration(t.KeyID)
	if !ok {
		return mailin.ErrBusy
	}
	by := ledger.By{Channel: ledger.ByMailto, Mailing: t.Mailing, Evidence: evidence}
	if t.Purpose == link.Bounce {
		return in.bounce(ctx, by, t, generation, text)
	}
	_, err := in.o.Ledger.Press(ctx, by, t.Scope, generation, t.Key)
	return err
}

// bounce records what a report at a return path says of the one whose message it was. What is no report of failure, or of a
// failure that says nothing of the address, changes nothing: to refuse it would only make another bounce.
func (in *Intake) bounce(ctx context.Context, by ledger.By, t link.Token, generation uint16, text []byte) error {
	r := report.Parse(text)
	if r.Kind != report.Bounce {
		return nil
	}
	var worst *report.Recipient
	for i := range r.Recipients {
		x := &r.Recipients[i]
		if x.Class == report.Hard || x.Class == report.Soft && (worst == nil || worst.Class != report.Hard) {
			worst = x
		}
	}
	if worst == nil {
		return nil
	}
	failure := ledger.SoftFailure
	if worst.Class == report.Hard {
		failure = ledger.HardFailure
	}
	detail := map[string]string{}
	if worst.Status != "" {
		detail["status"] = worst.Status
	}
	by.Evidence = map[string]string{"message_id": by.Evidence["message_id"], "auto_submitted": by.Evidence["auto_submitted"], "diagnostic": short(worst.Diagnostic)}
	_, err := in.o.Ledger.Bounce(ctx, by, t.Scope, generation, t.Key, failure, detail)
	return err
}

// evidenceOf keeps what identifies the message and whether it called itself automatic; nothing of what a person wrote.
func evidenceOf(text []byte) map[string]string {
	const maxHeader = 64 << 10
	head, _, _ := bytes.Cut(text, []byte("\r\n\r\n"))
	if len(head) > maxHeader {
		return map[string]string{}
	}
	h, err := textproto.NewReader(bufio.NewReader(io.MultiReader(bytes.NewReader(head), strings.NewReader("\r\n\r\n")))).ReadMIMEHeader()
	if err != nil && len(h) == 0 {
		return map[string]string{}
	}
	return map[string]string{"message_id": short(h.Get("Message-Id")), "auto_submitted": short(h.Get("Auto-Submitted"))}
}

func short(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f {
			return -1
		}
		return c
	}, s)
	return s[:min(len(s), 250)]
}
