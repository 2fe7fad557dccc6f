package ledger_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"optout/service/ledger"
)

const bob = "bob@example.com"

// observed asks as the gate does, under a key.
func (w *world) observed(topic, addr string, key uint32) (ledger.Verdict, error) {
	var v ledger.Verdict
	err := w.Check(w.ctx(), &ledger.CheckRequest{Topic: topic, Address: addr, Key: key, Observe: true}, &v)
	return v, err
}

// A key in observe mode lets through what is denied, each time with an entry; it ends by itself and never lasts longer than 14
// days from its first begin, also after a restart.
func TestObserveEndsByItself(t *testing.T) {
	w := newWorld(t)
	k, _, err := w.CreateAPIKey(w.ctx(), w.admin(), ledger.NewAPIKey{Label: "shop", Role: ledger.RoleMailer, DefaultTopic: "news", ListSoftware: true}, "secret")
	if err != nil {
		t.Fatal(err)
	}
	w.press(ann, "ALL", ledger.ByOneClick)
	until := w.now.Add(24 * time.Hour)
	late := w.now.Add(ledger.MaxObserve + time.Minute)
	if _, err := w.UpdateAPIKey(w.ctx(), w.admin(), k.Number, ledger.KeyChange{ObserveUntil: &late}); !errors.Is(err, ledger.ErrInvalidField) {
		t.Errorf("longer than 14 days: %v", err)
	}
	w.must(w.UpdateAPIKey(w.ctx(), w.admin(), k.Number, ledger.KeyChange{ObserveUntil: &until}))
	w.reopen()
	if k = w.Registry().APIKey(k.Number); !k.ObserveUntil.Equal(until) || k.DefaultTopic != "news" || !k.ListSoftware {
		t.Errorf("after a restart: %+v", k)
	}
	before := w.Position().Number
	v, err := w.observed("news", ann, k.Number)
	if err != nil || !v.Send || v.InSpite != before+1 || v.Denials[0].Reason != ledger.ReasonOptedOutAll {
		t.Fatalf("observed: %+v, %v", v, err)
	}
	line, err := w.Line(w.ctx(), v.InSpite)
	if err != nil || line.Kind != ledger.SentInSpite || line.Detail["observed"] != "true" || line.Actor != k.Number || line.Ref == 0 {
		t.Errorf("its entry: %+v, %v", line, err)
	}
	if v, _ := w.observed("news", bob, k.Number); !v.Send || v.InSpite != 0 {
		t.Errorf("one without a no: %+v", v)
	}
	for name, key := range map[string]uint32{"another key": k.Number + 1, "no key": 0} {
		if v, _ := w.observed("news", ann, key); v.Send {
			t.Error(name + " is observed too")
		}
	}
	w.want("news", ann, "OPTED_OUT_ALL") // a check that is not the gate's
	w.pass(24 * time.Hour)
	if v, _ := w.observed("news", ann, k.Number); v.Send {
		t.Error("it has not ended")
	}
	// Again, but never beyond 14 days from its first begin.
	again := w.now.Add(13 * 24 * time.Hour)
	w.must(w.UpdateAPIKey(w.ctx(), w.admin(), k.Number, ledger.KeyChange{ObserveUntil: &again}))
	w.pass(13 * 24 * time.Hour)
	more := w.now.Add(time.Hour)
	if _, err := w.UpdateAPIKey(w.ctx(), w.admin(), k.Number, ledger.KeyChange{ObserveUntil: &more}); !errors.Is(err, ledger.ErrInvalidField) {
		t.Errorf("a second fortnight: %v", err)
	}
	if rep, err := w.Verify(w.ctx(), nil); err != nil || rep.FirstBad != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// Foresee refuses only what every check would refuse, gives no leave and writes nothing.
func TestForesee(t *testing.T) {
	w := newWorld(t)
	w.press(ann, "ALL", ledger.ByOneClick)
	w.must(w.Suppress(w.ctx(), w.as(ledger.RolePrivacy), ledger.Suppression{Address: bob, Reason: ledger.ReasonUnder13}))
	before := w.Position().Number
	for _, c := range []struct{ topic, addr, want string }{
		{"news", ann, "OPTED_OUT_ALL"}, {"receipts", ann, "OPTED_OUT_ALL"}, {"law", ann, ""}, {"reset", ann, ""},
		{"law", bob, "UNDER_13"}, {"news", "cy@example.net", ""}, {"digest", "cy@example.net", "NO_CONSENT"},
	} {
		v := ledger.Verdict{Send: true}
		if err := w.Foresee(w.ctx(), &ledger.CheckRequest{Topic: c.topic, Address: c.addr}, &v); err != nil || v.Send {
			t.Fatalf("%s to %s: %+v, %v", c.topic, c.addr, v, err)
		}
		got := ""
		if len(v.Denials) > 0 {
			got = v.Denials[0].Reason.String()
		}
		if got != c.want {
			t.Errorf("%s to %s: %s, want %s", c.topic, c.addr, got, c.want)
		}
	}
	if w.Position().Number != before {
		t.Error("foreseeing wrote an entry")
	}
}

// What is withheld is on the ledger and changes no standing.
func TestWithhold(t *testing.T) {
	w := newWorld(t)
	w.press(ann, "ALL", ledger.ByOneClick)
	var v ledger.Verdict
	if err := w.Check(w.ctx(), &ledger.CheckRequest{Topic: "news", Address: ann}, &v); err != nil {
		t.Fatal(err)
	}
	o, err := w.Withhold(w.ctx(), w.admin(), &v)
	if err != nil || !o.Created {
		t.Fatal(err)
	}
	line, err := w.Line(w.ctx(), o.Entry)
	if err != nil || line.Kind != ledger.Withheld || line.Ref != v.Denials[0].Entry || line.Reason != ledger.ReasonOptedOutAll || line.Detail["topic"] != "news" {
		t.Errorf("%+v, %v", line, err)
	}
	w.want("news", ann, "OPTED_OUT_ALL")
	w.want("news", bob, "SEND")
	if err := w.Check(w.ctx(), &ledger.CheckRequest{Topic: "news", Address: bob}, &v); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Withhold(w.ctx(), w.admin(), &v); !errors.Is(err, ledger.ErrInvalidField) {
		t.Errorf("what may be sent: %v", err)
	}
	w.reopen()
	if rep, err := w.Verify(w.ctx(), nil); err != nil || rep.FirstBad != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// A default topic is one that the key may name.
func TestDefaultTopic(t *testing.T) {
	w := newWorld(t)
	for topic, want := range map[string]string{"nix": "no sender of the key", "law": "may not name", "news": ""} {
		_, _, err := w.CreateAPIKey(w.ctx(), w.admin(), ledger.NewAPIKey{Label: "k", Role: ledger.RoleMailer, DefaultTopic: topic}, "s-"+topic)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", topic, err)
		}
	}
	if _, err := w.UpdateAPIKey(w.ctx(), w.admin(), 99, ledger.KeyChange{}); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("no such key: %v", err)
	}
	if _, err := w.UpdateAPIKey(w.ctx(), w.admin(), 1, ledger.KeyChange{}); !errors.Is(err, ledger.ErrInvalidField) {
		t.Errorf("no change: %v", err)
	}
}
