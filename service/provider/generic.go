package provider

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// GenericOptions are what the generic webhook needs.
type GenericOptions struct {
	// Secrets are the keys that may have signed: usually one, two while it is being changed. Each is "whsec_" and base64 of 24 to 64
	// octets, as Standard Webhooks has them.
	Secrets []string
}

// GenericProvider reads events that a program of the organisation's own sends, signed as the Standard Webhooks specification says.
type GenericProvider struct {
	keys [][]byte
}

// NewGeneric makes it. It fails when a secret is none.
func NewGeneric(o GenericOptions) (*GenericProvider, error) {
	p := &GenericProvider{}
	for _, s := range o.Secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(s), "whsec_"))
		if err != nil || len(key) < 24 || len(key) > 64 {
			return nil, errors.New("a secret must be whsec_ and the base64 of 24 to 64 random octets, for example from: echo whsec_$(openssl rand -base64 32)")
		}
		p.keys = append(p.keys, key)
	}
	if len(p.keys) == 0 || len(p.keys) > 4 {
		return nil, errors.New("it must hold 1 to 4 secrets, one a line")
	}
	return p, nil
}

// maxSignatures is how many signatures of a request are looked at.
const maxSignatures = 8

// MaxGenericEvents is how many events a generic request may hold.
const MaxGenericEvents = 1000

// Receive reads a request. webhook-signature holds, after "v1,", the base64 of HMAC-SHA-256 over webhook-id, webhook-timestamp and
// body, joined by dots. A sender signs every try anew, with the same id.
func (p *GenericProvider) Receive(_ context.Context, r *Request) (*Delivery, error) {
	id, stamp := r.Header.Get("Webhook-Id"), r.Header.Get("Webhook-Timestamp")
	if id == "" || len(id) > 100 || strings.Contains(id, ".") || stamp == "" {
		return nil, ErrForged
	}
	signatures := strings.Fields(r.Header.Get("Webhook-Signature"))
	genuine := false
	for _, s := range signatures[:min(len(signatures), maxSignatures)] {
		version, text, _ := strings.Cut(s, ",")
		given, err := base64.StdEncoding.DecodeString(text)
		if version != "v1" || err != nil {
			continue
		}
		for _, key := range p.keys {
			h := hmac.New(sha256.New, key)
			h.Write([]byte(id + "." + stamp + "."))
			h.Write(r.Body)
			genuine = hmac.Equal(given, h.Sum(nil)) || genuine
		}
	}
	if !genuine {
		return nil, ErrForged
	}
	if n, err := strconv.ParseInt(stamp, 10, 64); err != nil || seconds(strconv.FormatInt(n, 10)).IsZero() || !inWindow(seconds(stamp), r.At, Window) {
		return nil, ErrStale
	}
	var m struct {
		Events []json.RawMessage `json:"events"`
	}
	if err := decode(r.Body, &m); err != nil {
		return nil, err
	}
	if len(m.Events) == 0 || len(m.Events) > MaxGenericEvents {
		return nil, ErrMalformed
	}
	d := &Delivery{}
	for i, raw := range m.Events {
		readGeneric(d, id, i, raw)
	}
	return d, nil
}

// readGeneric reads one event. Its id is its own, or else that of the request and its place in it.
func readGeneric(d *Delivery, request string, n int, raw []byte) {
	var e struct {
		ID      string `json:"id"`
		Type    string `json:"type"`
		Address string `json:"address"`
		At      string `json:"occurred_at"`
		Group   string `json:"group"`
		Status  string `json:"status"`
		Words   string `json:"diagnostic"`
	}
	if json.Unmarshal(raw, &e) != nil || e.At != "" && moment(e.At).IsZero() || e.Status != "" && !statusForm.MatchString(e.Status) {
		d.Unreadable++
		return
	}
	x := Event{ID: "event/" + e.ID, Address: e.Address, Occurred: moment(e.At), Group: text(e.Group, 128), Status: e.Status, Words: text(e.Words, maxWords), Source: "event/" + text(e.Type, 40)}
	if e.ID == "" {
		x.ID = "request/" + request + "/" + strconv.Itoa(n)
	}
	switch e.Type {
	case "unsubscribe":
		x.What = Unsubscribed
	case "complaint":
		x.What = Complained
	case "bounce":
		x.Status = statusOf(e.Status, x.Words)
		x.What = bounce(true, x.Status, x.Words)
	case "hard-bounce":
		x.What = HardBounce
	case "soft-bounce":
		x.What = SoftBounce
	case "resubscribe":
		d.Resubscribed++
		return
	default:
		d.Unreadable++ // a word of the organisation's own program is misspelt: it must hear of it
		return
	}
	d.add(x)
}
