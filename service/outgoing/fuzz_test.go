package outgoing

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"optout/service/ledger"
	"optout/service/link"
)

// rewriter is a judge that can rewrite, and a question about a commercial topic.
func rewriter(t testing.TB) (*Judge, *Question, *ledger.Verdict) {
	t.Helper()
	ring, err := link.NewRing(1, link.Key{ID: 1, Secret: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	j := NewJudge(Options{Ring: func() *link.Ring { return ring }, PublicURL: "https://mail.example.com", MailDomain: "unsub.example.com",
		Receipt: func(uint32, uint32, [][16]byte, uint64) string { return strings.Repeat("r", 136) }, Now: func() time.Time { return time.Unix(1795000000, 0) }})
	q := &Question{Key: &ledger.APIKey{}, Sender: &ledger.Sender{Number: 1, Name: "default", DisplayName: "The Shop"}, Topic: &ledger.Topic{Number: 3, Name: "news", Class: ledger.Commercial}}
	return j, q, &ledger.Verdict{Send: true, Key: [16]byte{9}, Position: 7}
}

// Whatever a header holds: taken apart and put together it is the same, octet for octet; rewritten it has each field of ours once
// and none that may not leave; rewritten again it is the same; and the body stays where it was.
func FuzzRewrite(f *testing.F) {
	f.Add([]byte("From: a@b.example\r\nTo: c@d.example\r\nBcc: e@f.example\r\nList-Unsubscribe: <x>\r\nX-Optout-Topic: news\r\n\r\nbody\r\n"))
	f.Add([]byte("Subject: folded\r\n\tagain\r\nlist-ID : <x>\r\nDKIM-Signature: v=1\r\n\r\n"))
	f.Add([]byte("Return-Path: <>\r\nMessage-ID: <1@x>\r\nDate: now\r\n"))
	f.Add([]byte(" folded first\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		j, q, v := rewriter(t)
		h, size, r := ParseHeader(text)
		if r != nil {
			return
		}
		if back := h.AppendTo(nil); !bytes.Equal(back, text[:size]) && !bytes.Equal(back, append(slices.Clone(text[:size]), "\r\n"...)) {
			t.Fatalf("%q became %q", text[:size], back)
		}
		out := j.Rewrite(q, h, "digest", v)
		for _, name := range []string{"List-Unsubscribe", "List-Unsubscribe-Post", "List-Id", "X-Optout-Receipt"} {
			if len(out.Values(name)) != 1 {
				t.Fatalf("%s is there %d times", name, len(out.Values(name)))
			}
		}
		ours := []string{"list-unsubscribe", "list-unsubscribe-post", "list-id", "x-optout-receipt"}
		for _, name := range out.Names() {
			if Removed(q, name) && !slices.Contains(ours, strings.ToLower(name)) {
				t.Fatalf("%s is still there", name)
			}
		}
		if out.Value("Date") == "" || out.Value("Message-ID") == "" {
			t.Fatal("Date or Message-ID is missing")
		}
		first := out.AppendTo(nil)
		again, n, r := ParseHeader(first)
		if r != nil || n != len(first) {
			t.Fatalf("what was written cannot be read: %v", r)
		}
		if second := j.Rewrite(q, again, "digest", v).AppendTo(nil); !bytes.Equal(first, second) {
			t.Fatalf("rewritten again:\n%q\n%q", first, second)
		}
	})
}
