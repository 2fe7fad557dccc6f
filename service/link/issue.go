package link

import "strings"

// Base is where a sender's links point.
type Base struct {
	// PublicURL is an absolute http(s) URL.
	PublicURL string
	// MailDomain is the domain of unsubscribe addresses; empty for none.
	MailDomain string
}

// Header is one field to put on a message.
type Header struct{ Name, Value string }

// Link is an unsubscribe link and everything that puts it on a message.
type Link struct {
	Token, URL, Mailto string
	// Headers go on the message, each once and exactly as given.
	Headers []Header
	// DKIMSign are the fields that the message's DKIM signature must cover (RFC 8058 section 4).
	DKIMSign []string
	// Warning tells why the link is not fit for one-click; empty when it is.
	Warning string
}

const (
	fieldUnsubscribe = "List-Unsubscribe"
	fieldPost        = "List-Unsubscribe-Post"
	// oneClick is the field's whole body (RFC 8058 section 5).
	oneClick = "List-Unsubscribe=One-Click"
	// MailPrefix begins the local part of an unsubscribe address.
	MailPrefix = "u-"
)

// Issue makes the unsubscribe link of a token, whose purpose it sets. The https URL comes first, then the mailto: mailbox
// providers take the first that they support (RFC 2369 section 2), and some only the second.
func (r *Ring) Issue(b Base, t Token) Link {
	t.Purpose = Unsubscribe
	// One text holds the field's body, and everything else is a part of it.
	body := make([]byte, 0, 512)
	body = append(body, '<')
	body = append(body, strings.TrimSuffix(b.PublicURL, "/")...)
	body = append(body, "/u/"...)
	token := len(body)
	body = r.Append(body, t)
	body = append(body, '>')
	mailto := len(body) + len(", <")
	if b.MailDomain != "" {
		body = append(body, ", <mailto:"+MailPrefix...)
		body = append(body, body[token:token+Length]...)
		body = append(body, '@')
		body = append(body, b.MailDomain...)
		body = append(body, "?subject=unsubscribe>"...)
	}
	text := string(body)
	l := Link{Token: text[token : token+Length], URL: text[1 : token+Length], Headers: make([]Header, 1, 2), DKIMSign: make([]string, 1, 2)}
	if b.MailDomain != "" {
		l.Mailto = text[mailto : len(text)-1]
	}
	l.Headers[0], l.DKIMSign[0] = Header{fieldUnsubscribe, text}, fieldUnsubscribe
	if strings.HasPrefix(l.URL, "https://") {
		l.Headers = append(l.Headers, Header{fieldPost, oneClick})
		l.DKIMSign = append(l.DKIMSign, fieldPost)
	} else {
		l.Warning = "the public URL is not https, so the message has no one-click header (RFC 8058 section 3.1)"
	}
	return l
}
