package provider

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/url"
	"time"
)

// PostmarkOptions are what Postmark needs. Postmark signs nothing: it is known by a secret of ours that it sends along.
type PostmarkOptions struct {
	// User and Password are those in the webhook's URL (HTTP Basic).
	User, Password string
	// Header and HeaderSecret are a header field that the webhook was told to send.
	Header, HeaderSecret string
	// API reaches the API; its URL defaults to https://api.postmarkapp.com.
	API API
	// Token is the server's API token, and Stream the message stream; without a token: no API.
	Token, Stream string
}

// PostmarkProvider speaks Postmark's webhooks and API.
type PostmarkProvider struct {
	opt PostmarkOptions
	api API
}

// NewPostmark makes it.
func NewPostmark(o PostmarkOptions) *PostmarkProvider {
	return &PostmarkProvider{opt: o, api: o.API.at("https://api.postmarkapp.com")}
}

// same compares secrets in constant time, whatever their lengths.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// genuine checks the secrets that are set; at least one must be.
func (p *PostmarkProvider) genuine(h http.Header) bool {
	ok := p.opt.Password != "" || p.opt.HeaderSecret != ""
	if p.opt.Password != "" {
		user, password, given := (&http.Request{Header: h}).BasicAuth()
		ok = ok && given && same(user+"\x00"+password, p.opt.User+"\x00"+p.opt.Password)
	}
	if p.opt.HeaderSecret != "" {
		ok = ok && same(h.Get(p.opt.Header), p.opt.HeaderSecret)
	}
	return ok
}

// Receive reads a webhook. Nothing in it is signed or timed, so whoever has the secret can make up what they like; a replay does
// nothing, for every event is known by its id for ever.
func (p *PostmarkProvider) Receive(_ context.Context, r *Request) (*Delivery, error) {
	if !p.genuine(r.Header) {
		return nil, ErrCredential
	}
	var m struct {
		RecordType    string
		ID            loose
		Type          string
		Email         string
		Recipient     string
		MessageStream string
		MessageID     loose
		BouncedAt     string
		ChangedAt     string
		Description   loose
		Details       loose
		Origin        string
		Suppress      *bool  `json:"SuppressSending"`
		Reason        string `json:"SuppressionReason"`
	}
	if err := decode(r.Body, &m); err != nil {
		return nil, err
	}
	d := &Delivery{}
	if p.opt.Stream != "" && m.MessageStream != "" && m.MessageStream != p.opt.Stream {
		d.Ignored = 1 // of another stream, which is another provider in the configuration
		return d, nil
	}
	e := Event{Source: text(m.RecordType, 40) + "/" + text(m.Type, 40), Occurred: moment(m.BouncedAt)}
	switch m.RecordType {
	case "Bounce":
		e.Words = text(string(m.Details)+" "+string(m.Description), maxWords)
		e.Status = statusOf("", string(m.Details))
		e.Address, e.ID, e.What = m.Email, "bounce/"+string(m.ID), postmarkBounce(m.Type, e.Status, string(m.Details))
	case "SpamComplaint":
		e.Address, e.ID, e.What = m.Email, "bounce/"+string(m.ID), Complained
	case "SubscriptionChange":
		if m.Suppress == nil {
			d.Unreadable = 1
			return d, nil
		}
		if !*m.Suppress {
			d.Resubscribed = 1
			return d, nil
		}
		e = postmarkSuppression(m.Reason, m.Origin)
		e.Address, e.Occurred, e.ID = m.Recipient, moment(m.ChangedAt), "change/"+m.ChangedAt+"/"+string(m.MessageID)
		e.Listed = m.Origin != "Recipient"
	}
	if e.ID == "bounce/" {
		e.ID = ""
	}
	d.add(e)
	return d, nil
}

// postmarkBounce classifies a bounce by Postmark's type.
func postmarkBounce(kind, status, words string) What {
	switch kind {
	case "HardBounce", "BadEmailAddress":
		return bounce(true, status, words)
	case "SoftBounce", "DnsError", "Undeliverable":
		if w := bounce(false, status, words); w != HardBounce {
			return w
		}
		return SoftBounce
	case "SpamComplaint":
		return Complained
	case "Unsubscribe":
		return Unsubscribed
	}
	// Transient is still being tried; AutoResponder, AddressChange, ChallengeVerification and OpenRelayTest are replies; Blocked,
	// SpamNotification, VirusNotification, DMARCPolicy and TemplateRenderingFailed are about the mail; Subscribe lifts nothing;
	// ManuallyDeactivated comes as a subscription change.
	return 0
}

// postmarkSuppression reads why an address is on the list.
func postmarkSuppression(reason, origin string) Event {
	e := Event{Source: "list/" + text(reason, 40) + "/" + text(origin, 20), Listed: true}
	switch reason {
	case "HardBounce":
		e.What = HardBounce
	case "SpamComplaint":
		e.What = Complained
	case "ManualSuppression":
		e.What = Unsubscribed
	}
	return e
}

// Lists is the stream's suppression list.
func (p *PostmarkProvider) Lists() []string { return []string{"suppressions"} }

func (p *PostmarkProvider) path(rest string) string {
	return "/message-streams/" + url.PathEscape(p.opt.Stream) + "/suppressions" + rest
}

// List reads the list, or what was put on it since a day: Postmark gives it in one page. Its days are those of US Eastern time.
func (p *PostmarkProvider) List(ctx context.Context, _ string, since time.Time, _ string) (*Page, error) {
	path := p.path("/dump")
	if !since.IsZero() {
		path += "?fromdate=" + since.UTC().Add(-24*time.Hour).Format(time.DateOnly)
	}
	var answer struct {
		Suppressions []struct {
			EmailAddress      loose
			SuppressionReason loose
			Origin            loose
			CreatedAt         loose
		}
	}
	if _, err := p.api.call(ctx, p.auth, http.MethodGet, path, nil, &answer); err != nil {
		return nil, err
	}
	page := &Page{}
	for _, i := range answer.Suppressions {
		e := postmarkSuppression(string(i.SuppressionReason), string(i.Origin))
		if e.What == 0 {
			page.Unreadable++
			continue
		}
		e.Address, e.Occurred, e.ID = string(i.EmailAddress), moment(string(i.CreatedAt)), "suppressions/"+string(i.CreatedAt)
		page.add(e)
	}
	return page, nil
}

// SuppressAtOnce is what Postmark takes in a call.
func (p *PostmarkProvider) SuppressAtOnce() int { return 50 }

// Suppress adds addresses to the stream's list. Postmark answers for each; those that it refuses (one that complained is there
// already, and cannot be changed) are told.
func (p *PostmarkProvider) Suppress(ctx context.Context, addresses []string) ([]int, error) {
	type item struct{ EmailAddress string }
	body := struct{ Suppressions []item }{}
	for _, a := range addresses {
		body.Suppressions = append(body.Suppressions, item{a})
	}
	var answer struct {
		Suppressions []struct{ Status string }
	}
	if _, err := p.api.call(ctx, p.auth, http.MethodPost, p.path(""), body, &answer); err != nil {
		return nil, err
	}
	if len(answer.Suppressions) != len(addresses) {
		return nil, errAnswer
	}
	var refused []int
	for i, s := range answer.Suppressions {
		if s.Status == "Failed" {
			refused = append(refused, i)
		}
	}
	return refused, nil
}

func (p *PostmarkProvider) auth(r *http.Request, _ []byte) error {
	r.Header.Set("X-Postmark-Server-Token", p.opt.Token)
	return nil
}
