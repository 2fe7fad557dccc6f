package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
	"optout/service/mailtest"
)

func TestNewTellsWhatIsMissing(t *testing.T) {
	t.Setenv("OPTOUT_KEY", "")
	for name, x := range map[string]struct {
		option client.Option
		want   string
	}{
		"no key":            {client.WithSender("default"), "no API key"},
		"empty key":         {client.WithKey(""), "no API key"},
		"key with newline":  {client.WithKey("very-secret\n"), "white space"},
		"no such key file":  {client.WithKeyFile(filepath.Join(t.TempDir(), "nosuch")), "no such file"},
		"no time":           {client.WithTimeout(0), "WithTimeout"},
		"time in the past":  {client.WithTimeout(-time.Second), "WithTimeout"},
		"empty file's path": {client.WithKeyFile(""), "no such file"},
	} {
		options := []client.Option{client.WithKey("fallback")}
		if strings.Contains(name, "key") {
			options = nil
		}
		c, err := client.New("127.0.0.1:1", append(options, x.option)...)
		if err == nil || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), "very-secret") {
			t.Errorf("%s: %v; want an error about %q, without the key", name, err, x.want)
		}
		if c != nil {
			c.Close()
		}
	}
}

// The key comes from the option, from the file without its newline, or from the variable, in that order.
func TestKeyComesFrom(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	target := newScripted().start(t)
	for name, x := range map[string]struct {
		variable string
		options  []client.Option
		code     codes.Code
	}{
		"option":             {"other", []client.Option{client.WithKey("secret")}, codes.OK},
		"file":               {"other", []client.Option{client.WithKeyFile(file)}, codes.OK},
		"variable":           {"secret", nil, codes.OK},
		"option comes first": {"secret", []client.Option{client.WithKey("other")}, codes.Unauthenticated},
	} {
		t.Setenv("OPTOUT_KEY", x.variable)
		d, err := newClient(t, target, x.options...).CheckSend(t.Context(), "news", "a@example.com")
		if status.Code(err) != x.code || d.Send() != (x.code == codes.OK) {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
}

// Off loopback, the first octets on the wire are TLS, unless plaintext was said out loud; the key never crosses in clear.
func TestTransport(t *testing.T) {
	outside := ""
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		if ip, _, _ := net.ParseCIDR(a.String()); ip != nil && ip.To4() != nil && !ip.IsLoopback() {
			outside = ip.String()
		}
	}
	const tlsHello, http2 = "\x16\x03", "PRI * HTTP/2"
	for name, x := range map[string]struct {
		host    string
		options []client.Option
		want    string
	}{
		"loopback":           {"127.0.0.1", nil, http2},
		"loopback, TLS":      {"127.0.0.1", []client.Option{client.WithTLS(nil)}, tlsHello},
		"outside":            {outside, nil, tlsHello},
		"outside, plaintext": {outside, []client.Option{client.WithPlaintext()}, http2},
	} {
		t.Run(name, func(t *testing.T) {
			if x.host == "" {
				t.Skip("this machine has no address but loopback")
			}
			l, err := net.Listen("tcp", net.JoinHostPort(x.host, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			c := newClient(t, l.Addr().String(), append(x.options, client.WithKey("secret"), client.WithTimeout(300*time.Millisecond))...)
			ended := make(chan struct{})
			go func() { defer close(ended); c.CheckSend(t.Context(), "news", "a@example.com") }()
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			first := make([]byte, 1024)
			n, _ := conn.Read(first)
			conn.Close()
			<-ended
			if !strings.HasPrefix(string(first[:n]), x.want) || strings.Contains(string(first[:n]), "secret") {
				t.Errorf("the connection begins with %.20q, want %.20q", first[:n], x.want)
			}
		})
	}
}

// A call that the service did not answer is repeated with the same request_id; another call has another. The caller's request
// stays as it was, so that it can be used for the next person.
func TestRetriesCarryTheSameRequestID(t *testing.T) {
	s := newScripted()
	var ids []string
	s.subscribe = func(r *optoutv1.SubscribeRequest) (*optoutv1.SubscribeResponse, error) {
		ids = append(ids, r.RequestId)
		if len(ids)%4 != 0 {
			return nil, status.Error(codes.Unavailable, "restarting")
		}
		return &optoutv1.SubscribeResponse{}, nil
	}
	c := s.client(t)
	r := &optoutv1.SubscribeRequest{Topic: "news"}
	for _, address := range []string{"a@example.com", "b@example.com"} {
		r.Address = address
		if _, err := c.Subscribe(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if len(ids) != 8 || ids[0] == "" || ids[0] != ids[1] || ids[0] != ids[2] || ids[0] != ids[3] || ids[4] == ids[0] || ids[4] != ids[7] {
		t.Errorf("request ids of two calls, four attempts each: %q", ids)
	}
	if r.RequestId != "" || r.Sender != "" {
		t.Errorf("the caller's request was changed: %v", r)
	}
	r.RequestId = "mine"
	if _, err := c.Subscribe(t.Context(), r); err != nil || ids[8] != "mine" || ids[11] != "mine" {
		t.Errorf("the caller's own request_id was not kept: %q, %v", ids[8:], err)
	}
}

// Attempts go on until the call's time is up, and no longer. What is not idempotent is tried once.
func TestRetriesEnd(t *testing.T) {
	s := newScripted()
	s.check = func(*optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
		return nil, status.Error(codes.Unavailable, "gone")
	}
	c := s.client(t, client.WithTimeout(2*time.Second))
	begun := time.Now()
	d, err := c.CheckSend(t.Context(), "news", "a@example.com")
	var e *client.Error
	if took := time.Since(begun); d.Send() || !errors.As(err, &e) || !e.Temporary() || took < time.Second || took > 3*time.Second || s.called("CheckSend") < 4 {
		t.Errorf("%v, %v after %v and %d attempts", d, err, took, s.called("CheckSend"))
	}
	if _, err := optoutv1.NewAdminServiceClient(c.Conn()).CreateTopic(t.Context(), &optoutv1.CreateTopicRequest{}); status.Code(err) != codes.Unavailable || s.called("CreateTopic") != 1 {
		t.Errorf("creating a topic: %v after %d attempts, want 1", err, s.called("CreateTopic"))
	}
}

// A service that is back is noticed within seconds, however long it was away.
func TestServiceComesBack(t *testing.T) {
	target := mailtest.FreeAddr(t)
	c := newClient(t, target, client.WithKey("secret"), client.WithTimeout(3*time.Second))
	if d, err := c.CheckSend(t.Context(), "news", "a@example.com"); err == nil || d.Send() {
		t.Fatalf("with the service away: %v, %v", d, err)
	}
	l, err := net.Listen("tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	newScripted().serve(t, l)
	if d, err := c.CheckSend(t.Context(), "news", "a@example.com"); err != nil || !d.Send() {
		t.Errorf("with the service back: %v, %v", d, err)
	}
}

func TestErrorsTellReasonFieldAndRemedy(t *testing.T) {
	s := newSetup(t)
	_, err := s.client.CheckSend(t.Context(), "nosuch", "a@example.com")
	var e *client.Error
	if !errors.As(err, &e) || !client.IsUnknownTopic(err) || client.IsUnknownSender(err) || e.Code != codes.NotFound || e.Field != "topic" || e.Remedy == "" || e.Temporary() {
		t.Errorf("unknown topic: %+v", e)
	}
	_, err = s.svc.Client(t, client.WithSender("nosuch")).Sender(t.Context())
	if !client.IsUnknownSender(err) || client.IsUnknownTopic(err) {
		t.Errorf("unknown sender: %v", err)
	}
	if client.Reason(errors.New("another")) != optoutv1.ErrorReason_ERROR_REASON_UNSPECIFIED || client.Reason(nil) != optoutv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		t.Error("an error that is not the client's has a reason")
	}
	_, err = s.client.CheckSend(t.Context(), "news", "jane.doe")
	if client.Reason(err) != optoutv1.ErrorReason_ERROR_REASON_INVALID_ADDRESS || strings.Contains(err.Error(), "jane") {
		t.Errorf("malformed address: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = s.client.CheckSend(ctx, "news", "a@example.com"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
