package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
)

// noImport is what "topic list" says until earlier opt-outs have been imported: a new installation that mails an old list breaks
// the promises made before.
const noImport = "no earlier opt-outs imported"

func (p *program) topicCommand() *cobra.Command {
	return p.group("topic", "Create, list and tighten topics",
		`A topic is one kind of correspondence of a sender: a newsletter, receipts, help desk answers. Every check names one.

Its class says what may pass a person's no: commercial and transactional mail never passes an opt-out from ALL; "required" mail
does, on a declared ground and with a written justification that recipients are shown. Its consent rule says whether it needs a
yes first: opt-out (may send until told to stop) or opt-in (needs confirmed, unexpired consent).

Names are never reused, and class and consent rule can only be tightened: people said yes and no to the topic as it was. To
loosen means a new topic.`,
		p.topicCreate(), p.topicList(), p.topicUpdate())
}

var topicName = needArgs(1, 1, "NAME", "give the topic's name: 1 to 63 characters of a-z, 0-9 and '-', beginning with a letter")

func (p *program) topicCreate() *cobra.Command {
	class, rule, ground := newEnumFlag(optoutv1.TopicClass(0)), newEnumFlag(optoutv1.ConsentRule(0)), newEnumFlag(optoutv1.RequiredGround(0))
	t := &optoutv1.Topic{}
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a topic",
		Long:  `Creates a topic; without flags it is commercial and opt-out.`,
		Example: `  optout topic create newsletter --description "Our monthly letter"
  optout topic create offers-eu --consent opt-in
  optout topic create password-reset --class required --ground answer --justification "It answers a reset that the person asked for a moment ago."`,
		Args: topicName,
	}
	cmd.Flags().StringVar(&t.Description, "description", "", "`TEXT` that recipients are told it is")
	enumVar(cmd, class, "class", "`CLASS`: "+class.listing()+" (default commercial)")
	enumVar(cmd, rule, "consent", "consent `RULE`: "+rule.listing()+" (default opt-out)")
	enumVar(cmd, ground, "ground", "`GROUND` of a required topic: law (the law demands the mail) or answer (it answers what the person has just done)")
	cmd.Flags().StringVar(&t.Justification, "justification", "", "`TEXT` why a required topic must reach people who said stop; they are shown it")
	return p.online(cmd, func(c *call, args []string) error {
		t.Name, t.Class, t.ConsentRule, t.Ground = args[0], optoutv1.TopicClass(class.value), optoutv1.ConsentRule(rule.value), optoutv1.RequiredGround(ground.value)
		r, err := c.admin.CreateTopic(c.ctx, &optoutv1.CreateTopicRequest{Sender: c.sender, Topic: t})
		if err != nil {
			return err
		}
		return c.answer(r.Topic, func(w io.Writer) {
			fmt.Fprintf(w, "created topic %s: %s, %s\n", r.Topic.Name, word(r.Topic.Class), word(r.Topic.ConsentRule))
		})
	})
}

func (p *program) topicList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the topics of a sender",
		Long: `Lists the topics of a sender, and when earlier opt-outs were last imported. Until they have been, it says so: whoever moves to
optout and mails an old list without the old list's opt-outs breaks the promises made before.`,
		Example: `  optout topic list
  optout topic list --json | jq -r '.topics[].name'`,
		Args: needArgs(0, 0, "", "see \"optout topic list --help\""),
	}
	return p.online(cmd, func(c *call, _ []string) error {
		r, err := c.admin.ListTopics(c.ctx, &optoutv1.ListTopicsRequest{Sender: c.sender})
		if err != nil {
			return err
		}
		if c.json {
			b := jsonOf(r)
			if r.NewestImport == nil {
				b = append(appendJSON(append(b[:len(b)-1], `,"warning":`...), noImport), '}')
			}
			_, err := fmt.Fprintf(c.Stdout, "%s\n", b)
			return err
		}
		rows := [][]string{{"NAME", "CLASS", "CONSENT", "CREATED", "DESCRIPTION"}}
		for _, t := range r.Topics {
			class := word(t.Class)
			if t.Ground != 0 {
				class += " (" + word(t.Ground) + ")"
			}
			rows = append(rows, []string{t.Name, class, word(t.ConsentRule), at(t.CreatedAt), t.Description})
		}
		table(c.Stdout, rows...)
		if r.NewestImport == nil {
			fmt.Fprintf(c.Stdout, "\n%s: if people said stop before, run \"optout import FILE.csv\" before you mail anybody\n", noImport)
		} else {
			fmt.Fprintf(c.Stdout, "\nearlier opt-outs imported: %s, %s (entry %d)\n", printable(r.NewestImport.Source), at(r.NewestImport.At), r.NewestImport.Entry)
		}
		return nil
	})
}

func (p *program) topicUpdate() *cobra.Command {
	class, rule := newEnumFlag(optoutv1.TopicClass(0)), newEnumFlag(optoutv1.ConsentRule(0))
	var description string
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Tighten or re-describe a topic",
		Long: `Changes a topic's description, or tightens it: required to transactional to commercial, opt-out to opt-in. The other way round
means a new topic.`,
		Example: `  optout topic update newsletter --consent opt-in`,
		Args:    topicName,
	}
	cmd.Flags().StringVar(&description, "description", "", "new `TEXT` that recipients are told it is")
	enumVar(cmd, class, "class", "tighter `CLASS`: transactional or commercial")
	enumVar(cmd, rule, "consent", "tighter consent `RULE`: opt-in")
	return p.online(cmd, func(c *call, args []string) error {
		q := &optoutv1.UpdateTopicRequest{Sender: c.sender, Name: args[0], Class: optoutv1.TopicClass(class.value), ConsentRule: optoutv1.ConsentRule(rule.value),
			Description: given(c.cmd, "description", description)}
		r, err := c.admin.UpdateTopic(c.ctx, q)
		if err != nil {
			return err
		}
		return c.answer(r.Topic, func(w io.Writer) {
			fmt.Fprintf(w, "topic %s is now %s, %s\n", r.Topic.Name, word(r.Topic.Class), word(r.Topic.ConsentRule))
		})
	}, topics)
}

// given is a flag's value if the command line set it, so that it can be set to nothing too.
func given(cmd *cobra.Command, flag, value string) *string {
	if !cmd.Flags().Changed(flag) {
		return nil
	}
	return &value
}
