package service

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"optout/service/hooks"
	"optout/service/ledger"
	"optout/service/provider"
	"optout/service/rpc"
)

// providersFolder, in the data folder, keeps how far each provider was read and pushed to.
const providersFolder = "providers"

// newProviders sets up the email service providers, when there is a configuration of them.
func (s *Service) newProviders() error {
	if s.cfg.Providers == "" {
		return nil
	}
	events := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "optout_provider_events_total", Help: "What providers told and were told, by provider, kind of event and what became of it."},
		[]string{"provider", "event", "outcome"})
	var err error
	s.hooks, err = hooks.New(hooks.Options{Ledger: s.ledger, Config: s.cfg.Providers, Folder: filepath.Join(s.cfg.Data, providersFolder), Client: s.cfg.ProvidersClient,
		Now: s.cfg.Now, Random: s.cfg.Random, Log: s.log, Observe: func(id, what, outcome string, n int) {
			events.WithLabelValues(id, what, outcome).Add(float64(n))
		}})
	if err != nil {
		return fmt.Errorf("--providers: %w", err)
	}
	s.meters.registry.MustRegister(events)
	return nil
}

// withWebhooks puts the webhooks of providers before another handler.
func (s *Service) withWebhooks(next http.Handler) http.Handler {
	if s.hooks == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := hooks.Route(r.URL.Path); ok {
			s.hooks.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// providers is what the API knows of them; nil when there are none.
func (s *Service) providers() rpc.Providers {
	if s.hooks == nil {
		return nil
	}
	return providerCalls{s.hooks}
}

// providerCalls gives the API's words to what package hooks does: adapters do not know each other.
type providerCalls struct{ hooks *hooks.Server }

// List tells how each provider is.
func (p providerCalls) List() []rpc.ProviderStatus {
	var all []rpc.ProviderStatus
	for _, x := range p.hooks.List() {
		all = append(all, rpc.ProviderStatus{ID: x.ID, Kind: x.Kind, Sender: x.Sender, Scope: x.Scope, WebhookPath: x.Path, Poll: x.Poll, API: x.API, Push: x.Push,
			Recorded: x.Recorded, LastEvent: x.LastEvent, LastPoll: x.LastPoll, LastPush: x.LastPush, LastControl: x.LastControl, PollError: x.PollError,
			PushError: x.PushError, PushedTo: x.PushedTo, Behind: x.Behind, Pushed: x.Pushed, Refused: x.Refused, Unknown: x.Unknown})
	}
	return all
}

// Sync reads and pushes now.
func (p providerCalls) Sync(ctx context.Context, id string, full bool, progress func(rpc.ProviderProgress)) error {
	return fault(p.hooks.Sync(ctx, id, full, func(x hooks.Progress) {
		progress(rpc.ProviderProgress{List: x.List, Read: x.Read, Recorded: x.Recorded, Unreadable: x.Unreadable, Pushed: x.Pushed, Refused: x.Refused, Unknown: x.Unknown})
	}))
}

// Compare tells the differences.
func (p providerCalls) Compare(ctx context.Context, id string, found func(rpc.ProviderDifference) error) (rpc.ProviderDrift, error) {
	d, err := p.hooks.Compare(ctx, id, func(x hooks.Difference) error {
		return found(rpc.ProviderDifference{HereOnly: x.HereOnly, Address: x.Address, Why: x.Why, Since: x.Since})
	})
	return rpc.ProviderDrift{Agreed: d.Agreed, HereOnly: d.HereOnly, ThereOnly: d.ThereOnly, Unknown: d.Unknown, Unreadable: d.Unreadable, Listed: d.Listed, Position: d.Position}, fault(err)
}

// fault tells the API which errors are the provider's.
func fault(err error) error {
	var api *provider.APIError
	switch {
	case errors.Is(err, hooks.ErrUnknown):
		return ledger.ErrNotFound
	case errors.As(err, &api), errors.Is(err, provider.ErrUnreachable), errors.Is(err, hooks.ErrTooMany):
		return &rpc.ProviderError{Problem: err.Error()}
	}
	return err
}
