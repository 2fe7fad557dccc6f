package cli

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
	"optout/service"
)

func (p *program) backupCommand() *cobra.Command {
	var withKeys bool
	cmd := &cobra.Command{
		Use:   "backup DIR [--with-keys]",
		Short: "Copy the ledger while the service runs",
		Long: `Writes a consistent copy of the ledger, as of one moment, into a folder on the service's machine that is empty or does not exist,
while checks and writes go on.

Without --with-keys the copy answers no check, so that whoever gets hold of it learns nothing: keep a copy of the key folder
elsewhere, and take a new one after each "optout linkkey rotate". Without the keys a backup is worth nothing.`,
		Example: `  optout backup /var/backups/optout/2026-05-01
  optout restore --from /var/backups/optout/2026-05-01 --data /tmp/trial --keys /var/lib/optout/keys   # try it out`,
		Args: needArgs(1, 1, "DIR", "give a folder on the service's machine that is empty or does not exist"),
	}
	cmd.ValidArgsFunction = fileArgument
	cmd.Flags().BoolVar(&withKeys, "with-keys", false, "copy address keys and link keys too")
	return p.online(cmd, func(c *call, args []string) error {
		dir := args[0]
		if !filepath.IsAbs(dir) {
			if !c.to.loopback() {
				return wrongUsage("DIR", "it is not an absolute path", "name the folder as the service's machine does")
			}
			abs, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			dir = abs
		}
		return c.backup(dir, withKeys)
	})
}

func (c *call) backup(dir string, withKeys bool) error {
	stream, err := c.admin.Backup(c.ctx, &optoutv1.BackupRequest{Directory: dir, WithKeys: withKeys})
	if err != nil {
		return err
	}
	bar := c.startProgress("copying", 0, false)
	defer bar.finish()
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the service ended before the backup was complete: delete " + dir + " and repeat")
		}
		if err != nil {
			return err
		}
		bar.set(r.Copied, r.Total)
		if r.Done {
			bar.finish()
			return c.answer(r, func(w io.Writer) {
				fmt.Fprintf(w, "backup in %s: ledger %s, %d entries, tree hash %s\n", dir, r.Position.GetLedgerId(), r.Position.GetNumber(), hex.EncodeToString(r.RootHash))
				if !withKeys {
					fmt.Fprintln(w, "the keys are not in it: keep a copy of the key folder elsewhere")
				}
			})
		}
	}
}

func (p *program) restoreCommand() *cobra.Command {
	var from, data, keys string
	cmd := &cobra.Command{
		Use:   "restore --from DIR --data NEWDIR [--keys DIR]",
		Short: "Make a data folder of a backup, and verify it",
		Long: `Copies a backup into a data folder that is empty or does not exist, and verifies it to the last entry, with its keys. No service
needs to run; start one on the new folder afterwards. A backup without keys needs --keys with the installation's key folder, and
the service then needs the same flag.

Whatever happened after the backup is not in it: import the opt-outs taken since, before anybody is mailed.`,
		Example: `  optout restore --from /var/backups/optout/2026-05-01 --data /var/lib/optout-new
  optout serve --data /var/lib/optout-new`,
		Args: needArgs(0, 0, "", "see \"optout restore --help\""),
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&from, "from", "", "`DIR` that \"optout backup\" wrote (required)")
	cmd.Flags().StringVar(&data, "data", "", "new data folder `DIR` (required)")
	cmd.Flags().StringVar(&keys, "keys", "", "key folder `DIR`, for a backup without keys")
	cmd.Flags().BoolVar(&p.json, "json", p.json, "answer in JSON")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	required(cmd, "from", "name the folder that \"optout backup\" wrote")
	required(cmd, "data", "name a new data folder")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		rep, err := service.Restore(cmd.Context(), from, data, keys)
		if err != nil {
			return err
		}
		return p.verdictOnLedger(reportOf(rep))
	}
	return cmd
}
