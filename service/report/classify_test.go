package report

import "testing"

// What servers answer: the class follows from the status first, and nothing is hard that tells of the sender, its server, the message
// or the hour.
func TestClassify(t *testing.T) {
	for words, c := range map[string]struct {
		code string
		want Class
	}{
		"550 5.1.1 <ann@example.net>: user does not exist": {"5.1.1", Hard},
		"550 No such user": {"5.0.0", Hard},
		"550 5.5.0 Requested action not taken: mailbox unavailable":                                {"5.5.0", Hard},
		"550 Empfänger unbekannt":                                                                  {"", Hard},
		"550 5.4.1 Recipient address rejected: Access denied":                                      {"5.4.1", Hard},
		"550 5.4.1 All recipient addresses rejected":                                               {"5.4.1", Soft},
		"550 5.4.1 [ann@example.net]: Relay Access Denied":                                         {"5.4.1", Soft},
		"retry timeout exceeded":                                                                   {"5.0.0", Soft},
		"all hosts for example.net have been failing for a long time (and retry time not reached)": {"5.0.0", Soft},

		"550-5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages": {"5.2.1", Soft},
		"552 5.2.1 mailbox over quota": {"5.2.1", Soft},
		"554 The mail could not be delivered to the recipient because the domain is not reachable": {"5.5.0", Soft},
		"450 user unknown":                        {"5.0.0", Soft},
		"421 Too many invalid recipients":         {"", Soft},
		"451 4.3.0 no such user, try again later": {"4.3.0", Soft},

		"550 5.1.8 <b@shop.example.com>: Sender address rejected: Domain not found":                        {"5.1.8", Blocked},
		"550 <b@shop.example.com>: Sender address rejected: Domain not found":                              {"5.0.0", Blocked},
		"550-Verification failed for <b@shop.example.com> 550-No Such User Here 550 Sender verify failed":  {"5.0.0", Blocked},
		"553 <b@shop.example.com>... Domain of sender address b@shop.example.com does not exist":           {"5.0.0", Blocked},
		"550 <mx.example.com>: Helo command rejected: Host not found":                                      {"5.0.0", Blocked},
		"550 reverse DNS of 192.0.2.10 does not exist":                                                     {"", Blocked},
		"554 this host does not accept mail from 192.0.2.10":                                               {"", Blocked},
		"550-Requested action not taken: mailbox unavailable 550 invalid DNS MX or A/AAAA resource record": {"5.0.0", Blocked},
		"550 5.1.2 Relay not allowed.":                                                                     {"5.1.2", Blocked},
		"550 5.1.1 blocked by policy":                                                                      {"5.1.1", Blocked},
		"550 5.1.1 Refused due to recipient preferences":                                                   {"5.1.1", Blocked},
		"550 unbekannter Fehler":                                                                           {"", Blocked},
		"553 5.1.7 The sender address <b> is not a valid RFC 5321 address":                                 {"5.1.7", Blocked},
		"552 5.3.4 message too large":                                                                      {"5.3.4", Blocked},
	} {
		if got := classify("failed", c.code, words); got != c.want {
			t.Errorf("%q with %q is %v, want %v", words, c.code, got, c.want)
		}
		for _, action := range []string{"delayed", "delivered", "relayed", "expanded", ""} {
			if got := classify(action, c.code, words); got != None {
				t.Errorf("%q, %s: %v", words, action, got)
			}
		}
	}
}
