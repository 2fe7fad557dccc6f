package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
)

func (p *program) providerCommand() *cobra.Command {
	c := p.group("provider", "Look after email service providers",
		`The providers in the file given by "optout serve --providers": their webhooks and suppression lists become entries of the ledger, and
opt-outs are pushed to them. See docs/providers.md.`,
		p.providerList(), p.providerSync(), p.providerDrift())
	c.Aliases = []string{"providers"}
	return c
}

// needProvider demands the id of a provider.
func needProvider() cobra.PositionalArgs {
	return needArgs(1, 1, "ID", "give the id of a provider; see \"optout provider list\"")
}

// providerIDs lists the ids of providers, for completion.
func providerIDs(ctx context.Context, c *call) ([]cobra.Completion, error) {
	r, err := c.admin.ListProviders(ctx, &optoutv1.ListProvidersRequest{Sender: c.sender})
	var ids []cobra.Completion
	for _, p := range r.GetProviders() {
		ids = append(ids, cobra.CompletionWithDesc(p.Id, p.Kind))
	}
	return ids, err
}

func (p *program) providerList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the providers, and how far each is",
		Long: `Lists the providers of the sender: where their webhooks go, when one came last, when their lists were read last, and how many
entries of the ledger pushing has still to look at. Exit code 1 when reading or pushing failed last.`,
		Example: `  optout provider list
  optout provider list --json`,
		Args: needArgs(0, 0, "", "see \"optout provider list --help\""),
	}
	return p.online(cmd, func(c *call, _ []string) error {
		r, err := c.admin.ListProviders(c.ctx, &optoutv1.ListProvidersRequest{Sender: c.sender})
		if err != nil {
			return err
		}
		ill := false
		for _, x := range r.Providers {
			ill = ill || x.PollError != "" || x.PushError != ""
		}
		if c.json {
			for _, x := range r.Providers {
				fmt.Fprintf(c.Stdout, "%s\n", jsonOf(x))
			}
		} else {
			providerTable(c.Stdout, r.Providers)
		}
		if ill {
			return errNo
		}
		return nil
	})
}

func providerTable(w io.Writer, all []*optoutv1.Provider) {
	if len(all) == 0 {
		fmt.Fprintln(w, "no provider is configured: see \"optout serve --help\", --providers")
		return
	}
	rows := [][]string{{"ID", "KIND", "SCOPE", "WEBHOOK", "LAST EVENT", "LISTS READ", "PUSHED", "BEHIND"}}
	for _, x := range all {
		pushed, behind := "-", "-"
		if x.Push {
			pushed, behind = strconv.FormatUint(x.Pushed, 10), strconv.FormatUint(x.Behind, 10)
		}
		rows = append(rows, []string{x.Id, x.Kind, x.Scope, or(x.WebhookPath, "-"), at(x.LastEventAt), at(x.LastPollAt), pushed, behind})
	}
	table(w, rows...)
	for _, x := range all {
		for _, note := range [][2]string{{"webhook", x.LastControl}, {"reading the lists failed", x.PollError}, {"pushing failed", x.PushError}} {
			if note[1] != "" {
				fmt.Fprintf(w, "%s: %s: %s\n", x.Id, note[0], printable(note[1]))
			}
		}
		if x.Unknown > 0 || x.Refused > 0 {
			fmt.Fprintf(w, "%s: %d opt-outs could not be pushed (only the key of the address is known), %d the provider did not take\n", x.Id, x.Unknown, x.Refused)
		}
	}
}

func (p *program) providerSync() *cobra.Command {
	var full bool
	cmd := &cobra.Command{
		Use:   "sync ID",
		Short: "Read a provider's lists and push to it now",
		Long: `Reads what is new on a provider's suppression lists, and pushes the opt-outs that it does not have yet, if pushing is on. Repeating it
does no harm. --full reads the lists from the beginning; what was recorded before is not recorded again.`,
		Example: `  optout provider sync ses-main
  optout provider sync sendgrid-news --full`,
		Args: needProvider(),
	}
	cmd.Flags().BoolVar(&full, "full", false, "read the lists from the beginning, not only what is new")
	return p.online(cmd, func(c *call, args []string) error {
		stream, err := c.admin.SyncProvider(c.ctx, &optoutv1.SyncProviderRequest{Sender: c.sender, Id: args[0], Full: full})
		if err != nil {
			return err
		}
		return c.synced(stream.Recv)
	}, providerIDs)
}

// synced takes the progress of a sync and prints what became of each list.
func (c *call) synced(next func() (*optoutv1.SyncProviderResponse, error)) error {
	bar := c.startProgress("syncing", 0, false)
	defer bar.finish()
	var lists []*optoutv1.SyncProviderResponse
	for {
		r, err := next()
		if errors.Is(err, io.EOF) {
			return errors.New("the service ended before the sync was complete: repeat it")
		}
		if err != nil {
			return err
		}
		if !r.Done {
			if n := len(lists); n > 0 && lists[n-1].List == r.List {
				lists[n-1] = r
			} else {
				lists = append(lists, r)
			}
			bar.set(r.Read+r.Pushed, 0)
			continue
		}
		bar.finish()
		if c.json {
			for _, x := range append(lists, r) {
				fmt.Fprintf(c.Stdout, "%s\n", jsonOf(x))
			}
			return nil
		}
		for _, x := range lists {
			if x.List == "" {
				fmt.Fprintf(c.Stdout, "pushed %d; %d refused by the provider; %d of unknown address\n", x.Pushed, x.Refused, x.Unknown)
				continue
			}
			fmt.Fprintf(c.Stdout, "%s: %d read, %d new", printable(x.List), x.Read, x.Recorded)
			if x.Unreadable > 0 {
				fmt.Fprintf(c.Stdout, ", %d could not be read", x.Unreadable)
			}
			fmt.Fprintln(c.Stdout)
		}
		return nil
	}
}

func (p *program) providerDrift() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drift ID",
		Short: "Compare the ledger with a provider's lists",
		Long: `Reads a provider's whole suppression lists and compares them with the ledger. It changes nothing on either side.

"here only" is denied by the ledger and not on a list: push it, or wait until it is pushed. "there only" is on a list, and nothing
on the ledger denies it: sync to record it, or, when the person has said yes again, take it off at the provider. optout never takes
anybody off a list by itself. Exit code 0: no difference, 1: at least one.`,
		Example: `  optout provider drift ses-main
  optout provider drift ses-main --json > drift.jsonl`,
		Args: needProvider(),
	}
	return p.online(cmd, func(c *call, args []string) error {
		stream, err := c.admin.GetProviderDrift(c.ctx, &optoutv1.GetProviderDriftRequest{Sender: c.sender, Id: args[0]})
		if err != nil {
			return err
		}
		return c.drifted(stream.Recv)
	}, providerIDs)
}

func (c *call) drifted(next func() (*optoutv1.GetProviderDriftResponse, error)) error {
	for {
		r, err := next()
		if errors.Is(err, io.EOF) {
			return errors.New("the service ended before the comparison was complete: repeat it")
		}
		if err != nil {
			return err
		}
		for _, d := range r.Differences {
			if c.json {
				fmt.Fprintf(c.Stdout, "%s\n", jsonOf(d))
				continue
			}
			fmt.Fprintf(c.Stdout, "%-10s  %s  %s since %s\n", word(d.Side), printable(or(d.Address, "(not shown to your role)")), printable(d.Why), at(d.Since))
		}
		if !r.Done {
			continue
		}
		r.Differences = nil
		if c.json {
			fmt.Fprintf(c.Stdout, "%s\n", jsonOf(r))
		} else {
			fmt.Fprintf(c.Stdout, "%d on both sides, %d here only, %d there only; %d noes of unknown address; position %d\n", r.Agreed, r.HereOnly, r.ThereOnly, r.Unknown, r.Position.GetNumber())
			if r.Unreadable > 0 {
				fmt.Fprintf(c.Stdout, "%d items of the lists could not be read\n", r.Unreadable)
			}
		}
		if r.HereOnly+r.ThereOnly > 0 {
			return errNo
		}
		return nil
	}
}
