// Package report reads what mail systems report about mail: that it could not be delivered (RFC 3464, RFC 6533, and what older
// and odder servers write), that its recipient complained (RFC 5965), or that a program answered by itself (RFC 3834). It is a pure
// function of a message, it knows nothing of the service, and whom to believe is not its business.
//
// Messages come from anybody, so everything is bounded: octets, header, parts, depth. Precision goes before recall: what is not
// clearly a report is none.
package report

import (
	"slices"
	"strings"
)

// Kind is what a message is.
type Kind uint8

// Kinds. The zero value is everything else: mail of people, and what cannot be told.
const (
	Other Kind = iota
	// Bounce: a report about delivery, of failure or of anything else; see Recipients.
	Bounce
	// Complaint: a feedback report; see Feedback.
	Complaint
	// Automatic: an answer of a program, such as an out-of-office notice (RFC 3834), or a disposition notification (RFC 8098).
	Automatic
)

// Class is what a failure means for the address.
type Class uint8

// Classes. The zero value bears on nothing.
const (
	None Class = iota
	// Hard: the mailbox or its domain does not exist.
	Hard
	// Soft: not for now.
	Soft
	// Blocked: the message or its sender was refused, which says nothing of the address.
	Blocked
)

// String names the class.
func (c Class) String() string {
	return [...]string{"none", "hard", "soft", "blocked"}[c&3]
}

// Recipient is what a report says of one recipient.
type Recipient struct {
	// Final and Original are the addresses that it names (RFC 3464 sections 2.3.1 and 2.3.2); empty when it does not. A final
	// address may have been transformed on the way.
	Final, Original string
	// Action is failed, delayed, delivered, relayed or expanded, in lower case.
	Action string
	// Status is the enhanced status code (RFC 3463), such as 5.1.1; empty when there is none.
	Status string
	// Diagnostic is what the server said, in one line.
	Diagnostic string
	Class      Class
}

// Address is the address that the mail went to, as well as it is known.
func (r *Recipient) Address() string {
	if r.Original != "" {
		return r.Original
	}
	return r.Final
}

// Report is a message as read.
type Report struct {
	Kind Kind
	// Standard: it is in the standard's format, not guessed from words.
	Standard bool
	// Recipients are those of a bounce, one for each that it names.
	Recipients []Recipient
	// Feedback is what a complaint says; nil for every other kind.
	Feedback *Feedback
	// Tokens are the texts that have the form of a signed token, each once, at most 20: those in the header of the message that it is
	// about, or what is left of that, and for a complaint also those in the report's own fields and in the message's body. They
	// prove nothing until opened.
	Tokens []string
}

// Limits of what is read.
const (
	// MaxMessage is how many octets of a message are looked at.
	MaxMessage = 1 << 20
	maxDepth   = 8
	maxParts   = 100
	maxHeader  = 256 << 10
	// maxRecipients is how many recipients one report may name.
	maxRecipients = 1000
	maxText       = 256 << 10
	maxWordy      = 64 << 10
)

// Parse reads a message, of which at most MaxMessage octets are looked at. It never fails: what cannot be read is Other.
func Parse(raw []byte) *Report {
	raw = raw[:min(len(raw), MaxMessage)]
	r := &Report{}
	root := openPart(raw)
	// Some gateways put a report into a message of their own, which bears the report's type.
	w := &walker{wrapped: root.media != "multipart/report" && root.params["report-type"] == "delivery-status"}
	w.walk(root, 0)
	switch {
	case w.feedback != nil && (root.media == "multipart/report" || w.unwrapped): // a person may pass one on in parts
		r.complaint(w)
	case w.status != nil && (root.media == "multipart/report" || w.unwrapped || robotic(root)): // as above
		r.delivery(w)
		if r.Kind == Bounce && len(r.Recipients) == 0 { // the form without the content: some tell the rest in words only
			r.Standard = false
			r.wordy(root, w)
			r.Kind = Bounce
		}
	case root.media == "multipart/report" && root.params["report-type"] == "disposition-notification", w.disposition:
		r.Kind = Automatic
	case r.forwarded(root, w):
	default:
		r.wordy(root, w)
	}
	r.original(w)
	return r
}

// delivery reads a delivery status notification: fields about the message first, then a group for each recipient.
func (r *Report) delivery(w *walker) {
	r.Kind, r.Standard = Bounce, true
	var spoken []Recipient // what the text for people says, read when it is needed
	told := func(addr string) string {
		if spoken == nil {
			spoken = append(recipientsIn(w.readable(), "failed", nil), Recipient{})
		}
		for _, x := range spoken {
			if addr != "" && strings.EqualFold(x.Final, addr) {
				return x.Diagnostic
			}
		}
		return ""
	}
	var x Recipient
	comment := ""
	add := func() {
		if x.Final == "" && x.Original == "" {
			return
		}
		if x.Action == "" && strings.HasPrefix(x.Status, "5.") {
			x.Action = "failed"
		}
		words := strings.TrimSpace(x.Diagnostic + " " + comment)
		if words == "" && general(x.Status) { // the reason is in the text alone
			if words = told(x.Final); words == "" {
				words = told(x.Original)
			}
		}
		x.Class = classify(x.Action, x.Status, words)
		if !slices.Contains(r.Recipients, x) && len(r.Recipients) < maxRecipients {
			r.Recipients = append(r.Recipients, x)
		}
		x, comment = Recipient{}, ""
	}
	// Some part a recipient's fields by an empty line, and some leave out the one between recipients.
	whole := func() bool { return (x.Final != "" || x.Original != "") && (x.Action != "" || x.Status != "") }
	for _, g := range groups(w.status) {
		for _, f := range g {
			switch f.name {
			case "final-recipient":
				if whole() && x.Final != "" {
					add()
				}
				x.Final = typedAddress(f.value)
			case "original-recipient":
				if whole() && x.Original != "" {
					add()
				}
				x.Original = typedAddress(f.value)
			case "action":
				x.Action = action(f.value)
			case "status":
				if x.Status = status(f.value); x.Status == "" && x.Diagnostic == "" {
					x.Diagnostic = oneLine(f.value) // some write the server's words here
				} else if _, c, ok := strings.Cut(f.value, "("); ok {
					comment = oneLine(c)
				}
			case "diagnostic-code":
				kind, words, ok := strings.Cut(f.value, ";")
				if !ok {
					words = f.value
				} else if slices.Contains(notices, strings.ToLower(strings.TrimSpace(kind))) {
					r.Kind, r.Standard, r.Recipients = Automatic, false, nil
					return
				}
				x.Diagnostic = oneLine(words)
			}
		}
		if whole() {
			add()
		}
	}
	add()
}
