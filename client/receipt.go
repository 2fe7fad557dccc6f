package client

import (
	"fmt"
	"strings"

	optoutv1 "optout/proto/optout/v1"
)

// fieldReceipt carries the proof that a message was checked. Only the Mailer sets it.
const fieldReceipt = "X-Optout-Receipt"

// WithReceipts puts the receipt of its check on each message, in the field X-Optout-Receipt, so that "optout audit-mail" finds
// later what left without one. Whatever the caller set there is taken off, also without this option. Send stops with
// ErrCannotAsk where the service gives none.
func WithReceipts() MailerOption { return WithReceipt() }

// withoutReceipt is for checks that no message leaves after.
func withoutReceipt(r *optoutv1.BatchCheckSendRequest) { r.WantReceipt = false }

// firstLine is how much of a receipt stands beside the field's name, so that no line is longer than the 78 characters of RFC
// 5322 section 2.1.1.
const firstLine = 78 - len(fieldReceipt) - len(": ")

// receipted puts a receipt before a message; an empty one changes nothing.
func receipted(receipt string, text []byte) ([]byte, error) {
	if receipt == "" {
		return text, nil
	}
	if len(receipt) <= firstLine || len(receipt) > firstLine+77 || strings.ContainsFunc(receipt, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("%w: the service gave a receipt that this client does not understand: bring the client up to date", ErrCannotAsk)
	}
	return append([]byte(fieldReceipt+": "+receipt[:firstLine]+"\r\n "+receipt[firstLine:]+"\r\n"), text...), nil
}
