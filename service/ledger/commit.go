package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"optout/service/standing"
)

// maxBatch is how many proposals one transaction takes at the most; maxEntries how many entries, roughly.
const (
	maxBatch   = 4096
	maxEntries = 10000
)

// proposal is a decision that waits for its turn in the commit loop.
type proposal struct {
	ctx context.Context
	// decide reads standing through the tx and adds entries. It must not add anything before it can no longer fail.
	decide  func(*tx) error
	request *request
	err     error
	done    chan struct{}
}

// commitState belongs to the commit loop alone.
type commitState struct {
	tree     tree
	next     tree
	commit   Commit
	bodies   []byte
	overlay  map[standing.Key]*pending
	free     []*pending
	persons  map[standing.Key][]standing.Key
	registry *Registry // a changed copy, if any decision changed it
	queue    []Entry   // those that the queue's fold reads
	lastAt   int64
	batch    []*proposal
}

// pending is a record as it will be once the transaction is committed.
type pending struct {
	rec     standing.Record
	facts   [4]standing.Fact
	changed bool
}

// tx is what a decision sees: standing with every earlier decision of the same transaction in force.
type tx struct {
	l   *Ledger
	s   *commitState
	now int64
}

// propose hands a decision to the commit loop and waits for its outcome. When it returns nil everything the decision added is
// durable and in force. After any other error than the decision's own the outcome is unknown.
func (l *Ledger) propose(ctx context.Context, req *request, decide func(*tx) error) error {
	if err := l.Err(); err != nil {
		return ErrClosed
	}
	if err := l.store.Writable(); err != nil {
		return err
	}
	p := &proposal{ctx: ctx, decide: decide, request: req, done: make(chan struct{})}
	select {
	case l.proposals <- p:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.quit:
		return ErrClosed
	case <-l.stopped:
		return ErrClosed
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	case <-l.stopped:
		select {
		case <-p.done:
			return p.err
		default:
			return ErrClosed
		}
	}
}

// commitLoop takes all proposals that wait, commits them together, and answers.
func (l *Ledger) commitLoop() {
	defer l.ended.Done()
	defer close(l.stopped)
	s := &l.loop
	s.overlay, s.persons = map[standing.Key]*pending{}, map[standing.Key][]standing.Key{}
	for {
		select {
		case p := <-l.proposals:
			l.commitBatch(p)
		case <-l.done:
			return
		case <-l.quit:
			for {
				select {
				case p := <-l.proposals:
					l.commitBatch(p)
				default:
					return
				}
			}
		}
	}
}

func (l *Ledger) commitBatch(first *proposal) {
	s := &l.loop
	s.begin()
	l.decide(first)
	for len(s.batch) < maxBatch && len(s.commit.Records) < maxEntries {
		select {
		case p := <-l.proposals:
			l.decide(p)
			continue
		default:
		}
		break
	}
	err := l.commit()
	for _, p := range s.batch {
		if err != nil && p.err == nil {
			p.err = err
		}
		close(p.done)
	}
}

func (s *commitState) begin() {
	for _, p := range s.overlay {
		s.free = append(s.free, p)
	}
	clear(s.overlay)
	clear(s.persons)
	s.registry, s.queue = nil, s.queue[:0]
	s.bodies = s.bodies[:0]
	clear(s.commit.Personal) // let go of people's data
	s.commit = Commit{Records: s.commit.Records[:0], Personal: s.commit.Personal[:0], Requests: s.commit.Requests[:0]}
	s.tree.clone(&s.next)
	clear(s.batch)
	s.batch = s.batch[:0]
}

// decide runs one proposal on the standing as it will be.
func (l *Ledger) decide(p *proposal) {
	s := &l.loop
	s.batch = append(s.batch, p)
	if err := l.Err(); err != nil {
		p.err = ErrClosed
		return
	}
	if p.err = p.ctx.Err(); p.err != nil {
		return // the caller is gone and nothing was done
	}
	t := &tx{l: l, s: s, now: l.now()}
	if p.request != nil {
		seen, err := l.replayed(p.ctx, p.request)
		if err != nil || seen {
			p.err = err
			return
		}
	}
	if p.err = p.decide(t); p.err == nil && p.request != nil {
		row := p.request.row()
		s.commit.Requests = append(s.commit.Requests, row)
		l.recent.add(row)
	}
}

// commit makes the batch durable, then advances standing, so that every later check sees it.
func (l *Ledger) commit() error {
	s := &l.loop
	if len(s.commit.Records) == 0 && len(s.commit.Requests) == 0 {
		return l.errClosed()
	}
	// The bodies' memory may have moved while it grew; now it is final.
	at := 0
	for i := range s.commit.Records {
		r := &s.commit.Records[i]
		n := len(r.Body)
		r.Body = s.bodies[at : at+n]
		at += n
	}
	s.commit.Head, s.commit.Edge = s.next.head(), s.next.edge
	if err := l.store.Append(context.Background(), &s.commit); err != nil {
		l.recent.forget(s.commit.Requests)
		if errors.Is(err, ErrStorageFull) {
			return ErrStorageFull // nothing was kept; checks go on and writing may resume
		}
		l.fail(fmt.Errorf("commit of entries %d to %d: %w", s.tree.size+1, s.next.size, err))
		return ErrClosed
	}
	for k, p := range s.overlay {
		if p.changed {
			l.table.Set(k, &p.rec)
		}
	}
	for k, members := range s.persons {
		l.persons.Set(k, members)
	}
	if s.registry != nil {
		l.registry.Store(s.registry)
	}
	for i := range s.queue {
		l.queue.apply(&s.queue[i])
	}
	s.tree, s.next = s.next, s.tree
	head := s.commit.Head
	l.treeHead.Store(&head)
	if s.lastAt > l.lastAt.Load() {
		l.lastAt.Store(s.lastAt)
	}
	l.head.Store(head.Size)
	l.stats.Commits.Add(1)
	l.stats.Entries.Add(uint64(len(s.commit.Records)))
	return nil
}

func (l *Ledger) errClosed() error {
	if l.Err() != nil {
		return ErrClosed
	}
	return nil
}

// record returns the record of a key, for reading. It is valid until the next add.
func (t *tx) record(key standing.Key) *standing.Record { return &t.pending(key).rec }

func (t *tx) pending(key standing.Key) *pending {
	s := t.s
	if p := s.overlay[key]; p != nil {
		return p
	}
	var p *pending
	if n := len(s.free); n > 0 {
		p, s.free = s.free[n-1], s.free[:n-1]
	} else {
		p = &pending{}
	}
	p.changed, p.rec.Facts = false, p.facts[:0]
	t.l.table.Get(key, &p.rec)
	s.overlay[key] = p
	return p
}

// members returns the members of a person, for reading.
func (t *tx) members(person standing.Key) []standing.Key {
	m, ok := t.s.persons[person]
	if !ok {
		m = t.l.persons.Members(person, nil)
		t.s.persons[person] = m
	}
	return m
}

// registry returns what administration has set up, for reading.
func (t *tx) registry() *Registry {
	if t.s.registry != nil {
		return t.s.registry
	}
	return t.l.registry.Load()
}

// add appends an entry, with its personal row if p is not nil, and folds it. It sets position, time, prev and digest.
func (t *tx) add(e *Entry, p *personal) (uint64, error) {
	s := t.s
	e.Position = s.next.size + 1
	e.At = max(t.now, s.lastAt)
	if e.At > s.lastAt {
		s.lastAt = e.At
	}
	if p != nil {
		e.Personal = p.digest
	}
	if t.l.queue.concerns(e) {
		s.queue = append(s.queue, *e)
	}
	if e.Key.IsZero() && e.Kind != Queued && e.Kind != Decided {
		if s.registry == nil {
			s.registry = t.l.registry.Load().clone()
		}
		if err := s.registry.apply(e); err != nil {
			return 0, err
		}
	} else if !e.Key.IsZero() {
		p := t.pending(standing.Key(e.Key))
		p.changed = true
		rec := &p.rec
		e.Prev = rec.Last
		if person, ok := personOf(rec, e); ok {
			s.persons[person] = foldPerson(t.members(person), e)
		}
		fold(rec, e)
	}
	start := len(s.bodies)
	s.bodies = e.AppendTo(s.bodies)
	body := s.bodies[start:]
	leaf := LeafHash(body)
	s.next.add(leaf)
	s.commit.Records = append(s.commit.Records, Record{Position: e.Position, Body: body, Leaf: binary.BigEndian.Uint64(leaf[:])})
	if p != nil {
		s.commit.Personal = append(s.commit.Personal, PersonalRow{Position: e.Position, Body: p.body})
	}
	return e.Position, nil
}
