package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
)

func (p *program) queueCommand() *cobra.Command {
	return p.group("queue", "Read and decide mail that could not be acted on by itself",
		`Mail in that cannot be acted on at once waits in the review queue, marked with why:

  unproved  an opt-out, and nothing proves or disproves that the address in From wrote it
  forged    an opt-out, and the domain in From authenticates its mail but not this
  unclear   it speaks of stopping, but not shortly and unambiguously
  unread    it asks for nothing that a program may do, such as a question
  reporter  a complaint without our token, or not signed by a listed reporter
  storm     a hard bounce, when those of its domain have jumped

An opt-out decides itself after 24 hours (serve --queue-delay) where the ledger knows the address: the law lets nobody ask the
person for more than the mail that they sent (16 CFR 316.5). When too many come at once they are held instead, and wait for a
person, as everything else does. What the queue suppressed can be voided: "optout suppressions void".`,
		p.queueList(), p.queueShow(), p.queueDecide())
}

// queueFilter says which messages of the queue are meant.
type queueFilter struct {
	doubts enumsFlag
	held   bool
	like   uint64
}

func (f *queueFilter) add(cmd *cobra.Command) {
	f.doubts.of = newEnumFlag(optoutv1.QueueDoubt(0))
	enumsVar(cmd, &f.doubts, "doubt", "only those that wait for this `WHY`: "+f.doubts.of.listing()+"; can be repeated")
	cmd.Flags().BoolVar(&f.held, "held", false, "only those that are held for a person: too many came at once, or the address has said yes since")
	cmd.Flags().Uint64Var(&f.like, "like", 0, "only those of the same doubt that came from the same source, or concern the same domain, as `ENTRY` does: its whole flood or storm")
}

// given tells whether any filter is.
func (f *queueFilter) given() bool { return len(f.doubts.values) > 0 || f.held || f.like != 0 }

// pages returns what gives the queue's messages that fit, a page at a time.
func (f *queueFilter) pages(c *call) (func() ([]*optoutv1.QueuedMessage, string, error), error) {
	q := &optoutv1.ListQueueRequest{Sender: c.sender, Held: f.held, PageSize: pageSize}
	for _, d := range f.doubts.values {
		q.Doubts = append(q.Doubts, optoutv1.QueueDoubt(d))
	}
	var like *optoutv1.QueuedMessage
	if f.like != 0 {
		r, err := c.feedback.GetQueuedMessage(c.ctx, &optoutv1.GetQueuedMessageRequest{Sender: c.sender, Entry: f.like})
		if err != nil {
			return nil, err
		}
		if like = r.Message; like.Detail["source"] == "" && like.Detail["domain"] == "" {
			return nil, wrongUsage("--like", fmt.Sprintf("of message %d neither source nor domain is known", f.like), "use --doubt "+word(like.Doubt))
		}
	}
	return func() ([]*optoutv1.QueuedMessage, string, error) {
		r, err := c.feedback.ListQueue(c.ctx, q)
		q.PageToken = r.GetNextPageToken()
		if like == nil {
			return r.GetMessages(), q.PageToken, err
		}
		var fit []*optoutv1.QueuedMessage
		for _, m := range r.GetMessages() {
			if m.Doubt == like.Doubt && m.Detail["source"] == like.Detail["source"] && m.Detail["domain"] == like.Detail["domain"] {
				fit = append(fit, m)
			}
		}
		return fit, q.PageToken, err
	}, nil
}

func (p *program) queueList() *cobra.Command {
	var f queueFilter
	var limit uint32
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what waits for review, oldest first",
		Long: `Lists what waits for review, oldest first; all filters given must match. The columns: the entry by which it is named; how long it
has waited; what it asks for or reports; why it waits; when it decides itself; whom it concerns, where that is known and your role
may see it.

  in 5h10m        it decides itself then, unless you do
  once known      it decides itself once the ledger knows the address otherwise; until then it waits
  held            too many came at once, or the address has said yes since: it waits for you
  waits for you   it never decides itself`,
		Example: `  optout queue list
  optout queue list --held --doubt unproved,storm
  optout queue list --json | jq -r 'select(.claim == "MESSAGE") | .entry'`,
		Args: needArgs(0, 0, "", "see \"optout queue list --help\""),
	}
	f.add(cmd)
	cmd.Flags().Uint32Var(&limit, "limit", 0, "at most this `NUMBER` (default: all)")
	return p.online(cmd, func(c *call, _ []string) error {
		page, err := f.pages(c)
		if err != nil {
			return err
		}
		now := time.Now()
		var sum queueSummary
		err = paged(c, limit, page, func(w io.Writer, m *optoutv1.QueuedMessage) {
			if c.json {
				fmt.Fprintf(w, "%s\n", jsonOf(m))
				return
			}
			if sum.add(m); sum.all == 1 {
				fmt.Fprintf(w, "%8s  %6s  %-9s  %-8s  %-13s  %s\n", "ENTRY", "AGE", "CLAIM", "DOUBT", "DECIDES", "ADDRESS")
			}
			fmt.Fprintf(w, "%8d  %6s  %-9s  %-8s  %-13s  %s\n", m.Entry, span(now.Sub(m.ReceivedAt.AsTime())), word(m.Claim), word(m.Doubt), decides(m, now), printable(whom(m)))
		})
		if err != nil || c.json {
			return err
		}
		return sum.tell(c.Stdout, now, limit)
	})
}

// queueSummary counts what was listed.
type queueSummary struct {
	all, held, person, known, unknown int
	first                             *timestamppb.Timestamp
}

func (s *queueSummary) add(m *optoutv1.QueuedMessage) {
	s.all++
	switch {
	case m.Held:
		s.held++
	case m.DueAt == nil:
		s.person++
	case !m.Known:
		s.unknown++
	default:
		if s.known++; s.first == nil || m.DueAt.AsTime().Before(s.first.AsTime()) {
			s.first = m.DueAt
		}
	}
}

func (s *queueSummary) tell(w io.Writer, now time.Time, limit uint32) error {
	if s.all == 0 {
		_, err := fmt.Fprintln(w, "nothing waits")
		return err
	}
	var parts []string
	if s.known > 0 {
		parts = append(parts, fmt.Sprintf("%d decided by the clock, the first %s", s.known, dueIn(s.first, now)))
	}
	for _, x := range []struct {
		n    int
		what string
	}{{s.unknown, "decided once the ledger knows the address"}, {s.held, "held"}, {s.person, "for you to decide"}} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	listed := fmt.Sprintf("%d in all", s.all)
	if limit > 0 && uint64(s.all) == uint64(limit) {
		listed = fmt.Sprintf("the oldest %d", s.all)
	}
	_, err := fmt.Fprintf(w, "\n%s: %s. Read one: optout queue show ENTRY\n", listed, strings.Join(parts, "; "))
	return err
}

// decides says when a message decides itself.
func decides(m *optoutv1.QueuedMessage, now time.Time) string {
	switch {
	case !m.Waiting:
		return "is decided"
	case m.Held:
		return "held"
	case m.DueAt == nil:
		return "waits for you"
	case !m.Known:
		return "once known"
	}
	return dueIn(m.DueAt, now)
}

func dueIn(due *timestamppb.Timestamp, now time.Time) string {
	left := due.AsTime().Sub(now)
	if left < time.Minute {
		return "any minute"
	}
	return "in " + span(left)
}

// span is a time that has passed as people read it: the two greatest units.
func span(d time.Duration) string {
	minutes := int(max(d, 0) / time.Minute)
	switch hours := minutes / 60; {
	case hours >= 48:
		return fmt.Sprintf("%dd%dh", hours/24, hours%24)
	case hours > 0:
		return fmt.Sprintf("%dh%02dm", hours, minutes%60)
	}
	return fmt.Sprintf("%dm", minutes)
}

// whom says whom a message concerns, as far as it is known.
func whom(m *optoutv1.QueuedMessage) string {
	switch {
	case m.Address != "":
		return m.Address
	case m.AddressKey != "":
		return "key " + m.AddressKey
	}
	return "-"
}

// entryNumber reads the number of an entry.
func entryNumber(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, wrongUsage("ENTRY", "it is not a number", "give the numbers of entries; see \"optout queue list\"")
	}
	return n, nil
}

// queued lists what waits, for completion.
func queued(ctx context.Context, c *call) ([]cobra.Completion, error) {
	r, err := c.feedback.ListQueue(ctx, &optoutv1.ListQueueRequest{Sender: c.sender})
	now := time.Now()
	var entries []cobra.Completion
	for _, m := range r.GetMessages() {
		entries = append(entries, cobra.CompletionWithDesc(strconv.FormatUint(m.Entry, 10), word(m.Claim)+", "+word(m.Doubt)+", "+decides(m, now)))
	}
	return entries, err
}
