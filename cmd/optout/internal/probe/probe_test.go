package probe

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
)

var sent = &Sent{From: "news@mail.example.com", MessageID: "<probe-1@example.com>", Body: []byte("Hello.\r\n"), MustBeOff: "tracking",
	Fields: [][2]string{{"List-Unsubscribe", "<https://x.example/u/1>, <mailto:u-1@x.example>"}, {"List-Unsubscribe-Post", "List-Unsubscribe=One-Click"}}}

const plain = "List-Unsubscribe: <https://x.example/u/1>,\r\n <mailto:u-1@x.example>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nFrom: <news@mail.example.com>\r\nMessage-ID: <probe-1@example.com>\r\n\r\nHello.\r\n"

// signed is the message with a signature of a domain over some fields, and the look-up of its key.
func signed(t *testing.T, text, domain string, fields ...string) (string, func(string) ([]string, error)) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := dkim.Sign(&b, strings.NewReader(text), &dkim.SignOptions{Domain: domain, Selector: "s", Signer: key, HeaderKeys: append([]string{"From"}, fields...)}); err != nil {
		t.Fatal(err)
	}
	return b.String(), func(string) ([]string, error) {
		return []string{"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)}, nil
	}
}

// Each fault is found by its check, and by no other.
func TestJudge(t *testing.T) {
	both := []string{"List-Unsubscribe", "List-Unsubscribe-Post"}
	for name, c := range map[string]struct {
		edit   func(string) string // before signing
		after  func(string) string
		domain string
		fields []string
		want   map[string]Level // all others pass
	}{
		"well":                        {domain: "example.com", fields: both},
		"stored with bare LF":         {domain: "example.com", fields: both, after: func(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }},
		"not covered":                 {domain: "example.com", fields: both[:1], want: map[string]Level{"dkim": Fail}},
		"the provider's domain":       {domain: "provider.example", fields: both, want: map[string]Level{"dkim": Warn}},
		"body changed":                {domain: "example.com", fields: both, after: func(s string) string { return s + "-- footer\r\n" }, want: map[string]Level{"body": Fail, "dkim": Fail}},
		"field added":                 {domain: "example.com", fields: both, after: func(s string) string { return "X-Optout-Topic: n\r\n" + s }, want: map[string]Level{"instructions": Fail}},
		"message-id of the provider":  {domain: "example.com", fields: both, edit: func(s string) string { return strings.Replace(s, "probe-1@", "other@", 1) }, want: map[string]Level{"message-id": Warn}},
		"list field of the provider":  {domain: "example.com", fields: both, edit: func(s string) string { return strings.Replace(s, "x.example/u", "p.example/u", 1) }, want: map[string]Level{"list-unsubscribe": Fail}},
		"post field folded otherwise": {domain: "example.com", fields: both, edit: func(s string) string { return strings.Replace(s, "-Post: L", "-Post:  L", 1) }},
	} {
		text := plain
		if c.edit != nil {
			text = c.edit(text)
		}
		text, lookup := signed(t, text, c.domain, c.fields...)
		if c.after != nil {
			text = c.after(text)
		}
		for _, x := range Judge([]byte(text), sent, lookup) {
			want := c.want[x.ID]
			if want == "" {
				want = Pass
			}
			if x.Level != want || (x.Remedy == "") != (want == Pass) {
				t.Errorf("%s: %+v, want %s", name, x, want)
			}
		}
	}
	if all := Judge([]byte(plain), sent, nil); all[len(all)-1].Level != Fail {
		t.Errorf("unsigned: %+v", all)
	}
}

// The message is found in a Maildir, in an mbox and in a file of its own, and nothing else is taken for it.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	unix := strings.ReplaceAll(plain, "\r\n", "\n")
	write("maildir/cur/1", "Message-ID: <other@example.com>\n\nhi\n")
	write("maildir/new/2", unix)
	mbox := write("mbox", "From a Mon\nMessage-ID: <other@example.com>\n\nhi\n\nFrom b Mon\n"+unix+"\nFrom c Mon\nSubject: x\n\nhi\n")
	for _, path := range []string{filepath.Join(dir, "maildir"), mbox, write("one.eml", plain)} {
		raw, err := Find(path, sent.MessageID)
		if err != nil || raw == nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, x := range Judge(raw, sent, nil) {
			if x.Level != Pass && x.ID != "dkim" {
				t.Errorf("%s: %+v", path, x)
			}
		}
		if raw, err := Find(path, "<nix@example.com>"); err != nil || raw != nil {
			t.Errorf("%s: found another: %v", path, err)
		}
	}
	if raw, err := Find(filepath.Join(dir, "not there"), "x"); raw != nil || err != nil {
		t.Errorf("%v", err)
	}
}
