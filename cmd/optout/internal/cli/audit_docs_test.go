package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"optout/service/ledgertest"
)

// What docs/audit.md tells others to run verifies a real receipt, and refuses one that was altered.
func TestReceiptsAreVerifiedByOthers(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	in := install(t, filepath.Join(t.TempDir(), "data"))
	in.do(t, exitOK, "topic", "create", "orders", "--class", "transactional")
	good := sent(t, in, "ann@example.com").receipt("ann@example.com")
	bad := good[:40] + map[bool]string{true: "B", false: "A"}[good[40] == 'A'] + good[41:]
	dir := t.TempDir()
	keys := in.object(t, exitOK, "key", "receipt")["keys"].([]any)[0].(map[string]any)
	for name, content := range map[string]string{"keys.txt": in.do(t, exitOK, "key", "receipt"), "key.pem": keys["pem"].(string),
		"verify.py": string(regexp.MustCompile("(?s)```python\n(.*?)```").FindSubmatch(text)[1]),
		"verify.sh": "set -e\n" + string(regexp.MustCompile("(?s)```\n(printf .*?)```").FindSubmatch(text)[1])} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		have []string // a command that succeeds where the example can run
		run  []string
		says string
	}{
		"Python":  {[]string{"python3", "-c", "import cryptography"}, []string{"python3", "verify.py", "keys.txt"}, "sender "},
		"openssl": {[]string{"openssl", "version"}, []string{"bash", "verify.sh"}, "Signature Verified Successfully"},
	} {
		t.Run(name, func(t *testing.T) {
			ledgertest.Require(t, "the example needs that this succeeds: "+strings.Join(c.have, " "), exec.Command(c.have[0], c.have[1:]...).Run() == nil)
			for receipt, want := range map[string]bool{good: true, good[:60] + "\r\n " + good[60:]: true, bad: false} {
				cmd := exec.Command(c.run[0], append(c.run[1:], receipt)...)
				cmd.Dir, cmd.Env = dir, append(os.Environ(), "RECEIPT="+receipt)
				out, err := cmd.CombinedOutput()
				if (err == nil) != want || want && !strings.Contains(string(out), c.says) {
					t.Errorf("genuine %v: %v, %s", want, err, out)
				}
			}
		})
	}
}
