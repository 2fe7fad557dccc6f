package providertest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// SNS is the host of Amazon SNS of a region: it gives its signing certificate and takes confirmations.
type SNS struct {
	// Topic is the ARN of a topic.
	Topic string
	// Host is its host name, CertURL where its signing certificate is.
	Host, CertURL string
	// Client reaches it by its name, and nothing else.
	Client *http.Client
	// Fetches counts requests for the certificate, Confirmed those that confirm a subscription.
	Fetches, Confirmed atomic.Int32
	// Down makes it answer 500.
	Down atomic.Bool

	key *rsa.PrivateKey
	t   testing.TB
}

// NewSNS starts it.
func NewSNS(t testing.TB) *SNS {
	s := &SNS{t: t, Topic: "arn:aws:sns:eu-west-1:123456789012:ses-events", Host: "sns.eu-west-1.amazonaws.com"}
	s.CertURL = "https://" + s.Host + "/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
	var err error
	if s.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	signing := certificate(t, "sns.amazonaws.com", &s.key.PublicKey, s.key)
	host := certificate(t, s.Host, &s.key.PublicKey, s.key)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.Down.Load():
			w.WriteHeader(http.StatusInternalServerError)
		case strings.HasPrefix(r.URL.Path, "/SimpleNotificationService-0123"):
			s.Fetches.Add(1)
			pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: signing})
		case r.URL.Query().Get("Action") == "ConfirmSubscription" && r.URL.Query().Get("Token") != "":
			s.Confirmed.Add(1)
		default:
			s.Fetches.Add(1)
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{host}, PrivateKey: s.key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	root, err := x509.ParseCertificate(host)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == s.Host+":443" {
			addr = server.Listener.Addr().String()
		} else if h, _, _ := net.SplitHostPort(addr); h != "127.0.0.1" {
			return nil, fmt.Errorf("a test must not reach %s", addr)
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	s.Client = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	return s
}

// certificate makes a certificate that signs itself.
func certificate(t testing.TB, name string, public *rsa.PublicKey, key *rsa.PrivateKey) []byte {
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().AddDate(20, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Notification is a signed notification of SNS with a message, as version "1" or "2" of its signature.
func (s *SNS) Notification(version, id string, message any) map[string]string {
	text, ok := message.(string)
	if !ok {
		b, err := json.Marshal(message)
		if err != nil {
			s.t.Fatal(err)
		}
		text = string(b)
	}
	return s.Sign(version, map[string]string{"Type": "Notification", "MessageId": id, "TopicArn": s.Topic, "Message": text, "Timestamp": "2026-11-25T10:00:00.000Z",
		"UnsubscribeURL": "https://" + s.Host + "/?Action=Unsubscribe"})
}

// Confirmation is a signed SubscriptionConfirmation or UnsubscribeConfirmation.
func (s *SNS) Confirmation(kind string) map[string]string {
	return s.Sign("2", map[string]string{"Type": kind, "MessageId": "c-1", "Token": "2336412f", "TopicArn": s.Topic, "Message": "You have chosen to subscribe", "Timestamp": "2026-11-25T10:00:00.000Z",
		"SubscribeURL": "https://" + s.Host + "/?Action=ConfirmSubscription&TopicArn=" + s.Topic + "&Token=2336412f"})
}

// Sign signs the fields that SNS documents, in its order.
func (s *SNS) Sign(version string, m map[string]string) map[string]string {
	order := []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"}
	if m["Type"] != "Notification" {
		order = []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}
	}
	var b strings.Builder
	for _, name := range order {
		if v, ok := m[name]; ok {
			b.WriteString(name + "\n" + v + "\n")
		}
	}
	hash, sum := crypto.SHA256, sha256.Sum256([]byte(b.String()))
	digest := sum[:]
	if version == "1" {
		old := sha1.Sum([]byte(b.String()))
		hash, digest = crypto.SHA1, old[:]
	}
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.key, hash, digest)
	if err != nil {
		s.t.Fatal(err)
	}
	m["SignatureVersion"], m["Signature"], m["SigningCertURL"] = version, base64.StdEncoding.EncodeToString(signature), s.CertURL
	return m
}

// SendGridKey signs as SendGrid's Event Webhook does.
type SendGridKey struct{ key *ecdsa.PrivateKey }

// NewSendGridKey makes one.
func NewSendGridKey(t testing.TB) *SendGridKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &SendGridKey{k}
}

// Public is the verification key as SendGrid shows it.
func (k *SendGridKey) Public() string {
	der, err := x509.MarshalPKIXPublicKey(&k.key.PublicKey)
	if err != nil {
		panic(err) // of a key that was just made
	}
	return base64.StdEncoding.EncodeToString(der)
}

// Sign makes the header fields of a request.
func (k *SendGridKey) Sign(body []byte, at time.Time) http.Header {
	stamp := strconv.FormatInt(at.Unix(), 10)
	sum := sha256.Sum256(append([]byte(stamp), body...))
	signature, err := ecdsa.SignASN1(rand.Reader, k.key, sum[:])
	if err != nil {
		panic(err)
	}
	h := http.Header{}
	h.Set("X-Twilio-Email-Event-Webhook-Timestamp", stamp)
	h.Set("X-Twilio-Email-Event-Webhook-Signature", base64.StdEncoding.EncodeToString(signature))
	return h
}

// Mailgun is the body of a webhook of Mailgun, signed.
func Mailgun(key, token string, at time.Time, event any) []byte {
	stamp := strconv.FormatInt(at.Unix(), 10)
	b, err := json.Marshal(map[string]any{"signature": map[string]string{"timestamp": stamp, "token": token, "signature": hex.EncodeToString(mac([]byte(key), stamp+token))}, "event-data": event})
	if err != nil {
		panic(err)
	}
	return b
}

// Standard makes the header fields of a request that is signed as Standard Webhooks says.
func Standard(secret, id string, at time.Time, body []byte) http.Header {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		panic(err)
	}
	stamp := strconv.FormatInt(at.Unix(), 10)
	m := hmac.New(sha256.New, key)
	m.Write([]byte(id + "." + stamp + "." + string(body)))
	h := http.Header{}
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", stamp)
	h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(m.Sum(nil)))
	return h
}
