package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
)

// Providers are the email service providers that the service talks to.
type Providers interface {
	// List tells how each is, in the order of the configuration.
	List() []ProviderStatus
	// Sync reads the lists of a provider and pushes to it. Errors: *ProviderError, and those of the ledger.
	Sync(ctx context.Context, id string, full bool, progress func(ProviderProgress)) error
	// Compare tells every difference between the ledger and a provider's lists. Errors: those of Sync, and of found.
	Compare(ctx context.Context, id string, found func(ProviderDifference) error) (ProviderDrift, error)
}

// ProviderStatus is how a provider is.
type ProviderStatus struct {
	ID, Kind, Sender, Scope, WebhookPath string
	Poll                                 time.Duration
	API, Push                            bool
	Recorded                             uint64
	LastEvent, LastPoll, LastPush        time.Time
	LastControl, PollError, PushError    string
	PushedTo, Behind                     uint64
	Pushed, Refused, Unknown             uint64
}

// ProviderProgress is how far a sync is.
type ProviderProgress struct {
	List                                                 string
	Read, Recorded, Unreadable, Pushed, Refused, Unknown int
}

// ProviderDifference is an address on which ledger and provider differ.
type ProviderDifference struct {
	HereOnly     bool
	Address, Why string
	Since        time.Time
}

// ProviderDrift sums up a comparison.
type ProviderDrift struct {
	Agreed, HereOnly, ThereOnly, Unknown, Unreadable, Listed int
	Position                                                 uint64
}

// ProviderError is a fault of a provider's API, in words without personal data.
type ProviderError struct{ Problem string }

// Error is the problem.
func (e *ProviderError) Error() string { return e.Problem }

// provider finds a provider of the sender. One of another sender is as unknown as one that is not there.
func (h *handlers) provider(sender, id string) (*ProviderStatus, error) {
	s, err := h.sender("sender", sender)
	if err != nil {
		return nil, err
	}
	if h.Providers != nil {
		for _, p := range h.Providers.List() {
			if p.ID == id && p.Sender == s.Name {
				if !p.API {
					return nil, &ledger.Error{Kind: errProvider, Field: "id", Problem: "the provider has no API that could be asked", Remedy: "give its api_key_file in the file of providers; the generic one has only its webhook"}
				}
				return &p, nil
			}
		}
	}
	return nil, &ledger.Error{Kind: ledger.ErrNotFound, Field: "id", Problem: "there is no such provider at this sender", Remedy: "see \"optout provider list\""}
}

// providerFault puts the fault of a provider's API into the API's words.
func providerFault(err error) error {
	var fault *ProviderError
	if errors.As(err, &fault) {
		return &ledger.Error{Kind: errProvider, Problem: fault.Problem, Remedy: "look at the provider's settings in the configuration, and repeat"}
	}
	return err
}

// ListProviders lists the providers of a sender.
func (h *handlers) ListProviders(_ context.Context, r *optoutv1.ListProvidersRequest) (*optoutv1.ListProvidersResponse, error) {
	s, err := h.sender("sender", r.Sender)
	if err != nil {
		return nil, err
	}
	resp := &optoutv1.ListProvidersResponse{}
	if h.Providers == nil {
		return resp, nil
	}
	for _, p := range h.Providers.List() {
		if p.Sender != s.Name {
			continue
		}
		resp.Providers = append(resp.Providers, &optoutv1.Provider{Id: p.ID, Kind: p.Kind, Sender: p.Sender, Scope: p.Scope, WebhookPath: p.WebhookPath,
			PollSeconds: uint32(p.Poll / time.Second), Api: p.API, Push: p.Push, Recorded: p.Recorded, LastEventAt: stamp(p.LastEvent), LastControl: p.LastControl,
			LastPollAt: stamp(p.LastPoll), PollError: p.PollError, LastPushAt: stamp(p.LastPush), PushError: p.PushError, PushedTo: p.PushedTo, Behind: p.Behind,
			Pushed: p.Pushed, Refused: p.Refused, Unknown: p.Unknown})
	}
	return resp, nil
}

// SyncProvider reads and pushes now.
func (h *handlers) SyncProvider(r *optoutv1.SyncProviderRequest, s grpc.ServerStreamingServer[optoutv1.SyncProviderResponse]) error {
	p, err := h.provider(r.Sender, r.Id)
	if err != nil {
		return err
	}
	err = h.Providers.Sync(s.Context(), p.ID, r.Full, func(x ProviderProgress) {
		s.Send(&optoutv1.SyncProviderResponse{List: x.List, Read: uint64(x.Read), Recorded: uint64(x.Recorded), Unreadable: uint64(x.Unreadable),
			Pushed: uint64(x.Pushed), Refused: uint64(x.Refused), Unknown: uint64(x.Unknown)}) // a caller who went away ends the context
	})
	if err != nil {
		return providerFault(err)
	}
	return s.Send(&optoutv1.SyncProviderResponse{Done: true, Position: h.position(h.Ledger.Position().Number)})
}

// driftAtOnce is how many differences a message holds.
const driftAtOnce = 500

// GetProviderDrift compares.
func (h *handlers) GetProviderDrift(r *optoutv1.GetProviderDriftRequest, s grpc.ServerStreamingServer[optoutv1.GetProviderDriftResponse]) error {
	p, err := h.provider(r.Sender, r.Id)
	if err != nil {
		return err
	}
	see := sights[caller(s.Context()).Role]
	out := &optoutv1.GetProviderDriftResponse{}
	d, err := h.Providers.Compare(s.Context(), p.ID, func(x ProviderDifference) error {
		one := &optoutv1.ProviderDrift{Side: optoutv1.DriftSide_DRIFT_SIDE_THERE_ONLY, Why: x.Why, Since: stamp(x.Since)}
		if x.HereOnly {
			one.Side = optoutv1.DriftSide_DRIFT_SIDE_HERE_ONLY
		}
		if see.listed {
			one.Address = x.Address
		}
		if out.Differences = append(out.Differences, one); len(out.Differences) < driftAtOnce {
			return nil
		}
		full := out
		out = &optoutv1.GetProviderDriftResponse{}
		return s.Send(full)
	})
	if err != nil {
		return providerFault(err)
	}
	out.Done, out.Position = true, h.position(d.Position)
	out.Agreed, out.HereOnly, out.ThereOnly = uint64(d.Agreed), uint64(d.HereOnly), uint64(d.ThereOnly)
	out.Unknown, out.Unreadable, out.Listed = uint64(d.Unknown), uint64(d.Unreadable), uint64(d.Listed)
	return s.Send(out)
}
