package web

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
)

// pageField is the hidden field that tells the page's own button from a provider's one-click.
const pageField = "page"

// bodyForm reads the body, up to its limit, and tells its form: "urlencoded", "multipart", "missing", "malformed", or "page" for
// the button on the page. The form is evidence and never a condition: a valid token unsubscribes whatever the body is,
// because to refuse a real press is the worse mistake (RFC 8058 has examples that do not parse). The query does not count (T9).
func bodyForm(w http.ResponseWriter, r *http.Request) (form string, fromPage bool) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return "malformed", false
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return "missing", false
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err == nil && kind == "application/x-www-form-urlencoded":
		values, err := url.ParseQuery(strings.TrimSpace(string(b)))
		switch {
		case err != nil:
			return "malformed", false
		case values.Get(pageField) == "1":
			return "page", true
		case values.Get("List-Unsubscribe") == "One-Click":
			return "urlencoded", false
		}
	case err == nil && kind == "multipart/form-data":
		f, err := multipart.NewReader(bytes.NewReader(b), params["boundary"]).ReadForm(maxBody)
		if err == nil {
			defer f.RemoveAll()
			if v := f.Value["List-Unsubscribe"]; len(v) > 0 && v[0] == "One-Click" {
				return "multipart", false
			}
		}
	}
	return "malformed", false
}
