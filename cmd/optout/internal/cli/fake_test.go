package cli

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	optoutv1 "optout/proto/optout/v1"
)

// fake answers as no real service would on demand: late, wrongly, or not at all. What a real service answers is tested with one.
type fake struct {
	optoutv1.UnimplementedSuppressionServiceServer
	optoutv1.UnimplementedAdminServiceServer
	optoutv1.UnimplementedLedgerServiceServer
	optoutv1.UnimplementedFeedbackServiceServer

	check  func(*optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error)
	imp    func(*optoutv1.ImportSuppressionsRequest) (*optoutv1.ImportSuppressionsResponse, error)
	topics func(context.Context) (*optoutv1.ListTopicsResponse, error)
	list   func(*optoutv1.ListQueueRequest) (*optoutv1.ListQueueResponse, error)
	decide func(*optoutv1.DecideQueueRequest) (*optoutv1.DecideQueueResponse, error)
	submit func(*optoutv1.SubmitReportRequest) (*optoutv1.SubmitReportResponse, error)
	verify func(grpc.ServerStreamingServer[optoutv1.VerifyResponse]) error

	mu   sync.Mutex
	keys []string // the credentials that came
}

func (f *fake) BatchCheckSend(_ context.Context, q *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
	return f.check(q)
}

func (f *fake) ImportSuppressions(_ context.Context, q *optoutv1.ImportSuppressionsRequest) (*optoutv1.ImportSuppressionsResponse, error) {
	return f.imp(q)
}

func (f *fake) ListTopics(ctx context.Context, _ *optoutv1.ListTopicsRequest) (*optoutv1.ListTopicsResponse, error) {
	return f.topics(ctx)
}

func (f *fake) Verify(_ *optoutv1.VerifyRequest, s grpc.ServerStreamingServer[optoutv1.VerifyResponse]) error {
	return f.verify(s)
}

func (f *fake) ListQueue(_ context.Context, q *optoutv1.ListQueueRequest) (*optoutv1.ListQueueResponse, error) {
	return f.list(q)
}

func (f *fake) DecideQueue(_ context.Context, q *optoutv1.DecideQueueRequest) (*optoutv1.DecideQueueResponse, error) {
	return f.decide(q)
}

func (f *fake) SubmitReport(_ context.Context, q *optoutv1.SubmitReportRequest) (*optoutv1.SubmitReportResponse, error) {
	return f.submit(q)
}

// serve starts the fake and returns the variables by which commands find it.
func (f *fake) serve(t *testing.T) (env []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, q any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		f.mu.Lock()
		f.keys = append(f.keys, strings.Join(md.Get("authorization"), ","))
		f.mu.Unlock()
		return next(ctx, q)
	}))
	optoutv1.RegisterSuppressionServiceServer(s, f)
	optoutv1.RegisterAdminServiceServer(s, f)
	optoutv1.RegisterLedgerServiceServer(s, f)
	optoutv1.RegisterFeedbackServiceServer(s, f)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return []string{"OPTOUT_SERVER=" + l.Addr().String(), "OPTOUT_KEY=hunter2"}
}
