package rpc_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/address"
	"optout/service/anchor"
	"optout/service/ledger"
	"optout/service/link"
	"optout/service/receipt"
	"optout/service/rpc"
	"optout/service/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is the gRPC server on a real ledger and SQLite store, behind a real listener, with a connection to it.
type rig struct {
	t        testing.TB
	ledger   *ledger.Ledger
	store    *sqlite.Store
	ring     atomic.Pointer[link.Ring]
	server   *rpc.Server
	receipts *receipt.Signer
	addr     string
	secret   string // of an admin key, number 1
	// submitted are the messages that were handed in.
	submitted []*rpc.Message
	log       *syncBuffer
	api
}

// api is a connection and the services over it.
type api struct {
	conn         *grpc.ClientConn
	suppression  optoutv1.SuppressionServiceClient
	subscription optoutv1.SubscriptionServiceClient
	link         optoutv1.LinkServiceClient
	entries      optoutv1.LedgerServiceClient
	admin        optoutv1.AdminServiceClient
	feedback     optoutv1.FeedbackServiceClient
}

// newRig starts a server. Its sender "default" has the topics news (commercial), receipts (transactional), digest (commercial,
// opt-in), law and reset (required, by law and in answer). change, if not nil, changes the server's options.
func newRig(t testing.TB, change func(*rpc.Options)) *rig {
	t.Helper()
	r := &rig{t: t, log: &syncBuffer{}}
	r.open()
	var err error
	if r.receipts, err = receipt.NewSigner(1, make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	o := rpc.Options{Ledger: r.ledger, Ring: r.ring.Load, Receipts: r.receipts,
		ReceiptKeys: []rpc.ReceiptKey{{ID: 1, Created: time.Now(), Public: r.receipts.Public()}}, PublicURL: "https://mail.example.com", MailDomain: "unsub.example.com",
		RotateLinkKey: r.rotate, Backup: r.backup, Submit: r.submit, Random: rand.Reader, Now: time.Now, Log: slog.New(slog.NewTextHandler(r.log, nil))}
	if change != nil {
		change(&o)
	}
	if r.server, err = rpc.NewServer(o); err != nil {
		t.Fatal(err)
	}
	r.server.SetServing(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(l) }()
	t.Cleanup(func() {
		r.server.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	r.api = r.dial()
	return r
}

// open opens a new ledger and sets up what every test needs.
func (r *rig) open() {
	r.t.Helper()
	dir := r.t.TempDir()
	must := func(_ any, err error) {
		r.t.Helper()
		if err != nil {
			r.t.Fatal(err)
		}
	}
	keys, err := address.NewKeyring(address.Generation{ID: 1, Secret: [32]byte{1}, Rules: 1})
	must(nil, err)
	r.store, err = sqlite.Open(r.t.Context(), filepath.Join(dir, "optout.db"), sqlite.Options{})
	must(nil, err)
	r.t.Cleanup(func() { r.store.Close() })
	r.ledger, err = ledger.Open(r.t.Context(), r.store, ledger.Options{Keys: keys, Anchor: anchor.At(filepath.Join(dir, "checkpoint")),
		Now: time.Now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	must(nil, err)
	r.t.Cleanup(func() { r.ledger.Close() })

	ctx, by := r.t.Context(), ledger.By{Role: ledger.RoleAdmin, Channel: ledger.BySystem}
	must(r.ledger.CreateSender(ctx, by, ledger.DefaultSender, ledger.SenderSettings{}))
	for _, topic := range []ledger.Topic{
		{Name: "news"},
		{Name: "receipts", Class: ledger.Transactional},
		{Name: "digest", Rule: ledger.OptInRule},
		{Name: "law", Class: ledger.Required, Ground: ledger.GroundLaw, Justification: "recall notices are demanded by law"},
		{Name: "reset", Class: ledger.Required, Ground: ledger.GroundAnswer, Justification: "password resets answer a request"},
	} {
		must(r.ledger.CreateTopic(ctx, by, "", topic))
	}
	r.secret, err = rpc.NewSecret(rand.Reader)
	must(nil, err)
	_, _, err = r.ledger.CreateAPIKey(ctx, by, ledger.NewAPIKey{Label: "first", Role: ledger.RoleAdmin}, r.secret)
	must(nil, err)
	_, _, err = r.rotate(ctx, by)
	must(nil, err)
}

// rotate makes the next link key the current one.
func (r *rig) rotate(ctx context.Context, by ledger.By) (ledger.Secret, ledger.Outcome, error) {
	n := len(r.ledger.Registry().Secrets("link")) + 1
	var all []link.Key
	for i := range n {
		all = append(all, link.Key{ID: uint8(i + 1), Secret: [32]byte{byte(i + 1)}})
	}
	o, err := r.ledger.RegisterSecret(ctx, by, ledger.Secret{Kind: "link", ID: uint16(n), Check: fmt.Sprintf("%032x", n), Generation: 1})
	if err != nil {
		return ledger.Secret{}, o, err
	}
	ring, err := link.NewRing(uint8(n), all...)
	r.ring.Store(ring)
	return r.ledger.Registry().Secrets("link")[n-1], o, err
}

func (r *rig) backup(ctx context.Context, dir string, _ bool, progress func(copied, total uint64)) (ledger.Position, ledger.Hash, error) {
	tip, err := r.store.Backup(ctx, dir, progress)
	return ledger.Position{LedgerID: tip.LedgerID, Number: tip.Head.Size}, tip.Head.Root, err
}

// dial makes a connection of its own.
func (r *rig) dial() api {
	r.t.Helper()
	conn, err := grpc.NewClient(r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return api{conn, optoutv1.NewSuppressionServiceClient(conn), optoutv1.NewSubscriptionServiceClient(conn), optoutv1.NewLinkServiceClient(conn),
		optoutv1.NewLedgerServiceClient(conn), optoutv1.NewAdminServiceClient(conn), optoutv1.NewFeedbackServiceClient(conn)}
}

// ctx carries the admin key.
func (r *rig) ctx() context.Context { return with(r.t.Context(), r.secret) }

// with puts a secret on calls.
func with(ctx context.Context, secret string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+secret)
}

// key makes an API key and returns its secret and number.
func (r *rig) key(k *optoutv1.ApiKey) (string, uint32) {
	r.t.Helper()
	k.Label = "test"
	resp, err := r.admin.CreateApiKey(r.ctx(), &optoutv1.CreateApiKeyRequest{Key: k})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.Secret, resp.Key.Number
}

// as carries a new key of a role.
func (r *rig) as(role optoutv1.Role) context.Context {
	r.t.Helper()
	secret, _ := r.key(&optoutv1.ApiKey{Role: role})
	return with(r.t.Context(), secret)
}

// optOut says a person's no to ALL.
func (r *rig) optOut(addr string) *optoutv1.UnsubscribeResponse {
	r.t.Helper()
	resp, err := r.subscription.Unsubscribe(r.ctx(), &optoutv1.UnsubscribeRequest{Address: addr})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp
}

// want checks and compares: "SEND", or the reasons, strongest first.
func (r *rig) want(topic, addr string, reasons ...optoutv1.DenialReason) {
	r.t.Helper()
	resp, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Topic: topic, Address: addr})
	if err != nil {
		r.t.Fatal(err)
	}
	if got := reasonsOf(resp.Denials); fmt.Sprint(got) != fmt.Sprint(reasons) || (resp.Verdict == optoutv1.Verdict_VERDICT_SEND) != (len(reasons) == 0) {
		r.t.Errorf("%s to %s: %v %v, want %v", topic, addr, resp.Verdict, got, reasons)
	}
}

func reasonsOf(denials []*optoutv1.Denial) []optoutv1.DenialReason {
	var reasons []optoutv1.DenialReason
	for _, d := range denials {
		reasons = append(reasons, d.Reason)
	}
	return reasons
}

// info is the ErrorInfo of an error; nil when it has none.
func info(err error) *errdetails.ErrorInfo {
	for _, d := range status.Convert(err).Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok && i.Domain == "optout" {
			return i
		}
	}
	return nil
}

// reason is the reason of an error without its prefix: "" for no error, "no ErrorInfo" for one that has none.
func reason(err error) string {
	if err == nil {
		return ""
	}
	if i := info(err); i != nil {
		return i.Reason
	}
	return "no ErrorInfo: " + err.Error()
}

// syncBuffer is a log that a test reads while the server writes.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// submit answers for what is behind SubmitReport.
func (r *rig) submit(_ context.Context, m *rpc.Message) ([]rpc.Submitted, error) {
	r.submitted = append(r.submitted, m)
	return []rpc.Submitted{{Index: 0, Outcome: "opted out", Entry: 7, Why: "signed address"}}, nil
}
