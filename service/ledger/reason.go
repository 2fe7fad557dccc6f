package ledger

// Reason says why mail must not go out. Smaller is stronger. The numbers are part of the encoding and of the API.
type Reason uint8

// Reasons, strongest first (law 2).
const (
	ReasonUnder13            Reason = 1
	ReasonUndeliverable      Reason = 2
	ReasonBlockedDomain      Reason = 3
	ReasonErased             Reason = 4
	ReasonRestricted         Reason = 5
	ReasonOptedOutAll        Reason = 6
	ReasonOptedOutCommercial Reason = 7
	ReasonComplaint          Reason = 8
	ReasonWirelessDomain     Reason = 9
	ReasonOptedOutTopic      Reason = 10
	ReasonPaused             Reason = 11
	ReasonNoConsent          Reason = 12
	ReasonConsentExpired     Reason = 13

	reasonEnd = 14
)

// String names the reason as the API does.
func (r Reason) String() string {
	names := [reasonEnd]string{"NONE", "UNDER_13", "UNDELIVERABLE", "BLOCKED_DOMAIN", "ERASED", "RESTRICTED", "OPTED_OUT_ALL",
		"OPTED_OUT_COMMERCIAL", "COMPLAINT", "WIRELESS_DOMAIN", "OPTED_OUT_TOPIC", "PAUSED", "NO_CONSENT", "CONSENT_EXPIRED"}
	if int(r) < len(names) {
		return names[r]
	}
	return "UNKNOWN"
}

// Class is the class of a topic's mail. The order is of looseness: a topic may only be moved to a smaller one.
type Class uint8

// Classes.
const (
	Commercial    Class = 1
	Transactional Class = 2
	Required      Class = 3
)

// ConsentRule says whether a topic needs a yes. It may only grow.
type ConsentRule uint8

// Consent rules.
const (
	OptOutRule ConsentRule = 1
	OptInRule  ConsentRule = 2
)

// Ground says why a required topic may pass a no.
type Ground uint8

// Grounds.
const (
	GroundLaw    Ground = 1
	GroundAnswer Ground = 2
)

// effect is what a reason does to a class of mail: a cell of law 2's table.
type effect uint8

const (
	applies effect = iota + 1 // denies
	passes                    // a no, which a required topic passes, on the record
	absent                    // no bearing
)

// effectOn is law 2's table. For a complaint against the topic itself, see evaluate.
func (r Reason) effectOn(c Class) effect {
	switch r {
	case ReasonUnder13, ReasonUndeliverable, ReasonBlockedDomain:
		return applies
	case ReasonErased, ReasonRestricted, ReasonOptedOutAll, ReasonOptedOutTopic, ReasonPaused, ReasonNoConsent, ReasonConsentExpired:
		if c == Required {
			return passes
		}
		return applies
	case ReasonOptedOutCommercial, ReasonComplaint, ReasonWirelessDomain:
		if c == Commercial {
			return applies
		}
		return absent
	}
	return applies // an unknown reason denies
}
