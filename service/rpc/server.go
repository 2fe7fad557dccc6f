// Package rpc is the way in by gRPC: it authenticates and authorises callers, translates between the API's messages and the
// core's use cases, and maps every error by one table. It decides nothing about mail: that is the core's.
package rpc

import (
	"context"
	"crypto/tls"
	"encoding/base32"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
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
)

// Options are what the adapter needs.
type Options struct {
	Ledger *ledger.Ledger
	// Ring is the current ring of link keys; rotation swaps it.
	Ring func() *link.Ring
	// PublicURL and MailDomain are for senders that have none of their own.
	PublicURL, MailDomain string
	// RotateLinkKey makes a new link key the current one.
	RotateLinkKey func(ctx context.Context, by ledger.By) (ledger.Secret, ledger.Outcome, error)
	// Backup writes a copy into a folder of this machine.
	Backup func(ctx context.Context, dir string, withKeys bool, progress func(copied, total uint64)) (ledger.Position, ledger.Hash, error)
	Random io.Reader
	Now    func() time.Time
	Log    *slog.Logger
	// TLS is nil for plaintext.
	TLS *tls.Config
	// TrustedProxies are not used here: a caller's address is no evidence of a person.
	TrustedProxies []netip.Prefix
	// Observe takes the time of each call, for metrics; may be nil.
	Observe func(method string, code codes.Code, d time.Duration)
}

// Limits on what one connection or call may take.
const (
	maxStreams     = 256
	maxMessage     = 4 << 20 // 10 000 addresses of 254 octets fit
	maxHeaders     = 16 << 10
	connectTimeout = 10 * time.Second
	// unaryTimeout bounds calls whose caller set no deadline, or one far away.
	unaryTimeout = 30 * time.Second
	// maxLong is how many verifications and backups run at once.
	maxLong = 1
)

// Server is the gRPC server.
type Server struct {
	grpc   *grpc.Server
	health *health.Server
}

// handlers holds what every service of the API needs.
type handlers struct {
	Options
	long chan struct{}
	optoutv1.UnimplementedSuppressionServiceServer
	optoutv1.UnimplementedSubscriptionServiceServer
	optoutv1.UnimplementedLinkServiceServer
	optoutv1.UnimplementedLedgerServiceServer
	optoutv1.UnimplementedAdminServiceServer
}

// NewServer makes the server. It fails when a method of the API has no row in the policy table, or a row no method.
func NewServer(o Options) (*Server, error) {
	h := &handlers{Options: o, long: make(chan struct{}, maxLong)}
	options := []grpc.ServerOption{
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.ConnectionTimeout(connectTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 30 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 30 * time.Minute, Time: 2 * time.Minute, Timeout: 20 * time.Second}),
		grpc.UnaryInterceptor(h.unary),
		grpc.StreamInterceptor(h.stream),
	}
	if o.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(o.TLS)))
	}
	s := &Server{grpc: grpc.NewServer(options...), health: health.NewServer()}
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	optoutv1.RegisterSuppressionServiceServer(s.grpc, h)
	optoutv1.RegisterSubscriptionServiceServer(s.grpc, h)
	optoutv1.RegisterLinkServiceServer(s.grpc, h)
	optoutv1.RegisterLedgerServiceServer(s.grpc, h)
	optoutv1.RegisterAdminServiceServer(s.grpc, h)
	reflection.Register(s.grpc)
	return s, checkPolicy(s.grpc.GetServiceInfo())
}

// Serve answers on l until the server stops.
func (s *Server) Serve(l net.Listener) error { return s.grpc.Serve(l) }

// GracefulStop takes no new calls and waits for those in flight.
func (s *Server) GracefulStop() { s.grpc.GracefulStop() }

// Stop ends everything at once.
func (s *Server) Stop() { s.grpc.Stop() }

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
		ctx, cancel = context.WithTimeout(ctx, unaryTimeout)
		defer cancel()
	}
	k, err := h.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if err := h.bounds(k, req); err != nil {
		return nil, err
	}
	return handle(withCaller(ctx, k), req)
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
	return handle(srv, &streamWithCaller{ss, withCaller(ss.Context(), k)})
}

type streamWithCaller struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *streamWithCaller) Context() context.Context { return s.ctx }

// finish turns what happened into an answer. A panic is a fault of ours, and never a verdict.
func (h *handlers) finish(method string, start time.Time, resp any, err error, panicked any) (any, error) {
	if panicked != nil {
		h.Log.Error("a call panicked", "method", method, "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
		resp, err = nil, errInternal
	}
	if err != nil {
		resp, err = nil, h.status(method, err)
	}
	if h.Observe != nil {
		h.Observe(method, status.Code(err), time.Since(start))
	}
	return resp, err
}

// takeLong takes the place of one verification or backup.
func (h *handlers) takeLong() (release func(), err error) {
	select {
	case h.long <- struct{}{}:
		return func() { <-h.long }, nil
	default:
		return nil, errBusy
	}
}
