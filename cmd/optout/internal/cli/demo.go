package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/wneessen/go-mail"

	"optout/client"
	"optout/service"
)

func (p *program) demoCommand() *cobra.Command {
	keep := false
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole job, with nothing installed",
		Long: `Starts the real service in a folder of its own, over HTTPS with a certificate that it makes, and does with it what a company does:
takes over old opt-outs, subscribes people, sends mail to a mail server that it runs itself, presses one person's unsubscribe
link the way Gmail does, lets another answer in their own words, and sends again. Nothing leaves this machine, and the folder is
removed at the end.`,
		Example: `  optout demo
  optout demo --keep`,
		Args: needArgs(0, 0, "", "it takes no arguments; see \"optout demo --help\""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.demo(cmd.Context(), keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the service running, with the address of the page to open")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// demo is one showing.
type demo struct {
	*program
	ctx    context.Context
	dir    string
	svc    *service.Service
	ca     string
	roots  *x509.CertPool
	server *mailServer
	client *client.Client
	mailer *client.Mailer
	step   int
}

// The people of the demo. Ada has two addresses; two others are written in letters beyond ASCII.
var (
	demoPeople  = []string{"ada@example.com", "ada@work.example", "grete@bücher.example", "用户@例子.example"}
	demoOldList = "email,date,reason\nbob@example.net,2024-05-01,unsubscribe\ncarol@example.org,2025-11-30,complaint\nnobody at all,2025-01-01,unsubscribe\n"
)

const (
	demoAda     = "ada@example.com"
	demoAdaWork = "ada@work.example"
	// demoContact is whom the letters are from, and so where answers go; demoAnswerer answers from another mailbox.
	demoContact  = "letters@example.com"
	demoAnswerer = "用户@例子.example"
)

func (p *program) demo(ctx context.Context, keep bool) (err error) {
	d := &demo{program: p}
	if d.dir, err = os.MkdirTemp("", "optout-demo-"); err != nil {
		return err
	}
	defer os.RemoveAll(d.dir)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	d.ctx = ctx
	if err := d.start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- d.svc.Run(ctx) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	if d.server, err = newMailServer(); err != nil {
		return err
	}
	defer d.server.close()
	if err := d.connect(); err != nil {
		return err
	}
	defer d.client.Close()
	if err := d.show(); err != nil {
		return fmt.Errorf("the demo failed at step %d: %w", d.step, err)
	}
	return d.farewell(keep)
}

// start makes a certificate and a service over HTTPS.
func (d *demo) start() error {
	cert, key, roots, err := makeCertificate(d.dir)
	if err != nil {
		return err
	}
	d.ca, d.roots = cert, roots
	public, err := freePort() // links carry the port, so it must be known before the service listens
	if err != nil {
		return err
	}
	d.svc, err = service.New(d.ctx, service.Config{Data: d.data(), GRPC: "127.0.0.1:0", HTTP: public, SMTP: "127.0.0.1:0", PublicURL: "https://" + strings.Replace(public, "127.0.0.1", "localhost", 1),
		MailDomain: "unsub.example.com", TLSCert: cert, TLSKey: key})
	return err
}

func (d *demo) data() string { return filepath.Join(d.dir, "optout-data") }

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (d *demo) connect() error {
	var err error
	d.client, err = client.New(d.svc.Addresses().GRPC, client.WithTLS(&tls.Config{RootCAs: d.roots, ServerName: "localhost"}),
		client.WithKeyFile(filepath.Join(d.data(), adminKeyFile)))
	if err != nil {
		return err
	}
	host, port := d.server.address()
	m, err := mail.NewClient(host, mail.WithPort(port), mail.WithTLSPolicy(mail.NoTLS), mail.WithHELO("mailer.example.com"))
	if err != nil {
		return err
	}
	d.mailer = client.NewMailer(d.client, m, client.WithMailing(20261))
	return nil
}

// say begins a step.
func (d *demo) say(format string, args ...any) {
	d.step++
	fmt.Fprintf(d.Stdout, "\n%d. %s\n\n", d.step, fmt.Sprintf(format, args...))
}

// run runs one of the program's own commands and shows it with its output.
func (d *demo) run(want int, args ...string) error {
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = strings.TrimPrefix(a, d.dir+string(filepath.Separator))
		if strings.ContainsAny(shown[i], " ") {
			shown[i] = "\"" + shown[i] + "\""
		}
	}
	fmt.Fprintf(d.Stdout, "   $ optout %s\n", strings.Join(shown, " "))
	var out bytes.Buffer
	code := Run(d.ctx, Process{Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out,
		Env: []string{"OPTOUT_SERVER=" + strings.Replace(d.svc.Addresses().GRPC, "127.0.0.1", "localhost", 1), "OPTOUT_TLS_CA=" + d.ca, "OPTOUT_DATA=" + d.data()}})
	for line := range strings.Lines(out.String()) {
		fmt.Fprint(d.Stdout, "   ", line)
	}
	if code != want {
		return fmt.Errorf("\"optout %s\" ended with exit code %d", strings.Join(args, " "), code)
	}
	return nil
}

// show does the whole job.
func (d *demo) show() error {
	fmt.Fprintf(d.Stdout, "optout, from nothing to a person who is never written to again.\nThe service runs in %s; its pages are at %s.\n", d.dir, d.publicURL())

	d.say("A sender and its topics. Commercial mail needs a postal address; mail that may pass a no must say why.")
	for _, args := range [][]string{
		{"sender", "update", "--display-name", "Example Letters", "--postal-address", "1 Example Street, Springfield", "--contact-address", demoContact},
		{"topic", "create", "newsletter", "--description", "our monthly letter"},
		{"topic", "create", "receipts", "--class", "transactional", "--description", "receipts for what you bought"},
	} {
		if err := d.run(exitOK, args...); err != nil {
			return err
		}
	}

	d.say("The opt-outs kept so far come first: old promises bind too. A line that cannot be read is told, never guessed.")
	list := filepath.Join(d.dir, "old.csv")
	if err := os.WriteFile(list, []byte(demoOldList), 0o600); err != nil {
		return err
	}
	if err := d.run(exitNo, "import", list, "--dry-run"); err != nil {
		return err
	}
	if err := d.run(exitNo, "import", list); err != nil {
		return err
	}

	d.say("People subscribe. Ada has two addresses; person ids join them. Addresses are international.")
	for _, a := range demoPeople {
		args := []string{"subscribe", "--topic", "newsletter", "--source", "https://example.com/signup", "--wording", "Yes, send me the letter", "--method", "tick-box"}
		if strings.HasPrefix(a, "ada@") {
			args = append(args, "--person", "customer-1001")
		}
		if err := d.run(exitOK, append(args, a)...); err != nil {
			return err
		}
	}

	d.say("The newsletter goes out through the Go client: it asks before each message, and each gets a link of its own.")
	if err := d.send("newsletter", append(demoPeople, "bob@example.net"), len(demoPeople)); err != nil {
		return err
	}

	d.say("Ada's message as it arrived:")
	message := d.server.find(demoAda)
	if message == "" {
		return errors.New("no message for Ada arrived")
	}
	for line := range strings.Lines(message) {
		fmt.Fprint(d.Stdout, "   | ", strings.TrimRight(line, "\r\n"), "\n")
	}

	d.say("Ada presses \"Unsubscribe\" in her mail program. Gmail posts 26 octets to the link:")
	link := headerURL(message)
	if err := d.press(link); err != nil {
		return err
	}

	d.say("Somebody else just answers the letter, in their own words (\"please do not write to me again\") and from another mailbox.\n   The Message-ID that their mail program quotes says whose letter it was:")
	if err := d.reply(d.server.find(demoAnswerer)); err != nil {
		return err
	}

	d.say("The next sends. Ada is refused, at both addresses and for every topic, and so is who answered.")
	if err := d.send("newsletter", demoPeople, len(demoPeople)-3); err != nil {
		return err
	}
	if err := d.send("receipts", []string{demoAda, demoAdaWork}, 0); err != nil {
		return err
	}

	d.say("Who said so, when, and how? Her other address knows:")
	if err := d.run(exitOK, "explain", demoAdaWork); err != nil {
		return err
	}

	d.say("And nobody has changed the ledger since:")
	return d.run(exitOK, "verify")
}

func (d *demo) publicURL() string {
	return "https://" + strings.Replace(d.svc.Addresses().HTTP, "127.0.0.1", "localhost", 1)
}

// send sends one message of a topic to many, shows what became of each, and expects so many to be sent.
func (d *demo) send(topic string, to []string, want int) error {
	msg := mail.NewMsg()
	if err := msg.From(demoContact); err != nil {
		return err
	}
	if err := msg.Bcc(to...); err != nil {
		return err
	}
	msg.Subject("Example Letters: " + topic)
	msg.SetBodyString(mail.TypeTextPlain, "Good news this month.\n\nExample Letters, 1 Example Street, Springfield\n")
	report, err := d.mailer.Send(d.ctx, topic, msg)
	for _, r := range report {
		detail := ""
		if len(r.Decision.Denials) > 0 {
			x := r.Decision.Denials[0]
			detail = fmt.Sprintf(": %s since %s (entry %d", strings.TrimPrefix(x.Reason.String(), "DENIAL_REASON_"), x.Since.AsTime().Format(time.RFC3339), x.Entry)
			if x.Joined {
				detail += ", said at the person's other address"
			}
			detail += ")"
		}
		if r.Err != nil {
			detail += ": " + r.Err.Error()
		}
		fmt.Fprintf(d.Stdout, "   %-10s %-8s %s%s\n", topic, r.Outcome, r.Recipient, detail)
	}
	if err == nil && report.Count(client.Sent) != want {
		err = fmt.Errorf("%d messages were sent, not %d", report.Count(client.Sent), want)
	}
	return err
}

// press posts to a link as Gmail does.
func (d *demo) press(url string) error {
	const body = "List-Unsubscribe=One-Click"
	fmt.Fprintf(d.Stdout, "   POST %s\n   %s\n", url, body)
	web := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: d.roots}}}
	defer web.CloseIdleConnections()
	resp, err := web.Post(url, "application/x-www-form-urlencoded", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return err
	}
	fmt.Fprintf(d.Stdout, "   %s: %s", resp.Status, answer)
	if resp.StatusCode != http.StatusOK {
		return errors.New("the link did not work")
	}
	return nil
}

// farewell names what to try next, and with --keep waits.
func (d *demo) farewell(keep bool) error {
	fmt.Fprint(d.Stdout, "\nNow your own:\n\n",
		"   optout serve                                          # keys, database and an admin key in ./optout-data\n",
		"   optout topic create newsletter\n",
		"   optout import old-opt-outs.csv --dry-run\n",
		"   optout check --topic newsletter you@example.com\n",
		"   optout link --topic newsletter you@example.com\n")
	if !keep {
		fmt.Fprint(d.Stdout, "   optout demo --keep                                    # leaves the service running, to see the page\n")
		return nil
	}
	link, err := d.client.IssueLink(d.ctx, "newsletter", "grete@bücher.example", nil, 0)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.Stdout, "\nThe service goes on until you press Ctrl-C. Open Grete's page (your browser will ask about the demo's own certificate):\n\n   %s\n\n"+
		"and ask with:\n\n   export OPTOUT_SERVER=%s OPTOUT_TLS_CA=%s OPTOUT_DATA=%s\n   optout check --topic newsletter grete@bücher.example\n",
		link.Url, strings.Replace(d.svc.Addresses().GRPC, "127.0.0.1", "localhost", 1), d.ca, d.data())
	<-d.ctx.Done()
	return nil
}
