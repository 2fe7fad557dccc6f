// Package imapin takes mail out of a mailbox, for those whose unsubscribe address lives in one that they have: it watches a folder by
// IMAP, hands each message over, and marks it done once that has had its effect.
//
// The mailbox itself remembers what is done, so that nothing is lost with the service: a message is done when it carries the
// keyword $OptoutDone. Where a folder takes no keywords (PERMANENTFLAGS without \*, as Exchange's), it is moved into the folder
// optout-done instead. Mail is never deleted, and otherwise left as it is, unread mail unread. Taking the keyword away by hand, or
// moving the message back, has it taken again.
//
// A message is taken at least once. Between its effect and its mark the service, the connection or the server may fail; then it is
// taken again, which must be harmless. Two pollers may watch one folder. Where the server has CONDSTORE (RFC 7162) they seldom take
// the same message: each first claims it by the keyword $OptoutTaken, set on the condition that nobody has touched the message
// since it was looked at. A claim carries no name and no time; whoever sees one of somebody else for longer than any owner needs
// takes it away, under the same condition, and claims anew.
//
// The account is proved by a password, or by a token of OAuth 2.0 (RFC 6749), which providers demand more and more. A session ends with
// the token that it began with, and another goes on with the next one: most servers would cut it off then.
//
// Everything that the servers say is bounded in time and in octets.
package imapin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"optout/service/secretfile"

	"github.com/emersion/go-imap/v2"
)

// Options are what a Poller needs.
type Options struct {
	// Mailbox is the mailbox's URL; see Mailbox.
	Mailbox string
	// Take takes a message and returns nil only when its effect is durable. It is called for one message at a time, and may see a
	// message again. It must return soon after ctx ends. Its errors are logged, so they hold no personal data.
	Take func(ctx context.Context, raw []byte) error
	// TLS is for servers whose certificate the system does not know; nil means the system's authorities. Given, it has plaintext
	// refused on loopback too. Of token servers it says only which authorities vouch for them.
	TLS *tls.Config
	// Log takes the log; nil means none.
	Log *slog.Logger
	// Now is the clock; nil means the wall clock.
	Now func() time.Time
	// Poll is how often a server is asked that cannot tell of new mail by itself (IDLE, RFC 2177); 0 means a minute.
	Poll time.Duration
	// Observe is told what became of each message or connection, for metrics; may be nil.
	Observe func(outcome string)
}

// What Observe is told.
const (
	// Taken: a message was taken.
	Taken = "taken"
	// Failed: a message could not be taken or marked, and is tried again.
	Failed = "failed"
	// TooLarge: a message is larger than MaxBytes and was left.
	TooLarge = "too large"
	// Disconnected: the mailbox cannot be reached, and is tried again.
	Disconnected = "disconnected"
)

// MaxBytes is the size in octets of the largest message that is taken. A larger one is left where it is, flagged and logged once.
const MaxBytes = 30 << 20

// pace are the intervals by which a Poller works.
type pace struct {
	// command, body and take are how long a command, a message's octets, and Take may take.
	command, body, take time.Duration
	// claim is how long a claim of another poller is respected: longer than body and take together.
	claim time.Duration
	// idle is for how long one IDLE is left standing: less than the 29 minutes of RFC 2177, and than what firewalls forget after.
	idle time.Duration
	// whole is how often the whole folder is searched, and not only for new mail.
	whole time.Duration
	// retry is the first pause after a failure of a message, reconnect after one of the connection, and refused after a refused login;
	// each doubles up to its longest.
	retry, retryMost, reconnect, reconnectMost, refused, refusedMost time.Duration
}

func usualPace() pace {
	return pace{command: time.Minute, body: 3 * time.Minute, take: time.Minute, claim: 5 * time.Minute, idle: 20 * time.Minute, whole: time.Hour,
		retry: 10 * time.Second, retryMost: time.Hour, reconnect: time.Second, reconnectMost: 5 * time.Minute, refused: time.Minute, refusedMost: 30 * time.Minute}
}

// grace is for how long a connection outlives the end of Run, so that the message in hand can be marked or given back.
const grace = 2 * time.Second

// Poller watches one mailbox.
type Poller struct {
	o       Options
	mailbox Mailbox
	log     *slog.Logger
	pace    pace
	// tokens gets tokens; nil where there is a password.
	tokens *tokens
	// validity is the folder's UIDVALIDITY, to which the UIDs of pending belong.
	validity uint32
	pending  map[imap.UID]*pending
}

// New reads the URL and tries to read the file that it names: the one with the password is read anew for every connection, the one for
// OAuth for every token. It connects to nothing yet.
func New(o Options) (*Poller, error) {
	m, err := Parse(o.Mailbox)
	if err != nil {
		return nil, err
	}
	if o.Take == nil {
		return nil, errors.New("imapin: Options.Take is missing")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Poll <= 0 {
		o.Poll = time.Minute
	}
	if o.Observe == nil {
		o.Observe = func(string) {}
	}
	p := &Poller{o: o, mailbox: m, log: o.Log.With("server", m.Address, "folder", m.Folder), pace: usualPace(), pending: map[imap.UID]*pending{}}
	if m.OAuthFile == "" {
		_, err = p.proof(context.Background())
		return p, err
	}
	p.tokens = newTokens(m.OAuthFile, o.TLS, o.Now, p.log)
	if err := p.tokens.check(); err != nil {
		return nil, fmt.Errorf("oauth-file: %w", err)
	}
	return p, nil
}

// proof is what shows the server that the account is ours: a password or a token.
type proof struct {
	word string
	// token tells that it is a token, and kept that it was used before.
	token, kept bool
	// until is when a session must end that began with it; zero means never.
	until time.Time
}

// proof returns what the next connection is to use.
func (p *Poller) proof(ctx context.Context) (proof, error) {
	if p.tokens == nil {
		word, err := secretfile.Read(p.mailbox.PasswordFile)
		if err != nil {
			err = fmt.Errorf("password-file: %w", err)
		}
		return proof{word: word}, err
	}
	t, kept, err := p.tokens.get(ctx)
	if err != nil {
		return proof{}, fmt.Errorf("oauth-file: %w", err)
	}
	x := proof{word: t.word, token: true, kept: kept}
	if !t.brief {
		x.until = t.until
	}
	return x, nil
}

// Run watches the mailbox until ctx ends. When the connection fails it logs that and tries again, with growing pauses.
func (p *Poller) Run(ctx context.Context) {
	failures := 0
	for {
		worked, err := p.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if worked {
			failures = 0
		}
		if errors.Is(err, errTokenStale) {
			p.log.Info("the server no longer takes the token", "remedy", "another is asked for")
			continue // if that is refused too, it is a failure
		}
		if err == nil {
			continue // the token runs out
		}
		failures++
		first, most := p.pace.reconnect, p.pace.reconnectMost
		remedy := "it is tried again"
		if see := seeTo(err); see != "" {
			// Servers lock accounts that try too often.
			first, most = p.pace.refused, p.pace.refusedMost
			remedy = see + "; " + remedy
		}
		pause := backOff(first, most, failures)
		p.o.Observe(Disconnected)
		p.log.Warn("the mailbox cannot be watched", "error", told(err), "again_in", pause.Round(time.Second), "remedy", remedy)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// seeTo says what there is to be done about a refusal; empty where the failure is something else, which may pass by itself.
func seeTo(err error) string {
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		return "see to the server's certificate, or make its authority known to this machine (SSL_CERT_FILE)"
	case errors.Is(err, errRefused):
		return "see to the password file"
	case errors.Is(err, errNoToken):
		return "see to the OAuth file"
	case errors.Is(err, errTokenRefused):
		return "see whether the provider lets this client into this mailbox, and to scope in the OAuth file"
	case errors.Is(err, errNoFolder):
		return "see that the folder is there, is spelt as the server spells it, and that the user may write in it"
	case errors.Is(err, errNoMechanism):
		return "see to the server's settings, or give password-file"
	}
	return ""
}

// backOff is the pause after the n-th failure: it doubles from first up to most, and is spread by half either way, so that pollers
// that failed together do not come back together.
func backOff(first, most time.Duration, n int) time.Duration {
	pause := min(first<<min(n-1, 20), most)
	return pause/2 + rand.N(pause)
}
