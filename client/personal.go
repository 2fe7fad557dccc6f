package client

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"mime/quotedprintable"
	"net/url"
	"regexp"
	"strings"

	"golang.org/x/text/encoding"

	optoutv1 "optout/proto/optout/v1"
)

// What each recipient's copy has of its own in its text: the link. It is known only at the check right before the message
// leaves, so it cannot be in the message when go-mail renders it; and rendering anew for each recipient would ask the caller's
// writers, attachments and middleware again each time. So the rendered text is edited: its text parts are decoded once, and for
// each copy filled in and encoded again. All other octets stay as they were.

// personal is a text part that differs between copies.
type personal struct {
	part
	content []byte // decoded
	footer  int    // where the footer goes in content; -1: none does
	charset encoding.Encoding
	base64  bool // how it is encoded again; otherwise as quoted-printable
}

// personalise finds the parts that differ between copies.
func (l *letter) personalise(f *Footer, linked bool) error {
	found, err := parts(l.fields, l.body)
	if err != nil {
		if f == nil { // there is nothing that must go into it
			return nil
		}
		return fmt.Errorf("no footer can be put under it: %w", err)
	}
	l.footer, l.linked = f, linked
	footers := 0
	for _, p := range found {
		if !p.text() {
			continue
		}
		content, err := p.decode(l.body)
		if err != nil {
			if f != nil && p.shown {
				return fmt.Errorf("no footer can be put under it: %w", err)
			}
			continue
		}
		filled := bytes.Contains(content, []byte(UnsubscribeURLPlaceholder))
		if filled && !linked {
			return errors.New("it has UnsubscribeURLPlaceholder, but no unsubscribe link stops mail of this topic: take it out")
		}
		at := -1
		if f != nil && p.shown {
			if at = len(content); p.kind == "text/html" {
				at = endOfHTML(content)
			}
			footers++
		}
		if !filled && at < 0 {
			continue
		}
		if p.sealed {
			return errors.New("it is signed or encrypted with S/MIME or PGP, which the recipient's own unsubscribe link would break: take off either")
		}
		x := personal{part: p, content: content, footer: at, base64: p.encoding == "base64" || looksLikeBoundary.Match(content)}
		if x.charset, err = p.charset(); err != nil {
			return fmt.Errorf("no unsubscribe link can be put into it: %w: write it in UTF-8", err)
		}
		l.personal = append(l.personal, x)
	}
	if f != nil && footers == 0 {
		return errors.New("it has no text and no HTML to put the footer under: add a text part, or send it without WithFooter")
	}
	return nil
}

// looksLikeBoundary finds what quoted-printable could turn into the end of a part: a line that begins with two hyphens, and a CR
// alone, which its writer takes for the end of a line. The separator of signatures ("-- ") is none.
var looksLikeBoundary = regexp.MustCompile(`(^|\n)--[^\n]*[^\s]|\r([^\n]|$)`)

// endOfHTML is where something goes that shall be the last to be seen.
func endOfHTML(content []byte) int {
	lower := bytes.ToLower(content)
	if len(lower) != len(content) { // letters whose lower case has another length
		lower = content
	}
	for _, end := range []string{"</body>", "</html>"} {
		if i := bytes.LastIndex(lower, []byte(end)); i >= 0 {
			return i
		}
	}
	return len(content)
}

// fill is the header and the body of one recipient's copy, but for the fields that write sees to.
func (l *letter) fill(link *optoutv1.UnsubscribeLink) ([]field, []byte, error) {
	if len(l.personal) == 0 {
		return l.fields, l.body, nil
	}
	to := link.GetUrl()
	if u, err := url.Parse(to); (l.linked || to != "") && (err != nil || u.Host == "" || strings.ContainsFunc(to, func(r rune) bool { return r <= ' ' || r > '~' })) {
		return nil, nil, fmt.Errorf("%w: the service gave an unsubscribe URL that this client does not understand: bring the client up to date", ErrCannotAsk)
	}
	fields := l.fields
	var b bytes.Buffer
	done := 0
	for i := range l.personal {
		p := &l.personal[i]
		text, err := p.write(l.footer, to)
		if err != nil {
			return nil, nil, err
		}
		if p.head < 0 {
			fields = p.reencoded(l.fields)
		} else {
			b.Write(l.body[done:p.head])
			for _, f := range p.reencoded(p.fields) {
				b.WriteString(f.text)
			}
			b.WriteString("\r\n")
		}
		b.Write(text)
		done = p.end
	}
	b.Write(l.body[done:])
	return fields, b.Bytes(), nil
}

// reencoded is a header that says how the part is encoded again.
func (p *personal) reencoded(fields []field) (all []field) {
	now := "quoted-printable"
	if p.base64 {
		now = "base64"
	}
	if p.encoding == now {
		return fields
	}
	for _, f := range fields {
		if !f.is("Content-Transfer-Encoding") {
			all = append(all, f)
		}
	}
	return append(all, field{"Content-Transfer-Encoding", "Content-Transfer-Encoding: " + now + "\r\n"})
}

// write writes the part for one recipient, encoded.
func (p *personal) write(f *Footer, to string) ([]byte, error) {
	text, markup := to, p.kind == "text/html"
	if markup {
		text = html.EscapeString(to)
	}
	content := p.content
	if p.footer >= 0 {
		footer, err := p.encodeFooter(f, to, markup)
		if err != nil {
			return nil, err
		}
		content = bytes.Join([][]byte{content[:p.footer], footer, content[p.footer:]}, nil)
	}
	content = bytes.ReplaceAll(content, []byte(UnsubscribeURLPlaceholder), []byte(text))
	var b bytes.Buffer
	if p.base64 {
		encoded := base64.StdEncoding.EncodeToString(content)
		for len(encoded) > 76 {
			b.WriteString(encoded[:76] + "\r\n")
			encoded = encoded[76:]
		}
		b.WriteString(encoded)
		if p.head < 0 {
			b.WriteString("\r\n")
		}
		return b.Bytes(), nil
	}
	w := quotedprintable.NewWriter(&b)
	_, err := w.Write(content)
	err = errors.Join(err, w.Close()) // it writes what is left
	return b.Bytes(), err
}

// encodeFooter is the footer in the part's character set, below what is there.
func (p *personal) encodeFooter(f *Footer, to string, markup bool) ([]byte, error) {
	if markup {
		s := "\r\n" + f.HTML(to)
		if p.charset == nil && p.ascii() || p.charset != nil { // whatever the charset lacks can be written as a number
			s = encodeASCII(s)
		}
		return []byte(s), nil
	}
	above := "\r\n"
	if n := len(p.content); n > 0 && p.content[n-1] != '\n' {
		above = "\r\n\r\n"
	}
	s := above + f.Text(to)
	if p.charset != nil {
		b, err := p.charset.NewEncoder().String(s)
		if err != nil {
			return nil, errors.New("optout client: the footer has letters that the message's charset has not: write the message in UTF-8")
		}
		return []byte(b), nil
	}
	if p.ascii() && encodeASCII(s) != s {
		return nil, errors.New("optout client: the footer has letters that the message's charset has not: write the message in UTF-8")
	}
	return []byte(s), nil
}

// ascii tells whether the part says that it is ASCII, or says nothing, which is the same (RFC 2045 section 5.2).
func (p *personal) ascii() bool { return strings.ToLower(p.params["charset"]) != "utf-8" }

// encodeASCII writes what is not ASCII as HTML's numeric references.
func encodeASCII(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r > '~' {
			fmt.Fprintf(&b, "&#%d;", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
