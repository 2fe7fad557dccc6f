package ledger_test

import (
	"errors"
	"testing"
	"time"

	"optout/service/ledger"
)

func (w *world) bounce(addr string, f ledger.Failure) ledger.Outcome {
	w.t.Helper()
	return w.must(w.Bounce(w.ctx(), ledger.By{}, ledger.Tokened{Scope: w.number("news"), Generation: 1, Key: w.key(addr)}, ledger.Failed{Failure: f, Detail: map[string]string{"status": "5.1.1"}}))
}

// A hard bounce makes the address undeliverable for every class of mail; it can be lifted by an operator, or voided.
func TestHardBounce(t *testing.T) {
	w := newWorld(t)
	o := w.bounce(ann, ledger.HardFailure)
	for _, topic := range []string{"news", "receipts", "law"} {
		w.want(topic, ann, "UNDELIVERABLE")
	}
	if again := w.bounce(ann, ledger.HardFailure); again.Created || again.Entry != o.Entry {
		t.Errorf("a second one: %+v", again)
	}
	if soft := w.bounce(ann, ledger.SoftFailure); soft.Created {
		t.Errorf("a soft one on top: %+v", soft)
	}
	line, err := w.Line(w.ctx(), o.Entry)
	if err != nil || line.Channel != ledger.ByFeedback || line.Detail["status"] != "5.1.1" {
		t.Errorf("%+v, %v", line, err)
	}
	if _, _, err := w.Void(w.ctx(), w.admin(), "", []uint64{o.Entry}, "the provider erred", "their status page"); err != nil {
		t.Fatal(err)
	}
	w.want("news", ann, "SEND")
	w.bounce(ann, ledger.HardFailure)
	w.must(w.Lift(w.ctx(), w.as(ledger.RoleOperator), "", ann, ledger.ReasonUndeliverable, "the mailbox is back"))
	w.want("news", ann, "SEND")
	if _, err := w.Bounce(w.ctx(), ledger.By{}, ledger.Tokened{Scope: 9999, Generation: 1, Key: w.key(ann)}, ledger.Failed{Failure: ledger.HardFailure}); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("an unknown scope: %v", err)
	}
}

// Soft bounces on five different days over at least fourteen make the address undeliverable, for 180 days.
func TestSoftBounces(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		after []time.Duration // from the first
		want  string
	}{
		"five days over fourteen":       {[]time.Duration{0, 3 * day, 6 * day, 9 * day, 14 * day}, "UNDELIVERABLE"},
		"four days":                     {[]time.Duration{0, 3 * day, 6 * day, 14 * day}, "SEND"},
		"five days over thirteen":       {[]time.Duration{0, 3 * day, 6 * day, 9 * day, 13 * day}, "SEND"},
		"many on one day":               {[]time.Duration{0, 1, 2, 3, 4, 5, 14 * day}, "SEND"},
		"five, the first long ago":      {[]time.Duration{0, 181 * day, 183 * day, 185 * day, 196 * day}, "SEND"},
		"monthly":                       {[]time.Duration{0, 30 * day, 60 * day, 90 * day, 120 * day}, "UNDELIVERABLE"},
		"the last a second before":      {[]time.Duration{0, day, 2 * day, 3 * day, 14*day - time.Second}, "SEND"},
		"goes on after thirteen days":   {[]time.Duration{0, 3 * day, 6 * day, 9 * day, 13 * day, 15 * day}, "UNDELIVERABLE"},
		"soft ones after it is settled": {[]time.Duration{0, 3 * day, 6 * day, 9 * day, 14 * day, 15 * day}, "UNDELIVERABLE"},
	} {
		w := newWorld(t)
		first := w.now
		for _, d := range c.after {
			w.now = first.Add(d)
			w.bounce(ann, ledger.SoftFailure)
		}
		if got := w.check("news", ann, ledger.Act{}); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		w.reopen()
		w.want("news", ann, c.want)
		if c.want == "UNDELIVERABLE" {
			settled := w.now
			w.now = settled.Add(ledger.SoftRest - 2*day)
			w.want("news", ann, "UNDELIVERABLE")
			w.now = settled.Add(ledger.SoftRest + time.Hour)
			w.want("news", ann, "SEND")
			if o := w.bounce(ann, ledger.HardFailure); !o.Created {
				t.Errorf("%s: a hard one after it ended is not written", name)
			}
			w.want("news", ann, "UNDELIVERABLE")
		}
		w.close()
	}
}

// What was counted before an operator lifted it, or before a confirmed yes, no longer counts; a hard bounce on top of a soft one
// does not end by itself.
func TestSoftBouncesBeginAnew(t *testing.T) {
	const day = 24 * time.Hour
	w := newWorld(t)
	four := func() {
		for range 4 {
			w.bounce(ann, ledger.SoftFailure)
			w.pass(4 * day)
		}
	}
	four()
	w.bounce(ann, ledger.SoftFailure)
	w.want("news", ann, "UNDELIVERABLE")
	w.must(w.Lift(w.ctx(), w.as(ledger.RoleOperator), "", ann, ledger.ReasonUndeliverable, "tried by hand"))
	four()
	w.want("news", ann, "SEND")
	w.bounce(ann, ledger.SoftFailure)
	w.want("news", ann, "UNDELIVERABLE")
	w.bounce(ann, ledger.HardFailure)
	w.pass(ledger.SoftRest + day)
	w.want("news", ann, "UNDELIVERABLE")
	if rep, err := w.Verify(w.ctx(), nil); err != nil || rep.FirstBad != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}
