package mailauth_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"optout/service/ledgertest"
	"optout/service/mailauth"
	"optout/service/mailtest"
)

// zone is a name server with the keys and policies that the tests write from.
type zone struct {
	t testing.TB
	*mailtest.DNS
	keys map[string]crypto.Signer // by domain
}

func newZone(t testing.TB) *zone { return &zone{t, mailtest.NewDNS(t), map[string]crypto.Signer{}} }

// key publishes a DKIM key of a domain under the selector "s".
func (z *zone) key(domain string) {
	z.t.Helper()
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		z.t.Fatal(err)
	}
	z.keys[domain] = private
	z.TXT("s._domainkey."+domain, "v=DKIM1; k=ed25519; p="+base64.StdEncoding.EncodeToString(pub))
}

func (z *zone) policy(domain, text string) { z.TXT("_dmarc."+domain, "v=DMARC1; "+text) }

// sign signs a message for a domain; fields are what is signed.
func (z *zone) sign(domain, message string, fields ...string) string {
	z.t.Helper()
	if len(fields) == 0 {
		fields = []string{"From", "To", "Subject"}
	}
	var b bytes.Buffer
	err := dkim.Sign(&b, strings.NewReader(message), &dkim.SignOptions{Domain: domain, Selector: "s", Signer: z.keys[domain], HeaderKeys: fields,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed})
	if err != nil {
		z.t.Fatal(err)
	}
	return b.String()
}

func (z *zone) check(e mailauth.Envelope, message string, ids ...string) mailauth.Verdict {
	z.t.Helper()
	return mailauth.New(mailauth.Options{Resolver: z.Resolver(), AuthservIDs: ids, Log: slog.New(slog.DiscardHandler)}).Check(context.Background(), e, []byte(message))
}

func letter(from string) string {
	return "From: " + from + "\r\nTo: unsubscribe@unsub.example.com\r\nSubject: stop\r\nMessage-ID: <1@example.org>\r\n\r\nplease stop\r\n"
}

var home = mailauth.Envelope{Remote: netip.MustParseAddr("192.0.2.1"), Helo: "mx.example.org", MailFrom: "ann@example.org"}

// What proves that the address in From wrote a message, and what does not.
func TestWhoWrote(t *testing.T) {
	z := newZone(t)
	for _, d := range []string{"example.org", "mail.example.org", "evil.example", "nopolicy.example", "strict.example", "a.strict.example", "example.co.uk", "other.co.uk", "down.example"} {
		z.key(d)
	}
	z.policy("example.org", "p=reject")
	z.policy("evil.example", "p=reject")
	z.policy("strict.example", "p=none; adkim=s; aspf=s")
	z.policy("example.co.uk", "p=none")
	z.policy("co.uk", "p=none") // a public suffix is nobody's organisation
	z.policy("down.example", "p=reject")
	z.TXT("example.org", "v=spf1 ip4:192.0.2.1 -all")
	z.TXT("bounce.example.org", "v=spf1 ip4:192.0.2.1 -all")
	z.TXT("evil.example", "v=spf1 ip4:198.51.100.7 -all")
	z.TXT("a.strict.example", "v=spf1 ip4:192.0.2.1 -all")
	evil := mailauth.Envelope{Remote: netip.MustParseAddr("198.51.100.7"), Helo: "mx.evil.example", MailFrom: "m@evil.example"}
	nowhere := mailauth.Envelope{Remote: netip.MustParseAddr("203.0.113.9"), Helo: "x.example", MailFrom: "list@forwarder.example"}
	unknown := mailauth.Envelope{}
	ann := letter("Ann <ann@example.org>")
	z.Fail("s._domainkey.down.example")

	for name, c := range map[string]struct {
		e       mailauth.Envelope
		message string
		result  mailauth.Result
		by      string
		signed  bool
	}{
		"signed by its domain":                        {nowhere, z.sign("example.org", ann), mailauth.Proved, "dkim", true},
		"signed by its organisation":                  {unknown, z.sign("mail.example.org", ann), mailauth.Proved, "dkim", true},
		"To not signed":                               {nowhere, z.sign("example.org", ann, "From", "Subject"), mailauth.Proved, "dkim", false},
		"a second Subject added":                      {nowhere, "Subject: other\r\n" + z.sign("example.org", ann), mailauth.Proved, "dkim", false},
		"altered on the way":                          {nowhere, z.sign("example.org", ann) + "a list's footer\r\n", mailauth.Disproved, "", false},
		"signed by somebody else":                     {evil, z.sign("evil.example", ann), mailauth.Disproved, "", false},
		"sent by its host":                            {home, ann, mailauth.Proved, "spf", false},
		"sent by its host, for a sub-domain":          {mailauth.Envelope{Remote: home.Remote, Helo: home.Helo, MailFrom: "b@bounce.example.org"}, ann, mailauth.Proved, "spf", false},
		"sent by its host, null path":                 {mailauth.Envelope{Remote: home.Remote, Helo: "example.org"}, ann, mailauth.Proved, "spf", false},
		"forwarded, signature intact":                 {nowhere, z.sign("example.org", ann), mailauth.Proved, "dkim", true},
		"forwarded, unsigned":                         {nowhere, ann, mailauth.Disproved, "", false},
		"found in a mailbox, unsigned":                {unknown, ann, mailauth.Unproved, "", false},
		"no policy, unsigned":                         {nowhere, letter("ann@nopolicy.example"), mailauth.Unproved, "", false},
		"no policy, signed":                           {nowhere, z.sign("nopolicy.example", letter("ann@nopolicy.example")), mailauth.Proved, "dkim", true},
		"strict, by a sub-domain":                     {nowhere, z.sign("a.strict.example", letter("ann@strict.example")), mailauth.Disproved, "", false},
		"strict, SPF of a sub-domain":                 {mailauth.Envelope{Remote: home.Remote, Helo: "x", MailFrom: "b@a.strict.example"}, letter("ann@strict.example"), mailauth.Disproved, "", false},
		"strict, itself":                              {nowhere, z.sign("strict.example", letter("ann@strict.example")), mailauth.Proved, "dkim", true},
		"a neighbour under a public suffix":           {nowhere, z.sign("other.co.uk", letter("ann@example.co.uk")), mailauth.Disproved, "", false},
		"the name is in Latin-1, unencoded":           {nowhere, z.sign("example.org", letter("\"J\xfcrgen\" <ann@example.org>")), mailauth.Proved, "dkim", true},
		"two From fields":                             {home, "From: ann@example.org\r\n" + z.sign("evil.example", letter("m@evil.example")), mailauth.Unproved, "", false},
		"two addresses in From":                       {home, letter("ann@example.org, m@evil.example"), mailauth.Unproved, "", false},
		"no From":                                     {home, "Subject: x\r\n\r\nx\r\n", mailauth.Unproved, "", false},
		"the name is another address":                 {evil, z.sign("evil.example", letter(`"ann@example.org" <m@evil.example>`)), mailauth.Proved, "dkim", true},
		"DNS down for its key":                        {unknown, z.sign("down.example", letter("ann@down.example")), mailauth.Unknown, "", false},
		"a folded header begins it":                   {home, " x\r\n" + ann, mailauth.Unproved, "", false},
		"a header of 200 KB":                          {home, strings.Repeat("X: "+strings.Repeat("y", 900)+"\r\n", 220) + ann, mailauth.Unproved, "", false},
		"a field folded ten thousand times":           {home, "X: y\r\n" + strings.Repeat(" y\r\n", 10000) + ann, mailauth.Unproved, "", false},
		"says itself that it passes":                  {nowhere, "Authentication-Results: mx.example.com; dmarc=pass header.from=example.org\r\n" + ann, mailauth.Disproved, "", false},
		"a hundred signatures that nobody made":       {nowhere, strings.Repeat("DKIM-Signature: v=1; a=rsa-sha256; d=evil.example; s=s; h=From; bh=AAAA; b=AAAA\r\n", 100) + ann, mailauth.Disproved, "", false},
		"signed in part (l=)":                         {nowhere, partial(z, ann), mailauth.Disproved, "", false},
		"a good signature behind five that are wrong": {nowhere, strings.Repeat("DKIM-Signature: v=1; a=rsa-sha256; d=evil.example; s=s; h=From; bh=AAAA; b=AAAA\r\n", 4) + z.sign("example.org", ann), mailauth.Proved, "dkim", true},
	} {
		v := z.check(c.e, c.message)
		if v.Result != c.result || v.By != c.by || v.Signed != c.signed {
			t.Errorf("%s: %v by %q, signed %v (%s), want %v by %q, signed %v", name, v.Result, v.By, v.Signed, v.Detail, c.result, c.by, c.signed)
		}
		if v.Result == mailauth.Proved && v.From == "" || strings.Contains(v.Detail, "ann") {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if v := z.check(evil, z.sign("evil.example", letter(`"ann@example.org" <m@evil.example>`))); v.From != "m@evil.example" || v.Domain != "evil.example" {
		t.Errorf("From is read as %s at %s", v.From, v.Domain)
	}
}

// partial adds l= to a signature, which must not make it hold over a part.
func partial(z *zone, message string) string {
	return strings.Replace(z.sign("example.org", message), "a=ed25519", "l=5; a=ed25519", 1)
}

// A trusted server's word counts, its topmost field alone, and for the domain in From alone.
func TestTrustedAuthserv(t *testing.T) {
	z := newZone(t)
	z.policy("example.org", "p=reject")
	field := func(id, result, from string) string {
		return fmt.Sprintf("Authentication-Results: %s;\r\n\tdmarc=%s (p=REJECT) header.from=%s\r\n", id, result, from)
	}
	ann := letter("ann@example.org")
	for name, c := range map[string]struct {
		message string
		want    mailauth.Result
	}{
		"pass":                                 {field("MX.example.com", "pass", "example.org") + ann, mailauth.Proved},
		"fail":                                 {field("mx.example.com", "fail", "example.org") + ann, mailauth.Disproved},
		"none":                                 {field("mx.example.com", "none", "example.org") + ann, mailauth.Unproved},
		"pass for another domain":              {field("mx.example.com", "pass", "evil.example") + ann, mailauth.Unproved},
		"of another server":                    {field("mx.evil.example", "pass", "example.org") + ann, mailauth.Unproved},
		"theirs below another's":               {field("mx.evil.example", "pass", "x.example") + field("mx.example.com", "pass", "example.org") + ann, mailauth.Unproved},
		"a forged one below theirs":            {field("mx.example.com", "fail", "example.org") + field("mx.example.com", "pass", "example.org") + ann, mailauth.Disproved},
		"a name that begins like theirs":       {field("mx.example.com.evil.example", "pass", "example.org") + ann, mailauth.Unproved},
		"pass, but two From fields":            {field("mx.example.com", "pass", "example.org") + "From: x@example.org\r\n" + ann, mailauth.Unproved},
		"pass in a comment of another's field": {"Authentication-Results: mx.evil.example (mx.example.com; dmarc=pass header.from=example.org); none\r\n" + ann, mailauth.Unproved},
	} {
		if v := z.check(mailauth.Envelope{}, c.message, "mx.example.com"); v.Result != c.want {
			t.Errorf("%s: %v (%s), want %v", name, v.Result, v.Detail, c.want)
		}
	}
}

// Signatures of another implementation verify, RSA as mail has it.
func TestSignedByAnotherImplementation(t *testing.T) {
	ledgertest.Require(t, "another implementation of DKIM needs Debian's python3-dkim", exec.Command("/usr/bin/python3", "-c", "import dkim").Run() == nil)
	z := newZone(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	z.TXT("s._domainkey.example.org", "v=DKIM1; p="+base64.StdEncoding.EncodeToString(pub))
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/python3", "-c", `
import dkim, sys
message = sys.stdin.buffer.read()
sys.stdout.buffer.write(dkim.sign(message, b"s", b"example.org", open(sys.argv[1], "rb").read(), include_headers=[b"from", b"to", b"subject", b"message-id"]) + message)`, file)
	cmd.Stdin = strings.NewReader(letter("Ann <ann@example.org>"))
	signed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	v := z.check(mailauth.Envelope{}, string(signed))
	if v.Result != mailauth.Proved || !v.Signed || len(v.DKIM) != 1 || v.DKIM[0].Domain != "example.org" || !slices.Contains(v.DKIM[0].Signed, "subject") {
		t.Errorf("%+v", v)
	}
	if v := z.check(mailauth.Envelope{}, strings.Replace(string(signed), "stop\r\n", "go on\r\n", 1)); v.Result == mailauth.Proved {
		t.Errorf("altered: %+v", v)
	}
}

// A name server that is silent costs a bounded time, and proves and disproves nothing.
func TestSilentDNS(t *testing.T) {
	z := newZone(t)
	z.key("example.org")
	message := z.sign("example.org", letter("ann@example.org"))
	z.Silence()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	c := mailauth.New(mailauth.Options{Resolver: z.Resolver(), Log: slog.New(slog.DiscardHandler)})
	if v := c.Check(ctx, home, []byte(message)); v.Result != mailauth.Unknown {
		t.Errorf("%+v", v)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(letter("ann@example.org")))
	f.Add([]byte("DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; h=From:To; bh=AAAA; b=AAAA\r\nAuthentication-Results: mx; dmarc=pass header.from=example.org\r\n" + letter("a@example.org")))
	f.Add([]byte("From: a@b, c@d\r\n\r\n"))
	f.Add([]byte("Authentication-Results: mx 1; spf=pass (a\\)b) smtp.mailfrom=\"x;\\\"\"@y; dmarc=fail header.from=example.org\r\n" + letter("a@example.org")))
	f.Add([]byte("From: =?x?q?a?= <\"a b\"@example.org>, group: c@d.e;\r\n\tf\r\n\r\n\r\n\r\n"))
	f.Add([]byte("From : a@example.org\nfrom: b@example.org\nDKIM-Signature: v=1; d=; h=:::; l=1; x=1\n\nx"))
	c := mailauth.New(mailauth.Options{Resolver: nowhere{}, AuthservIDs: []string{"mx"}, Log: slog.New(slog.DiscardHandler)})
	f.Fuzz(func(t *testing.T, raw []byte) {
		v := c.Check(context.Background(), home, raw)
		if v.Result == mailauth.Proved && v.By != "authserv-id" {
			t.Errorf("proved by nothing: %+v", v)
		}
		if (v.From == "") != (v.Domain == "") || v.Domain != strings.ToLower(v.Domain) || strings.ContainsAny(v.Detail, "\r\n\x00") {
			t.Errorf("%+v", v)
		}
	})
}
