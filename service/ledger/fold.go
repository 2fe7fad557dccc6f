package ledger

import (
	"encoding/binary"
	"slices"

	"optout/service/address"
	"optout/service/standing"
)

// Flags of a fact in standing, besides those of its entry.
const (
	factLifts    = uint8(FlagLifts)    // a yes that lifts its own topic's no
	factUndoable = uint8(FlagUndoable) // a press on a page, which can be undone for UndoWindow
	factFamily   = uint8(FlagSubaddresses)
	factOwn      = uint8(1 << 7) // a person's own word: no machine's error, never void
)

// MaxFacts bounds what standing keeps of one address. Reached only by an address that says yes and no in turn hundreds of
// times; further yeses are refused, noes never.
const MaxFacts = 1000

// MaxPersonAddresses is how many addresses a person may have.
const MaxPersonAddresses = 32

func kindOf(f *standing.Fact) Kind { return Kind(f.Kind) }

// discriminator tells consent forms of one suppression key apart; 0 where the two forms are the same.
func discriminator(consent address.Key) uint64 {
	return binary.BigEndian.Uint64(consent[:8])
}

// fold applies an entry to the record of its address key. It is the whole meaning of the ledger for one address: start-up,
// every commit and verify use it and nothing else. Facts keep the order of their entries. A fact that is void, undone or
// lifted goes; whether a no is lifted by a yes is decided by comparing positions when a verdict is given, so nothing that
// may count again is lost.
func fold(rec *standing.Record, e *Entry) {
	rec.Last = e.Position
	f := standing.Fact{Kind: standing.Kind(e.Kind), Flags: uint8(e.Flags), Scope: e.Scope, Position: e.Position, Entry: e.Position, At: e.At, Until: e.Until}
	if !e.Channel.Voidable() {
		f.Flags |= factOwn
	}
	switch e.Kind {
	case OptedOut, Complained, Undeliverable, Restricted, Under13, Erased, WirelessAuthorized:
		f.Occurred = e.Occurred
		rec.Facts = append(rec.Facts, f)
	case Subscribed:
		f.Occurred, f.Consent = e.Occurred, discriminator(e.Consent)
		rec.Facts = append(rec.Facts, f)
	case Bounced:
		rec.Facts = append(without(rec.Facts, func(o *standing.Fact) bool { return kindOf(o) == Bounced && o.At < e.At-SoftWindow.Milliseconds() }), f)
	case Confirmed:
		// It takes the place of its request and counts at the request's position; the consent runs from then.
		for i := range rec.Facts {
			if r := &rec.Facts[i]; r.Entry == e.Ref && kindOf(r) == Subscribed {
				r.Kind, r.Entry, r.At = standing.Kind(Confirmed), e.Position, e.At
				break
			}
		}
	case Paused:
		rec.Facts = append(without(rec.Facts, func(o *standing.Fact) bool { return kindOf(o) == Paused && o.Scope == e.Scope }), f)
	case Resumed:
		rec.Facts = without(rec.Facts, func(o *standing.Fact) bool { return kindOf(o) == Paused && o.Scope == e.Scope })
	case Lifted:
		rec.Facts = without(rec.Facts, func(o *standing.Fact) bool {
			return reasonOf(kindOf(o)) == e.Reason || e.Reason == ReasonUndeliverable && kindOf(o) == Bounced
		})
	case Voided, Undone:
		rec.Facts = without(rec.Facts, func(o *standing.Fact) bool { return o.Entry == e.Ref })
	case Joined:
		rec.Person = standing.Key(e.Person)
	case Unlinked:
		rec.Person = standing.Key{}
	}
}

func without(facts []standing.Fact, gone func(*standing.Fact) bool) []standing.Fact {
	return slices.DeleteFunc(facts, func(f standing.Fact) bool { return gone(&f) })
}

// reasonOf is the reason that a fact of one kind alone makes; 0 where the scope decides.
func reasonOf(k Kind) Reason {
	switch k {
	case Under13:
		return ReasonUnder13
	case Undeliverable:
		return ReasonUndeliverable
	case Erased:
		return ReasonErased
	case Restricted:
		return ReasonRestricted
	case Complained:
		return ReasonComplaint
	case Paused:
		return ReasonPaused
	}
	return 0
}

// foldPerson applies Joined and Unlinked to the members of a person.
func foldPerson(members []standing.Key, e *Entry) []standing.Key {
	k := standing.Key(e.Key)
	switch e.Kind {
	case Joined:
		if !slices.Contains(members, k) {
			members = append(members, k)
		}
	case Unlinked:
		members = slices.DeleteFunc(members, func(m standing.Key) bool { return m == k })
	}
	return members
}
