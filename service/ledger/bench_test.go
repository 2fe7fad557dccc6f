package ledger_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"optout/service/address"
	"optout/service/ledger"
)

// suppressed fills a ledger with n imported opt-outs.
func suppressed(b *testing.B, w *world, n int) {
	b.Helper()
	rows := make([]ledger.ImportRow, 0, ledger.MaxImportRows)
	for i := 0; i < n; {
		rows = rows[:0]
		for ; i < n && len(rows) < cap(rows); i++ {
			rows = append(rows, ledger.ImportRow{Address: fmt.Sprintf("person%d@example.com", i)})
		}
		if _, err := w.Import(w.ctx(), w.admin(), "", "bench", rows, false, false); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheck is CheckSend in process at 1 M suppressed addresses, half of those asked about suppressed, with a writer
// running. Goal: under 1 µs and 0 allocations.
func BenchmarkCheck(b *testing.B) {
	w := newWorld(b)
	w.now = time.Now()
	suppressed(b, w, 1_000_000)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				w.OptOut(w.ctx(), ledger.By{Channel: ledger.ByAPI}, "", fmt.Sprintf("new%d@example.org", i), ledger.Scope{})
			}
		}
	})
	asked := make([]string, 1<<16)
	for i := range asked {
		asked[i] = fmt.Sprintf("person%d@example.com", i*31)
	}
	var v ledger.Verdict
	req := ledger.CheckRequest{Topic: "news"}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		req.Address = asked[i&(len(asked)-1)]
		if err := w.Check(w.ctx(), &req, &v); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	close(stop)
	writer.Wait()
	n, octets := w.Known()
	b.ReportMetric(float64(octets)/float64(n), "B/address")
}

// BenchmarkOptOut is acknowledged opt-outs in process: 256 callers against one commit each, on the same disk in one run.
// Goal: at least 20 times.
func BenchmarkOptOut(b *testing.B) {
	var alone float64
	run := func(b *testing.B, callers int) float64 {
		w := newWorld(b)
		w.now = time.Now()
		keys := make([]address.Key, b.N)
		for i := range keys {
			keys[i] = w.key(fmt.Sprintf("p%d@example.com", i))
		}
		all := w.number("ALL")
		var next atomic.Int64
		var done sync.WaitGroup
		b.ResetTimer()
		for range callers {
			done.Go(func() {
				for {
					i := next.Add(1) - 1
					if i >= int64(b.N) {
						return
					}
					if _, err := w.Press(w.ctx(), ledger.By{Channel: ledger.ByOneClick}, all, 1, keys[i]); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		done.Wait()
		b.StopTimer()
		rate := float64(b.N) / b.Elapsed().Seconds()
		b.ReportMetric(rate, "acks/s")
		b.ReportMetric(float64(b.N)/float64(w.Counters().Commits.Load()), "acks/commit")
		return rate
	}
	b.Run("callers=1", func(b *testing.B) { alone = run(b, 1) })
	b.Run("callers=256", func(b *testing.B) {
		if rate := run(b, 256); alone > 0 {
			b.ReportMetric(rate/alone, "times-alone")
		}
	})
}
