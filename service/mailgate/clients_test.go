package mailgate_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wneessen/go-mail"

	"optout/service"
	"optout/service/ledgertest"
	"optout/service/mailtest"
)

// certificate makes a certificate for localhost, which is its own authority.
func certificate(t testing.TB) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func poolOf(t testing.TB, path string) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}

func tlsFor(pool *x509.CertPool, host string) *tls.Config {
	return &tls.Config{RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS12}
}

// program is a mailer in some language: it sends text to recipients and reports what it was told of the refused ones.
type program struct {
	name string
	// send returns everything that the program printed.
	send func(t *testing.T, w *world, subject string, to ...string) string
}

// world is a gate with TLS before a real Postfix, which hands on to a sink.
type world struct {
	*rig
	behind            *mailtest.Sink
	cert, host, port  string
	implicit, keyFile string
	lookup            func(string) ([]string, error)
}

const greeting = "Grüße, wie vereinbart.\n.\n..two dots\ntrailing  \n"

func command(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out)
}

const smtplib = `
import smtplib, ssl, sys
from email.message import EmailMessage
host, port, implicit, cert, key, subject, text = sys.argv[1:8]
m = EmailMessage()
m["From"], m["To"], m["Subject"], m["Message-ID"] = "news@example.com", "people@example.net", subject, "<" + subject + "@example.com>"
m.set_content(text, cte="8bit")
tls = ssl.create_default_context(cafile=cert)
s = smtplib.SMTP_SSL(host, int(implicit), context=tls) if subject == "implicit" else smtplib.SMTP(host, int(port))
with s:
    if subject != "implicit":
        s.starttls(context=tls)
    s.login("shop", open(key).read().strip())
    try:
        print(s.send_message(m, to_addrs=sys.argv[8:]))
    except smtplib.SMTPException as e:
        print(e)
`

const nodemailer = `
const [,, modules, host, port, cert, key, subject, text, ...to] = process.argv, fs = require('fs');
const t = require(modules + '/nodemailer').createTransport({host, port: +port, requireTLS: true, tls: {ca: fs.readFileSync(cert)}, auth: {user: 'shop', pass: fs.readFileSync(key, 'utf8').trim()}});
t.sendMail({from: 'news@example.com', to, subject, text, messageId: '<' + subject + '@example.com>'}).then(r => console.log(r.rejectedErrors), e => console.log(e.message, e.response));
`

func programs(t *testing.T) []program {
	modules := t.TempDir()
	need := func(tool, from string) bool {
		_, err := exec.LookPath(tool)
		return err == nil
	}
	for _, p := range [][2]string{{"swaks", "swaks"}, {"msmtp", "msmtp"}, {"python3", "python3"}, {"node", "nodejs"}, {"npm", "npm"}} {
		ledgertest.Require(t, "mailers in other languages: the package "+p[1]+" is missing", need(p[0], p[1]))
	}
	can, _ := exec.Command("swaks", "--support").CombinedOutput()
	ledgertest.Require(t, "swaks speaks no TLS: the package libnet-ssleay-perl is missing", strings.Contains(string(can), "=== TLS supported"))
	out, err := exec.Command("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", modules, "nodemailer").CombinedOutput()
	ledgertest.Require(t, fmt.Sprintf("nodemailer cannot be installed: %s", out), err == nil)
	message := func(subject string) string {
		return "From: news@example.com\nTo: people@example.net\nSubject: " + subject + "\nMessage-ID: <" + subject + "@example.com>\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n" + greeting
	}
	return []program{
		{"swaks", func(t *testing.T, w *world, subject string, to ...string) string {
			return command(t, message(subject), "swaks", "--server", w.host+":"+w.port, "-tls", "--tls-verify", "--tls-ca-path", w.cert, "--auth", "LOGIN", "--auth-user", "shop",
				"--auth-password", w.secret, "--from", "news@example.com", "--to", strings.Join(to, ","), "--data", "-")
		}},
		{"smtplib", func(t *testing.T, w *world, subject string, to ...string) string {
			return command(t, "", append([]string{"python3", "-c", smtplib, w.host, w.port, w.implicit, w.cert, w.keyFile, subject, greeting}, to...)...)
		}},
		{"nodemailer", func(t *testing.T, w *world, subject string, to ...string) string {
			script := filepath.Join(modules, "send.js")
			if err := os.WriteFile(script, []byte(nodemailer), 0o600); err != nil {
				t.Fatal(err)
			}
			return command(t, "", append([]string{"node", script, filepath.Join(modules, "node_modules"), w.host, w.port, w.cert, w.keyFile, subject, greeting}, to...)...)
		}},
		{"msmtp", func(t *testing.T, w *world, subject string, to ...string) string {
			return command(t, message(subject), append([]string{"msmtp", "--host=" + w.host, "--port=" + w.port, "--auth=on", "--user=shop", "--passwordeval=cat " + w.keyFile, "--tls=on",
				"--tls-starttls=on", "--tls-trust-file=" + w.cert, "--from=news@example.com"}, to...)...)
		}},
		{"go-mail", func(t *testing.T, w *world, subject string, to ...string) string {
			port, _ := strconv.Atoi(w.port)
			c, err := mail.NewClient(w.host, mail.WithPort(port), mail.WithTLSPolicy(mail.TLSMandatory), mail.WithSMTPAuth(mail.SMTPAuthPlain), mail.WithUsername("shop"), mail.WithPassword(w.secret))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.SetTLSConfig(tlsFor(poolOf(t, w.cert), w.host)); err != nil {
				t.Fatal(err)
			}
			m := mail.NewMsg(mail.WithEncoding(mail.EncodingQP))
			m.From("news@example.com")
			m.To(to...)
			m.Subject(subject)
			m.SetMessageIDWithValue(subject + "@example.com")
			m.SetBodyString(mail.TypeTextPlain, greeting)
			if err := c.DialAndSend(m); err != nil {
				return err.Error()
			}
			return ""
		}},
	}
}

// Mailers in five languages send through the gate, with STARTTLS and credentials, to a real Postfix behind it.
func TestMailersInAnyLanguage(t *testing.T) {
	all := programs(t)
	specs, lookup := dkimKeys(t)
	cert, key := certificate(t)
	w := &world{behind: mailtest.NewSink(t), cert: cert, lookup: lookup, host: "localhost"}
	postfix := mailtest.StartPostfix(t, w.behind.Addr)
	w.rig = newRig(t, func(c *service.Config) {
		c.TLSCert, c.TLSKey = cert, key
		c.Gate.Upstream, c.Gate.DKIM, c.Gate.Submissions = postfix.Addr, specs, "127.0.0.1:0"
	}, nil)
	_, w.port, _ = net.SplitHostPort(w.gate)
	_, w.implicit, _ = net.SplitHostPort(w.svc.Submissions)
	w.keyFile = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(w.keyFile, []byte(w.secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.optOut(bob)
	arrived := 0
	for _, p := range all {
		to := p.name + "@example.net"
		out := p.send(t, w, p.name, to)
		arrived++
		got := w.behind.Wait(t, arrived)[arrived-1]
		if len(got.To) != 1 || got.To[0] != to || strings.Join(got.Fields("Subject"), "") != p.name {
			t.Fatalf("%s: %v arrived: %s\n%s", p.name, got.To, out, got.Header())
		}
		if p.name == "smtplib" || p.name == "swaks" || p.name == "msmtp" {
			if want := strings.ReplaceAll(greeting, "\n", "\r\n"); strings.TrimRight(got.Body(), "\r\n") != strings.TrimRight(want, "\r\n") {
				t.Errorf("%s: the body is %q", p.name, got.Body())
			}
		}
		verifyIndependently(t, w, p.name, got.Text)
		press(t, w, got)
		if out := p.send(t, w, p.name+"-again", to); !strings.Contains(out, "opted out") {
			t.Errorf("%s, after the press: %s", p.name, out)
		}
		if out := p.send(t, w, p.name+"-refused", bob); !strings.Contains(out, "550") || !strings.Contains(out, "opted out") {
			t.Errorf("%s is not told why: %s", p.name, out)
		}
	}
	if out := all[1].send(t, w, "implicit", "implicit@example.net"); !strings.Contains(out, "{}") {
		t.Errorf("TLS from the first octet: %s", out)
	}
	arrived++
	if got := w.behind.Wait(t, arrived); len(got) != arrived {
		t.Errorf("%d messages arrived, want %d", len(got), arrived)
	}
}

// press presses the link that arrived, as a mailbox provider does.
func press(t *testing.T, w *world, m *mailtest.Message) {
	t.Helper()
	lu := m.Fields("List-Unsubscribe")
	if len(lu) != 1 || len(m.Fields("List-Unsubscribe-Post")) != 1 {
		t.Fatalf("list fields %q", lu)
	}
	url, _, _ := strings.Cut(strings.TrimPrefix(lu[0], "<"), ">")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsFor(poolOf(t, w.cert), "localhost"), DisableKeepAlives: true}}
	resp, err := client.Post("https://"+w.svc.HTTP+strings.TrimPrefix(url, "https://mail.example.com"), "application/x-www-form-urlencoded", strings.NewReader("List-Unsubscribe=One-Click"))
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
}

const dkimpy = `
import dkim, json, sys
records = json.loads(sys.argv[1])
raw = sys.stdin.buffer.read()
def txt(name, timeout=5):
    v = records.get(name.decode().rstrip("."))
    return v.encode() if v else None
for i in range(raw.count(b"DKIM-Signature:")):
    d = dkim.DKIM(raw)
    ok = d.verify(idx=i, dnsfunc=txt)
    h = [x.strip().lower() for x in d.signature_fields[b"h"].split(b":")]
    print(ok, h.count(b"list-unsubscribe"), h.count(b"list-unsubscribe-post"), h.count(b"from"))
`

// verifyIndependently lets another DKIM implementation judge what arrived: dkimpy.
func verifyIndependently(t *testing.T, w *world, name, text string) {
	t.Helper()
	const python = "/usr/bin/python3" // the one that the Debian package is for
	_, err := os.Stat(python)
	ledgertest.Require(t, "an independent DKIM verifier: the package python3-dkim is missing", err == nil && exec.Command(python, "-c", "import dkim, nacl").Run() == nil)
	records := map[string]string{}
	for _, n := range []string{"r1._domainkey.example.com", "e1._domainkey.example.com"} {
		v, err := w.lookup(n)
		if err != nil {
			t.Fatal(err)
		}
		records[n] = v[0]
	}
	arg, err := json.Marshal(records)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", dkimpy, string(arg))
	cmd.Stdin = strings.NewReader(text)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil || string(out) != "True 2 2 2\nTrue 2 2 2\n" {
		t.Errorf("%s: dkimpy says %q %v %s\n%s", name, out, err, said.String(), text)
	}
}

// Who opts out between RCPT and the final dot is left out, also before a real Postfix.
func TestOptOutBeforeTheFinalDotAtPostfix(t *testing.T) {
	behind := mailtest.NewSink(t)
	postfix := mailtest.StartPostfix(t, behind.Addr)
	r := newRig(t, func(c *service.Config) { c.Gate.Upstream = postfix.Addr }, nil)
	c := r.login()
	if err := c.Mail("news@example.com", nil); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{ann, bob} {
		if err := c.Rcpt(a, nil); err != nil {
			t.Fatal(err)
		}
	}
	d, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(d, mailText())
	r.optOut(ann)
	resp, err := d.CloseWithResponse()
	if err != nil || !strings.Contains(resp.StatusText, "queued as") || !strings.Contains(resp.StatusText, "left out: 1 of 2") {
		t.Fatalf("%v %v", resp, err)
	}
	if got := behind.Wait(t, 1); len(got) != 1 || got[0].To[0] != bob {
		t.Errorf("%d arrived", len(got))
	}
}
