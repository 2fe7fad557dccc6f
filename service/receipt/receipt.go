// Package receipt makes and reads receipts: a short text on a message which says that it was checked before it left. A receipt is
// signed with a key of its own (Ed25519), so that anybody with the public key can verify it, without the service and for ever, and
// nobody without the secret one can make one. It imports nothing of ours.
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

// Field is the name of the header field that carries a receipt.
const Field = "X-Optout-Receipt"

// Claims is what a receipt says: at Minute, the ledger being at Position, mail of this topic might be sent to this address key.
type Claims struct {
	// Sender and Topic are scope numbers.
	Sender, Topic uint32
	// Key is the address key; of a message to several recipients at once, what JoinKeys makes of theirs.
	Key [16]byte
	// Position is the head of the ledger that the check reflects.
	Position uint64
	// Minute is the time of the check in minutes of unix time.
	Minute uint32
}

// Sizes of a receipt: what is signed (version, key id, sender, topic, address key, position, minute), and the whole.
const (
	version    = 1
	claimsSize = 1 + 1 + 4 + 4 + 16 + 8 + 4
	// Size is a receipt's octets, and Length its characters.
	Size   = claimsSize + ed25519.SignatureSize
	Length = (Size*8 + 5) / 6
)

// domain parts these signatures from all others that a key could be asked for.
const domain = "optout receipt v1\x00"

// ErrInvalid is the answer to every fault of a receipt.
var ErrInvalid = errors.New("it is no valid receipt")

// encoding has one spelling of every octet string; Parse checks that it was used.
var encoding = base64.RawURLEncoding

// Signer makes receipts. It is safe for concurrent use.
type Signer struct {
	id  byte
	key ed25519.PrivateKey
}

// NewSigner makes a signer of a key's id, which is not 0, and its seed of 32 octets.
func NewSigner(id byte, seed []byte) (*Signer, error) {
	if id == 0 || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("receipt key %d: it needs an id from 1 to 255 and 32 octets", id)
	}
	return &Signer{id, ed25519.NewKeyFromSeed(seed)}, nil
}

// ID is the key's id, and Public its public key.
func (s *Signer) ID() byte                  { return s.id }
func (s *Signer) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// Sign makes a receipt: Length characters, which may be folded at any place.
func (s *Signer) Sign(c Claims) string {
	b := make([]byte, 0, len(domain)+Size)
	b = append(b, domain...)
	b = append(b, version, s.id)
	b = binary.BigEndian.AppendUint32(b, c.Sender)
	b = binary.BigEndian.AppendUint32(b, c.Topic)
	b = append(b, c.Key[:]...)
	b = binary.BigEndian.AppendUint64(b, c.Position)
	b = binary.BigEndian.AppendUint32(b, c.Minute)
	b = append(b, ed25519.Sign(s.key, b)...)
	return encoding.EncodeToString(b[len(domain):])
}

// Parse reads a receipt without verifying it, and tells the id of the key that is said to have signed it. White space, by which the
// field may be folded, does not matter; everything else has one spelling. Errors: ErrInvalid.
func Parse(text string) (c Claims, id byte, err error) {
	c, id, _, err = parse(text)
	return c, id, err
}

func parse(text string) (c Claims, id byte, raw []byte, err error) {
	text = strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' || r == '\r' || r == '\n' {
			return -1
		}
		return r
	}, text)
	if len(text) != Length {
		return c, 0, nil, ErrInvalid
	}
	b, err := encoding.DecodeString(text)
	if err != nil || len(b) != Size || encoding.EncodeToString(b) != text || b[0] != version || b[1] == 0 {
		return c, 0, nil, ErrInvalid
	}
	c = Claims{Sender: binary.BigEndian.Uint32(b[2:]), Topic: binary.BigEndian.Uint32(b[6:]), Key: [16]byte(b[10:26]),
		Position: binary.BigEndian.Uint64(b[26:]), Minute: binary.BigEndian.Uint32(b[34:])}
	return c, b[1], b, nil
}

// Verifier verifies receipts by public keys. It is safe for concurrent use.
type Verifier struct{ keys map[byte]ed25519.PublicKey }

// NewVerifier makes a verifier of public keys by id.
func NewVerifier(keys map[byte]ed25519.PublicKey) *Verifier { return &Verifier{keys} }

// Verify reads a receipt and verifies its signature. Errors: ErrInvalid, also for a key that is not known.
func (v *Verifier) Verify(text string) (Claims, error) {
	c, id, raw, err := parse(text)
	if err != nil {
		return Claims{}, err
	}
	key := v.keys[id]
	if key == nil || !ed25519.Verify(key, append([]byte(domain), raw[:claimsSize]...), raw[claimsSize:]) {
		return Claims{}, ErrInvalid
	}
	return c, nil
}

// JoinKeys is the address key of a message to several recipients in one transaction: the key itself of one, else 16 octets of
// SHA-256 over all, sorted and each once, so that who has the list of recipients can compute it.
func JoinKeys(keys [][16]byte) [16]byte {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	keys = slices.Compact(keys)
	if len(keys) == 1 {
		return keys[0]
	}
	h := sha256.New()
	h.Write([]byte("optout receipt of several v1\x00"))
	for _, k := range keys {
		h.Write(k[:])
	}
	return [16]byte(h.Sum(nil)[:16])
}
