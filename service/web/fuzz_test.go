package web

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// Whatever is posted, the body has one of the known forms, and only the page's own field makes it the page's.
func FuzzBodyForm(f *testing.F) {
	f.Add("application/x-www-form-urlencoded", "List-Unsubscribe=One-Click")
	f.Add("application/x-www-form-urlencoded", "page=1")
	f.Add("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--x--\r\n")
	f.Add("multipart/form-data; boundary=\"", "--")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		r := httptest.NewRequest(http.MethodPost, "/u/x?page=1&List-Unsubscribe=One-Click", strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		form, page := bodyForm(httptest.NewRecorder(), r)
		if !slices.Contains([]string{"urlencoded", "multipart", "missing", "malformed", "page"}, form) || page != (form == "page") || page && !strings.Contains(body, "page") {
			t.Fatalf("%q, %q: %s, %v", contentType, body, form, page)
		}
	})
}

// The route of a path never depends on anything but the path, and a token is its last part.
func FuzzRoute(f *testing.F) {
	f.Add("/u/abc")
	f.Add("//U/./abc/")
	f.Fuzz(func(t *testing.T, p string) {
		r := &http.Request{URL: httptest.NewRequest("GET", "/", nil).URL}
		r.URL.Path = p
		if kind, token := route(r); kind == "u" && (token == "" || strings.Contains(token, "/") || strings.ToLower(token) != token) {
			t.Fatalf("%q: %q", p, token)
		}
	})
}
