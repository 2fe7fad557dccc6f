package milter

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// Whatever comes, reading a netstring ends, and takes only the one spelling of what it returns.
func FuzzNetstring(f *testing.F) {
	f.Add([]byte("5:hello,"))
	f.Add([]byte("0:,"))
	f.Add([]byte("05:hello,"))
	f.Add([]byte("99999:"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := readNetstring(bufio.NewReader(bytes.NewReader(b)))
		if err == nil && !bytes.HasPrefix(b, fmt.Appendf(nil, "%d:%s,", len(s), s)) {
			t.Fatalf("%q from %q", s, b)
		}
	})
}

// Whatever a map of topics holds, reading it ends, and every rule it gives was a line of it.
func FuzzTopics(f *testing.F) {
	f.Add("sasl:shop receipts\nsender:@x.example news # why\nclient:10.0.0.0/8 news\n")
	f.Add("client: news\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := readRules(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, m := range []map[string]string{r.sasl, r.sender} {
			for k, v := range m {
				if k == "" || v == "" || !strings.Contains(text, v) {
					t.Fatalf("%q %q", k, v)
				}
			}
		}
	})
}
