package receipt

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var seed = bytes.Repeat([]byte{7}, 32)

func pair(t testing.TB) (*Signer, *Verifier) {
	t.Helper()
	s, err := NewSigner(3, seed)
	if err != nil {
		t.Fatal(err)
	}
	return s, NewVerifier(map[byte]ed25519.PublicKey{3: s.Public()})
}

// A receipt of the first version verifies for ever.
func TestGolden(t *testing.T) {
	const golden = "AQMAAAABAAAAA2FiY2RlZmdoaWprbG1ub3AAAAAAAAAABwHJQGBUXAmZJOyjZ6vCH_2gilhaKQjLyrhgrbSbLz9azEDZK3fwPYa892vpc87fV5H3wTxz-I8k7RPk1jCQcKJdL_EI"
	want := Claims{Sender: 1, Topic: 3, Key: [16]byte([]byte("abcdefghijklmnop")), Position: 7, Minute: 29966432}
	s, v := pair(t)
	if got := s.Sign(want); got != golden {
		t.Errorf("signed %s", got)
	}
	if c, err := v.Verify(golden); err != nil || c != want {
		t.Errorf("%+v %v", c, err)
	}
}

// What is signed verifies and says the same, folded anywhere; any other octet, key or spelling does not.
func TestReceipts(t *testing.T) {
	s, v := pair(t)
	other, err := NewSigner(3, bytes.Repeat([]byte{8}, 32))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		c := Claims{rapid.Uint32().Draw(t, "sender"), rapid.Uint32().Draw(t, "topic"), [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key")),
			rapid.Uint64().Draw(t, "position"), rapid.Uint32().Draw(t, "minute")}
		text := s.Sign(c)
		if len(text) != Length {
			t.Fatalf("%d characters", len(text))
		}
		at := rapid.IntRange(0, Length).Draw(t, "fold")
		if got, err := v.Verify(text[:at] + "\r\n " + text[at:]); err != nil || got != c {
			t.Fatalf("%+v %v", got, err)
		}
		i := rapid.IntRange(0, Length-1).Draw(t, "flip")
		swap := byte('A')
		if text[i] == 'A' {
			swap = 'B'
		}
		if _, err := v.Verify(text[:i] + string(swap) + text[i+1:]); err == nil {
			t.Fatal("an altered receipt verifies")
		}
		for _, bad := range []string{text + "A", text[1:], text + "=", other.Sign(c), strings.ToUpper(text)} {
			if _, err := v.Verify(bad); err == nil && bad != text {
				t.Fatalf("%s verifies", bad)
			}
		}
	})
	for _, id := range []byte{0, 3} {
		if _, err := NewSigner(id, seed[:31]); err == nil {
			t.Error("a short seed")
		}
	}
}

// The key of several recipients depends on who they are, not on their order, and of one is theirs.
func TestJoinKeys(t *testing.T) {
	a, b, c := [16]byte{1}, [16]byte{2}, [16]byte{3}
	if JoinKeys([][16]byte{a}) != a || JoinKeys([][16]byte{a, a}) != a {
		t.Error("one recipient")
	}
	if JoinKeys([][16]byte{a, b}) != JoinKeys([][16]byte{b, a, b}) || JoinKeys([][16]byte{a, b}) == JoinKeys([][16]byte{a, c}) || JoinKeys([][16]byte{a, b}) == JoinKeys([][16]byte{a, b, c}) {
		t.Error("several recipients")
	}
}

// Whatever comes, reading ends, and takes only the one spelling of what a signer could have made.
func FuzzParse(f *testing.F) {
	s, err := NewSigner(3, seed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Sign(Claims{}))
	f.Add("")
	f.Add(strings.Repeat("A", Length))
	v := NewVerifier(map[byte]ed25519.PublicKey{3: s.Public()})
	f.Fuzz(func(t *testing.T, text string) {
		c, id, err := Parse(text)
		if got, bad := v.Verify(text); bad == nil && (err != nil || got != c || id != 3 || strings.Join(strings.Fields(text), "") != s.Sign(c)) {
			t.Fatalf("%q verifies as %+v", text, got)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	s, _ := pair(b)
	for b.Loop() {
		s.Sign(Claims{Position: 1})
	}
}
