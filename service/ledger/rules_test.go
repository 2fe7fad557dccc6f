package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"optout/service/ledger"
)

func TestImportNeverLiftsAndCanBeVoided(t *testing.T) {
	w := newWorld(t)
	imports := func(dry bool, rows ...ledger.ImportRow) ledger.ImportOutcome {
		t.Helper()
		o, err := w.Import(w.ctx(), w.as(ledger.RoleOperator), "", "old.csv", rows, dry, false)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	rows := []ledger.ImportRow{{Address: ann, Occurred: start.AddDate(-2, 0, 0)}, {Address: "ANN@example.com"}, {Address: "no address"},
		{Address: "bob@example.com", Reason: ledger.ReasonComplaint, Topic: "news"}, {Address: "carl@example.com", Reason: ledger.ReasonRestricted}}
	before := w.Position().Number
	if o := imports(true, rows...); o.Added != 2 || o.Unchanged != 1 || len(o.Malformed) != 2 || w.Position().Number != before {
		t.Errorf("dry run: %+v", o)
	}
	if o := imports(false, rows...); o.Added != 2 || o.Unchanged != 1 || len(o.Malformed) != 2 {
		t.Errorf("import: %+v", o)
	}
	if o := imports(false, rows...); o.Added != 0 || o.Unchanged != 3 {
		t.Errorf("again: %+v", o)
	}
	w.want("news", ann, "OPTED_OUT_ALL")
	// An old no imported after a newer yes still counts at its position.
	w.confirm(w.subscribe(full("news", ann)))
	w.want("news", ann, "SEND")
	if o := imports(false, rows[0]); o.Added != 1 {
		t.Errorf("after a yes: %+v", o)
	}
	w.want("news", ann, "OPTED_OUT_ALL")

	list, _, err := w.Suppressions(w.ctx(), ledger.Page{Size: 100}, ledger.SuppressionFilter{Channel: ledger.ByImport})
	if err != nil || len(list) != 3 {
		t.Fatalf("%d imported suppressions, %v", len(list), err)
	}
	var entries []uint64
	for _, s := range list {
		entries = append(entries, s.Position)
	}
	pressed := w.press("dora@example.com", "ALL", ledger.ByOneClick)
	void := func(e ...uint64) (int, error) {
		n, _, err := w.Void(w.ctx(), w.as(ledger.RoleOperator), "", e, "the wrong file was imported", "ticket 7")
		return n, err
	}
	if _, err := void(append(entries, pressed.Entry)...); !errors.Is(err, ledger.ErrNotVoidable) {
		t.Errorf("a press was voided: %v", err)
	}
	w.want("news", "bob@example.com", "COMPLAINT") // all or none
	if n, err := void(entries...); err != nil || n != 3 {
		t.Errorf("voided %d, %v", n, err)
	}
	w.want("news", ann, "SEND")
	w.want("news", "bob@example.com", "SEND")
	if n, err := void(entries...); err != nil || n != 0 {
		t.Errorf("voided again: %d, %v", n, err)
	}
	w.reopen()
	w.want("news", ann, "SEND")
	w.want("news", "dora@example.com", "OPTED_OUT_ALL")
}

func TestWhoMayLiftWhat(t *testing.T) {
	w := newWorld(t)
	suppress := func(r ledger.Reason, role ledger.Role) error {
		_, err := w.Suppress(w.ctx(), w.as(role), ledger.Suppression{Address: ann, Reason: r})
		return err
	}
	lift := func(r ledger.Reason, role ledger.Role) error {
		_, err := w.Lift(w.ctx(), w.as(role), "", ann, r, "looked into it")
		return err
	}
	if err := suppress(ledger.ReasonRestricted, ledger.RoleSupport); !errors.Is(err, ledger.ErrRoleRequired) {
		t.Errorf("support restricts: %v", err)
	}
	for _, c := range []struct {
		reason     ledger.Reason
		yes, no    ledger.Role
		otherwise  error
		suppressor ledger.Role
	}{
		{ledger.ReasonUndeliverable, ledger.RoleOperator, ledger.RolePrivacy, ledger.ErrRoleRequired, ledger.RoleFeedback},
		{ledger.ReasonRestricted, ledger.RolePrivacy, ledger.RoleOperator, ledger.ErrRoleRequired, ledger.RolePrivacy},
		{ledger.ReasonUnder13, ledger.RolePrivacy, ledger.RoleOperator, ledger.ErrRoleRequired, ledger.RolePrivacy},
		{ledger.ReasonOptedOutAll, 0, ledger.RoleAdmin, ledger.ErrNotLiftable, ledger.RoleSupport},
		{ledger.ReasonComplaint, 0, ledger.RoleAdmin, ledger.ErrNotLiftable, ledger.RoleFeedback},
	} {
		if err := suppress(c.reason, c.suppressor); err != nil {
			t.Fatal(err)
		}
		if err := lift(c.reason, c.no); !errors.Is(err, c.otherwise) {
			t.Errorf("%v lifted by %v: %v", c.reason, c.no, err)
		}
		if c.yes == 0 {
			continue
		}
		w.want("news", ann, c.reason.String())
		if err := lift(c.reason, c.yes); err != nil {
			t.Error(err)
		}
		w.want("news", ann, "SEND")
	}
}

func TestBlockedDomains(t *testing.T) {
	w := newWorld(t)
	w.must(w.BlockDomain(w.ctx(), w.admin(), "", "Bücher.example", "asked by its owner"))
	for addr, want := range map[string]string{"a@bücher.example": "BLOCKED_DOMAIN", "a@xn--bcher-kva.example": "BLOCKED_DOMAIN", "a@mail.BÜCHER.example.": "BLOCKED_DOMAIN",
		"a@notbücher.example": "SEND", "a@example": ""} {
		if want != "" {
			w.want("news", addr, want)
		}
	}
	w.confirm(w.subscribe(full("news", "a@bücher.example"))) // a later confirmed yes lifts it for the topic
	w.want("news", "a@bücher.example", "SEND")
	w.want("receipts", "a@bücher.example", "BLOCKED_DOMAIN")
	w.reopen()
	w.want("receipts", "b@bücher.example", "BLOCKED_DOMAIN")
	w.must(w.UnblockDomain(w.ctx(), w.admin(), "", "bücher.example", "asked by its owner"))
	w.want("receipts", "b@bücher.example", "SEND")
	if _, err := w.UnblockDomain(w.ctx(), w.admin(), "", "bücher.example", "again"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// 47 CFR 64.3100(a)(4): listed 29 days ago, allowed; 30 days ago, denied without authorisation; suffixes by label.
func TestWirelessDomains(t *testing.T) {
	w := newWorld(t)
	listed := w.now.AddDate(0, 0, -29)
	list := func(domains ...ledger.WirelessDomain) {
		t.Helper()
		if _, _, _, err := w.ImportWireless(w.ctx(), w.admin(), domains, w.now); err != nil {
			t.Fatal(err)
		}
	}
	list(ledger.WirelessDomain{Domain: "fcceg.gov", FirstListed: listed})
	var v ledger.Verdict
	if err := w.Check(w.ctx(), &ledger.CheckRequest{Topic: "news", Address: "a@mobile.fcceg.gov"}, &v); err != nil || !v.Send || v.WirelessFrom == 0 {
		t.Errorf("29 days after: %+v, %v", v, err)
	}
	w.pass(24 * time.Hour)
	w.want("news", "a@mobile.fcceg.gov", "WIRELESS_DOMAIN")
	w.want("news", "a@fcceg.gov", "WIRELESS_DOMAIN")
	w.want("news", "a@notfcceg.gov", "SEND")
	w.want("receipts", "a@fcceg.gov", "SEND")
	s := full("news", "a@fcceg.gov")
	s.Wireless = true
	w.subscribe(s)
	w.want("news", "a@fcceg.gov", "SEND")
	w.want("news", "b@fcceg.gov", "WIRELESS_DOMAIN")
	w.must(w.OptOut(w.ctx(), w.admin(), "", "a@fcceg.gov", scopeOf("COMMERCIAL")))
	w.want("news", "a@fcceg.gov", "OPTED_OUT_COMMERCIAL")
	w.reopen()
	w.want("news", "b@fcceg.gov", "WIRELESS_DOMAIN")
	list(ledger.WirelessDomain{Domain: "other.example"})
	w.want("news", "b@fcceg.gov", "SEND")
	if _, _, _, err := w.ImportWireless(w.ctx(), w.admin(), []ledger.WirelessDomain{{Domain: "x.example"}}, listed); !errors.Is(err, ledger.ErrInvalidField) {
		t.Errorf("an older list: %v", err)
	}
}

func TestTopicsAreOnlyTightened(t *testing.T) {
	w := newWorld(t)
	update := func(name string, c ledger.TopicChange) error {
		_, err := w.UpdateTopic(w.ctx(), w.admin(), "", name, c)
		return err
	}
	if err := update("receipts", ledger.TopicChange{Class: ledger.Required}); !errors.Is(err, ledger.ErrLoosening) {
		t.Errorf("transactional to required: %v", err)
	}
	if err := update("digest", ledger.TopicChange{Rule: ledger.OptOutRule}); !errors.Is(err, ledger.ErrLoosening) {
		t.Errorf("opt-in to opt-out: %v", err)
	}
	w.must(w.OptOut(w.ctx(), w.admin(), "", ann, scopeOf("COMMERCIAL")))
	w.want("receipts", ann, "SEND")
	if err := update("receipts", ledger.TopicChange{Class: ledger.Commercial}); err != nil {
		t.Fatal(err)
	}
	w.want("receipts", ann, "OPTED_OUT_COMMERCIAL")
	if err := update("news", ledger.TopicChange{Rule: ledger.OptInRule}); err != nil {
		t.Fatal(err)
	}
	w.want("news", "bob@example.com", "NO_CONSENT")
	if _, err := w.CreateTopic(w.ctx(), w.admin(), "", ledger.Topic{Name: "news"}); !errors.Is(err, ledger.ErrNameTaken) {
		t.Errorf("a name was reused: %v", err)
	}
}

// faulty is a store that fails when it is told to.
type faulty struct {
	ledger.Store
	fail atomic.Pointer[error]
}

func (f *faulty) Append(ctx context.Context, c *ledger.Commit) error {
	if p := f.fail.Load(); p != nil {
		return *p
	}
	return f.Store.Append(ctx, c)
}

func TestFullStorageRefusesWritesAndGoesOnChecking(t *testing.T) {
	w := newWorld(t)
	w.close()
	f := &faulty{}
	w.openWith(func(s ledger.Store) ledger.Store { f.Store = s; return f })
	w.press(ann, "ALL", ledger.ByOneClick)
	full, by := error(ledger.ErrStorageFull), w.admin()
	f.fail.Store(&full)
	if _, err := w.OptOut(w.ctx(), by, "", "bob@example.com", ledger.Scope{}); !errors.Is(err, ledger.ErrStorageFull) {
		t.Errorf("%v", err)
	}
	w.want("news", ann, "OPTED_OUT_ALL")
	w.want("news", "bob@example.com", "SEND") // nothing of it was kept
	f.fail.Store(nil)
	if o, err := w.OptOut(w.ctx(), by, "", "bob@example.com", ledger.Scope{}); err != nil || !o.Created {
		t.Errorf("after space came back: %+v, %v", o, err)
	}
	w.want("news", "bob@example.com", "OPTED_OUT_ALL")
}

// A commit that failed in any other way: nothing is acknowledged any more, no check is answered, and the restart tells.
func TestFailedCommitEndsAcknowledging(t *testing.T) {
	w := newWorld(t)
	w.close()
	f := &faulty{}
	w.openWith(func(s ledger.Store) ledger.Store { f.Store = s; return f })
	broken := errors.New("input/output error")
	f.fail.Store(&broken)
	by := w.admin()
	if _, err := w.OptOut(w.ctx(), by, "", ann, ledger.Scope{}); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("%v", err)
	}
	select {
	case <-w.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the ledger goes on")
	}
	f.fail.Store(nil)
	if _, err := w.OptOut(w.ctx(), by, "", ann, ledger.Scope{}); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("acknowledged after a failed commit: %v", err)
	}
	v := ledger.Verdict{Send: true}
	if err := w.Check(w.ctx(), &ledger.CheckRequest{Topic: "news", Address: ann}, &v); !errors.Is(err, ledger.ErrClosed) || v.Send {
		t.Errorf("checked after a failed commit: %v", err)
	}
	w.reopen()
	if o, err := w.OptOut(w.ctx(), by, "", ann, ledger.Scope{}); err != nil || !o.Created { // the very same request is repeated
		t.Errorf("after the restart: %+v, %v", o, err)
	}
}

// The same request_id from many callers at once writes once, and positions have no gaps.
func TestRequestIDsUnderConcurrency(t *testing.T) {
	w := newWorld(t)
	before := w.Position().Number
	by := w.admin()
	var all sync.WaitGroup
	var created atomic.Int64
	for range 64 {
		all.Go(func() {
			o, err := w.Subscribe(context.Background(), by, full("news", ann))
			if err != nil {
				t.Error(err)
			}
			if o.Created {
				created.Add(1)
			}
		})
	}
	for i := range 64 {
		all.Go(func() {
			if _, err := w.OptOut(context.Background(), ledger.By{Channel: ledger.ByAPI}, "", fmt.Sprintf("p%d@example.com", i), ledger.Scope{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := w.Position().Number - before; n != 65 {
		t.Errorf("%d entries were written, want 65", n)
	}
	if rep, err := w.Verify(w.ctx(), nil); err != nil || rep.FirstBad != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// An acknowledged opt-out is in force for every check that begins later, under load.
func TestAcknowledgedMeansInForce(t *testing.T) {
	w := newWorld(t)
	w.now = time.Now()
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			var v ledger.Verdict
			for i := range 300 {
				addr := fmt.Sprintf("p%d.%d@example.com", g, i)
				if _, err := w.OptOut(context.Background(), ledger.By{Channel: ledger.ByAPI}, "", addr, ledger.Scope{}); err != nil {
					t.Error(err)
					return
				}
				if err := w.Check(context.Background(), &ledger.CheckRequest{Topic: "news", Address: addr}, &v); err != nil || v.Send {
					t.Errorf("%s: acknowledged, and then: send %v, %v", addr, v.Send, err)
					return
				}
			}
		})
	}
	all.Wait()
}
