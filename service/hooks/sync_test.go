package hooks_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"optout/service/hooks"
	"optout/service/ledger"
	"optout/service/providertest"
)

// list puts an address on a provider's list of people who said stop (SES: who complained).
func (r *rig) list(kind, addr string) {
	at := r.clock().Add(-time.Minute).Truncate(time.Second)
	switch kind {
	case "ses":
		r.ses.Add(providertest.Listed{List: "suppressed", Address: addr, Created: at, Reason: "COMPLAINT"})
	case "sendgrid":
		r.sendgrid.Add(providertest.Listed{List: "unsubscribes", Address: addr, Created: at})
	case "mailgun":
		r.mailgun.Add(providertest.Listed{List: "unsubscribes", Address: addr, Created: at, Tags: []string{"*"}})
	case "postmark":
		r.postmark.Add(providertest.Listed{List: "suppressions", Address: addr, Created: at, Reason: "ManualSuppression", Origin: "Recipient"})
	}
}

func (r *rig) api(kind string) *providertest.API {
	return map[string]*providertest.API{"ses": r.ses, "sendgrid": r.sendgrid, "mailgun": r.mailgun, "postmark": r.postmark}[kind]
}

var pollable = kinds[:4]

// What stands on a list becomes an entry once, whatever is read again, and never again after a later yes.
func TestPolling(t *testing.T) {
	r := newRig(t, "")
	for _, kind := range pollable {
		addr := kind + "@example.com"
		r.list(kind, addr)
		r.sync(kind)
		if r.denials("news", addr) == "" {
			t.Errorf("%s: what stands on the list is not in force", kind)
		}
		before := r.size()
		r.sync(kind)
		r.pass(time.Hour)
		r.must(nil, r.hooks.Sync(t.Context(), kind, true, func(hooks.Progress) {}))
		if r.size() != before {
			t.Errorf("%s: read again, it wrote %d entries", kind, r.size()-before)
		}
		r.wish(addr)
		r.must(nil, r.hooks.Sync(t.Context(), kind, true, func(hooks.Progress) {}))
		r.reopen()
		r.must(nil, r.hooks.Sync(t.Context(), kind, true, func(hooks.Progress) {}))
		if d := r.denials("news", addr); d != "" {
			t.Errorf("%s: an old no beats a newer yes: %s", kind, d)
		}
		r.pass(48 * time.Hour)
		r.list(kind, "new-"+addr)
		r.sync(kind)
		if r.denials("news", "new-"+addr) == "" {
			t.Errorf("%s: what is new on the list is not in force", kind)
		}
	}
	info, err := os.Stat(filepath.Join(r.dir, "providers", "ses.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", err, info)
	}
}

// Noes that somebody brings to a list with the date on which they were said (Mailgun's created_at) are older than the last read, and
// heard all the same, once.
func TestOldNoesThatAreNewOnAList(t *testing.T) {
	r := newRig(t, "")
	r.list("mailgun", "first@example.com")
	r.sync("mailgun")
	r.pass(10 * 24 * time.Hour)
	r.sync("mailgun")
	old := r.clock().Add(-300 * 24 * time.Hour)
	r.mailgun.Add(providertest.Listed{List: "unsubscribes", Address: "brought@example.com", Created: old, Tags: []string{"*"}}, providertest.Listed{List: "unsubscribes", Address: "no address", Created: old})
	r.sendgrid.Add(providertest.Listed{List: "groups", Group: 10, Address: "group@example.com", Created: old})
	for i := range 30 { // which are no sign of what the domain's servers do today
		r.mailgun.Add(providertest.Listed{List: "bounces", Address: fmt.Sprintf("gone%02d@example.net", i), Created: old, Reason: "5.1.1 unknown"})
	}
	r.sync("mailgun")
	r.sync("sendgrid")
	for _, addr := range []string{"brought@example.com", "group@example.com", "gone00@example.net", "gone29@example.net"} {
		if r.denials("news", addr) == "" {
			t.Errorf("%s is not heard", addr)
		}
	}
	r.wish("brought@example.com")
	before := r.size()
	r.sync("mailgun")
	if d := r.denials("news", "brought@example.com"); d != "" || r.size() != before {
		t.Errorf("read again: %q, %d entries", d, r.size()-before)
	}
}

// A list that the key may not read is told, and keeps back no other.
func TestAListThatIsRefused(t *testing.T) {
	r := newRig(t, "")
	r.sendgrid.Add(providertest.Listed{List: "spam_reports", Address: "cross@example.com", Created: r.clock().Add(-time.Minute)})
	r.sendgrid.Fail("", 0, http.StatusForbidden) // unsubscribes; then the groups
	if err := r.hooks.Sync(t.Context(), "sendgrid", false, func(hooks.Progress) {}); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("%v", err)
	}
	if r.denials("news", "cross@example.com") == "" {
		t.Error("a list that may not be read keeps back the others")
	}
	calls := len(r.sendgrid.Calls())
	r.sendgrid.Fail("", 0, http.StatusTooManyRequests) // no time to go on asking
	if err := r.hooks.Sync(t.Context(), "sendgrid", false, func(hooks.Progress) {}); err == nil || calls != 5 || len(r.sendgrid.Calls()) != 2 {
		t.Errorf("%v, %d calls", err, calls)
	}
}

// The same no by webhook and by list is one no: a yes after it stands.
func TestWebhookAndListAreOne(t *testing.T) {
	r := newRig(t, "")
	for _, kind := range pollable {
		addr := kind + "@example.com"
		what := "unsubscribe"
		if kind == "ses" {
			what = "complaint"
		}
		r.list(kind, addr)
		r.tell(http.StatusOK, kind, what, "w-"+kind, addr)
		r.pass(time.Minute)
		r.wish(addr)
		r.sync(kind)
		if d := r.denials("news", addr); d != "" {
			t.Errorf("%s: %s", kind, d)
		}
	}
}

// A provider that fails half way is read on from there, also by a restarted service, and not from the beginning.
func TestPollingIsResumed(t *testing.T) {
	r := newRig(t, "")
	r.ses.PageSize = 10
	for i := range 95 {
		r.ses.Add(providertest.Listed{List: "suppressed", Address: fmt.Sprintf("p%02d@example.com", i), Created: r.clock(), Reason: "COMPLAINT"})
	}
	r.ses.Fail("", 0, 0, 0, 500)
	if err := r.hooks.Sync(t.Context(), "ses", false, func(hooks.Progress) {}); err == nil {
		t.Fatal("a failure passes for the end of the list")
	}
	if s := r.hooks.List()[0]; !strings.Contains(s.PollError, "500") || !s.LastPoll.IsZero() {
		t.Errorf("%+v", s)
	}
	r.reopen()
	r.ses.Calls()
	r.sync("ses")
	calls := r.ses.Calls()
	if len(calls) != 7 || !strings.Contains(calls[0], "token-30") {
		t.Errorf("%q", calls)
	}
	for i := range 95 {
		if r.denials("news", fmt.Sprintf("p%02d@example.com", i)) == "" {
			t.Errorf("address %d is not stopped", i)
		}
	}
	// A cursor that the provider no longer knows begins the list anew.
	r.ses.Fail("", 0, 500)
	if err := r.hooks.Sync(t.Context(), "ses", true, func(hooks.Progress) {}); err == nil {
		t.Fatal("no failure")
	}
	r.ses.Fail("", 400)
	before := r.size()
	r.sync("ses")
	if r.size() != before || r.hooks.List()[0].LastPoll.IsZero() {
		t.Errorf("%+v", r.hooks.List()[0])
	}
}

// A full sync that is asked for while a list is being read begins anew after that, and is not forgotten by it.
func TestFullSyncDuringAnother(t *testing.T) {
	r := newRig(t, "")
	r.list("ses", "a@example.com")
	r.sync("ses")
	r.pass(48 * time.Hour)
	r.ses.Calls()
	var full sync.WaitGroup
	r.must(nil, r.hooks.Sync(t.Context(), "ses", false, func(hooks.Progress) {
		full.Go(func() {
			if err := r.hooks.Sync(t.Context(), "ses", true, func(hooks.Progress) {}); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(50 * time.Millisecond) // long enough for a fault to show; nothing hangs on it
	}))
	full.Wait()
	if calls := r.ses.Calls(); len(calls) != 2 || !strings.Contains(calls[0], "StartDate") || strings.Contains(calls[1], "StartDate") {
		t.Errorf("%q: the second must read from the beginning", calls)
	}
}

// A list whose pages lead in a circle has not been read: neither a sync nor a comparison passes it for one that has.
func TestPagesInACircle(t *testing.T) {
	r := newRig(t, "")
	circle := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"SuppressedDestinationSummaries":[],"NextToken":"again"}`)
	}))
	defer circle.Close()
	r.write("providers.yaml", `providers: [{id: ses, kind: ses, api_url: "`+circle.URL+`", api_key_file: aws, access_key_id: `+access.ID+`, region: eu-west-1}]`)
	r.reopen()
	if err := r.hooks.Sync(t.Context(), "ses", false, func(hooks.Progress) {}); err == nil {
		t.Error("synced")
	}
	if d, err := r.hooks.Compare(t.Context(), "ses", func(hooks.Difference) error { return nil }); err == nil {
		t.Errorf("compared: %+v", d)
	}
}

// After a failure the next try is as late as the provider asks; and late where somebody must act first.
func TestHowLongToWait(t *testing.T) {
	for again, fail := range map[string]func(*providertest.API){
		"again_in=2m0s":  func(a *providertest.API) { a.Fail("120", http.StatusTooManyRequests) },
		"again_in=15m0s": func(a *providertest.API) { a.Fail("", http.StatusUnauthorized) },
	} {
		r := newRig(t, ", poll: 1m")
		fail(r.sendgrid)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.hooks.Run(ctx) })
		for deadline := time.Now().Add(30 * time.Second); !strings.Contains(r.log.String(), "poll failed"); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no poll failed")
			}
		}
		cancel()
		running.Wait()
		if !strings.Contains(r.log.String(), again) {
			t.Errorf("want %s: %s", again, r.log)
		}
	}
}

// Entries that cannot be written hold the cursor.
func TestPollingWaitsForTheLedger(t *testing.T) {
	r := newRig(t, "")
	r.list("sendgrid", "a@example.com")
	r.store.full.Store(true)
	if err := r.hooks.Sync(t.Context(), "sendgrid", false, func(hooks.Progress) {}); err == nil {
		t.Fatal("it passes")
	}
	r.store.full.Store(false)
	r.pass(72 * time.Hour)
	r.sync("sendgrid")
	if r.denials("news", "a@example.com") == "" {
		t.Error("an address was lost while the disk was full")
	}
}

// Many bounces of one domain on a list that is read for the first time are history, not a storm.
func TestFirstReadIsHistory(t *testing.T) {
	r := newRig(t, "")
	for i := range 300 {
		r.ses.Add(providertest.Listed{List: "suppressed", Address: fmt.Sprintf("p%d@example.com", i), Created: r.clock().AddDate(-1, 0, 0), Reason: "BOUNCE"})
	}
	r.sync("ses")
	for i := range 300 {
		if r.denials("news", fmt.Sprintf("p%d@example.com", i)) == "" {
			t.Fatalf("address %d waits", i)
		}
	}
}

// A restored older ledger has not heard what was read since: everything is read again.
func TestAnOlderLedger(t *testing.T) {
	r := newRig(t, "")
	r.stop("a@example.com")
	r.list("sendgrid", "b@example.com")
	r.sync("sendgrid")
	path := filepath.Join(r.dir, "providers", "sendgrid.json")
	text, err := os.ReadFile(path)
	r.must(nil, err)
	ahead := strings.Replace(string(text), fmt.Sprintf(`"position":%d`, r.size()), `"position":1000`, 1)
	another := strings.Replace(string(text), r.ID(), strings.Repeat("0", len(r.ID())), 1)
	r.pass(72 * time.Hour)
	for _, state := range []string{ahead, another} {
		if state == string(text) {
			t.Fatalf("%s", text)
		}
		r.write("providers/sendgrid.json", state)
		r.reopen()
		r.sendgrid.Calls()
		r.sync("sendgrid")
		if calls := r.sendgrid.Calls(); strings.Contains(strings.Join(calls, " "), "start_time") {
			t.Errorf("%s: %q", state, calls)
		}
	}
	r.write("providers/sendgrid.json", "{")
	r.close()
	if _, err := hooks.New(hooks.Options{Ledger: r.Ledger, Config: filepath.Join(r.dir, "providers.yaml"), Folder: filepath.Join(r.dir, "providers"), Client: r.sns.Client, Now: r.clock}); err == nil || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("%v", err)
	}
	r.write("providers/sendgrid.json", ahead)
	r.open()
}

// A no that was pressed and undone at our page says nothing of one that was said at the provider before.
func TestAnUndoneNoHidesNone(t *testing.T) {
	r := newRig(t, "")
	r.sendgrid.Add(providertest.Listed{List: "unsubscribes", Address: "a@example.com", Created: r.clock().Add(-time.Hour)})
	s := r.Registry().Sender("")
	key, generation, err := r.AddressKey(s, "a@example.com")
	r.must(nil, err)
	o, err := r.Press(t.Context(), ledger.By{Channel: ledger.ByPage}, s.All(), generation, key)
	r.must(nil, err)
	r.must(r.Undo(t.Context(), ledger.By{Channel: ledger.ByPage}, o.Entry, [8]byte(key[:8])))
	r.sync("sendgrid")
	if r.denials("news", "a@example.com") == "" {
		t.Error("the no on the list is not heard")
	}
}
