package imapin_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"optout/service/imapin"
	"optout/service/mailtest"
)

// oauth is a reader whose server believes the tokens of a token server.
type oauth struct {
	*reader
	tokens *mailtest.TokenServer
	file   string
	log    strings.Builder
	clock  time.Duration // how much later it is
	lost   int
}

// newOAuth starts both servers, and writes the file for the grant by client credentials, or by a refresh token if there is one.
func newOAuth(t *testing.T, mechanisms, refresh string, settings ...string) *oauth {
	t.Helper()
	tokens := mailtest.StartTokenServer(t)
	if refresh != "" {
		tokens.Refresh(refresh == "rotates")
	}
	return &oauth{tokens: tokens, file: tokens.File(t), reader: newReader(t, append(settings, tokens.Dovecot(mechanisms))...)}
}

// read is what the file says.
func (x *oauth) read() map[string]string {
	x.t.Helper()
	text, err := os.ReadFile(x.file)
	if err != nil {
		x.t.Fatal(err)
	}
	fields := map[string]string{}
	if err := json.Unmarshal(text, &fields); err != nil {
		x.t.Fatal(err)
	}
	return fields
}

func (x *oauth) write(fields map[string]string) {
	x.t.Helper()
	text, err := json.Marshal(fields)
	if err != nil {
		x.t.Fatal(err)
	}
	if err := os.WriteFile(x.file, text, 0o600); err != nil {
		x.t.Fatal(err)
	}
}

// poll runs a poller of INBOX.
func (x *oauth) poll(change ...func(*imapin.Options)) (stop func()) {
	x.t.Helper()
	return x.run("INBOX", append([]func(*imapin.Options){func(o *imapin.Options) {
		o.Mailbox = x.d.OAuthURL(mailtest.DovecotUser, x.file)
		o.Log = slog.New(slog.NewTextHandler(locked{&x.mu, &x.log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.Now = func() time.Time { x.mu.Lock(); defer x.mu.Unlock(); return time.Now().Add(x.clock) }
		o.Observe = func(outcome string) {
			x.mu.Lock()
			defer x.mu.Unlock()
			if outcome == imapin.Disconnected {
				x.lost++
			}
		}
	}}, change...)...)
}

// logged is the log.
func (x *oauth) logged() string { x.mu.Lock(); defer x.mu.Unlock(); return x.log.String() }

// said is how often the log holds something.
func (x *oauth) said(text string) int {
	return strings.Count(x.logged(), text)
}

// losses is how often the mailbox was reported as disconnected.
func (x *oauth) losses() int { x.mu.Lock(); defer x.mu.Unlock(); return x.lost }

// discreet checks that the log holds nothing that it should not.
func (x *oauth) discreet() {
	x.t.Helper()
	secrets := []string{x.tokens.Secret(), mailtest.DovecotUser, "example.com"}
	if s := x.read()["refresh_token"]; s != "" {
		secrets = append(secrets, s)
	}
	for _, s := range secrets {
		if x.said(s) != 0 {
			x.t.Errorf("the log tells %q:\n%s", s, x.logged())
		}
	}
}

// Mail is taken by the standard's mechanism, and by the providers' own where the server has no other; by both grants.
func TestTokens(t *testing.T) {
	for _, tc := range []struct {
		name, mechanisms, refresh, method string
		startTLS                          bool
	}{
		{"OAUTHBEARER, client credentials", "plain oauthbearer xoauth2", "", "method=OAUTHBEARER", false},
		{"OAUTHBEARER, refresh token, STARTTLS", "plain oauthbearer xoauth2", "stays", "method=OAUTHBEARER", true},
		{"XOAUTH2, client credentials", "plain xoauth2", "", "method=XOAUTH2", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := newOAuth(t, tc.mechanisms, tc.refresh)
			c := x.owner("INBOX")
			put(t, c, "INBOX", "hello", "x")
			before := x.read()
			x.poll(func(o *imapin.Options) {
				if tc.startTLS {
					o.Mailbox = strings.Replace(strings.Replace(o.Mailbox, "imaps://", "imap://", 1), x.d.Addr, x.d.Plain, 1)
				}
			})
			x.until("the mail", func() bool { return x.count("hello") == 1 })
			x.until("marked", func() bool { n, _ := flagged(t, c, "$OptoutDone"); return n == 1 })
			if log := x.d.Log(); !strings.Contains(log, tc.method) {
				t.Errorf("Dovecot knows of no %s:\n%s", tc.method, log)
			}
			if n := x.tokens.Given(); n != 1 || x.losses() != 0 {
				t.Errorf("%d tokens, %d losses", n, x.losses())
			}
			if after := x.read(); after["refresh_token"] != before["refresh_token"] {
				t.Error("the file was changed")
			}
			x.discreet()
		})
	}
}

// later moves the clock to a second before a token given now is no longer used.
func (x *oauth) later() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.clock += 58*time.Minute - time.Second
}

// A session ends with its token and another goes on with the next one, without a loss; one that is connected anew by then too.
func TestTokenExpires(t *testing.T) {
	x := newOAuth(t, "plain oauthbearer xoauth2", "")
	c := x.owner("INBOX")
	x.poll()
	for i, subject := range []string{"first", "second", "third"} {
		put(t, c, "INBOX", subject, "x")
		x.until(subject, func() bool { return x.count(subject) == 1 })
		if n := x.tokens.Given(); n != i+1 {
			t.Fatalf("%s: %d tokens were asked for", subject, n)
		}
		if i == 2 {
			break
		}
		x.tokens.Revoke() // the server would take it no longer
		x.later()
		put(t, c, "INBOX", "wakes the poller", "x")
		x.until("the next token", func() bool { return x.tokens.Given() == i+2 })
	}
	if x.losses() != 0 {
		t.Errorf("the mailbox was reported lost %d times:\n%s", x.losses(), x.logged())
	}
	x.d.Stop()
	x.until("the loss", func() bool { return x.losses() > 0 })
	x.tokens.Revoke()
	x.later()
	time.Sleep(time.Second) // by then it is no longer used
	x.d.Start()
	put(t, x.owner("INBOX"), "INBOX", "fourth", "x")
	x.until("after the loss", func() bool { return x.count("fourth") == 1 })
	if x.said("no longer takes") != 0 {
		t.Error("an expired token was sent")
	}
}

// A token that lives very shortly does not end the session over and over, and one of which nothing is said is used until it is refused.
func TestTokenLivesShortlyOrForEver(t *testing.T) {
	x := newOAuth(t, "plain oauthbearer xoauth2", "")
	x.tokens.Lives(1)
	stop := x.poll()
	next := func(subject string) {
		t.Helper()
		put(t, x.owner("INBOX"), "INBOX", subject, "x")
		x.until(subject, func() bool { return x.count(subject) == 1 })
	}
	next("first")
	time.Sleep(time.Second)
	next("second")
	if n := x.tokens.Given(); n != 1 || x.losses() != 0 {
		t.Errorf("%d tokens, %d losses", n, x.losses())
	}
	stop()
	x.tokens.Lives(0)
	x.poll()
	next("third")
	x.mu.Lock()
	x.clock += 1000 * time.Hour
	x.mu.Unlock()
	x.d.Kick()
	next("fourth")
	if n := x.tokens.Given(); n != 2 {
		t.Errorf("%d tokens", n)
	}
}

// A token that was revoked is replaced by another at once; one that is refused when it is new is a failure.
func TestTokenRevoked(t *testing.T) {
	for _, mechanisms := range []string{"plain oauthbearer", "plain xoauth2"} {
		t.Run(mechanisms, func(t *testing.T) {
			x := newOAuth(t, mechanisms, "")
			x.poll()
			put(t, x.owner("INBOX"), "INBOX", "first", "x")
			x.until("the first", func() bool { return x.count("first") == 1 })
			x.tokens.Revoke()
			x.d.Kick()
			put(t, x.owner("INBOX"), "INBOX", "second", "x")
			x.until("the second", func() bool { return x.count("second") == 1 })
			if n := x.tokens.Given(); n != 2 || x.said("refused the token") != 0 {
				t.Errorf("%d tokens were asked for:\n%s", n, x.logged())
			}
			x.tokens.For("somebody-else@example.com")
			x.tokens.Revoke()
			x.d.Kick()
			x.until("the refusal", func() bool {
				return x.said("the server refused the token (the server answered NO [AUTHENTICATIONFAILED])") > 1
			})
			if x.said("lets this client into this mailbox") == 0 {
				t.Errorf("the log does not help:\n%s", x.logged())
			}
			x.tokens.For(mailtest.DovecotUser)
			put(t, x.owner("INBOX"), "INBOX", "third", "x")
			x.until("the third", func() bool { return x.count("third") == 1 })
			x.discreet()
		})
	}
}

// What the token server refuses is said in words that help, without its own, and a new secret in the file is found.
func TestWrongClientSecret(t *testing.T) {
	x := newOAuth(t, "plain oauthbearer xoauth2", "")
	put(t, x.owner("INBOX"), "INBOX", "hello", "x")
	right := x.read()
	x.write(map[string]string{"token_url": x.tokens.URL, "client_id": x.tokens.ClientID, "client_secret": "hunter2", "scope": x.tokens.Scope})
	x.poll()
	x.until("the refusal", func() bool { return x.losses() > 1 })
	if x.said("401 invalid_client: client_id or client_secret is wrong, or the secret has expired (AADSTS7000215)") == 0 || x.said("see to the OAuth file") == 0 || x.said("hunter2") != 0 {
		t.Errorf("the log says:\n%s", x.logged())
	}
	x.write(right)
	x.until("the right secret", func() bool { return x.count("hello") == 1 })
	x.discreet()
}

// A server that offers no way to send a token is sent none.
func TestNoMechanismForTokens(t *testing.T) {
	x := newOAuth(t, "plain", "")
	x.poll()
	x.until("the fault", func() bool { return x.said("offers neither AUTH=OAUTHBEARER nor AUTH=XOAUTH2") > 0 })
	if x.losses() == 0 || x.said("or give password-file") == 0 {
		t.Errorf("the log says:\n%s", x.logged())
	}
}

// A user's name may hold what the mechanism uses itself.
func TestUserIsEscaped(t *testing.T) {
	x := newOAuth(t, "plain oauthbearer", "", "auth_username_chars =")
	user := "a=2C,b@example.com"
	x.tokens.For(user)
	put(t, x.owner("INBOX"), "INBOX", "hello", "x")
	x.poll(func(o *imapin.Options) { o.Mailbox = x.d.OAuthURL(user, x.file) })
	x.until("the mail", func() bool { return x.count("hello") == 1 })
}

// A refresh token that the provider has changed is in the file, and the next poller goes on with it. Where it cannot be written, the
// poller goes on with it, says so, and writes it once it can.
func TestRefreshTokenRotates(t *testing.T) {
	x := newOAuth(t, "plain oauthbearer xoauth2", "rotates")
	first := x.read()
	link := x.file
	x.file += ".real"
	if err := os.Rename(link, x.file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(x.file, link); err != nil {
		t.Fatal(err)
	}
	through := func(o *imapin.Options) { o.Mailbox = x.d.OAuthURL(mailtest.DovecotUser, link) }
	stop := x.poll(through)
	next := func(subject string) {
		t.Helper()
		put(t, x.owner("INBOX"), "INBOX", subject, "x")
		x.until(subject, func() bool { return x.count(subject) == 1 })
	}
	again := func(subject string) { // with another token
		t.Helper()
		x.tokens.Revoke()
		x.d.Kick()
		next(subject)
	}
	next("first")
	second := x.read()
	if second["refresh_token"] == first["refresh_token"] || second["refresh_token"] != x.tokens.Refresh(true) {
		t.Fatal("the new refresh token is not in the file")
	}
	second["refresh_token"] = first["refresh_token"]
	for name, value := range first {
		if second[name] != value {
			t.Errorf("%s has become %q", name, second[name])
		}
	}
	info, err := os.Lstat(x.file)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link has become something else")
	}
	stop()
	stop = x.poll(through)
	next("by another poller")

	if err := os.MkdirAll(filepath.Join(x.file+".new", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	stale := x.read()["refresh_token"]
	again("kept in memory")
	again("kept again")
	if x.read()["refresh_token"] != stale || x.said("kept in memory") != 2 {
		t.Errorf("the log says:\n%s", x.logged())
	}
	if err := os.RemoveAll(x.file + ".new"); err != nil {
		t.Fatal(err)
	}
	again("written at last")
	if x.read()["refresh_token"] != x.tokens.Refresh(true) {
		t.Error("the refresh token is not in the file")
	}
	stop()
	x.poll(through)
	next("by a third poller")
	if x.said("invalid_grant") != 0 {
		t.Errorf("the log says:\n%s", x.logged())
	}
	x.discreet()
}

// A refresh token that somebody puts into the file goes before one that is kept in memory, or comes at that moment.
func TestRefreshTokenOfTheFileIsNewer(t *testing.T) {
	x := newOAuth(t, "plain oauthbearer xoauth2", "rotates")
	if err := os.MkdirAll(filepath.Join(x.file+".new", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	x.poll()
	put(t, x.owner("INBOX"), "INBOX", "first", "x")
	x.until("the first", func() bool { return x.count("first") == 1 })
	x.until("the warning", func() bool { return x.said("kept in memory") == 1 })
	fields := x.read()
	fields["refresh_token"] = x.tokens.Reauthorise()
	x.write(fields)
	x.tokens.Revoke()
	x.d.Kick()
	put(t, x.owner("INBOX"), "INBOX", "second", "x")
	x.until("the second", func() bool { return x.count("second") == 1 })
	if err := os.RemoveAll(x.file + ".new"); err != nil {
		t.Fatal(err)
	}
	var meanwhile sync.Once
	x.tokens.Instead(func(w http.ResponseWriter, r *http.Request) {
		x.tokens.Answer(w, r)
		meanwhile.Do(func() { // the answer is on its way only when this function ends
			fields["refresh_token"] = x.tokens.Reauthorise()
			x.write(fields)
		})
	})
	for _, subject := range []string{"third", "fourth"} {
		x.tokens.Revoke()
		x.d.Kick()
		put(t, x.owner("INBOX"), "INBOX", subject, "x")
		x.until(subject, func() bool { return x.count(subject) == 1 })
	}
	if x.said("invalid_grant") != 0 {
		t.Errorf("the log says:\n%s", x.logged())
	}
}

// Pollers that share a file come to the token server one after another, or the second would bring a refresh token that is used up.
func TestPollersShareARefreshToken(t *testing.T) {
	x := newOAuth(t, "plain oauthbearer xoauth2", "rotates")
	x.tokens.Instead(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond) // in which the others would come
		x.tokens.Answer(w, r)
	})
	for range 3 {
		x.poll()
	}
	x.until("three tokens", func() bool { return x.tokens.Given() == 3 })
	x.until("all watch", func() bool { return x.said("the mailbox is watched") == 3 })
	if x.losses() != 0 {
		t.Errorf("the log says:\n%s", x.logged())
	}
}
