package ledgertest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"optout/service/ledger"
)

// chain makes commits of random octets that continue one another, with the true tree, and knows what a store that took them
// must hold.
type chain struct {
	random   *rand.Rand
	records  []ledger.Record
	personal []ledger.PersonalRow
	requests []ledger.RequestRow
	// committed is, for each of requests, the size of the tree that its commit made.
	committed []uint64
	heads     []ledger.Head
	tip       ledger.Tip // but for the identity
}

func newChain(seed uint64) *chain {
	c := &chain{random: rand.New(rand.NewPCG(seed, 0))}
	c.tip.Head.Root = root(nil)
	return c
}

// next makes the next commit, without taking it into the chain.
func (c *chain) next(records, personal, requests int) *ledger.Commit {
	commit := &ledger.Commit{Head: c.tip.Head, Edge: slices.Clone(c.tip.Edge)}
	for i := range records {
		body := c.octets(75)
		switch {
		case i%50 == 7:
			body = c.octets(c.random.IntN(400))
		case i == 99:
			body = c.octets(100_000)
		}
		leaf := ledger.LeafHash(body)
		commit.Edge = extend(commit.Edge, commit.Head.Size, leaf)
		commit.Head.Size++
		commit.Records = append(commit.Records, ledger.Record{Position: commit.Head.Size, Body: body, Leaf: binary.BigEndian.Uint64(leaf[:])})
	}
	if records > 0 {
		commit.Head.Root = root(commit.Edge)
	}
	for i := range personal {
		commit.Personal = append(commit.Personal, ledger.PersonalRow{Position: commit.Records[i].Position, Body: c.octets(1 + c.random.IntN(300))})
	}
	for range requests {
		r := ledger.RequestRow{Sender: c.random.Uint32(), Position: c.random.Uint64N(commit.Head.Size + 1)}
		copy(r.ID[:], c.octets(16))
		copy(r.Content[:], c.octets(16))
		commit.Requests = append(commit.Requests, r)
	}
	return commit
}

// accept takes a commit into the chain.
func (c *chain) accept(commit *ledger.Commit) {
	commit = clone(commit)
	c.records = append(c.records, commit.Records...)
	c.personal = append(c.personal, commit.Personal...)
	for _, r := range commit.Requests {
		c.requests, c.committed = append(c.requests, r), append(c.committed, commit.Head.Size)
	}
	if len(commit.Records) > 0 {
		c.heads = append(c.heads, commit.Head)
	}
	c.tip.Head, c.tip.Edge = commit.Head, commit.Edge
}

// append makes the next commit and has s take it.
func (c *chain) append(t rapid.TB, s ledger.Store, records, personal, requests int) {
	t.Helper()
	if err := c.tryAppend(s, records, personal, requests); err != nil {
		t.Fatalf("Append of %d records, %d personal rows, %d requests: %v", records, personal, requests, err)
	}
}

func (c *chain) tryAppend(s ledger.Store, records, personal, requests int) error {
	commit := c.next(records, personal, requests)
	err := s.Append(context.Background(), commit)
	if err == nil {
		c.accept(commit)
	}
	return err
}

// cut returns the chain as it was at an earlier tip.
func (c *chain) cut(size uint64) *chain {
	past := &chain{random: c.random, records: c.records[:size]}
	for _, p := range c.personal {
		if p.Position <= size {
			past.personal = append(past.personal, p)
		}
	}
	for i, r := range c.requests {
		if c.committed[i] <= size {
			past.requests, past.committed = append(past.requests, r), append(past.committed, c.committed[i])
		}
	}
	for i, r := range c.records[:size] {
		past.tip.Edge = extend(past.tip.Edge, uint64(i), ledger.LeafHash(r.Body))
	}
	past.tip.Head = ledger.Head{Size: size, Root: root(past.tip.Edge)}
	for _, h := range c.heads {
		if h.Size <= size {
			past.heads = append(past.heads, h)
		}
	}
	return past
}

// check compares everything that s can be asked with the chain.
func (c *chain) check(t rapid.TB, s ledger.Store) {
	t.Helper()
	ctx := context.Background()
	tip, err := s.Tip(ctx)
	if err != nil {
		t.Fatalf("Tip: %v", err)
	}
	if tip.Head != c.tip.Head || !slices.Equal(tip.Edge, c.tip.Edge) {
		t.Errorf("the tip is %+v, want %+v", tip, c.tip)
	}
	last := c.tip.Head.Size
	sameRecords(t, scan(t, s, 1, last+10), c.records)
	down := slices.Clone(c.records)
	slices.Reverse(down)
	sameRecords(t, scan(t, s, last+10, 1), down)
	for i := 0; i < len(c.records); i += 1 + len(c.records)/50 {
		if got, err := s.Get(ctx, uint64(i)+1); err != nil || !sameRecord(got, c.records[i]) {
			t.Errorf("Get(%d) is another record (%v)", i+1, err)
		}
	}
	var people []ledger.PersonalRow
	err = s.ScanPersonal(ctx, 1, last+10, func(p ledger.PersonalRow) error {
		people = append(people, ledger.PersonalRow{Position: p.Position, Body: bytes.Clone(p.Body)})
		return nil
	})
	if err != nil || !reflect.DeepEqual(people, c.personal) {
		t.Errorf("ScanPersonal gave %d rows, want %d, or other ones (%v)", len(people), len(c.personal), err)
	}
	for i := 0; i < len(c.personal); i += 1 + len(c.personal)/50 {
		if got, err := s.Personal(ctx, c.personal[i].Position); err != nil || !bytes.Equal(got, c.personal[i].Body) {
			t.Errorf("Personal(%d) is another row (%v)", c.personal[i].Position, err)
		}
	}
	for _, r := range c.requests {
		if got, err := s.Request(ctx, r.Sender, r.ID); err != nil || got != r {
			t.Errorf("Request gave %+v, want %+v (%v)", got, r, err)
		}
	}
	var heads []ledger.Head
	if err := s.Heads(ctx, 1, last+10, func(h ledger.Head) error { heads = append(heads, h); return nil }); err != nil || !slices.Equal(heads, c.heads) {
		t.Errorf("Heads gave %d, want %d, or other ones (%v)", len(heads), len(c.heads), err)
	}
	c.checkAbsent(t, s)
}

// checkAbsent asks for what is not there.
func (c *chain) checkAbsent(t rapid.TB, s ledger.Store) {
	t.Helper()
	ctx := context.Background()
	for _, position := range []uint64{0, c.tip.Head.Size + 1, 1 << 62, 1 << 63, 1<<64 - 1} {
		if _, err := s.Get(ctx, position); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("Get(%d): %v, want ErrNotFound", position, err)
		}
		if _, err := s.Personal(ctx, position); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("Personal(%d): %v, want ErrNotFound", position, err)
		}
	}
	if len(c.personal) < len(c.records) {
		has := map[uint64]bool{}
		for _, p := range c.personal {
			has[p.Position] = true
		}
		for i := range c.records {
			if p := uint64(i) + 1; !has[p] {
				if _, err := s.Personal(ctx, p); !errors.Is(err, ledger.ErrNotFound) {
					t.Errorf("Personal(%d): %v, want ErrNotFound", p, err)
				}
				break
			}
		}
	}
	if _, err := s.Request(ctx, 1, [16]byte{1}); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("Request of an unknown id: %v, want ErrNotFound", err)
	}
	if got := scan(t, s, c.tip.Head.Size+1, 1<<64-1); len(got) > 0 {
		t.Errorf("%d records lie beyond the tip", len(got))
	}
	beyond := func(what string, err error) {
		if err != nil {
			t.Errorf("%s beyond the tip: %v", what, err)
		}
	}
	beyond("Heads", s.Heads(ctx, c.tip.Head.Size+1, 1<<64-1, func(ledger.Head) error { return errors.New("there is one") }))
	beyond("ScanPersonal", s.ScanPersonal(ctx, c.tip.Head.Size+1, 1<<64-1, func(ledger.PersonalRow) error { return errors.New("there is one") }))
}

// scan returns copies of the records of a range.
func scan(t rapid.TB, s ledger.Store, first, last uint64) []ledger.Record {
	t.Helper()
	var all []ledger.Record
	err := s.Scan(context.Background(), first, last, func(r ledger.Record) error {
		all = append(all, ledger.Record{Position: r.Position, Body: bytes.Clone(r.Body), Leaf: r.Leaf})
		return nil
	})
	if err != nil {
		t.Fatalf("Scan(%d, %d): %v", first, last, err)
	}
	return all
}

func sameRecords(t rapid.TB, got, want []ledger.Record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range got {
		if !sameRecord(got[i], want[i]) {
			t.Fatalf("record %d of the scan is that of position %d or was changed, want that of position %d", i, got[i].Position, want[i].Position)
		}
	}
}

func sameRecord(a, b ledger.Record) bool {
	return a.Position == b.Position && a.Leaf == b.Leaf && bytes.Equal(a.Body, b.Body)
}

func clone(c *ledger.Commit) *ledger.Commit {
	d := &ledger.Commit{Records: slices.Clone(c.Records), Personal: slices.Clone(c.Personal), Requests: slices.Clone(c.Requests), Head: c.Head, Edge: slices.Clone(c.Edge)}
	for i := range d.Records {
		d.Records[i].Body = bytes.Clone(d.Records[i].Body)
	}
	for i := range d.Personal {
		d.Personal[i].Body = bytes.Clone(d.Personal[i].Body)
	}
	return d
}

func equal(a, b *ledger.Commit) bool { return reflect.DeepEqual(a, b) }

func (c *chain) octets(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(c.random.Uint32())
	}
	return b
}

// extend adds a leaf to the complete subtrees of a tree of size leaves (RFC 6962 section 2.1).
func extend(edge []ledger.Hash, size uint64, leaf ledger.Hash) []ledger.Hash {
	for ; size&1 == 1; size >>= 1 {
		leaf = ledger.Hash(tlog.NodeHash(tlog.Hash(edge[len(edge)-1]), tlog.Hash(leaf)))
		edge = edge[:len(edge)-1]
	}
	return append(edge, leaf)
}

func root(edge []ledger.Hash) ledger.Hash {
	if len(edge) == 0 {
		empty, _ := tlog.TreeHash(0, nil) // of no leaves: reads nothing
		return ledger.Hash(empty)
	}
	h := edge[len(edge)-1]
	for _, left := range slices.Backward(edge[:len(edge)-1]) {
		h = ledger.Hash(tlog.NodeHash(tlog.Hash(left), tlog.Hash(h)))
	}
	return h
}
