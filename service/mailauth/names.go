package mailauth

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxLookups of one check: five keys, eight policies of the author's domain and a few of others in its organisation, and what SPF needs, though
	// not all that it may ask for: 10 mechanisms "mx" of ten names each.
	maxLookups = 60
	// lookupTimeout is less than checkTimeout, so that one dead name leaves time for others.
	lookupTimeout = 4 * time.Second
	// silentFor is how long a domain is not asked again whose DNS did not answer within that time, and maxSilent of how many domains that
	// is remembered. A server of our own brings mail over a few connections: whoever sends in the name of a domain that never answers must
	// not keep everybody else's mail waiting for it.
	silentFor = time.Minute
	maxSilent = 10000
	// maxKeyRecord bounds a key record: RSA with 8,192 bits has 1.5 KiB, and verifying takes time with the square of the size.
	maxKeyRecord = 2 << 10
)

var errKeyRecord = errors.New("the key record is too large")

// names asks the DNS for one check, names with their final dot, so that no search list applies. It counts, bounds, and sorts errors
// into two kinds: the name or record does not exist, which is an answer, and everything else, which is temporary. So is a question
// beyond maxLookups: what was not asked is not known, or a stranger could use up the look-ups and hide a policy.
type names struct {
	ctx    context.Context
	r      Resolver
	silent *silences
	asked  atomic.Int32
	// later: the DNS did not tell whether a domain that authenticated is of the author's organisation.
	later bool
}

func ask[T any](n *names, ctx context.Context, name string, lookup func(context.Context, string) (T, error)) (got T, err error) {
	if n.asked.Add(1) > maxLookups {
		return got, &net.DNSError{Err: "too many look-ups for one message", Name: name, IsTemporary: true}
	}
	noAnswer := &net.DNSError{Err: "no answer", Name: name, IsTemporary: true}
	if n.silent.is(name) {
		return got, noAnswer
	}
	limited, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	got, err = lookup(limited, name)
	if e := (*net.DNSError)(nil); err != nil && !(errors.As(err, &e) && e.IsNotFound) {
		if ctx.Err() == nil && (limited.Err() != nil || e != nil && e.IsTimeout) {
			n.silent.add(name)
		}
		err = noAnswer
	}
	return got, err
}

// silences are the domains whose DNS did not answer lately.
type silences struct {
	now   func() time.Time
	mu    sync.Mutex
	until map[string]time.Time
}

// place is what names of one owner share: what they register. An IP address is its own.
func place(name string) string {
	if _, err := netip.ParseAddr(name); err == nil {
		return name
	}
	return registered(strings.ToLower(strings.TrimSuffix(name, ".")))
}

func (s *silences) is(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now().Before(s.until[place(name)])
}

func (s *silences) add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if len(s.until) >= maxSilent {
		maps.DeleteFunc(s.until, func(_ string, t time.Time) bool { return !now.Before(t) })
	}
	if len(s.until) < maxSilent {
		s.until[place(name)] = now.Add(silentFor)
	}
}

func rooted(name string) string { return strings.TrimSuffix(name, ".") + "." }

// LookupTXT asks for text records.
func (n *names) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return ask(n, ctx, rooted(name), n.r.LookupTXT)
}

// LookupMX asks for mail exchangers.
func (n *names) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return ask(n, ctx, rooted(name), n.r.LookupMX)
}

// LookupIPAddr asks for a host's addresses.
func (n *names) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	return ask(n, ctx, rooted(host), n.r.LookupIPAddr)
}

// LookupAddr asks for an address's names.
func (n *names) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return ask(n, ctx, addr, n.r.LookupAddr)
}

// lookupKey asks for the record of a DKIM key.
func (n *names) lookupKey(name string) ([]string, error) {
	all, err := n.LookupTXT(n.ctx, name)
	for _, s := range all {
		if len(s) > maxKeyRecord {
			return nil, errKeyRecord
		}
	}
	return all, err
}

// domainName is a host name in lower case without its final dot; "" when it is not one of at least two labels of letters, digits,
// hyphens and underscores. Names in mail that are compared and logged are those of strangers.
func domainName(s string) string {
	s = strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), ".")
	if len(s) > 253 || !strings.Contains(s, ".") {
		return ""
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 {
			return ""
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return ""
			}
		}
	}
	return s
}
