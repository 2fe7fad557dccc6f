package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
	"optout/service"
	"optout/service/ledger"
)

func (p *program) verifyCommand() *cobra.Command {
	var keys string
	cmd := &cobra.Command{
		Use:   "verify [--data DIR]",
		Short: "Prove that nobody has changed the ledger",
		Long: `Reads the whole ledger, recomputes every leaf, every tree head and the standing of every address, and compares them with what is
stored, with the tree head kept off the database, and with what the running service holds in memory. A flipped bit, a deleted
line, a lost page or a database put back from yesterday is found, and the first entry that does not fit is named.

Exit code 0: all is well; 1: something does not fit; 2: it could not be verified.

With --data on the command line it needs no running service and opens the data folder itself.`,
		Example: `  optout verify
  optout verify --data /var/lib/optout --json`,
		Args: needArgs(0, 0, "", "see \"optout verify --help\""),
	}
	cmd.Flags().StringVar(&keys, "keys", "", "key folder `DIR`, with --data (default: keys in it)")
	cmd = p.online(cmd, func(c *call, _ []string) error { return c.verify() })
	cmd.Flags().Lookup("data").Usage = "verify this data folder `DIR` without a service; as a variable only the place of admin.key"
	remote := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("data") {
			if keys != "" {
				return wrongUsage("--keys", "it goes only with --data", "a running service knows its keys")
			}
			return remote(cmd, args)
		}
		if err := p.fill(cmd.Flags(), nil); err != nil {
			return err
		}
		p.json, _ = cmd.Flags().GetBool("json") // both are flags of this command
		data, _ := cmd.Flags().GetString("data")
		bar := p.startProgress("verifying", 0, false)
		defer bar.finish()
		rep, err := service.VerifyData(cmd.Context(), data, keys, bar.set)
		bar.finish()
		if err != nil {
			return err
		}
		return p.verdictOnLedger(reportOf(rep))
	}
	return cmd
}

func (c *call) verify() error {
	stream, err := c.ledger.Verify(c.ctx, &optoutv1.VerifyRequest{})
	if err != nil {
		return err
	}
	bar := c.startProgress("verifying", 0, false)
	defer bar.finish()
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the service ended before it told the result: verify again")
		}
		if err != nil {
			return err
		}
		bar.set(r.Verified, r.Total)
		if r.Done {
			bar.finish()
			return c.verdictOnLedger(r)
		}
	}
}

// reportOf is a report of the core as the API tells it.
func reportOf(r ledger.Report) *optoutv1.VerifyResponse {
	return &optoutv1.VerifyResponse{Verified: r.Entries, Total: r.Head.Size, Done: true, FirstBad: r.FirstBad, Fault: r.Fault,
		Position: &optoutv1.Position{LedgerId: r.LedgerID, Number: r.Head.Size}}
}

// verdictOnLedger prints the result of a verification; a ledger that does not verify is a no.
func (p *program) verdictOnLedger(r *optoutv1.VerifyResponse) error {
	ok := r.FirstBad == 0 && r.Fault == ""
	switch {
	case p.json:
		b := jsonOf(r)
		fmt.Fprintf(p.Stdout, `{"ok":%t,%s`+"\n", ok, b[1:])
	case ok:
		fmt.Fprintf(p.Stdout, "all is well: ledger %s, %d entries verified\n", r.Position.GetLedgerId(), r.Verified)
	default:
		fmt.Fprintf(p.Stdout, "the ledger does not verify. The first bad entry is %d: %s\n", r.FirstBad, printable(r.Fault))
	}
	if !ok {
		return errNo
	}
	return nil
}
