package ledger_test

import (
	"testing"
	"time"

	"optout/service/ledger"
)

// at asks how mail that left at a moment stood: "SEND" or the strongest reason. Topic "" is not known.
func (w *world) at(topic, addr string, at time.Time) string {
	w.t.Helper()
	s := w.Registry().Sender("")
	v, err := w.VerdictAt(w.ctx(), s, s.Topic(topic), addr, at, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	if v.Send {
		return "SEND"
	}
	return v.Denials[0].Reason.String()
}

// The past is judged by what had been said by then: each step is an hour after the one before, and mail left half an hour after
// each step.
func TestVerdictAt(t *testing.T) {
	const bob = "bob@example.com"
	optOut := func(addr, scope string) func(*world) {
		return func(w *world) { w.must(w.OptOut(w.ctx(), w.admin(), "", addr, scopeOf(scope))) }
	}
	var request ledger.SubscribeOutcome
	yes := func(topic string) func(*world) {
		return func(w *world) { request = w.subscribe(full(topic, ann)) }
	}
	confirm := func(w *world) { w.confirm(request) }
	var last uint64
	suppress := func(r ledger.Reason) func(*world) {
		return func(w *world) {
			last = w.must(w.Suppress(w.ctx(), w.admin(), ledger.Suppression{Address: ann, Reason: r})).Entry
		}
	}
	join := func(addr string) func(*world) {
		return func(w *world) {
			s := full("news", addr)
			s.PersonID = "person"
			w.subscribe(s)
		}
	}
	for name, c := range map[string]struct {
		topic string
		steps []func(*world)
		want  []string
	}{
		"opt-out from ALL, lifted by a confirmed yes": {"news", []func(*world){optOut(ann, "ALL"), yes("news"), confirm},
			[]string{"OPTED_OUT_ALL", "OPTED_OUT_ALL", "SEND"}},
		"the yes lifts only its topic":       {"receipts", []func(*world){optOut(ann, "ALL"), yes("news"), confirm}, []string{"OPTED_OUT_ALL", "OPTED_OUT_ALL", "OPTED_OUT_ALL"}},
		"of an unknown topic, a yes to any":  {"", []func(*world){optOut(ann, "ALL"), yes("news"), confirm}, []string{"OPTED_OUT_ALL", "OPTED_OUT_ALL", "SEND"}},
		"of an unknown topic, a topic's no":  {"", []func(*world){optOut(ann, "news"), optOut(ann, "COMMERCIAL")}, []string{"SEND", "SEND"}},
		"of an unknown topic, a complaint":   {"", []func(*world){suppress(ledger.ReasonComplaint)}, []string{"SEND"}},
		"a topic's no and a collector's yes": {"news", []func(*world){optOut(ann, "news"), yes("news")}, []string{"OPTED_OUT_TOPIC", "SEND"}},
		"lifted by an operator":              {"news", []func(*world){suppress(ledger.ReasonUndeliverable), func(w *world) { w.must(w.Lift(w.ctx(), w.admin(), "", ann, ledger.ReasonUndeliverable, "moved")) }}, []string{"UNDELIVERABLE", "SEND"}},
		"voided": {"news", []func(*world){suppress(ledger.ReasonComplaint), func(w *world) {
			_, o, err := w.Void(w.ctx(), w.admin(), "", []uint64{last}, "a storm", "ticket 1")
			w.must(o, err)
		}}, []string{"COMPLAINT", "SEND"}},
		"opt-in": {"digest", []func(*world){yes("digest"), confirm, optOut(ann, "digest")}, []string{"NO_CONSENT", "SEND", "OPTED_OUT_TOPIC"}},
		"a pause that ends": {"news", []func(*world){func(w *world) {
			_, _, err := w.UpdatePreferences(w.ctx(), w.admin(), "", ann, []ledger.Preference{{Kind: ledger.Paused, Until: w.now.Add(time.Hour)}})
			w.must(ledger.Outcome{}, err)
		}, func(*world) {}}, []string{"PAUSED", "SEND"}},
		"another address of the person":      {"news", []func(*world){join(ann), join(bob), optOut(bob, "ALL")}, []string{"SEND", "SEND", "OPTED_OUT_ALL"}},
		"joined after the other's no":        {"news", []func(*world){join(bob), optOut(bob, "ALL"), join(ann)}, []string{"SEND", "SEND", "OPTED_OUT_ALL"}},
		"a blocked domain":                   {"news", []func(*world){func(*world) {}, func(w *world) { w.must(w.BlockDomain(w.ctx(), w.admin(), "", "example.com", "asked")) }}, []string{"SEND", "BLOCKED_DOMAIN"}},
		"required mail, in spite of it":      {"law", []func(*world){optOut(ann, "ALL")}, []string{"SEND"}},
		"required mail, but not deliverable": {"law", []func(*world){suppress(ledger.ReasonUndeliverable)}, []string{"UNDELIVERABLE"}},
		"somebody else's no":                 {"news", []func(*world){optOut(bob, "ALL")}, []string{"SEND"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			begin := w.now
			for _, step := range c.steps {
				w.pass(time.Hour)
				step(w)
			}
			w.pass(time.Hour)
			if got := w.at(c.topic, ann, begin); got != "SEND" && c.topic != "digest" {
				t.Errorf("before it all: %s", got)
			}
			for i, want := range c.want {
				if got := w.at(c.topic, ann, begin.Add(time.Duration(i+1)*time.Hour+30*time.Minute)); got != want {
					t.Errorf("after step %d: %s, want %s", i+1, got, want)
				}
			}
			if c.topic != "" && c.topic != "law" {
				w.want(c.topic, ann, w.at(c.topic, ann, w.now)) // of now it says what a check says
			}
		})
	}
}

// What the mail's own check saw is the past of the mail, though its field Date is older.
func TestVerdictAtKnowsWhatTheCheckSaw(t *testing.T) {
	w := newWorld(t)
	no := w.press(ann, "ALL", ledger.ByPage)
	dated := w.now
	w.pass(time.Minute)
	key := w.key(ann)
	if _, err := w.Undo(w.ctx(), ledger.By{Channel: ledger.ByPage}, no.Entry, [8]byte(key[:8])); err != nil {
		t.Fatal(err)
	}
	w.want("news", ann, "SEND")
	s := w.Registry().Sender("")
	for seen, want := range map[uint64]bool{0: false, no.Entry: false, w.Position().Number: true} {
		if v, err := w.VerdictAt(w.ctx(), s, s.Topic("news"), ann, dated, seen); err != nil || v.Send != want {
			t.Errorf("seen %d: %+v, %v", seen, v, err)
		}
	}
}

func TestVerdictAtErrors(t *testing.T) {
	w := newWorld(t)
	s := w.Registry().Sender("")
	if v, err := w.VerdictAt(w.ctx(), s, nil, "bad", w.now, 0); err == nil || v != nil {
		t.Errorf("an address that cannot be read: %v, %v", v, err)
	}
	if _, err := w.AddressKeys(s, "bad"); err == nil {
		t.Error("an address that cannot be read has keys")
	}
	keys, err := w.AddressKeys(s, ann)
	if err != nil || len(keys) != 1 || keys[0] != w.key(ann) {
		t.Errorf("%v, %v", keys, err)
	}
}
