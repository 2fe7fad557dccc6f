package report

import (
	"slices"
	"strings"

	"optout/service/link"
)

// Returned is the original message, or what is left of it. Nothing of it is proved.
type Returned struct {
	// MessageID is its Message-ID, with the brackets.
	MessageID string
	// From is the address in its From field; empty when there is none, or more than one.
	From string
	// Signers are the domains that signed it (d= of its DKIM-Signature fields), in lower case. The signatures are not checked.
	Signers []string
	// FeedbackID is its CFBL-Feedback-ID (RFC 9477 section 5.2), without white space.
	FeedbackID string
	// Tokens are the texts that have the form of a signed token, each once: those in its header, and for a complaint also those
	// in the report's own fields and in the message's body. They prove nothing until opened.
	Tokens []string
}

const (
	maxTokens  = 20
	maxSigners = 10
	maxTexts   = 10
)

// original reads the message that a report is about.
func (r *Report) original(w *walker) {
	raw := w.returned
	p := openPart(raw)
	head := raw[:min(headerEnd(raw), maxHeader)]
	out := &r.Returned
	if out.MessageID = strings.TrimSpace(p.header.Get("Message-Id")); len(out.MessageID) > 998 {
		out.MessageID = ""
	}
	if from := p.header["From"]; len(from) == 1 && strings.Count(from[0], "@") == 1 {
		out.From = bareAddress(from[0])
	}
	for _, s := range p.header["Dkim-Signature"] {
		for _, t := range strings.Split(s[:min(len(s), 4000)], ";") {
			if name, value, _ := strings.Cut(t, "="); strings.TrimSpace(name) == "d" && len(out.Signers) < maxSigners {
				out.Signers = append(out.Signers, strings.ToLower(strings.TrimSpace(value)))
			}
		}
	}
	if id := strings.Join(strings.Fields(p.header.Get("Cfbl-Feedback-Id")), ""); len(id) <= 998 {
		out.FeedbackID = id
	}
	var texts [][]byte
	if r.Kind == Complaint {
		texts = append(texts, w.feedback)
	}
	texts = append(texts, head)
	if r.Kind == Complaint {
		inner := &walker{every: true}
		inner.walk(p, 1)
		texts = append(texts, inner.texts...)
	}
	for _, text := range texts {
		for _, token := range link.FindTokens(text, maxTokens) {
			if !slices.Contains(out.Tokens, token) && len(out.Tokens) < maxTokens {
				out.Tokens = append(out.Tokens, token)
			}
		}
	}
}
