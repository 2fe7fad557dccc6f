package provider

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha1" // SignatureVersion 1 is defined with it
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
)

// snsMessage is a message of Amazon SNS over HTTPS.
type snsMessage struct {
	Type             string
	MessageID        string `json:"MessageId"`
	Token            string
	TopicArn         string
	Subject          *string
	Message          string
	Timestamp        string
	SignatureVersion string
	Signature        string
	SigningCertURL   string
	SubscribeURL     string
}

// Types of SNS messages.
const (
	snsNotification = "Notification"
	snsSubscribe    = "SubscriptionConfirmation"
	snsUnsubscribe  = "UnsubscribeConfirmation"
)

// signed is what the signature covers: name and value of these fields, a line each, in the order of their names.
func (m *snsMessage) signed() []byte {
	var b strings.Builder
	put := func(name, value string) { b.WriteString(name + "\n" + value + "\n") }
	put("Message", m.Message)
	put("MessageId", m.MessageID)
	if m.Type == snsNotification {
		if m.Subject != nil {
			put("Subject", *m.Subject)
		}
	} else {
		put("SubscribeURL", m.SubscribeURL)
	}
	put("Timestamp", m.Timestamp)
	if m.Type != snsNotification {
		put("Token", m.Token)
	}
	put("TopicArn", m.TopicArn)
	put("Type", m.Type)
	return []byte(b.String())
}

// verify checks the signature: RSA PKCS #1 v1.5 over SHA-1 (version 1) or SHA-256 (version 2).
func (m *snsMessage) verify(key *rsa.PublicKey) error {
	signature, err := base64.StdEncoding.DecodeString(m.Signature)
	if err != nil {
		return ErrForged
	}
	switch m.SignatureVersion {
	case "1":
		sum := sha1.Sum(m.signed())
		err = rsa.VerifyPKCS1v15(key, crypto.SHA1, sum[:], signature)
	case "2":
		sum := sha256.Sum256(m.signed())
		err = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature)
	default:
		return ErrForged
	}
	if err != nil {
		return ErrForged
	}
	return nil
}

// snsARN takes the region out of the ARN of a topic.
var snsARN = regexp.MustCompile(`^arn:aws(?:-cn|-us-gov)?:sns:([a-z0-9-]{3,32}):[0-9]{12}:[A-Za-z0-9_-]{1,256}$`)

// snsHost is the one host whose certificates and confirmations count for a topic.
func snsHost(arn string) (string, bool) {
	m := snsARN.FindStringSubmatch(arn)
	if m == nil {
		return "", false
	}
	host := "sns." + m[1] + ".amazonaws.com"
	if strings.HasPrefix(m[1], "cn-") {
		host += ".cn"
	}
	return host, true
}

// snsURL checks that a URL in a message leads to the host of the topic, over HTTPS, and nowhere else.
func snsURL(raw, host string) (*url.URL, bool) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" || u.Host != host || u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return nil, false
	}
	return u, true
}

// certificates fetches and keeps the certificates that SNS signs with.
type certificates struct {
	client *http.Client
	mu     sync.Mutex
	known  map[string]certificate
	// fetching is held while one is fetched; who has theirs does not wait for it.
	fetching sync.Mutex
	// tries, under fetching, are when certificates were fetched lately, so that forged messages cannot make us fetch without end.
	tries []time.Time
}

// certificate is a key and how long it counts; without a key, the URL gave none.
type certificate struct {
	key        *rsa.PublicKey
	from, till time.Time
}

// Bounds of fetching certificates.
const (
	maxCertificates    = 16
	maxCertificate     = 64 << 10
	maxTriesPerMinute  = 30
	rememberedFailures = time.Minute
)

// snsCertificate is the path of a signing certificate.
var snsCertificate = regexp.MustCompile(`^/SimpleNotificationService-[A-Za-z0-9]{8,64}\.pem$`)

// key returns the public key that a URL of the host gives. Errors: ErrForged, ErrLater.
func (c *certificates) key(ctx context.Context, raw, host string, now time.Time) (*rsa.PublicKey, error) {
	u, ok := snsURL(raw, host)
	if !ok || u.RawQuery != "" || !snsCertificate.MatchString(u.Path) {
		return nil, ErrForged
	}
	if k, ok := c.find(u.Path, now); ok {
		return k.use(now)
	}
	c.fetching.Lock()
	defer c.fetching.Unlock()
	if k, ok := c.find(u.Path, now); ok { // somebody else has fetched it meanwhile
		return k.use(now)
	}
	for len(c.tries) > 0 && now.Sub(c.tries[0]) >= time.Minute {
		c.tries = c.tries[1:]
	}
	if len(c.tries) >= maxTriesPerMinute {
		return nil, fmt.Errorf("%w: too many certificates were asked for", ErrLater)
	}
	c.tries = append(c.tries, now)
	body, status, err := snsGet(ctx, c.client, u, maxCertificate)
	if err != nil || status >= 500 || status == http.StatusTooManyRequests {
		return nil, fmt.Errorf("%w: the signing certificate cannot be fetched", ErrLater)
	}
	k := certificate{till: now.Add(rememberedFailures)}
	if status == http.StatusOK {
		if read, err := readCertificate(body); err == nil {
			k = read
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[string]certificate{}
	}
	if len(c.known) >= maxCertificates { // failures go first, so that forged messages never push out what genuine ones need
		maps.DeleteFunc(c.known, func(_ string, k certificate) bool { return k.key == nil || !now.Before(k.till) })
	}
	if len(c.known) >= maxCertificates {
		clear(c.known)
	}
	c.known[u.Path] = k
	return k.use(now)
}

// find looks for a certificate that still counts, or for a failure that is remembered.
func (c *certificates) find(path string, now time.Time) (certificate, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.known[path]
	return k, ok && now.Before(k.till)
}

// use returns the key, if it counts now.
func (k certificate) use(now time.Time) (*rsa.PublicKey, error) {
	if k.key == nil || now.Before(k.from) || !now.Before(k.till) {
		return nil, ErrForged
	}
	return k.key, nil
}

// readCertificate reads a PEM certificate. TLS has shown that it comes from the host of SNS, so no chain is built: the file holds
// none.
func readCertificate(text []byte) (certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return certificate{}, errors.New("no certificate")
	}
	x, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return certificate{}, err
	}
	key, ok := x.PublicKey.(*rsa.PublicKey)
	if !ok || key.Size() < 256 {
		return certificate{}, errors.New("no RSA key of 2048 bits")
	}
	return certificate{key, x.NotBefore, x.NotAfter}, nil
}

// snsGet fetches from SNS. It follows no redirect and reads at most limit octets.
func snsGet(ctx context.Context, client *http.Client, u *url.URL, limit int64) ([]byte, int, error) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	return body, resp.StatusCode, err
}
