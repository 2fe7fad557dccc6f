package web_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"optout/client"
	"optout/client/clienttest"
	optoutv1 "optout/proto/optout/v1"
	"optout/service"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// site is a real service with links.
type site struct {
	t   *testing.T
	svc *clienttest.Service
	c   *client.Client
	web *http.Client
	n   int
}

func newSite(t *testing.T, options ...clienttest.Option) *site {
	t.Helper()
	s := &site{t: t, svc: clienttest.Start(t, options...)}
	s.svc.CreateTopic(t, "news")
	s.c = s.svc.Client(t)
	s.web = &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: 10 * time.Second}
	t.Cleanup(s.web.CloseIdleConnections)
	return s
}

// person makes a new address and the path of its link.
func (s *site) person() (addr, path string) {
	s.t.Helper()
	s.n++
	addr = fmt.Sprintf("person%d@example.com", s.n)
	l, err := s.c.IssueLink(s.t.Context(), "news", addr, nil, 7)
	if err != nil {
		s.t.Fatal(err)
	}
	return addr, clienttest.PressPath(l.Url)
}

// out tells whether the address is opted out.
func (s *site) out(addr string) bool {
	s.t.Helper()
	d, err := s.c.CheckSend(s.t.Context(), "news", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	return !d.Send()
}

// head is the ledger's newest position.
func (s *site) head() uint64 {
	s.t.Helper()
	c, err := optoutv1.NewLedgerServiceClient(s.c.Conn()).GetCheckpoint(s.t.Context(), &optoutv1.GetCheckpointRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return c.Position.Number
}

func (s *site) do(method, path, contentType, body string, header ...string) *http.Response {
	s.t.Helper()
	r, err := http.NewRequest(method, "http://"+s.svc.HTTP, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.URL.Opaque = path // as it is, not cleaned
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := s.web.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func text(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Whatever a provider posts to a valid link unsubscribes, and is answered 200 in plain text.
func TestOneClick(t *testing.T) {
	s := newSite(t)
	const urlencoded = "application/x-www-form-urlencoded"
	multipart := func(boundary string) string {
		return "--" + boundary + "\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--" + boundary + "--\r\n"
	}
	for name, c := range map[string]struct{ contentType, body, form string }{
		"Gmail's 26 octets":         {urlencoded, "List-Unsubscribe=One-Click", "urlencoded"},
		"with charset":              {urlencoded + "; charset=utf-8", "List-Unsubscribe=One-Click", "urlencoded"},
		"RFC 8058 section 3.2":      {"multipart/form-data; boundary=xyz", multipart("xyz"), "multipart"},
		"RFC 8058's broken example": {"multipart/form-data; boundary=---FormBoundaryjWmhtjORrn", "---FormBoundaryjWmhtjORrn\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n---FormBoundaryjWmhtjORrn--\r\n", "malformed"},
		"empty":                     {urlencoded, "", "missing"},
		"no content type":           {"", "List-Unsubscribe=One-Click", "malformed"},
		"JSON":                      {"application/json", `{"List-Unsubscribe":"One-Click"}`, "malformed"},
		"garbage":                   {urlencoded, "%zz=\x00\xff", "malformed"},
		"far too large":             {urlencoded, "List-Unsubscribe=One-Click&x=" + strings.Repeat("a", 1<<20), "malformed"},
	} {
		addr, path := s.person()
		resp := s.do("POST", path, c.contentType, c.body)
		body := text(t, resp)
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") || strings.Contains(body, "@") {
			t.Errorf("%s: %s, %s, %q", name, resp.Status, resp.Header.Get("Content-Type"), body)
		}
		if !s.out(addr) {
			t.Errorf("%s: answered %s, but mail may still be sent", name, resp.Status)
		}
		if resp.Header.Get("Set-Cookie") != "" || resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("Referrer-Policy") != "no-referrer" ||
			!strings.Contains(resp.Header.Get("X-Robots-Tag"), "noindex") || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: headers %v", name, resp.Header)
		}
		story, err := optoutv1.NewSuppressionServiceClient(s.c.Conn()).ExplainAddress(t.Context(), &optoutv1.ExplainAddressRequest{Address: addr})
		if err != nil || len(story.Entries) != 1 {
			t.Fatalf("%s: %v, %v", name, story, err)
		}
		e := story.Entries[0]
		if e.Evidence["body_form"] != c.form || e.Channel != optoutv1.Channel_CHANNEL_ONE_CLICK || e.Mailing != 7 || e.Evidence["ip"] != "127.0.0.1" {
			t.Errorf("%s: recorded as %v, %v", name, e.Channel, e.Evidence)
		}
	}
}

// Looking never acts.
func TestLookingChangesNothing(t *testing.T) {
	s := newSite(t)
	addr, path := s.person()
	before := s.head()
	for _, c := range []struct {
		method, path string
		header       []string
		want         int
	}{
		{"GET", path, nil, 200}, {"HEAD", path, nil, 200},
		{"GET", path, []string{"User-Agent", "Mozilla/5.0 (compatible; Yahoo! Slurp)"}, 200},
		{"GET", path + "?List-Unsubscribe=One-Click", nil, 200},
		{"GET", path, []string{"Purpose", "prefetch", "Sec-Purpose", "prefetch"}, 200},
		{"OPTIONS", path, nil, 405}, {"PUT", path, nil, 405}, {"DELETE", path, nil, 405}, {"PATCH", path, nil, 405},
	} {
		resp := s.do(c.method, c.path, "", "", c.header...)
		body := text(t, resp)
		if resp.StatusCode != c.want || strings.Contains(body, addr) || strings.Contains(strings.ToLower(body), "<script") {
			t.Errorf("%s %s: %s", c.method, c.path, resp.Status)
		}
		if c.method == "HEAD" && body != "" {
			t.Error("HEAD has a body")
		}
	}
	if s.out(addr) || s.head() != before {
		t.Error("looking has changed the ledger")
	}
}

// No POST is ever redirected, whatever a program has made of the path.
func TestPostsAreNeverRedirected(t *testing.T) {
	s := newSite(t)
	for _, mend := range []func(string) string{
		func(tok string) string { return "/u//" + tok },
		func(tok string) string { return "/u/./" + tok },
		func(tok string) string { return "/.//u/" + tok },
		func(tok string) string { return "/x/../u/" + tok },
		func(tok string) string { return "/u/" + tok + "/" },
		func(tok string) string { return "/U/" + strings.ToUpper(tok) },
		func(tok string) string { return "/u/" + strings.ToUpper(tok) + "?utm_source=x" },
		func(tok string) string { return "/mail/u/" + tok },
	} {
		addr, path := s.person()
		mended := mend(strings.TrimPrefix(path, "/u/"))
		resp := s.do("POST", mended, "application/x-www-form-urlencoded", "List-Unsubscribe=One-Click")
		if resp.StatusCode != 200 || !s.out(addr) {
			t.Errorf("POST %s: %s", mended, resp.Status)
		}
	}
	for _, path := range []string{"/", "/u", "/u/", "/u//", "/undo", "/nothing", "/../..", "/u/x/y"} {
		if resp := s.do("POST", path, "", ""); resp.StatusCode != 404 {
			t.Errorf("POST %s: %s", path, resp.Status)
		}
	}
}

// Altered, truncated, foreign and random tokens get one and the same answer.
func TestUnknownTokensAreAllTheSame(t *testing.T) {
	s := newSite(t)
	addr, path := s.person()
	other := newSite(t)
	_, foreign := other.person()
	swap := byte('a')
	if path[30] == 'a' {
		swap = 'b'
	}
	var first string
	for name, p := range map[string]string{"altered": path[:30] + string(swap) + path[31:], "truncated": path[:60], "longer": path + "a", "foreign": foreign,
		"random": "/u/" + strings.Repeat("q", 61), "empty": "/u/", "percent": "/u/%00%ff"} {
		for _, method := range []string{"GET", "POST"} {
			resp := s.do(method, p, "application/x-www-form-urlencoded", "List-Unsubscribe=One-Click")
			resp.Header.Del("Date")
			got := fmt.Sprint(resp.Status, resp.Header, text(t, resp))
			if first == "" {
				first = got
			}
			if resp.StatusCode != 404 || got != first {
				t.Errorf("%s %s: %s\nthe first: %s", method, name, got, first)
			}
		}
	}
	if s.out(addr) {
		t.Error("somebody was unsubscribed")
	}
}

// The same press many times at once: each is answered 200, one entry is written.
func TestRepeatedPresses(t *testing.T) {
	s := newSite(t)
	addr, path := s.person()
	before := s.head()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			resp, err := s.web.Post("http://"+s.svc.HTTP+path, "application/x-www-form-urlencoded", strings.NewReader("List-Unsubscribe=One-Click"))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Error(resp.Status)
			}
		})
	}
	all.Wait()
	if n := s.head() - before; n != 1 || !s.out(addr) {
		t.Errorf("%d entries were written", n)
	}
}

// raw sends octets and reads whatever comes back until the connection ends.
func (s *site) raw(octets string) string {
	s.t.Helper()
	c, err := net.Dial("tcp", s.svc.HTTP)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(8 * time.Second))
	if _, err := io.WriteString(c, octets); err != nil {
		return ""
	}
	b, _ := io.ReadAll(c)
	return string(b)
}

// A request smuggled behind another is not run.
func TestSmuggledRequestsAreNotRun(t *testing.T) {
	s := newSite(t)
	first, path := s.person()
	second, smuggled := s.person()
	got := s.raw("POST " + path + " HTTP/1.1\r\nHost: mail.example.com\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" +
		"POST " + smuggled + " HTTP/1.1\r\nHost: mail.example.com\r\nContent-Length: 0\r\n\r\n")
	if strings.Count(got, "HTTP/1.1 ") != 1 || s.out(second) {
		t.Errorf("the smuggled request was run: %q", got)
	}
	if strings.Contains(got, " 200 ") != s.out(first) {
		t.Errorf("answered %q, opted out %v", got, s.out(first))
	}
	for name, octets := range map[string]string{"HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CONNECT": "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
		"absolute form": "GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n"} {
		if got := s.raw(octets); strings.Contains(got, " 200 ") || strings.Contains(got, " 30") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A client that sends its headers slowly is cut off, and others are served meanwhile.
func TestSlowClientsAreCutOff(t *testing.T) {
	s := newSite(t)
	var slow []net.Conn
	for range 200 {
		c, err := net.Dial("tcp", s.svc.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "POST /u/x HTTP/1.1\r\nHost: a\r\nX-")
		slow = append(slow, c)
	}
	addr, path := s.person()
	if resp := s.do("POST", path, "application/x-www-form-urlencoded", "List-Unsubscribe=One-Click"); resp.StatusCode != 200 || !s.out(addr) {
		t.Errorf("others are not served: %s", resp.Status)
	}
	for _, c := range slow {
		c.SetReadDeadline(time.Now().Add(8 * time.Second))
		if _, err := bufio.NewReader(c).ReadString(0); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Fatalf("a slow client was still connected after 8 seconds: %v", err)
		}
	}
}

func TestLanguages(t *testing.T) {
	s := newSite(t)
	_, path := s.person()
	for accept, want := range map[string]string{"": "en", "de-CH,de;q=0.9": "de", "fr": "fr", "xx": "en", "pt-BR": "pt", "zh-Hant-TW": "zh", "ja;q=0.5,pl": "pl",
		strings.Repeat("de,", 500): "en", "not; a q=list": "en"} {
		resp := s.do("GET", path, "", "", "Accept-Language", accept)
		if body := text(t, resp); !strings.Contains(body, `<html lang="`+want+`">`) || resp.Header.Get("Content-Language") != want {
			t.Errorf("Accept-Language %.20q: %s", accept, resp.Header.Get("Content-Language"))
		}
	}
}

// The client's address is the peer's, and X-Forwarded-For counts only from a trusted proxy: its right-most address that is not
// a proxy's, for whatever stands before that anybody can write.
func TestClientAddressBehindProxies(t *testing.T) {
	for name, c := range map[string]struct {
		trusted   []string
		forwarded string
		want      string
	}{
		"no proxy":          {nil, "203.0.113.7", "127.0.0.1"},
		"another proxy":     {[]string{"10.0.0.0/8"}, "203.0.113.7", "127.0.0.1"},
		"trusted":           {[]string{"127.0.0.0/8"}, "203.0.113.7", "203.0.113.7"},
		"forged in front":   {[]string{"127.0.0.0/8"}, "198.51.100.1, 203.0.113.7", "203.0.113.7"},
		"two proxies":       {[]string{"127.0.0.0/8", "10.0.0.0/8"}, "198.51.100.1, 203.0.113.7, 10.1.2.3", "203.0.113.7"},
		"garbage":           {[]string{"127.0.0.0/8"}, "not an address", "127.0.0.1"},
		"nothing forwarded": {[]string{"127.0.0.0/8"}, "", "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, func(cfg *service.Config) { cfg.TrustedProxies = c.trusted })
			addr, path := s.person()
			header := []string{}
			if c.forwarded != "" {
				header = []string{"X-Forwarded-For", c.forwarded}
			}
			s.do("POST", path, "application/x-www-form-urlencoded", "List-Unsubscribe=One-Click", header...)
			story, err := optoutv1.NewSuppressionServiceClient(s.c.Conn()).ExplainAddress(t.Context(), &optoutv1.ExplainAddressRequest{Address: addr})
			if err != nil || len(story.Entries) != 1 || story.Entries[0].Evidence["ip"] != c.want {
				t.Errorf("%v, %v, want %s", story, err, c.want)
			}
		})
	}
}
