package ledger

import (
	"context"
	"encoding/binary"
	"time"

	"optout/service/address"
	"optout/service/standing"
)

// Outcome tells what a write did.
type Outcome struct {
	// Entry is the entry written, or the one that was in force already.
	Entry uint64
	// Created is false when nothing had to be written.
	Created bool
	// Undoable is true when the entry can be undone by the one who pressed, for UndoWindow.
	Undoable bool
	// Position is the head of the ledger after the write.
	Position uint64
}

// UndoWindow is how long a press on a page can be undone by its person.
const UndoWindow = 10 * time.Minute

// OptOut records a person's no to a scope of the sender; the zero Scope is ALL. It is acknowledged only when it is durable and
// in force. Nothing is written when a no of the same or a wider scope, said at this address by the person, stands already and
// nothing can lift it any more without a new yes. Errors: ErrUnknownSender, ErrUnknownTopic, ErrInvalidAddress,
// ErrInvalidField, ErrRequestIDReused, and those of a write.
func (l *Ledger) OptOut(ctx context.Context, by By, sender, addr string, scope Scope) (Outcome, error) {
	m, err := l.mailbox(sender, addr)
	if err != nil {
		return Outcome{}, err
	}
	n, err := scopeNumber(m.sender, "scope", scope)
	if err != nil {
		return Outcome{}, err
	}
	e := m.target(OptedOut, by)
	e.Scope = n
	return l.optOut(ctx, by, e, &m.keys, map[string]string{"address": addr})
}

// OptOutMailbox records the no of somebody who wrote in their own words from addr: to ALL, at addr and at its sub-addresses
// (RFC 5233), those known and those not: mail to ann+news@ is what ann@ speaks of. A sub-address speaks for the whole mailbox only
// where its domain is known to deliver every one of them there. Whoever calls knows that addr wrote. Errors: those of OptOut.
func (l *Ledger) OptOutMailbox(ctx context.Context, by By, sender, addr string) (Outcome, error) {
	m, err := l.mailbox(sender, addr)
	if err != nil {
		return Outcome{}, err
	}
	e := m.target(OptedOut, by)
	e.Scope = m.sender.All()
	keys := m.family(&e)
	return l.optOut(ctx, by, e, keys, map[string]string{"address": addr})
}

// family makes e an opt-out of the mailbox and all its sub-addresses, and returns the keys that it is about.
func (m *mailbox) family(e *Entry) *address.Keys {
	keys := &m.keys
	switch {
	case m.addr.BelongsToBase():
		keys = &m.base
		e.Key = keys.Of[0].Suppression
	case m.addr.Tagged():
		return keys // of one that may be another's
	}
	e.Flags |= FlagSubaddresses
	return keys
}

// Press records the no of whoever holds an unsubscribe link or address: the scope number and address key come out of its
// token, which the caller has opened. Mailings, channel and evidence are in by. It works again and again, and after any
// later yes. Errors: ErrNotFound for a scope that this ledger does not have, and those of OptOut.
func (l *Ledger) Press(ctx context.Context, by By, scope uint32, generation uint16, key address.Key) (Outcome, error) {
	s, _, _, ok := l.Registry().Scope(scope)
	if !ok {
		return Outcome{}, ErrNotFound
	}
	e := Entry{Kind: OptedOut, Channel: by.Channel, Generation: generation, Sender: s.Number, Scope: scope, Mailing: by.Mailing,
		Actor: by.Key, Occurred: millis(by.Occurred), Key: key}
	if by.Channel == ByPage {
		e.Flags |= FlagUndoable
	}
	keys := soleKey(generation, key)
	return l.optOut(ctx, by, e, &keys, nil)
}

func (l *Ledger) optOut(ctx context.Context, by By, e Entry, keys *address.Keys, clear map[string]string) (Outcome, error) {
	if err := l.checkBy(&by); err != nil {
		return Outcome{}, err
	}
	req, err := l.beginRequest(ctx, e.Sender, by.RequestID, "opt-out", e.Key, e.Scope, e.Occurred)
	if err != nil {
		return Outcome{}, err
	}
	row, err := l.newPersonal(clear, by.Evidence)
	if err != nil {
		return Outcome{}, err
	}
	return l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		e := e
		if standing := standingNo(t, keys, &e); standing != 0 {
			return standing, false, nil
		}
		if req != nil {
			e.Request = req.id
		}
		at, err := t.add(&e, row)
		return at, true, err
	}, e.Flags&FlagUndoable != 0)
}

// write proposes a decision that writes one entry or finds one, and tells the outcome of it or of its replay.
func (l *Ledger) write(ctx context.Context, req *request, decide func(*tx) (uint64, bool, error), undoable bool) (Outcome, error) {
	var o Outcome
	if req == nil || !req.replay {
		err := l.propose(ctx, req, func(t *tx) error {
			var err error
			o.Entry, o.Created, err = decide(t)
			o.Undoable = undoable && o.Created
			if req != nil {
				req.position = o.Entry
			}
			return err
		})
		if err != nil {
			return Outcome{}, err
		}
	}
	if req != nil && req.replay {
		o = Outcome{Entry: req.position}
		o.Created = l.wrote(ctx, req)
	}
	o.Position = l.head.Load()
	return o, nil
}

// wrote tells whether the request wrote the entry it is remembered with, so that a retry is answered as the first try was.
func (l *Ledger) wrote(ctx context.Context, req *request) bool {
	e, err := l.entry(ctx, req.position)
	return err == nil && e.Request == req.id
}

// entry reads one entry.
func (l *Ledger) entry(ctx context.Context, position uint64) (*Entry, error) {
	if position == 0 || position > l.head.Load() {
		return nil, ErrNotFound
	}
	r, err := l.store.Get(ctx, position)
	if err != nil {
		return nil, err
	}
	var e Entry
	if err := e.Decode(r.Position, r.Body); err != nil {
		return nil, damaged("%v", err)
	}
	return &e, nil
}

// standingNo returns the entry of an opt-out that makes e superfluous, or 0. It must cover e's scope; it must come after every
// yes of the address, also a yes that still waits for its confirmation (which counts where it was asked for); it must not be
// one that can still be undone; and unless e is itself a machine's word, it must be the person's own, for a machine's word
// can be voided.
func standingNo(t *tx, keys *address.Keys, e *Entry) uint64 {
	reg := t.registry()
	for g := range keys.N {
		rec := t.record(standing.Key(keys.Of[g].Suppression))
		yes := newestYes(rec)
		for i := range rec.Facts {
			f := &rec.Facts[i]
			if kindOf(f) != OptedOut || f.Position < yes || !covers(reg, f.Scope, e.Scope) {
				continue
			}
			if f.Flags&factUndoable != 0 && t.now < f.At+UndoWindow.Milliseconds() {
				continue
			}
			if e.Flags&FlagSubaddresses != 0 && f.Flags&factFamily == 0 {
				continue // it covers less
			}
			if f.Flags&factOwn != 0 || e.Channel.Voidable() {
				return f.Entry
			}
		}
	}
	return 0
}

// newestYes is where the newest yes of a record counts, whatever its topic, confirmed or not.
func newestYes(rec *standing.Record) uint64 {
	var p uint64
	for i := range rec.Facts {
		if k := kindOf(&rec.Facts[i]); k == Subscribed || k == Confirmed {
			p = max(p, rec.Facts[i].Position)
		}
	}
	return p
}

// covers tells whether a no of the wide scope includes the narrow one.
func covers(reg *Registry, wide, narrow uint32) bool {
	if wide == narrow {
		return true
	}
	s, kind, _, ok := reg.Scope(wide)
	n, nkind, topic, nok := reg.Scope(narrow)
	if !ok || !nok || s.Number != n.Number {
		return false
	}
	switch kind {
	case ScopeAll:
		return true
	case ScopeCommercial:
		return nkind == ScopeTopic && topic.Class == Commercial
	}
	return false
}

// Undo takes back one press on a page: position and keyPrefix come out of the undo token, which the caller has opened. It
// reverses exactly that entry, once, within UndoWindow, and lifts no other no. Errors: ErrUndoStale, and those of a write.
func (l *Ledger) Undo(ctx context.Context, by By, position uint64, keyPrefix [8]byte) (Outcome, error) {
	stale := &Error{Kind: ErrUndoStale, Problem: "it is too late to undo this, or it was undone before"}
	e, err := l.entry(ctx, position)
	if notFound(err) {
		return Outcome{}, stale
	}
	if err != nil {
		return Outcome{}, err
	}
	if e.Kind != OptedOut || e.Flags&FlagUndoable == 0 || [8]byte(e.Key[:8]) != keyPrefix {
		return Outcome{}, stale
	}
	row, err := l.newPersonal(by.Evidence)
	if err != nil {
		return Outcome{}, err
	}
	return l.write(ctx, nil, func(t *tx) (uint64, bool, error) {
		if t.now >= e.At+UndoWindow.Milliseconds() || !holds(t.record(standing.Key(e.Key)), position) {
			return 0, false, stale
		}
		u := Entry{Kind: Undone, Channel: by.Channel, Generation: e.Generation, Sender: e.Sender, Scope: e.Scope, Key: e.Key, Ref: position}
		at, err := t.add(&u, row)
		return at, true, err
	}, false)
}

// holds tells whether the fact of an entry still stands in a record.
func holds(rec *standing.Record, entry uint64) bool {
	for i := range rec.Facts {
		if rec.Facts[i].Entry == entry {
			return true
		}
	}
	return false
}

// PackRef packs what an undo or confirmation token carries: the position of an entry and the beginning of its address key.
func PackRef(position uint64, key address.Key) (packed [16]byte) {
	binary.BigEndian.PutUint64(packed[:], position)
	copy(packed[8:], key[:8])
	return packed
}

// UnpackRef unpacks PackRef.
func UnpackRef(packed [16]byte) (position uint64, keyPrefix [8]byte) {
	return binary.BigEndian.Uint64(packed[:8]), [8]byte(packed[8:])
}

// InForce returns the newest opt-out that stands at an address key and covers the scope, and since when (unix milliseconds);
// 0 when there is none.
func (l *Ledger) InForce(scope uint32, key address.Key) (entry uint64, since int64) {
	var rec standing.Record
	reg := l.Registry()
	l.table.Get(standing.Key(key), &rec)
	for i := range rec.Facts {
		if f := &rec.Facts[i]; kindOf(f) == OptedOut && covers(reg, f.Scope, scope) {
			entry, since = f.Entry, f.At
		}
	}
	return entry, since
}
