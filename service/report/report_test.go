package report

import (
	"strings"
	"testing"
)

// mixed joins the parts of a multipart message; each begins with its own header.
func mixed(top, boundary string, parts ...string) string {
	var b strings.Builder
	b.WriteString(top + "\n\n")
	for _, p := range parts {
		b.WriteString("--" + boundary + "\n" + p + "\n")
	}
	return b.String() + "--" + boundary + "--\n"
}

func dsnOf(top string, status, returned string) string {
	return mixed(top+"\nMIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status; boundary=\"b1\"", "b1",
		"Content-Type: text/plain\n\nYour message could not be delivered.", "Content-Type: message/delivery-status\n\n"+status, "Content-Type: message/rfc822\n\n"+returned)
}

const token = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrstuvwxyz234"

const ours = "Message-ID: <1@shop.example>\nList-Unsubscribe: <https://mail.example.com/u/" + token + ">,\n <mailto:u-" + token + "@unsub.example.com>\nSubject: the letter\n\nHello.\n"

// Reports as mail servers write them: kind, recipients, status and class of each.
func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		text     string
		kind     Kind
		standard bool
		want     string // address status class, one recipient after the other
		ours     bool   // the message returned has our token
	}{
		"Postfix": {dsnOf("From: MAILER-DAEMON@mx.example.net (Mail Delivery System)\nSubject: Undelivered Mail Returned to Sender\nAuto-Submitted: auto-replied",
			"Reporting-MTA: dns; mx.example.net\nX-Postfix-Queue-ID: 4F2\nArrival-Date: Mon, 23 Nov 2026 10:00:00 +0000\n\nFinal-Recipient: rfc822; ann@example.com\nOriginal-Recipient: rfc822;ann@example.com\nAction: failed\nStatus: 5.1.1\nRemote-MTA: dns; mx.example.com\nDiagnostic-Code: smtp; 550 5.1.1 <ann@example.com>: Recipient address\n    rejected: User unknown in virtual mailbox table\n", ours),
			Bounce, true, "ann@example.com 5.1.1 hard", true},
		"Postfix, two recipients": {dsnOf("From: MAILER-DAEMON@mx.example.net",
			"Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.2.2\nDiagnostic-Code: smtp; 552 5.2.2 mailbox full\n\nFinal-Recipient: rfc822; bob@example.com\nAction: delayed\nStatus: 4.4.1\n", ours),
			Bounce, true, "ann@example.com 5.2.2 soft; bob@example.com 4.4.1 none", true},
		"Exim": {dsnOf("From: Mail Delivery System <Mailer-Daemon@mx.example.net>\nX-Failed-Recipients: ann@example.com\nSubject: Mail delivery failed: returning message to sender\nAuto-Submitted: auto-replied",
			"Reporting-MTA: dns; mx.example.net\n\nAction: failed\nFinal-Recipient: rfc822;ann@example.com\nStatus: 5.0.0\nRemote-MTA: dns; mx.example.com\nDiagnostic-Code: smtp; 550 5.1.1 No such user here\n", ours),
			Bounce, true, "ann@example.com 5.0.0 hard", true},
		"Exim of old": {"From: Mail Delivery System <Mailer-Daemon@mx.example.net>\nX-Failed-Recipients: ann@example.com\nSubject: Mail delivery failed: returning message to sender\n\n" +
			"This message was created automatically by mail delivery software.\n\nA message that you sent could not be delivered to one or more of its\nrecipients. This is a permanent error. The following address(es) failed:\n\n  ann@example.com\n    SMTP error from remote mail server after RCPT TO:<ann@example.com>:\n    host mx.example.com [192.0.2.1]: 550 unknown user\n\n------ This is a copy of the message, including all the headers. ------\n\n" + ours,
			Bounce, false, "ann@example.com  hard", true},
		"Sendmail": {dsnOf("From: Mail Delivery Subsystem <MAILER-DAEMON@mx.example.net>\nSubject: Returned mail: see transcript for details\nAuto-Submitted: auto-generated (failure)",
			"Reporting-MTA: dns; mx.example.net\nReceived-From-MTA: DNS; shop.example\n\nFinal-Recipient: RFC822; ann@example.com\nAction: Failed\nStatus: 5.1.2 (bad destination)\nRemote-MTA: DNS; example.com\nDiagnostic-Code: SMTP; 550 Host unknown\n", ours),
			Bounce, true, "ann@example.com 5.1.2 hard", true},
		"Exchange Online, unknown user": {dsnOf("From: MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@example.com\nSubject: Undeliverable: the letter",
			"Reporting-MTA: dns;AB0.eurprd04.prod.outlook.com\n\nFinal-Recipient: rfc822;ann@example.com\nAction: failed\nStatus: 5.4.1\nDiagnostic-Code: smtp;550 5.4.1 Recipient address rejected: Access denied. [AB0EUR04]\n", ours),
			Bounce, true, "ann@example.com 5.4.1 hard", true},
		"Exchange Online, recipient not found": {dsnOf("From: postmaster@example.com\nSubject: Undeliverable: the letter",
			"Reporting-MTA: dns;AB0\n\nFinal-Recipient: rfc822;ann@example.com\nAction: failed\nStatus: 5.1.10\nDiagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient ann@example.com not found by SMTP address lookup\n", ours),
			Bounce, true, "ann@example.com 5.1.10 hard", true},
		"Microsoft refuses the sender": {dsnOf("From: postmaster@outlook.com", "Reporting-MTA: dns;x\n\nFinal-Recipient: rfc822;ann@outlook.com\nAction: failed\nStatus: 5.7.515\nDiagnostic-Code: smtp;550 5.7.515 Access denied, sending domain does not meet the required authentication level\n", ours),
			Bounce, true, "ann@outlook.com 5.7.515 blocked", true},
		"Gmail": {dsnOf("From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>\nAuto-Submitted: auto-replied\nSubject: Delivery Status Notification (Failure)\nX-Failed-Recipients: ann@gmail.com",
			"Reporting-MTA: dns; googlemail.com\nReceived-From-MTA: dns; shop.example\nArrival-Date: Mon, 23 Nov 2026 02:00:00 -0800 (PST)\nX-Original-Message-ID: <1@shop.example>\n\nFinal-Recipient: rfc822; ann@gmail.com\nAction: failed\nStatus: 5.1.1\nRemote-MTA: dns; gmail-smtp-in.l.google.com.\nDiagnostic-Code: smtp; 550-5.1.1 The email account that you tried to reach does not exist. Please try\n 550-5.1.1 double-checking the recipient's email address for typos\n", ours),
			Bounce, true, "ann@gmail.com 5.1.1 hard", true},
		"SES": {dsnOf("From: MAILER-DAEMON@amazonses.com\nSubject: Delivery Status Notification (Failure)",
			"Reporting-MTA: dns; a9-1.smtp-out.amazonses.com\n\nAction: failed\nFinal-Recipient: rfc822; ann@example.com\nDiagnostic-Code: smtp; 550 5.1.1 user unknown\nStatus: 5.1.1\n", ours),
			Bounce, true, "ann@example.com 5.1.1 hard", true},
		"qmail": {"From: MAILER-DAEMON@mx.example.net\nSubject: failure notice\n\nHi. This is the qmail-send program at mx.example.net.\nI'm afraid I wasn't able to deliver your message to the following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n<ann@example.com>:\n192.0.2.1 does not like recipient.\nRemote host said: 550 5.1.1 unknown user\nGiving up on 192.0.2.1.\n\n<bob@example.com>:\nSorry, no mailbox here by that name. (#5.1.1)\n\n--- Below this line is a copy of the message.\n\n" + ours,
			Bounce, false, "ann@example.com 5.1.1 hard; bob@example.com 5.1.1 hard", true},
		"international": {dsnOf("From: MAILER-DAEMON@mx", "Reporting-MTA: dns; mx\n\nFinal-Recipient: utf-8; j\\x{F6}rg@example.com\nAction: failed\nStatus: 5.1.1\n", ours),
			Bounce, true, "jörg@example.com 5.1.1 hard", true},
		"failed with a temporary status": {dsnOf("From: MAILER-DAEMON@mx", "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 4.4.7\n", ours),
			Bounce, true, "ann@example.com 4.4.7 soft", true},
		"5.1.1 for spam": {dsnOf("From: MAILER-DAEMON@mx", "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 554 5.1.1 your message was classified as spam\n", ours),
			Bounce, true, "ann@example.com 5.1.1 blocked", true},
		"relayed": {dsnOf("From: MAILER-DAEMON@mx", "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; ann@example.com\nAction: relayed\nStatus: 2.1.9\n", ours),
			Bounce, true, "ann@example.com 2.1.9 none", true},
		"a mail system's, not marked as a report": {mixed("From: MAILER-DAEMON@mx\nContent-Type: multipart/mixed; boundary=b", "b", "Content-Type: text/plain\n\nSorry.",
			"Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.1.1\n", "Content-Type: message/rfc822\n\n"+ours),
			Bounce, true, "ann@example.com 5.1.1 hard", true},
		"wrapped by a gateway": {mixed("From: gateway@mx\nContent-Type: multipart/mixed; report-type=delivery-status; boundary=g", "g", "Content-Type: text/plain\n\nSee below.",
			"Content-Type: message/rfc822\n\n"+dsnOf("From: MAILER-DAEMON@mx", "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.1.1\n", ours)),
			Bounce, true, "ann@example.com 5.1.1 hard", true},
		"without an action": {dsnOf("From: MAILER-DAEMON@mx", "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; ann@example.com\nStatus: 5.1.1\n", ours),
			Bounce, true, "ann@example.com 5.1.1 hard", true},
		"the reason is in the text alone": {strings.Replace(dsnOf("From: MAILER-DAEMON@mx", "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.0.0\n", ours),
			"Your message", "<ann@example.com>: user unknown\n\nYour message", 1), Bounce, true, "ann@example.com 5.0.0 hard", true},
		"unknown for now": {dsnOf("From: MAILER-DAEMON@mx", "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.0.0\nDiagnostic-Code: smtp; 450 user unknown, try again later\n", ours),
			Bounce, true, "ann@example.com 5.0.0 soft", true},
		"unknown, with advice on policy": {dsnOf("From: MAILER-DAEMON@mx", "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 user unknown; see our policy\n", ours),
			Bounce, true, "ann@example.com 5.1.1 hard", true},
		"in words, as an answer": {"From: MAILER-DAEMON@mx.example.net\nIn-Reply-To: <1@shop.example>\nSubject: failure notice\n\n<ann@example.com>:\nSorry, no mailbox here by that name. (#5.1.1)\n",
			Bounce, false, "ann@example.com 5.1.1 hard", false},
		"in words, that name the sender too": {"From: MAILER-DAEMON@mx.example.net\nTo: news@shop.example\nSubject: failure notice\n\nMail of news@shop.example failed: see below.\n\n<ann@example.com>: user unknown\n",
			Bounce, false, "ann@example.com  hard", false},
		"in words, the first of which count": {"From: MAILER-DAEMON@mx.example.net\nSubject: failure notice\n\n<ann@example.com>: rejected as spam\n\nWas it that ann@example.com is unknown?\n\nAnd ann@example.com: user unknown\n",
			Bounce, false, "ann@example.com  blocked", false},
		"of Hotmail's staff, without the mail complained of": {"From: staff@hotmail.com\nSubject: complaint about message from 192.0.2.1\n\nHello.\n", Other, false, "", false},

		"out of office":               {"From: Ann <ann@example.com>\nSubject: Out of office: the letter\nAuto-Submitted: auto-replied\n\nI am away. Mail to bob@example.com failed? Write to cy@example.com.\n", Automatic, false, "", false},
		"vacation by header of old":   {"From: ann@example.com\nX-Autoreply: yes\nSubject: away\n\nI am away.\n", Automatic, false, "", false},
		"a person":                    {"From: Ann <ann@example.com>\nSubject: Re: undeliverable promises\n\nI could not be more unhappy. ann@example.com failed 550 times.\n", Other, false, "", false},
		"a person forwards a bounce":  {"From: Ann <ann@example.com>\nSubject: Fwd: your mail\n\nLook what I got:\n> <bob@example.com>: 550 5.1.1 user unknown\n", Other, false, "", false},
		"empty":                       {"", Other, false, "", false},
		"a disposition notification":  {mixed("From: ann@example.com\nSubject: Read: the letter\nContent-Type: multipart/report; report-type=disposition-notification; boundary=b", "b", "Content-Type: text/plain\n\nread", "Content-Type: message/disposition-notification\n\nDisposition: manual-action/MDN-sent-manually; displayed\n"), Automatic, false, "", false},
		"a bounce sent as attachment": {mixed("From: ann@example.com\nSubject: see attached\nContent-Type: multipart/mixed; boundary=b", "b", "Content-Type: text/plain\n\nsee", "Content-Type: message/rfc822\n\n"+dsnOf("From: x@y", "Reporting-MTA: dns; x\n\nFinal-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.1.1\n", ours)), Other, false, "", false},
	} {
		for _, crlf := range []bool{false, true} {
			text := c.text
			if crlf {
				text = strings.ReplaceAll(text, "\n", "\r\n")
			}
			r := Parse([]byte(text))
			var got []string
			for _, x := range r.Recipients {
				got = append(got, x.Address()+" "+x.Status+" "+x.Class.String())
			}
			if r.Kind != c.kind || r.Standard != c.standard || strings.Join(got, "; ") != c.want {
				t.Errorf("%s: kind %d, standard %v, %q", name, r.Kind, r.Standard, got)
			}
			if c.ours && (len(r.Tokens) != 1 || r.Tokens[0] != token) {
				t.Errorf("%s: tokens %q", name, r.Tokens)
			}
		}
	}
}

// Complaints, also those whose recipients are taken out.
func TestComplaints(t *testing.T) {
	arf := func(fields, returned string) string {
		return mixed("From: <complaints@provider.example>\nSubject: FW: the letter\nContent-Type: multipart/report; report-type=feedback-report; boundary=\"p\"", "p",
			"Content-Type: text/plain\n\nThis is an email abuse report.", "Content-Type: message/feedback-report\n\n"+fields, "Content-Type: message/rfc822\n\n"+returned)
	}
	for name, c := range map[string]struct {
		fields     string
		suppresses bool
		recipients string
	}{
		"Yahoo":          {"Feedback-Type: abuse\nUser-Agent: Yahoo!-Mail-Feedback/2.0\nVersion: 0.1\nOriginal-Mail-From: <b-x@unsub.example.com>\nOriginal-Rcpt-To: ann@yahoo.com\nReported-Domain: example.com\n", true, "ann@yahoo.com"},
		"redacted":       {"Feedback-Type: abuse\nUser-Agent: ReturnPathFBL/1.0\nVersion: 1\nOriginal-Rcpt-To: 2c7a\nIncidents: 3\n", true, ""},
		"opt-out of old": {"Feedback-Type: opt-out\nVersion: 0.1\nRemoval-Recipient: ann@example.com\n", true, "ann@example.com"},
		"not spam":       {"Feedback-Type: not-spam\nVersion: 1\nOriginal-Rcpt-To: ann@example.com\n", false, "ann@example.com"},
		"auth failure":   {"Feedback-Type: auth-failure\nVersion: 1\n", false, ""},
		"two types":      {"Feedback-Type: not-spam\nFeedback-Type: abuse\nVersion: 1\n", false, ""},
		"one type twice": {"Feedback-Type: abuse\nFeedback-Type: abuse\nVersion: 1\n", true, ""},
		"unknown type":   {"Feedback-Type: cosmic\nVersion: 1\n", false, ""},
	} {
		r := Parse([]byte(arf(c.fields, ours)))
		if r.Kind != Complaint || r.Feedback.Suppresses() != c.suppresses || strings.Join(r.Feedback.Recipients, " ") != c.recipients || len(r.Tokens) != 1 {
			t.Errorf("%s: %+v %+v", name, r, r.Feedback)
		}
	}
}

// Of the reports in the format XARF only those of spam are complaints of a recipient.
func TestOtherXARF(t *testing.T) {
	for kind, suppresses := range map[string]bool{"Spam": true, "DDoS": false} {
		r := Parse([]byte(mixed("From: <complaints@provider.example>\nContent-Type: multipart/report; report-type=feedback-report; boundary=p", "p",
			"Content-Type: message/feedback-report\n\nFeedback-Type: xarf\nUser-Agent: x\nVersion: 1\n", `Content-Type: application/json`+"\n\n"+`{"Report":{"ReportType":"`+kind+`"}}`)))
		if r.Kind != Complaint || r.Feedback.Suppresses() != suppresses {
			t.Errorf("%s: %+v %+v", kind, r, r.Feedback)
		}
	}
}

// Nested and endless things are bounded.
func TestBounds(t *testing.T) {
	deep := "Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.1.1\n"
	for range 1000 {
		deep = mixed("Content-Type: multipart/mixed; boundary=b", "b", deep)
	}
	if r := Parse([]byte(deep)); r.Kind != Other {
		t.Errorf("1000 deep: %+v", r)
	}
	many := strings.Repeat("Final-Recipient: rfc822; ann@example.com\nAction: failed\nStatus: 5.1.1\n\n", 5000)
	if r := Parse([]byte(dsnOf("From: x@y", many, ours))); len(r.Recipients) > maxRecipients {
		t.Errorf("%d recipients", len(r.Recipients))
	}
	if r := Parse([]byte(strings.Repeat("X-A: b\n", 1<<20))); r.Kind != Other {
		t.Errorf("a header without end: %+v", r)
	}
}
