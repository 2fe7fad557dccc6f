package ledger

import (
	"context"
	"fmt"
	"time"

	"optout/service/address"
)

// canonicalDomain turns a domain into A-labels in lower case.
func canonicalDomain(field, domain string) (string, error) {
	a, err := address.Parse("x@" + domain)
	if err != nil {
		return "", invalid(field, "it is not a domain name", "for example example.com")
	}
	return a.Domain(), nil
}

// BlockDomain suppresses a domain and its subdomains, by label. Nothing is written when the very domain is blocked already.
// Errors: ErrUnknownSender, ErrInvalidField, and those of a write.
func (l *Ledger) BlockDomain(ctx context.Context, by By, sender, domain, justification string) (Outcome, error) {
	s, err := l.sender(l.Registry(), sender)
	if err != nil {
		return Outcome{}, err
	}
	d, err := canonicalDomain("domain", domain)
	if err != nil {
		return Outcome{}, err
	}
	if err := checkText("justification", justification, 500, true); err != nil {
		return Outcome{}, err
	}
	return l.write(ctx, nil, func(t *tx) (uint64, bool, error) {
		if r, ok := t.registry().senders[s.Name].blocked[d]; ok {
			return r.Position, false, nil
		}
		at, err := t.add(&Entry{Kind: DomainBlocked, Channel: by.Channel, Actor: by.Key, Sender: s.Number,
			Detail: map[string]string{"domain": d, "justification": justification}}, nil)
		return at, true, err
	}, false)
}

// UnblockDomain lifts the block of exactly this domain. It needs a RequestID. Errors: ErrNotFound, ErrRequestIDRequired, and
// those of BlockDomain.
func (l *Ledger) UnblockDomain(ctx context.Context, by By, sender, domain, justification string) (Outcome, error) {
	if err := requireRequestID(by.RequestID); err != nil {
		return Outcome{}, err
	}
	s, err := l.sender(l.Registry(), sender)
	if err != nil {
		return Outcome{}, err
	}
	d, err := canonicalDomain("domain", domain)
	if err != nil {
		return Outcome{}, err
	}
	if err := checkText("justification", justification, 500, true); err != nil {
		return Outcome{}, err
	}
	req, err := l.beginRequest(ctx, s.Number, by.RequestID, "unblock", d)
	if err != nil {
		return Outcome{}, err
	}
	return l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		r, ok := t.registry().senders[s.Name].blocked[d]
		if !ok {
			return 0, false, &Error{Kind: ErrNotFound, Field: "domain", Problem: fmt.Sprintf("domain %q is not blocked", d), Remedy: "see \"optout domain list\""}
		}
		at, err := t.add(&Entry{Kind: DomainUnblocked, Channel: by.Channel, Actor: by.Key, Sender: s.Number, Ref: r.Position, Request: req.id,
			Detail: map[string]string{"domain": d, "justification": justification}}, nil)
		return at, true, err
	}, false)
}

// MaxWirelessDomains is how long an FCC list may be.
const MaxWirelessDomains = 10000

// WirelessDomain is one line of the FCC's list.
type WirelessDomain struct {
	Domain string
	// FirstListed is the day it was first listed; zero means the list's date, unless it is known from an earlier list.
	FirstListed time.Time
}

// ImportWireless takes over a whole FCC list (47 CFR 64.3100(a)(3)) for all senders: new domains are listed, missing ones
// delisted, and the date of the list is kept even when nothing changed. Errors: ErrInvalidField, ErrTooManyItems, and those of
// a write.
func (l *Ledger) ImportWireless(ctx context.Context, by By, domains []WirelessDomain, listDate time.Time) (listed, delisted int, position uint64, err error) {
	if len(domains) == 0 || len(domains) > MaxWirelessDomains {
		return 0, 0, 0, &Error{Kind: ErrTooManyItems, Field: "domains", Problem: fmt.Sprintf("a list has 1 to %d domains", MaxWirelessDomains), Remedy: "give the whole list at once"}
	}
	if listDate.IsZero() {
		return 0, 0, 0, invalid("list_date", "it is missing", "give the date of the FCC's list")
	}
	if err := l.checkPast("list_date", listDate); err != nil {
		return 0, 0, 0, err
	}
	want := map[string]time.Time{}
	for i, d := range domains {
		field := fmt.Sprintf("domains[%d]", i)
		name, err := canonicalDomain(field+".domain", d.Domain)
		if err != nil {
			return 0, 0, 0, err
		}
		if err := l.checkPast(field+".first_listed_at", d.FirstListed); err != nil {
			return 0, 0, 0, err
		}
		want[name] = d.FirstListed
	}
	o, err := l.admin(ctx, nil, func(t *tx) (uint64, error) {
		listed, delisted = 0, 0
		reg := t.registry()
		if listDate.Before(reg.WirelessListDate) {
			return 0, invalid("list_date", "a newer list was imported before", "import the newest list")
		}
		var at uint64
		add := func(kind Kind, d map[string]string, first time.Time) (err error) {
			at, err = t.add(&Entry{Kind: kind, Channel: by.Channel, Actor: by.Key, Occurred: millis(first), Until: millis(listDate), Detail: d}, nil)
			return err
		}
		if err := add(WirelessListed, map[string]string{"list": listDate.UTC().Format(time.DateOnly)}, time.Time{}); err != nil {
			return 0, err
		}
		for name, first := range want {
			old, known := reg.wireless[name]
			if first.IsZero() {
				first = listDate
				if known {
					first = old.Since
				}
			}
			if known && first.Equal(old.Since) {
				continue
			}
			listed++
			if err := add(WirelessListed, map[string]string{"domain": name}, first); err != nil {
				return 0, err
			}
		}
		for _, old := range reg.Wireless() {
			if _, ok := want[old.Domain]; !ok {
				delisted++
				if err := add(WirelessDelisted, map[string]string{"domain": old.Domain}, time.Time{}); err != nil {
					return 0, err
				}
			}
		}
		return at, nil
	})
	return listed, delisted, o.Position, err
}
