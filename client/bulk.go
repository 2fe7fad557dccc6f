package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/wneessen/go-mail"
)

// Limits and defaults of SendBulk.
const (
	defaultConcurrency = 4
	maxConcurrency     = 64
	defaultRetries     = 3
	maxRetries         = 20
	firstPause         = time.Second
	longestPause       = time.Minute
	progressPause      = 200 * time.Millisecond
)

// BulkOption changes how SendBulk works.
type BulkOption func(*bulk)

// WithConcurrency says over how many connections to the mail server messages go out at once: 1 to 64, 4 without it. When the
// server takes fewer, the others hand their messages on and close.
func WithConcurrency(n int) BulkOption {
	return func(b *bulk) {
		if n < 1 || n > maxConcurrency {
			b.err = errors.Join(b.err, fmt.Errorf("optout client: WithConcurrency: %d connections: give 1 to %d", n, maxConcurrency))
		}
		b.connections = n
	}
}

// WithRetries says how many times a message is tried again that the server, for certain, does not have: 0 to 20, 3 without it.
// The first pause is about a second, each further one twice as long, up to a minute. Only an answer that begins with 4, or a
// connection lost before the final dot, is worth it; an answer that begins with 5, or an Unknown outcome, is never repeated. A lost
// connection is dialled anew once without a pause, as with Send.
func WithRetries(n int) BulkOption {
	return func(b *bulk) {
		if n < 0 || n > maxRetries {
			b.err = errors.Join(b.err, fmt.Errorf("optout client: WithRetries: %d: give 0 to %d", n, maxRetries))
		}
		b.retries = n
	}
}

// WithBatch says how many recipients are checked ahead in one call: 1 to 1000, 1000 without it. About twice as many messages are
// in memory at once; give less where messages are large.
func WithBatch(n int) BulkOption {
	return func(b *bulk) {
		if n < 1 || n > batchSize {
			b.err = errors.Join(b.err, fmt.Errorf("optout client: WithBatch: %d recipients: give 1 to %d", n, batchSize))
		}
		b.batch = n
	}
}

// WithProgress calls f with the counts so far, at most every 200 ms, and once at the end. It and the function given to
// WithResults are called from one goroutine, never at the same time, and not after SendBulk has returned.
func WithProgress(f func(Progress)) BulkOption { return func(b *bulk) { b.onProgress = f } }

// WithResults calls f with what became of each recipient, once, as soon as it is known; not in the order of the messages. A slow
// f slows the sending. Without it results are only counted.
func WithResults(f func(Result)) BulkOption { return func(b *bulk) { b.onResult = f } }

// Progress counts what has become of the messages of a call of SendBulk. At the end the outcomes add up to Recipients.
type Progress struct {
	// Messages were taken from the caller.
	Messages int
	// Recipients are theirs; a message without recipients counts as one.
	Recipients int
	// By outcome.
	Sent, Refused, Malformed, Failed, Unknown, NotAsked int
}

func (p *Progress) count(o Outcome) {
	switch o {
	case Sent:
		p.Sent++
	case Refused:
		p.Refused++
	case Malformed:
		p.Malformed++
	case Failed:
		p.Failed++
	case Unknown:
		p.Unknown++
	default:
		p.NotAsked++
	}
}

// BulkError tells why SendBulk ended early, and how far it got. errors.Is and errors.As reach the reason: ErrCannotAsk, the
// context's error, *DeliveryError at Step "connecting", or what the caller's own sequence yielded.
type BulkError struct {
	// Taken messages came from the caller's sequence; from index Taken on nothing was looked at.
	Taken int
	// Resume is the index of the first message that has a recipient who was given up. Whoever repeats the call with the messages
	// from there on, less the recipients whose Result was another than NotAsked, sends nothing twice and leaves nobody out.
	Resume int
	err    error
}

// Error tells how far it got, and why no further.
func (e *BulkError) Error() string {
	return fmt.Sprintf("optout client: bulk sending ended early, with %d messages taken; resume at message %d: %v", e.Taken, e.Resume, e.err)
}

// Unwrap returns the reason.
func (e *BulkError) Unwrap() error { return e.err }

// SendBulk sends any number of messages of a topic, as Send does, over several connections at once. Memory is bounded by
// WithBatch, not by the number of messages: the sequence is read as the sending goes on, in the caller's goroutine. A message
// belongs to SendBulk from when it is yielded until its last Result.
//
// Recipients are checked ahead in batches, and each once more right before their message leaves, so that a no given in between
// is respected. (On `required` topics there is the second check only, as with Send; each new try asks anew.) A recipient who fails
// for a reason that may pass is tried again later, see WithRetries, while others go on; no message is repeated that the server may
// have taken.
//
// The Progress counts every recipient of every message that was taken. That some recipients failed is no error. The error is a
// *BulkError, and no further message leaves, when optout cannot be asked, when ctx ends, when no connection to the mail server
// can be had, or when the sequence yields an error; in the last case what was yielded before still goes out. Recipients who were
// given up have the outcome NotAsked, so the caller can resume. Before the first message: what Send refuses, SendBulk refuses too.
func (m *Mailer) SendBulk(ctx context.Context, topic string, messages iter.Seq2[*mail.Msg, error], options ...BulkOption) (Progress, error) {
	b := &bulk{connections: defaultConcurrency, retries: defaultRetries, batch: batchSize, onProgress: func(Progress) {}, onResult: func(Result) {},
		later: func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }, random: rand.Float64, resume: -1}
	for _, o := range options {
		o(b)
	}
	if b.err == nil {
		b.err = m.fit()
	}
	if b.err != nil {
		return Progress{}, b.err
	}
	var err error
	if b.template, err = m.prepare(ctx, topic); err != nil {
		return Progress{}, err
	}
	b.queue = newQueue(b.batch, b.connections, b.later)
	defer context.AfterFunc(ctx, func() { b.queue.halt(cannotAsk(ctx.Err())) })()

	b.events = make(chan event, 64)
	collected := make(chan struct{})
	go func() { defer close(collected); b.collect() }()
	var workers sync.WaitGroup
	for range b.connections {
		workers.Go(func() { b.work(ctx) })
	}
	broken := b.read(ctx, messages)
	b.queue.close()
	workers.Wait()
	for _, p := range b.queue.rest() {
		b.giveUp(p)
	}
	close(b.events)
	<-collected

	why := b.queue.halted()
	if why == nil {
		why = broken
	}
	if why == nil {
		return b.progress, nil
	}
	e := &BulkError{Taken: b.progress.Messages, Resume: b.resume, err: why}
	if e.Resume < 0 {
		e.Resume = e.Taken
	}
	return b.progress, e
}

// bulk is one call of SendBulk.
type bulk struct {
	connections, retries, batch int
	onProgress                  func(Progress)
	onResult                    func(Result)
	later                       func(time.Duration, func()) (stop func() bool)
	random                      func() float64
	err                         error

	template run // what the runs of all connections begin as
	queue    *queue
	events   chan event

	// The collector's own.
	progress Progress
	resume   int // the first message of which somebody was given up; -1: none
}

// event is something that happened: messages were taken, with so many recipients, or somebody's fate is known.
type event struct {
	messages, recipients int
	result               Result
	known, givenUp       bool
}

// collect counts, and calls the caller's functions.
func (b *bulk) collect() {
	pace := time.NewTicker(progressPause)
	defer pace.Stop()
	told := b.progress
	for {
		select {
		case e, ok := <-b.events:
			if !ok {
				b.onProgress(b.progress)
				return
			}
			b.progress.Messages += e.messages
			b.progress.Recipients += e.recipients
			if e.givenUp && (b.resume < 0 || e.result.Message < b.resume) {
				b.resume = e.result.Message
			}
			if e.known {
				b.progress.count(e.result.Outcome)
				b.onResult(e.result)
			}
		case <-pace.C:
			if b.progress != told {
				told = b.progress
				b.onProgress(told)
			}
		}
	}
}

// known reports a result.
func (b *bulk) known(r *Result) { b.events <- event{result: *r, known: true} }

// giveUp reports the recipients of a message who are left when the sending has ended.
func (b *bulk) giveUp(p *parcel) {
	for _, r := range p.open {
		if r.Outcome = NotAsked; r.Err == nil { // an answer that the mail server has given says more
			r.Err = b.queue.halted()
		}
		b.events <- event{result: *r, known: true, givenUp: true}
	}
}

// read takes the messages, checks their recipients ahead and queues them.
func (b *bulk) read(ctx context.Context, messages iter.Seq2[*mail.Msg, error]) error {
	var batch []*parcel
	n, addresses := 0, 0
	for msg, err := range messages {
		if err != nil {
			b.queueUp(ctx, batch)
			return err
		}
		p := newParcel(n, msg)
		n++
		b.events <- event{messages: 1, recipients: len(p.open)}
		if p.job.err != nil {
			b.known(p.open[0])
			continue
		}
		batch, addresses = append(batch, p), addresses+len(p.open)
		if addresses >= b.batch {
			b.queueUp(ctx, batch)
			batch, addresses = nil, 0
		}
		if why := b.queue.halted(); why != nil {
			break
		}
	}
	b.queueUp(ctx, batch)
	return nil
}

// queueUp checks a batch ahead and hands it to the connections.
func (b *bulk) queueUp(ctx context.Context, batch []*parcel) {
	if why := b.queue.halted(); why == nil && b.template.linked && len(batch) > 0 {
		var addresses []string
		for _, p := range batch {
			for _, r := range p.open {
				addresses = append(addresses, r.Recipient)
			}
		}
		decisions, err := b.template.mailer.lookAhead(ctx, b.template.topic, addresses)
		if err != nil {
			b.queue.halt(cannotAsk(err))
		} else {
			for _, p := range batch {
				b.lookAhead(p, decisions[:len(p.open)])
				decisions = decisions[len(p.results):]
			}
		}
	}
	for _, p := range batch {
		if len(p.open) > 0 && !b.queue.push(p) {
			b.giveUp(p)
		}
	}
}

// lookAhead takes out who must not be written to.
func (b *bulk) lookAhead(p *parcel, decisions []Decision) {
	var open []*Result
	for i, r := range p.open {
		if r.decide(decisions[i]); decisions[i].Send() {
			open = append(open, r)
			continue
		}
		p.job.refused[r.Recipient] = true
		b.known(r)
	}
	p.open = open
}
