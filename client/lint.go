package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	optoutv1 "optout/proto/optout/v1"
)

// Limits of LintMessage, in octets.
const (
	maxMessage = 50 << 20
	maxHeader  = 1 << 20
)

// Level says how bad a finding is.
type Level int

// Levels.
const (
	// LevelError: the message breaks a law, a MUST of an RFC, or what the large mailbox providers demand. Do not send it so.
	LevelError Level = iota + 1
	// LevelWarning: it breaks a SHOULD, or looks as if something were missing that a program cannot be sure of.
	LevelWarning
)

// String names the level.
func (l Level) String() string {
	switch l {
	case LevelError:
		return "error"
	case LevelWarning:
		return "warning"
	}
	return fmt.Sprintf("level %d", int(l))
}

// MarshalText writes the name, for JSON.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Finding is one rule that a message breaks. It holds no personal data: names of header fields, numbers of lines and counts at most.
type Finding struct {
	// Rule is the id of the rule, see LintRules.
	Rule  string `json:"rule"`
	Level Level  `json:"level"`
	// Message says what is wrong with this message, Remedy what to do, and Reference who says so.
	Message   string `json:"message"`
	Remedy    string `json:"remedy"`
	Reference string `json:"reference"`
}

// LintOptions say what kind of message it is, and what is known of it. The zero value is commercial mail as it leaves.
type LintOptions struct {
	// Class is the class of the message's topic. Unspecified, and any that this client does not know, is commercial, which has the
	// most rules. Mail of class `required` carries no unsubscribe link at all.
	Class optoutv1.TopicClass
	// PostalAddress is the sender's, which commercial mail must show. Without it a finding is a guess, and so a LevelWarning.
	PostalAddress string
	// UnsignedYet: the message is looked at before the server that signs with DKIM has seen it, so that no signature is missed.
	UnsignedYet bool
	// LookupTXT looks up TXT records, such as net.LookupTXT, to verify signatures with. Without it they are read only.
	LookupTXT func(domain string) ([]string, error)
}

// LintMessage names every rule that a message breaks, in the order of LintRules, one finding for each. The message is as it would
// stand in a file with the extension .eml, header and body; a file whose lines all end with LF is read as if they ended with CRLF.
// It looks at messages of up to 50 MiB, with a header of up to 1 MiB, up to 100 parts and 8 levels of them; what is beyond is a
// finding. The error is that of r.
//
// A message without a finding may still be against the law: no program sees whether a subject misleads.
func LintMessage(r io.Reader, opts LintOptions) ([]Finding, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxMessage+1))
	if err != nil {
		return nil, fmt.Errorf("optout client: the message could not be read: %w", err)
	}
	l := &linter{opts: opts, commercial: true}
	switch opts.Class {
	case optoutv1.TopicClass_TOPIC_CLASS_REQUIRED:
		l.required, l.commercial = true, false
	case optoutv1.TopicClass_TOPIC_CLASS_TRANSACTIONAL:
		l.commercial = false
	}
	l.look(raw)
	rules := LintRules()
	at := func(f Finding) int { return slices.IndexFunc(rules, func(r Rule) bool { return r.ID == f.Rule }) }
	slices.SortStableFunc(l.findings, func(a, b Finding) int { return at(a) - at(b) })
	return l.findings, nil
}

// linter looks at one message.
type linter struct {
	opts                 LintOptions
	commercial, required bool
	fields               []field
	raw, body            []byte
	findings             []Finding
}

// found reports that a rule is broken; only the first time counts.
func (l *linter) found(id, message string) { l.report(id, message, 0) }

// report is found with another level than the rule's own.
func (l *linter) report(id, message string, level Level) {
	if slices.ContainsFunc(l.findings, func(f Finding) bool { return f.Rule == id }) {
		return
	}
	rules := LintRules()
	r := rules[slices.IndexFunc(rules, func(r Rule) bool { return r.ID == id })]
	if level == 0 {
		level = r.Level
	}
	l.findings = append(l.findings, Finding{Rule: id, Level: level, Message: message, Remedy: r.Remedy, Reference: r.Reference})
}

// lesser is the level of lacking what only commercial mail must have; 0, which is the rule's own, on commercial mail.
func (l *linter) lesser() Level {
	if l.commercial {
		return 0
	}
	return LevelWarning
}

// look looks at everything.
func (l *linter) look(raw []byte) {
	if len(raw) > maxMessage {
		l.found("message-size", "the message is larger than 50 MiB, so it was not looked at")
		return
	}
	if !bytes.Contains(raw, []byte("\r\n")) { // as files have it on most systems
		raw = bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n"))
	}
	l.raw = raw
	l.lines()
	if !l.header() {
		return
	}
	l.originator()
	l.list()
	l.listID()
	l.hints()
	l.dkim()
	l.content()
}

// header takes the header apart, and reports whether it could.
func (l *linter) header() bool {
	head := l.raw
	if i := bytes.Index(l.raw, []byte("\r\n\r\n")); i >= 0 {
		head = l.raw[:i+2]
	}
	if len(head) > maxHeader {
		l.found("header-size", "the header is larger than 1 MiB, so the message was not looked at")
		return false
	}
	var err error
	if l.fields, l.body, err = parse(l.raw); err == nil && len(l.fields) == 0 {
		err = errors.New("there is no header")
	}
	if err != nil {
		l.found("header-syntax", "the header cannot be read, so the rest was not looked at: "+err.Error())
		return false
	}
	return true
}

// count is how many fields of a name there are.
func (l *linter) count(name string) (n int) {
	for _, f := range l.fields {
		if f.is(name) {
			n++
		}
	}
	return n
}
