package cli

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"optout/cmd/optout/internal/doctor"
)

// doctorFlags are what "optout doctor" is told.
type doctorFlags struct {
	eml, checkCommand, ca string
	yes, lookOnly         bool
	timeout               time.Duration
}

func (p *program) doctorCommand() *cobra.Command {
	f := &doctorFlags{}
	cmd := &cobra.Command{
		Use:   "doctor [URL] [--eml FILE]",
		Short: "Test an unsubscribe link, yours or anybody's, as mailbox providers use it",
		Long: `Tests an unsubscribe URL against what mailbox providers do and RFC 8058 asks for. It looks first: GET, HEAD and an altered token must
change nothing. Then it presses: as Gmail does, as multipart, without a body, again, at the same time. Whoever the link is of is
then unsubscribed, so use a link of your own: it warns and asks before it presses; without a terminal it needs --yes.

Whether a press acted, and whether looking did, can only be guessed from the page, unless --check-cmd names a command that tells
whether the person may still be mailed: exit code 0 yes, 1 no ("optout check" is one). Then it is proved.

With --eml it also judges the message that carries the link: its list fields and whether the DKIM signature covers them. Without
URL the link is taken from there. Needs no service.

Exit code 0: nothing failed (warnings may be there); 1: something failed; 2: it could not be tested.`,
		Example: `  optout doctor https://mail.example.com/u/… --check-cmd ./may-be-mailed.sh
  optout doctor --eml message.eml --look-only --json`,
		Args: needArgs(0, 1, "URL", "give the unsubscribe URL, or --eml with the message that has one"),
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&f.eml, "eml", "", "`FILE` with the message that carries the link")
	cmd.Flags().StringVar(&f.checkCommand, "check-cmd", "", "`COMMAND` that tells whether the person may be mailed: exit code 0 yes, 1 no")
	cmd.Flags().BoolVar(&f.lookOnly, "look-only", false, "do not press")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "press without asking")
	cmd.Flags().StringVar(&f.ca, "ca", "", "`FILE` (PEM) with the authorities of the server's certificate (default: the system's)")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 15*time.Second, "`TIME` that one request may take")
	cmd.Flags().BoolVar(&p.json, "json", p.json, "answer in JSON, one object")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return p.examine(cmd.Context(), f, args) }
	return cmd
}

func (p *program) examine(ctx context.Context, f *doctorFlags, args []string) error {
	o := doctor.Options{Timeout: f.timeout, Now: time.Now}
	var message []byte
	if f.eml != "" {
		var err error
		if message, err = readLimited(f.eml, 50<<20); err != nil {
			return wrongUsage("--eml", err.Error(), "name a file that holds one message")
		}
		o.URL = doctor.Link(message)
	}
	if len(args) == 1 {
		o.URL = args[0]
	}
	if o.URL == "" {
		return wrongUsage("URL", "it is missing", "give the unsubscribe URL, or --eml with a message whose List-Unsubscribe has one")
	}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		o.Roots = x509.NewCertPool()
		if err != nil || !o.Roots.AppendCertsFromPEM(pem) {
			return wrongUsage("--ca", f.ca+" holds no certificate", "name a PEM file of certificates")
		}
	}
	if f.checkCommand != "" {
		o.Mailable = func(ctx context.Context) (bool, error) { return runCheck(ctx, f.checkCommand) }
		if _, err := o.Mailable(ctx); err != nil {
			return wrongUsage("--check-cmd", err.Error(), "it must end with exit code 0 (may be mailed) or 1 (may not)")
		}
	}
	o.Press = !f.lookOnly && (f.yes || p.confirm("The link will be pressed: whoever it is of is unsubscribed. Go on?"))
	r, err := doctor.Run(ctx, o)
	switch {
	case errors.Is(err, doctor.ErrUnreachable):
		return &failure{Code: "UNAVAILABLE", Field: "URL", Message: sentence("URL", err.Error(), "see that it can be reached from here; --ca for a private authority"), exit: exitError}
	case err != nil:
		return wrongUsage("URL", err.Error(), "give the unsubscribe URL of a message")
	}
	if message != nil {
		for _, c := range doctor.Message(message, func(name string) ([]string, error) { return net.DefaultResolver.LookupTXT(ctx, name) }) {
			r.Checks = append(r.Checks, c)
			r.Passed = r.Passed && c.Level != doctor.Fail
		}
	}
	p.diagnosis(r)
	if !r.Passed {
		return errNo
	}
	return nil
}

// confirm asks on a terminal; where there is none the answer is no.
func (p *program) confirm(question string) bool {
	if !p.Terminal {
		return false
	}
	fmt.Fprintf(p.Stderr, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(p.Stdin).ReadString('\n')
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "y")
}

// runCheck runs the command that tells whether the person may be mailed.
func runCheck(ctx context.Context, command string) (bool, error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		return false, nil
	}
	return false, fmt.Errorf("the command failed: %w", err)
}

func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("it is larger than %d octets", limit)
	}
	return b, err
}

// diagnosis prints the report.
func (p *program) diagnosis(r *doctor.Report) {
	if p.json {
		fmt.Fprintf(p.Stdout, "%s\n", appendJSON(nil, r))
		return
	}
	count := map[doctor.Level]int{}
	for _, c := range r.Checks {
		count[c.Level]++
		fmt.Fprintf(p.Stdout, "%-7s  %-29s  %s\n", c.Level, c.ID, printable(c.Seen))
		if c.Remedy != "" {
			why := c.Remedy
			if c.Reference != "" {
				why += " (" + c.Reference + ")"
			}
			fmt.Fprintf(p.Stdout, "%-7s  %-29s  → %s\n", "", "", why)
		}
	}
	fmt.Fprintf(p.Stdout, "%d passed, %d warnings, %d failed, %d skipped\n", count[doctor.Pass], count[doctor.Warn], count[doctor.Fail], count[doctor.Skipped])
	if !r.Pressed {
		fmt.Fprintln(p.Stdout, "the link was not pressed: with --yes it is, which unsubscribes whoever it is of")
	}
}
