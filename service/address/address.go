// Package address knows mailboxes: it reads a bare addr-spec (RFC 5321 section 4.1.2, RFC 6531), brings it into the canonical
// forms by which optout recognises a mailbox, and turns those into keyed hashes, the address keys under which everything
// else is kept. The rules of addresses are here and nowhere else.
//
// A mailbox has three forms. As given, for sending: a local part belongs to the domain that receives it, so it is never
// altered. The consent form, for matching a yes: minimal quoting, ASCII lower case, NFC, the domain in A-labels. The
// suppression form, for matching a no: the consent form with the spellings joined that Gmail delivers to one mailbox. Joining
// too many spellings only ever stops mail; so a no is matched broadly and a yes narrowly.
//
// The package is part of the core. It may use the standard library, x/net/idna and x/text/unicode/norm, and nothing else; it
// reads no files, logs nothing, and its errors never hold the address.
package address

import (
	"fmt"
	"log/slog"
	"strings"
)

// Limits in octets, of an address as given and of its canonical forms alike.
const (
	// MaxLocal bounds the local part, its quotes included (RFC 5321 section 4.5.3.1.1).
	MaxLocal = 64
	// MaxMailbox bounds the whole: a path has 256 octets with its angle brackets (RFC 5321 section 4.5.3.1.3). The 255
	// octets of a domain (section 4.5.3.1.2) are never reached below it.
	MaxMailbox = 254
	// MaxLabel bounds each label of the domain (RFC 1035 section 2.3.4).
	MaxLabel = 63
)

const (
	gmail      = "gmail.com"
	googlemail = "googlemail.com"
)

// Address is one parsed mailbox. The zero value is no address. It is large (about 280 octets) so that it needs no heap; pass
// it by pointer. However it is printed or logged, it shows only that there is an address; but package fmt cannot see that
// when the Address lies in an unexported field of another struct, so never print such a struct whole.
type Address struct {
	given string
	// form[:size] is the consent form; the suppression form is made from it when it is asked for.
	form [MaxMailbox]byte
	size uint8
	// at is the place of the @ that ends the local part in form.
	at uint8
}

// Given returns the address as it was given to [Parse], for sending.
func (a *Address) Given() string { return a.given }

// Canonical returns the suppression form. Matching goes by key ([Keyring.Keys]); this is for explaining.
func (a *Address) Canonical() string {
	var form [MaxMailbox]byte
	return string(form[:a.suppression(form[:])])
}

// ConsentForm returns the consent form, which is the suppression form without the Gmail step.
func (a *Address) ConsentForm() string { return string(a.form[:a.size]) }

// DomainBytes returns the domain in lower-case A-labels without a trailing dot; gmail.com and googlemail.com stay apart. It
// is part of the Address and must not be changed; nil for the zero value.
func (a *Address) DomainBytes() []byte {
	if a.size == 0 {
		return nil
	}
	return a.form[a.at+1 : a.size]
}

// Domain returns DomainBytes as a string. It allocates nothing when the domain was given in just that spelling.
func (a *Address) Domain() string {
	domain := a.DomainBytes()
	if n := len(a.given) - len(domain); n >= 0 && a.given[n:] == string(domain) {
		return a.given[n:]
	}
	return string(domain)
}

// suppression writes the suppression form to to, which must have room for MaxMailbox octets, and returns its length. The form
// is shorter than the consent form wherever the two differ.
//
// Gmail delivers to one mailbox whatever dots the local part has, at both of its domains. A +tag is kept: it is an address of
// its own, which the person chose. A local part that needs quotes cannot be a Gmail account and keeps its dots.
func (a *Address) suppression(to []byte) int {
	domain := a.DomainBytes()
	if string(domain) != gmail && string(domain) != googlemail {
		return copy(to, a.form[:a.size])
	}
	n := 0
	for _, c := range a.form[:a.at] {
		if c != '.' || a.form[0] == '"' {
			to[n] = c
			n++
		}
	}
	to[n] = '@'
	return n + 1 + copy(to[n+1:], gmail)
}

const redacted = "[address]"

// String redacts.
func (a Address) String() string { return redacted }

// Format redacts, whatever the verb.
func (a Address) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue redacts.
func (a Address) LogValue() slog.Value { return slog.StringValue(redacted) }

// Parse reads a bare addr-spec: no display name, no angle brackets, no comment, no route, no space around it. Domains are
// names of at least two labels; address literals are refused. The error is an [*Error] and the Address then zero.
//
// An ASCII address without quotes, whose domain has no A-labels, costs no allocation.
func Parse(s string) (a Address, err error) {
	if a.plain(s) {
		return a, nil
	}
	a = Address{}
	if fault := a.general(s); fault != 0 {
		return Address{}, fault.err()
	}
	return a, nil
}

// plain reads the addresses that nearly all are, in one pass: an ASCII dot-atom at a name of ASCII letters, digits and
// hyphens. It reports false for everything else, good or bad. What it accepts, general reads in the same way.
func (a *Address) plain(s string) bool {
	if len(s) > MaxMailbox {
		return false
	}
	at := 0
	for ; at < len(s); at++ {
		c := atomFold[s[at]]
		if c == 0 {
			break
		}
		if c == '.' && (at == 0 || a.form[at-1] == '.') {
			return false
		}
		a.form[at] = c
	}
	if at == 0 || at > MaxLocal || at == len(s) || s[at] != '@' || a.form[at-1] == '.' {
		return false
	}
	a.form[at] = '@'
	label, dots := at+1, 0
	for i := at + 1; i < len(s); i++ {
		c := hostFold[s[i]]
		if c == 0 {
			return false
		}
		a.form[i] = c
		if c == '.' {
			if !plainLabel(a.form[label:i]) {
				return false
			}
			label, dots = i+1, dots+1
		}
	}
	last := a.form[label:len(s)]
	if dots == 0 || !plainLabel(last) || numeric(last) {
		return false
	}
	a.given, a.size, a.at = s, uint8(len(s)), uint8(at)
	return true
}

// plainLabel tells whether a label of letters, digits and hyphens stands for itself. Two hyphens in third and fourth place
// mark A-labels and what may one day be something like them (RFC 5891 section 4.2.3.1).
func plainLabel(l []byte) bool {
	n := len(l)
	return n > 0 && n <= MaxLabel && l[0] != '-' && l[n-1] != '-' && (n < 4 || l[2] != '-' || l[3] != '-')
}

// numeric tells whether a label is all digits, as no top-level domain is (RFC 3696 section 2): the name would be an IPv4
// address.
func numeric[T string | []byte](label T) bool {
	for i := range len(label) {
		if label[i] < '0' || label[i] > '9' {
			return false
		}
	}
	return len(label) > 0
}

// atomFold maps the octets of an ASCII dot-atom to lower case and all others to 0.
var atomFold = foldTable("!#$%&'*+-/=?^_`{|}~.")

// hostFold maps the octets of an ASCII host name to lower case and all others to 0.
var hostFold = foldTable("-.")

func foldTable(signs string) (t [256]byte) {
	for c := byte('0'); c <= '9'; c++ {
		t[c] = c
	}
	for c := byte('a'); c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = c, c
	}
	for _, c := range []byte(signs) {
		t[c] = c
	}
	return t
}

// general reads any address. It is the definition; plain is its short cut.
func (a *Address) general(s string) Fault {
	if f := checkWhole(s); f != 0 {
		return f
	}
	content, domain, f := cutLocal(s)
	if f != 0 {
		return f
	}
	if n := len(s) - len(domain) - 1; n > MaxLocal {
		return FaultLocalTooLong
	}
	local, f := canonicalLocal(content)
	if f != 0 {
		return f
	}
	name, f := canonicalDomain(domain)
	if f != 0 {
		return f
	}
	if len(local)+1+len(name) > MaxMailbox {
		return FaultTooLong
	}
	a.given, a.at = s, uint8(copy(a.form[:], local))
	a.form[a.at] = '@'
	a.size = a.at + 1 + uint8(copy(a.form[a.at+1:], name))
	return 0
}

// foldASCII lowers the ASCII letters and no others (T14).
func foldASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r - 'A' + 'a'
		}
		return r
	}, s)
}
