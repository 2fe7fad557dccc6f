package client

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"

	optoutv1 "optout/proto/optout/v1"
)

// Limits of batches: addresses a call, and calls at once.
const (
	batchSize  = 1000
	batchCalls = 4
)

// BatchCheckSend asks about any number of addresses and answers each, in order; it splits them into calls by itself. With an
// error no Decision permits, not even those that were answered. A verdict is as old as the call: mail that leaves much later
// wants a CheckSend of its own. For lists that are better not held in memory there is CheckEach.
func (c *Client) BatchCheckSend(ctx context.Context, topic string, addresses []string, options ...CheckOption) ([]Decision, error) {
	decisions := make([]Decision, 0, len(addresses))
	for a, err := range c.CheckEach(ctx, topic, slices.Values(addresses), options...) {
		if err != nil {
			return make([]Decision, len(addresses)), err
		}
		decisions = append(decisions, a.Decision)
	}
	return decisions, nil
}

// Answer is the Decision on one address.
type Answer struct {
	Address string
	Decision
}

// CheckEach asks about every address of a list of any length and yields an Answer for each, in order. It reads the list as it
// goes, a few thousand addresses ahead, and holds no more than that in memory. After an error, which is yielded alone, it ends.
// The list is read in the caller's goroutine; leaving the loop ends the calls that are under way.
func (c *Client) CheckEach(ctx context.Context, topic string, addresses iter.Seq[string], options ...CheckOption) iter.Seq2[Answer, error] {
	return func(yield func(Answer, error) bool) {
		var calls sync.WaitGroup
		defer calls.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()

		var underway []*chunk // oldest first
		ask := func(list []string) {
			k := &chunk{addresses: list, done: make(chan struct{})}
			underway = append(underway, k)
			calls.Go(func() {
				defer close(k.done)
				k.decisions, k.err = c.checkChunk(ctx, topic, k.addresses, options)
			})
		}
		// answer yields the oldest chunk, and reports whether to go on.
		answer := func() bool {
			k := underway[0]
			underway = underway[1:]
			<-k.done
			if k.err != nil {
				yield(Answer{}, k.err)
				return false
			}
			for i, d := range k.decisions {
				if !yield(Answer{k.addresses[i], d}, nil) {
					return false
				}
			}
			return true
		}

		var list []string
		for a := range addresses {
			if list = append(list, a); len(list) < batchSize {
				continue
			}
			ask(list)
			list = make([]string, 0, batchSize)
			if len(underway) == batchCalls && !answer() {
				return
			}
		}
		if len(list) > 0 {
			ask(list)
		}
		for len(underway) > 0 {
			if !answer() {
				return
			}
		}
	}
}

// chunk is one call of a batch.
type chunk struct {
	addresses []string
	decisions []Decision
	err       error
	done      chan struct{}
}

// checkChunk is one call. An answer that does not fit the question is no answer.
func (c *Client) checkChunk(ctx context.Context, topic string, addresses []string, options []CheckOption) ([]Decision, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	r := c.checkRequest(topic, options)
	r.Addresses = addresses
	resp, err := c.suppression.BatchCheckSend(ctx, r)
	if err != nil {
		return nil, wrap(err)
	}
	if len(resp.Verdicts) != len(addresses) {
		return nil, fmt.Errorf("%w: the service was asked about %d addresses and answered %d", ErrCannotAsk, len(addresses), len(resp.Verdicts))
	}
	decisions := make([]Decision, len(addresses))
	for i, v := range resp.Verdicts {
		if err := understood(optoutv1.Verdict(v)); err != nil {
			return nil, err
		}
		decisions[i] = Decision{verdict: optoutv1.Verdict(v), Position: resp.Position}
	}
	stray := false
	at := func(i uint32) *Decision {
		if int(i) < len(decisions) {
			return &decisions[i]
		}
		stray = true
		return &Decision{}
	}
	for _, x := range resp.Refused {
		at(x.Index).Denials = x.Denials
	}
	for _, x := range resp.Malformed {
		d := at(x.Index)
		d.Malformed, d.verdict = x.Message, optoutv1.Verdict_VERDICT_DO_NOT_SEND
	}
	for _, x := range resp.Links {
		at(x.Index).Link = x.Link
	}
	for _, x := range resp.Receipts {
		at(x.Index).Receipt = x.Receipt
	}
	if stray {
		return nil, fmt.Errorf("%w: the service answered about an address that it was not asked about", ErrCannotAsk)
	}
	for _, d := range decisions {
		if err := d.receipted(r); err != nil {
			return nil, err
		}
	}
	return decisions, nil
}
