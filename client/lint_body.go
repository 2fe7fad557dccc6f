package client

import (
	"bytes"
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// content looks at what people see.
func (l *linter) content() {
	found, err := parts(l.fields, l.body)
	if err != nil {
		l.found("mime-structure", "the parts cannot be read: "+err.Error())
	}
	links := l.links()
	texts := 0
	for _, p := range found {
		if !p.text() {
			continue
		}
		text, err := p.readable(l.body)
		if err != nil {
			l.found("mime-structure", err.Error())
		}
		if strings.Contains(text, UnsubscribeURLPlaceholder) {
			l.found("body-placeholder", "a part of type "+p.kind+" has UnsubscribeURLPlaceholder in it")
		}
		if !p.shown {
			continue
		}
		texts++
		if l.commercial {
			l.notice(p.kind, text, links)
		}
	}
	if texts == 0 && l.commercial && err == nil {
		l.found("body-missing", "there is no text and no HTML part")
	}
}

// notice looks for the link and the address that commercial mail must show.
func (l *linter) notice(kind, text string, links []string) {
	shown, linked := text, false
	if kind == "text/html" {
		var page htmlText
		page.read(text)
		shown, linked = page.text.String(), page.linked(links)
		if !linked {
			l.found("body-link-html", "the HTML part shows no unsubscribe link")
		}
	} else if !textLinked(text, links) {
		l.found("body-link-text", "the text part shows no unsubscribe link")
	}
	if given := plain(l.opts.PostalAddress); given != "" {
		if !strings.Contains(plain(shown), given) {
			l.found("postal-address", "the part of type "+kind+" does not show the postal address that was given")
		}
	} else if !likelyAddress.MatchString(norm.NFKC.String(ends(shown, 16<<10))) {
		l.found("postal-address-unsure", "the part of type "+kind+" shows nothing that looks like a postal address")
	}
}

// readable is the text of a part in UTF-8, as far as it can be read.
func (p *part) readable(body []byte) (string, error) {
	b, err := p.decode(body)
	charset, unknown := p.charset()
	if err == nil {
		err = unknown
	}
	if charset != nil {
		if decoded, e := charset.NewDecoder().Bytes(b); e == nil {
			b = decoded
		}
	}
	return string(bytes.ToValidUTF8(b, []byte("\ufffd"))), err
}

// ends are the first and the last n octets of a long text: notices stand there, and looking for words takes its time.
func ends(text string, n int) string {
	if len(text) <= 2*n {
		return text
	}
	return text[:n] + "\n" + text[len(text)-n:]
}

// links are the URLs that stop this mail: those of List-Unsubscribe, and the page of preferences of the same token.
func (l *linter) links() (all []string) {
	quiet := &linter{fields: l.fields}
	for _, u := range quiet.unsubscribeURIs() {
		if len(all) > maxDepth { // nobody has so many; each is looked for in the whole text
			break
		}
		if strings.HasPrefix(u, "http://") || strings.HasPrefix(u, "https://") {
			all = append(all, u)
			if i := strings.LastIndex(u, "/u/"); i >= 0 {
				all = append(all, u[:i]+"/p/"+u[i+3:])
			}
		}
	}
	return all
}

// stopWords is how one says unsubscribe in the languages of the Footer.
var stopWords = regexp.MustCompile(`(?i)unsubscrib|opt[ -]?out|stop receiving` + // en
	`|abmelde|abbestell|austrag` + // de
	`|désabonn|desabonn|désinscri` + // fr
	`|dar(se|me|te|nos)? de baja|cancelar (la |tu |su )?suscripci` + // es
	`|cancelar (a |sua |o )?(inscri|assinatura|subscri|registo)|descadastr` + // pt
	`|annulla(re)? l['’]iscrizione|disiscri|cancella(re)? (la |l['’])?iscrizione` + // it
	`|afmeld|uitschrijv|uitschrijf` + // nl
	`|wypis|rezygn|anuluj subskrypcj` + // pl
	`|配信停止|配信を停止|配信はいつでも停止|購読解除|購読を解除|登録解除` + // ja
	`|退订|退訂|取消订阅|取消訂閱`) // zh

// somewhere is what one can write to or follow.
var somewhere = regexp.MustCompile(`(?i)https?://\S|mailto:\S|\S@\S`)

// textLinked tells whether a plain text shows a link: one of these, or a word for it with something to follow on the same line or
// one of the two after it.
func textLinked(text string, links []string) bool {
	for _, u := range links {
		if strings.Contains(text, u) {
			return true
		}
	}
	lines := strings.Split(ends(text, 512<<10), "\n")
	for i, line := range lines {
		if stopWords.MatchString(line) && somewhere.MatchString(strings.Join(lines[i:min(i+3, len(lines))], "\n")) {
			return true
		}
	}
	return false
}

// plain is what remains for comparing: letters and digits.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, norm.NFKC.String(s))
}

// likelyAddress is what postal addresses have in common: a box, a street with a number, or a postcode.
var likelyAddress = regexp.MustCompile(`(?i)\bp\.? ?o\.? ?box\b|postfach|〒|\d+号|\d+-\d+-\d+` +
	`|\b\d+[a-z]?,? +(\pL[\pL.'’-]* +){0,4}(street|st|avenue|ave|road|rd|lane|drive|blvd|boulevard|way|square|suite|rue|place)\b` +
	`|(stra(ß|ss)e|str\.|gasse|weg|platz|laan|straat|plein|gracht) *\d+` +
	`|\b(ulica|ul\.|rue|calle|avenida|rua|via|piazza|viale) +\pL` +
	`|\b\d{4,6}(-\d{3,4})? +\p{Lu}\pL+|\b[A-Z]{2} \d{5}\b|\b[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b`)
