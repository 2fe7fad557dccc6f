package client_test

import (
	"os"
	"strings"
	"testing"

	"optout/client"
)

// docs/lint.md lists the rules as they are. With OPTOUT_WRITE_DOCS=1 the test writes the list.
func TestLintDocumentation(t *testing.T) {
	const file, begin, end = "../docs/lint.md", "<!-- rules -->\n", "<!-- end of rules -->\n"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	listed, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no list between %q and %q", file, begin, end)
	}
	var table strings.Builder
	table.WriteString("| rule | level | what it demands | what to do | who says so |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range client.LintRules() {
		row := strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;")
		table.WriteString("| `" + r.ID + "` | " + r.Level.String() + " | " + row.Replace(r.Description) + " | " + row.Replace(r.Remedy) + " | " + row.Replace(r.Reference) + " |\n")
	}
	if listed == table.String() {
		return
	}
	if os.Getenv("OPTOUT_WRITE_DOCS") != "1" {
		t.Fatalf("%s does not list the rules as they are: run this test with OPTOUT_WRITE_DOCS=1", file)
	}
	if err := os.WriteFile(file, []byte(before+begin+table.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
