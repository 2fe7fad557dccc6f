package mailtest

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TokenServer is a small OAuth 2.0 server for one client: it gives tokens (RFC 6749 sections 4.4 and 6) and vouches for them (RFC 7662),
// both over plaintext on loopback.
type TokenServer struct {
	// URL is its token endpoint.
	URL string
	// ClientID is the client's name, and Scope what it must ask for.
	ClientID, Scope string

	t       testing.TB
	mu      sync.Mutex
	user    string
	secret  string
	refresh string
	rotates bool
	seconds int
	tokens  map[string]bool
	given   int
	handler http.HandlerFunc
	server  *httptest.Server
}

// StartTokenServer starts a server that ends with the test. Its tokens are for DovecotUser, and said to hold for an hour; they are believed
// until Revoke.
func StartTokenServer(t testing.TB) *TokenServer {
	t.Helper()
	s := &TokenServer{ClientID: "optout-client", Scope: "mail", t: t, user: DovecotUser, seconds: 3600, secret: rand.Text(), tokens: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		answer := s.handler
		s.mu.Unlock()
		if answer == nil {
			answer = s.Answer
		}
		answer(w, r)
	})
	mux.HandleFunc("POST /introspect", s.introspect)
	s.server = httptest.NewServer(mux)
	t.Cleanup(s.server.Close)
	s.URL = s.server.URL + "/token"
	return s
}

// Dovecot is what a Dovecot's configuration needs to believe the server's tokens, by mechanisms such as "oauthbearer xoauth2 plain".
func (s *TokenServer) Dovecot(mechanisms string) string {
	s.t.Helper()
	dir, err := os.MkdirTemp("", "oauth2") // not TempDir: Dovecot's own users read it
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "oauth2.conf")
	text := "introspection_mode = post\nintrospection_url = " + s.server.URL + "/introspect\nforce_introspection = yes\n" +
		"username_attribute = username\nactive_attribute = active\nactive_value = true\n"
	if err := os.Chmod(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return "auth_mechanisms = " + mechanisms + "\npassdb {\n  driver = oauth2\n  mechanisms = oauthbearer xoauth2\n  args = " + path + "\n}"
}

// File writes an OAuth file for the client, for --imap; with a refresh token if there is one.
func (s *TokenServer) File(t testing.TB) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	fields := map[string]string{"token_url": s.URL, "client_id": s.ClientID, "client_secret": s.secret, "scope": s.Scope}
	if s.refresh != "" {
		fields["refresh_token"] = s.refresh
	}
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "oauth.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Close ends the server before the test does.
func (s *TokenServer) Close() { s.server.Close() }

// Secret is the client's secret.
func (s *TokenServer) Secret() string { s.mu.Lock(); defer s.mu.Unlock(); return s.secret }

// Refresh is the refresh token that holds; there is none before the first call. With rotate each holds once, and another comes with the
// token; one that was used up has all of them revoked.
func (s *TokenServer) Refresh(rotate bool) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refresh == "" {
		s.refresh = rand.Text()
	}
	s.rotates = rotate
	return s.refresh
}

// Reauthorise makes a new refresh token and returns it; the old one no longer holds.
func (s *TokenServer) Reauthorise() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh = rand.Text()
	return s.refresh
}

// Lives sets for how many seconds tokens are said to hold that are given from now on; 0 says nothing of it.
func (s *TokenServer) Lives(seconds int) { s.mu.Lock(); defer s.mu.Unlock(); s.seconds = seconds }

// For sets the user for whom tokens are.
func (s *TokenServer) For(user string) { s.mu.Lock(); defer s.mu.Unlock(); s.user = user }

// Revoke revokes all tokens given so far.
func (s *TokenServer) Revoke() { s.mu.Lock(); defer s.mu.Unlock(); clear(s.tokens) }

// Given is how many tokens it has given.
func (s *TokenServer) Given() int { s.mu.Lock(); defer s.mu.Unlock(); return s.given }

// Instead has token requests answered by another handler, which may call Answer; nil ends that.
func (s *TokenServer) Instead(h http.HandlerFunc) { s.mu.Lock(); defer s.mu.Unlock(); s.handler = h }

// Answer answers a token request.
func (s *TokenServer) Answer(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refuse := func(status int, code string) {
		answer(w, status, map[string]any{"error": code, "error_description": "AADSTS7000215: " + s.user + " sent " + r.PostFormValue("client_secret")})
	}
	switch {
	case r.PostFormValue("client_id") != s.ClientID || r.PostFormValue("client_secret") != s.secret:
		refuse(http.StatusUnauthorized, "invalid_client")
		return
	case r.PostFormValue("scope") != s.Scope:
		refuse(http.StatusBadRequest, "invalid_scope")
		return
	}
	fields := map[string]any{"access_token": rand.Text(), "token_type": "Bearer"}
	if s.seconds != 0 {
		fields["expires_in"] = s.seconds
	}
	switch grant := r.PostFormValue("grant_type"); {
	case grant == "client_credentials" && s.refresh == "":
	case grant == "refresh_token" && s.refresh != "" && r.PostFormValue("refresh_token") == s.refresh:
		if s.rotates {
			s.refresh = rand.Text()
			fields["refresh_token"] = s.refresh
		}
	default:
		if s.rotates {
			s.refresh = rand.Text() // of which nobody is told
		}
		refuse(http.StatusBadRequest, "invalid_grant")
		return
	}
	s.tokens[fields["access_token"].(string)] = true
	s.given++
	answer(w, http.StatusOK, fields)
}

// introspect says whether a token holds.
func (s *TokenServer) introspect(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tokens[r.PostFormValue("token")] {
		answer(w, http.StatusOK, map[string]any{"active": false})
		return
	}
	answer(w, http.StatusOK, map[string]any{"active": true, "username": s.user})
}

func answer(w http.ResponseWriter, status int, fields map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(fields)
}
