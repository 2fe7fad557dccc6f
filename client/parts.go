package client

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
)

// Limits of a message's structure. Mail that people read stays far below them; what is nested a thousand deep is meant to hurt.
const (
	maxDepth = 8
	maxParts = 100
)

var errTooNested = fmt.Errorf("its MIME parts are nested more than %d deep, or are more than %d", maxDepth, maxParts)

// part is a part of a message that holds no other parts (RFC 2045).
type part struct {
	fields  []field
	head    int // where its header begins in the body of the message; for the message itself -1
	at, end int // where its content begins and ends there

	kind     string // media type, lower case
	params   map[string]string
	encoding string // Content-Transfer-Encoding, lower case
	shown    bool   // it is what is shown for the message, or one alternative of it
	attached bool   // it is to be shown apart
	sealed   bool   // it is signed or encrypted, so no octet of it may change
}

// text tells whether it is text that a reader of the message sees as such.
func (p *part) text() bool {
	return !p.attached && (p.kind == "text/plain" || p.kind == "text/html")
}

// walker collects the parts of a body.
type walker struct {
	body  []byte
	parts []part
	seen  int
}

// parts takes a message's body apart. With an error it returns what was found before.
func parts(fields []field, body []byte) ([]part, error) {
	w := &walker{body: body}
	err := w.walk(part{fields: fields, head: -1, end: len(body), shown: true}, 0)
	return w.parts, err
}

func (w *walker) walk(p part, depth int) error {
	if w.seen++; w.seen > maxParts || depth > maxDepth {
		return errTooNested
	}
	kind, params, err := mime.ParseMediaType(or(value(p.fields, "Content-Type"), "text/plain; charset=us-ascii"))
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return errors.New("the Content-Type of a part cannot be read")
	}
	p.kind, p.params = kind, params
	p.encoding = strings.ToLower(strings.TrimSpace(value(p.fields, "Content-Transfer-Encoding")))
	disposition, _, _ := mime.ParseMediaType(value(p.fields, "Content-Disposition"))
	p.attached = disposition == "attachment"
	if !strings.HasPrefix(kind, "multipart/") {
		w.parts = append(w.parts, p)
		return nil
	}
	if params["boundary"] == "" {
		return errors.New("a multipart has no boundary")
	}
	first := true
	for at, end := range sections(w.body[p.at:p.end], params["boundary"]) {
		if at < 0 {
			return errors.New("a multipart has no part, or its last boundary is missing")
		}
		child := part{head: p.at + at, end: p.at + end, attached: p.attached, sealed: p.sealed || kind == "multipart/signed" || kind == "multipart/encrypted",
			shown: p.shown && (first || kind == "multipart/alternative")}
		first = false
		fields, content, err := parse(w.body[child.head:child.end])
		if err != nil {
			return fmt.Errorf("the header of a part: %w", err)
		}
		child.fields, child.at = fields, child.end-len(content)
		if err := w.walk(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// sections yields where the parts of a multipart begin and end (RFC 2046 section 5.1.1); -1 when the last boundary is missing.
func sections(body []byte, boundary string) func(yield func(at, end int) bool) {
	delimiter := []byte("--" + boundary)
	return func(yield func(at, end int) bool) {
		start := -1
		for at := 0; ; {
			i := bytes.Index(body[at:], delimiter)
			if i < 0 {
				yield(-1, -1)
				return
			}
			at += i
			if at > 0 && body[at-1] != '\n' {
				at += len(delimiter)
				continue
			}
			line, _, _ := bytes.Cut(body[at+len(delimiter):], []byte("\n"))
			next := min(at+len(delimiter)+len(line)+1, len(body))
			last := bytes.HasPrefix(line, []byte("--"))
			if !last && len(bytes.TrimSpace(line)) > 0 {
				at += len(delimiter)
				continue
			}
			end := at
			if end > 0 {
				end--
			}
			if end > 0 && body[end-1] == '\r' {
				end--
			}
			if start >= 0 && !yield(start, max(start, end)) {
				return
			}
			if last {
				if start < 0 {
					yield(-1, -1)
				}
				return
			}
			start, at = next, next
		}
	}
}

// decode takes the transfer encoding off.
func (p *part) decode(body []byte) ([]byte, error) {
	content := body[p.at:p.end]
	switch p.encoding {
	case "", "7bit", "8bit", "binary":
		return content, nil
	case "quoted-printable":
		b, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(content)))
		return b, encodingFault(err)
	case "base64":
		b, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(content))) // it skips the ends of lines
		return b, encodingFault(err)
	}
	return nil, errors.New("the Content-Transfer-Encoding of a part is unknown")
}

// encodingFault says that a part is badly encoded, without the text that the error of the decoder quotes.
func encodingFault(err error) error {
	if err != nil {
		return errors.New("a part is not encoded as its Content-Transfer-Encoding says")
	}
	return nil
}

// charset is the part's character set; nil for UTF-8 and its subset ASCII. It fails for one that is unknown.
func (p *part) charset() (encoding.Encoding, error) {
	name := strings.ToLower(or(p.params["charset"], "us-ascii"))
	if name == "utf-8" || name == "us-ascii" || name == "ascii" {
		return nil, nil
	}
	e, err := htmlindex.Get(name)
	if err != nil {
		return nil, errors.New("the charset of a part is unknown")
	}
	if s, err := e.NewEncoder().String("a"); err != nil || s != "a" {
		return nil, errors.New("the charset of a part writes ASCII otherwise than ASCII does")
	}
	return e, nil
}

// value is the first field's of a name, unfolded; "" when there is none.
func value(fields []field, name string) string {
	for _, f := range fields {
		if f.is(name) {
			return f.value()
		}
	}
	return ""
}

// value is what stands after the colon, unfolded (RFC 5322 section 2.2.3).
func (f field) value() string {
	_, v, _ := strings.Cut(f.text, ":")
	return strings.TrimSpace(strings.NewReplacer("\r\n", "", "\n", "").Replace(v))
}

// or is s, or instead where s is empty.
func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}
