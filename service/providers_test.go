package service_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/providertest"
)

// A service that is killed in the middle of batches of a provider keeps all that it acknowledged, and after the provider has
// repeated the rest, as it does, every event is on the ledger, and none twice.
func TestKillDuringWebhooks(t *testing.T) {
	kills := 15
	if testing.Short() {
		kills = 3
	}
	random, _ := newSeed(t)
	dir := t.TempDir()
	key := providertest.NewSendGridKey(t)
	for name, text := range map[string]string{"key": key.Public(), "providers.yaml": "providers:\n  - {id: sg, kind: sendgrid, webhook_key_file: key}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data, config := filepath.Join(dir, "data"), filepath.Join(dir, "providers.yaml")
	p, err := serve(t, data, "--providers", config)
	if err != nil {
		t.Fatal(err)
	}
	const batch = 100
	sent := 0
	post := func() int {
		var events []map[string]any
		for i := range batch {
			events = append(events, map[string]any{"email": fmt.Sprintf("p%d@example.com", sent+i), "event": "unsubscribe", "sg_event_id": fmt.Sprint("e", sent+i)})
		}
		body, err := json.Marshal(events)
		if err != nil {
			t.Fatal(err)
		}
		q, err := http.NewRequest(http.MethodPost, "http://"+p.addr.HTTP+"/hooks/sendgrid/sg", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		q.Header = key.Sign(body, time.Now())
		resp, err := p.web.Do(q)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	broken := 0
	for n := range kills {
		timer := time.AfterFunc(time.Duration(5+random.IntN(60))*time.Millisecond, func() { p.cmd.Process.Kill() })
		for post() == http.StatusOK {
			sent += batch
		}
		timer.Stop()
		broken++
		p.kill()
		if p, err = serve(t, data, "--providers", config); err != nil {
			t.Fatalf("after kill %d: %v", n+1, err)
		}
		if status := post(); status != http.StatusOK { // the batch that was not acknowledged
			t.Fatalf("a repeated batch after kill %d: %d: %s", n+1, status, p.log.String())
		}
		sent += batch
	}
	seen := map[string]int{}
	q := &optoutv1.ListEntriesRequest{PageSize: 1000, Kinds: []optoutv1.EntryKind{optoutv1.EntryKind_ENTRY_KIND_OPTED_OUT}}
	for {
		r, err := optoutv1.NewLedgerServiceClient(p.conn).ListEntries(p.ctx(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range r.Entries {
			seen[e.Evidence["address"]]++
		}
		if q.PageToken = r.NextPageToken; q.PageToken == "" {
			break
		}
	}
	twice := 0
	for _, n := range seen {
		if n > 1 {
			twice++
		}
	}
	p.kill()
	verified(t, data)
	t.Logf("%d kills, %d events", broken, sent)
	if len(seen) != sent || twice > 0 || sent < kills*batch {
		t.Errorf("%d of %d events are on the ledger, %d of them more than once", len(seen), sent, twice)
	}
}
