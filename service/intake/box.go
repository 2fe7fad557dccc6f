package intake

import (
	"slices"
	"strings"

	"optout/service/ledger"
	"optout/service/link"
)

// kind is what an address of ours is for.
type kind uint8

const (
	// wordsBox: unsubscribe@ and stop@, which say themselves that mail is to stop.
	wordsBox kind = iota
	// contactBox: the sender's contact address and postmaster@, to which people write about anything.
	contactBox
	unsubscribeBox
	bounceBox
	feedbackBox
)

// box is one address of ours.
type box struct {
	kind kind
	// address is the recipient as it was named, in lower case.
	address string
	sender  string
	// others are the further senders whose mail domain it stands in: what people write there without a token is for all of them.
	others []string
	// to and mailing are what the token of a signed address names.
	to      ledger.Tokened
	mailing uint32
}

// Local parts of a mail domain besides those of signed addresses.
const (
	bouncePrefix = "b-"
	localFBL     = "fbl"
	localStop    = "stop"
	localUnsub   = "unsubscribe"
	// localPostmaster is an address that every domain with mail must take (RFC 5321 section 4.5.1).
	localPostmaster = "postmaster"
)

// box reads an address of ours. Case does not matter in any of them.
func (in *Intake) box(rcpt string) (*box, bool) {
	rcpt = lower(strings.TrimSuffix(rcpt, "."))
	at := strings.LastIndexByte(rcpt, '@')
	if at < 0 {
		return nil, false
	}
	local, domain := rcpt[:at], rcpt[at+1:]
	if b := in.signed(rcpt, local); b != nil {
		return b, true
	}
	reg := in.o.Ledger.Registry()
	var owners, contacts []string
	for _, s := range defaultFirst(reg.Senders()) {
		if s.ContactAddress != "" && lower(s.ContactAddress) == rcpt {
			contacts = append(contacts, s.Name)
		}
		if domain != "" && (s.MailDomain == domain || s.MailDomain == "" && in.o.MailDomain == domain) {
			owners = append(owners, s.Name)
		}
	}
	if len(owners) == 0 && domain != "" && domain == in.o.MailDomain {
		// Every sender has a mail domain of its own by now, but what was said of this one is still in footers, and in feedback loops.
		owners = []string{ledger.DefaultSender}
	}
	// What a local part means in a mail domain, no setting of a contact address changes: neither its own sender's nor another's.
	if len(contacts) > 0 && (len(owners) == 0 || !reserved(local)) {
		return &box{kind: contactBox, address: rcpt, sender: contacts[0], others: contacts[1:]}, true
	}
	if len(owners) == 0 {
		return nil, false
	}
	b := &box{address: rcpt, sender: owners[0], others: owners[1:]}
	switch {
	case local == localStop, local == localUnsub:
		b.kind = wordsBox
	case local == localFBL:
		b.kind = feedbackBox
	case local == localPostmaster:
		b.kind = contactBox
	default:
		return nil, false
	}
	return b, true
}

// defaultFirst puts the default sender first: a question is read by the people of one sender, and where several share an address, a
// new brand does not take it from those who read it so far.
func defaultFirst(all []*ledger.Sender) []*ledger.Sender {
	if i := slices.IndexFunc(all, func(s *ledger.Sender) bool { return s.Name == ledger.DefaultSender }); i > 0 {
		first := all[i]
		copy(all[1:], all[:i])
		all[0] = first
	}
	return all
}

// signed reads a signed address; nil when it is none. A token names its sender itself, so it counts at whatever domain: such addresses
// lie in people's mailboxes for years, also after the mail domain was changed.
func (in *Intake) signed(rcpt, local string) *box {
	b := &box{address: rcpt}
	if token, ok := strings.CutPrefix(local, link.MailPrefix); ok && in.open(b, token, link.Unsubscribe) {
		b.kind = unsubscribeBox
		return b
	}
	if token, ok := strings.CutPrefix(local, bouncePrefix); ok && in.open(b, token, link.Bounce) {
		b.kind = bounceBox
		return b
	}
	return nil
}

// reserved reports whether a local part has a meaning of its own in every mail domain.
func reserved(local string) bool {
	return local == localStop || local == localUnsub || local == localFBL || strings.HasPrefix(local, link.MailPrefix) || strings.HasPrefix(local, bouncePrefix)
}

// open opens a token into b.
func (in *Intake) open(b *box, token string, purposes ...link.Purpose) bool {
	for _, p := range purposes {
		t, err := in.o.Ring().Open(token, p)
		if err != nil {
			continue
		}
		reg := in.o.Ledger.Registry()
		s, _, _, known := reg.Scope(t.Scope)
		generation, made := reg.LinkGeneration(t.KeyID)
		if !known || !made {
			return false
		}
		b.sender, b.mailing = s.Name, t.Mailing
		b.to = ledger.Tokened{Scope: t.Scope, Generation: generation, Key: t.Key}
		return true
	}
	return false
}

// named finds whom the tokens in a message name: the first that opens. sure is false when others that open name somebody else.
func (in *Intake) named(tokens []string) (b *box, sure bool) {
	for _, t := range tokens {
		x := &box{}
		if !in.open(x, t, link.Unsubscribe, link.Message, link.Bounce) {
			continue
		}
		if b == nil {
			b, sure = x, true
		} else if x.to.Key != b.to.Key { // which is of one sender too
			sure = false
		}
	}
	return b, sure
}

// lower is ASCII lower case: whatever else is in an address tells different people apart.
func lower(s string) string {
	return strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, s)
}
