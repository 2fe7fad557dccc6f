package sentmail

import (
	"strings"
	"testing"
	"time"
)

// Whatever octets come, reading them ends, within its bounds, and what it tells is one line each.
func FuzzRead(f *testing.F) {
	f.Add("mbox", "From a Mon Nov 23 10:00:00 2026\nTo: ann@example.com\nMessage-ID: <1@x>\n\n>From b\n\nFrom c\nTo: bob@example.com\n\nx\n")
	f.Add("eml", "Received: by x; Mon, 23 Nov 2026 10:00:00 +0000\nTo: a group: ann@example.com, \"b, c\" <bob@example.com>;\nX-Optout-Receipt: abc\n def\n\nx\n")
	f.Add("postfix", "Nov 23 10:00:00 mx postfix/cleanup[1]: 4F0A1B2C3D: message-id=<1@x>\nNov 23 10:00:00 mx postfix/smtp[1]: 4F0A1B2C3D: to=<ann@example.com>, orig_to=<x@y>, relay=z, status=sent (250 ok)\nNov 23 10:00:01 mx postfix/qmgr[1]: 4F0A1B2C3D: removed\n")
	f.Add("auto", "\x1f\x8b\x08")
	f.Fuzz(func(t *testing.T, format, text string) {
		n := 0
		for m, err := range Read(strings.NewReader(text), "x", Options{Format: Format(format), Now: time.Unix(1795000000, 0), Zone: time.UTC, Internal: func(string) bool { return false }, Progress: func(int) {}}) {
			if err != nil {
				break
			}
			if n++; n > len(text)+1 || len(m.To) > MaxRecipients || strings.ContainsAny(m.ID+m.Receipt+strings.Join(m.To, ""), "\r\n") {
				t.Fatalf("%+v", m)
			}
		}
	})
}
