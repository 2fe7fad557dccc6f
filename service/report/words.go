package report

import "strings"

// unknownUser are words for a mailbox or domain that does not exist, for servers that give no status, or one too general.
var unknownUser = []string{"user unknown", "unknown user", "unknown or illegal user", "unknown recipient", "unknown mailbox", "unknown address", "unknown e-mail", "unknown email", "addressee unknown", "recipient unknown", "user not known", "no such user", "no such mailbox",
	"no such recipient", "no such address", "no such person", "no such local user", "no such domain", "no such account", "user not found", "mailbox not found", "mail-box not found", "recipient not found", "account not found", "address not found",
	"no mailbox found", "no mailbox here", "no mail box available for this user", "no account by that name", "does not exist", "doesn't exist", "do not have an account", "doesn't have a", "does not have a final email delivery point",
	"is not a known user", "not a valid user", "not a valid mailbox", "not a valid recipient", "not a known", "is not an active address", "is not a registered", "invalid recipient", "invalid mailbox", "invalid user", "invalid address", "invalid final delivery",
	"bad_recipient", "bad recipient", "bad destination mailbox", "illegal user", "nonexistent", "non-existent", "recipient name is not recognized", "not listed in", "no longer on server", "no longer available", "no longer valid", "no longer employed",
	"no longer with", "not our customer", "mailbox disabled", "mailbox is disabled", "account is disabled", "tried to reach is disabled", "account has been disabled", "disabled or discontinued", "deactivated", "account inactive", "account is inactive",
	"account closed", "account has been closed", "mailbox currently suspended", "account suspended", "mailbox is frozen", "unrouteable address", "unroutable address", "recipnotfound", "host unknown", "unknown host", "domain not found", "domain name not found", "host not found", "domain does not exist",
	"name or service not known", "null mx", "nxdomain", "does not accept mail", "requested action not taken: mailbox unavailable", "did not exactly match", "n'existe pas", "no existe", "existiert nicht", "empfänger unbekannt", "unbekannter empfänger", "benutzer unbekannt", "adresse unbekannt", "ist unbekannt", "nie istnieje", "non esiste", "bestaat niet",
	"リストにありません", "には見つかりません"}

// ofSender are words for what is wrong with the sender or its server, whatever else they say: that its mailbox, its domain or its
// host is unknown, too.
var ofSender = []string{"sender address", "sender verify", "sender verification", "sender rejected", "invalid sender", "bad sender", "unknown sender", "sender unknown", "sender domain", "domain of sender", "sender's domain",
	"envelope sender", "after mail from", "reply to mail from", "from header", "header from", "helo command", "client host", "reverse dns", "rdns", "ptr record", "your hostname", "does not accept mail from",
	"dns mx", "dns ptr", "dns a/aaaa"} // GMX: "mailbox unavailable … invalid DNS MX or A/AAAA resource record"

// unlessTemporary are words that take back the worst: what is tried again may still exist.
var unlessTemporary = []string{"try again", "temporary", "temporarily"}

// full are words for a mailbox that takes no more now.
var full = []string{"over quota", "overquota", "over disk quota", "quota exceed", "quota exceded", "exceeded storage", "exceeding their quota", "exceeding the quota", "disk quota", "disc quota", "quota violation", "exceed mailbox quota", "exceeds mailbox quota", "mailbox full", "mailbox is full",
	"mailfolder is full", "inbox is full", "inbox full", "account is full", "mailbox exceeds allowed size", "mailbox size limit exceeded", "exceeded its disk space", "exceeded its storage", "out of storage", "out of space", "insufficient system storage",
	"insufficient disk", "storage is full", "too many messages on the server", "too much mail stored", "exceeded the local limit", "mail box space not enough", "receiving mail at a rate", "receiving mail too quickly", "due to a full mailbox", "voll"}

// blocked are words for mail that is refused for its sender, its content or its size.
var blocked = []string{"spam", "sender policy framework", "spf", "dkim", "dmarc", "policy", "policies", "blocked", "blacklist", "black list", "blocklist", "block list", "rbl", "reputation", "unsolicited", "authentic", "relaying denied", "relay access denied", "relay denied", "relay not allowed", "relaying not allowed", "relaying is not allowed", "relaying prohibited", "relaying is prohibited", "do not relay", "unable to relay",
	"as a relay", "allowed rcpthosts", "not permitted", "not allowed to", "content reject", "content filter", "virus", "malware", "rate limit", "message too large", "message too big", "message size", "size limit exceed", "maximum incoming message size", "maximum inbound message size",
	"5.7.", "greylist", "banned", "not accepting mail from", "requires confirmation", "recipient preferences", "remote domains not supported", "mail size limit", "not pre-approved", "mass mailer", "bulk"}

// lost are words for mail that found no way: routes, loops and servers that do not answer (RFC 3463's 4.4 and 5.4).
var lost = []string{"too many hops", "message looping", "mail loop", "malformed name server reply", "malformed or unexpected name server reply", "could not find a gateway", "connection refused", "connection timed out", "is not responding", "domain is not reachable",
	"retry timeout exceeded", "retry time not reached", "failing for a long time"} // Exim, with 5.0.0

// notices are types of Diagnostic-Code that some services give to what is no failure: they ask the sender to prove a person.
var notices = []string{"x-boxbe-notice"}

// says reports whether words, in lower case, hold one of the phrases.
func says(words string, phrases []string) bool {
	for _, p := range phrases {
		if strings.Contains(words, p) {
			return true
		}
	}
	return false
}

// folded is a text for comparison: in lower case, each run of white space one space, at most limit octets of it looked at.
func folded(b []byte, limit int) string {
	return strings.ToLower(strings.Join(strings.Fields(strings.ToValidUTF8(string(b[:min(len(b), limit)]), "")), " "))
}
