package service_test

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed says which of our packages each package may import, tests aside: adapters know the core and never
// each other; the core knows none of them; client knows only proto; service wires. A package that is not here fails the test:
// say first which room it is.
var allowed = map[string][]string{
	"optout/proto/optout/v1": {},

	// The core.
	"optout/service/address":    {},
	"optout/service/standing":   {},
	"optout/service/ledger":     {"optout/service/address", "optout/service/standing"},
	"optout/service/link":       {},
	"optout/service/keydir":     {},
	"optout/service/report":     {"optout/service/link"},
	"optout/service/words":      {"optout/service/link"},
	"optout/service/receipt":    {},
	"optout/service/provider":   {},
	"optout/service/secretfile": {},

	// Adapters.
	"optout/service/hooks":  {"optout/service/address", "optout/service/ledger", "optout/service/provider", "optout/service/secretfile"},
	"optout/service/anchor": {"optout/service/ledger"},
	"optout/service/sqlite": {"optout/service/ledger"},
	"optout/service/rpc":    {"optout/proto/optout/v1", "optout/service/ledger", "optout/service/link", "optout/service/address", "optout/service/receipt"},
	"optout/service/web":    {"optout/service/ledger", "optout/service/link", "optout/service/address"},
	"optout/service/mailin": {},
	"optout/service/intake": {"optout/service/ledger", "optout/service/link", "optout/service/report", "optout/service/words", "optout/service/mailauth", "optout/service/mailin"},

	"optout/service/imapin":   {"optout/service/secretfile"},
	"optout/service/mailauth": {"optout/service/address"},

	"optout/service/outgoing": {"optout/service/ledger", "optout/service/link", "optout/service/secretfile"},
	"optout/service/mailgate": {"optout/service/ledger", "optout/service/outgoing"},
	"optout/service/milter":   {"optout/service/ledger", "optout/service/outgoing"},

	// What tests of stores and adapters share.
	"optout/service/providertest": {},
	"optout/service/mailtest":     {"optout/service/ledgertest"},
	"optout/service/ledgertest":   {"optout/service/ledger", "optout/service/address", "optout/service/standing"},

	// Where the parts meet.
	"optout/service": {"optout/service/address", "optout/service/anchor", "optout/service/hooks", "optout/service/imapin", "optout/service/intake", "optout/service/keydir", "optout/service/ledger", "optout/service/link",
		"optout/service/mailauth", "optout/service/mailgate", "optout/service/mailin", "optout/service/milter", "optout/service/outgoing", "optout/service/provider", "optout/service/receipt", "optout/service/rpc", "optout/service/secretfile", "optout/service/sqlite", "optout/service/web"},

	"optout/client":                     {"optout/proto/optout/v1"},
	"optout/client/clienttest":          {"optout/client", "optout/proto/optout/v1", "optout/service"},
	"optout/cmd/optout":                 {"optout/cmd/optout/internal/cli"},
	"optout/cmd/optout/internal/probe":  {},
	"optout/cmd/optout/internal/doctor": {},
	"optout/cmd/optout/internal/cli": {"optout/cmd/optout/internal/doctor", "optout/cmd/optout/internal/probe", "optout/client", "optout/proto/optout/v1", "optout/service", "optout/service/ledger", "optout/service/receipt",
		"optout/cmd/optout/internal/mailbox", "optout/cmd/optout/internal/sentmail"},
	"optout/cmd/optout/internal/mailbox":  {},
	"optout/cmd/optout/internal/sentmail": {"optout/cmd/optout/internal/mailbox"},
}

// foreign says which modules the core must not know: no transport, no SQL.
var foreign = map[string][]string{
	"optout/service/ledger":   {"google.golang.org/", "net/http", "database/sql", "github.com/"},
	"optout/service/address":  {"google.golang.org/", "net/http", "database/sql", "github.com/"},
	"optout/service/standing": {"google.golang.org/", "net/http", "database/sql", "github.com/", "golang.org/"},
	"optout/service/link":     {"google.golang.org/", "net/http", "database/sql", "github.com/"},
	"optout/service/receipt":  {"google.golang.org/", "net/http", "database/sql", "github.com/", "golang.org/"},
}

func TestArrows(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "optout/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		may, known := allowed[p.ImportPath]
		if !known {
			t.Errorf("%s has no place among the arrows: add it to this test", p.ImportPath)
			continue
		}
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "optout/") && !slices.Contains(may, i) {
				t.Errorf("%s must not import %s", p.ImportPath, i)
			}
			for _, f := range foreign[p.ImportPath] {
				if strings.HasPrefix(i, f) {
					t.Errorf("%s must not import %s: the core knows no transport and no store", p.ImportPath, i)
				}
			}
		}
	}
}
