package service

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is the service's own, read again when its files change, as those of ACME do every few weeks: nothing need be restarted.
type certificate struct {
	certFile, keyFile string
	now               func() time.Time
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	// looked is when the files were last looked at, and stamps what they were like.
	looked time.Time
	stamps [2]stamp
	// failed: what is in the files cannot be used, perhaps because its owner or mode is still to be set.
	failed bool
}

// stamp tells one state of a file from the next.
type stamp struct {
	changed time.Time
	size    int64
}

// lookEvery is how often the files are looked at, at most.
const lookEvery = 10 * time.Second

// get is tls.Config's GetCertificate. A pair that cannot be used, such as a new certificate whose key is not written yet, leaves the
// one before in use.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if since := c.now().Sub(c.looked); since >= 0 && since < lookEvery {
		return c.current, nil
	}
	c.looked = c.now()
	changed := c.look() != c.stamps
	if !changed && !c.failed {
		return c.current, nil
	}
	err := c.load()
	c.failed = err != nil
	switch {
	case err == nil:
		c.log.Info("the certificate was read again", "ends", c.current.Leaf.NotAfter)
	case changed:
		c.log.Error("the new certificate cannot be used; the one before stays in use", "error", err)
	}
	return c.current, nil
}

func (c *certificate) look() (stamps [2]stamp) {
	for i, f := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(f); err == nil {
			stamps[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return stamps
}

// load reads the files. Callers hold mu, or are alone.
func (c *certificate) load() error {
	c.stamps = c.look() // before reading: what is written meanwhile is seen next time
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	c.current = &pair
	return nil
}

// ends is when the certificate in use ends, in Unix seconds; 0 without one.
func (c *certificate) ends() float64 {
	if c.certFile == "" {
		return 0
	}
	cert, _ := c.get(nil)
	return float64(cert.Leaf.NotAfter.Unix())
}

// tls reads the certificates, the service's own into cert: one configuration for recipients and mail servers, one that requires client certificates too
// where they are asked for. Both are nil without --tls-cert.
func (c *Config) tls(cert *certificate) (server, mutual *tls.Config, err error) {
	switch {
	case c.TLSCert == "" && c.TLSKey == "" && c.TLSClientCA == "":
		return nil, nil, nil
	case c.TLSCert == "" || c.TLSKey == "":
		return nil, nil, fmt.Errorf("--tls-cert and --tls-key go together; --tls-client-ca needs both")
	}
	if err := cert.load(); err != nil {
		return nil, nil, err
	}
	server = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.get}
	mutual = server.Clone()
	if c.TLSClientCA != "" {
		pem, err := os.ReadFile(c.TLSClientCA)
		if err != nil {
			return nil, nil, fmt.Errorf("--tls-client-ca: %w", err)
		}
		mutual.ClientCAs = x509.NewCertPool()
		if !mutual.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("--tls-client-ca: %s holds no PEM certificate", c.TLSClientCA)
		}
		mutual.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return server, mutual, nil
}

// optionalCertificates is the configuration of the public listener: recipients have no certificates, callers of the API may.
func optionalCertificates(server, mutual *tls.Config) *tls.Config {
	if server == nil || mutual.ClientCAs == nil {
		return server
	}
	c := server.Clone()
	c.ClientCAs, c.ClientAuth = mutual.ClientCAs, tls.VerifyClientCertIfGiven
	return c
}
