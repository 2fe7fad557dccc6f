package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	optoutv1 "optout/proto/optout/v1"
)

func (p *program) explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain ADDRESS",
		Short: "Tell the whole story of an address: who, when, why",
		Long: `Tells what a check of each topic would answer now, and every entry of the ledger that bears on the address, oldest first: who said
what, when, by which way, with what evidence (as far as your role may see it), and the opt-outs of the same person's other
addresses. It changes nothing.`,
		Example: `  optout explain ada@example.com
  optout explain --json ada@example.com | jq '.verdicts[] | select(.verdict == "DO_NOT_SEND")'`,
		Args: oneAddress,
	}
	return p.online(cmd, func(c *call, args []string) error {
		r, err := c.suppression.ExplainAddress(c.ctx, &optoutv1.ExplainAddressRequest{Sender: c.sender, Address: args[0]})
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) { story(w, args[0], c.sender, r) })
	})
}

func story(w io.Writer, address, sender string, r *optoutv1.ExplainAddressResponse) {
	fmt.Fprintf(w, "%s, at sender %s", printable(address), sender)
	if r.PersonAddresses > 0 {
		fmt.Fprintf(w, "; one of %d addresses of one person", r.PersonAddresses)
	}
	fmt.Fprintf(w, "\naddress key %s, as of position %d\n\nMay mail be sent now?\n", r.AddressKey, r.Position.GetNumber())
	var rows [][]string
	for _, v := range r.Verdicts {
		rows = append(rows, append([]string{"  " + v.Topic}, verdictNow(v)...))
	}
	table(w, rows...)
	if len(r.Entries) == 0 {
		fmt.Fprintln(w, "\nThe ledger has no entry about it.")
		return
	}
	fmt.Fprintln(w, "\nWhat happened:")
	if r.Truncated {
		fmt.Fprintf(w, "  (older entries are left out; \"optout entries\" lists them all)\n")
	}
	for _, e := range r.Entries {
		fmt.Fprintf(w, "  %s  entry %d: %s\n", at(e.At), e.Position, printable(happened(e)))
		if why := circumstances(e); why != "" {
			fmt.Fprintf(w, "      %s\n", printable(why))
		}
	}
}

func verdictNow(v *optoutv1.TopicVerdict) []string {
	if v.Verdict != optoutv1.Verdict_VERDICT_SEND {
		return []string{"DO_NOT_SEND", becauseAll(v.Denials)}
	}
	if len(v.Denials) > 0 {
		return []string{"SEND", "required, so in spite of: " + becauseAll(v.Denials)}
	}
	return []string{"SEND", ""}
}

// happened says what an entry records, by which way it came and who said it.
func happened(e *optoutv1.Entry) string {
	what := strings.ReplaceAll(word(e.Kind), "-", " ")
	switch e.Kind {
	case optoutv1.EntryKind_ENTRY_KIND_OPTED_OUT:
		what = "opted out of " + scopeName(e.Scope)
	case optoutv1.EntryKind_ENTRY_KIND_SUBSCRIBED:
		what = "said yes to " + scopeName(e.Scope)
	case optoutv1.EntryKind_ENTRY_KIND_CONFIRMED:
		what = "confirmed " + scopeName(e.Scope) + " through the mailbox"
	case optoutv1.EntryKind_ENTRY_KIND_COMPLAINED:
		what = "reported mail as spam (" + scopeName(e.Scope) + ")"
	case optoutv1.EntryKind_ENTRY_KIND_PAUSED, optoutv1.EntryKind_ENTRY_KIND_RESUMED:
		what += " " + scopeName(e.Scope)
	case optoutv1.EntryKind_ENTRY_KIND_SENT_IN_SPITE:
		what = "mail of " + scopeName(e.Scope) + " was allowed in spite of a no"
	case optoutv1.EntryKind_ENTRY_KIND_JOINED:
		what = "joined to a person"
	case optoutv1.EntryKind_ENTRY_KIND_UNLINKED:
		what = "parted from its person"
	case optoutv1.EntryKind_ENTRY_KIND_QUEUED:
		what = "mail that may mean it waits for review, and changes nothing"
	case optoutv1.EntryKind_ENTRY_KIND_DECIDED:
		what = "the review decided"
	}
	if e.Ref != 0 {
		what += fmt.Sprintf(", entry %d", e.Ref)
	}
	return what + "; by " + word(e.Channel) + ", " + e.Actor
}

// circumstances are the rest of what an entry says.
func circumstances(e *optoutv1.Entry) string {
	var all []string
	if e.OccurredAt != nil {
		all = append(all, "it happened at "+at(e.OccurredAt))
	}
	if e.Until != nil {
		all = append(all, "until "+at(e.Until))
	}
	if e.Mailing != 0 {
		all = append(all, fmt.Sprintf("mailing %d", e.Mailing))
	}
	for _, texts := range []map[string]string{e.Detail, e.Evidence} {
		for _, name := range slices.Sorted(maps.Keys(texts)) {
			all = append(all, strings.ReplaceAll(name, "_", " ")+": "+meaning(name, texts[name]))
		}
	}
	return strings.Join(all, "; ")
}

// meaning is the word for a detail that the ledger keeps as a number of the API.
func meaning(name, value string) string {
	kind, ok := map[string]protoreflect.Enum{"class": optoutv1.TopicClass(0), "consent_rule": optoutv1.ConsentRule(0),
		"ground": optoutv1.RequiredGround(0), "role": optoutv1.Role(0)}[name]
	n, err := strconv.Atoi(value)
	if !ok || err != nil {
		return value
	}
	return wordOf(kind.Descriptor(), protoreflect.EnumNumber(n))
}
