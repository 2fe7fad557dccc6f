package sqlite

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"

	"optout/service/ledger"
)

// The write-ahead log is copied back into the database by a goroutine and connection of their own, so that no commit has to.
// Most is copied while commits go on. But the log starts over only when all of it is copied and nobody reads it, which never
// happens by itself while others keep writing: so, once it has restartFrames, the rest is copied with the writer held.
//
// A longer log means fewer pauses of the writer, and pages that are written often are copied once; a shorter one is less to
// recover at start and less disk. Its file is not cut back each time: what is already allocated is cheaper to fsync.
const (
	checkpointInterval = time.Second
	// restartFrames is the length, in pages of 4 KiB, at which the log is made to start over.
	restartFrames = 8192
	// restartWait is how long, in milliseconds, the writer is held to wait for readers; ours read a slice in much less.
	restartWait = 250
)

// checkpointer copies the log back.
type checkpointer struct {
	*conn
	restart int64        // frames
	written atomic.Int64 // pages since the last look, about
	kick    chan struct{}
	blocked bool // the last attempt failed; said once
}

// newCheckpointer takes over c. restart 0 means restartFrames.
func newCheckpointer(c *conn, restart int64) (*checkpointer, error) {
	if restart == 0 {
		restart = restartFrames
	}
	return &checkpointer{conn: c, restart: restart, kick: make(chan struct{}, 1)}, c.exec(fmt.Sprintf("PRAGMA busy_timeout = %d", restartWait))
}

// wrote notes a commit.
func (cp *checkpointer) wrote(c *ledger.Commit) {
	octets := 16 * len(c.Records)
	for i := range c.Records {
		octets += len(c.Records[i].Body)
	}
	for i := range c.Personal {
		octets += len(c.Personal[i].Body)
	}
	if cp.written.Add(int64(5+octets/4000+len(c.Requests))) >= cp.restart {
		select {
		case cp.kick <- struct{}{}:
		default:
		}
	}
}

// run works until the store is closed or has failed.
func (cp *checkpointer) run(s *Store) {
	tick := time.NewTicker(checkpointInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-cp.kick:
		case <-tick.C:
		}
		if s.failed.Load() != nil {
			return
		}
		if cp.written.Swap(0) == 0 {
			continue
		}
		err := cp.work(s)
		var e sqlite3.Error
		switch {
		case err == nil:
			cp.blocked = false
		case errors.As(err, &e) && (e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked || e.Code == sqlite3.ErrFull):
			if cp.written.Add(1); !cp.blocked {
				s.log.Warn("the write-ahead log cannot be copied back now and grows; trying again every second", "error", err)
			}
			cp.blocked = true
		default:
			s.fail(fmt.Errorf("copying back the write-ahead log: %w", err))
		}
	}
}

// work copies back what it can, and makes the log start over when it is long.
func (cp *checkpointer) work(s *Store) error {
	frames, copied, err := cp.checkpoint("PASSIVE")
	if err != nil {
		return err
	}
	if frames < cp.restart {
		if copied < frames {
			cp.written.Add(1) // somebody was reading
		}
		return nil
	}
	s.write.Lock()
	defer s.write.Unlock()
	_, _, err = cp.checkpoint("RESTART")
	return err
}

// checkpoint returns how many frames the log has and how many of them are copied back.
func (cp *checkpointer) checkpoint(mode string) (frames, copied int64, err error) {
	row, err := cp.row("PRAGMA wal_checkpoint("+mode+")", 3)
	if err != nil {
		return 0, 0, err
	}
	frames, _ = row[1].(int64)
	copied, _ = row[2].(int64)
	return frames, copied, nil
}
