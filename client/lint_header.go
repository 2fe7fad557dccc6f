package client

import (
	"bytes"
	"fmt"
	netmail "net/mail"
	"regexp"
	"strings"
)

// lines looks at the ends and the lengths of lines.
func (l *linter) lines() {
	head := true
	rest := l.raw
	for n := 1; len(rest) > 0; n++ {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		rest = after
		if !bytes.HasSuffix(line, []byte("\r")) && ended {
			l.found("line-ending", fmt.Sprintf("line %d ends with LF alone", n))
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		if bytes.ContainsAny(line, "\r\x00") {
			l.found("line-ending", fmt.Sprintf("line %d has a CR or NUL within", n))
		}
		if len(line) == 0 {
			head = false
		}
		if len(line) > 998 {
			l.found("line-length", fmt.Sprintf("line %d has %d octets", n, len(line)))
		} else if len(line) > 78 && breakable(line) {
			l.found("line-length-78", fmt.Sprintf("line %d has %d octets", n, len(line)))
		}
		if head && bytes.ContainsFunc(line, func(r rune) bool { return r > 126 }) {
			l.found("header-ascii", fmt.Sprintf("line %d is not ASCII", n))
		}
	}
}

// breakable tells whether a line could be broken so that no piece of it is longer than 78 octets.
func breakable(line []byte) bool {
	for word := range bytes.FieldsSeq(line) {
		if len(word) > 76 {
			return false
		}
	}
	return true
}

// messageID is an identifier in angle brackets, as libraries make them and servers take them.
var messageID = regexp.MustCompile(`^<[^\s<>@]+@[^\s<>@]+>$`)

// originator looks at the fields that say who wrote when, to whom.
func (l *linter) originator() {
	from, err := (&netmail.AddressParser{}).ParseList(value(l.fields, "From"))
	if n := l.count("From"); n != 1 {
		l.found("from-once", fmt.Sprintf("there are %d From fields", n))
	} else if err != nil {
		l.found("from-once", "From has no address that can be read")
	}
	if len(from) > 1 && l.count("Sender") == 0 {
		l.found("sender-field", fmt.Sprintf("From has %d addresses, and there is no Sender", len(from)))
	}
	if n := l.count("Date"); n != 1 {
		l.found("date-once", fmt.Sprintf("there are %d Date fields", n))
	} else if _, err := netmail.ParseDate(value(l.fields, "Date")); err != nil {
		l.found("date-once", "Date cannot be read")
	}
	if n := l.count("Message-ID"); n != 1 {
		l.found("message-id", fmt.Sprintf("there are %d Message-ID fields", n))
	} else if !messageID.MatchString(value(l.fields, "Message-ID")) {
		l.found("message-id", "Message-ID is no identifier in angle brackets")
	}
	for _, name := range []string{"To", "Cc", "Reply-To", "Sender", "Subject", "In-Reply-To", "References", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"} {
		if n := l.count(name); n > 1 {
			l.found("field-once", fmt.Sprintf("there are %d %s fields", n, name))
		}
	}
	if l.count("Bcc") > 0 {
		l.found("bcc", "there is a Bcc field")
	}
}

// listIdentifier is a list-id: dot-atoms of RFC 5322 section 3.2.3, at least two.
var listIdentifier = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+/=?^_{|}~` + "`" + `-]+(\.[A-Za-z0-9!#$%&'*+/=?^_{|}~` + "`" + `-]+)+$`)

// listID looks at List-Id (RFC 2919).
func (l *linter) listID() {
	switch n := l.count("List-Id"); {
	case n == 0:
		return
	case n > 1:
		l.found("list-id-once", fmt.Sprintf("there are %d List-Id fields", n))
	}
	v := value(l.fields, "List-Id")
	i := strings.LastIndexByte(v, '<')
	id := strings.TrimSuffix(v[i+1:], ">")
	switch {
	case i < 0 || !strings.HasSuffix(v, ">"):
		l.found("list-id-syntax", "List-Id has no identifier in angle brackets at its end")
	case len(id) > 255:
		l.found("list-id-syntax", fmt.Sprintf("the identifier of List-Id has %d octets", len(id)))
	case !listIdentifier.MatchString(id):
		l.found("list-id-syntax", "the identifier of List-Id is no name such as letter.example.com")
	}
}

// hints looks at fields that nobody has to set, but that must be right when they are set.
func (l *linter) hints() {
	if n := l.count("Feedback-ID"); n > 1 {
		l.found("feedback-id-syntax", fmt.Sprintf("there are %d Feedback-ID fields", n))
	} else if n == 1 {
		ids := strings.Split(value(l.fields, "Feedback-ID"), ":")
		if len(ids) > 4 || strings.TrimSpace(ids[len(ids)-1]) == "" {
			l.found("feedback-id-syntax", fmt.Sprintf("Feedback-ID has %d parts, or its last one is empty", len(ids)))
		}
	}
	if n := l.count("Auto-Submitted"); n > 1 {
		l.found("auto-submitted", fmt.Sprintf("there are %d Auto-Submitted fields", n))
	} else if n == 1 {
		kind, _, _ := strings.Cut(value(l.fields, "Auto-Submitted"), ";")
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "no", "auto-generated":
		case "auto-replied":
			if !l.required {
				l.found("auto-submitted", "Auto-Submitted says that this is an automatic reply")
			}
		default:
			l.found("auto-submitted", "Auto-Submitted has a value that nobody knows")
		}
	}
}
