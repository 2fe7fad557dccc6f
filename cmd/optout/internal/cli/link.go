package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
)

func (p *program) linkCommand() *cobra.Command {
	var topic, scopeTopic string
	var commercial bool
	var mailing uint32
	cmd := &cobra.Command{
		Use:   "link --topic TOPIC ADDRESS|-",
		Short: "Issue the signed unsubscribe link of one address, or of a campaign's list",
		Long: `Prints the URL by which this person stops your mail, and the headers that let mailbox providers show their own unsubscribe
button (RFC 8058). Put both headers on the message exactly once, and let the DKIM signature cover them; the names it must cover
are in the JSON answer ("dkim_sign").

The link never expires and cannot be made or altered without the service's key. It only ever stops mail: it shows no address and
says no yes. It stops ALL correspondence unless --only-topic or --only-commercial narrows it. Issuing a link writes nothing and
asks nobody whether the mail may be sent: that is "optout check".

With - it reads a campaign's list (CSV with a header line) from standard input, for mail that a provider's own tool sends, and writes
it to standard output with the columns unsubscribe_url, list_unsubscribe, list_unsubscribe_post and unsubscribe_mailto. Each row is
checked: who may not be mailed is left out (--refused FILE keeps them apart with the reason, --keep-refused in place with the column
optout_verdict and without links). Send at once: a list of yesterday does not know who opted out today. Exit code 0: all rows have
links; 1: some were refused or could not be read; 2: it broke off, and the output is not to be used.`,
		Example: `  optout link --topic newsletter ada@example.com
  optout link --topic newsletter --refused out.csv - < campaign.csv > campaign-with-links.csv
  optout link --topic newsletter --mailing 2026041 --json ada@example.com | jq -r .url`,
		Args: oneAddress,
	}
	cmd.Flags().StringVar(&topic, "topic", "", "`TOPIC` of the mail that will carry the link (required; see \"optout topic list\")")
	cmd.Flags().StringVar(&scopeTopic, "only-topic", "", "let the link stop only this `TOPIC`")
	cmd.Flags().BoolVar(&commercial, "only-commercial", false, "let the link stop only commercial mail")
	cmd.Flags().Uint32Var(&mailing, "mailing", 0, "`NUMBER` of the campaign or template run, by which opt-outs can be counted")
	list := &campaign{}
	cmd.Flags().StringVar(&list.column, "column", "", "with -: `NAME` of the column with the address (default: one that is usually named so)")
	cmd.Flags().BoolVar(&list.keepRefused, "keep-refused", false, "with -: keep who may not be mailed, without links")
	cmd.Flags().StringVar(&list.refusedTo, "refused", "", "with -: `FILE` for who may not be mailed, with the reason")
	requiredTopic(cmd)
	return p.online(cmd, func(c *call, args []string) error {
		scope, err := scopeOf("only-topic", scopeTopic, "only-commercial", commercial)
		if err != nil {
			return err
		}
		if args[0] == "-" {
			list.call = c
			list.request = &optoutv1.BatchCheckSendRequest{Sender: c.sender, Topic: topic, WantHeaders: true, LinkScope: scope, Mailing: mailing}
			return list.links(c.Stdin, 0)
		}
		r, err := c.link.IssueLink(c.ctx, &optoutv1.IssueLinkRequest{Sender: c.sender, Topic: topic, Address: args[0], Scope: scope, Mailing: mailing})
		if err != nil {
			return err
		}
		if r.Link.GetWarning() != "" && !c.json {
			fmt.Fprintf(c.Stderr, "optout: warning: %s\n", printable(r.Link.Warning))
		}
		return c.answer(r.Link, func(w io.Writer) {
			fmt.Fprintln(w, r.Link.Url)
			for _, h := range r.Link.Headers {
				fmt.Fprintf(w, "%s: %s\n", h.Name, h.Value)
			}
		})
	})
}
