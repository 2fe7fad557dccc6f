package client

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// list looks at List-Unsubscribe (RFC 2369) and List-Unsubscribe-Post (RFC 8058).
func (l *linter) list() {
	n, posts := l.count(fieldUnsubscribe), l.count(fieldPost)
	if l.required {
		if n+posts > 0 {
			l.found("list-unsubscribe-unwanted", fmt.Sprintf("there are %d %s and %d %s fields", n, fieldUnsubscribe, posts, fieldPost))
		}
		return
	}
	lesser := l.lesser()
	if n == 0 {
		l.report("list-unsubscribe-missing", "there is no "+fieldUnsubscribe, lesser)
	}
	if n > 1 {
		l.found("list-unsubscribe-once", fmt.Sprintf("there are %d %s fields", n, fieldUnsubscribe))
	}
	https := 0
	if n > 0 {
		uris := l.unsubscribeURIs()
		https = count(uris, "https")
		if https != 1 {
			l.report("list-unsubscribe-https", fmt.Sprintf("%s has %d https URIs", fieldUnsubscribe, https), lesser)
		}
		if plain := count(uris, "http"); plain > 0 {
			l.found("list-unsubscribe-http", fmt.Sprintf("%s has %d http URIs", fieldUnsubscribe, plain))
		}
		if count(uris, "mailto") == 0 {
			l.found("list-unsubscribe-mailto", fieldUnsubscribe+" has no mailto URI")
		}
	}
	l.post(posts, https, lesser)
}

// post looks at List-Unsubscribe-Post.
func (l *linter) post(n, https int, lesser Level) {
	if n == 0 && https > 0 {
		l.report("list-unsubscribe-post-missing", "there is no "+fieldPost, lesser)
	}
	if n > 1 {
		l.found("list-unsubscribe-post-once", fmt.Sprintf("there are %d %s fields", n, fieldPost))
	}
	if n > 0 && https == 0 {
		l.found("list-unsubscribe-post-alone", "there is no https URI that could be posted to")
	}
	for _, f := range l.fields {
		if !f.is(fieldPost) {
			continue
		}
		_, v, _ := strings.Cut(strings.TrimSuffix(f.text, "\r\n"), ":")
		if strings.Contains(v, "\r\n") {
			l.found("list-unsubscribe-post-fold", fieldPost+" goes on over several lines")
		} else if v != oneClick && v != " "+oneClick && v != "\t"+oneClick {
			l.found("list-unsubscribe-post-value", fieldPost+" has another value")
		}
	}
}

// oneClick is the one value of List-Unsubscribe-Post (RFC 8058 section 5).
const oneClick = "List-Unsubscribe=One-Click"

// unsubscribeURIs are the URIs of the first List-Unsubscribe, as far as they can be read.
func (l *linter) unsubscribeURIs() (uris []string) {
	i := slices.IndexFunc(l.fields, func(f field) bool { return f.is(fieldUnsubscribe) })
	if i < 0 {
		return nil
	}
	_, v, _ := strings.Cut(l.fields[i].text, ":")
	if strings.ContainsFunc(v, func(r rune) bool { return r > '~' || r < ' ' && r != '\t' && r != '\r' && r != '\n' }) {
		l.found("list-unsubscribe-ascii", fieldUnsubscribe+" has characters that are not printable ASCII")
	}
	broken := func(why string) { l.found("list-unsubscribe-syntax", fieldUnsubscribe+" "+why) }
	for rest, first := strings.TrimSpace(v), true; ; first = false {
		uri, after, ok := strings.Cut(rest, ">")
		if !strings.HasPrefix(uri, "<") || !ok {
			if first {
				broken("does not begin with a URI in angle brackets")
			} else {
				broken("has something that is not in angle brackets")
			}
			return uris
		}
		uri = uri[1:]
		if strings.ContainsAny(uri, " \t\r\n,<") || uri == "" {
			broken("has white space, a fold, a comma or nothing within angle brackets")
		}
		uri = strings.Join(strings.Fields(uri), "")
		if u, err := url.Parse(uri); err != nil || u.Scheme == "" || u.Host == "" && u.Opaque == "" {
			broken("has something in angle brackets that is no URI")
		}
		uris = append(uris, uri)
		if after = strings.TrimSpace(after); after == "" {
			return uris
		}
		if rest, ok = strings.CutPrefix(after, ","); !ok {
			broken("has something other than a comma between two URIs")
			return uris
		}
		rest = strings.TrimSpace(rest)
	}
}

// count is how many URIs are of a scheme.
func count(uris []string, scheme string) (n int) {
	for _, u := range uris {
		if s, _, _ := strings.Cut(u, ":"); strings.EqualFold(s, scheme) {
			n++
		}
	}
	return n
}
