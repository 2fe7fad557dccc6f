package cli

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/wneessen/go-mail"

	"optout/client"
	"optout/service/keydir"
	"optout/service/receipt"
)

// archive is a mail server that keeps every message in a Maildir, as always_bcc of Postfix does.
type archive struct {
	t   *testing.T
	dir string
	n   int
}

func (a *archive) NewSession(*smtp.Conn) (smtp.Session, error) { return a, nil }

// Reset does nothing.
func (a *archive) Reset() {}

// Logout does nothing.
func (a *archive) Logout() error { return nil }

// Mail takes every sender.
func (a *archive) Mail(string, *smtp.MailOptions) error { return nil }

// Rcpt takes every recipient.
func (a *archive) Rcpt(string, *smtp.RcptOptions) error { return nil }

// Data keeps the message.
func (a *archive) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	a.keep("Delivered-To: archive@own.example\r\n" + string(b))
	return nil
}

func (a *archive) keep(text string) {
	a.n++
	if err := os.WriteFile(filepath.Join(a.dir, "cur", fmt.Sprintf("%d.M%dP1.mx1:2,S", time.Now().Unix(), a.n)), []byte(text), 0o600); err != nil {
		a.t.Error(err)
	}
}

// receipt is the receipt on the message with this in it.
func (a *archive) receipt(mark string) string {
	a.t.Helper()
	files, _ := filepath.Glob(filepath.Join(a.dir, "cur", "*"))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if m := regexp.MustCompile(`X-Optout-Receipt: (\S+)\r\n (\S+)`).FindSubmatch(b); m != nil && strings.Contains(string(b), mark) {
			return string(m[1]) + string(m[2])
		}
	}
	a.t.Fatalf("no message with %q has a receipt", mark)
	return ""
}

// sent is what a mailer really sends, by the client with receipts.
func sent(t *testing.T, in *installation, to ...string) *archive {
	t.Helper()
	a := &archive{t: t, dir: t.TempDir()}
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.Mkdir(filepath.Join(a.dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(a)
	srv.Domain, srv.ReadTimeout, srv.WriteTimeout, srv.MaxMessageBytes = "localhost", 10*time.Second, 10*time.Second, 1<<20
	go srv.Serve(l)
	defer srv.Close()
	send(t, in, l.Addr().String(), to...)
	return a
}

// send sends each a message with a receipt through a mail server.
func send(t *testing.T, in *installation, through string, to ...string) {
	t.Helper()
	_, port, _ := net.SplitHostPort(through)
	number, _ := strconv.Atoi(port)
	server, err := mail.NewClient("127.0.0.1", mail.WithPort(number), mail.WithTLSPolicy(mail.NoTLS), mail.WithHELO("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(in.addr.GRPC, client.WithKey(readKey(t, in.data)))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, addr := range to {
		m := mail.NewMsg()
		if err := m.From("news@own.example"); err != nil {
			t.Fatal(err)
		}
		if err := m.To(addr); err != nil {
			t.Fatal(err)
		}
		m.SetBodyString(mail.TypeTextPlain, "Hello.\n")
		if report, err := client.NewMailer(cl, server, client.WithReceipts()).Send(t.Context(), "orders", m); err != nil || report[0].Outcome != client.Sent {
			t.Fatal(report, err)
		}
	}
}

// letterTo is a message as somebody else's program sends it.
func letterTo(to, id, receipt string, at time.Time) string {
	text := fmt.Sprintf("Date: %s\r\nMessage-ID: <%s@own.example>\r\nFrom: news@own.example\r\nTo: %s\r\n", at.Format(time.RFC1123Z), id, to)
	if receipt != "" {
		text += "X-Optout-Receipt: " + receipt + "\r\n"
	}
	return text + "\r\nHello.\r\n"
}

// counts reads the findings of a report.
func counts(t *testing.T, report map[string]any, want map[string]int) {
	t.Helper()
	for name, n := range report["findings"].(map[string]any) {
		if int(n.(float64)) != want[name] {
			t.Errorf("%s: %v, want %d; %v", name, n, want[name], report)
		}
	}
}

func TestAuditOfWhatAMailerSent(t *testing.T) {
	in := install(t, filepath.Join(t.TempDir(), "data"))
	in.do(t, exitOK, "topic", "create", "orders", "--class", "transactional")
	in.do(t, exitOK, "topic", "create", "recall", "--class", "required", "--ground", "law", "--justification", "The law demands recalls.")
	a := sent(t, in, "ann@example.com", "bob@example.net", "dan@example.com")
	if out := in.do(t, exitOK, "audit-mail", "--ignore-internal", "own.example", a.dir); !strings.Contains(out, "3 messages") || !regexp.MustCompile(`OK +3\n`).MatchString(out) {
		t.Errorf("all were checked: %s", out)
	}

	in.do(t, exitOK, "unsubscribe", "dan@example.com")
	in.do(t, exitOK, "unsubscribe", "eve@example.com")
	at := time.Now().Add(2 * time.Second) // whole seconds: after the opt-outs
	ann := a.receipt("ann@example.com")
	forged := ann[:100] + map[bool]string{true: "B", false: "A"}[ann[100] == 'A'] + ann[101:]
	a.keep(letterTo("cy@example.com", "unchecked", "", at))
	a.keep(letterTo("ann@example.com", "forged", forged, at))
	a.keep(letterTo("cy@example.com", "borrowed", ann, at))
	a.keep(letterTo("dan@example.com", "after", a.receipt("dan@example.com"), at))
	a.keep(letterTo("eve@example.com", "neither", "", at))
	a.keep(letterTo("ann@example.com", "late", ann, at.Add(3*time.Hour)))
	a.keep(letterTo("boss@own.example", "internal", "", at))

	report := in.object(t, exitNo, "audit-mail", "--ignore-internal", "own.example", a.dir)
	counts(t, report, map[string]int{"OK": 3, "UNCHECKED": 1, "FORGED": 1, "OTHER_ADDRESS": 1, "AFTER_OPT_OUT": 2, "STALE": 1})
	if report["ok"] != false || report["messages"].(float64) != 9 || report["left_out"].(map[string]any)["internal"].(float64) != 1 || report["offline"] != false {
		t.Errorf("%v", report)
	}
	seen := map[string]string{}
	for _, x := range report["examples"].([]any) {
		e := x.(map[string]any)
		seen[e["message_id"].(string)] = fmt.Sprint(e["finding"], " ", e["recipient"], " ", e["checked"])
	}
	for id, want := range map[string]string{"unchecked": "UNCHECKED c…@example.com false", "forged": "FORGED a…@example.com false", "borrowed": "OTHER_ADDRESS c…@example.com false",
		"after": "AFTER_OPT_OUT d…@example.com true", "neither": "AFTER_OPT_OUT e…@example.com false", "late": "STALE a…@example.com true"} {
		if got := seen["<"+id+"@own.example>"]; got != want {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
	out := in.do(t, exitNo, "audit-mail", "--ignore-internal", "own.example", "--max-examples", "1", a.dir)
	demand(t, out, `after an opt-out +2\n`, `AFTER OPT OUT:\n  \S+Z  [de]…@example\.com  <(after|neither)@own\.example>  \S+  opted out of ALL correspondence since \S+ \(entry \d+\); (not checked|checked at \S+Z for orders)\n  … and 1 more`,
		`1 messages to internal addresses alone were left out`)
	if regexp.MustCompile(`(ann|cy|dan|eve)@`).MatchString(out) {
		t.Errorf("addresses are shown: %s", out)
	}
	demand(t, in.do(t, exitNo, "audit-mail", "--ignore-internal", "own.example", "--show-addresses", a.dir), `cy@example\.com`)
	in.do(t, exitOK, "audit-mail", "--since", "2099-01-01", a.dir)
	in.do(t, exitOK, "audit-mail", "--until", "2020-01-01", a.dir)
	in.do(t, exitError, "audit-mail", filepath.Join(a.dir, "nosuch"))
	in.do(t, exitError, "audit-mail", "--topic", "nosuch", a.dir)

	in.offline(t, a)
	in.postfixLog(t, a, ann)
	in.newKey(t, a)
}

// newKey goes on with a second receipt key, which signs from the next start on; the first goes on verifying.
func (in *installation) newKey(t *testing.T, a *archive) {
	t.Helper()
	in.stop()
	keys, err := keydir.Open(filepath.Join(in.data, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Create(keydir.Receipt, 2, rand.Reader, time.Now()); err != nil {
		t.Fatal(err)
	}
	again := install(t, in.data)
	now := sent(t, again, "ann@example.com")
	if _, id, err := receipt.Parse(now.receipt("ann@example.com")); err != nil || id != 2 {
		t.Errorf("key %d signs, %v", id, err)
	}
	counts(t, again.object(t, exitNo, "audit-mail", "--ignore-internal", "own.example", a.dir, now.dir),
		map[string]int{"OK": 4, "UNCHECKED": 1, "FORGED": 1, "OTHER_ADDRESS": 1, "AFTER_OPT_OUT": 2, "STALE": 1})
	if out := again.do(t, exitOK, "key", "receipt"); strings.Count(out, "optout-receipt-key ") != 2 {
		t.Errorf("the keys: %s", out)
	}
}

// offline verifies signatures without the service.
func (in *installation) offline(t *testing.T, a *archive) {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "keys.txt")
	text := in.do(t, exitOK, "key", "receipt")
	if err := os.WriteFile(keys, []byte("# ours\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := in.env
	in.env = []string{"OPTOUT_SERVER=127.0.0.1:1"}
	defer func() { in.env = env }()
	report := in.object(t, exitNo, "audit-mail", "--offline", keys, a.dir)
	counts(t, report, map[string]int{"OK": 5, "UNCHECKED": 3, "FORGED": 1, "STALE": 1})
	if report["offline"] != true || report["position"] != nil {
		t.Errorf("%v", report)
	}
	demand(t, in.do(t, exitNo, "audit-mail", "--offline", keys, a.dir), `after an opt-out +not judged`)
	for _, bad := range []string{"", "optout-receipt-key 1 x\n"} {
		if err := os.WriteFile(keys, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		demand(t, in.do(t, exitError, "audit-mail", "--offline", keys, a.dir), `--offline: `, `optout key receipt`)
	}
}

// postfixLog audits a log of Postfix, on standard input, with an archive copy, a bounce and an opt-out while a message was queued.
func (in *installation) postfixLog(t *testing.T, a *archive, ann string) {
	t.Helper()
	now := time.Now()
	var log strings.Builder
	line := func(at time.Time, program, id, format string, args ...any) {
		fmt.Fprintf(&log, "%s mx1 postfix/%s[123]: %s: %s\n", at.Format(time.RFC3339), program, id, fmt.Sprintf(format, args...))
	}
	delivered := func(at time.Time, id, to, status string) {
		line(at, "smtp", id, "to=<%s>, relay=mx.example.com[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=%s (250 ok)", to, status)
	}
	checked := func(id, receipt string) {
		line(now, "cleanup", id, "info: header X-Optout-Receipt: %s from app[10.0.0.1]; from=<news@own.example> to=<x> proto=ESMTP helo=<app>", receipt[:60]+"? "+receipt[60:])
	}
	checked("1111111111", ann)
	line(now, "cleanup", "1111111111", "message-id=<one@own.example>")
	delivered(now, "1111111111", "ann@example.com", "sent")
	delivered(now, "1111111111", "archive@own.example", "sent")
	line(now, "qmgr", "1111111111", "removed")
	checked("2222222222", a.receipt("bob@example.net"))
	delivered(now, "2222222222", "bob@example.net", "bounced")
	checked("3333333333", a.receipt("dan@example.com"))
	delivered(now.Add(2*time.Second), "3333333333", "dan@example.com", "sent")
	line(now, "cleanup", "4444444444", "message-id=<four@own.example>")
	delivered(now, "4444444444", "cy@example.com", "sent")
	// One transaction to two, of whom one does not get it: the receipt is for both together.
	checked("5555555555", in.together(t, ann, a.receipt("bob@example.net")))
	delivered(now, "5555555555", "ann@example.com", "sent")
	delivered(now, "5555555555", "bob@example.net", "bounced")
	// The one who does not get it said no meanwhile, and that is nobody's fault.
	checked("6666666666", in.together(t, ann, a.receipt("dan@example.com")))
	delivered(now.Add(2*time.Second), "6666666666", "ann@example.com", "sent")
	delivered(now.Add(2*time.Second), "6666666666", "dan@example.com", "deferred")
	path := filepath.Join(t.TempDir(), "mail.log")
	if err := os.WriteFile(path, []byte(log.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"OK": 3, "AFTER_OPT_OUT": 1, "UNCHECKED": 1}
	counts(t, in.object(t, exitNo, "audit-mail", "--ignore-internal", "own.example", path), want)
	code, stdout, stderr := runWith(t, in.env, log.String(), "audit-mail", "--ignore-internal", "own.example", "-")
	if code != exitNo || !strings.HasPrefix(stdout, "5 messages") {
		t.Errorf("on standard input: exit %d, %s%s", code, stdout, stderr)
	}
	want["OTHER_ADDRESS"], want["OK"] = 1, 2 // nobody says that the archive is ours
	counts(t, in.object(t, exitNo, "audit-mail", path), want)
}

// together signs, with the service's own key, that mail in one transaction might go to the addresses of these receipts.
func (in *installation) together(t *testing.T, receipts ...string) string {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(in.data, "keys", "receipt-1.key"))
	if err != nil {
		t.Fatal(err)
	}
	seed, err := hex.DecodeString(string(regexp.MustCompile(`secret: (\w+)`).FindSubmatch(file)[1]))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := receipt.NewSigner(1, seed)
	if err != nil {
		t.Fatal(err)
	}
	var c receipt.Claims
	var keys [][16]byte
	for _, text := range receipts {
		if c, _, err = receipt.Parse(text); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, c.Key)
	}
	c.Key = receipt.JoinKeys(keys)
	return signer.Sign(c)
}
