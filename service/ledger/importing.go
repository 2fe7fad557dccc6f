package ledger

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"optout/service/address"
)

// ImportRow is one line of a list of opt-outs kept elsewhere.
type ImportRow struct {
	Address  string
	Occurred time.Time
	// Reason is ReasonOptedOutAll when 0; else …Commercial, …Topic, ReasonComplaint or ReasonUndeliverable.
	Reason Reason
	Topic  string
	// Note is the reason in the list's own words.
	Note string
}

// MaxImportRows is how many rows one call takes.
const MaxImportRows = 10000

// ImportOutcome counts what happened to the rows.
type ImportOutcome struct {
	// Added rows were recorded, or would be.
	Added int
	// Unchanged rows were in force already, or repeated within the call.
	Unchanged int
	// Malformed tells what is wrong with the rows that cannot be read, by index.
	Malformed map[int]error
	Position  uint64
}

type importedRow struct {
	keys address.Keys
	e    Entry
	p    *personal
}

// Import records opt-outs kept elsewhere. It never lifts anything: a no counts at its position, whatever its date. Rows that
// cannot be read are told and left out; all others are written together. last writes the completion of the source. Errors:
// ErrUnknownSender, ErrTooManyItems, ErrInvalidField, and those of a write.
func (l *Ledger) Import(ctx context.Context, by By, sender, source string, rows []ImportRow, dryRun, last bool) (ImportOutcome, error) {
	out := ImportOutcome{Malformed: map[int]error{}}
	s, err := l.sender(l.Registry(), sender)
	if err != nil {
		return out, err
	}
	if err := checkText("source", source, 200, true); err != nil {
		return out, err
	}
	if len(rows) > MaxImportRows || len(rows) == 0 && !last {
		return out, &Error{Kind: ErrTooManyItems, Field: "rows", Problem: fmt.Sprintf("a call takes 1 to %d rows", MaxImportRows), Remedy: "split the list"}
	}
	by.Channel = ByImport
	ready := make([]importedRow, 0, len(rows))
	for i := range rows {
		r, err := l.importRow(by, s, source, &rows[i], dryRun)
		if err != nil {
			out.Malformed[i] = err
			continue
		}
		ready = append(ready, r)
	}
	err = l.propose(ctx, nil, func(t *tx) error {
		out.Added, out.Unchanged = 0, 0
		seen := map[importID]bool{} // a dry run adds nothing, so it must remember
		for i := range ready {
			r := &ready[i]
			id := importID{r.e.Key, r.e.Kind, r.e.Scope}
			if standingFact(t, &r.keys, &r.e) != 0 || dryRun && seen[id] {
				out.Unchanged++
				continue
			}
			out.Added++
			if dryRun {
				seen[id] = true
			} else if _, err := t.add(&r.e, r.p); err != nil {
				return err
			}
		}
		if last && !dryRun {
			done := Entry{Kind: ImportCompleted, Channel: ByImport, Sender: s.Number, Actor: by.Key, Detail: map[string]string{"source": source}}
			_, err := t.add(&done, nil)
			return err
		}
		return nil
	})
	if err != nil { // of which out says nothing: the commit loop may still be at it
		return ImportOutcome{}, err
	}
	out.Position = l.head.Load()
	return out, nil
}

type importID struct {
	key   address.Key
	kind  Kind
	scope uint32
}

// importRow reads one row; everything that costs time is done here, outside the commit loop.
func (l *Ledger) importRow(by By, s *Sender, source string, row *ImportRow, dryRun bool) (importedRow, error) {
	m := mailbox{sender: s}
	var err error
	if m.addr, err = parseAddress(row.Address); err != nil {
		return importedRow{}, err
	}
	if err := l.checkPast("occurred_at", row.Occurred); err != nil {
		return importedRow{}, err
	}
	if err := checkText("note", row.Note, 500, false); err != nil {
		return importedRow{}, err
	}
	l.opt.Keys.Keys(s.Number, &m.addr, &m.keys)
	by.Occurred = row.Occurred
	r := importedRow{keys: m.keys, e: m.target(0, by)}
	reason := row.Reason
	switch reason {
	case 0:
		reason = ReasonOptedOutAll
	case ReasonRestricted, ReasonUnder13:
		return r, invalid("reason", strconv.Quote(reason.String())+" cannot be imported", "the privacy role records it with CreateSuppression")
	}
	if err := suppressionEntry(&r.e, s, reason, row.Topic); err != nil || dryRun {
		return r, err
	}
	r.p, err = l.newPersonal(map[string]string{"address": row.Address, "source": source, "note": row.Note})
	return r, err
}
