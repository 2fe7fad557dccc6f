package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"optout/service"
	"optout/service/ledger"
)

// serveFlags are what "optout serve" is told besides service.Config.
type serveFlags struct {
	service.Config
	config, logFormat, logLevel string
}

func (p *program) serveCommand() *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the service",
		Long: `Runs the service on the embedded SQLite store until SIGTERM or SIGINT, then lets calls in flight end and exits 0; a second signal
ends it at once. The first start makes keys, database, the sender "default" and an admin API key in the data folder.

When it is ready, one line of JSON on standard output names every address in use (port 0 picks a free one):

  {"ready":true,"grpc":"127.0.0.1:7070","http":"127.0.0.1:7080","admin":"127.0.0.1:7090","smtp":"127.0.0.1:7025"}

Logs go to standard error. A listener that is not on loopback needs TLS. The keys in the key folder recognise addresses and sign
links: without them the database answers nothing, and the service refuses to start. Keep a copy apart from the backups.

Every flag is also a variable (--public-url is OPTOUT_PUBLIC_URL; an empty one counts as not set) and a key of the YAML file
given by --config ("public-url: https://mail.example.com"). The flag goes before the variable, the variable before the file.`,
		Example: `  optout serve
  optout serve --config /etc/optout.yaml
  optout serve --data /var/lib/optout --http :443 --public-url https://mail.example.com --mail-domain unsub.example.com \
    --tls-cert cert.pem --tls-key key.pem`,
		Args: needArgs(0, 0, "", "settings are flags; see \"optout serve --help\""),
	}
	cmd.Flags().SortFlags = false
	f.add(cmd.Flags())
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return p.serve(cmd, f) }
	return cmd
}

func (f *serveFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.Data, "data", defaultData, "`DIR` for database, keys and first admin key; made 0700")
	fs.StringVar(&f.Keys, "keys", "", "`DIR` of address keys and link keys (default: keys in --data)")
	fs.StringVar(&f.Store, "store", "", "`URL` of the store (default: the SQLite file in --data)")
	fs.StringVar(&f.GRPC, "grpc", "127.0.0.1:7070", "`ADDRESS` of the gRPC API")
	fs.StringVar(&f.HTTP, "http", "127.0.0.1:7080", "`ADDRESS` of recipients' pages and one-click")
	fs.StringVar(&f.Admin, "admin", "127.0.0.1:7090", "`ADDRESS` of /metrics, /healthz and /readyz, or off")
	fs.StringVar(&f.SMTP, "smtp", "127.0.0.1:7025", "`ADDRESS` of mail in by SMTP, unix:PATH for LMTP, or off")
	fs.StringSliceVar(&f.Inbound.IMAP, "imap", nil, "`URL` of a mailbox to read mail in from, all that is in it: imaps://USER@HOST/FOLDER?password-file=FILE, or ?oauth-file=FILE where the provider wants OAuth, &sender=NAME for another sender than default; can be repeated")
	fs.StringSliceVar(&f.Inbound.AuthservIDs, "trusted-authserv-id", nil, "`NAME` whose Authentication-Results on mail in are believed (RFC 8601), and which takes forged ones away; can be repeated")
	fs.StringSliceVar(&f.Inbound.Relays, "mail-relay", nil, "`CIDR` of mail servers of your own that bring mail in, so that SPF says nothing of it (loopback need not be named); can be repeated")
	fs.StringSliceVar(&f.Inbound.Reporters, "fbl-reporter", nil, "`ADDRESS` or domain of a feedback loop whose signed complaints are believed, besides Yahoo's and Microsoft's; can be repeated")
	fs.DurationVar(&f.Inbound.QueueDelay, "queue-delay", ledger.DefaultQueueDelay, "`TIME` after which an opt-out in the review queue is done by itself, if the ledger knows the address")
	fs.IntVar(&f.Inbound.SourceLimit, "queue-source-limit", ledger.DefaultSourceLimit, "`N` opt-outs in doubt from one network within a day; with more all wait for a person")
	fs.StringVar(&f.Inbound.MailOut, "mail-out", "", "`HOST:PORT` of the mail server that takes questions passed on and replies (default: questions wait in the review queue)")
	fs.BoolVar(&f.Inbound.Reply, "reply", false, "answer those who are opted out by their own words, at most once a week (RFC 3834)")
	fs.DurationVar(&f.Inbound.KeepMail, "keep-mail", 0, "`TIME` for which mail in itself is kept in --data (default: only its digest is)")
	fs.StringVar(&f.Inbound.DNS, "dns", "", "`HOST:PORT` of the DNS server for DKIM, SPF and DMARC (default: the system's)")
	fs.StringVar(&f.Gate.Listen, "gate", "", "`ADDRESS` of the SMTP gate, for mailers in any language (default: off)")
	fs.StringVar(&f.Gate.Submissions, "gate-submissions", "", "`ADDRESS` of the gate with TLS from the first octet (RFC 8314; default: off)")
	fs.StringVar(&f.Gate.Upstream, "gate-upstream", "", "`HOST:PORT` of the mail server behind the gate")
	fs.StringVar(&f.Gate.UpstreamTLS, "gate-upstream-tls", "", "`HOW` to reach it: starttls, implicit or off (default: implicit at port 465, off on loopback, else starttls)")
	fs.StringVar(&f.Gate.UpstreamCA, "gate-upstream-ca", "", "`FILE` (PEM) with the authorities of its certificate (default: the system's)")
	fs.StringVar(&f.Gate.UpstreamUser, "gate-upstream-user", "", "`NAME` by which the gate authenticates to it")
	fs.StringVar(&f.Gate.UpstreamPasswordFile, "gate-upstream-password-file", "", "`FILE` with the password")
	fs.StringVar(&f.Gate.Profile, "gate-upstream-profile", "direct", "`KIND` of server: "+profileNames()+"; see \"optout gate profiles\"")
	fs.StringSliceVar(&f.Gate.DKIM, "gate-dkim", nil, "`DOMAIN:SELECTOR:FILE` of a DKIM key (PEM) that signs mail from the domain; can be repeated")
	fs.BoolVar(&f.Gate.VERP, "gate-verp", false, "give each copy a return path of its own at --mail-domain, so that bounces say whose they are")
	fs.Int64Var(&f.Gate.MaxBytes, "gate-max-bytes", 50<<20, "`OCTETS` of the largest message")
	fs.IntVar(&f.Gate.MaxConnections, "gate-max-connections", 500, "`N` connections at once; a fifth of them from one address")
	fs.IntVar(&f.Gate.Rate, "gate-rate", 1000, "`N` recipients a second that one credential may name")
	fs.StringVar(&f.Milter.Listen, "milter", "", "`ADDRESS` (host:port or unix:PATH) of the mail filter for Postfix's smtpd_milters and Sendmail (default: off)")
	fs.StringVar(&f.Milter.Local, "milter-local", "", "`ADDRESS` of the mail filter for Postfix's non_smtpd_milters, that is PHP's mail() (default: off)")
	fs.StringVar(&f.Milter.Socketmap, "socketmap", "", "`ADDRESS` of the socketmap for Postfix's transport_maps (default: off)")
	fs.Uint32Var(&f.Milter.Key, "milter-key", 0, "`NUMBER` of the API key by whose topics that mail is judged; see \"optout key list\"")
	fs.StringVar(&f.Milter.Topics, "milter-topics", "", "`FILE` that maps who sends to topics: lines of sasl:USER, sender:ADDRESS, sender:@DOMAIN or client:CIDR, and a topic")
	fs.StringVar(&f.Milter.OnError, "milter-on-error", "tempfail", "`WHAT` becomes of mail when the ledger cannot be asked: tempfail, reject or accept (unchecked)")
	fs.StringVar(&f.Providers, "providers", "", "`FILE` (YAML) of email service providers: webhooks, suppression lists, pushing; see docs/providers.md (default: none)")
	fs.StringVar(&f.PublicURL, "public-url", "http://127.0.0.1:7080", "`URL` that every link begins with; without https there is no one-click (RFC 8058)")
	fs.StringVar(&f.MailDomain, "mail-domain", "", "`DOMAIN` of unsubscribe and bounce addresses (default: links have no mailto)")
	fs.StringVar(&f.TLSCert, "tls-cert", "", "`FILE` (PEM) with the certificate chain of every listener; read again when it changes")
	fs.StringVar(&f.TLSKey, "tls-key", "", "`FILE` (PEM) with its key")
	fs.StringVar(&f.TLSClientCA, "tls-client-ca", "", "`FILE` (PEM) with the authorities of client certificates, which gRPC and admin then require")
	fs.BoolVar(&f.InsecurePlaintext, "insecure-plaintext", false, "allow plaintext off loopback, behind a proxy that does TLS")
	fs.StringSliceVar(&f.TrustedProxies, "trusted-proxy", nil, "`CIDR` whose X-Forwarded-For is believed; can be repeated")
	fs.StringVar(&f.logFormat, "log-format", "text", "`FORMAT` of the log: text or json")
	fs.StringVar(&f.logLevel, "log-level", "info", "`LEVEL` of the log: debug, info, warn or error")
	fs.StringVar(&f.config, "config", "", "`FILE` (YAML) of these settings")
	fromEnv(fs)
}

func profileNames() string {
	var names []string
	for _, x := range service.GateProfiles() {
		names = append(names, x.Name)
	}
	return strings.Join(names, ", ")
}

// settle applies variables and file, and makes the log.
func (p *program) settle(cmd *cobra.Command, f *serveFlags) error {
	if !cmd.Flags().Changed("config") {
		f.config = p.env[variable("config")]
	}
	var file map[string]fileValue
	if f.config != "" {
		var err error
		known := slices.DeleteFunc(flagNames(cmd), func(n string) bool { return n == "config" || n == "help" })
		if file, err = readConfig(f.config, known); err != nil {
			return err
		}
	}
	if err := p.fill(cmd.Flags(), file); err != nil {
		return err
	}
	for _, addr := range []*string{&f.Admin, &f.SMTP} {
		if *addr == "off" {
			*addr = ""
		}
	}
	if f.Inbound.QueueDelay == 0 { // to the service that is the default, which whoever gives it does not mean
		return wrongUsage("--queue-delay", "it is no time to wait", "give one, such as 1h; the default is 24h")
	}
	if f.Inbound.SourceLimit == 0 {
		return wrongUsage("--queue-source-limit", "it is no number of opt-outs", "give 1 or more; the default is 20")
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return wrongUsage("--log-level", fmt.Sprintf("%q is not a level", clip(f.logLevel)), "use debug, info, warn or error")
	}
	options := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		f.Log = slog.New(slog.NewTextHandler(p.Stderr, options))
	case "json":
		f.Log = slog.New(slog.NewJSONHandler(p.Stderr, options))
	default:
		return wrongUsage("--log-format", fmt.Sprintf("%q is not a format", clip(f.logFormat)), "use text or json")
	}
	return nil
}

func (p *program) serve(cmd *cobra.Command, f *serveFlags) error {
	if err := p.settle(cmd, f); err != nil {
		return err
	}
	for _, w := range p.misspelt(cmd) {
		f.Log.Warn(w)
	}
	ctx := cmd.Context()
	s, err := service.New(ctx, f.Config)
	if err != nil {
		return f.failed(ctx, err)
	}
	if !strings.HasPrefix(f.PublicURL, "https://") {
		f.Log.Warn("links have no one-click header: RFC 8058 demands https", "public_url", f.PublicURL, "remedy", "give --public-url https://…")
	}
	if s.FirstStart != "" {
		f.Log.Info("first start: an admin API key was made; keep it and the key folder safe", "admin_key", s.FirstStart)
	}
	ready, err := json.Marshal(struct {
		Ready bool `json:"ready"`
		service.Addresses
	}{true, s.Addresses()})
	if err == nil {
		_, err = fmt.Fprintf(p.Stdout, "%s\n", ready)
	}
	if err != nil {
		s.Close()
		return f.failed(ctx, fmt.Errorf("standard output: %w", err))
	}
	return f.failed(ctx, s.Run(ctx))
}

// failed is the end of a service that did not start, or failed: one line, exit code 1. To be asked to stop is no failure.
func (f *serveFlags) failed(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	e := *explainError(err)
	e.exit = exitNo
	e.Message = strings.Join(strings.Fields(e.Message), " ")
	return &e
}
