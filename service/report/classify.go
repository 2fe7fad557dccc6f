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
	// basic is a reply code, and enhancedIn a status, in a server's words.
	basic      = regexp.MustCompile(`(?:^|[^0-9.])([45][0-9][0-9])(?:[ :\]-]|$)`)
	enhancedIn = regexp.MustCompile(`(?:^|[^0-9.])([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[^0-9.]|$)`)
)

// general reports whether a status code says no more than that it failed.
func general(code string) bool {
	return code == "" || code == "5.0.0" || code == "4.0.0" || code == "5.3.0"
}

// classify says what a report about one recipient means for the address. Only failures bear on it; whatever is doubtful bears
// less. The status code decides; where it is missing or general, the server's words do.
func classify(action, code, words string) Class {
	if action != "failed" {
		return None
	}
	if general(code) && code != "4.0.0" {
		if m := enhancedIn.FindStringSubmatch(words); m != nil && statusForm.MatchString(m[1]) && !general(m[1]) {
			code = m[1]
		}
	}
	reply := ""
	if m := basic.FindStringSubmatch(words); m != nil {
		reply = m[1]
	}
	plain := strings.ToLower(strings.ReplaceAll(words, code, ""))
	refused := says(plain, blocked)
	unknown := says(plain, unknownUser) && !says(plain, unlessTemporary)
	switch {
	case strings.HasPrefix(code, "2."):
		return None
	case strings.HasPrefix(code, "4."):
		return Soft
	case code == "5.1.7", code == "5.1.8", says(plain, ofSender): // RFC 3463 section 3.2: the sender's mailbox, its domain
		return Blocked
	case hard[code]:
		// Some servers answer 5.1.1 or 5.2.1 to what they block, and Gmail 5.2.1 to what is too much: their own words say so.
		switch {
		case refused && !unknown, strings.Contains(plain, "max message size"):
			return Blocked
		case says(plain, full) && !unknown:
			return Soft
		}
		return Hard
	case code == "5.2.2":
		return Soft
	case strings.HasPrefix(code, "5.4."):
		if code == "5.4.1" && strings.Contains(plain, "access denied") && !refused {
			return Hard // the unknown user of Microsoft 365, whose "Relay Access Denied" is about a domain that it does not serve
		}
		return Soft
	case strings.HasPrefix(code, "5.7."), strings.HasPrefix(code, "5.6."), strings.HasPrefix(code, "5.3.") && code != "5.3.0":
		return Blocked
	case refused:
		return Blocked
	case says(plain, full), strings.HasPrefix(reply, "4"):
		return Soft
	case unknown:
		return Hard
	case says(plain, lost):
		return Soft
	case code == "" && reply == "":
		return Soft // it failed, and nobody says why
	}
	return Blocked // refused for good, for a reason that is not the mailbox
}
