package standing

import (
	"encoding/binary"
	"sync"
	"unsafe"
)

// Key is an address key or person key: the output of a PRF, so its octets are uniformly random and place it without hashing.
type Key = [16]byte

const (
	shardBits   = 12
	shardCount  = 1 << shardBits
	keyOctets   = 14 // of the key in a slot: octet 0 is implied by the shard, octet 2 is the tag
	slotOctets  = keyOctets + payloadOctets
	firstSlots  = 8
	maxLoadNum  = 9 // a shard grows when it is more than 9/10 full, by an eighth: between 0.80 and 0.90 full, 0.85 on average
	maxLoadDen  = 10
	growthShift = 3

	// payloadOctets: 2 for the class, then 10 for what the class says.
	payloadOctets = 12
	// classBlock: the payload names a block of the shard's arena: offset (5 octets), size class (1), length (4).
	classBlock = 0xffff
)

// payload is the value part of a slot.
type payload [payloadOctets]byte

func (p *payload) class() uint16 { return binary.LittleEndian.Uint16(p[:]) }

// slots is a hash table without pointers inside: 27 octets a key, and an arena for values that do not fit. One goroutine
// writes at a time; any number read.
//
// One octet of each key stands apart, in a row of tags, so that the search for a key that is not there (most keys asked about
// are not) reads a run of neighbouring octets and seldom a slot.
type slots struct {
	shards [shardCount]shard
}

type shard struct {
	mu    sync.RWMutex
	tags  []byte // an octet of each slot's key, never 0; 0 marks an empty slot
	slots []byte // open addressing, linear probing
	used  int
	arena arena
}

func shardOf(key *Key) int { return int(binary.BigEndian.Uint16(key[:]) >> (16 - shardBits)) }

// home is the slot where the search for a key begins: octets that the shard does not depend on, scaled to the number of
// slots, which need not be a power of two.
func home(lastOctets []byte, count int) int {
	return int(uint64(binary.LittleEndian.Uint32(lastOctets)) * uint64(count) >> 32)
}

// pack divides a key into its tag and what its slot holds. A tag cannot be 0, so a flag, in bits that the shard implies, tells
// a key octet of 0 from one of 1.
func pack(key *Key) (tag byte, stored [keyOctets]byte) {
	stored[0] = key[1] & 0x0f
	copy(stored[1:], key[3:])
	if tag = key[2]; tag == 0 {
		tag = 1
		stored[0] |= 0x10
	}
	return tag, stored
}

// find returns the index of the key's slot, or of the empty one where it would go.
func (s *shard) find(tag byte, stored *[keyOctets]byte) (at int, ok bool) {
	count := len(s.tags)
	if count == 0 {
		return 0, false
	}
	low, high := binary.LittleEndian.Uint64(stored[:]), binary.LittleEndian.Uint64(stored[keyOctets-8:])
	for i := home(stored[keyOctets-4:], count); ; {
		switch s.tags[i] {
		case tag:
			slot := s.slots[i*slotOctets : i*slotOctets+keyOctets]
			if binary.LittleEndian.Uint64(slot) == low && binary.LittleEndian.Uint64(slot[keyOctets-8:]) == high {
				return i, true
			}
		case 0:
			return i, false
		}
		if i++; i == count {
			i = 0
		}
	}
}

// get copies a key's value: the payload, and the block that it names, appended to buf.
func (t *slots) get(key *Key, buf []byte) (payload, []byte, bool) {
	s := &t.shards[shardOf(key)]
	tag, stored := pack(key)
	var p payload
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, ok := s.find(tag, &stored)
	if !ok {
		return p, buf, false
	}
	copy(p[:], s.slots[i*slotOctets+keyOctets:])
	if p.class() == classBlock {
		buf = append(buf, s.arena.at(block(&p))...)
	}
	return p, buf, true
}

// set gives a key a payload that stands for itself, or, when block is not nil, a block. Readers see the old value or the new.
func (t *slots) set(key *Key, p payload, value []byte) (added bool) {
	s := &t.shards[shardOf(key)]
	if (s.used+1)*maxLoadDen > len(s.tags)*maxLoadNum {
		s.grow()
	}
	tag, stored := pack(key)
	i, ok := s.find(tag, &stored) // only writers change slots, and this is the one writer
	var old ref
	if ok {
		var was payload
		copy(was[:], s.slots[i*slotOctets+keyOctets:])
		if was.class() == classBlock {
			old = block(&was)
		}
	}
	var larger []byte
	if value != nil {
		larger = s.arena.prepare(len(value), old)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if larger != nil {
		s.arena.octets = larger
	}
	if value != nil {
		p = refPayload(s.arena.put(value, old))
	} else if old.length != 0 {
		s.arena.release(old)
	}
	copy(s.slots[i*slotOctets+keyOctets:], p[:])
	if ok {
		return false
	}
	copy(s.slots[i*slotOctets:], stored[:])
	s.tags[i] = tag
	s.used++
	return true
}

// grow makes the shard's table larger: the new one is built beside the old, readers wait only for the swap.
func (s *shard) grow() {
	count := len(s.tags)
	next := max(firstSlots, count+count>>growthShift+1)
	tags, table := make([]byte, next), make([]byte, next*slotOctets)
	for i, tag := range s.tags {
		if tag == 0 {
			continue
		}
		slot := s.slots[i*slotOctets : (i+1)*slotOctets]
		j := home(slot[keyOctets-4:], next)
		for tags[j] != 0 {
			if j++; j == next {
				j = 0
			}
		}
		tags[j] = tag
		copy(table[j*slotOctets:], slot)
	}
	s.mu.Lock()
	s.tags, s.slots = tags, table
	s.mu.Unlock()
}

// octets is the memory held.
func (t *slots) octets() (n int64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		n += int64(cap(s.tags) + cap(s.slots) + cap(s.arena.octets))
		s.mu.RUnlock()
	}
	const perShard = int64(unsafe.Sizeof(shard{}))
	return n + shardCount*perShard
}
