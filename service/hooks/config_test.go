package hooks_test

import (
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"optout/service/hooks"
)

// Whatever is not right in the configuration stops the start, with the field, its fault and the remedy, and without a secret.
func TestConfiguration(t *testing.T) {
	r := newRig(t, "")
	r.secrets(map[string]string{"short": "hunter2", "empty": "", "open": "hunter2hunter2hunter2"})
	r.must(nil, os.Chmod(filepath.Join(r.dir, "open"), 0o644))
	try := func(text string) error {
		r.write("other.yaml", text)
		s, err := hooks.New(hooks.Options{Ledger: r.Ledger, Config: filepath.Join(r.dir, "other.yaml"), Folder: filepath.Join(r.dir, "other"), Now: r.clock, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			r.must(nil, s.Close())
		}
		return err
	}
	one := func(fields string) string { return "providers:\n  - {" + fields + "}\n" }
	generic := "id: g, kind: generic, webhook_key_file: generic"
	for _, c := range []struct{ text, want string }{
		{one(generic), ""},
		{one(generic + ", scope: COMMERCIAL, groups: {letter: news}"), ""},
		{one(generic + ", scope: TOPIC, topic: news"), ""},
		{one("id: m, kind: mailgun, api_key_file: " + filepath.Join(r.dir, "mg") + ", domain: mg.example.com, poll: 15m, push: true"), ""},
		{"", "providers: list 1 to 100"},
		{"providers: []", "providers: list 1 to 100"},
		{"providers: {}", "cannot unmarshal"},
		{"provider: []", "line 1: field provider: there is no such key; the file has one, providers"},
		{one(generic) + "---\n" + one(generic), "more than one YAML document"},
		{one(generic + ", webhok_header: x"), "field webhok_header: there is no such key for a provider"},
		{one("kind: generic, webhook_key_file: generic"), "id: it must be 1 to 32 characters"},
		{one("id: ../x, kind: generic, webhook_key_file: generic"), "id: it must be 1 to 32 characters"},
		{one(generic) + "  - {" + generic + "}\n", "id: another provider has it"},
		{one("id: g, kind: sparkpost"), "kind: it must be one of ses, sendgrid, mailgun, postmark, generic"},
		{one(generic + ", sender: nosuch"), `there is no sender "nosuch"`},
		{one(generic + ", topic: nosuch"), `has no topic "nosuch"`},
		{one(generic + ", groups: {x: nosuch}"), `groups: sender default has no topic "nosuch"`},
		{one(generic + ", scope: NONE"), "scope: it must be ALL"},
		{one(generic + ", scope: TOPIC"), "scope: it must be ALL"},
		{one(generic + ", region: eu-west-1"), "region: a provider of kind generic has none"},
		{one("id: g, kind: generic"), "webhook_key_file: it must hold 1 to 4 secrets"},
		{one("id: g, kind: generic, webhook_key_file: short"), "webhook_key_file: a secret must be whsec_"},
		{one("id: g, kind: generic, webhook_key_file: empty"), "must hold the secret"},
		{one("id: g, kind: generic, webhook_key_file: open"), "may be read or written by everybody"},
		{one("id: g, kind: generic, webhook_key_file: nosuch"), "webhook_key_file: open "},
		{one("id: g, kind: generic, webhook_key_file: ."), "is no file"},
		{one("id: s, kind: sendgrid"), "neither a webhook nor an API"},
		{one("id: s, kind: sendgrid, webhook_key_file: generic"), "no ECDSA public key"},
		{one("id: s, kind: ses, sns_topic: \"arn:aws:sns:x\""), "sns_topic: it is no ARN"},
		{one("id: s, kind: ses, api_key_file: aws"), "region, access_key_id: the API needs both"},
		{one("id: m, kind: mailgun, api_key_file: mg"), "domain: the API needs"},
		{one("id: p, kind: postmark, api_key_file: pm"), "stream: the API needs"},
		{one("id: p, kind: postmark, webhook_user: x"), "webhook_user and webhook_password_file go together"},
		{one("id: p, kind: postmark, webhook_header: X-Secret"), "webhook_header and webhook_header_file go together"},
		{one("id: p, kind: postmark, webhook_header: X-Secret, webhook_header_file: short"), "at least 16 characters"},
		{one("id: m, kind: mailgun, webhook_key_file: mg-sign, poll: 1h"), "poll: it needs the provider's API"},
		{one("id: m, kind: mailgun, webhook_key_file: mg-sign, push: true"), "push: it needs the provider's API"},
		{one("id: m, kind: mailgun, api_key_file: mg, domain: d.example, poll: 1s"), "poll: it must be a time of 1m to 168h"},
		{one("id: m, kind: mailgun, api_key_file: mg, domain: d.example, poll: daily"), "poll: it must be a time of 1m to 168h"},
		{one("id: m, kind: mailgun, api_key_file: mg, domain: d.example, topic: law, push: true"), "push: the topic is required mail"},
		{one("id: m, kind: mailgun, api_key_file: mg, domain: d.example, api_url: \"http://api.example.net\""), "api_url: it must be an https URL"},
		{one("id: m, kind: mailgun, api_key_file: mg, domain: d.example, api_url: \"https://u:hunter2@api.example.net\""), "api_url: it must be an https URL"},
	} {
		err := try(c.text)
		switch {
		case (err == nil) != (c.want == ""):
			t.Errorf("%s: %v", c.text, err)
		case err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%s: %q, want %q", c.text, err, c.want)
		}
	}
}

// The file that the documentation shows is taken.
func TestDocumentedConfiguration(t *testing.T) {
	r := newRig(t, "")
	text, err := os.ReadFile("../../docs/providers.md")
	r.must(nil, err)
	_, after, found := strings.Cut(string(text), "## The file\n\n")
	if !found {
		t.Fatal("the documentation shows no file")
	}
	example, _, _ := strings.Cut(after, "\n\n")
	r.write("documented.yaml", strings.ReplaceAll("\n"+example+"\n", "\n    ", "\n"))
	r.secrets(map[string]string{"ses-secret": access.Secret})
	s, err := hooks.New(hooks.Options{Ledger: r.Ledger, Config: filepath.Join(r.dir, "documented.yaml"), Folder: filepath.Join(r.dir, "documented"), Now: r.clock, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	r.must(nil, err)
	if l := s.List(); len(l) != 1 || l[0].ID != "ses-main" || !l[0].Push || !l[0].API || l[0].Path != "/hooks/ses/ses-main" {
		t.Errorf("%+v", l)
	}
	r.must(nil, s.Close())
}
