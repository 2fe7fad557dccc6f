package hooks_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"optout/service/hooks"
	"optout/service/ledger"
	"optout/service/provider"
	"optout/service/providertest"
)

// What every provider says by webhook is in force when the answer is 200, and saying it again writes nothing.
func TestWebhooksBecomeEntries(t *testing.T) {
	r := newRig(t, "")
	for _, kind := range kinds {
		for what, want := range map[string]string{"unsubscribe": "OPTED_OUT_ALL", "complaint": "COMPLAINT", "hard-bounce": "UNDELIVERABLE"} {
			if kind == "generic" && what == "unsubscribe" {
				want = "OPTED_OUT_COMMERCIAL"
			}
			addr := kind + "-" + what + "@example.com"
			path, h, body := r.said(kind, what, kind+what, addr)
			if status := r.post(path, h, body); status != http.StatusOK {
				t.Fatalf("%s, %s: %d", kind, what, status)
			}
			if got := strings.ToUpper(strings.ReplaceAll(strings.ReplaceAll(r.denials("news", addr), "-", "_"), " ", "_")); got != want {
				t.Errorf("%s, %s: denied by %q, want %q", kind, what, got, want)
			}
			st, err := r.Explain(t.Context(), "", addr)
			if err != nil || len(st.Lines) != 1 || st.Lines[0].Channel != ledger.ByWebhook || st.Lines[0].Evidence["address"] != addr || st.Lines[0].Evidence["provider"] != kind {
				t.Errorf("%s, %s: %v, %+v", kind, what, err, st.Lines)
			}
			// Again, as it was, and from a restarted service: the answer was lost, and the provider repeats.
			before := r.size()
			for range 2 {
				if status := r.post(path, h, body); status != http.StatusOK || r.size() != before {
					t.Errorf("%s, %s, again: %d, %d new entries", kind, what, status, r.size()-before)
				}
			}
		}
	}
	before := r.size()
	r.reopen()
	for _, kind := range kinds {
		for _, what := range []string{"unsubscribe", "complaint", "hard-bounce"} {
			r.tell(http.StatusOK, kind, what, kind+what, kind+"-"+what+"@example.com")
		}
	}
	if r.size() != before {
		t.Errorf("after a restart repetitions wrote %d entries", r.size()-before)
	}
	if s := r.log.String(); strings.Contains(s, "@example.com") {
		t.Errorf("the log shows an address: %s", s)
	}
}

// An event that comes again after the person has said yes again does not stop them: it was known for ever.
func TestAReplayStopsNobodyTwice(t *testing.T) {
	r := newRig(t, "")
	for _, kind := range kinds {
		addr := kind + "@example.com"
		path, h, body := r.said(kind, "unsubscribe", "replay-"+kind, addr)
		r.post(path, h, body)
		if s, _ := r.hooks.Find(kind); s.Recorded != 1 {
			t.Errorf("%s: %d events are counted as recorded, want 1", kind, s.Recorded)
		}
		r.pass(time.Second)
		r.wish(addr)
		if status := r.post(path, h, body); status != http.StatusOK || r.denials("news", addr) != "" {
			t.Errorf("%s: %d, denied by %q", kind, status, r.denials("news", addr))
		}
		if s, _ := r.hooks.Find(kind); s.Recorded != 1 {
			t.Errorf("%s: %d events are counted as recorded after a repetition, want 1", kind, s.Recorded)
		}
		// A new event is a new no.
		r.tell(http.StatusOK, kind, "unsubscribe", "new-"+kind, addr)
		if r.denials("news", addr) == "" {
			t.Errorf("%s: a new no is not heard", kind)
		}
	}
}

// Nothing is 2xx that is not durable, and what is repeated afterwards is complete.
func TestABatchIsWholeOrRepeated(t *testing.T) {
	r := newRig(t, "")
	var events []map[string]any
	for i := range 500 {
		events = append(events, map[string]any{"email": fmt.Sprintf("p%d@example.com", i), "event": "unsubscribe", "sg_event_id": fmt.Sprint("e", i), "timestamp": r.clock().Unix()})
	}
	body, _ := json.Marshal(events)
	h := r.sendgridKey.Sign(body, r.clock())
	before := r.size()
	r.store.full.Store(true)
	if status := r.post("/hooks/sendgrid/sendgrid", h, body); status != http.StatusServiceUnavailable || r.size() != before {
		t.Fatalf("full disk: %d, %d entries", status, r.size()-before)
	}
	r.store.full.Store(false)
	// Part of it is recorded already, as when the power fails in between.
	part, _ := json.Marshal(events[:123])
	if status := r.post("/hooks/sendgrid/sendgrid", r.sendgridKey.Sign(part, r.clock()), part); status != http.StatusOK {
		t.Fatal(status)
	}
	r.reopen()
	r.pass(10 * time.Hour)
	var wait sync.WaitGroup
	for range 4 { // the provider's own repetitions overlap
		wait.Go(func() {
			if status := r.post("/hooks/sendgrid/sendgrid", h, body); status != http.StatusOK {
				t.Errorf("%d", status)
			}
		})
	}
	wait.Wait()
	if n := r.size() - before; n != 500 {
		t.Errorf("%d entries for 500 events", n)
	}
}

// Anybody can begin requests and never end them: that keeps no provider out.
func TestSlowRequestsKeepNobodyOut(t *testing.T) {
	r := newRig(t, "")
	for i := range 150 {
		c, err := net.Dial("tcp", r.http.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /hooks/generic/generic HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\nExpect: 100-continue\r\n\r\n")
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") { // its body is waited for
			t.Fatalf("request %d: %q, %v", i, line, err)
		}
	}
	for i := range 10 {
		r.tell(http.StatusOK, "sendgrid", "unsubscribe", fmt.Sprint("e", i), fmt.Sprintf("p%d@example.com", i))
	}
	large := []byte("[" + strings.Repeat(" ", 700<<10) + "]")
	if status := r.post("/hooks/sendgrid/sendgrid", r.sendgridKey.Sign(large, r.clock()), large); status != http.StatusOK {
		t.Errorf("a large one: %d", status)
	}
}

func TestRefusedRequests(t *testing.T) {
	r := newRig(t, "")
	before := r.size()
	for _, kind := range kinds {
		path, h, body := r.said(kind, "unsubscribe", "x", "a@example.com")
		wrong := http.StatusForbidden
		if kind == "postmark" {
			wrong = http.StatusUnauthorized
		}
		for name, c := range map[string]struct {
			path   string
			h      http.Header
			body   []byte
			status int
		}{
			"unknown id":            {"/hooks/" + kind + "/nosuch", h, body, http.StatusNotFound},
			"an id of another kind": {"/hooks/x/" + kind, h, body, http.StatusNotFound},
			"no id":                 {"/hooks/" + kind, h, body, http.StatusNotFound},
			"more than 1 MiB":       {path, h, []byte(strings.Repeat(" ", provider.MaxBody) + "{}"), http.StatusRequestEntityTooLarge},
			"compressed":            {path, http.Header{"Content-Encoding": {"gzip"}}, body, http.StatusUnsupportedMediaType},
		} {
			if status := r.post(c.path, c.h.Clone(), c.body); status != c.status {
				t.Errorf("%s, %s: %d, want %d", kind, name, status, c.status)
			}
		}
		forged := []byte(strings.ReplaceAll(string(body), "a@example.com", "b@example.com"))
		switch kind {
		case "postmark":
			h, forged = http.Header{}, body
		case "mailgun":
			// its signature does not cover the event: see TestMailgunTokens
			forged = []byte(strings.Replace(string(body), `"token":"0`, `"token":"1`, 1))
		}
		if status := r.post(path, h, forged); status != wrong {
			t.Errorf("%s, forged: %d, want %d", kind, status, wrong)
		}
		if resp, err := http.Get(r.http.URL + path); err != nil || resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "POST" {
			t.Errorf("%s, GET: %v, %v", kind, err, resp)
		} else {
			resp.Body.Close()
		}
	}
	if r.size() != before {
		t.Errorf("%d entries were written", r.size()-before)
	}
}

// Mailgun signs a token, not the event, so a token that was seen with one event says no other.
func TestMailgunTokens(t *testing.T) {
	r := newRig(t, "")
	token := strings.Repeat("k", 50)
	send := func(event string) int {
		return r.post("/hooks/mailgun/mailgun", nil, providertest.Mailgun(mailgunKey, token, r.clock().Truncate(24*time.Hour).Add(10*time.Hour), json.RawMessage(event)))
	}
	delivered := `{"event":"delivered","id":"d","recipient":"a@example.com"}`
	forged := `{"event":"unsubscribed","id":"d","recipient":"victim@example.com"}`
	if status := send(delivered); status != http.StatusOK {
		t.Fatal(status)
	}
	if status := send(forged); status != http.StatusForbidden {
		t.Errorf("the token of another event: %d", status)
	}
	r.reopen()
	if status := send(forged); status != http.StatusForbidden {
		t.Errorf("the token of another event, after a restart: %d", status)
	}
	r.pass(8 * time.Hour)
	if status := send(delivered); status != http.StatusOK {
		t.Errorf("a retry after 8 hours: %d", status)
	}
	if status := send(forged); status != http.StatusForbidden {
		t.Errorf("the token of another event, after 8 hours: %d", status)
	}
	if d := r.denials("news", "victim@example.com"); d != "" {
		t.Errorf("forged: %s", d)
	}
	info, err := os.Stat(filepath.Join(r.dir, "providers", "mailgun.tokens"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", err, info)
	}
	// What has ended is forgotten, and refused for its age.
	r.pass(2 * time.Hour)
	r.reopen()
	if info, err := os.Stat(filepath.Join(r.dir, "providers", "mailgun.tokens")); err != nil || info.Size() != 0 {
		t.Errorf("%v, %v", err, info)
	}
	if status := send(forged); status != http.StatusForbidden {
		t.Errorf("after ten hours: %d", status)
	}
}

// Tokens that cannot be read are not forgotten in silence: the service does not start without them.
func TestDamagedTokens(t *testing.T) {
	r := newRig(t, "")
	r.tell(http.StatusOK, "mailgun", "unsubscribe", "m1", "a@example.com")
	path := filepath.Join(r.dir, "providers", "mailgun.tokens")
	text, err := os.ReadFile(path)
	r.must(nil, err)
	r.write("providers/mailgun.tokens", strings.Repeat("\x00", 100<<10)+string(text))
	_, err = hooks.New(hooks.Options{Ledger: r.Ledger, Config: filepath.Join(r.dir, "providers.yaml"), Folder: filepath.Join(r.dir, "providers"), Now: r.clock, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("%v, want an error that names %s and the remedy", err, path)
	}
}

// Groups have the scope of their topic; a resubscription lifts nothing; soft bounces count as days, not as events.
func TestScopes(t *testing.T) {
	r := newRig(t, "")
	send := func(events string) {
		t.Helper()
		body := []byte(events)
		if status := r.post("/hooks/sendgrid/sendgrid", r.sendgridKey.Sign(body, r.clock()), body); status != http.StatusOK {
			t.Errorf("%s: %d", events, status)
		}
	}
	send(`[{"email":"a@example.com","event":"group_unsubscribe","asm_group_id":10,"sg_event_id":"1"},{"email":"b@example.com","event":"group_unsubscribe","asm_group_id":11,"sg_event_id":"2"}]`)
	if a, b := r.denials("receipts", "a@example.com"), r.denials("receipts", "b@example.com"); a != "" || b == "" || r.denials("news", "a@example.com") == "" {
		t.Errorf("a group with a topic denies %q, one without %q", a, b)
	}
	before := r.size()
	send(`[{"email":"a@example.com","event":"group_resubscribe","asm_group_id":10,"sg_event_id":"3"}]`)
	if r.size() != before || r.denials("news", "a@example.com") == "" {
		t.Error("a provider's resubscription lifts a no")
	}
	for day := range 20 {
		for n := range 3 {
			send(fmt.Sprintf(`[{"email":"full@example.com","event":"bounce","type":"bounce","status":"5.2.2","sg_event_id":"s%d-%d"}]`, day, n))
		}
		if d := r.denials("news", "full@example.com"); (d != "") != (day >= 14) {
			t.Errorf("day %d: %q", day, d)
		}
		r.pass(24 * time.Hour)
	}
}

// What cannot be read is told the provider, and does not hide the rest; what is no address holds nothing up.
func TestUnreadableEvents(t *testing.T) {
	r := newRig(t, "")
	body := []byte(`[{"email":["x"],"event":"unsubscribe","sg_event_id":"1"},{"email":"good@example.com","event":"unsubscribe","sg_event_id":"2"}]`)
	if status := r.post("/hooks/sendgrid/sendgrid", r.sendgridKey.Sign(body, r.clock()), body); status != http.StatusBadRequest || r.denials("news", "good@example.com") == "" {
		t.Errorf("%d, %q", status, r.denials("news", "good@example.com"))
	}
	body = []byte(`[{"email":"not an email address","event":"unsubscribe","sg_event_id":"3"},{"email":"fine@example.com","event":"unsubscribe","sg_event_id":"4","timestamp":99999999999}]`)
	if status := r.post("/hooks/sendgrid/sendgrid", r.sendgridKey.Sign(body, r.clock()), body); status != http.StatusOK || r.denials("news", "fine@example.com") == "" {
		t.Errorf("%d, %q", status, r.denials("news", "fine@example.com"))
	}
	body = []byte(`[{"email":"x@example.com","event":"unsubscribe","sg_event_id":"5\u0007"},{"email":"last@example.com","event":"unsubscribe","sg_event_id":"6"}]`)
	if status := r.post("/hooks/sendgrid/sendgrid", r.sendgridKey.Sign(body, r.clock()), body); status != http.StatusBadRequest || r.denials("news", "last@example.com") == "" {
		t.Errorf("an id that no record takes: %d, %q: repeating it would be in vain", status, r.denials("news", "last@example.com"))
	}
}

// A provider of which no webhook is set up has no address for one.
func TestNoWebhook(t *testing.T) {
	r := newRig(t, "")
	r.write("providers.yaml", `providers: [{id: mailgun, kind: mailgun, api_url: "`+r.mailgun.URL+`", api_key_file: mg, domain: mg.example.com}]`)
	r.reopen()
	r.tell(http.StatusNotFound, "mailgun", "unsubscribe", "m1", "a@example.com")
}

// Two addresses whose events have the same id are both heard, and so are events of several kinds: a program of one's own may give
// the id of the person.
func TestOneIDForTwo(t *testing.T) {
	r := newRig(t, "")
	for _, what := range []string{"soft-bounce", "complaint", "unsubscribe"} {
		r.tell(http.StatusOK, "generic", what, "person-42", "c@example.com")
	}
	if d := r.denials("news", "c@example.com"); !strings.Contains(d, "OPTED_OUT") {
		t.Errorf("the unsubscribe is not heard: %q", d)
	}
	for range 2 {
		for _, addr := range []string{"a@example.com", "b@example.com"} {
			r.tell(http.StatusOK, "sendgrid", "unsubscribe", "same", addr)
			if r.denials("news", addr) == "" {
				t.Errorf("%s is not heard", addr)
			}
		}
	}
	before := r.size()
	r.pass(time.Second)
	r.wish("b@example.com")
	r.tell(http.StatusOK, "sendgrid", "unsubscribe", "same", "b@example.com")
	if d := r.denials("news", "b@example.com"); d != "" || r.size() != before+4 {
		t.Errorf("a replay: %q", d)
	}
}

func TestSubscriptionConfirmation(t *testing.T) {
	r := newRig(t, "")
	body, _ := json.Marshal(r.sns.Confirmation("SubscriptionConfirmation"))
	r.sns.Down.Store(true)
	if status := r.post("/hooks/ses/ses", nil, body); status != http.StatusServiceUnavailable {
		t.Errorf("SNS down: %d", status)
	}
	r.sns.Down.Store(false)
	if status := r.post("/hooks/ses/ses", nil, body); status != http.StatusOK || r.sns.Confirmed.Load() != 1 {
		t.Errorf("%d, confirmed %d times", status, r.sns.Confirmed.Load())
	}
	body, _ = json.Marshal(r.sns.Confirmation("UnsubscribeConfirmation"))
	if status := r.post("/hooks/ses/ses", nil, body); status != http.StatusOK || !strings.Contains(r.hooks.List()[0].LastControl, "unsubscribed") {
		t.Errorf("%d, %+v", status, r.hooks.List()[0])
	}
}
