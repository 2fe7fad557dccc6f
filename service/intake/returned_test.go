package intake_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	optoutv1 "optout/proto/optout/v1"
	"optout/service"
	"optout/service/link"
)

// arf is a complaint in the form of RFC 5965 about a message with these header fields.
func (o *office) arf(from, kind, about string) string {
	o.n++
	return fmt.Sprintf("From: %s\r\nTo: fbl@%s\r\nSubject: complaint\r\nMessage-ID: <%d@arf.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n"+
		"--b\r\nContent-Type: text/plain\r\n\r\nA complaint.\r\n\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: %s\r\nUser-Agent: test/1\r\nVersion: 1\r\n\r\n"+
		"--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: letters@example.com\r\n%sSubject: news\r\n\r\nnews\r\n--b--\r\n", from, domain, o.n, kind, about)
}

// A complaint counts with a token of ours and a listed reporter's signature, and not without either.
func TestComplaints(t *testing.T) {
	o := newOffice(t, func(c *service.Config) { c.Inbound.Reporters = []string{"fbl@example.org"} })
	yahoo, fbl := "Yahoo <feedback@arf.mail.yahoo.com>", "fbl@"+domain
	about := func(addr string) string { return "List-Unsubscribe: <" + o.link(addr) + ">\r\n" }
	n := 0
	addr := func() string { n++; return fmt.Sprintf("p%d@example.net", n) }

	a := addr()
	o.want("Yahoo's", o.take(fbl, o.sign("arf.mail.yahoo.com", o.arf(yahoo, "abuse", about(a)))), "complaint", a, true)
	if s := o.story(a); len(s) != 1 || s[0].Kind != optoutv1.EntryKind_ENTRY_KIND_COMPLAINED || s[0].Scope.Kind != optoutv1.ScopeKind_SCOPE_KIND_COMMERCIAL {
		t.Errorf("%v", s)
	}
	a = addr()
	o.want("by the return path in it", o.take(fbl, o.sign("arf.mail.yahoo.com", o.arf(yahoo, "abuse", "Return-Path: <b-"+o.token(a, link.Bounce)+"@"+domain+">\r\n"))), "complaint", a, true)
	a = addr()
	o.want("a reporter added by flag", o.take(fbl, o.sign("example.org", o.arf("fbl@example.org", "abuse", about(a)))), "complaint", a, true)
	a = addr()
	o.want("unsigned", o.take(fbl, o.arf(yahoo, "abuse", about(a))), "queued", a, false)
	a = addr()
	o.want("signed by somebody else", o.take(fbl, o.sign("evil.example", o.arf(yahoo, "abuse", about(a)))), "queued", a, false)
	a = addr()
	o.want("signed by one who is not listed", o.take(fbl, o.sign("evil.example", o.arf("m@evil.example", "abuse", about(a)))), "queued", a, false)
	a = addr()
	o.want("another mailbox of a listed one's domain", o.take(fbl, o.sign("example.org", o.arf("mallory@example.org", "abuse", about(a)))), "queued", a, false)
	a = addr()
	o.dns.TXT("arf.mail.yahoo.com", "v=spf1 ip4:192.0.2.9 -all")
	o.want("sent by its host, unsigned", o.take(fbl, o.arf(yahoo, "abuse", about(a)), fromHost("192.0.2.9", "mta.mail.yahoo.com", "feedback@arf.mail.yahoo.com")), "queued", a, false)
	a = addr()
	o.want("about two people's mail", o.take(fbl, o.sign("arf.mail.yahoo.com", o.arf(yahoo, "abuse", about(a)+"X-Other: <"+o.link(addr())+">\r\n"))), "queued", a, false)
	a = addr()
	o.want("no token", o.take(fbl, o.sign("arf.mail.yahoo.com", o.arf(yahoo, "abuse", "To: "+a+"\r\n"))), "queued", a, false)
	a = addr()
	bad := strings.Replace(about(a), "/u/", "/u/b", 1)
	o.want("an altered token", o.take(fbl, o.sign("arf.mail.yahoo.com", o.arf(yahoo, "abuse", bad[:len(bad)-4]+">\r\n"))), "queued", a, false)
	a = addr()
	o.want("to the return path of the message", o.take("b-"+o.token(a, link.Bounce)+"@"+domain, o.sign("arf.mail.yahoo.com", o.arf(yahoo, "abuse", ""))), "complaint", a, true)
	a = addr()
	one, two := o.arf(yahoo, "abuse", ""), ""
	one = strings.Replace(one, "Version: 1\r\n", "Version: 1\r\nOriginal-Rcpt-To: "+a+"\r\n", 1)
	two = strings.Replace(o.arf(yahoo, "abuse", ""), "Version: 1\r\n", "Version: 1\r\nOriginal-Rcpt-To: "+a+"\r\nOriginal-Rcpt-To: "+addr()+"\r\n", 1)
	for message, names := range map[string]string{one: a, two: ""} {
		o.want("no token, but recipients", o.take(fbl, o.sign("arf.mail.yahoo.com", message)), "queued", a, false)
		if q := o.queue(); q[len(q)-1].Address != names {
			t.Errorf("it concerns %q, want %q", q[len(q)-1].Address, names)
		}
	}
	for _, kind := range []string{"not-spam", "auth-failure", "virus", "fraud", "dmarc"} {
		a = addr()
		o.want(kind, o.take(fbl, o.sign("arf.mail.yahoo.com", o.arf(yahoo, kind, about(a)))), "ignored", a, false)
	}
	for _, q := range o.queue() {
		if q.Claim != optoutv1.QueueClaim_QUEUE_CLAIM_COMPLAINT || q.Doubt != optoutv1.QueueDoubt_QUEUE_DOUBT_REPORTER || q.DueAt != nil {
			t.Errorf("it would decide itself: %v", q)
		}
	}
	o.want("a reporter that asks to confirm the address", o.take(fbl, "Auto-Submitted: auto-generated\r\n"+o.mail("loop@example.net", fbl, "Please confirm", "Follow this link.")), "queued", "", false)
	o.pass(72 * time.Hour)
	a = addr()
	o.want("decided by a person", o.take(fbl, o.arf(yahoo, "abuse", about(a))), "queued", a, false)
	q := o.queue()
	if _, err := o.feedback.DecideQueue(t.Context(), &optoutv1.DecideQueueRequest{Entries: []uint64{q[len(q)-1].Entry}, Decision: optoutv1.QueueDecision_QUEUE_DECISION_SUPPRESS, Justification: "it is Yahoo's"}); err != nil {
		t.Fatal(err)
	}
	if s := o.story(a); !o.out(a) || s[1].Kind != optoutv1.EntryKind_ENTRY_KIND_COMPLAINED {
		t.Errorf("%v", s)
	}
}

// dsn is a report about several recipients: pairs of address and status.
func dsn(pairs ...string) string {
	s := "From: MAILER-DAEMON@mx.example.net\r\nSubject: Undelivered Mail Returned to Sender\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n" +
		"--b\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.net\r\n"
	for i := 0; i < len(pairs); i += 2 {
		s += "\r\nFinal-Recipient: rfc822; " + pairs[i] + "\r\nAction: failed\r\nStatus: " + pairs[i+1] + "\r\nDiagnostic-Code: smtp; 550 " + pairs[i+1] + " no\r\n"
	}
	return s + "\r\n--b--\r\n"
}

// A bounce is held against the address that the return path names, by what is said of that address.
func TestWhoseBounce(t *testing.T) {
	o := newOffice(t, nil)
	n := 0
	for name, c := range map[string]struct {
		pairs   []string // "me" stands for the address that the return path names
		outcome string
		out     bool
	}{
		"it alone":                      {[]string{"me", "5.1.1"}, "bounce", true},
		"forwarded, another address":    {[]string{"other@example.net", "5.1.1"}, "bounce", true},
		"among others, it is full":      {[]string{"other@example.net", "5.1.1", "me", "5.2.2"}, "bounce", false},
		"among others, it is blocked":   {[]string{"other@example.net", "5.1.1", "me", "5.7.1"}, "ignored", false},
		"among others, it is gone":      {[]string{"other@example.net", "4.2.2", "me", "5.1.1"}, "bounce", true},
		"only others, one of them hard": {[]string{"a@example.net", "5.1.1", "b@example.net", "4.2.2"}, "bounce", false},
		"only others, one is blocked":   {[]string{"a@example.net", "5.1.1", "b@example.net", "5.7.1"}, "ignored", false},
	} {
		n++
		addr := fmt.Sprintf("p%d@example.net", n)
		for i := range c.pairs {
			if c.pairs[i] == "me" {
				c.pairs[i] = addr
			}
		}
		o.want(name, o.take("b-"+o.token(addr, link.Bounce)+"@"+domain, dsn(c.pairs...), fromHost("203.0.113.9", "mx.example.net", "")), c.outcome, addr, c.out)
	}
	o.want("at an address without a token", o.take(at, dsn("ann@example.net", "5.1.1"), fromHost("203.0.113.9", "mx.example.net", "")), "ignored", "ann@example.net", false)
	o.want("at fbl@", o.take("fbl@"+domain, dsn("ann@example.net", "5.1.1"), fromHost("203.0.113.9", "mx.example.net", "")), "ignored", "ann@example.net", false)
}

// A report that is handed in again says nothing new: a mailbox that is submitted every week makes no address undeliverable that was
// full once.
func TestSameBounceAgain(t *testing.T) {
	o := newOffice(t, nil)
	addr := "full@example.net"
	rcpt := "b-" + o.token(addr, link.Bounce) + "@" + domain
	report := func(id string) string {
		return "Message-ID: <" + id + "@mx.example.net>\r\n" + dsn(addr, "4.2.2")
	}
	submit := func(message string, change ...func(*optoutv1.SubmitReportRequest)) {
		t.Helper()
		o.want("full", o.take(rcpt, message, append(change, fromHost("203.0.113.9", "mx.example.net", ""))...), "bounce", "", false)
	}
	for range 5 {
		submit("Received: by another way\r\n" + report("1"))
		submit(dsn(addr, "4.2.2")) // without a Message-ID
		o.pass(7 * 24 * time.Hour)
		submit(report("1"))
	}
	if s := o.story(addr); len(s) != 1 || o.out(addr) {
		t.Errorf("two reports of one day, many times: %v", s)
	}
	submit("Message-ID: <1@mx.example.net>\r\n" + dsn(addr, "5.1.1")) // another report of the same name is no reason to ask for it for days
	if o.out(addr) {
		t.Error("one name, two reports")
	}
	for i := range 4 { // with the first, on five days, but that one is 35 days ago
		submit(report(fmt.Sprint("new", i)))
		o.pass(24 * time.Hour)
	}
	if !o.out(addr) {
		t.Error("failed on five days, and is mailed on")
	}
}

// The messages themselves are kept only when asked, by their digest, for so long and no longer.
func TestKeptMail(t *testing.T) {
	o := newOffice(t, func(c *service.Config) { c.Inbound.KeepMail = 48 * time.Hour })
	message := o.sign("example.org", o.mail("ann@example.org", at, "unsubscribe", ""))
	o.take(at, message)
	path := filepath.Join(o.data, "mail", "*", o.story("ann@example.org")[0].Evidence["digest"]+".eml")
	found, _ := filepath.Glob(path)
	if len(found) != 1 {
		t.Fatalf("%s: %v", path, found)
	}
	kept, err := os.ReadFile(found[0])
	info, _ := os.Stat(found[0])
	if err != nil || string(kept) != message || info.Mode().Perm() != 0o600 {
		t.Errorf("%q, %v, %v", kept, err, info.Mode())
	}
	other := newOffice(t, nil)
	other.take(at, message)
	if found, _ := filepath.Glob(filepath.Join(other.data, "mail", "*")); len(found) != 0 {
		t.Errorf("kept though nobody asked: %v", found)
	}
}
