package cli

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/spf13/cobra"

	"optout/cmd/optout/internal/probe"
	optoutv1 "optout/proto/optout/v1"
	"optout/service"
)

func (p *program) gateCommand() *cobra.Command {
	return p.group("gate", "Try the SMTP gate, and what stands behind it",
		`The SMTP gate ("optout serve --gate … --gate-upstream …") is a submission server for mailers in any language: it checks every
recipient when named and again before the message goes on. The password is an API key of role mailer; the topic is the field
X-Optout-Topic, or the key's default topic.`,
		p.gateProbe(), p.gateProfiles())
}

func (p *program) gateProfiles() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "profiles",
		Short:   "List the kinds of mail servers that the gate knows",
		Long:    `Lists the values of --gate-upstream-profile, with who signs, and what must be off at the provider so that what the gate made arrives.`,
		Example: `  optout gate profiles`,
		Args:    needArgs(0, 0, "", "see \"optout gate profiles --help\""),
	}
	cmd.Flags().BoolVar(&p.json, "json", p.json, "answer in JSON, one object a line")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.RunE = func(*cobra.Command, []string) error {
		for _, x := range service.GateProfiles() {
			if p.json {
				fmt.Fprintf(p.Stdout, "%s\n", appendJSON(nil, x))
				continue
			}
			signs := "the gate signs with --gate-dkim"
			if !x.GateSigns {
				signs = "the provider signs"
			}
			fmt.Fprintf(p.Stdout, "%s: %s\n  must be off: %s\n", x.Name, signs, x.MustBeOff)
		}
		return nil
	}
	return cmd
}

// probeFlags are what "optout gate probe" is told.
type probeFlags struct {
	gate, gateKey, gateCA, topic, from, arrives, profile, id string
	wait                                                     time.Duration
}

func (p *program) gateProbe() *cobra.Command {
	f := &probeFlags{}
	cmd := &cobra.Command{
		Use:   "probe --gate HOST:PORT --topic TOPIC --from ADDRESS ADDRESS",
		Short: "Send one message through the gate, and judge what arrives",
		Long: `Sends one message through the gate to ADDRESS, a mailbox of yours at the provider that matters, waits for it in --arrives (a
Maildir, an mbox or a file), and judges it: whether the list fields arrived once and as they were, whether a DKIM signature of
your domain holds and covers them, whether the body is untouched.

Where the mailbox is elsewhere, leave --arrives out: then save the message's source from your mail program and run the same
command again with --id (it is printed) and --arrives FILE, or --arrives - for standard input. Nothing is sent that time.

Exit code 0: all is well; 1: something is not; 2: it could not be tried.`,
		Example: `  optout gate probe --gate mail.example.com:587 --topic newsletter --from news@example.com me@gmail.com
  optout gate probe --topic newsletter --from news@example.com --id '<…>' --arrives message.eml me@gmail.com`,
		Args: oneAddress,
	}
	cmd.Flags().StringVar(&f.gate, "gate", "", "`HOST:PORT` of the gate")
	cmd.Flags().StringVar(&f.topic, "topic", "", "`TOPIC` of the message (required; see \"optout topic list\")")
	cmd.Flags().StringVar(&f.from, "from", "", "`ADDRESS` in From (required)")
	cmd.Flags().StringVar(&f.arrives, "arrives", "", "`PATH` of the mailbox where it arrives, or - for the message on standard input")
	cmd.Flags().DurationVar(&f.wait, "wait", 2*time.Minute, "`TIME` to wait for it")
	cmd.Flags().StringVar(&f.gateKey, "gate-key-file", "", "`FILE` with the API key to send with (default: the key that asks the service)")
	cmd.Flags().StringVar(&f.gateCA, "gate-ca", "", "`FILE` (PEM) with the authorities of the gate's certificate (default: the system's)")
	cmd.Flags().StringVar(&f.profile, "profile", "direct", "`KIND` of server behind the gate, for advice; see \"optout gate profiles\"")
	cmd.Flags().StringVar(&f.id, "id", "", "`MESSAGE-ID` of a probe sent before: send nothing, only judge")
	requiredTopic(cmd)
	required(cmd, "from", "give an address of the domain that you send from")
	return p.online(cmd, func(c *call, args []string) error { return c.probe(f, args[0]) })
}

func (c *call) probe(f *probeFlags, to string) error {
	r, err := c.link.IssueLink(c.ctx, &optoutv1.IssueLinkRequest{Sender: c.sender, Topic: f.topic, Address: to})
	if err != nil {
		return err
	}
	off := "what the provider does to messages"
	for _, x := range service.GateProfiles() {
		if x.Name == f.profile {
			off = x.MustBeOff
		}
	}
	s := &probe.Sent{From: f.from, MessageID: f.id, Body: []byte(probeBody), MustBeOff: off}
	for _, h := range r.Link.Headers {
		s.Fields = append(s.Fields, [2]string{h.Name, h.Value})
	}
	if f.id == "" {
		if f.gate == "" {
			return wrongUsage("--gate", "it is missing", "give HOST:PORT of the gate, or --id to judge a message sent before")
		}
		s.MessageID = "<probe-" + strings.ToLower(rand.Text()) + "@" + f.from[strings.LastIndexByte(f.from, '@')+1:] + ">"
		if err := c.sendProbe(f, s, to); err != nil {
			return err
		}
		fmt.Fprintf(c.Stderr, "sent %s\n", s.MessageID)
	}
	if f.arrives == "" {
		fmt.Fprintf(c.Stdout, "sent; save the message's source where it arrives, then judge it:\n  optout gate probe --topic %s --from %s --id '%s' --arrives message.eml %s\n", f.topic, f.from, s.MessageID, to)
		return nil
	}
	raw, err := c.awaitProbe(f, s.MessageID)
	if err != nil {
		return err
	}
	return c.reportProbe(probe.Judge(raw, s, func(name string) ([]string, error) { return net.DefaultResolver.LookupTXT(c.ctx, name) }))
}

// probeBody is what providers like to rewrite: links, in text and HTML.
const probeBody = "--probe\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThis message tries the mail server. A link: https://example.com/probe?a=1&b=2\r\n" +
	"--probe\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>This message tries the mail server. <a href=\"https://example.com/probe?a=1&amp;b=2\">A link</a></p>\r\n--probe--\r\n"

func (c *call) sendProbe(f *probeFlags, s *probe.Sent, to string) error {
	failed := func(err error) error {
		return &failure{Code: "UNAVAILABLE", Field: "--gate", Message: sentence("--gate", "the gate did not take the message: "+err.Error(), ""), exit: exitError}
	}
	key, err := c.apiKey(c.to)
	if f.gateKey != "" {
		key, err = c.apiKey(&connection{keyFile: f.gateKey})
	}
	if err != nil {
		return err
	}
	client, err := dialGate(c.ctx, f.gate, f.gateCA)
	if err != nil {
		return failed(err)
	}
	defer client.Close()
	if err := client.Auth(sasl.NewPlainClient("", "probe", key)); err != nil {
		return failed(err)
	}
	if err := client.Mail(f.from, nil); err != nil {
		return failed(err)
	}
	if err := client.Rcpt(to, nil); err != nil {
		return failed(err)
	}
	w, err := client.Data()
	if err != nil {
		return failed(err)
	}
	fmt.Fprintf(w, "From: <%s>\r\nTo: <%s>\r\nBcc: <probe@example.com>\r\nSubject: optout gate probe\r\nDate: %s\r\nMessage-ID: %s\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: multipart/alternative; boundary=probe\r\nX-Optout-Topic: %s\r\n\r\n%s", f.from, to, time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700"), s.MessageID, f.topic, s.Body)
	if err := w.Close(); err != nil {
		return failed(err)
	}
	client.Quit()
	return nil
}

// dialGate connects, with TLS from the first octet at port 465 and by STARTTLS where it is offered.
func dialGate(ctx context.Context, addr, ca string) (*smtp.Client, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New(ca + " holds no certificate")
		}
	}
	open := func() (net.Conn, error) {
		return (&net.Dialer{Timeout: 20 * time.Second}).DialContext(ctx, "tcp", addr)
	}
	conn, err := open()
	if err != nil {
		return nil, err
	}
	if port == "465" {
		return smtp.NewClient(tls.Client(conn, cfg)), nil
	}
	c := smtp.NewClient(conn)
	if err := c.Hello("localhost"); err != nil {
		return nil, err
	}
	if ok, _ := c.Extension("STARTTLS"); !ok {
		return c, nil
	}
	c.Close()
	if conn, err = open(); err != nil {
		return nil, err
	}
	return smtp.NewClientStartTLS(conn, cfg)
}

// awaitProbe waits until the message has arrived.
func (c *call) awaitProbe(f *probeFlags, id string) ([]byte, error) {
	if f.arrives == "-" {
		text, err := io.ReadAll(io.LimitReader(c.Stdin, 10<<20))
		if err == nil && probe.In(text, id) == nil {
			err = wrongUsage("--arrives", "standard input does not hold the message "+id, "save the message's whole source, header and all")
		}
		return text, err
	}
	end := time.Now().Add(f.wait)
	for {
		raw, err := probe.Find(f.arrives, id)
		if err != nil {
			return nil, wrongUsage("--arrives", err.Error(), "name a Maildir, an mbox or a file that you may read")
		}
		if raw != nil {
			return raw, nil
		}
		if time.Now().After(end) {
			return nil, &failure{Code: "NOT_FOUND", Field: "--arrives", Message: sentence("--arrives", fmt.Sprintf("the message has not arrived within %s", f.wait), "look into the queue of the server behind the gate, or wait longer with --wait"), exit: exitError}
		}
		select {
		case <-c.ctx.Done():
			return nil, c.ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (c *call) reportProbe(all []probe.Check) error {
	bad := false
	for _, x := range all {
		bad = bad || x.Level == probe.Fail
		if c.json {
			fmt.Fprintf(c.Stdout, "%s\n", appendJSON(nil, x))
			continue
		}
		fmt.Fprintf(c.Stdout, "%-4s  %-22s %s\n", x.Level, x.ID, printable(x.Seen))
		if x.Remedy != "" {
			fmt.Fprintf(c.Stdout, "      %-22s → %s\n", "", printable(x.Remedy))
		}
	}
	if bad {
		return errNo
	}
	return nil
}
