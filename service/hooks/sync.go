package hooks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"optout/service/ledger"
	"optout/service/provider"
)

// Bounds of talking to a provider's API.
const (
	callsPerSecond = 5
	// maxPages bounds a pass over one list: 10 million addresses at 1 000 a page.
	maxPages = 10000
	// overlap is how far before the last complete pass a list is read again: for clocks that differ, and lists that lag.
	overlap = 24 * time.Hour
	// firstWait and longestWait bound the waits after failures.
	firstWait, longestWait = time.Second, 15 * time.Minute
	// lookForEntries is how often the ledger is looked at for opt-outs to push.
	lookForEntries = 5 * time.Second
	entriesAtOnce  = 500
)

// ErrUnknown: there is no provider of that id, or it has no API.
var ErrUnknown = errors.New("no such provider")

// errCircle is the fault of a list that has no end.
var errCircle = &provider.APIError{Problem: "a page of a list that leads to itself"}

// Progress tells how far a sync is.
type Progress struct {
	// List is what is being read; empty while opt-outs are pushed.
	List string
	// Read addresses were read, Recorded of them became entries; Unreadable could not be read.
	Read, Recorded, Unreadable int
	// Pushed addresses were put on the provider's list.
	Pushed int
	// Unknown opt-outs could not be pushed, for their address is known only by its key; Refused were not taken by the provider.
	Unknown, Refused int
}

// Run polls and pushes until ctx ends.
func (s *Server) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, r := range s.accounts {
		if r.poll != 0 {
			all.Go(func() {
				r.repeat(ctx, "poll", r.poll, func(ctx context.Context, p func(Progress)) error { return r.pollAll(ctx, false, p) })
			})
		}
		if r.push {
			all.Go(func() { r.repeat(ctx, "push", lookForEntries, r.pushAll) })
		}
	}
	all.Wait()
}

// repeat does something now and again; after a failure it waits longer and longer, and as long as the provider asks.
func (r *runner) repeat(ctx context.Context, what string, every time.Duration, do func(context.Context, func(Progress)) error) {
	wait, failures := time.Duration(0), 0
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		err := do(ctx, func(Progress) {})
		if ctx.Err() != nil {
			return
		}
		wait = every
		if err != nil {
			failures++
			wait = r.backOff(failures, err)
			r.opt.Log.Warn(what+" failed", "provider", r.id, "error", err, "again_in", wait)
		} else {
			failures = 0
		}
	}
}

// backOff is how long to wait after some failures in a row: doubling, spread, and not less than the provider asks.
func (r *runner) backOff(failures int, err error) time.Duration {
	d := min(firstWait<<min(failures-1, 20), longestWait)
	var b [4]byte
	if _, e := io.ReadFull(r.opt.Random, b[:]); e == nil {
		d = d/2 + time.Duration(uint64(d/2)*uint64(binary.BigEndian.Uint32(b[:]))>>32)
	}
	var api *provider.APIError
	if errors.As(err, &api) {
		if !api.Temporary() {
			d = longestWait // somebody must act: a key, a domain, a stream
		}
		d = max(d, api.After)
	}
	return d
}

// Sync reads the lists of a provider and pushes to it now. full reads everything, not only what is new. Errors: ErrUnknown, those of
// the API and of the ledger.
func (s *Server) Sync(ctx context.Context, id string, full bool, progress func(Progress)) error {
	r := s.byID[id]
	if r == nil || r.lister == nil {
		return ErrUnknown
	}
	err := r.pollAll(ctx, full, progress)
	if err == nil && r.push {
		err = r.pushAll(ctx, progress)
	}
	return err
}

// hold waits until nobody else talks to the provider's API.
func (r *runner) hold(ctx context.Context) (release func(), err error) {
	select {
	case r.api <- struct{}{}:
		return func() { <-r.api }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pollAll reads what is new on every list, or all of them from the beginning.
func (r *runner) pollAll(ctx context.Context, full bool, progress func(Progress)) (err error) {
	release, err := r.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	defer func() {
		r.update(func(s *Status) {
			s.PollError = words(err)
			if err == nil {
				s.LastPoll = r.opt.Now()
			}
		})
	}()
	if full { // not before: a pass that is under way would write its cursors over it
		if err := r.state.change(func(st *state) { st.Lists = map[string]pass{} }); err != nil {
			return err
		}
	}
	var refused error
	for _, list := range r.lister.Lists() {
		err := r.pollList(ctx, list, progress)
		var api *provider.APIError
		switch {
		case errors.As(err, &api) && !api.Temporary(): // the key may still be allowed to read the others
			if refused == nil {
				refused = fmt.Errorf("list %s: %w", list, err)
			}
		case err != nil:
			return err
		}
	}
	return refused
}

// pollList reads one list, from where it was left. The cursor moves on disk only after the entries of a page are durable.
func (r *runner) pollList(ctx context.Context, list string, progress func(Progress)) error {
	p := r.state.list(list)
	if p.Began.IsZero() {
		p.Began = r.opt.Now().UTC()
		if !p.Complete.IsZero() {
			p.Since = p.Complete.Add(-overlap)
		}
	}
	done := Progress{List: list}
	for range maxPages {
		page, err := r.page(ctx, list, p.Since, p.Cursor)
		var api *provider.APIError
		if p.Cursor != "" && errors.As(err, &api) && api.Status >= 400 && api.Status < 500 && !api.Temporary() && api.Status != http.StatusUnauthorized && api.Status != http.StatusForbidden {
			p.Cursor = "" // it has gone stale: what is read twice changes nothing
			page, err = r.page(ctx, list, p.Since, "")
		}
		if err != nil {
			return err
		}
		recordedNow, err := r.takePage(ctx, page, p.Since)
		if err != nil {
			return err
		}
		done.Read, done.Recorded, done.Unreadable = done.Read+len(page.Items), done.Recorded+recordedNow, done.Unreadable+page.Unreadable
		progress(done)
		if page.Unreadable > 0 {
			r.count("any", "unreadable", page.Unreadable)
			r.opt.Log.Error("addresses on a list cannot be read", "provider", r.id, "list", list, "unreadable", page.Unreadable)
		}
		if page.Next == "" {
			return r.state.change(func(s *state) { s.Lists[list] = pass{Complete: p.Began} })
		}
		if page.Next == p.Cursor {
			return errCircle
		}
		p.Cursor = page.Next
		if err := r.state.change(func(s *state) { s.Lists[list] = p }); err != nil {
			return err
		}
	}
	return &provider.APIError{Problem: "a list of more than 10 000 pages"}
}

// takePage records what a page holds and is new. What is dated before since was read by an earlier pass, or was brought to the list
// after that with the date of long ago: not every provider can tell since when. Whatever of it is not in force is taken as history.
func (r *runner) takePage(ctx context.Context, page *provider.Page, since time.Time) (int, error) {
	var fresh, old []provider.Event
	for i := range page.Items {
		e := &page.Items[i]
		if since.IsZero() || e.Occurred.IsZero() || !e.Occurred.Before(since) {
			fresh = append(fresh, *e)
			continue
		}
		story, err := r.opt.Ledger.Recipient(ctx, r.sender, e.Address)
		switch {
		case errors.Is(err, ledger.ErrInvalidAddress):
		case err != nil:
			return 0, err
		case !r.denied(story, e):
			old = append(old, *e)
		}
	}
	n, err := r.recordAll(ctx, fresh, since.IsZero())
	if err != nil {
		return n, err
	}
	more, err := r.recordAll(ctx, old, true)
	return n + more, err
}

// page makes one paced call.
func (r *runner) page(ctx context.Context, list string, since time.Time, cursor string) (*provider.Page, error) {
	if err := r.pace.Wait(ctx); err != nil {
		return nil, err
	}
	return r.lister.List(ctx, list, since, cursor)
}

// words are an error's, for the status; empty for none.
func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// stopsAll tells whether a provider that sends mail of the topic, or of every topic when it is "", must not mail whoever has these
// verdicts, but for required mail.
func stopsAll(story *ledger.Story, topic string) bool {
	n := 0
	for _, v := range story.Verdicts {
		if v.Topic.Class == ledger.Required || topic != "" && v.Topic.Name != topic {
			continue
		}
		n++
		if !optedOut(v) {
			return false
		}
	}
	return n > 0
}

// optedOut tells whether a person's no is among the reasons.
func optedOut(v *ledger.Verdict) bool {
	for _, d := range v.Denials {
		switch d.Reason {
		case ledger.ReasonOptedOutAll, ledger.ReasonOptedOutCommercial, ledger.ReasonOptedOutTopic:
			return true
		}
	}
	return false
}
