package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
)

func (p *program) senderCommand() *cobra.Command {
	return p.group("sender", "Create, change and show senders",
		`A sender is the organisation or brand in whose name mail goes out. Its topics, persons, opt-outs and API keys are its own. An
installation starts with one, "default"; every command takes --sender.

Commercial mail needs the sender's valid physical postal address (15 USC 7704(a)(5)); the Go client refuses to send it without.`,
		p.senderCreate(), p.senderUpdate(), p.senderList(), p.senderShow())
}

var senderName = needArgs(1, 1, "NAME", "give the sender's name: 1 to 63 characters of a-z, 0-9 and '-', beginning with a letter")

// senderFlags adds a flag for each setting.
func senderFlags(cmd *cobra.Command, s *optoutv1.Sender) {
	fs := cmd.Flags()
	fs.StringVar(&s.DisplayName, "display-name", "", "its `NAME` as people know it")
	fs.StringVar(&s.PostalAddress, "postal-address", "", "valid physical postal `ADDRESS`")
	fs.StringVar(&s.PublicUrl, "public-url", "", "base `URL` of its links (default: the service's)")
	fs.StringVar(&s.MailDomain, "mail-domain", "", "`DOMAIN` of its unsubscribe addresses (default: the service's)")
	fs.StringVar(&s.PrivacyPolicyUrl, "privacy-policy-url", "", "`URL` of its privacy policy")
	fs.StringVar(&s.PrivacyPolicyVersion, "privacy-policy-version", "", "`VERSION` of that policy")
	fs.StringVar(&s.DataProtectionContact, "data-protection-contact", "", "how to reach `WHOEVER` answers for data protection")
	fs.StringVar(&s.ContactAddress, "contact-address", "", "`ADDRESS` that people write to; mail to it is read for \"stop\" in their own words")
	fs.StringVar(&s.ForwardAddress, "forward-address", "", "`ADDRESS` that their questions are passed on to (default: they wait in the queue)")
}

func (p *program) senderCreate() *cobra.Command {
	s := &optoutv1.Sender{}
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create a sender",
		Long:    `Creates a sender with the two required topics that every sender has: privacy and confirmation.`,
		Example: `  optout sender create acme --display-name "Acme Inc." --postal-address "1 Main St, Springfield, IL 62701"`,
		Args:    senderName,
	}
	senderFlags(cmd, s)
	return p.online(cmd, func(c *call, args []string) error {
		s.Name = args[0]
		r, err := c.admin.CreateSender(c.ctx, &optoutv1.CreateSenderRequest{Sender: s})
		if err != nil {
			return err
		}
		return c.answer(r.Sender, func(w io.Writer) { showSender(w, r.Sender) })
	})
}

func (p *program) senderUpdate() *cobra.Command {
	s := &optoutv1.Sender{}
	cmd := &cobra.Command{
		Use:   "update [NAME]",
		Short: "Change a sender's settings",
		Long: `Changes the settings that are given and leaves the others; an empty value takes a setting away. Links already sent keep pointing
to the old --public-url: keep it answering.`,
		Example: `  optout sender update --postal-address "1 Main St, Springfield, IL 62701" --privacy-policy-url https://example.com/privacy`,
		Args:    needArgs(0, 1, "", "give one name, or none for --sender"),
	}
	senderFlags(cmd, s)
	return p.online(cmd, func(c *call, args []string) error {
		r, err := c.admin.UpdateSender(c.ctx, &optoutv1.UpdateSenderRequest{Name: c.senderOr(args),
			DisplayName:           given(c.cmd, "display-name", s.DisplayName),
			PostalAddress:         given(c.cmd, "postal-address", s.PostalAddress),
			PublicUrl:             given(c.cmd, "public-url", s.PublicUrl),
			MailDomain:            given(c.cmd, "mail-domain", s.MailDomain),
			PrivacyPolicyUrl:      given(c.cmd, "privacy-policy-url", s.PrivacyPolicyUrl),
			PrivacyPolicyVersion:  given(c.cmd, "privacy-policy-version", s.PrivacyPolicyVersion),
			DataProtectionContact: given(c.cmd, "data-protection-contact", s.DataProtectionContact),
			ContactAddress:        given(c.cmd, "contact-address", s.ContactAddress),
			ForwardAddress:        given(c.cmd, "forward-address", s.ForwardAddress)})
		if err != nil {
			return err
		}
		return c.answer(r.Sender, func(w io.Writer) { showSender(w, r.Sender) })
	}, senders)
}

func (p *program) senderList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the senders that your API key may use",
		Long:    `Lists the senders that your API key may use, by name.`,
		Example: `  optout sender list --json | jq -r '.senders[].name'`,
		Args:    needArgs(0, 0, "", "see \"optout sender list --help\""),
	}
	return p.online(cmd, func(c *call, _ []string) error {
		r, err := c.admin.ListSenders(c.ctx, &optoutv1.ListSendersRequest{})
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) {
			rows := [][]string{{"NAME", "DISPLAY NAME", "CREATED", "PUBLIC URL", "MAIL DOMAIN"}}
			for _, s := range r.Senders {
				rows = append(rows, []string{s.Name, or(s.DisplayName, "-"), at(s.CreatedAt), s.EffectivePublicUrl, or(s.EffectiveMailDomain, "-")})
			}
			table(w, rows...)
		})
	})
}

func (p *program) senderShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show [NAME]",
		Short:   "Show a sender's settings",
		Long:    `Shows a sender with what a mailer must know of it: postal address, privacy policy, and the bases of its links that are in force.`,
		Example: `  optout sender show acme`,
		Args:    needArgs(0, 1, "", "give one name, or none for --sender"),
	}
	return p.online(cmd, func(c *call, args []string) error {
		r, err := c.admin.GetSender(c.ctx, &optoutv1.GetSenderRequest{Name: c.senderOr(args)})
		if err != nil {
			return err
		}
		return c.answer(r.Sender, func(w io.Writer) { showSender(w, r.Sender) })
	}, senders)
}

// senderOr is the sender named by the argument, or by --sender.
func (c *call) senderOr(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return c.sender
}

func showSender(w io.Writer, s *optoutv1.Sender) {
	table(w,
		[]string{"name", s.Name},
		[]string{"display name", or(s.DisplayName, "-")},
		[]string{"postal address", or(s.PostalAddress, "- (commercial mail needs one)")},
		[]string{"public URL", s.EffectivePublicUrl + fallback(s.PublicUrl)},
		[]string{"mail domain", mailDomain(s)},
		[]string{"privacy policy", or(s.PrivacyPolicyUrl, "-")},
		[]string{"its version", or(s.PrivacyPolicyVersion, "-")},
		[]string{"data protection", or(s.DataProtectionContact, "-")},
		[]string{"contact address", or(s.ContactAddress, "-")},
		[]string{"questions go to", or(s.ForwardAddress, "the review queue")},
		[]string{"created", fmt.Sprintf("%s, number %d", at(s.CreatedAt), s.Number)})
}

func mailDomain(s *optoutv1.Sender) string {
	if s.EffectiveMailDomain == "" {
		return "- (links have no mailto)"
	}
	return s.EffectiveMailDomain + fallback(s.MailDomain)
}

// fallback marks a value that is the service's, not the sender's own.
func fallback(own string) string {
	if own == "" {
		return " (the service's)"
	}
	return ""
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
