package hooks

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"optout/service/ledger"
	"optout/service/provider"
)

// Outcomes of an event.
const (
	recorded = "recorded" // an entry was written
	repeated = "known"    // it was in force already, came before, or is what we put on the list ourselves
	unusable = "unusable" // not an address that anybody could be asked to mail
)

// recorders bounds how many events of a batch are written at once: they share commits.
const recorders = 32

// recordAll makes every event durable, or returns an error. It tells how many became entries.
func (a *runner) recordAll(ctx context.Context, events []provider.Event, history bool) (int, error) {
	var wait sync.WaitGroup
	var mu sync.Mutex
	var failed error
	entries := 0
	slots := make(chan struct{}, recorders)
	for i := range events {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			outcome, err := a.record(ctx, &events[i], history)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
			}
			if outcome == recorded {
				entries++
			}
		})
	}
	wait.Wait()
	return entries, failed
}

// record makes one event durable. history tells that it is the first time that its list is read: what stands there happened over
// years, and many bounces of one domain are no sign that its servers are wrong today.
func (a *runner) record(ctx context.Context, e *provider.Event, history bool) (outcome string, err error) {
	outcome, err = a.enter(ctx, e, history)
	switch {
	case errors.Is(err, ledger.ErrInvalidAddress):
		// It can never be mailed, for a check of it is an error, so there is nothing to stop. To ask for it again would hold up the
		// rest for ever.
		a.opt.Log.Warn("an event names what is no usable address", "provider", a.id, "event", e.Source)
		outcome, err = unusable, nil
	case errors.Is(err, ledger.ErrRequestIDReused):
		outcome, err = repeated, nil // the event was recorded when the configuration said another scope
	}
	if err != nil {
		return "", err
	}
	a.count(e.What.String(), outcome, 1)
	if outcome == recorded {
		a.update(func(s *Status) { s.Recorded++ })
	}
	return outcome, nil
}

// enter makes the ledger's call.
func (a *runner) enter(ctx context.Context, e *provider.Event, history bool) (string, error) {
	by := ledger.By{Channel: ledger.ByWebhook, Occurred: e.Occurred, Evidence: map[string]string{"provider": a.id, "source": a.id + " " + e.Source, "event": e.ID, "diagnostic": e.Words}}
	if e.Group != "" {
		by.Evidence["group"] = e.Group
	}
	if e.Among > 1 {
		by.Evidence["note"] = "the provider cannot tell which of " + strconv.Itoa(e.Among) + " recipients complained"
	}
	if by.Occurred.After(a.opt.Now()) {
		by.Occurred = time.Time{} // their clock is ahead
	}
	scope := a.scopeOf(e)
	identity := e.ID
	if e.Listed {
		story, err := a.opt.Ledger.Explain(ctx, a.sender, e.Address)
		if err != nil {
			return "", err
		}
		if a.known(story, e, scope) {
			return repeated, nil
		}
		identity += "/" + story.Key.String() // a list has no ids; the key is no address, and stays when it is erased
	}
	before := a.opt.Ledger.Position().Number
	o, err := a.write(ctx, e, by, identity, scope, history)
	if errors.Is(err, ledger.ErrRequestIDReused) && !e.Listed {
		// The provider has given one id to two things: to events of two addresses, or of two kinds; or the configuration said another
		// scope when it came first. What is about another address, or says something else, must not be lost.
		key, _, keyErr := a.opt.Ledger.AddressKey(a.opt.Ledger.Registry().Sender(a.sender), e.Address)
		if keyErr != nil {
			return "", keyErr
		}
		o, err = a.write(ctx, e, by, identity+"/"+key.String()+"/"+e.What.String(), scope, history)
	}
	if err != nil {
		return "", err
	}
	if o.Created && o.Entry > before { // a repeated call is answered as it was the first time
		return recorded, nil
	}
	return repeated, nil
}

// write makes the ledger's call under an identity.
func (a *runner) write(ctx context.Context, e *provider.Event, by ledger.By, identity string, scope ledger.Scope, history bool) (ledger.Outcome, error) {
	by.RequestID = a.requestID(identity)
	detail := map[string]string{"provider": a.id, "source": e.Source}
	if e.Status != "" {
		detail["status"] = e.Status
	}
	switch e.What {
	case provider.Unsubscribed:
		return a.opt.Ledger.OptOut(ctx, by, a.sender, e.Address, scope)
	case provider.Complained:
		return a.opt.Ledger.Suppress(ctx, by, ledger.Suppression{Sender: a.sender, Address: e.Address, Reason: ledger.ReasonComplaint, Topic: a.topic})
	case provider.HardBounce:
		if history {
			return a.opt.Ledger.Suppress(ctx, by, ledger.Suppression{Sender: a.sender, Address: e.Address, Reason: ledger.ReasonUndeliverable})
		}
		return a.opt.Ledger.BounceAddress(ctx, by, a.sender, e.Address, ledger.Failed{Failure: ledger.HardFailure, Detail: detail})
	}
	return a.opt.Ledger.BounceAddress(ctx, by, a.sender, e.Address, ledger.Failed{Failure: ledger.SoftFailure, Detail: detail})
}

// scopeOf is what an unsubscribe covers: the topic of its group, if the configuration says one, else the provider's scope.
func (a *account) scopeOf(e *provider.Event) ledger.Scope {
	if t := a.groups[e.Group]; e.Group != "" && t != "" {
		return ledger.Scope{Kind: ledger.ScopeTopic, Topic: t}
	}
	return a.scope
}

// requestID is the ledger's id of an event: of this provider alone, and of a form that the ledger takes.
func (a *account) requestID(identity string) string {
	sum := sha256.Sum256([]byte(identity))
	return "hook/" + a.id + "/" + base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:20])
}

// known tells whether the ledger has heard already of what a list says: an entry of the same meaning that it took at the moment
// when the address came on the list, or later; or an opt-out that we put on the list ourselves. Without it, a person who said
// yes again after all would be stopped by the list, from which nothing is ever taken off.
func (a *runner) known(story *ledger.Story, e *provider.Event, scope ledger.Scope) bool {
	undone := map[uint64]bool{}
	var yeses []int64
	for i := range story.Lines {
		switch l := &story.Lines[i]; {
		case l.Kind == ledger.Undone:
			undone[l.Ref] = true
		case l.Kind == ledger.Confirmed, l.Kind == ledger.Subscribed && l.Flags&ledger.FlagLifts != 0:
			yeses = append(yeses, l.At)
		}
	}
	listed, pushed := e.Occurred.UnixMilli(), a.state.pushed()
	for i := range story.Lines {
		l := &story.Lines[i]
		if undone[l.Position] {
			continue
		}
		if l.Kind == ledger.OptedOut && l.Position <= pushed && !a.has(l) && a.pushable(story.Sender, &l.Entry) && a.shows(e) {
			// We put it there, unless the person said yes again before it came on the list: then somebody has taken it off in
			// between, for we push nobody who said yes again, and the person has stopped it anew.
			again := slices.ContainsFunc(yeses, func(at int64) bool { return at > l.At && at <= listed })
			if e.Occurred.IsZero() || !again {
				return true
			}
		}
		if sameMeaning(story.Sender, &l.Entry, e.What, scope) && (e.Occurred.IsZero() || l.At >= listed) {
			return true
		}
	}
	return false
}

// has tells whether an opt-out is one that the provider told us of its whole list, so that it need not be told. Of a part it told us
// for that part alone, and goes on with the others.
func (a *account) has(l *ledger.Line) bool {
	return l.Evidence["provider"] == a.id && l.Evidence["group"] == ""
}

// shows tells whether what we push shows on the list as this.
func (a *account) shows(e *provider.Event) bool {
	return e.What == provider.Unsubscribed && e.Group == "" || a.kind == provider.SES && e.What == provider.Complained
}

// sameMeaning tells whether an entry says what an event says, or more.
func sameMeaning(s *ledger.Sender, l *ledger.Entry, what provider.What, scope ledger.Scope) bool {
	switch what {
	case provider.Complained:
		return l.Kind == ledger.Complained
	case provider.HardBounce:
		return l.Kind == ledger.Undeliverable
	case provider.Unsubscribed:
	default:
		return false
	}
	if l.Kind != ledger.OptedOut {
		return false
	}
	switch scope.Kind {
	case ledger.ScopeCommercial:
		return l.Scope == s.All() || l.Scope == s.Commercial()
	case ledger.ScopeTopic:
		t := s.Topic(scope.Topic)
		return l.Scope == s.All() || t != nil && (l.Scope == t.Number || t.Class == ledger.Commercial && l.Scope == s.Commercial())
	}
	return l.Scope == s.All()
}
