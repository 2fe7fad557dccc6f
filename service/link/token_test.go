package link

import (
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func testRing(t testing.TB) *Ring {
	t.Helper()
	r, err := NewRing(2, Key{ID: 1, Secret: [32]byte{1}}, Key{ID: 2, Secret: [32]byte{2}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var sample = Token{Purpose: Unsubscribe, Scope: 3, Mailing: 77, Key: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}}

func TestRoundTrip(t *testing.T) {
	r := testRing(t)
	rapid.Check(t, func(t *rapid.T) {
		want := Token{Purpose: Purpose(rapid.Uint8Range(1, purposes-1).Draw(t, "purpose")), KeyID: 2, Scope: rapid.Uint32().Draw(t, "scope"), Mailing: rapid.Uint32().Draw(t, "mailing")}
		copy(want.Key[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key"))
		s := r.Seal(want)
		if len("u-"+s) > 64 || strings.Trim(s, spelling) != "" {
			t.Fatalf("%q does not fit a local part", s)
		}
		for _, spelt := range []string{s, strings.ToUpper(s), strings.ToUpper(s[:20]) + s[20:]} {
			if got, err := r.Open(spelt, want.Purpose); err != nil || got != want {
				t.Fatalf("%+v became %+v, %v", want, got, err)
			}
		}
		for p := Purpose(0); p < 16; p++ {
			if _, err := r.Open(s, p); p != want.Purpose && err != ErrInvalid {
				t.Fatalf("a token of purpose %d opens as %d", want.Purpose, p)
			}
		}
	})
}

// Tokens of today must open for ever: they lie in people's mailboxes.
func TestGoldenTokens(t *testing.T) {
	b, err := os.ReadFile("testdata/tokens-v1.txt")
	if err != nil {
		t.Fatal(err)
	}
	r := testRing(t)
	old, err := NewRing(1, Key{ID: 1, Secret: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(b))
	if len(lines) != 2*(purposes-1) {
		t.Fatalf("%d golden tokens", len(lines))
	}
	for p := Purpose(1); p < purposes; p++ {
		want := sample
		want.Purpose = p
		for i, signer := range []*Ring{old, r} {
			golden := lines[2*int(p-1)+i]
			want.KeyID = signer.Current()
			if got, err := r.Open(golden, p); err != nil || got != want {
				t.Errorf("golden token %s: %+v, %v", golden, got, err)
			}
			if got := signer.Seal(want); got != golden {
				t.Errorf("purpose %d with key %d is now %s, was %s", p, want.KeyID, got, golden)
			}
		}
	}
}

// Whatever is done to a token, it no longer opens.
func TestAlteredTokens(t *testing.T) {
	r := testRing(t)
	s := r.Seal(sample)
	refuse := func(altered string) {
		t.Helper()
		if altered == s {
			return
		}
		if _, err := r.Open(altered, Unsubscribe); err != ErrInvalid {
			t.Errorf("%q opens: %v", altered, err)
		}
	}
	for i := range s {
		for _, c := range []byte(spelling + "018-_=+/. \r\n\x00é") {
			refuse(s[:i] + string(c) + s[i+1:])
		}
		refuse(s[:i] + s[i+1:])
		refuse(s[:i])
		refuse(s[:i] + "\n" + s[i:])
		refuse(s[:i] + "\r\n" + s[i+1:])
	}
	refuse(s + "a")
	refuse(s + "=")
	refuse(s + "===")
	refuse(" " + s)
	refuse("")
	var raw [Size]byte
	if !decode(&raw, s) {
		t.Fatal("does not decode")
	}
	for bit := range Size * 8 {
		flipped := raw
		flipped[bit/8] ^= 1 << (bit % 8)
		refuse(string(encode(nil, &flipped)))
	}
}

func TestOtherRings(t *testing.T) {
	r := testRing(t)
	s := r.Seal(sample)
	for name, keys := range map[string][]Key{
		"another secret": {{ID: 2, Secret: [32]byte{9}}},
		"another id":     {{ID: 3, Secret: [32]byte{2}}},
		"key missing":    {{ID: 1, Secret: [32]byte{1}}},
	} {
		other, err := NewRing(keys[0].ID, keys...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Open(s, Unsubscribe); err != ErrInvalid {
			t.Errorf("%s: opens", name)
		}
	}
	rotated, err := NewRing(3, Key{ID: 2, Secret: [32]byte{2}}, Key{ID: 3, Secret: [32]byte{3}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rotated.Open(s, Unsubscribe); err != nil {
		t.Error("a token of an older key does not open after rotation")
	}
	for name, bad := range map[string][]Key{"id 0": {{ID: 0, Secret: [32]byte{1}}}, "twice": {{ID: 1, Secret: [32]byte{1}}, {ID: 1, Secret: [32]byte{2}}},
		"current missing": {{ID: 5, Secret: [32]byte{1}}}, "zero secret": {{ID: 1}}} {
		if _, err := NewRing(1, bad...); err == nil {
			t.Errorf("%s: a ring was made", name)
		}
	}
}

// What opens is spelt in exactly one way.
func FuzzOpen(f *testing.F) {
	r, err := NewRing(1, Key{ID: 1, Secret: [32]byte{1}})
	if err != nil {
		f.Fatal(err)
	}
	s := r.Seal(sample)
	f.Add(s, uint8(1))
	f.Add(strings.ToUpper(s), uint8(1))
	f.Add(s[:60]+"\n", uint8(5))
	f.Fuzz(func(t *testing.T, s string, want uint8) {
		if tok, err := r.Open(s, Purpose(want)); err == nil && r.Seal(tok) != strings.ToLower(s) {
			t.Fatalf("%q opens and is spelt %q", s, r.Seal(tok))
		}
	})
}

func TestNoAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("under the race detector sync.Pool forgets on purpose")
	}
	r := testRing(t)
	buf := make([]byte, 0, Length)
	s := r.Seal(sample)
	if n := testing.AllocsPerRun(100, func() { buf = r.Append(buf[:0], sample) }); n != 0 {
		t.Errorf("Append allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { r.Open(s, Unsubscribe) }); n != 0 {
		t.Errorf("Open allocates %v times", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	r := testRing(b)
	buf := make([]byte, 0, Length)
	b.ReportAllocs()
	for b.Loop() {
		buf = r.Append(buf[:0], sample)
	}
}

func BenchmarkOpen(b *testing.B) {
	r := testRing(b)
	s := r.Seal(sample)
	b.ReportAllocs()
	for b.Loop() {
		r.Open(s, Unsubscribe)
	}
}
