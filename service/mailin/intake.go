package mailin

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/netip"
)

// Intake says which addresses exist and takes messages for them. The server calls it from many goroutines at once.
type Intake interface {
	// Open is asked at RCPT TO, with the address as it stood there, without angle brackets. ErrNoSuchAddress is answered with
	// 550 5.1.1, any other error with 451 4.3.0.
	Open(ctx context.Context, e *Envelope, rcpt string) (Box, error)
	// Take is asked after the final dot, when the whole message was read and is well-formed. Its results stand for the boxes, in
	// order; nil says that everything the message asks of that box is durable and in force, and nothing less. An error is answered
	// with 451 4.3.0: the sender keeps the message and tries again, so taking a message twice must be harmless. Over SMTP one
	// answer stands for all boxes: 250 when every result is nil.
	Take(ctx context.Context, e *Envelope, boxes []Box, m *Message) []error
}

// Box is one recipient address as the intake knows it; opaque to the server.
type Box any

// Envelope is what a session knows of its client and of the message.
type Envelope struct {
	// Remote is the client's IP address; the zero Addr on a unix socket.
	Remote netip.Addr
	// Helo is the name that the client gave in EHLO, HELO or LHLO.
	Helo string
	// MailFrom is the return path, without angle brackets; empty for the null path.
	MailFrom string
	// TLS tells that the session is encrypted.
	TLS bool
}

// Message is a message as it came, CRLF at the end of each line and dot-stuffing undone.
type Message struct {
	// Raw is its beginning, at most Kept octets.
	Raw []byte
	// Size is its full length in octets.
	Size int64
	// Digest is the SHA-256 of all of it.
	Digest [sha256.Size]byte
}

// Kept is how many octets of a message are kept in memory for the intake. Bounces often repeat the whole message that they are
// about; what they say of it stands before.
const Kept = 1 << 20

// ErrNoSuchAddress says that no mail is taken for an address, and never will be.
var ErrNoSuchAddress = errors.New("there is no such address here")
