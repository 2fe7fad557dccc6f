// Package hooks joins email service providers to the ledger: what their webhooks tell and what stands on their suppression lists
// becomes entries, our opt-outs are put on their lists, and a drift report shows where the two differ.
//
// A webhook is answered 2xx only when every event in it is durable. Whatever a provider says can only stop mail: its
// "resubscribed" lifts nothing, and nothing is ever taken off its lists. Every event is known for ever by the provider's id of it
// (request_id), so repeating one does nothing. What we put on a list ourselves, and read back, becomes no entry.
package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"optout/service/ledger"
	"optout/service/provider"
)

// Options are what the providers need.
type Options struct {
	Ledger *ledger.Ledger
	// Config is the path of the file that describes them.
	Config string
	// Folder keeps what was read and written so far; made 0700.
	Folder string
	// Client reaches APIs and certificates; nil means one of its own, with time limits.
	Client *http.Client
	Now    func() time.Time
	// Random spreads the waits after failures.
	Random io.Reader
	// CallsPerSecond bounds the calls to the API of each provider; 0 means 5.
	CallsPerSecond int
	Log            *slog.Logger
	// Observe counts what became of events, by provider; may be nil.
	Observe func(provider, what, outcome string, n int)
}

// Server answers webhooks, polls and pushes.
type Server struct {
	opt      Options
	accounts []*runner
	byID     map[string]*runner
	// busy holds a token for each webhook request that is being recorded, large one for each with a large body.
	busy, large chan struct{}
}

// runner is an account at work.
type runner struct {
	*account
	*Server
	nonces *nonces
	state  *stateFile
	// api holds a token of whoever talks to the provider's API: one poll, push or comparison at a time.
	api chan struct{}
	// run are the addresses refused since the provider last took one; of whoever holds api.
	run refusals
	// pace bounds the calls.
	pace *rate.Limiter

	mu     sync.Mutex
	status Status
}

// New reads the configuration and what was done so far. It fails when anything in the file is not right: a provider that is half
// set up would pass for one that tells of no opt-outs.
func New(o Options) (*Server, error) {
	if o.Client == nil {
		o.Client = httpClient()
	}
	if o.CallsPerSecond == 0 {
		o.CallsPerSecond = callsPerSecond
	}
	if o.Observe == nil {
		o.Observe = func(string, string, string, int) {}
	}
	all, err := readConfig(o.Config, &o)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Folder, 0o700); err != nil {
		return nil, err
	}
	s := &Server{opt: o, byID: map[string]*runner{}, busy: make(chan struct{}, maxBusy), large: make(chan struct{}, maxBusy)}
	for _, a := range all {
		r := &runner{account: a, Server: s, api: make(chan struct{}, 1), pace: rate.NewLimiter(rate.Limit(o.CallsPerSecond), o.CallsPerSecond), status: Status{ID: a.id, Kind: string(a.kind), Sender: a.sender, Webhook: a.webhook, Poll: a.poll, Push: a.push}}
		if a.webhook {
			r.status.Path = "/hooks/" + string(a.kind) + "/" + a.id
		}
		if r.state, err = openState(filepath.Join(o.Folder, a.id+".json"), o.Ledger); err == nil {
			r.nonces, err = openNonces(filepath.Join(o.Folder, a.id+".tokens"), o.Now())
		}
		if err != nil {
			return nil, fmt.Errorf("provider %s: %w", a.id, err)
		}
		s.accounts, s.byID[a.id] = append(s.accounts, r), r
	}
	return s, nil
}

// Close gives up files. No request may be under way.
func (s *Server) Close() error {
	var errs []error
	for _, r := range s.accounts {
		errs = append(errs, r.nonces.close())
	}
	return errors.Join(errs...)
}

// Limits of webhook requests.
const (
	// maxBusy requests are recorded at once, and as many are large ones that are read; more are asked to come again.
	maxBusy = 128
	// smallBody is how many octets of a body are read without more ado: anybody can begin a request and be slow with it, and must not
	// keep the providers out by that. Whoever has sent as many has largeTimeout for the rest.
	smallBody    = 64 << 10
	largeTimeout = 3 * time.Second
	// recordTimeout is how long a batch may take to become durable. It goes on when the provider has hung up.
	recordTimeout = 20 * time.Second
	retryAfter    = "30"
)

// Route tells the kind and the id that a path asks for: /hooks/{kind}/{id}, perhaps behind the path of a public URL.
func Route(p string) (kind, id string, ok bool) {
	parts := strings.Split(path.Clean("/"+p), "/")
	n := len(parts)
	if n < 4 || parts[n-3] != "hooks" {
		return "", "", false
	}
	return parts[n-2], parts[n-1], true
}

// ServeHTTP answers a webhook.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	kind, id, _ := Route(r.URL.Path)
	a := s.byID[id]
	if a == nil || string(a.kind) != kind || !a.webhook {
		answer(w, http.StatusNotFound, "There is nothing here.")
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		answer(w, http.StatusMethodNotAllowed, "This address answers POST.")
		return
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		answer(w, http.StatusUnsupportedMediaType, "Send it without Content-Encoding.")
		return
	}
	body, done, err := s.body(w, r)
	defer done()
	var large *http.MaxBytesError
	switch {
	case errors.Is(err, provider.ErrLater):
		later(w)
		return
	case errors.As(err, &large):
		answer(w, http.StatusRequestEntityTooLarge, "It is larger than 1 MiB.")
		return
	case err != nil:
		answer(w, http.StatusBadRequest, "It could not be read.")
		return
	}
	select {
	case s.busy <- struct{}{}:
		defer func() { <-s.busy }()
	default:
		later(w)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), recordTimeout)
	defer cancel()
	a.receive(ctx, w, &provider.Request{Header: r.Header, Body: body, At: s.opt.Now()})
}

// body reads a body; done gives back its place among the large ones. Errors: ErrLater, *http.MaxBytesError, those of the connection.
func (s *Server) body(w http.ResponseWriter, r *http.Request) (body []byte, done func(), err error) {
	rest := http.MaxBytesReader(w, r.Body, provider.MaxBody)
	body, err = io.ReadAll(io.LimitReader(rest, smallBody))
	if err != nil || len(body) < smallBody {
		return body, func() {}, err
	}
	select {
	case s.large <- struct{}{}:
		done = func() { <-s.large }
	default:
		return nil, func() {}, provider.ErrLater
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(largeTimeout)); err != nil {
		return nil, done, err
	}
	more, err := io.ReadAll(rest)
	return append(body, more...), done, err
}

// receive checks, records and answers one request.
func (a *runner) receive(ctx context.Context, w http.ResponseWriter, r *provider.Request) {
	d, err := a.receiver.Receive(ctx, r)
	if err == nil && d.Nonce != "" {
		err = a.nonces.take(d.Nonce, r.Body, d.NonceEnds, r.At)
	}
	if err != nil {
		a.refuse(w, err)
		return
	}
	if d.Control != "" {
		a.opt.Log.Warn("webhook: "+d.Control, "provider", a.id)
		a.update(func(s *Status) { s.LastControl = d.Control })
	}
	a.count("any", "ignored", d.Ignored)
	a.count("unsubscribe", "resubscribe_ignored", d.Resubscribed)
	a.count("any", "unreadable", d.Unreadable)
	if _, err := a.recordAll(ctx, d.Events, false); err != nil {
		if !errors.Is(err, ledger.ErrStorageFull) && !errors.Is(err, ledger.ErrClosed) {
			a.opt.Log.Error("webhook: events could not be recorded: the provider is asked to repeat them", "provider", a.id, "error", err)
		}
		later(w)
		return
	}
	a.update(func(s *Status) { s.LastEvent = r.At })
	if d.Unreadable > 0 {
		// All others are durable. The provider shows its owner that something is wrong, and what it repeats does nothing.
		a.opt.Log.Error("webhook: events of the request cannot be read", "provider", a.id, "unreadable", d.Unreadable, "recorded", len(d.Events))
		answer(w, http.StatusBadRequest, "Some events could not be read; all others are recorded.")
		return
	}
	answer(w, http.StatusOK, "Recorded.")
}

// refuse answers a request that is not taken.
func (a *runner) refuse(w http.ResponseWriter, err error) {
	a.opt.Log.Warn("webhook: a request was refused", "provider", a.id, "why", err)
	a.count("any", "refused", 1)
	switch {
	case errors.Is(err, provider.ErrCredential):
		w.Header().Set("WWW-Authenticate", `Basic realm="optout"`)
		answer(w, http.StatusUnauthorized, "No valid credential.")
	case errors.Is(err, provider.ErrForged), errors.Is(err, provider.ErrStale):
		answer(w, http.StatusForbidden, "The signature does not fit.")
	case errors.Is(err, provider.ErrMalformed):
		answer(w, http.StatusBadRequest, "It could not be read.")
	default:
		later(w)
	}
}

func (a *runner) count(what, outcome string, n int) {
	if n > 0 {
		a.opt.Observe(a.id, what, outcome, n)
	}
}

func later(w http.ResponseWriter) {
	w.Header().Set("Retry-After", retryAfter)
	answer(w, http.StatusServiceUnavailable, "Please send it again.")
}

func answer(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, s+"\n")
}
