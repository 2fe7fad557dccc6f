// Package service is where the parts of optout meet: it opens store, keys and ledger, puts the adapters before them, listens,
// and ends in good order. Nothing else imports every part.
package service

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"optout/service/address"
	"optout/service/anchor"
	"optout/service/hooks"
	"optout/service/imapin"
	"optout/service/intake"
	"optout/service/keydir"
	"optout/service/ledger"
	"optout/service/link"
	"optout/service/mailgate"
	"optout/service/mailin"
	"optout/service/milter"
	"optout/service/receipt"
	"optout/service/rpc"
	"optout/service/sqlite"
	"optout/service/web"
)

// Names within the data folder.
const (
	databaseFile = "optout.db"
	anchorFile   = "checkpoint"
	adminKeyFile = "admin.key"
	keysFolder   = "keys"
)

// Service is a running optout.
type Service struct {
	cfg    Config
	log    *slog.Logger
	store  *sqlite.Store
	keys   *keydir.Dir
	ledger *ledger.Ledger
	ring   atomic.Pointer[link.Ring]
	rotate sync.Mutex
	// receipts signs the receipts of checks; receiptKeys verify them.
	receipts    *receipt.Signer
	receiptKeys []rpc.ReceiptKey
	meters      *meters

	grpc      *rpc.Server
	http      *http.Server
	admin     *http.Server
	intake    *intake.Intake
	smtp      *mailin.Server
	gate      *mailgate.Server
	filter    *milter.Server
	mailboxes []*imapin.Poller
	hooks     *hooks.Server

	listeners map[string]net.Listener
	addresses Addresses

	// FirstStart is the path of the first admin key when this start has made it; else empty.
	FirstStart string
}

// New opens everything and listens, but serves nothing yet; Run does. On a new data folder it makes keys, the sender
// "default" and the first admin key (file admin.key, 0600). It refuses to start when anything does not fit: missing or other
// keys, a damaged ledger, a listener off loopback without TLS.
func New(ctx context.Context, cfg Config) (_ *Service, err error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Keys == "" {
		cfg.Keys = filepath.Join(cfg.Data, keysFolder)
	}
	if cfg.Store != "" {
		return nil, fmt.Errorf("--store %q: only the embedded SQLite store is available: leave --store out", redactURL(cfg.Store))
	}
	if err := ledger.CheckDefaults(cfg.PublicURL, cfg.MailDomain); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, log: cfg.Log, listeners: map[string]net.Listener{}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	cert := &certificate{certFile: cfg.TLSCert, keyFile: cfg.TLSKey, now: cfg.Now, log: cfg.Log}
	tlsServer, tlsMutual, err := cfg.tls(cert)
	if err != nil {
		return nil, err
	}
	proxies, err := cfg.proxies()
	if err != nil {
		return nil, err
	}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	s.meters = newMeters(s.ledger, cert, s.cfg.Now)
	if err := s.adapters(tlsServer, tlsMutual, proxies); err != nil {
		return nil, err
	}
	return s, s.listen(tlsServer != nil)
}

// open opens keys, store and ledger, and sets up what a new installation needs.
func (s *Service) open(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.Data, 0o700); err != nil {
		return err
	}
	database := filepath.Join(s.cfg.Data, databaseFile)
	_, err := os.Stat(database)
	fresh := errors.Is(err, os.ErrNotExist)
	if s.keys, err = keydir.Open(s.cfg.Keys); err != nil {
		return err
	}
	if len(s.keys.Keys(keydir.Address)) == 0 {
		if !fresh {
			return fmt.Errorf("%s holds no address key, but %s was made with one: bring the key folder back (without it every suppressed address would look unknown)", s.cfg.Keys, database)
		}
		if _, err := s.keys.Create(keydir.Address, 1, s.cfg.Random, s.cfg.Now()); err != nil {
			return err
		}
	}
	ring, err := addressKeys(s.keys)
	if err != nil {
		return err
	}
	if s.store, err = sqlite.Open(ctx, database, sqlite.Options{Log: s.log}); err != nil {
		return err
	}
	s.ledger, err = ledger.Open(ctx, s.store, ledger.Options{Keys: ring, Anchor: anchor.At(filepath.Join(s.cfg.Data, anchorFile)),
		Now: s.cfg.Now, Random: s.cfg.Random, Log: s.log, QueueDelay: s.cfg.Inbound.QueueDelay, SourceLimit: s.cfg.Inbound.SourceLimit, Progress: func(read, total uint64) {
			s.log.Info("reading the ledger", "entries", read, "total", total)
		}})
	if err != nil {
		return err
	}
	if behind := s.ledger.ClockBehind(); behind > time.Minute {
		s.log.Warn("the clock is behind the newest entry: it is wrong, or it was when that was written; new entries take the newest one's time until the clock has reached it",
			"behind", behind.Round(time.Second), "remedy", "see to the time service of this machine")
	}
	if err := s.bootstrap(ctx); err != nil {
		if errors.Is(err, ledger.ErrStorageFull) {
			return fmt.Errorf("--data %s: the volume is full or nearly so, and a new ledger has to be begun: make room (at least 16 MiB must stay free, on larger volumes 2 %%, but never more than 256 MiB)", s.cfg.Data)
		}
		return err
	}
	if err := s.loadRing(); err != nil {
		return err
	}
	return s.loadReceipts()
}

// addressKeys makes the keyring of the folder's address keys.
func addressKeys(dir *keydir.Dir) (*address.Keyring, error) {
	var gens []address.Generation
	for _, k := range dir.Keys(keydir.Address) {
		gens = append(gens, address.Generation{ID: k.ID, Secret: k.Secret, Rules: 1})
	}
	return address.NewKeyring(gens...)
}

// adapters builds what stands before the ledger.
func (s *Service) adapters(tlsServer, tlsMutual *tls.Config, proxies []netip.Prefix) (err error) {
	cfg := &s.cfg
	if err := errors.Join(s.newIntake(), s.newMailboxes(), s.newProviders()); err != nil {
		return err
	}
	s.grpc, err = rpc.NewServer(rpc.Options{Ledger: s.ledger, Ring: s.ring.Load, Receipts: s.receipts, ReceiptKeys: s.receiptKeys, PublicURL: cfg.PublicURL, MailDomain: cfg.MailDomain,
		RotateLinkKey: s.rotateLinkKey, Backup: s.backup, Submit: s.submit, Providers: s.providers(), Random: cfg.Random, Now: cfg.Now, Log: s.log, TLS: tlsMutual,
		Observe: s.meters.rpc})
	if err != nil {
		return err
	}
	pages := web.New(web.Options{Ledger: s.ledger, Ring: s.ring.Load, TrustedProxies: proxies, Now: cfg.Now, Log: s.log,
		Observe: s.meters.web})
	public := s.withWebhooks(pages)
	api := s.grpc.JSON(cfg.TLSClientCA != "")
	s.http = web.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, rpc.JSONPrefix) {
			api.ServeHTTP(w, r)
			return
		}
		public.ServeHTTP(w, r)
	}), optionalCertificates(tlsServer, tlsMutual), s.log)
	s.admin = web.Server(s.adminHandler(), tlsMutual, s.log)
	if cfg.SMTP != "" {
		s.smtp = mailin.New(mailin.Options{Intake: s.intake, Hostname: hostname(cfg), LMTP: strings.HasPrefix(cfg.SMTP, unixPrefix), TLS: tlsServer, Log: s.log})
	}
	if err := s.newGate(tlsServer); err != nil {
		return err
	}
	return s.newMilter()
}

// mailDomains are the domains whose unsubscribe addresses are ours.
func (s *Service) mailDomains() []string {
	var d []string
	if s.cfg.MailDomain != "" {
		d = append(d, s.cfg.MailDomain)
	}
	for _, x := range s.ledger.Registry().Senders() {
		if x.MailDomain != "" {
			d = append(d, x.MailDomain)
		}
	}
	return d
}

func hostname(cfg *Config) string {
	if cfg.MailDomain != "" {
		return cfg.MailDomain
	}
	return "localhost"
}

// Ledger returns the core, for tests and tools that live in the same process.
func (s *Service) Ledger() *ledger.Ledger { return s.ledger }

// Addresses returns the addresses in use.
func (s *Service) Addresses() Addresses { return s.addresses }

// DrainTime is how long calls in flight get to end when the service stops.
const DrainTime = 10 * time.Second

// Run serves until ctx ends, then drains and closes everything, and returns nil. It returns an error when a listener or the
// ledger fails: after that nothing more is acknowledged, and a restart recovers.
func (s *Service) Run(ctx context.Context) error {
	failed := make(chan error, 8)
	var serving sync.WaitGroup
	serve := func(name string, f func(net.Listener) error) {
		l := s.listeners[name]
		if l == nil {
			return
		}
		serving.Go(func() {
			if err := f(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("%s listener: %w", name, err)
			}
		})
	}
	serveHTTP := func(h *http.Server) func(net.Listener) error {
		return func(l net.Listener) error {
			if h.TLSConfig != nil {
				return h.ServeTLS(l, "", "")
			}
			return h.Serve(l)
		}
	}
	serve("grpc", s.grpc.Serve)
	serve("http", serveHTTP(s.http))
	serve("admin", serveHTTP(s.admin))
	if s.smtp != nil {
		serve("smtp", s.smtp.Serve)
	}
	if s.gate != nil {
		serve("gate", func(l net.Listener) error { return s.gate.Serve(l, false) })
		serve("submissions", func(l net.Listener) error { return s.gate.Serve(l, true) })
	}
	if s.filter != nil {
		serve("milter", func(l net.Listener) error { return s.filter.Serve(l, false) })
		serve("milter-local", func(l net.Listener) error { return s.filter.Serve(l, true) })
		serve("socketmap", s.filter.ServeMap)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	serving.Go(func() { s.intake.Run(background) })
	for _, m := range s.mailboxes {
		serving.Go(func() { m.Run(background) })
	}
	if s.hooks != nil {
		serving.Go(func() { s.hooks.Run(background) })
	}
	s.grpc.SetServing(true)
	s.log.Info("serving", "grpc", s.addresses.GRPC, "http", s.addresses.HTTP, "admin", s.addresses.Admin, "smtp", s.addresses.SMTP, "gate", s.addresses.Gate, "milter", s.addresses.Milter, "ledger", s.ledger.ID())

	var err error
	select {
	case <-ctx.Done():
	case <-s.ledger.Done():
		err = fmt.Errorf("the ledger failed: %w", s.ledger.Err())
	case err = <-failed:
	}
	s.grpc.SetServing(false)
	stop()
	s.drain(err == nil)
	serving.Wait()
	return errors.Join(err, s.close())
}

// drain ends the listeners: in good order within DrainTime, or at once when the ledger has failed.
func (s *Service) drain(orderly bool) {
	limit := DrainTime
	if !orderly {
		limit = time.Second // failing calls answer at once; nothing waits for a ledger that is gone
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var all sync.WaitGroup
	for _, h := range []*http.Server{s.http, s.admin} {
		all.Go(func() {
			if h.Shutdown(ctx) != nil {
				h.Close()
			}
		})
	}
	all.Go(func() {
		stop := context.AfterFunc(ctx, s.grpc.Stop)
		defer stop()
		s.grpc.GracefulStop()
	})
	if s.smtp != nil {
		all.Go(func() { s.smtp.Close() })
	}
	if s.gate != nil {
		all.Go(func() {
			if err := s.gate.Close(ctx); err != nil {
				s.log.Error("the gate did not end well", "error", err)
			}
		})
	}
	if s.filter != nil {
		all.Go(func() { s.filter.Close(ctx) })
	}
	all.Wait()
}

// Close ends a service that was made but is not run.
func (s *Service) Close() error { return s.close() }

func (s *Service) close() error {
	for _, l := range s.listeners {
		l.Close()
	}
	var errs []error
	if s.gate != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		errs = append(errs, s.gate.Close(ctx))
	}
	if s.hooks != nil {
		errs = append(errs, s.hooks.Close())
	}
	if s.ledger != nil {
		errs = append(errs, s.ledger.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	s.ledger, s.store = nil, nil
	return errors.Join(errs...)
}
