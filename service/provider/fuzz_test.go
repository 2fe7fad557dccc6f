package provider_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"optout/service/provider"
	"optout/service/providertest"
)

// sound checks what must hold of every delivery, whatever was sent.
func sound(t *testing.T, d *provider.Delivery, err error) {
	t.Helper()
	if err != nil {
		if d != nil {
			t.Fatal("a delivery with an error")
		}
		return
	}
	for _, e := range d.Events {
		if e.ID == "" || len(e.ID) > 300 || e.Address == "" || len(e.Address) > 320 || e.What < provider.Unsubscribed || e.What > provider.SoftBounce || len(e.Words) > 1000 || e.Occurred.Year() > 5200 {
			t.Fatalf("%+v", e)
		}
	}
}

func FuzzSESRecord(f *testing.F) {
	p, sns := newSES(f)
	for _, r := range sesRecords {
		f.Add(r.record)
	}
	f.Fuzz(func(t *testing.T, record string) {
		d, err := p.Receive(t.Context(), &provider.Request{Body: marshal(t, sns.Notification("2", "m", record)), At: now})
		sound(t, d, err)
	})
}

func FuzzSNS(f *testing.F) {
	p, sns := newSES(f)
	f.Add(marshal(f, sns.Notification("1", "m", sesRecords[0].record)))
	f.Add(marshal(f, sns.Confirmation("SubscriptionConfirmation")))
	f.Add([]byte(`{"Type":7,"TopicArn":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := p.Receive(t.Context(), &provider.Request{Body: body, At: now})
		sound(t, d, err)
	})
}

func FuzzSendGrid(f *testing.F) {
	key := providertest.NewSendGridKey(f)
	p, err := provider.NewSendGrid(provider.SendGridOptions{WebhookKey: key.Public()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(sendGridBatch))
	f.Add([]byte(`[{"email":7,"event":[]},null,"x"]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := p.Receive(t.Context(), &provider.Request{Header: key.Sign(body, now), Body: body, At: now})
		sound(t, d, err)
	})
}

func FuzzMailgun(f *testing.F) {
	p := provider.NewMailgun(provider.MailgunOptions{SigningKey: []byte(mailgunKey)})
	f.Add([]byte(`{"event":"failed","severity":"permanent","reason":"bounce","id":"x","recipient":"alice@example.com","delivery-status":{"code":550,"message":"5.1.1 no such user"}}`))
	f.Add([]byte(`{"event":7}`))
	f.Fuzz(func(t *testing.T, event []byte) {
		if !json.Valid(event) {
			d, err := p.Receive(t.Context(), &provider.Request{Body: event, At: now})
			sound(t, d, err)
			return
		}
		d, err := p.Receive(t.Context(), &provider.Request{Body: providertest.Mailgun(mailgunKey, token, now, json.RawMessage(event)), At: now})
		sound(t, d, err)
	})
}

func FuzzPostmark(f *testing.F) {
	p := provider.NewPostmark(provider.PostmarkOptions{Header: "X-Optout", HeaderSecret: "staple"})
	f.Add([]byte(`{"RecordType":"Bounce","ID":4323372036854775807,"Type":"HardBounce","Details":"550 5.1.1","Email":"john@example.com","BouncedAt":"2019-11-05T16:33:54.9070259Z"}`))
	f.Add([]byte(`{"RecordType":"SubscriptionChange","ChangedAt":"2020-02-01T10:53:34Z","Recipient":"john@example.com","Origin":"Recipient","SuppressSending":true,"SuppressionReason":"ManualSuppression"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := p.Receive(t.Context(), &provider.Request{Header: http.Header{"X-Optout": {"staple"}}, Body: body, At: now})
		sound(t, d, err)
	})
}

func FuzzGeneric(f *testing.F) {
	p, err := provider.NewGeneric(provider.GenericOptions{Secrets: []string{secret}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"events":[{"id":"1","type":"bounce","address":"a@example.com","occurred_at":"2026-11-25T09:00:00Z","status":"5.1.1","diagnostic":"no such user"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := p.Receive(t.Context(), &provider.Request{Header: providertest.Standard(secret, "m", now, body), Body: body, At: now})
		sound(t, d, err)
	})
}

// FuzzAnswers gives the same octets to every provider as an answer of its API.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`[{"created":1764064800,"email":"a@example.com","reason":"550 5.1.1","status":"5.1.1"}]`))
	f.Add([]byte(`{"items":[{"address":"a@example.com","tags":["*"],"created_at":"Fri, 21 Oct 2011 11:02:55 UTC"}],"paging":{"next":"https://example.net/"}}`))
	f.Add([]byte(`{"Suppressions":[{"EmailAddress":"a@example.com","SuppressionReason":"HardBounce","Origin":"Recipient","CreatedAt":"2019-12-10T08:58:33-05:00"}]}`))
	f.Add([]byte(`{"NextToken":"x","SuppressedDestinationSummaries":[{"EmailAddress":"a@example.com","Reason":"BOUNCE","LastUpdateTime":1.5E9}]}`))
	var answer []byte
	client := &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", "application/json")
		w.Write(answer)
		return w.Result(), nil
	})}
	api := provider.API{URL: "https://api.example.net", Client: client}
	ses, _ := provider.NewSES(provider.SESOptions{API: api, Region: "eu-west-1", AccessKeyID: "x", SecretKey: "x"})
	sendgrid, _ := provider.NewSendGrid(provider.SendGridOptions{API: api, Key: "x"})
	listers := []provider.Lister{ses, sendgrid, provider.NewMailgun(provider.MailgunOptions{API: api, Key: "x", Domain: "d.example"}), provider.NewPostmark(provider.PostmarkOptions{API: api, Token: "x", Stream: "s"})}
	f.Fuzz(func(t *testing.T, body []byte) {
		answer = body
		for _, l := range listers {
			for _, list := range l.Lists() {
				page, err := l.List(t.Context(), list, time.Time{}, "")
				if err == nil {
					sound(t, &provider.Delivery{Events: page.Items}, nil)
				}
			}
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
