package hooks

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"optout/service/address"
	"optout/service/ledger"
	"optout/service/provider"
)

// Difference is an address that one side does not mail and the other does.
type Difference struct {
	// HereOnly: we do not mail it, and it is not on the provider's lists. Otherwise it is on a list, and nothing here says no.
	HereOnly bool
	Address  string
	// Why is our reason, or the provider's list and reason.
	Why string
	// Since is when it was said.
	Since time.Time
}

// Drift sums up a comparison.
type Drift struct {
	// Both sides do not mail Agreed addresses; HereOnly and ThereOnly count the differences.
	Agreed, HereOnly, ThereOnly int
	// Unknown are noes of ours whose address is known only by its key, so that they cannot be looked for.
	Unknown int
	// Unreadable items of the provider's lists were left out.
	Unreadable int
	// Listed addresses are on the provider's lists.
	Listed int
	// Position is the head of the ledger that was compared.
	Position uint64
}

// maxDrift bounds how many addresses of a provider are compared: 25 to 50 octets are held for each.
const maxDrift = 20_000_000

// ErrTooMany: the provider's lists are longer than a comparison takes.
var ErrTooMany = errors.New("the provider's lists hold more than 20 million addresses")

// Compare reads the whole lists of a provider and tells every difference. It changes nothing, here or there: an address on a
// list of somebody who said yes again is taken off by a person, at the provider. Errors: ErrUnknown, ErrTooMany, those of the API and
// of the ledger, and of found.
func (s *Server) Compare(ctx context.Context, id string, found func(Difference) error) (Drift, error) {
	var d Drift
	r := s.byID[id]
	if r == nil || r.lister == nil {
		return d, ErrUnknown
	}
	release, err := r.hold(ctx)
	if err != nil {
		return d, err
	}
	defer release()
	there := listed{}
	for _, list := range r.lister.Lists() {
		if err := r.compareList(ctx, list, there, &d, found); err != nil {
			return d, err
		}
	}
	d.Listed = len(there)
	if err := r.compareLedger(ctx, there, &d, found); err != nil {
		return d, err
	}
	for _, m := range there {
		if m&(denied|met|hereOnly) == denied|met {
			d.Agreed++
		}
	}
	return d, nil
}

// listed is what was found about each address on the provider's lists.
type listed map[[16]byte]mark

// mark is a set of facts about an address.
type mark uint8

const (
	// denied: we deny whatever the lists that it is on stop; without it, it is told as being there only.
	denied mark = 1 << iota
	// whole: one of those lists stops all mail, not only that of a group or a tag.
	whole
	// met: the ledger holds a no of it.
	met
	// hereOnly: it is on none of them for all that we deny, and told as being here only.
	hereOnly
)

// whole tells whether an item of a list stops all mail that goes through the provider.
func (a *account) whole(e *provider.Event) bool {
	return e.Group == "" || a.topic != "" && a.groups[e.Group] == a.topic
}

// compareList looks up everybody on a list.
func (r *runner) compareList(ctx context.Context, list string, there listed, d *Drift, found func(Difference) error) error {
	cursor := ""
	for range maxPages {
		page, err := r.page(ctx, list, time.Time{}, cursor)
		if err != nil {
			return err
		}
		d.Unreadable += page.Unreadable
		for i := range page.Items {
			if err := r.compareItem(ctx, &page.Items[i], there, d, found); err != nil {
				return err
			}
		}
		if len(there) > maxDrift {
			return ErrTooMany
		}
		if page.Next == "" {
			return nil
		}
		if page.Next == cursor {
			return errCircle
		}
		cursor = page.Next
	}
	return ErrTooMany
}

func (r *runner) compareItem(ctx context.Context, e *provider.Event, there listed, d *Drift, found func(Difference) error) error {
	at, ok := place(e.Address)
	if !ok {
		d.Unreadable++
		return nil
	}
	m, again := there[at]
	if r.whole(e) {
		m |= whole
	}
	there[at] = m
	if again && m&denied == 0 {
		return nil // on another list too, and told
	}
	story, err := r.opt.Ledger.Recipient(ctx, r.sender, e.Address)
	if errors.Is(err, ledger.ErrInvalidAddress) {
		d.Unreadable++
		return nil
	}
	if err != nil {
		return err
	}
	if r.denied(story, e) {
		there[at] = m | denied // counted when the ledger is gone through
		return nil
	}
	there[at] = m &^ denied
	d.ThereOnly++
	return found(Difference{Address: e.Address, Why: e.Source, Since: e.Occurred})
}

// denied tells whether the ledger denies everything that an item of a list stops: a person who wants some of it again is a
// difference.
func (a *account) denied(story *ledger.Story, e *provider.Event) bool {
	scope := a.scopeOf(e)
	if e.What == provider.Complained {
		scope = ledger.Scope{Kind: ledger.ScopeCommercial}
	}
	any, all, concerned := false, true, false
	for _, v := range story.Verdicts {
		no := slices.ContainsFunc(v.Denials, said)
		any = any || no
		switch {
		case v.Topic.Class == ledger.Required, a.topic != "" && v.Topic.Name != a.topic:
		case e.What == provider.Unsubscribed && scope.Kind == ledger.ScopeTopic && v.Topic.Name != scope.Topic:
		case scope.Kind == ledger.ScopeCommercial && e.What != provider.HardBounce && v.Topic.Class != ledger.Commercial:
		default:
			concerned = true
			all = all && no
		}
	}
	if !concerned {
		return any
	}
	return all
}

// said tells reasons that somebody said or found out from those that lie in the topic or end by themselves.
func said(d ledger.Denial) bool {
	switch d.Reason {
	case ledger.ReasonNoConsent, ledger.ReasonConsentExpired, ledger.ReasonPaused, ledger.ReasonWirelessDomain:
		return false
	}
	return true
}

// compareLedger goes through our noes: of the reasons that the provider can know of too.
func (r *runner) compareLedger(ctx context.Context, there listed, d *Drift, found func(Difference) error) error {
	f := ledger.SuppressionFilter{Sender: r.sender, Reasons: []ledger.Reason{ledger.ReasonOptedOutAll, ledger.ReasonOptedOutCommercial, ledger.ReasonOptedOutTopic, ledger.ReasonComplaint, ledger.ReasonUndeliverable}}
	p := ledger.Page{Size: ledger.MaxPage}
	seen := map[[16]byte]bool{}
	for {
		lines, next, err := r.opt.Ledger.Suppressions(ctx, p, f)
		if err != nil {
			return err
		}
		d.Position = next.Bound
		for i := range lines {
			if err := r.compareLine(ctx, &lines[i], there, seen, d, found); err != nil {
				return err
			}
		}
		if next.Next == 0 {
			return nil
		}
		p = next
		p.Size = ledger.MaxPage
	}
}

// compareLine looks for one of our noes on the lists.
func (r *runner) compareLine(ctx context.Context, l *ledger.Suppressed, there listed, seen map[[16]byte]bool, d *Drift, found func(Difference) error) error {
	s := r.opt.Ledger.Registry().Sender(r.sender)
	if l.Address == "" {
		d.Unknown++
		return nil
	}
	at, ok := place(l.Address)
	if !ok || seen[at] {
		return nil
	}
	m, listed := there[at]
	if listed {
		if m&denied == 0 {
			return nil
		}
		there[at] = m | met
	}
	if m&whole != 0 || !r.concerns(s, &l.Entry) {
		return nil // it is there, or need not be
	}
	if l.Kind == ledger.OptedOut {
		story, err := r.opt.Ledger.Recipient(ctx, r.sender, l.Address)
		if err != nil || !stopsAll(story, r.topic) {
			return err // the person wants some of the mail again
		}
	}
	if seen[at] = true; listed {
		there[at] |= hereOnly
	}
	d.HereOnly++
	return found(Difference{HereOnly: true, Address: l.Address, Why: l.Reason.String(), Since: ledger.Time(l.At)})
}

// concerns tells whether a no of ours would stop all mail that goes through the provider, so that it belongs on its list.
func (a *account) concerns(s *ledger.Sender, e *ledger.Entry) bool {
	if e.Kind == ledger.Undeliverable {
		return true
	}
	t := s.Topic(a.topic)
	commercial := a.topic != "" && t != nil && t.Class == ledger.Commercial
	if e.Kind == ledger.Complained {
		return commercial
	}
	return e.Scope == s.All() || a.topic != "" && t != nil && e.Scope == t.Number || commercial && e.Scope == s.Commercial()
}

// place is a digest of an address in its canonical form, by which the two sides are compared.
func place(addr string) ([16]byte, bool) {
	a, err := address.Parse(addr)
	if err != nil {
		return [16]byte{}, false
	}
	sum := sha256.Sum256([]byte(a.Canonical()))
	return [16]byte(sum[:16]), true
}
