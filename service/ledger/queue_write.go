package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"optout/service/address"
	"optout/service/standing"
)

// QueueItem is a message that cannot be acted on at once.
type QueueItem struct {
	Sender string
	// Address is whom it concerns; empty where none could be read: then only a person can decide. Instead of an address, Token.
	Address string
	// Token is whom it concerns where a signed token names it.
	Token *Tokened
	Claim Claim
	Doubt Doubt
	// Scope is what the claim covers; the zero Scope is ALL. A complaint covers COMMERCIAL or the topic complained of.
	Scope Scope
	// Source is by what a flood is told: the network that it came from, or the address that is proved to have written. Only a keyed
	// digest of it is kept.
	Source string
	// Network: Source is a network that mail came from, or a proved address, and may bring MaxPerSource messages within a day. What a
	// message only says of itself is not bounded so: anybody could use up what another may bring.
	Network bool
}

// Tokened is what a signed token names, which the caller has opened.
type Tokened struct {
	Scope      uint32
	Generation uint16
	Key        address.Key
}

// Queue puts a message into the review queue: it changes no standing, and is acknowledged only when it is durable. An opt-out of
// an address decides itself after the queue's delay (see [Ledger.DecideDue]); everything else waits for [Ledger.Decide]. With a
// RequestID (a digest of the message) a message that comes again is queued once. Errors: ErrQueueFull when too many wait, or too
// many came from the network within a day; ErrUnknownSender, ErrUnknownTopic, ErrInvalidAddress, ErrInvalidField, ErrNotFound for a
// scope that this ledger does not have, and those of a write.
func (l *Ledger) Queue(ctx context.Context, by By, item QueueItem) (Outcome, error) {
	e, err := l.queueEntry(by, &item)
	if err != nil {
		return Outcome{}, err
	}
	if err := l.checkBy(&by); err != nil {
		return Outcome{}, err
	}
	req, err := l.beginRequest(ctx, e.Sender, by.RequestID, "queue", e.Key, item.Claim, item.Doubt)
	if err != nil {
		return Outcome{}, err
	}
	row, err := l.newPersonal(map[string]string{"address": item.Address}, by.Evidence)
	if err != nil {
		return Outcome{}, err
	}
	return l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		source := uint64(0)
		if item.Network {
			source = label(e.Detail[detailSource])
		}
		if l.queue.full(source, t.now) {
			return 0, false, errQueueFull()
		}
		e := e
		if req != nil {
			e.Request = req.id
		}
		if item.Claim == ClaimOptOut && !e.Key.IsZero() {
			// By the clock that DecideDue goes by, not by the ledger's time, which stands still when the clock was ahead once and was set
			// right: nobody is to wait until it has caught up.
			e.Until = l.opt.Now().Add(l.opt.QueueDelay).UnixMilli()
		}
		at, err := t.add(&e, row)
		return at, true, err
	}, false)
}

func errQueueFull() error {
	return &Error{Kind: ErrQueueFull, Problem: "too many messages wait for review", Remedy: "decide those that wait (\"optout queue list\"); what comes is to be tried again later"}
}

// queueEntry makes the entry that queues an item.
func (l *Ledger) queueEntry(by By, item *QueueItem) (Entry, error) {
	e := Entry{Kind: Queued, Channel: by.Channel, Mailing: by.Mailing, Actor: by.Key, Occurred: millis(by.Occurred)}
	switch {
	case item.Token != nil:
		s, _, _, ok := l.Registry().Scope(item.Token.Scope)
		if !ok {
			return e, ErrNotFound
		}
		e.Sender, e.Scope, e.Generation, e.Key = s.Number, item.Token.Scope, item.Token.Generation, item.Token.Key
	case item.Address != "":
		m, err := l.mailbox(item.Sender, item.Address)
		if err != nil {
			return e, err
		}
		e.Sender, e.Generation, e.Key = m.sender.Number, m.keys.Of[0].Generation, m.key()
		if e.Scope, err = scopeNumber(m.sender, "scope", item.Scope); err != nil {
			return e, err
		}
	default:
		s, err := l.sender(l.Registry(), item.Sender)
		if err != nil {
			return e, err
		}
		e.Sender, e.Scope = s.Number, s.All()
	}
	e.Detail = map[string]string{detailClaim: string(item.Claim), detailDoubt: string(item.Doubt)}
	if item.Token != nil {
		e.Detail[detailNamed] = namedByToken
	}
	if source := l.labelOf("source", item.Source); source != "" {
		e.Detail[detailSource] = source
	}
	return e, nil
}

// Decision is what becomes of a message in the queue. The names are part of the ledger's encoding.
type Decision string

// Decisions.
const (
	// DecideSuppress does what the message claims; for a message that claims nothing, the person is opted out of ALL.
	DecideSuppress Decision = "suppress"
	// DecideDismiss does nothing.
	DecideDismiss Decision = "dismiss"
)

// MaxDecide is how many messages one call may decide.
const MaxDecide = 1000

// Decide decides messages in the queue, all of them or none; those that were decided before are passed over. It returns how many
// were decided now. What is suppressed by it can be voided. Errors: ErrNotFound for what is no message in the queue of the sender,
// ErrInvalidField for a message to suppress that names nobody, ErrRoleRequired, ErrTooManyItems, and those of a write.
func (l *Ledger) Decide(ctx context.Context, by By, sender string, entries []uint64, d Decision, justification string) (int, Outcome, error) {
	s, err := l.sender(l.Registry(), sender)
	if err != nil {
		return 0, Outcome{}, err
	}
	if err := requireRole(by, RoleOperator); err != nil {
		return 0, Outcome{}, err
	}
	if len(entries) == 0 || len(entries) > MaxDecide {
		return 0, Outcome{}, &Error{Kind: ErrTooManyItems, Field: "entries", Problem: fmt.Sprintf("a call takes 1 to %d entries", MaxDecide), Remedy: "split the list"}
	}
	if d != DecideSuppress && d != DecideDismiss {
		return 0, Outcome{}, invalid("decision", fmt.Sprintf("%q is no decision", clip(string(d))), "use suppress or dismiss")
	}
	if err := checkText("justification", justification, 500, true); err != nil {
		return 0, Outcome{}, err
	}
	var items []undecided
	for _, p := range slices.Compact(slices.Sorted(slices.Values(entries))) {
		e, err := l.entry(ctx, p)
		if notFound(err) || err == nil && (e.Kind != Queued || e.Sender != s.Number) {
			return 0, Outcome{}, &Error{Kind: ErrNotFound, Field: "entries", Problem: fmt.Sprintf("sender %q has no message %d in the queue", s.Name, p), Remedy: "see \"optout queue list\""}
		}
		if err != nil {
			return 0, Outcome{}, err
		}
		if d == DecideSuppress && e.Key.IsZero() {
			return 0, Outcome{}, invalid("entries", fmt.Sprintf("message %d names no address", p), "record the opt-out with \"optout unsubscribe ADDRESS\", and dismiss it")
		}
		item, err := l.undecided(ctx, e, d)
		if err != nil {
			return 0, Outcome{}, err
		}
		items = append(items, item)
	}
	req, err := l.beginRequest(ctx, s.Number, by.RequestID, "decide", entries, d)
	if err != nil {
		return 0, Outcome{}, err
	}
	row, err := l.newPersonal(by.Evidence)
	if err != nil {
		return 0, Outcome{}, err
	}
	n := 0
	o, err := l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		var last uint64
		var err error
		n, last, err = decideAll(t, by, items, d, justification, row, req)
		return last, n > 0, err
	}, false)
	if err != nil { // of which n says nothing: the commit loop may still be at it
		return 0, Outcome{}, err
	}
	if req != nil && req.replay && o.Created {
		n, err = l.writtenBy(ctx, req, Decided)
	}
	return n, o, err
}

// undecided is a queued entry with what its decision writes.
type undecided struct {
	queued *Entry
	// done is the entry that does what is claimed, under keys; done.Kind is 0 when nothing is to be done.
	done Entry
	keys address.Keys
	row  *personal
}

// undecided reads what deciding a queued entry takes; everything that costs time is done here, outside the commit loop.
func (l *Ledger) undecided(ctx context.Context, e *Entry, d Decision) (undecided, error) {
	u := undecided{queued: e}
	if d == DecideDismiss {
		return u, nil
	}
	u.done = Entry{Channel: ByMail, Generation: e.Generation, Sender: e.Sender, Scope: e.Scope, Mailing: e.Mailing, Occurred: e.Occurred, Key: e.Key, Ref: e.Position}
	u.keys = soleKey(e.Generation, e.Key)
	line := Line{Entry: *e}
	if err := l.evidence(ctx, &line); err != nil {
		return u, err
	}
	addr := line.Evidence["address"]
	switch Claim(e.Detail[detailClaim]) {
	case ClaimComplaint:
		u.done.Kind, u.done.Channel = Complained, ByFeedback
	case ClaimBounce:
		u.done.Kind, u.done.Channel, u.done.Scope = Undeliverable, ByFeedback, 0
	case ClaimMessage:
		s, _, _, _ := l.Registry().Scope(e.Scope)
		u.done.Kind, u.done.Scope = OptedOut, s.All()
	default:
		u.done.Kind = OptedOut
		// The address in clear is known until it is erased; then the key alone must do.
		if s, kind, _, _ := l.Registry().Scope(e.Scope); addr != "" && kind == ScopeAll {
			if m, err := l.mailbox(s.Name, addr); err == nil && slices.ContainsFunc(m.keys.Of[:m.keys.N], func(k address.GenerationKeys) bool { return k.Suppression == e.Key }) {
				u.done.Key, u.done.Generation = m.key(), m.keys.Of[0].Generation
				u.keys = *m.family(&u.done)
			}
		}
	}
	var err error
	u.row, err = l.newPersonal(map[string]string{"address": addr})
	return u, err
}

// decideAll writes the decisions on those items that still wait.
func decideAll(t *tx, by By, items []undecided, d Decision, justification string, row *personal, req *request) (n int, last uint64, err error) {
	var request [16]byte
	if req != nil {
		request = req.id
	}
	for i := range items {
		u := &items[i]
		if !t.waits(u.queued.Position) {
			continue
		}
		if by.Channel == BySystem && confirmedSince(t, u) {
			t.l.queue.holdOne(u.queued.Position)
			continue
		}
		if done := u.done; done.Kind != 0 && standingFact(t, &u.keys, &done) == 0 {
			done.Request = request
			if _, err = t.add(&done, u.row); err != nil {
				return n, last, err
			}
		}
		e := Entry{Kind: Decided, Channel: by.Channel, Generation: u.queued.Generation, Sender: u.queued.Sender, Scope: u.queued.Scope, Actor: by.Key,
			Key: u.queued.Key, Ref: u.queued.Position, Detail: map[string]string{detailDecision: string(d), "justification": justification}}
		e.Request = request
		if last, err = t.add(&e, row); err != nil {
			return n, last, err
		}
		n++
	}
	return n, last, nil
}

// confirmedSince reports whether the address has said a yes through its mailbox after a message was queued. What is in doubt must
// not beat a newer yes that is not, and anybody can write what is in doubt long before: whether it still holds is for a person.
func confirmedSince(t *tx, u *undecided) bool {
	for _, k := range u.keys.Of[:u.keys.N] {
		for _, f := range t.record(standing.Key(k.Suppression)).Facts {
			if kindOf(&f) == Confirmed && f.Position > u.queued.Position {
				return true
			}
		}
	}
	return false
}

// waits reports whether a queued message is still undecided, also within this transaction.
func (t *tx) waits(position uint64) bool {
	if slices.ContainsFunc(t.s.queue, func(e Entry) bool { return e.Kind == Decided && e.Ref == position }) {
		return false
	}
	_, ok := t.l.queue.get(position)
	return ok
}

// maxDue is how many messages that are due one transaction decides, and maxFaults how many may be unreadable before it is no
// message that is at fault.
const (
	maxDue    = 500
	maxFaults = 10
)

// DecideDue does the opt-outs in the queue that are due: those of addresses that the ledger knows from anything but the queue, and
// that no flood brought. Those of whoever has confirmed a subscription since are held: for a person to decide. Nobody may be asked
// for more than the mail that they sent (16 CFR 316.5), so silence of the operators is a yes to the person. It returns how many it
// did. One that cannot be read does not keep the others waiting. Errors: those of reading the store and of a write.
func (l *Ledger) DecideDue(ctx context.Context) (int, error) {
	now := l.opt.Now()
	if l.ClockBehind() > clockSkew {
		l.queue.rewind(now, l.opt.QueueDelay)
	}
	due := l.queue.list(func(w *Waiting) bool { return !w.Due.IsZero() && !w.Held && !w.Due.After(now) })
	total := 0
	var items []undecided
	flush := func() error {
		n := 0
		err := l.propose(ctx, nil, func(t *tx) error {
			var err error
			n, _, err = decideAll(t, By{Channel: BySystem}, items, DecideSuppress, "nobody decided in time", nil, nil)
			return err
		})
		if err != nil { // of which n says nothing: the commit loop may still be at it
			return err
		}
		items, total = items[:0], total+n
		return nil
	}
	var faults error
	failed := 0
	for _, w := range due {
		u, err := l.dueNow(ctx, &w)
		if err != nil { // of one that cannot be read the others do not wait
			faults = errors.Join(faults, err)
			if failed++; failed == maxFaults || ctx.Err() != nil {
				break
			}
			continue
		}
		if u == nil {
			continue
		}
		if items = append(items, *u); len(items) == maxDue {
			if err := flush(); err != nil {
				return total, err
			}
		}
	}
	if len(items) > 0 {
		faults = errors.Join(faults, flush())
	}
	return total, faults
}

// dueNow reads what deciding a message that is due takes; nil when the ledger does not know the address.
func (l *Ledger) dueNow(ctx context.Context, w *Waiting) (*undecided, error) {
	known, err := l.knows(ctx, w)
	if err != nil || !known {
		return nil, err
	}
	e, err := l.entry(ctx, w.Position)
	if err != nil {
		return nil, err
	}
	u, err := l.undecided(ctx, e, DecideSuppress)
	return &u, err
}

// knows reports whether the ledger has an entry about the address other than those of the queue, or made a token for it: under
// opt-out topics most addresses that are mailed have no entry.
func (l *Ledger) knows(ctx context.Context, w *Waiting) (bool, error) {
	if w.named {
		return true, nil
	}
	var rec standing.Record
	if !l.table.Get(standing.Key(w.Key), &rec) {
		return false, nil
	}
	if len(rec.Facts) > 0 || rec.Person != (standing.Key{}) {
		return true, nil
	}
	looked := l.queue.lookedAt(w.Key)
	found := look{upTo: rec.Last, known: looked.known}
	for at := rec.Last; at != 0 && at != looked.upTo && !found.known; {
		e, err := l.entry(ctx, at)
		if err != nil {
			return false, err
		}
		found.known = e.Kind != Queued && e.Kind != Decided
		at = e.Prev
	}
	if found != looked {
		l.queue.remember(w.Key, found)
	}
	return found.known, nil
}
