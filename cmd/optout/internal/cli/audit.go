package cli

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"optout/cmd/optout/internal/sentmail"
)

// auditFlags are the flags of audit-mail.
type auditFlags struct {
	topic, format, offline string
	since, until           timeFlag
	maxAge                 time.Duration
	examples               int
	internal               []string
	addresses              bool
}

func (p *program) auditMailCommand() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "audit-mail PATH... | -",
		Short: "Find mail that left without a check, or after an opt-out",
		Long: `Reads mail that has left and judges each message by the receipt of its check (the field X-Optout-Receipt, which a check gives
when asked, see docs/audit.md) and by the ledger as it was when the message left.

  after an opt-out  a no stood when it left: for its topic, or, where no genuine receipt and no --topic says the topic, for all mail
  forged            what stands in place of a receipt was not signed by this service
  other sender      its receipt is for another sender; see --sender
  other address     its receipt is for another address, or not for all of its addresses together
  unchecked         it has no receipt
  stale             it left more than --max-age after its check: queued, perhaps. A note, not a fault
  OK                it was checked, and no no stood. Required mail that was sent in spite of a no is OK

Each message counts once, under the first of these that holds; one of a log that left at several times, minutes apart, counts
once for each. A no counts if it had been taken by the second in which the message left, also if it was lifted since. What is
about the past is taken as it is now, in favour of the mail: settings of topics, and which addresses a person has.

PATH is an mbox (mboxo, mboxrd), a Maildir, a single message, or a log of Postfix (syslog's times or RFC 3339), which may be
compressed with gzip; "-" is standard input. Only headers are read. Of a message the recipients are those of X-Original-To, else
Delivered-To, else Envelope-To, else Resent-To, -Cc and -Bcc, else To, Cc and Bcc; it left at the time of the topmost Received,
else Date, else the line "From ". Of a log, deliveries by SMTP with status=sent count, to orig_to where there is one; the receipt
is in it only where Postfix's header_checks have "/^X-Optout-Receipt:/ INFO". Bcc that no header shows is known only to logs.

With --offline no service is asked: signatures alone are verified, with the keys that "optout key receipt" prints. Then "after an
opt-out", "other sender" and "other address" cannot be found.

Exit code 0: nothing was found, but for notes; 1: something was found; 2: error, and nothing is said about the mail.`,
		Example: `  optout audit-mail --topic newsletter /var/mail/archive.mbox
  optout audit-mail --ignore-internal example.com --since 2026-03-01 /var/log/mail.log /var/log/mail.log.1.gz
  journalctl -u postfix -o short-iso | optout audit-mail --json -
  optout audit-mail --offline receipt-keys.txt ~/Maildir/.Sent`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 && slices.Contains(args, "-") {
				return wrongUsage("PATH", "- stands for standard input and goes alone", "give paths, or - and nothing else")
			}
			return needArgs(1, -1, "PATH", "give an mbox, a Maildir, a message or a log of Postfix, or - for standard input")(cmd, args)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.topic, "topic", "", "`TOPIC` of mail whose receipt does not tell it (default: not known, and only what denies all mail is found)")
	fs.Var(&f.since, "since", "only mail that left at or after this `TIME`, or at a time that cannot be read")
	fs.Var(&f.until, "until", "only mail that left before this `TIME`, or at a time that cannot be read")
	fs.StringArrayVar(&f.internal, "ignore-internal", nil, "leave out mail to `DOMAIN` and its subdomains alone; may be repeated")
	fs.DurationVar(&f.maxAge, "max-age", time.Hour, "`TIME` after its check after which mail is stale")
	fs.StringVar(&f.format, "format", string(sentmail.Auto), "`FORMAT`: "+formats())
	fs.IntVar(&f.examples, "max-examples", 10, "how many examples of each finding to show; `N` of 0 is none")
	fs.BoolVar(&f.addresses, "show-addresses", false, "show recipients in full, not as a…@example.com")
	fs.StringVar(&f.offline, "offline", "", "ask no service, verify signatures alone with the public keys in `FILE`")
	cmd = p.online(cmd, func(c *call, args []string) error {
		return p.auditMail(cmd, &f, args, &onlineJudge{call: c, flags: &f})
	})
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(strings.Split(formats(), ", "), cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	remote := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.offline == "" {
			return remote(cmd, args)
		}
		if err := p.fill(cmd.Flags(), nil); err != nil {
			return err
		}
		p.json, _ = cmd.Flags().GetBool("json") // it is a flag of this command
		judge, err := newOfflineJudge(&f)
		if err != nil {
			return err
		}
		return p.auditMail(cmd, &f, args, judge)
	}
	return cmd
}

func formats() string {
	var all []string
	for _, x := range sentmail.Formats() {
		all = append(all, string(x))
	}
	return strings.Join(all, ", ")
}

// isInternal tells whether an address is of one of the domains, or of a subdomain of one.
func (f *auditFlags) isInternal(address string) bool {
	domain := strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
	return slices.ContainsFunc(f.internal, func(d string) bool {
		d = strings.ToLower(strings.Trim(d, "."))
		return domain == d || strings.HasSuffix(domain, "."+d)
	})
}

// auditChunk is how many messages are judged at once; the API takes 1 000.
const auditChunk = 250

// auditMail reads the mail, has it judged, and reports.
func (p *program) auditMail(cmd *cobra.Command, f *auditFlags, paths []string, judge auditJudge) error {
	if !slices.Contains(sentmail.Formats(), sentmail.Format(f.format)) {
		return wrongUsage("--format", "it is none of them", "use one of: "+formats())
	}
	if f.maxAge < 0 || f.examples < 0 {
		return wrongUsage("--max-age", "neither it nor --max-examples can be less than 0", "leave it out")
	}
	bar := p.startProgress("reading", 0, true)
	defer bar.finish()
	total, done := sizes(paths), uint64(0)
	o := sentmail.Options{Format: sentmail.Format(f.format), Now: time.Now(), Zone: time.Local, Internal: f.isInternal, Progress: func(n int) {
		done += uint64(n)
		bar.set(done, max(total, done))
	}}
	report := newAuditReport(f)
	var chunk []sentmail.Message
	flush := func() error {
		if len(chunk) == 0 {
			return nil
		}
		findings, err := judge.judge(cmd.Context(), chunk)
		if err != nil {
			return err
		}
		for i := range chunk {
			report.add(&chunk[i], &findings[i])
		}
		chunk = chunk[:0]
		return nil
	}
	for _, path := range paths {
		for m, err := range p.sent(path, o) {
			if err == nil {
				err = cmd.Context().Err()
			}
			if err != nil {
				return unreadable(path, err)
			}
			if !report.wants(&m) {
				continue
			}
			if chunk = append(chunk, m); len(chunk) == auditChunk {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	bar.finish()
	return p.tell(report, judge)
}

func (p *program) sent(path string, o sentmail.Options) iter.Seq2[sentmail.Message, error] {
	if path == "-" {
		return sentmail.Read(p.Stdin, "-", o)
	}
	return sentmail.Path(path, o)
}

// unreadable is the error of mail that cannot be read.
func unreadable(path string, err error) error {
	switch {
	case errors.Is(err, sentmail.ErrNothing):
		return wrongUsage("PATH", fmt.Sprintf("%s: %v", quoted(path), err), "say what it is with --format")
	case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
		return wrongUsage("PATH", err.Error(), "name files that can be read")
	}
	return err
}

// sizes is how many octets the files have together; folders are not counted.
func sizes(paths []string) (total uint64) {
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			total += uint64(info.Size())
		}
	}
	return total
}
