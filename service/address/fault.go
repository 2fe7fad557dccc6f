package address

import (
	"strings"
	"unicode"
)

// Error tells why a string is no address that optout takes. It never holds any of the string.
type Error struct {
	// Fault is for machines.
	Fault Fault
	// Problem and Remedy are for people, each a clause without capital and full stop.
	Problem, Remedy string
}

// Error returns problem and remedy.
func (e *Error) Error() string { return e.Problem + ": " + e.Remedy }

// Fault is one way of being no address. The zero value is none.
type Fault uint8

// The faults. Their order has no meaning and they are not stored.
const (
	_ Fault = iota
	// FaultEmpty: nothing was given.
	FaultEmpty
	// FaultTooLong: more than MaxMailbox octets, as given or in canonical form.
	FaultTooLong
	// FaultLocalTooLong: more than MaxLocal octets before the @, as given or in canonical form.
	FaultLocalTooLong
	// FaultLabelTooLong: more than MaxLabel octets between two dots of the domain, as an A-label.
	FaultLabelTooLong
	// FaultNotUTF8: not UTF-8, or with the replacement character that stands for a lost one.
	FaultNotUTF8
	// FaultControlChar: a control character, such as a line feed.
	FaultControlChar
	// FaultInvisible: a character that is not seen, such as a zero width space or a direction mark.
	FaultInvisible
	// FaultSpace: a space around the address or, unless quoted, in it.
	FaultSpace
	// FaultUnassigned: a character to which Unicode gives no meaning.
	FaultUnassigned
	// FaultAmbiguous: a character that normalisation turns into an ASCII one.
	FaultAmbiguous
	// FaultNoAt: no @.
	FaultNoAt
	// FaultSeveral: more than one address, or more than one @.
	FaultSeveral
	// FaultDisplayName: a display name or angle brackets.
	FaultDisplayName
	// FaultComment: a comment in parentheses.
	FaultComment
	// FaultSourceRoute: a route before the address (RFC 5321 appendix C).
	FaultSourceRoute
	// FaultScheme: a mailto: URL.
	FaultScheme
	// FaultNoLocal: nothing before the @.
	FaultNoLocal
	// FaultDots: unquoted, a dot at either end of the local part, or two together.
	FaultDots
	// FaultQuoting: quotes or backslashes that do not fit.
	FaultQuoting
	// FaultLocalChar: another character that stands in a local part only in quotes.
	FaultLocalChar
	// FaultNoDomain: nothing after the @.
	FaultNoDomain
	// FaultLiteral: an address literal in brackets.
	FaultLiteral
	// FaultIPAddress: a domain that ends in a number.
	FaultIPAddress
	// FaultSingleLabel: a domain without a dot.
	FaultSingleLabel
	// FaultEmptyLabel: two dots together in the domain, or one in front.
	FaultEmptyLabel
	// FaultDomain: anything else that no domain name may have.
	FaultDomain
	faultEnd
)

var faultTexts = [faultEnd]struct{ name, problem, remedy string }{
	FaultEmpty:        {"EMPTY", "the address is empty", "give one, such as name@example.com"},
	FaultTooLong:      {"TOO_LONG", "the address is longer than 254 octets", "check for text that does not belong to it; no mail server takes it"},
	FaultLocalTooLong: {"LOCAL_TOO_LONG", "the part before the @ is longer than 64 octets", "check for text that does not belong to it; no mail server takes it"},
	FaultLabelTooLong: {"LABEL_TOO_LONG", "a part of the domain is longer than 63 octets", "check for text that does not belong to it; there is no such domain"},
	FaultNotUTF8:      {"NOT_UTF8", "the address is not valid UTF-8, or a character of it was lost before", "convert its source to UTF-8 and take it from there again"},
	FaultControlChar:  {"CONTROL_CHAR", "the address holds a control character", "remove tabs, line ends and other control characters"},
	FaultInvisible:    {"INVISIBLE", "the address holds a character that cannot be seen", "remove zero width spaces, soft hyphens, direction marks, byte order marks and variation selectors, which come along with copied text"},
	FaultSpace:        {"SPACE", "there is a space around or in the address", "remove it"},
	FaultUnassigned:   {"UNASSIGNED", "the address holds a character without a meaning in Unicode", "check how it was converted, and give the character that was meant"},
	FaultAmbiguous:    {"AMBIGUOUS", "the address holds a character that mail systems turn into an ASCII one", "give the ASCII character, such as K in place of the Kelvin sign"},
	FaultNoAt:         {"NO_AT", "the address has no @", "give the whole address, such as name@example.com"},
	FaultSeveral:      {"SEVERAL", "there is more than one address, or more than one @", "give one address at a time"},
	FaultDisplayName:  {"DISPLAY_NAME", "the address has a display name or angle brackets", "give only what stands between < and >"},
	FaultComment:      {"COMMENT", "the address has a comment in parentheses", "remove it"},
	FaultSourceRoute:  {"SOURCE_ROUTE", "there is a source route before the address", "give only what follows the colon"},
	FaultScheme:       {"SCHEME", "the address is a mailto URL", "give only what follows \"mailto:\", without any ?subject"},
	FaultNoLocal:      {"NO_LOCAL", "there is nothing before the @", "give the whole address, such as name@example.com"},
	FaultDots:         {"DOTS", "the part before the @ begins or ends with a dot or has two together", "correct the dots, or put the part in quotes if it really has them"},
	FaultQuoting:      {"QUOTING", "the quotes or backslashes before the @ do not fit", "put the whole part before the @ in quotes, and a backslash before each quote or backslash in it"},
	FaultLocalChar:    {"LOCAL_CHAR", "the part before the @ has a character that needs quotes", "remove it, or put the whole part before the @ in quotes"},
	FaultNoDomain:     {"NO_DOMAIN", "there is no domain after the @", "give the whole address, such as name@example.com"},
	FaultLiteral:      {"LITERAL", "the domain is an address literal", "give a domain name in place of the address in brackets"},
	FaultIPAddress:    {"IP_ADDRESS", "the domain is a number or an IP address", "give a domain name"},
	FaultSingleLabel:  {"SINGLE_LABEL", "the domain has no dot", "give the full domain name, such as example.com"},
	FaultEmptyLabel:   {"EMPTY_LABEL", "the domain begins with a dot or has two together", "correct the dots"},
	FaultDomain:       {"DOMAIN", "the domain is not a valid domain name", "check its spelling; letters, digits and inner hyphens are allowed, and letters of other scripts as IDNA (UTS 46) has them"},
}

// String returns the fault's name in capitals, such as NO_AT.
func (f Fault) String() string {
	if f == 0 || f >= faultEnd {
		return "UNKNOWN"
	}
	return faultTexts[f].name
}

func (f Fault) err() *Error {
	return &Error{Fault: f, Problem: faultTexts[f].problem, Remedy: faultTexts[f].remedy}
}

// diagnose looks for the mistake that people really make in s, where the parser only sees an unexpected character; s is the
// address, or what follows its quoted or its whole local part. Otherwise the fault is what the parser found.
func diagnose(s string, found Fault) Fault {
	switch {
	case strings.ContainsAny(s, "<>"):
		return FaultDisplayName
	case strings.ContainsAny(s, "()"):
		return FaultComment
	case found == FaultNoLocal && strings.Contains(s, ":"):
		return FaultSourceRoute
	case len(s) > 7 && strings.EqualFold(s[:7], "mailto:"):
		return FaultScheme
	case strings.ContainsAny(s, ",;") || found == FaultDomain && strings.Contains(s, "@"):
		return FaultSeveral
	case strings.ContainsFunc(s, unicode.IsSpace) && found != FaultNoAt:
		return FaultSpace
	}
	return found
}
