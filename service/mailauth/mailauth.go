// Package mailauth tells whether the address in a message's From really wrote it.
package mailauth

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Result says what is known of a message's From.
type Result uint8

// The results. The zero value proves nothing.
const (
	// Unproved: neither proved nor disproved: nothing aligned passes, and no policy says that the message is forged.
	Unproved Result = iota
	// Proved: an aligned DKIM or SPF pass, or a trusted authserv-id says dmarc=pass for this From domain.
	Proved
	// Disproved: the domain publishes a DMARC policy (any p=) and nothing aligned passes.
	Disproved
	// Unknown: DNS did not answer; try again later.
	Unknown
)

// Envelope is what the SMTP session said.
type Envelope struct {
	// Remote is the client's address; zero when it is not known (IMAP, submitted files), and then SPF is not evaluated.
	Remote netip.Addr
	Helo   string
	// MailFrom is "" for the null path.
	MailFrom string
}

// Signature is a DKIM signature that verified.
type Signature struct {
	// Domain is d=, in lower case.
	Domain string
	// Signed are the header field names in h=, in lower case.
	Signed []string
	// Partial: l= was used, so that the body is not covered whole.
	Partial bool
}

// Verdict is what Check found.
type Verdict struct {
	Result Result
	// Domain is the From domain as an A-label in lower case; "" when there is no single From.
	Domain string
	// From is the single address in From; "" when Domain is.
	From string
	// By is "dkim", "spf", "authserv-id", or "".
	By string
	// Signed: proved by a DKIM signature that covers From, To, Subject and the whole body.
	Signed bool
	// DKIM is every signature that verified, aligned or not.
	DKIM []Signature
	// Detail is one line for evidence: domains, methods and results.
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
	// AuthservIDs are those whose Authentication-Results are believed; empty: none.
	AuthservIDs []string
	Now         func() time.Time
	Log         *slog.Logger
}

// Checker checks messages.
type Checker struct{ o Options }

// New makes a checker.
func New(o Options) *Checker { return &Checker{o} }

// Check says what is known of the message.
func (c *Checker) Check(ctx context.Context, e Envelope, raw []byte) Verdict { return Verdict{} }

// Aligned says whether two domains are relaxed aligned: they have the same organisational domain.
func Aligned(a, b string) bool { return a == b }
