package mailgate_test

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"optout/client"
	"optout/client/clienttest"
	optoutv1 "optout/proto/optout/v1"
	"optout/service"
	"optout/service/mailtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a real service with the gate on, before a real SMTP server.
type rig struct {
	t    testing.TB
	svc  *clienttest.Service
	c    *client.Client
	gate string
	// upstream is the server behind the gate.
	upstream string
	sink     *mailtest.Sink
	secret   string // of a mailer's key whose default topic is news
	number   uint32 // of that key
}

// newRig starts a gate. change, if not nil, changes its configuration; key that of the credential.
func newRig(t testing.TB, change func(*service.Config), key func(*optoutv1.ApiKey)) *rig {
	t.Helper()
	r := &rig{t: t, sink: mailtest.NewSink(t)}
	var cert string
	r.svc = clienttest.Start(t, func(c *service.Config) {
		c.PublicURL, c.MailDomain = "https://mail.example.com", "unsub.example.com"
		c.Gate.Listen, c.Gate.Upstream = "127.0.0.1:0", r.sink.Addr
		if change != nil {
			change(c)
		}
		cert, r.upstream = c.TLSCert, c.Gate.Upstream
	})
	r.gate = r.svc.Gate
	var options []client.Option
	if cert != "" {
		options = append(options, client.WithTLS(tlsFor(poolOf(t, cert), "localhost")))
	}
	r.c = r.svc.Client(t, options...)
	for _, topic := range []*optoutv1.Topic{
		{Name: "news"},
		{Name: "receipts", Class: optoutv1.TopicClass_TOPIC_CLASS_TRANSACTIONAL},
		{Name: "reset", Class: optoutv1.TopicClass_TOPIC_CLASS_REQUIRED, Ground: optoutv1.RequiredGround_REQUIRED_GROUND_ANSWER, Justification: "They asked for it."},
		{Name: "law", Class: optoutv1.TopicClass_TOPIC_CLASS_REQUIRED, Ground: optoutv1.RequiredGround_REQUIRED_GROUND_LAW, Justification: "The law demands it."},
	} {
		if _, err := r.admin().CreateTopic(t.Context(), &optoutv1.CreateTopicRequest{Topic: topic}); err != nil {
			t.Fatal(err)
		}
	}
	k := &optoutv1.ApiKey{Role: optoutv1.Role_ROLE_MAILER, Label: "shop", DefaultTopic: "news"}
	if key != nil {
		key(k)
	}
	made, err := r.admin().CreateApiKey(t.Context(), &optoutv1.CreateApiKeyRequest{Key: k})
	if err != nil {
		t.Fatal(err)
	}
	r.secret, r.number = made.Secret, made.Key.Number
	return r
}

func (r *rig) admin() optoutv1.AdminServiceClient { return optoutv1.NewAdminServiceClient(r.c.Conn()) }

func (r *rig) optOut(addr string) {
	r.t.Helper()
	if _, err := r.c.Unsubscribe(r.t.Context(), addr, nil); err != nil {
		r.t.Fatal(err)
	}
}

// login opens an authenticated session with the gate.
func (r *rig) login() *smtp.Client {
	r.t.Helper()
	c, err := smtp.Dial(r.gate)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if err := c.Auth(sasl.NewPlainClient("", "shop", r.secret)); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// send sends a message through the gate to recipients; each that is refused is in refused, and err is the answer to the message.
func (r *rig) send(message string, to ...string) (refused map[string]*smtp.SMTPError, answer string, err error) {
	r.t.Helper()
	c := r.login()
	defer c.Quit()
	return sendOn(c, message, to...)
}

func sendOn(c *smtp.Client, message string, to ...string) (refused map[string]*smtp.SMTPError, answer string, err error) {
	refused = map[string]*smtp.SMTPError{}
	if err := c.Mail("shop@example.com", nil); err != nil {
		return nil, "", err
	}
	for _, a := range to {
		if err := c.Rcpt(a, nil); err != nil {
			var e *smtp.SMTPError
			if !errors.As(err, &e) {
				return nil, "", err
			}
			refused[a] = e
		}
	}
	if len(refused) == len(to) {
		return refused, "", c.Reset()
	}
	w, err := c.Data()
	if err != nil {
		return refused, "", err
	}
	if _, err := io.WriteString(w, message); err != nil {
		return refused, "", err
	}
	resp, err := w.CloseWithResponse()
	if err != nil {
		return refused, "", err
	}
	return refused, resp.StatusText, nil
}

// mailText is a message as a program writes it.
func mailText(fields ...string) string {
	return strings.Join(append(fields, "From: Shop <shop@example.com>", "To: you@example.com", "Subject: hello", "Date: Mon, 23 Nov 2026 10:00:00 +0000",
		"Message-ID: <1@shop.example.com>", "MIME-Version: 1.0", "Content-Type: text/plain", "", "Hello.", ".", "..dots", "  trailing  ", ""), "\r\n")
}

// dkimKeys writes an RSA and an Ed25519 key, and returns them as --gate-dkim takes them, with a look-up of their records.
func dkimKeys(t testing.TB) (specs []string, lookup func(string) ([]string, error)) {
	t.Helper()
	dir := t.TempDir()
	save := func(name string, key any) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pub, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	specs = []string{"example.com:r1:" + save("r1.pem", r), "example.com:e1:" + save("e1.pem", ed)}
	der, err := x509.MarshalPKIXPublicKey(&r.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]string{"r1._domainkey.example.com": "v=DKIM1; k=rsa; p=" + b64(der), "e1._domainkey.example.com": "v=DKIM1; k=ed25519; p=" + b64(pub)}
	return specs, func(name string) ([]string, error) {
		if v, ok := records[strings.TrimSuffix(name, ".")]; ok {
			return []string{v}, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
}

// long is n octets of text lines.
func long(n int) string {
	return string(bytes.Repeat([]byte(strings.Repeat("x", 76)+"\r\n"), n/78))
}

// dataRaw sends a message octet for octet but for the dots, on a connection of its own, and returns the answer.
func dataRaw(t testing.TB, r *rig, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", r.gate)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	in := textproto.NewReader(bufio.NewReader(conn))
	say := func(line string) string {
		if line != "" {
			io.WriteString(conn, line+"\r\n")
		}
		code, text, err := in.ReadResponse(0)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(code, " ", text)
	}
	say("")
	for _, l := range []string{"EHLO x", "AUTH PLAIN " + b64([]byte("\x00shop\x00"+r.secret)), "MAIL FROM:<shop@example.com>", "RCPT TO:<" + ann + ">", "DATA"} {
		if a := say(l); a[0] != '2' && a[0] != '3' {
			t.Fatalf("%s: %s", l, a)
		}
	}
	stuffed := strings.ReplaceAll(text, "\r\n.", "\r\n..")
	go io.WriteString(conn, stuffed+".\r\n")
	return say("")
}
