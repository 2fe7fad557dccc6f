package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"optout/client"
)

const letter = `From: letters@example.com
Date: Mon, 02 Mar 2026 10:00:00 +0000
Message-ID: <abc@example.com>
Subject: News
List-Unsubscribe: <https://mail.example.com/u/token>,
 <mailto:u-token@unsub.example.com>
List-Unsubscribe-Post: List-Unsubscribe=One-Click

Good news.

Unsubscribe: https://mail.example.com/u/token

Example Letters, 1 Example Street, Springfield
`

func TestLint(t *testing.T) {
	file := filepath.Join(t.TempDir(), "letter.eml")
	if err := os.WriteFile(file, []byte(letter), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args  []string
		stdin string
		code  int
		want  string
	}{
		{[]string{"--unsigned", file}, "", exitOK, "it breaks no rule\n"},
		{[]string{"--unsigned", "-"}, letter, exitOK, "it breaks no rule\n"},
		{[]string{file}, "", exitNo, "error    dkim-missing: there is no DKIM-Signature\n"},
		{[]string{file}, "", exitNo, "1 error, 0 warnings\n"},
		{[]string{"--topic-class", "transactional", file}, "", exitOK, "0 errors, 1 warning\n"},
		{[]string{"--topic-class", "transactional", "--strict", file}, "", exitNo, "0 errors, 1 warning\n"},
		{[]string{"--topic-class", "required", "--unsigned", file}, "", exitNo, "list-unsubscribe-unwanted"},
		{[]string{"--unsigned", "--postal-address", "1 Example Street\nSpringfield", file}, "", exitOK, "no rule"},
		{[]string{"--unsigned", "--postal-address", "2 Other Street", file}, "", exitNo, "postal-address"},
		{[]string{"--unsigned", "--json", file}, "", exitOK, `{"ok":true,"errors":0,"warnings":0,"findings":[]}` + "\n"},
		{[]string{"--json", file}, "", exitNo, `{"ok":false,"errors":1,"warnings":0,"findings":[{"rule":"dkim-missing","level":"error",`},
		{[]string{file + ".not"}, "", exitError, "FILE.eml"},
		{[]string{filepath.Dir(file)}, "", exitError, "could not be read"},
		{nil, "", exitError, "FILE.eml: it is missing"},
		{[]string{"--rules", file}, "", exitError, "--rules goes alone"},
		{[]string{"--topic-class", "loud", file}, "", exitError, "it must be one of: commercial, transactional, required"},
	} {
		code, stdout, stderr := runWith(t, nil, c.stdin, append([]string{"lint"}, c.args...)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("%v: exit %d, %q %q; want %d, %q", c.args, code, stdout, stderr, c.code, c.want)
		}
	}
}

// Every rule is listed, for people and for programs.
func TestLintRules(t *testing.T) {
	_, text, _ := runWith(t, nil, "", "lint", "--rules")
	code, lines, _ := runWith(t, nil, "", "lint", "--rules", "--json")
	rules := client.LintRules()
	if got := strings.Split(strings.TrimSpace(lines), "\n"); code != exitOK || len(got) != len(rules) {
		t.Fatalf("exit %d, %d lines for %d rules", code, len(got), len(rules))
	} else {
		for i, r := range rules {
			var x struct{ Rule, Level, Description, Remedy, Reference string }
			if err := json.Unmarshal([]byte(got[i]), &x); err != nil || x.Rule != r.ID || x.Level != r.Level.String() || x.Description != r.Description || x.Remedy == "" || x.Reference == "" {
				t.Errorf("%s, %v", got[i], err)
			}
			if !strings.Contains(text, r.ID+" ("+r.Level.String()+")\n  "+r.Description+"\n") {
				t.Errorf("%s is not in the list", r.ID)
			}
		}
	}
}
