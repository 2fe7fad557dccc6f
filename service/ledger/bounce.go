package ledger

import (
	"context"
	"fmt"
	"maps"
	"strings"
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

// Failed is what a report says of mail to one address.
type Failed struct {
	Failure Failure
	// Domain is the domain of the address that failed, where it is known: when many of one domain fail that do not otherwise, its
	// servers may be wrong, and what they say is held in the queue.
	Domain string
	// Detail is what is not personal, such as the status code.
	Detail map[string]string
}

// Bounce records that mail to an address key failed, as a report says that came back to the signed return path; whoever calls
// has opened its token. A hard failure makes the address undeliverable; a soft one does when it goes on. Nothing is written for a
// second soft failure of one day, or when the address is undeliverable already. Hard failures that are part of a storm of their
// domain wait in the queue, once for each address. Errors: ErrNotFound for a scope that this ledger does not have, ErrInvalidField,
// ErrQueueFull when too many wait, and those of a write.
func (l *Ledger) Bounce(ctx context.Context, by By, to Tokened, f Failed) (Outcome, error) {
	s, _, _, ok := l.Registry().Scope(to.Scope)
	if !ok {
		return Outcome{}, ErrNotFound
	}
	var keys address.Keys
	keys.N, keys.Of[0] = 1, address.GenerationKeys{Generation: to.Generation, Suppression: to.Key}
	return l.bounce(ctx, by, s, &keys, f, "")
}

// BounceAddress is [Ledger.Bounce] for an address in clear, whose failure somebody tells who is authenticated to the service: an
// API key with the role feedback, or a provider by a signed webhook. Errors: those of Bounce, ErrUnknownSender, ErrInvalidAddress.
func (l *Ledger) BounceAddress(ctx context.Context, by By, sender, addr string, f Failed) (Outcome, error) {
	m, err := l.mailbox(sender, addr)
	if err != nil {
		return Outcome{}, err
	}
	if f.Domain == "" {
		f.Domain = m.addr.Domain()
	}
	return l.bounce(ctx, by, m.sender, &m.keys, f, addr)
}

func (l *Ledger) bounce(ctx context.Context, by By, s *Sender, keys *address.Keys, f Failed, addr string) (Outcome, error) {
	if f.Failure != HardFailure && f.Failure != SoftFailure {
		return Outcome{}, invalid("failure", fmt.Sprintf("%d is no failure", f.Failure), "it is hard or soft")
	}
	if by.Channel != ByWebhook {
		by.Channel = ByFeedback
	}
	if err := l.checkBy(&by); err != nil {
		return Outcome{}, err
	}
	key := keys.Of[0].Suppression
	req, err := l.beginRequest(ctx, s.Number, by.RequestID, "bounce", key, f.Failure)
	if err != nil {
		return Outcome{}, err
	}
	row, err := l.newPersonal(map[string]string{"address": addr}, by.Evidence)
	if err != nil {
		return Outcome{}, err
	}
	b := Entry{Kind: Undeliverable, Channel: by.Channel, Generation: keys.Of[0].Generation, Sender: s.Number, Mailing: by.Mailing, Actor: by.Key,
		Occurred: millis(by.Occurred), Key: key, Detail: maps.Clone(f.Detail)}
	if domain := l.labelOf("domain", strings.ToLower(f.Domain)); domain != "" && f.Failure == HardFailure {
		if b.Detail == nil {
			b.Detail = map[string]string{}
		}
		b.Detail[detailDomain] = domain
	}
	return l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		e := b
		if req != nil {
			e.Request = req.id
		}
		if at := standingFact(t, keys, &e); at != 0 {
			return at, false, nil
		}
		if f.Failure == HardFailure {
			if t.storm(strings.ToLower(f.Domain), label(e.Detail[detailDomain])) {
				if at := t.stormOf(key); at != 0 {
					return at, false, nil
				}
				if t.l.queue.full(0, t.now) {
					return 0, false, errQueueFull()
				}
				e.Kind, e.Scope, e.Detail = Queued, s.All(), maps.Clone(e.Detail)
				e.Detail[detailClaim], e.Detail[detailDoubt] = string(ClaimBounce), string(DoubtStorm)
			}
			at, err := t.add(&e, row)
			return at, true, err
		}
		return bounceSoftly(t, keys, &e, row)
	}, false)
}

// storm reports whether one more hard bounce of a domain, whose keyed digest is given too, is part of a storm.
func (t *tx) storm(domain string, digest uint64) bool {
	if digest == 0 {
		return false
	}
	before := 0
	for i := range t.s.queue {
		if e := &t.s.queue[i]; e.Kind != Decided && label(e.Detail[detailDomain]) == digest {
			before++
		}
	}
	return t.l.queue.storm(digest, t.now, before, t.l.mailed.lately(domain, t.now))
}

// stormOf is the held bounce of an address that waits, also within this transaction; 0 when none does.
func (t *tx) stormOf(key address.Key) uint64 {
	for i := range t.s.queue {
		if e := &t.s.queue[i]; e.Kind == Queued && e.Key == key && Doubt(e.Detail[detailDoubt]) == DoubtStorm {
			return e.Position
		}
	}
	return t.l.queue.stormOf(key)
}

// bounceSoftly writes a soft failure, and that the address is undeliverable for a while when it went on for too long.
func bounceSoftly(t *tx, keys *address.Keys, e *Entry, row *personal) (uint64, bool, error) {
	soft := *e
	soft.Kind = Bounced
	seen, enough := softFailures(t.record(standing.Key(e.Key)), t.now)
	if seen != 0 {
		return seen, false, nil
	}
	at, err := t.add(&soft, row)
	if err != nil || !enough {
		return at, true, err
	}
	e.Until, e.Ref = t.now+SoftRest.Milliseconds(), at
	if standingFact(t, keys, e) != 0 { // undeliverable for a while already
		return at, true, nil
	}
	at, err = t.add(e, nil)
	return at, true, err
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
