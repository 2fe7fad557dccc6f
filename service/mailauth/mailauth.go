// Package mailauth tells whether the address in a message's From really wrote it: by DMARC (RFC 9989) over DKIM (RFC 6376) and SPF
// (RFC 7208), evaluated here, or by the Authentication-Results (RFC 8601) of a server that is trusted for it.
//
// Messages come from anybody, so everything is bounded: the header, the signatures that are tried, the questions to the DNS and the
// time. What is not proved within those bounds is not proved.
package mailauth

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// Result says what is known of a message's From.
type Result uint8

// The results. The zero value proves nothing.
const (
	// Unproved: neither proved nor disproved: nothing aligned passes, and nothing says that the message is forged.
	Unproved Result = iota
	// Proved: an aligned DKIM or SPF pass, or a trusted authserv-id says dmarc=pass for the domain in From.
	Proved
	// Disproved: the domain publishes a DMARC policy (whatever it asks for), everything could be evaluated, and nothing aligned
	// passes; or a trusted authserv-id says dmarc=fail.
	Disproved
	// Unknown: the DNS did not answer what decides; to be tried again later.
	Unknown
)

// String names the result.
func (r Result) String() string {
	return [...]string{"unproved", "proved", "disproved", "unknown"}[r&3]
}

// Envelope is what is known of the session that brought a message.
type Envelope struct {
	// Remote is the client's address; zero when it is not known, or was a server of one's own. Then SPF is not evaluated.
	Remote netip.Addr
	Helo   string
	// MailFrom is "" for the null path.
	MailFrom string
}

// Signature is a DKIM signature that verified. One that covers the body in part only (l=) never does.
type Signature struct {
	// Domain is d=, in lower case.
	Domain string
	// Signed are the header field names in h=, in lower case.
	Signed []string
}

// Verdict is what is known of a message.
type Verdict struct {
	Result Result
	// From is the only address in From, as it stands there, and Domain its domain in lower-case A-labels. Both are empty when there
	// is no From, several, or one that cannot be read: such a message is never proved.
	From, Domain string
	// By is the first that proves it of "dkim", "spf" and "authserv-id"; else empty.
	By string
	// Signed: it was proved by a DKIM signature that covers the body and every From, To and Subject field: what was written was written by
	// that address, to whom To names.
	Signed bool
	// Sent: SPF proves it, alone or besides a signature: the host that brought the message here may send for that address.
	Sent bool
	// Vouched: a trusted authserv-id says so, alone or besides.
	Vouched bool
	// DKIM are the signatures that verified, aligned or not; of more than five, those that may be aligned are tried first, and five.
	DKIM []Signature
	// Detail is one line for evidence, without personal data.
	Detail string
}

// Resolver asks the DNS; *net.Resolver fits.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

// Options are what a Checker needs.
type Options struct {
	Resolver Resolver
	// AuthservIDs are those whose Authentication-Results are believed; empty: none. The server that writes them must take away
	// those that came from outside (RFC 8601 section 5); only the topmost field counts.
	AuthservIDs []string
	// Now is the clock by which a DNS that does not answer is left alone; nil means the wall clock.
	Now func() time.Time
	// Log takes why signatures do not count, at debug level.
	Log *slog.Logger
}

// checkTimeout bounds a check, all look-ups in the DNS together.
const checkTimeout = 10 * time.Second

// Checker is safe for concurrent use.
type Checker struct {
	o      Options
	silent *silences
}

// New makes a checker.
func New(o Options) *Checker {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Checker{o, &silences{now: o.Now, until: map[string]time.Time{}}}
}

// Check tells who wrote a message. raw must be all of it: a signature does not hold over a part. It takes at most 10 seconds, nearly
// all of them waiting for the DNS, and less when ctx ends.
func (c *Checker) Check(ctx context.Context, e Envelope, raw []byte) Verdict {
	m, err := read(raw)
	if err != nil {
		return Verdict{Detail: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	n := &names{ctx: ctx, r: c.o.Resolver, silent: c.silent}
	f := findings{from: m.author()}
	var all sync.WaitGroup // side by side, so that a dead name of a stranger's does not use up the author's time
	run := func(method func()) {
		all.Go(func() {
			defer c.caught() // a fault in one method proves nothing, and must not take the service down
			method()
		})
	}
	run(func() { f.dkim = c.verifyDKIM(ctx, n, m, f.from.domain) }) // also without a From: whose signatures hold is of use
	if f.from.domain != "" {
		run(func() { f.spf = checkSPF(ctx, n, e) })
		run(func() { f.org = n.organisation(f.from.domain) })
		f.trusted = c.believed(m, f.from.domain)
	}
	all.Wait()
	return f.verdict(n)
}

// caught logs a panic of the function that defers it, and ends it.
func (c *Checker) caught() {
	if fault := recover(); fault != nil {
		c.o.Log.Error("a message's authentication could not be evaluated: a fault of the service", "fault", fault, "stack", string(debug.Stack()))
	}
}

// findings are what the methods found of one message.
type findings struct {
	from    author
	dkim    dkimFindings
	spf     spfFinding
	org     organisation
	trusted trust
}

// verdict weighs the findings (RFC 9989 section 5.3).
func (f *findings) verdict(n *names) Verdict {
	v := Verdict{Domain: f.from.domain, From: f.from.address}
	notes := f.dkim.notes
	for _, s := range f.dkim.passed {
		v.DKIM = append(v.DKIM, s.Signature)
	}
	if v.Domain == "" {
		v.Detail = strings.Join(append(notes, "no single From"), "; ")
		return v
	}
	for _, s := range f.dkim.passed {
		if n.aligned(s.Domain, f.org, f.org.strictDKIM) {
			v.Result, v.By = Proved, "dkim"
			v.Signed = v.Signed || s.covers
		}
	}
	if f.spf.evaluated() {
		notes = append(notes, "spf="+f.spf.result+" smtp.mailfrom="+f.spf.domain)
	}
	if len(f.dkim.notes) == 0 {
		notes = append(notes, "dkim=none")
	}
	if !f.org.published && !f.org.unknown {
		notes = append(notes, "no DMARC policy")
	}
	if f.trusted != trustNothing {
		notes = append(notes, "a trusted server says dmarc="+string(f.trusted))
	}
	v.Detail = strings.Join(notes, "; ")
	v.Sent = f.spf.result == spfPass && n.aligned(f.spf.domain, f.org, f.org.strictSPF)
	v.Vouched = f.trusted == trustPass
	switch {
	case v.Result == Proved:
	case v.Sent:
		v.Result, v.By = Proved, "spf"
	case v.Vouched:
		v.Result, v.By = Proved, "authserv-id"
	case f.trusted == trustFail:
		v.Result = Disproved
	case n.later, f.org.unknown, f.dkim.unknown, f.spf.result == spfTempError && related(f.spf.domain, v.Domain):
		v.Result = Unknown
	case f.org.published && f.spf.evaluated() && !f.dkim.untried:
		v.Result = Disproved
	}
	return v
}
