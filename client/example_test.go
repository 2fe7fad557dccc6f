package client_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
)

// Send a newsletter: everybody who may be written to gets a message with their own one-click link.
func ExampleMailer_Send() {
	c, err := client.New("optout.example.com:7070", client.WithKeyFile("/etc/newsletter/optout.key"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	server, err := mail.NewClient("smtp.example.com", mail.WithTLSPolicy(mail.TLSMandatory))
	if err != nil {
		log.Fatal(err)
	}
	mailer := client.NewMailer(c, server, client.WithMailing(20261))

	msg := mail.NewMsg()
	if err := errors.Join(msg.From("letters@example.com"), msg.Bcc("ann@example.org", "bob@example.net")); err != nil {
		log.Fatal(err)
	}
	msg.Subject("News of March")
	msg.SetBodyString(mail.TypeTextPlain, "Good news.\n\nExample Letters, 1 Example Street, Springfield\n")

	report, err := mailer.Send(context.Background(), "newsletter", msg)
	for _, r := range report {
		switch r.Outcome {
		case client.Refused:
			fmt.Println(r.Recipient, "is not written to:", r.Decision)
		case client.Failed: // the server does not have it: it may be sent again
			fmt.Println(r.Recipient, "failed:", r.Err)
		case client.Unknown: // the server may have it: sending again may double it
			fmt.Println(r.Recipient, "may have got it:", r.Err)
		}
	}
	if errors.Is(err, client.ErrCannotAsk) {
		fmt.Println("the service could not be asked; nothing was sent from there on:", err)
	}
}

// Send a mailing of any size: messages are made as they are needed, and everybody's fate is written down as it is known.
func ExampleMailer_SendBulk() {
	var (
		c      *client.Client
		server *mail.Client
		people []string
	)
	mailer := client.NewMailer(c, server, client.WithMailing(20262), client.WithFooter("en"))
	messages := func(yield func(*mail.Msg, error) bool) {
		for _, to := range people {
			msg := mail.NewMsg()
			err := errors.Join(msg.From("letters@example.com"), msg.To(to))
			msg.Subject("News of April")
			msg.SetBodyString(mail.TypeTextPlain, "Good news.\n")
			if !yield(msg, err) {
				return
			}
		}
	}
	counts, err := mailer.SendBulk(context.Background(), "newsletter", messages, client.WithConcurrency(8),
		client.WithResults(func(r client.Result) { fmt.Println(r.Message, r.Outcome, r.Err) }),
		client.WithProgress(func(p client.Progress) { fmt.Printf("%d of %d sent\n", p.Sent, p.Recipients) }))
	if stopped := (*client.BulkError)(nil); errors.As(err, &stopped) {
		fmt.Println("resume at message", stopped.Resume, "with those who were not asked about:", err)
	}
	fmt.Println(counts.Sent, "sent,", counts.Refused, "refused")
}

// Lint what your templates render, in their tests.
func ExampleLintMessage() {
	message := strings.NewReader("From: letters@example.com\nSubject: hello\n\nBuy now!\n")
	found, err := client.LintMessage(message, client.LintOptions{PostalAddress: "1 Example Street, Springfield", UnsignedYet: true})
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range found {
		fmt.Println(f.Level, f.Rule)
	}
	// Output:
	// error date-once
	// error message-id
	// error list-unsubscribe-missing
	// error body-link-text
	// error postal-address
}

// Sign with DKIM on the way out. The list fields are covered without being named.
func ExampleWithDKIM() {
	var (
		c      *client.Client
		server *mail.Client
		key    ed25519.PrivateKey
	)
	signer := mail.NewDKIMSigner("example.com", "mail2026", key)
	mailer := client.NewMailer(c, server, client.WithDKIM(signer))
	_ = mailer
}

// A password reset answers what the person has just asked for, so it passes their no. The topic is of class `required` with
// ground `answer`, the API key names it, and the ledger keeps an entry of it.
func ExampleInAnswerTo() {
	var (
		c      *client.Client
		server *mail.Client
		msg    *mail.Msg
	)
	requested := time.Now()
	mailer := client.NewMailer(c, server, client.InAnswerTo("password reset requested", requested))
	if _, err := mailer.Send(context.Background(), "password-reset", msg); err != nil {
		log.Fatal(err)
	}
}

// Ask about one address.
func ExampleClient_CheckSend() {
	var c *client.Client
	d, err := c.CheckSend(context.Background(), "newsletter", "ann@example.org")
	switch {
	case client.IsUnknownTopic(err):
		fmt.Println("no such topic: look for a typing error")
	case err != nil:
		fmt.Println("could not ask, so do not send:", err)
	case d.Send():
		fmt.Println("send")
	default:
		fmt.Println(d)
	}
}

// Ask about a list of any length without holding it in memory.
func ExampleClient_CheckEach() {
	var c *client.Client
	file, err := os.Open("recipients.txt")
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	addresses := func(yield func(string) bool) {
		for lines.Scan() && yield(lines.Text()) {
		}
	}
	for a, err := range c.CheckEach(context.Background(), "newsletter", addresses) {
		if err != nil {
			log.Fatal(err) // nothing is known of the rest
		}
		if a.Send() {
			fmt.Println(a.Address)
		}
	}
}

// A no is durable and in force when the call returns. The next check anywhere can be made to wait for it.
func ExampleClient_Unsubscribe() {
	var c *client.Client
	no, err := c.Unsubscribe(context.Background(), "ann@example.org", nil)
	if err != nil {
		log.Fatal(err) // it may or may not be recorded: repeat
	}
	d, err := c.CheckSend(context.Background(), "newsletter", "ann@example.org", client.AtLeast(no.Position))
	fmt.Println(d.Send(), err)
}

// Reach the methods of the API that Client does not wrap.
func ExampleClient_Conn() {
	var c *client.Client
	suppressions := optoutv1.NewSuppressionServiceClient(c.Conn())
	story, err := suppressions.ExplainAddress(context.Background(), &optoutv1.ExplainAddressRequest{Address: "ann@example.org"})
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range story.Entries {
		fmt.Println(e.Position, e.Kind, e.At.AsTime())
	}
}
