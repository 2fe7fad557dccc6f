package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"optout/cmd/optout/internal/mailbox"
	optoutv1 "optout/proto/optout/v1"
)

// submitFlags are what "optout submit" is told.
type submitFlags struct {
	to                     []string
	from, remoteIP, format string
	concurrency            int
}

func (p *program) submitCommand() *cobra.Command {
	f := &submitFlags{}
	cmd := &cobra.Command{
		Use:   "submit PATH... | -",
		Short: "Hand in mail that came elsewhere: unsubscribe mail, replies, bounces, complaints",
		Long: `Hands messages to the service as if they had come by SMTP: each is judged by the same rules, and what cannot be proved waits in the
review queue ("optout queue list"). For a mailbox that was collected before mail in was set up, or a help desk's export.

PATH is an mbox (mboxo, mboxrd), a Maildir, or a single message, which may be compressed with gzip; "-" is a message or an mbox on
standard input. Which address of yours a message came to is read from Delivered-To, X-Original-To, Envelope-To and To, unless --to
says it. Lines that end with LF alone are sent with CRLF, as mail has them.

A message is known by what it says, so handing in the same one twice, or one that came by SMTP too, records nothing twice: after
an error, run the same command again. But a question that is passed on to a person (serve --mail-out) is so each time. Of a message
of more than 3 MiB the first 3 MiB are sent and it is marked as cut short: a bounce in it is read, but no signature can be checked,
so who wrote it is unproved.

Many opt-outs at once that nothing proves are held as a flood. When you know that the mail is genuine, look at some, then:
optout queue decide --suppress --all --held --justification TEXT

What becomes of each message: opted-out, bounce, complaint, queued, forwarded (to a person), ignored (it asks for nothing, such as
an automatic answer), not-ours (it names no address of yours). With --json one line a message, in order.

Exit code 0: every message was taken; 1: some were not, and are told on standard error; 2: error. As a filter of a mail server that
wants 75 for "try again later": optout submit --to "$RECIPIENT" - || exit 75`,
		Example: `  optout submit --to unsubscribe@unsub.example.com old-requests.mbox
  optout submit ~/Maildir
  optout submit --to help@example.com --from ada@example.org --remote-ip 192.0.2.7 - < message.eml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 && slices.Contains(args, "-") {
				return wrongUsage("PATH", "- stands for standard input and goes alone", "give paths, or - and nothing else")
			}
			return needArgs(1, -1, "PATH", "give an mbox, a Maildir or a message, or - for standard input")(cmd, args)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&f.to, "to", nil, "`ADDRESS` of yours that every message came to, its envelope's recipient; can be repeated (default: read from the header)")
	fs.StringVar(&f.from, "from", "", "`ADDRESS` of the envelope's sender, if it is known (Return-Path)")
	fs.StringVar(&f.remoteIP, "remote-ip", "", "`IP` address that the messages came from, as your border server saw it; without it SPF proves nothing")
	fs.StringVar(&f.format, "format", string(mailbox.Auto), "`FORMAT`: "+mailFormats())
	fs.IntVar(&f.concurrency, "concurrency", 8, "`N` messages under way at once, 1 to 64")
	cmd = p.online(cmd, func(c *call, args []string) error { return c.submit(f, args) })
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(strings.Split(mailFormats(), ", "), cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return cmd
}

func mailFormats() string {
	var all []string
	for _, x := range mailbox.Formats() {
		all = append(all, string(x))
	}
	return strings.Join(all, ", ")
}

func (f *submitFlags) check() error {
	if !slices.Contains(mailbox.Formats(), mailbox.Format(f.format)) {
		return wrongUsage("--format", "it is none of them", "use one of: "+mailFormats())
	}
	if f.concurrency < 1 || f.concurrency > 64 {
		return wrongUsage("--concurrency", "it must be 1 to 64", "leave it out")
	}
	if f.remoteIP != "" {
		if _, err := netip.ParseAddr(f.remoteIP); err != nil {
			return wrongUsage("--remote-ip", "it is no IP address", "for example 192.0.2.7")
		}
	}
	return nil
}

// submit reads the mail, hands each message in, and reports in order.
func (c *call) submit(f *submitFlags, paths []string) error {
	if err := f.check(); err != nil {
		return err
	}
	bar := c.startProgress("submitting", 0, true)
	defer bar.finish()
	total, done := sizes(paths), uint64(0)
	progress := func(n int) {
		done += uint64(n)
		bar.set(done, max(total, done))
	}
	s := &submission{call: c, flags: f, outcomes: map[optoutv1.SubmitOutcome]uint64{}}
	err := s.run(func(yield func(mailbox.Message, error) bool) {
		for _, path := range paths {
			found := mailbox.Path(path, mailbox.Format(f.format), progress)
			if path == "-" {
				found = mailbox.Read(c.Stdin, "-", mailbox.Format(f.format), progress)
			}
			for m, err := range found {
				if err != nil {
					err = unreadableMail(path, err)
				}
				if !yield(m, err) {
					return
				}
			}
		}
	})
	bar.finish()
	if err != nil {
		failed := *explainError(err)
		if s.taken > 0 {
			failed.Message += fmt.Sprintf("; messages taken before: %d; run the command again, nothing is recorded twice", s.taken)
		}
		return &failed
	}
	return s.tell()
}

// unreadableMail is the error of mail that cannot be read.
func unreadableMail(path string, err error) error {
	switch {
	case errors.Is(err, mailbox.ErrNothing):
		return wrongUsage("PATH", fmt.Sprintf("%s: %v", quoted(path), err), "say what it is with --format")
	case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
		return wrongUsage("PATH", err.Error(), "name files that can be read")
	}
	return wrongUsage("PATH", fmt.Sprintf("%s: %v", quoted(path), err), "name an mbox, a Maildir or a message that is whole")
}

// maxSubmit is how much of a message is handed in, in octets; the API takes no more.
const maxSubmit = 3 << 20

// readMessage reads a message for the service: with CRLF as in transport when no line of it ends so, and at most maxSubmit octets
// of it. truncated tells that there are more.
func readMessage(r io.Reader) (raw []byte, truncated bool, err error) {
	raw, err = io.ReadAll(io.LimitReader(r, maxSubmit+1))
	if err != nil {
		return nil, false, err
	}
	if !bytes.Contains(raw, []byte("\r\n")) {
		raw = bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n"))
	}
	if len(raw) > maxSubmit {
		return raw[:maxSubmit], true, nil
	}
	return raw, false, nil
}

// handed is a message on its way: what is sent, and what became of it when done is closed.
type handed struct {
	where     string
	raw       []byte
	truncated bool

	done   chan struct{}
	answer *optoutv1.SubmitReportResponse
	err    error
}

// submission is one run of submit.
type submission struct {
	*call
	flags *submitFlags

	taken, failed, truncated uint64
	// outcomes counts what became of the messages at each address.
	outcomes map[optoutv1.SubmitOutcome]uint64
	// inARow is how many messages the service could not record, one after the other, and outage why not the last of them.
	inARow int
	outage error
}

// run hands messages in, some at once, and shows them in order. It ends at the first error that is not of one message alone.
func (s *submission) run(messages iter.Seq2[mailbox.Message, error]) error {
	ahead := make([]*handed, 0, s.flags.concurrency)
	next := func() error {
		h := ahead[0]
		ahead = slices.Delete(ahead, 0, 1)
		<-h.done
		return s.show(h)
	}
	for m, err := range messages {
		if err == nil {
			err = s.ctx.Err()
		}
		if err == nil && len(ahead) == s.flags.concurrency {
			err = next()
		}
		h := &handed{where: m.Where, done: make(chan struct{})}
		if err == nil {
			if h.raw, h.truncated, err = readMessage(m.Text); err != nil {
				err = unreadableMail(m.Where, err)
			}
		}
		if err != nil {
			for _, h := range ahead { // what is under way ends first, and counts
				if <-h.done; h.err == nil {
					s.show(h) // what was taken is no error
				}
			}
			return err
		}
		ahead = append(ahead, h)
		go func() {
			defer close(h.done)
			h.answer, h.err = s.feedback.SubmitReport(s.ctx, &optoutv1.SubmitReportRequest{Message: h.raw, Truncated: h.truncated, Recipients: s.flags.to,
				MailFrom: s.flags.from, RemoteIp: s.flags.remoteIP})
			h.raw = nil
		}()
	}
	for len(ahead) > 0 {
		if err := next(); err != nil {
			for _, h := range ahead {
				<-h.done
			}
			return err
		}
	}
	return nil
}

// patience is how many messages in a row may fail for a reason of the service before the run ends.
const patience = 3

// ofOneMessage tells whether an error may be of this message alone, so that others are tried. The client has repeated the call for
// as long as --timeout says.
func (s *submission) ofOneMessage(f *failure) bool {
	switch {
	case f.Code == "INVALID_ARGUMENT", f.Reason == "QUEUE_FULL":
		return true
	case f.Code == "UNAVAILABLE", f.Code == "DEADLINE_EXCEEDED", f.Code == "INTERNAL", f.Code == "UNKNOWN":
		s.inARow++
		return s.inARow < patience
	}
	return false
}

// submitted is a message as --json shows it.
type submitted struct {
	Message   string            `json:"message"`
	Truncated bool              `json:"truncated,omitempty"`
	Results   []submittedResult `json:"results,omitempty"`
	Error     *failure          `json:"error,omitempty"`
}

type submittedResult struct {
	// To is the recipient that was named by --to.
	To      string `json:"to,omitempty"`
	Outcome string `json:"outcome"`
	Entry   uint64 `json:"entry,omitempty"`
	Why     string `json:"why,omitempty"`
}

// show counts and tells what became of a message.
func (s *submission) show(h *handed) error {
	line := submitted{Message: h.where, Truncated: h.truncated}
	if h.err != nil {
		f := explainError(h.err)
		if !s.ofOneMessage(f) {
			return h.err
		}
		s.failed++
		line.Error = f
		if s.inARow > 0 {
			s.outage = h.err
		}
		if !s.json {
			fmt.Fprintf(s.Stderr, "%s: %s\n", printable(h.where), printable(f.Message))
			return nil
		}
	} else {
		s.taken++
		s.inARow, s.outage = 0, nil
		if h.truncated {
			s.truncated++
		}
		for _, r := range h.answer.Results {
			s.outcomes[r.Outcome]++
			x := submittedResult{Outcome: enumName(r.Outcome.Descriptor(), r.Outcome.Number()), Entry: r.Entry, Why: r.Why}
			if int(r.Index) < len(s.flags.to) {
				x.To = s.flags.to[r.Index]
			}
			line.Results = append(line.Results, x)
		}
	}
	if s.json {
		_, err := fmt.Fprintf(s.Stdout, "%s\n", appendJSON(nil, line))
		return err
	}
	return nil
}

// tell sums up; messages that were not taken are a no, unless the service took none at all: that is an error.
func (s *submission) tell() error {
	if s.taken == 0 && s.outage != nil {
		return s.outage
	}
	if !s.json {
		s.summary(s.Stdout)
	}
	if s.failed > 0 {
		return errNo
	}
	return nil
}

func (s *submission) summary(w io.Writer) {
	fmt.Fprintf(w, "messages taken: %d\n", s.taken)
	var rows [][]string
	for _, x := range []struct {
		outcome optoutv1.SubmitOutcome
		means   string
	}{
		{optoutv1.SubmitOutcome_SUBMIT_OUTCOME_OPTED_OUT, "opted out"},
		{optoutv1.SubmitOutcome_SUBMIT_OUTCOME_BOUNCE, "bounces recorded"},
		{optoutv1.SubmitOutcome_SUBMIT_OUTCOME_COMPLAINT, "complaints recorded"},
		{optoutv1.SubmitOutcome_SUBMIT_OUTCOME_QUEUED, "wait for review: see \"optout queue list\""},
		{optoutv1.SubmitOutcome_SUBMIT_OUTCOME_FORWARDED, "passed on to a person"},
		{optoutv1.SubmitOutcome_SUBMIT_OUTCOME_IGNORED, "ask for nothing"},
		{optoutv1.SubmitOutcome_SUBMIT_OUTCOME_NOT_OURS, "name no address of yours: say with --to which one they came to"},
	} {
		if n := s.outcomes[x.outcome]; n > 0 {
			rows = append(rows, []string{fmt.Sprint(n), x.means})
		}
	}
	if s.truncated > 0 {
		rows = append(rows, []string{fmt.Sprint(s.truncated), "of them of more than 3 MiB: only the beginning was looked at"})
	}
	if s.failed > 0 {
		rows = append(rows, []string{fmt.Sprint(s.failed), "could not be taken: run the command again, nothing is recorded twice"})
	}
	table(w, rows...)
}
