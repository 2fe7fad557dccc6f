package cli

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
)

var messageID = regexp.MustCompile(`(?m)^Message-ID: (<\S+>)\r?$`)

// reply answers a letter as a person does, from a mailbox that nobody here has mailed, and hands the answer to the service's mail
// server.
func (d *demo) reply(letter string) error {
	id := messageID.FindStringSubmatch(letter)
	if id == nil {
		return errors.New("the letter has no Message-ID")
	}
	const from = "me@private.example"
	text := strings.Join([]string{
		"From: " + from,
		"To: " + demoContact,
		"Subject: Re: Example Letters: newsletter",
		"Date: " + time.Now().Format(time.RFC1123Z),
		"Message-ID: <answer@private.example>",
		"In-Reply-To: " + id[1],
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8",
		"",
		"请不要再给我发邮件。",
		"",
		"> Good news this month.",
		"",
	}, "\r\n")
	for line := range strings.Lines(text) {
		fmt.Fprint(d.Stdout, "   | ", strings.TrimRight(line, "\r\n"), "\n")
	}
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(d.ctx, "tcp", d.svc.Addresses().SMTP)
	if err != nil {
		return err
	}
	c := smtp.NewClient(conn)
	defer c.Close()
	if err := c.Mail(from, nil); err != nil {
		return err
	}
	if err := c.Rcpt(demoContact, nil); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(text)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	fmt.Fprintln(d.Stdout, "   250: taken, which means that the opt-out is on disk and in force")
	return nil
}
