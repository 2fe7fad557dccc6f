package hooks_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"optout/service/address"
	"optout/service/anchor"
	"optout/service/hooks"
	"optout/service/ledger"
	"optout/service/provider"
	"optout/service/providertest"
	"optout/service/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	mailgunKey = "key-3ax6xnjp29jd6fds4gc373sgvjxteol0"
	secret     = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	password   = "correct horse battery staple"
)

// rig is a real ledger on SQLite with providers before it, behind a real HTTP server.
type rig struct {
	*ledger.Ledger
	t     *testing.T
	dir   string
	store *faulty
	hooks *hooks.Server
	http  *httptest.Server
	now   atomic.Int64
	log   *lockedBuffer

	sns                              *providertest.SNS
	sendgridKey                      *providertest.SendGridKey
	ses, sendgrid, mailgun, postmark *providertest.API
	n                                int
}

// faulty is a store whose disk can be full.
type faulty struct {
	*sqlite.Store
	full atomic.Bool
}

func (f *faulty) Append(ctx context.Context, c *ledger.Commit) error {
	if f.full.Load() {
		return ledger.ErrStorageFull
	}
	return f.Store.Append(ctx, c)
}

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

var access = providertest.SESAccess{ID: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", Region: "eu-west-1"}

// newRig starts everything with the topics news, receipts (transactional) and law (required), and the providers ses, sendgrid,
// mailgun, postmark and generic, all of them with an API but the last. extra is added to every provider with an API.
func newRig(t *testing.T, extra string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), log: &lockedBuffer{}}
	r.now.Store(time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC).UnixMilli())
	r.sns, r.sendgridKey = providertest.NewSNS(t), providertest.NewSendGridKey(t)
	r.ses, r.sendgrid = providertest.NewSES(t, access), providertest.NewSendGrid(t, "SG.key")
	r.mailgun, r.postmark = providertest.NewMailgun(t, "key-1", "mg.example.com"), providertest.NewPostmark(t, "token", "broadcast")
	for _, a := range []*providertest.API{r.ses, r.sendgrid, r.mailgun, r.postmark} {
		a.Now = r.clock
	}
	r.secrets(map[string]string{"aws": access.Secret, "sg-public": r.sendgridKey.Public(), "sg": "SG.key", "mg-sign": mailgunKey, "mg": "key-1", "pm-password": password, "pm": "token", "generic": secret})
	r.write("providers.yaml", `providers:
  - {id: ses, kind: ses, sns_topic: "`+r.sns.Topic+`", api_url: "`+r.ses.URL+`", api_key_file: aws, access_key_id: `+access.ID+`, region: eu-west-1`+extra+`}
  - {id: sendgrid, kind: sendgrid, webhook_key_file: sg-public, api_url: "`+r.sendgrid.URL+`", api_key_file: sg, groups: {"10": news}`+extra+`}
  - {id: mailgun, kind: mailgun, webhook_key_file: mg-sign, api_url: "`+r.mailgun.URL+`", api_key_file: mg, domain: mg.example.com`+extra+`}
  - {id: postmark, kind: postmark, webhook_user: hook, webhook_password_file: pm-password, api_url: "`+r.postmark.URL+`", api_key_file: pm, stream: broadcast`+extra+`}
  - {id: generic, kind: generic, webhook_key_file: generic, scope: COMMERCIAL}
`)
	r.open()
	t.Cleanup(r.close)
	return r
}

func (r *rig) clock() time.Time { return time.UnixMilli(r.now.Load()).UTC() }

func (r *rig) pass(d time.Duration) { r.now.Add(d.Milliseconds()) }

func (r *rig) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) secrets(all map[string]string) {
	for name, text := range all {
		r.write(name, text+"\n")
	}
}

func (r *rig) must(_ any, err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// compare returns what is found on one side alone, in order, and the sums.
func (r *rig) compare(id string) (string, hooks.Drift) {
	r.t.Helper()
	var found []string
	d, err := r.hooks.Compare(r.t.Context(), id, func(x hooks.Difference) error {
		found = append(found, fmt.Sprintf("%v %s", x.HereOnly, x.Address))
		return nil
	})
	r.must(nil, err)
	slices.Sort(found)
	return strings.Join(found, ", "), d
}

// open opens ledger and providers on the folder; close ends them, as a crash that lost nothing would.
func (r *rig) open() {
	r.t.Helper()
	keys, err := address.NewKeyring(address.Generation{ID: 1, Secret: [32]byte{1}, Rules: 1})
	r.must(nil, err)
	store, err := sqlite.Open(context.Background(), filepath.Join(r.dir, "optout.db"), sqlite.Options{})
	r.must(nil, err)
	r.store = &faulty{Store: store}
	log := slog.New(slog.NewTextHandler(r.log, nil))
	r.Ledger, err = ledger.Open(context.Background(), r.store, ledger.Options{Keys: keys, Anchor: anchor.At(filepath.Join(r.dir, "checkpoint")), Now: r.clock, Random: rand.Reader, Log: log})
	r.must(nil, err)
	if r.Registry().Sender("") == nil {
		by := ledger.By{Role: ledger.RoleAdmin, Channel: ledger.BySystem}
		r.must(r.CreateSender(r.t.Context(), by, ledger.DefaultSender, ledger.SenderSettings{}))
		r.must(r.CreateTopic(r.t.Context(), by, "", ledger.Topic{Name: "news"}))
		r.must(r.CreateTopic(r.t.Context(), by, "", ledger.Topic{Name: "receipts", Class: ledger.Transactional}))
		r.must(r.CreateTopic(r.t.Context(), by, "", ledger.Topic{Name: "law", Class: ledger.Required, Ground: ledger.GroundLaw, Justification: "recall notices are demanded by law"}))
	}
	r.hooks, err = hooks.New(hooks.Options{Ledger: r.Ledger, Config: filepath.Join(r.dir, "providers.yaml"), Folder: filepath.Join(r.dir, "providers"), Client: r.sns.Client, Now: r.clock, Random: rand.Reader, CallsPerSecond: 1000, Log: log})
	r.must(nil, err)
	r.http = httptest.NewServer(r.hooks)
}

func (r *rig) close() {
	r.http.Close()
	r.must(nil, r.hooks.Close())
	r.Ledger.Close()
	r.store.Close()
}

func (r *rig) reopen() {
	r.t.Helper()
	r.close()
	r.open()
}

// post sends a webhook and tells the status.
func (r *rig) post(path string, h http.Header, body []byte) int {
	r.t.Helper()
	q, err := http.NewRequest(http.MethodPost, r.http.URL+path, bytes.NewReader(body))
	r.must(nil, err)
	if h != nil {
		q.Header = h
	}
	resp, err := http.DefaultClient.Do(q)
	r.must(nil, err)
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if strings.Contains(string(text), "@") {
		r.t.Errorf("the answer shows an address: %q", text)
	}
	if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
		r.t.Error("503 without Retry-After")
	}
	return resp.StatusCode
}

// said makes a genuine webhook of each provider that says something about an address, with an event id.
func (r *rig) said(kind, what, id, addr string) (path string, h http.Header, body []byte) {
	r.t.Helper()
	r.n++
	switch kind {
	case "ses":
		record := `{"notificationType":"Bounce","bounce":{"bounceType":"Permanent","bounceSubType":"General","bouncedRecipients":[{"emailAddress":"` + addr + `","status":"5.1.1","action":"failed"}],"feedbackId":"` + id + `"}}`
		switch what {
		case "unsubscribe":
			record = `{"eventType":"Subscription","mail":{"destination":["` + addr + `"]},"subscription":{"newTopicPreferences":{"unsubscribeAll":true},"oldTopicPreferences":{}}}`
		case "complaint":
			record = `{"notificationType":"Complaint","complaint":{"complainedRecipients":[{"emailAddress":"` + addr + `"}],"feedbackId":"` + id + `"}}`
		}
		body, _ = json.Marshal(r.sns.Notification("2", id, record))
	case "sendgrid":
		event := map[string]string{"hard-bounce": `"event":"bounce","type":"bounce","status":"5.1.1"`, "unsubscribe": `"event":"unsubscribe"`, "complaint": `"event":"spamreport"`}[what]
		body = []byte(`[{"email":"` + addr + `","sg_event_id":"` + id + `",` + event + `}]`)
		h = r.sendgridKey.Sign(body, r.clock())
	case "mailgun":
		event := map[string]string{"hard-bounce": `"event":"failed","severity":"permanent","reason":"bounce","delivery-status":{"message":"5.1.1 no such user"}`, "unsubscribe": `"event":"unsubscribed"`, "complaint": `"event":"complained"`}[what]
		body = providertest.Mailgun(mailgunKey, fmt.Sprintf("%050d", r.n), r.clock(), json.RawMessage(`{"id":"`+id+`","recipient":"`+addr+`",`+event+`}`))
	case "postmark":
		body = []byte(map[string]string{"hard-bounce": `{"RecordType":"Bounce","ID":"` + id + `","Type":"HardBounce","Email":"` + addr + `"}`, "complaint": `{"RecordType":"SpamComplaint","ID":"` + id + `","Email":"` + addr + `"}`,
			"unsubscribe": `{"RecordType":"SubscriptionChange","MessageID":"` + id + `","ChangedAt":"2026-11-25T09:00:00Z","Recipient":"` + addr + `","Origin":"Recipient","SuppressSending":true,"SuppressionReason":"ManualSuppression"}`}[what])
		q := &http.Request{Header: http.Header{}}
		q.SetBasicAuth("hook", password)
		h = q.Header
	case "generic":
		body = []byte(`{"events":[{"id":"` + id + `","type":"` + what + `","address":"` + addr + `"}]}`)
		h = providertest.Standard(secret, "msg_"+id, r.clock(), body)
	}
	return "/hooks/" + kind + "/" + kind, h, body
}

// tell sends what said makes and demands the status.
func (r *rig) tell(status int, kind, what, id, addr string) {
	r.t.Helper()
	path, h, body := r.said(kind, what, id, addr)
	if got := r.post(path, h, body); got != status {
		r.t.Errorf("%s, %s: %d, want %d", kind, what, got, status)
	}
}

// denials are the reasons that deny a topic.
func (r *rig) denials(topic, addr string) string {
	r.t.Helper()
	st, err := r.Recipient(r.t.Context(), "", addr)
	r.must(nil, err)
	var all []string
	for _, v := range st.Verdicts {
		if v.Topic.Name != topic {
			continue
		}
		for _, d := range v.Denials {
			all = append(all, d.Reason.String())
		}
	}
	return strings.Join(all, ",")
}

// size is how many entries the ledger has.
func (r *rig) size() uint64 { return r.Position().Number }

// stop opts somebody out by a link; wish says yes to the news again through the mailbox.
func (r *rig) stop(addr string) ledger.Outcome {
	r.t.Helper()
	o, err := r.OptOut(r.t.Context(), ledger.By{Channel: ledger.ByAPI}, "", addr, ledger.Scope{})
	r.must(nil, err)
	return o
}

func (r *rig) wish(addr string) {
	r.t.Helper()
	for _, topic := range []string{"news", "receipts"} {
		r.n++
		by := ledger.By{Channel: ledger.ByAPI, RequestID: fmt.Sprint("yes", r.n)}
		o, err := r.Subscribe(r.t.Context(), by, ledger.Subscription{Topic: topic, Address: addr, Source: "form", Wording: "yes", Method: "box"})
		r.must(nil, err)
		position, prefix := ledger.UnpackRef(ledger.PackRef(o.Entry, o.Key))
		by.RequestID += "c"
		r.must(r.Confirm(r.t.Context(), by, o.Topic.Number, position, prefix))
	}
	if d := r.denials("news", addr); d != "" {
		r.t.Fatalf("after a yes: %s", d)
	}
}

// sync reads and pushes.
func (r *rig) sync(id string) (all []hooks.Progress) {
	r.t.Helper()
	r.must(nil, r.hooks.Sync(r.t.Context(), id, false, func(p hooks.Progress) { all = append(all, p) }))
	return all
}

var kinds = []string{string(provider.SES), string(provider.SendGrid), string(provider.Mailgun), string(provider.Postmark), string(provider.Generic)}
