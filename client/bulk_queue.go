package client

import (
	"sync"
	"time"
)

// queue holds the messages of a bulk sending between their reading and their last result: at most room of them are ready, in
// work or waiting for another try.
type queue struct {
	mu      sync.Mutex
	changed *sync.Cond
	later   func(time.Duration, func()) (stop func() bool)

	ready   []*parcel
	waiting map[*parcel]func() bool // those to be tried again, and how to stop their clocks
	held    int
	room    int
	workers int
	closed  bool // no more come

	why   error // it has ended early
	ended chan struct{}
}

func newQueue(room, workers int, later func(time.Duration, func()) func() bool) *queue {
	q := &queue{later: later, waiting: map[*parcel]func() bool{}, room: room, workers: workers, ended: make(chan struct{})}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// push adds a message, once there is room. It reports false when the queue has ended.
func (q *queue) push(p *parcel) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.why == nil && q.held >= q.room {
		q.changed.Wait()
	}
	if q.why != nil {
		return false
	}
	q.held++
	q.ready = append(q.ready, p)
	q.changed.Broadcast()
	return true
}

// pop takes a message, once there is one; nil when there will be none.
func (q *queue) pop() *parcel {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.why == nil && len(q.ready) == 0 && !(q.closed && q.held == 0) {
		q.changed.Wait()
	}
	if q.why != nil || len(q.ready) == 0 {
		return nil
	}
	p := q.ready[0]
	q.ready[0] = nil
	q.ready = q.ready[1:]
	return p
}

// done says that all is known of a message that was taken.
func (q *queue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held--
	q.changed.Broadcast()
}

// back gives a message back, as the next.
func (q *queue) back(p *parcel) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ready = append([]*parcel{p}, q.ready...)
	q.changed.Broadcast()
}

// wait gives a message back, to be ready after a while.
func (q *queue) wait(p *parcel, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.why != nil {
		q.ready = append(q.ready, p)
		return
	}
	q.waiting[p] = q.later(d, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if _, ok := q.waiting[p]; ok {
			delete(q.waiting, p)
			q.ready = append(q.ready, p)
			q.changed.Broadcast()
		}
	})
}

// leave takes a worker out; when it is the last one, the queue ends.
func (q *queue) leave(why error) {
	q.mu.Lock()
	q.workers--
	last := q.workers == 0
	q.mu.Unlock()
	if last {
		q.halt(why)
	}
}

// close says that no more messages come.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}

// halt ends the queue early; the first reason stays.
func (q *queue) halt(why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.why != nil {
		return
	}
	q.why = why
	close(q.ended)
	for p, stop := range q.waiting {
		stop()
		q.ready = append(q.ready, p)
	}
	clear(q.waiting)
	q.changed.Broadcast()
}

// halted is why the queue ended early; nil when it did not.
func (q *queue) halted() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.why
}

// rest are the messages that are left when the workers have ended.
func (q *queue) rest() []*parcel {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ready
}
