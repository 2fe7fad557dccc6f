package report

import (
	"regexp"
	"strings"
)

// hard are the status codes that say that there is no such mailbox or domain (RFC 3463, RFC 7505).
var hard = map[string]bool{
	"5.1.1": true, "5.1.2": true, "5.1.3": true, "5.1.6": true, "5.1.10": true, "5.2.1": true,
}

var (
	// unknownUser are words for a mailbox that does not exist, for servers that give no status, or one too general.
	unknownUser = regexp.MustCompile(`(?i)user unknown|unknown user|no such (user|mailbox|recipient|address|person|local user)|(mailbox|user|recipient|account|address) (is |was )?(not found|unavailable or not found)|` +
		`does(n't| not) (exist|have (an?|any) [a-z.]+ account)|(mailbox|account|user|address) (is |has been )?(disabled|deactivated|inactive|closed|discontinued|suspended)|no mailbox (here )?by that name|` +
		`(invalid|unknown|bad|illegal|nonexistent|non-existent) (recipient|mailbox|address|user|destination)|recipient (address )?rejected: (user|access denied|undeliverable)|` +
		`not (a )?(known|valid) (user|recipient|mailbox)|not listed in|no longer (available|valid|with|here|employed)|unrouteable address|undeliverable address|recipnotfound|` +
		`(host|domain) (or domain name )?not found|domain (does not|doesn't) (exist|accept mail)|null mx|nxdomain`)
	// full are words for a mailbox that takes no more now.
	full = regexp.MustCompile(`(?i)over ?quota|quota (exceeded|exceded)|exceeded (the |its |their )?(storage|quota|mailbox)|mailbox (is )?(full|exceeds|too large|size limit)|out of (storage )?space|insufficient (system )?(storage|disk)|inbox (is )?full|storage (is )?full`)
	// blocked are words for mail that is refused for its sender or its content.
	blocked = regexp.MustCompile(`(?i)spam|spf|dkim|dmarc|policy|blocked|black ?list|block ?list|rbl|reputation|unsolicited|authentic|relay(ing)? (access )?(denied|not|prohibited)|not permitted|content (reject|refus)|virus|malware|too many|rate limit|(message|mail) (size|is too|too)|5\.7\.|greylist|banned|refused by|sc-00`)
	// basic is a reply code, and enhancedIn a status, in a server's words.
	basic      = regexp.MustCompile(`(?:^|[^0-9.])([45][0-9][0-9])(?:[ -]|$)`)
	enhancedIn = regexp.MustCompile(`(?:^|[^0-9.])([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[^0-9.]|$)`)
)

// classify says what a report about one recipient means for the address. Only failures bear on it; whatever is doubtful bears
// less.
func classify(action, code, words string) Class {
	if action != "" && action != "failed" {
		return None
	}
	if code == "" || code == "5.0.0" || code == "4.0.0" {
		if m := enhancedIn.FindStringSubmatch(words); m != nil && statusForm.MatchString(m[1]) {
			code = m[1]
		}
	}
	reply := ""
	if m := basic.FindStringSubmatch(words); m != nil {
		reply = m[1]
	}
	switch {
	case strings.HasPrefix(code, "2."):
		return None
	case strings.HasPrefix(code, "4."):
		return Soft
	case hard[code]:
		// Some servers answer 5.1.1 or 5.2.1 to what they block: their own words say so.
		if blocked.MatchString(without(words, code)) && !unknownUser.MatchString(words) {
			return Blocked
		}
		return Hard
	case code == "5.2.2":
		return Soft
	case strings.HasPrefix(code, "5.4."):
		if code == "5.4.1" && strings.Contains(strings.ToLower(words), "access denied") {
			return Hard // the unknown user of Microsoft 365
		}
		if unknownUser.MatchString(words) && !blocked.MatchString(without(words, code)) {
			return Hard
		}
		return Soft
	case strings.HasPrefix(code, "5.7."), strings.HasPrefix(code, "5.6."), strings.HasPrefix(code, "5.3."):
		return Blocked
	case full.MatchString(words):
		return Soft
	case strings.HasPrefix(reply, "4"):
		return Soft
	case blocked.MatchString(words):
		return Blocked
	case unknownUser.MatchString(words):
		return Hard
	case code == "" && reply == "":
		return Soft // it failed, and nobody says why
	}
	return Blocked // refused for good, for a reason that is not the mailbox
}

// without takes the status out of the words, so that its digits are not taken for words.
func without(words, code string) string { return strings.ReplaceAll(words, code, "") }
