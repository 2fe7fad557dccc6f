package standing

import (
	"bytes"
	"encoding/binary"
	"sync"
)

// Key is an address key or person key: the output of a PRF, so its octets are uniformly random and place it without hashing.
type Key = [16]byte

const (
	shardBits   = 12
	shardCount  = 1 << shardBits
	keyOctets   = 15 // of the key in a slot: the first octet is implied by the shard
	slotOctets  = keyOctets + payloadOctets
	firstSlots  = 8
	maxLoadNum  = 9 // a shard grows when it is more than 9/10 full, by an eighth: between 0.80 and 0.90 full, 0.85 on average
	maxLoadDen  = 10
	growthShift = 3

	// payloadOctets: 2 for the class, then 10 for what the class says.
	payloadOctets = 12
	classEmpty    = 0
	// classBlock: the payload names a block of the shard's arena: offset (5 octets), size class (1), length (4).
	classBlock = 0xffff
)

// payload is the value part of a slot.
type payload [payloadOctets]byte

func (p *payload) class() uint16 { return binary.LittleEndian.Uint16(p[:]) }

// slots is a hash table without pointers inside: 27 octets a key, and an arena for values that do not fit. One goroutine
// writes at a time; any number read.
type slots struct {
	shards [shardCount]shard
}

type shard struct {
	mu    sync.RWMutex
	slots []byte // open addressing, Robin Hood
	used  int
	arena arena
}

func shardOf(key *Key) int { return int(binary.BigEndian.Uint16(key[:]) >> (16 - shardBits)) }

// home is the slot where the search for a key begins: octets that the shard does not depend on, scaled to the number of
// slots, which need not be a power of two.
func home(key []byte, count int) int {
	return int(uint64(binary.LittleEndian.Uint32(key[keyOctets-4:])) * uint64(count) >> 32)
}

// find returns the index of the key's slot. Slots stand in the order of Robin Hood hashing: none is farther from its home than
// one that wanted its place, so the search for a key that is not there ends early, and most keys asked about are not there.
func find(table []byte, key *Key) (at int, ok bool) {
	count := len(table) / slotOctets
	if count == 0 {
		return 0, false
	}
	tail := key[1:]
	first := binary.LittleEndian.Uint64(tail)
	i := home(tail, count)
	for distance := 0; ; distance++ {
		s := table[i*slotOctets : i*slotOctets+slotOctets]
		if binary.LittleEndian.Uint16(s[keyOctets:]) == classEmpty {
			return 0, false
		}
		if binary.LittleEndian.Uint64(s) == first && bytes.Equal(s[:keyOctets], tail) {
			return i, true
		}
		if displaced(s, i, count) < distance {
			return 0, false
		}
		if i++; i == count {
			i = 0
		}
	}
}

// displaced is how far a slot stands from its home.
func displaced(slot []byte, at, count int) int {
	d := at - home(slot[:keyOctets], count)
	if d < 0 {
		d += count
	}
	return d
}

// insert puts a new slot in, moving on those that are nearer to their homes. There must be an empty one.
func insert(table []byte, slot [slotOctets]byte) {
	count := len(table) / slotOctets
	i := home(slot[:keyOctets], count)
	for distance := 0; ; distance++ {
		s := table[i*slotOctets : i*slotOctets+slotOctets]
		if binary.LittleEndian.Uint16(s[keyOctets:]) == classEmpty {
			copy(s, slot[:])
			return
		}
		if d := displaced(s, i, count); d < distance {
			slot, distance = swap(s, slot), d
		}
		if i++; i == count {
			i = 0
		}
	}
}

func swap(s []byte, slot [slotOctets]byte) (was [slotOctets]byte) {
	copy(was[:], s)
	copy(s, slot[:])
	return was
}

// get copies a key's value: the payload, and the block that it names, appended to buf.
func (t *slots) get(key *Key, buf []byte) (payload, []byte, bool) {
	s := &t.shards[shardOf(key)]
	var p payload
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, ok := find(s.slots, key)
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
	if (s.used+1)*maxLoadDen > len(s.slots)/slotOctets*maxLoadNum {
		s.grow()
	}
	i, ok := find(s.slots, key) // only writers change slots, and this is the one writer
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
	if ok {
		copy(s.slots[i*slotOctets+keyOctets:], p[:])
		return false
	}
	var slot [slotOctets]byte
	copy(slot[:], key[1:])
	copy(slot[keyOctets:], p[:])
	insert(s.slots, slot)
	s.used++
	return true
}

// grow makes the shard's table larger: the new one is built beside the old, readers wait only for the swap.
func (s *shard) grow() {
	count := len(s.slots) / slotOctets
	next := max(firstSlots, count+count>>growthShift+1)
	table := make([]byte, next*slotOctets)
	for i := 0; i < count; i++ {
		slot := s.slots[i*slotOctets : (i+1)*slotOctets]
		if binary.LittleEndian.Uint16(slot[keyOctets:]) == classEmpty {
			continue
		}
		insert(table, [slotOctets]byte(slot))
	}
	s.mu.Lock()
	s.slots = table
	s.mu.Unlock()
}

// octets is the memory held.
func (t *slots) octets() (n int64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		n += int64(cap(s.slots) + cap(s.arena.octets))
		s.mu.RUnlock()
	}
	const perShard = 160
	return n + shardCount*perShard
}
