package client

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/url"
	"slices"
	"strings"

	optoutv1 "optout/proto/optout/v1"
)

// UnsubscribeURLPlaceholder stands for the recipient's own unsubscribe URL in the text and HTML parts of a message. The Mailer
// puts the URL in its place in each recipient's copy, whatever the part's encoding. It is a URL itself, so that html/template and
// editors of newsletters leave it alone, under a name that never resolves (RFC 6761 section 6.4), should it ever be left over.
const UnsubscribeURLPlaceholder = "https://optout.invalid/unsubscribe-url"

// Footer is what commercial mail must show (15 USC 7704(a)(5)(A)): that the recipient can stop it and how, and the sender's postal
// address.
type Footer struct {
	// Lang is the language of the notice: one of FooterLanguages.
	Lang string
	// Sender and PostalAddress are who writes, as the recipient shall see it. Lines of the address end with "\n".
	Sender, PostalAddress string
	// PrivacyPolicyURL is linked when it is a http or https URL.
	PrivacyPolicyURL string
}

// words are a language's words of the footer.
type words struct{ lang, notice, unsubscribe, privacy string }

func footerWords() []words {
	return []words{
		{"en", "You can unsubscribe at any time:", "Unsubscribe", "Privacy policy"},
		{"de", "Sie können sich jederzeit abmelden:", "Abmelden", "Datenschutzerklärung"},
		{"fr", "Vous pouvez vous désabonner à tout moment :", "Se désabonner", "Politique de confidentialité"},
		{"es", "Puede darse de baja en cualquier momento:", "Darse de baja", "Política de privacidad"},
		{"pt", "Você pode cancelar a inscrição a qualquer momento:", "Cancelar inscrição", "Política de privacidade"},
		{"it", "Può annullare l’iscrizione in qualsiasi momento:", "Annulla l’iscrizione", "Informativa sulla privacy"},
		{"nl", "U kunt zich op elk moment afmelden:", "Afmelden", "Privacyverklaring"},
		{"pl", "W każdej chwili możesz się wypisać:", "Wypisz się", "Polityka prywatności"},
		{"ja", "配信はいつでも停止できます：", "配信停止", "プライバシーポリシー"},
		{"zh", "您可以随时退订：", "退订", "隐私政策"},
	}
}

// FooterLanguages lists the languages that a Footer can be in.
func FooterLanguages() (all []string) {
	for _, w := range footerWords() {
		all = append(all, w.lang)
	}
	return all
}

// wordsIn are the words of a language; "pt-BR" is found as "pt".
func wordsIn(lang string) (words, error) {
	base, _, _ := strings.Cut(strings.ToLower(lang), "-")
	all := footerWords()
	i := slices.IndexFunc(all, func(w words) bool { return w.lang == base })
	if i < 0 {
		return all[0], fmt.Errorf("optout client: the footer's language: there is no footer in %q: give one of %s", lang, strings.Join(FooterLanguages(), ", "))
	}
	return all[i], nil
}

// WithFooter puts a footer in the language under every message: the recipient's own unsubscribe link, the sender's display name
// and postal address, and a link to the privacy policy, as the sender's settings have them when Send begins. It goes to the end of
// the text and to the end of the HTML that a reader sees, not into attachments. On topics of class `required`, which no link
// stops, it has no link.
//
// A message without a text or HTML part, or one signed or encrypted with S/MIME or PGP, fails: a footer would be missing there,
// or break it. Whoever has a template with all that in it wants UnsubscribeURLPlaceholder instead.
func WithFooter(lang string) MailerOption { return footerOption(lang) }

type footerOption string

func (o footerOption) apply(m *Mailer) {
	w, err := wordsIn(string(o))
	m.err = errors.Join(m.err, err)
	m.footer = w.lang
}

// Footer makes a footer in a language from the sender's settings, for templates of one's own: Text and HTML with
// UnsubscribeURLPlaceholder as the URL. WithFooter does all that by itself.
func (m *Mailer) Footer(ctx context.Context, lang string) (Footer, error) {
	w, err := wordsIn(lang)
	if err != nil {
		return Footer{}, err
	}
	s, err := m.client.Sender(ctx)
	if err != nil {
		return Footer{}, err
	}
	return footerOf(w.lang, s), nil
}

func footerOf(lang string, s *optoutv1.Sender) Footer {
	return Footer{Lang: lang, Sender: s.GetDisplayName(), PostalAddress: s.GetPostalAddress(), PrivacyPolicyURL: s.GetPrivacyPolicyUrl()}
}

// Text is the footer as plain text; lines end with CRLF. With an empty URL it says nothing of unsubscribing.
func (f Footer) Text(unsubscribeURL string) string {
	w, _ := wordsIn(f.Lang)
	var blocks []string
	if unsubscribeURL != "" {
		blocks = append(blocks, w.notice+"\r\n"+unsubscribeURL)
	}
	if who := f.who(); len(who) > 0 {
		blocks = append(blocks, strings.Join(who, "\r\n"))
	}
	if f.privacy() != "" {
		blocks = append(blocks, w.privacy+": "+f.privacy())
	}
	return strings.Join(blocks, "\r\n\r\n") + "\r\n"
}

// HTML is the footer as HTML, everything in it escaped; lines end with CRLF. With an empty URL it says nothing of unsubscribing.
func (f Footer) HTML(unsubscribeURL string) string {
	w, _ := wordsIn(f.Lang)
	var b strings.Builder
	fmt.Fprintf(&b, "<div lang=\"%s\" style=\"margin-top:2em;padding-top:1em;border-top:1px solid;font-size:14px;line-height:1.5\">\r\n", w.lang)
	if unsubscribeURL != "" {
		fmt.Fprintf(&b, "<p>%s <a href=\"%s\">%s</a></p>\r\n", html.EscapeString(w.notice), html.EscapeString(unsubscribeURL), html.EscapeString(w.unsubscribe))
	}
	if who := f.who(); len(who) > 0 {
		for i := range who {
			who[i] = html.EscapeString(who[i])
		}
		fmt.Fprintf(&b, "<p>%s</p>\r\n", strings.Join(who, "<br>\r\n"))
	}
	if f.privacy() != "" {
		fmt.Fprintf(&b, "<p><a href=\"%s\">%s</a></p>\r\n", html.EscapeString(f.privacy()), html.EscapeString(w.privacy))
	}
	b.WriteString("</div>\r\n")
	return b.String()
}

// who is the sender and their address, line by line.
func (f Footer) who() (lines []string) {
	for line := range strings.Lines(f.Sender + "\n" + f.PostalAddress) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// privacy is the privacy policy's URL, if it is one that can be linked.
func (f Footer) privacy() string {
	u, err := url.Parse(f.PrivacyPolicyURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	return u.String()
}
