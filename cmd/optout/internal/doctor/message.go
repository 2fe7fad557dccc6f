package doctor

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/textproto"
	"regexp"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
)

var bracketed = regexp.MustCompile(`<([^<>]*)>`)

// Link finds the https URL of a message's List-Unsubscribe field; "" when there is none.
func Link(message []byte) string {
	h := header(message)
	for _, m := range bracketed.FindAllStringSubmatch(strings.Join(h["List-Unsubscribe"], ","), 10) {
		if strings.HasPrefix(strings.ToLower(m[1]), "http") {
			return m[1]
		}
	}
	return ""
}

func header(message []byte) textproto.MIMEHeader {
	h, _ := textproto.NewReader(bufio.NewReader(bytes.NewReader(message))).ReadMIMEHeader()
	if h == nil {
		h = textproto.MIMEHeader{}
	}
	return h
}

// Message judges the message that carries the link: its list fields, and whether a DKIM signature covers them. lookup asks the DNS.
func Message(message []byte, lookup func(string) ([]string, error)) []Check {
	message = bytes.ReplaceAll(bytes.ReplaceAll(message, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
	d := &doctor{}
	h := header(message)
	lu, post := h["List-Unsubscribe"], h["List-Unsubscribe-Post"]
	d.judge("message-list-unsubscribe", len(lu) == 1, Fail, "List-Unsubscribe is there once", "List-Unsubscribe must be there exactly once", "set it once", "RFC 8058 section 3.1")
	d.judge("message-list-unsubscribe-post", len(post) == 1 && post[0] == oneClick, Fail, "List-Unsubscribe-Post is there once, to the letter", "List-Unsubscribe-Post must be there exactly once, and say "+oneClick, "set it so", "RFC 8058 section 5")
	https, http, mailto := 0, 0, 0
	for _, m := range bracketed.FindAllStringSubmatch(strings.Join(lu, ","), 20) {
		switch u := strings.ToLower(m[1]); {
		case strings.HasPrefix(u, "https:"):
			https++
		case strings.HasPrefix(u, "http:"):
			http++
		case strings.HasPrefix(u, "mailto:"):
			mailto++
		}
	}
	d.judge("message-uri", https == 1 && http == 0, Fail, "it has one https URI", "it must have exactly one https URI and no http one", "", "RFC 8058 section 3.1")
	d.judge("message-mailto", mailto > 0, Warn, "it has a mailto URI too", "it has no mailto URI, the only kind that some providers take", "add one", "RFC 2369 section 3.2")
	d.report.Checks = append(d.report.Checks, signature(message, lookup))
	return d.report.Checks
}

// signature looks for a DKIM signature that covers both list fields (RFC 8058 section 4).
func signature(message []byte, lookup func(string) ([]string, error)) Check {
	const reference, remedy = "RFC 8058 section 4", "let the signature's h= name List-Unsubscribe and List-Unsubscribe-Post: signers' defaults miss the second"
	all, err := dkim.VerifyWithOptions(bytes.NewReader(message), &dkim.VerifyOptions{LookupTXT: lookup, MaxVerifications: 10})
	if err != nil && !errors.Is(err, dkim.ErrTooManySignatures) || len(all) == 0 {
		return Check{"message-dkim", Fail, "it has no DKIM signature that can be read", remedy, reference}
	}
	out := Check{"message-dkim", Fail, "no DKIM signature covers both list fields", remedy, reference}
	for _, v := range all {
		names := map[string]bool{}
		for _, k := range v.HeaderKeys {
			names[strings.ToLower(k)] = true
		}
		var dns *net.DNSError
		switch {
		case !names["list-unsubscribe"] || !names["list-unsubscribe-post"]:
		case v.Err == nil:
			return Check{"message-dkim", Pass, "the signature of " + v.Domain + " covers both list fields and holds", "", reference}
		case dkim.IsTempFail(v.Err) || errors.As(v.Err, &dns):
			out = Check{"message-dkim", Warn, "a signature covers both list fields, and the DNS could not be asked for its key", "run it where the DNS can be asked", reference}
		case out.Level == Fail:
			out.Seen, out.Remedy = "a signature covers both list fields and does not hold: "+short(v.Err.Error()), "look at what changes the message after it was signed, and at the published key"
		}
	}
	return out
}
