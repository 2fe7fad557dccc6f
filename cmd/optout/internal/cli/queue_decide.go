package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
)

// decideChunk is how many messages one call decides; the API takes no more.
const decideChunk = 1000

// decideFlags are what "optout queue decide" is told.
type decideFlags struct {
	suppress, dismiss, all, yes bool
	why                         string
	filter                      queueFilter
}

func (p *program) queueDecide() *cobra.Command {
	f := &decideFlags{}
	cmd := &cobra.Command{
		Use:   "decide --suppress|--dismiss --justification TEXT ENTRY... | - | --all",
		Short: "Decide what waits: do what it claims, or nothing",
		Long: `--suppress does what a message claims: it opts out, records the complaint, or makes the address undeliverable; the writer of a
message that claims nothing is opted out of ALL. It can be voided ("optout suppressions void"). --dismiss does nothing with it.
Both are entries of the ledger, with the justification; what was decided before is passed over, so a command may be repeated.

ENTRY... names single messages, "-" reads their numbers from standard input, one a line. --all means every message that waits, or
those that --doubt, --held and --like leave; it asks first, unless --yes is given. With --all --suppress, messages that name no
address are left out and counted. Up to 1 000 are decided together, all or none.`,
		Example: `  optout queue decide --suppress --justification "she wrote twice, ticket 4711" 812
  optout queue decide --dismiss --all --like 812 --justification "a flood of forgeries, incident 2026-12-14"
  optout queue decide --dismiss --all --doubt storm --justification "provider bounced valid mailboxes" --yes
  optout queue list --json | jq -r 'select(.address | endswith("@example.org")) | .entry' | optout queue decide --suppress --justification "asked by their post room" -`,
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch {
		case f.all && len(args) > 0:
			return wrongUsage("--all", "it does not go with ENTRY", "give one or the other")
		case f.all:
			return nil
		case f.filter.given():
			return wrongUsage("--doubt", "--doubt, --held and --like choose among --all", "add --all, or name entries")
		case len(args) > 1 && slices.Contains(args, "-"):
			return wrongUsage("ENTRY", "- stands for standard input and goes alone", "give numbers, or - and nothing else")
		}
		return needArgs(1, -1, "ENTRY", "give the numbers of entries, - to read them, or --all; see \"optout queue list\"")(cmd, args)
	}
	cmd.Flags().BoolVar(&f.suppress, "suppress", false, "do what they claim")
	cmd.Flags().BoolVar(&f.dismiss, "dismiss", false, "do nothing")
	cmd.Flags().StringVar(&f.why, "justification", "", "`TEXT` why, for the ledger, without personal data (required)")
	cmd.Flags().BoolVar(&f.all, "all", false, "decide every message that waits and fits the filters")
	f.filter.add(cmd)
	cmd.Flags().BoolVar(&f.yes, "yes", false, "with --all: do not ask")
	requiredWhy(cmd)
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case f.suppress && f.dismiss:
			return wrongUsage("--suppress", "it does not go with --dismiss", "give one of them")
		case !f.suppress && !f.dismiss:
			return wrongUsage("--suppress", "it does not say what to decide", "give --suppress or --dismiss")
		}
		return before(cmd, args)
	}
	return p.online(cmd, func(c *call, args []string) error { return c.decide(f, args) }, queued)
}

func (c *call) decide(f *decideFlags, args []string) error {
	var entries []uint64
	leftOut := 0
	var err error
	switch {
	case f.all:
		if entries, leftOut, err = c.chosen(f); err == nil && len(entries) > 0 && !f.yes {
			err = c.confirm(f, len(entries))
		}
	case args[0] == "-":
		entries, err = readEntries(c.Stdin)
	default:
		for _, a := range args {
			n, err := entryNumber(a)
			if err != nil {
				return err
			}
			entries = append(entries, n)
		}
	}
	if err != nil {
		return err
	}
	slices.Sort(entries)
	entries = slices.Compact(entries)
	r, err := c.decideAll(f, entries)
	if err != nil {
		failed := *explainError(err)
		if r.Decided > 0 {
			failed.Message += fmt.Sprintf("; %d were decided before: repeat the command, it passes them over", r.Decided)
		}
		return &failed
	}
	return c.answer(r, func(w io.Writer) {
		if len(entries) == 0 {
			fmt.Fprintln(w, "nothing to decide")
		} else {
			fmt.Fprintf(w, "%s %d of %d", f.done(), r.Decided, len(entries))
			if int(r.Decided) < len(entries) {
				fmt.Fprint(w, "; the others were decided before")
			}
			fmt.Fprintln(w)
		}
		if leftOut > 0 {
			fmt.Fprintf(w, "left out: %d that name no address; read them (\"optout queue show\"), and dismiss them\n", leftOut)
		}
	})
}

func (f *decideFlags) done() string {
	if f.suppress {
		return "suppressed"
	}
	return "dismissed"
}

// chosen lists what --all means, without what cannot be suppressed.
func (c *call) chosen(f *decideFlags) (entries []uint64, leftOut int, err error) {
	page, err := f.filter.pages(c)
	if err != nil {
		return nil, 0, err
	}
	for {
		messages, next, err := page()
		if err != nil {
			return nil, 0, err
		}
		for _, m := range messages {
			if f.suppress && m.AddressKey == "" {
				leftOut++
				continue
			}
			entries = append(entries, m.Entry)
		}
		if next == "" {
			return entries, leftOut, nil
		}
	}
}

// confirm asks on the terminal whether so many are to be decided. Nobody who could answer is a no.
func (c *call) confirm(f *decideFlags, n int) error {
	if !c.Terminal {
		return wrongUsage("--yes", fmt.Sprintf("it is missing: %s would be %s, and there is no terminal to ask on", messageCount(n), f.done()), "look with \"optout queue list\", then add --yes")
	}
	fmt.Fprintf(c.Stderr, "%s will be %s. Go on? [y/N] ", messageCount(n), f.done())
	answer, err := bufio.NewReader(io.LimitReader(c.Stdin, 100)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return wrongUsage("", "not confirmed: nothing was decided", "answer y, or give --yes")
	}
	return nil
}

// messageCount is a number of messages in words.
func messageCount(n int) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}

// decideAll decides the entries, a chunk after the other. Besides an error it returns what was decided before it.
func (c *call) decideAll(f *decideFlags, entries []uint64) (*optoutv1.DecideQueueResponse, error) {
	sum := &optoutv1.DecideQueueResponse{}
	decision := optoutv1.QueueDecision_QUEUE_DECISION_DISMISS
	if f.suppress {
		decision = optoutv1.QueueDecision_QUEUE_DECISION_SUPPRESS
	}
	bar := c.startProgress("deciding", int64(len(entries)), false)
	defer bar.finish()
	done := 0
	for chunk := range slices.Chunk(entries, decideChunk) {
		r, err := c.feedback.DecideQueue(c.ctx, &optoutv1.DecideQueueRequest{Sender: c.sender, Entries: chunk, Decision: decision, Justification: f.why, RequestId: requestID("")})
		if err != nil {
			return sum, err
		}
		sum.Decided += r.Decided
		sum.Position = r.Position
		done += len(chunk)
		bar.set(uint64(done), uint64(len(entries)))
	}
	return sum, nil
}

// readEntries reads numbers, one a line; blank lines are passed over.
func readEntries(r io.Reader) ([]uint64, error) {
	var all []uint64
	s := bufio.NewScanner(r)
	for line := 1; s.Scan(); line++ {
		text := strings.TrimSpace(s.Text())
		if text == "" {
			continue
		}
		n, err := entryNumber(text)
		if err != nil {
			return nil, wrongUsage("ENTRY", fmt.Sprintf("line %d is not a number", line), "give one entry a line; see \"optout queue list\"")
		}
		all = append(all, n)
	}
	if err := s.Err(); err != nil {
		return nil, wrongUsage("ENTRY", err.Error(), "give one entry a line")
	}
	return all, nil
}
