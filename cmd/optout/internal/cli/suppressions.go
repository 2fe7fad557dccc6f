package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	optoutv1 "optout/proto/optout/v1"
)

func (p *program) suppressionsCommand() *cobra.Command {
	c := p.group("suppressions", "List, create, lift and void the noes in force",
		`A suppression is a no in force: what a person said, or a fact that denies (undeliverable, restricted, under 13).

Nobody but the person lifts a person's no. Operators lift "undeliverable"; the privacy role lifts "restricted" and "under-13".
What a machine said in error (an import, a bounce storm, a webhook) can be voided by an appended entry, with reason and evidence.`,
		p.suppressionsList(), p.suppressionsCreate(), p.suppressionsLift(), p.suppressionsVoid())
	c.Aliases = []string{"suppression"}
	return c
}

func (p *program) suppressionsList() *cobra.Command {
	q := &optoutv1.ListSuppressionsRequest{PageSize: pageSize}
	var reasons enumsFlag
	reasons.of = newEnumFlag(optoutv1.DenialReason(0))
	channel := newEnumFlag(optoutv1.Channel(0))
	var topic string
	var all, commercial, oldest bool
	var from, to timeFlag
	var limit uint32
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the noes in force, newest first",
		Long: `Lists the noes in force; all filters given must match. Addresses are shown where they are still known and your role may see them;
a person whose data was erased keeps only the address key.`,
		Example: `  optout suppressions list --channel one-click --from 2026-05-01
  optout suppressions list --reason undeliverable --domain example.org --json`,
		Args: needArgs(0, 0, "", "see \"optout suppressions list --help\""),
	}
	fs := cmd.Flags()
	enumsVar(cmd, &reasons, "reason", "only this `REASON`, such as opted-out-all; can be repeated")
	fs.BoolVar(&all, "scope-all", false, "only those of scope ALL")
	fs.BoolVar(&commercial, "scope-commercial", false, "only those of scope COMMERCIAL")
	fs.StringVar(&topic, "topic", "", "only those of this `TOPIC`")
	enumVar(cmd, channel, "channel", "only what came this `WAY`: "+channel.listing())
	fs.StringVar(&q.Domain, "domain", "", "only addresses of this `DOMAIN` and its subdomains, where they are known in clear")
	fs.Var(&from, "from", "only those taken at or after this `TIME`")
	fs.Var(&to, "to", "only those taken before this `TIME`")
	fs.BoolVar(&oldest, "oldest-first", false, "list by position, oldest first")
	fs.Uint32Var(&limit, "limit", 0, "at most this `NUMBER` (default: all)")
	return p.online(cmd, func(c *call, _ []string) error {
		switch {
		case topic != "" && (all || commercial) || all && commercial:
			return wrongUsage("--topic", "only one scope can be asked for", "give one of --scope-all, --scope-commercial and --topic")
		case all:
			q.Scope = &optoutv1.Scope{Kind: optoutv1.ScopeKind_SCOPE_KIND_ALL}
		case commercial:
			q.Scope = &optoutv1.Scope{Kind: optoutv1.ScopeKind_SCOPE_KIND_COMMERCIAL}
		case topic != "":
			q.Scope = &optoutv1.Scope{Kind: optoutv1.ScopeKind_SCOPE_KIND_TOPIC, Topic: topic}
		}
		q.Sender, q.Channel, q.From, q.To = c.sender, optoutv1.Channel(channel.value), from.stamp(), to.stamp()
		if oldest {
			q.Order = optoutv1.ListOrder_LIST_ORDER_POSITION
		}
		for _, r := range reasons.values {
			q.Reasons = append(q.Reasons, optoutv1.DenialReason(r))
		}
		return paged(c, limit, func() ([]*optoutv1.Suppression, string, error) {
			r, err := c.suppression.ListSuppressions(c.ctx, q)
			q.PageToken = r.GetNextPageToken()
			return r.GetSuppressions(), q.PageToken, err
		}, func(w io.Writer, s *optoutv1.Suppression) {
			if c.json {
				fmt.Fprintf(w, "%s\n", jsonOf(s))
				return
			}
			fmt.Fprintf(w, "%s  %-20s  %-16s  entry %-8d  %s\n", at(s.Since), word(s.Reason), printable(scopeName(s.Scope)), s.Entry,
				printable(or(s.Address, "key "+s.AddressKey)+"  by "+word(s.Channel)+", "+s.Actor))
		})
	})
}

func (p *program) suppressionsCreate() *cobra.Command {
	q := &optoutv1.CreateSuppressionRequest{}
	reason := newEnumFlag(optoutv1.DenialReason(0))
	var occurred timeFlag
	cmd := &cobra.Command{
		Use:   "create --reason REASON ADDRESS",
		Short: "Record a no on behalf of a person, or a fact that denies",
		Long: `Records an opt-out (as "optout unsubscribe" does), a complaint, or that an address is undeliverable, restricted (GDPR Art. 18) or
of somebody under 13; the last two are the privacy role's.`,
		Example: `  optout suppressions create --reason undeliverable --note "returned by post too" bob@example.org
  optout suppressions create --reason complaint --topic newsletter bob@example.org`,
		Args: oneAddress,
	}
	enumVar(cmd, reason, "reason", "`REASON`: opted-out-all, opted-out-commercial, opted-out-topic, complaint, undeliverable, restricted or under-13 (required)")
	cmd.Flags().StringVar(&q.Topic, "topic", "", "`TOPIC` of opted-out-topic, or the one complained of")
	cmd.Flags().StringVar(&q.Note, "note", "", "`TEXT` why, for the record; kept as evidence")
	cmd.Flags().Var(&occurred, "occurred", "`TIME` when it happened, if known")
	cmd.Flags().StringVar(&q.RequestId, "request-id", "", requestIDFlag)
	required(cmd, "reason", "see --help for the reasons")
	return p.online(cmd, func(c *call, args []string) error {
		q.Sender, q.Address, q.Reason, q.OccurredAt = c.sender, args[0], optoutv1.DenialReason(reason.value), occurred.stamp()
		r, err := c.suppression.CreateSuppression(c.ctx, q)
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) {
			if r.Created {
				fmt.Fprintf(w, "recorded (entry %d)\n", r.Entry)
			} else {
				fmt.Fprintf(w, "nothing to do: entry %d says it already\n", r.Entry)
			}
		})
	})
}

func (p *program) suppressionsLift() *cobra.Command {
	reason := newEnumFlag(optoutv1.DenialReason(0))
	var why, id string
	cmd := &cobra.Command{
		Use:   "lift --reason REASON --justification TEXT ADDRESS",
		Short: "Lift what others than the recipient may lift",
		Long: `Lifts "undeliverable" (operator), "restricted" or "under-13" (privacy role) from an address. An opt-out or a complaint is lifted
only by the person: let them subscribe and confirm through the mailbox. A blocked domain: "optout domain unblock".`,
		Example: `  optout suppressions lift --reason undeliverable --justification "mailbox repaired, ticket 4711" bob@example.org`,
		Args:    oneAddress,
	}
	enumVar(cmd, reason, "reason", "`REASON`: undeliverable, restricted or under-13 (required)")
	cmd.Flags().StringVar(&why, "justification", "", "`TEXT` why, for the ledger (required)")
	cmd.Flags().StringVar(&id, "request-id", "", requestIDFlag)
	required(cmd, "reason", "see --help for the reasons")
	requiredWhy(cmd)
	return p.online(cmd, func(c *call, args []string) error {
		r, err := c.suppression.LiftSuppression(c.ctx, &optoutv1.LiftSuppressionRequest{Sender: c.sender, Address: args[0],
			Reason: optoutv1.DenialReason(reason.value), Justification: why, RequestId: requestID(id)})
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) {
			if r.Entry == 0 {
				fmt.Fprintln(w, "nothing to do: nothing of the kind is in force")
			} else {
				fmt.Fprintf(w, "lifted (entry %d)\n", r.Entry)
			}
		})
	})
}

func (p *program) suppressionsVoid() *cobra.Command {
	var why, evidence, id string
	cmd := &cobra.Command{
		Use:   "void ENTRY... --justification TEXT --evidence TEXT",
		Short: "Void what machines said in error",
		Long: `Voids entries that came by import, bounce, complaint report, webhook or untokened mail: all of those named, or none. The entries
stay on the ledger; an appended one voids each. What a person said by link, page or tokened mail cannot be voided.`,
		Example: `  optout suppressions void 812 813 814 --justification "provider bounced valid mailboxes" --evidence "incident 2026-12-14"`,
		Args:    needArgs(1, -1, "ENTRY", "give the numbers of the entries; see \"optout suppressions list\""),
	}
	cmd.Flags().StringVar(&why, "justification", "", "`TEXT` why they are void, for the ledger (required)")
	cmd.Flags().StringVar(&evidence, "evidence", "", "what `SHOWS` it, such as a ticket or an incident report (required)")
	cmd.Flags().StringVar(&id, "request-id", "", requestIDFlag)
	requiredWhy(cmd)
	required(cmd, "evidence", "name what shows it, such as a ticket")
	return p.online(cmd, func(c *call, args []string) error {
		q := &optoutv1.VoidEntriesRequest{Sender: c.sender, Justification: why, Evidence: evidence, RequestId: requestID(id)}
		for _, a := range args {
			n, err := strconv.ParseUint(a, 10, 64)
			if err != nil {
				return wrongUsage("ENTRY", "it is not a number", "give the numbers of entries; see \"optout suppressions list\"")
			}
			q.Entries = append(q.Entries, n)
		}
		r, err := c.suppression.VoidEntries(c.ctx, q)
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) {
			fmt.Fprintf(w, "voided %d of %d entries; the others were void before\n", r.Voided, len(args))
		})
	})
}

// enumsFlag is a flag that takes values of an enum again and again.
type enumsFlag struct {
	of     *enumFlag
	values []protoreflect.EnumNumber
}

// String is the values given.
func (e *enumsFlag) String() string {
	var all []string
	for _, v := range e.values {
		all = append(all, wordOf(e.of.kind, v))
	}
	return strings.Join(all, ",")
}

// Set adds values, separated by commas.
func (e *enumsFlag) Set(s string) error {
	for one := range strings.SplitSeq(s, ",") {
		if err := e.of.Set(strings.TrimSpace(one)); err != nil {
			return err
		}
		e.values = append(e.values, e.of.value)
	}
	return nil
}

// Type is shown in help where the flag's text names none.
func (e *enumsFlag) Type() string { return "words" }

// enumsVar adds a flag that takes words of an enum, and completes them.
func enumsVar(cmd *cobra.Command, e *enumsFlag, name, usage string) {
	cmd.Flags().Var(e, name, usage)
	cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(e.of.words(), cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
}
