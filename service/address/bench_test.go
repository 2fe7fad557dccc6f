package address_test

import (
	"testing"

	"optout/service/address"
)

func BenchmarkParse(b *testing.B) {
	for _, c := range []struct{ name, in string }{
		{"ascii", "jo.average@mx.example.com"},
		{"quoted", `"jo average"@example.com`},
		{"idn", "jo.average@bücher.example"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := address.Parse(c.in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkKeys(b *testing.B) {
	for _, c := range []struct {
		name, in    string
		generations int
	}{
		{"ascii", "jo.average@mx.example.com", 1},
		{"ascii/4 generations", "jo.average@mx.example.com", 4},
		{"gmail", "jo.h.average@gmail.com", 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			k := keyring(b, c.generations)
			a, err := address.Parse(c.in)
			if err != nil {
				b.Fatal(err)
			}
			var out address.Keys
			b.ReportAllocs()
			for b.Loop() {
				k.Keys(1, &a, &out)
			}
		})
	}
}

func BenchmarkParseAndKeys(b *testing.B) {
	k := keyring(b, 1)
	var out address.Keys
	b.ReportAllocs()
	for b.Loop() {
		a, err := address.Parse("jo.average@mx.example.com")
		if err != nil {
			b.Fatal(err)
		}
		k.Keys(1, &a, &out)
	}
}
