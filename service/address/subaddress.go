package address

import "bytes"

// subaddressing are domains whose mail systems are known to deliver ann+anything to ann (RFC 5233), for everybody there.
var subaddressing = map[string]bool{
	gmail: true, googlemail: true,
	"outlook.com": true, "hotmail.com": true, "live.com": true, "msn.com": true,
	"icloud.com": true, "me.com": true, "mac.com": true,
	"proton.me": true, "protonmail.com": true, "pm.me": true,
	"fastmail.com": true, "fastmail.fm": true,
}

// Tagged reports whether the local part has the form of a sub-address (RFC 5233): "ann+news". Whether the domain delivers it to
// ann is for the domain to say.
func (a *Address) Tagged() bool { return bytes.IndexByte(a.form[:a.at], '+') > 0 && a.form[0] != '"' }

// Base returns the mailbox that a sub-address would belong to: what stands before the first '+'. False: it is no sub-address.
func (a *Address) Base() (Address, bool) {
	if !a.Tagged() {
		return Address{}, false
	}
	cut := bytes.IndexByte(a.form[:a.at], '+')
	b := Address{at: uint8(cut)}
	n := copy(b.form[:], a.form[:cut])
	n += copy(b.form[n:], a.form[a.at:a.size])
	b.size, b.given = uint8(n), string(b.form[:n])
	return b, true
}

// BelongsToBase reports whether a sub-address is known to be its base's: the domain delivers every one of them there. Elsewhere
// "ann+bob" may be somebody else than "ann".
func (a *Address) BelongsToBase() bool { return a.Tagged() && subaddressing[string(a.DomainBytes())] }
