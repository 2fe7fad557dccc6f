package sqlite

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"optout/service/ledger"
)

// BenchmarkAppend1 is one fsync for each entry; the rows/s of BenchmarkAppend256 divided by its own is what grouping gains.
func BenchmarkAppend1(b *testing.B)   { benchmarkAppend(b, 1, 0) }
func BenchmarkAppend256(b *testing.B) { benchmarkAppend(b, 256, 0) }

// BenchmarkAppend256Requests has a request id, at a random place of its index, for each entry.
func BenchmarkAppend256Requests(b *testing.B) { benchmarkAppend(b, 256, 256) }

func benchmarkAppend(b *testing.B, records, requests int) {
	ctx := context.Background()
	s, g := openAt(b, filepath.Join(diskDir(b), "optout.db")), newGrower()
	defer mustClose(b, s)
	var times []time.Duration
	var sum time.Duration
	b.ReportAllocs()
	for b.Loop() {
		c := g.commit(records, requests)
		began := time.Now()
		if err := s.Append(ctx, c); err != nil {
			b.Fatal(err)
		}
		took := time.Since(began)
		g.size += uint64(records)
		times, sum = append(times, took), sum+took
	}
	slices.Sort(times)
	b.ReportMetric(float64(g.size)/sum.Seconds(), "rows/s")
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}

func BenchmarkScan(b *testing.B) {
	const rows = 1_000_000
	ctx := context.Background()
	s, g := filled(b, rows)
	defer mustClose(b, s)
	b.ReportAllocs()
	for b.Loop() {
		n := uint64(0)
		if err := s.Scan(ctx, 1, g.size, func(ledger.Record) error { n++; return nil }); err != nil || n != g.size {
			b.Fatal(n, err)
		}
	}
	perRow := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / float64(g.size)
	b.ReportMetric(perRow, "ns/row")
	b.ReportMetric(1e9/perRow, "rows/s")
}

// BenchmarkRequest asks for ids that never came, among a million that did.
func BenchmarkRequest(b *testing.B) {
	s, g := filled(b, 1_000_000)
	defer mustClose(b, s)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		var id [16]byte
		binary.BigEndian.PutUint64(id[:], g.random.Uint64())
		if _, err := s.Request(ctx, 1, id); err != ledger.ErrNotFound {
			b.Fatal(err)
		}
	}
}

func filled(b *testing.B, rows uint64) (*Store, *grower) {
	s, g := openAt(b, filepath.Join(diskDir(b), "optout.db")), newGrower()
	for g.size < rows {
		if err := s.Append(context.Background(), g.commit(5000, 5000)); err != nil {
			b.Fatal(err)
		}
		g.size += 5000
	}
	return s, g
}

// diskDir is a folder on the disk of the checkout: the one for temporary files may be in memory, where fsync costs nothing.
func diskDir(b *testing.B) string {
	dir, err := os.MkdirTemp(".", "bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	return dir
}
