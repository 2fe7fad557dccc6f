package cli

import (
	"bytes"
	"net/smtp"
	"os"
	"path/filepath"
	"testing"
	"time"

	"optout/service/mailtest"
)

// The log of a real Postfix, set up as docs/audit.md says: the receipts that it logs are genuine, however they were folded.
func TestAuditOfARealPostfix(t *testing.T) {
	sink := mailtest.NewSink(t)
	p := mailtest.StartPostfix(t, sink.Addr, "header_checks = regexp:{{/^X-Optout-Receipt:/ INFO}}")
	in := install(t, filepath.Join(t.TempDir(), "data"))
	in.do(t, exitOK, "topic", "create", "orders", "--class", "transactional")
	send(t, in, p.Addr, "ann@example.com", "bob@example.com")
	receipt := sent(t, in, "dan@example.com").receipt("dan@example.com")
	for to, text := range map[string]string{"cy@example.com": letterTo("cy@example.com", "bare", "", time.Now()),
		"dan@example.com": letterTo("dan@example.com", "thrice", receipt[:60]+"\r\n "+receipt[60:120]+"\r\n\t"+receipt[120:], time.Now())} {
		if err := smtp.SendMail(p.Addr, nil, "news@own.example", []string{to}, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	sink.Wait(t, 4)
	for range 200 { // Postfix logs after it has delivered
		if b, err := os.ReadFile(p.Log); err != nil || bytes.Count(b, []byte(": removed\n")) >= 4 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	counts(t, in.object(t, exitNo, "audit-mail", p.Log), map[string]int{"OK": 3, "UNCHECKED": 1})
}
