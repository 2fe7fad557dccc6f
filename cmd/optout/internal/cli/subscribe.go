package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
)

func (p *program) subscribeCommand() *cobra.Command {
	q := &optoutv1.SubscribeRequest{Evidence: &optoutv1.ConsentEvidence{}}
	basis := newEnumFlag(optoutv1.ConsentBasis(0))
	var expires, occurred timeFlag
	cmd := &cobra.Command{
		Use:   "subscribe --topic TOPIC [flags] ADDRESS",
		Short: "Record a person's yes to one topic",
		Long: `Records that a person said yes to one topic, with what shows it. You must be able to demonstrate consent later (GDPR Art. 7), so
say where it was said (--source), what the person was told (--wording) and how they said it (--method): only a yes with all
three lifts this topic's own no, and only if it was said after it. No yes recorded here lifts an opt-out from ALL or COMMERCIAL
mail or a complaint: that takes a yes proved through the mailbox.

If a confirmation is needed (the topic is opt-in, or such a no stands), a token is printed. Put it into ONE mail to the address,
topic "confirmation", and nowhere else; when the person brings it back, your sign-up page calls ConfirmSubscription with it.

--person joins the addresses of one person, by your own name for them, so that one opt-out from ALL covers every address.`,
		Example: `  optout subscribe --topic newsletter --source https://example.com/join --wording "Yes, send me the letter" --method tick-box ada@example.com
  optout subscribe --topic offers --basis implied-purchase --expires 2027-11-01 --person customer-4711 ada@example.com`,
		Args: oneAddress,
	}
	fs := cmd.Flags()
	fs.StringVar(&q.Topic, "topic", "", "`TOPIC` that the yes names (required; see \"optout topic list\")")
	fs.StringVar(&q.PersonId, "person", "", "your own `ID` for the person, joining their addresses; kept as a keyed hash")
	fs.StringVar(&q.Evidence.Source, "source", "", "`WHERE` it was said: form, page or system, without personal data")
	fs.StringVar(&q.Evidence.Wording, "wording", "", "`TEXT` the person was shown, exactly, or the hash of its version")
	fs.StringVar(&q.Evidence.Language, "language", "", "language `TAG` of the wording (BCP 47)")
	fs.StringVar(&q.Evidence.Method, "method", "", "`HOW` it was said: tick-box, double-opt-in, oral, paper, purchase")
	fs.StringVar(&q.Evidence.PolicyVersion, "policy-version", "", "`VERSION` of the privacy policy that was linked")
	fs.StringVar(&q.Evidence.Ip, "ip", "", "the person's IP `ADDRESS`, if collected")
	fs.StringVar(&q.Evidence.UserAgent, "user-agent", "", "the person's user `AGENT`, if collected")
	fs.BoolVar(&q.Evidence.WirelessAuthorization, "wireless-authorization", false, "the person expressly authorised commercial mail to a wireless domain (47 CFR 64.3100)")
	enumVar(cmd, basis, "basis", "legal `GROUND` of the yes: "+basis.listing()+"; the implied ones need --expires (default express)")
	fs.Var(&expires, "expires", "`TIME` when the consent ends")
	fs.Var(&occurred, "occurred", "`TIME` when it was said (default: now); a yes said before a no does not lift it")
	fs.StringVar(&q.RequestId, "request-id", "", requestIDFlag)
	requiredTopic(cmd)
	return p.online(cmd, func(c *call, args []string) error {
		q.Sender, q.Address = c.sender, args[0]
		q.Basis, q.ExpiresAt, q.OccurredAt = optoutv1.ConsentBasis(basis.value), expires.stamp(), occurred.stamp()
		q.RequestId = requestID(q.RequestId)
		r, err := c.subscription.Subscribe(c.ctx, q)
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) {
			if r.State == optoutv1.SubscriptionState_SUBSCRIPTION_STATE_ACTIVE {
				fmt.Fprintf(w, "subscribed to %s (entry %d): mail may be sent\n", q.Topic, r.Entry)
			} else {
				fmt.Fprintf(w, "recorded (entry %d), but mail of %s must not be sent until the person confirms through the mailbox\n", r.Entry, q.Topic)
			}
			if len(r.Denials) > 0 {
				fmt.Fprintf(w, "what denies it now: %s\n", printable(becauseAll(r.Denials)))
			}
			if r.ConfirmationToken != "" {
				fmt.Fprintf(w, "confirmation token, for one mail to the address (topic \"confirmation\"), valid 30 days:\n%s\n", r.ConfirmationToken)
			}
		})
	})
}

func (p *program) unsubscribeCommand() *cobra.Command {
	var topic, note, id string
	var commercial bool
	var occurred timeFlag
	cmd := &cobra.Command{
		Use:   "unsubscribe [--topic TOPIC | --commercial] ADDRESS",
		Short: "Record a person's no: ALL correspondence unless narrowed",
		Long: `Records that a person said stop: by phone, on paper, to the help desk. Without --topic or --commercial it means ALL
correspondence of the sender, at every address of the person, for good.

The command returns only when the no is on disk and every later check sees it. Only a later yes by the person lifts it: there is
no command that takes it back. Repeating it changes nothing.`,
		Example: `  optout unsubscribe ada@example.com
  optout unsubscribe --topic newsletter --note "asked by phone, ticket 4711" ada@example.com`,
		Args: oneAddress,
	}
	cmd.Flags().StringVar(&topic, "topic", "", "stop only this `TOPIC`")
	cmd.Flags().BoolVar(&commercial, "commercial", false, "stop only commercial mail")
	cmd.Flags().StringVar(&note, "note", "", "`TEXT` that shows how it was said; kept as evidence")
	cmd.Flags().Var(&occurred, "occurred", "`TIME` when it was said (default: now)")
	cmd.Flags().StringVar(&id, "request-id", "", requestIDFlag)
	return p.online(cmd, func(c *call, args []string) error {
		scope, err := scopeOf("topic", topic, "commercial", commercial)
		if err != nil {
			return err
		}
		r, err := c.subscription.Unsubscribe(c.ctx, &optoutv1.UnsubscribeRequest{Sender: c.sender, Address: args[0], Scope: scope,
			OccurredAt: occurred.stamp(), Note: note, RequestId: id})
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) {
			if r.Created {
				fmt.Fprintf(w, "stopped: %s (entry %d)\n", scopeName(scope), r.Entry)
			} else {
				fmt.Fprintf(w, "nothing to do: entry %d stops it already\n", r.Entry)
			}
		})
	})
}

// enumVar adds a flag that takes the words of an enum, and completes them.
func enumVar(cmd *cobra.Command, e *enumFlag, name, usage string) {
	cmd.Flags().Var(e, name, usage)
	cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(e.words(), cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
}
