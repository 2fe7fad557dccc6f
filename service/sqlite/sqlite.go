// Package sqlite is the embedded store: it keeps a ledger in one SQLite file. It knows the core's Store interface, the SQLite
// driver and the folder the file lies in, and nothing else.
//
// One connection writes, a few read, one copies the write-ahead log back into the file (checkpoints). SQLite's driver is not
// durable by default, so every connection is read back before it is used (connect). An error on the write path means that the
// outcome is unknown: after it the store writes no more until it is opened anew; only a full disk is different, because then
// nothing was kept (law 4).
//
// SQLite's locks on the file are the process's: any other descriptor of it, once closed, drops them all. So nothing here opens
// the database by other means, and the lock that keeps a second service away is on a file of its own.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"optout/service/ledger"
)

// Options adjust a store. The zero value is right for production.
type Options struct {
	// MinFree is the free space of the volume, in octets, below which Writable says ErrStorageFull. 0 means 2 % of the volume,
	// but at least 16 MiB and at most 256 MiB.
	MinFree uint64
	// Log takes what an operator must know. nil means none.
	Log *slog.Logger

	// What only tests set: a store that is not durable, the control of the fault tests; and a log that starts over at another
	// length, in pages.
	synchronous string
	unchecked   bool
	logPages    int64
}

// readers is how many reads go on at once; more wait for their turn.
const readers = 4

// Store is a ledger in a SQLite file. It implements [ledger.Store].
type Store struct {
	path string
	opt  Options
	log  *slog.Logger
	lock *os.File

	// write guards w and head: one Append, one step of a backup or one restart of the log at a time.
	write sync.Mutex
	w     *writer
	head  ledger.Head // of what was committed last

	// backups lets one backup run at a time, and Close wait for it to end.
	backups sync.Mutex

	pool chan *reader

	checkpoints *checkpointer
	space       *space

	failed atomic.Pointer[error]
	done   chan struct{} // closed by Close
	ended  sync.WaitGroup
}

var _ ledger.Store = (*Store)(nil)

// Open opens the ledger at path, or makes a new one (0600), in a folder that exists. It holds the file's lock until Close.
// Errors: another process has it open; it was written by a newer program; it is no optout database; it is damaged; a
// connection is not durable; the folder cannot be used.
func Open(ctx context.Context, path string, o Options) (_ *Store, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	s := &Store{path: path, opt: o, log: o.Log, pool: make(chan *reader, readers), done: make(chan struct{})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.lock, err = lockFile(strings.TrimSuffix(path, filepath.Ext(path)) + ".lock"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := createFile(path); err != nil {
		return nil, err
	}
	if err := s.connect(); err != nil {
		return nil, err
	}
	if s.space, err = watchSpace(filepath.Dir(path), o.MinFree); err != nil {
		return nil, err
	}
	s.ended.Go(func() { s.checkpoints.run(s) })
	s.ended.Go(func() { s.space.run(s.log, s.done) })
	return s, nil
}

// connect opens the writer, brings the schema up to date, then opens the others.
func (s *Store) connect() error {
	probe, err := inspect(s.path, &s.opt)
	if err != nil {
		return err
	}
	defer probe.close() // not before the writer is open: the last connection to close would copy back and remove the log
	c, err := connect(s.path, &s.opt, readWrite)
	if err != nil {
		return err
	}
	if err := migrate(c); err != nil {
		return errors.Join(err, c.close())
	}
	w, err := newWriter(c)
	if err != nil {
		return errors.Join(err, c.close())
	}
	s.w = w
	if c, err = connect(s.path, &s.opt, queryOnly); err != nil {
		return err
	}
	if s.checkpoints, err = newCheckpointer(c, s.opt.logPages); err != nil {
		return err
	}
	for range readers {
		if c, err = connect(s.path, &s.opt, queryOnly); err != nil {
			return err
		}
		r, err := newReader(c)
		if err != nil {
			return err
		}
		s.pool <- r
	}
	tip, err := s.Tip(context.Background())
	s.head = tip.Head
	return err
}

// fail ends writing for good: the outcome of what was written last is unknown, and only a new start can tell.
func (s *Store) fail(err error) {
	if s.failed.CompareAndSwap(nil, &err) {
		s.log.Error("the store writes no more: restart to recover", "file", s.path, "error", err)
	}
}

// failure returns why the store writes no more, or nil.
func (s *Store) failure() error {
	if p := s.failed.Load(); p != nil {
		return fmt.Errorf("sqlite: the store has failed and must be opened anew: %w", *p)
	}
	return nil
}

// Writable implements [ledger.Store]. The free space is looked at once a second.
func (s *Store) Writable() error {
	if s.space.low.Load() {
		return ledger.ErrStorageFull
	}
	return nil
}

// Close waits for what is under way, copies the log back into the database and lets go of the lock.
func (s *Store) Close() error {
	close(s.done)
	s.ended.Wait()
	s.backups.Lock()
	defer s.backups.Unlock()
	var errs []error
	for range cap(s.pool) {
		select {
		case r := <-s.pool:
			errs = append(errs, r.close())
		default:
			if s.space != nil { // all readers exist: wait for this one
				errs = append(errs, (<-s.pool).close())
			}
		}
	}
	if s.checkpoints != nil {
		errs = append(errs, s.checkpoints.conn.close())
	}
	if s.w != nil {
		s.write.Lock()
		defer s.write.Unlock()
		errs = append(errs, s.w.close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}
