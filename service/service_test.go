package service_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
	"optout/service"
)

func config(t *testing.T) service.Config {
	return service.Config{Data: filepath.Join(t.TempDir(), "data"), GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0", PublicURL: "http://127.0.0.1:7080"}
}

// refuses checks that a service does not start, and says why.
func refuses(t *testing.T, cfg service.Config, want string) {
	t.Helper()
	s, err := service.New(t.Context(), cfg)
	if err == nil {
		s.Close()
		t.Fatalf("it starts, want %q", want)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

func startStop(t *testing.T, cfg service.Config) {
	t.Helper()
	s, err := service.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFirstStartMakesPrivateFiles(t *testing.T) {
	cfg := config(t)
	startStop(t, cfg)
	for name, want := range map[string]os.FileMode{"": 0o700, "keys": 0o700, "keys/address-1.key": 0o600, "keys/link-1.key": 0o600, "keys/receipt-1.key": 0o600, "admin.key": 0o600,
		"optout.db": 0o600, "checkpoint": 0o600} {
		info, err := os.Stat(filepath.Join(cfg.Data, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: %v, %v, want %v", name, info, err, want)
		}
	}
	key, err := os.ReadFile(filepath.Join(cfg.Data, "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	startStop(t, cfg)
	if again, err := os.ReadFile(filepath.Join(cfg.Data, "admin.key")); err != nil || string(again) != string(key) {
		t.Error("the second start has changed the admin key")
	}
}

// A folder of an older version has no receipt key; one is made, and kept.
func TestMissingReceiptKeyIsMade(t *testing.T) {
	cfg := config(t)
	startStop(t, cfg)
	path := filepath.Join(cfg.Data, "keys", "receipt-1.key")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	startStop(t, cfg)
	made, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	startStop(t, cfg)
	if again, err := os.ReadFile(path); err != nil || string(again) != string(made) {
		t.Errorf("the next start has changed it: %v", err)
	}
	later := strings.NewReplacer("id: 1\n", "id: 300\n").Replace(string(made))
	if err := os.WriteFile(path, []byte(later), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(t, cfg, "not a whole key file") // the check value covers the id
}

// A service whose keys are missing or others would let everybody through: it does not start.
func TestMissingKeysStopTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(keys string) error
		want  string
	}{
		"no key folder":       {os.RemoveAll, "holds no address key"},
		"address key missing": {func(k string) error { return os.Remove(k + "/address-1.key") }, "holds no address key"},
		"link key missing":    {func(k string) error { return os.Remove(k + "/link-1.key") }, "link key 1"},
		"another address key": {func(k string) error {
			os.Remove(k + "/address-1.key")
			other := config(t)
			startStop(t, other)
			b, err := os.ReadFile(filepath.Join(other.Data, "keys", "address-1.key"))
			if err != nil {
				return err
			}
			return os.WriteFile(k+"/address-1.key", b, 0o600)
		}, "not the one this ledger was made with"},
		"readable by others": {func(k string) error { return os.Chmod(k+"/address-1.key", 0o644) }, "chmod 0600"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			startStop(t, cfg)
			if err := c.spoil(filepath.Join(cfg.Data, "keys")); err != nil {
				t.Fatal(err)
			}
			refuses(t, cfg, c.want)
		})
	}
}

func TestUnsafeConfigurationsAreRefused(t *testing.T) {
	for want, change := range map[string]func(*service.Config){
		"needs TLS":         func(c *service.Config) { c.GRPC = "0.0.0.0:0" },
		"--http":            func(c *service.Config) { c.HTTP = "" },
		"public_url":        func(c *service.Config) { c.PublicURL = "mail.example.com" },
		"mail_domain":       func(c *service.Config) { c.MailDomain = "not a domain" },
		"--trusted-proxy":   func(c *service.Config) { c.TrustedProxies = []string{"everybody"} },
		"--tls-key":         func(c *service.Config) { c.TLSCert = "cert.pem" },
		"only the embedded": func(c *service.Config) { c.Store = "postgres://u:secret@db/x" },
	} {
		cfg := config(t)
		change(&cfg)
		refuses(t, cfg, want)
	}
	cfg := config(t)
	s, err := service.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	second := cfg
	if s, err := service.New(t.Context(), second); err == nil {
		s.Close()
		t.Error("a second service opens the same data folder")
	}
}

// makeCA makes an authority and a certificate for localhost, which serves as client certificate too.
func makeCA(t *testing.T) (caFile, certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	make := func(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if parentKey == nil {
			parentKey = key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		return der, key
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, caKey := make(ca, ca, nil)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	leafDER, leafKey := make(leaf, ca, caKey)
	secret, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return write("ca.pem", "CERTIFICATE", caDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "PRIVATE KEY", secret)
}

// With --tls-client-ca gRPC answers only who brings a certificate of that authority; recipients' pages stay open to all.
func TestMutualTLS(t *testing.T) {
	ca, cert, key := makeCA(t)
	p := startNew(t, "--tls-cert", cert, "--tls-key", key, "--tls-client-ca", ca, "--public-url", "https://localhost")
	defer p.kill()
	pemCA, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pemCA)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config *tls.Config
		want   codes.Code
	}{
		"with certificate":    {&tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{pair}}, codes.OK},
		"without certificate": {&tls.Config{RootCAs: roots, ServerName: "localhost"}, codes.Unavailable},
	} {
		conn, err := grpc.NewClient("passthrough:///"+p.addr.GRPC, grpc.WithTransportCredentials(credentials.NewTLS(c.config)))
		if err != nil {
			t.Fatal(err)
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+p.key)
		_, err = optoutv1.NewAdminServiceClient(conn).ListSenders(ctx, &optoutv1.ListSendersRequest{})
		if status.Code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
		conn.Close()
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}}}
	defer web.CloseIdleConnections()
	// The same API as JSON is no way round.
	with := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{pair}}}}
	defer with.CloseIdleConnections()
	for want, client := range map[int]*http.Client{http.StatusForbidden: web, http.StatusOK: with} {
		req, err := http.NewRequest(http.MethodPost, "https://"+p.addr.HTTP+"/optout.v1.AdminService/ListSenders", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+p.key)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("JSON: %d, want %d", resp.StatusCode, want)
		}
	}
	resp, err := web.Get("https://" + p.addr.HTTP + "/u/x")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 404 || resp.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("the page over TLS: %s, %v", resp.Status, resp.Header)
	}
	plain, err := http.Get("http://" + p.addr.HTTP + "/u/x")
	if err == nil {
		plain.Body.Close()
		if plain.StatusCode == 200 {
			t.Error("the page answers in plaintext")
		}
	}
}

// startNew starts the program on a new folder.
func startNew(t *testing.T, extra ...string) *process {
	t.Helper()
	p, err := serve(t, filepath.Join(t.TempDir(), "data"), extra...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Old links open after rotation and restart; new ones are signed with the new key.
func TestLinkKeysRotate(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p := newInstallation(t, data)
	people := recipients{seed: 2}
	addresses, tokens := people.take(t, p, 2)
	rotated, err := optoutv1.NewAdminServiceClient(p.conn).RotateLinkKey(p.ctx(), &optoutv1.RotateLinkKeyRequest{})
	if err != nil || rotated.Key.Id != 2 || !rotated.Key.Current {
		t.Fatalf("%v, %v", rotated, err)
	}
	if !p.press(tokens[0]) {
		t.Error("a link of the old key does not open after rotation")
	}
	newer, newTokens := people.take(t, p, 1)
	p.kill()
	if p, err = serve(t, data); err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	if !p.press(tokens[1]) || !p.press(newTokens[0]) {
		t.Error("a link does not open after the restart")
	}
	if lost := p.inForce(t, append(addresses, newer...)); len(lost) != 0 {
		t.Errorf("not in force: %v", lost)
	}
	insp, err := optoutv1.NewLinkServiceClient(p.conn).InspectLink(p.ctx(), &optoutv1.InspectLinkRequest{Token: newTokens[0]})
	if err != nil || insp.LinkKeyId != 2 {
		t.Errorf("%v, %v", insp, err)
	}
}

// A backup taken while people opt out restores to a ledger that verifies and has what was acknowledged before it began.
func TestBackupAndRestore(t *testing.T) {
	dir := t.TempDir()
	p := newInstallation(t, filepath.Join(dir, "data"))
	people := recipients{seed: 3}
	before, tokens := people.take(t, p, 500)
	if got := p.load(before, tokens, 8, nil); len(got) != 500 {
		t.Fatalf("%d acknowledged", len(got))
	}
	during, tokens := people.take(t, p, 5000)
	stop, loaded := make(chan struct{}), make(chan []string)
	go func() { loaded <- p.load(during, tokens, 8, stop) }()
	for name, withKeys := range map[string]bool{"with-keys": true, "without-keys": false} {
		s, err := optoutv1.NewAdminServiceClient(p.conn).Backup(p.ctx(), &optoutv1.BackupRequest{Directory: filepath.Join(dir, name), WithKeys: withKeys})
		if err != nil {
			t.Fatal(err)
		}
		var last *optoutv1.BackupResponse
		for {
			m, err := s.Recv()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			last = m
		}
		if last == nil || !last.Done || last.Position.Number < 500 {
			t.Errorf("%s: %v", name, last)
		}
	}
	close(stop)
	<-loaded
	p.kill()
	if _, err := service.Restore(t.Context(), filepath.Join(dir, "without-keys"), filepath.Join(dir, "r0"), ""); err == nil || !strings.Contains(err.Error(), "--keys") {
		t.Errorf("restored without keys: %v", err)
	}
	if _, err := service.Restore(t.Context(), filepath.Join(dir, "with-keys"), filepath.Join(dir, "data"), ""); err == nil {
		t.Error("restored over a ledger")
	}
	rep, err := service.Restore(t.Context(), filepath.Join(dir, "with-keys"), filepath.Join(dir, "restored"), "")
	if err != nil || rep.FirstBad != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if rep, err := service.Restore(t.Context(), filepath.Join(dir, "without-keys"), filepath.Join(dir, "r2"), filepath.Join(dir, "data", "keys")); err != nil || rep.FirstBad != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	// The restored folder has no admin.key of its own; the old one still opens it.
	b, err := os.ReadFile(filepath.Join(dir, "data", "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "restored", "admin.key"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	q, err := serve(t, filepath.Join(dir, "restored"))
	if err != nil {
		t.Fatal(err)
	}
	defer q.kill()
	if lost := q.inForce(t, before); len(lost) != 0 {
		t.Errorf("%d opt-outs from before the backup are lost", len(lost))
	}
}

// SIGTERM drains and exits 0; health, readiness and metrics tell what is.
func TestAdminListenerAndShutdown(t *testing.T) {
	p := startNew(t)
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "optout_ledger_position"} {
		resp, err := http.Get("http://" + p.addr.Admin + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || !strings.Contains(string(b), want) {
			t.Errorf("%s: %s\n%.200s", path, resp.Status, b)
		}
		if strings.Contains(string(b), "@") {
			t.Errorf("%s shows an address", path)
		}
		if path != "/metrics" {
			continue
		}
		// Whoever watches a counter for growth must find it at 0, or its first event goes unseen.
		guide, err := os.ReadFile("../docs/mail-in.md")
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile("optout_[a-z_]+").FindAllString(string(guide), -1)
		for _, name := range append(names, `optout_mail_in_total{outcome="failed"} 0`, `optout_mail_in_total{outcome="opted_out"} 0`, `optout_mailbox_total{outcome="disconnected"} 0`) {
			if !strings.Contains(string(b), name) {
				t.Errorf("there is no metric %s", name)
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
	p.cmd.Process.Signal(os.Interrupt)
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("ended with %v\n%s", err, p.log.String())
	}
	p.conn.Close()
}
