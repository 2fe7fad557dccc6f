package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"

	"optout/service/ledger"
)

// backupPages is how many pages are copied in one step, during which the writer waits.
const backupPages = 128

// Backup implements [ledger.Store]. The copy has the database's name and mode 0600; progress counts pages of 4 KiB.
//
// It copies through the writer's own connection, a few pages at a time with the writer held. SQLite then carries every later
// write over into the copy, so the copy needs no second start however much is written meanwhile, no long transaction holds
// back the checkpoints, and the copy is of the moment of the last step. (Through another connection each commit would start it
// anew; VACUUM INTO would keep one transaction open, and the log growing, until the end.)
func (s *Store) Backup(ctx context.Context, dir string, progress func(copied, total uint64)) (tip ledger.Tip, err error) {
	if err := ctx.Err(); err != nil {
		return tip, err
	}
	s.backups.Lock()
	defer s.backups.Unlock()
	path := filepath.Join(dir, filepath.Base(s.path))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return tip, fmt.Errorf("sqlite: backup: %s exists: name an empty folder", path)
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = s.copyInto(ctx, path, progress)
	}
	if err == nil {
		err = syncFile(path)
	}
	if err == nil {
		tip, err = tipOf(ctx, path)
	}
	if err == nil {
		err = syncFolder(dir)
	}
	if err != nil {
		err = backupError(ctx, err)
		if e := os.Remove(path); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
		return ledger.Tip{}, err
	}
	return tip, nil
}

func backupError(ctx context.Context, err error) error {
	if e := ctx.Err(); e != nil {
		return e
	}
	if outcome(err) == nothingKeptFull {
		return fmt.Errorf("%w: no space for the backup: %w", ledger.ErrStorageFull, err)
	}
	return fmt.Errorf("sqlite: backup: %w", err)
}

// copyInto copies the whole database into the empty file at path.
func (s *Store) copyInto(ctx context.Context, path string, progress func(copied, total uint64)) (err error) {
	// A journal would be for taking back what is not wanted anyway if it fails.
	p := parameters(&s.opt, readWrite)
	p.Set("_journal_mode", "OFF")
	to, err := open(path, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.close()) }()
	b, err := s.beginBackup(to)
	if err != nil {
		return err
	}
	defer func() {
		s.write.Lock() // the source is the writer's connection
		defer s.write.Unlock()
		if e := b.Finish(); err == nil {
			err = e
		}
	}()
	for {
		began := time.Now()
		ready, err := s.stepBackup(b)
		if err != nil {
			return err
		}
		if progress != nil {
			total := b.PageCount()
			progress(uint64(total-b.Remaining()), uint64(total))
		}
		if ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.done:
			return errors.New("the store is being closed")
		case <-time.After(time.Since(began)): // half of the time is the writer's
		}
	}
}

func (s *Store) beginBackup(to *conn) (*sqlite3.SQLiteBackup, error) {
	s.write.Lock()
	defer s.write.Unlock()
	return to.Backup("main", s.w.SQLiteConn, "main")
}

func (s *Store) stepBackup(b *sqlite3.SQLiteBackup) (ready bool, err error) {
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.failure(); err != nil {
		return false, err
	}
	return b.Step(backupPages)
}

// tipOf reads the tip of a database that nobody has open or will write to: so it needs no log, and leaves no files.
func tipOf(ctx context.Context, path string) (tip ledger.Tip, err error) {
	p := parameters(&Options{}, queryOnly)
	p.Set("mode", "ro")
	p.Set("immutable", "1")
	c, err := open(path, p)
	if err != nil {
		return tip, err
	}
	r, err := newReader(c)
	if err != nil {
		return tip, err
	}
	tip, err = r.readTip(ctx)
	return tip, errors.Join(err, r.close())
}
