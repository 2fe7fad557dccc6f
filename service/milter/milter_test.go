package milter_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"optout/client"
	"optout/client/clienttest"
	optoutv1 "optout/proto/optout/v1"
	"optout/service"
	"optout/service/mailtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ann = "ann@example.com"
	bob = "bob@example.org"
	cy  = "cy@example.net"
)

// rig is a real service with the milter and the socketmap on, a real Postfix that uses them, and a server behind it.
type rig struct {
	t       testing.TB
	svc     *clienttest.Service
	c       *client.Client
	postfix *mailtest.Postfix
	sink    *mailtest.Sink
	number  uint32
}

func newRig(t testing.TB, key func(*optoutv1.ApiKey), topics string, settings ...string) *rig {
	t.Helper()
	return newRigWith(t, service.MilterConfig{Key: 2, Topics: topics}, key, settings...)
}

// newRigWith starts a rig with the milter's other settings as they are in c.
func newRigWith(t testing.TB, c service.MilterConfig, key func(*optoutv1.ApiKey), settings ...string) *rig {
	t.Helper()
	r := &rig{t: t, sink: mailtest.NewSink(t)}
	filter, local, socketmap := mailtest.FreeAddr(t), mailtest.FreeAddr(t), mailtest.FreeAddr(t)
	c.Listen, c.Local, c.Socketmap = filter, local, socketmap
	r.svc = clienttest.Start(t, func(s *service.Config) { s.Milter = c })
	r.c = r.svc.Client(t)
	r.svc.CreateTopic(t, "news")
	admin := optoutv1.NewAdminServiceClient(r.c.Conn())
	for _, topic := range []*optoutv1.Topic{
		{Name: "receipts", Class: optoutv1.TopicClass_TOPIC_CLASS_TRANSACTIONAL},
		{Name: "law", Class: optoutv1.TopicClass_TOPIC_CLASS_REQUIRED, Ground: optoutv1.RequiredGround_REQUIRED_GROUND_LAW, Justification: "The law demands it."},
	} {
		if _, err := admin.CreateTopic(t.Context(), &optoutv1.CreateTopicRequest{Topic: topic}); err != nil {
			t.Fatal(err)
		}
	}
	k := &optoutv1.ApiKey{Role: optoutv1.Role_ROLE_MAILER, Label: "mx", DefaultTopic: "news"}
	if key != nil {
		key(k)
	}
	made, err := admin.CreateApiKey(t.Context(), &optoutv1.CreateApiKeyRequest{Key: k})
	if err != nil {
		t.Fatal(err)
	}
	r.number = made.Key.Number
	r.postfix = mailtest.StartPostfix(t, r.sink.Addr, append([]string{"smtpd_milters = inet:" + filter, "non_smtpd_milters = inet:" + local, "milter_default_action = tempfail",
		"transport_maps = socketmap:inet:" + socketmap + ":news"}, settings...)...)
	return r
}

func (r *rig) optOut(addr string) {
	r.t.Helper()
	if _, err := r.c.Unsubscribe(r.t.Context(), addr, nil); err != nil {
		r.t.Fatal(err)
	}
}

func message(fields ...string) string {
	return strings.Join(append(fields, "From: Shop <shop@example.com>", "To: you@example.com", "Subject: hello", "", "Hello.", ""), "\r\n")
}

// session speaks SMTP with Postfix.
func (r *rig) session() *smtp.Client {
	r.t.Helper()
	c, err := smtp.Dial(r.postfix.Addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// refusal says an answer that is no 250, with its enhanced code.
func refusal(err error) string {
	if e := (*smtp.SMTPError)(nil); errors.As(err, &e) {
		return e.Error() + fmt.Sprint(e.EnhancedCode)
	}
	return err.Error()
}

// send sends a message and returns the first answer that is no 250, in words, or "".
func (r *rig) send(text string, between func(), to ...string) string {
	r.t.Helper()
	c := r.session()
	if err := c.Mail("shop@example.com", nil); err != nil {
		return err.Error()
	}
	for _, a := range to {
		if err := c.Rcpt(a, nil); err != nil {
			return refusal(err)
		}
	}
	w, err := c.Data()
	if err != nil {
		return err.Error()
	}
	if between != nil {
		between()
	}
	io.WriteString(w, text)
	if err := w.Close(); err != nil {
		return refusal(err)
	}
	return ""
}

// SMTP clients: refused at RCPT and at the end of the message, one recipient a message, and what arrives has the fields, and a
// link that works.
func TestPostfixSMTP(t *testing.T) {
	r := newRig(t, nil, "")
	r.optOut(bob)
	if got := r.send(message(), nil, bob); !strings.Contains(got, "550") || !strings.Contains(got, "opted out of all correspondence") || !strings.Contains(got, "[5 7 1]") {
		t.Errorf("suppressed: %q", got)
	}
	if got := r.send(message(), nil, ann, cy); !strings.Contains(got, "452") || !strings.Contains(got, "[4 5 3]") {
		t.Errorf("a second recipient: %q", got)
	}
	if got := r.send(message(), func() { r.optOut(cy) }, cy); !strings.Contains(got, "550") || !strings.Contains(got, "opted out") {
		t.Errorf("opted out before the end: %q", got)
	}
	if got := r.send(message("List-Unsubscribe: <https://old.example/u>", "X-Optout-Mailing: 7", "List-Unsubscribe: <https://older.example/u>", "Bcc: "+bob), nil, ann); got != "" {
		t.Fatal(got)
	}
	m := r.sink.Wait(t, 1)[0]
	lu := m.Fields("List-Unsubscribe")
	if len(lu) != 1 || !strings.HasPrefix(lu[0], "<https://mail.example.com/u/") || len(m.Fields("List-Unsubscribe-Post")) != 1 || len(m.Fields("List-Id")) != 1 ||
		len(m.Fields("X-Optout-Mailing"))+len(m.Fields("Bcc")) != 0 || m.Body() != "Hello.\r\n" {
		t.Fatalf("what arrived:\n%s", m.Text)
	}
	url, _, _ := strings.Cut(strings.TrimPrefix(lu[0], "<"), ">")
	resp, err := http.Post("http://"+r.svc.HTTP+strings.TrimPrefix(url, "https://mail.example.com"), "application/x-www-form-urlencoded", strings.NewReader("List-Unsubscribe=One-Click"))
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
	if got := r.send(message(), nil, ann); !strings.Contains(got, "550") {
		t.Errorf("after the press: %q", got)
	}
	if got := r.send(message("X-Optout-Topic: nix"), nil, "dee@example.com"); !strings.Contains(got, "550") || !strings.Contains(got, "no such topic") {
		t.Errorf("no such topic: %q", got)
	}
}

// Local programs, such as PHP's mail(): recipients are taken off at the end of the message.
func TestPostfixLocal(t *testing.T) {
	r := newRig(t, func(k *optoutv1.ApiKey) { k.Topics = []string{"news", "law"} }, "")
	r.optOut(bob)
	submit := func(text string, to ...string) (string, int) {
		return r.postfix.Run(strings.ReplaceAll(text, "\r\n", "\n"), append([]string{"sendmail", "-i", "-f", "shop@example.com"}, to...)...)
	}
	if out, code := submit(message(), ann, bob); code != 0 {
		t.Fatal(out)
	}
	if m := r.sink.Wait(t, 1)[0]; len(m.To) != 1 || m.To[0] != ann || len(m.Fields("List-Unsubscribe")) != 1 {
		t.Errorf("what arrived for %v:\n%s", m.To, m.Text)
	}
	submit(message(), bob)     // nobody is left
	submit(message(), ann, cy) // each would need a link of their own
	if out, code := submit(message("X-Optout-Topic: law"), ann, cy); code != 0 {
		t.Fatal(out)
	}
	got := r.sink.Wait(t, 2)
	waitLog(t, r.postfix, "opted out of all correspondence")
	waitLog(t, r.postfix, "send one message to each")
	for _, m := range got[1:] {
		if m.From != "" && len(m.To) != 2 {
			t.Errorf("mail of a required topic went to %v", m.To)
		}
	}
	for _, m := range r.sink.Taken() {
		for _, to := range m.To {
			if to == bob {
				t.Error("a suppressed recipient got mail")
			}
		}
	}
}

func waitLog(t *testing.T, p *mailtest.Postfix, words string) {
	t.Helper()
	var b []byte
	for range 200 {
		b, _ = os.ReadFile(p.Log)
		if strings.Contains(string(b), words) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("the log never says %q", words)
}

// Mail that was deferred is asked about again when it is tried again.
func TestPostfixDeferred(t *testing.T) {
	r := newRig(t, nil, "")
	r.sink.Refuse(func(string) error {
		return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "later"}
	}, nil)
	for _, to := range []string{ann, bob} {
		if got := r.send(message(), nil, to); got != "" {
			t.Fatal(got)
		}
	}
	waitLog(t, r.postfix, "status=deferred")
	r.optOut(ann)
	r.sink.Refuse(nil, nil)
	r.postfix.Run("", "postqueue", "-f")
	waitLog(t, r.postfix, "status=sent")
	waitLog(t, r.postfix, "opted out of all correspondence")
	for _, m := range r.sink.Taken() {
		for _, to := range m.To {
			if to == ann {
				t.Error("one who opted out while their mail was in the queue got it")
			}
		}
	}
}

// When the ledger cannot be asked the mail server is told to try again.
func TestPostfixTempfail(t *testing.T) {
	r := newRig(t, nil, "")
	if _, err := optoutv1.NewAdminServiceClient(r.c.Conn()).RevokeApiKey(t.Context(), &optoutv1.RevokeApiKeyRequest{Number: r.number}); err != nil {
		t.Fatal(err)
	}
	if got := r.send(message(), nil, ann); !strings.Contains(got, "451") {
		t.Errorf("a revoked key: %q", got)
	}
	r.svc.Stop()
	if got := r.send(message(), nil, ann); !strings.Contains(got, "451") {
		t.Errorf("no service: %q", got)
	}
}

// What becomes of mail when it cannot be judged is the operator's to say.
func TestPostfixOnError(t *testing.T) {
	for on, want := range map[string]string{"reject": "550", "accept": ""} {
		r := newRigWith(t, service.MilterConfig{Key: 2, OnError: on}, nil, "transport_maps =")
		if _, err := optoutv1.NewAdminServiceClient(r.c.Conn()).RevokeApiKey(t.Context(), &optoutv1.RevokeApiKeyRequest{Number: r.number}); err != nil {
			t.Fatal(err)
		}
		if got := r.send(message(), nil, ann); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q", on, got)
		}
	}
}

// The topic by a macro of the mail server's.
func TestPostfixTopicByMacro(t *testing.T) {
	r := newRig(t, func(k *optoutv1.ApiKey) { k.DefaultTopic = "" }, "", "transport_maps =", "milter_macro_defaults = {optout_topic}=receipts",
		"milter_mail_macros = i {mail_addr} {client_addr} {client_name} {auth_authen} {optout_topic}")
	if _, err := r.c.Unsubscribe(t.Context(), ann, &optoutv1.Scope{Kind: optoutv1.ScopeKind_SCOPE_KIND_COMMERCIAL}); err != nil {
		t.Fatal(err)
	}
	if got := r.send(message(), nil, ann); got != "" {
		t.Errorf("receipts by macro: %q", got)
	}
	if m := r.sink.Wait(t, 1)[0]; !strings.Contains(strings.Join(m.Fields("List-Id"), ""), "receipts.") {
		t.Errorf("List-Id %q", m.Fields("List-Id"))
	}
}

// The topic by map: who sends decides; the message's own field goes before it.
func TestPostfixTopicByMap(t *testing.T) {
	path := t.TempDir() + "/topics"
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# by sender\nsender:@shop.example receipts\nsender:shop@example.com receipts\n")
	r := newRig(t, func(k *optoutv1.ApiKey) { k.DefaultTopic = "" }, path, "transport_maps =")
	if _, err := r.c.Unsubscribe(t.Context(), ann, &optoutv1.Scope{Kind: optoutv1.ScopeKind_SCOPE_KIND_COMMERCIAL}); err != nil {
		t.Fatal(err)
	}
	if got := r.send(message(), nil, ann); got != "" {
		t.Errorf("receipts: %q", got)
	}
	if got := r.send(message("X-Optout-Topic: news"), nil, ann); !strings.Contains(got, "550") {
		t.Errorf("news by field: %q", got)
	}
	write("client:127.0.0.0/8 news\n")
	if got := r.send(message(), nil, ann); !strings.Contains(got, "commercial mail") {
		t.Errorf("news by map: %q", got)
	}
	write("nonsense\n")
	if got := r.send(message(), nil, ann); !strings.Contains(got, "451") {
		t.Errorf("a map that cannot be read: %q", got)
	}
}

// Settings that do not fit together stop the start, and name the flag.
func TestMilterSettings(t *testing.T) {
	for name, c := range map[string]service.MilterConfig{
		"--milter-key":      {Socketmap: "127.0.0.1:0"},
		"--milter-on-error": {Socketmap: "127.0.0.1:0", Key: 1, OnError: "nix"},
		"--milter-topics":   {Socketmap: "127.0.0.1:0", Key: 1, Topics: "/nonexistent"},
		"no TLS":            {Listen: "0.0.0.0:0", Key: 1},
	} {
		s, err := service.New(t.Context(), service.Config{Data: t.TempDir() + "/data", GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0", PublicURL: "https://mail.example.com", Milter: c})
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The socketmap, as Postfix speaks it.
func TestSocketmap(t *testing.T) {
	addr := mailtest.FreeAddr(t)
	svc := clienttest.Start(t, func(c *service.Config) { c.Milter = service.MilterConfig{Socketmap: addr, Key: 2} })
	c := svc.Client(t)
	svc.CreateTopic(t, "news")
	svc.CreateTopic(t, "offers")
	if _, err := optoutv1.NewAdminServiceClient(c.Conn()).CreateApiKey(t.Context(), &optoutv1.CreateApiKeyRequest{Key: &optoutv1.ApiKey{Role: optoutv1.Role_ROLE_MAILER, Label: "mx", DefaultTopic: "news"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Unsubscribe(t.Context(), ann, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Unsubscribe(t.Context(), bob, &optoutv1.Scope{Topic: "news"}); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(conn)
	for _, q := range []struct{ ask, want string }{
		{"news " + ann, "OK error:5.7.1 news: not to be mailed: the person opted out of all correspondence"},
		{"news ANN@EXAMPLE.COM", "OK error:5.7.1"},
		{"news " + bob, "OK error:5.7.1"},
		{"offers " + bob, "NOTFOUND "},
		{"any " + bob, "NOTFOUND "},
		{"any " + ann, "OK error:5.7.1"},
		{"news " + cy, "NOTFOUND "},
		{"news example.com", "NOTFOUND "},
		{"news *", "NOTFOUND "},
		{"news @", "NOTFOUND "},
		{"news a b@c d@example", "NOTFOUND "},
		{"nix " + ann, "PERM "},
		{"news", "PERM "},
	} {
		fmt.Fprintf(conn, "%d:%s,", len(q.ask), q.ask)
		var n int
		if _, err := fmt.Fscanf(in, "%d:", &n); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, n+1)
		if _, err := io.ReadFull(in, b); err != nil {
			t.Fatal(err)
		}
		if got := string(b); !strings.HasPrefix(got, q.want) || got[n] != ',' || strings.Contains(got, "@") {
			t.Errorf("%q: %q, want %q", q.ask, got, q.want)
		}
	}
	for _, bad := range []string{"x", "99999:", "007:news a@,", "5:news ;", strings.Repeat("9", 100)} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, bad)
		c.(*net.TCPConn).CloseWrite()
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("%q was answered %q", bad, b)
		}
		c.Close()
	}
}
