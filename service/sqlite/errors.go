package sqlite

import (
	"context"
	"errors"
	"fmt"

	sqlite3 "github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"optout/service/ledger"
)

var errDamagedTip = errors.New("the ledger's tip is missing or unreadable: the database file is damaged; restore a backup")

// beginError is an error of BEGIN: nothing was written yet.
type beginError struct{ error }

func (e *beginError) Unwrap() error { return e.error }

// What is known of a transaction that ended with an error.
type fate int

const (
	unknown fate = iota
	nothingKeptFull
	nothingKeptBusy
	nothingKeptRefused
)

// outcome tells what became of a transaction that was rolled back after err. Whatever is not known to be harmless is unknown:
// a failed fsync may have left the commit on disk or not, and so may a failed extension of the log's index, which comes after
// the fsync.
func outcome(err error) fate {
	var begin *beginError
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return unknown
	}
	switch {
	case e.Code == sqlite3.ErrFull:
		// No space for a frame of the log. All frames are written before the fsync, and without the last one the transaction is
		// no commit.
		return nothingKeptFull
	case e.ExtendedCode == sqlite3.ErrIoErrWrite && e.SystemErrno == unix.EDQUOT:
		return nothingKeptFull // the same for a quota, which SQLite does not tell from a bad disk
	case e.Code == sqlite3.ErrConstraint:
		return nothingKeptRefused
	case e.Code == sqlite3.ErrBusy && errors.As(err, &begin):
		return nothingKeptBusy
	}
	return unknown
}

// readError makes err, of a read, one of the store's errors.
func readError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if e := ctx.Err(); e != nil {
		return e
	}
	if errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	var e sqlite3.Error
	if errors.As(err, &e) {
		switch e.Code {
		case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrProtocol, sqlite3.ErrIoErr, sqlite3.ErrCantOpen, sqlite3.ErrNomem, sqlite3.ErrFull:
			return fmt.Errorf("%w: %w", ledger.ErrStorageUnavailable, err)
		case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
			return fmt.Errorf("sqlite: the database file is damaged: %w", err)
		}
	}
	return fmt.Errorf("sqlite: read: %w", err)
}
