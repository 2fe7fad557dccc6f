package mailauth

import (
	"errors"
	"net"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// organisation is what DMARC knows of a domain.
type organisation struct {
	domain string // the one that was asked about
	// name is its organisational domain.
	name string
	// published: it or its organisation publishes a policy.
	published bool
	// unknown: the DNS did not answer, so that there may be more to know.
	unknown bool
	// strictDKIM and strictSPF ask for the very domain rather than one of the same organisation.
	strictDKIM, strictSPF bool
}

// maxLabels is how many labels of a long name are looked at, beside the name itself (RFC 9989 section 4.10).
const maxLabels = 7

// organisation finds a domain's policy and organisational domain by walking up the DNS tree (RFC 9989 section 4.10): of the
// policies found, one with psd=n names the organisation, one with psd=y the label below it, else the one nearest to the root. A
// public suffix (co.uk) is nobody's organisation, whatever is published there. Where no policy is found, the label below the
// public suffix is taken, as RFC 7489 did.
func (n *names) organisation(domain string) organisation {
	o := organisation{domain: domain}
	below := ""
walk:
	for i, name := range ancestors(domain) {
		suffix, _ := publicsuffix.PublicSuffix(name)
		if suffix == name && i > 0 {
			break
		}
		policy, unknown := n.policy(name)
		o.unknown = o.unknown || unknown
		if policy.found {
			if !o.published {
				o.published, o.strictDKIM, o.strictSPF = true, policy.strictDKIM, policy.strictSPF
			}
			switch {
			case policy.psd == "y" && below != "":
				o.name = below
				break walk
			case policy.psd == "n":
				o.name = name
				break walk
			}
			o.name = name
		}
		below = name
	}
	if o.name == "" {
		o.name = registered(domain)
	}
	return o
}

// registered is the label below the public suffix; a suffix is its own.
func registered(domain string) string {
	if d, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return d
	}
	return domain
}

// related tells, without the DNS, whether two domains may be of one organisation. No walk finds a common one above a public suffix.
func related(a, b string) bool {
	return a != "" && b != "" && registered(a) == registered(b)
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

// policy is a DMARC record, as far as it bears on what is proved.
type policy struct {
	found                 bool
	strictDKIM, strictSPF bool
	psd                   string
}

// policy reads the record published at a name; unknown says that the DNS did not answer. Several records are none (RFC 9989 section
// 4.10).
func (n *names) policy(name string) (p policy, unknown bool) {
	txts, err := n.LookupTXT(n.ctx, "_dmarc."+name)
	if e := (*net.DNSError)(nil); errors.As(err, &e) && e.IsTemporary {
		return p, true
	}
	records := 0
	for _, txt := range txts {
		version, _, _ := strings.Cut(txt, ";")
		k, v, _ := strings.Cut(version, "=")
		if strings.TrimSpace(k) == "v" && strings.TrimSpace(v) == "DMARC1" {
			records++
			p = parsePolicy(txt)
		}
	}
	if records != 1 {
		return policy{}, false
	}
	return p, false
}

// parsePolicy reads a record's tags. Bad values are as absent, and unknown tags as well (RFC 9989 section 4.7): a fault in fo= must not
// make a domain that publishes a policy one that does not, as it does in the parser that comes with the DKIM library. Without p=
// the record asks for nothing, but is one; with a bad p= or sp= it is one only if it asks for reports.
func parsePolicy(record string) policy {
	tags := map[string]string{}
	for tag := range strings.SplitSeq(record, ";") {
		k, v, _ := strings.Cut(tag, "=")
		tags[strings.ToLower(strings.TrimSpace(k))] = strings.ToLower(strings.TrimSpace(v))
	}
	valid := func(name string) bool {
		v, given := tags[name]
		return !given || v == "none" || v == "quarantine" || v == "reject"
	}
	return policy{found: valid("p") && valid("sp") || tags["rua"] != "", strictDKIM: tags["adkim"] == "s", strictSPF: tags["aspf"] == "s", psd: tags["psd"]}
}

// aligned reports whether a domain speaks for the one in From: the very same, or, unless strict, one of the same organisation. What
// the DNS does not tell counts against it.
func (n *names) aligned(domain string, org organisation, strict bool) bool {
	if domain == org.domain {
		return true
	}
	if strict || org.unknown || !related(domain, org.domain) {
		return false
	}
	o := n.organisation(domain)
	n.later = n.later || o.unknown
	return !o.unknown && o.name == org.name
}
