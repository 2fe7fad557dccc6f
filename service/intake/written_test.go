package intake_test

import (
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
	"optout/service"
	"optout/service/link"
	"optout/service/mailtest"
)

const at = "unsubscribe@" + domain

func fromHost(ip, helo, mailFrom string) func(*optoutv1.SubmitReportRequest) {
	return func(r *optoutv1.SubmitReportRequest) { r.RemoteIp, r.Helo, r.MailFrom = ip, helo, mailFrom }
}

// What a person writes counts at once when it is clear and certain who wrote; else it waits, and changes nothing until then.
func TestOwnWords(t *testing.T) {
	o := newOffice(t, nil)
	ann, bob := "ann@example.org", "bob@example.net" // only ann's domain signs
	o.dns.TXT("example.com", "v=spf1 ip4:192.0.2.1 -all")
	spf := fromHost("192.0.2.1", "mx.example.com", "cy@example.com")

	o.want("signed by her domain", o.take(at, o.sign("example.org", o.mail("Ann <"+ann+">", at, "unsubscribe", ""))), "opted_out", ann, true)
	o.want("sent by his host", o.take(at, o.mail("cy@example.com", at, "", "Please take me off your list. Thanks"), spf), "opted_out", "cy@example.com", true)
	o.want("nothing proves it", o.take(at, o.mail(bob, at, "stop", "")), "queued", bob, false)
	o.want("forged", o.take(at, o.sign("evil.example", o.mail("dee@example.org", at, "unsubscribe", "unsubscribe"))), "queued", "dee@example.org", false)
	o.want("unclear", o.take(at, o.sign("example.org", o.mail("eva@example.org", at, "my mail", "I want to unsubscribe from the daily letter, but keep the weekly one, if that is possible?"))), "queued", "eva@example.org", false)
	o.want("a question", o.take(at, o.sign("example.org", o.mail("fred@example.org", at, "opening hours", "When is your shop open on Sundays?"))), "queued", "fred@example.org", false)
	o.want("cancelled, at stop@", o.take("stop@"+domain, o.sign("example.org", o.mail("hal@example.org", "stop@"+domain, "", "Please cancel my subscription."))), "opted_out", "hal@example.org", true)
	o.want("asked politely", o.take(at, o.sign("example.org", o.mail("ida@example.org", at, "", "Could you please take me off your list?"))), "opted_out", "ida@example.org", true)
	o.want("empty, to stop@", o.take("STOP@"+domain, o.sign("example.org", o.mail("gus@example.org", "stop@"+domain, "", ""))), "opted_out", "gus@example.org", true)

	var doubts []string
	for _, q := range o.queue() {
		doubts = append(doubts, strings.ToLower(strings.TrimPrefix(q.Doubt.String(), "QUEUE_DOUBT_"))+" "+q.Address)
	}
	want := []string{"unproved " + bob, "forged dee@example.org", "unclear eva@example.org", "unread fred@example.org"}
	if !slices.Equal(doubts, want) {
		t.Errorf("the queue: %v, want %v", doubts, want)
	}
	story := o.story(ann)
	if len(story) != 1 || story[0].Channel != optoutv1.Channel_CHANNEL_MAIL || story[0].Evidence["digest"] == "" || !strings.Contains(story[0].Evidence["authentication"], "dkim=pass") {
		t.Errorf("evidence: %v", story)
	}
	if !o.out("ann+letters@example.org") {
		t.Error("who writes from ann@ still gets the mail to ann+letters@")
	}
}

// Automatic mail and mail of the null path never count, whatever they say; Apple's without a token is automatic too (T1).
func TestAutomaticMailNeverCounts(t *testing.T) {
	o := newOffice(t, nil)
	for name, head := range map[string]string{
		"out of office":    "Auto-Submitted: auto-replied\r\n",
		"a list":           "List-Id: <x.example.org>\r\nPrecedence: list\r\n",
		"Apple, untokened": "X-Apple-Unsubscribe: true\r\nAuto-Submitted: auto-replied\r\n",
	} {
		addr := strings.ReplaceAll(name, " ", ".") + "@example.org"
		addr = strings.ReplaceAll(addr, ",", "")
		o.want(name, o.take(at, o.sign("example.org", head+o.mail(addr, at, "unsubscribe", "unsubscribe"))), "ignored", addr, false)
	}
	o.want("null path", o.take(at, o.sign("example.org", o.mail("nul@example.org", at, "unsubscribe", "unsubscribe")), fromHost("203.0.113.9", "mx.example.org", "")), "ignored", "nul@example.org", false)
	if q := o.queue(); len(q) != 0 {
		t.Errorf("waits: %v", q)
	}
}

// Whose address it is, a token of ours in the quoted message says, whatever From is.
func TestQuotedTokenNamesTheAddress(t *testing.T) {
	o := newOffice(t, nil)
	mailed := "ann@work.example.net"
	quote := "On Mon, 2 Mar 2026 at 10:00, Example Letters <letters@example.com> wrote:\r\n> Good news.\r\n> Unsubscribe: " + o.link(mailed)
	o.want("quoted", o.take(at, o.mail("ann@private.example.com", at, "Re: Good news", "Please remove me.\r\n\r\n"+quote)), "opted_out", mailed, true)
	if o.out("ann@private.example.com") {
		t.Error("the address in From is out too, though nothing proves it")
	}
	mailed = "bob@work.example.net"
	reply := strings.Replace(o.mail("bob@private.example.com", at, "Re: Good news", "stop"), "MIME-Version", "In-Reply-To: <x.b-"+o.issue(mailed).MessageToken+"@example.com>\r\nMIME-Version", 1)
	o.want("In-Reply-To", o.take(at, reply), "opted_out", mailed, true)
	// To quote the link is not to say it; and mail to several people says nothing of one.
	mailed = "cy@work.example.net"
	o.want("only quoted", o.take(at, o.mail("cy@private.example.com", at, "Re: Good news", "Great, thank you!\r\n\r\n> Unsubscribe: "+o.link(mailed))), "queued", mailed, false)
	o.want("two people's", o.take(at, o.mail("cy@private.example.com", at, "stop", "stop\r\n\r\n> "+o.link(mailed)+"\r\n> "+o.link("dee@work.example.net"))), "queued", mailed, false)
	forged := strings.Replace(o.link(mailed), "/u/", "/u/a", 1)
	unclear := strings.Replace(o.mail("dee@private.example.com", at, "Re: Good news", "I want to unsubscribe from the daily letter, but keep the weekly one, if that is possible?"), "MIME-Version", "In-Reply-To: <x.b-"+o.issue("dee@work.example.net").MessageToken+"@example.com>\r\nMIME-Version", 1)
	o.want("of mail of one topic, unclear", o.take(at, unclear), "queued", "dee@work.example.net", false)
	if q := o.queue(); q[len(q)-1].Scope.GetKind() != optoutv1.ScopeKind_SCOPE_KIND_ALL {
		t.Errorf("what they write speaks of one topic only: %v", q[len(q)-1])
	}
	o.want("an altered one", o.take(at, o.mail("mallory@evil.example", at, "stop", "stop\r\n\r\n> "+forged[:len(forged)-1])), "queued", mailed, false)
}

// A signed message that was written to somebody else, sent on to us, takes nobody off; nor does an old one a second time.
func TestReplay(t *testing.T) {
	o := newOffice(t, nil)
	elsewhere := o.sign("example.org", o.mail("ann@example.org", "leave@lists.example.net", "unsubscribe", "unsubscribe"))
	o.want("written to another list", o.take(at, elsewhere), "queued", "ann@example.org", false)
	readdressed := strings.Replace(elsewhere, "To: leave@lists.example.net", "To: "+at, 1)
	o.want("re-addressed", o.take(at, readdressed), "queued", "ann@example.org", false)
	open := o.sign("example.org", o.mail("ann@example.org", "leave@lists.example.net", "unsubscribe", "unsubscribe"), "From", "Subject")
	readdressed = strings.Replace(open, "To: leave@lists.example.net", "To: "+at, 1)
	o.want("re-addressed, To not signed", o.take(at, readdressed), "queued", "ann@example.org", false)

	mine := o.sign("example.org", o.mail("bob@example.org", at, "unsubscribe", "unsubscribe"))
	o.want("written to us", o.take(at, mine), "opted_out", "bob@example.org", true)
	first := len(o.story("bob@example.org"))
	o.confirm("bob@example.org")
	o.want("the same message again", o.take(at, "Received: from somewhere\r\n"+mine), "opted_out", "bob@example.org", false)
	if n := len(o.story("bob@example.org")); n != first+2 {
		t.Errorf("%d entries, want %d", n, first+2)
	}
	o.want("a new one", o.take(at, o.sign("example.org", o.mail("bob@example.org", at, "unsubscribe", "unsubscribe"))), "opted_out", "bob@example.org", true)
}

// When nobody decides, the queue does after a day; the address that is only forged from stays as it was while it is unknown.
func TestQueueDecides(t *testing.T) {
	o := newOffice(t, func(c *service.Config) { c.Inbound.QueueDelay = time.Hour })
	known := "bob@example.net"
	if _, err := optoutv1.NewSubscriptionServiceClient(o.c.Conn()).Subscribe(t.Context(), &optoutv1.SubscribeRequest{Topic: "news", Address: known, RequestId: "r"}); err != nil {
		t.Fatal(err)
	}
	o.take(at, o.mail(known, at, "stop", ""))
	o.take(at, o.mail("stranger@example.net", at, "stop", ""))
	q := o.queue()
	if len(q) != 2 || !q[0].Known || q[1].Known || q[0].DueAt.AsTime().Sub(q[0].ReceivedAt.AsTime()) != time.Hour {
		t.Fatalf("%v", q)
	}
	if _, err := o.feedback.DecideQueue(t.Context(), &optoutv1.DecideQueueRequest{Entries: []uint64{q[1].Entry}, Decision: optoutv1.QueueDecision_QUEUE_DECISION_SUPPRESS, Justification: "called her"}); err != nil {
		t.Fatal(err)
	}
	if !o.out("stranger@example.net") || o.out(known) {
		t.Error("the operator's decision is not in force, or too much is")
	}
}

// Addresses that are not ours are refused; the contact address of a sender is one of ours.
func TestAddresses(t *testing.T) {
	o := newOffice(t, nil)
	contact := "help@example.com"
	o.want("no contact address yet", o.take(contact, o.mail("a@example.org", contact, "stop", "")), "not_ours", "", false)
	if _, err := optoutv1.NewAdminServiceClient(o.c.Conn()).UpdateSender(t.Context(), &optoutv1.UpdateSenderRequest{ContactAddress: &contact}); err != nil {
		t.Fatal(err)
	}
	o.want("stop at the contact address", o.take("Help@Example.com", o.sign("example.org", o.mail("ann@example.org", contact, "Unsubscribe me please", ""))), "opted_out", "ann@example.org", true)
	o.want("a subscription cancelled there", o.take(contact, o.sign("example.org", o.mail("cy@example.org", contact, "", "Please cancel my subscription."))), "queued", "cy@example.org", false)
	o.want("empty mail to the contact address", o.take(contact, o.sign("example.org", o.mail("bob@example.org", contact, "", ""))), "queued", "bob@example.org", false)
	postmaster := "postmaster@" + domain
	o.want("a question to the postmaster", o.take("Postmaster@"+domain, o.mail("cy@example.net", postmaster, "your mail", "Is this server yours?")), "queued", "", false)
	o.want("stop to the postmaster", o.take(postmaster, o.sign("example.org", o.mail("dee@example.org", postmaster, "Unsubscribe me please", ""))), "opted_out", "dee@example.org", true)
	for _, other := range []string{"webmaster@" + domain, "postmaster@example.org", "unsubscribe@example.org", "unsubscribe", "unsubscribe@" + domain + ".example", "u-x@" + domain} {
		o.want(other, o.take(other, o.mail("a@example.org", other, "stop", "")), "not_ours", "", false)
	}
	// Without an envelope the header says for whom it was.
	r, err := o.feedback.SubmitReport(t.Context(), &optoutv1.SubmitReportRequest{Message: []byte(o.sign("example.org", o.mail("cy@example.org", "Example <"+at+">", "stop", "")))})
	if err != nil || len(r.Results) != 1 {
		t.Fatal(r, err)
	}
	o.want("no envelope", r.Results[0], "opted_out", "cy@example.org", true)
}

// Old mail programs write names unencoded, in a charset of their own.
func TestNameInLatin1(t *testing.T) {
	o := newOffice(t, nil)
	o.want("Latin-1", o.take(at, o.sign("example.org", o.mail("J\xfcrgen <j@example.org>", at, "Abmeldung", "Bitte abmelden."))), "opted_out", "j@example.org", true)
	o.want("in the address", o.take(at, o.sign("example.org", o.mail("j\xfcrgen@example.org", at, "Abmeldung", "Bitte abmelden."))), "queued", "j?rgen@example.org", false)
}

// Whoever decides about a message that was too large to keep is told so: what was attached must be asked for.
func TestTooLargeToKeep(t *testing.T) {
	o := newOffice(t, nil)
	r := o.take(at, o.mail("fred@example.org", at, "my order", "What does the picture show?"), func(r *optoutv1.SubmitReportRequest) { r.Truncated = true })
	o.want("cut short", r, "queued", "", false)
	if note := o.queue()[0].Evidence["note"]; !strings.Contains(note, "attached is gone") {
		t.Errorf("it is not told: %q", note)
	}
}

// Signed addresses outlive the mail domain that they were made at: they lie in mailboxes for years.
func TestSignedAddressesOfAnOldMailDomain(t *testing.T) {
	o := newOffice(t, nil)
	old := "old.example.com"
	o.want("unsubscribe mail", o.take("u-"+o.token("ann@example.org", link.Unsubscribe)+"@"+old, o.mail("ann@example.org", "x", "", "")), "opted_out", "ann@example.org", true)
	o.want("a bounce", o.take("b-"+o.token("bob@example.org", link.Bounce)+"@"+old, dsn("bob@example.org", "5.1.1")), "bounce", "bob@example.org", true)
	for _, other := range []string{"u-" + o.token("cy@example.org", link.Bounce), "b-" + o.token("cy@example.org", link.Unsubscribe), "unsubscribe", "u-x"} {
		o.want(other, o.take(other+"@"+old, o.mail("cy@example.org", "x", "stop", "")), "not_ours", "cy@example.org", false)
	}
}

// Questions go to a person when the sender says to whom: whole, and only once in a circle.
func TestQuestionsAreForwarded(t *testing.T) {
	sink := mailtest.NewSink(t)
	o := newOffice(t, func(c *service.Config) { c.Inbound.MailOut = sink.Addr })
	people := "people@example.com"
	if _, err := optoutv1.NewAdminServiceClient(o.c.Conn()).UpdateSender(t.Context(), &optoutv1.UpdateSenderRequest{ForwardAddress: &people}); err != nil {
		t.Fatal(err)
	}
	question := o.mail("fred@example.org", at, "opening hours", "When is your shop open on Sundays?")
	o.want("a question", o.take(at, question), "forwarded", "", false)
	got := sink.Taken()
	if len(got) != 1 || !slices.Equal(got[0].To, []string{people}) || got[0].From != "" || !strings.HasSuffix(got[0].Text, question) {
		t.Fatalf("forwarded: %+v", got)
	}
	o.want("handed in again", o.take(at, question), "forwarded", "", false)
	o.want("it comes back", o.take(at, got[0].Text), "queued", "", false)
	o.want("the beginning of one", o.take(at, o.mail("fred@example.org", at, "opening hours", "When is your shop open, and"), truncated), "queued", "", false)
	if n := len(sink.Taken()); n != 1 {
		t.Errorf("%d passed on, want 1", n)
	}
	refuse := func(code int) {
		sink.Refuse(func(string) error { return &smtp.SMTPError{Code: code, Message: "no"} }, nil)
	}
	refuse(550)
	o.want("refused for good", o.take(at, o.mail("fred@example.org", at, "opening hours", "And on Mondays?")), "queued", "", false)
	refuse(451)
	later := o.mail("fred@example.org", at, "opening hours", "And on Tuesdays?")
	later = strings.Replace(later, "Mon, 02 Mar 2026 10:00:00 +0000", time.Now().Format(time.RFC1123Z), 1)
	if _, err := o.feedback.SubmitReport(t.Context(), &optoutv1.SubmitReportRequest{Recipients: []string{at}, Message: []byte(later)}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "--mail-out") {
		t.Errorf("taken, though nobody has it: %v", err)
	}
	o.pass(25 * time.Hour) // before its writer's server gives up
	o.want("a day later", o.take(at, later), "queued", "", false)
}

// Replies are off by default; when they are on, one says what was done, to nobody whose address is not proved, once a week.
func TestReplies(t *testing.T) {
	sink := mailtest.NewSink(t)
	o := newOffice(t, func(c *service.Config) { c.Inbound.MailOut, c.Inbound.Reply = sink.Addr, true })
	o.brand(&optoutv1.Sender{Name: "shared"}) // whose mail stops too, of which the one reply is enough
	name := `Letters, "Ltd." (Ulm)`
	if _, err := optoutv1.NewAdminServiceClient(o.c.Conn()).UpdateSender(t.Context(), &optoutv1.UpdateSenderRequest{DisplayName: &name}); err != nil {
		t.Fatal(err)
	}
	o.take(at, o.mail("forged@example.org", at, "stop", ""))
	stop := func(addr string) *optoutv1.SubmitResult {
		return o.take(at, o.sign("example.org", o.mail(addr, at, "Abmelden", "Bitte abmelden")))
	}
	o.want("first", stop("ann@example.org"), "opted_out", "ann@example.org", true)
	o.want("again", stop("ann@example.org"), "opted_out", "ann@example.org", true)
	o.want("a third time", stop("ann@example.org"), "opted_out", "ann@example.org", true)
	o.confirm("ann@example.org")
	o.want("after another yes", stop("ann@example.org"), "opted_out", "ann@example.org", true)
	o.want("somebody else", stop("bob@example.org"), "opted_out", "bob@example.org", true)
	got := sink.Wait(t, 2) // they are sent one after the other
	if len(got) != 2 || !slices.Equal(got[0].To, []string{"ann@example.org"}) || !slices.Equal(got[1].To, []string{"bob@example.org"}) || got[0].From != "" {
		t.Fatalf("%+v", got)
	}
	o.pass(8 * 24 * time.Hour)
	o.confirm("ann@example.org")
	o.want("a week later", stop("ann@example.org"), "opted_out", "ann@example.org", true)
	if got := sink.Wait(t, 3); len(got) != 3 || !slices.Equal(got[2].To, []string{"ann@example.org"}) {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{"Auto-Submitted: auto-replied", "In-Reply-To: <2@example.org>", "Content-Type: text/plain"} {
		if !strings.Contains(got[0].Text, want) {
			t.Errorf("the reply has no %q:\n%s", want, got[0].Text)
		}
	}
	if strings.Contains(got[0].Text, "Bitte abmelden") {
		t.Error("the reply quotes what was written")
	}
	m, err := mail.ReadMessage(strings.NewReader(got[0].Text))
	if err != nil {
		t.Fatal(err)
	}
	if id := m.Header.Get("Message-ID"); !strings.HasPrefix(id, "<") || !strings.HasSuffix(id, "@"+domain+">") {
		t.Errorf("Message-ID: %q", id)
	}
	if from, err := m.Header.AddressList("From"); err != nil || len(from) != 1 || *from[0] != (mail.Address{Name: name, Address: at}) {
		t.Errorf("From: %v, %v, want one of %s", from, err, name)
	}
}

// By SMTP the same holds: own words count when they are signed, one message to two of our addresses counts at both, and what cannot be
// recorded is not taken.
func TestBySMTP(t *testing.T) {
	o := newOffice(t, func(c *service.Config) { c.SMTP = "127.0.0.1:0" })
	send := func(message string, to ...string) error {
		c, err := smtp.Dial(o.smtp)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.SendMail("ann@example.org", to, strings.NewReader(message))
	}
	if err := send(o.sign("example.org", o.mail("ann@example.org", at, "unsubscribe", "")), at); err != nil {
		t.Fatal(err)
	}
	mailto := "u-" + o.link("bob@example.net")[strings.LastIndexByte(o.link("bob@example.net"), '/')+1:] + "@" + domain
	if err := send(o.sign("example.org", o.mail("cy@example.org", at, "unsubscribe", "")), mailto, at); err != nil {
		t.Fatal(err)
	}
	if err := send(o.mail("dee@example.org", at, "unsubscribe", ""), at); err != nil { // unsigned, by our own relay: proves nothing
		t.Fatal(err)
	}
	large := o.mail("eva@example.org", at, "unsubscribe", "unsubscribe") + strings.Repeat(strings.Repeat(" ", 900)+"\r\n", 1500)
	if err := send(o.sign("example.org", large), at); err != nil { // its end is not kept, so its signature cannot be checked
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{"eva@example.org": false, "ann@example.org": true, "bob@example.net": true, "cy@example.org": true, "dee@example.org": false} {
		if o.out(addr) != want {
			t.Errorf("%s is out: %v", addr, !want)
		}
	}
	if err := send(o.mail("x@example.org", "x@"+domain, "hello", ""), "nobody@"+domain); err == nil {
		t.Error("mail to nobody of ours is taken")
	}
	q := o.queue()
	if len(q) != 2 {
		t.Errorf("%d wait", len(q))
	}
	for _, x := range q {
		if x.Doubt != optoutv1.QueueDoubt_QUEUE_DOUBT_UNPROVED {
			t.Errorf("%v", x)
		}
	}
}

// Mail to a signed address that is handed in again, after a later yes, is no later no; the same words anew are.
func TestOldPresses(t *testing.T) {
	o := newOffice(t, nil)
	mailto := "u-" + o.link("bob@example.net")[strings.LastIndexByte(o.link("bob@example.net"), '/')+1:] + "@" + domain
	old := o.mail("bob@example.net", mailto, "unsubscribe", "")
	o.want("pressed", o.take(mailto, old), "opted_out", "bob@example.net", true)
	o.confirm("bob@example.net")
	o.want("the same mail, from an archive", o.take(mailto, "Received: from somewhere\r\n"+old), "opted_out", "bob@example.net", false)
	o.want("another", o.take(mailto, o.mail("bob@example.net", mailto, "unsubscribe", "")), "opted_out", "bob@example.net", true)
	for range 2 { // nothing tells one from the other
		o.confirm("bob@example.net")
		o.want("without a Message-ID", o.take(mailto, "Subject: unsubscribe\r\n\r\n"), "opted_out", "bob@example.net", true)
	}
}
