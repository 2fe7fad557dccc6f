package words

import (
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// htmlText makes text of HTML: what a reader sees, with quotations marked as in plain text. links are all texts and addresses in it,
// seen or not.
//
// It reads token by token and builds no tree, so that its time and memory grow with the text alone, however deep that nests.
func htmlText(source string) (text, links string) {
	w := &htmlWriter{}
	z := html.NewTokenizer(strings.NewReader(source))
	for {
		switch z.Next() {
		case html.ErrorToken:
			return w.out.String(), w.links.String()
		case html.TextToken:
			w.text(string(z.Text()))
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			w.start(&t)
		case html.EndTagToken:
			name, _ := z.TagName()
			w.end(string(name))
		}
	}
}

// region is an element whose content is not the person's own text, and what nests in it under the same name.
type region struct {
	tag   string
	depth int
	kind  regionKind
}

type regionKind uint8

const (
	hidden regionKind = iota + 1
	quoted
)

type htmlWriter struct {
	out, links strings.Builder
	inside     []region // innermost last; at most two: what is hidden in a quotation
	line       bool     // whether the line has text
	space      bool     // whether a space is due
	rest       bool     // whether everything from here on is quoted
}

// start begins an element.
func (w *htmlWriter) start(t *html.Token) {
	for _, a := range t.Attr {
		if a.Key == "href" {
			w.links.WriteString(a.Val + "\n")
		}
	}
	if isBlock(t.DataAtom) {
		w.newLine()
	}
	if t.DataAtom == atom.Body { // a head that nobody closed ends here
		w.inside = nil
	}
	if startsRest(t) {
		w.newLine()
		w.rest = true
	}
	if isVoid(t.DataAtom) || t.Type == html.SelfClosingTagToken && t.Data == "includetail" {
		return
	}
	if n := len(w.inside); n > 0 {
		r := &w.inside[n-1]
		if r.tag == t.Data {
			r.depth++
			return
		}
		if r.kind == hidden || !isHidden(t) || n == 2 {
			return
		}
	}
	switch {
	case isHidden(t):
		w.inside = append(w.inside, region{t.Data, 1, hidden})
	case isQuote(t):
		w.newLine()
		w.inside = append(w.inside, region{t.Data, 1, quoted})
	}
}

// end ends an element.
func (w *htmlWriter) end(tag string) {
	if isBlock(atom.Lookup([]byte(tag))) {
		w.newLine()
	}
	for n := len(w.inside) - 1; n >= 0; n-- {
		if r := &w.inside[n]; r.tag == tag {
			if r.depth--; r.depth == 0 {
				w.newLine()
				w.inside = w.inside[:n]
			}
			return
		}
	}
}

// text writes the text of an element; white space collapses.
func (w *htmlWriter) text(s string) {
	w.links.WriteString(s)
	if n := len(w.inside); n > 0 && w.inside[n-1].kind == hidden {
		return
	}
	for _, c := range s {
		switch c {
		case ' ', '\t', '\n', '\r', '\f', 0xa0:
			w.space = true
			continue
		}
		if !w.line && (w.rest || len(w.inside) > 0) {
			w.out.WriteString("> ")
		} else if w.line && w.space {
			w.out.WriteByte(' ')
		}
		w.line, w.space = true, false
		w.out.WriteRune(c)
	}
}

func (w *htmlWriter) newLine() {
	w.links.WriteByte('\n')
	w.out.WriteByte('\n')
	w.line, w.space = false, false
}

// isHidden reports whether a reader sees nothing of an element.
func isHidden(t *html.Token) bool {
	switch t.DataAtom {
	case atom.Style, atom.Script, atom.Head, atom.Title, atom.Template, atom.Noscript, atom.Textarea, atom.Select, atom.Object:
		return true
	}
	for _, a := range t.Attr {
		switch a.Key {
		case "hidden":
			return true
		case "style":
			style := strings.ToLower(strings.Join(strings.Fields(a.Val), ""))
			for _, s := range []string{"display:none", "visibility:hidden", "mso-hide:all", "font-size:0", "opacity:0", "max-height:0"} {
				if i := strings.Index(style, s); i >= 0 && !strings.HasPrefix(style[i+len(s):], ".") {
					return true
				}
			}
		}
	}
	return false
}

// isQuote reports whether an element is a quotation or a signature, as mail programs mark them.
func isQuote(t *html.Token) bool {
	if t.DataAtom == atom.Blockquote || t.Data == "includetail" { // QQ mail
		return true
	}
	for _, a := range t.Attr {
		v := strings.ToLower(a.Val)
		switch a.Key {
		case "class", "id":
			for v := range strings.FieldsSeq(v) {
				switch strings.TrimPrefix(v, "x_") { // Outlook renames what it quotes
				case "gmail_quote", "gmail_quote_container", "gmail_attr", "gmail_signature", // Gmail
					"yahoo_quoted", "yahooquoted", "ymail_android_signature", "yahoo-signature", // Yahoo
					"moz-cite-prefix", "moz-signature", "moz-forward-container", // Thunderbird
					"applemailsignature", "applelinksignature", // Apple Mail
					"ms-outlook-mobile-signature", "mail-editor-reference-message-container", "outlookmessageheader", // Outlook
					"protonmail_quote", "protonmail_signature_block", "tutanota_quote", "zmail_extra", "aolmail_quote",
					"isreplycontent", "isforwardcontent", "reply-intro": // NetEase, Roundcube
					return true
				case "signature":
					return a.Key == "id" // Outlook on the web
				}
			}
		case "name":
			if t.DataAtom == atom.Div && v == "quote" { // GMX
				return true
			}
		case "data-marker":
			if v == "__quoted_text__" || v == "__sig_pre__" || v == "__sig_post__" { // Zimbra
				return true
			}
		}
	}
	return false
}

// startsRest reports whether an element begins a quotation that its siblings go on with, as Outlook's.
func startsRest(t *html.Token) bool {
	for _, a := range t.Attr {
		if a.Key == "id" {
			switch strings.TrimPrefix(strings.ToLower(a.Val), "x_") {
			case "divrplyfwdmsg", "appendonsend", "stopspelling":
				return true
			}
		}
	}
	return false
}

func isBlock(a atom.Atom) bool {
	switch a {
	case atom.P, atom.Div, atom.Br, atom.Hr, atom.Tr, atom.Td, atom.Th, atom.Table, atom.Li, atom.Ul, atom.Ol, atom.Dl, atom.Dt, atom.Dd, atom.Blockquote,
		atom.Pre, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Body, atom.Section, atom.Article, atom.Header, atom.Footer, atom.Center:
		return true
	}
	return false
}

// isVoid reports whether an element has no end tag.
func isVoid(a atom.Atom) bool {
	switch a {
	case atom.Br, atom.Hr, atom.Img, atom.Input, atom.Meta, atom.Link, atom.Area, atom.Base, atom.Col, atom.Embed, atom.Param, atom.Source, atom.Track, atom.Wbr:
		return true
	}
	return false
}
