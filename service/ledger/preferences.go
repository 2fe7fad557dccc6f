package ledger

import (
	"context"
	"fmt"
	"time"

	"optout/service/standing"
)

// Preference is one choice of a person: to stop a scope, to pause it until a moment, or to end its pause.
type Preference struct {
	// Kind is OptedOut, Paused or Resumed.
	Kind  Kind
	Scope Scope
	// Until goes with Paused.
	Until time.Time
}

// Limits of UpdatePreferences.
const (
	MaxPreferences = 100
	MaxPause       = 366 * 24 * time.Hour
)

// UpdatePreferences records choices that a person made together, all or none. It never says yes: ending a pause restores only
// what the pause withheld. It needs a RequestID. It returns the entries written. Errors: those of OptOut, and
// ErrRequestIDRequired.
func (l *Ledger) UpdatePreferences(ctx context.Context, by By, sender, addr string, choices []Preference) ([]uint64, Outcome, error) {
	if err := requireRequestID(by.RequestID); err != nil {
		return nil, Outcome{}, err
	}
	m, err := l.mailbox(sender, addr)
	if err != nil {
		return nil, Outcome{}, err
	}
	if len(choices) == 0 || len(choices) > MaxPreferences {
		return nil, Outcome{}, &Error{Kind: ErrTooManyItems, Field: "changes", Problem: fmt.Sprintf("a call takes 1 to %d changes", MaxPreferences), Remedy: "split them"}
	}
	if err := l.checkBy(&by); err != nil {
		return nil, Outcome{}, err
	}
	content := []any{"preferences", m.key()}
	entries := make([]Entry, len(choices))
	for i, c := range choices {
		e := m.target(c.Kind, by)
		if e.Scope, err = scopeNumber(m.sender, fmt.Sprintf("changes[%d].scope", i), c.Scope); err != nil {
			return nil, Outcome{}, err
		}
		switch c.Kind {
		case OptedOut, Resumed:
		case Paused:
			now := l.opt.Now()
			if !c.Until.After(now) || c.Until.After(now.Add(MaxPause)) {
				return nil, Outcome{}, invalid(fmt.Sprintf("changes[%d].pause.until", i), "it must lie in the future, at most a year away", "to stop for good, opt out")
			}
			e.Until = millis(c.Until)
		default:
			return nil, Outcome{}, invalid(fmt.Sprintf("changes[%d]", i), "no choice is given", "give opt_out, pause or resume")
		}
		entries[i] = e
		content = append(content, c.Kind, e.Scope, e.Until)
	}
	req, err := l.beginRequest(ctx, m.sender.Number, by.RequestID, content...)
	if err != nil {
		return nil, Outcome{}, err
	}
	row, err := l.newPersonal(map[string]string{"address": addr}, by.Evidence)
	if err != nil {
		return nil, Outcome{}, err
	}
	var written []uint64
	o, err := l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		written = nil
		var last uint64
		for i := range entries {
			e := entries[i]
			e.Request = req.id
			if e.Kind == OptedOut {
				if at := standingNo(t, &m.keys, &e); at != 0 {
					last = max(last, at)
					continue
				}
			}
			if e.Kind == Resumed && !paused(t.record(standing.Key(e.Key)), e.Scope) {
				continue
			}
			at, err := t.add(&e, row)
			if err != nil {
				return 0, false, err
			}
			written, last = append(written, at), at
		}
		return last, len(written) > 0, nil
	}, false)
	if err != nil { // of which written says nothing: the commit loop may still be at it
		return nil, Outcome{}, err
	}
	if req.replay && o.Created {
		written = []uint64{o.Entry}
		for p := o.Entry - 1; ; p-- {
			e, err := l.entry(ctx, p)
			if err != nil || e.Request != req.id {
				break
			}
			written = append([]uint64{p}, written...)
		}
	}
	return written, o, nil
}

func paused(rec *standing.Record, scope uint32) bool {
	for i := range rec.Facts {
		if f := &rec.Facts[i]; kindOf(f) == Paused && f.Scope == scope {
			return true
		}
	}
	return false
}

// UnlinkPerson parts an address from its person: opt-outs said at the person's other addresses no longer cover it, what was
// said at the address itself stays. It needs a RequestID. Outcome.Entry is 0 when the address was joined to nobody. Errors:
// ErrRoleRequired, ErrRequestIDRequired, and those of a write.
func (l *Ledger) UnlinkPerson(ctx context.Context, by By, sender, addr, justification string) (Outcome, error) {
	if err := requireRequestID(by.RequestID); err != nil {
		return Outcome{}, err
	}
	if err := requireRole(by, RoleOperator, RolePrivacy); err != nil {
		return Outcome{}, err
	}
	m, err := l.mailbox(sender, addr)
	if err != nil {
		return Outcome{}, err
	}
	if err := checkText("justification", justification, 500, true); err != nil {
		return Outcome{}, err
	}
	req, err := l.beginRequest(ctx, m.sender.Number, by.RequestID, "unlink", m.key())
	if err != nil {
		return Outcome{}, err
	}
	row, err := l.newPersonal(map[string]string{"address": addr}, by.Evidence)
	if err != nil {
		return Outcome{}, err
	}
	return l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		rec := t.record(standing.Key(m.key()))
		if rec.Person == (standing.Key{}) {
			return 0, false, nil
		}
		e := m.target(Unlinked, by)
		e.Person, e.Request, e.Detail = [16]byte(rec.Person), req.id, map[string]string{"justification": justification}
		at, err := t.add(&e, row)
		return at, true, err
	}, false)
}
