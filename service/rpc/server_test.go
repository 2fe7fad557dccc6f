package rpc_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
	"optout/service/link"
	"optout/service/rpc"
)

// A fault of ours is INTERNAL: never a verdict, never a detail; the log has it under the id that the caller is told.
func TestFaultsOfOurs(t *testing.T) {
	r := newRig(t, func(o *rpc.Options) {
		o.Ring = func() *link.Ring { panic("bug at ann@example.com") }
		o.RotateLinkKey = func(context.Context, ledger.By) (ledger.Secret, ledger.Outcome, error) {
			return ledger.Secret{}, ledger.Outcome{}, errors.New("open /var/lib/secret: permission denied")
		}
		o.Backup = func(context.Context, string, bool, func(copied, total uint64)) (ledger.Position, ledger.Hash, error) {
			panic("bug in a stream")
		}
	})
	check := &optoutv1.CheckSendRequest{Topic: "news", Address: "ann@example.com", WantHeaders: true}
	for name, c := range map[string]struct {
		call   func() error
		logged string
	}{
		"a panic in a check": {func() error {
			resp, err := r.suppression.CheckSend(r.ctx(), check)
			if resp.GetVerdict() != 0 {
				t.Errorf("a panic was answered %v", resp)
			}
			return err
		}, "bug at"},
		"an unknown error": {func() error {
			_, err := r.admin.RotateLinkKey(r.ctx(), &optoutv1.RotateLinkKeyRequest{})
			return err
		}, "/var/lib/secret"},
		"a panic in a stream": {func() error {
			s, err := r.admin.Backup(r.ctx(), &optoutv1.BackupRequest{Directory: "/nowhere"})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		}, "bug in a stream"},
	} {
		err := c.call()
		if status.Code(err) != codes.Internal || reason(err) != "INTERNAL" {
			t.Errorf("%s: %v", name, err)
			continue
		}
		id := info(err).Metadata["incident"]
		if len(id) != 12 || strings.Contains(err.Error(), c.logged) {
			t.Errorf("%s: %v, incident %q", name, err, id)
		}
		found := false
		for line := range strings.Lines(r.log.String()) {
			found = found || strings.Contains(line, id) && strings.Contains(line, c.logged) && strings.Contains(line, "method=/optout.v1.")
		}
		if !found {
			t.Errorf("%s: incident %s is not in the log: %s", name, id, r.log)
		}
	}
	// The server lives on.
	r.want("news", "ann@example.com")
}

// One verification and one backup at a time; more are told to come back.
func TestLongCallsAreBounded(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(o *rpc.Options) {
		o.Backup = func(_ context.Context, _ string, _ bool, progress func(copied, total uint64)) (ledger.Position, ledger.Hash, error) {
			select {
			case entered <- struct{}{}:
			case <-leave:
			}
			<-leave
			return ledger.Position{Number: 5}, ledger.Hash{1}, nil
		}
	})
	ctx, cancel := context.WithTimeout(r.ctx(), 20*time.Second)
	defer cancel()
	backup := func() error {
		s, err := r.admin.Backup(ctx, &optoutv1.BackupRequest{Directory: "/nowhere"})
		if err != nil {
			return err
		}
		m, err := s.Recv()
		if err == nil && (!m.Done || m.Position.GetNumber() != 5 || len(m.RootHash) != 32) {
			t.Errorf("%v", m)
		}
		return err
	}
	first := make(chan error)
	go func() { first <- backup() }()
	<-entered
	if err := backup(); reason(err) != "OVERLOADED" || status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a second backup: %v", err)
	}
	if err := r.verify(); err != nil {
		t.Errorf("a verification beside the backup: %v", err)
	}
	close(leave)
	if err := <-first; err != nil {
		t.Errorf("the first backup: %v", err)
	}
	if err := backup(); err != nil {
		t.Errorf("a backup after it: %v", err)
	}
	var together sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]int{}
	r.suppressed(20000)
	for range 50 {
		together.Go(func() {
			err := r.verify()
			mu.Lock()
			defer mu.Unlock()
			answers[reason(err)]++
		})
	}
	together.Wait()
	if answers[""] == 0 || answers["OVERLOADED"] == 0 || answers[""]+answers["OVERLOADED"] != 50 {
		t.Errorf("50 verifications at once: %v", answers)
	}
}

// verify verifies the ledger and returns the error of the call; what the verification finds must be good.
func (r *rig) verify() error {
	s, err := r.entries.Verify(r.ctx(), &optoutv1.VerifyRequest{})
	if err != nil {
		return err
	}
	var last *optoutv1.VerifyResponse
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if last.GetDone() {
			r.t.Errorf("after the result: %v", m)
		}
		last = m
	}
	if !last.GetDone() || last.FirstBad != 0 || last.Verified == 0 || last.Verified != last.Position.Number {
		r.t.Errorf("%v", last)
	}
	return nil
}

// Calls whose caller set no deadline, or one far away, get ours.
func TestCallsHaveADeadline(t *testing.T) {
	deadlines := make(chan time.Duration, 1)
	r := newRig(t, func(o *rpc.Options) {
		o.RotateLinkKey = func(ctx context.Context, _ ledger.By) (ledger.Secret, ledger.Outcome, error) {
			d, ok := ctx.Deadline()
			if !ok {
				d = time.Now().Add(24 * time.Hour)
			}
			deadlines <- time.Until(d)
			return ledger.Secret{}, ledger.Outcome{}, ctx.Err()
		}
	})
	for asked, want := range map[time.Duration]time.Duration{0: 30 * time.Second, 10 * time.Minute: 30 * time.Second, 5 * time.Second: 5 * time.Second} {
		ctx, cancel := r.ctx(), context.CancelFunc(func() {})
		if asked != 0 {
			ctx, cancel = context.WithTimeout(ctx, asked)
		}
		r.admin.RotateLinkKey(ctx, &optoutv1.RotateLinkKeyRequest{})
		cancel()
		if got := <-deadlines; got > want || got < want-3*time.Second {
			t.Errorf("asked for %v, got %v, want %v", asked, got, want)
		}
	}
}

// A stop lets calls in flight end, takes no new ones, and does not wait for those that watch or explore for ever.
func TestGracefulStop(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(o *rpc.Options) {
		o.RotateLinkKey = func(context.Context, ledger.By) (ledger.Secret, ledger.Outcome, error) {
			close(entered)
			<-leave
			return ledger.Secret{}, ledger.Outcome{}, ledger.ErrStorageFull
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	w, err := healthpb.NewHealthClient(r.conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err == nil {
		_, err = w.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	exploring, err := reflectionpb.NewServerReflectionClient(r.conn).ServerReflectionInfo(r.ctx())
	if err == nil {
		err = exploring.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	}
	if err == nil {
		_, err = exploring.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	flight := make(chan error)
	go func() {
		_, err := r.admin.RotateLinkKey(r.ctx(), &optoutv1.RotateLinkKeyRequest{})
		flight <- err
	}()
	<-entered
	stopped := make(chan struct{})
	go func() { r.server.GracefulStop(); close(stopped) }()
	if _, err := w.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the watch goes on: %v", err)
	}
	select {
	case <-stopped:
		t.Fatal("it stopped with a call in flight")
	case <-time.After(50 * time.Millisecond):
	}
	close(leave)
	if err := <-flight; reason(err) != "STORAGE_FULL" {
		t.Errorf("the call in flight: %v", err)
	}
	select {
	case <-stopped:
	case <-time.After(5 * time.Second):
		t.Error("it does not stop")
	}
}

// What is larger than the limits never reaches a handler.
func TestOversizedCallsAreRefused(t *testing.T) {
	r := newRig(t, nil)
	huge := &optoutv1.CheckSendRequest{Topic: "news", Address: strings.Repeat("a", 5<<20)}
	if _, err := r.suppression.CheckSend(r.ctx(), huge); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of 5 MiB: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(r.ctx(), "x-padding", strings.Repeat("a", 20<<10))
	if _, err := r.suppression.CheckSend(ctx, &optoutv1.CheckSendRequest{Topic: "news", Address: "ann@example.com"}); err == nil {
		t.Error("20 KiB of metadata were taken")
	}
	r.want("news", "ann@example.com")
}

func TestObserve(t *testing.T) {
	type seen struct {
		method string
		code   codes.Code
	}
	calls := make(chan seen, 8)
	r := newRig(t, func(o *rpc.Options) {
		o.Observe = func(method string, code codes.Code, d time.Duration) {
			if d <= 0 || d > time.Minute {
				t.Errorf("%s took %v", method, d)
			}
			calls <- seen{method, code}
		}
	})
	r.want("news", "ann@example.com")
	if got := <-calls; got != (seen{"/optout.v1.SuppressionService/CheckSend", codes.OK}) {
		t.Errorf("%v", got)
	}
	r.suppression.CheckSend(t.Context(), &optoutv1.CheckSendRequest{})
	if got := <-calls; got != (seen{"/optout.v1.SuppressionService/CheckSend", codes.Unauthenticated}) {
		t.Errorf("%v", got)
	}
	if err := r.verify(); err != nil {
		t.Fatal(err)
	}
	if got := <-calls; got != (seen{"/optout.v1.LedgerService/Verify", codes.OK}) {
		t.Errorf("%v", got)
	}
}

func TestNewServerNeedsItsOptions(t *testing.T) {
	if _, err := rpc.NewServer(rpc.Options{}); err == nil {
		t.Error("a server without a ledger")
	}
}

// Secrets are as long as they say, and each is another.
func TestNewSecret(t *testing.T) {
	a, err := rpc.NewSecret(strings.NewReader(strings.Repeat("\x00", 31) + "\x01"))
	if err != nil || a != "optout_"+strings.Repeat("a", 50)+"aq" {
		t.Errorf("%q, %v", a, err)
	}
	if s, err := rpc.NewSecret(strings.NewReader("short")); err == nil || s != "" {
		t.Errorf("too little randomness: %q", s)
	}
}
