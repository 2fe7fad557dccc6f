// Package outgoing is what the SMTP gate and the milter share: what a message says of itself (X-Optout-…), the verdict on each
// of its recipients, the fields that go on it, and its DKIM signature. It speaks no protocol and sends nothing.
package outgoing

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"optout/service/ledger"
	"optout/service/link"
)

// Options are what the judge needs. All but Receipt are required.
type Options struct {
	Ledger *ledger.Ledger
	// Ring is the current ring of link keys.
	Ring func() *link.Ring
	// PublicURL and MailDomain are for senders that have none of their own.
	PublicURL, MailDomain string
	// Receipt makes the value of a message's X-Optout-Receipt, for all the address keys that one transaction goes to; nil makes none.
	Receipt func(sender, topic uint32, keys [][16]byte, position uint64) string
	Now     func() time.Time
	Log     *slog.Logger
}

// Judge judges messages on their way out. It is safe for concurrent use.
type Judge struct{ o Options }

// NewJudge makes a judge.
func NewJudge(o Options) *Judge { return &Judge{o} }

// Question is what one message asks: which topic of which sender, in which mailing, in answer to what.
type Question struct {
	// Key is the credential that the message came under.
	Key    *ledger.APIKey
	Sender *ledger.Sender
	Topic  *ledger.Topic
	// Mailing is the mailing number that links carry; 0 for none.
	Mailing uint32
	// Act is the person's act that the message answers; zero for none.
	Act ledger.Act
}

// Linked reports whether each recipient's copy carries a link of its own: no link stops a required topic.
func (q *Question) Linked() bool { return q.Topic.Class != ledger.Required }

// Check gives the verdict on one recipient. On a Refusal nothing may be sent to them; it is temporary when the ledger could not
// be asked. A SEND in spite of a no is an entry.
func (j *Judge) Check(ctx context.Context, q *Question, recipient string) (ledger.Verdict, *Refusal) {
	var v ledger.Verdict
	req := ledger.CheckRequest{Sender: q.Sender.Name, Topic: q.Topic.Name, Address: recipient, Act: q.Act, Key: q.Key.Number, Observe: true}
	if err := j.o.Ledger.Check(ctx, &req, &v); err != nil {
		return ledger.Verdict{}, refusalOf(err)
	}
	if !v.Send {
		return v, denied(&v)
	}
	return v, nil
}

// Observed reports whether a message that may be sent would have been refused, were its key not being observed.
func (j *Judge) Observed(q *Question, v *ledger.Verdict) bool {
	return v.InSpite != 0 && q.Key.Observing(j.o.Now())
}

// Withheld records that a message was withheld from one who was not refused when first named. It fails no message: the verdict
// stands whether or not it could be recorded.
func (j *Judge) Withheld(ctx context.Context, q *Question, v *ledger.Verdict) {
	by := ledger.By{Key: q.Key.Number, Role: q.Key.Role, Channel: ledger.ByAPI, Mailing: q.Mailing}
	if _, err := j.o.Ledger.Withhold(ctx, by, v); err != nil {
		j.o.Log.Error("what was withheld could not be recorded", "topic", q.Topic.Name, "error", err)
	}
}

// maxCandidates bounds how many topics are tried before the message has named its own.
const maxCandidates = 64

// Foresee looks, before the message has said its topic, whether the recipient would be refused whatever it says: by every topic
// that the key lists, or else by fallback, or by its default topic when that is empty, or else by every topic that it may name.
// It writes nothing, and that it returns nil gives no leave to send.
func (j *Judge) Foresee(ctx context.Context, key *ledger.APIKey, fallback, recipient string) *Refusal {
	all, r := j.candidates(key, fallback)
	if r != nil {
		return r
	}
	return j.foresee(ctx, key, all, recipient)
}

// ForeseeOnly is Foresee for a message whose topic is known; an empty topic stands for all that the key may name.
func (j *Judge) ForeseeOnly(ctx context.Context, key *ledger.APIKey, topic, recipient string) *Refusal {
	if topic == "" {
		free := *key
		free.DefaultTopic = ""
		return j.Foresee(ctx, &free, "", recipient)
	}
	q := Question{Key: key}
	if r := j.topic(&q, topic); r != nil {
		return r
	}
	return j.foresee(ctx, key, []Question{q}, recipient)
}

func (j *Judge) foresee(ctx context.Context, key *ledger.APIKey, all []Question, recipient string) *Refusal {
	var first *Refusal
	n := 0
	for _, c := range all {
		if n++; n > maxCandidates {
			return nil
		}
		var v ledger.Verdict
		req := ledger.CheckRequest{Sender: c.Sender.Name, Topic: c.Topic.Name, Address: recipient, Key: key.Number, Observe: true}
		if err := j.o.Ledger.Foresee(ctx, &req, &v); err != nil {
			return refusalOf(err)
		}
		if len(v.Denials) == 0 {
			return nil
		}
		if first == nil {
			first = denied(&v)
		}
	}
	if n == 0 {
		return errNoTopic
	}
	return first
}

// MayBeLinked reports whether a message under the key may still turn out to carry a link of its recipient's own.
func (j *Judge) MayBeLinked(key *ledger.APIKey, fallback string) bool {
	all, _ := j.candidates(key, fallback)
	return slices.ContainsFunc(all, func(q Question) bool { return q.Linked() })
}

// candidates are the topics that a message under the key may still turn out to be of.
func (j *Judge) candidates(key *ledger.APIKey, fallback string) ([]Question, *Refusal) {
	if fallback == "" {
		fallback = key.DefaultTopic
	}
	if fallback != "" && len(key.Topics) == 0 {
		q := Question{Key: key}
		r := j.topic(&q, fallback)
		return []Question{q}, r
	}
	var all []Question
	reg := j.o.Ledger.Registry()
	for _, s := range senders(reg, key) {
		for _, t := range s.Topics() {
			if key.MayUseTopic(t) {
				all = append(all, Question{Key: key, Sender: s, Topic: t})
			}
		}
	}
	return all, nil
}

// senders are those that a key's mail may be of: those it is bound to, the first being the usual one, or else "default" only.
// Another sender's topic is named as SENDER/TOPIC.
func senders(reg *ledger.Registry, key *ledger.APIKey) []*ledger.Sender {
	names := key.Senders
	if len(names) == 0 {
		names = []string{ledger.DefaultSender}
	}
	var all []*ledger.Sender
	for _, n := range names {
		if s := reg.Sender(n); s != nil {
			all = append(all, s)
		}
	}
	return all
}

// Base is where a sender's links point.
func (j *Judge) Base(s *ledger.Sender) link.Base {
	b := link.Base{PublicURL: j.o.PublicURL, MailDomain: j.o.MailDomain}
	if s.PublicURL != "" {
		b.PublicURL = s.PublicURL
	}
	if s.MailDomain != "" {
		b.MailDomain = s.MailDomain
	}
	return b
}

// ReturnPath is the address that bounces of a recipient's copy come back to (VERP); empty when there is no mail domain.
func (j *Judge) ReturnPath(q *Question, v *ledger.Verdict) string {
	domain := j.Base(q.Sender).MailDomain
	if domain == "" {
		return ""
	}
	return "b-" + string(j.o.Ring().Append(nil, j.token(q, v, link.Bounce))) + "@" + domain
}

// token names a recipient where mail about the message comes back, or quotes it.
func (j *Judge) token(q *Question, v *ledger.Verdict, p link.Purpose) link.Token {
	return link.Token{Purpose: p, Scope: q.Topic.Number, Mailing: q.Mailing, Key: v.Key}
}

// MessageDomain is the domain that Message-IDs made for a sender's mail end in.
func (j *Judge) MessageDomain(s *ledger.Sender) string {
	b := j.Base(s)
	if b.MailDomain != "" {
		return b.MailDomain
	}
	if u, err := url.Parse(b.PublicURL); err == nil && u.Hostname() != "" && !strings.Contains(u.Hostname(), ":") {
		return u.Hostname()
	}
	return "localhost"
}

// Valid reports whether a credential may submit mail: it must be a mailer's or an admin's, and still valid.
func Valid(k *ledger.APIKey) bool {
	return k != nil && k.Revoked.IsZero() && (k.Role == ledger.RoleMailer || k.Role == ledger.RoleAdmin)
}

// Credential finds the API key of a secret that may submit mail; nil when there is none.
func (j *Judge) Credential(secret string) *ledger.APIKey {
	if k := j.o.Ledger.Registry().Authenticate(secret); Valid(k) {
		return k
	}
	return nil
}

// Current returns the key as it is now, or nil when it has been revoked: sessions last longer than keys may.
func (j *Judge) Current(number uint32) *ledger.APIKey {
	if k := j.o.Ledger.Registry().APIKey(number); Valid(k) {
		return k
	}
	return nil
}

// temporary tells errors after which the same message may be tried again.
func temporary(err error) bool {
	var e *ledger.Error
	return !errors.As(err, &e) || errors.Is(err, ledger.ErrStorageFull) || errors.Is(err, ledger.ErrStorageUnavailable) || errors.Is(err, ledger.ErrClosed)
}
