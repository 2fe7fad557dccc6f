package report

import (
	"slices"

	"optout/service/link"
)

const (
	maxTokens = 20
	maxTexts  = 10
)

// original looks for tokens in what is left of the message that a report is about.
func (r *Report) original(w *walker) {
	var texts [][]byte
	if r.Kind == Complaint {
		texts = append(texts, w.feedback)
	}
	texts = append(texts, w.returned[:min(headerEnd(w.returned), maxHeader)])
	if r.Kind == Complaint {
		inner := &walker{every: true}
		inner.walk(openPart(w.returned), 1)
		texts = append(texts, inner.texts...)
	}
	for _, text := range texts {
		for _, token := range link.FindTokens(text, maxTokens) {
			if !slices.Contains(r.Tokens, token) && len(r.Tokens) < maxTokens {
				r.Tokens = append(r.Tokens, token)
			}
		}
	}
}
