package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	optoutv1 "optout/proto/optout/v1"
)

// layout says what the columns of a list mean.
type layout struct {
	// format is the name of the recognised export; "" for a list of one's own.
	format string
	// column holds the index of each role's column, where there is one.
	column map[role]int
	// headless is true when the first record is already a row.
	headless bool
	// reasonOf, when set, reads a row's reason the way of the format, which knows more than its words say. skip says that the row
	// is no opt-out, ok that it could be read.
	reasonOf func(l *layout, row []string) (reason optoutv1.DenialReason, skip, ok bool)
	// fallback is the reason of rows that say none.
	fallback optoutv1.DenialReason
	// topic is the topic of rows that name none.
	topic string
}

// role is what a column is for.
type role string

// Roles of columns, as --columns names them.
const (
	roleAddress role = "address"
	roleDate    role = "date"
	roleReason  role = "reason"
	roleScope   role = "scope"
	roleTopic   role = "topic"
	roleNote    role = "note"
)

// columnNames are the names by which a column is found, without case, blanks and punctuation, best first.
var columnNames = []struct {
	role  role
	names []string
}{
	{roleAddress, []string{"address", "email", "emailaddress", "mail", "recipient", "subscriberemail", "contactemail", "useremail"}},
	{roleDate, []string{"occurredat", "unsubscribedat", "optedoutat", "optoutat", "unsubscribedate", "unsubscribeddate", "optoutdate", "dateunsubscribed",
		"suppressedat", "unsubtime", "cleantime", "lastupdatetime", "date", "createdat", "created", "timestamp", "time", "updatedat"}},
	{roleReason, []string{"reason", "suppressionreason", "type"}},
	{roleScope, []string{"scope"}},
	{roleTopic, []string{"topic"}},
	{roleNote, []string{"note", "notes", "comment", "comments"}},
}

// plain is a header or word without case, blanks and punctuation.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
}

// newLayout reads the first record of a list, and what --columns says about it.
func newLayout(first []string, columns map[string]string) (*layout, error) {
	l := &layout{column: map[role]int{}, fallback: optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_ALL}
	headers := make([]string, len(first))
	for i, h := range first {
		headers[i] = plain(h)
	}
	l.headless = slices.ContainsFunc(first, func(field string) bool { return strings.Contains(field, "@") })
	if len(columns) > 0 {
		return l, l.named(first, headers, columns)
	}
	if l.headless {
		if len(first) > 1 {
			return nil, wrongUsage("FILE", "its first line is a row: it names no columns", "add a first line such as address,date,reason, or give --columns address=1,date=2")
		}
		l.column[roleAddress] = 0
		return l, nil
	}
	for _, c := range columnNames {
		for _, name := range c.names {
			if i := slices.Index(headers, name); i >= 0 {
				l.column[c.role] = i
				break
			}
		}
	}
	if err := l.recognise(headers); err != nil {
		return nil, err
	}
	if _, ok := l.column[roleAddress]; !ok {
		return nil, wrongUsage("FILE", "no column of its first line is known to hold addresses", "call one of them address or email, or give --columns address=NAME")
	}
	return l, nil
}

// named takes the columns as the caller names them: by header, or by number from 1.
func (l *layout) named(first, headers []string, columns map[string]string) error {
	for key, value := range columns {
		if !slices.ContainsFunc(columnNames, func(c struct {
			role  role
			names []string
		}) bool {
			return string(c.role) == key
		}) {
			return wrongUsage("--columns", fmt.Sprintf("%q is not known", clip(key)), "name address, date, reason, scope, topic or note")
		}
		i := -1
		if !l.headless {
			i = slices.Index(headers, plain(value))
		}
		if i < 0 {
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > len(first) {
				return wrongUsage("--columns", fmt.Sprintf("there is no column %q", clip(value)), "give a name of the file's first line, or a number from 1")
			}
			i = n - 1
		}
		l.column[role(key)] = i
	}
	if _, ok := l.column[roleAddress]; !ok {
		return wrongUsage("--columns", "it does not say where the address is", "for example --columns address=1,date=2")
	}
	return nil
}

// recognise finds out whether the list is an export of a known service, whose columns mean more than their names say.
func (l *layout) recognise(headers []string) error {
	has := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(headers, n) })
	}
	column := func(name string) int { return slices.Index(headers, name) }
	switch {
	case has("emailaddress") && (has("leid") || has("euid") || has("optintime") || has("memberrating")):
		l.format = "Mailchimp"
		switch {
		case has("unsubtime"):
			l.column[roleDate] = column("unsubtime")
			l.note(column("unsubreason"))
		case has("cleantime"):
			l.column[roleDate], l.fallback = column("cleantime"), optoutv1.DenialReason_DENIAL_REASON_UNDELIVERABLE
			l.note(column("cleancampaigntitle"))
		default:
			return wrongUsage("FILE", "it is a Mailchimp export of people who are subscribed, not of those who said stop",
				"give the files unsubscribed_… and cleaned_… of the same export")
		}
		delete(l.column, roleReason)
	case slices.Equal(headers, []string{"email", "created"}):
		l.format = "SendGrid unsubscribes"
	case slices.Equal(headers, []string{"ip", "email", "created"}):
		l.format, l.fallback = "SendGrid spam reports", optoutv1.DenialReason_DENIAL_REASON_COMPLAINT
	case slices.Equal(headers, []string{"status", "reason", "email", "created"}):
		l.format, l.reasonOf = "SendGrid bounces or blocks", bySMTPStatus
		l.note(column("reason"))
		delete(l.column, roleReason)
	case slices.Equal(headers, []string{"reason", "email", "created"}):
		l.format, l.fallback = "SendGrid invalid emails", optoutv1.DenialReason_DENIAL_REASON_UNDELIVERABLE
		l.note(column("reason"))
		delete(l.column, roleReason)
	case has("emailaddress", "suppressionreason"):
		l.format = "Postmark"
		l.note(column("origin"))
	case has("emailaddress", "reason", "lastupdatetime"):
		l.format = "Amazon SES"
	case has("uuid", "email", "status", "attributes"):
		l.format, l.reasonOf = "listmonk", byListmonkStatus
		l.column[roleReason] = column("status")
		if i := column("updatedat"); i >= 0 {
			l.column[roleDate] = i
		}
	}
	return nil
}

func (l *layout) note(column int) {
	if column >= 0 {
		l.column[roleNote] = column
	}
}

// field is a row's value in a role, "" where it has none.
func (l *layout) field(row []string, r role) string {
	i, ok := l.column[r]
	if !ok || i >= len(row) {
		return ""
	}
	return strings.TrimSpace(row[i])
}

// bySMTPStatus reads SendGrid's bounces and blocks, which look alike: only a status (or, where SendGrid could not tell, a server's
// answer) that says that the mailbox does not exist or is disabled (RFC 3463 section 3.2 and 3.3) makes an address undeliverable;
// the others are no words of the person and no fault of the mailbox.
func bySMTPStatus(l *layout, row []string) (optoutv1.DenialReason, bool, bool) {
	said := strings.Fields(row[0] + " " + strings.ReplaceAll(l.field(row, roleNote), "-", " "))
	hard := slices.ContainsFunc(said, func(word string) bool {
		return slices.Contains([]string{"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"}, word)
	})
	return optoutv1.DenialReason_DENIAL_REASON_UNDELIVERABLE, !hard, true
}

// byListmonkStatus reads listmonk's subscribers: those who are enabled have not said stop.
func byListmonkStatus(l *layout, row []string) (optoutv1.DenialReason, bool, bool) {
	switch l.field(row, roleReason) {
	case "blocklisted", "disabled":
		return optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_ALL, false, true
	case "enabled":
		return 0, true, true
	}
	return 0, false, false
}
