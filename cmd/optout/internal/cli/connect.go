package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
)

// connectionFlag marks the flags that say which service to ask; help shows them apart.
const connectionFlag = "optout-connection"

// defaultData is the data folder of a service that is not told otherwise.
const defaultData = "./optout-data"

// adminKeyFile is the first admin key in a service's data folder.
const adminKeyFile = "admin.key"

// connection says which service to ask, and how.
type connection struct {
	server, keyFile, data  string
	tlsCA, tlsCert, tlsKey string
	plaintext              bool
	sender                 string
	json                   bool
	timeout                time.Duration
}

// add adds the flags to a command that asks a service.
func (c *connection) add(fs *pflag.FlagSet, asJSON bool) {
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	own.SortFlags = false
	own.StringVar(&c.sender, "sender", "default", "`NAME` of the sender in whose name mail goes out")
	own.BoolVar(&c.json, "json", asJSON, "answer in JSON: one object, or one a line")
	own.StringVar(&c.server, "server", "127.0.0.1:7070", "`ADDRESS` of the service's gRPC listener")
	own.StringVar(&c.keyFile, "key-file", "", "`FILE` that holds the API key (default: the variable OPTOUT_KEY, or admin.key in --data)")
	own.StringVar(&c.data, "data", defaultData, "`DIR` where the service keeps its data, only to find admin.key in it")
	own.DurationVar(&c.timeout, "timeout", 10*time.Second, "`TIME` that one call may take; verify and backup take as long as they need")
	own.StringVar(&c.tlsCA, "tls-ca", "", "`FILE` of the authorities that may have signed the service's certificate (default: the system's)")
	own.StringVar(&c.tlsCert, "tls-cert", "", "`FILE` of a client certificate, for a service that asks for one")
	own.StringVar(&c.tlsKey, "tls-key", "", "`FILE` of its key")
	own.BoolVar(&c.plaintext, "plaintext", false, "speak plaintext to a --server that is not on loopback: the API key crosses the network unprotected")
	fromEnv(own)
	own.VisitAll(func(f *pflag.Flag) {
		f.Annotations[connectionFlag] = []string{"true"}
		if fs.Lookup(f.Name) == nil { // a command's own flag of that name stands in for it
			fs.AddFlag(f)
		}
	})
}

// online makes a command of one that asks a service: flags, connection, completion (argument, if given, lists what its one
// argument may be), and what it needs at hand when it runs.
func (p *program) online(cmd *cobra.Command, run func(c *call, args []string) error, argument ...lister) *cobra.Command {
	var to connection
	cmd.Flags().SortFlags = false
	to.add(cmd.Flags(), p.json)
	for flag, list := range map[string]lister{"sender": senders, "senders": senders, "topic": topics, "topics": topics, "only-topic": topics} {
		if cmd.Flags().Lookup(flag) != nil {
			cmd.RegisterFlagCompletionFunc(flag, p.complete(&to, list)) // fails only for a flag that is not there
		}
	}
	switch {
	case len(argument) > 0:
		cmd.ValidArgsFunction = p.complete(&to, argument[0])
	case cmd.ValidArgsFunction == nil:
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := p.open(cmd.Context(), cmd, &to)
		if err != nil {
			return err
		}
		defer c.close()
		return run(c, args)
	}
	return cmd
}

// call is what a command that asks a service has at hand.
type call struct {
	*program
	cmd    *cobra.Command
	ctx    context.Context
	to     *connection
	sender string

	suppression  optoutv1.SuppressionServiceClient
	subscription optoutv1.SubscriptionServiceClient
	link         optoutv1.LinkServiceClient
	ledger       optoutv1.LedgerServiceClient
	admin        optoutv1.AdminServiceClient
	feedback     optoutv1.FeedbackServiceClient

	close func()
}

// open reads the variables, makes the connection and sees that there is a service at its end.
func (p *program) open(ctx context.Context, cmd *cobra.Command, to *connection) (*call, error) {
	if err := p.fill(cmd.Flags(), nil); err != nil {
		return nil, err
	}
	p.json = to.json
	if to.timeout <= 0 {
		return nil, wrongUsage("--timeout", "it must be more than 0", "for example 10s")
	}
	key, err := p.apiKey(to)
	if err != nil {
		return nil, err
	}
	if host, port, err := net.SplitHostPort(to.server); err != nil || host == "" || port == "" {
		return nil, wrongUsage("--server", "it must be HOST:PORT", "for example 127.0.0.1:7070")
	}
	options := []client.Option{client.WithKey(key), client.WithSender(to.sender)}
	if transport, err := to.transport(); err != nil {
		return nil, err
	} else if transport != nil {
		options = append(options, transport)
	}
	cl, err := client.New(to.server, options...)
	if err != nil {
		return nil, wrongUsage("--server", err.Error(), "for example 127.0.0.1:7070")
	}
	limited := timeLimit{cl.Conn(), to.timeout}
	if err := reach(ctx, limited); err != nil {
		cl.Close()
		return nil, err
	}
	return &call{program: p, cmd: cmd, ctx: ctx, to: to, sender: to.sender, close: func() { cl.Close() },
		suppression:  optoutv1.NewSuppressionServiceClient(limited),
		subscription: optoutv1.NewSubscriptionServiceClient(limited),
		link:         optoutv1.NewLinkServiceClient(limited),
		ledger:       optoutv1.NewLedgerServiceClient(limited),
		admin:        optoutv1.NewAdminServiceClient(limited),
		feedback:     optoutv1.NewFeedbackServiceClient(limited),
	}, nil
}

// reach asks for the service's health. Whatever it answers, it is there. The client repeats the calls of the API until their time
// is up, but not this one, so that a wrong --server or certificate is told at once and with its cause.
func reach(ctx context.Context, conn grpc.ClientConnInterface) error {
	_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return err
	}
	return nil
}

// timeLimit ends a unary call after some time; streams take as long as they need.
type timeLimit struct {
	grpc.ClientConnInterface
	limit time.Duration
}

// Invoke makes one unary call.
func (t timeLimit) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	return t.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

// apiKey finds the API key: --key-file, else OPTOUT_KEY, else admin.key in the data folder.
func (p *program) apiKey(to *connection) (string, error) {
	path, field := to.keyFile, "--key-file"
	if path == "" {
		if key := p.env[envKey]; key != "" {
			return checkKey(key, envKey)
		}
		path, field = filepath.Join(to.data, adminKeyFile), "API key"
	}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && to.keyFile == "":
		return "", wrongUsage(field, "there is none: "+path+" does not exist", "give --key-file, or OPTOUT_KEY, or --data with the service's data folder")
	case errors.Is(err, fs.ErrPermission):
		return "", wrongUsage(field, path+" may not be read", "run as the user who owns it, or ask for an API key of your own (\"optout key create\")")
	case err != nil:
		return "", wrongUsage(field, err.Error(), "name a file that holds an API key and nothing else")
	}
	return checkKey(string(text), path)
}

func checkKey(text, field string) (string, error) {
	key := strings.TrimSpace(text)
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", wrongUsage(field, "it holds no API key", "it must be the secret that \"optout key create\" printed, and nothing else")
	}
	return key, nil
}

// loopback tells whether the service runs on this machine and is asked without leaving it.
func (to *connection) loopback() bool {
	host, _, err := net.SplitHostPort(to.server)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// transport decides between TLS and plaintext where the client's own rule (plaintext on loopback, TLS everywhere else) is not
// meant: certificates ask for TLS, and --plaintext is said out loud.
func (to *connection) transport() (client.Option, error) {
	if (to.tlsCert == "") != (to.tlsKey == "") {
		return nil, wrongUsage("--tls-cert", "--tls-cert and --tls-key go together", "give both")
	}
	switch {
	case to.plaintext:
		return client.WithPlaintext(), nil
	case to.tlsCA == "" && to.tlsCert == "" && to.loopback():
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if to.tlsCA != "" {
		pem, err := os.ReadFile(to.tlsCA)
		if err != nil {
			return nil, wrongUsage("--tls-ca", err.Error(), "name a PEM file of certificates")
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, wrongUsage("--tls-ca", to.tlsCA+" holds no certificate", "name a PEM file of certificates")
		}
	}
	if to.tlsCert != "" {
		cert, err := tls.LoadX509KeyPair(to.tlsCert, to.tlsKey)
		if err != nil {
			return nil, wrongUsage("--tls-cert", err.Error(), "name PEM files of a certificate and its key")
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return client.WithTLS(cfg), nil
}
