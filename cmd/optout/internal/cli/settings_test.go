package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// settled reads the settings of "optout serve" from flags, variables and file.
func settled(t *testing.T, args, env []string, file string) (*serveFlags, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "optout.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	p := &program{env: map[string]string{}}
	p.Stderr = &bytes.Buffer{}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		p.env[name] = value
	}
	f := &serveFlags{}
	cmd := &cobra.Command{Use: "serve"}
	f.add(cmd.Flags())
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return f, p.settle(cmd, f)
}

func TestServeSettings(t *testing.T) {
	f, err := settled(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	// The defaults are part of the contract.
	if f.Data != "./optout-data" || f.Keys != "" || f.Store != "" || f.GRPC != "127.0.0.1:7070" || f.HTTP != "127.0.0.1:7080" || f.Admin != "127.0.0.1:7090" ||
		f.SMTP != "127.0.0.1:7025" || f.PublicURL != "http://127.0.0.1:7080" || f.MailDomain != "" || f.InsecurePlaintext || f.TrustedProxies != nil {
		t.Errorf("defaults %+v", f.Config)
	}

	file := "public-url: https://file.example\ngrpc: 127.0.0.1:1\nmail-domain: file.example\ninsecure-plaintext: true\ntrusted-proxy: [10.0.0.0/8, 192.0.2.1]\nsmtp: off\n"
	f, err = settled(t, []string{"--grpc", "127.0.0.1:3"}, []string{"OPTOUT_GRPC=127.0.0.1:2", "OPTOUT_MAIL_DOMAIN=env.example"}, file)
	if err != nil {
		t.Fatal(err)
	}
	if f.GRPC != "127.0.0.1:3" || f.MailDomain != "env.example" || f.PublicURL != "https://file.example" || f.HTTP != "127.0.0.1:7080" {
		t.Errorf("flag, variable, file, default: %s %s %s %s", f.GRPC, f.MailDomain, f.PublicURL, f.HTTP)
	}
	if !f.InsecurePlaintext || !slices.Equal(f.TrustedProxies, []string{"10.0.0.0/8", "192.0.2.1"}) || f.SMTP != "" {
		t.Errorf("of the file: %v %q %q", f.InsecurePlaintext, f.TrustedProxies, f.SMTP)
	}

	f, err = settled(t, nil, []string{"OPTOUT_TRUSTED_PROXY=10.0.0.0/8,192.0.2.1", "OPTOUT_ADMIN=off", "OPTOUT_INSECURE_PLAINTEXT=1"}, "")
	if err != nil || !slices.Equal(f.TrustedProxies, []string{"10.0.0.0/8", "192.0.2.1"}) || f.Admin != "" || !f.InsecurePlaintext {
		t.Errorf("of variables: %v %q %q %v", err, f.TrustedProxies, f.Admin, f.InsecurePlaintext)
	}
	f, err = settled(t, []string{"--trusted-proxy", "192.0.2.1"}, []string{"OPTOUT_TRUSTED_PROXY=10.0.0.0/8"}, "trusted-proxy: 172.16.0.0/12\n")
	if err != nil || !slices.Equal(f.TrustedProxies, []string{"192.0.2.1"}) {
		t.Errorf("a list is replaced, not joined: %v %q", err, f.TrustedProxies)
	}
}

func TestServeSettingsRefused(t *testing.T) {
	for _, c := range []struct{ env, file, want string }{
		{"", "public-ulr: https://x.example\n", `optout.yaml:1: public-ulr: unknown key (did you mean "public-url"?`},
		{"", "data: x\ndata: y\n", "optout.yaml:2: data: it stands there twice"},
		{"", "data:\n", "optout.yaml:1: data: its value is not a plain one"},
		{"", "data: {a: b}\n", "its value is not a plain one"},
		{"", "data: [a, b]\n", "it takes one value, not a list"},
		{"", "- data\n", "it is not a mapping"},
		{"", "data: [\n", "yaml: line"},
		{"", "insecure-plaintext: perhaps\n", `"perhaps" is not a valid value for insecure-plaintext (bool)`},
		{"", "config: other.yaml\n", "config: unknown key"},
		{"", "log-format: xml\n", `--log-format: "xml" is not a format (use text or json)`},
		{"OPTOUT_INSECURE_PLAINTEXT=perhaps", "", `OPTOUT_INSECURE_PLAINTEXT: "perhaps" is not a valid value`},
		{"OPTOUT_CONFIG=does-not-exist.yaml", "", "--config: open does-not-exist.yaml"},
	} {
		var env []string
		if c.env != "" {
			env = []string{c.env}
		}
		if _, err := settled(t, nil, env, c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s%q: %v, want an error with %q", c.env, c.file, err, c.want)
		}
	}
}

func TestMisspeltVariables(t *testing.T) {
	p := &program{env: map[string]string{"OPTOUT_DTAA": "x", "OPTOUT_PUBLICURL": "x", "OPTOUT_KEY_FIEL": "x", "OPTOUT_DATA": "x", "OPTOUT_KEY": "x", "OPTOUT_SENDER": "x", "OPTOUT_TOPCI": "x",
		"OPTOUT_SERVICE_HOST": "10.0.0.1", "OPTOUT_PORT_7070_TCP": "x", "PATH": "x", "OPTOUT_REQUIRE_REAL": "1"}}
	root := p.root()
	serve, _, err := root.Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"the variable OPTOUT_DTAA is none that optout reads; did you mean OPTOUT_DATA?",
		"the variable OPTOUT_KEY_FIEL is none that optout reads; did you mean OPTOUT_KEY_FILE?",
		"the variable OPTOUT_PUBLICURL is none that optout reads; did you mean OPTOUT_PUBLIC_URL?",
	}
	if got := p.misspelt(serve); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
