package mailauth_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net/netip"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"optout/service/mailauth"
)

// Ways in which a message of somebody else's might pass for one of ann@example.org's, and honest ones that must not suffer for the
// defence.
func TestForgery(t *testing.T) {
	z := newZone(t)
	z.key("example.org") // which Mallory may use for mail of her own, as everybody may at a large provider
	z.key("evil.example")
	z.policy("example.org", "p=reject; fo=bad,bad; rua=mailto:d@example.org")
	z.policy("strict.example", "p=REJECT; adkim=S; aspf=S")
	z.policy("sub.strict.example", "p=reject; adkim=s")
	z.policy("reports.example", "rua=mailto:d@reports.example")
	z.policy("nonsense.example", "p=maybe")
	z.key("a.strict.example")
	z.TXT("evil.example", "v=spf1 ip4:198.51.100.7 -all")
	z.TXT("example.org", "v=spf1 ip4:192.0.2.1 -all")
	evil := mailauth.Envelope{Remote: netip.MustParseAddr("198.51.100.7"), Helo: "mx.evil.example", MailFrom: "m@evil.example"}
	ann, mallory := letter("ann@example.org"), z.sign("example.org", letter("mallory@example.org"))
	many := z.sign("example.org", ann)
	for range 20 {
		many = z.sign("evil.example", many)
	}
	for name, c := range map[string]struct {
		e       mailauth.Envelope
		message string
		want    mailauth.Result
	}{
		// The DKIM library takes these names for From, so the signature holds; a reader of mail shows the other field.
		"the signed From behind a no-break space":  {evil, "From: ann@example.org\r\n" + strings.Replace(mallory, "\r\nFrom:", "\r\n\u00a0From:", 1), mailauth.Unproved},
		"the signed From before a vertical tab":    {evil, "From: ann@example.org\r\n" + strings.Replace(mallory, "\r\nFrom:", "\r\nFrom\v:", 1), mailauth.Unproved},
		"the signed From with white space":         {evil, "From: ann@example.org\r\n" + strings.Replace(mallory, "\r\nFrom:", "\r\nFrom :", 1), mailauth.Unproved},
		"another From behind a bare CR":            {evil, strings.Replace(mallory, "From:", "X: y\rFrom: ann@example.org\r\nFrom:", 1), mailauth.Unproved},
		"a NUL":                                    {evil, "X: \x00\r\n" + mallory, mailauth.Unproved},
		"two domains in the return path":           {mailauth.Envelope{Remote: evil.Remote, Helo: evil.Helo, MailFrom: "m@evil.example@example.org"}, ann, mailauth.Disproved},
		"two domains in the return path, reversed": {mailauth.Envelope{Remote: evil.Remote, Helo: evil.Helo, MailFrom: `"m@example.org "@evil.example`}, ann, mailauth.Disproved},
		"a record with faults in other tags":       {evil, ann, mailauth.Disproved},
		"strict in capitals":                       {evil, z.sign("a.strict.example", letter("ann@strict.example")), mailauth.Disproved},
		"a record without p":                       {evil, letter("ann@reports.example"), mailauth.Disproved},
		"a record with a bad p":                    {evil, letter("ann@nonsense.example"), mailauth.Unproved},
		"a display name in an unknown charset":     {evil, z.sign("example.org", letter("=?iso-2022-jp?B?GyRCOzNFRBsoQg==?= <ann@example.org>")), mailauth.Proved},
		"a quoted local part":                      {evil, z.sign("example.org", letter(`"ann b"@example.org`)), mailauth.Proved},
		"twenty signatures of others on top":       {evil, many, mailauth.Proved},
		"lines that end with LF, in a file":        {evil, strings.ReplaceAll(z.sign("example.org", ann), "\r\n", "\n"), mailauth.Proved},
	} {
		if v := z.check(c.e, c.message); v.Result != c.want {
			t.Errorf("%s: %v for %s by %q (%s), want %v", name, v.Result, v.From, v.By, v.Detail, c.want)
		}
	}
	if v := z.check(evil, many); len(v.DKIM) != 5 {
		t.Errorf("%d signatures were tried", len(v.DKIM))
	}
}

// A trusted server repeats what the sender chose: the return path, which may be quoted.
func TestSmuggledResults(t *testing.T) {
	z := newZone(t)
	z.policy("example.org", "p=reject")
	for name, results := range map[string]string{
		"in a quoted string":    `spf=pass smtp.mailfrom="; dmarc=pass header.from=example.org "@evil.example`,
		"in a comment":          `spf=pass (by ; dmarc=pass header.from=example.org; b=c)`,
		"in a nested comment":   `spf=pass (a \) (b) ; dmarc=pass header.from=example.org; c=d)`,
		"before the real one":   `spf=pass smtp.mailfrom="; dmarc=pass header.from=example.org "@evil.example; dmarc=none header.from=example.org`,
		"two that contradict":   `dmarc=none header.from=example.org; dmarc=pass header.from=example.org`,
		"a comment left open":   `dmarc=pass header.from=example.org (`,
		"a quotation left open": `dmarc=pass header.from=example.org "`,
	} {
		if v := z.check(mailauth.Envelope{}, "Authentication-Results: mx.example.com; "+results+"\r\n"+letter("ann@example.org"), "mx.example.com"); v.Result != mailauth.Unproved {
			t.Errorf("%s: %v (%s)", name, v.Result, v.Detail)
		}
	}
}

// A name server of a stranger's that is dead does not keep the author's domain from vouching.
func TestDeadStranger(t *testing.T) {
	z := newZone(t)
	z.key("example.org")
	z.key("evil.example")
	z.policy("example.org", "p=reject")
	ann := letter("ann@example.org")
	both, theirs := z.sign("evil.example", z.sign("example.org", ann)), z.sign("evil.example", ann)
	z.Fail("s._domainkey.evil.example")
	e := mailauth.Envelope{Remote: netip.MustParseAddr("203.0.113.9"), Helo: "x.example", MailFrom: "m@nowhere.example"}
	if v := z.check(e, both); v.Result != mailauth.Proved || !v.Signed {
		t.Errorf("%+v", v)
	}
	if v := z.check(e, theirs); v.Result != mailauth.Disproved {
		t.Errorf("%+v", v)
	}
	z.key("mail.example.org")
	sibling := z.sign("mail.example.org", ann)
	if v := z.check(e, sibling); v.Result != mailauth.Proved {
		t.Errorf("%+v", v)
	}
	z.Fail("_dmarc.mail.example.org")
	if v := z.check(e, sibling); v.Result != mailauth.Unknown {
		t.Errorf("%+v", v)
	}
}

// RFC 8301 section 3.2 forbids keys of less than 1,024 bits.
func TestWeakKey(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, 768)
	if err != nil {
		t.Fatal(err)
	}
	z := newZone(t)
	z.keys["example.org"] = key
	message := z.sign("example.org", letter("ann@example.org"))
	z.TXT("s._domainkey.example.org", keyRecord(&key.PublicKey))
	if v := z.check(mailauth.Envelope{}, message); v.Result != mailauth.Unproved || len(v.DKIM) != 0 {
		t.Errorf("%+v", v)
	}
}

func keyRecord(k *rsa.PublicKey) string {
	der, _ := x509.MarshalPKIXPublicKey(k)
	return "v=DKIM1; p=" + base64.StdEncoding.EncodeToString(der)
}

// hostile are messages that a stranger can send, which take from seconds to minutes without the limits, and the names they use.
func hostile(b testing.TB) (*zone, map[string]string) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	z := newZone(b)
	z.TXT("s._domainkey.example.org", keyRecord(&key.PublicKey))
	large := new(big.Int).Lsh(key.N, 300_000)
	z.TXT("large._domainkey.example.org", keyRecord(&rsa.PublicKey{N: large.SetBit(large, 0, 1), E: 1<<31 - 1}))
	ann := letter("ann@example.org")
	var signed strings.Builder
	if err := dkim.Sign(&signed, strings.NewReader(ann), &dkim.SignOptions{Domain: "example.org", Selector: "s", Signer: key, HeaderKeys: []string{"From"}}); err != nil {
		b.Fatal(err)
	}
	signature := func(names string) string {
		return "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; bh=AAAA; b=AAAA; h=From" + names + "\r\n"
	}
	honest, _, _ := strings.Cut(strings.ReplaceAll(signed.String(), "\r\n ", " "), "\r\n")
	hashed := strings.Repeat(strings.Replace(honest, "h=From", "h=From"+strings.Repeat(":a", 3000), 1)+"\r\n", 5)
	return z, map[string]string{
		"1,500 signatures":             strings.Repeat(signature(""), 1500) + ann,
		"10,000 fields":                strings.Repeat("A: b\r\n", 10_000) + ann,
		"a megabyte of folding":        "A: b\r\n" + strings.Repeat(" c\r\n", 250_000) + ann,
		"32,000 folds in a few":        strings.Repeat("A: b\r\n"+strings.Repeat(" c\r\n", 4000), 7) + ann,
		"a line of a megabyte":         "A: " + strings.Repeat("c", 1<<20) + "\r\n" + ann,
		"50,000 names in h":            signature(strings.Repeat(":a", 50_000)) + ann,
		"3,000 names in h, 5 times":    hashed + strings.Repeat("B: c\r\n", 900) + ann,
		"a header without an end":      strings.Repeat("A: b\n", 6_000_000),
		"3,000 comments open":          strings.Replace(ann, "From: ", "From: "+strings.Repeat("(", 3000), 1),
		"30 MiB of empty lines":        strings.Repeat(signature(""), 5) + ann + strings.Repeat("\r\n", 15<<20) + "x",
		"30 MiB of short lines":        strings.Repeat(signature(""), 5) + ann + strings.Repeat("x\r\n", 10<<20),
		"a key of 300,000 bits":        strings.Replace(honest, "s=s;", "s=large;", 1) + "\r\n" + ann,
		"1,000 Authentication-Results": strings.Repeat("Authentication-Results: a; b=c\r\n", 900) + ann,
	}
}

func TestHostile(t *testing.T) {
	z, all := hostile(t)
	for name, raw := range all {
		if testing.Short() && len(raw) > 10<<20 {
			continue
		}
		if v := z.check(mailauth.Envelope{}, raw, "mx.example.com"); v.Result == mailauth.Proved || len(v.DKIM) > 0 || len(v.Detail) > 1500 {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// BenchmarkHostile shows what they cost.
func BenchmarkHostile(b *testing.B) {
	z, all := hostile(b)
	for name, raw := range all {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				z.check(mailauth.Envelope{}, raw, "mx.example.com")
			}
		})
	}
}
