// Package cli is the program optout: the command "serve" and the operator's commands, which talk to a running service over
// gRPC. It knows the API, the client and how a service is wired; what is true is decided in the service, never here.
//
// Answers go to standard output; errors, warnings, logs and progress bars to standard error. With --json an answer is one
// object, or one a line, with the names of the API's fields; an error is one object too, on standard error.
package cli

import (
	"context"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// Process is what the program is given by its surroundings.
type Process struct {
	// Args are the arguments without the program's name.
	Args []string
	// Env holds "NAME=value" for every variable.
	Env []string
	// Stdin, Stdout and Stderr are the standard streams.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Terminal is whether Stderr is a terminal, so that a progress bar makes sense.
	Terminal bool
}

// Exit codes.
const (
	exitOK    = 0
	exitNo    = 1 // the answer is no: mail must not go out, the ledger does not verify, lines could not be imported; or serve failed
	exitError = 2 // no answer: wrong usage, or an error
)

// Run does what the arguments say and returns the exit code. It ends when ctx ends.
func Run(ctx context.Context, p Process) int {
	pr := &program{Process: p, env: map[string]string{}}
	for _, v := range p.Env {
		if name, value, ok := strings.Cut(v, "="); ok && value != "" {
			pr.env[name] = value
		}
	}
	pr.json, _ = strconv.ParseBool(pr.env[variable("json")]) // what is no boolean, the commands that take the flag refuse
	root := pr.root()
	root.SetArgs(p.Args)
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	return pr.exit(root.ExecuteContext(ctx))
}

// program is one run.
type program struct {
	Process
	// env holds the variables that are not empty: an empty one counts as not set.
	env map[string]string
	// json is whether answers and errors are wanted as JSON.
	json bool
}

// Groups of the root's help.
const (
	groupRun    = "run"
	groupSend   = "send"
	groupPeople = "people"
	groupSetUp  = "set-up"
	groupLedger = "ledger"
)

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "optout",
		Short: "Keep the promise that \"unsubscribe\" makes",
		Long: `optout keeps an organisation's email subscription ledger: who said yes and who said no, to what, when, with what evidence.
Every mailer asks it before each send, and every message carries a signed link by which one press stops all correspondence.

Ten minutes, from nothing to a person who is never written to again:

  optout serve &                                             keys, database and an admin key are made in ./optout-data
  optout topic create newsletter --description "Our monthly letter"
  optout import old-opt-outs.csv --dry-run                   earlier promises first; then again without --dry-run
  optout check --topic newsletter ada@example.com            exit 0: may send, 1: must not
  optout link --topic newsletter ada@example.com             the headers that go on her message
  optout unsubscribe ada@example.com                         what a press of that link does: ALL correspondence stops
  optout check --topic newsletter ada@example.com            refused, with since when and by which entry
  optout explain ada@example.com                             the whole story: who, when, why
  optout verify                                              proves that nobody has changed the ledger

Exit codes: 0 done; 1 the answer is no (a check refused, a ledger that does not verify, lines that could not be imported);
2 wrong usage or an error. Answers go to standard output, errors to standard error; with --json both are JSON.`,
		Example: `  optout serve --public-url https://mail.example.com --tls-cert cert.pem --tls-key key.pem
  optout check --topic newsletter --json - < addresses.txt`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          p.noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run it"},
		&cobra.Group{ID: groupSend, Title: "At every send"},
		&cobra.Group{ID: groupPeople, Title: "What people said"},
		&cobra.Group{ID: groupSetUp, Title: "Set it up"},
		&cobra.Group{ID: groupLedger, Title: "Keep and prove the ledger"},
	)
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(usage)
	for group, commands := range map[string][]*cobra.Command{
		groupRun:    {p.demoCommand(), p.serveCommand(), p.versionCommand()},
		groupSend:   {p.checkCommand(), p.linkCommand(), p.lintCommand(), p.doctorCommand()},
		groupPeople: {p.subscribeCommand(), p.unsubscribeCommand(), p.explainCommand(), p.suppressionsCommand(), p.importCommand(), p.queueCommand(), p.submitCommand()},
		groupSetUp:  {p.topicCommand(), p.senderCommand(), p.domainCommand(), p.keyCommand(), p.linkKeyCommand(), p.gateCommand(), p.providerCommand()},
		groupLedger: {p.auditMailCommand(), p.verifyCommand(), p.entriesCommand(), p.checkpointCommand(), p.backupCommand(), p.restoreCommand()},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	root.SetHelpCommandGroupID(groupRun)
	root.SetCompletionCommandGroupID(groupRun)
	return root
}

// group makes a command that only holds others.
func (p *program) group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Long: long, Args: p.noSuchCommand}
	c.RunE = func(c *cobra.Command, _ []string) error {
		var names []string
		for _, s := range c.Commands() {
			if s.IsAvailableCommand() {
				names = append(names, s.Name())
			}
		}
		return wrongUsage("", "it does not say what to do", "add one of: "+strings.Join(names, ", ")+"; see \""+c.CommandPath()+" --help\"")
	}
	c.AddCommand(commands...)
	return c
}

// noSuchCommand refuses a word where a command should stand, and names the nearest one.
func (p *program) noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, append(c.Aliases, c.Name())...)
	}
	remedy := "see \"" + cmd.CommandPath() + " --help\""
	if near := nearest(args[0], names); near != "" {
		remedy = "did you mean \"" + near + "\"? " + remedy
	}
	return wrongUsage("", "there is no command \""+cmd.CommandPath()+" "+clip(args[0])+"\"", remedy)
}
