package provider

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// SendGridOptions are what SendGrid's webhook and API need.
type SendGridOptions struct {
	// WebhookKey is the verification key of the Signed Event Webhook: base64 of a SubjectPublicKeyInfo, or PEM. Empty: no webhook.
	WebhookKey string
	// API reaches the API. Its URL defaults to https://api.sendgrid.com.
	API API
	// Key is the API key, of the scopes suppression.* and asm.*; empty: no API.
	Key string
}

// SendGridProvider speaks Twilio SendGrid's Event Webhook and v3 API.
type SendGridProvider struct {
	verify *ecdsa.PublicKey
	api    API
	key    string
}

// NewSendGrid makes it. It fails when the verification key is none.
func NewSendGrid(o SendGridOptions) (*SendGridProvider, error) {
	p := &SendGridProvider{api: o.API.at("https://api.sendgrid.com"), key: o.Key}
	if o.WebhookKey == "" {
		return p, nil
	}
	der := []byte(nil)
	if block, _ := pem.Decode([]byte(o.WebhookKey)); block != nil {
		der = block.Bytes
	} else {
		der, _ = base64.StdEncoding.DecodeString(strings.TrimSpace(o.WebhookKey))
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if p.verify, _ = key.(*ecdsa.PublicKey); err != nil || p.verify == nil {
		return nil, errors.New("it is no ECDSA public key: copy the verification key from the settings of the Signed Event Webhook")
	}
	return p, nil
}

// sendGridAge is how old the signed timestamp of an event batch may be. SendGrid tries for 24 hours and does not say that it signs
// a later try anew: to refuse one would lose what it holds. A replay does nothing, for every event is known by its id for ever.
const sendGridAge = 25 * time.Hour

// Receive reads an event batch: the signature is ECDSA over SHA-256 of timestamp and body.
func (p *SendGridProvider) Receive(_ context.Context, r *Request) (*Delivery, error) {
	if p.verify == nil {
		return nil, ErrForged
	}
	stamp := r.Header.Get("X-Twilio-Email-Event-Webhook-Timestamp")
	signature, err := base64.StdEncoding.DecodeString(r.Header.Get("X-Twilio-Email-Event-Webhook-Signature"))
	if err != nil || stamp == "" {
		return nil, ErrForged
	}
	h := sha256.New()
	h.Write([]byte(stamp))
	h.Write(r.Body)
	if !ecdsa.VerifyASN1(p.verify, h.Sum(nil), signature) {
		return nil, ErrForged
	}
	if at := seconds(stamp); at.IsZero() || !inWindow(at, r.At, sendGridAge) {
		return nil, ErrStale
	}
	var batch []json.RawMessage
	if err := decode(r.Body, &batch); err != nil {
		return nil, err
	}
	d := &Delivery{}
	for _, raw := range batch {
		readSendGrid(d, raw)
	}
	return d, nil
}

// readSendGrid reads one event of a batch. Its names count as they are spelt: SendGrid puts the custom arguments of the mail beside
// its own fields, and "Event" or "Email" may be one of them, which encoding/json would take for "event" and "email".
func readSendGrid(d *Delivery, raw []byte) {
	var fields map[string]json.RawMessage
	readable := json.Unmarshal(raw, &fields) == nil
	var e struct {
		email, event, id                                  string
		at, kind, reason, status, classification, groupID loose
	}
	for name, field := range map[string]any{"email": &e.email, "event": &e.event, "sg_event_id": &e.id, "type": &e.kind, "timestamp": &e.at, "reason": &e.reason,
		"status": &e.status, "bounce_classification": &e.classification, "asm_group_id": &e.groupID} {
		if value, ok := fields[name]; ok && json.Unmarshal(value, field) != nil {
			readable = false
		}
	}
	if !readable {
		d.Unreadable++
		return
	}
	x := Event{ID: e.id, Address: e.email, Occurred: seconds(string(e.at)), Source: "event/" + text(e.event, 40)}
	switch e.event {
	case "unsubscribe":
		x.What = Unsubscribed
	case "group_unsubscribe":
		x.What, x.Group = Unsubscribed, text(string(e.groupID), 128)
	case "spamreport":
		x.What = Complained
	case "bounce":
		x.Words, x.Source = text(string(e.reason), maxWords), "event/bounce/"+text(string(e.kind), 40)
		x.Status = statusOf(string(e.status), x.Words)
		x.What = sendGridBounce(string(e.kind), string(e.classification), x.Status, x.Words)
	case "group_resubscribe":
		d.Resubscribed++
		return
	}
	d.add(x)
}

// sendGridBounce classifies a bounce. SendGrid calls "blocked" what its reputation rather than the mailbox caused.
func sendGridBounce(kind, class, status, words string) What {
	switch class {
	case "Content", "Reputation", "Frequency or Volume Too High":
		return 0
	}
	w := bounce(kind == "bounce", status, words)
	if kind == "blocked" && w == HardBounce {
		return 0 // SendGrid would send again, and it knows more of the answer than it tells
	}
	return w
}

// Lists are those of the v3 API. "blocks" is not among them: what is blocked is not the mailbox.
func (p *SendGridProvider) Lists() []string {
	return []string{"unsubscribes", "groups", "spam_reports", "bounces", "invalid_emails"}
}

// sendGridPage is the most that a page may hold. Pages overlap: what is taken off the list while it is read moves the rest forward.
const (
	sendGridPage = 500
	sendGridStep = 450
)

// List reads one page. The cursor is the offset; "groups" are paged by group and have none.
func (p *SendGridProvider) List(ctx context.Context, list string, since time.Time, cursor string) (*Page, error) {
	if list == "groups" {
		return p.groups(ctx)
	}
	offset := 0
	if cursor != "" {
		var err error
		if offset, err = strconv.Atoi(cursor); err != nil || offset < 0 {
			return nil, fmt.Errorf("sendgrid: the cursor of %s is no offset", list)
		}
	}
	q := url.Values{"limit": {strconv.Itoa(sendGridPage)}, "offset": {strconv.Itoa(offset)}}
	if !since.IsZero() {
		q.Set("start_time", strconv.FormatInt(since.Unix(), 10))
	}
	var items []struct {
		Created loose `json:"created"`
		Email   loose `json:"email"`
		Reason  loose `json:"reason"`
		Status  loose `json:"status"`
	}
	if _, err := p.api.call(ctx, p.auth, http.MethodGet, "/v3/suppression/"+list+"?"+q.Encode(), nil, &items); err != nil {
		return nil, err
	}
	page := &Page{}
	for _, i := range items {
		e := Event{ID: list + "/" + string(i.Created), Address: string(i.Email), Occurred: seconds(string(i.Created)), Source: "list/" + list, Listed: true}
		switch list {
		case "unsubscribes":
			e.What = Unsubscribed
		case "spam_reports":
			e.What = Complained
		case "bounces":
			e.Words = text(string(i.Reason), maxWords)
			e.Status = statusOf(string(i.Status), e.Words)
			e.What = bounce(true, e.Status, e.Words)
		case "invalid_emails":
			e.What, e.Words = HardBounce, text(string(i.Reason), maxWords)
		}
		page.add(e)
	}
	if len(items) == sendGridPage {
		page.Next = strconv.Itoa(offset + sendGridStep)
	}
	return page, nil
}

// groups reads every address that is suppressed in a group.
func (p *SendGridProvider) groups(ctx context.Context) (*Page, error) {
	var items []struct {
		Email   loose `json:"email"`
		GroupID loose `json:"group_id"`
		Created loose `json:"created_at"`
	}
	if _, err := p.api.call(ctx, p.auth, http.MethodGet, "/v3/asm/suppressions", nil, &items); err != nil {
		return nil, err
	}
	page := &Page{}
	for _, i := range items {
		page.add(Event{ID: "groups/" + string(i.GroupID) + "/" + string(i.Created), Address: string(i.Email), Occurred: seconds(string(i.Created)), Group: text(string(i.GroupID), 128),
			What: Unsubscribed, Source: "list/groups", Listed: true})
	}
	return page, nil
}

// SuppressAtOnce bounds the size of a call.
func (p *SendGridProvider) SuppressAtOnce() int { return 500 }

// Suppress adds addresses to the global unsubscribes, which stop all mail of the account.
func (p *SendGridProvider) Suppress(ctx context.Context, addresses []string) ([]int, error) {
	_, err := p.api.call(ctx, p.auth, http.MethodPost, "/v3/asm/suppressions/global", map[string][]string{"recipient_emails": addresses}, nil)
	return nil, err
}

func (p *SendGridProvider) auth(r *http.Request, _ []byte) error {
	r.Header.Set("Authorization", "Bearer "+p.key)
	return nil
}
