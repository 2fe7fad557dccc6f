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
	"strings"
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
	// Unknown: the DNS did not answer; to be tried again later.
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
	// By is what proved it: "dkim", "spf" or "authserv-id"; else empty.
	By string
	// Signed: it was proved by a DKIM signature that covers the only From, To and Subject fields: what was written was written by
	// that address, to whom To names.
	Signed bool
	// DKIM are the signatures that verified, aligned or not.
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
	Log         *slog.Logger
}

// Limits of one check.
const (
	maxTime       = 10 * time.Second
	maxSignatures = 5
	maxLookups    = 40
	// A header larger than these proves nothing: the libraries' work grows with the square of what is in it.
	maxHeader = 128 << 10
	maxFields = 1000
	maxField  = 16 << 10
)

// Checker is safe for concurrent use.
type Checker struct{ o Options }

// New makes a checker.
func New(o Options) *Checker { return &Checker{o} }

// Check tells who wrote a message. raw must be all of it: a signature does not hold over a part.
func (c *Checker) Check(ctx context.Context, e Envelope, raw []byte) Verdict {
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	v := Verdict{}
	h, fault := readHeader(raw)
	if fault != "" {
		v.Detail = fault
		return v
	}
	x := &check{c: c, ctx: ctx, v: &v, header: h, raw: raw, envelope: e}
	x.run()
	v.Detail = strings.Join(x.notes, "; ")
	return v
}

// check is one message's way through the methods.
type check struct {
	c        *Checker
	ctx      context.Context
	v        *Verdict
	header   header
	raw      []byte
	envelope Envelope
	lookups  int
	orgs     map[string]organisation
	notes    []string
	// later: the DNS did not answer something that might have proved it.
	later bool
	// whole: everything that could prove it was evaluated.
	whole bool
}

func (x *check) note(s string) { x.notes = append(x.notes, s) }

func (x *check) run() {
	v := x.v
	v.From, v.Domain = x.header.from()
	x.dkim() // also without a From: whose signatures hold is of use
	if v.Domain == "" {
		x.note("no single From")
		return
	}
	org := x.organisation(v.Domain)
	x.byDKIM(org)
	if v.Result != Proved {
		x.bySPF(org)
	}
	if v.Result != Proved {
		x.byAuthserv()
	}
	if v.Result != Unproved {
		return
	}
	switch {
	case x.later:
		v.Result = Unknown
	case org.published && x.whole:
		v.Result = Disproved
	}
}
