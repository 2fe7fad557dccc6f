package link

import (
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestIssue(t *testing.T) {
	r := testRing(t)
	for name, c := range map[string]struct {
		base     Base
		value    string // with T for the token
		oneClick bool
	}{
		"https and mail": {Base{"https://mail.example.com", "unsub.example.com"}, "<https://mail.example.com/u/T>, <mailto:u-T@unsub.example.com?subject=unsubscribe>", true},
		"https only":     {Base{"https://mail.example.com/", ""}, "<https://mail.example.com/u/T>", true},
		"under a path":   {Base{"https://example.com/mail/", ""}, "<https://example.com/mail/u/T>", true},
		"a port":         {Base{"https://example.com:8443", ""}, "<https://example.com:8443/u/T>", true},
		"plaintext":      {Base{"http://127.0.0.1:7080", "unsub.example.com"}, "<http://127.0.0.1:7080/u/T>, <mailto:u-T@unsub.example.com?subject=unsubscribe>", false},
	} {
		l := r.Issue(c.base, sample)
		want := []Header{{"List-Unsubscribe", strings.ReplaceAll(c.value, "T", l.Token)}}
		sign := []string{"List-Unsubscribe"}
		if c.oneClick { // both fields, or none but the first: RFC 8058 section 3.1, byte for byte as in section 5
			want = append(want, Header{"List-Unsubscribe-Post", "List-Unsubscribe=One-Click"})
			sign = append(sign, "List-Unsubscribe-Post")
		}
		if !slices.Equal(l.Headers, want) {
			t.Errorf("%s: %v, want %v", name, l.Headers, want)
		}
		if !slices.Equal(l.DKIMSign, sign) {
			t.Errorf("%s: DKIM must sign %v, want %v", name, l.DKIMSign, sign)
		}
		if (l.Warning == "") != c.oneClick {
			t.Errorf("%s: the warning is %q", name, l.Warning)
		}
	}
}

// A link is for unsubscribing, whatever the caller's token said.
func TestIssueSetsThePurpose(t *testing.T) {
	r := testRing(t)
	other := sample
	other.Purpose = Confirm
	l := r.Issue(Base{PublicURL: "https://mail.example.com"}, other)
	got, err := r.Open(l.Token, Unsubscribe)
	want := sample
	want.KeyID = 2
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

// Whatever the token and the base, mailbox providers can read the field: two URIs in angle brackets, without a character that
// naive parsers stumble over (RFC 2369 section 2), on one line of at most 998 octets (RFC 5322 section 2.1.1), and a mailbox
// whose local part fits (RFC 5321 section 4.5.3.1.1).
func TestIssuedFieldsCanBeRead(t *testing.T) {
	r := testRing(t)
	label := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		host := strings.Join(rapid.SliceOfN(label, 1, 4).Draw(t, "host"), ".")
		base := Base{PublicURL: "https://" + host + rapid.SampledFrom([]string{"", "/", "/a", "/a/b/"}).Draw(t, "path"),
			MailDomain: strings.Join(rapid.SliceOfN(label, 1, 4).Draw(t, "mail domain"), ".")}
		tok := Token{Scope: rapid.Uint32().Draw(t, "scope"), Mailing: rapid.Uint32().Draw(t, "mailing"),
			Key: [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key"))}
		l := r.Issue(base, tok)

		value := l.Headers[0].Value
		line := l.Headers[0].Name + ": " + value
		if len(line) > 998 || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Fatalf("a line of %d octets: %q", len(line), line)
		}
		uris := strings.Split(value, ", ")
		if len(uris) != 2 || strings.Count(value, ",") != 1 || strings.Count(value, "<") != 2 || strings.Count(value, ">") != 2 {
			t.Fatalf("not two URIs: %s", value)
		}
		u, err := url.Parse(strings.Trim(uris[0], "<>"))
		if err != nil || u.Scheme != "https" || u.Host != host || u.String() != l.URL || strings.Contains(u.Path, "//") || !strings.HasSuffix(u.Path, "/u/"+l.Token) {
			t.Fatalf("URL %s: %v", l.URL, err)
		}
		m, err := url.Parse(strings.Trim(uris[1], "<>"))
		if err != nil || m.Scheme != "mailto" || m.RawQuery != "subject=unsubscribe" || m.String() != l.Mailto {
			t.Fatalf("mailto %s: %v", l.Mailto, err)
		}
		a, err := mail.ParseAddress(m.Opaque)
		if err != nil || a.Address != m.Opaque || strings.IndexByte(a.Address, '@') > 64 {
			t.Fatalf("mailbox %s: %v", m.Opaque, err)
		}
	})
}

func BenchmarkIssue(b *testing.B) {
	r := testRing(b)
	base := Base{PublicURL: "https://mail.example.com", MailDomain: "unsub.example.com"}
	b.ReportAllocs()
	for b.Loop() {
		r.Issue(base, sample)
	}
}
