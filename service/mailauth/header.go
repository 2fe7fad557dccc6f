package mailauth

import (
	"bytes"
	"net/mail"
	"strings"

	"optout/service/address"
)

// field is one header field: its name in lower case, and its body, still folded.
type field struct{ name, body string }

type header []field

// readHeader takes the header apart; fault says why it proves nothing.
func readHeader(raw []byte) (h header, fault string) {
	for at := 0; ; {
		if at > maxHeader {
			return nil, "the header is too large"
		}
		end := bytes.IndexByte(raw[at:], '\n')
		if end < 0 {
			return h, "" // without a body
		}
		line := string(bytes.TrimRight(raw[at:at+end], "\r"))
		at += end + 1
		switch {
		case line == "":
			return h, ""
		case line[0] == ' ' || line[0] == '\t':
			if len(h) == 0 {
				return nil, "the header begins with a folded line"
			}
			last := &h[len(h)-1]
			if len(last.body)+len(line) > maxField {
				return nil, "a header field is too large"
			}
			last.body += line
		default:
			name, body, ok := strings.Cut(line, ":")
			if !ok {
				return nil, "a header line is no field"
			}
			if len(h) == maxFields || len(line) > maxField {
				return nil, "the header is too large"
			}
			h = append(h, field{strings.ToLower(strings.TrimRight(name, " \t")), body})
		}
	}
}

// count is how many fields of a name there are.
func (h header) count(name string) (n int) {
	for _, f := range h {
		if f.name == name {
			n++
		}
	}
	return n
}

// from is the only address in the only From field, and its domain.
func (h header) from() (addr, domain string) {
	if h.count("from") != 1 {
		return "", ""
	}
	for _, f := range h {
		if f.name != "from" {
			continue
		}
		list, err := (&mail.AddressParser{}).ParseList(f.body)
		if err != nil || len(list) != 1 {
			return "", ""
		}
		a, err := address.Parse(list[0].Address)
		if err != nil {
			return "", ""
		}
		return list[0].Address, string(a.DomainBytes())
	}
	return "", ""
}
