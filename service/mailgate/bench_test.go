package mailgate_test

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"optout/service"
	"optout/service/mailtest"
)

// BenchmarkGate sends the same messages of 10 KB over 32 connections straight to a mail server and through the gate to the same one,
// in turn, and reports the ratio of their rates, and the 99th percentile of the time from a recipient's last check to the server's
// acceptance. Two servers: one that syncs each message to disk, and a real Postfix.
func BenchmarkGate(b *testing.B) {
	specs, _ := dkimKeys(b)
	for _, behind := range []string{"fsync", "postfix"} {
		for _, signing := range []string{"unsigned", "ed25519", "rsa2048"} {
			b.Run(behind+"/"+signing, func(b *testing.B) {
				r := newRig(b, func(c *service.Config) {
					c.Gate.Rate, c.Admin = 1<<20, "127.0.0.1:0"
					switch signing {
					case "ed25519":
						c.Gate.DKIM = specs[1:]
					case "rsa2048":
						c.Gate.DKIM = specs[:1]
					}
					if behind == "postfix" {
						c.Gate.Upstream = mailtest.StartPostfix(b, "127.0.0.1:1", "relayhost =", "default_transport = discard", "smtpd_peername_lookup = no",
							"default_process_limit = 100").Addr
					}
				}, nil)
				var mu sync.Mutex
				f, err := os.Create(b.TempDir() + "/kept")
				if err != nil {
					b.Fatal(err)
				}
				defer f.Close()
				r.sink.Refuse(nil, func(a *mailtest.Message) error {
					mu.Lock()
					defer mu.Unlock()
					if _, err := f.WriteString(a.Text); err != nil {
						return err
					}
					return f.Sync()
				})
				upstream := r.sink.Addr
				if behind == "postfix" {
					upstream = r.upstream
				}
				const messages = 1600
				var straight, through time.Duration
				n := 0
				for b.Loop() {
					straight += load(b, upstream, "", messages, n)
					through += load(b, r.gate, r.secret, messages, n+1)
					n += 2
				}
				rounds := float64(n) / 2
				b.ReportMetric(straight.Seconds()/through.Seconds(), "ratio")
				b.ReportMetric(messages*rounds/straight.Seconds(), "straight/s")
				b.ReportMetric(messages*rounds/through.Seconds(), "gate/s")
				b.ReportMetric(quantile(b, r.svc.Admin, "optout_gate_check_to_accepted_seconds", 0.99)*1000, "p99-ms")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// load sends messages to a server over 32 connections.
func load(b *testing.B, addr, secret string, messages, round int) time.Duration {
	b.Helper()
	text := mailText() + long(10<<10)
	start := time.Now()
	var all sync.WaitGroup
	for w := range 32 {
		all.Go(func() {
			c, err := smtp.Dial(addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			if secret != "" {
				if err := c.Auth(sasl.NewPlainClient("", "x", secret)); err != nil {
					b.Error(err)
					return
				}
			}
			for i := range messages / 32 {
				m := strings.Replace(text, "<1@", fmt.Sprintf("<%d-%d-%d@", round, w, i), 1)
				if _, _, err := sendOn(c, m, fmt.Sprintf("p%d-%d@example.com", w, i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return time.Since(start)
}

// quantile reads a histogram at /metrics.
func quantile(b *testing.B, admin, name string, q float64) float64 {
	b.Helper()
	resp, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	var bounds, counts []float64
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), name+`_bucket{le="`)
		if !ok {
			continue
		}
		le, count, _ := strings.Cut(rest, `"} `)
		bound, err := strconv.ParseFloat(le, 64)
		if err != nil {
			b.Fatal(err)
		}
		n, err := strconv.ParseFloat(count, 64)
		if err != nil {
			b.Fatal(err)
		}
		bounds, counts = append(bounds, bound), append(counts, n)
	}
	if len(counts) == 0 {
		b.Fatal("no histogram")
	}
	want := q * counts[len(counts)-1]
	for i, n := range counts {
		if n >= want {
			return bounds[i]
		}
	}
	return 0
}
