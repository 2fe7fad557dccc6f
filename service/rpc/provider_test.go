package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
	"optout/service/rpc"
)

// providers answer as the test says: what real ones do is tested in package hooks and with the whole program.
type providers struct {
	all         []rpc.ProviderStatus
	differences int
	err         error
	full        bool
}

func (p *providers) List() []rpc.ProviderStatus { return p.all }

func (p *providers) Sync(_ context.Context, id string, full bool, progress func(rpc.ProviderProgress)) error {
	p.full = full
	progress(rpc.ProviderProgress{List: "bounces", Read: 7, Recorded: 3, Unreadable: 1})
	progress(rpc.ProviderProgress{Pushed: 5, Refused: 1, Unknown: 2})
	return p.err
}

func (p *providers) Compare(_ context.Context, id string, found func(rpc.ProviderDifference) error) (rpc.ProviderDrift, error) {
	for i := range p.differences {
		if err := found(rpc.ProviderDifference{HereOnly: i%2 == 0, Address: fmt.Sprintf("p%d@example.com", i), Why: "list/bounces", Since: time.Unix(1764064800, 0)}); err != nil {
			return rpc.ProviderDrift{}, err
		}
	}
	return rpc.ProviderDrift{Agreed: 9, HereOnly: 1, ThereOnly: 2, Unknown: 3, Unreadable: 4, Listed: 11, Position: 1}, p.err
}

// all reads a stream to its end.
func all[M any](recv func() (M, error), err error) ([]M, error) {
	var got []M
	for err == nil {
		var m M
		if m, err = recv(); err == nil {
			got = append(got, m)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return got, err
}

func TestProviders(t *testing.T) {
	p := &providers{all: []rpc.ProviderStatus{{ID: "a", Kind: "ses", Sender: "default", Scope: "ALL", Poll: time.Hour, API: true, Push: true, LastPoll: time.Unix(1764064800, 0), Behind: 4}, {ID: "b", Kind: "ses", Sender: "one", API: true}, {ID: "c", Kind: "generic", Sender: "default"}}}
	r := newRig(t, func(o *rpc.Options) { o.Providers = p })
	r.twoSenders()
	l, err := r.admin.ListProviders(r.ctx(), &optoutv1.ListProvidersRequest{})
	if err != nil || len(l.Providers) != 2 || l.Providers[0].Id != "a" || l.Providers[0].PollSeconds != 3600 || l.Providers[0].LastPollAt.GetSeconds() != 1764064800 || l.Providers[0].LastPushAt != nil || l.Providers[0].Behind != 4 {
		t.Errorf("%v, %v", err, l)
	}
	sync := func(ctx context.Context, q *optoutv1.SyncProviderRequest) ([]*optoutv1.SyncProviderResponse, error) {
		s, err := r.admin.SyncProvider(ctx, q)
		return all(s.Recv, err)
	}
	got, err := sync(r.ctx(), &optoutv1.SyncProviderRequest{Id: "a", Full: true})
	if err != nil || len(got) != 3 || got[0].List != "bounces" || got[0].Recorded != 3 || got[1].Pushed != 5 || !got[2].Done || got[2].Position.GetNumber() == 0 || !p.full {
		t.Errorf("%v, %v", err, got)
	}
	drift := func(ctx context.Context) (n int, shown string, last *optoutv1.GetProviderDriftResponse) {
		s, err := r.admin.GetProviderDrift(ctx, &optoutv1.GetProviderDriftRequest{Id: "a"})
		got, err := all(s.Recv, err)
		if err != nil || len(got) == 0 {
			t.Fatal(err)
		}
		for _, m := range got {
			if n += len(m.Differences); len(m.Differences) > 500 {
				t.Errorf("%d differences in one message", len(m.Differences))
			}
			for _, d := range m.Differences {
				shown += d.Address
			}
		}
		return n, shown, got[len(got)-1]
	}
	p.differences = 1234
	for _, role := range []optoutv1.Role{optoutv1.Role_ROLE_OPERATOR, optoutv1.Role_ROLE_AUDITOR, optoutv1.Role_ROLE_ADMIN} {
		if n, shown, last := drift(r.as(role)); n != 1234 || !strings.Contains(shown, "p1233@example.com") || !last.Done || last.Agreed != 9 || last.Listed != 11 {
			t.Errorf("%v: %d, %v", role, n, last)
		}
	}
	// A provider of another sender is as unknown as one that is not there, and a key that is bound to a sender reaches its own only.
	bound, _ := r.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_OPERATOR, Senders: []string{"one"}})
	for name, c := range map[string]struct {
		ctx    context.Context
		q      *optoutv1.SyncProviderRequest
		reason string
	}{
		"unknown":           {r.ctx(), &optoutv1.SyncProviderRequest{Id: "x"}, "NOT_FOUND"},
		"of another sender": {r.ctx(), &optoutv1.SyncProviderRequest{Id: "b"}, "NOT_FOUND"},
		"unknown sender":    {r.ctx(), &optoutv1.SyncProviderRequest{Sender: "nosuch", Id: "b"}, "UNKNOWN_SENDER"},
		"without an API":    {r.ctx(), &optoutv1.SyncProviderRequest{Id: "c"}, "PROVIDER"},
		"bound":             {with(t.Context(), bound), &optoutv1.SyncProviderRequest{Id: "a"}, "SENDER_NOT_ALLOWED"},
		"its own":           {with(t.Context(), bound), &optoutv1.SyncProviderRequest{Sender: "one", Id: "b"}, ""},
	} {
		if _, err := sync(c.ctx, c.q); reason(err) != c.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.err = &rpc.ProviderError{Problem: "the provider's API answers 401"}
	if _, err := sync(r.ctx(), &optoutv1.SyncProviderRequest{Id: "a"}); status.Code(err) != codes.FailedPrecondition || reason(err) != "PROVIDER" || !strings.Contains(err.Error(), "401") {
		t.Errorf("%v", err)
	}
	p.err = ledger.ErrStorageFull
	if _, err := sync(r.ctx(), &optoutv1.SyncProviderRequest{Id: "a"}); reason(err) != "STORAGE_FULL" {
		t.Errorf("%v", err)
	}
}

// Without providers there are none.
func TestNoProviders(t *testing.T) {
	r := newRig(t, nil)
	if l, err := r.admin.ListProviders(r.ctx(), &optoutv1.ListProvidersRequest{}); err != nil || len(l.Providers) != 0 {
		t.Errorf("%v, %v", err, l)
	}
	s, err := r.admin.GetProviderDrift(r.ctx(), &optoutv1.GetProviderDriftRequest{Id: "a"})
	if _, err = all(s.Recv, err); reason(err) != "NOT_FOUND" {
		t.Errorf("%v", err)
	}
}
