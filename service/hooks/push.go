package hooks

import (
	"context"
	"errors"
	"strings"
	"time"

	"optout/service/ledger"
	"optout/service/provider"
)

// What is pushed: opt-outs from ALL correspondence, and where all mail through the provider is of one topic, also those that stop
// that topic. Not complaints, which deny commercial mail only, and not undeliverable or restricted addresses, whose denial can end
// while nothing is ever taken off a provider's list.

// pushable tells whether an entry is one to push.
func (a *account) pushable(s *ledger.Sender, e *ledger.Entry) bool {
	if e.Kind != ledger.OptedOut || e.Sender != s.Number {
		return false
	}
	if e.Scope == s.All() {
		return true
	}
	t := s.Topic(a.topic)
	return a.topic != "" && t != nil && (e.Scope == t.Number || t.Class == ledger.Commercial && e.Scope == s.Commercial())
}

// outgoing is an address to push, and the position that is reached with it.
type outgoing struct {
	address  string
	position uint64
}

// pushAll puts the opt-outs that came since the cursor on the provider's list, in order. The cursor moves only behind what the
// provider has taken, so each is pushed at least once.
func (r *runner) pushAll(ctx context.Context, progress func(Progress)) (err error) {
	if r.state.pushed() >= r.opt.Ledger.Position().Number {
		return nil
	}
	release, err := r.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	defer func() {
		r.update(func(s *Status) {
			s.PushError = words(err)
			if err == nil {
				s.LastPush = r.opt.Now()
			}
		})
	}()
	var done Progress
	for {
		more, err := r.pushSome(ctx, &done)
		progress(done)
		if err != nil || !more {
			return err
		}
	}
}

// pushSome pushes what a page of entries holds; more tells that there are others.
func (r *runner) pushSome(ctx context.Context, done *Progress) (more bool, err error) {
	s := r.opt.Ledger.Registry().Sender(r.sender)
	cursor := r.state.pushed()
	mine := func(n uint32) bool { return n == s.Number }
	lines, page, err := r.opt.Ledger.Entries(ctx, ledger.Page{Size: entriesAtOnce, Next: cursor + 1}, mine, []ledger.Kind{ledger.OptedOut})
	if err != nil {
		return false, err
	}
	reached, more := page.Bound, page.Next != 0
	if more {
		reached = page.Next - 1
	}
	var out []outgoing
	for i := range lines {
		l := &lines[i]
		if l.Flags&ledger.FlagUndoable != 0 && r.opt.Now().Before(ledger.Time(l.At).Add(ledger.UndoWindow)) {
			// Its person can still take it back, and nothing is ever taken off the list.
			reached, more = l.Position-1, false
			break
		}
		address, known, err := r.toPush(ctx, s, l)
		switch {
		case err != nil:
			return false, err
		case !known:
			done.Unknown++
			r.update(func(s *Status) { s.Unknown++ })
		case address != "":
			out = append(out, outgoing{address, l.Position})
		}
	}
	if err := r.send(ctx, out, done); err != nil {
		return false, err
	}
	if reached > r.state.pushed() {
		if err := r.state.change(func(st *state) { st.Pushed = reached }); err != nil {
			return false, err
		}
	}
	return more, nil
}

// toPush is the address of an entry that is to be pushed; empty when it is not. known is false when it would be, but its address is
// not known in clear.
func (r *runner) toPush(ctx context.Context, s *ledger.Sender, l *ledger.Line) (address string, known bool, err error) {
	if !r.pushable(s, &l.Entry) || r.has(l) {
		return "", true, nil
	}
	if address, err = r.opt.Ledger.AddressOf(ctx, l); err != nil || address == "" {
		if standing, _ := r.opt.Ledger.InForce(l.Scope, l.Key); err == nil && standing == 0 {
			return "", true, nil // voided or undone
		}
		return "", false, err
	}
	story, err := r.opt.Ledger.Recipient(ctx, r.sender, address)
	if err != nil {
		return "", false, err
	}
	if !stopsAll(story, r.topic) {
		return "", true, nil // voided or undone; or the person wants some of the mail after all, which the list would stop
	}
	return address, true, nil
}

// saveEvery is how often the cursor is saved while calls succeed one after the other.
const saveEvery = time.Second

// send makes the calls. The cursor follows, so that after a failure the rest alone is sent again.
func (r *runner) send(ctx context.Context, out []outgoing, done *Progress) error {
	saved, reached := time.Now(), r.state.pushed()
	save := func() error {
		if saved = time.Now(); reached == r.state.pushed() {
			return nil
		}
		return r.state.change(func(st *state) { st.Pushed = reached })
	}
	for len(out) > 0 {
		n := min(len(out), r.suppresser.SuppressAtOnce())
		batch := make([]string, 0, n)
		seen := map[string]bool{}
		for _, o := range out[:n] {
			if low := strings.ToLower(o.address); !seen[low] {
				seen[low] = true
				batch = append(batch, o.address)
			}
		}
		if r.run.at = reached; r.run.n == 0 {
			r.run.before = reached
		}
		refused, err := r.suppress(ctx, batch)
		if err != nil && r.run.n >= maxRefusals {
			// The set-up is at fault, not those addresses: all of them are sent again, with what follows.
			done.Refused = max(0, done.Refused-r.run.counted)
			r.update(func(s *Status) { s.Refused -= uint64(r.run.counted) })
			reached, r.run = r.run.before, refusals{}
		}
		if err != nil {
			return errors.Join(err, save())
		}
		done.Pushed += len(batch) - refused
		done.Refused += refused
		if refused > 0 {
			r.opt.Log.Warn("the provider did not take some opt-outs", "provider", r.id, "refused", refused)
		}
		r.update(func(s *Status) {
			s.Pushed += uint64(len(batch) - refused)
			s.Refused += uint64(refused)
		})
		r.count("push", "pushed", len(batch)-refused)
		r.count("push", "refused", refused)
		r.run.counted = r.run.n
		reached, out = out[n-1].position, out[n:]
		if time.Since(saved) >= saveEvery {
			if err := save(); err != nil {
				return err
			}
		}
	}
	return nil
}

// refusals is a run of addresses that were refused one by one, with none between them that was taken.
type refusals struct {
	// n is how many, and counted how many of them are counted as refused.
	n, counted int
	// before is how far the cursor was when the run began, and at how far it is.
	before, at uint64
}

// maxRefusals is how many addresses in a row may be refused one by one before that is taken for a fault of the set-up.
const maxRefusals = 20

// suppress makes one call. When the provider finds fault with what it was sent, the batch is halved until the address is found
// that it will not take, so that one odd address never keeps back the others, or all that come after.
func (r *runner) suppress(ctx context.Context, batch []string) (refused int, err error) {
	if err := r.pace.Wait(ctx); err != nil {
		return 0, err
	}
	which, err := r.suppresser.Suppress(ctx, batch)
	var api *provider.APIError
	switch {
	case err == nil:
		r.run = refusals{before: r.run.at, at: r.run.at}
		return len(which), nil
	case !errors.As(err, &api) || !api.OfAddress():
		return 0, err
	case len(batch) == 1:
		if r.run.n++; r.run.n >= maxRefusals {
			return 0, err
		}
		return 1, nil
	}
	for _, half := range [][]string{batch[:len(batch)/2], batch[len(batch)/2:]} {
		n, err := r.suppress(ctx, half)
		if err != nil {
			return 0, err
		}
		refused += n
	}
	return refused, nil
}
