package mailauth

import (
	"strings"

	"github.com/emersion/go-msgauth/dmarc"
	"golang.org/x/net/publicsuffix"
)

// organisation is what DMARC knows of a domain.
type organisation struct {
	domain string // the one that was asked about
	// name is its organisational domain.
	name string
	// published: it or its organisation publishes a policy.
	published bool
	// strictDKIM and strictSPF ask for the very domain rather than one of the same organisation.
	strictDKIM, strictSPF bool
}

// maxLabels is how many labels of a long name are looked at, beside the name itself (RFC 9989 section 4.10).
const maxLabels = 7

// organisation finds a domain's policy and organisational domain by walking up the DNS tree (RFC 9989 section 4.10): of the
// policies found, one with psd=n names the organisation, one with psd=y the label below it, else the one nearest to the root. A
// public suffix (co.uk) is nobody's organisation, whatever is published there. Where no policy is found, the label below the
// public suffix is taken, as RFC 7489 did.
func (x *check) organisation(domain string) organisation {
	if o, known := x.orgs[domain]; known {
		return o
	}
	o := organisation{domain: domain}
	below := ""
walk:
	for i, name := range ancestors(domain) {
		suffix, _ := publicsuffix.PublicSuffix(name)
		if suffix == name && i > 0 {
			break
		}
		policy, psd := x.policy(name)
		if policy != nil {
			if !o.published {
				o.published = true
				o.strictDKIM, o.strictSPF = policy.DKIMAlignment == dmarc.AlignmentStrict, policy.SPFAlignment == dmarc.AlignmentStrict
			}
			switch {
			case psd == "y" && below != "":
				o.name = below
				break walk
			case psd == "n":
				o.name = name
				break walk
			}
			o.name = name
		}
		below = name
	}
	if o.name == "" {
		o.name = domain
		if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
			o.name = org
		}
	}
	if x.orgs == nil {
		x.orgs = map[string]organisation{}
	}
	x.orgs[domain] = o
	return o
}

// ancestors are a name and those above it, the longest first; of a long name only the last labels.
func ancestors(name string) []string {
	all := []string{name}
	labels := strings.Split(name, ".")
	for n := min(len(labels)-1, maxLabels); n > 0; n-- {
		all = append(all, strings.Join(labels[len(labels)-n:], "."))
	}
	return all
}

// policy reads the policy published at a name; nil when there is none.
func (x *check) policy(name string) (p *dmarc.Record, psd string) {
	txts, err := x.lookupTXT("_dmarc." + name)
	if err != nil {
		if dmarcLater(err) {
			x.later = true
		}
		return nil, ""
	}
	for _, txt := range txts {
		if !strings.HasPrefix(txt, "v=DMARC1") {
			continue
		}
		if p != nil {
			return nil, "" // several: none (RFC 9989 section 4.10)
		}
		if p, err = dmarc.Parse(txt); err != nil {
			return nil, ""
		}
		for _, tag := range strings.Split(txt, ";") {
			if k, v, _ := strings.Cut(tag, "="); strings.TrimSpace(k) == "psd" {
				psd = strings.ToLower(strings.TrimSpace(v))
			}
		}
	}
	return p, psd
}

// dmarcLater reports whether the DNS may answer later.
func dmarcLater(err error) bool {
	t, ok := err.(interface{ Temporary() bool })
	return ok && t.Temporary()
}

// aligned reports whether a domain speaks for the one in From: the very same, or, unless strict, one of the same organisation.
func (x *check) aligned(domain string, org organisation, strict bool) bool {
	if domain == org.domain {
		return true
	}
	return !strict && domain != "" && x.organisation(domain).name == org.name
}
