package intake

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"time"

	"optout/service/ledger"
)

// reply is one answer to somebody who is opted out by their own words. It says what was done and asks for nothing (16 CFR 316.5(b)).
type reply struct {
	sender                        *ledger.Sender
	to, messageID, language, from string
}

// replyAgain is how long an address gets no second reply (RFC 3834 section 2), and maxReplies how many wait to be sent.
const (
	replyAgain = 7 * 24 * time.Hour
	maxReplies = 100
)

// replyTexts are subject and body by language; %s is the sender's name.
func replyTexts() map[string][2]string {
	return map[string][2]string{
		"en": {"You are unsubscribed", "%s will send you no more mail. This is in force now; you need not do anything else."},
		"de": {"Sie sind abgemeldet", "%s schreibt Ihnen nicht mehr. Das gilt ab sofort; Sie müssen nichts weiter tun."},
		"fr": {"Vous êtes désabonné", "%s ne vous enverra plus de courrier. C’est effectif dès maintenant ; vous n’avez rien d’autre à faire."},
		"es": {"Se ha dado de baja", "%s no le enviará más correo. Ya está en vigor; no tiene que hacer nada más."},
		"pt": {"A sua inscrição foi cancelada", "%s não lhe enviará mais mensagens. Já está em vigor; não precisa de fazer mais nada."},
		"it": {"La sua iscrizione è annullata", "%s non le invierà più messaggi. È già in vigore; non deve fare altro."},
		"nl": {"U bent afgemeld", "%s stuurt u geen e-mail meer. Dit geldt vanaf nu; u hoeft verder niets te doen."},
		"pl": {"Wypisano Cię z listy", "%s nie wyśle Ci więcej wiadomości. To już obowiązuje; nie musisz robić nic więcej."},
		"ja": {"配信を停止しました", "%s からのメールは今後届きません。すでに有効です。ほかに必要な手続きはありません。"},
		"zh": {"您已退订", "%s 不会再向您发送邮件。此设置现已生效，您无需再做任何操作。"},
	}
}

// reply answers the writer of a message, unless too many wait. There is no harm in leaving one out.
func (in *Intake) reply(sender string, m *message) {
	s := in.o.Ledger.Registry().Sender(sender)
	if in.replies == nil || s == nil {
		return
	}
	r := reply{sender: s, to: m.words().From, messageID: m.words().MessageID, language: m.words().Language, from: localUnsub + "@" + or(s.MailDomain, in.o.MailDomain)}
	if s.ContactAddress != "" {
		r.from = s.ContactAddress
	}
	select {
	case in.replies <- r:
	default:
	}
}

// send sends a reply, unless the address had one of late.
func (in *Intake) send(ctx context.Context, r reply) {
	lately, err := in.repliedLately(ctx, r)
	if err == nil && !lately {
		err = in.o.Relay.deliver(ctx, r.to, bytes.NewReader(r.message(in.o.Now())))
	}
	if err != nil && ctx.Err() == nil {
		in.o.Log.Warn("a reply could not be sent", "sender", r.sender.Name, "error", err)
	}
}

// repliedLately reports whether the ledger has an earlier opt-out by own words of the address within replyAgain: that one was
// replied to, also before a restart.
func (in *Intake) repliedLately(ctx context.Context, r reply) (bool, error) {
	st, err := in.o.Ledger.Explain(ctx, r.sender.Name, r.to)
	if err != nil {
		return false, err
	}
	n := 0
	for _, l := range st.Lines {
		if l.Kind == ledger.OptedOut && l.Channel == ledger.ByMail && ledger.Time(l.At).After(in.o.Now().Add(-replyAgain)) {
			n++
		}
	}
	return n > 1, nil
}

// message writes the reply (RFC 3834 section 3).
func (r *reply) message(now time.Time) []byte {
	texts := replyTexts()
	t, ok := texts[r.language]
	if !ok {
		t = texts["en"]
	}
	var b bytes.Buffer
	field := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	name := or(r.sender.DisplayName, r.sender.Name)
	field("From", (&mail.Address{Name: name, Address: r.from}).String())
	field("To", r.to)
	field("Subject", mime.BEncoding.Encode("utf-8", "Auto: "+t[0]))
	field("Date", now.Format(time.RFC1123Z))
	_, domain, _ := strings.Cut(r.from, "@")
	field("Message-ID", "<"+rand.Text()+"@"+domain+">")
	field("Auto-Submitted", "auto-replied")
	if id := r.messageID; strings.HasPrefix(id, "<") && strings.HasSuffix(id, ">") && !strings.ContainsAny(id, "\r\n \t") {
		field("In-Reply-To", id)
		field("References", id)
	}
	field("MIME-Version", "1.0")
	field("Content-Type", "text/plain; charset=utf-8")
	field("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	w := quotedprintable.NewWriter(&b)
	fmt.Fprintf(w, t[1]+"\r\n", strings.ReplaceAll(name, "\n", " "))
	if r.sender.PostalAddress != "" {
		fmt.Fprintf(w, "\r\n-- \r\n%s\r\n", strings.ReplaceAll(r.sender.PostalAddress, "\n", "\r\n"))
	}
	w.Close()
	return b.Bytes()
}

func or[T ~string](a, b T) T {
	if a != "" {
		return a
	}
	return b
}
