package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// mode says what a connection is for.
type mode bool

const (
	readWrite mode = false
	queryOnly mode = true
)

// logLimit is the size, in octets, above which the write-ahead log's file is cut back once it starts over.
const logLimit = 2 * 4096 * restartFrames

// busyTimeout is how long, in milliseconds, SQLite waits for another process's lock. Our own connections never wait for one
// another that long.
const busyTimeout = 5000

// conn is one connection with its prepared statements. It is used by one goroutine at a time. It stands on the driver itself:
// each connection has its task, and database/sql hides them in a pool, while a backup needs the writer's very own.
type conn struct {
	*sqlite3.SQLiteConn
	stmts []*sqlite3.SQLiteStmt
}

// connect opens a connection and reads back what it promises. An unsafe one is never returned.
func connect(path string, o *Options, m mode) (*conn, error) {
	p := parameters(o, m)
	p.Set("_journal_mode", "WAL")
	c, err := open(path, p)
	if err != nil {
		return nil, err
	}
	// These have no parameter in the driver's DSN. Temporary data may be personal: it must not reach a disk.
	const rest = `PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0; PRAGMA wal_autocheckpoint = 0; PRAGMA trusted_schema = OFF;
		PRAGMA cell_size_check = ON; PRAGMA journal_size_limit = %d`
	if err = c.exec(fmt.Sprintf(rest, logLimit)); err == nil && !o.unchecked {
		err = c.readBack(m)
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// parameters returns what the driver's DSN can say, but for the journal mode, which changes the file.
func parameters(o *Options, m mode) url.Values {
	p := url.Values{
		"_txlock": {"immediate"}, "_synchronous": {"FULL"}, "_secure_delete": {"ON"}, "_foreign_keys": {"ON"},
		"_busy_timeout": {fmt.Sprint(busyTimeout)}, "_query_only": {"OFF"}, "_cache_size": {"-32768"}, // KiB, when needed
	}
	if m == queryOnly {
		p.Set("_query_only", "ON")
		p.Set("_cache_size", "-4096")
	}
	if o.synchronous != "" {
		p.Set("_synchronous", o.synchronous)
	}
	return p
}

func open(path string, p url.Values) (*conn, error) {
	file := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: p.Encode()}
	d, err := (&sqlite3.SQLiteDriver{}).Open(file.String())
	if err != nil {
		return nil, fmt.Errorf("sqlite: a connection cannot be opened: %w", err)
	}
	return &conn{SQLiteConn: d.(*sqlite3.SQLiteConn)}, nil
}

// readBack asks SQLite for what was set. A file system without shared memory, or a driver with other defaults, shows here.
func (c *conn) readBack(m mode) error {
	only := int64(0)
	if m == queryOnly {
		only = 1
	}
	for _, p := range []struct {
		name string
		want any
		why  string
	}{
		{"synchronous", int64(2), "acknowledged writes would not survive a power cut"},
		{"journal_mode", "wal", "reads and writes would block each other"},
		{"secure_delete", int64(1), "erased data would stay in the file"},
		{"foreign_keys", int64(1), "references would not be checked"},
		{"query_only", only, "only the writer may write"},
		{"wal_autocheckpoint", int64(0), "a commit would have to copy the log"},
		{"temp_store", int64(2), "personal data could reach a temporary file"},
		{"cell_size_check", int64(1), "damaged pages would be noticed late"},
	} {
		got, err := c.value("PRAGMA " + p.name)
		if err != nil {
			return fmt.Errorf("sqlite: PRAGMA %s: %w", p.name, err)
		}
		if got != p.want {
			return fmt.Errorf("sqlite: refusing to run: PRAGMA %s is %v instead of %v: %s", p.name, got, p.want, p.why)
		}
	}
	// mmap_size answers nothing at all where it is compiled out.
	if got, err := c.value("PRAGMA mmap_size"); err != nil && !errors.Is(err, io.EOF) || err == nil && got != int64(0) {
		return fmt.Errorf("sqlite: refusing to run: PRAGMA mmap_size is %v (%v) instead of 0: an I/O error would end the process", got, err)
	}
	return nil
}

// prepare makes a statement that close ends.
func (c *conn) prepare(query string) (*sqlite3.SQLiteStmt, error) {
	st, err := c.Prepare(query)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	c.stmts = append(c.stmts, st.(*sqlite3.SQLiteStmt))
	return st.(*sqlite3.SQLiteStmt), nil
}

// exec runs statements that take no arguments.
func (c *conn) exec(query string) error {
	_, err := c.ExecContext(context.Background(), query, nil)
	return err
}

// row runs a query and returns its first row; io.EOF when there is none.
func (c *conn) row(query string, columns int) ([]driver.Value, error) {
	rows, err := c.QueryContext(context.Background(), query, nil)
	if err != nil {
		return nil, err
	}
	dest := make([]driver.Value, columns)
	if err := rows.Next(dest); err != nil {
		return nil, errors.Join(err, rows.Close())
	}
	return dest, rows.Close()
}

// value runs a query and returns the first column of its first row.
func (c *conn) value(query string) (any, error) {
	row, err := c.row(query, 1)
	if err != nil {
		return nil, err
	}
	return row[0], nil
}

// close ends the statements first: SQLite keeps a connection with statements half open.
func (c *conn) close() error {
	var errs []error
	for _, st := range c.stmts {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, c.Close())...)
}
