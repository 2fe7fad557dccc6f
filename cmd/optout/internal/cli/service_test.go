package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// installation is a real service, run by "optout serve" in this process.
type installation struct {
	data string
	env  []string
	addr struct{ GRPC, HTTP, Admin, SMTP, Gate string }
	log  *lockedBuffer
	stop func() int
}

// lockedBuffer takes the log while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// install starts a service on a data folder and waits until it is ready.
func install(t *testing.T, data string, args ...string) *installation {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	in := &installation{data: data, env: []string{"OPTOUT_DATA=" + data}, log: &lockedBuffer{}}
	out, w := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- Run(ctx, Process{Args: append([]string{"serve", "--data", data, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--smtp", "127.0.0.1:0"}, args...),
			Stdin: strings.NewReader(""), Stdout: w, Stderr: in.log})
		w.Close()
	}()
	code := -1
	in.stop = func() int {
		cancel()
		if code < 0 {
			code = <-ended
		}
		return code
	}
	t.Cleanup(func() { in.stop() })
	line := make([]byte, 4096)
	n, err := out.Read(line) // one write
	go io.Copy(io.Discard, out)
	if err != nil {
		t.Fatalf("not ready: %v, exit %d: %s", err, in.stop(), in.log)
	}
	var ready struct{ Ready bool }
	if json.Unmarshal(line[:n], &ready) != nil || !ready.Ready || json.Unmarshal(line[:n], &in.addr) != nil || in.addr.GRPC == "" || in.addr.HTTP == "" || strings.Count(string(line[:n]), "\n") != 1 {
		t.Fatalf("the ready line is %q", line[:n])
	}
	in.env = append(in.env, "OPTOUT_SERVER="+in.addr.GRPC)
	return in
}

// do runs a command and demands its exit code.
func (in *installation) do(t *testing.T, code int, args ...string) (stdout string) {
	t.Helper()
	got, stdout, stderr := runWith(t, in.env, "", args...)
	if got != code {
		t.Fatalf("optout %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	if code == exitError {
		return stderr
	}
	return stdout
}

// object runs a command with --json and reads its one line.
func (in *installation) object(t *testing.T, code int, args ...string) map[string]any {
	t.Helper()
	out := in.do(t, code, append(args, "--json")...)
	var m map[string]any
	if err := json.Unmarshal([]byte(out), &m); err != nil || strings.Count(out, "\n") != 1 {
		t.Fatalf("optout %s --json: %v: %q", strings.Join(args, " "), err, out)
	}
	return m
}

func demand(t *testing.T, got string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("got %q, want a match of %q", got, want)
		}
	}
}

func TestTheWholeJob(t *testing.T) {
	in := install(t, filepath.Join(t.TempDir(), "data"), "--public-url", "https://mail.example.com", "--mail-domain", "unsub.example.com")
	if st, err := os.Stat(filepath.Join(in.data, adminKeyFile)); err != nil || st.Mode().Perm() != 0o600 || !strings.Contains(in.log.String(), filepath.Join(in.data, adminKeyFile)) {
		t.Errorf("the admin key: %v, %v; log %s", st, err, in.log)
	}

	in.do(t, exitOK, "topic", "create", "newsletter", "--description", "Our letter")
	in.do(t, exitOK, "topic", "create", "offers", "--consent", "opt-in")
	in.do(t, exitOK, "topic", "create", "reset", "--class", "required", "--ground", "answer", "--justification", "It answers what the person asked for a moment ago.")
	demand(t, in.do(t, exitOK, "topic", "list"), `newsletter +commercial +opt-out`, `offers +commercial +opt-in`, `reset +required \(answer\)`, noImport)
	if m := in.object(t, exitOK, "topic", "list"); m["warning"] != noImport || len(m["topics"].([]any)) != 5 {
		t.Errorf("topic list --json: %v", m)
	}
	demand(t, in.do(t, exitError, "topic", "create", "newsletter"), `newsletter.* is taken \(names are never reused`)
	demand(t, in.do(t, exitError, "topic", "update", "offers", "--consent", "opt-out"), `may only be tightened`)

	demand(t, in.do(t, exitOK, "check", "--topic", "newsletter", "ann@example.com"), `^SEND +ann@example.com\n$`)
	demand(t, in.do(t, exitNo, "check", "--topic", "offers", "ann@example.com"), `^DO_NOT_SEND +ann@example.com +no confirmed consent`)
	demand(t, in.do(t, exitError, "check", "--topic", "nothing", "ann@example.com"), `topic`)
	demand(t, in.do(t, exitNo, "check", "--topic", "newsletter", "--json", "Ann <ann@example.com>"), `"verdict":"DO_NOT_SEND","error":\{"reason":"INVALID_ADDRESS"`)
	demand(t, in.do(t, exitError, "check", "--topic", "newsletter", "--sender", "nobody", "ann@example.com"), `sender`)

	link := in.do(t, exitOK, "link", "--topic", "newsletter", "ann@example.com")
	demand(t, link, `^https://mail.example.com/u/[a-z2-7]{61}\n`, `\nList-Unsubscribe: <https://mail.example.com/u/`, `\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n`)
	if m := in.object(t, exitOK, "link", "--topic", "newsletter", "ann@example.com"); m["url"] != strings.SplitN(link, "\n", 2)[0] || len(m["headers"].([]any)) != 2 {
		t.Errorf("link --json: %v", m)
	}

	in.do(t, exitOK, "subscribe", "--topic", "newsletter", "--person", "p1", "ann@example.com")
	in.do(t, exitOK, "subscribe", "--topic", "newsletter", "--person", "p1", "ann@work.example.com")
	if m := in.object(t, exitOK, "subscribe", "--topic", "offers", "--source", "https://example.com/join", "--wording", "Yes", "--method", "tick-box", "bob@example.com"); m["state"] != "CONFIRMATION_NEEDED" || m["confirmation_token"] == nil {
		t.Errorf("subscribe --json: %v", m)
	}
	demand(t, in.do(t, exitOK, "subscribe", "--topic", "offers", "--request-id", "one", "cy@example.com"), `must not be sent until the person confirms`, `\n[a-z2-7]{61}\n$`)

	demand(t, in.do(t, exitOK, "unsubscribe", "--note", "by phone", "ann@example.com"), `^stopped: ALL \(entry \d+\)\n$`)
	demand(t, in.do(t, exitOK, "unsubscribe", "--topic", "newsletter", "ann@example.com"), `^nothing to do: entry \d+ stops it already\n$`)
	demand(t, in.do(t, exitNo, "check", "--topic", "newsletter", "ann@example.com", "zed@example.com"), `DO_NOT_SEND +ann@example.com +opted out of ALL correspondence since `, `\nSEND +zed@example.com`)
	demand(t, in.do(t, exitNo, "check", "--topic", "newsletter", "ann@work.example.com"), `said at another address of the same person`)
	demand(t, in.do(t, exitOK, "check", "--topic", "reset", "--in-answer-to", "reset asked", "ann@example.com"), `^SEND`)

	story := in.do(t, exitOK, "explain", "ann@example.com")
	demand(t, story, `^ann@example.com, at sender default; one of 2 addresses of one person\n`, `newsletter +DO_NOT_SEND +opted out of ALL`, `reset +SEND +required, so in spite of: opted out of ALL`,
		`entry \d+: said yes to topic newsletter; by api, `, `entry \d+: opted out of ALL; by api, .*\n.*note: by phone`, `was allowed in spite of a no`)
	in.lists(t)
	in.rights(t)
	in.keeps(t)
}

// lists goes on with lists of noes: import, list, lift, void, domains.
func (in *installation) lists(t *testing.T) {
	t.Helper()
	list := writeList(t, "email,date,reason\nold@example.com,2020-01-02,unsubscribe\ngone@example.org,2020-01-02,bounce\nann@example.com,2020-01-02,unsubscribe\nnonsense,2020-01-02,\n")
	demand(t, in.do(t, exitNo, "import", list, "--dry-run"), `^2 +would be recorded\n1 +in force already`, `\n1 +could not be read`)
	demand(t, in.do(t, exitOK, "check", "--topic", "newsletter", "old@example.com"), `^SEND`)
	demand(t, in.do(t, exitOK, "topic", "list"), noImport)
	if m := in.object(t, exitNo, "import", list, "--source", "the old system"); m["added"] != 2.0 || m["unchanged"] != 1.0 || m["malformed"] != 1.0 {
		t.Errorf("import --json: %v", m)
	}
	demand(t, in.do(t, exitNo, "check", "--topic", "newsletter", "old@example.com", "gone@example.org"), `old@example.com +opted out of ALL`, `gone@example.org +undeliverable`)
	if out := in.do(t, exitOK, "topic", "list"); strings.Contains(out, noImport) || !strings.Contains(out, "the old system") {
		t.Errorf("after the import: %q", out)
	}

	all := strings.Split(strings.TrimSpace(in.do(t, exitOK, "suppressions", "list", "--json", "--channel", "import")), "\n")
	if len(all) != 2 {
		t.Fatalf("suppressions by import: %q", all)
	}
	var first struct {
		Entry   json.Number
		Address string
		Reason  string
	}
	if err := json.Unmarshal([]byte(all[0]), &first); err != nil || first.Address != "gone@example.org" || first.Reason != "UNDELIVERABLE" {
		t.Errorf("%v: %s", err, all[0])
	}
	if out := in.do(t, exitOK, "suppression", "list", "--limit", "1", "--oldest-first", "--scope-all"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "ann@example.com") {
		t.Errorf("the oldest one: %q", out)
	}
	demand(t, in.do(t, exitError, "suppressions", "lift", "--reason", "opted-out-all", "--justification", "please", "old@example.com"), `only a later yes by the person lifts this`)
	demand(t, in.do(t, exitOK, "suppressions", "lift", "--reason", "undeliverable", "--justification", "repaired", "gone@example.org"), `^lifted \(entry \d+\)`)
	demand(t, in.do(t, exitOK, "suppressions", "create", "--reason", "undeliverable", "gone@example.org"), `^recorded`)
	var old struct{ Entry json.Number }
	if err := json.Unmarshal([]byte(all[1]), &old); err != nil {
		t.Fatal(err)
	}
	demand(t, in.do(t, exitOK, "suppressions", "void", old.Entry.String(), "--justification", "wrong list", "--evidence", "ticket 1"), `^voided 1 of 1 entries`)
	demand(t, in.do(t, exitOK, "check", "--topic", "newsletter", "old@example.com"), `^SEND`)

	demand(t, in.do(t, exitOK, "domain", "block", "example.net", "--justification", "shut down"), `^blocked`)
	demand(t, in.do(t, exitNo, "check", "--topic", "newsletter", "a@mail.example.net"), `blocked domain`)
	demand(t, in.do(t, exitOK, "domain", "unblock", "example.net", "--justification", "back"), `^unblocked`)
	wireless := filepath.Join(t.TempDir(), "fcc.txt")
	if err := os.WriteFile(wireless, []byte("# the list\nsms.example\t01/02/2020\nmms.example,2020-01-02\ntxt.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	demand(t, in.do(t, exitOK, "domain", "import-wireless", wireless, "--date", "2024-05-01"), `^3 domains newly listed, 0 delisted`)
	demand(t, in.do(t, exitOK, "domain", "list"), `mms.example +wireless-domain +2020-01-02T00:00:00Z`, `sms.example +wireless-domain +2020-01-02T00:00:00Z`, `wireless list of 2024-05-01`)
}

// rights goes on with senders and keys.
func (in *installation) rights(t *testing.T) {
	t.Helper()
	demand(t, in.do(t, exitOK, "sender", "create", "acme", "--display-name", "Acme Inc."), `display name +Acme Inc.`)
	demand(t, in.do(t, exitOK, "sender", "update", "acme", "--postal-address", "1 Main St"), `display name +Acme Inc.`, `postal address +1 Main St`)
	demand(t, in.do(t, exitOK, "sender", "show", "--sender", "acme"), `public URL +https://mail.example.com \(the service's\)`)
	demand(t, in.do(t, exitOK, "sender", "list"), `acme +Acme Inc.`, `default`)

	code, secret, stderr := runWith(t, in.env, "", "key", "create", "--role", "mailer", "--label", "crm", "--topics", "newsletter")
	if code != exitOK || strings.Count(secret, "\n") != 1 || !strings.Contains(stderr, "created API key 2, role mailer") {
		t.Fatalf("key create: exit %d, %q", code, stderr)
	}
	file := filepath.Join(t.TempDir(), "crm.key")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	in.do(t, exitOK, "check", "--key-file", file, "--topic", "newsletter", "zed@example.com")
	demand(t, in.do(t, exitError, "check", "--key-file", file, "--topic", "offers", "zed@example.com"), `may not name this topic`)
	demand(t, in.do(t, exitError, "topic", "create", "x", "--key-file", file), `role`)
	if m := in.object(t, exitOK, "key", "create", "--role", "support", "--sender", "acme"); m["secret"] == nil {
		t.Errorf("key create --json: %v", m)
	}
	demand(t, in.do(t, exitOK, "key", "list"), `2 +crm +mailer +all +newsletter `, `3 +support +support +acme +all but required `)
	if out := in.do(t, exitOK, "key", "list"); !strings.Contains(out, "crm") || strings.Contains(out, strings.TrimSpace(secret)) {
		t.Errorf("key list: %q", out)
	}
	demand(t, in.do(t, exitOK, "key", "revoke", "2"), `^revoked API key 2 \(crm\)`)
	demand(t, in.do(t, exitError, "check", "--key-file", file, "--topic", "newsletter", "zed@example.com"), `give an API key of this service`)
	demand(t, in.do(t, exitOK, "linkkey", "rotate"), `^link key 2 signs new links`)
	demand(t, in.do(t, exitOK, "linkkey", "list"), `\n1 +no `, `\n2 +yes `)
}

// keeps goes on with what keeps and proves the ledger.
func (in *installation) keeps(t *testing.T) {
	t.Helper()
	demand(t, in.do(t, exitOK, "entries", "--kind", "opted-out", "--limit", "1"), `opted out of ALL; by api`)
	demand(t, in.do(t, exitOK, "entries", "--kind", "topic-created"), `class: required; consent rule: opt-out; description: .*; ground: answer;`, `class: commercial; consent rule: opt-in;`)
	one := in.do(t, exitOK, "entries", "--all", "--json", "--limit", "3")
	if strings.Count(one, "\n") != 3 || !strings.HasPrefix(one, `{"position":1,`) {
		t.Errorf("entries --json: %q", one)
	}
	head := in.object(t, exitOK, "checkpoint")
	if n := head["position"].(map[string]any)["number"].(float64); n < 10 || len(head["root_hash"].(string)) != 64 {
		t.Errorf("checkpoint --json: %v", head)
	}
	if m := in.object(t, exitOK, "verify"); m["ok"] != true || m["verified"] != m["total"] {
		t.Errorf("verify --json: %v", m)
	}

	backup, restored := filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "restored")
	demand(t, in.do(t, exitOK, "backup", backup), `tree hash [0-9a-f]{64}\n`, `the keys are not in it`)
	demand(t, in.do(t, exitError, "backup", backup), `not empty`)
	demand(t, in.do(t, exitError, "restore", "--from", backup, "--data", filepath.Join(t.TempDir(), "x")), `made without keys`)
	if m := in.object(t, exitOK, "restore", "--from", backup, "--data", restored, "--keys", filepath.Join(in.data, "keys")); m["ok"] != true {
		t.Errorf("restore --json: %v", m)
	}
	demand(t, in.do(t, exitError, "restore", "--from", backup, "--data", restored, "--keys", filepath.Join(in.data, "keys")), `not empty`)

	if code := in.stop(); code != exitOK {
		t.Errorf("asked to stop, it exits %d: %s", code, in.log)
	}
	demand(t, in.do(t, exitOK, "verify", "--data", in.data), `^all is well: ledger [0-9a-f]{16}, \d+ entries verified`)
	again := install(t, restored, "--keys", filepath.Join(in.data, "keys"))
	again.env = append(again.env, "OPTOUT_KEY="+readKey(t, in.data))
	demand(t, again.do(t, exitNo, "check", "--topic", "newsletter", "ann@example.com"), `opted out of ALL`)
}

func readKey(t *testing.T, data string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(data, adminKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestServeThatCannotStart(t *testing.T) {
	data := t.TempDir()
	busy := install(t, filepath.Join(data, "busy"))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--grpc", busy.addr.GRPC}, `--grpc: .*address already in use \(another process listens there: stop it, or give another port\)`},
		{[]string{"--smtp", "unix:" + filepath.Join(data, "nowhere", "lmtp")}, `--smtp: .* \(make the socket's folder, and let the service's user write into it\)`},
		{[]string{"--grpc", "0.0.0.0:0"}, `it is not on loopback, so it needs TLS`},
		{[]string{"--store", "postgres://user:hunter2@db"}, `only the embedded SQLite store`},
		{[]string{"--public-url", "mail.example.com"}, `public_url: it must be an absolute`},
		{[]string{"--tls-cert", "x"}, `--tls-cert and --tls-key go together`},
		{[]string{"--trusted-proxy", "everybody"}, `--trusted-proxy "everybody": it must be a CIDR`},
	} {
		args := append([]string{"serve", "--log-level", "error", "--data", filepath.Join(data, "new"), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "off", "--smtp", "off"}, c.args...)
		code, stdout, stderr := runWith(t, nil, "", args...)
		if code != exitNo || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "optout: ") || strings.Contains(stderr, "hunter2") {
			t.Errorf("%v: exit %d, %q, %q", c.args, code, stdout, stderr)
		}
		demand(t, stderr, c.want)
	}
	begin := time.Now()
	if code := busy.stop(); code != exitOK || time.Since(begin) > 5*time.Second {
		t.Errorf("asked to stop, it exits %d after %v", code, time.Since(begin))
	}
}
