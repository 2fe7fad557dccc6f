package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
)

func (p *program) keyCommand() *cobra.Command {
	return p.group("key", "Create, list and revoke API keys",
		`Every caller has an API key with one role: mailer (checks, links, noes), collector (sign-up forms), feedback (bounces, complaints),
support (help desk), privacy (data protection), operator, auditor, admin. Give each program its own, with the least it needs.`,
		p.keyCreate(), p.keyList(), p.keyRevoke(), p.keyReceipt())
}

func (p *program) keyCreate() *cobra.Command {
	role := newEnumFlag(optoutv1.Role(0))
	k := &optoutv1.ApiKey{}
	var sender []string
	cmd := &cobra.Command{
		Use:   "create --role ROLE [--label TEXT]",
		Short: "Create an API key; its secret is printed this once",
		Long: `Creates an API key and prints its secret, this once, alone on standard output: only its SHA-256 is kept. The caller sends it as
"authorization: Bearer SECRET", or keeps it in a file for --key-file.

Without --senders it may act for every sender; without --topics it may name every topic that is not "required". Required topics
pass a person's no, so they must be named.`,
		Example: `  (umask 077; optout key create --role mailer --label crm --topics newsletter,receipts > crm.key)`,
		Args:    needArgs(0, 0, "", "give the label with --label"),
	}
	enumVar(cmd, role, "role", "`ROLE`: "+role.listing()+" (required)")
	cmd.Flags().StringVar(&k.Label, "label", "", "`TEXT` that says who will use it (default: the role)")
	cmd.Flags().StringSliceVar(&k.Topics, "topics", nil, "`NAMES` of the topics that it may name, separated by commas (default: all that are not required)")
	cmd.Flags().StringSliceVar(&k.Senders, "senders", nil, "`NAMES` of the senders that it is bound to, separated by commas (default: all)")
	cmd.Flags().StringSliceVar(&sender, "sender", nil, "the same as --senders")
	required(cmd, "role", "use one of: "+role.listing())
	return p.online(cmd, func(c *call, _ []string) error {
		k.Role, k.Label, k.Senders = optoutv1.Role(role.value), or(k.Label, role.String()), append(k.Senders, sender...)
		r, err := c.admin.CreateApiKey(c.ctx, &optoutv1.CreateApiKeyRequest{Key: k})
		if err != nil {
			return err
		}
		if !c.json {
			fmt.Fprintf(c.Stderr, "created API key %d, role %s; the secret is shown only now\n", r.Key.Number, word(r.Key.Role))
		}
		return c.answer(r, func(w io.Writer) { fmt.Fprintln(w, r.Secret) })
	})
}

func (p *program) keyList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the API keys, without secrets",
		Long:    `Lists the API keys, revoked ones too, without their secrets, which nobody has but their users.`,
		Example: `  optout key list`,
		Args:    needArgs(0, 0, "", "see \"optout key list --help\""),
	}
	return p.online(cmd, func(c *call, _ []string) error {
		r, err := c.admin.ListApiKeys(c.ctx, &optoutv1.ListApiKeysRequest{})
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) {
			rows := [][]string{{"NUMBER", "LABEL", "ROLE", "SENDERS", "TOPICS", "CREATED", "REVOKED"}}
			for _, k := range r.Keys {
				rows = append(rows, []string{fmt.Sprint(k.Number), k.Label, word(k.Role), or(strings.Join(k.Senders, ","), "all"),
					or(strings.Join(k.Topics, ","), unnamedTopics(k.Role)), at(k.CreatedAt), at(k.RevokedAt)})
			}
			table(w, rows...)
		})
	})
}

// unnamedTopics are the topics of a key that names none.
func unnamedTopics(r optoutv1.Role) string {
	if r == optoutv1.Role_ROLE_ADMIN {
		return "all"
	}
	return "all but required"
}

func (p *program) keyRevoke() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "revoke NUMBER",
		Short:   "Revoke an API key at once",
		Long:    `Revokes an API key at once and for good. The last admin key cannot be revoked.`,
		Example: `  optout key revoke 3`,
		Args:    needArgs(1, 1, "NUMBER", "give the key's number; see \"optout key list\""),
	}
	return p.online(cmd, func(c *call, args []string) error {
		n, err := strconv.ParseUint(args[0], 10, 32)
		if err != nil {
			return wrongUsage("NUMBER", "it is not a number", "give the key's number; see \"optout key list\"")
		}
		r, err := c.admin.RevokeApiKey(c.ctx, &optoutv1.RevokeApiKeyRequest{Number: uint32(n)})
		if err != nil {
			return err
		}
		return c.answer(r.Key, func(w io.Writer) { fmt.Fprintf(w, "revoked API key %d (%s)\n", r.Key.Number, printable(r.Key.Label)) })
	})
}

func (p *program) keyReceipt() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "receipt",
		Short: "Print the public keys that verify receipts",
		Long: `Prints the public keys that verify the receipts of checks (X-Optout-Receipt), one a line, as "optout audit-mail --offline" reads
them. They are no secret: give them to whoever shall be able to verify your mail. With --json each has its PEM too.`,
		Example: `  optout key receipt > receipt-keys.txt
  optout audit-mail --offline receipt-keys.txt sent.mbox`,
		Args: needArgs(0, 0, "", "see \"optout key receipt --help\""),
	}
	return p.online(cmd, func(c *call, _ []string) error {
		r, err := c.ledger.ListReceiptKeys(c.ctx, &optoutv1.ListReceiptKeysRequest{})
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) {
			for _, k := range r.Keys {
				fmt.Fprintln(w, printable(k.Text))
			}
		})
	})
}

func (p *program) linkKeyCommand() *cobra.Command {
	return p.group("linkkey", "Rotate and list the keys that sign links",
		`Links are signed with a key that lies in the service's key folder, apart from the database. Old keys keep verifying for ever: a
link that somebody finds in a mail of three years ago must still work.`,
		p.linkKeyRotate(), p.linkKeyList())
}

func (p *program) linkKeyRotate() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rotate",
		Short:   "Sign new links with a new key",
		Long:    `Makes a new link key and signs every new link with it; links already sent keep working. Back the key folder up afterwards.`,
		Example: `  optout linkkey rotate && optout backup /var/backups/optout/$(date +%F) --with-keys`,
		Args:    needArgs(0, 0, "", "see \"optout linkkey rotate --help\""),
	}
	return p.online(cmd, func(c *call, _ []string) error {
		r, err := c.admin.RotateLinkKey(c.ctx, &optoutv1.RotateLinkKeyRequest{})
		if err != nil {
			return err
		}
		return c.answer(r.Key, func(w io.Writer) {
			fmt.Fprintf(w, "link key %d signs new links (check value %s); back up the key folder\n", r.Key.Id, r.Key.CheckValue)
		})
	})
}

func (p *program) linkKeyList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the link keys, without secrets",
		Long:    `Lists the link keys, without their secrets. The check value shows which key it is and reveals nothing of it.`,
		Example: `  optout linkkey list`,
		Args:    needArgs(0, 0, "", "see \"optout linkkey list --help\""),
	}
	return p.online(cmd, func(c *call, _ []string) error {
		r, err := c.admin.ListLinkKeys(c.ctx, &optoutv1.ListLinkKeysRequest{})
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) {
			rows := [][]string{{"ID", "SIGNS NEW LINKS", "CREATED", "CHECK VALUE"}}
			for _, k := range r.Keys {
				rows = append(rows, []string{fmt.Sprint(k.Id), map[bool]string{true: "yes", false: "no"}[k.Current], at(k.CreatedAt), k.CheckValue})
			}
			table(w, rows...)
		})
	})
}
