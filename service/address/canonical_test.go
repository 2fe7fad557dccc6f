package address_test

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"optout/service/address"
)

// TestCanonical holds Parse against the table in testdata.
func TestCanonical(t *testing.T) {
	table, err := os.ReadFile("testdata/canonical.txt")
	if err != nil {
		t.Fatal(err)
	}
	right, wrong := 0, map[string]int{}
	for n, line := range strings.Split(string(table), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		given, rest := quoted(t, line)
		t.Run(strconv.Itoa(n+1), func(t *testing.T) {
			a, err := address.Parse(given)
			if fault, ok := strings.CutPrefix(rest, " !! "); ok {
				wrong[fault]++
				wantFault(t, given, a, err, fault)
				return
			}
			right++
			consent, rest := quoted(t, strings.TrimPrefix(rest, " => "))
			suppression := consent
			if rest != "" {
				suppression, _ = quoted(t, strings.TrimPrefix(rest, " | "))
			}
			if err != nil {
				t.Fatalf("Parse(%q): %v", given, err)
			}
			if a.Given() != given || a.ConsentForm() != consent || a.Canonical() != suppression {
				t.Errorf("Parse(%q):\ngiven       %q\nconsent     %q, want %q\nsuppression %q, want %q",
					given, a.Given(), a.ConsentForm(), consent, a.Canonical(), suppression)
			}
			if want := consent[strings.LastIndexByte(consent, '@')+1:]; a.Domain() != want || string(a.DomainBytes()) != want {
				t.Errorf("Parse(%q): domain %q and %q, want %q", given, a.Domain(), a.DomainBytes(), want)
			}
		})
	}
	if right < 60 {
		t.Errorf("%d right addresses, want at least 60", right)
	}
	for f := address.Fault(1); f.String() != address.Fault(0).String(); f++ {
		if wrong[f.String()] == 0 {
			t.Errorf("no wrong address shows %s", f)
		}
	}
}

func wantFault(t *testing.T, given string, a address.Address, err error, fault string) {
	t.Helper()
	if err == nil {
		t.Fatalf("Parse(%q) = %q, want %s", given, a.Canonical(), fault)
	}
	if a != (address.Address{}) {
		t.Errorf("Parse(%q): an address besides the error", given)
	}
	var e *address.Error
	if !errors.As(err, &e) || e.Fault.String() != fault {
		t.Fatalf("Parse(%q): %v, want %s", given, err, fault)
	}
	if e.Problem == "" || e.Remedy == "" {
		t.Errorf("%s: problem %q, remedy %q", fault, e.Problem, e.Remedy)
	}
}

// quoted takes a quoted string off the front of a line.
func quoted(t *testing.T, line string) (s, rest string) {
	t.Helper()
	q, err := strconv.QuotedPrefix(line)
	if err == nil {
		s, err = strconv.Unquote(q)
	}
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return s, line[len(q):]
}

// TestDistinct: those whom careless folding takes for one another are different people (T14), and what T15 lets pass is not.
func TestDistinct(t *testing.T) {
	for _, pair := range [][2]string{
		{"kim@example.com", "\u212aim@example.com"}, // Kelvin sign
		{"sam@example.com", "\u017fam@example.com"}, // long s
		{"ian@example.com", "\u0130an@example.com"}, // capital I with dot
		{"ian@example.com", "i\u0307an@example.com"},
		{"ian@example.com", "\u0131an@example.com"}, // dotless i
		{"jo@example.com", "\uff4a\uff4f@example.com"},
		{"fin@example.com", "\ufb01n@example.com"},
		{"jo@fass.de", "jo@faß.de"},
		{"jo@fass.de", "jo@FAẞ.DE"},
		{"jo@example.com", "jo+news@example.com"},
		{"jo@example.com", `" jo"@example.com`},
		{"jo@example.com", "j.o@example.com"},
	} {
		a, err := address.Parse(pair[0])
		if err != nil {
			t.Fatal(err)
		}
		// A refused address meets nobody.
		if b, err := address.Parse(pair[1]); err == nil && a.Canonical() == b.Canonical() {
			t.Errorf("%+q and %+q have one canonical form, %+q", pair[0], pair[1], a.Canonical())
		}
	}
}
