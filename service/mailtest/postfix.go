// Package mailtest gives tests real mail servers: a Postfix of the test's own, and one that keeps what it takes.
package mailtest

import (
	"bytes"
	"context"
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

// Postfix is a real Postfix of the test's own: in a mount namespace, where its folder stands for /etc/postfix.
type Postfix struct {
	// Addr is its SMTP server's address, and Log the path of its log.
	Addr, Log string

	t   testing.TB
	dir string
	pid int
}

var masterServices = `pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 2 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
lmtp unix - - n - - lmtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

// StartPostfix starts it, and ends it with the test. It hands all mail to the SMTP server at relay; settings are further lines of
// main.cf. It needs root and the Debian package postfix, and skips the test without.
func StartPostfix(t testing.TB, relay string, settings ...string) *Postfix {
	t.Helper()
	ok := os.Geteuid() == 0
	for _, p := range []string{"postfix", "unshare", "nsenter"} {
		_, err := exec.LookPath(p)
		ok = ok && err == nil
	}
	ledgertest.Require(t, "a Postfix of the test's own needs root and the package postfix", ok)
	p := &Postfix{t: t, Addr: FreeAddr(t)}
	var err error
	if p.dir, err = os.MkdirTemp("", "postfix"); err != nil { // not t.TempDir: the users of Postfix must get through
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(p.dir) })
	os.Chmod(p.dir, 0o755)
	p.Log = filepath.Join(p.dir, "log")
	host, port, _ := net.SplitHostPort(relay)
	main := append([]string{"compatibility_level = 3.6", "queue_directory = " + p.dir + "/spool", "data_directory = " + p.dir + "/data", "command_directory = /usr/sbin",
		"daemon_directory = /usr/lib/postfix/sbin", "mail_owner = postfix", "setgid_group = postdrop", "myhostname = mx.example.net", "mydestination =", "inet_interfaces = 127.0.0.1",
		"inet_protocols = ipv4", "mynetworks = 127.0.0.0/8", "relayhost = [" + host + "]:" + port, "smtp_host_lookup = native", "maillog_file_prefixes = " + p.dir, "maillog_file = " + p.Log,
		"minimal_backoff_time = 1s", "maximal_backoff_time = 2s", "queue_run_delay = 1s", "smtp_connection_cache_on_demand = no", "smtpd_relay_restrictions = permit_mynetworks, reject",
		"smtpd_client_connection_count_limit = 0", "notify_classes =", "alias_maps =", "local_recipient_maps ="}, settings...)
	for name, text := range map[string]string{"etc/main.cf": strings.Join(main, "\n") + "\n", "etc/master.cf": p.Addr + " inet n - n - - smtpd\n" + masterServices, "etc/dynamicmaps.cf": ""} {
		path := filepath.Join(p.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"spool", "data"} {
		if err := os.MkdirAll(filepath.Join(p.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("chown", "postfix", filepath.Join(p.dir, "data")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command("unshare", "-m", "sh", "-c", "mkdir -p /etc/postfix && cp -n /etc/postfix/dynamicmaps.cf "+p.dir+"/etc/ 2>/dev/null; cp -rn /etc/postfix/dynamicmaps.cf.d "+p.dir+"/etc/ 2>/dev/null; cp -n /usr/share/postfix/postfix-files /etc/postfix/postfix-files "+
		p.dir+"/etc/ 2>/dev/null; mount --bind "+p.dir+"/etc /etc/postfix && exec postfix start-fg")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = 10 * time.Second // its children may hold the output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	t.Cleanup(func() {
		p.end("stop")
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			p.end("abort")
			cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			b, _ := os.ReadFile(p.Log)
			t.Logf("Postfix said:\n%s%s", b, said.String())
		}
	})
	for range 200 {
		if c, err := net.Dial("tcp", p.Addr); err == nil {
			c.Close()
			return p
		}
		time.Sleep(50 * time.Millisecond)
	}
	b, _ := os.ReadFile(p.Log)
	t.Fatalf("Postfix does not answer:\n%s%s", b, said.String())
	return nil
}

// Command is a command in Postfix's namespace.
func (p *Postfix) Command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", fmt.Sprint(p.pid), "-m", "--"}, args...)...)
}

// end ends Postfix, or gives up after a while.
func (p *Postfix) end(how string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := p.Command("postfix", how)
	if cmd.Start() == nil {
		stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
		cmd.Wait()
		stop()
	}
}

// Run runs a command there with standard input, and returns what it printed and its exit code.
func (p *Postfix) Run(stdin string, args ...string) (string, int) {
	p.t.Helper()
	cmd := p.Command(args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
