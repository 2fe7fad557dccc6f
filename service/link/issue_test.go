package link

import (
	"slices"
	"strings"
	"testing"
)

func TestIssue(t *testing.T) {
	r := testRing(t)
	for name, c := range map[string]struct {
		base     Base
		value    string // with T for the token
		oneClick bool
	}{
		"https and mail":  {Base{"https://mail.example.com", "unsub.example.com"}, "<https://mail.example.com/u/T>, <mailto:u-T@unsub.example.com?subject=unsubscribe>", true},
		"https only":      {Base{"https://mail.example.com/", ""}, "<https://mail.example.com/u/T>", true},
		"under a path":    {Base{"https://example.com/mail", ""}, "<https://example.com/mail/u/T>", true},
		"plaintext":       {Base{"http://127.0.0.1:7080", ""}, "<http://127.0.0.1:7080/u/T>", false},
		"the longest one": {Base{"https://" + strings.Repeat("a", 190), strings.Repeat("b", 200)}, "", true},
	} {
		l := r.Issue(c.base, sample)
		if tok, err := r.Open(l.Token, Unsubscribe); err != nil || tok.Scope != sample.Scope {
			t.Errorf("%s: the token does not open: %v", name, err)
		}
		if want := strings.ReplaceAll(c.value, "T", l.Token); want != "" && l.Headers[0].Value != want {
			t.Errorf("%s: %s", name, l.Headers[0].Value)
		}
		if line := l.Headers[0].Name + ": " + l.Headers[0].Value; len(line) > 998 || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("%s: a line of %d octets (RFC 5322 section 2.1.1)", name, len(line))
		}
		posts := slices.Contains(l.Headers, Header{"List-Unsubscribe-Post", "List-Unsubscribe=One-Click"})
		if posts != c.oneClick || slices.Contains(l.DKIMSign, "List-Unsubscribe-Post") != c.oneClick || (l.Warning == "") != c.oneClick {
			t.Errorf("%s: one-click %v", name, posts)
		}
	}
}
