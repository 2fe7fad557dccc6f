package mailauth

import (
	"context"
	"strings"

	"blitiri.com.ar/go/spf"
)

// Results of SPF that something here depends on.
const (
	spfPass      = string(spf.Pass)
	spfTempError = string(spf.TempError)
)

// spfFinding is what SPF says of the return path.
type spfFinding struct {
	// result is as RFC 7208 section 2.6 names it; "" when SPF was not evaluated.
	result string
	// domain is the one that was asked about.
	domain string
}

func (f spfFinding) evaluated() bool { return f.result != "" }

// checkSPF evaluates SPF for the return path, or for the null path the client's name. The library keeps to the limits of RFC 7208
// section 4.6.4: ten look-ups that count, two that find nothing.
func checkSPF(ctx context.Context, n *names, e Envelope) spfFinding {
	if !e.Remote.IsValid() {
		return spfFinding{}
	}
	local, host := "postmaster", e.Helo
	if e.MailFrom != "" {
		// As the library does: the domain that it asks about must be the one that is compared. A second @ leaves no name.
		local, host, _ = strings.Cut(e.MailFrom, "@")
	}
	domain := domainName(host)
	if domain == "" || len(local) > 64 {
		return spfFinding{result: string(spf.None)}
	}
	result, _ := spf.CheckHostWithSender(e.Remote.Unmap().WithZone("").AsSlice(), e.Helo, local+"@"+domain, spf.WithContext(ctx), spf.WithResolver(n))
	return spfFinding{string(result), domain}
}
