// Package imapin reads mail out of an existing mailbox by IMAP (RFC 3501), for organisations whose unsubscribe@ address lies with a
// mail provider. It hands each message to whoever takes mail and marks it only when that is done, so that a message is read again
// rather than lost; it deletes nothing. What a message means is not its business.
//
// A message that was taken gets the keyword $OptoutDone. Where a mailbox allows no keywords it is moved to the folder "optout-done"
// beside it (RFC 6851). So several pollers may watch one mailbox: they look at its messages in different order and pass over what
// another has marked meanwhile; what two take at the same moment is taken twice, which must be harmless.
package imapin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"
)

// Options are what a poller needs.
type Options struct {
	// Mailbox is imaps://USER@HOST[:993]/FOLDER?password-file=FILE, or imap:// for STARTTLS, which may be missing only on loopback.
	// USER is percent-encoded where it holds an "@"; without FOLDER it is INBOX.
	Mailbox string
	// Take takes a message. It returns nil only when everything that the message asks for is durable.
	Take func(ctx context.Context, raw []byte) error
	// TLS verifies the server; nil means the system's authorities.
	TLS *tls.Config
	// Poll is how often a server is asked that does not tell by itself (RFC 2177); 0 means once a minute.
	Poll time.Duration
	Now  func() time.Time
	Log  *slog.Logger
}

const (
	// done marks what was taken, large what is too large to be.
	done        = "$OptoutDone"
	large       = "$OptoutTooLarge"
	doneInstead = "optout-done"
	// maxMessage is the largest message that is read, in octets.
	maxMessage = 30 << 20
	// perRound is how many messages are looked at before the server is asked anew which there are.
	perRound       = 200
	dialTimeout    = 30 * time.Second
	commandTimeout = time.Minute
	takeTimeout    = time.Minute
	// idleFor is how long the server is left to tell by itself (RFC 2177 asks for less than 29 minutes), and lookAgain how often the
	// mailbox is looked through whatever it tells.
	idleFor   = 25 * time.Minute
	lookAgain = 15 * time.Minute
	// A message that could not be taken, and a server that could not be reached, are tried again after firstWait, then after twice
	// that, up to longestWait.
	firstWait   = 5 * time.Second
	longestWait = 15 * time.Minute
)

// Poller watches one mailbox.
type Poller struct {
	o                  Options
	addr, host, folder string
	user, passwordFile string
	implicit, loopback bool
	// name is how the mailbox is named in the log: without its user.
	name string
	// later are the messages that could not be taken, by UID, of the mailbox's uidValidity.
	later       map[uint32]retry
	uidValidity uint32
	firstWait   time.Duration
}

type retry struct {
	wait time.Duration
	at   time.Time
}

// New reads the URL and the password file; it connects to nothing yet.
func New(o Options) (*Poller, error) {
	p := &Poller{o: o, folder: "INBOX", later: map[uint32]retry{}, firstWait: firstWait}
	u, err := url.Parse(o.Mailbox)
	if err != nil || u.Scheme != "imaps" && u.Scheme != "imap" || u.Hostname() == "" || u.User.Username() == "" {
		return nil, errors.New("it must be imaps://USER@HOST/FOLDER?password-file=FILE, with an \"@\" in USER written as %40")
	}
	if _, set := u.User.Password(); set {
		return nil, errors.New("it holds a password, which anybody on the machine could see: put it into a file and give ?password-file=FILE")
	}
	p.implicit, p.host, p.user, p.passwordFile = u.Scheme == "imaps", u.Hostname(), u.User.Username(), u.Query().Get("password-file")
	port := u.Port()
	if port == "" {
		if port = "143"; p.implicit {
			port = "993"
		}
	}
	p.addr = net.JoinHostPort(p.host, port)
	ip, err := netip.ParseAddr(p.host)
	p.loopback = p.host == "localhost" || err == nil && ip.IsLoopback()
	if f := strings.Trim(u.Path, "/"); f != "" {
		p.folder = f
	}
	p.name = u.Scheme + "://" + p.addr + "/" + p.folder
	if p.passwordFile == "" {
		return nil, errors.New("?password-file=FILE is missing")
	}
	if _, err := p.password(); err != nil {
		return nil, err
	}
	if p.o.Poll == 0 {
		p.o.Poll = time.Minute
	}
	return p, nil
}

// password is read anew for each connection, so that it can be changed while the service runs.
func (p *Poller) password() (string, error) {
	text, err := os.ReadFile(p.passwordFile)
	if err != nil {
		return "", err
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return "", fmt.Errorf("%s is empty", p.passwordFile)
	}
	return password, nil
}

// redacted is an error without the user, whom servers like to repeat.
func (p *Poller) redacted(err error) string {
	return strings.ReplaceAll(err.Error(), p.user, "…")
}

// Run watches the mailbox until ctx ends. Whatever goes wrong it tries again, after a while.
func (p *Poller) Run(ctx context.Context) {
	wait := p.firstWait
	for ctx.Err() == nil {
		worked, err := p.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if worked {
			wait = p.firstWait
		}
		p.o.Log.Warn("the mailbox cannot be read now; it is tried again", "mailbox", p.name, "error", p.redacted(err), "in", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait + rand.N(wait/2+1)): // so that pollers do not come back all at once
		}
		wait = min(2*wait, longestWait)
	}
}
