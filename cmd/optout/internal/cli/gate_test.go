package cli

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A message is sent through a real gate with STARTTLS to a real server, and what arrives is judged.
func TestGateProbe(t *testing.T) {
	dir := t.TempDir()
	cert, key, _, err := makeCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMailServer()
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	host, port := m.address()
	in := install(t, filepath.Join(dir, "data"), "--gate", "127.0.0.1:0", "--gate-upstream", net.JoinHostPort(host, strconv.Itoa(port)), "--tls-cert", cert, "--tls-key", key,
		"--public-url", "https://mail.example.com", "--mail-domain", "unsub.example.com")
	in.env = append(in.env, "OPTOUT_TLS_CA="+cert)
	in.do(t, exitOK, "topic", "create", "newsletter")
	arrived := filepath.Join(dir, "message.eml")
	probe := func(code int, args ...string) string {
		return in.do(t, code, append([]string{"gate", "probe", "--topic", "newsletter", "--from", "news@example.com", "--gate", in.addr.Gate, "--gate-ca", cert, "ann@example.com"}, args...)...)
	}
	out := probe(exitOK)
	_, id, _ := strings.Cut(out, "--id '")
	id, _, ok := strings.Cut(id, "'")
	if !ok {
		t.Fatalf("no id in %q", out)
	}
	save := func(edit func(string) string) {
		if err := os.WriteFile(arrived, []byte(edit(m.find("ann@example.com"))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	save(func(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") })
	out = probe(exitNo, "--id", id, "--arrives", arrived)
	demand(t, out, `pass +list-unsubscribe `, `pass +list-unsubscribe-post`, `pass +instructions`, `pass +body`, `fail +dkim +there is no DKIM signature`)
	save(func(s string) string {
		return strings.Replace(strings.Replace(s, "https://example.com/probe", "https://click.example/x", 1), "List-Unsubscribe-Post", "List-Unsubscribe: <https://click.example/u>\r\nX-Gone", 1)
	})
	out = probe(exitNo, "--id", id, "--arrives", arrived)
	demand(t, out, `fail +list-unsubscribe +it is there 2 times`, `fail +list-unsubscribe-post +it did not arrive`, `fail +body`)
	probe(exitError, "--id", "<other@example.com>", "--arrives", arrived, "--wait", "1ms")
	demand(t, in.do(t, exitOK, "gate", "profiles"), "sendgrid: the provider signs", "ses: the gate signs")
}

// Settings that do not fit together stop the start, with the remedy.
func TestGateSettings(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--gate", "127.0.0.1:0"}, "--gate-upstream"},
		{[]string{"--gate", "127.0.0.1:0", "--gate-upstream", "nix"}, "HOST:PORT"},
		{[]string{"--gate", "127.0.0.1:0", "--gate-upstream", "127.0.0.1:25", "--gate-upstream-profile", "nix"}, "direct, ses"},
		{[]string{"--gate", "127.0.0.1:0", "--gate-upstream", "127.0.0.1:25", "--gate-verp"}, "--mail-domain"},
		{[]string{"--gate", "127.0.0.1:0", "--gate-upstream", "127.0.0.1:25", "--gate-upstream-profile", "ses", "--gate-verp", "--mail-domain", "u.example.com"}, "return path"},
		{[]string{"--gate", "127.0.0.1:0", "--gate-upstream", "127.0.0.1:25", "--gate-dkim", "nix"}, "DOMAIN:SELECTOR:FILE"},
		{[]string{"--gate", "127.0.0.1:0", "--gate-upstream", "127.0.0.1:25", "--gate-upstream-user", "x"}, "go together"},
		{[]string{"--gate", "0.0.0.0:0", "--gate-upstream", "127.0.0.1:25"}, "--tls-cert"},
		{[]string{"--gate-submissions", "127.0.0.1:0", "--gate-upstream", "127.0.0.1:25"}, "begins with TLS"},
	} {
		args := append([]string{"serve", "--data", t.TempDir() + "/d", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "off", "--smtp", "off"}, c.args...)
		code, _, stderr := runWith(t, nil, "", args...)
		if code != exitNo || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit %d: %s", c.args, code, stderr)
		}
	}
}

// A key's settings for the gate are changed, shown and bounded.
func TestKeyUpdate(t *testing.T) {
	in := install(t, t.TempDir()+"/data")
	in.do(t, exitOK, "topic", "create", "newsletter")
	in.do(t, exitOK, "key", "create", "--role", "mailer", "--default-topic", "newsletter")
	in.do(t, exitError, "key", "update", "2", "--observe", "15d")
	in.do(t, exitError, "key", "update", "2", "--observe", "soon")
	in.do(t, exitError, "key", "update", "2", "--default-topic", "nix")
	in.do(t, exitError, "key", "update", "2")
	demand(t, in.do(t, exitOK, "key", "update", "2", "--observe", "7d"), "only observed until 20")
	if k := in.object(t, exitOK, "key", "update", "2", "--list-software"); k["list_software"] != true || k["default_topic"] != "newsletter" {
		t.Errorf("%v", k)
	}
	in.do(t, exitOK, "key", "update", "2", "--observe", "off")
	demand(t, in.do(t, exitOK, "entries", "--all"), "api key updated")
}
