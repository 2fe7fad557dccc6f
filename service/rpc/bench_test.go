package rpc_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
)

// suppressed fills the ledger with n imported opt-outs.
func (r *rig) suppressed(n int) {
	r.t.Helper()
	rows := make([]ledger.ImportRow, 0, ledger.MaxImportRows)
	for i := 0; i < n; {
		rows = rows[:0]
		for ; i < n && len(rows) < cap(rows); i++ {
			rows = append(rows, ledger.ImportRow{Address: fmt.Sprintf("person%d@example.com", i)})
		}
		if _, err := r.ledger.Import(r.t.Context(), ledger.By{Role: ledger.RoleAdmin, Channel: ledger.ByAPI}, "", "bench", rows, false, false); err != nil {
			r.t.Fatal(err)
		}
	}
}

// writing opts new addresses out all the time, about a thousand a second, until the function returned is called.
func (r *rig) writing() (stop func()) {
	ended := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-ended:
				return
			case <-time.After(time.Millisecond):
				r.ledger.OptOut(r.t.Context(), ledger.By{Channel: ledger.ByAPI}, "", fmt.Sprintf("new%d@example.org", i), ledger.Scope{})
			}
		}
	})
	return func() { close(ended); writer.Wait() }
}

// BenchmarkCheckSend is CheckSend over gRPC at 1 M suppressed addresses, half of those asked about suppressed, with a writer
// running, against an empty method of the same server (health, which needs no credential). Both take turns in one run, so
// that whatever else the machine does bears on both. Goal: at least 0.8 of the empty method's requests a second.
func BenchmarkCheckSend(b *testing.B) {
	r := newRig(b, nil)
	const n = 1_000_000
	r.suppressed(n)
	defer r.writing()()
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { r.compare(b, callers, n) })
	}
}

func (r *rig) compare(b *testing.B, callers, known int) {
	conns := make([]*grpc.ClientConn, min(callers, 4))
	for i := range conns {
		conns[i] = r.dial().conn
	}
	ctx := r.ctx()
	empty := func(conn *grpc.ClientConn, _ int) error {
		_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	}
	asked := make([]string, 1<<16)
	for i := range asked {
		asked[i] = fmt.Sprintf("person%d@example.com", i*31%(2*known))
	}
	check := func(conn *grpc.ClientConn, i int) error {
		_, err := optoutv1.NewSuppressionServiceClient(conn).CheckSend(ctx, &optoutv1.CheckSendRequest{Topic: "news", Address: asked[i%len(asked)]})
		return err
	}
	run := func(calls int, call func(*grpc.ClientConn, int) error) time.Duration {
		var next atomic.Int64
		var done sync.WaitGroup
		start := time.Now()
		for c := range callers {
			done.Go(func() {
				for {
					i := int(next.Add(1))
					if i > calls {
						return
					}
					if err := call(conns[c%len(conns)], i); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		done.Wait()
		return time.Since(start)
	}
	run(1000, empty)
	run(1000, check)
	b.ResetTimer()
	var spent [2]time.Duration
	for done := 0; done < b.N; {
		turn := min(2000, b.N-done)
		spent[0] += run(turn, empty)
		spent[1] += run(turn, check)
		done += turn
	}
	b.ReportMetric(float64(b.N)/spent[0].Seconds(), "empty/s")
	b.ReportMetric(float64(b.N)/spent[1].Seconds(), "CheckSend/s")
	b.ReportMetric(spent[0].Seconds()/spent[1].Seconds(), "ratio")
}
