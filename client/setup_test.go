package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/wneessen/go-mail"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"optout/client"
	"optout/client/clienttest"
	optoutv1 "optout/proto/optout/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// setup is a real service, a client of it, and a Mailer that delivers to a real mail server.
type setup struct {
	svc    *clienttest.Service
	client *client.Client
	mailer *client.Mailer
	sink   *sink
}

func newSetup(t *testing.T) *setup {
	t.Helper()
	s := &setup{svc: clienttest.Start(t), sink: newSink(t)}
	s.svc.CreateTopic(t, "news")
	s.client = s.svc.Client(t)
	s.mailer = client.NewMailer(s.client, s.sink.mail(t))
	return s
}

func (s *setup) optOut(t *testing.T, addr string) {
	t.Helper()
	if _, err := s.client.Unsubscribe(context.Background(), addr, nil); err != nil {
		t.Fatal(err)
	}
}

// sink is a real mail server that keeps what arrives.
type sink struct {
	mu       sync.Mutex
	messages map[string][]string // by envelope recipient
	wire     bytes.Buffer        // both sides' octets
	dialled  int

	before func(to string)                         // runs when a message has arrived whole, before it is acknowledged
	refuse string                                  // a recipient it refuses
	onOpen func(n int) error                       // runs when the n-th connection says hello, from 1
	onRcpt func(to string, c *smtp.Conn) error     // runs at RCPT
	reject func(to string) error                   // runs when a message has arrived whole; with an error it is not kept
	onMail func(n int, c *smtp.Conn) error         // runs at the n-th MAIL, from 1
	onData func(to string, c *smtp.Conn) error     // runs when a message has arrived whole and is kept
	unread func(to string, c *smtp.Conn) (cut int) // more than 0: the connection ends after so many octets of the message

	mails int
	host  string
	port  int
}

func newSink(t *testing.T) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{messages: map[string][]string{}}
	srv := smtp.NewServer(s)
	srv.Domain, srv.EnableSMTPUTF8 = "localhost", true
	srv.ReadTimeout, srv.WriteTimeout, srv.MaxMessageBytes, srv.MaxRecipients = time.Minute, time.Minute, 64<<20, 10
	srv.Debug = lockedWriter{s}
	srv.ErrorLog = quiet{}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); l.Close(); <-done }) // the library closes only a listener that it has begun to serve
	s.host, s.port = "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	return s
}

// mail is a go-mail client of the server.
func (s *sink) mail(t *testing.T, options ...mail.Option) *mail.Client {
	t.Helper()
	m, err := mail.NewClient(s.host, append([]mail.Option{mail.WithPort(s.port), mail.WithTLSPolicy(mail.NoTLS), mail.WithHELO("test.example.com")}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

type lockedWriter struct{ s *sink }

func (w lockedWriter) Write(b []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.wire.Write(b)
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

func (s *sink) NewSession(c *smtp.Conn) (smtp.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialled++
	if s.onOpen != nil {
		if err := s.onOpen(s.dialled); err != nil {
			return nil, err
		}
	}
	return &sinkSession{s: s, conn: c}, nil
}

func (s *sink) to(addr string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.messages[addr]
}

func (s *sink) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages {
		n += len(m)
	}
	return n
}

func (s *sink) octets() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wire.String()
}

type sinkSession struct {
	s    *sink
	conn *smtp.Conn
	to   []string
}

func (x *sinkSession) Reset()        { x.to = nil }
func (x *sinkSession) Logout() error { return nil }
func (x *sinkSession) Mail(string, *smtp.MailOptions) error {
	x.s.mu.Lock()
	x.s.mails++
	n := x.s.mails
	x.s.mu.Unlock()
	if x.s.onMail != nil {
		return x.s.onMail(n, x.conn)
	}
	return nil
}
func (x *sinkSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if to == x.s.refuse {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user: " + to}
	}
	if x.s.onRcpt != nil {
		if err := x.s.onRcpt(to, x.conn); err != nil {
			return err
		}
	}
	x.to = append(x.to, to)
	return nil
}
func (x *sinkSession) Data(r io.Reader) error {
	if x.s.unread != nil {
		if cut := x.s.unread(x.to[0], x.conn); cut > 0 {
			io.CopyN(io.Discard, r, int64(cut))
			x.conn.Conn().Close()
			return errors.New("cut")
		}
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if x.s.reject != nil {
		if err := x.s.reject(x.to[0]); err != nil {
			return err
		}
	}
	x.s.mu.Lock()
	for _, to := range x.to {
		x.s.messages[to] = append(x.s.messages[to], string(b))
	}
	x.s.mu.Unlock()
	for _, to := range x.to {
		if x.s.before != nil {
			x.s.before(to)
		}
		if x.s.onData != nil {
			if err := x.s.onData(to, x.conn); err != nil {
				return err
			}
		}
	}
	return nil
}

func message(t *testing.T, to, cc, bcc []string) *mail.Msg {
	t.Helper()
	m := mail.NewMsg()
	if err := errors.Join(m.From("letters@example.com"), m.To(to...), m.Cc(cc...), m.Bcc(bcc...)); err != nil {
		t.Fatal(err)
	}
	m.Subject("hello")
	m.SetBodyString(mail.TypeTextPlain, "Hello.\n")
	return m
}

func outcomes(r client.Report) map[string]client.Outcome {
	m := map[string]client.Outcome{}
	for _, x := range r {
		m[x.Recipient] = x.Outcome
	}
	return m
}

// header is a message's header, with a CRLF after its last field.
func header(message string) string {
	head, _, _ := strings.Cut(message, "\r\n\r\n")
	return head + "\r\n"
}

// scripted is a service that does what the real one never does: answers that do not fit, and outages to the second. Everything
// else is tested on the real service.
type scripted struct {
	optoutv1.UnimplementedSuppressionServiceServer
	optoutv1.UnimplementedSubscriptionServiceServer
	optoutv1.UnimplementedAdminServiceServer

	mu    sync.Mutex
	calls map[string]int

	check     func(*optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error)
	batch     func(*optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error)
	subscribe func(*optoutv1.SubscribeRequest) (*optoutv1.SubscribeResponse, error)
	class     optoutv1.TopicClass
	postal    string
}

func newScripted() *scripted {
	return &scripted{calls: map[string]int{}, class: optoutv1.TopicClass_TOPIC_CLASS_COMMERCIAL, postal: "1 Example Street, Springfield",
		check: func(r *optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
			return &optoutv1.CheckSendResponse{Verdict: optoutv1.Verdict_VERDICT_SEND, Link: exampleLink()}, nil
		},
		batch: func(r *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
			return &optoutv1.BatchCheckSendResponse{Verdicts: bytes.Repeat([]byte{byte(optoutv1.Verdict_VERDICT_SEND)}, len(r.Addresses))}, nil
		}}
}

func exampleLink() *optoutv1.UnsubscribeLink {
	return &optoutv1.UnsubscribeLink{Url: "https://mail.example.com/u/token", MessageToken: strings.Repeat("a", 61), Headers: []*optoutv1.Header{
		{Name: "List-Unsubscribe", Value: "<https://mail.example.com/u/token>"}, {Name: "List-Unsubscribe-Post", Value: "List-Unsubscribe=One-Click"}}}
}

// start serves on a real TCP port, and returns its address.
func (s *scripted) start(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.serve(t, l)
	return l.Addr().String()
}

func (s *scripted) serve(t *testing.T, l net.Listener) {
	g := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		s.mu.Lock()
		s.calls[info.FullMethod[strings.LastIndex(info.FullMethod, "/")+1:]]++
		s.mu.Unlock()
		if md, _ := metadata.FromIncomingContext(ctx); len(md["authorization"]) != 1 || md["authorization"][0] != "Bearer secret" {
			return nil, status.Error(codes.Unauthenticated, "no API key")
		}
		return h(ctx, req)
	}))
	optoutv1.RegisterSuppressionServiceServer(g, s)
	optoutv1.RegisterSubscriptionServiceServer(g, s)
	optoutv1.RegisterAdminServiceServer(g, s)
	done := make(chan struct{})
	go func() { defer close(done); g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
}

func (s *scripted) called(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

func (s *scripted) client(t *testing.T, options ...client.Option) *client.Client {
	t.Helper()
	return newClient(t, s.start(t), append([]client.Option{client.WithKey("secret")}, options...)...)
}

func newClient(t *testing.T, target string, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (s *scripted) CheckSend(_ context.Context, r *optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
	return s.check(r)
}
func (s *scripted) BatchCheckSend(_ context.Context, r *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
	return s.batch(r)
}
func (s *scripted) Subscribe(_ context.Context, r *optoutv1.SubscribeRequest) (*optoutv1.SubscribeResponse, error) {
	return s.subscribe(r)
}
func (s *scripted) ListTopics(context.Context, *optoutv1.ListTopicsRequest) (*optoutv1.ListTopicsResponse, error) {
	return &optoutv1.ListTopicsResponse{Topics: []*optoutv1.Topic{{Name: "news", Class: s.class}}}, nil
}
func (s *scripted) GetSender(context.Context, *optoutv1.GetSenderRequest) (*optoutv1.GetSenderResponse, error) {
	return &optoutv1.GetSenderResponse{Sender: &optoutv1.Sender{Name: "default", PostalAddress: s.postal}}, nil
}
func (s *scripted) CreateTopic(context.Context, *optoutv1.CreateTopicRequest) (*optoutv1.CreateTopicResponse, error) {
	return nil, status.Error(codes.Unavailable, "gone")
}

func press(t *testing.T, svc *clienttest.Service, link string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	resp, err := c.Post("http://"+svc.HTTP+clienttest.PressPath(link), "application/x-www-form-urlencoded", strings.NewReader("List-Unsubscribe=One-Click"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatalf("pressing answered %s", resp.Status)
	}
}

// required creates a topic of class required, with ground answer.
func (s *setup) required(t *testing.T, name string) {
	t.Helper()
	_, err := optoutv1.NewAdminServiceClient(s.client.Conn()).CreateTopic(t.Context(), &optoutv1.CreateTopicRequest{Topic: &optoutv1.Topic{Name: name,
		Class: optoutv1.TopicClass_TOPIC_CLASS_REQUIRED, Ground: optoutv1.RequiredGround_REQUIRED_GROUND_ANSWER, Justification: "it answers what the person has just asked for"}})
	if err != nil {
		t.Fatal(err)
	}
}
