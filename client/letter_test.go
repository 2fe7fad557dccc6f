package client_test

import (
	"io"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wneessen/go-mail"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
)

// The list fields arrive once each, with the octets that the service gave: folded at the comma only, the URL in one piece.
func TestListFieldsArriveUnaltered(t *testing.T) {
	k := newSink(t)
	s := newScripted()
	link := exampleLink()
	link.Headers[0].Value = "<https://mail.example.com/u/" + strings.Repeat("a", 200) + ">, <mailto:u-" + strings.Repeat("b", 61) + "@unsub.example.com?subject=unsubscribe>"
	s.check = func(*optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
		return &optoutv1.CheckSendResponse{Verdict: optoutv1.Verdict_VERDICT_SEND, Link: link}, nil
	}
	m := message(t, []string{"a@example.com"}, nil, nil)
	m.SetListUnsubscribe("https://old.example.com/one")
	m.SetListUnsubscribePost()
	m.SetGenHeader("List-Unsubscribe", "<https://old.example.com/two>")
	m.SetGenHeader("list-unsubscribe-post", "old")
	m.SetGenHeaderPreformatted("X-Note", "one\nList-Unsubscribe: <https://old.example.com/three>") // a bare LF becomes a line's end in SMTP
	m.SetGenHeaderPreformatted("X-Note-Two", "one\r\nBcc: hidden@example.com")
	if _, err := client.NewMailer(s.client(t), k.mail(t)).Send(t.Context(), "news", m); err != nil {
		t.Fatal(err)
	}
	head := header(k.to("a@example.com")[0])
	want := "List-Unsubscribe: " + strings.ReplaceAll(link.Headers[0].Value, ">, <", ">,\r\n <") + "\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
	if !strings.Contains(head, want) {
		t.Errorf("the fields did not arrive as given:\n%s", head)
	}
	if n := len(regexp.MustCompile(`(?im)^list-unsubscribe`).FindAllString(head, -1)); n != 2 || strings.Contains(head, "old") || strings.Contains(head, "hidden@") {
		t.Errorf("%d list fields, want 2:\n%s", n, head)
	}
	parsed, err := netmail.ReadMessage(strings.NewReader(head + "\r\n"))
	if err != nil || parsed.Header.Get("List-Unsubscribe") != link.Headers[0].Value || parsed.Header.Get("X-Note") != "one" {
		t.Errorf("unfolded: %q, %v", parsed.Header, err)
	}
}

// Without an unsubscribe link that can be used, no mail leaves of a topic that a link stops.
func TestNoLinkNoMail(t *testing.T) {
	field := func(name, value string) *optoutv1.Header { return &optoutv1.Header{Name: name, Value: value} }
	for name, headers := range map[string][]*optoutv1.Header{
		"none":           nil,
		"post only":      {field("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")},
		"twice":          {field("List-Unsubscribe", "<https://a.example/>"), field("List-Unsubscribe", "<https://b.example/>")},
		"another field":  {field("List-Unsubscribe", "<https://a.example/>"), field("Subject", "free")},
		"two in one":     {field("List-Unsubscribe", "<https://a.example/>\r\nSubject: free")},
		"beyond ASCII":   {field("List-Unsubscribe", "<https://ä.example/>")},
		"post, repeated": {field("List-Unsubscribe", "<https://a.example/>"), field("List-Unsubscribe-Post", "x"), field("List-Unsubscribe-Post", "x")},
	} {
		k, s := newSink(t), newScripted()
		s.check = func(*optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
			return &optoutv1.CheckSendResponse{Verdict: optoutv1.Verdict_VERDICT_SEND, Link: &optoutv1.UnsubscribeLink{Headers: headers}}, nil
		}
		report, err := client.NewMailer(s.client(t), k.mail(t)).Send(t.Context(), "news", message(t, []string{"a@example.com"}, nil, nil))
		if report[0].Outcome != client.NotAsked || err == nil || k.total() != 0 {
			t.Errorf("%s: %v, %v; %d arrived", name, report, err, k.total())
		}
	}
}

// To and Cc stay as the caller wrote them, but for the refused; a field of which nobody is left goes.
func TestVisibleRecipients(t *testing.T) {
	s := newSetup(t)
	s.optOut(t, "out@example.com")
	m := mail.NewMsg()
	if err := m.From("letters@example.com"); err != nil {
		t.Fatal(err)
	}
	m.SetAddrHeaderFromMailAddress(mail.HeaderTo, &netmail.Address{Name: "Grete Müller, Dr.", Address: "grete@example.com"},
		&netmail.Address{Name: "Out", Address: "out@example.com"}, &netmail.Address{Address: "to@example.com"})
	m.SetAddrHeaderFromMailAddress(mail.HeaderCc, &netmail.Address{Name: "Out", Address: "out@example.com"})
	m.SetAddrHeaderFromMailAddress(mail.HeaderBcc, &netmail.Address{Address: "bcc@example.com"})
	m.SetBodyString(mail.TypeTextPlain, "Hello.\n")
	report, err := s.mailer.Send(t.Context(), "news", m)
	if err != nil || report.Count(client.Sent) != 3 || report.Count(client.Refused) != 1 {
		t.Fatalf("%v, %v", report, err)
	}
	for _, to := range []string{"grete@example.com", "to@example.com", "bcc@example.com"} {
		text := s.sink.to(to)[0]
		parsed, err := netmail.ReadMessage(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		visible, err := parsed.Header.AddressList("To")
		if err != nil || len(visible) != 2 || visible[0].Name != "Grete Müller, Dr." || visible[1].Address != "to@example.com" {
			t.Errorf("%s sees To %v, %v", to, visible, err)
		}
		if _, has := parsed.Header["Cc"]; has || strings.Contains(text, "out@") || strings.Contains(header(text), "bcc@") {
			t.Errorf("%s sees who was refused, or Bcc:\n%s", to, text)
		}
	}
}

// What go-mail rendered stays what it was: every part of the body, for everybody the same.
func TestBodyArrivesWhole(t *testing.T) {
	k := newSink(t)
	m := three(t)
	m.SetBodyString(mail.TypeTextPlain, "Grüße.\n.\n..dots\nFrom here\n")
	m.AddAlternativeString(mail.TypeTextHTML, "<p>Grüße.</p>")
	if err := m.AttachReader("notes.txt", strings.NewReader("attached\r\n")); err != nil {
		t.Fatal(err)
	}
	if report, err := fast(t, k).Send(t.Context(), "news", m); err != nil || report.Count(client.Sent) != 3 {
		t.Fatalf("%v, %v", report, err)
	}
	_, first, _ := strings.Cut(k.to("a@example.com")[0], "\r\n\r\n")
	for _, to := range []string{"a@example.com", "b@example.com", "c@example.com"} {
		text := k.to(to)[0]
		if _, body, _ := strings.Cut(text, "\r\n\r\n"); body != first {
			t.Errorf("%s got another body", to)
		}
		got := leaves(t, text)
		if len(got) != 3 || got[0] != "text/plain: Grüße.\r\n.\r\n..dots\r\nFrom here\r\n" || got[1] != "text/html: <p>Grüße.</p>" {
			t.Errorf("%s got %q", to, got)
		}
	}
}

// eachLeaf calls f with the header and the content of each leaf of a body.
func eachLeaf(t *testing.T, get func(string) string, r io.Reader, f func(get func(string) string, r io.Reader)) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(kind, "multipart/") {
		f(get, r)
		return
	}
	for parts := multipart.NewReader(r, params["boundary"]); ; {
		p, err := parts.NextRawPart()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		eachLeaf(t, p.Header.Get, p, f)
	}
}

// A recipient's link must not stay behind on the caller's message, from where it would reach somebody else.
func TestMessageIsNotChanged(t *testing.T) {
	k := newSink(t)
	s := newScripted()
	refusing := client.NewMailer(s.client(t), k.mail(t))
	s.batch = func(r *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
		return &optoutv1.BatchCheckSendResponse{Verdicts: []byte{1, 2, 1}}, nil
	}
	m := three(t)
	m.SetListUnsubscribe("https://own.example.com/list")
	if _, err := refusing.Send(t.Context(), "news", m); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); strings.Contains(got, "token") || !strings.Contains(got, "https://own.example.com/list") || !strings.Contains(got, "b@example.com") || len(m.GetBcc()) != 1 {
		t.Errorf("after sending, the message reads:\n%s", got)
	}
}

// Each recipient's message has a Message-ID of its own, unless the caller gave one.
func TestMessageIDs(t *testing.T) {
	id := regexp.MustCompile(`(?m)^Message-ID: (<\S+@\S+>)\r$`)
	named := regexp.MustCompile(`^<[A-Z2-7]{20,}\.b-[a-z2-7]{61}@\S+>$`) // so that replies say whose message they are about
	for _, own := range []string{"", "campaign-7@example.com"} {
		k := newSink(t)
		m := three(t)
		if own != "" {
			m.SetMessageIDWithValue(own)
		}
		if _, err := fast(t, k).Send(t.Context(), "news", m); err != nil {
			t.Fatal(err)
		}
		ids := map[string]bool{}
		for _, to := range []string{"a@example.com", "b@example.com", "c@example.com"} {
			found := id.FindAllStringSubmatch(header(k.to(to)[0]), -1)
			if len(found) != 1 {
				t.Fatalf("%d Message-IDs:\n%s", len(found), header(k.to(to)[0]))
			}
			if own == "" && !named.MatchString(found[0][1]) {
				t.Errorf("%s names nobody", found[0][1])
			}
			ids[found[0][1]] = true
		}
		if own == "" && len(ids) != 3 || own != "" && (len(ids) != 1 || !ids["<"+own+">"]) {
			t.Errorf("own %q: %v", own, ids)
		}
	}
}

// A required topic's mail carries no link, for no link stops it, and each mail that passes a no is one entry of the ledger.
func TestRequiredMailIsOneEntry(t *testing.T) {
	s := newSetup(t)
	s.required(t, "password-reset")
	s.optOut(t, "a@example.com")
	m := message(t, []string{"a@example.com"}, nil, nil)
	m.SetListUnsubscribe("https://own.example.com/list")
	if report, err := s.mailer.Send(t.Context(), "password-reset", m); err != nil || report[0].Outcome != client.Refused {
		t.Errorf("without an act: %v, %v", report, err)
	}
	mailer := client.NewMailer(s.client, s.sink.mail(t), client.InAnswerTo("password reset requested", time.Now().Add(-time.Minute)))
	report, err := mailer.Send(t.Context(), "password-reset", m)
	if err != nil || report[0].Outcome != client.Sent || len(report[0].Decision.Denials) == 0 {
		t.Fatalf("%v, %v", report, err)
	}
	if head := header(s.sink.to("a@example.com")[0]); strings.Contains(head, "List-Unsubscribe") {
		t.Errorf("it carries a link:\n%s", head)
	}
	story, err := optoutv1.NewSuppressionServiceClient(s.client.Conn()).ExplainAddress(t.Context(), &optoutv1.ExplainAddressRequest{Address: "a@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, e := range story.Entries {
		if e.Kind == optoutv1.EntryKind_ENTRY_KIND_SENT_IN_SPITE {
			passed++
		}
	}
	if passed != 1 {
		t.Errorf("%d entries for one mail", passed)
	}
	unreadable := message(t, nil, nil, nil)
	unreadable.SetAddrHeaderFromMailAddress(mail.HeaderBcc, &netmail.Address{Address: "jane doe"})
	if report, err := mailer.Send(t.Context(), "password-reset", unreadable); err != nil || report[0].Outcome != client.Malformed || report[0].Decision.Malformed == "" {
		t.Errorf("an address that cannot be read: %v, %v", report, err)
	}
}
