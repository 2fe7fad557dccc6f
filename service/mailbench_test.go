package service_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"optout/service/mailtest"

	"github.com/emersion/go-smtp"
)

// BenchmarkMailIn brings unsubscribe mail, each message for a person of its own, over 64 connections to the service and to a bare
// go-smtp server that appends each message to a file and syncs that before it answers, many at a time; in turn, each in a process of its own, with the
// same sender. The ratio is of the messages a second that were answered with 250. Goal: at least 0.5.
func BenchmarkMailIn(b *testing.B) {
	const messages = 6400
	ours := mailtest.FreeAddr(b)
	p := newInstallation(b, filepath.Join(b.TempDir(), "data"), "--smtp", ours, "--mail-domain", floodDomain)
	defer p.kill()
	sink := mailtest.FreeAddr(b)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), sinkEnv+"="+sink+","+filepath.Join(b.TempDir(), "kept"))
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	for range 500 {
		if c, err := net.Dial("tcp", sink); err == nil {
			c.Close()
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	people := recipients{seed: 1}
	var taken, synced time.Duration
	rounds := 0
	for b.Loop() {
		addresses, tokens := people.take(b, p, messages)
		synced += bring(b, sink, tokens)
		taken += bring(b, ours, tokens)
		if lost := p.inForce(b, addresses); len(lost) > 0 {
			b.Fatalf("%d of %d are not out", len(lost), messages)
		}
		rounds++
	}
	all := float64(rounds) * messages
	b.ReportMetric(synced.Seconds()/taken.Seconds(), "ratio")
	b.ReportMetric(all/taken.Seconds(), "taken/s")
	b.ReportMetric(all/synced.Seconds(), "sink/s")
	b.ReportMetric(0, "ns/op")
}

// bring sends a message to each of the tokens over 64 connections, and returns how long it took.
func bring(b *testing.B, addr string, tokens []string) time.Duration {
	b.Helper()
	const connections = 64
	start := time.Now()
	var all sync.WaitGroup
	for w := range connections {
		all.Go(func() {
			c, err := smtp.Dial(addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			for i := w; i < len(tokens); i += connections {
				text := fmt.Sprintf("From: p%d@example.com\r\nSubject: unsubscribe\r\nAuto-Submitted: auto-replied\r\nMessage-ID: <%d@mail.example.com>\r\n\r\nApple Mail sent this email to unsubscribe\r\n", i, i)
				if err := c.SendMail("p@example.com", []string{"u-" + tokens[i] + "@" + floodDomain}, strings.NewReader(text)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return time.Since(start)
}
