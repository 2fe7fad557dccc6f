package ledger

import (
	"context"
	"fmt"
	"slices"
)

// QueueFilter says which messages of the queue to list; all that is given must match.
type QueueFilter struct {
	Sender string
	Doubts []Doubt
	// Held lists only those that are held, and those of a storm.
	Held bool
}

// InQueue is a message in the queue with what is known of it in clear.
type InQueue struct {
	Waiting Waiting
	Line    Line
	// Known: the ledger knows the address otherwise, so that it may decide itself.
	Known bool
}

// Waiting lists the queue, oldest first. Errors: ErrUnknownSender, ErrInvalidField, and those of the store.
func (l *Ledger) Waiting(ctx context.Context, p Page, f QueueFilter) ([]InQueue, Page, error) {
	if l.Err() != nil {
		return nil, p, ErrClosed
	}
	s, err := l.sender(l.Registry(), f.Sender)
	if err != nil {
		return nil, p, err
	}
	if p.Bound == 0 {
		p.Bound = l.head.Load()
	}
	all := l.queue.list(func(w *Waiting) bool {
		return w.Sender == s.Number && w.Position >= p.Next && w.Position <= p.Bound && (len(f.Doubts) == 0 || slices.Contains(f.Doubts, w.Doubt)) && (!f.Held || w.Held || w.Doubt == DoubtStorm)
	})
	p.Next = 0
	if len(all) > p.Size {
		p.Next, all = all[p.Size].Position, all[:p.Size]
	}
	out := make([]InQueue, len(all))
	for i, w := range all {
		line, err := l.Line(ctx, w.Position)
		if err != nil {
			return nil, p, err
		}
		known, err := l.knows(ctx, &w)
		if err != nil {
			return nil, p, err
		}
		out[i] = InQueue{Waiting: w, Line: *line, Known: known}
	}
	return out, p, nil
}

// InQueue gives one message of the queue, decided or not; of a decided one Waiting.Position is 0. Errors: ErrNotFound,
// ErrUnknownSender, and those of the store.
func (l *Ledger) InQueue(ctx context.Context, sender string, position uint64) (*InQueue, error) {
	s, err := l.sender(l.Registry(), sender)
	if err != nil {
		return nil, err
	}
	line, err := l.Line(ctx, position)
	if notFound(err) || err == nil && (line.Kind != Queued || line.Sender != s.Number) {
		return nil, &Error{Kind: ErrNotFound, Field: "entry", Problem: fmt.Sprintf("sender %q has no message %d in the queue", s.Name, position), Remedy: "see \"optout queue list\""}
	}
	if err != nil {
		return nil, err
	}
	w, _ := l.queue.get(position)
	known := false
	if w.Position != 0 {
		if known, err = l.knows(ctx, &w); err != nil {
			return nil, err
		}
	}
	return &InQueue{Waiting: w, Line: *line, Known: known}, nil
}
