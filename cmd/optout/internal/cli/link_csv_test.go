package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A campaign's list goes in and comes out with links; who may not be mailed is left out, kept apart, or kept without a link.
func TestLinksInList(t *testing.T) {
	dir := t.TempDir()
	in := install(t, filepath.Join(dir, "data"), "--public-url", "https://mail.example.com", "--mail-domain", "unsub.example.com")
	in.do(t, exitOK, "topic", "create", "newsletter")
	in.do(t, exitOK, "unsubscribe", "bob@example.com")
	link := func(code int, stdin string, args ...string) (string, string) {
		t.Helper()
		got, stdout, stderr := runWith(t, in.env, stdin, append([]string{"link", "--topic", "newsletter", "-"}, args...)...)
		if got != code {
			t.Fatalf("exit %d, want %d: %s%s", got, code, stdout, stderr)
		}
		return stdout, stderr
	}
	out, _ := link(exitOK, "\xef\xbb\xbfName;E-Mail\r\n\"Ann; the \"\"first\"\"\";ann@example.com\r\nJörg;jörg@example.com\r\n")
	lines := strings.Split(out, "\n")
	if lines[0] != "Name;E-Mail;unsubscribe_url;list_unsubscribe;list_unsubscribe_post;unsubscribe_mailto" || len(lines) != 4 ||
		!strings.HasPrefix(lines[1], `"Ann; the ""first""";ann@example.com;https://mail.example.com/u/`) || !strings.Contains(lines[1], ";List-Unsubscribe=One-Click;mailto:u-") {
		t.Errorf("%q", lines)
	}
	list := "email,city\nann@example.com,Rome\nbob@example.com,Oslo\nnix,Bern\nshort\n"
	apart := filepath.Join(dir, "refused.csv")
	out, stderr := link(exitNo, list, "--refused", apart)
	if strings.Contains(out, "bob") || strings.Contains(out, "nix") || strings.Count(out, "\n") != 2 || !strings.Contains(stderr, "4 rows: 1 with links, 1 may not be mailed, 2 could not be read") || !strings.Contains(stderr, "line 5: it has 1 columns") {
		t.Errorf("%q\n%s", out, stderr)
	}
	b, err := os.ReadFile(apart)
	if err != nil || !strings.HasPrefix(string(b), "email,city,optout_reason\nbob@example.com,Oslo,opted out of ALL") {
		t.Errorf("%q %v", b, err)
	}
	out, _ = link(exitNo, list, "--keep-refused")
	if !strings.Contains(out, "bob@example.com,Oslo,DO_NOT_SEND,,,,\n") || !strings.Contains(out, "ann@example.com,Rome,SEND,https://") {
		t.Errorf("%q", out)
	}
	out, _ = link(exitNo, list, "--json")
	if !strings.Contains(out, `"address":"bob@example.com"`) || !strings.Contains(out, `"verdict":"DO_NOT_SEND"`) || strings.Count(out, "\n") != 3 {
		t.Errorf("%q", out)
	}
	out, _ = link(exitOK, "who,city\nann@example.com,Rome\n", "--column", "Who")
	if !strings.Contains(out, "ann@example.com,Rome,https://") {
		t.Errorf("%q", out)
	}
	for stdin, want := range map[string]string{"": "it is empty", "a,b\nann@example.com,x\n": "--column", "email,unsubscribe_url\nann@example.com,x\n": "already"} {
		if _, stderr := link(exitError, stdin); !strings.Contains(stderr, want) {
			t.Errorf("%q: %s", stdin, stderr)
		}
	}
	// More than one call's worth, in order.
	var many strings.Builder
	many.WriteString("email\n")
	for i := range 2500 {
		fmt.Fprintf(&many, "p%d@example.com\n", i)
	}
	out, _ = link(exitOK, many.String())
	for i, l := range strings.Split(strings.TrimSpace(out), "\n")[1:] {
		if !strings.HasPrefix(l, fmt.Sprintf("p%d@example.com,https://", i)) {
			t.Fatalf("row %d: %s", i, l)
		}
	}
	in.do(t, exitOK, "topic", "create", "law", "--class", "required", "--ground", "law", "--justification", "The law demands it.")
	if _, _, stderr := runWith(t, in.env, list, "link", "--topic", "law", "-"); !strings.Contains(stderr, "stopped by no link") {
		t.Errorf("a required topic: %s", stderr)
	}
}
