// Package words reads what a person wrote to an address of ours that carries no token, such as unsubscribe@, stop@ or the sender's
// contact address, and says what their own words ask for. It is a pure function of a message: it knows neither ledger nor
// transport, and whom to believe is not its business.
//
// Only the person's own words count. What they quote, what their mail program or their employer adds, and our own footer, which
// says "unsubscribe" in ten languages, are taken off first. Precision goes before recall: what is not clearly a demand to stop
// is for a person to read.
//
// A message is read in four steps: its parts become text (message.go, html.go), quotations and the like go (quote.go), the rest
// becomes words (token.go), and each language's phrases say what these ask for (judge.go). Phrases are data: another language is
// another file in languages.
package words

import (
	"slices"
	"strings"
	"unicode"

	"optout/service/link"
)

// Meaning is what a person's own words ask for.
type Meaning uint8

// Meanings. The zero value leaves the message to a person.
const (
	// Other: a question, a remark, anything else: for a person to read.
	Other Meaning = iota
	// Stop: asks, shortly and unambiguously, that mail stop.
	Stop
	// Perhaps: speaks of stopping, but is long, doubtful, negated, or asks something besides: for a person to decide.
	Perhaps
	// Empty: no words of their own and nothing else either. Mail programs that press a mailto link send such.
	Empty
	// Cancel: asks, shortly and unambiguously, to end a subscription, and does not say that mail is meant. Where people write to
	// stop mail it is a demand to; elsewhere it may be about something that they pay for.
	Cancel
)

// String names the meaning.
func (m Meaning) String() string {
	return [8]string{"other", "stop", "perhaps", "empty", "cancel"}[m&7]
}

// Reading is a message as read.
type Reading struct {
	// Meaning is Other whenever Automatic is set: nobody wrote those words.
	Meaning Meaning
	// Language is the BCP 47 tag of the language whose phrase decided; "" when none did.
	Language string
	// Automatic: an answer of a program, bulk or list mail (RFC 3834). It never counts, whatever it says.
	Automatic bool
	// Why says which field made it Automatic: the field's name and keyword only.
	Why string
	// From is the bare address of the only From mailbox (RFC 5322 section 3.6.2); "" when there is none, when there are several,
	// or when it cannot be read. It proves nothing.
	From string
	// Subject is decoded, printable, in one line, and of at most 250 characters.
	Subject string
	// Own is the person's own words as printable text of at most 2,000 characters, for whoever decides.
	Own string
	// MessageID is the field as it stands; "" when it is missing or longer than a line may be (RFC 5322 section 2.1.1).
	MessageID string
	// Recipients are the bare addresses of To, Cc, Delivered-To, X-Original-To and Envelope-To, at most 100, no doubles: for which
	// address of ours a message was, when no envelope is known.
	Recipients []string
	// To are the bare addresses of the To fields alone, and only where the fields keep to the rules: what the writer's own program put
	// there, and what a signature may cover.
	To []string
	// Tokens are the texts that have the form of a signed token, no doubles, at most 20: of In-Reply-To, then References, then the
	// body. They prove nothing until opened.
	Tokens []string
}

// Limits of what is read.
const (
	// MaxMessage is how many octets of a message are looked at.
	MaxMessage = 1 << 20
	maxDepth   = 8
	maxParts   = 100
	maxHeader  = 256 << 10 // octets of one entity's header
	maxText    = 256 << 10 // octets of text, all parts together

	maxSubject    = 250  // characters
	maxOwn        = 2000 // characters
	maxRecipients = 100
	maxTokens     = 20
)

// Read reads a message, of which at most MaxMessage octets are looked at. It never fails: what cannot be read is Other.
func Read(raw []byte) *Reading {
	m := openMessage(raw[:min(len(raw), MaxMessage)])
	r := &Reading{
		From:       m.header.from(),
		Subject:    oneLine(m.header.text("Subject"), maxSubject),
		MessageID:  m.header.messageID(),
		Recipients: m.header.recipients(),
		To:         m.header.to(),
		Tokens:     m.tokens(),
	}
	plain := ownWords(m.root.render(false))
	r.Own = printable(plain, maxOwn)
	if r.Automatic, r.Why = automatic(m.header, m.root.media, r.Subject); r.Automatic {
		return r
	}
	r.Meaning, r.Language = decide(m, r, plain)
	return r
}

// decide weighs the subject and the body.
func decide(m *mail, r *Reading, plain string) (Meaning, string) {
	d := dictionaries()
	body := d.judge(plain, r.From)
	if other := ownWords(m.root.render(true)); other != plain {
		// Programs make the plain part from the HTML. Where the two do not say the same, neither is clear.
		if b := d.judge(other, r.From); b.meaning != body.meaning {
			body = doubtful(body, b)
		}
	}
	subject := d.judgeSubject(r.Subject, r.From, m.header.has("In-Reply-To") || m.header.has("References"))
	v := weigh(subject, body)
	switch {
	case m.incomplete && v.meaning == Stop:
		v.meaning = Perhaps // what was not read may have said otherwise
	case v.meaning == Empty && (m.incomplete || m.attachments):
		v.meaning = Other
	case v.meaning == neutral:
		v.meaning = Other
	case v.meaning == Stop && v.cancels:
		v.meaning = Cancel
	}
	return v.meaning, v.language
}

// tokens finds what has the form of a token: in the fields that name the message answered, then in the body.
func (m *mail) tokens() []string {
	var all []string
	for _, text := range [][]byte{[]byte(m.header.text("In-Reply-To")), []byte(m.header.text("References")), m.seen} {
		for _, t := range link.FindTokens(text, maxTokens) {
			if len(all) < maxTokens && !slices.Contains(all, t) {
				all = append(all, t)
			}
		}
	}
	return all
}

// oneLine makes a text one printable line of at most limit characters.
func oneLine(s string, limit int) string {
	return strings.Join(strings.Fields(printable(s, limit)), " ")
}

// printable takes away what does not print, above all what turns the direction of writing or hides text, and what is beyond
// limit characters. Lines stay.
func printable(s string, limit int) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case c == '\t':
			c = ' '
		case c != '\n' && !unicode.IsGraphic(c):
			continue
		}
		if limit--; limit < 0 {
			break
		}
		b.WriteRune(c)
	}
	return strings.TrimSpace(b.String())
}
