package link

import (
	"slices"
	"strings"
	"testing"
)

// A token is found wherever mail carries one of ours, and however mail has broken its lines; nothing else has its form.
func TestFindTokens(t *testing.T) {
	r := testRing(t)
	one := r.Seal(sample)
	second := sample
	second.Mailing++
	two := r.Seal(second)
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"header":              {"List-Unsubscribe: <https://mail.example.com/u/" + one + ">,\r\n <mailto:u-" + one + "@unsub.example.com>", []string{one}},
		"two":                 {"<https://x.example/u/" + one + "> <mailto:u-" + two + "@x.example>", []string{one, two}},
		"upper case":          {"TO: U-" + strings.ToUpper(one) + "@X.EXAMPLE", []string{one}},
		"alone":               {"b-" + one, []string{one}},
		"begins a line":       {"write to\nu-" + one + "@x.example", []string{one}},
		"begins a soft line":  {"write to=20=\nu-" + one + "@x.example", []string{one}},
		"folded":              {"X: <https://x.example/u/" + one[:20] + "\r\n " + one[20:40] + "\n\t\t" + one[40:] + ">", []string{one}},
		"folded in the mark":  {"X: <https://x.example/\r\n u/" + one + ">", []string{one}},
		"quoted-printable":    {"href=3D\"https://x.example/u/" + one[:7] + "=\r\n" + one[7:] + "=\r\n\"", []string{one}},
		"soft in the mark":    {"https://x.example/=\nu=\n/" + one, []string{one}},
		"quoted by a person":  {"> > https://x.example/u/" + one[:33] + "\n> > " + one[33:] + "\n> > regards", []string{one}},
		"ends a sentence":     {"see https://x.example/u/" + one + ".\n", []string{one}},
		"a line follows":      {"see https://x.example/u/" + one + "\nand more", []string{one}},
		"with a query":        {"https://x.example/u/" + one + "?a=b", []string{one}},
		"twice":               {"/u/" + one + " /u/" + strings.ToUpper(one), []string{one}},
		"behind another mark": {"/u/u-" + one, []string{one}},
		"a character more":    {"/u/" + one + "a", nil},
		"a digit more":        {"/u/" + one + "9", nil},
		"a character less":    {"/u/" + one[1:], nil},
		"not the alphabet":    {"/u/" + one[:30] + "1" + one[31:], nil},
		"no mark":             {one, nil},
		"a word's hyphen":     {"menu-" + one, nil},
		"no letter":           {"/1/" + one, nil},
		"spaces in it":        {"/u/" + one[:30] + " " + one[30:], nil},
		"nothing":             {"", nil},
	} {
		got := FindTokens([]byte(c.text), 9)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		for _, s := range got {
			if _, err := r.Open(s, Unsubscribe); err != nil {
				t.Errorf("%s: %q does not open", name, s)
			}
		}
	}
	for limit, want := range map[int]int{-1: 0, 0: 0, 1: 1, 2: 2, 3: 2} {
		if got := FindTokens([]byte("/u/"+one+" /u/"+two), limit); len(got) != want {
			t.Errorf("limit %d: %d tokens", limit, len(got))
		}
	}
}

// Whatever a text holds, what is found has a token's form and is there once; and a token put into the text, lines broken
// anywhere, is found first.
func FuzzFindTokens(f *testing.F) {
	token := testRing(f).Seal(sample)
	f.Add([]byte("/u/"+token), uint8(1), uint8(0))
	f.Add([]byte("u-"+token+"=\r\n b-"+token), uint8(2), uint8(7))
	f.Add([]byte(strings.Repeat("/u/a-\n > =\n", 9)), uint8(3), uint8(60))
	f.Fuzz(func(t *testing.T, text []byte, limit, at uint8) {
		found := FindTokens(text, int(limit))
		if len(found) > int(limit) {
			t.Fatalf("%d tokens, at most %d", len(found), limit)
		}
		for i, s := range found {
			if len(s) != Length || strings.Trim(s, spelling) != "" || slices.Contains(found[:i], s) {
				t.Fatalf("%q", found)
			}
		}
		n := int(at) % Length
		for _, br := range []string{"", "\r\n ", "\n\t", "=\r\n", "\n> "} {
			planted := slices.Concat([]byte(" <https://x.example/u/"+token[:n]+br+token[n:]+"> "), text)
			if got := FindTokens(planted, 1); len(got) != 1 || got[0] != token {
				t.Fatalf("%q behind %d characters: %q", br, n, got)
			}
		}
	})
}
