package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// API is how to reach a provider's API.
type API struct {
	// URL is its base; empty for the real one.
	URL string
	// Client makes the requests; it must have a time limit. Redirects are not followed, whatever it says: a credential goes to the
	// base alone.
	Client *http.Client
	// Now is the clock.
	Now func() time.Time
}

func (a API) at(real string) API {
	if a.URL == "" {
		a.URL = real
	}
	a.URL = strings.TrimRight(a.URL, "/")
	if a.Client == nil {
		a.Client = &http.Client{Timeout: 30 * time.Second}
	}
	if a.Now == nil {
		a.Now = time.Now
	}
	c := *a.Client
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	a.Client = &c
	return a
}

// APIError is an answer of a provider's API that is no success. It holds nothing of the answer's text, which may name people.
type APIError struct {
	// Status is the HTTP status; 0 when the answer could not be read.
	Status int
	// After is how long the provider asks to wait; 0 when it does not say.
	After time.Duration
	// Kind is the name that AWS gives to what is wrong, such as "BadRequestException"; others give none.
	Kind string
	// Problem is said for answers that could not be read.
	Problem string
}

// Error tells the status and what it means for whoever set the provider up.
func (e *APIError) Error() string {
	switch {
	case e.Problem != "":
		return "the provider's API: " + e.Problem
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		return fmt.Sprintf("the provider's API answers %d: look at the API key and what it may do", e.Status)
	case e.Status == http.StatusTooManyRequests:
		return "the provider's API answers 429: too many requests"
	}
	if e.Kind != "" {
		return fmt.Sprintf("the provider's API answers %d, %s", e.Status, e.Kind)
	}
	return fmt.Sprintf("the provider's API answers %d", e.Status)
}

// Temporary tells whether the same call may succeed later without anybody's doing.
func (e *APIError) Temporary() bool {
	return e.Status == 0 || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout || e.Status >= 500 || e.Kind == "ThrottlingException"
}

// OfAddress tells whether the fault may lie in an address that was sent. AWS answers 400 too when it wants fewer calls, or the key
// may not make this one (its "common errors"), but names what is wrong.
func (e *APIError) OfAddress() bool {
	switch e.Kind {
	case "", "BadRequestException", "ValidationException", "ValidationError":
		return e.Status == http.StatusBadRequest || e.Status == http.StatusUnprocessableEntity
	}
	return false
}

// kindForm is a name of AWS; behind it, after a colon, may stand where it is explained.
var kindForm = regexp.MustCompile(`^[A-Za-z]{1,60}`)

// ErrUnreachable: there was no answer.
var ErrUnreachable = errors.New("the provider's API cannot be reached")

// maxAnswer bounds an answer of an API. Postmark gives a whole list in one.
const maxAnswer = 64 << 20

// maxWait is the longest that a Retry-After is believed.
const maxWait = time.Hour

// errAnswer is the one fault of answers that are no JSON of the documented form.
var errAnswer = &APIError{Problem: "an answer that cannot be read"}

// call makes one request; body is sent as JSON, or as a form when it is url.Values. The answer is read into out, unless that is
// nil.
func (a *API) call(ctx context.Context, auth func(*http.Request, []byte) error, method, path string, body, out any) (http.Header, error) {
	u := a.URL + path
	if strings.HasPrefix(path, "https://") || strings.HasPrefix(path, "http://") {
		u = path
	}
	var payload []byte
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case url.Values:
		payload, kind = []byte(b.Encode()), "application/x-www-form-urlencoded"
	default:
		var err error
		if payload, err = json.Marshal(b); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(payload))
	if err != nil {
		return nil, errors.New("the provider's API: the URL cannot be used") // the error itself would show it
	}
	if payload != nil {
		r.Header.Set("Content-Type", kind)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "optout")
	if err := auth(r, payload); err != nil {
		return nil, err
	}
	resp, err := a.Client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which may hold an address
		}
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
		return resp.Header, &APIError{Status: resp.StatusCode, After: a.after(resp.Header), Kind: kindForm.FindString(resp.Header.Get("X-Amzn-ErrorType"))}
	}
	limited := &io.LimitedReader{R: resp.Body, N: maxAnswer + 1}
	if out == nil {
		io.Copy(io.Discard, io.LimitReader(limited, 1<<20))
		return resp.Header, nil
	}
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t != "" && t != "application/json" && t != "application/x-amz-json-1.1" && t != "text/json" {
		return resp.Header, errAnswer
	}
	d := json.NewDecoder(limited)
	if err := d.Decode(out); err != nil {
		if limited.N <= 0 {
			return resp.Header, &APIError{Problem: "an answer of more than 64 MiB"}
		}
		if ctx.Err() != nil {
			return resp.Header, ctx.Err()
		}
		return resp.Header, errAnswer
	}
	return resp.Header, nil
}

// after reads Retry-After (RFC 9110 section 10.2.3), or SendGrid's X-RateLimit-Reset.
func (a *API) after(h http.Header) time.Duration {
	var d time.Duration
	if s := h.Get("Retry-After"); s != "" {
		if n, err := strconv.Atoi(s); err == nil {
			d = time.Duration(n) * time.Second
		} else if t, err := http.ParseTime(s); err == nil {
			d = t.Sub(a.Now())
		}
	} else if t := seconds(h.Get("X-RateLimit-Reset")); !t.IsZero() {
		d = t.Sub(a.Now())
	}
	return min(max(d, 0), maxWait)
}

// add puts an item on the page; what says nothing about the mailbox is left out.
func (p *Page) add(e Event) {
	e.Address = mailbox(e.Address)
	switch {
	case e.What == 0:
	case !usable(e.ID, e.Address):
		p.Unreadable++
	default:
		p.Items = append(p.Items, e)
	}
}

// sameHost tells whether a link that an answer gave stays with the API that it came from.
func (a *API) sameHost(link string) bool {
	base, err1 := url.Parse(a.URL)
	next, err2 := url.Parse(link)
	return err1 == nil && err2 == nil && next.Scheme == base.Scheme && next.Host == base.Host && next.User == nil
}
