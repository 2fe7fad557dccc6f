// Package receipt makes and reads receipts of checks: the proof, carried by a mail in the field X-Optout-Receipt, that this
// service said SEND for this address and topic, at this position of the ledger, in this minute. A receipt is signed with an
// Ed25519 key of its own, so that anyone who has the public key can verify it offline and nobody but the service can make one.
//
// A receipt is 102 octets, in 136 characters of unpadded base64url (RFC 4648 section 5). Numbers are big-endian:
//
//	octet  length  what
//	    0       1  version, 1
//	    1       1  id of the key that signed
//	    2       4  sender's number
//	    6       4  topic's number
//	   10       8  position of the ledger at which the check was answered
//	   18       4  minute of the check, in Unix minutes
//	   22      16  address key, or the joined key of several (JoinKeys)
//	   38      64  Ed25519 signature (RFC 8032) over "optout receipt v1", a zero octet, and octets 0 to 37
//
// It holds no personal data in clear. It imports nothing of ours.
package receipt

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Field is the header field's name.
const Field = "X-Optout-Receipt"

// Length is how many characters every receipt has.
const Length = 136

const (
	version = 1
	// domain keeps the signature of a receipt from being the signature of anything else.
	domain   = "optout receipt v1\x00"
	joined   = "optout receipt keys v1\x00"
	unsigned = 38
	whole    = unsigned + ed25519.SignatureSize
)

// Errors of Parse and Verify, for errors.Is.
var (
	// ErrMalformed: the text is not a receipt in its one spelling.
	ErrMalformed = errors.New("it is not a receipt: 136 characters of base64url that begin with version 1 are")
	// ErrUnknownKey: a key that the verifier does not have is said to have signed.
	ErrUnknownKey = errors.New("the receipt names a key that is not known: another installation made it, or nobody did")
	// ErrForged: the signature is not that of the key over these claims.
	ErrForged = errors.New("the signature does not fit: the receipt was altered or made up")
)

// encoding is strict: of all spellings of the same octets it takes one.
var encoding = base64.RawURLEncoding.Strict()

// Claims is what a receipt says: at Minute (Unix minutes) and at ledger position Position, mail of this topic of this sender to
// the address of this key might be sent.
type Claims struct {
	Sender, Topic uint32
	Key           [16]byte
	Position      uint64
	Minute        uint32
}

func (c Claims) append(b []byte, id byte) []byte {
	b = append(b, version, id)
	b = binary.BigEndian.AppendUint32(b, c.Sender)
	b = binary.BigEndian.AppendUint32(b, c.Topic)
	b = binary.BigEndian.AppendUint64(b, c.Position)
	b = binary.BigEndian.AppendUint32(b, c.Minute)
	return append(b, c.Key[:]...)
}

// Signer makes receipts with one key. It is safe for many goroutines.
type Signer struct {
	id  byte
	key ed25519.PrivateKey
}

// NewSigner makes a signer of a key's id, from 1 to 255, and its seed of 32 octets.
func NewSigner(id byte, seed []byte) (*Signer, error) {
	if id == 0 || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("receipt key %d of %d octets: the id is 1 to 255, and the seed %d octets", id, len(seed), ed25519.SeedSize)
	}
	return &Signer{id: id, key: ed25519.NewKeyFromSeed(seed)}, nil
}

// ID is the id of the signer's key.
func (s *Signer) ID() byte { return s.id }

// Public is the key that verifies what the signer signs.
func (s *Signer) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// Format shows a signer without its key.
func (s *Signer) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "signer of receipt key %d", s.id) }

// Sign returns the value of the header field: Length characters without white space.
func (s *Signer) Sign(c Claims) string {
	var space [len(domain) + whole]byte
	b := c.append(append(space[:0], domain...), s.id)
	b = append(b, ed25519.Sign(s.key, b)...)
	return encoding.EncodeToString(b[len(domain):])
}

// JoinKeys is the key of a message that goes to several addresses in one transaction. The key of one address is itself; that of
// more is the first 16 octets of SHA-256 over a prefix and the keys, sorted and each once. No keys make the zero key.
func JoinKeys(keys [][16]byte) [16]byte {
	if len(keys) == 1 {
		return keys[0]
	}
	sorted := slices.Clone(keys)
	slices.SortFunc(sorted, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	sorted = slices.Compact(sorted)
	switch len(sorted) {
	case 0:
		return [16]byte{}
	case 1:
		return sorted[0]
	}
	h := sha256.New()
	h.Write([]byte(joined))
	for _, k := range sorted {
		h.Write(k[:])
	}
	return [16]byte(h.Sum(nil)[:16])
}

// unfold takes out the white space that folding a header field puts in (RFC 5322 section 2.2.3), wherever a mail system did.
func unfold(text string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '\r', '\n':
			return -1
		}
		return r
	}, text)
}

func decode(text string) (b []byte, err error) {
	text = unfold(text)
	if len(text) != Length {
		return nil, ErrMalformed
	}
	b, err = encoding.DecodeString(text)
	if err != nil || len(b) != whole || b[0] != version || b[1] == 0 || encoding.EncodeToString(b) != text {
		return nil, ErrMalformed
	}
	return b, nil
}

// Parse reads what a receipt says and the id of the key that is said to have signed it, without verifying anything: that is a
// Verifier's work. White space inside is taken out first, since the field may be folded. The error is ErrMalformed.
func Parse(text string) (c Claims, id byte, err error) {
	b, err := decode(text)
	if err != nil {
		return Claims{}, 0, err
	}
	return claims(b), b[1], nil
}

func claims(b []byte) Claims {
	return Claims{Sender: binary.BigEndian.Uint32(b[2:]), Topic: binary.BigEndian.Uint32(b[6:]), Position: binary.BigEndian.Uint64(b[10:]),
		Minute: binary.BigEndian.Uint32(b[18:]), Key: [16]byte(b[22:unsigned])}
}
