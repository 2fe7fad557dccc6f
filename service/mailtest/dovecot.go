package mailtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"optout/service/ledgertest"
)

// Dovecot is a real IMAP server with one user and TLS.
type Dovecot struct {
	// Addr is its host:port with TLS from the first octet, and Plain the one with STARTTLS.
	Addr, Plain string
	// TLS verifies it.
	TLS *tls.Config
	// PasswordFile holds the user's password.
	PasswordFile string

	t      testing.TB
	dir    string
	daemon *exec.Cmd
}

// DovecotUser is the user of every Dovecot.
const DovecotUser = "box@example.com"

// StartDovecot starts a server that ends with the test; settings are further lines of its configuration.
func StartDovecot(t testing.TB, settings ...string) *Dovecot {
	t.Helper()
	_, err := exec.LookPath("dovecot")
	ledgertest.Require(t, "reading mailboxes needs Debian's dovecot-imapd", err == nil)
	ledgertest.Require(t, "Dovecot needs root", os.Getuid() == 0)
	d := &Dovecot{t: t}
	if d.dir, err = os.MkdirTemp("", "dovecot"); err != nil { // the sockets in it need a short path
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d.dir) })
	if err := os.Chmod(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d.certificate()
	d.Addr, d.Plain = FreeAddr(t), FreeAddr(t)
	d.PasswordFile = d.write("password", "correct horse\n", 0o600)
	d.write("users", DovecotUser+":{PLAIN}correct horse\n", 0o644)
	if err := os.MkdirAll(d.path("mail"), 0o777); err != nil {
		t.Fatal(err)
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(nobody.Gid)
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("chown", "-R", "nobody", d.path("mail")).Run(); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(d.Addr)
	_, plain, _ := net.SplitHostPort(d.Plain)
	// Without the listener of anvil nobody is answered the later the more often he is refused.
	d.write("dovecot.conf", fmt.Sprintf(`
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <%[1]s/cert.pem
ssl_key = <%[1]s/key.pem
mail_location = maildir:%[1]s/mail/Maildir
mail_uid = nobody
mail_gid = %[4]s
first_valid_uid = 1
first_valid_gid = 1
disable_plaintext_auth = no
auth_failure_delay = 0
default_internal_user = dovecot
default_login_user = dovenull
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = static
  args = uid=nobody gid=%[4]s home=%[1]s/mail
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service imap-login {
  inet_listener imap {
    port = %[3]s
  }
  inet_listener imaps {
    port = %[2]s
    ssl = yes
  }
}
`, d.dir, port, plain, group.Name)+strings.Join(settings, "\n")+"\n", 0o644)
	d.Start()
	t.Cleanup(d.Stop)
	return d
}

func (d *Dovecot) path(name string) string { return filepath.Join(d.dir, name) }

func (d *Dovecot) write(name, text string, mode os.FileMode) string {
	d.t.Helper()
	if err := os.WriteFile(d.path(name), []byte(text), mode); err != nil {
		d.t.Fatal(err)
	}
	return d.path(name)
}

// certificate makes a key and a certificate for 127.0.0.1.
func (d *Dovecot) certificate() {
	d.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dovecot"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		d.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		d.t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	d.write("cert.pem", string(cert), 0o644)
	d.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), 0o600)
	d.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	d.TLS.RootCAs.AppendCertsFromPEM(cert)
}

// Start starts the server, also after Stop.
func (d *Dovecot) Start() {
	d.t.Helper()
	var said bytes.Buffer
	d.daemon = exec.Command("dovecot", "-F", "-c", d.path("dovecot.conf"))
	d.daemon.Stderr, d.daemon.SysProcAttr = &said, &syscall.SysProcAttr{Setpgid: true}
	d.daemon.WaitDelay = 300 * time.Millisecond // sessions that outlive the master keep its standard error open
	if err := d.daemon.Start(); err != nil {
		d.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := tls.Dial("tcp", d.Addr, d.TLS); err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(d.path("log"))
			d.t.Fatalf("Dovecot does not start: %s\n%s", said.String(), log)
		}
	}
}

// Stop ends the server and its sessions at once.
func (d *Dovecot) Stop() {
	if d.daemon == nil {
		return
	}
	syscall.Kill(-d.daemon.Process.Pid, syscall.SIGKILL) // all of the group: sessions outlive the master, and would still answer
	d.daemon.Wait()
	d.daemon = nil
}

// Kick ends all sessions; the server goes on.
func (d *Dovecot) Kick() {
	d.t.Helper()
	if said, err := exec.Command("doveadm", "-c", d.path("dovecot.conf"), "kick", DovecotUser).CombinedOutput(); err != nil {
		d.t.Fatalf("%v: %s", err, said)
	}
}

// URL is the URL of a folder, for --imap.
func (d *Dovecot) URL(folder string) string {
	return d.url(DovecotUser, folder, "password-file", d.PasswordFile)
}

// OAuthURL is the same for a user who comes with the tokens of an OAuth file.
func (d *Dovecot) OAuthURL(user, file string) string { return d.url(user, "INBOX", "oauth-file", file) }

func (d *Dovecot) url(user, folder, kind, file string) string {
	return "imaps://" + url.QueryEscape(user) + "@" + d.Addr + "/" + url.PathEscape(folder) + "?" + kind + "=" + url.QueryEscape(file)
}

// Log is what the server has logged.
func (d *Dovecot) Log() string {
	text, _ := os.ReadFile(d.path("log"))
	return strings.TrimSpace(string(text))
}
