package intake

import (
	"strings"
	"testing"
)

// Whatever a message holds, reading its evidence ends, and keeps only short printable texts.
func FuzzEvidence(f *testing.F) {
	f.Add([]byte("Message-ID: <1@icloud.com>\r\nAuto-Submitted: auto-replied\r\n\r\nx\r\n"))
	f.Add([]byte(": \r\n\r\n"))
	f.Add([]byte(strings.Repeat("A: b\r\n", 1000)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &message{Message: NewMessage(b), envelope: Local()}
		for k, v := range m.evidence() {
			if len([]rune(fit(string(b)))) > maxWords {
				t.Fatal("too long")
			}
			if len(v) > 250 || strings.ContainsFunc(v, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Fatalf("%s: %q", k, v)
			}
		}
	})
}
