package ledger

import (
	"cmp"
	"encoding/hex"
	"iter"
	"slices"
	"strconv"
	"sync"
	"time"

	"optout/service/address"
)

// Claim is what somebody asks for, or reports, in mail that cannot be acted on at once. The names are part of the ledger's encoding.
type Claim string

// Claims.
const (
	// ClaimOptOut: mail to the address is to stop.
	ClaimOptOut Claim = "opt-out"
	// ClaimComplaint: the recipient reported mail as spam.
	ClaimComplaint Claim = "complaint"
	// ClaimBounce: the mailbox does not exist.
	ClaimBounce Claim = "bounce"
	// ClaimMessage: somebody wrote something else, which a person must read.
	ClaimMessage Claim = "message"
)

// Doubt is why mail waits in the queue. The names are part of the ledger's encoding.
type Doubt string

// Doubts.
const (
	// DoubtUnproved: nothing proves, and nothing disproves, that the address in From wrote it.
	DoubtUnproved Doubt = "unproved"
	// DoubtForged: the address in From authenticates its mail, and this was not authenticated.
	DoubtForged Doubt = "forged"
	// DoubtUnclear: it speaks of stopping, but not shortly and unambiguously.
	DoubtUnclear Doubt = "unclear"
	// DoubtUnread: it asks for nothing that a program may do.
	DoubtUnread Doubt = "unread"
	// DoubtReporter: a complaint without our token, or not signed by a listed reporter.
	DoubtReporter Doubt = "reporter"
	// DoubtStorm: hard bounces of the address's domain have jumped; the domain's servers may be wrong.
	DoubtStorm Doubt = "storm"
)

// Limits of the queue.
const (
	// DefaultQueueDelay is after how long an opt-out in the queue is done by itself when nobody decides.
	DefaultQueueDelay = 24 * time.Hour
	// DefaultSourceLimit is how many opt-outs that are in doubt one source may bring within a day before they wait for a person.
	DefaultSourceLimit = 20
	// floodLeast is how many opt-outs in doubt a day may have at least, whatever is usual, before they wait for a person.
	floodLeast = 100
	// MaxPerSource is how many messages of one network the queue takes within a day; more are to be tried again later.
	MaxPerSource = 1000
	// MaxWaiting is how many the queue holds; more are to be tried again later.
	MaxWaiting = 1_000_000
	// StormLeast is how many hard bounces a domain may have on one day at least, whatever is usual there, before more are held.
	StormLeast = 50
	// StormPercent is of how many in a hundred who were mailed a domain may bounce on a day without being a storm, whatever is usual:
	// a first mailing, or one a month, meets that many mailboxes that are gone.
	StormPercent = 3
)

// Waiting is one message in the queue that nobody has decided yet.
type Waiting struct {
	// Position is the entry that queued it, by which it is named.
	Position uint64
	Sender   uint32
	// Scope is what the claim covers.
	Scope uint32
	Claim Claim
	Doubt Doubt
	// Key is whom it concerns; zero where no address could be read.
	Key address.Key
	At  time.Time
	// Due is when it decides itself, if the ledger knows the address; zero for never.
	Due time.Time
	// Held: too many came at once, from one source or in all, or the address has confirmed a subscription since; it waits for a person.
	Held bool

	source, domain uint64
	// named: a signed token named the address, so that mail was made for it, whatever else the ledger knows.
	named bool
}

// queue is the fold of the entries that queue and decide, and of the hard bounces that tell a storm. It is a function of the
// entries alone, so it is the same after every start, but for what is found out anew: who is held for a later yes, what looked
// remembers, and Due where the clock stood wrong.
type queue struct {
	sourceLimit int

	mu      sync.RWMutex
	waiting map[uint64]*Waiting
	// recent are the claims of each source of the last day, oldest first.
	recent map[uint64][]arrival
	// all counts opt-outs in doubt; today are those of all.day that wait; flood tells that all of them are held.
	all   usual
	today []uint64
	flood bool
	// bounces counts hard bounces by domain, and storms the held ones that wait.
	bounces map[uint64]*usual
	storms  map[uint64]int
	// stormy are the held bounces that wait, by whom they concern: one of each.
	stormy map[address.Key]uint64
	// looked is what was found of keys without facts. Without it, many messages in one name would make looking at each of them as long
	// as all of them are.
	looked map[address.Key]look
	swept  int64 // the day on which what is idle was forgotten
}

type arrival struct {
	at       int64
	position uint64
	optOut   bool
}

func newQueue(sourceLimit int) *queue {
	return &queue{sourceLimit: sourceLimit, waiting: map[uint64]*Waiting{}, recent: map[uint64][]arrival{}, bounces: map[uint64]*usual{}, storms: map[uint64]int{}, stormy: map[address.Key]uint64{}, looked: map[address.Key]look{}}
}

// concerns reports whether the queue's fold reads entries like e.
func (q *queue) concerns(e *Entry) bool {
	return e.Kind == Queued || e.Kind == Decided || e.Kind == Undeliverable && e.Detail[detailDomain] != ""
}

// Names in the details of entries that the queue reads.
const (
	detailClaim    = "claim"
	detailDoubt    = "doubt"
	detailSource   = "source"
	detailDomain   = "domain"
	detailDecision = "decision"
	// detailNamed is namedByToken where a signed token named the address.
	detailNamed  = "named"
	namedByToken = "token"
)

// apply folds one entry.
func (q *queue) apply(e *Entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sweep(e.At)
	switch e.Kind {
	case Queued:
		w := &Waiting{Position: e.Position, Sender: e.Sender, Scope: e.Scope, Claim: Claim(e.Detail[detailClaim]), Doubt: Doubt(e.Detail[detailDoubt]),
			Key: e.Key, At: Time(e.At), Due: Time(e.Until), source: label(e.Detail[detailSource]), domain: label(e.Detail[detailDomain]), named: e.Detail[detailNamed] == namedByToken}
		q.waiting[e.Position] = w
		q.arrived(w, e.At)
		if w.Doubt == DoubtStorm {
			q.storms[w.domain]++
			q.stormy[w.Key] = w.Position
			q.bounced(w.domain, e.At)
		}
	case Decided:
		w := q.waiting[e.Ref]
		delete(q.waiting, e.Ref)
		if w != nil && w.Doubt == DoubtStorm {
			delete(q.stormy, w.Key)
			if q.storms[w.domain]--; q.storms[w.domain] == 0 {
				delete(q.storms, w.domain)
			}
		}
	case Undeliverable:
		q.bounced(label(e.Detail[detailDomain]), e.At)
	}
}

// arrived counts a message, and holds what has come with it when that is too many.
func (q *queue) arrived(w *Waiting, at int64) {
	if w.source != 0 {
		q.recent[w.source] = append(q.sinceYesterday(w.source, at), arrival{at, w.Position, w.Claim == ClaimOptOut})
	}
	if w.Claim != ClaimOptOut {
		return
	}
	if q.all.on(at, floodLeast); q.all.today == 0 {
		q.today, q.flood = nil, false
	}
	q.all.today++
	q.today = append(q.today, w.Position)
	if q.flood = q.flood || q.all.many(q.all.today, floodLeast); q.flood {
		q.hold(slices.Values(q.today))
		q.today = q.today[:0]
	}
	from, optOuts := q.recent[w.source], 0
	for i := len(from) - 1; i >= 0 && optOuts < q.sourceLimit+2; i-- {
		if from[i].optOut { // questions from the same place, of which there may be many every day, are no flood
			optOuts++
		}
	}
	switch {
	case w.source == 0 || optOuts <= q.sourceLimit:
	case optOuts == q.sourceLimit+1:
		q.hold(func(yield func(uint64) bool) {
			for _, a := range from {
				if !yield(a.position) {
					return
				}
			}
		})
	default: // the others are held already
		w.Held = true
	}
}

func (q *queue) hold(positions iter.Seq[uint64]) {
	for p := range positions {
		if w := q.waiting[p]; w != nil && w.Claim == ClaimOptOut {
			w.Held = true
		}
	}
}

// sinceYesterday are the arrivals of a source within the day before a moment.
func (q *queue) sinceYesterday(source uint64, at int64) []arrival {
	list := q.recent[source]
	i, _ := slices.BinarySearchFunc(list, at-day, func(a arrival, t int64) int { return cmp.Compare(a.at, t) })
	return list[i:]
}

func (q *queue) bounced(domain uint64, at int64) {
	u := q.bounces[domain]
	if u == nil {
		u = &usual{}
		q.bounces[domain] = u
	}
	u.on(at, StormLeast)
	u.today++
}

// sweep forgets, once a day, what no longer counts.
func (q *queue) sweep(at int64) {
	if at/day == q.swept {
		return
	}
	q.swept = at / day
	clear(q.looked)
	for s := range q.recent {
		if len(q.sinceYesterday(s, at)) == 0 {
			delete(q.recent, s)
		}
	}
	for d, u := range q.bounces {
		if u.on(at, StormLeast); u.idle() {
			delete(q.bounces, d)
		}
	}
}

// storm reports whether one more hard bounce of a domain is part of a storm, more of them being about to be committed before it, and
// about so many of its addresses having been mailed.
func (q *queue) storm(domain uint64, at int64, before, mailed int) bool {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.storms[domain] > 0 {
		return true
	}
	var u usual
	if known := q.bounces[domain]; known != nil {
		u = *known
	}
	u.on(at, StormLeast)
	n := u.today + uint32(before) + 1
	return u.many(n, StormLeast) && 100*int(n) > StormPercent*mailed
}

// stormOf is the held bounce of an address that waits; 0 when none does.
func (q *queue) stormOf(key address.Key) uint64 {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return q.stormy[key]
}

// full reports whether the queue takes no more of a source, or at all.
func (q *queue) full(source uint64, at int64) bool {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return len(q.waiting) >= MaxWaiting || source != 0 && len(q.sinceYesterday(source, at)) >= MaxPerSource
}

func (q *queue) get(position uint64) (Waiting, bool) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if w := q.waiting[position]; w != nil {
		return *w, true
	}
	return Waiting{}, false
}

// list returns what waits and fits, oldest first.
func (q *queue) list(fits func(*Waiting) bool) []Waiting {
	q.mu.RLock()
	var all []Waiting
	for _, w := range q.waiting {
		if fits(w) {
			all = append(all, *w)
		}
	}
	q.mu.RUnlock()
	slices.SortFunc(all, func(a, b Waiting) int { return cmp.Compare(a.Position, b.Position) })
	return all
}

// look is what the entries of a key up to one are: known tells that there are others than the queue's.
type look struct {
	upTo  uint64
	known bool
}

func (q *queue) lookedAt(key address.Key) look {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return q.looked[key]
}

func (q *queue) remember(key address.Key, l look) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.looked[key] = l
}

// holdOne keeps a waiting message from deciding itself.
func (q *queue) holdOne(position uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hold(slices.Values([]uint64{position}))
}

// rewind brings near what is due later than the delay allows, because the clock stood ahead when it was queued and was put right since:
// it waits the delay from now. The entry keeps its time, so after a restart it waits anew.
func (q *queue) rewind(now time.Time, delay time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range q.waiting {
		if !w.Due.IsZero() && w.Due.Sub(now) > delay {
			w.Due = now.Add(delay)
		}
	}
}

// label reads the keyed digest of a source or domain; 0 for none.
func label(s string) uint64 {
	n, _ := strconv.ParseUint(s, 16, 64)
	return n
}

// labelOf is a keyed digest of a source or a domain: it counts what comes from one, and tells nobody which it is.
func (l *Ledger) labelOf(purpose, text string) string {
	if text == "" {
		return ""
	}
	quoted := strconv.QuoteToASCII(text) // any octets make a text that Person takes
	k, err := l.opt.Keys.Person(0, purpose+" "+quoted[:min(len(quoted), 200)])
	if err != nil {
		return ""
	}
	return hex.EncodeToString(k[:8])
}

// QueueStats tell how the queue stands.
type QueueStats struct {
	Waiting, Held, Storms int
	// Oldest is when the oldest came; zero when none waits.
	Oldest time.Time
}

// QueueStats returns how the queue stands.
func (l *Ledger) QueueStats() QueueStats {
	q := l.queue
	q.mu.RLock()
	defer q.mu.RUnlock()
	st := QueueStats{Waiting: len(q.waiting), Storms: len(q.storms)}
	for _, w := range q.waiting {
		if w.Held || w.Doubt == DoubtStorm {
			st.Held++
		}
		if st.Oldest.IsZero() || w.At.Before(st.Oldest) {
			st.Oldest = w.At
		}
	}
	return st
}
