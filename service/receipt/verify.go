package receipt

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// Verifier verifies receipts with public keys. It is safe for many goroutines.
type Verifier struct {
	keys map[byte]ed25519.PublicKey
}

// NewVerifier makes a verifier of public keys by their ids, each 1 to 255 and of 32 octets. With no keys it verifies nothing.
func NewVerifier(keys map[byte]ed25519.PublicKey) (*Verifier, error) {
	own := make(map[byte]ed25519.PublicKey, len(keys))
	for id, k := range keys {
		if id == 0 || len(k) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("public receipt key %d of %d octets: the id is 1 to 255, and the key %d octets", id, len(k), ed25519.PublicKeySize)
		}
		own[id] = append(ed25519.PublicKey(nil), k...)
	}
	return &Verifier{keys: own}, nil
}

// Verify returns what a receipt says once its signature is verified. Errors: ErrMalformed, ErrUnknownKey, ErrForged.
func (v *Verifier) Verify(text string) (Claims, error) {
	b, err := decode(text)
	if err != nil {
		return Claims{}, err
	}
	key, ok := v.keys[b[1]]
	if !ok {
		return Claims{}, ErrUnknownKey
	}
	if !ed25519.Verify(key, append([]byte(domain), b[:unsigned]...), b[unsigned:]) {
		return Claims{}, ErrForged
	}
	return claims(b), nil
}

const keyWord = "optout-receipt-key"

// PublicText is a public key in one line, "optout-receipt-key 1 BASE64", as a file of keys has it.
func PublicText(id byte, key ed25519.PublicKey) string {
	return fmt.Sprintf("%s %d %s", keyWord, id, base64.StdEncoding.EncodeToString(key))
}

// ParsePublicText reads a line that PublicText wrote.
func ParsePublicText(line string) (id byte, key ed25519.PublicKey, err error) {
	words := strings.Fields(line)
	if len(words) == 3 && words[0] == keyWord {
		n, err := strconv.ParseUint(words[1], 10, 8)
		b, err2 := base64.StdEncoding.Strict().DecodeString(words[2])
		if err == nil && err2 == nil && n > 0 && len(b) == ed25519.PublicKeySize {
			return byte(n), b, nil
		}
	}
	return 0, nil, fmt.Errorf("it is not a public receipt key: a line %q, an id from 1 to 255 and 44 characters of base64 is", keyWord)
}
