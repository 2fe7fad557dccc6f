package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"optout/client"
)

// Sent mail is judged by its receipts and by the ledger: what left without a check, after an opt-out, with a forged receipt or with
// somebody else's; as an mbox, a Maildir, single messages and a log of Postfix.
func TestAuditMail(t *testing.T) {
	dir := t.TempDir()
	in := install(t, filepath.Join(dir, "data"), "--public-url", "https://mail.example.com")
	in.do(t, exitOK, "topic", "create", "newsletter")
	key, err := os.ReadFile(filepath.Join(in.data, "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(in.addr.GRPC, client.WithKey(strings.TrimSpace(string(key))))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	receipt := func(addr string) string {
		d, err := c.CheckSend(context.Background(), "newsletter", addr, client.WithReceipt())
		if err != nil || !d.Send() || d.Receipt == "" {
			t.Fatalf("%v %v", d, err)
		}
		return d.Receipt
	}
	ann, bob := receipt("ann@example.com"), receipt("bob@example.com")
	in.do(t, exitOK, "unsubscribe", "cy@example.com")
	now := time.Now().Add(2 * time.Second) // a second after what was said
	message := func(id, to, receipt string) string {
		field := ""
		if receipt != "" {
			field = "X-Optout-Receipt: " + receipt[:60] + "\n " + receipt[60:] + "\n"
		}
		return fmt.Sprintf("Received: by mx.example.net; %s\n%sFrom: news@example.com\nTo: %s\nMessage-ID: <%s@example.com>\nSubject: x\n\nHello.\n", now.Format(time.RFC1123Z), field, to, id)
	}
	swap := "A"
	if ann[100] == 'A' {
		swap = "B"
	}
	forged := ann[:100] + swap + ann[101:]
	bad := []string{message("good", "ann@example.com", ann), message("bare", "dee@example.com", ""), message("late", "cy@example.com", ""),
		message("fake", "ann@example.com", forged), message("other", "dee@example.com", bob)}
	want := map[string]int{"OK": 1, "UNCHECKED": 1, "AFTER_OPT_OUT": 1, "FORGED": 1, "OTHER_ADDRESS": 1, "OTHER_SENDER": 0, "STALE": 0}

	mbox := filepath.Join(dir, "sent.mbox")
	var text strings.Builder
	for _, m := range bad {
		text.WriteString("From news@example.com Mon Nov 23 10:00:00 2026\n" + m + "\n")
	}
	write(t, mbox, text.String())
	maildir := filepath.Join(dir, "Maildir")
	for i, m := range bad {
		write(t, filepath.Join(maildir, []string{"cur", "new"}[i%2], fmt.Sprint(i)), m)
	}
	for _, path := range []string{mbox, maildir} {
		out := in.do(t, exitNo, "audit-mail", "--topic", "newsletter", "--json", path)
		var r struct {
			OK       bool
			Messages int
			Findings map[string]int
			Examples []struct{ Finding, Recipient string }
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil || r.OK || r.Messages != len(bad) || fmt.Sprint(r.Findings) != fmt.Sprint(want) {
			t.Errorf("%s: %s %v", path, out, err)
		}
		if strings.Contains(out, "cy@example.com") || len(r.Examples) != 4 {
			t.Errorf("addresses are shown: %s", out)
		}
	}
	out := in.do(t, exitNo, "audit-mail", "--topic", "newsletter", "--show-addresses", mbox)
	demand(t, out, `after an opt-out +1`, `unchecked +1`, `forged +1`, `other address +1`, `cy@example.com +<late@example.com>.*opted out of ALL`)
	// One message, on standard input, in order.
	if code, stdout, stderr := runWith(t, in.env, bad[0], "audit-mail", "-"); code != exitOK || !strings.Contains(stdout, "OK") {
		t.Errorf("exit %d %s%s", code, stdout, stderr)
	}
	// Without the service, by the public keys alone.
	keys := filepath.Join(dir, "keys.txt")
	write(t, keys, in.do(t, exitOK, "key", "receipt"))
	demand(t, in.do(t, exitNo, "audit-mail", "--offline", keys, mbox), `forged +1`, `unchecked +2`, `not judged`)

	log := filepath.Join(dir, "mail.log")
	stamp := now.Format("2006-01-02T15:04:05.000000-07:00")
	lines := func(id, to, receipt string) string {
		l := fmt.Sprintf("%s mx postfix/cleanup[12]: %s: message-id=<%s@example.com>\n", stamp, id, id)
		if receipt != "" {
			l += fmt.Sprintf("%s mx postfix/cleanup[12]: %s: info: header X-Optout-Receipt: %s from localhost[127.0.0.1]; from=<news@example.com> to=<%s> proto=ESMTP helo=<x>\n", stamp, id, receipt, to)
		}
		return l + fmt.Sprintf("%s mx postfix/qmgr[13]: %s: from=<news@example.com>, size=900, nrcpt=1 (queue active)\n%s mx postfix/smtp[14]: %s: to=<%s>, relay=mx.example.com[192.0.2.1]:25, delay=0.1, delays=0/0/0/0.1, dsn=2.0.0, status=sent (250 ok)\n%s mx postfix/qmgr[13]: %s: removed\n",
			stamp, id, stamp, id, to, stamp, id)
	}
	write(t, log, lines("4F0A1B2C3D", "ann@example.com", ann)+lines("4F0A1B2C3E", "dee@example.com", "")+lines("4F0A1B2C3F", "cy@example.com", ""))
	demand(t, in.do(t, exitNo, "audit-mail", "--topic", "newsletter", log), "3 messages", `after an opt-out +1`, `unchecked +1`, `OK +1`)
	write(t, log, lines("4F0A1B2C3D", "ann@example.com", ann))
	in.do(t, exitOK, "audit-mail", log)
	in.do(t, exitError, "audit-mail", filepath.Join(dir, "nix"))
	in.do(t, exitError, "audit-mail", "--offline", mbox, mbox)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
