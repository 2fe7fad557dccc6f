// Package rpc is the way in by gRPC, and by JSON over HTTP through the same handlers: it authenticates and authorises callers, translates between the API's messages and the
// core's use cases, and maps every error by one table. It decides nothing about mail: that is the core's.
package rpc

import (
	"context"
	"crypto/tls"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
	"optout/service/link"
	"optout/service/receipt"
)

// Options are what the adapter needs. All but TLS and Observe are required.
type Options struct {
	Ledger *ledger.Ledger
	// Ring is the current ring of link keys; rotation swaps it.
	Ring func() *link.Ring
	// Receipts signs receipts; ReceiptKeys are the public keys that verify them, by id, its own the last.
	Receipts    *receipt.Signer
	ReceiptKeys []ReceiptKey
	// PublicURL and MailDomain are for senders that have none of their own.
	PublicURL, MailDomain string
	// RotateLinkKey makes a new link key the current one.
	RotateLinkKey func(ctx context.Context, by ledger.By) (ledger.Secret, ledger.Outcome, error)
	// Backup writes a copy into a folder of this machine. Its errors of the kind ledger.ErrInvalidField are about that folder.
	Backup func(ctx context.Context, dir string, withKeys bool, progress func(copied, total uint64)) (ledger.Position, ledger.Hash, error)
	// Submit takes a message as if it had come by SMTP.
	Submit func(ctx context.Context, m *Message) ([]Submitted, error)
	// Providers are the email service providers; nil when none is configured.
	Providers Providers
	Random    io.Reader
	Now       func() time.Time
	Log       *slog.Logger
	// TLS is nil for plaintext.
	TLS *tls.Config
	// Observe takes the time of each call, for metrics; may be nil.
	Observe func(method string, code codes.Code, d time.Duration)
}

// Limits on what one connection or call may take.
const (
	// maxStreams bounds the calls of a connection that run at once; more of them wait at the caller. grpc-go has no bound of
	// its own: a client that opens and resets streams rapidly ran 1,836 handlers at once.
	maxStreams     = 256
	maxMessage     = 4 << 20 // 10 000 addresses of 254 octets fit
	maxHeaders     = 16 << 10
	connectTimeout = 10 * time.Second
	// unaryTimeout bounds calls whose caller set no deadline, or one far away.
	unaryTimeout = 30 * time.Second
	// idleTime, maxAge and maxAgeGrace bound connections, so that callers spread over new nodes and forgotten ones end. The
	// grace is for verifications and backups of large ledgers.
	idleTime    = 30 * time.Minute
	maxAge      = 2 * time.Hour
	maxAgeGrace = time.Hour
)

// Server is the gRPC server.
type Server struct {
	grpc     *grpc.Server
	health   *health.Server
	handlers *handlers
	drain    context.CancelFunc
}

// handlers holds what every service of the API needs.
type handlers struct {
	Options
	// verifying and backingUp hold a token each while a verification or a backup runs: both read the whole ledger.
	verifying, backingUp chan struct{}
	// receipts verifies receipts.
	receipts *receipt.Verifier
	// draining ends when the server stops taking calls.
	draining context.Context
	optoutv1.UnimplementedSuppressionServiceServer
	optoutv1.UnimplementedSubscriptionServiceServer
	optoutv1.UnimplementedLinkServiceServer
	optoutv1.UnimplementedLedgerServiceServer
	optoutv1.UnimplementedFeedbackServiceServer
	optoutv1.UnimplementedAdminServiceServer
}

// NewServer makes the server. It fails when a method of the API has no row in the policy table, or a row no method, and when
// an option is missing.
func NewServer(o Options) (*Server, error) {
	if o.Ledger == nil || o.Ring == nil || o.Receipts == nil || o.PublicURL == "" || o.RotateLinkKey == nil || o.Backup == nil || o.Submit == nil || o.Random == nil || o.Now == nil || o.Log == nil {
		return nil, errors.New("rpc: an option is missing")
	}
	h := &handlers{Options: o, verifying: make(chan struct{}, 1), backingUp: make(chan struct{}, 1)}
	var err error
	if h.receipts, err = verifier(o.ReceiptKeys); err != nil {
		return nil, err
	}
	options := []grpc.ServerOption{
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.ConnectionTimeout(connectTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 30 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTime, MaxConnectionAge: maxAge, MaxConnectionAgeGrace: maxAgeGrace,
			Time: 2 * time.Minute, Timeout: 20 * time.Second}),
		grpc.UnaryInterceptor(h.unary),
		grpc.StreamInterceptor(h.stream),
	}
	if o.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(o.TLS)))
	}
	s := &Server{grpc: grpc.NewServer(options...), health: health.NewServer(), handlers: h}
	h.draining, s.drain = context.WithCancel(context.Background())
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	optoutv1.RegisterSuppressionServiceServer(s.grpc, h)
	optoutv1.RegisterSubscriptionServiceServer(s.grpc, h)
	optoutv1.RegisterLinkServiceServer(s.grpc, h)
	optoutv1.RegisterLedgerServiceServer(s.grpc, h)
	optoutv1.RegisterFeedbackServiceServer(s.grpc, h)
	optoutv1.RegisterAdminServiceServer(s.grpc, h)
	reflection.Register(s.grpc)
	return s, checkPolicy(s.grpc.GetServiceInfo())
}

// Serve answers on l until the server stops.
func (s *Server) Serve(l net.Listener) error { return s.grpc.Serve(l) }

// GracefulStop takes no new calls and waits for those in flight, but not for lingering ones, which would go on for ever.
func (s *Server) GracefulStop() {
	s.drain()
	s.grpc.GracefulStop()
}

// Stop ends everything at once.
func (s *Server) Stop() {
	s.drain()
	s.grpc.Stop()
}

// SetServing sets what the health service answers.
func (s *Server) SetServing(ok bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if ok {
		state = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", state)
}

// SecretPrefix begins every API key, so that scanners for leaked secrets can find one.
const SecretPrefix = "optout_"

// NewSecret makes the secret of an API key: 256 random bits in 52 characters of lower-case base32.
func NewSecret(random io.Reader) (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", err
	}
	return SecretPrefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])), nil
}

// unary stands before every unary call.
func (h *handlers) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	start := time.Now()
	defer func() {
		resp, err = h.finish(info.FullMethod, start, resp, err, recover())
	}()
	if d, ok := ctx.Deadline(); !ok || time.Until(d) > unaryTimeout {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, unaryTimeout, errTooSlow)
		defer cancel()
	}
	k, err := h.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if err := h.bounds(k, info.FullMethod, req); err != nil {
		return nil, err
	}
	resp, err = handle(&call{ctx, k}, req)
	if errors.Is(err, context.DeadlineExceeded) && context.Cause(ctx) == errTooSlow {
		err = errTooSlow
	}
	return resp, err
}

// stream stands before every streaming call.
func (h *handlers) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	start := time.Now()
	defer func() {
		_, err = h.finish(info.FullMethod, start, nil, err, recover())
	}()
	k, err := h.admit(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	if !lingering[info.FullMethod] {
		return handle(srv, &admitted{ss, h, info.FullMethod, &call{ss.Context(), k}})
	}
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	defer context.AfterFunc(h.draining, cancel)()
	err = handle(srv, &lingerer{admitted{ss, h, info.FullMethod, &call{ctx, k}}})
	if h.draining.Err() != nil {
		return ledger.ErrClosed
	}
	return err
}

// admitted is a stream whose caller was admitted. Each request on it is held to the caller's bounds.
type admitted struct {
	grpc.ServerStream
	h      *handlers
	method string
	call   *call
}

func (s *admitted) Context() context.Context { return s.call }

func (s *admitted) RecvMsg(req any) error {
	if err := s.ServerStream.RecvMsg(req); err != nil {
		return err
	}
	return s.h.bounds(s.call.key, s.method, req)
}

// lingering methods go on for as long as the caller likes: they watch, or wait for the next question.
var lingering = set(healthpb.Health_Watch_FullMethodName, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")

// lingerer is the stream of a lingering method: waiting on it ends when the server drains.
type lingerer struct{ admitted }

func (s *lingerer) RecvMsg(req any) error {
	got := make(chan error, 1)
	go func() { got <- s.admitted.RecvMsg(req) }() // ends at the latest with the stream
	select {
	case err := <-got:
		return err
	case <-s.call.Done():
		return s.call.Err()
	}
}

// finish turns what happened into an answer. A panic is a fault of ours, and never a verdict.
func (h *handlers) finish(method string, start time.Time, resp any, err error, panicked any) (any, error) {
	switch {
	case panicked != nil:
		resp, err = nil, h.incident("a call panicked", method, "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
	case err != nil:
		resp, err = nil, h.status(method, err)
	}
	if h.Observe != nil {
		h.Observe(method, status.Code(err), time.Since(start))
	}
	return resp, err
}

// take takes the place of the one call of a kind that may run.
func take(place chan struct{}) (release func(), err error) {
	select {
	case place <- struct{}{}:
		return func() { <-place }, nil
	default:
		return nil, errBusy
	}
}
