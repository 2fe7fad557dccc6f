package mailauth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"blitiri.com.ar/go/spf"
	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dkim"
)

// errLookups answers a message that asks for too many look-ups; it is no answer of the DNS.
var errLookups = errors.New("too many look-ups in the DNS")

// lookupTXT asks for a TXT record, within the bound.
func (x *check) lookupTXT(name string) ([]string, error) {
	if x.lookups++; x.lookups > maxLookups {
		return nil, errLookups
	}
	txts, err := x.c.o.Resolver.LookupTXT(x.ctx, name)
	var dns *net.DNSError
	if err != nil && (!errors.As(err, &dns) || !dns.IsNotFound) {
		// The library knows errors that may pass by this type alone.
		return nil, &net.DNSError{Err: "no answer", Name: name, IsTemporary: true, IsTimeout: x.ctx.Err() != nil}
	}
	return txts, err
}

// dkim verifies the signatures.
func (x *check) dkim() {
	if x.header.count("dkim-signature") == 0 {
		return
	}
	var asked []string // the library verifies signatures side by side
	answers := map[string]func() ([]string, error){}
	for _, f := range x.header {
		if f.name != "dkim-signature" || len(asked) == maxSignatures {
			continue
		}
		name := keyName(f.body)
		if name == "" || answers[name] != nil {
			continue
		}
		txts, err := x.lookupTXT(name)
		asked, answers[name] = append(asked, name), func() ([]string, error) { return txts, err }
	}
	all, err := dkim.VerifyWithOptions(bytes.NewReader(x.raw), &dkim.VerifyOptions{MaxVerifications: maxSignatures, LookupTXT: func(name string) ([]string, error) {
		if answer := answers[strings.ToLower(strings.TrimSuffix(name, "."))]; answer != nil {
			return answer()
		}
		return nil, &net.DNSError{Err: "not asked", Name: name, IsNotFound: true}
	}})
	if err != nil && !errors.Is(err, dkim.ErrTooManySignatures) {
		x.note("dkim=permerror")
		return
	}
	for _, s := range all {
		domain := strings.ToLower(strings.TrimSuffix(s.Domain, "."))
		switch {
		case s.Err == nil:
			var signed []string
			for _, k := range s.HeaderKeys {
				signed = append(signed, strings.ToLower(strings.TrimSpace(k)))
			}
			x.v.DKIM = append(x.v.DKIM, Signature{domain, signed})
			x.note("dkim=pass header.d=" + printable(domain))
		case dkim.IsTempFail(s.Err):
			x.later = true
			x.note("dkim=temperror header.d=" + printable(domain))
		default:
			x.note("dkim=fail header.d=" + printable(domain))
		}
	}
}

// keyName is where the key of a signature is in the DNS (RFC 6376 section 3.6.2.1), in lower case.
func keyName(signature string) string {
	tags := map[string]string{}
	for _, t := range strings.Split(signature, ";") {
		k, v, _ := strings.Cut(t, "=")
		tags[strings.TrimSpace(k)] = strings.Join(strings.Fields(v), "")
	}
	if tags["s"] == "" || tags["d"] == "" {
		return ""
	}
	return strings.ToLower(tags["s"] + "._domainkey." + tags["d"])
}

// byDKIM looks for an aligned signature (RFC 9989 section 5.3), and of several takes one that covers what matters.
func (x *check) byDKIM(org organisation) {
	for _, s := range x.v.DKIM {
		if !x.aligned(s.Domain, org, org.strictDKIM) {
			continue
		}
		x.v.Result, x.v.By = Proved, "dkim"
		covers := func(name string) bool { return slices.Contains(s.Signed, name) && x.header.count(name) == 1 }
		x.v.Signed = x.v.Signed || covers("from") && covers("to") && covers("subject")
	}
}

// bySPF asks whether the host may send for the return path's domain, and whether that is aligned.
func (x *check) bySPF(org organisation) {
	x.whole = x.envelope.Remote.IsValid()
	if !x.whole {
		return // it may pass for all that is known
	}
	_, domain, _ := strings.Cut(x.envelope.MailFrom, "@")
	if i := strings.LastIndexByte(x.envelope.MailFrom, '@'); i >= 0 {
		domain = x.envelope.MailFrom[i+1:]
	}
	if domain == "" {
		domain = x.envelope.Helo // RFC 7208 section 2.4
	}
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	result, err := spf.CheckHostWithSender(net.IP(x.envelope.Remote.Unmap().AsSlice()), x.envelope.Helo, x.envelope.MailFrom,
		spf.WithContext(x.ctx), spf.WithResolver(bounded{x}))
	if err != nil && result == "" {
		result = spf.TempError
	}
	x.note(fmt.Sprintf("spf=%s smtp.mailfrom=%s", result, printable(domain)))
	switch {
	case result == spf.Pass && x.aligned(domain, org, org.strictSPF):
		x.v.Result, x.v.By = Proved, "spf"
	case result == spf.TempError:
		x.later = true
	}
}

// bounded is the resolver within the bound of look-ups of one check.
type bounded struct{ x *check }

func (b bounded) LookupTXT(_ context.Context, name string) ([]string, error) {
	return b.x.lookupTXT(name)
}

func (b bounded) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	if b.x.lookups++; b.x.lookups > maxLookups {
		return nil, errLookups
	}
	return b.x.c.o.Resolver.LookupMX(ctx, name)
}

func (b bounded) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	if b.x.lookups++; b.x.lookups > maxLookups {
		return nil, errLookups
	}
	return b.x.c.o.Resolver.LookupIPAddr(ctx, host)
}

func (b bounded) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	if b.x.lookups++; b.x.lookups > maxLookups {
		return nil, errLookups
	}
	return b.x.c.o.Resolver.LookupAddr(ctx, addr)
}

// byAuthserv believes what a trusted server found when the message came to it.
func (x *check) byAuthserv() {
	if len(x.c.o.AuthservIDs) == 0 {
		return
	}
	for _, f := range x.header {
		if f.name != "authentication-results" {
			continue
		}
		id, results, err := authres.Parse(f.body)
		trusted := func(s string) bool { return strings.EqualFold(s, id) }
		if err != nil || !slices.ContainsFunc(x.c.o.AuthservIDs, trusted) {
			return // the topmost is not theirs: whatever stands below may have come from outside
		}
		for _, r := range results {
			d, ok := r.(*authres.DMARCResult)
			if !ok || !strings.EqualFold(strings.TrimSuffix(d.From, "."), x.v.Domain) {
				continue
			}
			x.note(fmt.Sprintf("%s says dmarc=%s", printable(id), printable(string(d.Value))))
			switch d.Value {
			case authres.ResultPass:
				x.v.Result, x.v.By = Proved, "authserv-id"
			case authres.ResultFail:
				x.v.Result = Disproved
			}
		}
		return
	}
}

// printable makes a name of a message fit for evidence.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c <= ' ' || c >= 0x7f {
			return -1
		}
		return c
	}, s)
	return s[:min(len(s), 100)]
}
