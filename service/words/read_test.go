package words_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"optout/client"
	"optout/service/words"
)

// with is a message that asks to stop, with more fields.
func with(fields string) []byte {
	return []byte("From: ann@shop.example\r\nSubject: unsubscribe\r\n" + strings.ReplaceAll(fields, "\n", "\r\n") + "\r\n\r\n")
}

// What programs and lists send never counts; what people's programs put on people's mail does not make it so.
func TestAutomatic(t *testing.T) {
	for fields, why := range map[string]string{
		"Auto-Submitted: auto-replied":                               "Auto-Submitted: auto-replied",
		"auto-submitted: AUTO-GENERATED (by ann); owner=ann@example": "Auto-Submitted: auto-generated",
		"Auto-Submitted: (no) auto-notified":                         "Auto-Submitted: auto-notified",
		"Auto-Submitted: x-ann":                                      "Auto-Submitted",
		"Precedence: Bulk":                                           "Precedence: bulk",
		"Precedence: junk":                                           "Precedence: junk",
		"Precedence: list":                                           "Precedence: list",
		"Precedence: auto_reply":                                     "Precedence: auto_reply",
		"List-Id: <ann.example.com>":                                 "List-Id",
		"List-Unsubscribe: <https://example.com>":                    "List-Unsubscribe",
		"X-Autoreply: yes":                                           "X-Autoreply",
		"X-Autorespond: yes":                                         "X-Autoreply",
		"Return-Path: <>":                                            "Return-Path: <>",
		"Return-Path: < >":                                           "Return-Path: <>",
		"Content-Type: multipart/report; report-type=disposition-notification; boundary=b": "Content-Type: multipart/report",
		"X-POST-MessageClass: 9; Autoresponder":                                            "X-POST-MessageClass: Autoresponder",
		"X-A: b\rAuto-Submitted: auto-replied":                                             "Auto-Submitted: auto-replied",
		"Auto-Submitted: no":                                                               "",
		"Auto-Submitted: no (a person)":                                                    "",
		"Auto-Submitted: No; x=y":                                                          "",
		"Auto-Submitted:":                                                                  "",
		"Precedence: first-class":                                                          "",
		"X-Auto-Response-Suppress: All":                                                    "",
		"X-Autoreply: no":                                                                  "",
		"Return-Path: <ann@shop.example>":                                                  "",
		"X-Mailer: List-Id: x\nX-Note: Auto-Submitted: auto-replied":                       "",
	} {
		r := words.Read(with(fields))
		if r.Automatic != (why != "") || r.Why != why {
			t.Errorf("%q: automatic %v, %q", fields, r.Automatic, r.Why)
		}
		if want := map[bool]words.Meaning{true: words.Other, false: words.Stop}[r.Automatic]; r.Meaning != want {
			t.Errorf("%q: %s", fields, r.Meaning)
		}
	}
	for subject, want := range map[string]bool{"Automatic reply: sale": true, "Automatische Antwort: x": true, "自動返信：x": true, "Réponse automatique : x": true, "unsubscribe": false} {
		raw := append([]byte("X-Auto-Response-Suppress: All\r\n"), letter(subject, "unsubscribe")...)
		if r := words.Read(raw); r.Automatic != want {
			t.Errorf("%q: automatic %v", subject, r.Automatic)
		}
	}
}

// Out-of-office notices without a field that says so are never a demand.
func TestAway(t *testing.T) {
	for _, s := range []string{
		"Out of office: unsubscribe", "Automatic reply: unsubscribe", "Abwesenheitsnotiz: abmelden", "Automatische Antwort: Abmelden", "Réponse automatique : désabonner",
		"Absence : désinscription", "Respuesta automática: baja", "Fuera de la oficina: baja", "Resposta automática: cancelar inscrição", "Risposta automatica: cancellazione",
		"Fuori ufficio: disiscrizione", "Automatisch antwoord: afmelden", "Afwezig: afmelden", "Automatyczna odpowiedź: wypisz mnie", "Odpowiedź automatyczna: wypisz", "自動返信：配信停止",
		"不在通知 配信停止", "自动回复：退订", "自動回覆：退訂",
	} {
		for _, r := range []*words.Reading{words.Read(letter(s, "")), words.Read(letter("", s)), words.Read(letter(s, "unsubscribe"))} {
			if r.Meaning == words.Stop {
				t.Errorf("%q reads as a demand", s)
			}
		}
	}
}

func TestFrom(t *testing.T) {
	for field, want := range map[string]string{
		"From: Ann <ann@example.com>":                            "ann@example.com",
		"From: ann@example.com":                                  "ann@example.com",
		"From: \"Example, Ann\" <Ann@Example.com>":               "Ann@Example.com",
		"From: =?utf-8?q?M=C3=BCller=2C_Ann?= <ann@example.com>": "ann@example.com",
		"From: =?x-unknown?q?M=FCller?= <ann@example.com>":       "ann@example.com",
		"From: M\xfcller <ann@example.com>":                      "ann@example.com",
		"From: \"joe smith\"@example.com":                        `"joe smith"@example.com`,
		"From: \"@\"@example.com":                                `"@"@example.com`,
		"From: Ann\n <ann@example.com>":                          "ann@example.com",
		"From: ann@example.com, bob@example.com":                 "",
		"From: ann@example.com\nFrom: bob@example.com":           "",
		"From: \"ann@example.com\" <bob@example.net>":            "bob@example.net",
		"From: <>":                       "",
		"From:":                          "",
		"Sender: ann@example.com":        "",
		"From: undisclosed-recipients:;": "",
		"From: ann@example.com <bob@example.com> <carl@example.com>": "",
	} {
		raw := []byte(strings.ReplaceAll(field, "\n", "\r\n") + "\r\nSubject: x\r\n\r\n")
		if r := words.Read(raw); r.From != want {
			t.Errorf("%q: %q, want %q", field, r.From, want)
		}
	}
}

func TestRecipients(t *testing.T) {
	raw := "Delivered-To: stop@mail.example.com\r\nX-Original-To: stop@mail.example.com\r\nEnvelope-To: a@example.com\r\nTo: \"Shop, the\" <b@example.com>, c@example.com\r\n" +
		"Cc: broken <<d@example.com>, e@example.com\r\nBcc: f@example.com\r\nTo: g@example.com\r\n\r\n"
	want := []string{"stop@mail.example.com", "a@example.com", "b@example.com", "c@example.com", "g@example.com", "d@example.com", "e@example.com"}
	if r := words.Read([]byte(raw)); !slices.Equal(r.Recipients, want) {
		t.Errorf("%q", r.Recipients)
	}
	many := "To: x@example.com"
	for i := range 500 {
		many += fmt.Sprintf(",\r\n a%d@example.com", i)
	}
	if r := words.Read([]byte(many + "\r\n\r\n")); len(r.Recipients) != 100 {
		t.Errorf("%d recipients", len(r.Recipients))
	}
}

// Tokens come from the fields first, then from the body, wherever they stand there.
func TestTokens(t *testing.T) {
	at := func(c string) string { return c + token[1:60] + "a" }
	raw := "References: <u-" + at("b") + "@mail.example.com>\r\nIn-Reply-To: <b-" + at("a") + "@mail.example.com>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nhttps://mail.example.com/u/" + at("c")[:30] + "=\r\n" + at("c")[30:] + "\r\n" +
		"> mailto:u-" + at("a") + "@mail.example.com\r\n--b\r\nContent-Type: text/html\r\n\r\n<p style='display:none'>https://mail.example.com/u/" + at("d") + "</p><a href=\"https://wrap.example/?u=https%3A%2F%2Fmail.example.com%2Fu%2F" +
		at("e") + "&amp;x=y\">x</a><a href='https:&#47;&#47;mail.example.com&#47;u&#47;" + at("f") + "'>x</a>\r\n--b--\r\n"
	want := []string{at("a"), at("b"), at("c"), at("d"), at("f"), at("e")}
	r := words.Read([]byte(raw))
	slices.Sort(r.Tokens[min(3, len(r.Tokens)):])
	slices.Sort(want[3:])
	if !slices.Equal(r.Tokens, want) {
		t.Errorf("got %q\nwant %q", r.Tokens, want)
	}
}

// Charsets: labelled, mislabelled, unlabelled and unknown.
func TestCharsets(t *testing.T) {
	for name, c := range map[string]struct{ label, text, own string }{
		"latin":              {"iso-8859-1", "D\xe9sabonnez-moi", "Désabonnez-moi"},
		"latin said utf-8":   {"utf-8", "D\xe9sabonnez-moi", "Désabonnez-moi"},
		"utf-8 said latin":   {"iso-8859-1", "Désabonnez-moi", "Désabonnez-moi"},
		"unlabelled":         {"", "D\xe9sabonnez-moi", "Désabonnez-moi"},
		"unknown":            {"x-none", "D\xe9sabonnez-moi", "Désabonnez-moi"},
		"shift-jis":          {"Shift_JIS", "\x94z\x90M\x92\xe2\x8e~", "配信停止"},
		"euc-jp":             {"EUC-JP", "\xc7\xdb\xbf\xae\xc4\xe4\xbb\xdf", "配信停止"},
		"gb2312":             {"GB2312", "\xcd\xcb\xb6\xa9", "退订"},
		"big5":               {"big5", "\xb0h\xadq", "退訂"},
		"iso-2022, no label": {"", "\x1b$BG[?.Dd;_\x1b(B", "配信停止"},
	} {
		typed := ""
		if c.label != "" {
			typed = "; charset=" + c.label
		}
		r := words.Read([]byte("From: a@example.com\r\nContent-Type: text/plain" + typed + "\r\n\r\n" + c.text + "\r\n"))
		if r.Own != c.own || r.Meaning != words.Stop {
			t.Errorf("%s: %q, %s", name, r.Own, r.Meaning)
		}
	}
	if r := words.Read([]byte("From: a@example.com\r\nSubject: =?ISO-2022-JP?B?GyRCRls/LkRkO18bKEI=?=\r\n\r\n")); r.Meaning == words.Other && r.Subject == "" {
		t.Error("no subject")
	}
}

// What cannot be read wholly is no clear demand, and what is none of text is not empty.
func TestBroken(t *testing.T) {
	big := strings.Repeat("keep the weekly one ", 20<<10)
	for name, c := range map[string]struct {
		raw  string
		want words.Meaning
	}{
		"broken quoted-printable": {"Subject: unsubscribe\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nunsubscribe\r\n=ZZ not\r\n", words.Perhaps},
		"broken base64":           {"Subject: unsubscribe\r\nContent-Transfer-Encoding: base64\r\n\r\ndW5zdWJzY3JpYmU=!!!!\r\n", words.Perhaps},
		"unknown encoding":        {"Subject: unsubscribe\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644\r\n", words.Perhaps},
		"long":                    {"\r\n" + "unsubscribe\r\n" + big, words.Perhaps},
		"nothing at all":          {"", words.Empty},
		"no header":               {"unsubscribe", words.Empty},
		"a picture":               {"Content-Type: image/png\r\n\r\nx", words.Other},
		"no boundary":             {"Content-Type: multipart/mixed\r\n\r\nunsubscribe", words.Other},
		"mbox line":               {"From ann@example.com Mon Nov 23 10:00:00 2026\r\nFrom: a@example.com\r\nSubject: unsubscribe\r\n\r\n", words.Stop},
		"bare CR":                 {"From: a@example.com\rSubject: unsubscribe\r\r", words.Stop},
		"bare LF":                 {"From: a@example.com\nSubject: x\n\nunsubscribe\n", words.Stop},
	} {
		if r := words.Read([]byte(c.raw)); r.Meaning != c.want {
			t.Errorf("%s: %s, want %s", name, r.Meaning, c.want)
		}
	}
}

// bounds fails unless a reading keeps to what its fields promise.
func bounds(t testing.TB, r *words.Reading) {
	t.Helper()
	if utf8.RuneCountInString(r.Subject) > 250 || utf8.RuneCountInString(r.Own) > 2000 || len(r.Recipients) > 100 || len(r.Tokens) > 20 || len(r.MessageID) > 998 || len(r.From) > 320 || len(r.Why) > 60 {
		t.Fatalf("beyond bounds: %+v", r)
	}
	for _, s := range append([]string{r.From, r.Subject, r.MessageID, r.Why}, r.Recipients...) {
		if strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsGraphic(c) }) {
			t.Fatalf("not printable: %q", s)
		}
	}
	if !utf8.ValidString(r.Own) || strings.ContainsFunc(r.Own, func(c rune) bool { return c != '\n' && !unicode.IsGraphic(c) }) {
		t.Fatalf("not printable: %q", r.Own)
	}
	if r.Automatic && r.Meaning != words.Other || r.Meaning > words.Cancel || (r.Meaning == words.Stop || r.Meaning == words.Cancel) && r.Language == "" {
		t.Fatalf("%s, automatic %v, in %q", r.Meaning, r.Automatic, r.Language)
	}
}

// Hostile sizes and shapes.
func TestHostile(t *testing.T) {
	var nested strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&nested, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	var parts strings.Builder
	parts.WriteString("Content-Type: multipart/mixed; boundary=b\r\n\r\n")
	for range 20000 {
		parts.WriteString("--b\r\n\r\nunsubscribe\r\n")
	}
	zip := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("PK\x03\x04"), 200<<10))
	for name, raw := range map[string]string{
		"nested":      nested.String() + "\r\nunsubscribe",
		"parts":       parts.String(),
		"fields":      strings.Repeat("A: b\r\n", 300<<10) + "\r\n",
		"a field":     "Subject: " + strings.Repeat("x", 2<<20),
		"folds":       "Subject: x\r\n" + strings.Repeat(" x\r\n", 300<<10) + "\r\n",
		"lines":       "\r\n" + strings.Repeat("\r\n", 500<<10),
		"quotes":      "\r\n" + strings.Repeat("> ", 500<<10),
		"colons":      "\r\n" + strings.Repeat("On 2026 wrote\r\n", 70<<10),
		"words":       "\r\n" + strings.Repeat("from a ", 150<<10),
		"gaps":        "\r\n" + strings.Repeat("from from from list ", 50<<10),
		"slack":       "\r\n" + strings.Repeat("wollen mich von keine mails von ", 40<<10),
		"questions":   "\r\n" + strings.Repeat("can you? ", 100<<10),
		"wide":        "\r\n" + strings.Repeat("来自来自来自", 50<<10),
		"tags":        "Content-Type: text/html\r\n\r\n" + strings.Repeat("<div>", 200<<10),
		"attributes":  "Content-Type: text/html\r\n\r\n<a " + strings.Repeat("a=b ", 250<<10) + ">",
		"blockquotes": "Content-Type: text/html\r\n\r\n" + strings.Repeat("<blockquote>", 80<<10) + "x",
		"zip":         "Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n" + zip,
		"50 MB":       "Subject: unsubscribe\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nunsubscribe\r\n--b\r\nContent-Type: application/zip\r\n\r\n" + strings.Repeat("x", 50<<20),
		"addresses":   "To: " + strings.Repeat("a@example.com, ", 60<<10) + "\r\n\r\n",
		"comments":    "From: " + strings.Repeat("(", 200<<10) + "\r\nAuto-Submitted: " + strings.Repeat("(", 1000) + "\r\n\r\n",
		"re":          "Subject: " + strings.Repeat("Re: ", 50<<10) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := words.Read([]byte(raw))
			bounds(t, r)
			if r.Meaning == words.Stop && name != "50 MB" {
				t.Errorf("reads as a demand: %q", r.Own)
			}
		})
	}
}

// Whatever is quoted under a remark, the remark stays one: no quotation makes a demand, and none of our footers does.
func TestQuoting(t *testing.T) {
	var remarks []saying
	var texts []string
	for _, lang := range languages {
		for _, s := range sayings(t, "phrases", lang) {
			if s.meaning == "other" && s.subject == "" {
				remarks = append(remarks, s)
			}
			texts = append(texts, s.body)
		}
	}
	for _, lang := range client.FooterLanguages() {
		f := client.Footer{Lang: lang, Sender: "Shop", PostalAddress: "12 High Street\nTown", PrivacyPolicyURL: "https://shop.example/privacy"}
		texts = append(texts, f.Text("https://mail.example.com/u/"+token))
	}
	announce := []string{"", "On Mon, 23 Nov 2026 at 10:00, Shop <news@shop.example> wrote:\n", "Am 23.11.2026 um 10:00 schrieb Shop:\n", "-----Original Message-----\nFrom: Shop\nSent: today\nTo: Ann\nSubject: sale\n\n",
		"2026年11月23日(月) 10:00 Shop <news@shop.example>:\n", "------------------ 原始邮件 ------------------\n"}
	rapid.Check(t, func(t *rapid.T) {
		remark := rapid.SampledFrom(remarks).Draw(t, "remark").body
		quoted := rapid.OneOf(rapid.SampledFrom(texts), rapid.String()).Draw(t, "quoted")
		head := rapid.SampledFrom(announce).Draw(t, "announced by")
		marked := ""
		for line := range strings.Lines(quoted) {
			marked += "> " + strings.TrimRight(line, "\r\n") + "\n"
		}
		subject := "Re: " + rapid.SampledFrom(texts).Draw(t, "subject")
		subject = strings.Join(strings.Fields(subject), " ")
		bodies := []string{remark + "\n\n" + head + marked, head + marked + "\n" + remark}
		if head != "" { // what is announced needs no marks
			bodies = append(bodies, remark+"\n\n"+head+quoted)
		}
		for _, body := range bodies {
			if r := words.Read(letter(subject, body)); r.Meaning == words.Stop {
				t.Fatalf("reads as a demand: %q", body)
			}
		}
	})
}

// Our own footer never asks for anything, quoted or left standing, as text or as HTML.
func TestFooters(t *testing.T) {
	for _, lang := range client.FooterLanguages() {
		f := client.Footer{Lang: lang, Sender: "Shop", PostalAddress: "12 High Street\nTown", PrivacyPolicyURL: "https://shop.example/privacy"}
		url := "https://mail.example.com/u/" + token
		text := f.Text(url)
		for _, body := range []string{text, "\n\n" + text, "> " + strings.ReplaceAll(text, "\r\n", "\r\n> "), "On Mon, 23 Nov 2026 at 10:00, Shop <news@shop.example> wrote:\n" + text} {
			for _, subject := range []string{"", "Re: sale", "Hello"} {
				r := words.Read(letter(subject, body))
				if r.Meaning == words.Stop || r.Meaning == words.Perhaps || r.Own != "" {
					t.Errorf("%s: %s, own words %q", lang, r.Meaning, r.Own)
				}
				if !slices.Equal(r.Tokens, []string{token}) {
					t.Errorf("%s: tokens %q", lang, r.Tokens)
				}
			}
		}
		for _, body := range []string{f.HTML(url), "<p>Thanks</p>" + f.HTML(url), "<p>Thanks</p><blockquote>" + f.HTML(url) + "</blockquote>"} {
			r := words.Read([]byte("From: ann@shop.example\r\nSubject: Re: sale\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body))
			if r.Meaning == words.Stop || r.Meaning == words.Perhaps {
				t.Errorf("%s: %s, own words %q", lang, r.Meaning, r.Own)
			}
		}
		// And a demand above it is one.
		if r := words.Read(letter("Re: sale", "unsubscribe\n\n"+text)); r.Meaning != words.Stop || r.Own != "unsubscribe" {
			t.Errorf("%s: %s, own words %q", lang, r.Meaning, r.Own)
		}
	}
}

// Whatever octets change on the way, reading them ends, and within bounds.
func TestDamaged(t *testing.T) {
	files, _ := filepath.Glob("testdata/mail/*.eml")
	random := rand.New(rand.NewPCG(1, 2))
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			bounds(t, words.Read(mutate(random, raw)))
		}
	}
}

// mutate damages a message in a few places.
func mutate(random *rand.Rand, raw []byte) []byte {
	out := bytes.Clone(raw)
	for range 1 + random.IntN(8) {
		if len(out) < 2 {
			return out
		}
		i := random.IntN(len(out))
		j := min(len(out), i+1+random.IntN(64))
		switch random.IntN(5) {
		case 0:
			out[i] = byte(random.IntN(256))
		case 1:
			out = slices.Delete(out, i, j)
		case 2:
			out = slices.Insert(out, i, bytes.Clone(out[i:j])...)
		case 3:
			out = out[:j]
		case 4:
			k := random.IntN(len(out))
			out = slices.Insert(out, k, bytes.Clone(out[i:j])...)
		}
	}
	return out
}

func FuzzRead(f *testing.F) {
	files, _ := filepath.Glob("testdata/mail/*.eml")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	for _, lang := range languages {
		for _, s := range append(sayings(f, "phrases", lang)[:5], sayings(f, "strangers", lang)[:5]...) {
			f.Add(letter(s.subject, s.body))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) { bounds(t, words.Read(raw)) })
}
