package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// NewAPIKey describes a key to create.
type NewAPIKey struct {
	Label   string
	Role    Role
	Senders []string
	Topics  []string
	// DefaultTopic and ListSoftware are for mail through the SMTP gate and the milter: see KeySettings.
	DefaultTopic string
	ListSoftware bool
}

// CreateAPIKey creates a key. secret is made by the caller from 256 random bits; only its SHA-256 is kept. Errors:
// ErrUnknownSender, ErrUnknownTopic, ErrInvalidField, and those of a write.
func (l *Ledger) CreateAPIKey(ctx context.Context, by By, k NewAPIKey, secret string) (*APIKey, Outcome, error) {
	if k.Role < RoleMailer || k.Role > RoleAdmin {
		return nil, Outcome{}, invalid("key.role", "unknown role", "use "+strings.Join(roleNames[1:], ", "))
	}
	if err := checkText("key.label", k.Label, 100, true); err != nil {
		return nil, Outcome{}, err
	}
	reg := l.Registry()
	for _, name := range k.Senders {
		if _, err := l.sender(reg, name); err != nil || name == "" {
			return nil, Outcome{}, invalid("key.senders", "there is no sender "+strconv.Quote(clip(name)), "see \"optout sender list\"")
		}
	}
	for _, name := range k.Topics {
		if !slices.ContainsFunc(reg.Senders(), func(s *Sender) bool {
			return s.Topic(name) != nil && (len(k.Senders) == 0 || slices.Contains(k.Senders, s.Name))
		}) {
			return nil, Outcome{}, invalid("key.topics", "no sender of the key has a topic "+strconv.Quote(clip(name)), "see \"optout topic list\"")
		}
	}
	if err := l.checkDefaultTopic(&APIKey{Role: k.Role, Senders: k.Senders, Topics: k.Topics}, k.DefaultTopic, "key.default_topic"); err != nil {
		return nil, Outcome{}, err
	}
	hash := sha256.Sum256([]byte(secret))
	var n uint32
	o, err := l.admin(ctx, nil, func(t *tx) (uint64, error) {
		n = 1
		for i := range t.registry().apiKeys {
			n = max(n, i+1)
		}
		d := map[string]string{"number": strconv.Itoa(int(n)), "label": k.Label, "role": strconv.Itoa(int(k.Role)),
			"senders": strings.Join(k.Senders, ","), "topics": strings.Join(k.Topics, ","), "sha256": hex.EncodeToString(hash[:])}
		if k.DefaultTopic != "" {
			d["default_topic"] = k.DefaultTopic
		}
		if k.ListSoftware {
			d["list_software"] = "true"
		}
		return t.add(&Entry{Kind: APIKeyCreated, Channel: by.Channel, Actor: by.Key, Detail: d}, nil)
	})
	if err != nil {
		return nil, o, err
	}
	return l.Registry().APIKey(n), o, nil
}

// checkDefaultTopic refuses a default topic that the key may not name with every sender that it may use.
func (l *Ledger) checkDefaultTopic(k *APIKey, name, field string) error {
	if name == "" {
		return nil
	}
	known := false
	for _, s := range l.Registry().Senders() {
		if !k.MayUseSender(s.Name) {
			continue
		}
		if t := s.Topic(name); t != nil {
			known = true
			if !k.MayUseTopic(t) {
				return invalid(field, "the key may not name the topic "+strconv.Quote(clip(name)), "list it among the key's topics, or choose one of those")
			}
		}
	}
	if !known {
		return invalid(field, "no sender of the key has a topic "+strconv.Quote(clip(name)), "see \"optout topic list\"")
	}
	return nil
}

// KeyChange is what to change of a key's settings; nil leaves a setting as it is.
type KeyChange struct {
	DefaultTopic *string
	ListSoftware *bool
	// ObserveUntil begins observe mode, or ends it when it is not in the future.
	ObserveUntil *time.Time
}

// UpdateAPIKey changes what the gate and the milter do with a key's mail. Observe mode lasts MaxObserve from its first begin at
// the most: it is for cutting over, not a way round. Errors: ErrNotFound, ErrInvalidField, and those of a write.
func (l *Ledger) UpdateAPIKey(ctx context.Context, by By, n uint32, c KeyChange) (Outcome, error) {
	return l.admin(ctx, nil, func(t *tx) (uint64, error) {
		k := t.registry().apiKeys[n]
		if k == nil || !k.Revoked.IsZero() {
			return 0, &Error{Kind: ErrNotFound, Field: "number", Problem: fmt.Sprintf("there is no valid API key %d", n), Remedy: "see \"optout key list\""}
		}
		d := map[string]string{}
		if c.DefaultTopic != nil {
			if err := l.checkDefaultTopic(k, *c.DefaultTopic, "default_topic"); err != nil {
				return 0, err
			}
			d["default_topic"] = *c.DefaultTopic
		}
		if c.ListSoftware != nil {
			d["list_software"] = strconv.FormatBool(*c.ListSoftware)
		}
		if c.ObserveUntil != nil {
			began := k.ObserveFrom
			if began.IsZero() {
				began = Time(t.now)
				d["observe_from"] = strconv.FormatInt(t.now, 10)
			}
			if last := began.Add(MaxObserve); c.ObserveUntil.After(last) {
				return 0, invalid("observe_until", "a key is observed for at most 14 days from its first begin", "the latest is "+last.UTC().Format(time.RFC3339))
			}
			d["observe_until"] = strconv.FormatInt(c.ObserveUntil.UnixMilli(), 10)
		}
		if len(d) == 0 {
			return 0, invalid("", "nothing to change", "give a default topic, the mark of list software, or the end of observe mode")
		}
		d["number"] = strconv.Itoa(int(n))
		return t.add(&Entry{Kind: APIKeyUpdated, Channel: by.Channel, Actor: by.Key, Detail: d}, nil)
	})
}

// RevokeAPIKey revokes a key at once. Errors: ErrNotFound, ErrLastAdmin, and those of a write.
func (l *Ledger) RevokeAPIKey(ctx context.Context, by By, n uint32) (Outcome, error) {
	return l.admin(ctx, nil, func(t *tx) (uint64, error) {
		keys := t.registry().apiKeys
		k := keys[n]
		if k == nil {
			return 0, &Error{Kind: ErrNotFound, Field: "number", Problem: fmt.Sprintf("there is no API key %d", n), Remedy: "see \"optout key list\""}
		}
		if !k.Revoked.IsZero() {
			return 0, &Error{Kind: ErrNotFound, Field: "number", Problem: fmt.Sprintf("API key %d was revoked before", n)}
		}
		admins := 0
		for _, o := range keys {
			if o.Role == RoleAdmin && o.Revoked.IsZero() {
				admins++
			}
		}
		if k.Role == RoleAdmin && admins == 1 {
			return 0, &Error{Kind: ErrLastAdmin, Field: "number", Problem: "it is the last admin key", Remedy: "create another admin key first"}
		}
		return t.add(&Entry{Kind: APIKeyRevoked, Channel: by.Channel, Actor: by.Key, Detail: map[string]string{"number": strconv.Itoa(int(n))}}, nil)
	})
}
