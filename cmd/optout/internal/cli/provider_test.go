package cli

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"optout/service/providertest"
)

// The whole way, with the program: a provider's webhook and list stop people, our opt-outs reach its list, and the difference shows.
func TestProvider(t *testing.T) {
	dir := t.TempDir()
	postmark := providertest.NewPostmark(t, "token-of-the-server", "broadcast")
	at := time.Now().Add(-time.Hour)
	postmark.Add(providertest.Listed{List: "suppressions", Address: "listed@example.com", Created: at, Reason: "ManualSuppression", Origin: "Recipient"},
		providertest.Listed{List: "suppressions", Address: "dead@example.com", Created: at, Reason: "HardBounce", Origin: "Recipient"})
	for name, text := range map[string]string{"token": "token-of-the-server", "password": "correct horse battery staple", "providers.yaml": `
providers:
  - id: news-mail
    kind: postmark
    webhook_user: optout
    webhook_password_file: password
    api_url: ` + postmark.URL + `
    api_key_file: token
    stream: broadcast
  - id: crm
    kind: postmark
    webhook_user: optout
    webhook_password_file: password
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := install(t, filepath.Join(dir, "data"), "--providers", filepath.Join(dir, "providers.yaml"))
	in.do(t, exitOK, "topic", "create", "newsletter")
	demand(t, in.do(t, exitOK, "provider", "list"), `(?m)^news-mail +postmark +ALL +/hooks/postmark/news-mail +- +- +- +-$`)

	q, err := http.NewRequest(http.MethodPost, "http://"+in.addr.HTTP+"/hooks/postmark/news-mail", bytes.NewReader([]byte(`{"RecordType":"SpamComplaint","MessageStream":"broadcast","ID":42,"Email":"angry@example.com"}`)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		password string
		status   int
	}{{"wrong", http.StatusUnauthorized}, {"correct horse battery staple", http.StatusOK}} {
		again := q.Clone(t.Context())
		again.Body, _ = q.GetBody()
		again.SetBasicAuth("optout", c.password)
		resp, err := http.DefaultClient.Do(again)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("password %q: %d", c.password, resp.StatusCode)
		}
	}
	demand(t, in.do(t, exitNo, "check", "--topic", "newsletter", "angry@example.com"), `reported mail as spam`)

	resp, err := http.Get("http://" + in.addr.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	figures, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	demand(t, string(figures), `optout_provider_events_total\{event="complaint",outcome="recorded",provider="news-mail"\} 1`, `optout_provider_events_total\{event="any",outcome="refused",provider="news-mail"\} 1`)

	in.do(t, exitOK, "unsubscribe", "out@example.com")
	demand(t, in.do(t, exitNo, "provider", "drift", "news-mail"), `(?m)^there-only +listed@example.com  list/ManualSuppression/Recipient since `, `(?m)^here-only +out@example.com  OPTED_OUT_ALL since `,
		`0 on both sides, 1 here only, 2 there only; 0 noes of unknown address`)
	demand(t, in.do(t, exitOK, "provider", "sync", "news-mail"), `^suppressions: 2 read, 2 new\n$`)
	demand(t, in.do(t, exitNo, "check", "--topic", "newsletter", "listed@example.com", "dead@example.com"), `listed@example.com +opted out of ALL`, `dead@example.com +undeliverable`)
	demand(t, in.do(t, exitOK, "provider", "sync", "news-mail", "--full", "--json"), `^\{"list":"suppressions","read":2,"recorded":0,`, `"done":true`)
	demand(t, in.do(t, exitNo, "provider", "drift", "news-mail", "--json"), `"side":"HERE_ONLY","address":"out@example.com"`, `"agreed":2,"here_only":1,"there_only":0`)
	if m := strings.Split(in.do(t, exitOK, "provider", "list", "--json"), "\n"); len(m) != 3 || !strings.Contains(m[0], `"id":"news-mail"`) || !strings.Contains(m[0], `"recorded":3`) || !strings.Contains(m[0], `"last_poll_at"`) {
		t.Errorf("%q", m)
	}

	demand(t, in.do(t, exitError, "provider", "drift", "crm"), `no API that could be asked`)
	demand(t, in.do(t, exitError, "provider", "sync", "nosuch"), `there is no such provider`)
	postmark.Fail("", 401)
	demand(t, in.do(t, exitError, "provider", "sync", "news-mail"), `answers 401: look at the API key`)
	demand(t, in.do(t, exitNo, "provider", "list"), `news-mail: reading the lists failed: list suppressions: the provider's API answers 401`)
	if code := in.stop(); code != exitOK {
		t.Errorf("exit %d: %s", code, in.log)
	}
	if s := in.log.String(); strings.Contains(s, "@example.com") || strings.Contains(s, "token-of-the-server") || strings.Contains(s, "horse") {
		t.Errorf("the log shows what it must not: %s", s)
	}
}

func TestProviderConfigurationThatIsWrong(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "providers.yaml")
	if err := os.WriteFile(path, []byte("providers:\n  - {id: x, kind: generic, webhook_secret: s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := runWith(t, nil, "", "serve", "--log-level", "error", "--data", filepath.Join(dir, "data"), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "off", "--smtp", "off", "--providers", path)
	if code != exitNo || stdout != "" {
		t.Errorf("exit %d, %q", code, stdout)
	}
	demand(t, stderr, `^optout: --providers: .*providers.yaml: .*field webhook_secret: there is no such key for a provider`)
}
