package intake_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	optoutv1 "optout/proto/optout/v1"
	"optout/service"
	"optout/service/link"
	"optout/service/mailtest"
)

// What lies in a mailbox has the effect that it would have by SMTP, as far as its header tells for which address of ours it was,
// and is marked as done only when that is in force.
func TestByIMAP(t *testing.T) {
	d := mailtest.StartDovecot(t)
	o := newOffice(t, func(c *service.Config) {
		c.Inbound.IMAP, c.Inbound.IMAPTLS, c.Inbound.AuthservIDs = []string{d.URL("INBOX")}, d.TLS, []string{"mx.example.com"}
	})
	box, err := imapclient.DialTLS(d.Addr, &imapclient.Options{TLSConfig: d.TLS.Clone()})
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	if err := box.Login(mailtest.DovecotUser, "correct horse").Wait(); err != nil {
		t.Fatal(err)
	}
	contact := "help@example.com"
	if _, err := optoutv1.NewAdminServiceClient(o.c.Conn()).UpdateSender(t.Context(), &optoutv1.UpdateSenderRequest{ContactAddress: &contact}); err != nil {
		t.Fatal(err)
	}
	pressed := "u-" + o.link("bob@example.net")[strings.LastIndexByte(o.link("bob@example.net"), '/')+1:] + "@" + domain
	messages := []string{
		"Delivered-To: b-" + o.token("gone@example.net", link.Bounce) + "@" + domain + "\r\n" + dsn("gone@example.net", "5.1.1"),
		"X-Apple-Unsubscribe: true\r\nAuto-Submitted: auto-replied\r\n" + o.mail("bob@icloud.example", pressed, "unsubscribe", "Apple Mail sent this email to unsubscribe"),
		o.sign("example.org", o.mail("ann@example.org", "help@company.example", "Abmelden", "")),
		"Authentication-Results: mx.example.com; dmarc=pass header.from=example.net\r\n" + o.mail("cy@example.net", at, "stop", ""),
		o.mail("mallory@example.net", at, "stop", ""),
		o.mail("blank@example.net", "undisclosed-recipients:;", "", ""),
	}
	for _, m := range messages {
		put := box.Append("INBOX", int64(len(m)), nil)
		if _, err := io.WriteString(put, m); err != nil {
			t.Fatal(err)
		}
		if err := put.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := put.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := box.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err := box.Noop().Wait(); err != nil {
			t.Fatal(err)
		}
		found, err := box.UIDSearch(&imap.SearchCriteria{Flag: []imap.Flag{"$OptoutDone"}}, nil).Wait()
		if err != nil {
			t.Fatal(err)
		}
		done := found.AllUIDs()
		if len(done) == len(messages) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d messages are marked", len(done), len(messages))
		}
	}
	for _, x := range o.queue() { // at a contact address an empty mail asks for nothing
		if blank := x.Address == "blank@example.net"; blank && x.Doubt != optoutv1.QueueDoubt_QUEUE_DOUBT_UNREAD {
			t.Errorf("an empty mail that names none of our addresses: %v", x)
		}
	}
	for addr, want := range map[string]optoutv1.EntryKind{"gone@example.net": optoutv1.EntryKind_ENTRY_KIND_UNDELIVERABLE,
		"bob@example.net": optoutv1.EntryKind_ENTRY_KIND_OPTED_OUT, "cy@example.net": optoutv1.EntryKind_ENTRY_KIND_OPTED_OUT,
		// To names an address that is not ours: it may have been written to somebody else, so it waits.
		"ann@example.org": optoutv1.EntryKind_ENTRY_KIND_QUEUED, "mallory@example.net": optoutv1.EntryKind_ENTRY_KIND_QUEUED} {
		if story := o.story(addr); len(story) != 1 || story[0].Kind != want {
			t.Errorf("%s: %v, want %v", addr, story, want)
		}
	}
}
