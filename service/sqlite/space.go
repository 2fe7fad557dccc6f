package sqlite

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// spaceInterval is how often the free space is looked at.
const spaceInterval = time.Second

// space watches the free space of the volume.
type space struct {
	dir     string
	minFree uint64 // octets
	low     atomic.Bool
}

// watchSpace takes the first look. minFree 0 means the default.
func watchSpace(dir string, minFree uint64) (*space, error) {
	_, size, err := freeSpace(dir)
	if err != nil {
		return nil, err
	}
	if minFree == 0 {
		minFree = defaultMinFree(size)
	}
	sp := &space{dir: dir, minFree: minFree}
	return sp, sp.look(nil)
}

// defaultMinFree is 2 % of a volume, within bounds: enough for the log, a checkpoint and the commits of a second.
func defaultMinFree(size uint64) uint64 { return max(16<<20, min(256<<20, size/50)) }

// run looks once a second until done is closed.
func (sp *space) run(log *slog.Logger, done <-chan struct{}) {
	tick := time.NewTicker(spaceInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := sp.look(log); err != nil {
				log.Error("the free space cannot be looked at", "folder", sp.dir, "error", err)
			}
		case <-done:
			return
		}
	}
}

func (sp *space) look(log *slog.Logger) error {
	free, _, err := freeSpace(sp.dir)
	if err != nil {
		return err
	}
	low := free < sp.minFree
	if sp.low.Swap(low) == low || log == nil {
		return nil
	}
	if low {
		log.Error("storage is nearly full: writes are refused until there is space again", "folder", sp.dir, "free", free, "needed", sp.minFree)
	} else {
		log.Info("there is space again: writes are taken", "folder", sp.dir, "free", free)
	}
	return nil
}

// spareTimes is how many times the watermark must stay free after what else is written to the volume.
const spareTimes = 4

// Spares reports whether n octets of something that the ledger does not need may be written to its volume: four times the watermark
// must be free after that, so that it never comes to where writes to the ledger are refused.
func (s *Store) Spares(n int64) bool {
	free, _, err := freeSpace(s.space.dir)
	return err == nil && free >= spareTimes*s.space.minFree+uint64(n)
}

// freeSpace returns what an unprivileged user may still write, and the size of the volume, in octets.
func freeSpace(dir string) (free, size uint64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, 0, fmt.Errorf("sqlite: free space of %s: %w", dir, err)
	}
	block := uint64(fs.Bsize)
	return fs.Bavail * block, fs.Blocks * block, nil
}
