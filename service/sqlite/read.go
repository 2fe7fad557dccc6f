package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math"

	sqlite3 "github.com/mattn/go-sqlite3"

	"optout/service/ledger"
)

// reader is one connection that reads.
type reader struct {
	*conn
	tip, last, get, personal, request, joined, entries *sqlite3.SQLiteStmt
	pages                                              [2]*sqlite3.SQLiteStmt

	args []driver.NamedValue
	dest [4]driver.Value
}

func newReader(c *conn) (*reader, error) {
	r := &reader{conn: c}
	var err error
	for _, q := range []struct {
		stmt **sqlite3.SQLiteStmt
		text string
	}{
		{&r.tip, "SELECT ledger, size, root, edge FROM tip"},
		{&r.last, "SELECT coalesce(max(position), 0) FROM entry"},
		{&r.get, "SELECT record FROM entry WHERE position = ?"},
		{&r.personal, "SELECT body FROM personal WHERE position = ?"},
		{&r.request, "SELECT content, position FROM request WHERE sender = ? AND id = ?"},
		{&r.joined, "SELECT CAST(group_concat(record, '') AS BLOB) FROM (SELECT record FROM entry WHERE position BETWEEN ? AND ? ORDER BY position)"},
		{&r.entries, "SELECT position, record FROM entry WHERE position BETWEEN ? AND ? ORDER BY position"},
		{&r.pages[personals], "SELECT position, body FROM personal WHERE position BETWEEN ? AND ? ORDER BY position LIMIT ?"},
		{&r.pages[heads], "SELECT size, root FROM head WHERE size BETWEEN ? AND ? ORDER BY size LIMIT ?"},
	} {
		if *q.stmt, err = c.prepare(q.text); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return r, nil
}

// read runs f with a reader, as soon as one is free, and makes its error one of the store's. f must not run a caller's code: a
// reader held meanwhile would hold back the checkpoints, and if all were held so they could wait for one another.
func (s *Store) read(ctx context.Context, f func(*reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case r := <-s.pool:
		defer func() { s.pool <- r }()
		return readError(ctx, f(r))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// query runs a statement and calls each with the values of every row; they are each's to keep, the slice is not.
func (r *reader) query(ctx context.Context, stmt *sqlite3.SQLiteStmt, columns int, each func([]driver.Value) error, args ...driver.Value) error {
	r.args = r.args[:0]
	for i, v := range args {
		r.args = append(r.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	rows, err := stmt.QueryContext(ctx, r.args)
	if err != nil {
		return err
	}
	dest := r.dest[:columns]
	defer clear(dest)
	for {
		err := rows.Next(dest)
		if err == nil {
			err = each(dest)
		}
		if err == io.EOF {
			return rows.Close()
		}
		if err != nil {
			return errors.Join(err, rows.Close())
		}
	}
}

// one runs a statement that yields one row, or ErrNotFound.
func (r *reader) one(ctx context.Context, stmt *sqlite3.SQLiteStmt, columns int, take func([]driver.Value) error, args ...driver.Value) error {
	found := false
	err := r.query(ctx, stmt, columns, func(row []driver.Value) error {
		found = true
		return take(row)
	}, args...)
	if err == nil && !found {
		return ledger.ErrNotFound
	}
	return err
}

// Tip implements [ledger.Store].
func (s *Store) Tip(ctx context.Context) (ledger.Tip, error) {
	var t ledger.Tip
	err := s.read(ctx, func(r *reader) (err error) {
		t, err = r.readTip(ctx)
		return err
	})
	return t, err
}

func (r *reader) readTip(ctx context.Context) (t ledger.Tip, err error) {
	err = r.one(ctx, r.tip, 4, func(row []driver.Value) error {
		id, _ := row[0].(string)
		size, _ := row[1].(int64)
		root, _ := row[2].([]byte)
		edge, _ := row[3].([]byte)
		if len(id) != 16 || size < 0 || len(root) != 32 || len(edge)%32 != 0 {
			return errDamagedTip
		}
		t = ledger.Tip{LedgerID: id, Head: ledger.Head{Size: uint64(size), Root: ledger.Hash(root)}}
		for ; len(edge) > 0; edge = edge[32:] {
			t.Edge = append(t.Edge, ledger.Hash(edge[:32]))
		}
		return nil
	})
	if errors.Is(err, ledger.ErrNotFound) {
		err = errDamagedTip
	}
	return t, err
}

// Get implements [ledger.Store].
func (s *Store) Get(ctx context.Context, position uint64) (ledger.Record, error) {
	rec := ledger.Record{Position: position}
	if position > math.MaxInt64 {
		return rec, ledger.ErrNotFound
	}
	err := s.read(ctx, func(r *reader) error {
		return r.one(ctx, r.get, 1, func(row []driver.Value) error {
			rec = loneRecord(position, row[0])
			return nil
		}, int64(position))
	})
	return rec, err
}

// Personal implements [ledger.Store].
func (s *Store) Personal(ctx context.Context, position uint64) (body []byte, err error) {
	if position > math.MaxInt64 {
		return nil, ledger.ErrNotFound
	}
	err = s.read(ctx, func(r *reader) error {
		return r.one(ctx, r.personal, 1, func(row []driver.Value) error {
			body, _ = row[0].([]byte)
			return nil
		}, int64(position))
	})
	return body, err
}

// Request implements [ledger.Store].
func (s *Store) Request(ctx context.Context, sender uint32, id [16]byte) (ledger.RequestRow, error) {
	row := ledger.RequestRow{Sender: sender, ID: id}
	err := s.read(ctx, func(r *reader) error {
		return r.one(ctx, r.request, 2, func(v []driver.Value) error {
			content, _ := v[0].([]byte)
			position, ok := v[1].(int64)
			if len(content) != len(row.Content) || !ok || position < 0 {
				return fmt.Errorf("the row of a request id is damaged")
			}
			row.Content, row.Position = [16]byte(content), uint64(position)
			return nil
		}, int64(sender), id[:])
	})
	return row, err
}
