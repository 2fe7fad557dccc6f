package client_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math/big"
	"mime/quotedprintable"
	netmail "net/mail"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wneessen/go-mail"
	"pgregory.net/rapid"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
)

// leaves are the parts of a message, their transfer encoding taken off, as "type: content".
func leaves(t *testing.T, text string) (all []string) {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	eachLeaf(t, m.Header.Get, m.Body, func(get func(string) string, r io.Reader) {
		switch get("Content-Transfer-Encoding") {
		case "quoted-printable":
			r = quotedprintable.NewReader(r)
		case "base64":
			r = base64.NewDecoder(base64.StdEncoding, r)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(get("Content-Type"), ";")
		all = append(all, kind+": "+string(b))
	})
	return all
}

// named gives the sender a name, an address and a privacy policy.
func (s *setup) named(t *testing.T, name, postal string) {
	t.Helper()
	privacy := "https://www.example.com/privacy?a=1&b=2"
	if _, err := optoutv1.NewAdminServiceClient(s.client.Conn()).UpdateSender(t.Context(), &optoutv1.UpdateSenderRequest{DisplayName: &name, PostalAddress: &postal, PrivacyPolicyUrl: &privacy}); err != nil {
		t.Fatal(err)
	}
}

// withField is a message with a field of its header n times.
func withField(text, name string, n int) string {
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	f := regexp.MustCompile(`(?m)^` + name + `:.*\r\n([ \t].*\r\n)*`)
	head += "\r\n"
	found := f.FindString(head)
	return strings.Replace(head, found, strings.Repeat(found, n), 1) + "\r\n" + body
}

// Whatever a message is made of, however it is encoded, in every language: each recipient's copy has a footer with their own link
// and the sender's address in each text, is signed, and breaks no rule of the lint; what is not text stays as it was.
func TestFooteredAndSignedMailLintsClean(t *testing.T) {
	s := newSetup(t)
	s.named(t, "Söhne & <Töchter>", "1 Example Street\nSpringfield")
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	opts := client.LintOptions{PostalAddress: "1 Example Street, Springfield", LookupTXT: func(string) ([]string, error) {
		return []string{"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)}, nil
	}}
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		lang := rapid.SampledFrom(client.FooterLanguages()).Draw(r, "language")
		encoding := rapid.SampledFrom([]mail.Encoding{mail.EncodingQP, mail.EncodingB64, mail.EncodingUSASCII, mail.NoEncoding}).Draw(r, "encoding")
		kind := rapid.SampledFrom([]string{"text", "html", "both"}).Draw(r, "kind")
		page := rapid.SampledFrom([]string{"<p>Hello.</p>", "<html><body><p>Hello.</p></BODY></html>", "<html><p>Hello.</html>\n"}).Draw(r, "page")
		m := mail.NewMsg(mail.WithEncoding(encoding))
		a, b := fmt.Sprintf("a%d@example.com", n), fmt.Sprintf("b%d@example.com", n)
		if err := errors.Join(m.From("letters@example.com"), m.To(a), m.Bcc(b)); err != nil {
			t.Fatal(err)
		}
		m.Subject("Grüße")
		switch kind {
		case "text":
			m.SetBodyString(mail.TypeTextPlain, "Hello.\nAgain, without an end of line")
		case "html":
			m.SetBodyString(mail.TypeTextHTML, page)
		case "both":
			m.SetBodyString(mail.TypeTextPlain, "Hello.\n")
			m.AddAlternativeString(mail.TypeTextHTML, page)
		}
		var files []string
		if rapid.Bool().Draw(r, "attached") {
			files = append(files, "text/plain: attached <"+client.UnsubscribeURLPlaceholder+">")
			if err := m.AttachReader("notes.txt", strings.NewReader(strings.TrimPrefix(files[0], "text/plain: ")), mail.WithFileContentType("text/plain")); err != nil {
				t.Fatal(err)
			}
		}
		if rapid.Bool().Draw(r, "embedded") {
			files = append([]string{"image/png: \x89PNG\r\n"}, files...)
			if err := m.EmbedReader("x.png", strings.NewReader("\x89PNG\r\n"), mail.WithFileContentType("image/png")); err != nil {
				t.Fatal(err)
			}
		}
		options := []client.MailerOption{client.WithFooter(lang), client.WithDKIM(mail.NewDKIMSigner("example.com", "mail", private))}
		if rapid.Bool().Draw(r, "receipts") {
			options = append(options, client.WithReceipts())
		}
		mailer := client.NewMailer(s.client, s.sink.mail(t), options...)
		if report, err := mailer.Send(t.Context(), "news", m); err != nil || report.Count(client.Sent) != 2 {
			r.Fatalf("%v, %v", report, err)
		}
		seen := map[string]bool{}
		for _, to := range []string{a, b} {
			text := s.sink.to(to)[0]
			parsed, err := netmail.ReadMessage(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			link, _, _ := strings.Cut(parsed.Header.Get("List-Unsubscribe")[1:], ">")
			seen[link] = true
			if found, err := client.LintMessage(strings.NewReader(text), opts); err != nil || len(found) > 0 {
				r.Fatalf("%v, %v\n%s", found, err, text)
			}
			for _, x := range []struct{ changed, rule string }{
				{withField(text, "List-Unsubscribe-Post", 0), "list-unsubscribe-post-missing"},
				{withField(text, "List-Unsubscribe-Post", 2), "list-unsubscribe-post-once"},
				{withField(text, "List-Unsubscribe", 0), "list-unsubscribe-missing"},
				{withField(text, "List-Unsubscribe", 2), "list-unsubscribe-once"},
				{withField(text, "DKIM-Signature", 0), "dkim-missing"},
				{withField(text, "From", 0), "from-once"},
				{withField(text, "Date", 2), "date-once"},
				{withField(text, "Message-ID", 0), "message-id"},
				{withField(text, "Subject", 2), "field-once"},
				{text + "More.\r\n", "dkim-invalid"},
			} {
				if found, err := client.LintMessage(strings.NewReader(x.changed), opts); err != nil || !slices.Contains(rulesOf(found), x.rule) {
					r.Fatalf("%s is not named: %v, %v\n%s", x.rule, rulesOf(found), err, x.changed)
				}
			}
			parts := leaves(t, text)
			for i, f := range files {
				if got := parts[len(parts)-len(files)+i]; got != f {
					r.Fatalf("a file became %q", got)
				}
			}
			for _, p := range parts[:len(parts)-len(files)] {
				if strings.Count(p, link) != 1 || !strings.Contains(p, "Hello.") || !strings.Contains(p, "Springfield") || !strings.Contains(p, "www.example.com/privacy") || strings.Contains(p, "<Töchter>") == strings.HasPrefix(p, "text/html") {
					r.Fatalf("a part became %q", p)
				}
				if body := strings.LastIndex(strings.ToLower(p), "</body>"); body >= 0 && strings.Index(p, link) > body {
					r.Fatalf("the footer stands below the body: %q", p)
				}
			}
		}
		if len(seen) != 2 {
			r.Fatal("two recipients have the same link")
		}
	})
}

// A template's placeholder becomes each recipient's link, in each encoding, through html/template too.
func TestPlaceholder(t *testing.T) {
	s := newScripted()
	link := exampleLink()
	link.Url = "https://mail.example.com/u/token?a=1&b=2"
	s.check = func(*optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
		return &optoutv1.CheckSendResponse{Verdict: optoutv1.Verdict_VERDICT_SEND, Link: link}, nil
	}
	c := s.client(t)
	page := template.Must(template.New("").Parse(`<p title="{{.}}">Grüße <a href="{{.}}">stop</a></p>`))
	for _, encoding := range []mail.Encoding{mail.EncodingQP, mail.EncodingB64, mail.NoEncoding} {
		k := newSink(t)
		m := mail.NewMsg(mail.WithEncoding(encoding))
		if err := errors.Join(m.From("letters@example.com"), m.To("a@example.com"), m.AddAlternativeHTMLTemplate(page, client.UnsubscribeURLPlaceholder)); err != nil {
			t.Fatal(err)
		}
		m.AddAlternativeString(mail.TypeTextPlain, "Grüße. Stop: "+client.UnsubscribeURLPlaceholder+" now, or "+client.UnsubscribeURLPlaceholder)
		if _, err := client.NewMailer(c, k.mail(t)).Send(t.Context(), "news", m); err != nil {
			t.Fatal(err)
		}
		escaped := "https://mail.example.com/u/token?a=1&amp;b=2"
		want := []string{`text/html: <p title="` + escaped + `">Grüße <a href="` + escaped + `">stop</a></p>`, "text/plain: Grüße. Stop: " + link.Url + " now, or " + link.Url}
		if got := leaves(t, k.to("a@example.com")[0]); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%s: %q, want %q", encoding, got, want)
		}
	}
}

// smime signs a message with S/MIME.
func smime(t *testing.T) func(*mail.Msg) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := &x509.Certificate{SerialNumber: big.NewInt(1)}
	if certificate.Raw, err = x509.CreateCertificate(rand.Reader, certificate, certificate, key.Public(), key); err != nil {
		t.Fatal(err)
	}
	if certificate, err = x509.ParseCertificate(certificate.Raw); err != nil {
		t.Fatal(err)
	}
	return func(m *mail.Msg) {
		m.SetBodyString(mail.TypeTextPlain, "Hello.")
		if err := m.SignWithKeypair(key, certificate, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// Where a footer or a link would be missing, or break something, the message does not leave.
func TestNoFooterNoMail(t *testing.T) {
	text := func(content string) func(*mail.Msg) {
		return func(m *mail.Msg) { m.SetBodyString(mail.TypeTextPlain, content) }
	}
	latin := func(m *mail.Msg) { m.SetCharset(mail.CharsetISO88591); text("Hello.")(m) }
	for name, c := range map[string]struct {
		class  optoutv1.TopicClass
		footer string
		write  func(*mail.Msg)
		want   string // "" when it leaves
	}{
		"text":                     {0, "pl", text("Hello."), ""},
		"Latin 1":                  {0, "de", latin, ""},
		"Latin 1 cannot":           {0, "ja", latin, "UTF-8"},
		"badly encoded":            {0, "en", func(m *mail.Msg) { m.SetGenHeader("Content-Transfer-Encoding", "base64"); text("Hello.")(m) }, "not encoded as"},
		"no text":                  {0, "en", func(m *mail.Msg) { m.SetBodyString("application/pdf", "%PDF") }, "no text and no HTML"},
		"PGP":                      {0, "en", func(m *mail.Msg) { m.SetPGPType(mail.PGPSignature); m.SetBoundary("b"); text("Hello.")(m) }, "no footer can be put"},
		"PGP without a footer":     {0, "", func(m *mail.Msg) { m.SetPGPType(mail.PGPSignature); m.SetBoundary("b"); text("Hello.")(m) }, ""},
		"S/MIME":                   {0, "en", smime(t), "S/MIME or PGP"},
		"S/MIME without a footer":  {0, "", smime(t), ""},
		"placeholder, required":    {required, "", text(client.UnsubscribeURLPlaceholder), "no unsubscribe link stops"},
		"footer, required":         {required, "fr", text("Hello."), ""},
		"no such language":         {0, "tlh", text("Hello."), "give one of en, de"},
		"language with a region":   {0, "pt-BR", text("Hello."), ""},
		"UTF-16":                   {0, "en", func(m *mail.Msg) { m.SetCharset("utf-16le"); text("H\x00i\x00")(m) }, "UTF-8"},
		"UTF-16 without a footer":  {0, "", func(m *mail.Msg) { m.SetCharset("utf-16le"); text("H\x00i\x00")(m) }, ""},
		"transactional, no footer": {transactional, "", text("Hello."), ""},
	} {
		k, s := newSink(t), newScripted()
		if s.class = c.class; c.class == 0 {
			s.class = optoutv1.TopicClass_TOPIC_CLASS_COMMERCIAL
		}
		if c.class == required {
			s.check = func(*optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
				return &optoutv1.CheckSendResponse{Verdict: optoutv1.Verdict_VERDICT_SEND}, nil
			}
		}
		m := mail.NewMsg()
		if err := errors.Join(m.From("letters@example.com"), m.To("a@example.com")); err != nil {
			t.Fatal(err)
		}
		c.write(m)
		var options []client.MailerOption
		if c.footer != "" {
			options = append(options, client.WithFooter(c.footer))
		}
		_, err := client.NewMailer(s.client(t), k.mail(t), options...).Send(t.Context(), "news", m)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || (k.total() == 1) != (c.want == "") {
			t.Errorf("%s: %v; %d arrived; want %q", name, err, k.total(), c.want)
		}
		if c.footer != "" && k.total() == 1 {
			if got := leaves(t, k.to("a@example.com")[0])[0]; !strings.Contains(got, "1 Example Street") || strings.Contains(got, "https://mail.example.com/u/token") == (c.class == required) {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
}

// A footer of one's own template is made of the sender's settings.
func TestFooterForTemplates(t *testing.T) {
	s := newSetup(t)
	s.named(t, "Example Letters", "1 Example Street\nSpringfield")
	f, err := s.mailer.Footer(t.Context(), "de")
	if err != nil {
		t.Fatal(err)
	}
	if want := "Sie können sich jederzeit abmelden:\r\nURL\r\n\r\nExample Letters\r\n1 Example Street\r\nSpringfield\r\n\r\nDatenschutzerklärung: https://www.example.com/privacy?a=1&b=2\r\n"; f.Text("URL") != want {
		t.Errorf("%q, want %q", f.Text("URL"), want)
	}
	f = client.Footer{Sender: "<b>", PrivacyPolicyURL: "javascript:alert(1)"}
	if got := f.HTML(`"><script>`); strings.Contains(got, "<script>") || strings.Contains(got, "<b>") || strings.Contains(got, "javascript") {
		t.Errorf("%q", got)
	}
	if _, err := s.mailer.Footer(t.Context(), "tlh"); err == nil {
		t.Error("there is a footer in a language that it cannot be in")
	}
}

// Who demands a signature gets one, or an error before anything is sent.
func TestDKIMDemanded(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer := mail.NewDKIMSigner("example.com", "mail", private)
	var uncovered *client.UncoveredError
	for name, c := range map[string]struct {
		options []client.MailerOption
		want    func(error) bool
	}{
		"nobody":              {[]client.MailerOption{client.WithDKIMDemanded()}, func(err error) bool { return errors.Is(err, client.ErrUnsigned) }},
		"the mailer":          {[]client.MailerOption{client.WithDKIMDemanded(), client.WithDKIM(signer)}, func(err error) bool { return err == nil }},
		"the server":          {[]client.MailerOption{client.WithDKIMByServer("from", "list-unsubscribe", "List-Unsubscribe-Post"), client.WithDKIMDemanded()}, func(err error) bool { return err == nil }},
		"the server, lacking": {[]client.MailerOption{client.WithDKIMByServer("From", "List-Unsubscribe")}, func(err error) bool { return errors.As(err, &uncovered) && len(uncovered.Missing) == 1 }},
		"not demanded":        {nil, func(err error) bool { return err == nil }},
	} {
		k := newSink(t)
		_, err := client.NewMailer(newScripted().client(t), k.mail(t), c.options...).Send(t.Context(), "news", message(t, []string{"a@example.com"}, nil, nil))
		if !c.want(err) || (k.total() == 1) != (err == nil) {
			t.Errorf("%s: %v; %d arrived", name, err, k.total())
		}
	}
	signed := message(t, []string{"a@example.com"}, nil, nil)
	signed.SetDKIM(signer)
	k := newSink(t)
	if _, err := client.NewMailer(newScripted().client(t), k.mail(t)).Send(t.Context(), "news", signed); !errors.Is(err, client.ErrSigned) {
		t.Errorf("%v", err)
	}
}

// What a Mailer puts on a message, it puts on those of a bulk sending too; the check ahead asks for none of it.
func TestBulkWithFooterAndReceipt(t *testing.T) {
	k, s := newSink(t), newScripted()
	batch := s.batch
	s.batch = func(r *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
		if r.WantHeaders || r.WantReceipt {
			t.Error("the check ahead asks for a link or a receipt")
		}
		return batch(r)
	}
	receipt := strings.Repeat("r", 100)
	s.check = func(*optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
		return &optoutv1.CheckSendResponse{Verdict: optoutv1.Verdict_VERDICT_SEND, Link: exampleLink(), Receipt: receipt}, nil
	}
	taken := 0
	mailer := client.NewMailer(s.client(t), k.mail(t), client.WithFooter("en"), client.WithReceipts())
	if p, err := mailer.SendBulk(t.Context(), "news", addressed(t, &taken, numbered(10)...)); err != nil || p.Sent != 10 {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, a := range numbered(10) {
		if got := k.to(a)[0]; !strings.Contains(got, "1 Example Street") || !strings.Contains(header(got), "X-Optout-Receipt: ") {
			t.Errorf("%s got\n%s", a, got)
		}
	}
}
