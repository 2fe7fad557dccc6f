package address

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
)

// cmac is AES-CMAC (RFC 4493; NIST SP 800-38B) under one key. The standard library has none. It is never changed after it is
// made, and safe for concurrent use.
type cmac struct {
	block cipher.Block
	// k1 and k2 are the subkeys for a last block that is whole and for one that is padded.
	k1, k2 [aes.BlockSize]byte
}

func newCMAC(key [16]byte) (*cmac, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("AES: %w", err)
	}
	c := &cmac{block: block}
	var l [aes.BlockSize]byte
	block.Encrypt(l[:], l[:])
	c.k1 = double(l)
	c.k2 = double(c.k1)
	return c, nil
}

// double multiplies by x in GF(2^128) (RFC 4493 section 2.3).
func double(b [aes.BlockSize]byte) (d [aes.BlockSize]byte) {
	high, low := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	binary.BigEndian.PutUint64(d[:8], high<<1|low>>63)
	binary.BigEndian.PutUint64(d[8:], low<<1^(high>>63)*0x87)
	return d
}

// sum writes the MAC of msg to mac. Both are handed to an interface, which the compiler takes for an escape: they must lie on
// the heap already if sum is not to put them there.
func (c *cmac) sum(mac *[aes.BlockSize]byte, msg []byte) {
	clear(mac[:])
	for ; len(msg) > aes.BlockSize; msg = msg[aes.BlockSize:] {
		xor(mac, (*[aes.BlockSize]byte)(msg))
		c.block.Encrypt(mac[:], mac[:])
	}
	if len(msg) == aes.BlockSize {
		xor(mac, (*[aes.BlockSize]byte)(msg))
		xor(mac, &c.k1)
	} else {
		for i, b := range msg {
			mac[i] ^= b
		}
		mac[len(msg)] ^= 0x80
		xor(mac, &c.k2)
	}
	c.block.Encrypt(mac[:], mac[:])
}

func xor(to, b *[aes.BlockSize]byte) {
	le := binary.LittleEndian
	le.PutUint64(to[:8], le.Uint64(to[:8])^le.Uint64(b[:8]))
	le.PutUint64(to[8:], le.Uint64(to[8:])^le.Uint64(b[8:]))
}
