// Package client asks optout before mail is sent. It knows the API and nothing else of the service.
//
// [Client] checks addresses, issues unsubscribe links and records what people say. [Mailer] wraps go-mail and is the only way
// this package offers to send, a few messages or a mailing of millions: it cannot forget to ask. [LintMessage] names what a message
// lacks that the law, the RFCs or the mailbox providers demand. Whatever goes wrong, the answer is never "send": the zero [Decision]
// forbids, and a mailer that cannot ask sends nothing.
package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	optoutv1 "optout/proto/optout/v1"
)

// Client talks to one optout service in the name of one sender. It is safe for concurrent use.
type Client struct {
	conn    *grpc.ClientConn
	sender  string
	timeout time.Duration

	suppression  optoutv1.SuppressionServiceClient
	subscription optoutv1.SubscriptionServiceClient
	link         optoutv1.LinkServiceClient
	admin        optoutv1.AdminServiceClient
}

// DefaultTimeout is how long one call may take, retries included, unless WithTimeout says otherwise.
const DefaultTimeout = 5 * time.Second

type settings struct {
	key       string
	tls       *tls.Config
	plaintext bool
	sender    string
	timeout   time.Duration
	err       error
}

// Option changes how a client is made.
type Option func(*settings)

// WithKey gives the API key's secret. Without it, and without WithKeyFile, New takes the environment variable OPTOUT_KEY, as the
// program's own commands do.
func WithKey(secret string) Option { return func(s *settings) { s.key = secret } }

// WithKeyFile reads the API key's secret from a file, without the white space around it.
func WithKeyFile(path string) Option {
	return func(s *settings) {
		b, err := os.ReadFile(path)
		s.key, s.err = strings.TrimSpace(string(b)), errors.Join(s.err, err)
	}
}

// WithTLS speaks TLS with this configuration; nil is the system's. It is the default for every target that is not on loopback.
func WithTLS(c *tls.Config) Option {
	return func(s *settings) {
		if c == nil {
			c = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		s.tls = c
	}
}

// WithPlaintext speaks plaintext to a target that is not on loopback: the API key and every address cross the network
// unprotected.
func WithPlaintext() Option { return func(s *settings) { s.plaintext = true } }

// WithSender names the sender in whose name mail goes out; "default" without it.
func WithSender(name string) Option { return func(s *settings) { s.sender = name } }

// WithTimeout says how long one call may take, retries included; more than 0. A call ends earlier when its context does.
func WithTimeout(d time.Duration) Option { return func(s *settings) { s.timeout = d } }

// retries repeats calls that were not answered, with backoff and jitter, until the call's time is up. UNAVAILABLE may come after
// the service acted, so only reads are named here and writes that are idempotent, by nature or by their request_id, which stays
// the same. Other methods, which Conn reaches, are never repeated.
const retries = `{"methodConfig": [{"name": [{"service": "optout.v1.SuppressionService"}, {"service": "optout.v1.SubscriptionService"},
	{"service": "optout.v1.LinkService"}, {"service": "optout.v1.AdminService", "method": "GetSender"}, {"service": "optout.v1.AdminService", "method": "ListTopics"}],
	"retryPolicy": {"maxAttempts": 1000, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// New makes a client for the service at target, host:port of its gRPC listener. It connects when it is first needed.
func New(target string, options ...Option) (*Client, error) {
	s := settings{key: os.Getenv("OPTOUT_KEY"), timeout: DefaultTimeout}
	for _, o := range options {
		o(&s)
	}
	if s.err != nil {
		return nil, fmt.Errorf("optout client: %w", s.err)
	}
	if s.key == "" {
		return nil, errors.New("optout client: no API key: give WithKey or WithKeyFile, or set OPTOUT_KEY")
	}
	if strings.ContainsFunc(s.key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("optout client: the API key has white space or other characters that no key has: give the secret that \"optout key create\" printed, and nothing else")
	}
	if s.timeout <= 0 {
		return nil, errors.New("optout client: WithTimeout: it must be more than 0, for example 5*time.Second")
	}
	var transport credentials.TransportCredentials
	switch {
	case s.tls != nil:
		transport = credentials.NewTLS(s.tls)
	case s.plaintext || onLoopback(target):
		transport = insecure.NewCredentials()
	default:
		transport = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(transport), grpc.WithPerRPCCredentials(bearer(s.key)),
		grpc.WithDefaultServiceConfig(retries), grpc.WithMaxCallAttempts(1000), // the call's time ends the attempts, not their number
		grpc.WithDisableServiceConfig(), // no TXT record changes what is repeated
		// A mailer that cannot ask stands still, so it must notice soon that the service is back: grpc's own pause is up to 2 minutes.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2,
			MaxDelay: 2 * time.Second}, MinConnectTimeout: 5 * time.Second}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 10 * time.Second})) // the service allows every 30 s
	if err != nil {
		return nil, fmt.Errorf("optout client: %w", err)
	}
	return &Client{conn: conn, sender: s.sender, timeout: s.timeout, suppression: optoutv1.NewSuppressionServiceClient(conn),
		subscription: optoutv1.NewSubscriptionServiceClient(conn), link: optoutv1.NewLinkServiceClient(conn), admin: optoutv1.NewAdminServiceClient(conn)}, nil
}

// onLoopback tells whether the target does not leave the machine.
func onLoopback(target string) bool {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// bearer puts the API key on every call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity is false because New decides when plaintext is allowed.
func (bearer) RequireTransportSecurity() bool { return false }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Conn is the connection, with the key on every call, for methods of the API that this package does not wrap:
// optoutv1.NewLedgerServiceClient(c.Conn()).
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// limit gives a call its time.
func (c *Client) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.timeout)
}

// newRequestID makes an id that no other request has.
func newRequestID() string { return rand.Text() }
