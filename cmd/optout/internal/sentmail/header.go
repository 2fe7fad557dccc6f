package sentmail

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"time"

	"optout/cmd/optout/internal/mailbox"
)

// maxHeader is how much of a message's header is kept, in octets: far more than fields of addresses, times and receipts take.
// What follows is passed over.
const maxHeader = 256 << 10

// kept are the fields that tell what is to know; no others are held.
var kept = map[string]bool{"message-id": true, "to": true, "cc": true, "bcc": true, "resent-to": true, "resent-cc": true, "resent-bcc": true,
	"delivered-to": true, "x-original-to": true, "envelope-to": true, "x-envelope-to": true, "received": true, "date": true, "x-optout-receipt": true}

// header is the header of one message as far as it is kept.
type header struct {
	fields map[string][]string // by name in lower case, topmost first
	last   string              // the name of the last field, when it is kept
	size   int
	any    bool // there was a field
}

// add takes a line of the header.
func (h *header) add(line []byte) {
	if h.size += len(line); h.size > maxHeader {
		h.last = ""
		return
	}
	if line[0] == ' ' || line[0] == '\t' {
		if h.last != "" {
			all := h.fields[h.last]
			all[len(all)-1] += " " + strings.TrimSpace(string(line))
		}
		return
	}
	h.last = ""
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return
	}
	h.any = true
	n := strings.ToLower(strings.TrimRight(string(name), " \t")) // RFC 5322 section 4.5: obsolete, but read
	if !kept[n] || n == "received" && len(h.fields[n]) > 0 {
		return
	}
	if h.fields == nil {
		h.fields = map[string][]string{}
	}
	h.fields[n] = append(h.fields[n], strings.TrimSpace(string(value)))
	h.last = n
}

// message makes a Message of the header; fallback is when it left, if no field says it. The recipients are those of the fields
// that are nearest to the envelope; a copy in an archive of our own has the archive there, and so is read on.
func (h *header) message(where string, fallback time.Time, o Options) Message {
	m := Message{Where: where, ID: first(h.fields["message-id"]), Receipt: first(h.fields["x-optout-receipt"]), Left: fallback, Shown: true}
	for _, fields := range [][]string{{"x-original-to"}, {"delivered-to"}, {"envelope-to", "x-envelope-to"}, {"resent-to", "resent-cc", "resent-bcc"}, {"to", "cc", "bcc"}} {
		var to []string
		for _, name := range fields {
			for _, value := range h.fields[name] {
				to = addresses(to, value)
			}
		}
		external := slices.ContainsFunc(to, func(a string) bool { return o.Internal == nil || !o.Internal(a) })
		if external || m.To == nil {
			m.To = to
		}
		if external {
			break
		}
	}
	received := first(h.fields["received"])
	if t, err := mail.ParseDate(strings.TrimSpace(received[strings.LastIndexByte(received, ';')+1:])); err == nil {
		m.Left = t
	} else if t, err := mail.ParseDate(first(h.fields["date"])); err == nil {
		m.Left = t
	}
	return m
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// addressLike finds addresses in fields that do not keep to RFC 5322.
var addressLike = regexp.MustCompile(`[^\s<>,;:"()\[\]]+@[^\s<>,;:"()]+`)

// addresses adds those of a field's value to a list, each once.
func addresses(list []string, value string) []string {
	var found []string
	if parsed, err := mail.ParseAddressList(value); err == nil {
		for _, a := range parsed {
			found = append(found, strings.TrimSuffix(strings.TrimPrefix((&mail.Address{Address: a.Address}).String(), "<"), ">"))
		}
	} else {
		found = addressLike.FindAllString(value, MaxRecipients)
	}
	for _, a := range found {
		if len(list) < MaxRecipients && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// headers reads the headers of messages. What has no field is no mail; with every it counts all the same, as each file of a Maildir does:
// mail that nobody can know anything of.
func headers(found iter.Seq2[mailbox.Message, error], every bool, o Options) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		in := bufio.NewReaderSize(nil, maxLine)
		for m, err := range found {
			if errors.Is(err, mailbox.ErrNothing) {
				err = ErrNothing
			}
			if err != nil {
				yield(Message{}, err)
				return
			}
			in.Reset(m.Text)
			h, err := readHeader(&lines{r: in})
			if err != nil {
				yield(Message{}, err)
				return
			}
			if (h.any || every) && !yield(h.message(m.Where, m.Since, o), nil) {
				return
			}
		}
	}
}

func readHeader(l *lines) (*header, error) {
	h := &header{}
	for {
		line, err := l.next()
		if errors.Is(err, io.EOF) || err == nil && len(line) == 0 && h.any {
			return h, nil
		}
		if err != nil {
			return nil, err
		}
		if len(line) > 0 {
			h.add(line)
		}
	}
}
