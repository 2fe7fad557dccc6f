package doctor

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "ceaqaaaaaeaaaaaae5j7qap6h56av5g7gaioknpf3q5yaknaxt3qvse2ckh7m"

// server is an unsubscribe page made by hand. Without faults it is as it should be.
type server struct {
	mu  sync.Mutex
	out bool // the person is unsubscribed
	// answer changes how a request is answered; it returns true when it has answered.
	answer func(s *server, w http.ResponseWriter, r *http.Request) bool
	page   func(string) string
}

func (s *server) stop() { s.mu.Lock(); s.out = true; s.mu.Unlock() }

func (s *server) mailable(context.Context) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.out, nil
}

const goodPage = `<!doctype html><html lang="en"><title>x</title><form method="post"><button>Unsubscribe</button></form></html>`

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.answer != nil && s.answer(s, w, r) {
		return
	}
	if r.URL.Path != "/u/"+token {
		http.Error(w, "no such link", http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Robots-Tag", "noindex")
	h.Set("Content-Type", "text/html")
	page := goodPage
	if s.page != nil {
		page = s.page(page)
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		io.WriteString(w, page)
	case http.MethodPost:
		s.stop()
		io.WriteString(w, "You have been unsubscribed.")
	default:
		http.Error(w, "no", http.StatusMethodNotAllowed)
	}
}

// examine runs the doctor on a server, with and without somebody to ask.
func examine(t *testing.T, s *server, target string, ask bool) *Report {
	t.Helper()
	ts := httptest.NewTLSServer(s)
	defer ts.Close()
	o := Options{URL: ts.URL + target, Press: true, Roots: ts.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, Timeout: 5 * time.Second, Now: time.Now}
	if ask {
		o.Mailable = s.mailable
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func failed(r *Report, level Level) (ids []string) {
	for _, c := range r.Checks {
		if c.Level == level {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// A server as it should be passes, whether or not somebody can be asked.
func TestHealthy(t *testing.T) {
	for _, ask := range []bool{true, false} {
		r := examine(t, &server{}, "/u/"+token, ask)
		if bad, warned := failed(r, Fail), failed(r, Warn); len(bad) > 0 || len(warned) > 0 || !r.Passed {
			t.Errorf("failed %v, warned %v: %+v", bad, warned, r.Checks)
		}
	}
}

// Each fault that is about in the world is found by the check that names it, and by no other.
func TestPeersFaults(t *testing.T) {
	method := func(m string, do func(s *server, w http.ResponseWriter, r *http.Request) bool) func(*server, http.ResponseWriter, *http.Request) bool {
		return func(s *server, w http.ResponseWriter, r *http.Request) bool {
			return r.Method == m && strings.HasPrefix(r.URL.Path, "/u/"+token) && do(s, w, r)
		}
	}
	post := func(do func(s *server, w http.ResponseWriter, r *http.Request) bool) func(*server, http.ResponseWriter, *http.Request) bool {
		return method(http.MethodPost, do)
	}
	ok := func(w http.ResponseWriter) bool { io.WriteString(w, "ok"); return true }
	var used sync.Map
	for name, c := range map[string]struct {
		server *server
		target string
		fail   []string
		warn   []string
	}{
		"GET unsubscribes": {server: &server{answer: method(http.MethodGet, func(s *server, w http.ResponseWriter, _ *http.Request) bool {
			s.stop()
			return false
		})}, fail: []string{"get-acts", "head-acts"}},
		"HEAD unsubscribes": {server: &server{answer: method(http.MethodHead, func(s *server, w http.ResponseWriter, _ *http.Request) bool {
			s.stop()
			return false
		})}, fail: []string{"head-acts"}},
		"a form is refused, JSON is demanded": {server: &server{answer: post(func(_ *server, w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Content-Type") == "application/json" {
				return false
			}
			http.Error(w, "JSON, please", http.StatusBadRequest)
			return true
		})}, fail: []string{"post", "post-multipart", "post-repeat", "post-agent", "post-parallel"}, warn: []string{"post-multipart-rfc", "post-empty"}},
		"bots are answered 200 and nothing happens": {server: &server{answer: post(func(_ *server, w http.ResponseWriter, r *http.Request) bool {
			return strings.Contains(r.UserAgent(), "Google") && ok(w)
		})}, fail: []string{"post-effect"}},
		"bots are turned away": {server: &server{answer: post(func(_ *server, w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(strings.ToLower(r.UserAgent()), "bot") {
				http.Error(w, "no bots", http.StatusForbidden)
				return true
			}
			return false
		})}, fail: []string{"post-agent"}},
		"success without effect": {server: &server{answer: post(func(_ *server, w http.ResponseWriter, _ *http.Request) bool { return ok(w) })}, fail: []string{"post-effect"}},
		"POST is redirected": {server: &server{answer: post(func(_ *server, w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/done", http.StatusTemporaryRedirect)
			return true
		})}, fail: []string{"post-redirect", "post-multipart", "post-repeat", "post-agent", "post-parallel"}, warn: []string{"post-multipart-rfc", "post-empty"}},
		"a login": {server: &server{answer: func(_ *server, w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/login", http.StatusFound)
			return true
		}}, fail: []string{"get", "altered", "post-redirect", "post-multipart", "post-repeat", "post-agent", "post-parallel"}, warn: []string{"post-multipart-rfc", "post-empty"}},
		"a cookie is needed": {server: &server{answer: func(_ *server, w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost && r.Header.Get("Cookie") == "" {
				http.Error(w, "CSRF token missing", http.StatusForbidden)
				return true
			}
			if r.URL.Path == "/u/"+token {
				http.SetCookie(w, &http.Cookie{Name: "csrf", Value: "1"})
			}
			return false
		}}, fail: []string{"post", "post-multipart", "post-repeat", "post-agent", "post-parallel"}, warn: []string{"cookies", "post-multipart-rfc", "post-empty"}},
		"a link that looking uses up": {server: &server{answer: func(s *server, w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/u/"+token {
				return false
			}
			if _, seen := used.LoadOrStore("looked", true); seen && r.Method != http.MethodHead {
				http.Error(w, "gone", http.StatusGone)
				return true
			}
			return false
		}}, fail: []string{"get-again", "post", "post-multipart", "post-repeat", "post-agent", "post-parallel"}, warn: []string{"post-multipart-rfc", "post-empty"}},
		"a link that works once": {server: &server{answer: post(func(s *server, w http.ResponseWriter, r *http.Request) bool {
			if ok, _ := s.mailable(r.Context()); ok {
				return false
			}
			http.Error(w, "already", http.StatusNotFound)
			return true
		})}, fail: []string{"post-multipart", "post-repeat", "post-agent", "post-parallel"}, warn: []string{"post-multipart-rfc", "post-empty"}},
		"the page shows the address": {server: &server{page: func(p string) string { return strings.Replace(p, "<form", "<p>ann@example.com</p><form", 1) }}, fail: []string{"page-personal"}},
		"the page submits by itself": {server: &server{page: func(p string) string {
			return strings.Replace(p, "</html>", "<script>document.forms[0].submit()</script></html>", 1)
		}}, fail: []string{"page-script"}},
		"no form": {server: &server{page: func(string) string { return `<html lang="en"><a href="/app">Open the app</a></html>` }}, fail: []string{"page-form"}},
		"the form posts elsewhere": {server: &server{page: func(p string) string {
			return strings.Replace(p, `method="post"`, `method="post" action="https://other.example/x"`, 1)
		}}, fail: []string{"page-form"}},
		"no language": {server: &server{page: func(p string) string { return strings.Replace(p, ` lang="en"`, "", 1) }}, warn: []string{"page-language"}},
		"things from others": {server: &server{page: func(p string) string {
			return strings.Replace(p, "<form", `<img src="https://track.example/x.gif"><form`, 1)
		}}, warn: []string{"page-assets"}},
		"it may be cached": {server: &server{answer: method(http.MethodGet, func(_ *server, w http.ResponseWriter, _ *http.Request) bool {
			io.WriteString(w, goodPage)
			return true
		})}, warn: []string{"cache", "referrer", "robots"}},
		"multipart is refused": {server: &server{answer: post(func(_ *server, w http.ResponseWriter, r *http.Request) bool {
			if m, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); strings.HasPrefix(m, "multipart/") {
				http.Error(w, "no", http.StatusUnsupportedMediaType)
				return true
			}
			return false
		})}, fail: []string{"post-multipart"}, warn: []string{"post-multipart-rfc"}},
		"multipart must be whole": {server: &server{answer: post(func(_ *server, w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") && r.ParseMultipartForm(1<<20) != nil {
				http.Error(w, "no", http.StatusBadRequest)
				return true
			}
			return false
		})}, warn: []string{"post-multipart-rfc"}},
		"a body is demanded": {server: &server{answer: post(func(_ *server, w http.ResponseWriter, r *http.Request) bool {
			if r.ContentLength == 0 {
				http.Error(w, "no", http.StatusBadRequest)
				return true
			}
			return false
		})}, warn: []string{"post-empty"}},
		"an altered token passes": {server: &server{answer: func(_ *server, w http.ResponseWriter, r *http.Request) bool {
			r.URL.Path = "/u/" + token
			return false
		}}, fail: []string{"altered"}},
		"a number":          {server: &server{answer: func(_ *server, _ http.ResponseWriter, r *http.Request) bool { return numbered(r, "/unsubscribe/48213") }}, target: "/unsubscribe/48213", fail: []string{"token"}},
		"two UUIDs, no MAC": {server: &server{answer: func(_ *server, _ http.ResponseWriter, r *http.Request) bool { return numbered(r, uuids) }}, target: uuids, warn: []string{"token"}},
		"the address in the URL": {server: &server{answer: func(_ *server, _ http.ResponseWriter, r *http.Request) bool {
			return numbered(r, "/u/"+token+"x")
		}}, target: "/u/" + token + "x?email=ann%40example.com", fail: []string{"url-personal"}},
	} {
		used.Clear()
		target := c.target
		if target == "" {
			target = "/u/" + token
		}
		r := examine(t, c.server, target, true)
		if got := failed(r, Fail); fmt.Sprint(got) != fmt.Sprint(c.fail) && len(got)+len(c.fail) > 0 {
			t.Errorf("%s: failed %v, want %v", name, got, c.fail)
		}
		if got := failed(r, Warn); fmt.Sprint(got) != fmt.Sprint(c.warn) && len(got)+len(c.warn) > 0 {
			t.Errorf("%s: warned %v, want %v", name, got, c.warn)
		}
		if r.Passed != (len(c.fail) == 0) {
			t.Errorf("%s: passed %v", name, r.Passed)
		}
	}
}

const uuids = "/subscription/7c9e6679-7425-40de-944b-e07fc1f90ae7/1b4e28ba-2fa1-11d2-883f-0016d3cca427"

// numbered answers another path as if it were the token's.
func numbered(r *http.Request, path string) bool {
	if r.URL.Path == path {
		r.URL.Path = "/u/" + token
	} else {
		r.URL.Path = "/nix"
	}
	return false
}

// A page that says that it has acted is believed when nobody can be asked.
func TestInferred(t *testing.T) {
	s := &server{page: func(string) string {
		return `<html lang="en"><p>Your address has been successfully unsubscribed.</p></html>`
	}}
	r := examine(t, s, "/u/"+token, false)
	if got := failed(r, Fail); fmt.Sprint(got) != "[get-acts head-acts page-form]" {
		t.Errorf("failed %v", got)
	}
}

// Plain http, no server, and what is no URL.
func TestUnreachable(t *testing.T) {
	ts := httptest.NewServer(&server{})
	r, err := Run(t.Context(), Options{URL: ts.URL + "/u/" + token, Now: time.Now})
	ts.Close()
	if err != nil || fmt.Sprint(failed(r, Fail)) != "[https]" || len(failed(r, Skipped)) != len(pressing) {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := Run(t.Context(), Options{URL: ts.URL + "/u/" + token, Now: time.Now}); err == nil {
		t.Error("a server that is gone")
	}
	for _, bad := range []string{"mailto:x@example.com", "/u/x", "https://", "::"} {
		if _, err := Run(t.Context(), Options{URL: bad, Now: time.Now}); err == nil {
			t.Errorf("%q", bad)
		}
	}
}

// Whatever a URL and a page hold, judging ends.
func FuzzContent(f *testing.F) {
	f.Add("https://x.example/u/"+token, goodPage)
	f.Add("https://x.example/?e=YW5uQGV4YW1wbGUuY29t", "<form method=post action='//y'>")
	f.Fuzz(func(t *testing.T, target, body string) {
		u, err := url.Parse(target)
		if err != nil {
			return
		}
		d := &doctor{url: u}
		d.address()
		d.content(&page{status: 200, body: body})
		d.altered()
		Message([]byte(body), func(string) ([]string, error) { return nil, io.EOF })
	})
}

// Every check is in the documentation, and nothing else is.
func TestChecksAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| (`[^|]*)\\|").FindAllStringSubmatch(string(text), -1) {
		for _, id := range regexp.MustCompile("`([a-z-]+)`").FindAllStringSubmatch(m[1], -1) {
			documented[id[1]] = true
		}
	}
	used := map[string]bool{}
	for _, file := range []string{"look.go", "press.go", "message.go"} {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:d\.(?:add|judge)\(|^\s*\{|Check\{)"([a-z-]+)", `).FindAllStringSubmatch(string(code), -1) {
			used[m[1]] = true
		}
	}
	for _, id := range pressing {
		used[id] = true
	}
	for id := range used {
		if !documented[id] {
			t.Errorf("%s is not documented", id)
		}
	}
	for id := range documented {
		if !used[id] {
			t.Errorf("%s is documented, and there is no such check", id)
		}
	}
}
