package doctor

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// pressing are the checks that press the link.
var pressing = []string{"post", "post-redirect", "post-effect", "post-multipart", "post-multipart-rfc", "post-empty", "post-repeat", "post-agent", "post-parallel", "post-cookies"}

const (
	formType = "application/x-www-form-urlencoded"
	boundary = "---FormBoundaryjWmhtjORrn"
)

func part(begin, end string) string {
	return begin + "\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n" + end + "\r\n"
}

// press presses the link in every shape in which providers do.
func (d *doctor) press(ctx context.Context) {
	first := d.do(ctx, http.MethodPost, d.URL, formType, oneClick, gmail)
	d.judge("post", first.good() || first.redirects(), Fail, "Gmail's POST is answered "+first.said(), "Gmail's POST is answered "+first.said(),
		"take "+formType+" with the body "+oneClick+", without cookies, login or further steps", "RFC 8058 section 3.1")
	d.judge("post-redirect", !first.redirects(), Fail, "POST is not redirected", "POST is redirected: "+first.said(), "answer at the URL itself, also behind proxies and routers that mend paths", "RFC 8058 section 3.1")
	d.effect(ctx, &first)
	d.judge("post-cookies", len(first.header.Values("Set-Cookie")) == 0, Warn, "the answer sets no cookie", "the answer sets a cookie", "set none", "RFC 8058 section 3.1")
	for _, s := range []struct {
		id, what, contentType, body, agent string
		bad                                Level
		remedy, reference                  string
	}{
		{"post-multipart", "multipart/form-data", "multipart/form-data; boundary=" + boundary, part("--"+boundary, "--"+boundary+"--"), gmail, Fail, "take multipart/form-data too", "RFC 8058 section 3.2"},
		{"post-multipart-rfc", "multipart/form-data as the RFC's example prints it, with the wrong boundary", "multipart/form-data; boundary=" + boundary, part(boundary, boundary+"--"), gmail, Warn,
			"do not demand a body that can be parsed: who posts to the URL means it", "RFC 8058 section 8.3, errata"},
		{"post-empty", "a POST without a body", "", "", gmail, Warn, "do not demand a body: who posts to the URL means it", ""},
		{"post-repeat", "the same POST again", formType, oneClick, gmail, Fail, "let a link work again and again", ""},
		{"post-agent", "a POST by a program that calls itself a bot", formType, oneClick, robot, Fail, "providers' programs are bots: never filter by User-Agent", ""},
	} {
		p := d.do(ctx, http.MethodPost, d.URL, s.contentType, s.body, s.agent)
		d.judge(s.id, p.good(), s.bad, s.what+" is answered "+p.said(), s.what+" is answered "+p.said(), s.remedy, s.reference)
	}
	var all sync.WaitGroup
	answers := make([]page, 4)
	for i := range answers {
		all.Go(func() { answers[i] = d.do(ctx, http.MethodPost, d.URL, formType, oneClick, gmail) })
	}
	all.Wait()
	bad := ""
	for i := range answers {
		if !answers[i].good() {
			bad = answers[i].said()
		}
	}
	d.judge("post-parallel", bad == "", Fail, "POSTs at the same time are all taken", "of POSTs at the same time one is answered "+bad, "make the action idempotent", "")
}

// effect tells whether the first press did what it said.
func (d *doctor) effect(ctx context.Context, first *page) {
	mailable, known := d.asked(ctx)
	switch {
	case !first.good():
		d.add("post-effect", Skipped, "the press was not taken", "", "")
	case known:
		d.judge("post-effect", !mailable, Fail, "the person may not be mailed any more (proved by asking)", "the answer was "+first.said()+", and the person may still be mailed (proved by asking)",
			"answer success only after the opt-out is in force", "")
	default:
		text := strings.ToLower(textOf(first.body))
		seen := "whether it acted cannot be seen from outside: give --check-cmd"
		if strings.Contains(text, "confirm") || strings.Contains(text, "are you sure") {
			d.add("post-effect", Fail, "the answer asks to confirm", "act at once: nothing more may be asked", "16 CFR 316.5")
			return
		}
		d.add("post-effect", Skipped, seen, "", fmt.Sprintf("answered %s", first.said()))
	}
}
