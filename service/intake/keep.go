package intake

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"optout/service/mailin"
)

// Keep keeps messages as they came for a time, for whoever must look into what happened. They hold whatever people wrote, so they
// lie in a folder of their own and are destroyed when the time is over.
type Keep struct {
	// Folder is made 0700. It holds a folder for each day (UTC) with a file for each message, named by its digest.
	Folder string
	// For is how long.
	For time.Duration
	Now func() time.Time
}

const (
	dayLayout = "2006-01-02"
	keptFile  = ".eml"
)

// Save makes the message durable, if it is not kept yet: the beginning that the intake sees.
func (k *Keep) Save(m *mailin.Message) error {
	day := filepath.Join(k.Folder, k.Now().UTC().Format(dayLayout))
	path := filepath.Join(day, hex.EncodeToString(m.Digest[:])+keptFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(day, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(day, "new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(m.Raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	for _, dir := range []string{day, k.Folder} {
		if err := syncFolder(dir); err != nil {
			return err
		}
	}
	return nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Clean destroys the days that are over for longer than For.
func (k *Keep) Clean() error {
	days, err := os.ReadDir(k.Folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range days {
		day, err := time.Parse(dayLayout, d.Name())
		if err == nil && d.IsDir() && k.Now().After(day.Add(24*time.Hour+k.For)) {
			errs = append(errs, os.RemoveAll(filepath.Join(k.Folder, d.Name())))
		}
	}
	return errors.Join(errs...)
}
