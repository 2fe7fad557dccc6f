package words

import (
	"bytes"
	"io"
	"mime"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/charset"
	"golang.org/x/text/encoding/charmap"
)

// mail is a message taken apart.
type mail struct {
	header header
	root   *part
	// seen is all text that may hold tokens: what is written, quoted, hidden and linked.
	seen []byte
	// attachments: there is something besides text, which may say what the text does not.
	attachments bool
	// incomplete: some text could not be read, or was beyond a limit.
	incomplete bool

	parts, text int
}

// part is an entity of a message (RFC 2045): text, or what holds further parts.
type part struct {
	media string // in lower case
	parts []*part
	plain string // text as it was written, or made of HTML
	html  bool
}

func openMessage(raw []byte) *mail {
	m := &mail{}
	head, body := split(lineFeeds(raw))
	m.header = readHeader(head)
	m.root = m.open(m.header, body, 0)
	return m
}

// lineFeeds makes a line end of a CR that stands alone, as some programs read it: what one takes for a field must not be another's
// text.
func lineFeeds(raw []byte) []byte {
	var out []byte
	for i, c := range raw {
		if c == '\r' && (i+1 == len(raw) || raw[i+1] != '\n') {
			if out == nil {
				out = bytes.Clone(raw)
			}
			out[i] = '\n'
		}
	}
	if out == nil {
		return raw
	}
	return out
}

// split parts an entity at its first empty line.
func split(raw []byte) (head, body []byte) {
	for at := 0; at < len(raw); {
		i := bytes.IndexByte(raw[at:], '\n')
		if i < 0 {
			break
		}
		line := raw[at : at+i]
		if len(bytes.TrimRight(line, "\r")) == 0 {
			return raw[:at], raw[at+i+1:]
		}
		at += i + 1
	}
	return raw, nil
}

// open reads an entity.
func (m *mail) open(h header, body []byte, depth int) *part {
	media, params := h.contentType()
	p := &part{media: media}
	if m.parts++; depth > maxDepth || m.parts > maxParts {
		m.incomplete = true
		return p
	}
	switch {
	case strings.HasPrefix(media, "multipart/") && params["boundary"] != "":
		for _, raw := range between(body, params["boundary"]) {
			if m.parts >= maxParts {
				m.incomplete = true
				break
			}
			head, inner := split(raw)
			p.parts = append(p.parts, m.open(readHeader(head), inner, depth+1))
		}
		if len(p.parts) == 0 && len(bytes.TrimSpace(body)) > 0 {
			m.incomplete = true
		}
	case media == "application/pkcs7-mime", media == "application/x-pkcs7-mime", media == "application/pgp-encrypted":
		m.incomplete = true
	case media == "application/pgp-signature", media == "application/pkcs7-signature", media == "application/x-pkcs7-signature":
	case strings.HasPrefix(media, "message/"): // sent by others: nothing in there is the person's own, but it may tell which mail they mean
		m.attachments = true
		m.see(body)
	case media != "text/plain" && media != "text/html", h.attached():
		m.attachments = true
	default:
		text := m.decode(h, body, params["charset"])
		p.html = media == "text/html"
		if !p.html {
			m.see([]byte(text))
			p.plain = text
			break
		}
		var links string
		p.plain, links = htmlText(text)
		m.see([]byte(links))
	}
	return p
}

// see keeps a text to look for tokens in, also in links that a mail system has wrapped into its own, percent-encoded (RFC 3986
// section 2.1) once or twice.
func (m *mail) see(text []byte) {
	text = text[:min(len(text), max(0, maxText-len(m.seen)))]
	m.seen = append(append(m.seen, text...), '\n')
	if bytes.Contains(text, []byte("%2")) {
		slash := strings.NewReplacer("%2F", "/", "%2f", "/", "%252F", "/", "%252f", "/")
		m.seen = append(append(m.seen, slash.Replace(string(text))...), '\n')
	}
}

// between finds the parts of a multipart body: what stands between two lines of its boundary (RFC 2046 section 5.1.1), or behind
// the last, when the end is missing.
func between(body []byte, boundary string) (parts [][]byte) {
	dashed := []byte("--" + boundary)
	start := -1
	for at := 0; at < len(body) && len(parts) <= maxParts; {
		end := len(body)
		if i := bytes.IndexByte(body[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if rest, ok := bytes.CutPrefix(body[at:end], dashed); ok {
			rest = bytes.TrimRight(rest, " \t\r\n")
			last := bytes.Equal(rest, []byte("--"))
			if last || len(rest) == 0 {
				if start >= 0 {
					parts = append(parts, body[start:at])
				}
				if start = end; last {
					return parts
				}
			}
		}
		at = end
	}
	if start >= 0 && start < len(body) {
		parts = append(parts, body[start:])
	}
	return parts
}

// decode undoes the transfer encoding and makes the text UTF-8.
func (m *mail) decode(h header, body []byte, label string) string {
	var plain message.Header
	plain.Set("Content-Transfer-Encoding", strings.TrimSpace(h.get("Content-Transfer-Encoding")))
	e, err := message.New(plain, bytes.NewReader(body))
	if err != nil {
		m.incomplete = true // an unknown encoding: read as it stands
	}
	b, err := io.ReadAll(io.LimitReader(e.Body, int64(maxText-m.text)+1))
	if err != nil {
		m.incomplete = true
	}
	if m.text += len(b); m.text > maxText {
		b, m.text = b[:len(b)-(m.text-maxText)], maxText
		m.incomplete = true
	}
	return toUTF8(b, label)
}

// toUTF8 reads a text in the charset that its label names. Many labels are missing or wrong, so whatever is UTF-8 with characters
// beyond ASCII is taken as such, and what no charset fits is read as windows-1252.
func toUTF8(b []byte, label string) string {
	label = strings.ToLower(strings.TrimSpace(label))
	escapes := bytes.Contains(b, []byte("\x1b$")) // ISO 2022, which is ASCII to the eye
	switch {
	case escapes && (label == "" || label == "us-ascii" || label == "utf-8"):
		label = "iso-2022-jp"
	case !escapes && utf8.Valid(b) && !strings.HasPrefix(label, "utf-16") && !strings.HasPrefix(label, "utf-32") && label != "utf-7":
		return string(b)
	}
	if label != "" && label != "utf-8" && label != "us-ascii" {
		if r, err := charset.Reader(label, bytes.NewReader(b)); err == nil {
			if out, err := io.ReadAll(io.LimitReader(r, 4*maxText)); err == nil && utf8.Valid(out) {
				return string(out)
			}
		}
	}
	if utf8.Valid(b) {
		return string(b)
	}
	out, _ := charmap.Windows1252.NewDecoder().Bytes(b)
	return string(out)
}

// decodeWords decodes encoded words (RFC 2047), whatever their charset.
func decodeWords(s string) string {
	if !utf8.ValidString(s) {
		s = toUTF8([]byte(s), "")
	}
	d := mime.WordDecoder{CharsetReader: charsetReader}
	if out, err := d.DecodeHeader(s); err == nil {
		return out
	}
	return s
}

// charsetReader never fails, so that one odd word does not hide the rest.
func charsetReader(label string, r io.Reader) (io.Reader, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxHeader))
	if err != nil {
		return nil, err
	}
	return strings.NewReader(toUTF8(b, label)), nil
}

// render joins the text of the parts, of alternatives (RFC 2046 section 5.1.4) the HTML or the one that is not.
func (p *part) render(html bool) string {
	if len(p.parts) == 0 {
		return p.plain
	}
	if p.media == "multipart/alternative" {
		var chosen string
		for _, x := range p.parts {
			text := x.render(html)
			if strings.TrimSpace(text) == "" {
				continue
			}
			if chosen == "" || html && x.hasHTML() {
				chosen = text
			}
			if x.hasHTML() == html {
				break
			}
		}
		return chosen
	}
	var b strings.Builder
	for _, x := range p.parts {
		if text := x.render(html); text != "" {
			b.WriteString(text)
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func (p *part) hasHTML() bool {
	if p.html {
		return true
	}
	for _, x := range p.parts {
		if x.hasHTML() {
			return true
		}
	}
	return false
}
