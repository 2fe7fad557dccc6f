package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
)

// maxNote is how many characters of a note the API takes.
const maxNote = 500

// importRow makes what is imported of one row. A fault never holds the address. skip says that the row is no opt-out.
func (l *layout) importRow(row []string) (_ *optoutv1.ImportedSuppression, skip bool, fault error) {
	s := &optoutv1.ImportedSuppression{Address: l.field(row, roleAddress), Topic: l.field(row, roleTopic), Note: note(l.field(row, roleNote))}
	if s.Address == "" {
		return nil, false, errors.New("address: it is empty")
	}
	if !utf8.ValidString(s.Address) || !utf8.ValidString(s.Topic) {
		return nil, false, errors.New("it is not valid UTF-8 (save the file as CSV in UTF-8)")
	}
	if text := l.field(row, roleDate); text != "" && !nullDate(text) {
		t, err := parseTime(text)
		if err != nil {
			return nil, false, fmt.Errorf("date: %w", err)
		}
		s.OccurredAt = timestamppb.New(t)
	}
	var ok bool
	if l.reasonOf != nil {
		if s.Reason, skip, ok = l.reasonOf(l, row); skip {
			return nil, true, nil
		}
	} else {
		s.Reason, ok = reasonNamed(l.field(row, roleReason), l.fallback)
	}
	if !ok {
		return nil, false, fmt.Errorf("reason: %s is not known (use unsubscribe, commercial, bounce or complaint; or leave the column out with --columns, and give --reason)",
			quoted(l.field(row, roleReason)))
	}
	return s, false, l.scope(s, l.field(row, roleScope))
}

// scope narrows an opt-out to what the row says it covers.
func (l *layout) scope(s *optoutv1.ImportedSuppression, scope string) error {
	word, name, _ := strings.Cut(scope, ":")
	if name = strings.TrimSpace(name); name != "" {
		s.Topic = name
	}
	if s.Topic == "" {
		s.Topic = l.topic
	}
	switch s.Reason {
	case optoutv1.DenialReason_DENIAL_REASON_UNDELIVERABLE:
		s.Topic = "" // a mailbox that does not exist has no topics
		return nil
	case optoutv1.DenialReason_DENIAL_REASON_COMPLAINT:
		return nil
	}
	switch plain(word) {
	case "":
		if s.Reason == optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_ALL && s.Topic != "" {
			s.Reason = optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_TOPIC
		}
	case "all", "global":
		s.Reason = optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_ALL
	case "commercial", "marketing":
		s.Reason = optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_COMMERCIAL
	case "topic":
		s.Reason = optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_TOPIC
	default:
		return fmt.Errorf("scope: %s is not known (use all, commercial or topic)", quoted(scope))
	}
	switch {
	case s.Reason != optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_TOPIC:
		s.Topic = ""
	case s.Topic == "":
		return errors.New("topic: it is missing (name the topic in a column topic, or with --topic)")
	}
	return nil
}

// reasonNamed reads a reason in anybody's words; fallback is what no words mean.
func reasonNamed(text string, fallback optoutv1.DenialReason) (optoutv1.DenialReason, bool) {
	switch plain(text) {
	case "":
		return fallback, true
	case "unsubscribe", "unsubscribed", "unsubscription", "unsub", "optout", "optedout", "optedoutall", "all", "stop", "remove", "removed", "manual",
		"manualsuppression", "manualblock", "globalunsubscribe", "groupunsubscribe", "donotcontact", "dnc", "blocklisted", "blacklisted", "objection":
		return optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_ALL, true
	case "optedoutcommercial", "commercial", "marketing":
		return optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_COMMERCIAL, true
	case "optedouttopic", "topic":
		return optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_TOPIC, true
	case "complaint", "complained", "complaints", "spam", "spamcomplaint", "spamreport", "spamreports", "abuse", "junk", "feedbackloop":
		return optoutv1.DenialReason_DENIAL_REASON_COMPLAINT, true
	case "bounce", "bounced", "bounces", "hardbounce", "hardbounced", "permanentbounce", "permanentfailure", "undeliverable", "invalid", "invalidemail",
		"cleaned", "unknownuser":
		return optoutv1.DenialReason_DENIAL_REASON_UNDELIVERABLE, true
	}
	return 0, false
}

// timeLayouts are the ways to write a moment that are read; without a zone it is UTC.
var timeLayouts = []string{time.RFC3339, time.DateOnly, time.DateTime, "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02 15:04:05Z07:00",
	"2006-01-02 15:04:05Z07", "2006-01-02 15:04:05 Z07:00", "2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05 UTC", "2006-01-02 15:04:05 -0700 MST"}

// parseTime reads a moment: RFC 3339, a day, a day and time, or unix seconds (10 digits) or milliseconds (13).
func parseTime(text string) (time.Time, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		switch len(text) {
		case 9, 10:
			return time.Unix(n, 0).UTC(), nil
		case 13:
			return time.UnixMilli(n).UTC(), nil
		}
	}
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, text); err == nil && t.Year() > 0 {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is no moment that can be read (use 2026-05-01T10:00:00Z, 2026-05-01, 2026-05-01 10:00:00 or unix seconds)", quoted(text))
}

// nullDate tells whether a date is a database's way to write none.
func nullDate(text string) bool {
	return strings.HasPrefix(text, "0000-00-00") || strings.EqualFold(text, "null") || text == "0"
}

// note is a text as the API takes it: valid UTF-8 without control characters, at most maxNote characters.
func note(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	if r := []rune(s); len(r) > maxNote {
		s = string(r[:maxNote])
	}
	return s
}

// quoted is a value for an error, unless it may hold an address.
func quoted(s string) string {
	if strings.Contains(s, "@") || len(s) > 40 || !utf8.ValidString(s) {
		return "the value"
	}
	return strconv.Quote(s)
}
