package cli

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
)

// pageSize is how many entries or suppressions are asked for at once.
const pageSize = 1000

func (p *program) entriesCommand() *cobra.Command {
	var after uint64
	var limit uint32
	var all bool
	var kinds enumsFlag
	kinds.of = newEnumFlag(optoutv1.EntryKind(0))
	cmd := &cobra.Command{
		Use:   "entries",
		Short: "List the entries of the ledger, oldest first",
		Long: `Lists entries in the ledger's order, up to its head as it was when the command began. Evidence (addresses, IP addresses, notes) is
shown to the roles that may see it, until it is erased.`,
		Example: `  optout entries --after 1000 --limit 50
  optout entries --all --kind sent-in-spite --json`,
		Args: needArgs(0, 0, "", "see \"optout entries --help\""),
	}
	cmd.Flags().Uint64Var(&after, "after", 0, "begin after this `POSITION`")
	cmd.Flags().Uint32Var(&limit, "limit", 0, "at most this `NUMBER` of entries (default: all)")
	cmd.Flags().BoolVar(&all, "all", false, "those of every sender that your API key may use, and those of the whole installation")
	enumsVar(cmd, &kinds, "kind", "only this `KIND` of entry, such as opted-out; can be repeated")
	return p.online(cmd, func(c *call, _ []string) error {
		q := &optoutv1.ListEntriesRequest{Sender: c.sender, After: after, PageSize: pageSize}
		if all {
			q.Sender = ""
		}
		for _, k := range kinds.values {
			q.Kinds = append(q.Kinds, optoutv1.EntryKind(k))
		}
		return paged(c, limit, func() ([]*optoutv1.Entry, string, error) {
			r, err := c.ledger.ListEntries(c.ctx, q)
			q.PageToken = r.GetNextPageToken()
			return r.GetEntries(), q.PageToken, err
		}, func(w io.Writer, e *optoutv1.Entry) {
			if c.json {
				fmt.Fprintf(w, "%s\n", jsonOf(e))
				return
			}
			fmt.Fprintf(w, "%8d  %s  %s\n", e.Position, at(e.At), printable(happened(e)))
			if why := circumstances(e); why != "" {
				fmt.Fprintf(w, "          %s\n", printable(why))
			}
		})
	})
}

// paged prints every item of every page, at most limit of them (0: all), a page at a time.
func paged[T any](c *call, limit uint32, page func() (items []T, next string, err error), show func(io.Writer, T)) error {
	out := bufio.NewWriter(c.Stdout)
	for shown := uint32(0); ; {
		items, next, err := page()
		if err != nil {
			return err
		}
		for _, item := range items {
			if limit > 0 && shown == limit {
				return out.Flush()
			}
			show(out, item)
			shown++
		}
		if err := out.Flush(); err != nil || next == "" {
			return err
		}
	}
}

func (p *program) checkpointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "Print the newest tree head of the ledger",
		Long: `Prints the Merkle tree head (RFC 6962) of the ledger, in the C2SP tlog-checkpoint form: ledger, number of entries, tree hash. Keep
it where the service's machine cannot change it: any later ledger must extend it.`,
		Example: `  optout checkpoint >> /mnt/elsewhere/checkpoints
  optout checkpoint --json | jq -r .root_hash`,
		Args: needArgs(0, 0, "", "see \"optout checkpoint --help\""),
	}
	return p.online(cmd, func(c *call, _ []string) error {
		r, err := c.ledger.GetCheckpoint(c.ctx, &optoutv1.GetCheckpointRequest{})
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) {
			if r.Text != "" {
				fmt.Fprint(w, r.Text)
				return
			}
			fmt.Fprintf(w, "%s\n%d\n%s\n", r.Position.GetLedgerId(), r.Position.GetNumber(), hex.EncodeToString(r.RootHash))
		})
	})
}
