package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
)

// lookupTime is how long one look-up in DNS may take.
const lookupTime = 10 * time.Second

type lintFlags struct {
	class                        *enumFlag
	postalAddress                string
	dns, unsigned, strict, rules bool
}

func (p *program) lintCommand() *cobra.Command {
	f := lintFlags{class: newEnumFlag(optoutv1.TopicClass_TOPIC_CLASS_UNSPECIFIED)}
	cmd := &cobra.Command{
		Use:   "lint FILE.eml | - | --rules",
		Short: "Does this message keep the rules of unsubscribing?",
		Long: `Reads a message as it would leave, and names every rule that it breaks: of the one-click headers (RFC 8058), the other List-
headers, the fields that DKIM must sign, the visible unsubscribe link and the postal address that the law demands of commercial
mail (15 USC 7704), and of the form of messages (RFC 5322). Send a test to yourself, save it as a file, and lint that; or lint
what your mailer renders, in the tests of your templates. It needs no running service, and looks at nothing but the message,
unless --dns lets it fetch the keys of the signatures.

Exit code 0: no error (warnings may be there; --strict makes them count); 1: a rule is broken; 2: it could not be read.

"--rules" lists every rule with what to do about it and who demands it. What it shows holds no personal data.`,
		Example: `  optout lint --postal-address "1 Example Street, Springfield" march.eml
  render-my-template | optout lint --unsigned --strict -
  optout lint --dns --json received.eml
  optout lint --rules`,
		Args: func(cmd *cobra.Command, args []string) error {
			if f.rules {
				return needArgs(0, 0, "", "--rules goes alone")(cmd, args)
			}
			return needArgs(1, 1, "FILE.eml", "give a file that holds one message, or - to read it from standard input")(cmd, args)
		},
		ValidArgsFunction: fileArgument,
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().Var(f.class, "topic-class", "`CLASS` of the topic of the mail: "+f.class.listing()+" (default: commercial, which has the most rules)")
	cmd.Flags().StringVar(&f.postalAddress, "postal-address", "", "the sender's postal `ADDRESS`, which commercial mail must show")
	cmd.Flags().BoolVar(&f.unsigned, "unsigned", false, "the mail server signs with DKIM later: miss no signature")
	cmd.Flags().BoolVar(&f.dns, "dns", false, "verify the DKIM signatures by the keys in DNS")
	cmd.Flags().BoolVar(&f.strict, "strict", false, "let warnings count as errors")
	cmd.Flags().BoolVar(&f.rules, "rules", false, "list all rules")
	cmd.Flags().BoolVar(&p.json, "json", p.json, "answer in JSON: one object; with --rules one a line")
	cmd.RegisterFlagCompletionFunc("topic-class", cobra.FixedCompletions(f.class.words(), cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.rules {
			return p.lintRules()
		}
		return p.lint(cmd.Context(), &f, args[0])
	}
	return cmd
}

func (p *program) lint(ctx context.Context, f *lintFlags, name string) error {
	opts := client.LintOptions{Class: optoutv1.TopicClass(f.class.value), PostalAddress: f.postalAddress, UnsignedYet: f.unsigned}
	if f.dns {
		opts.LookupTXT = func(domain string) ([]string, error) {
			ctx, cancel := context.WithTimeout(ctx, lookupTime)
			defer cancel()
			return net.DefaultResolver.LookupTXT(ctx, domain)
		}
	}
	in := p.Stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return wrongUsage("FILE.eml", err.Error(), "give a file that holds one message, or - for standard input")
		}
		defer file.Close()
		in = file
	}
	found, err := client.LintMessage(in, opts)
	if err != nil {
		return err
	}
	return p.findings(found, f.strict)
}

// findings prints what was found, and is a no when it counts.
func (p *program) findings(found []client.Finding, strict bool) error {
	errs := 0
	for _, x := range found {
		if x.Level == client.LevelError {
			errs++
		}
	}
	ok := errs == 0 && (!strict || len(found) == 0)
	if p.json {
		answer := struct {
			OK       bool             `json:"ok"`
			Errors   int              `json:"errors"`
			Warnings int              `json:"warnings"`
			Findings []client.Finding `json:"findings"`
		}{ok, errs, len(found) - errs, append([]client.Finding{}, found...)}
		fmt.Fprintf(p.Stdout, "%s\n", appendJSON(nil, answer))
	} else {
		for _, x := range found {
			fmt.Fprintf(p.Stdout, "%-7s  %s: %s\n         %s (%s)\n", x.Level, x.Rule, printable(x.Message), x.Remedy, x.Reference)
		}
		if len(found) == 0 {
			fmt.Fprintln(p.Stdout, "it breaks no rule")
		} else {
			fmt.Fprintf(p.Stdout, "%s, %s\n", countOf(errs, "error"), countOf(len(found)-errs, "warning"))
		}
	}
	if !ok {
		return errNo
	}
	return nil
}

// countOf is "1 error", "2 errors".
func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// lintRules lists the rules.
func (p *program) lintRules() error {
	for _, r := range client.LintRules() {
		if p.json {
			fmt.Fprintf(p.Stdout, "%s\n", appendJSON(nil, r))
			continue
		}
		fmt.Fprintf(p.Stdout, "%s (%s)\n  %s\n  %s: %s\n", r.ID, r.Level, r.Description, r.Reference, r.Remedy)
	}
	return nil
}
