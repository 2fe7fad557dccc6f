package client_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/wneessen/go-mail"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
)

const (
	transactional = optoutv1.TopicClass_TOPIC_CLASS_TRANSACTIONAL
	required      = optoutv1.TopicClass_TOPIC_CLASS_REQUIRED
)

// clean is a message that breaks no rule; tests break one at a time.
const clean = `From: Example Letters <letters@example.com>
To: Ann <ann@example.org>
Date: Mon, 02 Mar 2026 10:00:00 +0000
Message-ID: <abc@example.com>
Subject: News
List-Unsubscribe: <https://mail.example.com/u/token>,
 <mailto:u-token@unsub.example.com>
List-Unsubscribe-Post: List-Unsubscribe=One-Click
List-Id: Our Letter <letter.example.com>
Feedback-ID: march:letters:news:example
Auto-Submitted: auto-generated
DKIM-Signature: v=1; a=rsa-sha256; d=mail.example.com; s=x;
 h=From:Subject:List-Unsubscribe:List-Unsubscribe-Post; bh=AAAA; b=BBBB
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary=b

--b
Content-Type: text/plain; charset=utf-8

Good news.

Unsubscribe: https://mail.example.com/u/token

Example Letters, 1 Example Street, Springfield
--b
Content-Type: text/html; charset=utf-8

<p>Good news.</p>
<p>
<a href="https://mail.example.com/u/token">Unsubscribe</a>
</p>
<p>Example Letters<br>1 Example Street<br>Springfield</p>
--b--
`

// lint lints a text whose lines end with LF.
func lint(t *testing.T, text string, opts client.LintOptions) []client.Finding {
	t.Helper()
	found, err := client.LintMessage(strings.NewReader(text), opts)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func rulesOf(found []client.Finding) (ids []string) {
	for _, f := range found {
		ids = append(ids, f.Rule)
	}
	return ids
}

const anchor = `<a href="https://mail.example.com/u/token">Unsubscribe</a>`

const address = "Example Letters, 1 Example Street,\n Springfield"

func TestLintClean(t *testing.T) {
	for _, opts := range []client.LintOptions{{}, {PostalAddress: address}, {Class: transactional}, {Class: 99}} {
		if found := lint(t, clean, opts); len(found) > 0 {
			t.Errorf("%+v: %v", opts, found)
		}
		if found := lint(t, strings.ReplaceAll(clean, "\n", "\r\n"), opts); len(found) > 0 {
			t.Errorf("with CRLF, %+v: %v", opts, found)
		}
	}
}

// Each rule is named when it is broken, and no other with it.
func TestLintNamesTheRule(t *testing.T) {
	covered := map[string]bool{}
	for _, c := range []struct {
		old, new string
		opts     client.LintOptions
		want     string // rules, with spaces between
	}{
		{"Good news.\n\n", "Good news.\r\n\n", client.LintOptions{}, "line-ending"},
		{"Good news.\n\n", "Good\x00news.\n\n", client.LintOptions{}, "line-ending"},
		{"Good news.\n\n", strings.Repeat("long", 250) + "\n", client.LintOptions{}, "line-length"},
		{"Good news.\n\n", strings.Repeat("long ", 20) + "\n", client.LintOptions{}, "line-length-78"},
		{"Subject: News\n", "Subject News\n", client.LintOptions{}, "header-syntax"},
		{clean, "\n\nHello", client.LintOptions{}, "header-syntax"},
		{clean, "", client.LintOptions{}, "header-syntax"},
		{"Subject: News\n", strings.Repeat("X-Filler: "+strings.Repeat("x", 60)+"\n", 16000), client.LintOptions{}, "header-size"},
		{"Subject: News\n", "Subject: Grüße\n", client.LintOptions{}, "header-ascii"},
		{"From: Example Letters <letters@example.com>\n", "", client.LintOptions{}, "from-once"},
		{"From: Example Letters <letters@example.com>\n", "From: letters\n", client.LintOptions{}, "from-once"},
		{"From: Example Letters <letters@example.com>\n", "From: letters@example.com\nfrom: x@example.com\n", client.LintOptions{}, "from-once"},
		{"From: Example Letters <letters@example.com>\n", "From: letters@example.com, x@example.com\n", client.LintOptions{}, "sender-field"},
		{"Date: Mon, 02 Mar 2026 10:00:00 +0000\n", "", client.LintOptions{}, "date-once"},
		{"Date: Mon, 02 Mar 2026 10:00:00 +0000\n", "Date: today\n", client.LintOptions{}, "date-once"},
		{"Message-ID: <abc@example.com>\n", "", client.LintOptions{}, "message-id"},
		{"Message-ID: <abc@example.com>\n", "Message-ID: abc\n", client.LintOptions{}, "message-id"},
		{"Subject: News\n", "Subject: News\nSUBJECT : Olds\n", client.LintOptions{}, "field-once"},
		{"To: Ann", "To: x@example.com\nTo: Ann", client.LintOptions{}, "field-once"},
		{"Subject: News\n", "Bcc: x@example.com\n", client.LintOptions{}, "bcc"},

		{"List-Unsubscribe: <https://mail.example.com/u/token>,\n <mailto:u-token@unsub.example.com>\n", "", client.LintOptions{}, "list-unsubscribe-missing list-unsubscribe-post-alone"},
		{"List-Unsubscribe: <https", "List-Unsubscribe: <mailto:x@example.com>\nList-Unsubscribe: <https", client.LintOptions{}, "list-unsubscribe-once list-unsubscribe-https list-unsubscribe-post-alone"},
		{"<https://mail.example.com/u/token>", "<https://mäil.example.com/u/token>", client.LintOptions{}, "header-ascii list-unsubscribe-ascii"},
		{"<https://mail.example.com/u/token>", "< https://mail.example.com/u/token>", client.LintOptions{}, "list-unsubscribe-syntax"},
		{"<https://mail.example.com/u/token>", "<https://mail.example.com/\n u/token>", client.LintOptions{}, "list-unsubscribe-syntax"},
		{"<https://mail.example.com/u/token>", "<https://mail.example.com/u/token?a,b>", client.LintOptions{}, "list-unsubscribe-syntax"},
		{"<https://mail.example.com/u/token>,\n <mailto:u-token@unsub.example.com>", "https://mail.example.com/u/token", client.LintOptions{},
			"list-unsubscribe-syntax list-unsubscribe-https list-unsubscribe-mailto list-unsubscribe-post-alone"},
		{"u/token>,\n", "u/token>\n", client.LintOptions{}, "list-unsubscribe-syntax list-unsubscribe-mailto"},
		{"<mailto:u-token@unsub.example.com>", "mailto:u-token@unsub.example.com", client.LintOptions{}, "list-unsubscribe-syntax list-unsubscribe-mailto"},
		{"<mailto:u-token@unsub.example.com>", "<:>", client.LintOptions{}, "list-unsubscribe-syntax list-unsubscribe-mailto"},
		{"<mailto:", "<https://mail.example.com/x>, <mailto:", client.LintOptions{}, "list-unsubscribe-https"},
		{"<mailto:", "<HTTP://mail.example.com/x>, <mailto:", client.LintOptions{}, "list-unsubscribe-http"},
		{"<https://mail.example.com/u/token>,\n", "", client.LintOptions{}, "list-unsubscribe-https list-unsubscribe-post-alone"},
		{",\n <mailto:u-token@unsub.example.com>", "", client.LintOptions{}, "list-unsubscribe-mailto"},
		{"List-Unsubscribe-Post: List-Unsubscribe=One-Click\n", "", client.LintOptions{}, "list-unsubscribe-post-missing"},
		{"List-Unsubscribe-Post: ", "List-Unsubscribe-Post: List-Unsubscribe=One-Click\nlist-unsubscribe-post: ", client.LintOptions{}, "list-unsubscribe-post-once"},
		{"List-Unsubscribe=One-Click", "List-Unsubscribe=one-click", client.LintOptions{}, "list-unsubscribe-post-value"},
		{"List-Unsubscribe=One-Click", "List-Unsubscribe=One-Click ", client.LintOptions{}, "list-unsubscribe-post-value"},
		{"Post: List-Unsubscribe=One-Click", "Post:\n List-Unsubscribe=One-Click", client.LintOptions{}, "list-unsubscribe-post-fold"},
		{"Subject: News\n", "", client.LintOptions{Class: required}, "list-unsubscribe-unwanted"},

		{"List-Id: ", "List-Id: <x.example.com>\nList-Id: ", client.LintOptions{}, "list-id-once"},
		{"Our Letter <letter.example.com>", "letter.example.com", client.LintOptions{}, "list-id-syntax"},
		{"<letter.example.com>", "<letter>", client.LintOptions{}, "list-id-syntax"},
		{"<letter.example.com>", "<our letter.example.com>", client.LintOptions{}, "list-id-syntax"},
		{"<letter.example.com>", "<letter." + strings.Repeat("x", 250) + ">", client.LintOptions{}, "list-id-syntax"},
		{"march:letters:news:example", "a:b:c:d:e", client.LintOptions{}, "feedback-id-syntax"},
		{"march:letters:news:example", "a:b:c:", client.LintOptions{}, "feedback-id-syntax"},
		{"auto-generated", "auto-replied", client.LintOptions{}, "auto-submitted"},
		{"auto-generated", "yes", client.LintOptions{}, "auto-submitted"},

		{"DKIM-Signature:", "X-Signature:", client.LintOptions{}, "dkim-missing"},
		{" bh=AAAA;", "", client.LintOptions{}, "dkim-syntax"},
		{" bh=AAAA;", "\n bh=AAAA; bh=AAAA;", client.LintOptions{}, "dkim-syntax"},
		{"v=1;", "v=2;", client.LintOptions{}, "dkim-syntax"},
		{":List-Unsubscribe-Post; bh", "; bh", client.LintOptions{}, "dkim-headers"},
		{"h=From:", "h=", client.LintOptions{}, "dkim-headers"},
		{" bh=AAAA;", " bh=AAAA; l=10;", client.LintOptions{}, "dkim-length"},
		{"rsa-sha256", "rsa-sha1", client.LintOptions{}, "dkim-sha1"},
		{"d=mail.example.com", "d=example.net", client.LintOptions{}, "dkim-alignment"},
		{"Subject: News\n", "", client.LintOptions{LookupTXT: func(string) ([]string, error) { return nil, fmt.Errorf("none") }}, "dkim-invalid"},

		{"boundary=b", "boundary=c", client.LintOptions{}, "mime-structure"},
		{"--b--", "", client.LintOptions{}, "mime-structure"},
		{"text/plain; charset=utf-8", "text/plain; charset=klingon", client.LintOptions{}, "mime-structure"},
		{"Content-Type: multipart/alternative; boundary=b\n", "Content-Type: application/pdf\n", client.LintOptions{}, "body-missing"},
		{"Good news.</p>", client.UnsubscribeURLPlaceholder, client.LintOptions{}, "body-placeholder"},
		{"Unsubscribe: https://mail.example.com/u/token", "Unsubscribe if you can.", client.LintOptions{}, "body-link-text"},
		{anchor, "Unsubscribe!", client.LintOptions{}, "body-link-html"},
		{anchor, `<a href="https://mail.example.com/buy">Buy</a>`, client.LintOptions{}, "body-link-html"},
		{anchor, "<div style=\"color: red; DISPLAY : none\"><div></div>\n" + anchor + "</div>", client.LintOptions{}, "body-link-html"},
		{anchor, "<!-- " + anchor + " -->", client.LintOptions{}, "body-link-html"},
		{"Good news.", "Good news.", client.LintOptions{PostalAddress: "2 Other Street"}, "postal-address"},
		{"Example Letters, 1 Example Street, Springfield", "Example Letters", client.LintOptions{PostalAddress: address}, "postal-address"},
		{"Example Letters, 1 Example Street, Springfield", "Example Letters", client.LintOptions{}, "postal-address-unsure"},
	} {
		if !strings.Contains(clean, c.old) {
			t.Fatalf("%q is not in the message", c.old)
		}
		found := lint(t, strings.Replace(clean, c.old, c.new, 1), c.opts)
		if got := strings.Join(rulesOf(found), " "); got != c.want {
			t.Errorf("%.60q in place of %.60q: %s, want %s", c.new, c.old, got, c.want)
		}
		for _, f := range found {
			covered[f.Rule] = true
			if f.Message == "" || f.Remedy == "" || f.Reference == "" || strings.Contains(fmt.Sprint(f), "ann@") || strings.Contains(fmt.Sprint(f), "letters@") {
				t.Errorf("%+v", f)
			}
		}
	}
	for _, r := range client.LintRules() {
		if !covered[r.ID] && r.ID != "message-size" {
			t.Errorf("no test breaks %s", r.ID)
		}
	}
}

// What is no fault is not named.
func TestLintLetsPass(t *testing.T) {
	for _, c := range []struct {
		old, new string
		opts     client.LintOptions
	}{
		{"DKIM-Signature:", "X-Signature:", client.LintOptions{UnsignedYet: true}},
		{"DKIM-Signature:", "DKIM-Signature: v=1; a=rsa-sha256; d=esp.example; s=x; h=From; bh=AAAA; b=BBBB\nDKIM-Signature:", client.LintOptions{}},
		{anchor, `<a href="https://mail.example.com/p/token">Preferences</a>`, client.LintOptions{}},
		{anchor, `To unsubscribe, <a href="https://example.com/x"><b>click here</b></a>`, client.LintOptions{}},
		{anchor, `<a href="https://x.example.com/">Se désabonner</a>`, client.LintOptions{}},
		{"Unsubscribe: https://mail.example.com/u/token", "配信停止はこちら\nhttps://x.example.com/", client.LintOptions{}},
		{"Unsubscribe: https://mail.example.com/u/token", "退订 stop@example.com", client.LintOptions{}},
		{"Unsubscribe: https://mail.example.com/u/token", "", client.LintOptions{Class: transactional}},
		{"Example Letters, 1 Example Street, Springfield", "EXAMPLE LETTERS\n1 Example-Street\nSpringfield", client.LintOptions{PostalAddress: address}},
		{"Example Letters, 1 Example Street, Springfield", "Beispiel GmbH, Musterstraße 5, 10115 Berlin", client.LintOptions{}},
		{"Example Letters, 1 Example Street, Springfield", "P.O. Box 12, Springfield", client.LintOptions{}},
		{"Example Letters, 1 Example Street, Springfield", "〒100-0001 東京都千代田区", client.LintOptions{}},
		{"Post: List", "Post:\tList", client.LintOptions{}},
		{"Subject: News\n", "X-Long: " + strings.Repeat("x", 200) + "\n", client.LintOptions{}},
		{anchor, strings.Replace(anchor, "Unsubscribe", "No more", 1), client.LintOptions{}},
	} {
		if !strings.Contains(clean, c.old) {
			t.Fatalf("%q is not in the message", c.old)
		}
		if found := lint(t, strings.Replace(clean, c.old, c.new, 1), c.opts); len(found) > 0 {
			t.Errorf("%.60q in place of %.60q: %v", c.new, c.old, found)
		}
	}
}

// What only commercial mail must have is a warning on transactional mail, and nothing on required mail.
func TestLintClasses(t *testing.T) {
	bare := "From: a@example.com\nDate: Mon, 02 Mar 2026 10:00:00 +0000\nMessage-ID: <abc@example.com>\n\nHello.\n"
	for class, want := range map[optoutv1.TopicClass]string{
		0:             "list-unsubscribe-missing/error dkim-missing/error body-link-text/error postal-address-unsure/warning",
		transactional: "list-unsubscribe-missing/warning dkim-missing/warning",
		required:      "dkim-missing/warning",
	} {
		var got []string
		for _, f := range lint(t, bare, client.LintOptions{Class: class}) {
			got = append(got, f.Rule+"/"+f.Level.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%v: %v, want %s", class, got, want)
		}
	}
}

// Large and nested messages cost no more than their size.
func TestLintBounds(t *testing.T) {
	huge := strings.NewReader(clean + strings.Repeat("x", 50<<20))
	if found, err := client.LintMessage(huge, client.LintOptions{}); err != nil || len(found) != 1 || found[0].Rule != "message-size" {
		t.Errorf("%v, %v", found, err)
	}
	var deep strings.Builder
	deep.WriteString(clean[:strings.Index(clean, "Content-Type")])
	for i := range 1000 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	if got := rulesOf(lint(t, deep.String(), client.LintOptions{})); !slices.Contains(got, "mime-structure") {
		t.Errorf("%v", got)
	}
	wide := strings.Replace(clean, "--b--", strings.Repeat("--b\n\n\n", 200)+"--b--", 1)
	if got := rulesOf(lint(t, wide, client.LintOptions{})); !slices.Contains(got, "mime-structure") {
		t.Errorf("%v", got)
	}
}

// Ids are unique, and every rule says what it demands, what to do and who says so.
func TestLintRules(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range client.LintRules() {
		if seen[r.ID] || r.ID == "" || r.Description == "" || r.Remedy == "" || r.Reference == "" || r.Level.String() == "" {
			t.Errorf("%+v", r)
		}
		seen[r.ID] = true
	}
}

func FuzzLintMessage(f *testing.F) {
	f.Add(clean)
	f.Add(strings.ReplaceAll(clean, "\n", "\r\n"))
	f.Add("DKIM-Signature: v=1; h=; a=\r\n\r\n")
	f.Add("From: \r\nList-Unsubscribe: <,<>\r\nContent-Type: multipart/mixed; boundary=\"\"\r\n\r\n----\r\n")
	f.Add("Content-Type: text/html; charset=iso-2022-jp\r\nContent-Transfer-Encoding: base64\r\n\r\nPGEgaHJlZj0=")
	lookup := func(string) ([]string, error) { return []string{"v=DKIM1; k=ed25519; p=AAAA"}, nil }
	f.Fuzz(func(t *testing.T, text string) {
		for _, opts := range []client.LintOptions{{LookupTXT: lookup}, {Class: transactional, PostalAddress: "x"}, {Class: required}} {
			found, err := client.LintMessage(strings.NewReader(text), opts)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, x := range found {
				if seen[x.Rule] {
					t.Errorf("%s is named twice", x.Rule)
				}
				seen[x.Rule] = true
			}
		}
	})
}

// A signature that does not fit the message, or whose key is another or away, is told from one that holds.
func TestLintVerifiesSignatures(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	k := newSink(t)
	mailer := client.NewMailer(newScripted().client(t), k.mail(t), client.WithFooter("en"), client.WithDKIM(mail.NewDKIMSigner("example.com", "mail", private)))
	if _, err := mailer.Send(t.Context(), "news", message(t, []string{"a@example.com"}, nil, nil)); err != nil {
		t.Fatal(err)
	}
	signed := k.to("a@example.com")[0]
	key := "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)
	other := "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(make([]byte, ed25519.PublicKeySize))
	for name, c := range map[string]struct {
		text, key string
		fault     error
		want      string // in the finding's message; "" for none
	}{
		"holds":         {signed, key, nil, ""},
		"body changed":  {strings.Replace(signed, "Hello.", "Hallo.", 1), key, nil, "does not fit"},
		"field changed": {strings.Replace(signed, "u/token>", "u/taken>", 1), key, nil, "does not fit"},
		"another key":   {signed, other, nil, "does not fit"},
		"no such key":   {signed, "v=DKIM1; p=", nil, "no key that fits"},
		"no answer":     {signed, "", &net.DNSError{IsTemporary: true}, "could not be looked up"},
		"second holds":  {"DKIM-Signature: v=1; a=ed25519-sha256; d=example.com; s=old; h=From; bh=AAAA; b=AAAA\r\n" + signed, key, nil, ""},
	} {
		found := lint(t, c.text, client.LintOptions{LookupTXT: func(domain string) ([]string, error) {
			if domain != "mail._domainkey.example.com" && domain != "old._domainkey.example.com" {
				t.Errorf("%s was looked up", domain)
			}
			return []string{c.key}, c.fault
		}})
		got := ""
		for _, f := range found {
			if f.Rule == "dkim-invalid" {
				got = f.Message
			}
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
