package client

import (
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/html"
)

// htmlText is what a reader sees of an HTML part: its text, with a line for each block, and its links.
type htmlText struct {
	text    strings.Builder
	anchors []anchor
	open    int // index in anchors of the one being read, plus 1
	hidden  string
	depth   int // of elements of hidden's name, until the hidden one ends
}

// anchor is a link, and where its text stands.
type anchor struct {
	href     string
	from, to int
}

// concealed are elements whose text nobody sees; concealing is a style that has the same effect.
var (
	concealed  = []string{"head", "script", "style", "template", "title"}
	concealing = regexp.MustCompile(`(?i)display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0[a-z%]*\s*(;|!|$)`)
	inline     = []string{"a", "abbr", "b", "bdi", "bdo", "cite", "code", "em", "font", "i", "img", "mark", "s", "small", "span", "strong", "sub", "sup", "u"}
	void       = []string{"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)

// read reads a part. It takes tokens only and builds no tree, so no nesting costs anything.
func (h *htmlText) read(source string) {
	lineless := strings.NewReplacer("\r", " ", "\n", " ", "\u00a0", " ")
	for z := html.NewTokenizer(strings.NewReader(source)); ; {
		switch z.Next() {
		case html.ErrorToken:
			h.close()
			return
		case html.TextToken:
			if h.hidden == "" {
				h.text.WriteString(lineless.Replace(z.Token().Data))
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			h.start(z.Token())
		case html.EndTagToken:
			h.end(z.Token().Data)
		}
	}
}

func (h *htmlText) start(t html.Token) {
	if h.hidden != "" {
		if t.Data == h.hidden {
			h.depth++
		}
		return
	}
	hides := slices.Contains(concealed, t.Data)
	var href, alt string
	for _, a := range t.Attr {
		switch a.Key {
		case "style":
			hides = hides || concealing.MatchString(a.Val)
		case "hidden":
			hides = true
		case "href":
			href = strings.TrimSpace(a.Val)
		case "alt":
			alt = a.Val
		}
	}
	isVoid := slices.Contains(void, t.Data)
	switch {
	case hides && !isVoid:
		h.hidden, h.depth = t.Data, 1
	case hides:
	case t.Data == "a":
		h.close()
		h.anchors = append(h.anchors, anchor{href: href, from: h.text.Len(), to: -1})
		h.open = len(h.anchors)
	case t.Data == "img":
		h.text.WriteString(" " + alt + " ")
	case !slices.Contains(inline, t.Data):
		h.text.WriteByte('\n')
	}
}

func (h *htmlText) end(name string) {
	switch {
	case h.hidden != "":
		if name == h.hidden {
			if h.depth--; h.depth == 0 {
				h.hidden = ""
			}
		}
	case name == "a":
		h.close()
	case !slices.Contains(inline, name):
		h.text.WriteByte('\n')
	}
}

// close ends the anchor being read.
func (h *htmlText) close() {
	if h.open > 0 {
		h.anchors[h.open-1].to = h.text.Len()
		h.open = 0
	}
}

// linked tells whether an unsubscribe link is to be seen: one to one of these URLs, or one of which the words in or beside it, in
// the same block, say so.
func (h *htmlText) linked(links []string) bool {
	text := h.text.String()
	for _, a := range h.anchors {
		words := text[a.from:a.to]
		if slices.Contains(links, a.href) && strings.TrimSpace(words) != "" {
			return true
		}
		if !somewhere.MatchString(a.href) || strings.TrimSpace(words) == "" {
			continue
		}
		const near = 100
		before, after := text[max(0, a.from-near):a.from], text[a.to:min(len(text), a.to+near)]
		before = before[strings.LastIndexByte(before, '\n')+1:]
		after, _, _ = strings.Cut(after, "\n")
		if stopWords.MatchString(before + words + after) {
			return true
		}
	}
	return false
}
