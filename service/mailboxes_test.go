package service_test

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"optout/client/clienttest"
	optoutv1 "optout/proto/optout/v1"
	"optout/service"
	"optout/service/keydir"
	"optout/service/link"
	"optout/service/mailtest"
)

// A bounce and an unsubscribe mail that lie in a mailbox have the effect they would have by SMTP, and are marked.
func TestMailboxEndToEnd(t *testing.T) {
	d := mailtest.StartDovecot(t)
	var data string
	svc := clienttest.Start(t, func(c *service.Config) {
		data = c.Data
		c.Inbound.IMAP, c.Inbound.IMAPTLS = []string{d.URL("INBOX")}, d.TLS
	})
	svc.CreateTopic(t, "news")
	c := svc.Client(t)
	token := func(addr string) string {
		l, err := c.IssueLink(t.Context(), "news", addr, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		return l.Url[strings.LastIndexByte(l.Url, '/')+1:]
	}
	dir, err := keydir.Open(filepath.Join(data, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	k := dir.Keys(keydir.Link)[0]
	ring, err := link.NewRing(uint8(k.ID), link.Key{ID: uint8(k.ID), Secret: k.Secret})
	if err != nil {
		t.Fatal(err)
	}
	bounced, err := ring.Open(token("gone@example.org"), link.Unsubscribe)
	if err != nil {
		t.Fatal(err)
	}
	bounced.Purpose = link.Bounce
	owner, err := imapclient.DialTLS(d.Addr, &imapclient.Options{TLSConfig: d.TLS.Clone()})
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	if err := owner.Login(mailtest.DovecotUser, "correct horse").Wait(); err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{
		"To: <b-" + string(ring.Append(nil, bounced)) + "@unsub.example.com>\nFrom: MAILER-DAEMON@mx.example.org\nSubject: Undelivered Mail\nMIME-Version: 1.0\n" +
			"Content-Type: multipart/report; report-type=delivery-status; boundary=x\n\n--x\n\nIt came back.\n\n--x\nContent-Type: message/delivery-status\n\n" +
			"Reporting-MTA: dns; mx.example.org\n\nFinal-Recipient: rfc822; gone@example.org\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 user unknown\n\n--x--\n",
		"To: <u-" + token("bob@example.org") + "@unsub.example.com>\nFrom: bob@example.org\nAuto-Submitted: auto-replied\nSubject: unsubscribe\n\nApple Mail sent this.\n",
	} {
		text := strings.ReplaceAll(message, "\n", "\r\n")
		put := owner.Append("INBOX", int64(len(text)), nil)
		if _, err := io.WriteString(put, text); err != nil {
			t.Fatal(err)
		}
		if err := put.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := put.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := owner.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err := owner.Noop().Wait(); err != nil {
			t.Fatal(err)
		}
		done, err := owner.UIDSearch(&imap.SearchCriteria{Flag: []imap.Flag{"$OptoutDone"}}, nil).Wait()
		if err != nil {
			t.Fatal(err)
		}
		if len(done.AllUIDs()) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of 2 messages are marked", len(done.AllUIDs()))
		}
	}
	// Marked means in force.
	for addr, want := range map[string]optoutv1.EntryKind{"gone@example.org": optoutv1.EntryKind_ENTRY_KIND_UNDELIVERABLE, "bob@example.org": optoutv1.EntryKind_ENTRY_KIND_OPTED_OUT} {
		story, err := optoutv1.NewSuppressionServiceClient(c.Conn()).ExplainAddress(t.Context(), &optoutv1.ExplainAddressRequest{Address: addr})
		if err != nil {
			t.Fatal(err)
		}
		if len(story.Entries) != 1 || story.Entries[0].Kind != want {
			t.Errorf("%s: %v, want %v", want, story.Entries, want)
		}
	}
}
