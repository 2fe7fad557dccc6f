package provider

import (
	"regexp"
	"strings"
)

// hardStatus are the status codes that say that there is no such mailbox or domain (RFC 3463, RFC 7505).
var hardStatus = map[string]bool{"5.1.1": true, "5.1.2": true, "5.1.3": true, "5.1.6": true, "5.1.10": true, "5.2.1": true}

// statusIn is a status in a server's words, statusForm a status alone.
var (
	statusIn   = regexp.MustCompile(`(?:^|[^0-9.])([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[^0-9.]|$)`)
	statusForm = regexp.MustCompile(`^[245]\.[0-9]{1,3}\.[0-9]{1,3}$`)
	// policy are words for mail that is refused for its sender or content, by servers that give a mailbox's status for it.
	policy = regexp.MustCompile(`(?i)\b(spam|spf|dkim|dmarc|policy|blocked|black ?list(ed)?|block ?list(ed)?|reputation|unsolicited|authentication|relay(ing)? denied|banned)\b`)
	// ofSender are words about the sender's address, and tooFast for a mailbox that gets more than it may.
	ofSender = regexp.MustCompile(`(?i)\bsender('s)? (address|domain|verify|verification|rejected|denied|unknown)|\b(return|reverse)[ -]path\b|\bmail from\b`)
	tooFast  = regexp.MustCompile(`(?i)\bat a rate\b|\brate limit|\btoo (many|fast)\b`)
	// unknown are words for a mailbox that does not exist.
	unknown = regexp.MustCompile(`(?i)user unknown|unknown user|no such (user|mailbox|recipient|address|person)|(mailbox|user|recipient|address) (is |was )?(not found|unknown)|does(n't| not) exist|recipnotfound`)
)

// statusOf is the enhanced status code: the one given, else the first in the server's words; empty when there is none.
func statusOf(given, words string) string {
	if statusForm.MatchString(given) && given != "5.0.0" && given != "4.0.0" {
		return given
	}
	if m := statusIn.FindStringSubmatch(words); m != nil {
		return m[1]
	}
	if statusForm.MatchString(given) {
		return given
	}
	return ""
}

// bounce says what a failure means for the mailbox. permanent is what the provider made of it, and decides alone only where the
// server gave no status: whatever is doubtful bears less. 0: it says nothing about the mailbox (policy, size, content).
func bounce(permanent bool, status, words string) What {
	blames := policy.MatchString(strings.ReplaceAll(words, status, "")) && !unknown.MatchString(words)
	switch {
	case strings.HasPrefix(status, "2."):
		return 0
	case strings.HasPrefix(status, "4."), status == "5.2.2":
		return SoftBounce
	case status == "5.1.7", status == "5.1.8", ofSender.MatchString(words): // RFC 3463 section 3.2: the sender's mailbox, its domain
		return 0
	case status == "5.2.1" && tooFast.MatchString(words):
		return SoftBounce
	case hardStatus[status]:
		if blames {
			return 0
		}
		return HardBounce
	case status == "5.4.1" && strings.Contains(strings.ToLower(words), "access denied"):
		return HardBounce // the unknown user of Microsoft 365
	case strings.HasPrefix(status, "5.4."):
		return SoftBounce
	case strings.HasPrefix(status, "5.7."), strings.HasPrefix(status, "5.6."), strings.HasPrefix(status, "5.3."), blames:
		return 0
	case permanent:
		if status != "" && status != "5.0.0" && !unknown.MatchString(words) {
			return 0 // refused for good, for a reason that is not the mailbox
		}
		return HardBounce
	}
	return SoftBounce
}
