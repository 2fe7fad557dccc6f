package service_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	optoutv1 "optout/proto/optout/v1"
)

const (
	benchAddresses = 1_000_000
	benchBatch     = 1000
)

func benchAddress(i int) string { return fmt.Sprintf("person%d@example.com", i%(2*benchAddresses)) }

// BenchmarkBatchCheckSend is the CPU time that the service spends on an address of a BatchCheckSend of 1 000, at 1 M suppressed
// addresses, against what Redis spends on a member of an SMISMEMBER of 1 000 on a set of the same addresses. Both are processes
// of their own, fed by this one in turns; their own CPU time counts. Of a mailing list a few in a hundred are suppressed; with
// half of them the details of the refusals weigh as much as the checks. Goal: at most 1.0 of Redis.
func BenchmarkBatchCheckSend(b *testing.B) {
	if !haveAll("redis-server") {
		b.Skip("redis-server (Debian package redis-server) is not installed")
	}
	p := newInstallation(b, filepath.Join(b.TempDir(), "data"))
	defer p.kill()
	checks := optoutv1.NewSuppressionServiceClient(p.conn)
	for i := 0; i < benchAddresses; {
		r := &optoutv1.ImportSuppressionsRequest{Source: "bench"}
		for range 10000 {
			r.Rows = append(r.Rows, &optoutv1.ImportedSuppression{Address: benchAddress(i)})
			i++
		}
		if _, err := checks.ImportSuppressions(p.ctx(), r); err != nil {
			b.Fatal(err)
		}
	}
	redis := newRedis(b)
	for i := 0; i < benchAddresses; {
		args := []string{"SADD", "suppressed"}
		for range benchBatch {
			args = append(args, benchAddress(i))
			i++
		}
		redis.call(args...)
	}
	for _, percent := range []int{2, 50} {
		b.Run(fmt.Sprintf("suppressed=%d%%", percent), func(b *testing.B) { compareBatches(b, p, redis, percent) })
	}
}

func compareBatches(b *testing.B, p *process, redis *redisServer, percent int) {
	checks := optoutv1.NewSuppressionServiceClient(p.conn)
	// Asked about in an order that is not the order of writing.
	batch := func(n int) []string {
		addresses := make([]string, benchBatch)
		for i := range addresses {
			at := (n*benchBatch + i) * 7919 % benchAddresses
			if i%100 >= percent {
				at += benchAddresses
			}
			addresses[i] = benchAddress(at)
		}
		return addresses
	}
	b.ResetTimer()
	var ours, theirs time.Duration
	const turn = 64
	for n := 0; n < b.N; n += turn {
		before := cpu(b, p.cmd.Process.Pid)
		var callers sync.WaitGroup // as many calls at once as the Go client makes
		for c := range 4 {
			callers.Go(func() {
				for i := c; i < turn; i += 4 {
					resp, err := checks.BatchCheckSend(p.ctx(), &optoutv1.BatchCheckSendRequest{Topic: "news", Addresses: batch(n + i)})
					if err != nil || len(resp.Verdicts) != benchBatch {
						b.Error(err)
						return
					}
				}
			})
		}
		callers.Wait()
		ours += cpu(b, p.cmd.Process.Pid) - before
		before = cpu(b, redis.cmd.Process.Pid)
		for i := range turn {
			redis.call(append([]string{"SMISMEMBER", "suppressed"}, batch(n+i)...)...)
		}
		theirs += cpu(b, redis.cmd.Process.Pid) - before
	}
	perAddress := func(d time.Duration) float64 {
		return float64(d.Nanoseconds()) / float64((b.N+turn-1)/turn*turn*benchBatch)
	}
	b.ReportMetric(perAddress(ours), "cpu-ns/address")
	b.ReportMetric(perAddress(theirs), "redis-cpu-ns/address")
	b.ReportMetric(perAddress(ours)/perAddress(theirs), "of-redis")
}

// cpu is the CPU time of a process and its threads so far, from its scheduler's own account in nanoseconds.
func cpu(b *testing.B, pid int) (total time.Duration) {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		b.Fatal("no /proc")
	}
	for _, t := range tasks {
		text, err := os.ReadFile(t)
		if err != nil {
			continue // the thread has ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		total += time.Duration(ns)
	}
	return total
}

// redis is a Redis server of the benchmark's own.
type redisServer struct {
	b    *testing.B
	cmd  *exec.Cmd
	conn net.Conn
	r    *bufio.Reader
}

func newRedis(b *testing.B) *redisServer {
	b.Helper()
	socket := filepath.Join(b.TempDir(), "redis")
	r := &redisServer{b: b, cmd: exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no")}
	if err := r.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.cmd.Process.Kill(); r.cmd.Wait() })
	for range 100 {
		var err error
		if r.conn, err = net.Dial("unix", socket); err == nil {
			r.r = bufio.NewReader(r.conn)
			b.Cleanup(func() { r.conn.Close() })
			return r
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.Fatal("redis-server does not answer")
	return nil
}

// call sends a command and reads its answer, an integer or an array of integers.
func (r *redisServer) call(args ...string) {
	var out bytes.Buffer
	fmt.Fprintf(&out, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&out, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := r.conn.Write(out.Bytes()); err != nil {
		r.b.Fatal(err)
	}
	for lines := 1; lines > 0; lines-- {
		line, err := r.r.ReadString('\n')
		if err != nil || line[0] == '-' {
			r.b.Fatalf("redis: %q, %v", line, err)
		}
		if line[0] == '*' {
			n, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
			lines += n
		}
	}
}
