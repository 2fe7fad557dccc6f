// Package words reads what a person wrote to an address of ours that carries no token, such as unsubscribe@, stop@ or the sender's
// contact address, and says what their own words ask for. It is a pure function of a message: it knows neither ledger nor
// transport, and whom to believe is not its business.
//
// Only the person's own words count. What they quote, what their mail program or their employer adds, and our own footer, which
// says "unsubscribe" in ten languages, are taken off first. Precision goes before recall: what is not clearly a demand to stop
// is for a person to read.
package words

// Meaning is what a person's own words ask for.
type Meaning uint8

// Meanings. The zero value leaves the message to a person.
const (
	// Other: a question, a remark, anything else: for a person to read.
	Other Meaning = iota
	// Stop: asks, shortly and unambiguously, that mail stop.
	Stop
	// Perhaps: speaks of stopping, but is long, doubtful, negated, or asks something besides: for a person to decide.
	Perhaps
	// Empty: no words of their own. Mail programs that press a mailto link send such.
	Empty
)

// String names the meaning.
func (m Meaning) String() string {
	return [...]string{"other", "stop", "perhaps", "empty"}[m&3]
}

// Reading is a message as read.
type Reading struct {
	Meaning Meaning
	// Language is the BCP 47 tag of the language whose phrase decided; "" when none did.
	Language string
	// Automatic: an answer of a program, bulk or list mail (RFC 3834). It never counts, whatever it says.
	Automatic bool
	// Why says which field made it Automatic: the field's name and keyword only.
	Why string
	// From is the bare address of the only From mailbox (RFC 5322 section 3.6.2); "" when there is none, when there are several,
	// or when it cannot be read. It proves nothing.
	From string
	// Subject is decoded, printable, in one line, and of at most 250 characters.
	Subject string
	// Own is the person's own words as printable text of at most 2,000 characters, for whoever decides.
	Own string
	// MessageID is the field as it stands; "" when it is missing or longer than a line may be (RFC 5322 section 2.1.1).
	MessageID string
	// Recipients are the bare addresses of To, Cc, Delivered-To, X-Original-To and Envelope-To, at most 100, no doubles: for which
	// address of ours a message was, when no envelope is known.
	Recipients []string
	// Tokens are the texts that have the form of a signed token, no doubles, at most 20: of In-Reply-To, then References, then the
	// body. They prove nothing until opened.
	Tokens []string
}

// MaxMessage is how many octets of a message are looked at.
const MaxMessage = 1 << 20

// Read reads a message, of which at most MaxMessage octets are looked at. It never fails: what cannot be read is Other.
func Read(raw []byte) *Reading {
	return &Reading{}
}
