package mailgate_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
	"optout/service"
	"optout/service/mailtest"
)

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

const (
	ann = "ann@example.com"
	bob = "bob@example.org"
	cy  = "cy@example.net"
)

// A message arrives once for each recipient, with their own link, and with its body untouched; what said how to send it is gone.
func TestEachRecipientGetsTheirOwnLink(t *testing.T) {
	r := newRig(t, nil, nil)
	message := mailText("Bcc: "+cy, "X-Optout-Mailing: 7", "List-Unsubscribe: <https://old.example/u>", "List-Id: <old>", "List-Help: <mailto:help@x>", "Return-Path: <x@y>")
	refused, answer, err := r.send(message, ann, bob, cy)
	if err != nil || len(refused) > 0 || !strings.Contains(answer, "queued as A1B2") || !strings.HasPrefix(answer, "2.6.0") {
		t.Fatalf("%v %q %v", refused, answer, err)
	}
	got := r.sink.Taken()
	if len(got) != 3 {
		t.Fatalf("%d messages arrived", len(got))
	}
	_, body, _ := strings.Cut(message, "\r\n\r\n")
	links := map[string]bool{}
	for i, a := range got {
		want := []string{ann, bob, cy}[i]
		if len(a.To) != 1 || a.To[0] != want || a.From != "shop@example.com" || a.Body() != body {
			t.Errorf("%v from %s: %q", a.To, a.From, a.Body())
		}
		lu, post := a.Fields("List-Unsubscribe"), a.Fields("List-Unsubscribe-Post")
		if len(lu) != 1 || len(post) != 1 || post[0] != "List-Unsubscribe=One-Click" || !strings.HasPrefix(lu[0], "<https://mail.example.com/u/") || !strings.Contains(lu[0], "@unsub.example.com?subject=unsubscribe>") {
			t.Errorf("list fields %q %q", lu, post)
		}
		if id := a.Fields("List-Id"); len(id) != 1 || !strings.HasSuffix(id[0], "<news.default.unsub.example.com>") {
			t.Errorf("List-Id %q", id)
		}
		for _, gone := range []string{"Bcc", "X-Optout-Mailing", "List-Help", "Return-Path"} {
			if len(a.Fields(gone)) > 0 {
				t.Errorf("%s is still there", gone)
			}
		}
		if ids := a.Fields("Message-ID"); len(ids) != 1 || ids[0] != "<1@shop.example.com>" {
			t.Errorf("Message-ID %q", ids)
		}
		links[lu[0]] = true
		url, _, _ := strings.Cut(strings.TrimPrefix(lu[0], "<"), ">")
		seen, err := optoutv1.NewLinkServiceClient(r.c.Conn()).InspectLink(t.Context(), &optoutv1.InspectLinkRequest{Token: url[strings.LastIndexByte(url, '/')+1:]})
		if err != nil || seen.Mailing != 7 {
			t.Errorf("the link: %v, %v", seen, err)
		}
	}
	if len(links) != 3 {
		t.Error("recipients share a link")
	}
}

// The link that arrives stops the mail.
func TestArrivedLinkWorks(t *testing.T) {
	r := newRig(t, nil, nil)
	if _, _, err := r.send(mailText(), ann); err != nil {
		t.Fatal(err)
	}
	url, _, _ := strings.Cut(strings.TrimPrefix(r.sink.Last(t).Fields("List-Unsubscribe")[0], "<"), ">")
	here := "http://" + r.svc.HTTP + strings.TrimPrefix(url, "https://mail.example.com")
	resp, err := http.Post(here, "application/x-www-form-urlencoded", strings.NewReader("List-Unsubscribe=One-Click"))
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
	refused, _, _ := r.send(mailText(), ann)
	if e := refused[ann]; e == nil || e.Code != 550 || e.EnhancedCode != (smtp.EnhancedCode{5, 7, 1}) || !strings.Contains(e.Message, "opted out of all correspondence") || strings.Contains(e.Message, "@") {
		t.Errorf("after the press: %v", refused)
	}
}

// One who opts out between RCPT and the final dot is left out, and that is an entry; the rest goes on.
func TestOptOutBeforeTheFinalDot(t *testing.T) {
	r := newRig(t, nil, nil)
	c := r.login()
	if err := c.Mail("shop@example.com", nil); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{ann, bob} {
		if err := c.Rcpt(a, nil); err != nil {
			t.Fatal(err)
		}
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	r.optOut(ann)
	fmt.Fprint(w, mailText())
	resp, err := w.CloseWithResponse()
	if err != nil || !strings.Contains(resp.StatusText, "left out: 1 of 2") {
		t.Fatalf("%v %v", resp, err)
	}
	if got := r.sink.Taken(); len(got) != 1 || got[0].To[0] != bob {
		t.Errorf("%d arrived", len(got))
	}
	story, err := optoutv1.NewSuppressionServiceClient(r.c.Conn()).ExplainAddress(t.Context(), &optoutv1.ExplainAddressRequest{Address: ann})
	if err != nil {
		t.Fatal(err)
	}
	withheld := 0
	for _, e := range story.Entries {
		if e.Kind == optoutv1.EntryKind_ENTRY_KIND_WITHHELD {
			withheld++
		}
	}
	if withheld != 1 {
		t.Errorf("%d entries say that it was withheld: %v", withheld, story.Entries)
	}
	// Alone: the answer is the refusal.
	if err := c.Mail("shop@example.com", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt(cy, nil); err != nil {
		t.Fatal(err)
	}
	if w, err = c.Data(); err != nil {
		t.Fatal(err)
	}
	r.optOut(cy)
	fmt.Fprint(w, mailText())
	var e *smtp.SMTPError
	if err := w.Close(); !errors.As(err, &e) || e.Code != 550 {
		t.Errorf("%v", err)
	}
}

// The topic is the field's, or else the credential's; a credential may name only its own.
func TestTopics(t *testing.T) {
	r := newRig(t, nil, func(k *optoutv1.ApiKey) { k.Topics = []string{"news", "receipts", "reset"} })
	if _, err := r.c.Unsubscribe(t.Context(), ann, &optoutv1.Scope{Kind: optoutv1.ScopeKind_SCOPE_KIND_COMMERCIAL}); err != nil {
		t.Fatal(err)
	}
	r.optOut(bob)
	act := "X-Optout-In-Answer-To: asked for a new password; " + time.Now().UTC().Format(time.RFC3339)
	for name, c := range map[string]struct {
		fields []string
		to     string
		rcpt   int
		code   int
		words  string
	}{
		"default topic, no commercial mail": {nil, ann, 0, 550, "commercial"},
		"another topic, by field":           {[]string{"X-Optout-Topic: receipts"}, ann, 0, 250, ""},
		"all mail":                          {[]string{"X-Optout-Topic: receipts"}, bob, 0, 550, "all correspondence"},
		"answer without act":                {[]string{"X-Optout-Topic: reset"}, bob, 0, 550, "X-Optout-In-Answer-To"},
		"answer with act":                   {[]string{"X-Optout-Topic: reset", act}, bob, 0, 250, ""},
		"act of long ago":                   {[]string{"X-Optout-Topic: reset", "X-Optout-In-Answer-To: asked; 2020-01-01T00:00:00Z"}, bob, 0, 550, "30 days"},
		"act without time":                  {[]string{"X-Optout-Topic: reset", "X-Optout-In-Answer-To: asked"}, bob, 0, 550, "X-Optout-In-Answer-To"},
		"a topic of others":                 {[]string{"X-Optout-Topic: law"}, cy, 0, 550, "may not name"},
		"no such topic":                     {[]string{"X-Optout-Topic: nix"}, cy, 0, 550, "no such topic"},
		"another sender":                    {[]string{"X-Optout-Topic: other/news"}, cy, 0, 550, "sender"},
		"two topics":                        {[]string{"X-Optout-Topic: news", "x-optout-topic: receipts"}, cy, 0, 550, "more than one"},
		"no number":                         {[]string{"X-Optout-Mailing: many"}, cy, 0, 550, "mailing number"},
	} {
		refused, _, err := r.send(mailText(c.fields...), c.to)
		var e *smtp.SMTPError
		errors.As(err, &e)
		switch {
		case c.code == 250 && (err != nil || len(refused) > 0):
			t.Errorf("%s: %v %v", name, refused, err)
		case c.code != 250 && (e == nil || e.Code != c.code || !strings.Contains(e.Message, c.words)):
			t.Errorf("%s: %v %v", name, refused, err)
		}
	}
	for _, a := range r.sink.Taken() {
		if reset := strings.Contains(a.Header(), "List-Unsubscribe"); a.To[0] == bob && reset {
			t.Error("mail of a required topic has a link")
		}
	}
	// No topic at all.
	none := newRig(t, nil, func(k *optoutv1.ApiKey) { k.DefaultTopic = "" })
	if _, _, err := none.send(mailText(), cy); err == nil || !strings.Contains(err.Error(), "X-Optout-Topic") {
		t.Errorf("no topic: %v", err)
	}
}

// A required topic's mail goes to all in one transaction, with Bcc unseen, and each SEND in spite of a no is an entry.
func TestRequiredMailIsOneTransaction(t *testing.T) {
	r := newRig(t, nil, func(k *optoutv1.ApiKey) { k.Topics, k.DefaultTopic = []string{"law"}, "law" })
	r.optOut(bob)
	if refused, _, err := r.send(mailText("Bcc: x@y.example"), ann, bob); err != nil || len(refused) > 0 {
		t.Fatalf("%v %v", refused, err)
	}
	got := r.sink.Taken()
	if len(got) != 1 || len(got[0].To) != 2 || strings.Contains(got[0].Header(), "Bcc") || strings.Contains(got[0].Header(), "List-Unsubscribe") {
		t.Fatalf("%d arrived", len(got))
	}
}

// DKIM: both signatures verify, and cover the list fields, also against ones added later.
func TestSignatures(t *testing.T) {
	specs, lookup := dkimKeys(t)
	r := newRig(t, func(c *service.Config) { c.Gate.DKIM = specs }, nil)
	if _, _, err := r.send(mailText("DKIM-Signature: v=1; d=other"), ann); err != nil {
		t.Fatal(err)
	}
	a := r.sink.Last(t)
	verify := func(text string) (good int) {
		all, err := dkim.VerifyWithOptions(strings.NewReader(text), &dkim.VerifyOptions{LookupTXT: lookup})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range all {
			names := strings.ToLower(strings.Join(v.HeaderKeys, ":") + ":")
			if v.Err == nil && v.Domain == "example.com" && strings.Count(names, "list-unsubscribe:") == 2 && strings.Count(names, "list-unsubscribe-post:") == 2 {
				good++
			} else if v.Err != nil {
				t.Log(v.Err)
			}
		}
		return good
	}
	if n := verify(a.Text); n != 2 {
		t.Errorf("%d of 2 signatures verify and cover the list fields:\n%s", n, a.Header())
	}
	if n := verify("List-Unsubscribe: <https://evil.example>\r\n" + a.Text); n != 0 {
		t.Errorf("%d signatures still hold with a second List-Unsubscribe", n)
	}
	if _, _, err := r.send(strings.Replace(mailText(), "shop@example.com", "shop@other.example", 1), ann); err == nil || !strings.Contains(err.Error(), "DKIM key") {
		t.Errorf("From without a key: %v", err)
	}
}

// On part failure the answer is 451, and the next try of the same message sends only the rest.
func TestRetrySendsOnlyTheRest(t *testing.T) {
	r := newRig(t, nil, nil)
	down := true
	r.sink.Refuse(func(to string) error {
		if to == bob && down {
			return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "later, please"}
		}
		return nil
	}, nil)
	var e *smtp.SMTPError
	if _, _, err := r.send(mailText(), ann, bob, cy); !errors.As(err, &e) || e.Code != 451 || !strings.Contains(e.Message, "2 of 3") || !strings.Contains(e.Message, "later, please") {
		t.Fatalf("%v", err)
	}
	if _, _, err := r.send(mailText(), ann, bob, cy); !errors.As(err, &e) || e.Code != 451 {
		t.Fatalf("%v", err)
	}
	down = false
	if _, _, err := r.send(mailText(), ann, bob, cy); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, a := range r.sink.Taken() {
		count[a.To[0]]++
	}
	if count[ann] != 1 || count[bob] != 1 || count[cy] != 1 {
		t.Errorf("arrived %v", count)
	}
	// The very same message again, by a program that goes on and so knows that all have it: it means to send it again.
	c := r.login()
	for range 2 {
		if _, _, err := sendOn(c, mailText("X-Once: more"), ann); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.sink.Taken()); n != 5 {
		t.Errorf("%d arrived", n)
	}
}

// The upstream's answer is the caller's.
func TestUpstreamsAnswer(t *testing.T) {
	r := newRig(t, nil, nil)
	for _, want := range []*smtp.SMTPError{
		{Code: 552, EnhancedCode: smtp.EnhancedCode{5, 3, 4}, Message: "too large for us"},
		{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "going down"},
		{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"},
	} {
		r.sink.Refuse(nil, func(*mailtest.Message) error { return want })
		_, _, err := r.send(mailText(), ann)
		var e *smtp.SMTPError
		if !errors.As(err, &e) || e.Code != want.Code || e.EnhancedCode != want.EnhancedCode || e.Message != want.Message {
			t.Errorf("%v, want %v", err, want)
		}
		r.sink.Refuse(func(string) error { return want }, nil)
		if _, _, err = r.send(mailText(), ann); !errors.As(err, &e) || *e != *want {
			t.Errorf("at RCPT: %v, want %v", err, want)
		}
	}
}

// Without ledger or upstream nothing is sent, and the caller is asked to try again.
func TestUpstreamDown(t *testing.T) {
	r := newRig(t, func(c *service.Config) { c.Gate.Upstream = "127.0.0.1:1" }, nil)
	var e *smtp.SMTPError
	if _, _, err := r.send(mailText(), ann); !errors.As(err, &e) || e.Code != 451 || e.EnhancedCode != (smtp.EnhancedCode{4, 4, 1}) {
		t.Errorf("%v", err)
	}
}

// Observe mode lets through what would be refused, makes it an entry, and ends by itself; nobody gets it twice.
func TestObserve(t *testing.T) {
	r := newRig(t, nil, nil)
	r.optOut(ann)
	update := func(d time.Duration) error {
		_, err := r.admin().UpdateApiKey(t.Context(), &optoutv1.UpdateApiKeyRequest{Number: r.number, ObserveUntil: timestamppb.New(time.Now().Add(d))})
		return err
	}
	if err := update(15 * 24 * time.Hour); err == nil || !strings.Contains(err.Error(), "14 days") {
		t.Errorf("15 days: %v", err)
	}
	if err := update(time.Hour); err != nil {
		t.Fatal(err)
	}
	if refused, _, err := r.send(mailText(), ann); err != nil || len(refused) > 0 {
		t.Fatalf("observed: %v %v", refused, err)
	}
	story, err := optoutv1.NewSuppressionServiceClient(r.c.Conn()).ExplainAddress(t.Context(), &optoutv1.ExplainAddressRequest{Address: ann})
	if err != nil {
		t.Fatal(err)
	}
	if e := story.Entries[0]; e.Kind != optoutv1.EntryKind_ENTRY_KIND_SENT_IN_SPITE && story.Entries[len(story.Entries)-1].Kind != optoutv1.EntryKind_ENTRY_KIND_SENT_IN_SPITE {
		t.Errorf("no entry of what was let through: %v", story.Entries)
	}
	d, err := r.c.CheckSend(t.Context(), "news", ann)
	if err != nil || d.Send() {
		t.Errorf("the API observes too: %v %v", d, err)
	}
	if err := update(0); err != nil {
		t.Fatal(err)
	}
	if refused, _, _ := r.send(mailText(), ann); refused[ann] == nil {
		t.Error("it is over, and mail is still let through")
	}
}

// Nobody sends without a credential of role mailer.
func TestNoOpenRelay(t *testing.T) {
	r := newRig(t, nil, nil)
	c, err := smtp.Dial(r.gate)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var e *smtp.SMTPError
	if err := c.Mail("a@b.example", nil); !errors.As(err, &e) || e.Code != 530 {
		t.Errorf("without a credential: %v", err)
	}
	auditor, err := r.admin().CreateApiKey(t.Context(), &optoutv1.CreateApiKeyRequest{Key: &optoutv1.ApiKey{Role: optoutv1.Role_ROLE_AUDITOR, Label: "a"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]sasl.Client{"wrong": sasl.NewPlainClient("", "shop", "optout_nix"), "auditor": sasl.NewPlainClient("", "x", auditor.Secret),
		"login, wrong": sasl.NewLoginClient("shop", "nix")} {
		if err := c.Auth(a); !errors.As(err, &e) || e.Code != 535 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Auth(sasl.NewLoginClient("shop", r.secret)); err != nil {
		t.Errorf("AUTH LOGIN: %v", err)
	}
	if _, err := r.admin().RevokeApiKey(t.Context(), &optoutv1.RevokeApiKeyRequest{Number: r.number}); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("a@b.example", nil); !errors.As(err, &e) || e.Code != 535 {
		t.Errorf("revoked: %v", err)
	}
}

// Octets that could be read in two ways, and lines that servers would fold, are refused; large messages pass as they are.
func TestOctets(t *testing.T) {
	r := newRig(t, func(c *service.Config) { c.Gate.MaxBytes = 4 << 20 }, nil)
	raw := func(text string) string {
		c := r.login()
		if err := c.Mail("shop@example.com", nil); err != nil {
			t.Fatal(err)
		}
		if err := c.Rcpt(ann, nil); err != nil {
			t.Fatal(err)
		}
		return dataRaw(t, r, text)
	}
	head := mailText()
	for name, c := range map[string]struct{ text, code string }{
		"bare LF":          {head + "a\nb\r\n", "550 5.6.0"},
		"bare CR":          {head + "a\rb\r\n", "550 5.6.0"},
		"NUL":              {head + "a\x00b\r\n", "550 5.6.0"},
		"LF dot LF":        {head + "a\n.\nMAIL FROM:<x@y>\r\n", "550 5.6.0"},
		"LF dot CRLF":      {head + "a\n.\r\nMAIL FROM:<x@y>\r\n", "550 5.6.0"},
		"CR dot CR":        {head + "a\r.\rb\r\n", "550 5.6.0"},
		"long line":        {head + strings.Repeat("x", 999) + "\r\n", "550 5.6.0"},
		"line of 998":      {head + strings.Repeat("x", 998) + "\r\n", "250 2.6.0"},
		"no header field":  {"hello\r\n\r\nworld\r\n", "550 5.6.0"},
		"too large":        {head + long(5<<20), "552 5.3.4"},
		"large":            {head + long(3<<20), "250 2.6.0"},
		"loop":             {strings.Repeat("Received: by x\r\n", 51) + head, "554 5.4.6"},
		"header too large": {strings.Repeat("X-A: "+strings.Repeat("y", 900)+"\r\n", 300) + head, "552 5.3.4"},
	} {
		if got := raw(c.text); !strings.HasPrefix(got, c.code) {
			t.Errorf("%s: %.80q, want %s", name, got, c.code)
		}
		if strings.HasPrefix(c.code, "250") {
			_, want, _ := strings.Cut(c.text, "\r\n\r\n")
			if a := r.sink.Last(t); a.Body() != want {
				t.Errorf("%s: the body changed, %d octets of %d", name, len(a.Body()), len(want))
			}
		}
	}
	for _, a := range r.sink.Taken() {
		if bytes.Contains([]byte(a.Text), []byte("MAIL FROM")) {
			t.Error("smuggled")
		}
	}
}

// A gate that is closed before it has begun to serve ends all the same.
func TestCloseAtOnce(t *testing.T) {
	for range 20 {
		svc, err := service.New(t.Context(), service.Config{Data: t.TempDir() + "/data", GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0", SMTP: "127.0.0.1:0",
			PublicURL: "https://mail.example.com", Gate: service.GateConfig{Listen: "127.0.0.1:0", Upstream: "127.0.0.1:1"}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := svc.Run(ctx); err != nil {
			t.Error(err)
		}
	}
}
