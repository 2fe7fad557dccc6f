package report

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// Feedback is a complaint (RFC 5965 section 3).
type Feedback struct {
	// Type is abuse, fraud, not-spam and so on, in lower case. A complaint that gives none is abuse: a message that a provider
	// forwards because its user called it spam, or an XARF report of spam (RFC 9477 section 3.5).
	Type string
	// Recipients are the addresses that it names: Original-Rcpt-To, Removal-Recipient and XARF's. Many reporters name none.
	Recipients []string
}

// Suppresses reports whether the type means that its recipient wants no more: abuse, and the older opt-out. Types that are not
// supported must be ignored (RFC 5965 section 6).
func (f *Feedback) Suppresses() bool {
	return f.Type == "abuse" || f.Type == "opt-out" || f.Type == "opt-out-list"
}

// forwarders are the providers whose complaints are no more than the message complained of, forwarded: in the From field.
var forwarders = []string{"staff@hotmail.com"} // Microsoft's Junk Mail Reporting Program

// complaint reads a feedback report.
func (r *Report) complaint(w *walker) {
	r.Kind, r.Standard = Complaint, true
	f, several := &Feedback{}, false
	for _, g := range groups(w.feedback) {
		for _, x := range g {
			switch x.name {
			case "feedback-type":
				t := strings.ToLower(word(x.value))
				several = several || f.Type != "" && f.Type != t
				f.Type = t
			case "original-rcpt-to", "removal-recipient":
				f.name(x.value)
			}
		}
	}
	if several { // RFC 5965 section 3.1 has it exactly once; which one is meant, nobody knows
		f.Type = ""
	}
	if f.Type == "xarf" {
		f.xarf(w)
	}
	r.Feedback = f
}

// name adds a recipient that a complaint names.
func (f *Feedback) name(value string) {
	if a := typedAddress(value); a != "" && len(f.Recipients) < maxRecipients {
		f.Recipients = append(f.Recipients, a)
	}
}

// xarf reads a report in the format XARF, which RFC 9477 section 3.5 allows: a JSON object that holds the message as a sample.
// What is not of the type Spam keeps the type xarf, which suppresses nothing.
func (f *Feedback) xarf(w *walker) {
	var x struct {
		Report struct {
			ReportType, SMTPRcptToAddress string
			Samples                       []struct {
				ContentType, Payload   string
				Base64Encoded, Encoded bool
			}
		}
	}
	if json.Unmarshal(w.object, &x) != nil || !strings.EqualFold(x.Report.ReportType, "spam") {
		return
	}
	f.Type = "abuse"
	f.name(x.Report.SMTPRcptToAddress)
	for _, s := range x.Report.Samples {
		if w.returned != nil || !strings.EqualFold(s.ContentType, "message/rfc822") {
			continue
		}
		w.returned = []byte(s.Payload)
		if s.Base64Encoded || s.Encoded {
			w.returned, _ = base64.StdEncoding.DecodeString(s.Payload)
		}
	}
}

// forwarded reports whether the message is a complaint in the form of a forwarded message, and reads it if so.
func (r *Report) forwarded(root *part, w *walker) bool {
	if w.returned == nil || !says(folded([]byte(root.header.Get("From")), maxLook), forwarders) {
		return false
	}
	r.Kind, r.Feedback = Complaint, &Feedback{Type: "abuse"}
	if to := root.header.Get("X-HmXmrOriginalRecipient"); to != "" {
		r.Feedback.name(to)
	}
	return true
}
