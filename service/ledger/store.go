package ledger

import (
	"context"
	"errors"
)

// Hash is a node or leaf of the ledger's Merkle tree (RFC 6962 section 2.1).
type Hash [32]byte

// Record is an entry as a store keeps it.
type Record struct {
	// Position is the entry's number, from 1, without gaps.
	Position uint64
	// Body is the entry's encoding ([Entry.AppendTo]), the very octets that the leaf hash covers.
	Body []byte
	// Leaf is the first 8 octets of the leaf hash, big endian: it tells which entry of a damaged commit is the bad one.
	Leaf uint64
}

// PersonalRow is what the ledger knows of a person in clear because of one entry. It lies apart, so that it can be destroyed;
// the entry keeps a salted digest of it.
type PersonalRow struct {
	Position uint64
	Body     []byte
}

// RequestRow remembers a request_id for ever.
type RequestRow struct {
	// Sender is the number of the sender within which the id is unique.
	Sender uint32
	// ID is a digest of the caller's request_id.
	ID [16]byte
	// Content is a digest of what was asked, to tell a retry from a reuse.
	Content [16]byte
	// Position is the entry that the request wrote or found in force; 0 when it needed none.
	Position uint64
}

// Head is a Merkle tree head: the tree of the first Size entries has the root Root.
type Head struct {
	Size uint64
	Root Hash
}

// Tip is the newest committed state of a store.
type Tip struct {
	// LedgerID is the ledger's identity: 16 hexadecimal digits, made at random when the store was created, never changed.
	LedgerID string
	Head     Head
	// Edge holds the roots of the complete subtrees that make up the tree, largest first: all that is needed to extend it.
	Edge []Hash
}

// Commit is what one transaction adds. The store must not keep or change its slices after Append returns.
type Commit struct {
	// Records continue the ledger: the first has position Tip.Head.Size+1. May be empty when only Requests are added.
	Records []Record
	// Personal belongs to some of Records.
	Personal []PersonalRow
	// Requests are new ids.
	Requests []RequestRow
	// Head and Edge are those of the tree after Records. With no Records they equal the ones before.
	Head Head
	Edge []Hash
}

// Errors that a store returns. Any error that is none of these means that the outcome of a write is unknown and that the
// store can no longer be trusted to write: the ledger stops acknowledging (law 4).
var (
	// ErrNotFound: no such record, personal row, request or head.
	ErrNotFound = errors.New("not found")
	// ErrStorageFull: there is no space; nothing of the transaction is kept and reading goes on. Writing may succeed later.
	ErrStorageFull = errors.New("storage is full")
	// ErrStorageUnavailable: the store cannot be reached now; the outcome of a write is unknown.
	ErrStorageUnavailable = errors.New("storage is unavailable")
)

// Store keeps a ledger durably. It is written by one goroutine at a time and read by many. Every method returns the
// context's error when the context ends first, except Append, which is carried through once it has begun.
type Store interface {
	// Tip returns the newest committed state. Errors: ErrStorageUnavailable.
	Tip(ctx context.Context) (Tip, error)

	// Append commits everything in c atomically. When it returns nil, all of it is on disk (fsync) and every later read
	// sees it. Errors: ErrStorageFull (nothing is kept), ErrStorageUnavailable (unknown), anything else (unknown, and the
	// store is to be opened anew). A c that does not continue the tip, or repeats a request id, is such an error.
	Append(ctx context.Context, c *Commit) error

	// Scan calls fn for every record from position first to position last, both included, in order; downwards when
	// first > last. The record's Body is valid only during the call. An error from fn ends the scan and is returned.
	// Positions that are missing are passed over: the caller must count. Errors: ErrStorageUnavailable.
	Scan(ctx context.Context, first, last uint64, fn func(Record) error) error

	// Get returns one record. Errors: ErrNotFound, ErrStorageUnavailable.
	Get(ctx context.Context, position uint64) (Record, error)

	// Personal returns the personal row of an entry. Errors: ErrNotFound (it had none, or it was destroyed),
	// ErrStorageUnavailable.
	Personal(ctx context.Context, position uint64) ([]byte, error)

	// ScanPersonal calls fn for every personal row from position first to last, in order. Body is valid only during the
	// call. Errors: ErrStorageUnavailable.
	ScanPersonal(ctx context.Context, first, last uint64, fn func(PersonalRow) error) error

	// Request returns the row of a request id. Errors: ErrNotFound, ErrStorageUnavailable.
	Request(ctx context.Context, sender uint32, id [16]byte) (RequestRow, error)

	// Heads calls fn for every head that was committed with a size from first to last, in order: one for each Append that
	// had records. Errors: ErrStorageUnavailable.
	Heads(ctx context.Context, first, last uint64, fn func(Head) error) error

	// Writable returns nil, or ErrStorageFull while free space is below the store's watermark, so that writes are refused
	// before the disk really is full. It is cheap.
	Writable() error

	// Backup writes a consistent copy of the whole store, as of one moment, into the folder dir, which exists and is empty,
	// while reads and writes go on. progress, if not nil, is told how far it is, in the store's own units. The copy is
	// durable when Backup returns nil. It returns the tip of the copy. Errors: ErrStorageFull (of dir), others.
	Backup(ctx context.Context, dir string, progress func(copied, total uint64)) (Tip, error)

	// Close releases the store. Nothing else may be called after it.
	Close() error
}
