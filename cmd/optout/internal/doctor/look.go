package doctor

import (
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

const rfc8058 = "RFC 8058 section 3"

// address judges the URL itself.
func (d *doctor) address() {
	d.judge("https", d.url.Scheme == "https", Fail, "the URL is https", "the URL is plain http, so no provider offers one-click", "serve it over https", "RFC 8058 section 3.1")
	personal := personalIn(d.url)
	d.judge("url-personal", personal == "", Fail, "the URL shows no personal data", "the URL shows "+personal, "put an opaque signed token into the URL instead", "RFC 8058 section 6")
	bits, kind := strength(d.url)
	switch {
	case kind == "uuid":
		d.add("token", Warn, "the token is made of UUIDs: nothing shows that the server could tell a forged one", "sign the token with a MAC of at least 96 bits", "RFC 8058 section 3.1")
	case bits < 96:
		d.add("token", Fail, fmt.Sprintf("the token can be guessed: about %d bits", bits), "use a token with a MAC of at least 96 bits", "RFC 8058 section 3.1")
	default:
		d.add("token", Pass, fmt.Sprintf("the token has room for about %d bits", bits), "", "RFC 8058 section 3.1")
	}
}

var (
	emailForm = regexp.MustCompile(`[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+`)
	uuidForm  = regexp.MustCompile(`(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
)

// personalIn says what of a person a URL shows; "" for nothing.
func personalIn(u *url.URL) string {
	text, err := url.QueryUnescape(u.EscapedPath() + "?" + u.RawQuery)
	if err != nil {
		text = u.String()
	}
	if u.User != nil {
		return "a user name or password"
	}
	if emailForm.MatchString(text) {
		return "a mail address"
	}
	for _, piece := range pieces(u) {
		for _, e := range []*base64.Encoding{base64.RawURLEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.StdEncoding} {
			if b, err := e.DecodeString(piece); err == nil && emailForm.Match(b) {
				return "a mail address in base64"
			}
		}
	}
	return ""
}

// pieces are the parts of a URL that may be tokens.
func pieces(u *url.URL) []string {
	var all []string
	for _, p := range strings.Split(u.Path, "/") {
		all = append(all, strings.Split(p, ".")...)
		all = append(all, p)
	}
	for _, values := range u.Query() {
		for _, v := range values {
			all = append(all, strings.Split(v, ".")...)
			all = append(all, v)
		}
	}
	return all
}

// strength estimates how many bits the best token of a URL has room for, by its letters. kind is "uuid" when there are only such.
func strength(u *url.URL) (bits int, kind string) {
	if whole := u.Path + "?" + u.RawQuery; uuidForm.MatchString(whole) {
		rest := strings.FieldsFunc(uuidForm.ReplaceAllString(whole, ""), func(r rune) bool { return strings.ContainsRune("/?&=.", r) })
		if bits := strengthOf(rest); bits >= 96 {
			return bits, ""
		}
		return 122, "uuid"
	}
	return strengthOf(pieces(u)), ""
}

func strengthOf(pieces []string) (bits int) {
	for _, p := range pieces {
		seen := map[rune]bool{}
		digits, lower, upper, other := false, false, false, false
		for _, r := range p {
			seen[r] = true
			switch {
			case r >= '0' && r <= '9':
				digits = true
			case r >= 'a' && r <= 'z':
				lower = true
			case r >= 'A' && r <= 'Z':
				upper = true
			default:
				other = true
			}
		}
		alphabet := 0.0
		for _, a := range []struct {
			has bool
			n   float64
		}{{digits, 10}, {lower, 22}, {upper, 26}, {other, 2}} {
			if a.has {
				alphabet += a.n
			}
		}
		if lower && !digits && len(seen) < 12 {
			alphabet = 4 // a word
		}
		if alphabet < 2 {
			continue
		}
		n := int(float64(len([]rune(p))) * math.Log2(alphabet))
		// What repeats itself has no more than what it repeats.
		n = min(n, int(float64(len([]rune(p)))*math.Log2(float64(len(seen))+1)))
		bits = max(bits, n)
	}
	return bits
}

// look does what must change nothing: GET, HEAD, other methods, and a token that is not whole.
func (d *doctor) look(ctx context.Context) error {
	mailable, known := d.asked(ctx)
	if known && !mailable {
		d.add("asked", Warn, "the person may not be mailed even before the link is looked at, so nothing can be proved", "test with the link of somebody who may be mailed", "")
		d.Mailable = nil
	}
	d.before = d.do(ctx, http.MethodGet, d.URL, "", "", browser)
	if d.before.err != nil {
		return fmt.Errorf("%w: %s", ErrUnreachable, short(d.before.err.Error()))
	}
	p := &d.before
	if p.tls != nil {
		left := p.tls.PeerCertificates[0].NotAfter.Sub(d.Now())
		d.judge("tls", left > 14*24*time.Hour, Warn, "the certificate is valid for the host", fmt.Sprintf("the certificate ends in %d days", int(left.Hours()/24)), "renew it", "")
	}
	d.judge("get", p.status == 200, Fail, "GET shows a page", "GET is answered "+p.said(), "answer GET with a page that has one button", rfc8058+".2")
	d.judge("get-acts", !d.acted(ctx, p), Fail, d.basis("GET changed nothing"), d.basis("GET unsubscribes: scanners and prefetchers will unsubscribe people"), "act on POST only", rfc8058+".2")
	d.do(ctx, http.MethodHead, d.URL, "", "", browser)
	again := d.do(ctx, http.MethodGet, d.URL, "", "", browser)
	d.judge("head-acts", !d.acted(ctx, &again), Fail, d.basis("HEAD changed nothing"), d.basis("HEAD unsubscribes"), "act on POST only", rfc8058+".2")
	d.judge("get-again", again.status == p.status, Fail, "the link can be looked at again and again", "a second GET is answered "+again.said()+": the first one used the link up", "let looking change nothing, and never use a link up", "")
	if p.status == 200 {
		d.headers(p)
		d.content(p)
	}
	bad := d.do(ctx, http.MethodGet, d.altered(), "", "", browser)
	d.judge("altered", bad.err == nil && bad.status/100 == 4, Fail, "an altered token is refused", "an altered token is answered "+bad.said(), "verify the token's MAC, and answer 404", "RFC 8058 section 3.1")
	return nil
}

// basis says whether a finding is proved.
func (d *doctor) basis(s string) string {
	if d.Mailable != nil {
		return s + " (proved by asking)"
	}
	return s + " (as far as the page tells)"
}

// acted tells whether the person was unsubscribed: by asking, or else by what a page says.
func (d *doctor) acted(ctx context.Context, p *page) bool {
	if mailable, known := d.asked(ctx); known {
		return !mailable
	}
	return p.status == 200 && done.MatchString(textOf(p.body)) && !postForm.MatchString(p.body)
}

// done are words of a page that has unsubscribed somebody.
var done = regexp.MustCompile(`(?i)(you|e-?mail|address|subscription)[^.]{0,60}(have been|has been|are now|were|was|is now) (successfully )?(unsubscribed|removed|opted out)|(successfully|now) unsubscribed|unsubscribe(d)? success|no longer receive|` +
	`wurde[nst]* (erfolgreich )?(abgemeldet|ausgetragen)|abmeldung (war )?erfolgreich|vous (êtes|avez été) désabonn|désinscri(t|ption) (bien |a été )?(prise|confirmé|réussi)|se ha dado de baja|has sido dado de baja|sei stato (disiscritto|rimosso)|` +
	`u bent (uitgeschreven|afgemeld)|foi removido|foi cancelada|został[ao]? wypisan|配信を停止しました|已(成功)?退订|已取消订阅`)

var (
	postForm = regexp.MustCompile(`(?is)<form\b[^>]*\bmethod\s*=\s*["']?post`)
	tags     = regexp.MustCompile(`(?s)<(script|style)\b.*?</(script|style)>|<[^>]*>`)
)

func textOf(html string) string {
	return strings.Join(strings.Fields(tags.ReplaceAllString(html, " ")), " ")
}

// headers judges the fields of the page's answer.
func (d *doctor) headers(p *page) {
	d.judge("cookies", len(p.header.Values("Set-Cookie")) == 0, Warn, "it sets no cookie", "it sets a cookie, which providers never send back", "set none here", "RFC 8058 section 3.1")
	d.judge("cache", strings.Contains(strings.ToLower(p.header.Get("Cache-Control")), "no-store"), Warn, "the page is not stored", "the page may be kept by caches", "answer with Cache-Control: no-store", "")
	policy := strings.ToLower(p.header.Get("Referrer-Policy"))
	d.judge("referrer", policy == "no-referrer" || policy == "same-origin", Warn, "the page tells its URL to nobody", "the page may tell its URL to others", "answer with Referrer-Policy: no-referrer", "")
	d.judge("robots", strings.Contains(strings.ToLower(p.header.Get("X-Robots-Tag")), "noindex"), Warn, "search engines leave it alone", "search engines may list the link", "answer with X-Robots-Tag: noindex", "")
	d.judge("slow", p.took < slow, Warn, "it answers quickly", fmt.Sprintf("it took %.1f seconds to answer", p.took.Seconds()), "providers wait only a few seconds", "")
}

var (
	anyScript  = regexp.MustCompile(`(?is)<script\b`)
	autoSubmit = regexp.MustCompile(`(?is)\.submit\s*\(|\bfetch\s*\(|XMLHttpRequest|sendBeacon|requestSubmit|<meta[^>]+http-equiv\s*=\s*["']?refresh|onload\s*=\s*["'][^"']*submit`)
	assets     = regexp.MustCompile(`(?is)<(?:img|script|link|iframe)\b[^>]*\b(?:src|href)\s*=\s*["']?(?:https?:)?//([^/"'\s>]+)`)
	formTag    = regexp.MustCompile(`(?is)<form\b[^>]*>`)
	actionOf   = regexp.MustCompile(`(?is)\baction\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))`)
	langOf     = regexp.MustCompile(`(?is)<html\b[^>]*\blang\s*=`)
)

// content judges the page.
func (d *doctor) content(p *page) {
	d.judge("page-personal", !emailForm.MatchString(textOf(p.body)), Fail, "the page shows no address", "the page shows a mail address: whoever has a forwarded mail learns it", "show none", "")
	form := ""
	for _, f := range formTag.FindAllString(p.body, 20) {
		if postForm.MatchString(f) {
			form = f
			break
		}
	}
	own := false
	if form != "" {
		action := ""
		if m := actionOf.FindStringSubmatch(form); m != nil {
			action = m[1] + m[2] + m[3]
		}
		if to, err := d.url.Parse(action); err == nil {
			own = to.Host == d.url.Host
		}
	}
	d.judge("page-form", own, Fail, "the page has a form that posts", "the page has no form that posts to the same server: without script or login nobody can unsubscribe here", "one form, method=post, one button", "16 CFR 316.5")
	d.judge("page-script", !autoSubmit.MatchString(p.body), Fail, "no script acts by itself", "the page submits by itself: scanners that run scripts will unsubscribe people", "act when the button is pressed", "")
	if anyScript.MatchString(p.body) && !autoSubmit.MatchString(p.body) {
		d.add("page-works-without-script", Warn, "the page has scripts", "let it work without", "")
	}
	foreign := ""
	for _, m := range assets.FindAllStringSubmatch(p.body, 50) {
		if m[1] != d.url.Host {
			foreign = m[1]
		}
	}
	d.judge("page-assets", foreign == "", Warn, "the page loads nothing from others", "the page loads things from "+short(foreign), "serve everything from the same host", "")
	d.judge("page-language", langOf.MatchString(p.body), Warn, "the page says its language", "the page does not say its language, which screen readers need", "set lang on <html>", "WCAG 3.1.1")
}

// altered is the URL with one character of its longest part changed for another of its kind.
func (d *doctor) altered() string {
	u := *d.url
	path, query := u.EscapedPath(), u.RawQuery
	longest, inQuery := "", false
	for _, p := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		if len(p) > len(longest) {
			longest = p
		}
	}
	for _, p := range strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == '=' }) {
		if len(p) > len(longest) {
			longest, inQuery = p, true
		}
	}
	if longest == "" {
		return u.String() + "x"
	}
	b := []byte(longest)
	for i := len(b) / 2; i < len(b); i++ {
		if c := b[i]; c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b[i] = map[bool]byte{true: c - 1, false: c + 1}[c == '9' || c == 'z' || c == 'Z' || c == '7' || c == 'f']
			break
		}
	}
	if inQuery {
		u.RawQuery = strings.Replace(query, longest, string(b), 1)
		return u.String()
	}
	u.RawPath, u.Path = "", ""
	return u.Scheme + "://" + u.Host + strings.Replace(path, longest, string(b), 1) + map[bool]string{true: "?" + query}[query != ""]
}
