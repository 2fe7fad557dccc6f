package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"math"

	"optout/service/ledger"
)

// A scan reads slices, each in a read transaction of its own, and calls back only between them: so it never holds back the
// checkpoints, however slow the caller, and the caller may use the store. Entries never change, so the slices fit together.
//
// The first slices are small, for those who stop early.
const (
	firstSlice = 64
	maxSlice   = 4096
)

// Scan implements [ledger.Store]. While a slice is being handed out the next one is read.
func (s *Store) Scan(ctx context.Context, first, last uint64, fn func(ledger.Record) error) error {
	lo, hi, down := max(min(first, last), 1), min(max(first, last), math.MaxInt64), first > last
	newest, err := s.last(ctx)
	if err != nil {
		return err
	}
	hi = min(hi, newest)
	if lo > hi {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	size := uint64(firstSlice)
	// cut takes the next slice off the range; nil when there is none.
	cut := func(into *slice) *slice {
		if lo > hi {
			return nil
		}
		n := min(size, hi-lo+1)
		if size = min(4*size, maxSlice); down {
			into.lo, into.hi, hi = hi-n+1, hi, hi-n
		} else {
			into.lo, into.hi, lo = lo, lo+n-1, lo+n
		}
		return into
	}
	this, next := cut(&slice{}), &slice{}
	this.read(ctx, s)
	for this != nil {
		ready := make(chan *slice, 1)
		if next = cut(next); next == nil {
			close(ready)
		} else {
			go func(next *slice) { next.read(ctx, s); ready <- next }(next)
		}
		if err = this.each(ctx, down, fn); err != nil {
			cancel()
		}
		read := <-ready // also when it is over, so that nothing of the scan outlives it
		if err != nil {
			return err
		}
		this, next = read, this
	}
	return nil
}

// slice is some consecutive records, as far as they could be read.
type slice struct {
	lo, hi  uint64
	records []ledger.Record
	err     error
}

// read reads all records of the slice joined into one value, which costs half of what one row each costs. If they are not all
// there, or anything else is odd, it reads row by row, which finds out what there is.
func (sl *slice) read(ctx context.Context, s *Store) {
	sl.err = s.read(ctx, func(r *reader) error {
		whole := false
		err := r.query(ctx, r.joined, 1, func(row []driver.Value) error {
			joined, _ := row[0].([]byte)
			whole = sl.split(joined)
			return nil
		}, int64(sl.lo), int64(sl.hi))
		if err == nil && whole {
			return nil
		}
		sl.records = sl.records[:0]
		return r.query(ctx, r.entries, 2, func(row []driver.Value) error {
			position, _ := row[0].(int64)
			sl.records = append(sl.records, loneRecord(uint64(position), row[1]))
			return nil
		}, int64(sl.lo), int64(sl.hi))
	})
}

// split takes joined records apart, and reports whether they are as many as the slice should have, to the octet.
func (sl *slice) split(joined []byte) bool {
	sl.records = sl.records[:0]
	for position := sl.lo; position <= sl.hi; position++ {
		rec, rest, ok := cutRecord(position, joined)
		if !ok {
			return false
		}
		sl.records, joined = append(sl.records, rec), rest
	}
	return len(joined) == 0
}

// each hands the records to fn, then returns the error that ended reading.
func (sl *slice) each(ctx context.Context, down bool, fn func(ledger.Record) error) error {
	for i := range sl.records {
		if i%64 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		at := i
		if down {
			at = len(sl.records) - 1 - i
		}
		if err := fn(sl.records[at]); err != nil {
			return err
		}
	}
	return sl.err
}

// last returns the newest position.
func (s *Store) last(ctx context.Context) (position uint64, err error) {
	err = s.read(ctx, func(r *reader) error {
		return r.one(ctx, r.last, 1, func(row []driver.Value) error {
			n, _ := row[0].(int64)
			position = uint64(max(n, 0))
			return nil
		})
	})
	return position, err
}

// ScanPersonal implements [ledger.Store].
func (s *Store) ScanPersonal(ctx context.Context, first, last uint64, fn func(ledger.PersonalRow) error) error {
	return s.page(ctx, first, last, personals, func(position uint64, value []byte) error {
		return fn(ledger.PersonalRow{Position: position, Body: value})
	})
}

// Heads implements [ledger.Store].
func (s *Store) Heads(ctx context.Context, first, last uint64, fn func(ledger.Head) error) error {
	return s.page(ctx, first, last, heads, func(size uint64, root []byte) error {
		if len(root) != len(ledger.Hash{}) {
			return fmt.Errorf("sqlite: the tree head of size %d is damaged", size)
		}
		return fn(ledger.Head{Size: size, Root: ledger.Hash(root)})
	})
}

// What page reads.
type table int

const (
	personals table = iota
	heads
)

// page hands out the rows of a sparse table by number, some hundred at a time.
func (s *Store) page(ctx context.Context, first, last uint64, from table, fn func(uint64, []byte) error) error {
	const pageRows = 512
	type numbered struct {
		number uint64
		value  []byte
	}
	last = min(last, math.MaxInt64)
	rows := make([]numbered, 0, 16)
	for first <= last {
		rows = rows[:0]
		err := s.read(ctx, func(r *reader) error {
			return r.query(ctx, r.pages[from], 2, func(row []driver.Value) error {
				number, _ := row[0].(int64)
				value, _ := row[1].([]byte)
				rows = append(rows, numbered{uint64(number), value})
				return nil
			}, int64(first), int64(last), int64(pageRows))
		})
		for _, row := range rows {
			if e := ctx.Err(); e != nil {
				return e
			}
			if e := fn(row.number, row.value); e != nil {
				return e
			}
		}
		if err != nil || len(rows) < pageRows {
			return err
		}
		first = rows[len(rows)-1].number + 1
	}
	return nil
}

// A record in the file is: the length of the body (unsigned LEB128), the leaf (8 octets, big endian), the body.

// appendRecord appends r's form in the file to dst.
func appendRecord(dst []byte, r *ledger.Record) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(r.Body)))
	dst = binary.BigEndian.AppendUint64(dst, r.Leaf)
	return append(dst, r.Body...)
}

// cutRecord takes one record off joined.
func cutRecord(position uint64, joined []byte) (rec ledger.Record, rest []byte, ok bool) {
	n, head := binary.Uvarint(joined)
	if head <= 0 || len(joined)-head < 8 || uint64(len(joined)-head-8) < n {
		return rec, nil, false
	}
	body := joined[head+8:]
	rec = ledger.Record{Position: position, Leaf: binary.BigEndian.Uint64(joined[head:]), Body: body[:n:n]}
	return rec, body[n:], true
}

// loneRecord reads the value of one row. What is damaged is handed out as it is: it does not fit its leaf, and so whoever
// verifies can name it.
func loneRecord(position uint64, value driver.Value) ledger.Record {
	octets, _ := value.([]byte)
	if rec, rest, ok := cutRecord(position, octets); ok && len(rest) == 0 {
		return rec
	}
	return ledger.Record{Position: position, Body: octets}
}
