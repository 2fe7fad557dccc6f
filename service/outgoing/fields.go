package outgoing

import (
	"fmt"
	"strings"

	"optout/service/ledger"
	"optout/service/link"
)

// Removed reports whether a field of that name, as the caller wrote it, may not leave: what is for this service alone, the blind
// recipients (RFC 5322 section 3.6.3), what only the last server writes, the list fields, of which a message has one each and
// ours (RFC 2369 section 3), and signatures, which no longer hold.
func Removed(q *Question, name string) bool {
	n := strings.ToLower(name)
	switch n {
	case "bcc", "resent-bcc", "return-path", "dkim-signature", "list-unsubscribe", "list-unsubscribe-post", "list-id":
		return true
	}
	if strings.HasPrefix(n, strings.ToLower(fieldPrefix)) {
		return true
	}
	return strings.HasPrefix(n, "list-") && !q.Key.ListSoftware
}

// Field is one field of a header, as it goes on a message.
type Field struct{ Name, Value string }

// Fields are those that go on the copy of all recipients that one transaction goes to: List-Id, List-Unsubscribe and
// List-Unsubscribe-Post where there is one recipient and a link, and the receipt. Values may be folded.
func (j *Judge) Fields(q *Question, verdicts ...*ledger.Verdict) []Field {
	var out []Field
	if q.Linked() {
		out = append(out, Field{"List-Id", j.listID(q)})
		l := j.o.Ring().Issue(j.Base(q.Sender), link.Token{Scope: q.Sender.All(), Mailing: q.Mailing, Key: verdicts[0].Key})
		for _, x := range l.Headers {
			value := x.Value
			if len(x.Name)+2+len(value) > 78 {
				value = strings.ReplaceAll(value, ">, <", ">,\r\n <") // RFC 5322 section 2.2.3; never within the brackets
			}
			out = append(out, Field{x.Name, value})
		}
	}
	if j.o.Receipt != nil {
		keys := make([][16]byte, len(verdicts))
		position := verdicts[0].Position
		for i, v := range verdicts {
			keys[i], position = v.Key, min(position, v.Position)
		}
		value := j.o.Receipt(q.Sender.Number, q.Topic.Number, keys, position)
		const width = 60 // so that no line is longer than 78
		var b strings.Builder
		for len(value) > width {
			b.WriteString(value[:width] + "\r\n ")
			value = value[width:]
		}
		out = append(out, Field{fieldReceipt, b.String() + value})
	}
	return out
}

// listID names the topic as a list (RFC 2919 section 2): TOPIC.SENDER.DOMAIN, so that it stays the same for ever.
func (j *Judge) listID(q *Question) string {
	id := q.Topic.Name + "." + q.Sender.Name + "." + j.MessageDomain(q.Sender)
	if phrase := quotable(q.Sender.DisplayName); phrase != "" {
		return fmt.Sprintf("\"%s: %s\" <%s>", phrase, q.Topic.Name, id)
	}
	return "<" + id + ">"
}

// quotable is a display name that fits a quoted string as it is: ASCII, and not long; else "".
func quotable(s string) string {
	if len(s) > 40 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		return ""
	}
	return s
}

// Rewrite makes the header of the copy for the recipients of the verdicts: the caller's without what may not leave, with ours in
// front, and with Date and Message-ID where they are missing (RFC 6409 section 8). A Message-ID of ours names the only recipient by
// a token, so that replies say whose message they are about. id is for a missing Message-ID: the same for the same message, so that what is sent twice can be known. To rewrite what was rewritten changes nothing but our own fields.
func (j *Judge) Rewrite(q *Question, h *Header, id string, verdicts ...*ledger.Verdict) *Header {
	out := h.without(func(name string) bool { return Removed(q, name) })
	var add []field
	for _, f := range j.Fields(q, verdicts...) {
		add = append(add, field{f.Name, f.Name + ": " + f.Value + "\r\n"})
	}
	if h.Value("Date") == "" {
		add = append(add, field{"Date", "Date: " + j.o.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700") + "\r\n"})
	}
	if h.Value("Message-ID") == "" {
		if q.Linked() {
			id += ".b-" + string(j.o.Ring().Append(nil, j.token(q, verdicts[0], link.Message)))
		}
		add = append(add, field{"Message-ID", "Message-ID: <" + id + "@" + j.MessageDomain(q.Sender) + ">\r\n"})
	}
	out.prepend(add...)
	return out
}
