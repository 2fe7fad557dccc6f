package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
)

func (p *program) keyCommand() *cobra.Command {
	return p.group("key", "Create, list and revoke API keys",
		`Every caller has an API key with one role: mailer (checks, links, noes), collector (sign-up forms), feedback (bounces, complaints),
support (help desk), privacy (data protection), operator, auditor, admin. Give each program its own, with the least it needs.`,
		p.keyCreate(), p.keyList(), p.keyUpdate(), p.keyRevoke(), p.keyReceipt())
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
	cmd.Flags().StringSliceVar(&sender, "sender", nil, "`NAMES`: the same as --senders")
	cmd.Flags().StringVar(&k.DefaultTopic, "default-topic", "", "`TOPIC` of mail through the gate or the milter that names none")
	cmd.Flags().BoolVar(&k.ListSoftware, "list-software", false, "a mailing list manager's: its own List-* fields stay on mail through the gate")
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
			rows := [][]string{{"NUMBER", "LABEL", "ROLE", "SENDERS", "TOPICS", "DEFAULT TOPIC", "OBSERVED UNTIL", "CREATED", "REVOKED"}}
			for _, k := range r.Keys {
				rows = append(rows, []string{fmt.Sprint(k.Number), k.Label, word(k.Role), or(strings.Join(k.Senders, ","), "all"),
					or(strings.Join(k.Topics, ","), unnamedTopics(k.Role)), k.DefaultTopic, at(k.ObserveUntil), at(k.CreatedAt), at(k.RevokedAt)})
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

func (p *program) keyUpdate() *cobra.Command {
	var topic string
	var list bool
	var observe string
	cmd := &cobra.Command{
		Use:   "update NUMBER",
		Short: "Change what the gate and the milter do with a key's mail",
		Long: `Changes what the SMTP gate and the milter do with mail that comes under a key.

--observe is for cutting over: for as long as you say, at most 14 days from its first begin, mail that would be refused is let
through and reported instead: in the log, in the metrics and as an entry each ("optout entries"). It ends by itself, or with
--observe off.`,
		Example: `  optout key update 3 --observe 7d
  optout key update 3 --default-topic newsletter`,
		Args: needArgs(1, 1, "NUMBER", "give the key's number; see \"optout key list\""),
	}
	cmd.Flags().StringVar(&topic, "default-topic", "", "`TOPIC` of mail that names none; empty for none")
	cmd.Flags().BoolVar(&list, "list-software", false, "a mailing list manager's: its own List-* fields stay")
	cmd.Flags().StringVar(&observe, "observe", "", "`TIME` to observe for, such as 36h or 7d, or off")
	return p.online(cmd, func(c *call, args []string) error {
		n, err := strconv.ParseUint(args[0], 10, 32)
		if err != nil {
			return wrongUsage("NUMBER", "it is not a number", "give the key's number; see \"optout key list\"")
		}
		r := &optoutv1.UpdateApiKeyRequest{Number: uint32(n)}
		if cmd.Flags().Changed("default-topic") {
			r.DefaultTopic = &topic
		}
		if cmd.Flags().Changed("list-software") {
			r.ListSoftware = &list
		}
		if cmd.Flags().Changed("observe") {
			d, err := observeTime(observe)
			if err != nil {
				return err
			}
			r.ObserveUntil = timestamppb.New(time.Now().Add(d))
		}
		a, err := c.admin.UpdateApiKey(c.ctx, r)
		if err != nil {
			return err
		}
		return c.answer(a.Key, func(w io.Writer) {
			fmt.Fprintf(w, "updated API key %d (%s)\n", a.Key.Number, printable(a.Key.Label))
			if u := a.Key.ObserveUntil; u != nil && u.AsTime().After(time.Now()) {
				fmt.Fprintf(w, "its mail is only observed until %s\n", at(u))
			}
		})
	})
}

// observeTime reads how long to observe; "off" is no time.
func observeTime(s string) (time.Duration, error) {
	if s == "off" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return d, nil
	}
	return 0, wrongUsage("--observe", fmt.Sprintf("%q is no length of time", clip(s)), "give one such as 36h or 7d (at most 14d), or off")
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
