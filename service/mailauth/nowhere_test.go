package mailauth_test

import (
	"context"
	"net"
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
