package ledger

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"optout/service/address"
	"optout/service/standing"
)

// mailbox is an address with its keys under one sender, and those of the mailbox that it is a sub-address of, if it is one.
type mailbox struct {
	sender *Sender
	addr   address.Address
	keys   address.Keys
	base   address.Keys
}

// key is the suppression key that new entries get.
func (m *mailbox) key() address.Key { return m.keys.Of[0].Suppression }

// target begins an entry about the mailbox.
func (m *mailbox) target(kind Kind, by By) Entry {
	return Entry{Kind: kind, Channel: by.Channel, Generation: m.keys.Of[0].Generation, Sender: m.sender.Number, Actor: by.Key,
		Mailing: by.Mailing, Occurred: millis(by.Occurred), Key: m.key()}
}

func (l *Ledger) sender(reg *Registry, name string) (*Sender, error) {
	s := reg.Sender(name)
	if s == nil {
		return nil, &Error{Kind: ErrUnknownSender, Field: "sender", Problem: fmt.Sprintf("there is no sender %q", clip(name)),
			Remedy: "see \"optout sender list\", or create it with \"optout sender create\""}
	}
	return s, nil
}

func topicOf(s *Sender, field, name string) (*Topic, error) {
	if name == "" {
		return nil, invalid(field, "it is empty", "name a topic; see \"optout topic list\"")
	}
	t := s.Topic(name)
	if t == nil {
		return nil, &Error{Kind: ErrUnknownTopic, Field: field, Problem: fmt.Sprintf("sender %q has no topic %q", s.Name, clip(name)),
			Remedy: "see \"optout topic list\", or create it with \"optout topic create\""}
	}
	return t, nil
}

// scopeNumber resolves a scope by name; the zero Scope is ALL.
func scopeNumber(s *Sender, field string, sc Scope) (uint32, error) {
	switch {
	case sc.Kind == ScopeTopic || sc.Kind == 0 && sc.Topic != "":
		t, err := topicOf(s, field+".topic", sc.Topic)
		if err != nil {
			return 0, err
		}
		return t.Number, nil
	case sc.Topic != "":
		return 0, invalid(field+".topic", "a topic goes only with the scope of a topic", "leave it out, or set the kind to TOPIC")
	case sc.Kind == 0 || sc.Kind == ScopeAll:
		return s.All(), nil
	case sc.Kind == ScopeCommercial:
		return s.Commercial(), nil
	}
	return 0, invalid(field+".kind", "unknown scope", "use ALL, COMMERCIAL or TOPIC")
}

// mailbox resolves sender and address.
func (l *Ledger) mailbox(sender, addr string) (*mailbox, error) {
	s, err := l.sender(l.Registry(), sender)
	if err != nil {
		return nil, err
	}
	m := &mailbox{sender: s}
	if m.addr, err = parseAddress(addr); err != nil {
		return nil, err
	}
	l.opt.Keys.Keys(s.Number, &m.addr, &m.keys)
	l.baseKeys(s, &m.addr, &m.base)
	return m, nil
}

func parseAddress(addr string) (address.Address, error) {
	a, err := address.Parse(addr)
	if err != nil {
		return a, addressError(err)
	}
	return a, nil
}

// addressError turns a parser's error into one of the core's.
func addressError(err error) error {
	var fault *address.Error
	if errors.As(err, &fault) {
		return &Error{Kind: ErrInvalidAddress, Field: "address", Problem: fault.Problem, Remedy: fault.Remedy}
	}
	return &Error{Kind: ErrInvalidAddress, Field: "address", Problem: "it cannot be read"}
}

// baseKeys writes the keys of the mailbox that an address is a sub-address of; base.N is 0 when it is none.
func (l *Ledger) baseKeys(s *Sender, a *address.Address, base *address.Keys) {
	base.N = 0
	if b, ok := a.Base(); ok {
		l.opt.Keys.Keys(s.Number, &b, base)
	}
}

// gather collects what bears on a mailbox, oldest generation of keys first. base are the keys of the mailbox that it is a
// sub-address of, if it is one.
func gather(record func(standing.Key) *standing.Record, members func(standing.Key) []standing.Key, keys, base *address.Keys, all uint32, b *bearing) {
	b.own, b.joined = b.own[:0], b.joined[:0]
	for g := keys.N - 1; g >= 0; g-- {
		k := &keys.Of[g]
		form := uint64(0)
		if k.ConsentDiffers {
			form = discriminator(k.Consent)
		}
		rec := record(standing.Key(k.Suppression))
		if rec == nil {
			continue
		}
		for i := range rec.Facts {
			f := &rec.Facts[i]
			if kind := kindOf(f); (kind == Subscribed || kind == Confirmed) && f.Consent != form {
				continue
			}
			b.own = append(b.own, *f)
		}
		if rec.Person == (standing.Key{}) {
			continue
		}
		for _, m := range members(rec.Person) {
			if m == standing.Key(k.Suppression) {
				continue
			}
			if other := record(m); other != nil {
				for i := range other.Facts {
					if f := &other.Facts[i]; kindOf(f) == OptedOut && f.Scope == all {
						b.joined = append(b.joined, *f)
					}
				}
			}
		}
	}
	for g := base.N - 1; g >= 0; g-- {
		if rec := record(standing.Key(base.Of[g].Suppression)); rec != nil {
			for i := range rec.Facts {
				if f := &rec.Facts[i]; kindOf(f) == OptedOut && f.Flags&factFamily != 0 {
					b.joined = append(b.joined, *f)
				}
			}
		}
	}
}

// soleKey is what is known of an address that a token or an entry names by one key.
func soleKey(generation uint16, key address.Key) (k address.Keys) {
	k.N, k.Of[0] = 1, address.GenerationKeys{Generation: generation, Suppression: key}
	return k
}

// checkText bounds a caller's text: valid UTF-8 without control characters (line feeds aside), at most limit characters.
func checkText(field, s string, limit int, required bool) error {
	if required && s == "" {
		return invalid(field, "it is empty", "it is required for the record")
	}
	if !utf8.ValidString(s) || utf8.RuneCountInString(s) > limit {
		return invalid(field, fmt.Sprintf("it must be valid UTF-8 of at most %d characters", limit), "shorten it")
	}
	for _, c := range s {
		if c < 0x20 && c != '\n' || c == 0x7f {
			return invalid(field, "it holds a control character", "remove it")
		}
	}
	return nil
}

// clockSkew is how far in the future a reported time may lie.
const clockSkew = 5 * time.Minute

func (l *Ledger) checkPast(field string, t time.Time) error {
	if !t.IsZero() && (t.After(l.opt.Now().Add(clockSkew)) || t.UnixMilli() <= 0) {
		return invalid(field, "it is in the future or before 1970", "give the moment when it happened, or leave it out for now")
	}
	return nil
}

// checkBy bounds what comes with a write.
func (l *Ledger) checkBy(by *By) error {
	for name, text := range by.Evidence {
		if err := checkText(name, text, 2000, false); err != nil {
			return err
		}
	}
	return l.checkPast("occurred_at", by.Occurred)
}

// clip makes a caller's name fit for an error message.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

// notFound tells whether err is the store's ErrNotFound.
func notFound(err error) bool { return errors.Is(err, ErrNotFound) }

// AddressKey is the suppression key of an address under a sender, with its generation, for links.
func (l *Ledger) AddressKey(s *Sender, addr string) (address.Key, uint16, error) {
	a, err := parseAddress(addr)
	if err != nil {
		return address.Key{}, 0, err
	}
	var keys address.Keys
	l.opt.Keys.Keys(s.Number, &a, &keys)
	return keys.Of[0].Suppression, keys.Of[0].Generation, nil
}
