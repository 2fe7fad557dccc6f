package ledger

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// drawEntry makes any entry that can be encoded.
func drawEntry(t *rapid.T) Entry {
	k16 := func(name string) (k [16]byte) {
		copy(k[:], rapid.SliceOfN(rapid.Byte(), 0, 16).Draw(t, name))
		return k
	}
	e := Entry{
		Kind: Kind(rapid.Byte().Draw(t, "kind")), Channel: Channel(rapid.Byte().Draw(t, "channel")), Reason: Reason(rapid.Byte().Draw(t, "reason")),
		Generation: rapid.Uint16().Draw(t, "generation"), Flags: rapid.Uint16().Draw(t, "flags"), At: rapid.Int64().Draw(t, "at"),
		Occurred: rapid.Int64().Draw(t, "occurred"), Until: rapid.Int64().Draw(t, "until"), Sender: rapid.Uint32().Draw(t, "sender"),
		Scope: rapid.Uint32().Draw(t, "scope"), Mailing: rapid.Uint32().Draw(t, "mailing"), Actor: rapid.Uint32().Draw(t, "actor"),
		Key: k16("key"), Consent: k16("consent"), Person: k16("person"), Prev: rapid.Uint64().Draw(t, "prev"), Ref: rapid.Uint64().Draw(t, "ref"),
		Request: k16("request"),
	}
	copy(e.Personal[:], rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(t, "personal"))
	if rapid.Bool().Draw(t, "detailed") {
		e.Detail = rapid.MapOfN(rapid.StringMatching(`[a-z_]{1,9}`), rapid.String(), 1, 4).Draw(t, "detail")
	}
	return e
}

func TestEntryDecodesToWhatWasEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEntry(t)
		b := e.AppendTo([]byte("before"))[6:]
		var d Entry
		if err := d.Decode(7, b); err != nil {
			t.Fatal(err)
		}
		if again := d.AppendTo(nil); !bytes.Equal(again, b) {
			t.Fatalf("encoded %x, then %x", b, again)
		}
	})
}

// An entry has one encoding, so the leaf hash speaks for the meaning: what decodes must encode to the same octets.
func FuzzEntryDecode(f *testing.F) {
	full := Entry{Kind: OptedOut, Channel: ByOneClick, At: 1, Sender: 1, Scope: 1, Key: [16]byte{1}, Prev: 2, Detail: map[string]string{"a": "b"}}
	f.Add(full.AppendTo(nil))
	f.Add((&Entry{}).AppendTo(nil))
	f.Add([]byte{1, 1, 1, 0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Entry
		if e.Decode(1, b) == nil && !bytes.Equal(e.AppendTo(nil), b) {
			t.Fatalf("%x decodes, but encodes to %x", b, e.AppendTo(nil))
		}
	})
}

// The encoding and leaf hash of an entry never change: ledgers of today must verify in ten years.
func TestEntryGolden(t *testing.T) {
	plain := Entry{Kind: OptedOut, Channel: ByOneClick, Generation: 1, At: 1790000000123, Sender: 1, Scope: 1, Mailing: 77, Key: [16]byte{1, 2, 3}}
	full := Entry{Kind: Subscribed, Channel: ByAPI, Reason: ReasonComplaint, Generation: 2, Flags: FlagLifts, At: 1790000000456, Occurred: 1789999999000,
		Until: 1890000000000, Sender: 5, Scope: 8, Mailing: 9, Actor: 3, Key: [16]byte{4}, Consent: [16]byte{5}, Person: [16]byte{6}, Prev: 10, Ref: 11,
		Request: [16]byte{12}, Personal: [32]byte{13}, Detail: map[string]string{"basis": "express", "evidence": "full"}}
	var got strings.Builder
	for _, e := range []Entry{plain, full} {
		b := e.AppendTo(nil)
		leaf := LeafHash(b)
		if record := tlog.RecordHash(b); Hash(record) != leaf {
			t.Errorf("leaf hash %x is not that of RFC 6962 section 2.1, %x", leaf, record)
		}
		got.WriteString(hex.EncodeToString(b) + " " + hex.EncodeToString(leaf[:]) + "\n")
	}
	want, err := os.ReadFile("testdata/entries-v1.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the encoding has changed: every stored ledger would fail to verify.\ngot:\n%swant:\n%s", got.String(), want)
	}
}

func TestTreeIsRFC6962(t *testing.T) {
	var tr tree
	var stored []tlog.Hash
	for n := range 300 {
		want, err := tlog.TreeHash(int64(n), tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			var h []tlog.Hash
			for _, i := range indexes {
				h = append(h, stored[i])
			}
			return h, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		if got := tr.root(); got != Hash(want) {
			t.Fatalf("root of %d entries is %x, want %x", n, got, want)
		}
		again, ok := newTree(tr.size, tr.edge)
		if !ok || again.root() != tr.root() {
			t.Fatalf("a tree of %d entries does not come back from its edge", n)
		}
		body := []byte{byte(n), byte(n >> 8)}
		hs, err := tlog.StoredHashesForRecordHash(int64(n), tlog.RecordHash(body), tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			var h []tlog.Hash
			for _, i := range indexes {
				h = append(h, stored[i])
			}
			return h, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hs...)
		tr.add(LeafHash(body))
	}
}
