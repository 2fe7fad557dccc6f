package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Our own link passes every check, also when it is proved by asking, and the message that carries it is judged.
func TestDoctorPassesOurs(t *testing.T) {
	dir := t.TempDir()
	cert, key, _, err := makeCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	in := install(t, filepath.Join(dir, "data"), "--tls-cert", cert, "--tls-key", key, "--public-url", "https://localhost", "--mail-domain", "unsub.example.com")
	in.env = append(in.env, "OPTOUT_TLS_CA="+cert)
	in.do(t, exitOK, "topic", "create", "newsletter")
	url := strings.Replace(strings.SplitN(in.do(t, exitOK, "link", "--topic", "newsletter", "ann@example.com"), "\n", 2)[0], "https://localhost", "https://"+in.addr.HTTP, 1)
	asked := filepath.Join(dir, "asked")
	// The command of the test's own: mailable until the service says otherwise, asked over the API as JSON.
	check := "echo x >> " + asked + "; curl -sS --cacert " + cert + " -H \"Authorization: Bearer $(cat " + in.data + "/admin.key)\" -d '{\"topic\":\"newsletter\",\"address\":\"ann@example.com\"}' https://" + in.addr.HTTP + "/optout.v1.SuppressionService/CheckSend | grep -q VERDICT_SEND"
	out := in.do(t, exitOK, "doctor", url, "--ca", cert, "--look-only", "--check-cmd", check)
	demand(t, out, `pass +get-acts +GET changed nothing \(proved by asking\)`, `skipped +post `, `not pressed`, ` 0 failed`)
	out = in.do(t, exitOK, "doctor", url, "--ca", cert, "--yes", "--check-cmd", check)
	demand(t, out, `pass +post-effect +the person may not be mailed any more \(proved by asking\)`, `warn +tls +the certificate ends`, ` 1 warnings, 0 failed, 0 skipped`) // the demo's certificate lives a day
	if b, err := os.ReadFile(asked); err != nil || len(b) < 4 {
		t.Errorf("nobody was asked: %v", err)
	}
	eml := filepath.Join(dir, "message.eml")
	if err := os.WriteFile(eml, []byte("From: a@example.com\nList-Unsubscribe: <"+url+">, <mailto:u-x@unsub.example.com>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n\nhi\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out = in.do(t, exitNo, "doctor", "--eml", eml, "--ca", cert, "--look-only", "--json")
	var r struct {
		Pressed, Passed bool
		Checks          []struct{ ID, Level string }
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Passed || r.Pressed {
		t.Fatalf("%v %s", err, out)
	}
	for _, c := range r.Checks {
		if (c.Level == "fail") != (c.ID == "message-dkim") {
			t.Errorf("%+v", c)
		}
	}
	for _, bad := range [][]string{{"doctor"}, {"doctor", "mailto:x@example.com"}, {"doctor", url, "--check-cmd", "exit 3"}, {"doctor", "--eml", "/nonexistent"}, {"doctor", "https://127.0.0.1:1/u/x"}, {"doctor", url, "--ca", eml}} {
		if code, stdout, stderr := runWith(t, in.env, "", bad...); code != exitError {
			t.Errorf("%v: exit %d %s%s", bad, code, stdout, stderr)
		}
	}
}
