package ledger

import (
	"context"
	"fmt"
	"time"

	"optout/service/address"
	"optout/service/standing"
)

// Act is what a person has just done, which a mail answers. It lets required topics with ground "answer" pass a no.
type Act struct {
	What string
	At   time.Time
}

// MaxActAge is how long after the person's act its answer may still pass a no.
const MaxActAge = 30 * 24 * time.Hour

// CheckRequest asks "may I send?".
type CheckRequest struct {
	// Sender by name; empty means "default".
	Sender string
	// Topic by name.
	Topic string
	// Address is the recipient; for CheckBatch it is ignored.
	Address string
	// Act is the person's act that the mail answers; optional.
	Act Act
	// AtLeast is a position that the answer must reflect; optional.
	AtLeast Position
	// Key is the number of the API key that asks: it is on the ledger when the mail goes out in spite of a no.
	Key uint32
	// Observe lets mail of a key in observe mode pass every no, each time with an entry. Only the gate and the milter ask so.
	Observe bool
}

// scratch is what a check needs to work without allocating.
type scratch struct {
	addr    address.Address
	keys    address.Keys
	base    address.Keys
	rec     standing.Record
	members []standing.Key
	b       bearing
	record  func(standing.Key) *standing.Record
	person  func(standing.Key) []standing.Key
}

func newScratch() *scratch {
	return &scratch{rec: standing.Record{Facts: make([]standing.Fact, 0, 8)}, members: make([]standing.Key, 0, MaxPersonAddresses),
		b: bearing{own: make([]standing.Fact, 0, 8), joined: make([]standing.Fact, 0, 8)}}
}

func (l *Ledger) borrow() *scratch {
	s := l.scratch.Get().(*scratch)
	if s.record == nil {
		// gather reads one record at a time and is done with it before it asks for the next, but for the person of the
		// first: it reads the members before their records, and its own record's facts are copied by then.
		s.record = func(k standing.Key) *standing.Record {
			if !l.table.Get(k, &s.rec) {
				return nil
			}
			return &s.rec
		}
		s.person = func(k standing.Key) []standing.Key {
			s.members = l.persons.Members(k, s.members[:0])
			return s.members
		}
	}
	return s
}

// Check gives the verdict on one address. It allocates nothing for an ASCII address without a no; v is overwritten, its
// Denials' memory reused. A SEND in spite of a no is an entry, and is given only once that is durable. Errors: ErrUnknownSender,
// ErrUnknownTopic, ErrInvalidAddress, ErrInvalidField, ErrOtherLedger, ErrNotYet, ErrClosed, and for required topics what a
// write may return. After an error v does not permit sending.
func (l *Ledger) Check(ctx context.Context, req *CheckRequest, v *Verdict) error {
	q, err := l.question(ctx, req, v)
	if err != nil {
		return err
	}
	return l.checkOne(ctx, req, &q, req.Address, v)
}

// question resolves everything but the address.
func (l *Ledger) question(ctx context.Context, req *CheckRequest, v *Verdict) (question, error) {
	*v = Verdict{Denials: v.Denials[:0]}
	if l.failed.Load() != nil {
		return question{}, ErrClosed
	}
	if req.AtLeast.Number != 0 {
		if err := l.atLeast(ctx, req.AtLeast); err != nil {
			return question{}, err
		}
	}
	position := l.head.Load() // read before registry and standing: what they show is at least this new
	reg := l.registry.Load()
	s, err := l.sender(reg, req.Sender)
	if err != nil {
		return question{}, err
	}
	t, err := topicOf(s, "topic", req.Topic)
	if err != nil {
		return question{}, err
	}
	if req.Act != (Act{}) {
		if err := l.checkAct(&req.Act); err != nil {
			return question{}, err
		}
	}
	return question{reg: reg, sender: s, topic: t, now: l.now(), position: position}, nil
}

func (l *Ledger) checkAct(a *Act) error {
	if err := checkText("in_answer_to.act", a.What, 200, true); err != nil {
		return err
	}
	if a.At.IsZero() {
		return invalid("in_answer_to.at", "it is missing", "say when the person did it")
	}
	if err := l.checkPast("in_answer_to.at", a.At); err != nil {
		return err
	}
	if l.opt.Now().Sub(a.At) > MaxActAge {
		return invalid("in_answer_to.at", "it is more than 30 days ago", "what the person did then is no longer being answered")
	}
	return nil
}

func (l *Ledger) checkOne(ctx context.Context, req *CheckRequest, q *question, addr string, v *Verdict) error {
	sc := l.borrow()
	defer l.scratch.Put(sc)
	var err error
	if sc.addr, err = address.Parse(addr); err != nil {
		return addressError(err)
	}
	v.Topic, v.Sender = q.topic, q.sender
	v.Position = q.position
	l.opt.Keys.Keys(q.sender.Number, &sc.addr, &sc.keys)
	l.baseKeys(q.sender, &sc.addr, &sc.base)
	v.Key, v.Generation = sc.keys.Of[0].Suppression, sc.keys.Of[0].Generation
	q.domainRules(&sc.addr)
	gather(sc.record, sc.person, &sc.keys, &sc.base, q.sender.All(), &sc.b)
	evaluate(q, &sc.b, v)
	l.stats.Checks.Add(1)
	if v.passed || !v.Send && q.observed(req) {
		return l.sendInSpite(ctx, *req, *q, sc.keys, sc.base, v)
	}
	if !v.Send {
		l.stats.Refused.Add(1)
		return nil
	}
	l.mailed.cleared(&sc.addr, &v.Key, q.now)
	return nil
}

// observed reports whether the mail that is asked about is only observed.
func (q *question) observed(req *CheckRequest) bool {
	if !req.Observe {
		return false
	}
	k := q.reg.APIKey(req.Key)
	return k != nil && k.Observing(Time(q.now))
}

// Foresee tells whether a check would refuse the address whatever act of the person it named, without giving leave to send:
// v.Send is never true, and nothing is written. v.Denials are the reasons, and are empty when the check might pass. Errors: those
// of Check but for those of a write.
func (l *Ledger) Foresee(ctx context.Context, req *CheckRequest, v *Verdict) error {
	q, err := l.question(ctx, req, v)
	if err != nil {
		return err
	}
	sc := l.borrow()
	defer l.scratch.Put(sc)
	if sc.addr, err = address.Parse(req.Address); err != nil {
		return addressError(err)
	}
	v.Topic, v.Sender, v.Position = q.topic, q.sender, q.position
	l.opt.Keys.Keys(q.sender.Number, &sc.addr, &sc.keys)
	l.baseKeys(q.sender, &sc.addr, &sc.base)
	v.Key, v.Generation = sc.keys.Of[0].Suppression, sc.keys.Of[0].Generation
	q.domainRules(&sc.addr)
	gather(sc.record, sc.person, &sc.keys, &sc.base, q.sender.All(), &sc.b)
	evaluate(&q, &sc.b, v)
	if v.Send || q.observed(req) {
		v.Denials = v.Denials[:0]
	}
	v.Send, v.passed = false, false
	return nil
}

// domainRules finds the rules that the address falls under.
func (q *question) domainRules(a *address.Address) {
	q.isBlocked, q.isWireless = false, false
	s := q.sender
	if len(s.blocked) == 0 && len(q.reg.wireless) == 0 {
		return
	}
	domain := a.Domain()
	q.blocked, q.isBlocked = domainRule(s.blocked, domain)
	q.wireless, q.isWireless = domainRule(q.reg.wireless, domain)
}

// sendInSpite turns a passed no into an entry, or into a refusal when the ground is missing. The verdict is given anew in the
// commit loop, so that it and the entry speak of the same standing.
func (l *Ledger) sendInSpite(ctx context.Context, req CheckRequest, q question, keys, base address.Keys, v *Verdict) error {
	observed := q.observed(&req)
	if q.topic.Ground == GroundAnswer && req.Act == (Act{}) && !observed {
		v.Send, v.passed = false, false
		l.stats.Refused.Add(1)
		return nil
	}
	v.Send = false // until it is on the ledger
	var fresh Verdict
	err := l.propose(ctx, nil, func(t *tx) error {
		b := bearing{}
		gather(t.record, t.members, &keys, &base, q.sender.All(), &b)
		fresh = Verdict{Topic: q.topic, Sender: q.sender, Key: keys.Of[0].Suppression, Generation: keys.Of[0].Generation}
		evaluate(&q, &b, &fresh)
		detail := map[string]string{"topic": q.topic.Name}
		if !fresh.Send && observed {
			fresh.Send, detail["observed"] = true, "true"
		} else if !fresh.passed {
			return nil
		}
		if req.Act != (Act{}) {
			detail["in_answer_to"], detail["in_answer_to_at"] = req.Act.What, req.Act.At.UTC().Format(time.RFC3339)
		}
		k := &keys.Of[0]
		e := Entry{Kind: SentInSpite, Channel: ByAPI, Reason: fresh.Denials[0].Reason, Generation: k.Generation, Sender: q.sender.Number,
			Scope: q.topic.Number, Actor: req.Key, Key: k.Suppression, Ref: fresh.Denials[0].Entry, Detail: detail}
		var err error
		fresh.InSpite, err = t.add(&e, nil)
		return err
	})
	if err != nil {
		return err
	}
	fresh.Position = l.head.Load()
	*v = fresh
	if !v.Send {
		l.stats.Refused.Add(1)
	}
	return nil
}

// MaxBatchAddresses is how many addresses one batch may hold.
const MaxBatchAddresses = 10000

// CheckBatch gives the verdict on many addresses, in order: each is called once for every address with its verdict, or with
// the fault of a malformed address (and a verdict that forbids). The verdict is valid only during the call. Every answer
// reflects at least the position returned. Errors end the batch and are those of Check: then nothing may be sent.
func (l *Ledger) CheckBatch(ctx context.Context, req *CheckRequest, addresses []string, each func(i int, v *Verdict, malformed error)) (uint64, error) {
	var v Verdict
	q, err := l.question(ctx, req, &v)
	if err != nil {
		return 0, err
	}
	if len(addresses) == 0 || len(addresses) > MaxBatchAddresses {
		return 0, &Error{Kind: ErrTooManyItems, Field: "addresses", Problem: fmt.Sprintf("a call takes 1 to %d addresses", MaxBatchAddresses),
			Remedy: "split the list; the Go client does it by itself"}
	}
	for i, a := range addresses {
		if i%256 == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		err := l.checkOne(ctx, req, &q, a, &v)
		if err != nil {
			if e, ok := err.(*Error); ok && e.Kind == ErrInvalidAddress {
				v = Verdict{Denials: v.Denials[:0]}
				each(i, &v, err)
				continue
			}
			return 0, err
		}
		each(i, &v, nil)
	}
	return q.position, nil
}
