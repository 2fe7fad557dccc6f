package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
)

func (p *program) domainCommand() *cobra.Command {
	return p.group("domain", "Block domains, and keep the FCC's wireless list",
		`A blocked domain gets no mail of any class, nor do its subdomains. The FCC's list names wireless domains, to which commercial mail
needs the person's express prior authorisation (47 CFR 64.3100).`,
		p.domainBlock(), p.domainUnblock(), p.domainList(), p.domainImportWireless())
}

var oneDomain = needArgs(1, 1, "DOMAIN", "give one domain, such as example.com")

func (p *program) domainBlock() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:     "block DOMAIN --justification TEXT",
		Short:   "Stop all mail to a domain and its subdomains",
		Long:    `Denies mail of every class to the domain and its subdomains (by label: example.com covers mail.example.com, not badexample.com).`,
		Example: `  optout domain block example.org --justification "shut down on 1 May, all mail bounces"`,
		Args:    oneDomain,
	}
	cmd.Flags().StringVar(&why, "justification", "", "`TEXT` why, for the ledger (required)")
	requiredWhy(cmd)
	return p.online(cmd, func(c *call, args []string) error {
		r, err := c.admin.BlockDomain(c.ctx, &optoutv1.BlockDomainRequest{Sender: c.sender, Domain: args[0], Justification: why})
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) { fmt.Fprintf(w, "blocked (entry %d)\n", r.Entry) })
	})
}

func (p *program) domainUnblock() *cobra.Command {
	var why, id string
	cmd := &cobra.Command{
		Use:     "unblock DOMAIN --justification TEXT",
		Short:   "Lift the block of a domain",
		Long:    `Lifts the block of exactly this domain. What people there said themselves stays in force.`,
		Example: `  optout domain unblock example.org --justification "mail is answered again, ticket 4711"`,
		Args:    oneDomain,
	}
	cmd.Flags().StringVar(&why, "justification", "", "`TEXT` why, for the ledger (required)")
	cmd.Flags().StringVar(&id, "request-id", "", requestIDFlag)
	requiredWhy(cmd)
	return p.online(cmd, func(c *call, args []string) error {
		r, err := c.admin.UnblockDomain(c.ctx, &optoutv1.UnblockDomainRequest{Sender: c.sender, Domain: args[0], Justification: why, RequestId: requestID(id)})
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) { fmt.Fprintf(w, "unblocked (entry %d)\n", r.Entry) })
	})
}

func (p *program) domainList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List blocked and wireless domains",
		Long:    `Lists blocked and wireless domains, and the date of the newest wireless list, which is to be fetched anew every month.`,
		Example: `  optout domain list`,
		Args:    needArgs(0, 0, "", "see \"optout domain list --help\""),
	}
	return p.online(cmd, func(c *call, _ []string) error {
		r, err := c.admin.ListDomainRules(c.ctx, &optoutv1.ListDomainRulesRequest{Sender: c.sender})
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) {
			if len(r.Rules) == 0 {
				fmt.Fprintln(w, "no domain is blocked or listed")
			} else {
				rows := [][]string{{"DOMAIN", "RULE", "SINCE", "ENTRY", "WHY"}}
				for _, d := range r.Rules {
					rows = append(rows, []string{d.Domain, word(d.Reason), at(d.Since), fmt.Sprint(d.Entry), or(d.Justification, "-")})
				}
				table(w, rows...)
			}
			if r.WirelessListDate == nil {
				fmt.Fprintln(w, "\nno wireless list was ever imported: see \"optout domain import-wireless --help\"")
			} else {
				fmt.Fprintf(w, "\nwireless list of %s\n", r.WirelessListDate.AsTime().Format(time.DateOnly))
			}
		})
	})
}

func (p *program) domainImportWireless() *cobra.Command {
	var date timeFlag
	cmd := &cobra.Command{
		Use:   "import-wireless FILE --date DAY",
		Short: "Take over the FCC's list of wireless domains",
		Long: `Replaces the list of wireless domains by the one in FILE, for every sender: one domain a line, with or without the day it was
first listed (YYYY-MM-DD or MM/DD/YYYY) after a comma, a tab or blanks; blank lines and lines that begin with # are skipped.
Domains that are missing are delisted. Mail is denied from 30 days after the first listing. Fetch the list at least monthly.`,
		Example: `  optout domain import-wireless fcc-domains.txt --date 2026-11-01`,
		Args:    needArgs(1, 1, "FILE", "give the file with the FCC's list"),
	}
	cmd.ValidArgsFunction = fileArgument
	cmd.Flags().Var(&date, "date", "`DAY` of the list (required)")
	required(cmd, "date", "give the day of the FCC's list, for example 2026-11-01")
	return p.online(cmd, func(c *call, args []string) error {
		f, err := os.Open(args[0])
		if err != nil {
			return wrongUsage("FILE", err.Error(), "name a file that can be read")
		}
		defer f.Close()
		domains, err := readWireless(f)
		if err != nil {
			return err
		}
		r, err := c.admin.ImportWirelessDomains(c.ctx, &optoutv1.ImportWirelessDomainsRequest{Domains: domains, ListDate: date.stamp()})
		if err != nil {
			return err
		}
		return c.answer(r, func(w io.Writer) { fmt.Fprintf(w, "%d domains newly listed, %d delisted\n", r.Listed, r.Delisted) })
	})
}

// readWireless reads the FCC's list.
func readWireless(r io.Reader) ([]*optoutv1.WirelessDomain, error) {
	var all []*optoutv1.WirelessDomain
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		fields := strings.FieldsFunc(strings.TrimPrefix(s.Text(), "\ufeff"), func(r rune) bool { return strings.ContainsRune(", ;\t\"", r) })
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		d := &optoutv1.WirelessDomain{Domain: fields[0]}
		if len(fields) > 1 {
			day, err := time.Parse(time.DateOnly, fields[1])
			if err != nil {
				day, err = time.Parse("1/2/2006", fields[1])
			}
			if err != nil {
				return nil, wrongUsage("FILE", fmt.Sprintf("line %d: %q is not a day", n, clip(fields[1])), "use YYYY-MM-DD or MM/DD/YYYY")
			}
			d.FirstListedAt = timestamppb.New(day)
		}
		if len(fields) > 2 || !strings.Contains(d.Domain, ".") {
			return nil, wrongUsage("FILE", fmt.Sprintf("line %d is not a domain with or without a day", n), "put # before lines that are none, such as headings")
		}
		all = append(all, d)
	}
	if err := s.Err(); err != nil {
		return nil, wrongUsage("FILE", err.Error(), "give a text file")
	}
	return all, nil
}
