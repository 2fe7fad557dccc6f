package ledger_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"optout/service/ledger"
	"optout/service/ledgertest"
)

// The ledger answers as the reference model does, whatever is said in whatever order, also when it is folded anew from the
// store in between.
func TestLedgerIsTheModel(t *testing.T) {
	addresses := []string{"ann@example.com", "Ann@Example.com", "bob@example.com", "j.doe@gmail.com", "jdoe@googlemail.com", "ann+news@example.com", "jdoe+x@gmail.com"}
	scopes := []string{"ALL", "COMMERCIAL", "news", "receipts", "digest", "law"}
	topics := []string{"news", "receipts", "digest", "law", "reset"}
	facts := map[ledger.Reason]ledger.Kind{ledger.ReasonComplaint: ledger.Complained, ledger.ReasonUndeliverable: ledger.Undeliverable,
		ledger.ReasonRestricted: ledger.Restricted, ledger.ReasonUnder13: ledger.Under13}
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		defer w.close()
		w.sourceLimit = 3
		w.reopen()
		known := map[string]ledger.Topic{}
		for _, x := range w.Registry().Sender("").Topics() {
			known[x.Name] = *x
		}
		m := ledgertest.NewModel(w.now, known)
		entry := map[int]uint64{} // of the model's statements
		var yeses []ledger.SubscribeOutcome
		var yesOf []int
		type moment struct {
			addr, topic string
			at          time.Time
		}
		past := map[moment][]ledger.Reason{} // what denied at the end of each moment
		type queued struct {
			entry        uint64
			addr, source string
			at           time.Time
			held, done   bool
			said         int // before it was queued
		}
		var queue []*queued
		addr := func() string { return rapid.SampledFrom(addresses).Draw(rt, "address") }
		fatal := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		no := func(a, scope string, channel ledger.Channel, do func() (ledger.Outcome, error)) {
			before := w.Position().Number
			o, err := do()
			fatal(err)
			n := m.No(a, scope, channel == ledger.ByImport, channel == ledger.ByPage)
			if o.Created != (n >= 0) || (w.Position().Number > before) != (n >= 0) {
				rt.Fatalf("no to %s at %s: written %v, the model says %v", scope, a, o.Created, n >= 0)
			}
			if n >= 0 {
				entry[n] = o.Entry
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"press": func(rt *rapid.T) {
				a, scope := addr(), rapid.SampledFrom(scopes).Draw(rt, "scope")
				channel := rapid.SampledFrom([]ledger.Channel{ledger.ByOneClick, ledger.ByPage, ledger.ByMailto}).Draw(rt, "channel")
				no(a, scope, channel, func() (ledger.Outcome, error) {
					return w.Press(w.ctx(), ledger.By{Channel: channel}, w.number(scope), 1, w.key(a))
				})
			},
			"opt out by API": func(rt *rapid.T) {
				a, scope := addr(), rapid.SampledFrom(scopes).Draw(rt, "scope")
				no(a, scope, ledger.ByAPI, func() (ledger.Outcome, error) { return w.OptOut(w.ctx(), w.admin(), "", a, scopeOf(scope)) })
			},
			"import": func(rt *rapid.T) {
				a := addr()
				no(a, "ALL", ledger.ByImport, func() (ledger.Outcome, error) {
					o, err := w.Import(w.ctx(), w.admin(), "", "list", []ledger.ImportRow{{Address: a}}, false, false)
					return ledger.Outcome{Created: o.Added == 1, Entry: w.Position().Number}, err
				})
			},
			"subscribe": func(rt *rapid.T) {
				a, by := addr(), w.admin()
				s := full(rapid.SampledFrom([]string{"news", "receipts", "digest"}).Draw(rt, "topic"), a)
				whole := rapid.Bool().Draw(rt, "full")
				if !whole {
					s.Method = ""
				}
				if ago := rapid.SampledFrom([]time.Duration{0, time.Second, 5 * time.Minute, time.Hour}).Draw(rt, "ago"); ago > 0 {
					by.Occurred = w.now.Add(-ago)
				}
				s.PersonID = rapid.SampledFrom([]string{"", "", "one", "two"}).Draw(rt, "person")
				o, err := w.Subscribe(w.ctx(), by, s)
				if p := m.Person(a); s.PersonID != "" && p != "" && p != s.PersonID {
					if !errors.Is(err, ledger.ErrPersonConflict) {
						rt.Fatalf("moved to another person: %v", err)
					}
					return
				}
				fatal(err)
				n := m.Yes(a, s.Topic, s.PersonID, whole, by.Occurred)
				yeses, yesOf = append(yeses, o), append(yesOf, n)
			},
			"confirm": func(rt *rapid.T) {
				if len(yeses) == 0 {
					return
				}
				i := rapid.IntRange(0, len(yeses)-1).Draw(rt, "yes")
				before := w.Position().Number
				_, err := w.Confirm(w.ctx(), w.admin(), yeses[i].Topic.Number, yeses[i].Entry, [8]byte(yeses[i].Key[:8]))
				if errors.Is(err, ledger.ErrConfirmationStale) && w.now.Sub(yeses[i].At) > ledger.ConfirmationWindow {
					return
				}
				fatal(err)
				if w.Position().Number > before {
					m.Confirm(yesOf[i])
				}
			},
			"fact": func(rt *rapid.T) {
				a := addr()
				reason := rapid.SampledFrom([]ledger.Reason{ledger.ReasonComplaint, ledger.ReasonUndeliverable, ledger.ReasonRestricted, ledger.ReasonUnder13}).Draw(rt, "reason")
				s, scope := ledger.Suppression{Address: a, Reason: reason}, ""
				if reason == ledger.ReasonComplaint {
					if scope = rapid.SampledFrom([]string{"COMMERCIAL", "receipts", "law"}).Draw(rt, "about"); scope != "COMMERCIAL" {
						s.Topic = scope
					}
				}
				o, err := w.Suppress(w.ctx(), w.admin(), s)
				fatal(err)
				if o.Created {
					m.Fact(a, facts[reason], scope)
				}
			},
			"lift": func(rt *rapid.T) {
				a, reason := addr(), rapid.SampledFrom([]ledger.Reason{ledger.ReasonUndeliverable, ledger.ReasonRestricted, ledger.ReasonUnder13}).Draw(rt, "reason")
				_, err := w.Lift(w.ctx(), w.admin(), "", a, reason, "looked into it")
				fatal(err)
				m.Lift(a, facts[reason])
			},
			"pause": func(rt *rapid.T) {
				a, scope := addr(), rapid.SampledFrom(scopes).Draw(rt, "scope")
				p := ledger.Preference{Kind: ledger.Resumed, Scope: scopeOf(scope)}
				if hours := rapid.IntRange(0, 3).Draw(rt, "hours"); hours > 0 {
					p.Kind, p.Until = ledger.Paused, w.now.Add(time.Duration(hours)*time.Hour)
				}
				_, _, err := w.UpdatePreferences(w.ctx(), w.admin(), "", a, []ledger.Preference{p})
				fatal(err)
				m.Pause(a, scope, p.Until)
			},
			"take back": func(rt *rapid.T) {
				var numbers []int
				for n := range entry {
					numbers = append(numbers, n)
				}
				if len(numbers) == 0 {
					return
				}
				slices.Sort(numbers)
				n := rapid.SampledFrom(numbers).Draw(rt, "statement")
				if rapid.Bool().Draw(rt, "void") {
					_, _, err := w.Void(w.ctx(), w.admin(), "", []uint64{entry[n]}, "an error", "ticket")
					if may := m.Void(n); may != (err == nil) || !may && !errors.Is(err, ledger.ErrNotVoidable) {
						rt.Fatalf("void: %v, the model says %v", err, may)
					}
					return
				}
				line, err := w.Line(w.ctx(), entry[n])
				fatal(err)
				_, err = w.Undo(w.ctx(), ledger.By{Channel: ledger.ByPage}, entry[n], [8]byte(line.Key[:8]))
				if may := m.Undo(n); may != (err == nil) || !may && !errors.Is(err, ledger.ErrUndoStale) {
					rt.Fatalf("undo: %v, the model says %v", err, may)
				}
			},
			"own words": func(rt *rapid.T) {
				a := addr()
				o, err := w.OptOutMailbox(w.ctx(), ledger.By{Channel: ledger.ByMail}, "", a)
				fatal(err)
				n := m.OwnWords(a)
				if o.Created != (n >= 0) {
					rt.Fatalf("own words at %s: written %v, the model says %v", a, o.Created, n >= 0)
				}
				if n >= 0 {
					entry[n] = o.Entry
				}
			},
			"queue": func(rt *rapid.T) {
				q := &queued{addr: addr(), source: rapid.SampledFrom([]string{"one", "two"}).Draw(rt, "source"), at: w.now, said: m.Said()}
				o, err := w.Queue(w.ctx(), ledger.By{Channel: ledger.ByMail}, ledger.QueueItem{Address: q.addr, Claim: ledger.ClaimOptOut, Doubt: ledger.DoubtUnproved, Source: q.source})
				fatal(err)
				q.entry = o.Entry
				queue = append(queue, q)
				// More than three of one source within a day: all that wait of them are held.
				var ofDay []*queued
				for _, x := range queue {
					if x.source == q.source && w.now.Sub(x.at) <= 24*time.Hour {
						ofDay = append(ofDay, x)
					}
				}
				for _, x := range ofDay {
					x.held = x.held || len(ofDay) > 3 && !x.done
				}
			},
			"queue falls due": func(rt *rapid.T) {
				n, err := w.DecideDue(w.ctx())
				fatal(err)
				want := 0
				known := map[*queued]bool{} // what this very round does makes nobody known
				for _, q := range queue {
					known[q] = m.Known(q.addr)
				}
				for _, q := range queue {
					if !q.done && !q.held && w.now.Sub(q.at) >= 24*time.Hour && known[q] {
						if m.ConfirmedSince(q.addr, q.said) { // what is in doubt does not beat a newer yes that is not
							q.held = true
							continue
						}
						q.done = true
						m.OwnWords(q.addr)
						want++
					}
				}
				if n != want {
					rt.Fatalf("%d decided themselves, the model says %d", n, want)
				}
			},
			"decide": func(rt *rapid.T) {
				if len(queue) == 0 {
					return
				}
				q, d := rapid.SampledFrom(queue).Draw(rt, "message"), rapid.SampledFrom([]ledger.Decision{ledger.DecideSuppress, ledger.DecideDismiss}).Draw(rt, "decision")
				n, _, err := w.Decide(w.ctx(), w.admin(), "", []uint64{q.entry}, d, "read by hand")
				fatal(err)
				if (n == 1) == q.done {
					rt.Fatalf("decided %d, done before: %v", n, q.done)
				}
				if !q.done && d == ledger.DecideSuppress {
					m.OwnWords(q.addr)
				}
				q.done = true
			},
			"unlink": func(rt *rapid.T) {
				a := addr()
				_, err := w.UnlinkPerson(w.ctx(), w.admin(), "", a, "not the same person")
				fatal(err)
				m.Unlink(a)
				clear(past) // the past is judged by which addresses a person has now
			},
			"time passes": func(rt *rapid.T) {
				for _, a := range addresses {
					st, err := w.Recipient(w.ctx(), "", a)
					fatal(err)
					for _, v := range st.Verdicts {
						var reasons []ledger.Reason
						for _, d := range v.Denials {
							reasons = append(reasons, d.Reason)
						}
						past[moment{a, v.Topic.Name, w.now}] = reasons
					}
				}
				w.pass(rapid.SampledFrom([]time.Duration{time.Second, 3 * time.Minute, 8 * time.Minute, 2 * time.Hour, 13 * time.Hour}).Draw(rt, "time"))
				m.Now = w.now
			},
			"reopen": func(rt *rapid.T) { w.reopen() },
			"": func(rt *rapid.T) {
				a, topic := addr(), rapid.SampledFrom(topics).Draw(rt, "topic")
				req := ledger.CheckRequest{Topic: topic, Address: a}
				act := rapid.Bool().Draw(rt, "act")
				if act {
					req.Act = ledger.Act{What: "password reset requested", At: w.now}
				}
				var v ledger.Verdict
				fatal(w.Check(w.ctx(), &req, &v))
				want := m.Denials(a, topic)
				var got []ledger.Reason
				for _, d := range v.Denials {
					got = append(got, d.Reason)
				}
				// A required topic is not concerned by what bears only on commercial mail.
				if !slices.Equal(got, want) || v.Send != m.Send(topic, want, act) || (v.InSpite != 0) != (v.Send && len(want) > 0) {
					rt.Fatalf("%s to %s: send %v %v (in spite %d), the model says %v %v", topic, a, v.Send, got, v.InSpite, m.Send(topic, want, act), want)
				}
			},
		})
		for x, want := range past {
			s := w.Registry().Sender("")
			v, err := w.VerdictAt(w.ctx(), s, s.Topic(x.topic), x.addr, x.at, 0)
			fatal(err)
			var got []ledger.Reason
			for _, d := range v.Denials {
				got = append(got, d.Reason)
			}
			if !slices.Equal(got, want) {
				rt.Fatalf("%s to %s, judged later: %v, then it was %v", x.topic, x.addr, got, want)
			}
		}
		if rep, err := w.Verify(w.ctx(), nil); err != nil || rep.FirstBad != 0 {
			rt.Fatalf("%+v, %v", rep, err)
		}
	})
}
