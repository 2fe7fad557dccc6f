package ledger

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"optout/service/address"
	"optout/service/standing"
)

// Page says which part of a listing to give. A listing is bounded by the head it began with (Bound), so that its pages stay
// whole while others write.
type Page struct {
	// Size is how many items at the most: 1 to MaxPage.
	Size int
	// Bound is the head at the first page; 0 on the first.
	Bound uint64
	// Next is the position to go on from; 0 on the first page.
	Next uint64
}

// Limits of listings.
const (
	MaxPage = 1000
	// scanPerPage is how many entries one page looks at: a page of a rare kind may be short, or empty, and not the last.
	scanPerPage = 200000
)

var errPageFull = errors.New("page is full")

// walk reads records upwards or downwards from where the page begins, until take says that the page is full or the look-out
// is over. It returns the page to go on with; its Next is 0 at the end.
func (l *Ledger) walk(ctx context.Context, p Page, down bool, take func(*Entry, []byte) (full bool, err error)) (Page, error) {
	if l.Err() != nil {
		return p, ErrClosed
	}
	if p.Bound == 0 {
		p.Bound = l.head.Load()
	}
	first, last := max(p.Next, 1), p.Bound
	if down {
		first, last = p.Next, 1
		if p.Next == 0 {
			first = p.Bound
		}
	}
	end := last
	p.Next = 0
	if p.Bound == 0 || !down && first > last {
		return p, nil
	}
	seen := 0
	var e Entry
	err := l.store.Scan(ctx, first, last, func(r Record) error {
		if err := e.Decode(r.Position, r.Body); err != nil {
			return damaged("%v", err)
		}
		full, err := take(&e, r.Body)
		if err != nil {
			return err
		}
		if seen++; (full || seen >= scanPerPage) && r.Position != end {
			p.Next = r.Position + 1
			if down {
				p.Next = r.Position - 1
			}
			return errPageFull
		}
		if full {
			return errPageFull
		}
		return nil
	})
	if errors.Is(err, errPageFull) {
		err = nil
	}
	return p, err
}

// Entries lists entries upwards. mine tells which senders' entries to show (0: of the whole installation); kinds, when given,
// which kinds.
func (l *Ledger) Entries(ctx context.Context, p Page, mine func(sender uint32) bool, kinds []Kind) ([]Line, Page, error) {
	var lines []Line
	p, err := l.walk(ctx, p, false, func(e *Entry, body []byte) (bool, error) {
		if !mine(e.Sender) || len(kinds) > 0 && !slices.Contains(kinds, e.Kind) {
			return false, nil
		}
		lines = append(lines, Line{Entry: *e, Leaf: LeafHash(body)})
		return len(lines) >= p.Size, nil
	})
	if err != nil {
		return nil, p, err
	}
	for i := range lines {
		if err := l.evidence(ctx, &lines[i]); err != nil {
			return nil, p, err
		}
	}
	return lines, p, nil
}

// SuppressionFilter says which noes to list; all that is given must match.
type SuppressionFilter struct {
	Sender  string
	Reasons []Reason
	// Scope, when Scoped, is exactly this scope.
	Scoped  bool
	Scope   Scope
	Channel Channel
	// Domain finds addresses of the domain and its subdomains, where the address is known in clear.
	Domain   string
	From, To time.Time
	// Down lists newest first.
	Down bool
}

// Suppressed is a no in force.
type Suppressed struct {
	Line
	Reason Reason
	// Address is the address in clear, where it is known.
	Address string
}

// Suppressions lists the noes that are in force. Errors: ErrUnknownSender, ErrUnknownTopic, ErrInvalidField, those of the store.
func (l *Ledger) Suppressions(ctx context.Context, p Page, f SuppressionFilter) ([]Suppressed, Page, error) {
	reg := l.Registry()
	s, err := l.sender(reg, f.Sender)
	if err != nil {
		return nil, p, err
	}
	var scope uint32
	if f.Scoped {
		if scope, err = scopeNumber(s, "scope", f.Scope); err != nil {
			return nil, p, err
		}
	}
	if f.Domain != "" {
		if f.Domain, err = canonicalDomain("domain", f.Domain); err != nil {
			return nil, p, err
		}
	}
	var found []Suppressed
	var rec standing.Record
	from, to, now := millis(f.From), millis(f.To), l.now()
	p, err = l.walk(ctx, p, f.Down, func(e *Entry, body []byte) (bool, error) {
		if e.Sender != s.Number || e.Key.IsZero() || f.Scoped && e.Scope != scope || f.Channel != 0 && e.Channel != f.Channel ||
			from != 0 && e.At < from || to != 0 && e.At >= to {
			return false, nil
		}
		reason := denialOf(reg, e)
		if reason == 0 || len(f.Reasons) > 0 && !slices.Contains(f.Reasons, reason) {
			return false, nil
		}
		if !l.table.Get(standing.Key(e.Key), &rec) || !inForce(&rec, e, now) {
			return false, nil
		}
		line := Line{Entry: *e, Leaf: LeafHash(body)}
		if err := l.evidence(ctx, &line); err != nil {
			return false, err
		}
		a, err := l.AddressOf(ctx, &line)
		if err != nil {
			return false, err
		}
		if f.Domain != "" && !inDomain(a, f.Domain) {
			return false, nil
		}
		found = append(found, Suppressed{line, reason, a})
		return len(found) >= p.Size, nil
	})
	return found, p, err
}

// denialOf is the reason that an entry makes by itself; 0 for those that make none.
func denialOf(reg *Registry, e *Entry) Reason {
	if e.Kind != OptedOut {
		return reasonOf(e.Kind)
	}
	switch _, kind, _, _ := reg.Scope(e.Scope); kind {
	case ScopeCommercial:
		return ReasonOptedOutCommercial
	case ScopeTopic:
		return ReasonOptedOutTopic
	}
	return ReasonOptedOutAll
}

// inForce tells whether a no still denies something: it was not voided, undone or lifted, its topic was not said yes to
// since, and its pause has not ended.
func inForce(rec *standing.Record, e *Entry, now int64) bool {
	i := slices.IndexFunc(rec.Facts, func(f standing.Fact) bool { return f.Entry == e.Position })
	if i < 0 {
		return false
	}
	f := &rec.Facts[i]
	if f.Until != 0 && (kindOf(f) == Paused || kindOf(f) == Undeliverable) {
		return f.Until > now
	}
	if kindOf(f) == OptedOut {
		yes, _ := strongestYes(rec.Facts, f.Scope)
		return f.Position > yes && !liftedBySubscribe(rec.Facts, f)
	}
	return true
}

func inDomain(addr, domain string) bool {
	a, err := address.Parse(addr)
	if err != nil {
		return false
	}
	d := a.Domain()
	return d == domain || strings.HasSuffix(d, "."+domain)
}

// Subscribing is a yes in force: a check of its topic answers SEND.
type Subscribing struct {
	Line
	Topic     *Topic
	Confirmed bool
	Address   string
}

// Subscriptions lists yeses in force, upwards: those of whoever has opted out are not among them (15 USC 7704(a)(4)(A)(iv)).
// A yes is listed at the entry that said it last.
func (l *Ledger) Subscriptions(ctx context.Context, p Page, sender, topic string) ([]Subscribing, Page, error) {
	reg := l.Registry()
	s, err := l.sender(reg, sender)
	if err != nil {
		return nil, p, err
	}
	if topic != "" {
		if _, err := topicOf(s, "topic", topic); err != nil {
			return nil, p, err
		}
	}
	var found []Subscribing
	p, err = l.walk(ctx, p, false, func(e *Entry, body []byte) (bool, error) {
		if e.Sender != s.Number || e.Kind != Subscribed && e.Kind != Confirmed {
			return false, nil
		}
		_, _, t, ok := reg.Scope(e.Scope)
		if !ok || t == nil || topic != "" && t.Name != topic {
			return false, nil
		}
		line := Line{Entry: *e, Leaf: LeafHash(body)}
		if err := l.evidence(ctx, &line); err != nil {
			return false, err
		}
		a, err := l.AddressOf(ctx, &line)
		if err != nil || !l.subscribed(s, t, e, a) {
			return false, err
		}
		found = append(found, Subscribing{line, t, e.Kind == Confirmed, a})
		return len(found) >= p.Size, nil
	})
	return found, p, err
}

// subscribed tells whether the entry is the newest yes of its address to its topic and a check would answer SEND.
func (l *Ledger) subscribed(s *Sender, t *Topic, e *Entry, clear string) bool {
	m := &mailbox{sender: s}
	if clear != "" {
		var err error
		if m.addr, err = address.Parse(clear); err != nil {
			return false
		}
	}
	m.keys.N = 1
	m.keys.Of[0] = address.GenerationKeys{Generation: e.Generation, Suppression: e.Key, Consent: e.Consent, ConsentDiffers: !e.Consent.IsZero()}
	if v := l.verdictNow(m, t); !v.Send {
		return false
	}
	var rec standing.Record
	l.table.Get(standing.Key(e.Key), &rec)
	var newest uint64
	for i := range rec.Facts {
		f := &rec.Facts[i]
		if k := kindOf(f); (k == Subscribed || k == Confirmed) && f.Scope == t.Number && f.Consent == discriminator(e.Consent) {
			newest = max(newest, f.Entry)
		}
	}
	return newest == e.Position
}
