package provider_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"optout/service/provider"
	"optout/service/providertest"
)

var access = providertest.SESAccess{ID: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", Region: "eu-west-1"}

// account is a provider with its API, and the server behind.
type account struct {
	lister     provider.Lister
	suppresser provider.Suppresser
	server     *providertest.API
	pushed     string // the list that pushing writes to
}

// accounts makes every provider that has an API; right is whether it has the right key.
func accounts(t *testing.T, right bool) map[string]account {
	t.Helper()
	key := func(s string) string {
		if right {
			return s
		}
		return s + "x"
	}
	api := func(s *providertest.API) provider.API {
		return provider.API{URL: s.URL, Client: http.DefaultClient, Now: time.Now}
	}
	ses, sendgrid := providertest.NewSES(t, access), providertest.NewSendGrid(t, "SG.key")
	mailgun, postmark := providertest.NewMailgun(t, "key-1", "mg.example.com"), providertest.NewPostmark(t, "token", "broadcast")
	a, err := provider.NewSES(provider.SESOptions{API: api(ses), Region: access.Region, AccessKeyID: access.ID, SecretKey: key(access.Secret)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := provider.NewSendGrid(provider.SendGridOptions{API: api(sendgrid), Key: key("SG.key")})
	if err != nil {
		t.Fatal(err)
	}
	c := provider.NewMailgun(provider.MailgunOptions{API: api(mailgun), Key: key("key-1"), Domain: "mg.example.com"})
	d := provider.NewPostmark(provider.PostmarkOptions{API: api(postmark), Token: key("token"), Stream: "broadcast"})
	return map[string]account{"ses": {a, a, ses, "suppressed"}, "sendgrid": {b, b, sendgrid, "unsubscribes"}, "mailgun": {c, c, mailgun, "unsubscribes"}, "postmark": {d, d, postmark, "suppressions"}}
}

// read reads every list of a provider.
func read(t *testing.T, a account, since time.Time) (items []string, unreadable int) {
	t.Helper()
	for _, list := range a.lister.Lists() {
		cursor := ""
		for {
			page, err := a.lister.List(t.Context(), list, since, cursor)
			if err != nil {
				t.Fatalf("%s: %v", list, err)
			}
			unreadable += page.Unreadable
			for _, e := range page.Items {
				if !e.Listed || e.ID == "" || e.Occurred.IsZero() {
					t.Errorf("%s: %+v", list, e)
				}
				s := e.What.String() + " " + e.Address
				if e.Group != "" {
					s += " group:" + e.Group
				}
				items = append(items, s)
			}
			if cursor = page.Next; cursor == "" {
				break
			}
		}
	}
	slices.Sort(items)
	return slices.Compact(items), unreadable
}

func TestLists(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	want := map[string][]string{}
	all := accounts(t, true)
	all["ses"].server.Add(providertest.Listed{List: "suppressed", Address: "a@example.com", Created: at, Reason: "BOUNCE"}, providertest.Listed{List: "suppressed", Address: "b@example.com", Created: at, Reason: "COMPLAINT"})
	want["ses"] = []string{"complaint b@example.com", "hard-bounce a@example.com"}
	all["sendgrid"].server.Add(providertest.Listed{List: "unsubscribes", Address: "a@example.com", Created: at}, providertest.Listed{List: "groups", Address: "b@example.com", Created: at, Group: 10},
		providertest.Listed{List: "spam_reports", Address: "c@example.com", Created: at}, providertest.Listed{List: "bounces", Address: "d@example.com", Created: at, Reason: "550 5.1.1 no such user"},
		providertest.Listed{List: "bounces", Address: "e@example.com", Created: at, Reason: "550 5.7.1 blocked"}, providertest.Listed{List: "invalid_emails", Address: "f@example.com", Created: at})
	want["sendgrid"] = []string{"complaint c@example.com", "hard-bounce d@example.com", "hard-bounce f@example.com", "unsubscribe a@example.com", "unsubscribe b@example.com group:10"}
	all["mailgun"].server.Add(providertest.Listed{List: "unsubscribes", Address: "a@example.com", Created: at, Tags: []string{"*"}}, providertest.Listed{List: "unsubscribes", Address: "b@example.com", Created: at, Tags: []string{"news"}},
		providertest.Listed{List: "complaints", Address: "c@example.com", Created: at}, providertest.Listed{List: "bounces", Address: "d@example.com", Created: at, Reason: "550 5.1.1 No such user"})
	want["mailgun"] = []string{"complaint c@example.com", "hard-bounce d@example.com", "unsubscribe a@example.com", "unsubscribe b@example.com group:news"}
	all["postmark"].server.Add(providertest.Listed{List: "suppressions", Address: "a@example.com", Created: at, Reason: "ManualSuppression", Origin: "Recipient"},
		providertest.Listed{List: "suppressions", Address: "b@example.com", Created: at, Reason: "SpamComplaint", Origin: "Recipient"}, providertest.Listed{List: "suppressions", Address: "c@example.com", Created: at, Reason: "HardBounce", Origin: "Recipient"})
	want["postmark"] = []string{"complaint b@example.com", "hard-bounce c@example.com", "unsubscribe a@example.com"}
	for name, a := range all {
		got, unreadable := read(t, a, time.Time{})
		if !slices.Equal(got, want[name]) || unreadable != 0 {
			t.Errorf("%s: %q, %d unreadable, want %q", name, got, unreadable, want[name])
		}
		if got, _ := read(t, a, at.Add(48*time.Hour)); name != "mailgun" && name != "sendgrid" && len(got) != 0 || name == "sendgrid" && len(got) != 1 {
			t.Errorf("%s, what is new: %q", name, got) // SendGrid's groups have no such filter
		}
	}
}

// Long lists come in pages, and each address on them once.
func TestLongLists(t *testing.T) {
	for name, a := range accounts(t, true) {
		list, n := a.pushed, 1203
		a.server.PageSize = 100
		for i := range n {
			a.server.Add(providertest.Listed{List: list, Address: fmt.Sprintf("p%04d@example.com", i), Created: time.Unix(1764000000+int64(i), 0), Reason: map[string]string{"ses": "COMPLAINT", "postmark": "ManualSuppression"}[name], Origin: "Recipient"})
		}
		if got, _ := read(t, a, time.Time{}); len(got) != n {
			t.Errorf("%s: %d of %d", name, len(got), n)
		}
	}
}

func TestSuppress(t *testing.T) {
	for name, a := range accounts(t, true) {
		var addresses []string
		for i := range min(a.suppresser.SuppressAtOnce(), 60) {
			addresses = append(addresses, fmt.Sprintf("p%02d+tag@example.com", i))
		}
		for range 2 { // again changes nothing
			if refused, err := a.suppresser.Suppress(t.Context(), addresses); err != nil || len(refused) != 0 {
				t.Errorf("%s: %v, refused %v", name, err, refused)
			}
		}
		if got := a.server.Addresses(a.pushed); !slices.Equal(got, addresses) {
			t.Errorf("%s: %q", name, got)
		}
	}
	postmark := accounts(t, true)["postmark"]
	if refused, err := postmark.suppresser.Suppress(t.Context(), []string{"a@example.com", "refused@example.com"}); err != nil || !slices.Equal(refused, []int{1}) {
		t.Errorf("%v, %v", refused, err)
	}
	var fault *provider.APIError
	if refused, err := accounts(t, true)["ses"].suppresser.Suppress(t.Context(), []string{"no address"}); !errors.As(err, &fault) || fault.Status != http.StatusBadRequest {
		t.Errorf("what is no address to SES: %v, %v", refused, err)
	}
}

// Faults of an API are told by their status, with the wait that it asks for, and without what it said.
func TestFaults(t *testing.T) {
	for name, a := range accounts(t, false) {
		_, err := a.lister.List(t.Context(), a.lister.Lists()[0], time.Time{}, "")
		var fault *provider.APIError
		if !errors.As(err, &fault) || fault.Status != http.StatusUnauthorized || fault.Temporary() {
			t.Errorf("%s, a wrong key: %v", name, err)
		}
	}
	for name, a := range accounts(t, true) {
		for _, c := range []struct {
			after  string
			status int
			wait   time.Duration
		}{{"7", 429, 7 * time.Second}, {time.Now().Add(time.Minute).UTC().Format(http.TimeFormat), 503, 58 * time.Second}, {"999999999", 429, time.Hour}, {"-5", 429, 0}, {"soon", 500, 0}} {
			for what, call := range map[string]func() error{
				"list": func() error {
					_, err := a.lister.List(t.Context(), a.lister.Lists()[0], time.Time{}, "")
					return err
				},
				"suppress": func() error {
					_, err := a.suppresser.Suppress(t.Context(), []string{"person@example.com"})
					return err
				},
			} {
				a.server.Fail(c.after, c.status)
				err := call()
				var fault *provider.APIError
				if !errors.As(err, &fault) || fault.Status != c.status || !fault.Temporary() || fault.After < c.wait || fault.After > c.wait+2*time.Second || strings.Contains(err.Error(), "person") {
					t.Errorf("%s, %s, %d: %v", name, what, c.status, err)
				}
			}
		}
		a.server.Fail("", 302)
		if _, err := a.lister.List(t.Context(), a.lister.Lists()[0], time.Time{}, ""); err == nil {
			t.Errorf("%s follows a redirect", name)
		}
	}
}

// Answers of other forms are errors, never empty lists.
func TestOtherAnswers(t *testing.T) {
	for _, body := range []string{``, `<html>`, `7`, `"x"`, `{"items":7,"Suppressions":7,"SuppressedDestinationSummaries":7}`, `{"items":[7],"Suppressions":[7],"SuppressedDestinationSummaries":[7]}`, `[{"email":`} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Write([]byte(body))
		}))
		api := provider.API{URL: s.URL}
		ses, _ := provider.NewSES(provider.SESOptions{API: api, Region: "eu-west-1", AccessKeyID: "x", SecretKey: "x"})
		sendgrid, _ := provider.NewSendGrid(provider.SendGridOptions{API: api, Key: "x"})
		for name, l := range map[string]provider.Lister{"ses": ses, "sendgrid": sendgrid, "mailgun": provider.NewMailgun(provider.MailgunOptions{API: api, Key: "x", Domain: "d.example"}),
			"postmark": provider.NewPostmark(provider.PostmarkOptions{API: api, Token: "x", Stream: "s"})} {
			if page, err := l.List(t.Context(), l.Lists()[0], time.Time{}, ""); err == nil {
				t.Errorf("%s takes %q for a page: %+v", name, body, page)
			}
		}
		s.Close()
	}
}

// A link to the next page that leads elsewhere is not followed: the key would go with it.
func TestNextPageElsewhere(t *testing.T) {
	a := accounts(t, true)["mailgun"]
	for _, cursor := range []string{"http://example.net/v3/mg.example.com/unsubscribes?page=1", "https" + strings.TrimPrefix(a.server.URL, "http") + "/x", strings.Replace(a.server.URL, "://", "://u@", 1) + "/x", "::"} {
		a.server.Calls()
		if _, err := a.lister.List(t.Context(), "unsubscribes", time.Time{}, cursor); err == nil || len(a.server.Calls()) != 0 {
			t.Errorf("%s: %v", cursor, err)
		}
	}
}
