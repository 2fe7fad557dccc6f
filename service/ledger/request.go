package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// By tells who asks for a write, by which way, and with what evidence. Adapters fill it in; what it may do is checked where
// the laws of the ledger depend on it, everything else at the edge.
type By struct {
	// Key is the number of the API key; 0 for recipients and the service itself.
	Key uint32
	// Role is the key's role; 0 for recipients.
	Role Role
	// Channel is the way it came.
	Channel Channel
	// Mailing is the mailing number in the link that was used.
	Mailing uint32
	// Occurred is when it happened as the caller reported it; zero for now.
	Occurred time.Time
	// RequestID makes the write idempotent for ever: 1 to 128 printable ASCII characters.
	RequestID string
	// Evidence is what shows it: texts by name ("ip", "user_agent", "note", …). It is kept apart as personal data.
	Evidence map[string]string
}

// personal is a personal row before its position is known.
type personal struct {
	body   []byte
	digest [32]byte
}

const saltSize = 16

// newPersonal makes a row of what is not empty, or nil when all is. 16 random octets come first, so that the digest in the
// entry tells nothing once the row is destroyed.
func (l *Ledger) newPersonal(texts ...map[string]string) (*personal, error) {
	all := map[string]string{}
	for _, m := range texts {
		for k, v := range m {
			if v != "" {
				all[k] = v
			}
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	body := make([]byte, saltSize, 256)
	if _, err := io.ReadFull(l.opt.Random, body); err != nil {
		return nil, err
	}
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	body = append(body, text...)
	return &personal{body, sha256.Sum256(body)}, nil
}

// readPersonal returns the texts of a row.
func readPersonal(body []byte) (map[string]string, error) {
	var m map[string]string
	if len(body) < saltSize {
		return nil, errors.New("personal row is too short")
	}
	return m, json.Unmarshal(body[saltSize:], &m)
}

// request is a request_id on its way through a write.
type request struct {
	sender      uint32
	id, content [16]byte
	position    uint64 // what the write wrote or found; set by the decision or by the replay
	replay      bool   // the request came before
	epoch       uint64 // of recentRequests when the store was asked
}

func (r *request) row() RequestRow { return RequestRow{r.sender, r.id, r.content, r.position} }

// digest16 is a digest of values; they are quoted, so that they cannot run into one another.
func digest16(parts ...any) [16]byte {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%q\n", fmt.Sprint(p))
	}
	return [16]byte(h.Sum(nil)[:16])
}

// beginRequest looks whether the request came before. It returns nil for a caller that gave no id. content tells requests
// apart and must hold no personal data in clear, only address keys.
func (l *Ledger) beginRequest(ctx context.Context, sender uint32, id string, content ...any) (*request, error) {
	if id == "" {
		return nil, nil
	}
	if err := checkRequestID(id); err != nil {
		return nil, err
	}
	r := &request{sender: sender, id: digest16(sender, id), content: digest16(content...), epoch: l.recent.epoch.Load()}
	row, err := l.store.Request(ctx, sender, r.id)
	if errors.Is(err, ErrNotFound) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if row.Position > l.head.Load() {
		return r, nil // on disk, but not in force yet: the commit loop, which comes after, answers it
	}
	return r, l.take(r, row)
}

// take makes r the replay of row.
func (l *Ledger) take(r *request, row RequestRow) error {
	if row.Content != r.content {
		return &Error{Kind: ErrRequestIDReused, Field: "request_id", Problem: "it was used before for another request",
			Remedy: "give every request an id of its own; repeat one only for the very same request"}
	}
	l.stats.Replays.Add(1)
	r.position, r.replay = row.Position, true
	return nil
}

// replayed looks again, in the commit loop, for a request that came while this one waited.
func (l *Ledger) replayed(ctx context.Context, r *request) (bool, error) {
	if row, ok := l.recent.find(r.id); ok {
		return true, l.take(r, row)
	}
	if l.recent.epoch.Load()-r.epoch < 2 {
		return false, nil
	}
	row, err := l.store.Request(ctx, r.sender, r.id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, l.take(r, row)
}

func checkRequestID(id string) error {
	ok := len(id) >= 1 && len(id) <= 128
	for i := 0; i < len(id); i++ {
		ok = ok && id[i] > ' ' && id[i] < 0x7f
	}
	if !ok {
		return invalid("request_id", "it must be 1 to 128 printable ASCII characters without spaces", "use a UUID")
	}
	return nil
}

func requireRequestID(id string) error {
	if id == "" {
		return &Error{Kind: ErrRequestIDRequired, Field: "request_id", Problem: "this write can let mail flow again, so it needs a request_id",
			Remedy: "use a UUID and repeat the same one when you retry"}
	}
	return nil
}

// recentRequests holds the ids committed lately, so that the commit loop need not ask the store about a request whose caller
// asked it a moment ago. Ids are held for at least one and at most two epochs.
type recentRequests struct {
	epoch         atomic.Uint64
	newer, before map[[16]byte]RequestRow
}

const requestsPerEpoch = 32768

func (r *recentRequests) add(row RequestRow) {
	if r.newer == nil || len(r.newer) >= requestsPerEpoch {
		r.newer, r.before = map[[16]byte]RequestRow{}, r.newer
		r.epoch.Add(1)
	}
	r.newer[row.ID] = row
}

func (r *recentRequests) find(id [16]byte) (RequestRow, bool) {
	if row, ok := r.newer[id]; ok {
		return row, true
	}
	row, ok := r.before[id]
	return row, ok
}

// forget takes back what was added for a transaction that was not kept.
func (r *recentRequests) forget(rows []RequestRow) {
	for _, row := range rows {
		delete(r.newer, row.ID)
		delete(r.before, row.ID)
	}
}
