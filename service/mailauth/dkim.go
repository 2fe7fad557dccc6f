package mailauth

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
)

// Limits of DKIM. Each signature costs a look-up, a hash of the body and, for each name in h=, a walk over the header.
const (
	maxSignatures     = 5
	maxSignatureField = 8 << 10
	maxSignedNames    = 200
	// maxBreaks bounds a run of CR and LF in a body: canonicalisation holds it back and copies it again at each read, because it might be
	// the end of the body, which does not count.
	maxBreaks = 64 << 10
)

const signatureField = "dkim-signature"

// dkimFindings are what a message's signatures say.
type dkimFindings struct {
	passed []passed
	// unknown: DNS did not answer for the key of a signature that may be aligned.
	unknown bool
	// untried: there is a signature, perhaps aligned, that was not tried, so that its absence from passed says nothing.
	untried bool
	// notes are parts of [Verdict.Detail].
	notes []string
}

// passed is a signature that verified.
type passed struct {
	Signature
	// covers: it covers every From, To and Subject field.
	covers bool
}

// verifyDKIM tries the signatures of a message whose author's domain is from, or "".
func (c *Checker) verifyDKIM(ctx context.Context, n *names, m *message, from string) (f dkimFindings) {
	kept, text := m.selectSignatures(from, &f)
	if kept == 0 {
		return f
	}
	if longestBreaks(m.body) > maxBreaks {
		f.untried = true
		return f
	}
	all, err := dkim.VerifyWithOptions(io.MultiReader(strings.NewReader(text), bytes.NewReader(m.body)), &dkim.VerifyOptions{LookupTXT: n.lookupKey})
	if err != nil {
		c.o.Log.DebugContext(ctx, "DKIM signatures could not be read", "error", err)
		f.untried = true
		return f
	}
	for _, v := range all {
		domain := domainName(v.Domain)
		err, result := v.Err, "fail"
		switch {
		case err == nil && domain == "": // a name that no DNS has
		case err == nil:
			result = "pass"
			s := Signature{Domain: domain, Signed: lowered(v.HeaderKeys)}
			f.passed = append(f.passed, passed{s, m.covered(s.Signed)})
		case dkim.IsTempFail(err):
			result = "temperror"
			f.unknown = f.unknown || related(domain, from)
		case dkim.IsPermFail(err):
			result = "permerror"
		}
		if err != nil {
			c.o.Log.DebugContext(ctx, "a DKIM signature does not count", "domain", domain, "error", err)
		}
		f.notes = append(f.notes, "dkim="+result+" header.d="+domain)
	}
	return f
}

// selectSignatures returns how many signatures are worth trying, those that may be aligned first, and the header with those alone, its last empty line
// included. A header with few enough stays as it is, as a signature may cover others.
func (m *message) selectSignatures(from string, f *dkimFindings) (kept int, header string) {
	var aligned, others, left []int
	for i := range m.fields {
		if m.fields[i].name != signatureField {
			continue
		}
		s := m.fields[i].signature()
		switch {
		case s.usable && s.aligned(from):
			aligned = append(aligned, i)
		case s.usable:
			others = append(others, i)
		default:
			left = append(left, i)
			f.untried = f.untried || s.aligned(from)
		}
	}
	f.untried = f.untried || len(aligned) > maxSignatures
	try := append(aligned, others...)
	if len(try) > maxSignatures {
		try, left = try[:maxSignatures], append(left, try[maxSignatures:]...)
	}
	var b strings.Builder
	for i := range m.fields {
		if !slices.Contains(left, i) {
			b.WriteString(m.fields[i].text)
		}
	}
	b.WriteString("\r\n")
	return len(try), b.String()
}

// signatureTags are what the choice of signatures needs to know.
type signatureTags struct {
	domain string
	usable bool
}

func (s *signatureTags) aligned(from string) bool { return related(s.domain, from) }

// signature looks at the tags of a DKIM-Signature field; the library reads them properly.
func (f *field) signature() (s signatureTags) {
	s.usable = len(f.text) <= maxSignatureField
	for tag := range strings.SplitSeq(f.value()[:min(len(f.value()), maxSignatureField)], ";") {
		name, value, _ := strings.Cut(tag, "=")
		switch strings.TrimSpace(name) {
		case "d":
			s.domain = domainName(value)
		case "h":
			s.usable = s.usable && strings.Count(value, ":") < maxSignedNames
		}
	}
	return s
}

// covered tells whether names in h= cover every From, To and Subject field, and those that are absent are not to be added: for
// each the name stands in h= at least once, and at least as often as the field in the message. A signature covers fields from the bottom
// (RFC 6376 section 5.4.2), while readers show the topmost.
func (m *message) covered(signed []string) bool {
	for _, name := range []string{"from", "to", "subject"} {
		n := 0
		for _, s := range signed {
			if s == name {
				n++
			}
		}
		if n < max(1, m.count(name)) {
			return false
		}
	}
	return true
}

// longestBreaks is the length of the longest run of CR and LF.
func longestBreaks(b []byte) (longest int) {
	n := 0
	for _, c := range b {
		if c != '\r' && c != '\n' {
			n = 0
			continue
		}
		n++
		longest = max(longest, n)
	}
	return longest
}

func lowered(names []string) []string {
	all := make([]string, len(names))
	for i, n := range names {
		all[i] = strings.ToLower(n)
	}
	return all
}
