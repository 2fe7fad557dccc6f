package ledger

import (
	"hash/maphash"
	"sync"

	"optout/service/address"
)

// mailed estimates how many addresses of a domain were cleared for sending lately, so that the bounces of a large mailing are told from
// a domain that fails. It counts a sample of the addresses, each once a day however often it is asked about, in memory alone: what
// was cleared before the start is not known, and then hard bounces are judged by their number.
type mailed struct {
	seed maphash.Seed

	mu               sync.Mutex
	day              int64
	today, yesterday sample
}

// sample holds digests of the addresses that were seen on a day, and how many there are of each domain's.
type sample struct {
	seen    map[uint64]struct{}
	domains map[uint64]int
}

const (
	// sampleEvery is of how many addresses one is in the sample: those whose key ends in a zero octet, keys being as good as random.
	sampleEvery = 256
	// maxSample bounds a day's sample; what is beyond counts as not mailed.
	maxSample = 1 << 20
)

func newSample() sample { return sample{seen: map[uint64]struct{}{}, domains: map[uint64]int{}} }

func newMailed() *mailed {
	return &mailed{seed: maphash.MakeSeed(), today: newSample(), yesterday: newSample()}
}

// cleared counts an address that may be mailed.
func (m *mailed) cleared(a *address.Address, key *[16]byte, at int64) {
	if key[len(key)-1] != 0 {
		return
	}
	who, domain := maphash.Bytes(m.seed, key[:]), maphash.Bytes(m.seed, a.DomainBytes())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on(at)
	if _, again := m.today.seen[who]; again || len(m.today.seen) >= maxSample {
		return
	}
	m.today.seen[who] = struct{}{}
	m.today.domains[domain]++
}

// lately is about how many addresses of a domain were cleared, on this day (UTC) or the one before, whichever had more: bounces
// come within hours.
func (m *mailed) lately(domain string, at int64) int {
	d := maphash.String(m.seed, domain)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on(at)
	return sampleEvery * max(m.today.domains[d], m.yesterday.domains[d])
}

// on begins a new day where it is one.
func (m *mailed) on(at int64) {
	switch d := at / day; {
	case d == m.day:
		return
	case d == m.day+1:
		m.yesterday, m.today = m.today, newSample()
		m.day = d
	default:
		m.yesterday, m.today = newSample(), newSample()
		m.day = d
	}
}
