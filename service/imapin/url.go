package imapin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// Mailbox is one folder of one account, as its URL names it:
//
//	imaps://USER@HOST[:993]/FOLDER?password-file=FILE[&sender=NAME]
//	imaps://USER@HOST[:993]/FOLDER?oauth-file=FILE[&sender=NAME]
//	imap://USER@HOST[:143]/FOLDER?…
//
// imaps is TLS from the first octet (RFC 8314); imap demands STARTTLS, but for hosts on loopback. USER and FOLDER are
// percent-encoded where they hold what a URL reserves, such as the @ of a user that is an address (%40). FOLDER is INBOX when it is
// left out, and in UTF-8.
type Mailbox struct {
	// Address is host:port, Host the name that its certificate must have.
	Address, Host string
	// TLS tells that the connection is encrypted from the first octet.
	TLS bool
	// Loopback tells that the host is this machine, so that plaintext is allowed.
	Loopback bool
	// User is the account.
	User string
	// PasswordFile is the file with its password, or OAuthFile the one that says how tokens for it are got; the other is empty.
	PasswordFile, OAuthFile string
	// Folder is the name of the folder.
	Folder string
	// Sender is the sender whose mailbox it is; empty where the URL does not say.
	Sender string
}

// Parse reads a mailbox's URL. Its errors do not repeat the URL, which may hold an address.
func Parse(text string) (Mailbox, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Mailbox{}, errors.New("it is no URL: give imaps://USER@HOST/FOLDER?password-file=FILE or ?oauth-file=FILE, with %40 for an @ in USER")
	}
	m := Mailbox{Host: u.Hostname(), TLS: u.Scheme == "imaps", User: u.User.Username(), Folder: strings.TrimPrefix(u.Path, "/")}
	port := u.Port()
	switch {
	case !m.TLS && u.Scheme != "imap":
		return Mailbox{}, errors.New("its scheme is neither imaps nor imap")
	case m.Host == "":
		return Mailbox{}, errors.New("it names no host")
	case m.User == "":
		return Mailbox{}, errors.New("it names no user: give imaps://USER@HOST/…, with %40 for an @ in USER")
	case u.Fragment != "":
		return Mailbox{}, errors.New("it has a fragment: write # as %23")
	case port == "" && m.TLS:
		port = "993"
	case port == "":
		port = "143"
	}
	if _, given := u.User.Password(); given {
		return Mailbox{}, errors.New("it holds a password, which others would see: put it into a file and give password-file=FILE")
	}
	if m.Folder == "" {
		m.Folder = "INBOX"
	}
	for name, values := range u.Query() {
		switch {
		case len(values) != 1:
			return Mailbox{}, fmt.Errorf("it gives %q more than once", name)
		case name == "password-file":
			m.PasswordFile = values[0]
		case name == "oauth-file":
			m.OAuthFile = values[0]
		case name == "sender":
			m.Sender = values[0]
		default:
			return Mailbox{}, fmt.Errorf("it has a setting %q: there are password-file, oauth-file and sender", clip(name))
		}
	}
	if (m.PasswordFile == "") == (m.OAuthFile == "") {
		return Mailbox{}, errors.New("it must name a file with the password or one for OAuth: give ?password-file=FILE or ?oauth-file=FILE, and not both")
	}
	for _, s := range []string{m.User, m.Folder} {
		if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			return Mailbox{}, errors.New("its user or folder holds a control character")
		}
	}
	m.Address = net.JoinHostPort(m.Host, port)
	m.Loopback = loopback(m.Host)
	return m, nil
}

// loopback tells that a host is this machine.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// clip shortens what others wrote, for an error or the log.
func clip(s string) string { return s[:min(len(s), 40)] }
