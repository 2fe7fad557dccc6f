package mailtest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"optout/service/ledgertest"
)

// Exim is a real Exim of the test's own: in a mount namespace, where its folder stands for /etc/exim4.
type Exim struct {
	// Addr is its SMTP server's address, and Log the path of its main log.
	Addr, Log string
}

// eximUser is who Debian's Exim runs as. Where the package is not installed, only unpacked, there is no such user.
const eximUser = "Debian-exim"

// eximProgram is the installed Exim, or the one that .ci/run unpacks beside Postfix: Debian's packages of the two exclude each
// other.
func eximProgram() string {
	if path, err := exec.LookPath("exim4"); err == nil {
		return path
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	path := filepath.Join(cache, "optout", "exim4", "usr", "sbin", "exim4")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// StartExim starts it, and ends it with the test. It hands mail for a domain in routes to the SMTP server there, and all other mail
// to the one at relay; what is put off is tried again each second, and given up after three. It needs root and Debian's package
// exim4-daemon-light, installed or unpacked in the user's cache folder, and skips the test without.
func StartExim(t testing.TB, relay string, routes map[string]string) *Exim {
	t.Helper()
	program := eximProgram()
	ledgertest.Require(t, "an Exim of the test's own needs root and the package exim4-daemon-light (see .ci/run)", os.Geteuid() == 0 && program != "")
	e := &Exim{Addr: FreeAddr(t)}
	dir, err := os.MkdirTemp("", "exim") // not t.TempDir: the user of Exim must get through
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	e.Log = filepath.Join(dir, "log", "mainlog")
	_, port, _ := net.SplitHostPort(e.Addr)
	var routers, transports strings.Builder
	route := func(name, domains, to string) {
		host, port, _ := net.SplitHostPort(to)
		fmt.Fprintf(&routers, "%s:\n driver = manualroute\n domains = %s\n route_list = * %s\n self = send\n transport = %s\n", name, domains, host, name)
		fmt.Fprintf(&transports, "%s:\n driver = smtp\n port = %s\n allow_localhost\n hosts_try_fastopen = :\n", name, port)
	}
	n := 0
	for domain, to := range routes {
		n++
		route(fmt.Sprintf("route%d", n), domain, to)
	}
	route("others", "*", relay)
	config := "primary_hostname = mx.example.net\nexim_path = " + dir + "/exim4\nspool_directory = " + dir + "/spool\nlog_file_path = " + dir + "/log/%slog\npid_file_path = " + dir + "/pid\n" +
		"daemon_smtp_ports = " + port + "\nlocal_interfaces = 127.0.0.1\nacl_smtp_rcpt = all\nacl_smtp_data = all\nkeep_environment =\nsmtp_accept_max = 0\nlog_selector = +all\n" +
		"begin acl\nall:\n accept\nbegin routers\n" + routers.String() + "begin transports\n" + transports.String() + "begin retry\n* * F,3s,1s\n"
	files := map[string]string{"etc/exim4.conf": config}
	for _, name := range []string{"passwd", "group"} {
		b, err := os.ReadFile("/etc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, []byte(eximUser+":")) {
			b = append(b, map[string]string{"passwd": eximUser + ":x:899:899::/nonexistent:/usr/sbin/nologin\n", "group": eximUser + ":x:899:\n"}[name]...)
		}
		files[name] = string(b)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Exim runs itself anew as root for each delivery.
	script := "cp " + program + " " + dir + "/exim4 && chmod 4755 " + dir + "/exim4 && chmod 755 " + dir + " && mkdir -p /etc/exim4 && mount --bind " + dir + "/etc /etc/exim4 && mount --bind " + dir + "/passwd /etc/passwd && mount --bind " + dir + "/group /etc/group && " +
		"mkdir " + dir + "/spool " + dir + "/log && chown " + eximUser + ": " + dir + "/spool " + dir + "/log && exec " + dir + "/exim4 -bdf -q1s"
	cmd := exec.Command("unshare", "-m", "sh", "-c", script)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = 5 * time.Second // its children may hold the pipe
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	report := func() string {
		var all strings.Builder
		for _, name := range []string{"mainlog", "paniclog", "rejectlog"} {
			b, _ := os.ReadFile(filepath.Join(dir, "log", name))
			all.Write(b)
		}
		return all.String() + said.String()
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		ended := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		ended.Stop()
		if t.Failed() {
			t.Logf("Exim said:\n%s", report())
		}
	})
	for range 200 {
		if c, err := net.Dial("tcp", e.Addr); err == nil {
			c.Close()
			return e
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("Exim does not answer:\n%s", report())
	return nil
}
