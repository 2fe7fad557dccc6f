package service_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"optout/service"
)

// Certificates are renewed every few weeks, and the service must not be restarted for it: each connection from then on gets the new one,
// and half-written or unusable files leave the old one in use.
func TestRenewedCertificate(t *testing.T) {
	_, cert, key := makeCA(t)
	var clock atomic.Int64
	cfg := config(t)
	cfg.TLSCert, cfg.TLSKey, cfg.PublicURL, cfg.Admin = cert, key, "https://localhost", "127.0.0.1:0"
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
	s, err := service.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	defer running.Wait()
	defer cancel()
	shown := func(addr string) []byte {
		t.Helper()
		clock.Add(int64(10 * time.Second))
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Raw
	}
	put := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	addr := s.Addresses()
	old := shown(addr.HTTP)
	_, cert2, key2 := makeCA(t)
	put(cert2, cert)
	if !slices.Equal(shown(addr.HTTP), old) {
		t.Error("a certificate without its key was taken")
	}
	put(key2, key)
	want, err := tls.LoadX509KeyPair(cert2, key2)
	if err != nil {
		t.Fatal(err)
	}
	for name, addr := range map[string]string{"pages": addr.HTTP, "gRPC": addr.GRPC, "admin": addr.Admin} {
		if got := shown(addr); !slices.Equal(got, want.Certificate[0]) {
			c, _ := x509.ParseCertificate(got)
			t.Errorf("%s: still %v", name, c.SerialNumber)
		}
	}
	for _, f := range []string{cert, key} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(shown(addr.HTTP), want.Certificate[0]) {
		t.Error("another is shown once the files are gone")
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer web.CloseIdleConnections()
	resp, err := web.Get("https://" + addr.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if line := fmt.Sprintf("\noptout_certificate_expiry_seconds %g\n", float64(want.Leaf.NotAfter.Unix())); !strings.Contains(string(metrics), line) {
		t.Errorf("no%s", line)
	}
}
