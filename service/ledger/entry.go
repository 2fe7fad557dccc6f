package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"optout/service/address"
)

// Kind says what happened. The numbers are part of the ledger's encoding and of the API; they are never reused.
type Kind uint8

// What people say, and what is found out about an address.
const (
	OptedOut           Kind = 1
	Subscribed         Kind = 2
	Confirmed          Kind = 3
	Complained         Kind = 4
	Undeliverable      Kind = 5
	Restricted         Kind = 6
	Under13            Kind = 7
	Erased             Kind = 8
	Paused             Kind = 9
	Resumed            Kind = 10
	Lifted             Kind = 11
	Voided             Kind = 12
	Undone             Kind = 13
	Joined             Kind = 14
	Unlinked           Kind = 15
	SentInSpite        Kind = 16
	WirelessAuthorized Kind = 17
	Withheld           Kind = 18
	Bounced            Kind = 19
	Queued             Kind = 20
	Decided            Kind = 21
)

// What is set up around them; these entries have no address key.
const (
	SenderCreated    Kind = 32
	SenderUpdated    Kind = 33
	TopicCreated     Kind = 34
	TopicUpdated     Kind = 35
	DomainBlocked    Kind = 36
	DomainUnblocked  Kind = 37
	WirelessListed   Kind = 38
	WirelessDelisted Kind = 39
	APIKeyCreated    Kind = 40
	APIKeyRevoked    Kind = 41
	SecretRegistered Kind = 42
	ImportCompleted  Kind = 43
	APIKeyUpdated    Kind = 44
)

// Channel is the way by which an entry came. The numbers are part of the encoding and of the API.
type Channel uint8

// Channels. ByImport, ByMail, ByFeedback and ByWebhook are machines' words and can be voided; the others are not.
const (
	ByOneClick Channel = 1
	ByPage     Channel = 2
	ByMailto   Channel = 3
	ByMail     Channel = 4
	ByAPI      Channel = 5
	ByImport   Channel = 6
	ByFeedback Channel = 7
	ByWebhook  Channel = 8
	BySystem   Channel = 9
)

// Voidable reports whether an entry that came this way may have been a machine's error (law 3).
func (c Channel) Voidable() bool {
	return c == ByImport || c == ByMail || c == ByFeedback || c == ByWebhook
}

// Flags of an entry.
const (
	// FlagLifts: a yes with full evidence, in time, express: it lifts the no of its own topic.
	FlagLifts uint16 = 1 << iota
	// FlagUndoable: an opt-out from a page; its person can undo it for UndoWindow.
	FlagUndoable
	// FlagSubaddresses: an opt-out from ALL that covers the sub-addresses of its mailbox too (RFC 5233): who writes from ann@ also
	// means the mail that comes to ann+news@.
	FlagSubaddresses
)

// Entry is one immutable line of the ledger. Times are UTC in unix milliseconds; 0 means none.
type Entry struct {
	// Position is the entry's number. It is not encoded: the tree binds it.
	Position uint64
	Kind     Kind
	Channel  Channel
	// Reason is the denial that was lifted or passed; 0 for other kinds.
	Reason Reason
	// Generation is the id of the address key and canonical rules that Key was made with; 0 without Key.
	Generation uint16
	Flags      uint16
	// At is when the ledger took it; never before an earlier entry's.
	At int64
	// Occurred is when it happened as the caller reported it.
	Occurred int64
	// Until is when a consent or pause ends, or when what waits in the queue decides itself.
	Until int64
	// Sender is the sender's number; 0 for entries about the whole installation.
	Sender uint32
	// Scope is the scope number of what it covers.
	Scope uint32
	// Mailing is the number in the link that was used.
	Mailing uint32
	// Actor is the number of the API key; 0 for recipients and the service itself.
	Actor uint32
	// Key is the suppression key of the address.
	Key address.Key
	// Consent is the consent key, where it differs from Key.
	Consent address.Key
	// Person is the keyed hash of the caller's person_id.
	Person address.Key
	// Prev is the previous entry with the same Key.
	Prev uint64
	// Ref is the entry that this one confirms, voids, undoes or decides, or the queued one that it comes of.
	Ref uint64
	// Request is the digest of the request_id.
	Request [16]byte
	// Personal is the SHA-256 of the entry's personal row, which begins with 16 random octets.
	Personal [32]byte
	// Detail holds what is not personal, by name.
	Detail map[string]string
}

// encodingVersion is the first octet of every entry. A new version gets a new number; old ones decode for ever.
const encodingVersion = 1

// Which optional fields follow the fixed part, in this order.
const (
	hasGeneration = 1 << iota
	hasFlags
	hasOccurred
	hasUntil
	hasSender
	hasScope
	hasMailing
	hasActor
	hasKey
	hasConsent
	hasPerson
	hasPrev
	hasRef
	hasRequest
	hasPersonal
	hasDetail
)

// AppendTo appends the entry's encoding: version, kind, channel and reason, an octet each; a 16-bit set of the fields
// present; At; then each field that is not zero, in fixed order, big endian. There is exactly one encoding of an entry.
func (e *Entry) AppendTo(b []byte) []byte {
	start := len(b)
	b = append(b, encodingVersion, byte(e.Kind), byte(e.Channel), byte(e.Reason), 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(e.At))
	var set uint16
	u16 := func(bit uint16, v uint16) {
		if v != 0 {
			set |= bit
			b = binary.BigEndian.AppendUint16(b, v)
		}
	}
	u32 := func(bit uint16, v uint32) {
		if v != 0 {
			set |= bit
			b = binary.BigEndian.AppendUint32(b, v)
		}
	}
	u64 := func(bit uint16, v uint64) {
		if v != 0 {
			set |= bit
			b = binary.BigEndian.AppendUint64(b, v)
		}
	}
	k16 := func(bit uint16, v *[16]byte) {
		if *v != [16]byte{} {
			set |= bit
			b = append(b, v[:]...)
		}
	}
	u16(hasGeneration, e.Generation)
	u16(hasFlags, e.Flags)
	u64(hasOccurred, uint64(e.Occurred))
	u64(hasUntil, uint64(e.Until))
	u32(hasSender, e.Sender)
	u32(hasScope, e.Scope)
	u32(hasMailing, e.Mailing)
	u32(hasActor, e.Actor)
	k16(hasKey, (*[16]byte)(&e.Key))
	k16(hasConsent, (*[16]byte)(&e.Consent))
	k16(hasPerson, (*[16]byte)(&e.Person))
	u64(hasPrev, e.Prev)
	u64(hasRef, e.Ref)
	k16(hasRequest, &e.Request)
	if e.Personal != [32]byte{} {
		set |= hasPersonal
		b = append(b, e.Personal[:]...)
	}
	if len(e.Detail) > 0 {
		set |= hasDetail
		// Marshal of a map of strings cannot fail and sorts its keys.
		d, _ := json.Marshal(e.Detail)
		b = binary.BigEndian.AppendUint32(b, uint32(len(d)))
		b = append(b, d...)
	}
	binary.BigEndian.PutUint16(b[start+4:], set)
	return b
}

// Decode reads an encoding into e, overwriting it. It refuses whatever AppendTo would not have written, octet for octet.
func (e *Entry) Decode(position uint64, b []byte) error {
	*e = Entry{Position: position}
	if len(b) < 14 || b[0] != encodingVersion {
		return fmt.Errorf("entry %d: unknown encoding", position)
	}
	e.Kind, e.Channel, e.Reason = Kind(b[1]), Channel(b[2]), Reason(b[3])
	set := binary.BigEndian.Uint16(b[4:])
	e.At = int64(binary.BigEndian.Uint64(b[6:]))
	r := reader{rest: b[14:]}
	u16 := func(bit uint16, v *uint16) {
		if set&bit != 0 {
			*v = binary.BigEndian.Uint16(r.next(2))
			r.nonzero(*v != 0)
		}
	}
	u32 := func(bit uint16, v *uint32) {
		if set&bit != 0 {
			*v = binary.BigEndian.Uint32(r.next(4))
			r.nonzero(*v != 0)
		}
	}
	u64 := func(bit uint16) uint64 {
		if set&bit == 0 {
			return 0
		}
		v := binary.BigEndian.Uint64(r.next(8))
		r.nonzero(v != 0)
		return v
	}
	k16 := func(bit uint16, v *[16]byte) {
		if set&bit != 0 {
			copy(v[:], r.next(16))
			r.nonzero(*v != [16]byte{})
		}
	}
	u16(hasGeneration, &e.Generation)
	u16(hasFlags, &e.Flags)
	e.Occurred = int64(u64(hasOccurred))
	e.Until = int64(u64(hasUntil))
	u32(hasSender, &e.Sender)
	u32(hasScope, &e.Scope)
	u32(hasMailing, &e.Mailing)
	u32(hasActor, &e.Actor)
	k16(hasKey, (*[16]byte)(&e.Key))
	k16(hasConsent, (*[16]byte)(&e.Consent))
	k16(hasPerson, (*[16]byte)(&e.Person))
	e.Prev = u64(hasPrev)
	e.Ref = u64(hasRef)
	k16(hasRequest, &e.Request)
	if set&hasPersonal != 0 {
		copy(e.Personal[:], r.next(32))
		r.nonzero(e.Personal != [32]byte{})
	}
	if set&hasDetail != 0 {
		if err := r.detail(e); err != nil {
			return fmt.Errorf("entry %d: %w", position, err)
		}
	}
	if r.bad || len(r.rest) != 0 {
		return fmt.Errorf("entry %d: malformed encoding", position)
	}
	return nil
}

// reader takes fields off an encoding. Past the end it yields zeros and turns bad.
type reader struct {
	rest []byte
	bad  bool
}

var zeros [32]byte

func (r *reader) next(n int) []byte {
	if len(r.rest) < n {
		r.bad, r.rest = true, nil
		return zeros[:n]
	}
	f := r.rest[:n]
	r.rest = r.rest[n:]
	return f
}

func (r *reader) nonzero(ok bool) {
	if !ok {
		r.bad = true
	}
}

func (r *reader) detail(e *Entry) error {
	n := binary.BigEndian.Uint32(r.next(4))
	if uint64(n) > uint64(len(r.rest)) {
		return fmt.Errorf("malformed encoding")
	}
	d := r.next(int(n))
	if err := json.Unmarshal(d, &e.Detail); err != nil {
		return fmt.Errorf("malformed detail")
	}
	again, _ := json.Marshal(e.Detail)
	if len(e.Detail) == 0 || string(again) != string(d) {
		return fmt.Errorf("malformed detail")
	}
	return nil
}

// LeafHash is the entry's leaf in the tree: SHA-256(0x00 || encoding) (RFC 6962 section 2.1).
func LeafHash(body []byte) Hash {
	var buf [256]byte
	return Hash(sha256.Sum256(append(append(buf[:0], 0), body...)))
}

// Equal reports whether two entries are the same.
func (e *Entry) Equal(o *Entry) bool {
	a, b := *e, *o
	if !maps.Equal(a.Detail, b.Detail) {
		return false
	}
	a.Detail, b.Detail = nil, nil
	return string(a.AppendTo(nil)) == string(b.AppendTo(nil)) && a.Position == b.Position
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Time turns unix milliseconds of an entry into a time in UTC; 0 is the zero time.
func Time(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
