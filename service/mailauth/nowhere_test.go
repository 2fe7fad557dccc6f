package mailauth_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"optout/service/mailauth"
)

// nowhere is a DNS in which no name exists.
type nowhere struct{}

func missing(name string) error {
	return &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (nowhere) LookupTXT(_ context.Context, name string) ([]string, error) { return nil, missing(name) }

func (nowhere) LookupMX(_ context.Context, name string) ([]*net.MX, error) { return nil, missing(name) }

func (nowhere) LookupIPAddr(_ context.Context, name string) ([]net.IPAddr, error) {
	return nil, missing(name)
}

func (nowhere) LookupAddr(_ context.Context, name string) ([]string, error) {
	return nil, missing(name)
}

// faulty panics at every question.
type faulty struct{ nowhere }

func (faulty) LookupTXT(context.Context, string) ([]string, error) { panic("a fault") }

// A fault in one method proves nothing and ends nothing else.
func TestFaultsProveNothing(t *testing.T) {
	z := newZone(t)
	z.key("example.org")
	message := z.sign("example.org", letter("ann@example.org"))
	c := mailauth.New(mailauth.Options{Resolver: faulty{}, AuthservIDs: []string{"mx"}, Log: slog.New(slog.DiscardHandler)})
	if v := c.Check(t.Context(), home, []byte(message)); v.Result == mailauth.Proved || v.Result == mailauth.Disproved {
		t.Errorf("%+v", v)
	}
	trusted := "Authentication-Results: mx; dmarc=pass header.from=example.org\r\n" + message
	if v := c.Check(t.Context(), home, []byte(trusted)); v.Result != mailauth.Proved || v.By != "authserv-id" {
		t.Errorf("%+v", v)
	}
}

// silent does not answer for names of a domain, and counts how often it is asked.
type silent struct {
	mailauth.Resolver
	domain string
	asked  *atomic.Int32
}

func (s silent) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if s.domain == "" || !strings.HasSuffix(name, s.domain+".") {
		return s.Resolver.LookupTXT(ctx, name)
	}
	s.asked.Add(1)
	return nil, &net.DNSError{Err: "i/o timeout", Name: name, IsTimeout: true}
}

// A domain whose DNS never answers is waited for once a minute, not with every message that says it is from there; nobody else's mail
// suffers, and its own is proved again when it answers.
func TestSilentDNSIsNotWaitedForAgain(t *testing.T) {
	z := newZone(t)
	z.key("example.org")
	z.key("slow.example")
	now, asked := time.Now(), &atomic.Int32{}
	r := silent{z.Resolver(), "slow.example", asked}
	c := mailauth.New(mailauth.Options{Resolver: &r, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler)})
	check := func(domain string) mailauth.Result {
		return c.Check(t.Context(), mailauth.Envelope{}, []byte(z.sign(domain, letter("ann@"+domain)))).Result
	}
	if got := check("slow.example"); got != mailauth.Unknown || asked.Load() == 0 {
		t.Fatalf("%v after %d questions", got, asked.Load())
	}
	asked.Store(0)
	for i := range 20 {
		if v := c.Check(t.Context(), mailauth.Envelope{}, []byte(letter(fmt.Sprintf("ann@m%d.slow.example", i)))); v.Result != mailauth.Unknown {
			t.Errorf("%+v", v)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("asked %d times more", n)
	}
	if got := check("example.org"); got != mailauth.Proved {
		t.Errorf("another domain's: %v", got)
	}
	r.domain, now = "", now.Add(time.Minute)
	if got := check("slow.example"); got != mailauth.Proved {
		t.Errorf("when it answers: %v", got)
	}
}
