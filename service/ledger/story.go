package ledger

import (
	"context"
	"slices"

	"optout/service/address"
	"optout/service/standing"
)

// Line is an entry with what is known of it in clear.
type Line struct {
	Entry
	Leaf Hash
	// Evidence is the entry's personal row; nil when it has none or it was destroyed.
	Evidence map[string]string
}

// Story is everything that bears on an address.
type Story struct {
	Sender *Sender
	Key    address.Key
	// Lines are its own entries, the opt-outs of the person's other addresses and those of the mailbox that cover it as a
	// sub-address, oldest first.
	Lines []Line
	// Truncated: there are more than MaxStory and only the newest are given.
	Truncated bool
	// Verdicts are what a check of each topic would answer now.
	Verdicts []*Verdict
	// PersonAddresses is how many addresses the person has; 0 when the address is joined to nobody.
	PersonAddresses int
	// Known: the ledger has an entry about the address.
	Known    bool
	Position uint64
}

// MaxStory is how many lines a story has at the most.
const MaxStory = 10000

// Recipient tells how an address stands, without its entries. Errors: ErrUnknownSender, ErrInvalidAddress, ErrClosed.
func (l *Ledger) Recipient(ctx context.Context, sender, addr string) (*Story, error) {
	if l.Err() != nil {
		return nil, ErrClosed
	}
	st := &Story{Position: l.head.Load()}
	m, err := l.mailbox(sender, addr)
	if err != nil {
		return nil, err
	}
	st.Sender, st.Key = m.sender, m.key()
	var rec standing.Record
	for g := range m.keys.N {
		if l.table.Get(standing.Key(m.keys.Of[g].Suppression), &rec) && rec.Last != 0 {
			st.Known = true
		}
		if rec.Person != (standing.Key{}) {
			st.PersonAddresses = len(l.persons.Members(rec.Person, nil))
		}
	}
	for _, t := range m.sender.Topics() {
		st.Verdicts = append(st.Verdicts, l.verdictNow(m, t))
	}
	return st, nil
}

// Explain tells the whole story of an address: it walks the address's entries back through the ledger. Errors: those of
// Recipient, and of reading the store.
func (l *Ledger) Explain(ctx context.Context, sender, addr string) (*Story, error) {
	st, err := l.Recipient(ctx, sender, addr)
	if err != nil {
		return nil, err
	}
	m, err := l.mailbox(sender, addr)
	if err != nil {
		return nil, err
	}
	var rec standing.Record
	for g := range m.keys.N {
		l.table.Get(standing.Key(m.keys.Of[g].Suppression), &rec)
		for p := rec.Last; p != 0; {
			if len(st.Lines) >= MaxStory {
				st.Truncated = true
				break
			}
			line, err := l.Line(ctx, p)
			if err != nil {
				return nil, err
			}
			st.Lines = append(st.Lines, *line)
			p = line.Prev
		}
	}
	if rec.Person != (standing.Key{}) || m.base.N > 0 {
		sc := l.borrow()
		gather(sc.record, sc.person, &m.keys, &m.base, m.sender.All(), &sc.b)
		joined := slices.Clone(sc.b.joined)
		l.scratch.Put(sc)
		for _, f := range joined {
			line, err := l.Line(ctx, f.Entry)
			if err != nil {
				return nil, err
			}
			st.Lines = append(st.Lines, *line)
		}
	}
	slices.SortFunc(st.Lines, func(a, b Line) int { return int(int64(a.Position) - int64(b.Position)) })
	return st, nil
}

// Line reads one entry with its evidence. Errors: ErrNotFound, and those of the store.
func (l *Ledger) Line(ctx context.Context, position uint64) (*Line, error) {
	r, err := l.store.Get(ctx, position)
	if err != nil {
		return nil, err
	}
	line := &Line{Leaf: LeafHash(r.Body)}
	if err := line.Decode(r.Position, r.Body); err != nil {
		return nil, damaged("%v", err)
	}
	return line, l.evidence(ctx, line)
}

func (l *Ledger) evidence(ctx context.Context, line *Line) error {
	if line.Personal == [32]byte{} {
		return nil
	}
	body, err := l.store.Personal(ctx, line.Position)
	if notFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if line.Evidence, err = readPersonal(body); err != nil {
		return damaged("the personal row of entry %d cannot be read", line.Position)
	}
	return nil
}

// AddressOf finds the address in clear that belongs to a line: its own, or that of the newest earlier entry of the same key
// that still has one; "" when none is known.
func (l *Ledger) AddressOf(ctx context.Context, line *Line) (string, error) {
	if a := line.Evidence["address"]; a != "" {
		return a, nil
	}
	for p, steps := line.Prev, 0; p != 0 && steps < 100; steps++ {
		earlier, err := l.Line(ctx, p)
		if err != nil {
			return "", err
		}
		if a := earlier.Evidence["address"]; a != "" {
			return a, nil
		}
		p = earlier.Prev
	}
	return "", nil
}
