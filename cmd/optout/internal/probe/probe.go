// Package probe judges a message that was sent through the gate by what arrived: whether the mail server behind it left alone
// what makes one-click work. It knows messages and mailboxes, not the service.
package probe

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
)

// Level is how bad a finding is.
type Level string

// Levels.
const (
	Pass Level = "pass"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Check is one thing that was looked at.
type Check struct {
	// ID names the check, and never changes.
	ID    string `json:"id"`
	Level Level  `json:"level"`
	// Seen says what was found, and Remedy what to do about it.
	Seen   string `json:"seen"`
	Remedy string `json:"remedy,omitempty"`
}

// Sent is what was sent, and what should arrive.
type Sent struct {
	// From is the author's address.
	From string
	// Fields are those of the recipient's link: name and body.
	Fields [][2]string
	// MessageID is in brackets.
	MessageID string
	// Body is the body with CRLF line ends.
	Body []byte
	// Profile's words on what must be off, for remedies.
	MustBeOff string
}

// Judge compares what arrived with what was sent. lookup asks the DNS for DKIM keys.
func Judge(raw []byte, s *Sent, lookup func(string) ([]string, error)) []Check {
	raw = crlf(raw)
	m := split(raw)
	var all []Check
	add := func(id string, ok bool, bad Level, seen, remedy string) {
		c := Check{ID: id, Level: Pass, Seen: seen}
		if !ok {
			c.Level, c.Remedy = bad, remedy
		}
		all = append(all, c)
	}
	for _, f := range s.Fields {
		got := m.values(f[0])
		same := len(got) == 1 && squeeze(got[0]) == squeeze(f[1])
		seen := "it is there once, as the gate set it"
		switch {
		case len(got) == 0:
			seen = "it did not arrive"
		case len(got) > 1:
			seen = fmt.Sprintf("it is there %d times", len(got))
		case !same:
			seen = "it is another than the gate set"
		}
		add(strings.ToLower(f[0]), same, Fail, seen, "the server behind the gate set, took off or rewrote it: switch off "+s.MustBeOff)
	}
	left := 0
	for _, f := range m.fields {
		if n := strings.ToLower(f[0]); strings.HasPrefix(n, "x-optout-") && n != "x-optout-receipt" || n == "bcc" {
			left++
		}
	}
	add("instructions", left == 0, Fail, fmt.Sprintf("%d fields that are not for the recipient arrived", left), "the message did not come through the gate: see that the program's SMTP host is the gate's")
	add("message-id", len(m.values("Message-ID")) == 1 && m.values("Message-ID")[0] == s.MessageID, Warn, "Message-ID "+sameOr(len(m.values("Message-ID")) == 1 && m.values("Message-ID")[0] == s.MessageID),
		"some providers write their own; answers to it are then matched by the provider's")
	same := bytes.Equal(trimEnd(m.body), trimEnd(crlf(s.Body)))
	add("body", same, Fail, "the body "+sameOr(same), "links or text were rewritten, which breaks signatures and shows links to others: switch off "+s.MustBeOff)
	return append(all, judgeSignatures(raw, s, lookup)...)
}

func sameOr(same bool) string {
	if same {
		return "arrived as it was sent"
	}
	return "arrived changed"
}

// judgeSignatures looks for a DKIM signature of the author's domain that holds and covers the list fields (RFC 8058 section 4).
func judgeSignatures(raw []byte, s *Sent, lookup func(string) ([]string, error)) []Check {
	remedy := "let the gate sign (--gate-dkim), or let the server behind it sign both List-Unsubscribe and List-Unsubscribe-Post"
	all, err := dkim.VerifyWithOptions(bytes.NewReader(raw), &dkim.VerifyOptions{LookupTXT: lookup, MaxVerifications: 10})
	if err != nil && !errors.Is(err, dkim.ErrTooManySignatures) {
		return []Check{{ID: "dkim", Level: Fail, Seen: "the message cannot be read: " + err.Error(), Remedy: remedy}}
	}
	if len(all) == 0 {
		return []Check{{ID: "dkim", Level: Fail, Seen: "there is no DKIM signature", Remedy: remedy}}
	}
	author := strings.ToLower(s.From[strings.LastIndexByte(s.From, '@')+1:])
	best := Check{ID: "dkim", Level: Fail, Seen: "no signature covers both list fields", Remedy: remedy}
	for _, v := range all {
		names := map[string]bool{}
		for _, k := range v.HeaderKeys {
			names[strings.ToLower(k)] = true
		}
		covers := true
		for _, f := range s.Fields {
			covers = covers && names[strings.ToLower(f[0])]
		}
		var unknown *net.DNSError
		switch {
		case !covers:
		case v.Err == nil && aligned(v.Domain, author):
			return []Check{{ID: "dkim", Level: Pass, Seen: "the signature of " + v.Domain + " holds and covers both list fields"}}
		case v.Err == nil:
			best = Check{ID: "dkim", Level: Warn, Seen: "only the signature of " + v.Domain + " covers both list fields, which is not the domain in From", Remedy: remedy}
		case dkim.IsTempFail(v.Err) || errors.As(v.Err, &unknown) && !unknown.IsNotFound:
			best = Check{ID: "dkim", Level: Warn, Seen: "a signature covers both list fields, and the DNS could not be asked for its key", Remedy: "run the judging where the DNS can be asked"}
		case best.Level == Fail:
			best.Seen = "the signature of " + v.Domain + " covers both list fields and does not hold: " + v.Err.Error()
			best.Remedy = "publish the key, and switch off " + s.MustBeOff
		}
	}
	return []Check{best}
}

func aligned(signer, author string) bool {
	signer = strings.ToLower(signer)
	return signer == author || strings.HasSuffix(author, "."+signer)
}

// message is a message taken apart, fields unfolded.
type message struct {
	fields [][2]string
	body   []byte
}

func split(raw []byte) message {
	head, body, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	m := message{body: body}
	for _, line := range strings.Split(string(head), "\r\n") {
		if n := len(m.fields); n > 0 && line != "" && (line[0] == ' ' || line[0] == '\t') {
			m.fields[n-1][1] += line
			continue
		}
		if name, value, ok := strings.Cut(line, ":"); ok {
			m.fields = append(m.fields, [2]string{strings.TrimSpace(name), value})
		}
	}
	return m
}

func (m *message) values(name string) []string {
	var all []string
	for _, f := range m.fields {
		if strings.EqualFold(f[0], name) {
			all = append(all, strings.TrimSpace(f[1]))
		}
	}
	return all
}

// crlf gives lines the ends that they had on the wire; mailboxes often keep a bare LF.
func crlf(b []byte) []byte {
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
}

func trimEnd(b []byte) []byte { return bytes.TrimRight(b, "\r\n") }

// squeeze takes the white space out, which folding may have changed.
func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }
