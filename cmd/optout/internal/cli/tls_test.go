package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificates makes an authority, and a certificate for 127.0.0.1 and for a client, as PEM files in a folder.
func certificates(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var authority *x509.Certificate
	var authorityKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
		if authority == nil {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage, c.IPAddresses = true, true, x509.KeyUsageCertSign, nil, nil
			authority, authorityKey = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, authority, &key.PublicKey, authorityKey)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".pem", "CERTIFICATE", der)
		if der, err = x509.MarshalECPrivateKey(key); err != nil {
			t.Fatal(err)
		}
		write(name+".key", "EC PRIVATE KEY", der)
	}
	return dir
}

func TestMutualTLS(t *testing.T) {
	dir := certificates(t)
	pem := func(name string) string { return filepath.Join(dir, name) }
	in := install(t, filepath.Join(t.TempDir(), "data"), "--tls-cert", pem("server.pem"), "--tls-key", pem("server.key"), "--tls-client-ca", pem("ca.pem"))
	in.env = append(in.env, "OPTOUT_TIMEOUT=1s")
	both := []string{"--tls-ca", pem("ca.pem"), "--tls-cert", pem("client.pem"), "--tls-key", pem("client.key")}
	in.do(t, exitOK, append([]string{"topic", "list"}, both...)...)
	for name, args := range map[string][]string{
		"plaintext":                nil,
		"plaintext, out loud":      append([]string{"--plaintext"}, both...),
		"no client certificate":    both[:2],
		"the system's authorities": both[2:],
	} {
		if stderr := in.do(t, exitError, append([]string{"topic", "list"}, args...)...); strings.Contains(stderr, readKey(t, in.data)) {
			t.Errorf("%s: the error shows the key: %q", name, stderr)
		}
	}
}

// Off loopback nothing is sent in plaintext unless that is said out loud.
func TestTransport(t *testing.T) {
	for _, c := range []struct {
		to   connection
		want bool // whether the client's own rule is overridden
	}{
		{connection{server: "127.0.0.1:1"}, false}, {connection{server: "[::1]:1"}, false}, {connection{server: "localhost:1"}, false},
		{connection{server: "192.0.2.1:1"}, true}, {connection{server: "mail.example.com:1"}, true}, {connection{server: "127.0.0.1.example.com:1"}, true},
		{connection{server: "192.0.2.1:1", plaintext: true}, true},
	} {
		if o, err := c.to.transport(); err != nil || (o != nil) != c.want {
			t.Errorf("%s: %v, %v", c.to.server, o != nil, err)
		}
	}
}
