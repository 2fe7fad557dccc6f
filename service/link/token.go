// Package link makes and opens the tokens that unsubscribe links and mail addresses carry, and the header fields made of them
// (RFC 2369, RFC 8058). It is part of the core: it knows neither ledger nor transport.
//
// A token is 38 octets in 61 characters of lower-case base32, so that "u-" and a token fit the local part of a mailbox (64
// octets, RFC 5321 section 4.5.3.1.1) as well as a URL. It holds nothing personal in clear, nobody can make or alter one
// without the key, and it never expires.
package link

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"
)

// Purpose says what a token is for. Tokens of one purpose never open as another.
type Purpose uint8

// Purposes. The numbers are part of every token sent and never change.
const (
	Unsubscribe Purpose = 1
	Bounce      Purpose = 2
	Confirm     Purpose = 3
	Preferences Purpose = 4
	Undo        Purpose = 5
	// Message names whose message it is, in its Message-ID. Whoever answers hands that on to all whom they copy, so unlike Bounce, which
	// stands in the return path alone, it makes nobody undeliverable.
	Message Purpose = 6

	purposes = 7
)

// Token is what a link or an address carries.
type Token struct {
	Purpose Purpose
	// KeyID is the link key that signed it: set by Append, reported by Open.
	KeyID uint8
	// Scope is a scope number: a sender (ALL), its COMMERCIAL class, or a topic.
	Scope uint32
	// Mailing is the mailing number; for Confirm, Preferences and Undo the minute of issue (unix time / 60).
	Mailing uint32
	// Key is the address key; for Confirm and Undo the position of an entry (8 octets, big endian) and the first 8 octets of
	// its address key.
	Key [16]byte
}

// Sizes of a token.
const (
	// Size is a token's octets.
	Size = 38
	// Length is a token's characters.
	Length = 61

	version  = 1
	macAt    = 26
	macSize  = Size - macAt
	spelling = "abcdefghijklmnopqrstuvwxyz234567"
)

// ErrInvalid is the one answer to every fault of a token: what is wrong with it is nobody's business.
var ErrInvalid = errors.New("no such link")

// Key signs tokens. Keys are never dropped: what they signed lies in people's mailboxes.
type Key struct {
	ID     uint8
	Secret [32]byte
}

// Ring holds the link keys. It never changes, so it is safe for concurrent use; to rotate is to make a new one.
type Ring struct {
	current uint8
	signers [256]*signer // by key id; nil for none
	decoy   *signer      // does the work for ids that are not there, so that timing tells nothing
}

// signer makes the MACs of one key.
type signer struct {
	macs [purposes]sync.Pool
}

// NewRing makes a ring that signs with the key current and opens with all. Ids must be distinct and not 0.
func NewRing(current uint8, keys ...Key) (*Ring, error) {
	r := &Ring{current: current, decoy: newSigner(make([]byte, 32))}
	for _, k := range keys {
		if k.ID == 0 || r.signers[k.ID] != nil {
			return nil, fmt.Errorf("link key id %d is 0 or used twice", k.ID)
		}
		if k.Secret == [32]byte{} {
			return nil, fmt.Errorf("link key %d is all zero", k.ID)
		}
		r.signers[k.ID] = newSigner(k.Secret[:])
	}
	if r.signers[current] == nil {
		return nil, fmt.Errorf("the current link key, %d, is missing", current)
	}
	return r, nil
}

// newSigner derives a key of its own for each purpose, so that one purpose cannot be taken for another even by a bug.
func newSigner(secret []byte) *signer {
	s := &signer{}
	for p := range s.macs {
		derive := hmac.New(sha256.New, secret)
		fmt.Fprintf(derive, "optout link v1 purpose %d", p)
		key := derive.Sum(nil)
		s.macs[p].New = func() any { return &maker{h: hmac.New(sha256.New, key)} }
	}
	return s
}

// maker holds a MAC's working memory.
type maker struct {
	h   hash.Hash
	raw [Size]byte
	sum [sha256.Size]byte
}

// Current is the id of the key that signs.
func (r *Ring) Current() uint8 { return r.current }

// mac computes the MAC over what m.raw holds.
func (m *maker) mac() []byte {
	m.h.Reset()
	m.h.Write(m.raw[:macAt])
	return m.h.Sum(m.sum[:0])[:macSize]
}

// Append appends the token's 61 characters, signed with the current key. It allocates nothing but room in dst.
func (r *Ring) Append(dst []byte, t Token) []byte {
	if t.Purpose == 0 || t.Purpose >= purposes {
		panic("link: unknown purpose") // a bug of the caller, never input
	}
	pool := &r.signers[r.current].macs[t.Purpose]
	m := pool.Get().(*maker)
	defer pool.Put(m)
	m.raw[0] = version<<4 | byte(t.Purpose)
	m.raw[1] = r.current
	binary.BigEndian.PutUint32(m.raw[2:], t.Scope)
	binary.BigEndian.PutUint32(m.raw[6:], t.Mailing)
	copy(m.raw[10:], t.Key[:])
	copy(m.raw[macAt:], m.mac())
	return encode(dst, &m.raw)
}

// Seal is Append as a string.
func (r *Ring) Seal(t Token) string { return string(r.Append(make([]byte, 0, Length), t)) }

// Open opens a token of the purpose wanted. Letters may be in either case; there is no other freedom of spelling. Every fault
// is ErrInvalid, and costs the same work as success.
func (r *Ring) Open(s string, want Purpose) (Token, error) {
	if len(s) != Length || want == 0 || want >= purposes {
		return Token{}, ErrInvalid
	}
	var raw [Size]byte
	ok := decode(&raw, s)
	by, known := r.signers[raw[1]], true
	if by == nil {
		by, known = r.decoy, false
	}
	pool := &by.macs[want]
	m := pool.Get().(*maker)
	defer pool.Put(m)
	m.raw = raw
	good := hmac.Equal(m.mac(), m.raw[macAt:])
	if !ok || !known || !good || raw[0] != version<<4|byte(want) {
		return Token{}, ErrInvalid
	}
	t := Token{Purpose: want, KeyID: raw[1], Scope: binary.BigEndian.Uint32(raw[2:]), Mailing: binary.BigEndian.Uint32(raw[6:])}
	copy(t.Key[:], raw[10:macAt])
	return t, nil
}

var encoding = base32.NewEncoding(spelling).WithPadding(base32.NoPadding)

func encode(dst []byte, raw *[Size]byte) []byte {
	n := len(dst)
	dst = append(dst, make([]byte, Length)...)
	encoding.Encode(dst[n:], raw[:])
	return dst
}

// decode reads a token's one spelling, case apart. What it read is spelt again and compared, so that no spare bit and no odd
// character makes a second spelling.
func decode(raw *[Size]byte, s string) bool {
	var lower, again [Length]byte
	var bits uint32
	have, at, ok := 0, 0, true
	for i := range lower {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
		v := strings.IndexByte(spelling, c)
		ok = ok && v >= 0
		bits = bits<<5 | uint32(v)&31
		if have += 5; have >= 8 && at < Size {
			have -= 8
			raw[at] = byte(bits >> have)
			at++
		}
	}
	encoding.Encode(again[:], raw[:])
	return ok && again == lower
}
