package client

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	netmail "net/mail"
	"strings"

	"github.com/wneessen/go-mail"

	optoutv1 "optout/proto/optout/v1"
)

// The fields that the Mailer answers for.
const (
	fieldUnsubscribe = "List-Unsubscribe"
	fieldPost        = "List-Unsubscribe-Post"
)

// letter is a message as go-mail rendered it, of which each recipient's copy is written. It is rendered once, so that all copies
// have the same body, and edited as text, because go-mail has no way to take a field away, nor to copy a message.
type letter struct {
	from     string // for MAIL FROM, in brackets
	to, cc   []*netmail.Address
	ownID    bool // the Message-ID is the caller's
	eightBit bool // the server must take 8-bit text (RFC 6152)
	fields   []field
	body     []byte
	linked   bool       // there must be a link
	footer   *Footer    // goes under the text
	personal []personal // the parts that differ between copies, in their order
}

// field is one field of the header: its name, and the whole of it as it stands on the wire.
type field struct {
	name string
	text string
}

func (f field) is(name string) bool { return strings.EqualFold(f.name, name) }

// ErrSigned: a message came signed with DKIM, and was not sent.
var ErrSigned = errors.New("it is signed with DKIM already, and the signature cannot cover the unsubscribe fields (RFC 8058 section 4): take the signer off the message and give it to NewMailer with WithDKIM")

// compose renders a message. A footer, if there is one, goes under its text; linked tells whether there will be a link.
func compose(msg *mail.Msg, footer *Footer, linked bool) (*letter, error) {
	l := &letter{to: msg.GetTo(), cc: msg.GetCc(), ownID: msg.GetMessageID() != "", eightBit: msg.Encoding() == string(mail.NoEncoding)}
	var err error
	if l.from, err = msg.GetSender(false); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if _, err := msg.WriteTo(&b); err != nil {
		return nil, err
	}
	if l.fields, l.body, err = parse(b.Bytes()); err != nil {
		return nil, err
	}
	for _, f := range l.fields {
		if f.is("DKIM-Signature") {
			return nil, ErrSigned
		}
	}
	return l, l.personalise(footer, linked)
}

// parse takes a message apart. What SMTP would make a line's end is one here too, a bare LF, so that no value of a field can hide
// another field from the Mailer.
func parse(text []byte) (fields []field, body []byte, err error) {
	var whole strings.Builder // of the last field; it may have very many lines
	end := func() {
		if len(fields) > 0 {
			fields[len(fields)-1].text = whole.String()
		}
		whole = strings.Builder{}
	}
	defer end()
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			return fields, text, nil
		}
		if bytes.ContainsAny(line, "\r\x00") {
			return nil, nil, errors.New("a field of the header has a CR or NUL within: take it out")
		}
		if line[0] == ' ' || line[0] == '\t' {
			if len(fields) == 0 {
				return nil, nil, errors.New("the header begins with a folded line")
			}
		} else {
			name, _, ok := bytes.Cut(line, []byte(":"))
			name = bytes.TrimRight(name, " \t") // RFC 5322 section 4.5: obsolete, but read
			if !ok || len(name) == 0 || bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
				return nil, nil, errors.New("a line of the header is no field: look at the header values that were set preformatted")
			}
			end()
			fields = append(fields, field{name: string(name)})
		}
		whole.Write(line)
		whole.WriteString("\r\n")
	}
	return fields, nil, nil
}

// write writes one recipient's copy: with the link's fields in place of any of their names, without Bcc, without those who are
// refused, and with a Message-ID of its own unless the caller set one. linked demands a link.
func (l *letter) write(link *optoutv1.UnsubscribeLink, linked bool, refused map[string]bool) ([]byte, error) {
	list, err := listFields(link, linked)
	if err != nil {
		return nil, err
	}
	fields, body, err := l.fill(link)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(len(body) + 4096)
	for _, f := range list {
		b.WriteString(f.text)
	}
	for _, f := range fields {
		switch {
		case f.is("Bcc"), f.is(fieldUnsubscribe), f.is(fieldPost), f.is(fieldReceipt):
		case f.is("To"):
			b.WriteString(addressField(f, l.to, refused))
		case f.is("Cc"):
			b.WriteString(addressField(f, l.cc, refused))
		case f.is("Message-ID") && !l.ownID:
			_, domain, _ := strings.Cut(strings.TrimRight(f.text, ">\r\n"), "@")
			id := rand.Text()
			if token := link.GetMessageToken(); token != "" && strings.Trim(token, "abcdefghijklmnopqrstuvwxyz234567") == "" {
				id += ".b-" + token // replies and complaints quote it, and so say whose message they are about
			}
			fmt.Fprintf(&b, "Message-ID: <%s@%s>\r\n", id, domain)
		default:
			b.WriteString(f.text)
		}
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes(), nil
}

// listFields makes fields of the link's: one List-Unsubscribe, and at most one List-Unsubscribe-Post (RFC 8058 section 3.1).
func listFields(link *optoutv1.UnsubscribeLink, linked bool) ([]field, error) {
	var list []field
	count := map[string]int{}
	for _, h := range link.GetHeaders() {
		if h.Name != fieldUnsubscribe && h.Name != fieldPost || strings.ContainsFunc(h.Value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return nil, fmt.Errorf("%w: the service gave a header field that this client does not understand: bring the client up to date", ErrCannotAsk)
		}
		count[h.Name]++
		list = append(list, field{h.Name, h.Name + ": " + fold(h.Name, h.Value) + "\r\n"})
	}
	if linked && count[fieldUnsubscribe] != 1 || count[fieldUnsubscribe] > 1 || count[fieldPost] > count[fieldUnsubscribe] {
		return nil, fmt.Errorf("%w: the service gave no unsubscribe link to put on the message", ErrCannotAsk)
	}
	return list, nil
}

// fold breaks a long field after its comma (RFC 5322 section 2.2.3); nothing within the angle brackets is touched, and
// List-Unsubscribe-Post, which must not be folded (RFC 8058 section 5), has no comma.
func fold(name, value string) string {
	if len(name)+2+len(value) <= 78 {
		return value
	}
	return strings.ReplaceAll(value, ">, <", ">,\r\n <")
}

// addressField is the field as rendered, or anew without those who are refused; empty when nobody is left, for a field of
// addresses must have one (RFC 5322 section 3.6.3).
func addressField(f field, list []*netmail.Address, refused map[string]bool) string {
	var kept []string
	for _, a := range list {
		if !refused[addrSpec(a)] {
			kept = append(kept, a.String())
		}
	}
	switch len(kept) {
	case len(list):
		return f.text
	case 0:
		return ""
	}
	return f.name + ": " + strings.Join(kept, ",\r\n ") + "\r\n"
}
