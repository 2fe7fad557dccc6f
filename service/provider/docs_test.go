package provider_test

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"optout/service/provider"
)

// The generic request that the documentation shows is genuine, with the secret of these tests.
func TestDocumentedRequest(t *testing.T) {
	text, err := os.ReadFile("../../docs/providers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "POST /hooks/generic/crm\n")
	if !found {
		t.Fatal("the documentation shows no request")
	}
	fields, rest, _ := strings.Cut(after, "\n\n")
	h := http.Header{}
	for _, m := range regexp.MustCompile(`(?m)^    (webhook-[a-z]+): (\S+)`).FindAllStringSubmatch(fields, -1) {
		h.Set(m[1], m[2])
	}
	body, _, _ := strings.Cut(strings.TrimPrefix(rest, "    "), "\n")
	p, err := provider.NewGeneric(provider.GenericOptions{Secrets: []string{secret}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Receive(t.Context(), &provider.Request{Header: h, Body: []byte(body), At: time.Unix(1795600801, 0)})
	if err != nil || len(d.Events) != 1 || d.Events[0].Address != "ada@example.com" {
		t.Errorf("%v, %+v, of %v and %q", err, d, h, body)
	}
}
