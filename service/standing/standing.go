// Package standing holds in memory what the ledger's entries add up to, per address key, so that a check costs a look-up and
// not a query. It is a pure data structure of the core and touches nothing else: what facts mean is the ledger's business.
//
// It is laid out for a hundred million addresses. There are no pointers for the garbage collector to follow. The commonest
// record by far, one opt-out and nothing else, lives in its 27-octet slot; all others in an arena, encoded compactly.
package standing

import (
	"encoding/binary"
	"sync/atomic"
)

// Kind says what a fact is; the ledger defines the values, 1 to 255.
type Kind uint8

// Fact is one entry that bears on the verdict of an address.
type Fact struct {
	Kind  Kind
	Flags uint8
	// Scope is the scope number.
	Scope uint32
	// Position is where the fact counts; Entry the position of its entry, another one only for confirmations.
	Position, Entry uint64
	// At, Occurred and Until are unix milliseconds: when the entry was taken, when it happened as reported, when it ends.
	At, Occurred, Until int64
	// Consent tells consent forms of the key apart; 0 is the key's own.
	Consent uint64
}

// Record is everything known of one address key.
type Record struct {
	// Last is the position of the key's newest entry.
	Last uint64
	// Person is the person that the address is joined to; zero for none.
	Person Key
	// Facts are in the order of their entries.
	Facts []Fact
}

// Table is the standing of all addresses. One goroutine may call Set at a time; any number may call Get meanwhile, and each
// sees a record wholly before or wholly after a Set.
type Table struct {
	slots   slots
	length  atomic.Int64
	classes atomic.Pointer[[]class]
	known   map[class]uint16 // the writer's
	limit   int
	scratch []byte // the writer's
}

// class is what inline records have in common; few combinations occur, so each gets a number of 16 bits.
type class struct {
	kind  Kind
	flags uint8
	scope uint32
}

// maxClasses leaves out the numbers of the empty slot and of the arena.
const maxClasses = 0xffff - 1

// New returns an empty table.
func New() *Table { return newTable(maxClasses) }

func newTable(limit int) *Table {
	t := &Table{known: map[class]uint16{}, limit: limit}
	t.classes.Store(&[]class{{}})
	return t
}

// epoch is where the times of inline records count from: 2020-01-01, so that 40 bits of milliseconds reach to 2054. Later
// times live in the arena.
const epoch = 1577836800000

const limit40 = 1 << 40

// Get reads the record of a key into rec, overwriting it and reusing the memory of rec.Facts. It reports whether the key is
// known; if not, rec is empty. It allocates only when rec.Facts is too small.
func (t *Table) Get(key Key, rec *Record) bool {
	var space [256]byte
	p, buf, ok := t.slots.get(&key, space[:0])
	rec.Last, rec.Person, rec.Facts = 0, Key{}, rec.Facts[:0]
	if !ok {
		return false
	}
	if p.class() == classBlock {
		rec.decode(buf)
		return true
	}
	c := (*t.classes.Load())[p.class()]
	position := get40(p[2:])
	rec.Last = position
	rec.Facts = append(rec.Facts, Fact{Kind: c.kind, Flags: c.flags, Scope: c.scope, Position: position, Entry: position, At: int64(get40(p[7:])) + epoch})
	return true
}

// Set makes rec the record of the key. It keeps nothing of rec.
func (t *Table) Set(key Key, rec *Record) {
	p, inline := t.inline(rec)
	var value []byte
	if !inline {
		t.scratch = rec.encode(t.scratch[:0])
		value = t.scratch
	}
	if t.slots.set(&key, p, value) {
		t.length.Add(1)
	}
}

// inline packs a record into a payload, if it is of the simple kind.
func (t *Table) inline(rec *Record) (p payload, ok bool) {
	if len(rec.Facts) != 1 || rec.Person != (Key{}) {
		return p, false
	}
	f := &rec.Facts[0]
	since := f.At - epoch
	if f.Position != rec.Last || f.Entry != rec.Last || rec.Last >= limit40 || since < 0 || since >= limit40 || f.Occurred != 0 || f.Until != 0 || f.Consent != 0 {
		return p, false
	}
	c := class{f.Kind, f.Flags, f.Scope}
	n, known := t.known[c]
	if !known {
		all := *t.classes.Load()
		if len(all) > t.limit {
			return p, false
		}
		n = uint16(len(all))
		more := append(all[:len(all):len(all)], c)
		t.classes.Store(&more) // before any slot names it
		t.known[c] = n
	}
	binary.LittleEndian.PutUint16(p[:], n)
	put40(p[2:], rec.Last)
	put40(p[7:], uint64(since))
	return p, true
}

// Len is how many keys are known.
func (t *Table) Len() int { return int(t.length.Load()) }

// Bytes is the memory that slots and arenas hold, all slack included.
func (t *Table) Bytes() int64 { return t.slots.octets() }

// encode appends the record in varints.
func (rec *Record) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, rec.Last)
	if rec.Person == (Key{}) {
		b = append(b, 0)
	} else {
		b = append(append(b, 1), rec.Person[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(rec.Facts)))
	for i := range rec.Facts {
		f := &rec.Facts[i]
		b = append(b, byte(f.Kind), f.Flags)
		b = binary.AppendUvarint(b, uint64(f.Scope))
		b = binary.AppendUvarint(b, f.Position)
		b = binary.AppendUvarint(b, f.Entry-f.Position)
		b = binary.AppendVarint(b, f.At-epoch)
		b = binary.AppendVarint(b, f.Occurred)
		b = binary.AppendVarint(b, f.Until)
		b = binary.AppendUvarint(b, f.Consent)
	}
	return b
}

func (rec *Record) decode(b []byte) {
	u := func() uint64 {
		v, n := binary.Uvarint(b)
		b = b[n:]
		return v
	}
	i := func() int64 {
		v, n := binary.Varint(b)
		b = b[n:]
		return v
	}
	rec.Last = u()
	if b[0] == 1 {
		copy(rec.Person[:], b[1:])
		b = b[len(rec.Person):]
	}
	b = b[1:]
	for n := u(); n > 0; n-- {
		f := Fact{Kind: Kind(b[0]), Flags: b[1]}
		b = b[2:]
		f.Scope, f.Position = uint32(u()), u()
		f.Entry = f.Position + u()
		f.At, f.Occurred, f.Until, f.Consent = i()+epoch, i(), i(), u()
		rec.Facts = append(rec.Facts, f)
	}
}

// Persons tells which addresses belong to a person. The rules of concurrency are those of Table.
type Persons struct {
	slots   slots
	length  atomic.Int64
	scratch []byte
}

// NewPersons returns an empty table.
func NewPersons() *Persons { return &Persons{} }

// Members appends the address keys of a person to dst.
func (p *Persons) Members(person Key, dst []Key) []Key {
	var space [512]byte
	_, buf, _ := p.slots.get(&person, space[:0])
	for ; len(buf) >= len(Key{}); buf = buf[len(Key{}):] {
		dst = append(dst, Key(buf[:len(Key{})]))
	}
	return dst
}

// Set makes members the address keys of a person.
func (p *Persons) Set(person Key, members []Key) {
	p.scratch = p.scratch[:0]
	for i := range members {
		p.scratch = append(p.scratch, members[i][:]...)
	}
	if len(members) == 0 {
		p.scratch = append(p.scratch, 0) // a block is never empty; an odd octet is no member
	}
	if p.slots.set(&person, payload{}, p.scratch) {
		p.length.Add(1)
	}
}

// Len is how many persons are known.
func (p *Persons) Len() int { return int(p.length.Load()) }

// Bytes is the memory held.
func (p *Persons) Bytes() int64 { return p.slots.octets() }
