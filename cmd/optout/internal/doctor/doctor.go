// Package doctor tests an unsubscribe URL, ours or anybody's, against what mailbox providers do and RFC 8058 asks for. It looks
// first, which must change nothing, and presses only when it may. It knows HTTP and messages, not the service.
package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Level is how a check ended.
type Level string

// Levels.
const (
	Pass    Level = "pass"
	Warn    Level = "warn"
	Fail    Level = "fail"
	Skipped Level = "skipped"
)

// Check is one thing that was looked at.
type Check struct {
	// ID names the check, and never changes.
	ID    string `json:"id"`
	Level Level  `json:"level"`
	// Seen is what was seen, Remedy what to do about it, and Reference where it is asked for.
	Seen      string `json:"seen"`
	Remedy    string `json:"remedy,omitempty"`
	Reference string `json:"reference,omitempty"`
}

// Report is the result.
type Report struct {
	// Pressed says whether the link was pressed.
	Pressed bool    `json:"pressed"`
	Checks  []Check `json:"checks"`
	// Passed: no check failed.
	Passed bool `json:"passed"`
}

// Options say what to test.
type Options struct {
	// URL is the unsubscribe URL.
	URL string
	// Press lets the doctor press: whoever the link is of is then unsubscribed.
	Press bool
	// Mailable asks whether the link's person may still be mailed; nil when nobody can be asked. With it, what acted and what did
	// not is proved; without it is inferred from what the page says.
	Mailable func(context.Context) (bool, error)
	// Roots are the authorities of the server's certificate; nil means the system's.
	Roots *x509.CertPool
	// Timeout is for one request; 15 seconds by default.
	Timeout time.Duration
	Now     func() time.Time
}

const (
	maxBody  = 1 << 20
	slow     = 3 * time.Second
	oneClick = "List-Unsubscribe=One-Click"
)

// ErrUnreachable: nothing could be tested, for the server does not answer.
var ErrUnreachable = errors.New("the server cannot be reached")

// doctor is one examination.
type doctor struct {
	Options
	url    *url.URL
	client *http.Client
	report Report
	// before is the page as it was at first.
	before page
}

// Run examines the URL. Errors: ErrUnreachable, and what is wrong with the URL.
func Run(ctx context.Context, o Options) (*Report, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is no http or https URL", o.URL)
	}
	if o.Timeout == 0 {
		o.Timeout = 15 * time.Second
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: o.Roots}, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
	d := &doctor{Options: o, url: u, client: &http.Client{Transport: transport, Timeout: o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	d.address()
	if err := d.look(ctx); err != nil {
		return nil, err
	}
	if o.Press {
		d.report.Pressed = true
		d.press(ctx)
	} else {
		for _, id := range pressing {
			d.add(id, Skipped, "it was not pressed", "", "")
		}
	}
	d.report.Passed = true
	for _, c := range d.report.Checks {
		d.report.Passed = d.report.Passed && c.Level != Fail
	}
	return &d.report, nil
}

func (d *doctor) add(id string, level Level, seen, remedy, reference string) {
	if level == Pass || level == Skipped {
		remedy = ""
	}
	d.report.Checks = append(d.report.Checks, Check{id, level, seen, remedy, reference})
}

// judge adds a check that is good or bad.
func (d *doctor) judge(id string, ok bool, bad Level, good, seen, remedy, reference string) {
	if ok {
		d.add(id, Pass, good, "", reference)
		return
	}
	d.add(id, bad, seen, remedy, reference)
}

// page is an answer as it came.
type page struct {
	status int
	header http.Header
	body   string
	tls    *tls.ConnectionState
	took   time.Duration
	err    error
}

func (p *page) redirects() bool { return p.status/100 == 3 }
func (p *page) good() bool      { return p.err == nil && p.status/100 == 2 }

// said is the answer in a few words.
func (p *page) said() string {
	if p.err != nil {
		return "no answer (" + short(p.err.Error()) + ")"
	}
	if p.redirects() {
		return fmt.Sprintf("%d, to %s", p.status, short(p.header.Get("Location")))
	}
	return fmt.Sprintf("%d", p.status)
}

func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return s
}

// do makes one request, with nothing that a mailbox provider would not send: no cookies, no referrer, no credentials.
func (d *doctor) do(ctx context.Context, method, target, contentType, body, agent string) page {
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		return page{err: err}
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("User-Agent", agent)
	start := time.Now()
	resp, err := d.client.Do(req)
	if err != nil {
		return page{err: err, took: time.Since(start)}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return page{status: resp.StatusCode, header: resp.Header, body: string(b), tls: resp.TLS, took: time.Since(start), err: err}
}

// User-Agent fields of who comes.
const (
	browser = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36"
	gmail   = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
	robot   = "Mozilla/5.0 (compatible; UnsubscribeBot/1.0; +https://provider.example/bot)"
)

// asked asks whether the person may still be mailed. known is false when nobody can be asked.
func (d *doctor) asked(ctx context.Context) (mailable, known bool) {
	if d.Mailable == nil {
		return false, false
	}
	ok, err := d.Mailable(ctx)
	return ok, err == nil
}
