package ledger_test

import (
	"strings"
	"testing"

	"optout/service/ledger"
)

// What links are made of is checked alike for the installation and for a sender: nothing that cannot stand in a header field
// (RFC 2369 section 2), that would not fit its line (RFC 5322 section 2.1.1), or that a server would answer with a redirect.
func TestBasesOfLinks(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("a", 200)
	for name, c := range map[string]struct {
		url, domain string
		ok          bool
	}{
		"https":           {"https://mail.example.com", "unsub.example.com", true},
		"under a path":    {"https://example.com/mail/", "", true},
		"plaintext":       {"http://127.0.0.1:7080", "", true},
		"no scheme":       {"mail.example.com", "", false},
		"two slashes":     {"https://example.com//", "", false},
		"a dot":           {"https://example.com/./mail", "", false},
		"two dots":        {"https://example.com/a/../mail", "", false},
		"a comma":         {"https://example.com/a,b", "", false},
		"not ASCII":       {"https://exämple.com", "", false},
		"a line break":    {"https://example.com/\r\nBcc:", "", false},
		"too long":        {"https://example.com/" + long, "", false},
		"mail, not ASCII": {"https://example.com", "exämple.com", false},
		"mail, too long":  {"https://example.com", long + ".example.com", false},
		"mail, a bracket": {"https://example.com", "example.com>", false},
	} {
		if err := ledger.CheckDefaults(c.url, c.domain); (err == nil) != c.ok {
			t.Errorf("%s as the default: %v", name, err)
		}
		if _, err := w.UpdateSender(w.ctx(), w.admin(), "", ledger.SenderSettings{PublicURL: &c.url, MailDomain: &c.domain}); (err == nil) != c.ok {
			t.Errorf("%s for a sender: %v", name, err)
		}
	}
	if err := ledger.CheckDefaults("", ""); err == nil {
		t.Error("no public URL at all is taken as the default")
	}
}

// Mail in takes ASCII addresses (RFC 6531 is not offered), so an address of the organisation in another spelling would never get any.
func TestAddressesOfTheOrganisation(t *testing.T) {
	w := newWorld(t)
	for addr, ok := range map[string]bool{"help@example.com": true, "Help@xn--exmple-cua.com": true, "": true, "help@exämple.com": false, "hülfe@example.com": false, "Help <help@example.com>": false} {
		for field, s := range map[string]ledger.SenderSettings{"contact": {ContactAddress: &addr}, "forward": {ForwardAddress: &addr}} {
			if _, err := w.UpdateSender(w.ctx(), w.admin(), "", s); (err == nil) != ok {
				t.Errorf("%s %q: %v", field, addr, err)
			}
		}
	}
}
