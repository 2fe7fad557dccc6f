package mailauth_test

import (
	"net/netip"
	"strings"
	"testing"

	"optout/service/mailauth"
)

// Which policies are found, and which domains are of one organisation (RFC 9989 section 4.10); and what does not disprove, because
// something that might have proved was not looked at.
func TestOrganisations(t *testing.T) {
	z := newZone(t)
	for _, d := range []string{"mail.example.org", "registry.example", "two.registry.example", "big.example", "example.org"} {
		z.key(d)
	}
	z.policy("example.org", "p=reject")
	z.policy("registry.example", "p=none; psd=y") // under which others have their domains
	z.policy("one.registry.example", "p=reject")
	z.policy("two.registry.example", "p=reject")
	z.policy("big.example", "p=reject")
	z.policy("university.big.example", "p=reject; psd=n") // which is an organisation of its own
	z.policy("co.uk", "p=reject")                         // a public suffix, whose policy is nobody's
	z.policy("twice.example", "p=reject")
	z.policy("twice.example", "p=none")
	deep := strings.Repeat("x.", 9)
	z.policy("x.x.x.x.x.x.x.deep.example", "p=reject") // the ninth label
	z.Fail("_dmarc.dark.example.org")
	z.Fail("bounce.example.org")
	z.Fail("evil.example")
	stranger := netip.MustParseAddr("203.0.113.9")
	from := func(path string) mailauth.Envelope {
		return mailauth.Envelope{Remote: stranger, Helo: "x", MailFrom: path}
	}
	nowhere := from("list@forwarder.example")
	long := "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; h=From; bh=AAAA; b=" + strings.Repeat("A", 9000) + "\r\n"
	for name, c := range map[string]struct {
		e       mailauth.Envelope
		message string
		want    mailauth.Result
	}{
		"a neighbour under a registry":                {nowhere, z.sign("two.registry.example", letter("ann@one.registry.example")), mailauth.Disproved},
		"the registry":                                {nowhere, z.sign("registry.example", letter("ann@one.registry.example")), mailauth.Disproved},
		"an organisation within another":              {nowhere, z.sign("big.example", letter("ann@university.big.example")), mailauth.Disproved},
		"a department":                                {nowhere, z.sign("big.example", letter("ann@sales.big.example")), mailauth.Proved},
		"a policy of a public suffix":                 {nowhere, letter("ann@shop.co.uk"), mailauth.Unproved},
		"two policies":                                {nowhere, letter("ann@twice.example"), mailauth.Unproved},
		"a policy at the ninth label of a long name":  {nowhere, letter("ann@" + deep + "deep.example"), mailauth.Unproved},
		"the DNS does not tell its policy":            {nowhere, z.sign("mail.example.org", letter("ann@dark.example.org")), mailauth.Unknown},
		"nor the SPF of its organisation":             {from("b@bounce.example.org"), letter("ann@example.org"), mailauth.Unknown},
		"nor the SPF of a stranger":                   {from("m@evil.example"), letter("ann@example.org"), mailauth.Disproved},
		"a signature too long to be looked at":        {nowhere, long + letter("ann@example.org"), mailauth.Unproved},
		"a body too costly to be looked at":           {nowhere, z.sign("example.org", letter("ann@example.org")+strings.Repeat("\r\n", 40<<10)+"x\r\n"), mailauth.Unproved},
		"more signatures of its own than are tried":   {nowhere, strings.Repeat("DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; h=From; bh=AAAA; b=AAAA\r\n", 6) + letter("ann@example.org"), mailauth.Unproved},
		"as many of them as are tried, and all wrong": {nowhere, strings.Repeat("DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; h=From; bh=AAAA; b=AAAA\r\n", 5) + letter("ann@example.org"), mailauth.Disproved},
	} {
		if v := z.check(c.e, c.message); v.Result != c.want {
			t.Errorf("%s: %v by %q (%s), want %v", name, v.Result, v.By, v.Detail, c.want)
		}
	}
}
