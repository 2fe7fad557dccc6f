package client

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/wneessen/go-mail"
)

// DKIMHeaders are the fields that a DKIM signature must cover besides the usual ones, for one-click to count (RFC 8058 section
// 4). Signers' default lists leave them out: go-mail's has neither, RFC 6376 section 5.4.1 has no List-Unsubscribe-Post. Add them
// to the list of whatever signs after the Mailer, such as OpenDKIM or Rspamd; WithDKIM does it by itself.
func DKIMHeaders() []string { return []string{fieldUnsubscribe, fieldPost} }

// WithDKIM signs every message as it leaves, with everything on it. The signature covers what the signer was told to cover and
// DKIMHeaders. The signer is copied, not changed.
func WithDKIM(signer *mail.DKIMSigner) MailerOption { return dkimOption{signer} }

type dkimOption struct{ signer *mail.DKIMSigner }

func (o dkimOption) apply(m *Mailer) {
	if o.signer == nil {
		m.err = errors.Join(m.err, errors.New("optout client: WithDKIM: the signer is nil"))
		return
	}
	s := *o.signer
	// go-mail does not show which fields a signer covers; its signature does.
	trial, err := s.Sign([]byte("From: <nobody@example.com>\r\n"), nil)
	if err != nil {
		m.err = errors.Join(m.err, fmt.Errorf("optout client: WithDKIM: %w", err))
		return
	}
	names := signedFields(trial)
	names = append(names, notAmong(names)...)
	s.SignHeaders(names...)
	m.signer = &s
}

// notAmong are the DKIMHeaders that a list of names lacks.
func notAmong(names []string) (missing []string) {
	for _, h := range DKIMHeaders() {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(strings.TrimSpace(n), h) }) {
			missing = append(missing, h)
		}
	}
	return missing
}

// WithDKIMByServer says that the mail server signs what it is given, and which fields its signatures cover: the list in its
// configuration, such as OpenDKIM's OversignHeaders and SignHeaders or Rspamd's sign_headers. A list without the DKIMHeaders makes
// every Send fail with an *UncoveredError: receivers would not count the one-click fields (RFC 8058 section 4).
func WithDKIMByServer(covered ...string) MailerOption { return dkimByServer(covered) }

type dkimByServer []string

func (o dkimByServer) apply(m *Mailer) {
	m.signedBehind = true
	if missing := notAmong(o); len(missing) > 0 {
		m.err = errors.Join(m.err, &UncoveredError{Missing: missing})
	}
}

// UncoveredError: the mail server's signatures would not cover fields that they must.
type UncoveredError struct {
	// Missing are the names to add to what the server signs.
	Missing []string
}

// Error names the fields.
func (e *UncoveredError) Error() string {
	return "optout client: WithDKIMByServer: the server's signatures do not cover " + strings.Join(e.Missing, " and ") + ": add them to the list of fields that it signs"
}

// WithDKIMDemanded refuses to send mail with an unsubscribe link, with ErrUnsigned, unless the Mailer has WithDKIM or
// WithDKIMByServer too. Without it a Mailer sends unsigned, as it must where a server signs of which the Mailer knows nothing.
func WithDKIMDemanded() MailerOption { return dkimDemanded{} }

type dkimDemanded struct{}

func (dkimDemanded) apply(m *Mailer) { m.dkimDemanded = true }

// ErrUnsigned: nobody signs the mail, and the Mailer has WithDKIMDemanded. Nothing was sent.
var ErrUnsigned = errors.New("optout client: nobody signs this mail with DKIM, so its one-click fields would not count (RFC 8058 section 4): give NewMailer WithDKIM, or WithDKIMByServer")

// signedFields reads the h= tag of a DKIM-Signature field (RFC 6376 section 3.5).
func signedFields(signature string) []string {
	plain := strings.NewReplacer("\r\n", "", " ", "", "\t", "").Replace(signature)
	for tag := range strings.SplitSeq(plain, ";") {
		if list, ok := strings.CutPrefix(tag, "h="); ok {
			return strings.Split(list, ":")
		}
	}
	return nil
}

// sign puts a signature before a message. s is a copy, since signing writes to the signer.
func sign(s mail.DKIMSigner, text []byte) ([]byte, error) {
	head, body, _ := strings.Cut(string(text), "\r\n\r\n")
	signature, err := s.Sign([]byte(head+"\r\n"), []byte(body))
	if err != nil {
		return nil, fmt.Errorf("optout client: DKIM: %w", err)
	}
	return append([]byte(refold(signature)), text...), nil
}

// refold moves the line breaks of a signature. go-mail 0.8.1 breaks a long h= tag within a field's name, where no white space may
// be (RFC 6376 section 3.5) and where verifiers read another name than was signed; two more fields make the tag that long. Breaks
// are put between tags, where a space was signed, and into b=, which is not signed. A signature that go-mail did not break is of
// "simple" canonicalisation, which allows no other breaks.
func refold(signature string) string {
	if !strings.Contains(signature, "\r\n ") {
		return signature
	}
	plain := strings.ReplaceAll(signature, "\r\n ", "")
	tags, b, _ := strings.Cut(strings.TrimSuffix(plain, "\r\n"), "; b=")
	out := strings.ReplaceAll(tags, "; ", ";\r\n ") + ";\r\n b="
	for len(b) > 70 {
		out, b = out+b[:70]+"\r\n  ", b[70:]
	}
	return out + b + "\r\n"
}

// fit refuses what would otherwise be ignored in silence. go-mail applies two options of its client only in its own sending
// methods, which cannot ask first, and tells of neither; so they are looked for where it keeps them.
func (m *Mailer) fit() error {
	if m.client == nil || m.mail == nil {
		return errors.New("optout client: NewMailer needs a client and a go-mail client")
	}
	kept := reflect.ValueOf(m.mail).Elem()
	if f := kept.FieldByName("dkim"); f.IsValid() && !f.IsZero() {
		return errors.New("optout client: the go-mail client was told to sign with DKIM (WithAlwaysDKIMSign), but its signature would not cover the unsubscribe fields: give the signer to NewMailer with WithDKIM")
	}
	if f := kept.FieldByName("requestDSN"); f.IsValid() && !f.IsZero() {
		return errors.New("optout client: the go-mail client was told to ask for delivery notifications (WithDSN), which the Mailer does not do: take the option away")
	}
	return m.err
}
