package intake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/mail"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"optout/service/mailauth"
	"optout/service/mailin"
	"optout/service/report"
	"optout/service/words"
)

// message is a message on its way through the intake; it is read once, when that is first needed.
type message struct {
	*mailin.Message
	envelope *mailin.Envelope
	// origin is the host that it came from; zero when that is not known.
	origin   netip.Addr
	read     *words.Reading
	reported *report.Report
	verdict  *mailauth.Verdict
	// taken is what became of it at each address: to name one a hundred times does nothing a hundred times.
	taken map[string]Result
}

func (m *message) words() *words.Reading {
	if m.read == nil {
		m.read = words.Read(m.Raw)
	}
	return m.read
}

func (m *message) report() *report.Report {
	if m.reported == nil {
		m.reported = report.Parse(m.Raw)
	}
	return m.reported
}

// whole reports whether all of the message is here: a part of it proves nothing.
func (m *message) whole() bool { return m.Size <= int64(len(m.Raw)) }

// auth tells who wrote the message.
func (m *message) auth(ctx context.Context, c *mailauth.Checker) *mailauth.Verdict {
	if m.verdict == nil {
		v := c.Check(ctx, mailauth.Envelope{Remote: m.origin, Helo: m.envelope.Helo, MailFrom: m.envelope.MailFrom}, m.Raw)
		if !m.whole() && v.Result == mailauth.Disproved {
			v.Result = mailauth.Unproved // a signature cannot be checked against a part
		}
		m.verdict = &v
	}
	return m.verdict
}

// sentBefore reports whether the message says that it was sent before a moment.
func (m *message) sentBefore(t time.Time) bool {
	sent, err := mail.ParseDate(fieldOf(m.Raw[:min(len(m.Raw), 64<<10)], "date"))
	return err == nil && sent.Before(t)
}

// evidence is what identifies the message and where it came from; nothing of what a person wrote.
func (m *message) evidence() map[string]string {
	e := map[string]string{"digest": hex.EncodeToString(m.Digest[:])}
	head := m.Raw[:min(len(m.Raw), 64<<10)]
	if end := headerEnd(head); end >= 0 {
		head = head[:end]
	}
	for name, field := range map[string]string{"message_id": "message-id", "auto_submitted": "auto-submitted"} {
		if v := fieldOf(head, field); v != "" {
			e[name] = v
		}
	}
	if m.envelope.Remote.IsValid() {
		e["ip"] = m.envelope.Remote.String()
	}
	return e
}

// source is by what floods are told: the network that the message came from. Where that is not known, as with mailboxes, all are
// one source but for the domain that they say they are from; network is false then.
func (m *message) source() (name string, network bool) {
	if a := m.origin; a.IsValid() {
		bits := 24
		if a.Is6() {
			bits = 48
		}
		p, err := a.Prefix(bits)
		if err == nil {
			return p.String(), true
		}
	}
	return "domain " + domainOf(m.words().From), false
}

// identity is a digest of what its writer wrote, the same for every copy of the message whatever way it took; "" when the message
// has nothing that tells it from another one with the same words.
func (m *message) identity() string {
	r := m.words()
	if r.MessageID == "" {
		return ""
	}
	h := sha256.New()
	head := m.Raw[:min(len(m.Raw), 64<<10)]
	fmt.Fprintf(h, "%q %q %q %q\n", r.MessageID, r.From, fieldOf(head, "date"), r.Subject)
	h.Write([]byte(r.Own))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// requestID makes a write about the message idempotent: the same message asks for the same once. It is empty when the message has
// no identity; the write must then be harmless to repeat.
func (m *message) requestID(parts ...any) string { return requestID(m.identity(), parts) }

// reportID is requestID for a report of a program. One without a Message-ID, as qmail writes, is known by its octets: to count one
// failure again on another day is worse than to miss another whose report is the same to the second.
func (m *message) reportID(parts ...any) string {
	return requestID(or(m.identity(), hex.EncodeToString(m.Digest[:])), parts)
}

func requestID(identity string, parts []any) string {
	if identity == "" {
		return ""
	}
	h := sha256.New()
	for _, p := range append([]any{identity}, parts...) {
		fmt.Fprintf(h, "%q\n", fmt.Sprint(p)) // quoted, so that they cannot run into one another
	}
	return "mail-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// headerEnd is where the header ends; -1 when it does not.
func headerEnd(b []byte) int {
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		return i + 2
	}
	return bytes.Index(b, []byte("\n\n"))
}

// fieldOf is the first line of the first field of a name (in lower case), in printable ASCII and at most 250 characters.
func fieldOf(head []byte, name string) string {
	for len(head) > 0 {
		line := head
		if i := bytes.IndexByte(head, '\n'); i >= 0 {
			line, head = head[:i], head[i+1:]
		} else {
			head = nil
		}
		if len(bytes.TrimRight(line, "\r")) == 0 {
			return ""
		}
		if len(line) > len(name) && line[len(name)] == ':' && strings.EqualFold(string(line[:len(name)]), name) {
			return short(strings.TrimSpace(string(line[len(name)+1:])))
		}
	}
	return ""
}

// short makes a text of a message fit for evidence: printable ASCII, at most 250 characters.
func short(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f {
			return -1
		}
		return c
	}, s)
	return s[:min(len(s), 250)]
}

// maxWords is how many characters a text of evidence has at the most.
const maxWords = 2000

// fit makes what a person wrote fit for evidence, whatever it holds: a text that the ledger refuses would be brought again for days.
func fit(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' && c != '\n' || c == 0x7f || c == utf8.RuneError {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, ""))
	if r := []rune(s); len(r) > maxWords {
		s = string(r[:maxWords])
	}
	return s
}

func domainOf(addr string) string { return lower(addr[strings.LastIndexByte(addr, '@')+1:]) }

// NewMessage makes a message of its octets, which did not come by SMTP.
func NewMessage(raw []byte) *mailin.Message {
	return &mailin.Message{Raw: raw, Size: int64(len(raw)), Digest: sha256.Sum256(raw)}
}

// Local is the envelope of a message whose way is not known.
func Local() *mailin.Envelope { return &mailin.Envelope{Remote: netip.Addr{}} }
