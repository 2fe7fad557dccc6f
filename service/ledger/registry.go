package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ScopeKind says how much a no covers.
type ScopeKind uint8

// Scope kinds.
const (
	ScopeAll        ScopeKind = 1
	ScopeCommercial ScopeKind = 2
	ScopeTopic      ScopeKind = 3
)

// Scope is a scope by name, as callers give it. The zero value means ALL; a Topic without Kind means that topic.
type Scope struct {
	Kind  ScopeKind
	Topic string
}

// Sender is an organisation or brand. Its number is also the scope number of ALL its correspondence; the next number is that
// of its COMMERCIAL mail.
type Sender struct {
	Number               uint32
	Name                 string
	DisplayName          string
	PostalAddress        string
	PublicURL            string
	MailDomain           string
	PrivacyPolicyURL     string
	PrivacyPolicyVersion string
	DataProtection       string
	// ContactAddress is where people write to; mail to it is read for their own words. ForwardAddress takes their questions.
	ContactAddress, ForwardAddress string
	Created                        time.Time

	topics map[string]*Topic
	// NewestImport is the newest completed import of earlier opt-outs; its Position is 0 until there is one.
	NewestImport Import
	blocked      map[string]DomainRule
}

// All and Commercial are the sender's scope numbers.
func (s *Sender) All() uint32        { return s.Number }
func (s *Sender) Commercial() uint32 { return s.Number + 1 }

// Topic returns the sender's topic of that name, or nil.
func (s *Sender) Topic(name string) *Topic { return s.topics[name] }

// Topics returns the sender's topics by name.
func (s *Sender) Topics() []*Topic {
	return slices.SortedFunc(maps.Values(s.topics), func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) })
}

// Blocked returns the sender's blocked domains by name.
func (s *Sender) Blocked() []DomainRule {
	return slices.SortedFunc(maps.Values(s.blocked), func(a, b DomainRule) int { return strings.Compare(a.Domain, b.Domain) })
}

// Topic is one kind of correspondence.
type Topic struct {
	Number        uint32
	Name          string
	Description   string
	Class         Class
	Rule          ConsentRule
	Ground        Ground
	Justification string
	BuiltIn       bool
	Created       time.Time
}

// Import is a completed import of earlier opt-outs.
type Import struct {
	Position uint64
	Source   string
	At       time.Time
}

// DomainRule blocks a domain, or tells since when it stands on the FCC's wireless list.
type DomainRule struct {
	Domain        string
	Position      uint64
	Since         time.Time
	Justification string
}

// Role is what an API key may do. The numbers are part of the encoding and of the API.
type Role uint8

// Roles.
const (
	RoleMailer    Role = 1
	RoleCollector Role = 2
	RoleFeedback  Role = 3
	RoleSupport   Role = 4
	RolePrivacy   Role = 5
	RoleOperator  Role = 6
	RoleAuditor   Role = 7
	RoleAdmin     Role = 8
)

var roleNames = [...]string{"", "mailer", "collector", "feedback", "support", "privacy", "operator", "auditor", "admin"}

// String names the role in lower case.
func (r Role) String() string {
	if r < 1 || int(r) >= len(roleNames) {
		return "unknown"
	}
	return roleNames[r]
}

// ParseRole reads a role's name.
func ParseRole(name string) (Role, bool) {
	i := slices.Index(roleNames[1:], name)
	return Role(i + 1), i >= 0
}

// APIKey is a credential. Only the SHA-256 of its 256 random bits is kept.
type APIKey struct {
	Number  uint32
	Label   string
	Role    Role
	Senders []string
	Topics  []string
	Created time.Time
	Revoked time.Time
	KeySettings
	hash [32]byte
}

// KeySettings are what the SMTP gate and the milter do with a key's mail.
type KeySettings struct {
	// DefaultTopic is the topic of messages that name none; empty for none.
	DefaultTopic string
	// ListSoftware keeps the List-* fields that a mailing list manager sets (RFC 2369 section 3), but for those of ours.
	ListSoftware bool
	// ObserveFrom is when the key's observe mode first began, and ObserveUntil when it ends; until then its mail is let through
	// and what would have been refused is an entry. Zero for never.
	ObserveFrom, ObserveUntil time.Time
}

// Observing reports whether the key's mail is only observed at this moment.
func (k *APIKey) Observing(now time.Time) bool { return now.Before(k.ObserveUntil) }

// MaxObserve is how long a key may be observed at the most: once, and at no time longer.
const MaxObserve = 14 * 24 * time.Hour

// set takes over the settings that d names.
func (k *KeySettings) set(d map[string]string) {
	if v, ok := d["default_topic"]; ok {
		k.DefaultTopic = v
	}
	if v, ok := d["list_software"]; ok {
		k.ListSoftware = v == "true"
	}
	for name, field := range map[string]*time.Time{"observe_from": &k.ObserveFrom, "observe_until": &k.ObserveUntil} {
		if v, ok := d[name]; ok {
			ms, _ := strconv.ParseInt(v, 10, 64)
			*field = Time(ms)
		}
	}
}

// MayUseSender reports whether the key is bound to the sender, or to none.
func (k *APIKey) MayUseSender(name string) bool {
	return len(k.Senders) == 0 || slices.Contains(k.Senders, name)
}

// MayUseTopic reports whether the key may name the topic: those it lists; with no list every topic that is not required
// (an admin's key: every topic).
func (k *APIKey) MayUseTopic(t *Topic) bool {
	if len(k.Topics) == 0 {
		return t.Class != Required || k.Role == RoleAdmin
	}
	return slices.Contains(k.Topics, t.Name)
}

// Secret is the record of an address key or link key: enough to know it again, not to use it.
type Secret struct {
	Kind    string
	ID      uint16
	Check   string
	Created time.Time
	// Generation is, for a link key, the address key generation that its tokens carry.
	Generation uint16
}

// Registry is everything that administration has set up: one immutable snapshot of the fold of those entries.
type Registry struct {
	senders   map[string]*Sender
	scopes    map[uint32]scopeOwner
	nextScope uint32
	wireless  map[string]DomainRule
	// WirelessListDate is the date of the newest FCC list; zero when none was imported.
	WirelessListDate time.Time
	apiKeys          map[uint32]*APIKey
	byHash           map[[32]byte]*APIKey
	secrets          []Secret
}

type scopeOwner struct {
	sender *Sender
	kind   ScopeKind
	topic  *Topic
}

func newRegistry() *Registry {
	return &Registry{senders: map[string]*Sender{}, scopes: map[uint32]scopeOwner{}, nextScope: 1, wireless: map[string]DomainRule{},
		apiKeys: map[uint32]*APIKey{}, byHash: map[[32]byte]*APIKey{}}
}

// Sender returns the sender of that name; an empty name means "default". nil when there is none.
func (r *Registry) Sender(name string) *Sender {
	if name == "" {
		name = DefaultSender
	}
	return r.senders[name]
}

// Senders returns all senders by name.
func (r *Registry) Senders() []*Sender {
	return slices.SortedFunc(maps.Values(r.senders), func(a, b *Sender) int { return strings.Compare(a.Name, b.Name) })
}

// Scope tells what a scope number stands for: the sender, how much, and the topic where it is one.
func (r *Registry) Scope(number uint32) (*Sender, ScopeKind, *Topic, bool) {
	o, ok := r.scopes[number]
	return o.sender, o.kind, o.topic, ok
}

// APIKey returns the key of that number, or nil.
func (r *Registry) APIKey(number uint32) *APIKey { return r.apiKeys[number] }

// APIKeys returns all keys by number, the revoked ones too.
func (r *Registry) APIKeys() []*APIKey {
	return slices.SortedFunc(maps.Values(r.apiKeys), func(a, b *APIKey) int { return int(a.Number) - int(b.Number) })
}

// Authenticate finds the valid key with this secret. The look-up is by SHA-256 of 256 random bits, so its timing tells nothing
// of use.
func (r *Registry) Authenticate(secret string) *APIKey {
	k := r.byHash[sha256.Sum256([]byte(secret))]
	if k == nil || !k.Revoked.IsZero() {
		return nil
	}
	return k
}

// Secrets returns the records of the keys of that kind ("address", "link"), in the order in which they came into use.
func (r *Registry) Secrets(kind string) []Secret {
	var s []Secret
	for _, x := range r.secrets {
		if x.Kind == kind {
			s = append(s, x)
		}
	}
	return s
}

// Wireless returns the FCC's wireless domains by name.
func (r *Registry) Wireless() []DomainRule {
	return slices.SortedFunc(maps.Values(r.wireless), func(a, b DomainRule) int { return strings.Compare(a.Domain, b.Domain) })
}

// clone copies the registry so that the copy can be changed while the original is read.
func (r *Registry) clone() *Registry {
	c := *r
	c.senders, c.scopes = make(map[string]*Sender, len(r.senders)), make(map[uint32]scopeOwner, len(r.scopes))
	copies := map[*Sender]*Sender{}
	topics := map[*Topic]*Topic{}
	for name, s := range r.senders {
		d := *s
		d.topics, d.blocked = make(map[string]*Topic, len(s.topics)), maps.Clone(s.blocked)
		for n, t := range s.topics {
			u := *t
			d.topics[n], topics[t] = &u, &u
		}
		c.senders[name], copies[s] = &d, &d
	}
	for n, o := range r.scopes {
		c.scopes[n] = scopeOwner{copies[o.sender], o.kind, topics[o.topic]}
	}
	c.wireless = maps.Clone(r.wireless)
	c.apiKeys, c.byHash = make(map[uint32]*APIKey, len(r.apiKeys)), make(map[[32]byte]*APIKey, len(r.byHash))
	for n, k := range r.apiKeys {
		d := *k
		c.apiKeys[n], c.byHash[k.hash] = &d, &d
	}
	c.secrets = slices.Clone(r.secrets)
	return &c
}

// apply folds one administrative entry. It changes r in place. The names in Detail are part of the encoding.
func (r *Registry) apply(e *Entry) error {
	d := e.Detail
	switch e.Kind {
	case SenderCreated:
		s := &Sender{Number: e.Scope, Name: d["name"], Created: Time(e.At), topics: map[string]*Topic{}, blocked: map[string]DomainRule{}}
		s.set(d)
		if s.Name == "" || r.senders[s.Name] != nil || e.Scope < r.nextScope {
			return fmt.Errorf("entry %d: sender does not fit the ledger", e.Position)
		}
		r.senders[s.Name] = s
		r.scopes[s.All()] = scopeOwner{s, ScopeAll, nil}
		r.scopes[s.Commercial()] = scopeOwner{s, ScopeCommercial, nil}
		r.nextScope = e.Scope + 2
	case SenderUpdated:
		o, ok := r.scopes[e.Sender]
		if !ok {
			return fmt.Errorf("entry %d: no such sender", e.Position)
		}
		o.sender.set(d)
	case TopicCreated:
		o, ok := r.scopes[e.Sender]
		if !ok || e.Scope < r.nextScope || o.sender.topics[d["name"]] != nil {
			return fmt.Errorf("entry %d: topic does not fit the ledger", e.Position)
		}
		t := &Topic{Number: e.Scope, Name: d["name"], Created: Time(e.At), BuiltIn: d["built_in"] == "true"}
		t.set(d)
		o.sender.topics[t.Name] = t
		r.scopes[t.Number] = scopeOwner{o.sender, ScopeTopic, t}
		r.nextScope = e.Scope + 1
	case TopicUpdated:
		o := r.scopes[e.Scope]
		if o.topic == nil {
			return fmt.Errorf("entry %d: no such topic", e.Position)
		}
		o.topic.set(d)
	case DomainBlocked, DomainUnblocked, ImportCompleted:
		o, ok := r.scopes[e.Sender]
		if !ok {
			return fmt.Errorf("entry %d: no such sender", e.Position)
		}
		switch e.Kind {
		case DomainBlocked:
			o.sender.blocked[d["domain"]] = DomainRule{d["domain"], e.Position, Time(e.At), d["justification"]}
		case DomainUnblocked:
			delete(o.sender.blocked, d["domain"])
		default:
			o.sender.NewestImport = Import{e.Position, d["source"], Time(e.At)}
		}
	case WirelessListed:
		if d["domain"] != "" {
			r.wireless[d["domain"]] = DomainRule{Domain: d["domain"], Position: e.Position, Since: Time(e.Occurred)}
		}
		r.WirelessListDate = Time(e.Until)
	case WirelessDelisted:
		delete(r.wireless, d["domain"])
	case APIKeyCreated:
		n, role := number(d["number"]), number(d["role"])
		k := &APIKey{Number: n, Label: d["label"], Role: Role(role), Senders: split(d["senders"]), Topics: split(d["topics"]), Created: Time(e.At)}
		if h, err := hex.DecodeString(d["sha256"]); err != nil || copy(k.hash[:], h) != 32 || r.apiKeys[n] != nil || n == 0 {
			return fmt.Errorf("entry %d: API key does not fit the ledger", e.Position)
		}
		k.set(d)
		r.apiKeys[n], r.byHash[k.hash] = k, k
	case APIKeyUpdated:
		k := r.apiKeys[number(d["number"])]
		if k == nil {
			return fmt.Errorf("entry %d: no such API key", e.Position)
		}
		k.set(d)
	case APIKeyRevoked:
		k := r.apiKeys[number(d["number"])]
		if k == nil {
			return fmt.Errorf("entry %d: no such API key", e.Position)
		}
		k.Revoked = Time(e.At)
	case SecretRegistered:
		r.secrets = append(r.secrets, Secret{Kind: d["kind"], ID: uint16(number(d["id"])), Check: d["check"], Created: Time(e.At),
			Generation: uint16(number(d["generation"]))})
	}
	return nil
}

// set takes over the settings that d names.
func (s *Sender) set(d map[string]string) {
	for name, field := range map[string]*string{"display_name": &s.DisplayName, "postal_address": &s.PostalAddress, "public_url": &s.PublicURL,
		"mail_domain": &s.MailDomain, "privacy_policy_url": &s.PrivacyPolicyURL, "privacy_policy_version": &s.PrivacyPolicyVersion,
		"data_protection_contact": &s.DataProtection, "contact_address": &s.ContactAddress, "forward_address": &s.ForwardAddress} {
		if v, ok := d[name]; ok {
			*field = v
		}
	}
}

func (t *Topic) set(d map[string]string) {
	for name, field := range map[string]*string{"description": &t.Description, "justification": &t.Justification} {
		if v, ok := d[name]; ok {
			*field = v
		}
	}
	for name, take := range map[string]func(uint32){"class": func(n uint32) { t.Class = Class(n) },
		"consent_rule": func(n uint32) { t.Rule = ConsentRule(n) }, "ground": func(n uint32) { t.Ground = Ground(n) }} {
		if v, ok := d[name]; ok {
			take(number(v))
		}
	}
}

func number(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return uint32(n)
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// domainRule finds the rule of the domain or of the nearest domain above it, by label: "a.example.com" falls under
// "example.com", "notexample.com" does not.
func domainRule(rules map[string]DomainRule, domain string) (DomainRule, bool) {
	if len(rules) == 0 {
		return DomainRule{}, false
	}
	for {
		if r, ok := rules[domain]; ok {
			return r, true
		}
		i := strings.IndexByte(domain, '.')
		if i < 0 {
			return DomainRule{}, false
		}
		domain = domain[i+1:]
	}
}

// LinkGeneration tells which generation of address keys the tokens of a link key carry.
func (r *Registry) LinkGeneration(linkKey uint8) (uint16, bool) {
	for _, s := range r.secrets {
		if s.Kind == "link" && s.ID == uint16(linkKey) {
			return s.Generation, true
		}
	}
	return 0, false
}
