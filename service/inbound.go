package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"optout/service/intake"
	"optout/service/mailauth"
	"optout/service/mailin"
	"optout/service/rpc"
)

// InboundConfig is what the service is told about mail that comes in, by whatever way. Each field is a flag.
type InboundConfig struct {
	// AuthservIDs are those whose Authentication-Results fields are believed (RFC 8601); the server that writes them must take
	// forged ones away.
	AuthservIDs []string
	// Relays are the CIDRs of mail servers of one's own that bring mail here: SPF says nothing of what they bring. Those on loopback
	// need not be named.
	Relays []string
	// Reporters are addresses, or domains of addresses, whose complaints are believed, besides the known ones.
	Reporters []string
	// QueueDelay is after how long an opt-out in the review queue is done by itself; 0 means 24 hours.
	QueueDelay time.Duration
	// SourceLimit is how many opt-outs in doubt one source may bring within a day before they wait for a person; 0 means 20.
	SourceLimit int
	// MailOut is host:port of the mail server that takes what the service passes on; empty for none.
	MailOut string
	// Reply answers those who are opted out by their own words; it needs MailOut.
	Reply bool
	// KeepMail is for how long the messages themselves are kept; 0 keeps only their digests.
	KeepMail time.Duration
	// IMAP are mailboxes to read mail from: imaps://USER@HOST/FOLDER?password-file=FILE, or ?oauth-file=FILE, and &sender=NAME for
	// another sender than "default".
	IMAP []string
	// IMAPTLS verifies the mailboxes' servers, and those that give tokens for them; nil means the system's authorities. Only for programs that embed the service.
	IMAPTLS *tls.Config
	// DNS is host:port of the DNS server that is asked for DKIM, SPF and DMARC records; empty means the system's.
	DNS string
}

// mailFolder holds the messages that are kept, in the data folder.
const mailFolder = "mail"

// newIntake makes what takes mail.
func (s *Service) newIntake() (err error) {
	c := &s.cfg.Inbound
	resolver := net.DefaultResolver
	if c.DNS != "" {
		if _, _, err := net.SplitHostPort(c.DNS); err != nil {
			return fmt.Errorf("--dns %q: give HOST:PORT", c.DNS)
		}
		resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, c.DNS)
		}}
	}
	if c.QueueDelay < 0 || c.KeepMail < 0 || c.SourceLimit < 0 {
		return errors.New("--queue-delay, --queue-source-limit and --keep-mail cannot be less than nothing")
	}
	o := intake.Options{Ledger: s.ledger, Ring: s.ring.Load, MailDomain: s.cfg.MailDomain, Reporters: c.Reporters, Reply: c.Reply, Now: s.cfg.Now, Log: s.log,
		Auth: mailauth.New(mailauth.Options{Resolver: resolver, AuthservIDs: c.AuthservIDs, Now: s.cfg.Now, Log: s.log}), Observe: s.meters.inbound}
	if c.MailOut != "" {
		if _, _, err := net.SplitHostPort(c.MailOut); err != nil {
			return fmt.Errorf("--mail-out %q: give HOST:PORT", c.MailOut)
		}
		o.Relay = &intake.Relay{Address: c.MailOut, Hostname: hostname(&s.cfg), Now: s.cfg.Now}
	} else if c.Reply {
		return errors.New("--reply needs --mail-out HOST:PORT, the mail server that takes the replies")
	}
	if c.KeepMail > 0 {
		o.Keep = &intake.Keep{Folder: filepath.Join(s.cfg.Data, mailFolder), For: c.KeepMail, Spares: s.store.Spares, Now: s.cfg.Now}
	}
	if o.Relays, err = prefixes("--mail-relay", c.Relays); err != nil {
		return err
	}
	s.intake = intake.New(o)
	return nil
}

// submit takes a message that was handed in as if it had come by SMTP. When it could not be recorded for one recipient the whole
// call fails and is to be repeated, which is harmless for the others.
func (s *Service) submit(ctx context.Context, m *rpc.Message) ([]rpc.Submitted, error) {
	e := &mailin.Envelope{Remote: m.Remote, Helo: m.Helo, MailFrom: m.MailFrom}
	message := intake.NewMessage(m.Raw)
	if m.Truncated {
		message.Size++ // how much more there is does not matter
	}
	results := s.intake.Deliver(ctx, e, m.Recipients, "", message)
	out := make([]rpc.Submitted, len(results))
	for i, r := range results {
		if errors.Is(r.Err, intake.ErrMailOut) { // first, for it may be a time-out, and not the caller's
			return nil, rpc.ErrMailOut
		}
		if r.Err != nil {
			return nil, r.Err
		}
		out[i] = rpc.Submitted{Index: i, Outcome: string(r.Outcome), Entry: r.Entry, Why: r.Why}
	}
	return out, nil
}
