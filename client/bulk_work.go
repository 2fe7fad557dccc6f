package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wneessen/go-mail"
)

// parcel is one message on its way, with those of its recipients whose fate is open.
type parcel struct {
	job     job
	results Report
	open    []*Result
	tries   int
}

// newParcel makes a parcel of the n-th message. One that has nobody to go to has one result, that it failed.
func newParcel(n int, msg *mail.Msg) *parcel {
	p := &parcel{}
	var jobs []job
	var err error
	p.results, jobs, err = recipients([]*mail.Msg{msg})
	p.job = jobs[0]
	if err != nil {
		p.job.err = fmt.Errorf("optout client: message %d is nil or has no recipients: set To, Cc or Bcc", n)
		p.results = Report{{Outcome: Failed, Err: p.job.err}}
	}
	for i := range p.results {
		p.results[i].Message = n
		p.open = append(p.open, &p.results[i])
	}
	return p
}

// work is one connection: it takes messages from the queue until there are no more.
func (b *bulk) work(ctx context.Context) {
	x := b.template
	defer x.close()
	failures := 0 // to connect, in a row
	for {
		p := b.queue.pop()
		if p == nil {
			return
		}
		if failures = b.deliver(ctx, &x, p, failures); failures > b.retries {
			return
		}
	}
}

// deliver sends a message to those of its recipients who are left, and gives it back to the queue. It returns how many times in
// a row no connection was to be had; with more than b.retries the connection has left the queue.
func (b *bulk) deliver(ctx context.Context, x *run, p *parcel, failures int) int {
	var again []*Result
	for i, r := range p.open {
		if why := b.queue.halted(); why != nil {
			p.open = append(again, p.open[i:]...)
			b.queue.back(p)
			return failures
		}
		x.one(ctx, &p.job, r)
		if why := x.stuck; why != nil {
			p.open = append(again, p.open[i:]...)
			r.Outcome, r.Err = NotAsked, nil
			return b.stuck(x, p, failures)
		}
		failures = 0
		switch {
		case r.Outcome == Failed && ctx.Err() != nil && errors.Is(r.Err, ctx.Err()): // cut off before the dot
			r.Outcome = NotAsked
			b.events <- event{result: *r, known: true, givenUp: true}
		case r.Outcome == Failed && passing(r.Err) && p.tries < b.retries:
			again = append(again, r)
		default:
			b.known(r)
		}
	}
	if p.open = again; len(again) == 0 {
		b.queue.done()
		return failures
	}
	p.tries++
	b.queue.wait(p, b.pause(p.tries))
	return failures
}

// stuck deals with a run that cannot go on. Without an answer of optout nothing goes on. A mail server that cannot be reached is
// tried again; a connection that it will not give us is done without, as long as there is another.
func (b *bulk) stuck(x *run, p *parcel, failures int) int {
	why := x.stuck
	x.stuck = nil
	if !passing(why) {
		b.queue.halt(why)
		b.queue.back(p)
		return failures
	}
	failures++
	b.queue.back(p)
	if failures > b.retries {
		b.queue.leave(why)
		return failures
	}
	woken := make(chan struct{})
	stop := b.later(b.pause(failures), func() { close(woken) })
	select {
	case <-woken:
	case <-b.queue.ended:
		stop()
	}
	return failures
}

// passing tells whether a failure may be gone the next time: no answer, or one that begins with 4 (RFC 5321 section 4.2.1).
func passing(err error) bool {
	var e *DeliveryError
	return errors.As(err, &e) && e.Temporary()
}

// pause is how long to wait before the n-th retry, from 1: twice as long each time, half of it by chance, so that what failed
// together does not come back together.
func (b *bulk) pause(n int) time.Duration {
	d := min(firstPause<<(n-1), longestPause)
	return d/2 + time.Duration(b.random()*float64(d)/2)
}
