package outgoing

import (
	"errors"
	"fmt"
	"strings"

	"optout/service/ledger"
)

// Refusal is an SMTP reply that refuses a message or a recipient: it names the fault and the remedy, and no address.
type Refusal struct {
	// Code is the reply code (RFC 5321 section 4.2), and Enhanced the enhanced one (RFC 3463).
	Code     int
	Enhanced [3]int
	Text     string
	// Denied is set when the person may not be written to, and not for faults.
	Denied bool
}

// Error is the reply in one line.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%d %d.%d.%d %s", r.Code, r.Enhanced[0], r.Enhanced[1], r.Enhanced[2], r.Text)
}

// Temporary reports whether the same message may be taken later.
func (r *Refusal) Temporary() bool { return r.Code/100 == 4 }

// Fault makes a refusal of a message.
func Fault(code int, enhanced [3]int, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Enhanced: enhanced, Text: fmt.Sprintf(format, args...)}
}

var (
	errNoTopic = Fault(550, [3]int{5, 7, 1}, "no topic is named: add the field X-Optout-Topic, or give the credential a default topic (optout key update --default-topic)")
	errCannot  = Fault(451, [3]int{4, 3, 0}, "the subscription ledger cannot be asked, so nothing is sent: try again later")
)

// words say why mail must not go out, to the people who run the program that sends.
var words = map[ledger.Reason]string{
	ledger.ReasonUnder13:            "the recipient is known to be under 13",
	ledger.ReasonUndeliverable:      "the mailbox cannot be delivered to",
	ledger.ReasonBlockedDomain:      "mail to this domain is blocked",
	ledger.ReasonErased:             "the person had their data erased",
	ledger.ReasonRestricted:         "processing of the person's data is restricted",
	ledger.ReasonOptedOutAll:        "the person opted out of all correspondence",
	ledger.ReasonOptedOutCommercial: "the person opted out of commercial mail",
	ledger.ReasonComplaint:          "the person reported such mail as spam",
	ledger.ReasonWirelessDomain:     "it is a wireless domain, and the person has not authorised commercial mail to it (47 CFR 64.3100)",
	ledger.ReasonOptedOutTopic:      "the person opted out of this topic",
	ledger.ReasonPaused:             "the person paused this mail",
	ledger.ReasonNoConsent:          "the topic needs consent, and there is none",
	ledger.ReasonConsentExpired:     "the consent to this topic has expired",
}

// denied is the refusal of a recipient who must not be written to: 550 5.7.1, with the strongest reason.
func denied(v *ledger.Verdict) *Refusal {
	d := &ledger.Denial{}
	if len(v.Denials) > 0 {
		d = &v.Denials[0]
	}
	why := words[d.Reason]
	if why == "" {
		why = "mail to this address is denied (" + d.Reason.String() + ")"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: not to be mailed: %s", v.Topic.Name, why)
	if d.Joined {
		b.WriteString(" at another address of theirs")
	}
	if d.Since != 0 {
		fmt.Fprintf(&b, ", since %s", ledger.Time(d.Since).Format("2006-01-02"))
	}
	if d.Entry != 0 {
		fmt.Fprintf(&b, " (entry %d)", d.Entry)
	}
	if v.Topic.Ground == ledger.GroundAnswer && d.Reason > ledger.ReasonBlockedDomain {
		b.WriteString("; an answer to what they have just done must name it in X-Optout-In-Answer-To")
	}
	return &Refusal{Code: 550, Enhanced: [3]int{5, 7, 1}, Text: b.String(), Denied: true}
}

// refusalOf turns an error of the core into a reply. What cannot be asked is temporary; the rest is the message's fault.
func refusalOf(err error) *Refusal {
	if temporary(err) {
		return errCannot
	}
	if errors.Is(err, ledger.ErrInvalidAddress) {
		return Fault(553, [3]int{5, 1, 3}, "the recipient's address is malformed: mend it, or take it off the list")
	}
	var e *ledger.Error
	errors.As(err, &e)
	text := e.Problem
	if e.Remedy != "" {
		text += ": " + e.Remedy
	}
	switch {
	case strings.HasPrefix(e.Field, "in_answer_to"):
		text = fieldAnswer + ": " + text
	case errors.Is(err, ledger.ErrUnknownTopic), errors.Is(err, ledger.ErrUnknownSender):
		text = fieldTopic + ": " + text
	}
	return Fault(550, [3]int{5, 7, 1}, "%s", text)
}
