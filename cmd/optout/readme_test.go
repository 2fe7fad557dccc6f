package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"optout/cmd/optout/internal/cli"
	"optout/service/ledgertest"
	"optout/service/mailtest"
)

var fence = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```")

// blocks are the README's blocks of a language, in order.
func blocks(t *testing.T, language string) (found []string) {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range fence.FindAllStringSubmatch(string(b), -1) {
		if m[1] == language {
			found = append(found, m[2])
		}
	}
	return found
}

// sink takes one mail server's worth of mail and counts it.
type sink struct{ got chan string }

func (s *sink) NewSession(*smtp.Conn) (smtp.Session, error) { return &sinkSession{sink: s}, nil }

type sinkSession struct {
	*sink
	to string
}

func (s *sinkSession) Reset()                                    {}
func (s *sinkSession) Logout() error                             { return nil }
func (s *sinkSession) Mail(string, *smtp.MailOptions) error      { return nil }
func (s *sinkSession) Rcpt(to string, _ *smtp.RcptOptions) error { s.to = to; return nil }
func (s *sinkSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	s.got <- s.to + "\n" + string(b)
	return err
}

// Every command of the README is run, in order, in one shell, against one service; and its Go program is built and run.
func TestREADME(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	port := func() string { return mailtest.FreeAddr(t) }
	grpc, web, admin, data := port(), port(), port(), filepath.Join(dir, "optout-data")
	env := append(os.Environ(), "OPTOUT_DATA="+data, "OPTOUT_GRPC="+grpc, "OPTOUT_SERVER="+grpc, "OPTOUT_HTTP="+web, "OPTOUT_PUBLIC_URL=http://"+web,
		"OPTOUT_ADMIN="+admin, "OPTOUT_SMTP="+port(), "OPTOUT_KEY=")

	mailServer := &sink{got: make(chan string, 10)}
	srv := smtp.NewServer(mailServer)
	srv.Domain, srv.ReadTimeout, srv.MaxMessageBytes = "localhost", 10*time.Second, 1<<20
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()

	script := "set -e\ntrap 'kill $(jobs -p) 2>/dev/null; rm -f ./optout ./crm.key' EXIT\n"
	for _, b := range blocks(t, "sh") {
		b = strings.ReplaceAll(b, "go test ./...\n", "") // this test is part of it
		script += "echo '--- block'\n" + strings.ReplaceAll(b, "127.0.0.1:7080", web)
		if strings.Contains(b, "serve &") {
			script += "for i in $(seq 100); do curl -fsS http://" + admin + "/readyz >/dev/null 2>&1 && break; sleep 0.1; done\n"
		}
	}
	// The program in other languages, each with this test's address; crm.key is in the folder by then.
	for _, language := range []struct{ fence, file string }{{"python", "check.py"}, {"js", "check.mjs"}, {"php", "check.php"}} {
		programs := blocks(t, language.fence)
		if len(programs) != 1 {
			t.Fatalf("the README has %d programs in %s", len(programs), language.fence)
		}
		interpreter := map[string]string{"python": "python3", "js": "node", "php": "php"}[language.fence]
		_, err := exec.LookPath(interpreter)
		ledgertest.Require(t, "the README's programs need "+interpreter, err == nil)
		file := filepath.Join(dir, language.file)
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(programs[0], "127.0.0.1:7080", web)), 0o600); err != nil {
			t.Fatal(err)
		}
		script += "echo '--- " + language.fence + "'\n" + interpreter + " " + file + "\n"
	}
	script += "echo '--- the Go program'\ngo run -overlay " + overlay(t, root, dir, grpc, data, l.Addr().(*net.TCPAddr).Port) + " ./cmd/readme-example\n"
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir, cmd.Env = root, env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"SEND         ann@example.com", "exit code 1: not to be mailed", "List-Unsubscribe: <http", "opted out of ALL; by one-click",
		"ann@example.com refused DO_NOT_SEND: OPTED_OUT_ALL", "bob@example.com sent SEND", `"verdict":"VERDICT_SEND"`, "python sends with ['List-Unsubscribe'", "node sends with", "php sends with List-Unsubscribe", "gus is not to be mailed", "unread    waits for you  hal@example.com"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the README's commands do not print %q:\n%s", want, out.String())
		}
	}
	select {
	case m := <-mailServer.got:
		if !strings.HasPrefix(m, "bob@example.com\n") || !strings.Contains(m, "List-Unsubscribe: <http") {
			t.Errorf("what arrived:\n%s", m)
		}
	default:
		t.Error("no mail arrived")
	}
}

// Commands that cannot be run here, such as those of production, at least parse.
func TestREADMECommandsParse(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, b := range blocks(t, "") {
		for _, c := range strings.Split(strings.TrimSpace(strings.ReplaceAll(b, "\\\n", " ")), "\n") {
			c, _, _ = strings.Cut(c, " < ")
			commands = append(commands, c)
		}
	}
	for _, m := range regexp.MustCompile("`(optout [a-z][^`]*)`").FindAllStringSubmatch(string(text), -1) {
		commands = append(commands, m[1])
	}
	if len(commands) < 5 {
		t.Fatalf("only %d commands found", len(commands))
	}
	for _, c := range commands {
		words := regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(c, -1)
		for i := range words {
			words[i] = strings.Trim(words[i], `"`)
		}
		var out bytes.Buffer
		code := cli.Run(t.Context(), cli.Process{Args: append(words[1:], "--help"), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out})
		if code != 0 || !strings.Contains(out.String(), "Usage") {
			t.Errorf("%q: exit code %d\n%s", c, code, out.String())
		}
	}
}

// overlay puts the README's Go program into the module for one build, with this test's addresses.
func overlay(t *testing.T, root, dir, grpc, data string, smtpPort int) string {
	t.Helper()
	programs := blocks(t, "go")
	if len(programs) != 1 {
		t.Fatalf("the README has %d Go programs", len(programs))
	}
	text := strings.NewReplacer("127.0.0.1:7070", grpc, "optout-data/admin.key", filepath.Join(data, "admin.key"), "mail.WithPort(25)", fmt.Sprintf("mail.WithPort(%d)", smtpPort)).Replace(programs[0])
	file, list := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json")
	b, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "cmd", "readme-example", "main.go"): file}})
	if err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string][]byte{file: []byte(text), list: b} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return list
}
