package receipt_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"optout/service/receipt"
)

func signer(t testing.TB, id byte, seed string) (*receipt.Signer, *receipt.Verifier) {
	t.Helper()
	s, err := receipt.NewSigner(id, []byte(seed+strings.Repeat(".", 32-len(seed))))
	if err != nil {
		t.Fatal(err)
	}
	v, err := receipt.NewVerifier(map[byte]ed25519.PublicKey{id: s.Public()})
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func anyClaims(t *rapid.T) receipt.Claims {
	return receipt.Claims{Sender: rapid.Uint32().Draw(t, "sender"), Topic: rapid.Uint32().Draw(t, "topic"), Position: rapid.Uint64().Draw(t, "position"),
		Minute: rapid.Uint32().Draw(t, "minute"), Key: [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key"))}
}

// What is signed is parsed and verified to the same claims, folded anywhere in any way; and any bit that differs is noticed.
func TestSignVerify(t *testing.T) {
	s, v := signer(t, 7, "seed")
	rapid.Check(t, func(t *rapid.T) {
		want := anyClaims(t)
		text := s.Sign(want)
		if len(text) != receipt.Length {
			t.Fatalf("%d characters", len(text))
		}
		at := rapid.IntRange(0, len(text)).Draw(t, "fold at")
		folded := text[:at] + rapid.SampledFrom([]string{"", "\r\n ", "\n\t", " "}).Draw(t, "fold") + text[at:]
		if c, id, err := receipt.Parse(folded); err != nil || id != 7 || c != want {
			t.Fatalf("parsed %+v of key %d, %v", c, id, err)
		}
		if c, err := v.Verify(folded); err != nil || c != want {
			t.Fatalf("verified %+v, %v", c, err)
		}
		raw, _ := base64.RawURLEncoding.DecodeString(text)
		bit := rapid.IntRange(0, 8*len(raw)-1).Draw(t, "bit")
		raw[bit/8] ^= 1 << (bit % 8)
		if c, err := v.Verify(base64.RawURLEncoding.EncodeToString(raw)); err == nil || c != (receipt.Claims{}) {
			t.Fatalf("bit %d flipped, and it verifies as %+v, %v", bit, c, err)
		}
	})
}

func TestErrors(t *testing.T) {
	s, v := signer(t, 1, "ours")
	stranger, _ := signer(t, 2, "theirs")
	sameID, _ := signer(t, 1, "theirs")
	good := s.Sign(receipt.Claims{Sender: 1, Topic: 2})
	std := strings.NewReplacer("-", "+", "_", "/").Replace(s.Sign(receipt.Claims{Key: [16]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}))
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"empty":            {"", receipt.ErrMalformed},
		"short":            {good[1:], receipt.ErrMalformed},
		"long":             {good + "A", receipt.ErrMalformed},
		"padded":           {good + "=", receipt.ErrMalformed},
		"standard base64":  {std, receipt.ErrMalformed},
		"version 0":        {"AA" + good[2:], receipt.ErrMalformed},
		"version 2":        {"Ag" + good[2:], receipt.ErrMalformed},
		"key 0":            {"AQAA" + good[4:], receipt.ErrMalformed},
		"a comment":        {good + " (checked)", receipt.ErrMalformed},
		"unknown key":      {stranger.Sign(receipt.Claims{}), receipt.ErrUnknownKey},
		"another's key":    {sameID.Sign(receipt.Claims{}), receipt.ErrForged},
		"another's claims": {s.Sign(receipt.Claims{Topic: 9})[:48] + good[48:], receipt.ErrForged},
	} {
		if _, err := v.Verify(c.text); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for _, bad := range []struct {
		id   byte
		seed []byte
	}{{0, make([]byte, 32)}, {1, make([]byte, 31)}, {1, nil}} {
		if _, err := receipt.NewSigner(bad.id, bad.seed); err == nil {
			t.Errorf("a signer of key %d with %d octets was made", bad.id, len(bad.seed))
		}
	}
	if shown := fmt.Sprintf("%v %+v %#v %x", s, s, s, s); strings.Contains(shown, "ours") || strings.Contains(shown, hex.EncodeToString([]byte("ours"))) {
		t.Errorf("a signer shows its key: %s", shown)
	}
}

func TestJoinKeys(t *testing.T) {
	a, b, c := [16]byte{1}, [16]byte{2}, [16]byte{3}
	if receipt.JoinKeys([][16]byte{a}) != a || receipt.JoinKeys([][16]byte{a, a}) != a {
		t.Error("one key is not itself")
	}
	order := [][16]byte{b, a, c, a}
	ab := receipt.JoinKeys([][16]byte{a, b})
	if receipt.JoinKeys(order) != receipt.JoinKeys([][16]byte{a, b, c}) || order[0] != b {
		t.Error("order and repetition count, or the caller's keys were changed")
	}
	if ab == receipt.JoinKeys([][16]byte{a, c}) || ab == a || ab == receipt.JoinKeys([][16]byte{a, b, c}) || receipt.JoinKeys(nil) != ([16]byte{}) {
		t.Error("different recipients have one key")
	}
}

func TestPublicText(t *testing.T) {
	s, _ := signer(t, 200, "seed")
	line := receipt.PublicText(200, s.Public())
	if id, key, err := receipt.ParsePublicText(line + "\r\n"); err != nil || id != 200 || !key.Equal(s.Public()) {
		t.Errorf("%s: %d, %v", line, id, err)
	}
	for _, bad := range []string{"", "optout-receipt-key", strings.Replace(line, " 200 ", " 256 ", 1), strings.Replace(line, " 200 ", " 0 ", 1), line[:len(line)-4], line + " x", "x" + line} {
		if _, _, err := receipt.ParsePublicText(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// golden is a receipt of version 1 made once. Mail that carries it may be audited years later: it must verify for ever.
func TestGolden(t *testing.T) {
	b, err := os.ReadFile("testdata/receipt-v1.txt")
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			fields[name] = value
		}
	}
	var want receipt.Claims
	var key string
	if _, err := fmt.Sscanf(fields["claims"], "%d %d %s %d %d", &want.Sender, &want.Topic, &key, &want.Position, &want.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := hex.Decode(want.Key[:], []byte(key)); err != nil {
		t.Fatal(err)
	}
	id, public, err := receipt.ParsePublicText(fields["public"])
	if err != nil {
		t.Fatal(err)
	}
	v, err := receipt.NewVerifier(map[byte]ed25519.PublicKey{id: public})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.Verify(fields["receipt"]); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	seed, err := hex.DecodeString(fields["seed"])
	if err != nil {
		t.Fatal(err)
	}
	s, err := receipt.NewSigner(id, seed)
	if err != nil {
		t.Fatal(err)
	}
	if s.Sign(want) != fields["receipt"] || fmt.Sprintf("%x", receipt.JoinKeys([][16]byte{want.Key, {1}})) != fields["joined"] {
		t.Errorf("receipts are made another way: %s, %x", s.Sign(want), receipt.JoinKeys([][16]byte{want.Key, {1}}))
	}
}

func FuzzParse(f *testing.F) {
	s, v := signer(f, 1, "seed")
	f.Add(s.Sign(receipt.Claims{Sender: 1, Topic: 2, Key: [16]byte{3}, Position: 4, Minute: 5}))
	f.Add(strings.Repeat("A", receipt.Length))
	f.Add("AQE\r\n " + strings.Repeat("_", receipt.Length-3))
	f.Fuzz(func(t *testing.T, text string) {
		c, id, err := receipt.Parse(text)
		if (err != nil) != errors.Is(err, receipt.ErrMalformed) {
			t.Fatal(err)
		}
		// No two spellings: what was taken, without its folding, is what signing it with that key could have written.
		if got, err := v.Verify(text); err == nil && (got != c || id != 1 || s.Sign(c) != strings.Join(strings.Fields(text), "")) {
			t.Fatalf("%q verifies as %+v, and parses as %+v of key %d", text, got, c, id)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	s, _ := signer(b, 1, "seed")
	for i := uint64(0); b.Loop(); i++ {
		s.Sign(receipt.Claims{Sender: 1, Topic: 2, Position: i})
	}
}

func BenchmarkVerify(b *testing.B) {
	s, v := signer(b, 1, "seed")
	text := s.Sign(receipt.Claims{Sender: 1, Topic: 2})
	for b.Loop() {
		if _, err := v.Verify(text); err != nil {
			b.Fatal(err)
		}
	}
}
