// Package ledgertest holds what tests of the ledger and of its stores share: the conformance suite that every store passes, and
// helpers. It may import testing and everything the core may; only tests import it.
package ledgertest

import (
	"context"
	"crypto/sha256"
	"errors"
	"regexp"
	"testing"

	"optout/service/ledger"
)

// StoreSuite is what every store must pass. open makes a new, empty store. reopen closes a store and opens the same data
// again. restored opens the folder that a Backup was written to. All stores are closed by the suite.
func StoreSuite(t *testing.T, open func(t *testing.T) ledger.Store, reopen func(t *testing.T, s ledger.Store) ledger.Store, restored func(t *testing.T, dir string) ledger.Store) {
	s := suite{open, reopen, restored}
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"New", s.newStore},
		{"Kept", s.kept},
		{"NothingOfTheCallers", s.nothingOfTheCallers},
		{"Refused", s.refused},
		{"RequestIDsArePerSender", s.requestIDs},
		{"ScanRanges", s.scanRanges},
		{"ScanAnyRange", s.scanAnyRange},
		{"ScanEndsEarly", s.scanEndsEarly},
		{"CallbacksMayRead", s.callbacksMayRead},
		{"ReadsDuringWrites", s.readsDuringWrites},
		{"Contexts", s.contexts},
		{"BackupWhileWriting", s.backupWhileWriting},
		{"BackupCancelled", s.backupCancelled},
	} {
		t.Run(test.name, test.run)
	}
}

type suite struct {
	open     func(t *testing.T) ledger.Store
	reopen   func(t *testing.T, s ledger.Store) ledger.Store
	restored func(t *testing.T, dir string) ledger.Store
}

func closeStore(t *testing.T, s ledger.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// A new store has an identity of its own, an empty tree, and nothing to read.
func (su suite) newStore(t *testing.T) {
	ctx := context.Background()
	s, other := su.open(t), su.open(t)
	defer closeStore(t, other)
	tip, err := s.Tip(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(tip.LedgerID) {
		t.Errorf("the ledger's identity is %q, want 16 hexadecimal digits", tip.LedgerID)
	}
	if tip.Head != (ledger.Head{Root: sha256.Sum256(nil)}) || len(tip.Edge) != 0 {
		t.Errorf("the tip of a new store is %+v, want the empty tree", tip)
	}
	if o, err := other.Tip(ctx); err != nil || o.LedgerID == tip.LedgerID {
		t.Errorf("another new store has the identity %q too (%v)", o.LedgerID, err)
	}
	if err := s.Writable(); err != nil {
		t.Errorf("Writable: %v", err)
	}
	newChain(1).check(t, s)
	s = su.reopen(t, s)
	defer closeStore(t, s)
	if again, err := s.Tip(ctx); err != nil || again.LedgerID != tip.LedgerID {
		t.Errorf("the identity was %q and is %q after reopening (%v)", tip.LedgerID, again.LedgerID, err)
	}
}

// Whatever Append acknowledged is there, at once and after reopening, and the ledger goes on from it.
func (su suite) kept(t *testing.T) {
	s, c := su.open(t), newChain(2)
	sizes := []struct{ records, personal, requests int }{
		{1, 0, 0}, {1, 1, 1}, {0, 0, 3}, {2, 2, 0}, {17, 5, 40}, {256, 0, 256}, {1, 0, 0}, {5000, 700, 300}, {3, 3, 3}, {0, 0, 1},
	}
	for i, n := range sizes {
		c.append(t, s, n.records, n.personal, n.requests)
		if i == 4 {
			c.check(t, s)
		}
	}
	c.check(t, s)
	s = su.reopen(t, s)
	c.check(t, s)
	c.append(t, s, 300, 30, 30)
	c.check(t, s)
	s = su.reopen(t, s)
	defer closeStore(t, s)
	c.check(t, s)
}

// Append neither keeps nor changes the slices it is given.
func (su suite) nothingOfTheCallers(t *testing.T) {
	s, c := su.open(t), newChain(3)
	defer closeStore(t, s)
	for range 3 {
		commit := c.next(20, 20, 20)
		before := clone(commit)
		if err := s.Append(context.Background(), commit); err != nil {
			t.Fatal(err)
		}
		if !equal(commit, before) {
			t.Fatal("Append changed the commit")
		}
		c.accept(before)
		for i := range commit.Records {
			clear(commit.Records[i].Body)
		}
		for i := range commit.Personal {
			clear(commit.Personal[i].Body)
		}
		clear(commit.Edge)
		clear(commit.Records)
	}
	c.check(t, s)
}

// A commit that does not continue the ledger is refused and leaves no trace.
func (su suite) refused(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(*ledger.Commit, *chain)
	}{
		{"a gap before it", func(c *ledger.Commit, _ *chain) {
			for i := range c.Records {
				c.Records[i].Position++
			}
			c.Head.Size++
		}},
		{"a gap within it", func(c *ledger.Commit, _ *chain) { c.Records[5].Position++ }},
		{"positions out of order", func(c *ledger.Commit, _ *chain) {
			c.Records[2].Position, c.Records[3].Position = c.Records[3].Position, c.Records[2].Position
		}},
		{"positions that are taken", func(c *ledger.Commit, m *chain) {
			for i := range c.Records {
				c.Records[i].Position -= 2
			}
			c.Head.Size -= 2
		}},
		{"a position twice", func(c *ledger.Commit, _ *chain) { c.Records[4].Position = c.Records[3].Position }},
		{"a head of another size", func(c *ledger.Commit, _ *chain) { c.Head.Size++ }},
		{"an edge of another size", func(c *ledger.Commit, _ *chain) { c.Edge = append(c.Edge, ledger.Hash{}) }},
		{"another head without records", func(c *ledger.Commit, m *chain) {
			c.Records, c.Personal, c.Head.Size, c.Edge = nil, nil, m.tip.Head.Size, m.tip.Edge
		}},
		{"a personal row of an earlier entry", func(c *ledger.Commit, m *chain) { c.Personal[0].Position = m.tip.Head.Size }},
		{"a personal row of no entry", func(c *ledger.Commit, m *chain) { c.Personal[0].Position = c.Head.Size + 1 }},
		{"a request id that is taken", func(c *ledger.Commit, m *chain) {
			c.Requests[4].Sender, c.Requests[4].ID = m.requests[2].Sender, m.requests[2].ID
		}},
		{"a request id twice", func(c *ledger.Commit, _ *chain) { c.Requests[4] = c.Requests[3] }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, c := su.open(t), newChain(4)
			c.append(t, s, 9, 4, 5)
			bad := clone(c.next(6, 6, 6))
			test.spoil(bad, c)
			err := s.Append(context.Background(), bad)
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, sentinel := range []error{ledger.ErrNotFound, ledger.ErrStorageFull, ledger.ErrStorageUnavailable} {
				if errors.Is(err, sentinel) {
					t.Errorf("it was refused with %q, which promises that the same may work later", err)
				}
			}
			c.check(t, s)
			s = su.reopen(t, s)
			defer closeStore(t, s)
			c.check(t, s)
			c.append(t, s, 6, 6, 6)
			c.check(t, s)
		})
	}
}

// The same id of two senders is two requests.
func (su suite) requestIDs(t *testing.T) {
	s, c := su.open(t), newChain(5)
	defer closeStore(t, s)
	c.append(t, s, 1, 0, 1)
	other := c.next(1, 0, 1)
	other.Requests[0].ID, other.Requests[0].Sender = c.requests[0].ID, c.requests[0].Sender+1
	if err := s.Append(context.Background(), other); err != nil {
		t.Fatal(err)
	}
	c.accept(other)
	c.check(t, s)
}
