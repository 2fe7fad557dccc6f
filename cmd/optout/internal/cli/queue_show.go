package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
)

func (p *program) queueShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ENTRY...",
		Short: "Show what somebody wrote, why it waits, and what a decision would do",
		Long: `Shows messages of the queue, decided ones too: what they claim and why that is in doubt, who wrote them, whether that is proved, the
subject and the person's own words (without what they quoted), and what "optout queue decide --suppress" would do. What your role
may not see, and what was erased, is left out. It changes nothing.`,
		Example: `  optout queue show 812
  optout queue show --json 812 813 | jq -r .evidence.words`,
		Args: needArgs(1, -1, "ENTRY", "give the numbers of entries; see \"optout queue list\""),
	}
	return p.online(cmd, func(c *call, args []string) error {
		for i, a := range args {
			n, err := entryNumber(a)
			if err != nil {
				return err
			}
			r, err := c.feedback.GetQueuedMessage(c.ctx, &optoutv1.GetQueuedMessageRequest{Sender: c.sender, Entry: n})
			if err != nil {
				return err
			}
			if err := c.answer(r.Message, func(w io.Writer) {
				if i > 0 {
					fmt.Fprintln(w)
				}
				showQueued(w, r.Message, time.Now())
			}); err != nil {
				return err
			}
		}
		return nil
	}, queued)
}

func showQueued(w io.Writer, m *optoutv1.QueuedMessage, now time.Time) {
	fmt.Fprintf(w, "entry %d: %s\n", m.Entry, claimed(m))
	state := decides(m, now)
	switch {
	case !m.Waiting:
		state = "yes"
		if m.Address != "" {
			state += `; how, by whom and why: optout explain ` + m.Address
		}
	case m.Held:
		state = "no: too many came at once, or the address has said yes since; it waits for you"
	case m.DueAt == nil:
		state = "no: it waits for you"
	case !m.Known:
		state = "once the ledger knows the address otherwise, from " + at(m.DueAt) + " on"
	default:
		state += ", at " + at(m.DueAt)
	}
	rows := [][]string{{"in doubt", doubted(m.Doubt)}, {decided(m), state}, {"received", at(m.ReceivedAt) + ", by " + word(m.Channel)}, {"concerns", whom(m)}}
	for _, texts := range []map[string]string{m.Detail, m.Evidence} {
		for _, name := range slices.Sorted(maps.Keys(texts)) {
			if name != "words" && texts[name] != "" {
				rows = append(rows, []string{strings.ReplaceAll(name, "_", " "), texts[name]})
			}
		}
	}
	if m.Waiting {
		rows = append(rows, []string{"to suppress", wouldDo(m)})
	}
	table(w, rows...)
	if words := m.Evidence["words"]; words != "" {
		fmt.Fprintln(w, "in their own words:")
		for line := range strings.Lines(words) {
			fmt.Fprintln(w, "  | "+printable(strings.TrimRight(line, "\r\n")))
		}
	}
}

// decided names the row that says when a message decides itself, or that it is decided.
func decided(m *optoutv1.QueuedMessage) string {
	if m.Waiting {
		return "decides itself"
	}
	return "decided"
}

func claimed(m *optoutv1.QueuedMessage) string {
	switch m.Claim {
	case optoutv1.QueueClaim_QUEUE_CLAIM_OPT_OUT:
		return "somebody asks that mail stop (" + scopeName(m.Scope) + ")"
	case optoutv1.QueueClaim_QUEUE_CLAIM_COMPLAINT:
		return "somebody is said to have reported mail as spam (" + scopeName(m.Scope) + ")"
	case optoutv1.QueueClaim_QUEUE_CLAIM_BOUNCE:
		return "a mailbox is said not to exist"
	case optoutv1.QueueClaim_QUEUE_CLAIM_MESSAGE:
		return "somebody wrote something that a person must read"
	}
	return word(m.Claim)
}

func doubted(d optoutv1.QueueDoubt) string {
	why := map[optoutv1.QueueDoubt]string{
		optoutv1.QueueDoubt_QUEUE_DOUBT_UNPROVED: "nothing proves, and nothing disproves, that the address in From wrote it",
		optoutv1.QueueDoubt_QUEUE_DOUBT_FORGED:   "the domain in From authenticates its mail, and this failed",
		optoutv1.QueueDoubt_QUEUE_DOUBT_UNCLEAR:  "it speaks of stopping, but not shortly and unambiguously",
		optoutv1.QueueDoubt_QUEUE_DOUBT_UNREAD:   "it asks for nothing that a program may do",
		optoutv1.QueueDoubt_QUEUE_DOUBT_REPORTER: "it has no token of ours, or no listed reporter signed it",
		optoutv1.QueueDoubt_QUEUE_DOUBT_STORM:    "hard bounces of the domain have jumped: its servers may be wrong",
	}[d]
	if why == "" {
		return word(d)
	}
	return word(d) + ": " + why
}

// wouldDo says what --suppress does with a message.
func wouldDo(m *optoutv1.QueuedMessage) string {
	if m.AddressKey == "" {
		return "not possible, for it names no address: read it, record an opt-out with \"optout unsubscribe ADDRESS\", then --dismiss it"
	}
	switch m.Claim {
	case optoutv1.QueueClaim_QUEUE_CLAIM_COMPLAINT:
		return "records the complaint: no commercial mail, nor that of a topic complained of"
	case optoutv1.QueueClaim_QUEUE_CLAIM_BOUNCE:
		return "makes the address undeliverable, for every kind of mail"
	case optoutv1.QueueClaim_QUEUE_CLAIM_MESSAGE:
		return "opts the writer out of ALL correspondence, though they did not clearly ask for it"
	}
	return "opts the address out of " + scopeName(m.Scope) + ", until the person says yes again"
}
