package ledger

import (
	"context"
	"fmt"
	"time"

	"optout/service/address"
	"optout/service/standing"
)

// Failure says how mail to an address failed.
type Failure uint8

// Failures.
const (
	// HardFailure: the mailbox or its domain does not exist.
	HardFailure Failure = 1
	// SoftFailure: not for now (mailbox full, host unreachable).
	SoftFailure Failure = 2
)

// Soft failures make an address undeliverable when there were SoftDays of them, on different days (UTC) within SoftWindow, and the
// first and the last are at least SoftSpan apart. It ends by itself after SoftRest.
const (
	SoftDays   = 5
	SoftSpan   = 14 * 24 * time.Hour
	SoftWindow = 180 * 24 * time.Hour
	SoftRest   = 180 * 24 * time.Hour
)

// Bounce records that mail to an address key failed, as a report says that came back to the signed return path; whoever calls
// has opened its token. A hard failure makes the address undeliverable; a soft one does when it goes on. Nothing is written for a
// second soft failure of one day, or when the address is undeliverable already. detail is what is not personal, such as the status
// code. Errors: ErrNotFound for a scope that this ledger does not have, ErrInvalidField, and those of a write.
func (l *Ledger) Bounce(ctx context.Context, by By, scope uint32, generation uint16, key address.Key, f Failure, detail map[string]string) (Outcome, error) {
	s, _, _, ok := l.Registry().Scope(scope)
	if !ok {
		return Outcome{}, ErrNotFound
	}
	if f != HardFailure && f != SoftFailure {
		return Outcome{}, invalid("failure", fmt.Sprintf("%d is no failure", f), "it is hard or soft")
	}
	by.Channel = ByFeedback
	if err := l.checkBy(&by); err != nil {
		return Outcome{}, err
	}
	req, err := l.beginRequest(ctx, s.Number, by.RequestID, "bounce", key, f)
	if err != nil {
		return Outcome{}, err
	}
	row, err := l.newPersonal(by.Evidence)
	if err != nil {
		return Outcome{}, err
	}
	var keys address.Keys
	keys.N, keys.Of[0] = 1, address.GenerationKeys{Generation: generation, Suppression: key}
	return l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		e := Entry{Kind: Undeliverable, Channel: by.Channel, Generation: generation, Sender: s.Number, Mailing: by.Mailing, Actor: by.Key,
			Occurred: millis(by.Occurred), Key: key, Detail: detail}
		if req != nil {
			e.Request = req.id
		}
		if at := standingFact(t, &keys, &e); at != 0 {
			return at, false, nil
		}
		if f == HardFailure {
			at, err := t.add(&e, row)
			return at, true, err
		}
		soft := e
		soft.Kind = Bounced
		seen, enough := softFailures(t.record(standing.Key(key)), t.now)
		if seen != 0 {
			return seen, false, nil
		}
		at, err := t.add(&soft, row)
		if err != nil || !enough {
			return at, true, err
		}
		e.Until, e.Ref = t.now+SoftRest.Milliseconds(), at
		if standingFact(t, &keys, &e) != 0 { // undeliverable for a while already
			return at, true, nil
		}
		at, err = t.add(&e, nil)
		return at, true, err
	}, false)
}

// softFailures looks at the soft failures of an address since its last confirmed yes. seen is the one of today, if there is
// one; enough tells whether one more, now, makes it undeliverable.
func softFailures(rec *standing.Record, now int64) (seen uint64, enough bool) {
	since := now - SoftWindow.Milliseconds()
	for i := range rec.Facts {
		if f := &rec.Facts[i]; kindOf(f) == Confirmed {
			since = max(since, f.At)
		}
	}
	days, first := 1, now
	for i := range rec.Facts {
		f := &rec.Facts[i]
		if kindOf(f) != Bounced || f.At < since {
			continue
		}
		if f.At/day == now/day {
			seen = f.Entry
		}
		days++
		first = min(first, f.At)
	}
	return seen, days >= SoftDays && now-first >= SoftSpan.Milliseconds()
}
