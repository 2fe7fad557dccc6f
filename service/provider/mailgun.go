package provider

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// MailgunOptions are what Mailgun needs.
type MailgunOptions struct {
	// SigningKey is the HTTP webhook signing key; empty: no webhook.
	SigningKey []byte
	// API reaches the API; its URL defaults to https://api.mailgun.net (in the EU it is https://api.eu.mailgun.net).
	API API
	// Domain is the sending domain whose lists are read and written, and Key the API key; empty: no API.
	Domain, Key string
}

// MailgunProvider speaks Mailgun's webhooks and v3 API.
type MailgunProvider struct {
	opt MailgunOptions
	api API
}

// NewMailgun makes it.
func NewMailgun(o MailgunOptions) *MailgunProvider {
	return &MailgunProvider{opt: o, api: o.API.at("https://api.mailgun.net")}
}

// mailgunAge is how old a signed timestamp may be. Mailgun tries for 8 hours and signs a later try as the first.
const mailgunAge = 9 * time.Hour

// Receive reads an event. Mailgun signs timestamp and token, but not the event: so the token is good for one body only
// (Delivery.Nonce), or whoever has seen one request could make up others.
func (p *MailgunProvider) Receive(_ context.Context, r *Request) (*Delivery, error) {
	if len(p.opt.SigningKey) == 0 {
		return nil, ErrForged
	}
	var m struct {
		Signature struct {
			Timestamp loose  `json:"timestamp"`
			Token     string `json:"token"`
			Signature string `json:"signature"`
		} `json:"signature"`
		Event json.RawMessage `json:"event-data"`
	}
	if err := decode(r.Body, &m); err != nil {
		return nil, err
	}
	s := &m.Signature
	got, err := hex.DecodeString(s.Signature)
	h := hmac.New(sha256.New, p.opt.SigningKey)
	h.Write([]byte(s.Timestamp))
	h.Write([]byte(s.Token))
	// Mailgun's tokens are 50 characters. A length of ours keeps the end of the timestamp from passing for the beginning of a token.
	if err != nil || len(s.Token) < 32 || len(s.Token) > 100 || len(s.Timestamp) != 10 || !hmac.Equal(got, h.Sum(nil)) {
		return nil, ErrForged
	}
	at := seconds(string(s.Timestamp))
	if at.IsZero() || !inWindow(at, r.At, mailgunAge) {
		return nil, ErrStale
	}
	d := &Delivery{Nonce: s.Token, NonceEnds: at.Add(mailgunAge)}
	readMailgun(d, m.Event)
	return d, nil
}

// readMailgun reads one event.
func readMailgun(d *Delivery, raw []byte) {
	var e struct {
		Event     string          `json:"event"`
		ID        string          `json:"id"`
		At        loose           `json:"timestamp"`
		Recipient string          `json:"recipient"`
		Severity  string          `json:"severity"`
		Reason    loose           `json:"reason"`
		Tags      json.RawMessage `json:"tags"`
		Status    struct {
			Code        loose `json:"code"`
			Enhanced    loose `json:"enhanced-code"`
			Message     loose `json:"message"`
			Description loose `json:"description"`
		} `json:"delivery-status"`
	}
	if len(raw) == 0 || json.Unmarshal(raw, &e) != nil {
		d.Unreadable++
		return
	}
	x := Event{ID: e.ID, Address: e.Recipient, Occurred: seconds(string(e.At)), Source: "event/" + text(e.Event, 40)}
	switch e.Event {
	case "unsubscribed":
		x.What = Unsubscribed
	case "complained":
		x.What = Complained
	case "failed":
		x.Source += "/" + text(e.Severity, 20) + "/" + text(string(e.Reason), 40)
		x.Words = text(string(e.Status.Message)+" "+string(e.Status.Description), maxWords)
		x.Status = statusOf(string(e.Status.Enhanced), x.Words)
		x.What = mailgunFailure(e.Severity, string(e.Reason), x.Status, x.Words)
	}
	d.add(x)
}

// mailgunFailure classifies a failure.
func mailgunFailure(severity, reason, status, words string) What {
	switch reason {
	case "suppress-bounce", "suppress-complaint", "suppress-unsubscribe":
		return 0 // not tried: it is on a list of Mailgun's, which is read by polling
	case "espblock", "greylisted", "hardfail":
		return 0
	}
	if severity == "temporary" {
		return 0 // Mailgun tries again, and tells when it gives up
	}
	if severity != "permanent" {
		return SoftBounce
	}
	return bounce(reason == "bounce", status, words)
}

// Lists are those of the domain.
func (p *MailgunProvider) Lists() []string { return []string{"unsubscribes", "complaints", "bounces"} }

// List reads one page. Mailgun cannot say since when; the cursor is the link to the next page, which must stay with the API.
func (p *MailgunProvider) List(ctx context.Context, list string, _ time.Time, cursor string) (*Page, error) {
	path := "/v3/" + url.PathEscape(p.opt.Domain) + "/" + list + "?limit=1000"
	if cursor != "" {
		if !p.api.sameHost(cursor) {
			return nil, &APIError{Problem: "the link to the next page leads elsewhere"}
		}
		path = cursor
	}
	var answer struct {
		Items []struct {
			Address loose           `json:"address"`
			Created loose           `json:"created_at"`
			Code    loose           `json:"code"`
			Error   loose           `json:"error"`
			Tags    json.RawMessage `json:"tags"`
		} `json:"items"`
		Paging struct {
			Next string `json:"next"`
		} `json:"paging"`
	}
	if _, err := p.api.call(ctx, p.auth, http.MethodGet, path, nil, &answer); err != nil {
		return nil, err
	}
	page := &Page{}
	for _, i := range answer.Items {
		e := Event{ID: list + "/" + string(i.Created), Address: string(i.Address), Occurred: moment(string(i.Created)), Source: "list/" + list, Listed: true}
		switch list {
		case "unsubscribes":
			e.What = Unsubscribed
			for _, tag := range mailgunTags(i.Tags) {
				x := e
				x.Group, x.ID = text(tag, 128), e.ID+"/"+text(tag, 64)
				page.add(x)
			}
			continue
		case "complaints":
			e.What = Complained
		case "bounces":
			e.Words = text(string(i.Error), maxWords)
			e.Status = statusOf("", e.Words)
			e.What = bounce(true, e.Status, e.Words)
		}
		page.add(e)
	}
	if len(answer.Items) > 0 && answer.Paging.Next != "" {
		page.Next = answer.Paging.Next
	}
	return page, nil
}

// mailgunTags reads the tags of an unsubscribe; one empty tag stands for all mail of the domain.
func mailgunTags(raw json.RawMessage) []string {
	var tags []string
	if json.Unmarshal(raw, &tags) != nil || len(tags) == 0 || slices.Contains(tags, "*") {
		return []string{""}
	}
	return tags
}

// SuppressAtOnce is what Mailgun takes in a call.
func (p *MailgunProvider) SuppressAtOnce() int { return 1000 }

// Suppress adds addresses to the domain's unsubscribes, for all tags.
func (p *MailgunProvider) Suppress(ctx context.Context, addresses []string) ([]int, error) {
	type item struct {
		Address string   `json:"address"`
		Tags    []string `json:"tags"`
	}
	items := make([]item, len(addresses))
	for i, a := range addresses {
		items[i] = item{a, []string{"*"}}
	}
	_, err := p.api.call(ctx, p.auth, http.MethodPost, "/v3/"+url.PathEscape(p.opt.Domain)+"/unsubscribes", items, nil)
	return nil, err
}

func (p *MailgunProvider) auth(r *http.Request, _ []byte) error {
	r.SetBasicAuth("api", p.opt.Key)
	return nil
}
