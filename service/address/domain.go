package address

import (
	"strings"

	"golang.org/x/net/idna"
)

// profile is UTS 46, non-transitional, with every check that idna leaves out by default.
var profile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.StrictDomainName(true),
	idna.VerifyDNSLength(true), idna.CheckHyphens(true))

// capitalSharpS is mapped here, to sharp s as UTS 46 has it since Unicode 15.1, because the tables of Unicode 15.0 map it to
// "ss", which is another domain. Of the characters that both 15.0 and 17.0 accept, it is the only one that they map differently
// (every one was compared), so that with it no canonical form depends on which of them the Go version brings (T10).
var capitalSharpS = strings.NewReplacer("ẞ", "ß")

// canonicalDomain brings a domain into lower-case A-labels without a trailing dot.
func canonicalDomain(domain string) (string, Fault) {
	if domain == "" {
		return "", FaultNoDomain
	}
	if domain[0] == '[' {
		return "", FaultLiteral
	}
	name, err := profile.ToASCII(capitalSharpS.Replace(trimDot(domain)))
	if err != nil {
		return "", diagnose(domain, domainFault(name))
	}
	if strings.HasSuffix(name, ".") {
		return "", FaultEmptyLabel
	}
	// What package idna gives is not always what it takes (a label of 31 combining marks, for one); such names do not exist.
	if again, err := profile.ToASCII(name); err != nil || again != name {
		return "", FaultDomain
	}
	dot := strings.LastIndexByte(name, '.')
	switch {
	case numeric(name[dot+1:]):
		return "", FaultIPAddress
	case dot < 0:
		return "", FaultSingleLabel
	}
	return name, 0
}

// trimDot takes one trailing dot off, which only says that the name is complete. UTS 46 knows four spellings of a dot.
func trimDot(domain string) string {
	for _, dot := range []string{".", "\u3002", "\uff0e", "\uff61"} {
		if name, ok := strings.CutSuffix(domain, dot); ok {
			return name
		}
	}
	return domain
}

// domainFault tells what is wrong with a name that package idna has refused, as far as it got with it.
func domainFault(name string) Fault {
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return FaultEmptyLabel
		case len(label) > MaxLabel:
			return FaultLabelTooLong
		}
	}
	if len(name) >= MaxMailbox {
		return FaultTooLong
	}
	return FaultDomain
}
