package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
)

// runWith runs the program in this process.
func runWith(t *testing.T, env []string, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(t.Context(), Process{Args: args, Env: env, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs})
	return code, out.String(), errs.String()
}

func TestWrongUsage(t *testing.T) {
	data := t.TempDir() // without an admin.key
	for _, c := range []struct {
		args []string
		want string // on standard error
	}{
		{[]string{"chekc"}, `optout: there is no command "optout chekc" (did you mean "check"? see "optout --help")`},
		{[]string{"topic", "crete", "news"}, `there is no command "optout topic crete" (did you mean "create"?`},
		{[]string{"topic"}, "add one of: create, list, update"},
		{[]string{"check", "--tpoic", "news", "a@x.org"}, "--tpoic: there is no such flag (did you mean --topic?"},
		{[]string{"check", "a@x.org"}, "--topic: it is missing"},
		{[]string{"check", "--topic", "news"}, "ADDRESS: it is missing"},
		{[]string{"check", "--topic", "news", "--act-at", "2024-05-01", "--data", data, "a@x.org"}, "API key: there is none"},
		{[]string{"link", "a@x.org"}, "--topic: it is missing"},
		{[]string{"unsubscribe"}, "ADDRESS: it is missing"},
		{[]string{"unsubscribe", "a@x.org", "b@x.org"}, "2 arguments are too many"},
		{[]string{"topic", "create", "x", "--class", "loud"}, "it must be one of: commercial, transactional, required"},
		{[]string{"subscribe", "--topic", "news", "--expires", "soon", "a@x.org"}, `"soon" is no moment that can be read`},
		{[]string{"key", "create", "--label", "crm"}, "--role: it is missing (use one of: mailer,"},
		{[]string{"check", "--topic", "news", "a@x.org", "-"}, "- stands for standard input and goes alone"},
		{[]string{"suppressions", "lift", "a@x.org", "--reason", "undeliverable"}, "--justification: it is missing"},
		{[]string{"suppressions", "void", "--justification", "x", "--evidence", "y"}, "ENTRY: it is missing"},
		{[]string{"import", "--columns", "address"}, "must be formatted as key=value"},
		{[]string{"restore", "--from", "x"}, "--data: it is missing"},
		{[]string{"verify", "--keys", "x"}, "--keys: it goes only with --data"},
		{[]string{"serve", "extra"}, "it takes no arguments"},
		{[]string{"queue", "list", "--limit", "-1"}, `--limit: "-1" is no number from 0 on (see "optout queue list --help")`},
		{[]string{"queue", "list", "--limit", "9999999999"}, `--limit: "9999999999" is a number out of range (see`},
		{[]string{"submit", "--concurrency", "many", "x"}, `--concurrency: "many" is no number (see`},
		{[]string{"serve", "--reply=perhaps"}, `--reply: "perhaps" is neither true nor false (see`},
		{[]string{"serve", "--queue-delay", "0s"}, `--queue-delay: it is no time to wait (give one, such as 1h; the default is 24h)`},
		{[]string{"serve", "--queue-source-limit", "0"}, `--queue-source-limit: it is no number of opt-outs (give 1 or more; the default is 20)`},
		{[]string{"serve", "--log-level", "loud"}, `--log-level: "loud" is not a level (use debug, info, warn or error)`},
		{[]string{"version", "--json", "extra"}, `{"error":{"code":"INVALID_ARGUMENT","reason":"INVALID_FIELD"`},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			code, stdout, stderr := runWith(t, nil, "", c.args...)
			if code != exitError || stdout != "" || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit %d, stdout %q, stderr %q, want 2, nothing, and one line with %q", code, stdout, stderr, c.want)
			}
		})
	}
}

func TestConnectionFaults(t *testing.T) {
	key := []string{"OPTOUT_KEY=hunter2"}
	for _, c := range []struct {
		env  []string
		args []string
		want string
	}{
		{key, []string{"--server", "localhost"}, "--server: it must be HOST:PORT"},
		{key, []string{"--timeout", "0s"}, "--timeout: it must be more than 0"},
		{key, []string{"--tls-cert", "x"}, "--tls-cert and --tls-key go together"},
		{key, []string{"--tls-ca", "does-not-exist"}, "--tls-ca: open does-not-exist"},
		{key, []string{"--server", "127.0.0.1:1"}, "optout: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused (is the service running"},
		{[]string{"OPTOUT_KEY=two words"}, nil, "OPTOUT_KEY: it holds no API key"},
		{append(key, "OPTOUT_TIMEOUT=soon"), nil, `OPTOUT_TIMEOUT: "soon" is not a valid value for timeout`},
		{append(key, "OPTOUT_SERVER=nowhere"), nil, "--server: it must be HOST:PORT"},
		{nil, []string{"--key-file", "does-not-exist"}, "does-not-exist"},
	} {
		code, stdout, stderr := runWith(t, c.env, "", append([]string{"check", "--topic", "news", "a@x.org"}, c.args...)...)
		if code != exitError || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%v %v: exit %d, stdout %q, stderr %q, want 2, nothing and %q", c.env, c.args, code, stdout, stderr, c.want)
		}
		if strings.Contains(stderr, "hunter2") || strings.Contains(stderr, "two words") {
			t.Errorf("%v: the error shows the key: %q", c.args, stderr)
		}
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := &fake{check: func(*optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
		cancel()
		time.Sleep(100 * time.Millisecond)
		return nil, status.Error(codes.Internal, "too late")
	}}
	var out, errs bytes.Buffer
	code := Run(ctx, Process{Args: []string{"check", "--topic", "news", "a@x.org"}, Env: f.serve(t), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs})
	if code != exitError || out.Len() > 0 || !strings.HasPrefix(errs.String(), "optout: interrupted") {
		t.Errorf("exit %d, %q, %q", code, out.String(), errs.String())
	}
}

func TestErrorsAsJSON(t *testing.T) {
	code, _, stderr := runWith(t, nil, "", "check", "--json", "a@x.org")
	var got struct {
		Error struct{ Code, Reason, Field, Message, Remedy string }
	}
	if err := json.Unmarshal([]byte(stderr), &got); err != nil {
		t.Fatalf("%v: %q", err, stderr)
	}
	if e := got.Error; code != exitError || e.Code != "INVALID_ARGUMENT" || e.Reason != "INVALID_FIELD" || e.Field != "--topic" || e.Remedy == "" || !strings.Contains(e.Message, e.Remedy) {
		t.Errorf("exit %d, %+v", code, e)
	}
	if _, _, stderr := runWith(t, []string{"OPTOUT_JSON=true"}, "", "check", "a@x.org"); !strings.HasPrefix(stderr, `{"error":`) {
		t.Errorf("the variable asks for JSON too: %q", stderr)
	}
}

// Help must teach: every command says what it does, why, and how, with an example that the program itself understands.
func TestHelpTeaches(t *testing.T) {
	root := (&program{}).root()
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" || c.Long == "" || !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s: short %q, long %q, example %q", c.CommandPath(), c.Short, c.Long, c.Example)
		}
		for _, line := range strings.Split(c.Example+"\n"+c.Long, "\n") {
			words := strings.Fields(line)
			if len(words) < 2 || !strings.HasPrefix(line, "  optout ") {
				continue
			}
			found, rest, err := root.Find(words[1:])
			if err != nil || found == root {
				t.Errorf("%s: %q names no command", c.CommandPath(), line)
				continue
			}
			for _, w := range rest {
				name, _, _ := strings.Cut(strings.TrimPrefix(w, "--"), "=")
				if strings.HasPrefix(w, "--") && len(w) > 2 && found.Flags().Lookup(name) == nil {
					t.Errorf("%s: %q: there is no flag %s", c.CommandPath(), line, w)
				}
				if w == "|" || w == "&&" || w == "<" || w == ">" || strings.HasPrefix(w, "#") {
					break
				}
			}
		}
		for _, s := range c.Commands() {
			visit(s)
		}
	}
	visit(root)
	for _, args := range [][]string{{}, {"--help"}, {"help", "check"}, {"check", "--help"}} {
		if code, stdout, stderr := runWith(t, nil, "", args...); code != exitOK || !strings.Contains(stdout, "Usage:") || stderr != "" {
			t.Errorf("%v: exit %d, stdout %.40q, stderr %q", args, code, stdout, stderr)
		}
	}
}

func TestVersion(t *testing.T) {
	code, stdout, _ := runWith(t, nil, "", "version", "--json")
	var got struct{ Version, Revision, Go string }
	if err := json.Unmarshal([]byte(stdout), &got); code != exitOK || err != nil || got.Version == "" || got.Go == "" {
		t.Errorf("exit %d, %v, %q", code, err, stdout)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"jos\u00e9@example.com":   "jos\u00e9@example.com",
		"\x1b[2Jgone":             "\\u001b[2Jgone",
		"a\nb":                    "a\\u000ab",
		"\u202eevil":              "\\u202eevil",
		"two words":               "two words",
		string([]byte{'x', 0xff}): "x\\ufffd",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q is printed as %q, want %q", in, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"public-url", "data", "grpc", "topic"}
	for word, want := range map[string]string{"public-ulr": "public-url", "pubic-url": "public-url", "dtaa": "data", "date": "data", "topci": "topic", "gate": "", "x": "", "completely": ""} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
}
