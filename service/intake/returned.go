package intake

import (
	"context"
	"slices"

	"optout/service/ledger"
	"optout/service/mailauth"
	"optout/service/report"
)

// returned takes what comes to a signed return path: reports of failure, of which only those about the one whose message it was
// count. What is no report of failure, or of a failure that says nothing of the address, changes nothing: to refuse it would only
// make another bounce.
func (in *Intake) returned(ctx context.Context, b *box, m *message) Result {
	r := m.report()
	switch r.Kind {
	case report.Bounce:
	case report.Complaint:
		return in.feedback(ctx, b, m)
	default:
		return ignored("no report of a failure")
	}
	x, addr, why := in.about(b, r.Recipients)
	if x == nil {
		return ignored(why)
	}
	// A report may name anything. Storms are told by the domain of the address that we mailed; those of addresses that mail was forwarded
	// to are counted apart, so that nobody can make a storm of another's domain with return paths of their own.
	domain := domainOf(addr)
	if addr == "" {
		domain = "by way of " + domainOf(x.Address())
	}
	f := ledger.Failed{Failure: ledger.SoftFailure, Domain: domain, Detail: map[string]string{}}
	if x.Class == report.Hard {
		f.Failure = ledger.HardFailure
	}
	if x.Status != "" {
		f.Detail["status"] = x.Status
	}
	by := ledger.By{Channel: ledger.ByFeedback, Mailing: b.mailing, RequestID: m.reportID("bounce", b.to.Key), Evidence: m.evidence()}
	by.Evidence["diagnostic"] = short(x.Diagnostic)
	o, err := in.o.Ledger.Bounce(ctx, by, b.to, f)
	return recorded(Bounce, o, x.Class.String()+" "+x.Status, err)
}

// about finds which of a report's recipients is the one that the return path names. A message with a return path of its own went
// to one address; when the report names others, that one was forwarded, and only what they all say may be held against it. addr is
// the address that was mailed, where the report names it.
func (in *Intake) about(b *box, all []report.Recipient) (x *report.Recipient, addr, why string) {
	bears := func(x report.Recipient) bool { return x.Class == report.Hard || x.Class == report.Soft }
	s := in.o.Ledger.Registry().Sender(b.sender)
	for i := range all {
		for _, addr := range []string{all[i].Original, all[i].Final} {
			if addr == "" {
				continue
			}
			keys, err := in.o.Ledger.AddressKeys(s, addr)
			if err != nil || !slices.Contains(keys, [16]byte(b.to.Key)) {
				continue
			}
			if !bears(all[i]) {
				return nil, "", "it says nothing of the address"
			}
			return &all[i], addr, ""
		}
	}
	var mildest *report.Recipient
	for i := range all {
		if !bears(all[i]) {
			return nil, "", "it says nothing of the address"
		}
		if mildest == nil || all[i].Class == report.Soft {
			mildest = &all[i]
		}
	}
	if mildest == nil {
		return nil, "", "it names no recipient"
	}
	return mildest, "", ""
}

// knownReporters are those that report complaints to whoever signs up: the address that their reports come from, or its domain.
// A domain is one where only the reporter itself has addresses.
func knownReporters() []string {
	return []string{
		"arf.mail.yahoo.com", // Yahoo's Complaint Feedback Loop, AOL's too
		"staff@hotmail.com",  // Microsoft's Junk Mail Reporting Program
	}
}

// feedback takes complaints. One counts when a token of ours in the message complained of names whose it was, and a listed
// reporter signed the report: whoever is mailed has a token and could forge the rest.
func (in *Intake) feedback(ctx context.Context, b *box, m *message) Result {
	r := m.report()
	switch r.Kind {
	case report.Complaint:
	case report.Other, report.Automatic: // such as that of a feedback loop which asks to confirm the address
		return in.question(ctx, b, m)
	default:
		return ignored("no report of a complaint")
	}
	if !r.Feedback.Suppresses() {
		return ignored("a report of another type than abuse") // RFC 5965 section 6
	}
	token, sure := in.named(r.Tokens)
	if b.kind == bounceBox {
		token, sure = b, true
	}
	by := ledger.By{Channel: ledger.ByFeedback, Evidence: m.evidence()}
	by.Evidence["feedback_type"] = short(r.Feedback.Type)
	v := m.auth(ctx, in.o.Auth)
	by.Evidence["authentication"] = short(v.Detail)
	by.Evidence["from"] = short(m.words().From)
	if token != nil && sure && in.listed(v) {
		by.Mailing, by.RequestID = token.mailing, m.requestID("complaint", token.to.Key)
		o, err := in.o.Ledger.Complain(ctx, by, token.to)
		return recorded(Complaint, o, "signed by a listed reporter", err)
	}
	item := ledger.QueueItem{Sender: b.sender, Claim: ledger.ClaimComplaint, Doubt: ledger.DoubtReporter, Scope: ledger.Scope{Kind: ledger.ScopeCommercial}}
	item.Source, item.Network = m.source()
	switch {
	case token != nil && sure:
		to := token.to
		if s, kind, _, _ := in.o.Ledger.Registry().Scope(to.Scope); kind != ledger.ScopeTopic {
			to.Scope = s.Commercial()
		}
		item.Sender, item.Token, by.Mailing = token.sender, &to, token.mailing
	case len(r.Feedback.Recipients) == 1:
		item.Address = r.Feedback.Recipients[0]
	}
	by.RequestID = m.requestID("complaint in doubt", item.Sender, item.Address, token != nil)
	return in.enqueue(ctx, by, item)
}

// listed reports whether a listed reporter signed the message: by DKIM, aligned with the address in From.
func (in *Intake) listed(v *mailauth.Verdict) bool {
	from := lower(v.From)
	return v.Result == mailauth.Proved && v.By == "dkim" && (in.reporters[from] || in.reporters[domainOf(from)])
}
