package standing

import "encoding/binary"

// arena holds the values of one shard that do not fit into a slot, in blocks of a few sizes; freed blocks are chained by size.
// It has no pointers, so the garbage collector does not look at it.
type arena struct {
	octets []byte
	free   [sizeClasses]uint32 // offset/8+1 of the first free block of a size; 0 for none
}

// ref names a block.
type ref struct {
	offset uint64
	class  uint8
	length uint32 // octets in use; 0 for no block
}

const sizeClasses = 32

// sizeOf is how large the blocks of a class are: 16, 24, 32, 48, 64, 96, … so that at most a third is slack.
func sizeOf(class uint8) int {
	return (16 + int(class&1)*8) << (class >> 1)
}

func classFor(length int) uint8 {
	c := uint8(0)
	for sizeOf(c) < length {
		c++
	}
	return c
}

func refPayload(r ref) (p payload) {
	binary.LittleEndian.PutUint16(p[:], classBlock)
	put40(p[2:], r.offset)
	p[7] = r.class
	binary.LittleEndian.PutUint32(p[8:], r.length)
	return p
}

func block(p *payload) ref {
	return ref{get40(p[2:]), p[7], binary.LittleEndian.Uint32(p[8:])}
}

func put40(b []byte, v uint64) {
	binary.LittleEndian.PutUint32(b, uint32(v))
	b[4] = byte(v >> 32)
}

func get40(b []byte) uint64 {
	return uint64(binary.LittleEndian.Uint32(b)) | uint64(b[4])<<32
}

func (a *arena) at(r ref) []byte { return a.octets[r.offset : r.offset+uint64(r.length)] }

// prepare returns a larger copy of the arena's memory when a value of this length needs one, so that the copying is done
// before readers are made to wait; nil otherwise.
func (a *arena) prepare(length int, old ref) []byte {
	c := classFor(length)
	if old.length != 0 && old.class == c || a.free[c] != 0 || len(a.octets)+sizeOf(c) <= cap(a.octets) {
		return nil
	}
	larger := make([]byte, len(a.octets), (len(a.octets)+sizeOf(c))*9/8)
	copy(larger, a.octets)
	return larger
}

// put writes a value over its old block if that is of the right size, else into another one.
func (a *arena) put(value []byte, old ref) ref {
	c := classFor(len(value))
	r := ref{old.offset, c, uint32(len(value))}
	if old.length == 0 || old.class != c {
		if old.length != 0 {
			a.release(old)
		}
		r.offset = a.take(c)
	}
	copy(a.octets[r.offset:], value)
	return r
}

func (a *arena) take(class uint8) uint64 {
	if head := a.free[class]; head != 0 {
		at := uint64(head-1) * 8 // every size is a multiple of 8
		a.free[class] = binary.LittleEndian.Uint32(a.octets[at:])
		return at
	}
	at := len(a.octets)
	a.octets = a.octets[:at+sizeOf(class)]
	return uint64(at)
}

func (a *arena) release(r ref) {
	binary.LittleEndian.PutUint32(a.octets[r.offset:], a.free[r.class])
	a.free[r.class] = uint32(r.offset/8) + 1
}
