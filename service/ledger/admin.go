package ledger

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"

	"optout/service/address"
)

// DefaultSender is the sender that an installation starts with.
const DefaultSender = "default"

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

func checkName(field, name string) error {
	if !namePattern.MatchString(name) {
		return invalid(field, "it must be 1 to 63 characters of a-z, 0-9 and '-', beginning with a letter", "choose another name")
	}
	return nil
}

// admin proposes an administrative decision.
func (l *Ledger) admin(ctx context.Context, req *request, decide func(*tx) (uint64, error)) (Outcome, error) {
	return l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		at, err := decide(t)
		return at, err == nil, err
	}, false)
}

// SenderSettings are the settings to set; a nil field is left as it is.
type SenderSettings struct {
	DisplayName, PostalAddress, PublicURL, MailDomain, PrivacyPolicyURL, PrivacyPolicyVersion, DataProtection, ContactAddress, ForwardAddress *string
}

func (s *SenderSettings) detail() (map[string]string, error) {
	d := map[string]string{}
	for _, f := range []struct {
		name  string
		value *string
		limit int
		check func(string) error
	}{
		{"display_name", s.DisplayName, 200, nil},
		{"postal_address", s.PostalAddress, 500, nil},
		{"public_url", s.PublicURL, 200, checkPublicURL},
		{"mail_domain", s.MailDomain, 200, checkMailDomain},
		{"privacy_policy_url", s.PrivacyPolicyURL, 500, checkPolicyURL},
		{"privacy_policy_version", s.PrivacyPolicyVersion, 100, nil},
		{"data_protection_contact", s.DataProtection, 500, nil},
		{"contact_address", s.ContactAddress, 254, checkMailbox("contact_address")},
		{"forward_address", s.ForwardAddress, 254, checkMailbox("forward_address")},
	} {
		if f.value == nil {
			continue
		}
		if err := checkText(f.name, *f.value, f.limit, false); err != nil {
			return nil, err
		}
		if f.check != nil && *f.value != "" {
			if err := f.check(*f.value); err != nil {
				return nil, err
			}
		}
		d[f.name] = *f.value
	}
	return d, nil
}

func checkPublicURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil ||
		strings.ContainsAny(s, "<>,\" ") || !isASCII(s) {
		return invalid("public_url", "it must be an absolute http(s) URL in ASCII without query, fragment or user", "for example https://mail.example.com")
	}
	// A path that a server would clean is answered by a redirect, and no link may be (RFC 8058 section 3.1).
	if p := strings.TrimSuffix(u.Path, "/"); p != "" && p != strings.TrimSuffix(path.Clean(p), "/") {
		return invalid("public_url", "its path has empty, \".\" or \"..\" parts", "for example https://example.com/mail")
	}
	return nil
}

func checkPolicyURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return invalid("privacy_policy_url", "it must be an absolute http(s) URL", "for example https://example.com/privacy")
	}
	return nil
}

func checkMailDomain(s string) error {
	if a, err := address.Parse("u@" + s); err != nil || a.Domain() != s {
		return invalid("mail_domain", "it must be a domain name in lower case ASCII", "for example unsub.example.com")
	}
	return nil
}

// checkMailbox checks an address of the organisation itself, which is no personal data. It is ASCII, for servers name it so.
func checkMailbox(field string) func(string) error {
	return func(s string) error {
		if _, err := address.Parse(s); err != nil || !isASCII(s) {
			return invalid(field, "it must be one mail address in ASCII, without a name", "for example help@example.com; a domain such as exämple.com as xn--exmple-cua.com")
		}
		return nil
	}
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 || r < 0x20 })
}

// CheckDefaults checks a public URL and mail domain given for the whole installation.
func CheckDefaults(publicURL, mailDomain string) error {
	if publicURL == "" {
		return checkPublicURL(publicURL)
	}
	_, err := (&SenderSettings{PublicURL: &publicURL, MailDomain: &mailDomain}).detail()
	return err
}

// builtIn are the required topics that every sender has.
func builtIn() []Topic {
	return []Topic{
		{Name: "confirmation", Description: "the one mail that asks you to confirm a subscription", Class: Required, Rule: OptOutRule, Ground: GroundAnswer,
			Justification: "Somebody entered this address in a sign-up form; without this one mail nobody can know that it was its owner."},
		{Name: "privacy", Description: "answers to your data protection requests", Class: Required, Rule: OptOutRule, Ground: GroundLaw,
			Justification: "Data protection law demands an answer to requests for access, correction and deletion."},
	}
}

// CreateSender creates a sender with its built-in topics. Errors: ErrNameTaken, ErrInvalidField, and those of a write.
func (l *Ledger) CreateSender(ctx context.Context, by By, name string, s SenderSettings) (Outcome, error) {
	if err := checkName("sender.name", name); err != nil {
		return Outcome{}, err
	}
	d, err := s.detail()
	if err != nil {
		return Outcome{}, err
	}
	d["name"] = name
	return l.admin(ctx, nil, func(t *tx) (uint64, error) {
		reg := t.registry()
		if reg.senders[name] != nil {
			return 0, taken("sender.name", name)
		}
		id := reg.nextScope
		at, err := t.add(&Entry{Kind: SenderCreated, Channel: by.Channel, Actor: by.Key, Sender: id, Scope: id, Detail: d}, nil)
		for _, topic := range builtIn() {
			if err != nil {
				return 0, err
			}
			topic.BuiltIn = true
			_, err = t.add(topicEntry(by, id, t.registry().nextScope, &topic), nil)
		}
		return at, err
	})
}

func taken(field, name string) error {
	return &Error{Kind: ErrNameTaken, Field: field, Problem: fmt.Sprintf("%q is taken", name), Remedy: "names are never reused: choose another"}
}

// UpdateSender changes a sender's settings. Errors: ErrUnknownSender, ErrInvalidField, and those of a write.
func (l *Ledger) UpdateSender(ctx context.Context, by By, name string, s SenderSettings) (Outcome, error) {
	old, err := l.sender(l.Registry(), name)
	if err != nil {
		return Outcome{}, err
	}
	d, err := s.detail()
	if err != nil {
		return Outcome{}, err
	}
	if len(d) == 0 {
		return Outcome{}, invalid("", "nothing to change", "give at least one setting")
	}
	return l.admin(ctx, nil, func(t *tx) (uint64, error) {
		return t.add(&Entry{Kind: SenderUpdated, Channel: by.Channel, Actor: by.Key, Sender: old.Number, Detail: d}, nil)
	})
}

func topicEntry(by By, sender, scope uint32, t *Topic) *Entry {
	d := map[string]string{"name": t.Name, "description": t.Description, "class": strconv.Itoa(int(t.Class)), "consent_rule": strconv.Itoa(int(t.Rule))}
	if t.Class == Required {
		d["ground"], d["justification"] = strconv.Itoa(int(t.Ground)), t.Justification
	}
	if t.BuiltIn {
		d["built_in"] = "true"
	}
	return &Entry{Kind: TopicCreated, Channel: by.Channel, Actor: by.Key, Sender: sender, Scope: scope, Detail: d}
}

// CreateTopic creates a topic; Class and Rule default to commercial and opt-out. A required topic needs a ground and a
// justification, which recipients are shown. Errors: ErrUnknownSender, ErrNameTaken, ErrInvalidField, and those of a write.
func (l *Ledger) CreateTopic(ctx context.Context, by By, sender string, t Topic) (Outcome, error) {
	s, err := l.sender(l.Registry(), sender)
	if err != nil {
		return Outcome{}, err
	}
	if err := checkName("topic.name", t.Name); err != nil {
		return Outcome{}, err
	}
	if t.Class == 0 {
		t.Class = Commercial
	}
	if t.Rule == 0 {
		t.Rule = OptOutRule
	}
	t.BuiltIn = false
	if err := checkText("topic.description", t.Description, 200, false); err != nil {
		return Outcome{}, err
	}
	if err := checkTopicKind(&t); err != nil {
		return Outcome{}, err
	}
	return l.admin(ctx, nil, func(tx *tx) (uint64, error) {
		reg := tx.registry()
		if reg.senders[s.Name].topics[t.Name] != nil {
			return 0, taken("topic.name", t.Name)
		}
		return tx.add(topicEntry(by, s.Number, reg.nextScope, &t), nil)
	})
}

func checkTopicKind(t *Topic) error {
	switch {
	case t.Class < Commercial || t.Class > Required:
		return invalid("topic.class", "unknown class", "use COMMERCIAL, TRANSACTIONAL or REQUIRED")
	case t.Rule < OptOutRule || t.Rule > OptInRule:
		return invalid("topic.consent_rule", "unknown consent rule", "use OPT_OUT or OPT_IN")
	case t.Class != Required && (t.Ground != 0 || t.Justification != ""):
		return invalid("topic.ground", "only a required topic has a ground and a justification", "leave them out, or set the class to REQUIRED")
	case t.Class == Required && t.Ground != GroundLaw && t.Ground != GroundAnswer:
		return invalid("topic.ground", "a required topic needs a ground", "use LAW (the law demands the mail) or ANSWER (it answers what the person has just done)")
	case t.Class == Required && t.Rule == OptInRule:
		return invalid("topic.consent_rule", "a required topic cannot wait for consent", "use OPT_OUT, or another class")
	case t.Class == Required && len(strings.TrimSpace(t.Justification)) < 10:
		return invalid("topic.justification", "a required topic needs a written justification of at least 10 characters",
			"say why this mail must reach people who said stop; they are shown it")
	}
	return checkText("topic.justification", t.Justification, 500, false)
}

// TopicChange is what to change of a topic; zero values leave things as they are.
type TopicChange struct {
	Description *string
	Class       Class
	Rule        ConsentRule
}

// UpdateTopic tightens or re-describes a topic. Errors: ErrUnknownSender, ErrUnknownTopic, ErrLoosening, ErrInvalidField, and
// those of a write.
func (l *Ledger) UpdateTopic(ctx context.Context, by By, sender, name string, c TopicChange) (Outcome, error) {
	s, err := l.sender(l.Registry(), sender)
	if err != nil {
		return Outcome{}, err
	}
	if _, err := topicOf(s, "name", name); err != nil {
		return Outcome{}, err
	}
	d := map[string]string{}
	if c.Description != nil {
		if err := checkText("description", *c.Description, 200, false); err != nil {
			return Outcome{}, err
		}
		d["description"] = *c.Description
	}
	return l.admin(ctx, nil, func(tx *tx) (uint64, error) {
		t := tx.registry().senders[s.Name].topics[name]
		if t.BuiltIn && (c.Class != 0 || c.Rule != 0) {
			return 0, invalid("name", "built-in topics stay as they are", "")
		}
		if c.Class != 0 && c.Class != t.Class {
			if c.Class > t.Class {
				return 0, loosening("class")
			}
			d["class"] = strconv.Itoa(int(c.Class))
		}
		if c.Rule != 0 && c.Rule != t.Rule {
			if c.Rule < t.Rule {
				return 0, loosening("consent_rule")
			}
			if c.Rule == OptInRule && t.Class == Required && (c.Class == 0 || c.Class == Required) {
				return 0, invalid("consent_rule", "a required topic cannot wait for consent", "tighten the class too")
			}
			d["consent_rule"] = strconv.Itoa(int(c.Rule))
		}
		if len(d) == 0 {
			return 0, invalid("", "nothing to change", "give a description, a tighter class or a tighter consent rule")
		}
		return tx.add(&Entry{Kind: TopicUpdated, Channel: by.Channel, Actor: by.Key, Sender: s.Number, Scope: t.Number, Detail: d}, nil)
	})
}

func loosening(field string) error {
	return &Error{Kind: ErrLoosening, Field: field, Problem: "class and consent rule may only be tightened", Remedy: "create a new topic: people said yes and no to this one as it is"}
}

// RegisterSecret records that an address key or link key has come into use: its kind and id, and a check value by which it is
// known again. generation is, for link keys, the address key generation that goes into their tokens.
func (l *Ledger) RegisterSecret(ctx context.Context, by By, s Secret) (Outcome, error) {
	return l.admin(ctx, nil, func(t *tx) (uint64, error) {
		for _, o := range t.registry().secrets {
			if o.Kind == s.Kind && o.ID == s.ID {
				return 0, taken("id", fmt.Sprintf("%s key %d", s.Kind, s.ID))
			}
		}
		return t.add(&Entry{Kind: SecretRegistered, Channel: by.Channel, Actor: by.Key, Detail: map[string]string{"kind": s.Kind,
			"id": strconv.Itoa(int(s.ID)), "check": s.Check, "generation": strconv.Itoa(int(s.Generation))}}, nil)
	})
}
