package client_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"strings"
	"testing"

	"github.com/wneessen/go-mail"

	"optout/client"
)

// A message arrives with a signature that holds, over every field that one-click needs (RFC 8058 section 4).
func TestDKIMCoversTheListFields(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, fields := range map[string][]string{
		"go-mail's own list": nil,
		"a list":             {"From", "Subject", "list-unsubscribe"},
		"all":                append([]string{"From"}, client.DKIMHeaders()...),
	} {
		k := newSink(t)
		signer := mail.NewDKIMSigner("example.com", "mail", private)
		signer.SignHeaders(fields...)
		m := three(t)
		m.Subject("A subject that is long enough to be folded somewhere, since it goes on for more than a line")
		mailer := client.NewMailer(newScripted().client(t), k.mail(t), client.WithDKIM(signer))
		if report, err := mailer.Send(t.Context(), "news", m); err != nil || report.Count(client.Sent) != 3 {
			t.Fatalf("%s: %v, %v", name, report, err)
		}
		for _, to := range []string{"a@example.com", "b@example.com", "c@example.com"} {
			text := k.to(to)[0]
			covered := strings.ToLower(":" + dkimTag(text, "h") + ":")
			for _, h := range append([]string{"From"}, client.DKIMHeaders()...) {
				if strings.Count(covered, ":"+strings.ToLower(h)+":") == 0 {
					t.Errorf("%s: %s is not covered: %s", name, h, covered)
				}
			}
			if !dkimHolds(text, public) {
				t.Errorf("%s: the signature does not hold:\n%s", name, text)
			}
			if dkimHolds(strings.Replace(text, "One-Click", "One-Clock", 1), public) || dkimHolds(strings.Replace(text, "Hello.", "Hallo.", 1), public) {
				t.Errorf("%s: the signature holds over what was changed", name)
			}
		}
	}
}

// A signature that could not cover the list fields, and options of go-mail that would be ignored, are refused before anything
// is sent.
func TestWhatTheMailerCannotHonour(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer := mail.NewDKIMSigner("example.com", "mail", private)
	signed := message(t, []string{"a@example.com"}, nil, nil)
	signed.SetDKIM(signer)
	plain := message(t, []string{"a@example.com"}, nil, nil)
	k := newSink(t)
	c := newScripted().client(t)
	for name, x := range map[string]struct {
		mailer *client.Mailer
		msg    *mail.Msg
		want   string
	}{
		"signed message":    {client.NewMailer(c, k.mail(t)), signed, "WithDKIM"},
		"signing client":    {client.NewMailer(c, k.mail(t, mail.WithAlwaysDKIMSign(signer))), plain, "WithDKIM"},
		"DSN":               {client.NewMailer(c, k.mail(t, mail.WithDSN())), plain, "WithDSN"},
		"no signer":         {client.NewMailer(c, k.mail(t), client.WithDKIM(nil)), plain, "nil"},
		"signer, no domain": {client.NewMailer(c, k.mail(t), client.WithDKIM(mail.NewDKIMSigner("", "mail", private))), plain, "domain"},
		"no mail client":    {client.NewMailer(c, nil), plain, "needs a client"},
		"no message":        {client.NewMailer(c, k.mail(t)), nil, "message 0 is nil"},
		"no recipients":     {client.NewMailer(c, k.mail(t)), mail.NewMsg(), "no recipients"},
	} {
		report, err := x.mailer.Send(t.Context(), "news", x.msg)
		if err == nil || !strings.Contains(err.Error(), x.want) || report.Count(client.Sent) != 0 {
			t.Errorf("%s: %v, %v; want an error about %s", name, report, err, x.want)
		}
	}
	if k.total() != 0 {
		t.Errorf("%d messages left", k.total())
	}
}

// dkimTag is a tag of the first field, which must be a signature, without white space.
func dkimTag(text, name string) string {
	head := header(text)
	first := regexp.MustCompile(`\r\n[^ \t]`).Split(head, 2)[0]
	_, value, _ := strings.Cut(first, "DKIM-Signature:")
	for tag := range strings.SplitSeq(regexp.MustCompile(`\s`).ReplaceAllString(value, ""), ";") {
		if v, ok := strings.CutPrefix(tag, name+"="); ok {
			return v
		}
	}
	return ""
}

// dkimHolds verifies an ed25519 signature with relaxed canonicalisation of header and body (RFC 6376 sections 3.4.2, 3.4.4 and
// 3.7, RFC 8463), written for this test and sharing nothing with the code that signs.
func dkimHolds(text string, public ed25519.PublicKey) bool {
	relax := func(s string) string {
		return regexp.MustCompile(`[ \t]+`).ReplaceAllString(strings.ReplaceAll(s, "\r\n", ""), " ")
	}
	_, body, _ := strings.Cut(text, "\r\n\r\n")
	var lines []string
	for line := range strings.SplitSeq(body, "\r\n") {
		lines = append(lines, strings.TrimRight(relax(line), " "))
	}
	hash := sha256.Sum256([]byte(strings.TrimRight(strings.Join(lines, "\r\n"), "\r\n") + "\r\n"))
	if base64.StdEncoding.EncodeToString(hash[:]) != dkimTag(text, "bh") {
		return false
	}
	var fields []string
	for line := range strings.SplitSeq(strings.TrimSuffix(header(text), "\r\n"), "\r\n") {
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			fields[len(fields)-1] += "\r\n" + line
		} else {
			fields = append(fields, line)
		}
	}
	canonical := func(f string) string {
		name, value, _ := strings.Cut(f, ":")
		return strings.ToLower(strings.TrimSpace(name)) + ":" + strings.TrimSpace(relax(value))
	}
	var signed strings.Builder
	for name := range strings.SplitSeq(dkimTag(text, "h"), ":") {
		for i := len(fields) - 1; i > 0; i-- { // from the bottom up; the first is the signature itself
			if n, _, _ := strings.Cut(fields[i], ":"); strings.EqualFold(strings.TrimSpace(n), name) {
				signed.WriteString(canonical(fields[i]) + "\r\n")
				fields = append(fields[:i:i], fields[i+1:]...)
				break
			}
		}
	}
	signed.WriteString(regexp.MustCompile(`b=[A-Za-z0-9+/= ]+$`).ReplaceAllString(canonical(fields[0]), "b="))
	digest := sha256.Sum256([]byte(signed.String()))
	signature, err := base64.StdEncoding.DecodeString(dkimTag(text, "b"))
	return err == nil && ed25519.Verify(public, digest[:], signature)
}
