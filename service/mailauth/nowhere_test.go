package mailauth_test

import (
	"context"
	"log/slog"
	"net"
	"testing"

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
