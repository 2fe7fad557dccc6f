package hooks

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"optout/service/ledger"
	"optout/service/provider"
	"optout/service/secretfile"
)

// file is the configuration file.
type file struct {
	Providers []entry `yaml:"providers"`
}

// entry is what the file says about one provider.
type entry struct {
	ID     string            `yaml:"id"`
	Kind   provider.Kind     `yaml:"kind"`
	Sender string            `yaml:"sender"`
	Scope  string            `yaml:"scope"`
	Topic  string            `yaml:"topic"`
	Groups map[string]string `yaml:"groups"`

	SNSTopic            string `yaml:"sns_topic"`
	WebhookKeyFile      string `yaml:"webhook_key_file"`
	WebhookUser         string `yaml:"webhook_user"`
	WebhookPasswordFile string `yaml:"webhook_password_file"`
	WebhookHeader       string `yaml:"webhook_header"`
	WebhookHeaderFile   string `yaml:"webhook_header_file"`

	APIURL      string `yaml:"api_url"`
	APIKeyFile  string `yaml:"api_key_file"`
	AccessKeyID string `yaml:"access_key_id"`
	Region      string `yaml:"region"`
	Domain      string `yaml:"domain"`
	Stream      string `yaml:"stream"`

	Poll string `yaml:"poll"`
	Push bool   `yaml:"push"`
}

// fields are those that only some kinds have.
var fields = []struct {
	name  string
	value func(*entry) string
	kinds []provider.Kind
}{
	{"sns_topic", func(e *entry) string { return e.SNSTopic }, []provider.Kind{provider.SES}},
	{"webhook_key_file", func(e *entry) string { return e.WebhookKeyFile }, []provider.Kind{provider.SendGrid, provider.Mailgun, provider.Generic}},
	{"webhook_user", func(e *entry) string { return e.WebhookUser }, []provider.Kind{provider.Postmark}},
	{"webhook_password_file", func(e *entry) string { return e.WebhookPasswordFile }, []provider.Kind{provider.Postmark}},
	{"webhook_header", func(e *entry) string { return e.WebhookHeader }, []provider.Kind{provider.Postmark}},
	{"webhook_header_file", func(e *entry) string { return e.WebhookHeaderFile }, []provider.Kind{provider.Postmark}},
	{"api_url", func(e *entry) string { return e.APIURL }, []provider.Kind{provider.SES, provider.SendGrid, provider.Mailgun, provider.Postmark}},
	{"api_key_file", func(e *entry) string { return e.APIKeyFile }, []provider.Kind{provider.SES, provider.SendGrid, provider.Mailgun, provider.Postmark}},
	{"access_key_id", func(e *entry) string { return e.AccessKeyID }, []provider.Kind{provider.SES}},
	{"region", func(e *entry) string { return e.Region }, []provider.Kind{provider.SES}},
	{"domain", func(e *entry) string { return e.Domain }, []provider.Kind{provider.Mailgun}},
	{"stream", func(e *entry) string { return e.Stream }, []provider.Kind{provider.Postmark}},
}

// account is one configured provider.
type account struct {
	id     string
	kind   provider.Kind
	sender string
	// scope is what an unsubscribe covers when its group is not among groups.
	scope ledger.Scope
	// topic is the topic of all mail through it; empty when it sends several.
	topic  string
	groups map[string]string
	poll   time.Duration
	push   bool

	receiver   provider.Receiver
	lister     provider.Lister     // nil without an API
	suppresser provider.Suppresser // nil without an API
	webhook    bool
}

// Bounds of the configuration.
const (
	maxAccounts  = 100
	maxFile      = 1 << 20
	minPoll      = time.Minute
	maxPoll      = 7 * 24 * time.Hour
	mostGroups   = 1000
	defaultScope = "ALL"
)

var (
	idForm     = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	regionForm = regexp.MustCompile(`^[a-z]{2}(-[a-z0-9]+){2,3}$`)
	keyIDForm  = regexp.MustCompile(`^[A-Z0-9]{16,128}$`)
	streamForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)
	domainForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251})$`)
	headerForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,99}$`)
)

// readConfig reads the file and everything that it names. Keys that it does not know are errors, so that a misspelt one never
// passes for a default.
func readConfig(path string, o *Options) ([]*account, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than 1 MiB", path)
	}
	var c file
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, yamlFault(err))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: it holds more than one YAML document: keep one", path)
	}
	if len(c.Providers) == 0 || len(c.Providers) > maxAccounts {
		return nil, fmt.Errorf("%s: providers: list 1 to %d", path, maxAccounts)
	}
	var all []*account
	seen := map[string]bool{}
	for i := range c.Providers {
		e := &c.Providers[i]
		a, err := e.account(filepath.Dir(path), o)
		if err == nil && seen[e.ID] {
			err = errors.New("id: another provider has it: give each its own")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: providers[%d] (%s): %w", path, i, printable(e.ID), err)
		}
		seen[e.ID] = true
		all = append(all, a)
	}
	return all, nil
}

func printable(s string) string {
	if idForm.MatchString(s) {
		return s
	}
	return "no id"
}

// yamlFault says of an unknown key only what its writer can know, not in which type of this program it was looked for.
func yamlFault(err error) error {
	var e *yaml.TypeError
	if !errors.As(err, &e) {
		return err
	}
	var faults []string
	for _, f := range e.Errors {
		if where, ok := strings.CutSuffix(f, " not found in type hooks.entry"); ok {
			f = where + ": there is no such key for a provider"
		} else if where, ok := strings.CutSuffix(f, " not found in type hooks.file"); ok {
			f = where + ": there is no such key; the file has one, providers"
		}
		faults = append(faults, f)
	}
	return errors.New(strings.Join(faults, "; "))
}

// account checks an entry and makes what it describes.
func (e *entry) account(dir string, o *Options) (*account, error) {
	if !idForm.MatchString(e.ID) {
		return nil, errors.New("id: it must be 1 to 32 characters of a-z, 0-9 and '-', beginning with a letter; it is part of the webhook's URL and must never change")
	}
	known := false
	var kinds []string
	for _, k := range provider.Kinds() {
		known = known || k == e.Kind
		kinds = append(kinds, string(k))
	}
	if !known {
		return nil, fmt.Errorf("kind: it must be one of %s", strings.Join(kinds, ", "))
	}
	for _, f := range fields {
		if f.value(e) == "" {
			continue
		}
		has := false
		for _, k := range f.kinds {
			has = has || k == e.Kind
		}
		if !has {
			return nil, fmt.Errorf("%s: a provider of kind %s has none: leave it out", f.name, e.Kind)
		}
	}
	a := &account{id: e.ID, kind: e.Kind, sender: e.Sender, topic: e.Topic, groups: e.Groups, push: e.Push}
	if a.sender == "" {
		a.sender = ledger.DefaultSender
	}
	if err := e.scopes(a, o.Ledger.Registry()); err != nil {
		return nil, err
	}
	if err := e.connect(a, dir, o); err != nil {
		return nil, err
	}
	if err := e.sync(a, o.Ledger.Registry()); err != nil {
		return nil, err
	}
	if !a.webhook && a.lister == nil {
		return nil, errors.New("it has neither a webhook nor an API: give what one of them needs; see docs/providers.md")
	}
	return a, nil
}

// scopes checks sender, scope, topic and groups against the ledger.
func (e *entry) scopes(a *account, reg *ledger.Registry) error {
	s := reg.Sender(a.sender)
	if s == nil {
		return fmt.Errorf("sender: there is no sender %q: create it first (\"optout sender create\")", a.sender)
	}
	topic := func(field, name string) error {
		if s.Topic(name) == nil {
			return fmt.Errorf("%s: sender %s has no topic %q: create it first (\"optout topic create\")", field, a.sender, name)
		}
		return nil
	}
	if e.Topic != "" {
		if err := topic("topic", e.Topic); err != nil {
			return err
		}
	}
	scope := func(field, text string) (ledger.Scope, error) {
		switch text {
		case "", defaultScope:
			return ledger.Scope{}, nil
		case "COMMERCIAL":
			return ledger.Scope{Kind: ledger.ScopeCommercial}, nil
		case "TOPIC":
			if e.Topic != "" {
				return ledger.Scope{Kind: ledger.ScopeTopic, Topic: e.Topic}, nil
			}
		}
		return ledger.Scope{}, fmt.Errorf("%s: it must be ALL (the default), COMMERCIAL, or TOPIC together with topic", field)
	}
	var err error
	if a.scope, err = scope("scope", e.Scope); err != nil {
		return err
	}
	if len(e.Groups) > mostGroups {
		return fmt.Errorf("groups: at most %d", mostGroups)
	}
	for _, name := range e.Groups {
		if err := topic("groups", name); err != nil {
			return err
		}
	}
	return nil
}

// sync checks polling and pushing.
func (e *entry) sync(a *account, reg *ledger.Registry) error {
	if e.Poll != "" {
		d, err := time.ParseDuration(e.Poll)
		if err != nil || d != 0 && (d < minPoll || d > maxPoll) {
			return fmt.Errorf("poll: it must be a time of 1m to 168h, such as 15m, or 0 for never")
		}
		if a.poll = d; d != 0 && a.lister == nil {
			return errors.New("poll: it needs the provider's API: give api_key_file")
		}
	}
	if !a.push {
		return nil
	}
	if a.suppresser == nil {
		return errors.New("push: it needs the provider's API: give api_key_file")
	}
	if e.Topic != "" {
		if t := reg.Sender(a.sender).Topic(e.Topic); t.Class == ledger.Required {
			return errors.New("push: the topic is required mail, which an opt-out does not stop, but the provider would: leave push out")
		}
	}
	return nil
}

// connect reads the secrets and makes the provider.
func (e *entry) connect(a *account, dir string, o *Options) (err error) {
	secret := func(field, path string) string {
		if path == "" || err != nil {
			return ""
		}
		var text string
		if text, err = readSecret(dir, path); err != nil {
			err = fmt.Errorf("%s: %w", field, err)
		}
		return text
	}
	webhookKey, apiKey := secret("webhook_key_file", e.WebhookKeyFile), secret("api_key_file", e.APIKeyFile)
	password, header := secret("webhook_password_file", e.WebhookPasswordFile), secret("webhook_header_file", e.WebhookHeaderFile)
	if err != nil {
		return err
	}
	if err := checkURL(e.APIURL); err != nil {
		return err
	}
	api := provider.API{URL: e.APIURL, Client: o.Client, Now: o.Now}
	hasAPI := apiKey != ""
	var made any
	switch e.Kind {
	case provider.SES:
		a.webhook = e.SNSTopic != ""
		if hasAPI && (!regionForm.MatchString(e.Region) || !keyIDForm.MatchString(e.AccessKeyID)) {
			return errors.New("region, access_key_id: the API needs both, for example eu-west-1 and the id that goes with the secret key in api_key_file")
		}
		made, err = provider.NewSES(provider.SESOptions{Topic: e.SNSTopic, Fetch: o.Client, API: api, Region: e.Region, AccessKeyID: e.AccessKeyID, SecretKey: apiKey})
		if err != nil {
			err = fmt.Errorf("sns_topic: %w", err)
		}
	case provider.SendGrid:
		a.webhook = webhookKey != ""
		made, err = provider.NewSendGrid(provider.SendGridOptions{WebhookKey: webhookKey, API: api, Key: apiKey})
		if err != nil {
			err = fmt.Errorf("webhook_key_file: %w", err)
		}
	case provider.Mailgun:
		a.webhook = webhookKey != ""
		if hasAPI && !domainForm.MatchString(e.Domain) {
			return errors.New("domain: the API needs the sending domain")
		}
		made = provider.NewMailgun(provider.MailgunOptions{SigningKey: []byte(webhookKey), API: api, Domain: e.Domain, Key: apiKey})
	case provider.Postmark:
		a.webhook = password != "" || header != ""
		switch {
		case (e.WebhookUser == "") != (password == ""):
			return errors.New("webhook_user and webhook_password_file go together")
		case (e.WebhookHeader == "") != (header == ""), header != "" && !headerForm.MatchString(e.WebhookHeader):
			return errors.New("webhook_header and webhook_header_file go together; the first is the name of a header field")
		case password != "" && len(password) < 16 || header != "" && len(header) < 16:
			return errors.New("webhook_password_file, webhook_header_file: the secret is all that tells a genuine webhook: it must have at least 16 characters, for example from: openssl rand -base64 24")
		case hasAPI && !streamForm.MatchString(e.Stream):
			return errors.New("stream: the API needs the id of the message stream, such as broadcast")
		}
		made = provider.NewPostmark(provider.PostmarkOptions{User: e.WebhookUser, Password: password, Header: e.WebhookHeader, HeaderSecret: header,
			API: api, Token: apiKey, Stream: e.Stream})
	case provider.Generic:
		a.webhook = true
		made, err = provider.NewGeneric(provider.GenericOptions{Secrets: strings.Fields(webhookKey)})
		if err != nil {
			err = fmt.Errorf("webhook_key_file: %w", err)
		}
	}
	if err != nil {
		return err
	}
	a.receiver = made.(provider.Receiver)
	if hasAPI {
		a.lister, _ = made.(provider.Lister)
		a.suppresser, _ = made.(provider.Suppresser)
	}
	return nil
}

// checkURL checks the base of an API: HTTPS, or plaintext on loopback for tests.
func checkURL(raw string) error {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	if err == nil && u.User == nil && u.RawQuery == "" && u.Fragment == "" && u.Host != "" {
		ip, ipErr := netip.ParseAddr(u.Hostname())
		if u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ipErr == nil && ip.IsLoopback()) {
			return nil
		}
	}
	return errors.New("api_url: it must be an https URL without user, query and fragment: a secret goes there")
}

// readSecret reads a secret from a file. The path counts from the folder of the configuration file.
func readSecret(dir, path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	text, err := secretfile.Read(path)
	return strings.TrimSpace(text), err
}

// httpClient is the client for APIs and certificates, when the options give none.
func httpClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	t.MaxIdleConnsPerHost = 4
	t.ResponseHeaderTimeout = 30 * time.Second
	t.MaxResponseHeaderBytes = 64 << 10
	return &http.Client{Transport: t, Timeout: 2 * time.Minute}
}
