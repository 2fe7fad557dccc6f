package address_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"optout/service/address"
)

// keyring makes a keyring of generations 1 to n.
func keyring(t testing.TB, n int) *address.Keyring {
	t.Helper()
	gens := make([]address.Generation, n)
	for i := range gens {
		gens[i] = address.Generation{ID: uint16(i + 1), Secret: [32]byte{byte(i + 1)}, Rules: 1}
	}
	return mustKeyring(t, gens...)
}

func mustKeyring(t testing.TB, gens ...address.Generation) *address.Keyring {
	t.Helper()
	k, err := address.NewKeyring(gens...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustParse(t testing.TB, s string) *address.Address {
	t.Helper()
	a, err := address.Parse(s)
	if err != nil {
		t.Fatalf("Parse(%q): %v", s, err)
	}
	return &a
}

// TestGoldenKeys holds the PRF, its keys and its frame against keys that were computed elsewhere.
func TestGoldenKeys(t *testing.T) {
	table, err := os.ReadFile("testdata/keys.txt")
	if err != nil {
		t.Fatal(err)
	}
	var gens []address.Generation
	var both *address.Keyring
	alone := map[uint16]*address.Keyring{}
	lines := 0
	for line := range strings.Lines(string(table)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		lines++
		var gen uint16
		var sender uint32
		kind, rest, _ := strings.Cut(line, " ")
		scan := func(format string, to ...any) {
			if _, err := fmt.Sscanf(rest, format, to...); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
		switch kind {
		case "secret":
			var secret []byte
			scan("%d %x", &gen, &secret)
			g := address.Generation{ID: gen, Secret: [32]byte(secret), Rules: 1}
			gens = append(gens, g)
			both, alone[gen] = mustKeyring(t, gens...), mustKeyring(t, g)
		case "check":
			var want []byte
			scan("%d %x", &gen, &want)
			if got, ok := both.CheckValue(gen); !ok || !slices.Equal(got[:], want) {
				t.Errorf("%s: got %x, %v", line, got, ok)
			}
		case "address":
			var given string
			var suppression, consent []byte
			scan("%d %d %q %x %x", &gen, &sender, &given, &suppression, &consent)
			var keys, only address.Keys
			both.Keys(sender, mustParse(t, given), &keys)
			alone[gen].Keys(sender, mustParse(t, given), &only)
			got := keys.Of[2-gen] // newest first
			if got != only.Of[0] || keys.N != 2 || only.N != 1 {
				t.Errorf("%s: a keyring of both says %v, one of its own %v", line, got, only.Of[0])
			}
			differs := !slices.Equal(suppression, consent)
			want := address.GenerationKeys{Generation: gen, Suppression: address.Key(suppression), Consent: address.Key(consent), ConsentDiffers: differs}
			if got != want {
				t.Errorf("%s: got %v", line, got)
			}
		case "person":
			var id string
			var want []byte
			scan("%d %d %q %x", &gen, &sender, &id, &want)
			if got, err := alone[gen].Person(sender, id); err != nil || got != address.Key(want) {
				t.Errorf("%s: got %v, %v", line, got, err)
			}
			if newest, _ := both.Person(sender, id); gen == 2 != (newest == address.Key(want)) {
				t.Errorf("%s: a keyring of both says %v", line, newest)
			}
		default:
			t.Fatalf("%s: what is that?", line)
		}
	}
	if lines < 40 {
		t.Errorf("%d lines, want at least 40", lines)
	}
}

func TestNewKeyring(t *testing.T) {
	one, two := [32]byte{1}, [32]byte{2}
	for _, c := range []struct {
		name string
		gens []address.Generation
		want string
	}{
		{"none", nil, "1 to 4"},
		{"too many", make([]address.Generation, 5), "1 to 4"},
		{"id 0", []address.Generation{{Secret: one, Rules: 1}}, "id 0"},
		{"no rules", []address.Generation{{ID: 1, Secret: one}}, "version 0"},
		{"rules to come", []address.Generation{{ID: 1, Secret: one, Rules: 2}}, "version 2"},
		{"no secret", []address.Generation{{ID: 1, Rules: 1}}, "zeros"},
		{"same id", []address.Generation{{ID: 1, Secret: one, Rules: 1}, {ID: 1, Secret: two, Rules: 1}}, "twice"},
		{"same secret", []address.Generation{{ID: 1, Secret: one, Rules: 1}, {ID: 2, Secret: one, Rules: 1}}, "same secret"},
	} {
		if _, err := address.NewKeyring(c.gens...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error that says %q", c.name, err, c.want)
		}
	}
}

// TestNewestFirst: whatever the order in which generations come, the highest id is current and comes first.
func TestNewestFirst(t *testing.T) {
	k := mustKeyring(t,
		address.Generation{ID: 7, Secret: [32]byte{7}, Rules: 1},
		address.Generation{ID: 300, Secret: [32]byte{3}, Rules: 1},
		address.Generation{ID: 9, Secret: [32]byte{9}, Rules: 1})
	if k.Current() != 300 {
		t.Errorf("current is %d, want 300", k.Current())
	}
	keys := address.Keys{N: 4, Of: [4]address.GenerationKeys{3: {Generation: 5}}}
	k.Keys(1, mustParse(t, "j.o@gmail.com"), &keys)
	if keys.N != 3 || keys.Of[0].Generation != 300 || keys.Of[1].Generation != 9 || keys.Of[2].Generation != 7 {
		t.Errorf("got %v, want generations 300, 9, 7", keys)
	}
	if keys.Of[3] != (address.GenerationKeys{}) {
		t.Error("what was in Keys before is still there")
	}
	seen := map[address.Key]bool{}
	for _, g := range keys.Of[:keys.N] {
		seen[g.Suppression], seen[g.Consent] = true, true
	}
	if len(seen) != 6 {
		t.Errorf("%d distinct keys, want 6", len(seen))
	}
	if _, ok := k.CheckValue(8); ok {
		t.Error("a check value of a generation that is not there")
	}
}

// TestKeysOfNothing: a forgotten error must not end in a key that nobody said no with.
func TestKeysOfNothing(t *testing.T) {
	for name, call := range map[string]func(*address.Keys){
		"zero address": func(out *address.Keys) { keyring(t, 1).Keys(1, new(address.Address), out) },
		"zero keyring": func(out *address.Keys) { new(address.Keyring).Keys(1, mustParse(t, "jo@example.com"), out) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call(new(address.Keys))
		}()
	}
}

func TestPerson(t *testing.T) {
	k := keyring(t, 2)
	for name, id := range map[string]string{
		"empty":    "",
		"too long": strings.Repeat("x", 257),
		"lines":    "secret-id\n",
		"NUL":      "secret-id\x00",
		"C1":       "secret-id\u0085",
		"no UTF-8": "secret-id\xff",
	} {
		key, err := k.Person(1, id)
		var e *address.Error
		if !errors.As(err, &e) || e.Fault == 0 || !key.IsZero() || !strings.Contains(err.Error(), "person_id") || strings.Contains(err.Error(), "secret-id") {
			t.Errorf("%s: %v, %v", name, key, err)
		}
	}
	seen := map[address.Key]string{}
	for sender := range uint32(3) {
		for _, id := range []string{"jo@example.com", "Jo@example.com", " ", strings.Repeat("x", 256), strings.Repeat("x", 255)} {
			key, err := k.Person(sender, id)
			if err != nil || key.IsZero() || seen[key] != "" {
				t.Errorf("sender %d, %q: %v, %v; the key of %q", sender, id, key, err, seen[key])
			}
			seen[key] = id
		}
		var keys address.Keys
		k.Keys(sender, mustParse(t, "jo@example.com"), &keys)
		if seen[keys.Of[0].Suppression] != "" {
			t.Error("a person and an address have one key")
		}
	}
}

// TestConcurrentKeys is for the race detector, and for scratch space that is shared by mistake.
func TestConcurrentKeys(t *testing.T) {
	k := keyring(t, 2)
	var wg sync.WaitGroup
	for w := range 4 {
		a := mustParse(t, fmt.Sprintf("j.o.%d@gmail.com", w))
		var want address.Keys
		k.Keys(uint32(w), a, &want)
		person, err := k.Person(uint32(w), a.Given())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range 500 {
				var got address.Keys
				k.Keys(uint32(w), a, &got)
				if p, err := k.Person(uint32(w), a.Given()); got != want || p != person || err != nil {
					t.Errorf("worker %d: keys changed", w)
					return
				}
			}
		})
	}
	wg.Wait()
}
