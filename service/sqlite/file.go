package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockFile takes the lock that makes the store the only one on its data. The file stays; the lock ends with the process.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("sqlite: lock file: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("sqlite: another optout has this data open (%s is locked): stop it first, or use another data folder", path)
	}
	return nil, fmt.Errorf("sqlite: lock %s: %w", path, err)
}

// createFile makes the database file, readable by its owner only, before SQLite first opens it; SQLite gives the log and its
// index the same mode. Of a file that is there it takes the rights of others away.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err := refuseTorn(path); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o600); err != nil {
			return fmt.Errorf("sqlite: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	return syncFolder(filepath.Dir(path))
}

// refuseTorn refuses an empty database beside a log that is not: SQLite would delete the log and begin anew.
func refuseTorn(path string) error {
	db, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	if log, err := os.Stat(path + "-wal"); err == nil && log.Size() > 0 && db.Size() == 0 {
		return fmt.Errorf("sqlite: %s is empty but its write-ahead log is not: the file was cut off; restore a backup", path)
	}
	return nil
}

// syncFolder makes the names in a folder durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	return nil
}

// syncFile makes a file durable that no connection has open.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
