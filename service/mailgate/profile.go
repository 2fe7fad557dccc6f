package mailgate

import (
	"fmt"
	"slices"
	"strings"

	"optout/service/outgoing"
)

// Profile says how a kind of upstream treats messages: who signs, which fields it writes itself, whether it keeps the envelope's
// sender, and which of its features would spoil what the gate has made.
type Profile struct {
	Name string
	// Signs: the gate signs with its DKIM keys. The provider may sign too; what it signs is not what RFC 8058 section 4 asks for.
	Signs bool
	// KeepsEnvelope: the return path that the gate gives reaches the recipient's server.
	KeepsEnvelope bool
	// Omit are the fields that the provider rewrites, so that the gate's signature must not cover them.
	Omit []string
	// Adds are fields that tell the provider to leave the message alone; it takes them off.
	Adds []outgoing.Field
	// MustBeOff says which of the provider's features must be off, and where.
	MustBeOff string
}

var profiles = []Profile{
	{Name: "direct", Signs: true, KeepsEnvelope: true,
		MustBeOff: "nothing, for a mail server of your own that leaves header and body alone; if it signs with DKIM, its signature must cover List-Unsubscribe and List-Unsubscribe-Post"},
	{Name: "ses", Signs: true, Omit: []string{"Message-ID", "Date"},
		MustBeOff: "subscription management (no X-SES-LIST-MANAGEMENT-OPTIONS), and click and open tracking of the configuration set: both change the message; SES writes Message-ID, Date and the return path itself"},
	{Name: "sendgrid", Signs: false,
		Adds: []outgoing.Field{{Name: "X-SMTPAPI", Value: `{"filters":{"subscriptiontrack":{"settings":{"enable":0}},` + "\r\n" +
			` "clicktrack":{"settings":{"enable":0}},"opentrack":{"settings":{"enable":0}},` + "\r\n" +
			` "footer":{"settings":{"enable":0}},"bypass_list_management":{"settings":{"enable":0}}}}`}},
		MustBeOff: "subscription tracking, click tracking, open tracking and the footer (Settings, Tracking); SendGrid signs with the authenticated domain"},
	{Name: "postmark", Signs: false,
		MustBeOff: "Postmark's own unsubscribe handling of the broadcast stream (set it to custom), and link and open tracking; Postmark signs with the domain's DKIM key"},
	{Name: "mailgun", Signs: false,
		Adds:      []outgoing.Field{{Name: "X-Mailgun-Track", Value: "no"}},
		MustBeOff: "unsubscribe tracking, click tracking and open tracking of the domain; Mailgun signs with the domain's DKIM key"},
	{Name: "m365", Signs: true,
		MustBeOff: "mail flow rules that add disclaimers or headers to what the connector takes, and Safe Links rewriting of outgoing mail; Exchange Online's own signature does not cover the list fields, and the envelope's sender must be the mailbox that authenticates"},
}

// ProfileOf returns the profile of a name; empty means "direct".
func ProfileOf(name string) (Profile, error) {
	if name == "" {
		name = "direct"
	}
	i := slices.IndexFunc(profiles, func(p Profile) bool { return p.Name == name })
	if i < 0 {
		return Profile{}, fmt.Errorf("--gate-upstream-profile %q: use %s", name, strings.Join(ProfileNames(), ", "))
	}
	return profiles[i], nil
}

// ProfileNames lists the profiles.
func ProfileNames() []string {
	var names []string
	for _, p := range profiles {
		names = append(names, p.Name)
	}
	return names
}
