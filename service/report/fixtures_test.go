package report

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"testing"
)

// fixtures are messages written for these tests after the forms that the systems document, with what each says.
func fixtures(t testing.TB) (names []string, raw [][]byte, want []string) {
	t.Helper()
	table, err := os.ReadFile("testdata/fixtures.txt")
	if err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(bytes.NewReader(table)); s.Scan(); {
		name, said, ok := strings.Cut(s.Text(), " ")
		if !ok || name == "#" {
			continue
		}
		b, err := os.ReadFile("testdata/" + name + ".eml")
		if err != nil {
			t.Fatal(err)
		}
		names, raw, want = append(names, name), append(raw, b), append(want, said)
	}
	return names, raw, want
}

// summary is a report in the words of testdata/fixtures.txt.
func summary(r *Report) string {
	orNone := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	switch r.Kind {
	case Complaint:
		suppresses, found := "no", "none"
		if r.Feedback.Suppresses() {
			suppresses = "yes"
		}
		if len(r.Tokens) == 1 && r.Tokens[0] == token {
			found = "token"
		}
		return strings.Join([]string{"complaint", r.Feedback.Type, suppresses, orNone(strings.Join(r.Feedback.Recipients, ",")), found}, " ")
	case Bounce:
		format := "words"
		if r.Standard {
			format = "standard"
		}
		var all []string
		for _, x := range r.Recipients {
			all = append(all, x.Address()+" "+x.Action+" "+orNone(x.Status)+" "+x.Class.String())
		}
		return "bounce " + format + " " + strings.Join(all, "; ")
	case Automatic:
		return "automatic"
	}
	return "other"
}

// Mail as the systems of the world write it, with either line end, is taken for what it is.
func TestFixtures(t *testing.T) {
	names, raw, want := fixtures(t)
	if len(names) < 50 {
		t.Errorf("%d fixtures", len(names))
	}
	for i, name := range names {
		for _, b := range [][]byte{raw[i], bytes.ReplaceAll(raw[i], []byte("\n"), []byte("\r\n"))} {
			r := Parse(b)
			if got := summary(r); got != want[i] {
				t.Errorf("%s:\n got %s\nwant %s", name, got, want[i])
			}
			if r.Kind == Bounce && bytes.Contains(b, []byte("<20261123.1@shop.example.com>\n")) && len(r.Tokens) != 1 {
				t.Errorf("%s: tokens %q", name, r.Tokens)
			}
		}
	}
}
