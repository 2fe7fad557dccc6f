package mailauth_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"optout/service/mailauth"
)

// greedy is a DNS in which the SPF record of a stranger's return path names ten hosts for each of its mail servers: more than one check
// may ask for. It is read when the key and the first of the author's policies are asked for, and these are answered when all look-ups
// are used up.
type greedy struct {
	nowhere
	key          string
	asked, spent chan struct{}
	waiting      atomic.Int32
	hosts        atomic.Int32
}

func (g *greedy) LookupTXT(ctx context.Context, name string) ([]string, error) {
	switch name {
	case "evil.example.":
		<-g.asked
		return []string{"v=spf1" + strings.Repeat(" mx", 9) + " -all"}, nil
	case "s._domainkey.users.example.org.", "_dmarc.mail.example.org.":
		if g.waiting.Add(1) == 2 {
			close(g.asked)
		}
		select {
		case <-g.spent:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if name == "s._domainkey.users.example.org." {
			return []string{g.key}, nil
		}
	case "_dmarc.example.org.":
		return []string{"v=DMARC1; p=reject; adkim=s"}, nil
	}
	return nil, missing(name)
}

func (g *greedy) LookupMX(context.Context, string) (all []*net.MX, err error) {
	for i := range 10 {
		all = append(all, &net.MX{Host: fmt.Sprintf("mx%d.evil.example.", i)})
	}
	return all, nil
}

func (g *greedy) LookupIPAddr(context.Context, string) ([]net.IPAddr, error) {
	if g.hosts.Add(1) == 51 { // of 60 look-ups: key, policy and SPF record, and before the last host six mail servers
		close(g.spent)
	}
	return []net.IPAddr{{IP: net.IPv4(198, 51, 100, 1)}}, nil
}

// A stranger who makes a check use up its look-ups keeps a policy from being read; that must not make it a policy that asks for less.
// Here the domain wants its own signature, and only a neighbour's is there.
func TestSpentLookups(t *testing.T) {
	z := newZone(t)
	z.key("users.example.org")
	records, err := z.Resolver().LookupTXT(t.Context(), "s._domainkey.users.example.org.")
	if err != nil {
		t.Fatal(err)
	}
	g := &greedy{key: records[0], asked: make(chan struct{}), spent: make(chan struct{})}
	c := mailauth.New(mailauth.Options{Resolver: g, Log: slog.New(slog.DiscardHandler)})
	e := mailauth.Envelope{Remote: netip.MustParseAddr("203.0.113.9"), Helo: "x", MailFrom: "m@evil.example"}
	v := c.Check(t.Context(), e, []byte(z.sign("users.example.org", letter("ann@mail.example.org"))))
	if v.Result != mailauth.Unknown || len(v.DKIM) != 1 {
		t.Errorf("%+v after %d hosts", v, g.hosts.Load())
	}
}
