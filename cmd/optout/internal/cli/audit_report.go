package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"optout/cmd/optout/internal/sentmail"
	optoutv1 "optout/proto/optout/v1"
)

// auditReport counts findings and keeps examples.
type auditReport struct {
	flags    *auditFlags
	messages uint64
	counts   map[optoutv1.AuditFinding]uint64
	examples map[optoutv1.AuditFinding][]auditExample
	// internal and outside are messages left out: to our own domains alone, and from outside of --since and --until.
	internal, outside uint64
	undated, unread   uint64 // messages of no time, addresses that cannot be read
	first, last       time.Time
}

// auditExample is one message of a finding, as it is shown. Its names are those of the JSON.
type auditExample struct {
	Finding   string          `json:"finding"`
	Where     string          `json:"where"`
	MessageID string          `json:"message_id,omitempty"`
	Left      string          `json:"left_at,omitempty"`
	Recipient string          `json:"recipient,omitempty"`
	More      int             `json:"more_recipients,omitempty"`
	Checked   bool            `json:"checked"`
	CheckedAt string          `json:"checked_at,omitempty"`
	Topic     string          `json:"topic,omitempty"`
	Reasons   []jsonOfMessage `json:"reasons,omitempty"`

	because string
}

// jsonOfMessage is a message of the API within JSON of ours.
type jsonOfMessage []byte

// MarshalJSON returns the octets as they are.
func (j jsonOfMessage) MarshalJSON() ([]byte, error) { return j, nil }

func newAuditReport(f *auditFlags) *auditReport {
	return &auditReport{flags: f, counts: map[optoutv1.AuditFinding]uint64{}, examples: map[optoutv1.AuditFinding][]auditExample{}}
}

// wants tells whether a message is to be judged, and counts it if not.
func (r *auditReport) wants(m *sentmail.Message) bool {
	internal := len(m.To) > 0
	for _, a := range m.To {
		internal = internal && r.flags.isInternal(a)
	}
	switch f := r.flags; {
	case internal:
		r.internal++
	case !m.Left.IsZero() && (f.since.given() && m.Left.Before(f.since.t) || f.until.given() && !m.Left.Before(f.until.t)):
		r.outside++
	default:
		return true
	}
	return false
}

func (r *auditReport) add(m *sentmail.Message, f *auditFinding) {
	r.messages++
	r.counts[f.kind]++
	r.unread += uint64(f.unread)
	if m.Left.IsZero() {
		r.undated++
	} else {
		if r.first.IsZero() || m.Left.Before(r.first) {
			r.first = m.Left
		}
		if m.Left.After(r.last) {
			r.last = m.Left
		}
	}
	if f.kind == optoutv1.AuditFinding_AUDIT_FINDING_OK || len(r.examples[f.kind]) >= r.flags.examples {
		return
	}
	x := auditExample{Finding: enumName(f.kind.Descriptor(), f.kind.Number()), Where: m.Where, MessageID: m.ID, Left: rfc3339(m.Left), Checked: f.checked,
		CheckedAt: rfc3339(f.checkedAt), Topic: f.topic}
	people := m.To
	if len(f.refused) > 0 {
		people = people[:0:0]
		for _, a := range f.refused {
			people = append(people, a.address)
		}
		for _, d := range f.refused[0].denials {
			x.Reasons = append(x.Reasons, jsonOf(d))
		}
		x.because = becauseAll(f.refused[0].denials)
	}
	if len(people) > 0 {
		x.Recipient, x.More = r.address(people[0]), len(people)-1
	}
	r.examples[f.kind] = append(r.examples[f.kind], x)
}

// address is a recipient as the report shows it.
func (r *auditReport) address(a string) string {
	if r.flags.addresses {
		return a
	}
	_, size := utf8.DecodeRuneInString(a)
	domain := ""
	if i := strings.LastIndexByte(a, '@'); i > 0 {
		domain = a[i:]
	}
	return a[:size] + "…" + domain
}

func rfc3339(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// gravest are the findings in the order of the report; the first five are faults.
var gravest = [...]optoutv1.AuditFinding{optoutv1.AuditFinding_AUDIT_FINDING_AFTER_OPT_OUT, optoutv1.AuditFinding_AUDIT_FINDING_FORGED,
	optoutv1.AuditFinding_AUDIT_FINDING_OTHER_SENDER, optoutv1.AuditFinding_AUDIT_FINDING_OTHER_ADDRESS,
	optoutv1.AuditFinding_AUDIT_FINDING_UNCHECKED, optoutv1.AuditFinding_AUDIT_FINDING_STALE, optoutv1.AuditFinding_AUDIT_FINDING_OK}

// faults is how many messages should not have left as they did.
func (r *auditReport) faults() uint64 {
	return r.messages - r.counts[optoutv1.AuditFinding_AUDIT_FINDING_STALE] - r.counts[optoutv1.AuditFinding_AUDIT_FINDING_OK]
}

// tell prints the report; mail that should not have left is a no.
func (p *program) tell(r *auditReport, judge auditJudge) error {
	if p.json {
		p.Stdout.Write(r.json(judge))
	} else {
		r.human(p.Stdout, judge)
	}
	if r.faults() > 0 {
		return errNo
	}
	return nil
}

func (r *auditReport) json(judge auditJudge) []byte {
	b := fmt.Appendf(nil, `{"ok":%t,"messages":%d,"findings":{`, r.faults() == 0, r.messages)
	for i, f := range gravest {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `%q:%d`, enumName(f.Descriptor(), f.Number()), r.counts[f])
	}
	b = fmt.Appendf(b, `},"left_out":{"internal":%d,"other_time":%d},"undated":%d,"unread_addresses":%d,"offline":%t`, r.internal, r.outside, r.undated, r.unread,
		judge.position() == nil && r.flags.offline != "")
	if !r.first.IsZero() {
		b = fmt.Appendf(b, `,"first":%q,"last":%q`, rfc3339(r.first), rfc3339(r.last))
	}
	if at := judge.position(); at != nil {
		b = append(append(b, `,"position":`...), jsonOf(at)...)
	}
	b = append(b, `,"examples":[`...)
	some := false
	for _, f := range gravest {
		for _, x := range r.examples[f] {
			if some {
				b = append(b, ',')
			}
			b, some = appendJSON(b, x), true
		}
	}
	return append(b, "]}\n"...)
}

func (r *auditReport) human(w io.Writer, judge auditJudge) {
	span := ""
	if !r.first.IsZero() {
		span = fmt.Sprintf(", which left from %s to %s", rfc3339(r.first), rfc3339(r.last))
	}
	fmt.Fprintf(w, "%d messages%s\n", r.messages, span)
	rows := [][]string{}
	for _, f := range gravest {
		name := word(f)
		switch f {
		case optoutv1.AuditFinding_AUDIT_FINDING_AFTER_OPT_OUT:
			name = "after an opt-out"
		case optoutv1.AuditFinding_AUDIT_FINDING_OK:
			name = "OK"
		}
		count := fmt.Sprint(r.counts[f])
		if r.flags.offline != "" && (f == optoutv1.AuditFinding_AUDIT_FINDING_AFTER_OPT_OUT || f == optoutv1.AuditFinding_AUDIT_FINDING_OTHER_SENDER ||
			f == optoutv1.AuditFinding_AUDIT_FINDING_OTHER_ADDRESS) {
			count = "not judged (--offline)"
		}
		rows = append(rows, []string{"  " + strings.ReplaceAll(name, "other-", "other "), count})
	}
	table(w, rows...)
	for _, n := range []struct {
		count uint64
		what  string
	}{{r.internal, "messages to internal addresses alone were left out"}, {r.outside, "messages of other times were left out"},
		{r.undated, "messages do not say when they left, so the ledger of then was not asked"}, {r.unread, "addresses cannot be read and were not judged"}} {
		if n.count > 0 {
			fmt.Fprintf(w, "%d %s\n", n.count, n.what)
		}
	}
	for _, f := range gravest {
		for i, x := range r.examples[f] {
			if i == 0 {
				fmt.Fprintf(w, "\n%s:\n", strings.ReplaceAll(x.Finding, "_", " "))
			}
			fmt.Fprintln(w, printable(x.line()))
		}
		if more := r.counts[f] - uint64(len(r.examples[f])); more > 0 && len(r.examples[f]) > 0 {
			fmt.Fprintf(w, "  … and %d more (--max-examples)\n", more)
		}
	}
}

// line is an example as people read it.
func (x *auditExample) line() string {
	s := "  " + or(x.Left, "at an unknown time") + "  " + or(x.Recipient, "nobody shown")
	if x.More > 0 {
		s += fmt.Sprintf(" and %d more", x.More)
	}
	s += "  " + or(x.MessageID, "no Message-ID") + "  " + x.Where
	if x.because != "" {
		s += "  " + x.because
	}
	switch {
	case x.Checked:
		s += "; checked at " + x.CheckedAt
		if x.Topic != "" {
			s += " for " + x.Topic
		}
	case x.because != "":
		s += "; not checked"
	}
	return s
}
