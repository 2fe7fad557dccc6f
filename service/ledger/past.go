package ledger

import (
	"context"
	"math"
	"slices"
	"time"

	"optout/service/address"
	"optout/service/standing"
)

// AddressKeys are the suppression keys of an address under a sender, one for each generation of address keys, newest first.
// Errors: ErrInvalidAddress.
func (l *Ledger) AddressKeys(s *Sender, addr string) ([][16]byte, error) {
	a, err := parseAddress(addr)
	if err != nil {
		return nil, err
	}
	var keys address.Keys
	l.opt.Keys.Keys(s.Number, &a, &keys)
	all := make([][16]byte, keys.N)
	for g := range all {
		all[g] = keys.Of[g].Suppression
	}
	return all, nil
}

// unknownTopic is a number that no scope has. Mail of a topic that nobody names counts as transactional: noes to one topic and
// to commercial mail alone do not bear on it.
const unknownTopic = math.MaxUint32

// VerdictAt tells what a check of a topic of sender s would have answered for an address at a past moment: whether mail that
// left then left in spite of a no. For topic nil, mail of a topic that is not known, only what denies all mail counts, and a
// confirmed yes to any topic after it speaks for the mail. seen is the position that the mail's own check reflected, if it had
// one, else 0: what the mail left after for certain, whatever the clocks say.
//
// The method: the entries of the address, and of the person's other addresses, are read back through the ledger; those taken at
// or before the moment, and those up to seen, are folded into the standing of that moment, and the one rule that gives every verdict judges it. So a
// no that was lifted or voided later still stood then, and one that came later does not count. Three things are taken as they
// are now, in favour of the mail: the topic's settings and the list of blocked and wireless domains (one that is on it but came
// later does not count, one that was taken off is not known), and which addresses the person has (one that was taken from the
// person later is not known). SENDs in spite of a no, for required topics, are SENDs here too.
//
// The cost is that of reading the address's entries. Errors: ErrInvalidAddress, ErrClosed, and those of reading the store.
func (l *Ledger) VerdictAt(ctx context.Context, s *Sender, topic *Topic, addr string, at time.Time, seen uint64) (*Verdict, error) {
	if l.Err() != nil {
		return nil, ErrClosed
	}
	a, err := parseAddress(addr)
	if err != nil {
		return nil, err
	}
	named := topic != nil
	if !named {
		topic = &Topic{Number: unknownTopic, Class: Transactional, Rule: OptOutRule}
	}
	p := &past{l: l, ctx: ctx, at: at.UnixMilli(), seen: seen, records: map[standing.Key]*standing.Record{}}
	q := question{reg: l.registry.Load(), sender: s, topic: topic, now: p.at, position: l.head.Load()}
	var keys, base address.Keys
	l.opt.Keys.Keys(s.Number, &a, &keys)
	l.baseKeys(s, &a, &base)
	q.domainRules(&a)
	q.isBlocked = q.isBlocked && p.had(q.blocked.Position)
	q.isWireless = q.isWireless && p.had(q.wireless.Position)
	var b bearing
	gather(p.record, p.members, &keys, &base, s.All(), &b)
	if p.err != nil {
		return nil, p.err
	}
	if !named {
		for i := range b.own {
			if f := &b.own[i]; kindOf(f) == Confirmed {
				f.Scope = unknownTopic
			}
		}
	}
	v := &Verdict{Topic: topic, Sender: s, Position: q.position, Key: keys.Of[0].Suppression, Generation: keys.Of[0].Generation}
	evaluate(&q, &b, v)
	return v, nil
}

// past is standing as it was at a moment, rebuilt from entries, a record at a time.
type past struct {
	l       *Ledger
	ctx     context.Context
	at      int64 // unix milliseconds
	seen    uint64
	records map[standing.Key]*standing.Record
	err     error // the first; what is rebuilt after it does not count
}

func (p *past) entry(position uint64) (*Entry, bool) {
	if p.err == nil {
		p.err = p.ctx.Err()
	}
	if p.err != nil {
		return nil, false
	}
	r, err := p.l.store.Get(p.ctx, position)
	if err != nil {
		p.err = err
		return nil, false
	}
	e := &Entry{}
	if err := e.Decode(r.Position, r.Body); err != nil {
		p.err = damaged("%v", err)
		return nil, false
	}
	return e, true
}

// had tells whether an entry had been taken by then.
func (p *past) had(position uint64) bool {
	e, ok := p.entry(position)
	return ok && p.then(e)
}

// then tells whether an entry belongs to the past that is judged.
func (p *past) then(e *Entry) bool { return e.At <= p.at || e.Position <= p.seen }

// record is the record of an address key as it was; nil when there was none.
func (p *past) record(k standing.Key) *standing.Record {
	if rec, done := p.records[k]; done {
		return rec
	}
	var now standing.Record
	var entries []*Entry
	if p.l.table.Get(k, &now) {
		for at := now.Last; at != 0; {
			e, ok := p.entry(at)
			if !ok {
				return nil
			}
			if p.then(e) {
				entries = append(entries, e)
			}
			at = e.Prev
		}
	}
	var rec *standing.Record
	if len(entries) > 0 {
		rec = &standing.Record{}
		for _, e := range slices.Backward(entries) {
			fold(rec, e)
		}
	}
	p.records[k] = rec
	return rec
}

// members are those of a person's addresses of now that were the person's then.
func (p *past) members(person standing.Key) []standing.Key {
	return slices.DeleteFunc(p.l.persons.Members(person, nil), func(k standing.Key) bool {
		rec := p.record(k)
		return rec == nil || rec.Person != person
	})
}
