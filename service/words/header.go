package words

import (
	"bufio"
	"bytes"
	"mime"
	netmail "net/mail"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-message/textproto"
)

// header is an entity's header. Fields that are broken are left out.
type header struct{ textproto.Header }

// readHeader reads a header of which the first maxHeader octets count.
func readHeader(head []byte) header {
	var clean bytes.Buffer
	whole := false // whether the line is part of a field that can be read
	for line := range bytes.Lines(head[:min(len(head), maxHeader)]) {
		line = bytes.TrimRight(line, "\r\n")
		name, _, colon := bytes.Cut(line, []byte(":"))
		if len(line) == 0 || line[0] != ' ' && line[0] != '\t' {
			whole = colon && isFieldName(bytes.TrimRight(name, " \t"))
		}
		if whole {
			clean.Write(line)
			clean.WriteString("\r\n")
		}
	}
	clean.WriteString("\r\n")
	h, _ := textproto.ReadHeader(bufio.NewReader(&clean))
	return header{h}
}

// isFieldName reports whether a name is one (RFC 5322 section 3.6.8).
func isFieldName(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return len(name) > 0 && len(name) <= 100
}

func (h header) get(name string) string { return h.Get(name) }

func (h header) has(name string) bool { return strings.TrimSpace(h.Get(name)) != "" }

// text is a field with its encoded words decoded.
func (h header) text(name string) string { return decodeWords(h.Get(name)) }

// contentType is the media type in lower case and its parameters, as far as they can be read.
func (h header) contentType() (string, map[string]string) {
	v := h.Get("Content-Type")
	media, params, err := mime.ParseMediaType(v)
	if err != nil && media == "" {
		media, _, _ = strings.Cut(strings.ToLower(v), ";")
		media = strings.TrimSpace(media)
	}
	if !strings.Contains(media, "/") { // RFC 2045 section 5.2
		media = "text/plain"
	}
	return media, params
}

// attached reports whether the entity is a file rather than what the person wrote.
func (h header) attached() bool {
	kind, params, _ := mime.ParseMediaType(h.Get("Content-Disposition"))
	return kind == "attachment" || params["filename"] != ""
}

// messageID is the Message-ID as it stands.
func (h header) messageID() string {
	const longest = 998 // RFC 5322 section 2.1.1
	id := strings.TrimSpace(h.Get("Message-Id"))
	if len(id) > longest || strings.ContainsFunc(id, func(c rune) bool { return c < ' ' || c >= 0x7f }) {
		return ""
	}
	return id
}

// from is the address of the only mailbox of the only From field.
func (h header) from() string {
	all := h.Values("From")
	if len(all) != 1 {
		return ""
	}
	list := addresses(all[0])
	if len(list) != 1 {
		return ""
	}
	return list[0]
}

// recipients are the addresses in the fields that say to whom a message went, and to whom it was delivered.
func (h header) recipients() []string {
	var all []string
	for _, name := range []string{"Delivered-To", "X-Original-To", "Envelope-To", "To", "Cc"} {
		for _, v := range h.Values(name) {
			list := addresses(v)
			if list == nil {
				list = sloppy(v)
			}
			for _, a := range list {
				if len(all) == maxRecipients {
					return all
				}
				if !slices.Contains(all, a) {
					all = append(all, a)
				}
			}
		}
	}
	return all
}

// to are the addresses in the To fields; none when a field breaks the rules, for then readers differ about whom it names.
func (h header) to() (all []string) {
	for _, v := range h.Values("To") {
		list := addresses(v)
		if list == nil || len(all)+len(list) > maxRecipients {
			return nil
		}
		all = append(all, list...)
	}
	return all
}

// addresses reads an address list (RFC 5322 section 3.4); nil when it is none.
func addresses(v string) []string {
	if !utf8.ValidString(v) {
		v = toUTF8([]byte(v), "")
	}
	p := netmail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: charsetReader}}
	list, err := p.ParseList(v)
	if err != nil {
		return nil
	}
	var all []string
	for _, a := range list {
		// The parser takes the quotes off a local part; the address is what it is only with them.
		bare := strings.TrimSuffix(strings.TrimPrefix((&netmail.Address{Address: a.Address}).String(), "<"), ">")
		if !plausible(bare) {
			return nil
		}
		all = append(all, bare)
	}
	return all
}

// sloppy finds addresses in a list that breaks the rules.
func sloppy(v string) (all []string) {
	for _, x := range strings.FieldsFunc(v, func(c rune) bool { return strings.ContainsRune(" \t\r\n,;<>\"()", c) }) {
		if plausible(x) && len(all) < maxRecipients {
			all = append(all, x)
		}
	}
	return all
}

// plausible reports whether a text may be an address; whether it is, those decide who use it.
func plausible(a string) bool {
	const longest = 320 // 64 octets, "@", 255 octets: RFC 5321 section 4.5.3.1
	at := strings.LastIndexByte(a, '@')
	return at > 0 && at < len(a)-1 && len(a) <= longest && utf8.ValidString(a) && printable(a, longest) == a && !strings.Contains(a, "\n")
}

// automatic reports whether a program wrote the message or a list sent it (RFC 3834 sections 2 and 5), and which field says so.
// A subject alone never does (RFC 3834 section 3.1.5), and X-Auto-Response-Suppress does not either: Exchange puts it on people's
// mail. Together they do.
func automatic(h header, media, subject string) (bool, string) {
	for _, v := range h.Values("Auto-Submitted") {
		switch word := keyword(v); word {
		case "", "no":
		case "auto-generated", "auto-replied", "auto-notified":
			return true, "Auto-Submitted: " + word
		default:
			return true, "Auto-Submitted"
		}
	}
	for _, name := range []string{"Precedence", "X-Precedence", "Preference"} {
		for _, v := range h.Values(name) {
			switch word := keyword(v); word {
			case "bulk", "junk", "list", "auto_reply":
				return true, "Precedence: " + word
			}
		}
	}
	for _, v := range h.Values("X-Autogenerated") { // CommuniGate; what it forwards or redirects a person wrote
		if word := keyword(v); word == "reply" || word == "letter" {
			return true, "X-Autogenerated: " + word
		}
	}
	for _, v := range h.Values("Delivered-To") {
		if strings.EqualFold(strings.TrimSpace(v), "autoresponder") {
			return true, "Delivered-To: Autoresponder"
		}
	}
	if media == "multipart/report" || media == "message/disposition-notification" {
		return true, "Content-Type: " + media
	}
	for _, v := range h.Values("Return-Path") {
		if strings.Join(strings.Fields(v), "") == "<>" {
			return true, "Return-Path: <>"
		}
	}
	for _, v := range h.Values("X-Post-Messageclass") {
		if strings.Contains(strings.ToLower(v), "autoresponder") {
			return true, "X-POST-MessageClass: Autoresponder"
		}
	}
	for f := h.Fields(); f.Next(); {
		name := f.Key()
		switch {
		case strings.HasPrefix(name, "List-"):
			return true, listField(name)
		case strings.HasPrefix(name, "X-Autorepl"), strings.HasPrefix(name, "X-Autorespon"), strings.HasPrefix(name, "X-Auto-Reply"),
			name == "X-Mail-Autoreply", name == "X-Fc-Machinegenerated":
			if keyword(f.Value()) != "no" && keyword(f.Value()) != "false" {
				return true, "X-Autoreply"
			}
		}
	}
	if h.has("X-Auto-Response-Suppress") && dictionaries().away(subject) {
		return true, "X-Auto-Response-Suppress"
	}
	return false, ""
}

// listField names a field of list mail (RFC 2369, RFC 2919); those that no standard knows by their beginning.
func listField(name string) string {
	switch name {
	case "List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Post", "List-Help", "List-Owner", "List-Archive", "List-Subscribe":
		return name
	}
	return "List-"
}

// keyword is a field's first word in lower case, without parameters and comments (RFC 3834 section 5.1, RFC 5322 section 3.2.2).
func keyword(v string) string {
	var b strings.Builder
	depth := 0
	for _, c := range v {
		switch {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth > 0:
		case c == ';' || b.Len() > 0 && (c == ' ' || c == '\t'):
			return strings.ToLower(b.String())
		case c != ' ' && c != '\t':
			b.WriteRune(c)
		}
	}
	return strings.ToLower(b.String())
}
