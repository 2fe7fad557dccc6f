package address_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"optout/service/address"
)

// TestRedacted: an address or a secret must not get into a log by being printed.
func TestRedacted(t *testing.T) {
	a := *mustParse(t, "secret@example.com")
	g := address.Generation{ID: 3, Secret: [32]byte([]byte("secretsecretsecretsecretsecretse")), Rules: 1}
	nested := struct {
		A  address.Address
		P  *address.Address
		G  address.Generation
		As []address.Address
	}{a, &a, g, []address.Address{a}}
	var out bytes.Buffer
	for _, v := range []any{a, &a, g, &g, nested, &nested} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c", "%U", "%o"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "v", v)
	}
	fmt.Fprintln(&out, a.String(), a.LogValue(), g.LogValue())
	s := out.String()
	for _, leak := range []string{"secret@", "example.com", "secretsecret", "736563726574", "[115 101", "73 65 63", "115, 101", "0x73, 0x65"} {
		if i := strings.Index(s, leak); i >= 0 {
			t.Errorf("%q got out: %.200q", leak, s[max(0, i-100):])
		}
	}
	if !strings.Contains(s, "[address]") || !strings.Contains(s, "address key 3") {
		t.Errorf("nothing tells that there is an address or a generation: %.200q", s)
	}
}

// TestErrorsHoldNoAddress: errors go into logs and to callers' screens.
func TestErrorsHoldNoAddress(t *testing.T) {
	const secret = "geheim"
	for _, s := range []string{
		secret, secret + "@", "@" + secret, secret + " " + secret, "Jo <" + secret + "@" + secret + ".com>", secret + "@" + secret,
		secret + "@" + secret + "_.com", secret + "@xn--" + secret + "-.com", secret + "@" + secret + "..com", `"` + secret, secret + "\u200b@x.com",
		secret + "@[" + secret + "]", secret + "@ü-" + secret + "-.com", strings.Repeat(secret, 50),
	} {
		_, err := address.Parse(s)
		if err == nil {
			t.Errorf("Parse(%q) gives no error", s)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("Parse(%q): %v", s, err)
		}
		var e *address.Error
		if !errors.As(err, &e) || err.Error() != e.Problem+": "+e.Remedy {
			t.Errorf("Parse(%q): %v does not tell problem and remedy", s, err)
		}
	}
}

// TestAllocations: the send check must not feed the garbage collector.
func TestAllocations(t *testing.T) {
	k := keyring(t, address.MaxGenerations)
	for _, s := range []string{
		"jo@example.com",
		"Jo.Average+News@MX.Example.COM",
		"j.o.average@googlemail.com",
		strings.Repeat("a", 64) + "@" + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + ".example",
	} {
		var a address.Address
		var keys address.Keys
		length, lower := 0, s == strings.ToLower(s)
		allocs := testing.AllocsPerRun(200, func() {
			var err error
			if a, err = address.Parse(s); err != nil {
				t.Error(err)
			}
			k.Keys(1, &a, &keys)
			length += len(a.Given()) + len(a.DomainBytes())
			if lower {
				length += len(a.Domain())
			}
		})
		if allocs != 0 || length == 0 {
			t.Errorf("%s: %v allocations", s, allocs)
		}
	}
}

func TestZeroAddress(t *testing.T) {
	var a address.Address
	if a.Given()+a.ConsentForm()+a.Canonical()+a.Domain()+string(a.DomainBytes()) != "" {
		t.Error("the zero address has something to say")
	}
}

func TestKeyString(t *testing.T) {
	if got := (address.Key{0: 0x0a, 15: 0xff}).String(); got != "0a0000000000000000000000000000ff" {
		t.Error(got)
	}
	if (address.Key{15: 1}).IsZero() || !(address.Key{}).IsZero() {
		t.Error("IsZero is wrong")
	}
}
