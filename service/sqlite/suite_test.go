package sqlite

import (
	"path/filepath"
	"testing"

	"optout/service/ledger"
	"optout/service/ledgertest"
)

func TestStore(t *testing.T) {
	ledgertest.StoreSuite(t,
		func(t *testing.T) ledger.Store { return openAt(t, filepath.Join(t.TempDir(), "optout.db")) },
		func(t *testing.T, s ledger.Store) ledger.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return openAt(t, s.(*Store).path)
		},
		func(t *testing.T, dir string) ledger.Store { return openAt(t, filepath.Join(dir, "optout.db")) })
}
