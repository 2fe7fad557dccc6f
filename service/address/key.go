package address

import (
	"cmp"
	"crypto/aes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Key is an address key: the canonical form of a mailbox under the installation's keyed PRF (AES-CMAC, 128 bits), the
// sender's number being part of the input. Nobody without the secret can tell whose it is, or that two senders know the same
// mailbox. Persons have keys of the same kind ([Keyring.Person]).
type Key [16]byte

// IsZero reports whether k is the zero value, which is no key.
func (k Key) IsZero() bool { return k == Key{} }

// String returns 32 hexadecimal digits.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// MaxGenerations is how many generations a Keyring holds at most: every check probes all of them.
const MaxGenerations = 4

// RulesVersion is the newest version of the canonical rules, and so far the only one.
const RulesVersion = 1

// MaxPersonID is the most octets of a caller's person_id.
const MaxPersonID = 256

// Generation is one version of PRF key and canonical rules. An entry names the generation of its keys for ever, since from
// a keyed hash nothing can be keyed or normalised anew (T10).
type Generation struct {
	// ID is over 0; a higher one is newer.
	ID uint16
	// Secret is random; it is kept outside the database and never changes. Whoever has it can test guesses against the ledger.
	Secret [32]byte
	// Rules is the version of the canonical rules: 1.
	Rules uint8
}

// Format shows the generation without its secret.
func (g Generation) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, fmt.Sprintf("address key %d (rules %d)", g.ID, g.Rules))
}

// LogValue shows the generation without its secret.
func (g Generation) LogValue() slog.Value {
	return slog.GroupValue(slog.Uint64("id", uint64(g.ID)), slog.Uint64("rules", uint64(g.Rules)))
}

// Keys holds the keys of one address under one sender for every generation, newest first.
type Keys struct {
	// N is how many of Of are in use.
	N  int
	Of [MaxGenerations]GenerationKeys
}

// GenerationKeys are the keys of one address under one sender and one generation.
type GenerationKeys struct {
	Generation uint16
	// Suppression matches a no, Consent a yes. They are equal unless ConsentDiffers.
	Suppression, Consent Key
	ConsentDiffers       bool
}

// Keyring makes keys under every generation that an installation still knows. It is safe for concurrent use.
type Keyring struct {
	generations []generation // newest first
	scratch     sync.Pool    // of *scratch
}

type generation struct {
	id              uint16
	address, person *cmac
	check           [16]byte
}

// The purposes of a generation's AES keys, as HKDF has them, and what its check value is made of. Changing any of them, or
// the frame below, cuts the ledgers that exist off from their addresses.
const (
	purposeAddress = "optout address key 1: address"
	purposePerson  = "optout address key 1: person"
	purposeCheck   = "optout address key 1: check value"
)

// A PRF input is the frame (its version, 1 octet; the sender's number, 4 octets, big endian) and then the canonical form or
// the person_id to the end. The frame's length is fixed, so no two inputs run together.
const (
	frameVersion = 1
	frameSize    = 5
)

// scratch keeps what goes through cipher.Block off the garbage collector's hands.
type scratch struct {
	input [frameSize + max(MaxMailbox, MaxPersonID)]byte
	mac   [aes.BlockSize]byte
}

// NewKeyring makes a keyring of 1 to MaxGenerations generations, in any order, with distinct ids and secrets; the one with
// the highest id is current. It fails for anything else: a service without the right keys would let everybody be written to.
func NewKeyring(gens ...Generation) (*Keyring, error) {
	if len(gens) == 0 || len(gens) > MaxGenerations {
		return nil, fmt.Errorf("address keys: there are %d, and must be 1 to %d: check the key folder", len(gens), MaxGenerations)
	}
	k := &Keyring{scratch: sync.Pool{New: func() any { return new(scratch) }}}
	for i, g := range gens {
		switch {
		case g.ID == 0:
			return nil, errors.New("address keys: the id 0 names no key: number them from 1")
		case g.Rules != RulesVersion:
			return nil, fmt.Errorf("address key %d: canonical rules of version %d are unknown, this program has version %d: use a newer program",
				g.ID, g.Rules, RulesVersion)
		case g.Secret == [32]byte{}:
			return nil, fmt.Errorf("address key %d: its secret is all zeros: restore it from the backup of the keys", g.ID)
		}
		for _, other := range gens[:i] {
			if other.ID == g.ID {
				return nil, fmt.Errorf("address key %d: it is there twice: remove the one that is not in the backup of the keys", g.ID)
			}
			if other.Secret == g.Secret {
				return nil, fmt.Errorf("address keys %d and %d: they have the same secret: restore them from the backup of the keys", other.ID, g.ID)
			}
		}
		made, err := newGeneration(g)
		if err != nil {
			return nil, fmt.Errorf("address key %d: %w", g.ID, err)
		}
		k.generations = append(k.generations, made)
	}
	slices.SortFunc(k.generations, func(a, b generation) int { return cmp.Compare(b.id, a.id) })
	return k, nil
}

func newGeneration(g Generation) (generation, error) {
	derive := func(purpose string) (*cmac, error) {
		key, err := hkdf.Key(sha256.New, g.Secret[:], nil, purpose, 16)
		if err != nil {
			return nil, fmt.Errorf("HKDF: %w", err)
		}
		return newCMAC([16]byte(key))
	}
	made := generation{id: g.ID}
	var check *cmac
	var err error
	if made.address, err = derive(purposeAddress); err == nil {
		if made.person, err = derive(purposePerson); err == nil {
			check, err = derive(purposeCheck)
		}
	}
	if err != nil {
		return generation{}, err
	}
	check.sum(&made.check, []byte{g.Rules})
	return made, nil
}

// Current returns the id of the newest generation, which new entries get.
func (k *Keyring) Current() uint16 { return k.generations[0].id }

// Keys writes the keys of an address under a sender to out, for every generation. It allocates nothing. With the zero
// Address it panics, since a key of nothing would be one that nobody has ever said no with; with the zero Keyring too.
func (k *Keyring) Keys(sender uint32, a *Address, out *Keys) {
	if a.size == 0 {
		panic("address: Keys of the zero Address, which Parse returns with an error")
	}
	s := k.frame(sender)
	consent := frameSize + copy(s.input[frameSize:], a.form[:a.size])
	*out = Keys{N: len(k.generations)}
	for i := range k.generations {
		g := &k.generations[i]
		g.address.sum(&s.mac, s.input[:consent])
		out.Of[i] = GenerationKeys{Generation: g.id, Suppression: s.mac, Consent: s.mac}
	}
	if suppression := frameSize + a.suppression(s.input[frameSize:]); suppression != consent {
		for i := range k.generations {
			k.generations[i].address.sum(&s.mac, s.input[:suppression])
			out.Of[i].Suppression, out.Of[i].ConsentDiffers = s.mac, true
		}
	}
	k.scratch.Put(s)
}

// frame takes a scratch and begins a PRF input in it.
func (k *Keyring) frame(sender uint32) *scratch {
	s := k.scratch.Get().(*scratch)
	s.input[0] = frameVersion
	binary.BigEndian.PutUint32(s.input[1:frameSize], sender)
	return s
}

// Person returns the key of the caller's person_id under a sender and the current generation. It never meets an address
// key: its AES key is another. The id is taken as it is, octet for octet: 1 to MaxPersonID octets of UTF-8 without control
// characters, otherwise an [*Error].
func (k *Keyring) Person(sender uint32, personID string) (Key, error) {
	bad := Error{Remedy: "use 1 to 256 octets of UTF-8 without control characters"}
	switch {
	case personID == "":
		bad.Fault, bad.Problem = FaultEmpty, "person_id is empty"
	case len(personID) > MaxPersonID:
		bad.Fault, bad.Problem = FaultTooLong, "person_id is longer than 256 octets"
	case !utf8.ValidString(personID):
		bad.Fault, bad.Problem = FaultNotUTF8, "person_id is not valid UTF-8"
	case strings.ContainsFunc(personID, unicode.IsControl):
		bad.Fault, bad.Problem = FaultControlChar, "person_id holds a control character"
	}
	if bad.Fault != 0 {
		return Key{}, &bad
	}
	s := k.frame(sender)
	defer k.scratch.Put(s)
	k.generations[0].person.sum(&s.mac, s.input[:frameSize+copy(s.input[frameSize:], personID)])
	return s.mac, nil
}

// CheckValue returns the check value of a generation, by which a database knows whether its keys and rules are the ones it
// was made with. It tells nothing about them. False: there is no such generation.
func (k *Keyring) CheckValue(generation uint16) ([16]byte, bool) {
	for i := range k.generations {
		if g := &k.generations[i]; g.id == generation {
			return g.check, true
		}
	}
	return [16]byte{}, false
}
