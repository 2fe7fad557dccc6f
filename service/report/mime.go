package report

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/textproto"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
)

// part is one entity of a message (RFC 2045): its header and its body, not yet decoded.
type part struct {
	header textproto.MIMEHeader
	media  string // in lower case
	params map[string]string
	body   []byte
}

// openPart takes an entity apart. A header that is broken is read as far as it goes.
func openPart(raw []byte) *part {
	if bytes.HasPrefix(raw, []byte("From ")) { // the line of an mbox file
		_, raw, _ = bytes.Cut(raw, []byte("\n"))
	}
	end := headerEnd(raw)
	p := &part{body: raw[end:]}
	head := raw[:min(end, maxHeader)]
	p.header, _ = textproto.NewReader(bufio.NewReader(io.MultiReader(bytes.NewReader(head), strings.NewReader("\r\n\r\n")))).ReadMIMEHeader()
	if p.header == nil {
		p.header = textproto.MIMEHeader{}
	}
	p.typed()
	return p
}

// headerEnd is where the body begins: behind the first empty line.
func headerEnd(raw []byte) int {
	for at := 0; at < len(raw); {
		i := bytes.IndexByte(raw[at:], '\n')
		if i < 0 {
			return len(raw)
		}
		line := raw[at : at+i]
		at += i + 1
		if len(bytes.TrimRight(line, "\r")) == 0 {
			return at
		}
	}
	return len(raw)
}

func (p *part) typed() {
	field := p.header.Get("Content-Type")
	field = field[:min(len(field), 4000)]
	var err error
	if p.media, p.params, err = mime.ParseMediaType(field); err != nil {
		p.media, p.params = looseType(field)
	}
	if p.media == "" {
		p.media = "text/plain"
	}
	if p.params == nil {
		p.params = map[string]string{}
	}
	p.params["report-type"] = strings.ToLower(p.params["report-type"])
}

// looseType reads a Content-Type that breaks the rules as far as it goes: with parameters twice, or words between them.
func looseType(field string) (media string, params map[string]string) {
	media, rest, _ := strings.Cut(field, ";")
	params = map[string]string{}
	for rest != "" {
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		name = strings.ToLower(strings.Trim(name, " \t;"))
		if value = strings.TrimSpace(value); strings.HasPrefix(value, `"`) {
			value, rest, _ = strings.Cut(value[1:], `"`)
		} else {
			value, rest, _ = strings.Cut(value, ";")
			value = strings.TrimSpace(value)
		}
		if _, twice := params[name]; !twice && name != "" {
			params[name] = value
		}
	}
	return strings.ToLower(strings.TrimSpace(media)), params
}

// decoded is the body without its transfer encoding, at most maxText octets of it. What is broken is read as far as it goes.
func (p *part) decoded() []byte {
	var r io.Reader = bytes.NewReader(p.body)
	switch strings.ToLower(strings.TrimSpace(p.header.Get("Content-Transfer-Encoding"))) {
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, r)
	case "quoted-printable":
		r = quotedprintable.NewReader(r)
	}
	b, _ := io.ReadAll(io.LimitReader(r, maxText))
	return b
}

// walker looks through a message for the parts that matter.
type walker struct {
	parts int
	// status, feedback and returned are the first of their kinds; nil when there is none.
	status, feedback, returned []byte
	disposition                bool
	// wrapped: the report is a message within the message; unwrapped: it was found there.
	wrapped, unwrapped bool
	// text is the first text part, label names its charset, markup is whether it is HTML.
	text   []byte
	label  string
	markup bool
	// every: all text parts are kept, in texts, instead of the first alone.
	every bool
	texts [][]byte
	// object is the first JSON part.
	object []byte
}

func (w *walker) walk(p *part, depth int) {
	if w.parts++; depth > maxDepth || w.parts > maxParts {
		return
	}
	switch p.media {
	case "message/delivery-status", "message/global-delivery-status":
		if w.status == nil {
			w.status = p.decoded()
		}
		return
	case "message/feedback-report":
		if w.feedback == nil {
			w.feedback = p.decoded()
		}
		return
	case "message/disposition-notification", "message/global-disposition-notification":
		w.disposition = true
		return
	case "message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers", "message/rfc822-headers":
		if w.wrapped {
			if inner := openPart(p.decoded()); inner.media == "multipart/report" {
				w.wrapped, w.unwrapped = false, true
				w.walk(inner, depth+1)
				return
			}
		}
		if w.returned == nil {
			w.returned = p.decoded()
		}
		return // what is in there was sent by others, and reports nothing
	}
	if strings.HasPrefix(p.media, "multipart/") && p.params["boundary"] != "" {
		r, found := multipart.NewReader(bytes.NewReader(p.body), p.params["boundary"]), false
		for w.parts <= maxParts {
			next, err := r.NextRawPart()
			if err != nil {
				w.plain(p, !found)
				return
			}
			found = true
			body, err := io.ReadAll(io.LimitReader(next, MaxMessage))
			if len(body) == 0 && err != nil {
				return
			}
			inner := &part{header: next.Header, body: body}
			inner.typed()
			w.walk(inner, depth+1)
		}
		return
	}
	if p.media == "application/json" && w.object == nil {
		w.object = p.decoded()
	}
	if w.every && strings.HasPrefix(p.media, "text/") && len(w.texts) < maxTexts {
		w.texts = append(w.texts, p.decoded())
	}
	w.plain(p, strings.HasPrefix(p.media, "text/") || strings.HasPrefix(p.media, "multipart/"))
}

// plain keeps the first text, if a part is one: also a multipart that has lost its boundary, as it stands.
func (w *walker) plain(p *part, text bool) {
	if text && w.text == nil {
		w.text, w.label, w.markup = p.decoded(), p.params["charset"], p.media == "text/html"
	}
}

// entities are those that stand between the words of a report.
var entities = strings.NewReplacer("&nbsp;", " ", "&lt;", "<", "&gt;", ">", "&amp;", "&", "&#64;", "@")

// inUTF8 is a text in UTF-8 whose charset a label names, as far as that is known. Many labels are wrong, so whatever is UTF-8
// with characters beyond ASCII is taken as such.
func inUTF8(b []byte, label string) []byte {
	if utf8.Valid(b) && bytes.ContainsFunc(b, func(r rune) bool { return r > unicode.MaxASCII }) {
		return b
	}
	r, err := charset.Reader(label, bytes.NewReader(b))
	if err != nil {
		return b
	}
	out, _ := io.ReadAll(io.LimitReader(r, maxText))
	return out
}

// readable is the text in UTF-8, without its markup.
func (w *walker) readable() []byte {
	text := inUTF8(w.text[:min(len(w.text), maxWordy)], w.label)
	if !w.markup && !bytes.Contains(text, []byte("<br>")) {
		return text
	}
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		start := bytes.IndexByte(text, '<')
		if start < 0 {
			break
		}
		out, text = append(out, text[:start]...), text[start:]
		end := bytes.IndexAny(text[1:], "<>") + 1
		if end == 0 {
			break
		}
		// An address in brackets is no tag.
		if text[end] == '<' || bytes.IndexByte(text[:end], '@') >= 0 && bytes.IndexByte(text[:end], ' ') < 0 {
			out = append(out, text[:end]...)
			if text[end] == '>' {
				out = append(out, '>')
			}
		}
		if text = text[end:]; text[0] == '>' {
			text = text[1:]
		}
	}
	return []byte(entities.Replace(string(append(out, text...))))
}

// decodedWords undoes encoded words (RFC 2047) in a field. Of a charset that is unknown the ASCII remains.
func decodedWords(v string) string {
	d := mime.WordDecoder{CharsetReader: func(label string, r io.Reader) (io.Reader, error) {
		if known, err := charset.Reader(label, r); err == nil {
			return known, nil
		}
		return r, nil
	}}
	if s, err := d.DecodeHeader(v[:min(len(v), maxLook)]); err == nil {
		return s
	}
	return v
}

// maxField is how many octets of a folded field are kept.
const maxField = 4000

// line is one field of a report: its name in lower case, its body unfolded.
type line struct{ name, value string }

// groups reads fields in groups that empty lines part (RFC 3464 section 2.1).
func groups(b []byte) (all [][]line) {
	var group []line
	end := func() {
		if len(group) > 0 {
			all = append(all, group)
		}
		group = nil
	}
	for len(b) > 0 {
		var l []byte
		l, b, _ = bytes.Cut(b, []byte("\n"))
		l = bytes.TrimRight(l, "\r")
		switch {
		case len(bytes.TrimSpace(l)) == 0:
			end()
		case (l[0] == ' ' || l[0] == '\t') && len(group) > 0:
			if f := &group[len(group)-1]; len(f.value)+len(l) < maxField { // what is longer says no more, and would be copied at each fold
				f.value += " " + strings.TrimSpace(string(l))
			}
		default:
			if name, value, ok := strings.Cut(string(l), ":"); ok {
				group = append(group, line{strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)})
			}
		}
		if len(all) > 2*maxRecipients {
			break
		}
	}
	end()
	return all
}
