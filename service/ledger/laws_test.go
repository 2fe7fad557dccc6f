package ledger_test

import (
	"errors"
	"testing"
	"time"

	"optout/service/ledger"
)

const ann = "ann@example.com"

// Law 2's table: which reason denies which class of mail.
func TestVerdictTable(t *testing.T) {
	suppress := func(r ledger.Reason) func(*world) {
		return func(w *world) {
			w.must(w.Suppress(w.ctx(), w.admin(), ledger.Suppression{Address: ann, Reason: r}))
		}
	}
	optOut := func(scope string) func(*world) {
		return func(w *world) { w.must(w.OptOut(w.ctx(), w.admin(), "", ann, scopeOf(scope))) }
	}
	pass := func(r string) string { return "SEND in spite of " + r }
	for _, c := range []struct {
		name                       string
		do                         func(*world)
		news, receipts, law, reset string // reset without naming an act
	}{
		{"nothing", func(*world) {}, "SEND", "SEND", "SEND", "SEND"},
		{"under 13", suppress(ledger.ReasonUnder13), "UNDER_13", "UNDER_13", "UNDER_13", "UNDER_13"},
		{"undeliverable", suppress(ledger.ReasonUndeliverable), "UNDELIVERABLE", "UNDELIVERABLE", "UNDELIVERABLE", "UNDELIVERABLE"},
		{"blocked domain", func(w *world) { w.must(w.BlockDomain(w.ctx(), w.admin(), "", "example.com", "asked by its owner")) },
			"BLOCKED_DOMAIN", "BLOCKED_DOMAIN", "BLOCKED_DOMAIN", "BLOCKED_DOMAIN"},
		{"restricted", suppress(ledger.ReasonRestricted), "RESTRICTED", "RESTRICTED", pass("RESTRICTED"), "RESTRICTED"},
		{"opted out of ALL", optOut("ALL"), "OPTED_OUT_ALL", "OPTED_OUT_ALL", pass("OPTED_OUT_ALL"), "OPTED_OUT_ALL"},
		{"opted out of COMMERCIAL", optOut("COMMERCIAL"), "OPTED_OUT_COMMERCIAL", "SEND", "SEND", "SEND"},
		{"complaint", suppress(ledger.ReasonComplaint), "COMPLAINT", "SEND", "SEND", "SEND"},
		{"complaint about receipts", func(w *world) {
			w.must(w.Suppress(w.ctx(), w.admin(), ledger.Suppression{Address: ann, Reason: ledger.ReasonComplaint, Topic: "receipts"}))
		}, "COMPLAINT", "COMPLAINT", "SEND", "SEND"},
		{"complaint about a required topic", func(w *world) {
			w.must(w.Suppress(w.ctx(), w.admin(), ledger.Suppression{Address: ann, Reason: ledger.ReasonComplaint, Topic: "law"}))
		}, "COMPLAINT", "SEND", "SEND", "SEND"},
		{"opted out of the topics", func(w *world) {
			for _, topic := range []string{"news", "receipts", "law", "reset"} {
				optOut(topic)(w)
			}
		}, "OPTED_OUT_TOPIC", "OPTED_OUT_TOPIC", pass("OPTED_OUT_TOPIC"), "OPTED_OUT_TOPIC"},
		{"paused", func(w *world) {
			_, _, err := w.UpdatePreferences(w.ctx(), w.admin(), "", ann, []ledger.Preference{{Kind: ledger.Paused, Until: w.now.Add(time.Hour)}})
			w.must(ledger.Outcome{}, err)
		}, "PAUSED", "PAUSED", pass("PAUSED"), "PAUSED"},
		{"the strongest first", func(w *world) {
			optOut("ALL")(w)
			suppress(ledger.ReasonComplaint)(w)
			suppress(ledger.ReasonRestricted)(w)
		}, "RESTRICTED", "RESTRICTED", pass("RESTRICTED"), "RESTRICTED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.do(w)
			for round := range 2 { // as written, and as folded from the store
				w.want("news", ann, c.news)
				w.want("receipts", ann, c.receipts)
				w.want("law", ann, c.law)
				w.want("reset", ann, c.reset)
				w.want("news", "other@example.org", "SEND")
				if round == 0 {
					w.reopen()
				}
			}
		})
	}
}

func TestConsentTopicsNeedAConfirmedUnexpiredYes(t *testing.T) {
	w := newWorld(t)
	w.want("digest", ann, "NO_CONSENT")
	s := full("digest", ann)
	s.Expires = w.now.Add(48 * time.Hour)
	o := w.subscribe(s)
	if !o.NeedsConfirmation {
		t.Error("an opt-in topic must ask for a confirmation")
	}
	w.want("digest", ann, "NO_CONSENT")
	w.confirm(o)
	w.want("digest", ann, "SEND")
	w.pass(49 * time.Hour)
	w.want("digest", ann, "CONSENT_EXPIRED")
	w.now = start // a clock set back revives no consent that had run out when the ledger last wrote
	w.must(w.OptOut(w.ctx(), w.admin(), "", "someone@example.com", ledger.Scope{}))
	w.reopen()
	w.want("digest", ann, "SEND")
}

func TestOnlyAConfirmedYesLiftsALL(t *testing.T) {
	w := newWorld(t)
	w.press(ann, "ALL", ledger.ByOneClick)
	o := w.subscribe(full("news", ann))
	if !o.NeedsConfirmation {
		t.Error("a no to ALL stands, so a confirmation is needed")
	}
	w.want("news", ann, "OPTED_OUT_ALL")
	w.confirm(o)
	w.want("news", ann, "SEND")
	w.want("receipts", ann, "OPTED_OUT_ALL") // a yes lifts only the topic it names
	w.press(ann, "ALL", ledger.ByOneClick)   // the old link works again
	w.want("news", ann, "OPTED_OUT_ALL")
	w.reopen()
	w.want("news", ann, "OPTED_OUT_ALL")
}

func TestConfirmationCountsAtItsRequest(t *testing.T) {
	w := newWorld(t)
	w.press(ann, "ALL", ledger.ByOneClick)
	o := w.subscribe(full("news", ann))
	again := w.press(ann, "ALL", ledger.ByOneClick) // must be written: it comes after the request
	if !again.Created {
		t.Error("a press after a pending request was taken for a repeat")
	}
	w.confirm(o)
	w.want("news", ann, "OPTED_OUT_ALL")
}

func TestSubscribeLiftsOnlyItsTopicsNo(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(*world) (ledger.By, ledger.Subscription)
		want string
	}{
		{"full evidence", func(w *world) (ledger.By, ledger.Subscription) { return w.admin(), full("news", ann) }, "SEND"},
		{"no evidence", func(w *world) (ledger.By, ledger.Subscription) {
			return w.admin(), ledger.Subscription{Topic: "news", Address: ann}
		}, "OPTED_OUT_TOPIC"},
		{"given before the no", func(w *world) (ledger.By, ledger.Subscription) {
			by := w.admin()
			by.Occurred = w.now.Add(-2 * time.Minute)
			return by, full("news", ann)
		}, "OPTED_OUT_TOPIC"},
		{"given after the no, reported late", func(w *world) (ledger.By, ledger.Subscription) {
			by := w.admin()
			by.Occurred = w.now
			w.pass(time.Hour)
			return by, full("news", ann)
		}, "OPTED_OUT_TOPIC"},
		{"given after the no, reported soon", func(w *world) (ledger.By, ledger.Subscription) {
			by := w.admin()
			by.Occurred = w.now
			w.pass(time.Minute)
			return by, full("news", ann)
		}, "SEND"},
		{"implied", func(w *world) (ledger.By, ledger.Subscription) {
			s := full("news", ann)
			s.Basis, s.Expires = ledger.ImpliedPurchase, w.now.AddDate(1, 0, 0)
			return w.admin(), s
		}, "OPTED_OUT_TOPIC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.press(ann, "news", ledger.ByOneClick)
			w.pass(time.Second)
			by, s := c.make(w)
			if _, err := w.Subscribe(w.ctx(), by, s); err != nil {
				t.Fatal(err)
			}
			w.want("news", ann, c.want)
			w.reopen()
			w.want("news", ann, c.want)
		})
	}
}

// A press is a repeat only of the person's own no that nothing can take away any more.
func TestRepeats(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(*world)
		repeat bool
	}{
		{"the same link", func(w *world) { w.press(ann, "ALL", ledger.ByOneClick) }, true},
		{"an opt-out by API", func(w *world) { w.must(w.OptOut(w.ctx(), w.admin(), "", ann, ledger.Scope{})) }, true},
		{"a narrower scope", func(w *world) { w.press(ann, "news", ledger.ByOneClick) }, false},
		{"an import", func(w *world) {
			_, err := w.Import(w.ctx(), w.admin(), "", "old", []ledger.ImportRow{{Address: ann}}, false, true)
			w.must(ledger.Outcome{}, err)
		}, false},
		{"a bounce", func(w *world) {
			w.must(w.Suppress(w.ctx(), w.admin(), ledger.Suppression{Address: ann, Reason: ledger.ReasonUndeliverable}))
		}, false},
		{"a no at the person's other address", func(w *world) {
			for _, a := range []string{ann, "ann@work.example"} {
				s := full("news", a)
				s.PersonID = "7"
				w.subscribe(s)
			}
			w.press("ann@work.example", "ALL", ledger.ByOneClick)
		}, false},
		{"a page press that can be undone", func(w *world) { w.press(ann, "ALL", ledger.ByPage) }, false},
		{"a page press of long ago", func(w *world) { w.press(ann, "ALL", ledger.ByPage); w.pass(ledger.UndoWindow) }, true},
		{"a no before a confirmed yes", func(w *world) {
			w.press(ann, "ALL", ledger.ByOneClick)
			w.confirm(w.subscribe(full("news", ann)))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.before(w)
			before := w.Position().Number
			o := w.press(ann, "ALL", ledger.ByOneClick)
			if o.Created == c.repeat || (w.Position().Number == before) != c.repeat {
				t.Errorf("created %v, want %v", o.Created, !c.repeat)
			}
			if got := w.check("news", ann); got == "SEND" {
				t.Error("a press did not stop mail")
			}
		})
	}
}

func TestUndoReversesExactlyOnePress(t *testing.T) {
	w := newWorld(t)
	undo := func(o ledger.Outcome) error {
		_, err := w.Undo(w.ctx(), ledger.By{Channel: ledger.ByPage}, o.Entry, [8]byte(w.keyOf(ann)))
		return err
	}
	o := w.press(ann, "ALL", ledger.ByPage)
	if !o.Undoable {
		t.Fatal("a page press can be undone")
	}
	if err := undo(o); err != nil {
		t.Fatal(err)
	}
	w.want("news", ann, "SEND")
	if err := undo(o); !errors.Is(err, ledger.ErrUndoStale) {
		t.Errorf("undone twice: %v", err)
	}
	w.press(ann, "news", ledger.ByOneClick)
	o = w.press(ann, "ALL", ledger.ByPage)
	if err := undo(o); err != nil {
		t.Fatal(err)
	}
	w.want("news", ann, "OPTED_OUT_TOPIC") // the earlier no stands
	w.want("receipts", ann, "SEND")
	o = w.press(ann, "ALL", ledger.ByPage)
	w.pass(ledger.UndoWindow)
	if err := undo(o); !errors.Is(err, ledger.ErrUndoStale) {
		t.Errorf("undone too late: %v", err)
	}
	click := w.press("bob@example.com", "ALL", ledger.ByOneClick)
	if _, err := w.Undo(w.ctx(), ledger.By{Channel: ledger.ByPage}, click.Entry, [8]byte(w.keyOf("bob@example.com"))); !errors.Is(err, ledger.ErrUndoStale) {
		t.Errorf("a one-click press was undone: %v", err)
	}
	w.reopen()
	w.want("receipts", ann, "OPTED_OUT_ALL")
}

func (w *world) keyOf(addr string) []byte {
	k := w.key(addr)
	return k[:8]
}

func TestRetriedYesNeverBeatsNewerNo(t *testing.T) {
	w := newWorld(t)
	by := w.admin()
	first, err := w.Subscribe(w.ctx(), by, full("news", ann))
	if err != nil {
		t.Fatal(err)
	}
	w.press(ann, "news", ledger.ByOneClick)
	for range 2 {
		again, err := w.Subscribe(w.ctx(), by, full("news", ann))
		if err != nil {
			t.Fatal(err)
		}
		if again.Entry != first.Entry {
			t.Errorf("the retry wrote entry %d, the first try %d", again.Entry, first.Entry)
		}
		w.want("news", ann, "OPTED_OUT_TOPIC")
		w.reopen() // remembered for ever
	}
	if _, err := w.Subscribe(w.ctx(), by, full("receipts", ann)); !errors.Is(err, ledger.ErrRequestIDReused) {
		t.Errorf("the same id with other content: %v", err)
	}
	by.RequestID = ""
	if _, err := w.Subscribe(w.ctx(), by, full("news", ann)); !errors.Is(err, ledger.ErrRequestIDRequired) {
		t.Errorf("a yes without request_id: %v", err)
	}
}

func TestPersons(t *testing.T) {
	w := newWorld(t)
	join := func(addr, person string) error {
		s := full("news", addr)
		s.PersonID = person
		_, err := w.Subscribe(w.ctx(), w.admin(), s)
		return err
	}
	w.must(ledger.Outcome{}, join(ann, "7"))
	w.must(ledger.Outcome{}, join("ann@work.example", "7"))
	w.press(ann, "ALL", ledger.ByOneClick)
	w.want("news", "ann@work.example", "OPTED_OUT_ALL")
	w.must(ledger.Outcome{}, join("ann@home.example", "7")) // joined later
	w.want("receipts", "ann@home.example", "OPTED_OUT_ALL")
	w.reopen()
	w.want("receipts", "ann@home.example", "OPTED_OUT_ALL")
	if err := join(ann, "8"); !errors.Is(err, ledger.ErrPersonConflict) {
		t.Errorf("moved to another person: %v", err)
	}
	// Unlinked, the no of the other address is gone; the one said there stays.
	w.must(w.UnlinkPerson(w.ctx(), w.as(ledger.RoleOperator), "", "ann@home.example", "not the same person"))
	w.want("receipts", "ann@home.example", "SEND")
	w.must(w.UnlinkPerson(w.ctx(), w.as(ledger.RoleOperator), "", ann, "not the same person"))
	w.want("news", ann, "OPTED_OUT_ALL")
	w.want("news", "ann@work.example", "SEND")
	for i := range ledger.MaxPersonAddresses {
		w.must(ledger.Outcome{}, join(string(rune('a'+i%26))+string(rune('a'+i/26))+"@example.net", "9"))
	}
	if err := join("onemore@example.net", "9"); !errors.Is(err, ledger.ErrPersonFull) {
		t.Errorf("a 33rd address: %v", err)
	}
}

func TestRequiredTopicsPassOnTheRecord(t *testing.T) {
	w := newWorld(t)
	act := ledger.Act{What: "password reset requested", At: w.now}
	if got := w.check("reset", ann, act); got != "SEND" {
		t.Errorf("without a no: %s", got)
	}
	before := w.Position().Number
	w.press(ann, "ALL", ledger.ByOneClick)
	w.want("reset", ann, "OPTED_OUT_ALL")
	if w.Position().Number != before+1 {
		t.Error("a refusal was written to the ledger")
	}
	if got := w.check("reset", ann, act); got != "SEND in spite of OPTED_OUT_ALL" {
		t.Errorf("with an act: %s", got)
	}
	line, err := w.Line(w.ctx(), w.Position().Number)
	if err != nil || line.Kind != ledger.SentInSpite || line.Detail["in_answer_to"] != act.What {
		t.Errorf("the send in spite of a no is not on the ledger: %+v, %v", line, err)
	}
	var v ledger.Verdict
	for _, bad := range []ledger.Act{{What: "x"}, {At: w.now}, {What: "x", At: w.now.Add(-31 * 24 * time.Hour)}, {What: "x", At: w.now.Add(time.Hour)}} {
		err := w.Check(w.ctx(), &ledger.CheckRequest{Topic: "reset", Address: ann, Act: bad}, &v)
		if !errors.Is(err, ledger.ErrInvalidField) || v.Send {
			t.Errorf("act %+v: %v", bad, err)
		}
	}
}

func TestFailClosed(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		req  ledger.CheckRequest
		want error
	}{
		{ledger.CheckRequest{Topic: "nosuch", Address: ann}, ledger.ErrUnknownTopic},
		{ledger.CheckRequest{Sender: "nosuch", Topic: "news", Address: ann}, ledger.ErrUnknownSender},
		{ledger.CheckRequest{Topic: "news", Address: "not an address"}, ledger.ErrInvalidAddress},
		{ledger.CheckRequest{Topic: "news", Address: ann, AtLeast: ledger.Position{LedgerID: "another", Number: 1}}, ledger.ErrOtherLedger},
	} {
		v := ledger.Verdict{Send: true}
		if err := w.Check(w.ctx(), &c.req, &v); !errors.Is(err, c.want) || v.Send {
			t.Errorf("%+v: %v, send %v", c.req, err, v.Send)
		}
	}
}
