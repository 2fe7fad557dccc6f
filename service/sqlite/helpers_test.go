package sqlite

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"optout/service/ledger"
	"optout/service/ledgertest"
)

// grower makes commits that continue one another. Their leaves are true; their tree hashes, which the store does not look at,
// are not.
type grower struct {
	size   uint64
	random *rand.Rand
}

func newGrower() *grower { return &grower{random: rand.New(rand.NewPCG(1, 2))} }

// resume makes a grower that continues s.
func resume(t testing.TB, s *Store) *grower {
	t.Helper()
	tip, err := s.Tip(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return &grower{size: tip.Head.Size, random: rand.New(rand.NewPCG(tip.Head.Size, 3))}
}

// commit makes a commit of n records with bodies of 75 octets that tell their position.
func (g *grower) commit(n, requests int) *ledger.Commit {
	c := &ledger.Commit{}
	for i := range n {
		body := make([]byte, 75)
		binary.BigEndian.PutUint64(body, g.size+uint64(i)+1)
		for k := 8; k < len(body); k++ {
			body[k] = byte(g.random.Uint32())
		}
		leaf := ledger.LeafHash(body)
		c.Records = append(c.Records, ledger.Record{Position: g.size + uint64(i) + 1, Body: body, Leaf: binary.BigEndian.Uint64(leaf[:])})
	}
	c.Head = headOf(g.size + uint64(n))
	for x := c.Head.Size; x > 0; x &= x - 1 {
		c.Edge = append(c.Edge, ledger.Hash{byte(x)})
	}
	for range requests {
		r := ledger.RequestRow{Sender: 1, Position: c.Head.Size}
		binary.BigEndian.PutUint64(r.ID[:], g.random.Uint64())
		c.Requests = append(c.Requests, r)
	}
	return c
}

func headOf(size uint64) ledger.Head {
	return ledger.Head{Size: size, Root: sha256.Sum256(fmt.Append(nil, size))}
}

// append has s take a commit; after an error the next commit begins at the same position.
func (g *grower) append(s *Store, n int) error {
	err := s.Append(context.Background(), g.commit(n, 0))
	if err == nil {
		g.size += uint64(n)
	}
	return err
}

func (g *grower) mustAppend(t testing.TB, s *Store, n int) {
	t.Helper()
	if err := g.append(s, n); err != nil {
		t.Fatal(err)
	}
}

func openAt(t testing.TB, path string) *Store {
	t.Helper()
	return openWith(t, path, Options{})
}

func openWith(t testing.TB, path string, o Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// fits reads the whole ledger and returns how many entries it has, or the first thing about it that does not fit.
func fits(s *Store) (uint64, error) {
	ctx := context.Background()
	tip, err := s.Tip(ctx)
	if err != nil {
		return 0, err
	}
	if tip.Head.Size > 0 && tip.Head != headOf(tip.Head.Size) {
		return 0, fmt.Errorf("the tip of size %d has another root", tip.Head.Size)
	}
	next := uint64(1)
	err = s.Scan(ctx, 1, tip.Head.Size+1, func(r ledger.Record) error {
		leaf := ledger.LeafHash(r.Body)
		switch {
		case r.Position != next:
			return fmt.Errorf("entry %d is missing", next)
		case r.Leaf != binary.BigEndian.Uint64(leaf[:]) || binary.BigEndian.Uint64(r.Body) != next:
			return fmt.Errorf("entry %d does not fit", next)
		}
		next++
		return nil
	})
	if err == nil && next != tip.Head.Size+1 {
		err = errors.New("the scan and the tip differ")
	}
	newest := uint64(0)
	if e := s.Heads(ctx, 1, tip.Head.Size, func(h ledger.Head) error {
		if newest = h.Size; h != headOf(h.Size) {
			return fmt.Errorf("head %d does not fit", h.Size)
		}
		return nil
	}); err == nil {
		err = e
	}
	if err == nil && newest != tip.Head.Size {
		err = errors.New("the newest head and the tip differ")
	}
	return tip.Head.Size, err
}

// smallDisk mounts a file system of some MiB.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	err := unix.Mkdir(dir, 0o700)
	if err == nil {
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib))
	}
	ledgertest.Require(t, fmt.Sprintf("mounting a small file system needs root (%v)", err), err == nil)
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
