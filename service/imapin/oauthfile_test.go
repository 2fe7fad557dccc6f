package imapin_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"optout/service/imapin"
)

// What is wrong with an OAuth file is said when the service starts: which field, what to do, and no value of it.
func TestOAuthFileFaults(t *testing.T) {
	const ok = `{"token_url":"https://login.example.net/token","client_id":"id-hunter2","client_secret":"secret-hunter2"}`
	for _, tc := range []struct{ text, want string }{
		{ok, ""},
		{strings.Replace(ok, `"client_secret"`, `"refresh_token"`, 1), ""}, // a public client
		{strings.Replace(ok, "https://login.example.net", "http://127.0.0.1:8080", 1), ""},
		{strings.Replace(ok, "https://login.example.net", "http://[::1]:8080", 1), ""},
		{"", "it must be a JSON object"},
		{`"hunter2"`, "it must be a JSON object"},
		{`[` + ok + `]`, "it must be a JSON object"},
		{strings.Replace(ok, "client_id", "Client_ID", 1), `it has a field "Client_ID": there are token_url, client_id`},
		{strings.Replace(ok, "client_secret", "password", 1), `it has a field "password": there are`},
		{strings.Replace(ok, "client_secret", "client_id", 1), "it gives client_id more than once"},
		{strings.Replace(ok, `"secret-hunter2"`, "123456", 1), "client_secret must be a text in quotes"},
		{strings.Replace(ok, `"secret-hunter2"`, "null", 1), "client_secret must be a text in quotes"},
		{strings.Replace(ok, `"secret-hunter2"`, `["hunter2"]`, 1), "client_secret must be a text in quotes"},
		{strings.Replace(ok, `secret-hunter2`, "", 1), "client_secret is empty: fill it in, or leave it out"},
		{strings.Replace(ok, `secret-hunter2`, `hunter2\n`, 1), "client_secret holds a control character"},
		{strings.Replace(ok, `,"client_secret"`, "\n\n"+`"client_secret"`, 1), "it is no valid JSON in line 3"},
		{strings.Replace(ok, `secret-hunter2"`, `secret-hunter2`, 1), "it is no valid JSON in line 1"},
		{strings.TrimSuffix(ok, "}"), "it is no valid JSON in line 1"},
		{ok + ok, "something follows the JSON object"},
		{ok + " hunter2", "something follows the JSON object"},
		{ok + "\n\n", ""},
		{ok[:20] + "\xff" + ok[20:], "it is not in UTF-8"},
		{ok + strings.Repeat(" ", 64<<10), "it is too large"},
		{`{"client_id":"hunter2","client_secret":"hunter2"}`, "token_url is missing: give the address"},
		{`{"token_url":"https://login.example.net/token","client_secret":"hunter2"}`, "client_id is missing: give the id"},
		{`{"token_url":"https://login.example.net/token","client_id":"hunter2"}`, "client_secret is missing: without a refresh_token"},
		{strings.Replace(ok, "https://login.example.net", "http://login.example.net", 1), "token_url must be an https URL"},
		{strings.Replace(ok, "https://login.example.net", "login.example.net", 1), "token_url must be an https URL"},
		{strings.Replace(ok, "https://", "https://me:hunter2@", 1), "token_url must be an https URL"},
		{strings.Replace(ok, "/token", "/token#hunter2", 1), "token_url must be an https URL"},
		{strings.Replace(ok, "https://login.example.net", "https://login.example.net:x", 1), "token_url must be an https URL"},
	} {
		file := filepath.Join(t.TempDir(), "oauth.json")
		if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := open("imaps://user@host/?oauth-file=" + file)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", tc.text, err)
		case tc.want == "":
		case err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "oauth-file: "+file+": "):
			t.Errorf("%s: %v, want %q", tc.text, err, tc.want)
		case strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "123456"):
			t.Errorf("%s: the error tells a value: %v", tc.text, err)
		}
	}

	file := filepath.Join(t.TempDir(), "oauth.json")
	for _, tc := range []struct {
		mode os.FileMode
		want string
	}{{0o600, ""}, {0o400, ""}, {0o640, "chmod 0600"}, {0o604, "chmod 0600"}, {0o620, "chmod 0600"}} {
		os.Remove(file)
		if err := os.WriteFile(file, []byte(ok), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, tc.mode); err != nil {
			t.Fatal(err)
		}
		if err := open("imaps://user@host/?oauth-file=" + file); (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("mode %#o: %v", tc.mode, err)
		}
	}
	for query, want := range map[string]string{
		"?oauth-file=" + t.TempDir():                     "is no file",
		"?oauth-file=/nonexistent":                       "no such file",
		"?oauth-file=" + file + "&password-file=" + file: "not both",
		"?oauth-file=" + file + "&oauth-file=" + file:    "more than once",
		"?oauth-file=":       "give ?password-file=FILE or ?oauth-file=FILE",
		"?oauthfile=" + file: "there are password-file, oauth-file and sender",
		"?sender=default":    "give ?password-file=FILE or ?oauth-file=FILE",
		"?oauth-file=" + file + "&sender=other&password-file=" + file: "not both",
	} {
		if err := open("imaps://user@host/" + query); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
}

func open(mailbox string) error {
	_, err := imapin.New(imapin.Options{Mailbox: mailbox, Take: func(context.Context, []byte) error { return nil }})
	return err
}

// What is taken for an OAuth file is written as it was read.
func FuzzOAuthFile(f *testing.F) {
	f.Add([]byte(`{"token_url":"https://oauth2.googleapis.com/token","client_id":"1-x.apps.googleusercontent.com","client_secret":"s","refresh_token":"1//0x"}`))
	f.Add([]byte(`{"token_url":"http://127.0.0.1/token?a=<b>&c","client_id":"\u00e4\ud83d\ude00 \\\"","client_secret":"{}","scope":"a b"}` + "\n"))
	f.Add([]byte(`{"token_url":"https://h","client_id":"\ud800","client_secret":1e999}`))
	f.Add([]byte(`{"scope":{"scope":[[[[`))
	f.Add([]byte("{,}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		first, again, err := imapin.RewriteOAuthFile(text)
		if err == nil && first != again {
			t.Errorf("read %s, written and read again %s", first, again)
		}
	})
}
