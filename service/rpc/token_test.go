package rpc

import (
	"strings"
	"testing"
)

func FuzzTokenOf(f *testing.F) {
	const token = "ceaqaaaaamaaaaatkqbagaydaoffqobhhbaeqcbmgqhdaqcqcyblqnciybja"
	for _, s := range []string{"", token, "https://mail.example.com/mail/u/" + token + "/?x=1", "mailto:u-" + token + "@unsub.example.com?subject=unsubscribe", "u-" + token + "@x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := tokenOf(s)
		if !strings.Contains(s, got) || strings.ContainsAny(got, "/@?") {
			t.Errorf("%q is taken out of %q", got, s)
		}
	})
}

func TestTokenOf(t *testing.T) {
	const token = "ceaqaaaaamaaaaatkqbagaydaoffqobhhbaeqcbmgqhdaqcqcyblqnciybja"
	for _, s := range []string{token, "https://mail.example.com/u/" + token, "https://mail.example.com/mail/u/" + token + "/?utm=x", "http://127.0.0.1:7080/u/" + token,
		"mailto:u-" + token + "@unsub.example.com?subject=unsubscribe", "mailto:u-" + token + "@unsub.example.com", "u-" + token + "@unsub.example.com", "u-" + token} {
		if got := tokenOf(s); got != token {
			t.Errorf("%s: %q", s, got)
		}
	}
}
