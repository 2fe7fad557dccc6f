package intake

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
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
	// Spares reports whether the volume has n octets to spare, which the ledger will not need.
	Spares func(n int64) bool
	Now    func() time.Time

	mu      sync.Mutex
	day     string
	octets  int64 // kept on that day
	writing int64 // octets that are being written, of which Spares does not know yet
	told    bool  // on that day, that the volume has no space to spare
}

// maxKept is how many octets are kept of one day's mail: the ledger needs the disk more than a flood does.
const maxKept = 1 << 30

var (
	// errKeptFull is told once a day.
	errKeptFull = fmt.Errorf("%d octets of today's mail are kept already: no more are today", maxKept)
	// errScarce is told once a day too.
	errScarce = errors.New("the volume of --data has no space to spare, which the ledger needs: no mail is kept until it has")
)

// room takes room for n octets on a day, to be given back when they are written. ok is false when there is none left; err says so the
// first time.
func (k *Keep) room(day string, n int64) (ok bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.day != day {
		k.day, k.octets, k.told = day, 0, false
		kept, _ := os.ReadDir(filepath.Join(k.Folder, day)) // before a restart; without a folder, nothing
		for _, f := range kept {
			if info, err := f.Info(); err == nil {
				k.octets += info.Size()
			}
		}
	}
	before := k.octets
	if before+n <= maxKept {
		if !k.Spares(k.writing + n) {
			if !k.told {
				k.told, err = true, errScarce
			}
			return false, err
		}
		k.writing += n
		k.octets += n
		return true, nil
	}
	k.octets += n
	if before <= maxKept {
		return false, errKeptFull
	}
	return false, nil
}

const (
	dayLayout = "2006-01-02"
	keptFile  = ".eml"
)

func (k *Keep) written(n int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.writing -= n
}

// Save makes the message durable, if it is not kept yet: the beginning that the intake sees. Beyond a GiB a day, and where the volume
// has no space to spare, nothing is kept.
func (k *Keep) Save(m *mailin.Message) error {
	today := k.Now().UTC().Format(dayLayout)
	day := filepath.Join(k.Folder, today)
	path := filepath.Join(day, hex.EncodeToString(m.Digest[:])+keptFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	n := int64(len(m.Raw))
	if ok, err := k.room(today, n); !ok {
		return err
	}
	defer k.written(n)
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
