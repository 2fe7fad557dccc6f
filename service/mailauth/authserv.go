package mailauth

import (
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/authres"
)

// trust is what a trusted server says of DMARC for this message.
type trust string

const (
	trustNothing trust = ""
	trustPass    trust = "pass"
	trustFail    trust = "fail"
)

const maxAuthResults = 8 << 10

// believed reads the topmost Authentication-Results field, and no other: the last server to see the message wrote it, and what
// stands below may have come with the message. It counts when a trusted server wrote it and it has one result for DMARC,
// about the very domain in From.
func (c *Checker) believed(m *message, from string) trust {
	if len(c.o.AuthservIDs) == 0 {
		return trustNothing
	}
	for i := range m.fields {
		if m.fields[i].name != "authentication-results" {
			continue
		}
		text, ok := withoutText(m.fields[i].value())
		if !ok || len(text) > maxAuthResults {
			return trustNothing
		}
		id, results, err := authres.Parse(text)
		if err != nil || !slices.ContainsFunc(c.o.AuthservIDs, func(t string) bool { return strings.EqualFold(t, id) }) {
			return trustNothing
		}
		said := trustNothing
		for _, r := range results {
			d, ok := r.(*authres.DMARCResult)
			if !ok {
				continue
			}
			if said != trustNothing || domainName(d.From) != from {
				return trustNothing
			}
			said = trust(d.Value)
		}
		if said != trustPass && said != trustFail {
			return trustNothing
		}
		return said
	}
	return trustNothing
}

// withoutText takes comments out of a field, and the content of quoted strings: both may repeat what the sender chose, such as a
// return path of "; dmarc=pass", and the library splits at every semicolon. It reports false when one is not closed.
func withoutText(s string) (string, bool) {
	var b strings.Builder
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && (quoted || depth > 0):
			i++
		case c == '"' && depth == 0:
			quoted = !quoted
			b.WriteByte('"')
		case quoted:
		case c == '(':
			depth++
			b.WriteByte(' ')
		case c == ')' && depth > 0:
			depth--
		case depth == 0:
			b.WriteByte(c)
		}
	}
	return b.String(), depth == 0 && !quoted
}
