package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"optout/service/address"
	"optout/service/standing"
)

// Report is the result of a verification.
type Report struct {
	LedgerID string
	Head     Head
	// FirstBad is the first position that does not fit; 0 when all is well.
	FirstBad uint64
	// Fault says what is wrong with it.
	Fault string
	// Entries and Personal count what was read; Destroyed counts the personal rows that are no longer there.
	Entries, Personal, Destroyed uint64
}

// Verify recomputes the ledger, its tree and its standing, and compares the standing with the one in use. It goes on beside
// reads and writes. progress, if not nil, is told now and then. The error is only about reading; what does not fit is in the
// Report.
func (l *Ledger) Verify(ctx context.Context, progress func(done, total uint64)) (Report, error) {
	rep, v, err := verifyStore(ctx, l.store, l.opt.Anchor, l.Head().Size, progress)
	if err != nil || rep.FirstBad != 0 {
		return rep, err
	}
	return rep, l.compareStanding(ctx, v.table, &rep)
}

// VerifyStore verifies a ledger that no service has open, and that keys are the ones it was made with.
func VerifyStore(ctx context.Context, store Store, anchor Anchor, keys *address.Keyring, progress func(done, total uint64)) (Report, error) {
	rep, v, err := verifyStore(ctx, store, anchor, 0, progress)
	if err == nil && rep.FirstBad == 0 {
		if e := checkKeys(v.reg, keys); e != nil {
			rep.FirstBad, rep.Fault = 1, e.Error()
		}
	}
	return rep, err
}

// bad ends a verification at a position.
type bad struct {
	position uint64
	fault    string
}

func (b *bad) Error() string { return b.fault }

// verifyStore reads everything up to size (0: the tip) and folds it anew.
func verifyStore(ctx context.Context, store Store, anchor Anchor, size uint64, progress func(done, total uint64)) (Report, *verification, error) {
	tip, err := store.Tip(ctx)
	if err != nil {
		return Report{}, nil, err
	}
	v := verification{store: store, rep: Report{LedgerID: tip.LedgerID}, table: standing.New(), persons: standing.NewPersons(), reg: newRegistry(), progress: progress}
	if size == 0 {
		size = tip.Head.Size
	}
	v.total = size
	err = v.run(ctx, tip)
	if err == nil {
		if e := checkAnchor(ctx, store, tip, anchor); errors.Is(e, ErrDamaged) {
			err = &bad{tip.Head.Size + 1, e.Error()}
		} else {
			err = e
		}
	}
	var b *bad
	if errors.As(err, &b) {
		v.rep.FirstBad, v.rep.Fault, err = b.position, b.fault, nil
	}
	v.rep.Head = v.tree.head()
	return v.rep, &v, err
}

type verification struct {
	store    Store
	rep      Report
	tree     tree
	table    *standing.Table
	persons  *standing.Persons
	reg      *Registry
	total    uint64
	progress func(done, total uint64)

	rec     standing.Record
	members []standing.Key
	lastAt  int64
	entry   Entry
	// since is where the commit that is being read began.
	since uint64
	heads []Head
	// digests of the personal rows of the slice that is being read
	digests map[uint64][32]byte
}

// verifySlice is how many entries are read between two looks at heads and personal rows.
const verifySlice = 50000

func (v *verification) run(ctx context.Context, tip Tip) error {
	v.since = 1
	for first := uint64(1); first <= v.total; first += verifySlice {
		last := min(first+verifySlice-1, v.total)
		if err := v.slice(ctx, first, last); err != nil {
			return err
		}
		if v.progress != nil {
			v.progress(last, v.total)
		}
	}
	if v.since != v.tree.size+1 {
		return &bad{v.since, fmt.Sprintf("entries %d to %d have no tree head", v.since, v.tree.size)}
	}
	if v.total == tip.Head.Size && v.tree.head() != tip.Head {
		return &bad{v.tree.size, "the newest tree head is not the hash of the entries"}
	}
	// Nothing may lie beyond the tip.
	return v.store.Scan(ctx, tip.Head.Size+1, tip.Head.Size+1, func(r Record) error {
		if now, err := v.store.Tip(ctx); err == nil && now.Head.Size >= r.Position {
			return nil // written meanwhile
		}
		return &bad{r.Position, fmt.Sprintf("entry %d lies beyond the newest tree head", r.Position)}
	})
}

func (v *verification) slice(ctx context.Context, first, last uint64) error {
	v.heads = v.heads[:0]
	if err := v.store.Heads(ctx, first, last, func(h Head) error { v.heads = append(v.heads, h); return nil }); err != nil {
		return err
	}
	v.digests = map[uint64][32]byte{}
	err := v.store.ScanPersonal(ctx, first, last, func(p PersonalRow) error {
		v.digests[p.Position] = sha256.Sum256(p.Body)
		return nil
	})
	if err != nil {
		return err
	}
	next := first
	err = v.store.Scan(ctx, first, last, func(r Record) error {
		if r.Position != next {
			return &bad{next, fmt.Sprintf("entry %d is missing", next)}
		}
		next++
		return v.record(r)
	})
	if err == nil && next != last+1 {
		err = &bad{next, fmt.Sprintf("entry %d is missing", next)}
	}
	return err
}

func (v *verification) record(r Record) error {
	wrong := func(format string, args ...any) error {
		return &bad{r.Position, fmt.Sprintf("entry %d: ", r.Position) + fmt.Sprintf(format, args...)}
	}
	leaf := LeafHash(r.Body)
	if binary.BigEndian.Uint64(leaf[:]) != r.Leaf {
		return wrong("its octets were changed: they do not fit its leaf hash")
	}
	e := &v.entry
	if err := e.Decode(r.Position, r.Body); err != nil {
		return wrong("it cannot be read")
	}
	if e.At < v.lastAt {
		return wrong("it is older than the entry before it")
	}
	v.lastAt = e.At
	v.tree.add(leaf)
	v.rep.Entries++
	if digest, ok := v.digests[r.Position]; ok {
		v.rep.Personal++
		if digest != e.Personal {
			return wrong("its personal row was changed")
		}
	} else if e.Personal != [32]byte{} {
		v.rep.Destroyed++
	}
	if e.Key.IsZero() {
		if err := v.reg.apply(e); err != nil {
			return wrong("it does not fit the entries before it")
		}
	} else {
		v.table.Get(standing.Key(e.Key), &v.rec)
		if e.Prev != v.rec.Last {
			return wrong("it names entry %d as the one before it, which is entry %d", e.Prev, v.rec.Last)
		}
		v.members = foldInto(v.table, v.persons, &v.rec, v.members, e)
	}
	if len(v.heads) > 0 && v.heads[0].Size == r.Position {
		if v.heads[0] != v.tree.head() {
			return &bad{v.since, fmt.Sprintf("entries %d to %d are not those that were committed: their tree head differs", v.since, r.Position)}
		}
		v.since, v.heads = r.Position+1, v.heads[1:]
	}
	return nil
}

// compareStanding compares the standing in use with the one folded anew, address by address. Addresses that were written to
// meanwhile are passed over.
func (l *Ledger) compareStanding(ctx context.Context, table *standing.Table, rep *Report) error {
	var e Entry
	var fresh, live standing.Record
	err := l.store.Scan(ctx, 1, rep.Head.Size, func(r Record) error {
		if err := e.Decode(r.Position, r.Body); err != nil || e.Key.IsZero() {
			return err
		}
		table.Get(standing.Key(e.Key), &fresh)
		if fresh.Last != r.Position {
			return nil // compared at its newest entry
		}
		l.table.Get(standing.Key(e.Key), &live)
		if live.Last > rep.Head.Size {
			return nil
		}
		if live.Last != fresh.Last || live.Person != fresh.Person || len(live.Facts) != len(fresh.Facts) ||
			len(live.Facts) > 0 && !reflect.DeepEqual(live.Facts, fresh.Facts) {
			return &bad{r.Position, fmt.Sprintf("entry %d: the standing in memory differs from what the ledger says; restart the service", r.Position)}
		}
		return nil
	})
	var b *bad
	if errors.As(err, &b) {
		rep.FirstBad, rep.Fault, err = b.position, b.fault, nil
	}
	return err
}
