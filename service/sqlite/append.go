package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	sqlite3 "github.com/mattn/go-sqlite3"

	"optout/service/ledger"
)

// Append implements [ledger.Store]. A commit that does not continue the tip is refused before anything is written.
func (s *Store) Append(ctx context.Context, c *ledger.Commit) error {
	s.write.Lock()
	defer s.write.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.failure(); err != nil {
		return err
	}
	if err := continues(s.head, c); err != nil {
		return err
	}
	err := s.w.append(s.head, c)
	if err == nil {
		s.head = c.Head
		s.checkpoints.wrote(c)
		return nil
	}
	// SQLite has ended the transaction by itself after some errors.
	if !s.w.AutoCommit() {
		if e := s.w.exec("ROLLBACK"); e != nil {
			err = errors.Join(err, e)
			s.fail(err)
			return fmt.Errorf("sqlite: append: %w", err)
		}
	}
	switch outcome(err) {
	case nothingKeptFull:
		return fmt.Errorf("%w: %w", ledger.ErrStorageFull, err)
	case nothingKeptBusy:
		return fmt.Errorf("%w: another process writes to the database: %w", ledger.ErrStorageUnavailable, err)
	case nothingKeptRefused:
		return fmt.Errorf("sqlite: append: %w", err)
	}
	s.fail(err)
	return fmt.Errorf("sqlite: append: the outcome is unknown: %w", err)
}

// continues returns what is wrong with c as the very next commit after head.
func continues(head ledger.Head, c *ledger.Commit) error {
	next := head.Size
	for i := range c.Records {
		if next++; c.Records[i].Position != next {
			return fmt.Errorf("sqlite: append: record %d of the commit has position %d, want %d", i+1, c.Records[i].Position, next)
		}
	}
	if c.Head.Size != next {
		return fmt.Errorf("sqlite: append: the head is of size %d, want %d", c.Head.Size, next)
	}
	if len(c.Edge) != bits.OnesCount64(next) {
		return fmt.Errorf("sqlite: append: the edge of a tree of size %d has %d hashes, want %d", next, len(c.Edge), bits.OnesCount64(next))
	}
	if len(c.Records) == 0 && c.Head != head {
		return errors.New("sqlite: append: another head without records")
	}
	for i := range c.Personal {
		if p := c.Personal[i].Position; p <= head.Size || p > next {
			return fmt.Errorf("sqlite: append: the personal row of entry %d belongs to no record of the commit", p)
		}
	}
	return nil
}

// writer is the one connection that writes.
type writer struct {
	*conn
	entries, personal, requests, heads inserter
	setTip                             *sqlite3.SQLiteStmt

	args  []driver.NamedValue
	arena []byte
	order []*ledger.RequestRow
}

func newWriter(c *conn) (w *writer, err error) {
	w = &writer{conn: c}
	for _, t := range []struct {
		in      *inserter
		table   string
		columns int
	}{{&w.entries, "entry", 2}, {&w.personal, "personal", 2}, {&w.requests, "request", 4}, {&w.heads, "head", 2}} {
		if *t.in, err = newInserter(c, t.table, t.columns); err != nil {
			return nil, err
		}
	}
	w.setTip, err = c.prepare("UPDATE tip SET size = ?, root = ?, edge = ? WHERE size = ? AND root = ?")
	return w, err
}

// append writes c in one transaction.
func (w *writer) append(head ledger.Head, c *ledger.Commit) error {
	defer w.forget()
	if err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return &beginError{err}
	}
	err := w.entries.insert(w, len(c.Records), func(i int) {
		r := &c.Records[i]
		start := len(w.arena)
		w.arena = appendRecord(w.arena, r)
		w.bind(int64(r.Position), w.arena[start:])
	})
	if err != nil {
		return err
	}
	err = w.personal.insert(w, len(c.Personal), func(i int) {
		w.bind(int64(c.Personal[i].Position), blob(c.Personal[i].Body))
	})
	if err != nil {
		return err
	}
	// In the order of the index neighbours share a page while it is at hand.
	for i := range c.Requests {
		w.order = append(w.order, &c.Requests[i])
	}
	slices.SortFunc(w.order, compareRequests)
	err = w.requests.insert(w, len(w.order), func(i int) {
		r := w.order[i]
		w.bind(int64(r.Sender), r.ID[:], r.Content[:], int64(r.Position))
	})
	if err != nil {
		return err
	}
	if len(c.Records) > 0 {
		err = w.heads.insert(w, 1, func(int) { w.bind(int64(c.Head.Size), c.Head.Root[:]) })
		if err != nil {
			return err
		}
		if err := w.moveTip(head, c); err != nil {
			return err
		}
	}
	return w.exec("COMMIT")
}

// moveTip is also the check, inside the transaction, that nobody else has written.
func (w *writer) moveTip(head ledger.Head, c *ledger.Commit) error {
	edge := make([]byte, 0, 32*len(c.Edge))
	for i := range c.Edge {
		edge = append(edge, c.Edge[i][:]...)
	}
	w.bind(int64(c.Head.Size), c.Head.Root[:], edge, int64(head.Size), head.Root[:])
	res, err := w.setTip.ExecContext(context.Background(), w.args)
	w.args = w.args[:0]
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(errors.New("the tip in the file is not the one this store wrote last: another program has changed the file"), err)
	}
	return nil
}

func (w *writer) bind(values ...driver.Value) {
	for _, v := range values {
		w.args = append(w.args, driver.NamedValue{Ordinal: len(w.args) + 1, Value: v})
	}
}

// forget lets go of the commit's data.
func (w *writer) forget() {
	clear(w.args[:cap(w.args)])
	clear(w.order)
	w.args, w.arena, w.order = w.args[:0], w.arena[:0], w.order[:0]
}

func compareRequests(a, b *ledger.RequestRow) int {
	if a.Sender != b.Sender {
		return int(int64(a.Sender) - int64(b.Sender))
	}
	return slices.Compare(a.ID[:], b.ID[:])
}

// blob keeps the driver from writing NULL for an empty value.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// inserter writes rows of one table, many in a statement: a statement's cost outweighs a small row's.
type inserter struct {
	chunks []chunk // largest first, down to one row
}

type chunk struct {
	rows int
	stmt *sqlite3.SQLiteStmt
}

func newInserter(c *conn, table string, columns int) (inserter, error) {
	var in inserter
	row := "(?" + strings.Repeat(", ?", columns-1) + ")"
	for _, rows := range []int{256, 64, 16, 4, 1} {
		// OR ROLLBACK: a refused row ends the transaction, as it would anyway, so SQLite need not keep what it could take back.
		stmt, err := c.prepare("INSERT OR ROLLBACK INTO " + table + " VALUES " + row + strings.Repeat(", "+row, rows-1))
		if err != nil {
			return in, err
		}
		in.chunks = append(in.chunks, chunk{rows, stmt})
	}
	return in, nil
}

// insert writes n rows; bind adds the values of row i to w.args.
func (in *inserter) insert(w *writer, n int, bind func(i int)) error {
	next := 0
	for _, ch := range in.chunks {
		for ; n-next >= ch.rows; next += ch.rows {
			for i := range ch.rows {
				bind(next + i)
			}
			// A query, because the driver then binds and runs all in one call into C (exec: one call a value).
			rows, err := ch.stmt.QueryContext(context.Background(), w.args)
			w.args, w.arena = w.args[:0], w.arena[:0]
			if err != nil {
				return err
			}
			if err := rows.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}
