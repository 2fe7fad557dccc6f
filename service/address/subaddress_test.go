package address_test

import (
	"testing"

	"optout/service/address"
)

func TestSubaddresses(t *testing.T) {
	for given, want := range map[string]struct {
		base  string
		known bool
	}{
		"ann+news@example.com":      {"ann@example.com", false},
		"Ann+a+b@GMAIL.com":         {"ann@gmail.com", true},
		"a.nn+x@googlemail.com":     {"a.nn@googlemail.com", true},
		"ann@example.com":           {},
		"+news@example.com":         {},
		`"ann smith+x"@example.com`: {},
		"jürgen+x@bücher.example":   {"jürgen@xn--bcher-kva.example", false},
	} {
		a, err := address.Parse(given)
		if err != nil {
			t.Fatal(err)
		}
		b, ok := a.Base()
		if ok != (want.base != "") || a.Tagged() != ok || a.BelongsToBase() != want.known {
			t.Errorf("%s: tagged %v, known %v", given, ok, a.BelongsToBase())
		}
		if ok {
			again, err := address.Parse(want.base)
			if err != nil || b.ConsentForm() != again.ConsentForm() || b.Domain() != again.Domain() || b.Canonical() != again.Canonical() {
				t.Errorf("%s: %s, want %s (%v)", given, b.ConsentForm(), want.base, err)
			}
		}
	}
}
