package provider_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"optout/service/provider"
	"optout/service/providertest"
)

var now = time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)

// brief is an event as the tests write it: what, address, and group or status.
func brief(d *provider.Delivery) []string {
	var all []string
	for _, e := range d.Events {
		s := e.What.String() + " " + e.Address
		if e.Group != "" {
			s += " group:" + e.Group
		}
		if e.Among > 1 {
			s += fmt.Sprintf(" among:%d", e.Among)
		}
		all = append(all, s)
	}
	return all
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newSES(t testing.TB) (*provider.SESProvider, *providertest.SNS) {
	t.Helper()
	sns := providertest.NewSNS(t)
	p, err := provider.NewSES(provider.SESOptions{Topic: sns.Topic, Fetch: sns.Client})
	if err != nil {
		t.Fatal(err)
	}
	return p, sns
}

// The records that SES documents, and what becomes of each.
var sesRecords = []struct {
	name, record string
	want         []string
	ignored      int
}{
	{"hard bounce with DSN", `{"notificationType":"Bounce","bounce":{"bounceType":"Permanent","reportingMTA":"dns; email.example.com","bouncedRecipients":[{"emailAddress":"jane@example.com","status":"5.1.1","action":"failed","diagnosticCode":"smtp; 550 5.1.1 <jane@example.com>... User"}],"bounceSubType":"General","timestamp":"2016-01-27T14:59:38.237Z","feedbackId":"00000138111222aa-33322211-cccc-cccc-cccc-ddddaaaa068a-000000"},"mail":{"messageId":"m","destination":["jane@example.com"]}}`, []string{"hard-bounce jane@example.com"}, 0},
	{"hard bounce without DSN", `{"notificationType":"Bounce","bounce":{"bounceType":"Permanent","bounceSubType":"NoEmail","bouncedRecipients":[{"emailAddress":"jane@example.com"},{"emailAddress":"richard@example.com"}],"timestamp":"2016-01-27T14:59:38.237Z","feedbackId":"f1"}}`, []string{"hard-bounce jane@example.com", "hard-bounce richard@example.com"}, 0},
	{"event publishing", `{"eventType":"Bounce","bounce":{"bounceType":"Permanent","bounceSubType":"General","bouncedRecipients":[{"emailAddress":"r@example.com","action":"failed","status":"5.1.1","diagnosticCode":"smtp; 550 5.1.1 user unknown"}],"timestamp":"2017-08-05T00:41:02.669Z","feedbackId":"f2"},"mail":{"tags":{"ses:x":["y"]}}}`, []string{"hard-bounce r@example.com"}, 0},
	{"policy", `{"eventType":"Bounce","bounce":{"bounceType":"Permanent","bounceSubType":"General","bouncedRecipients":[{"emailAddress":"r@example.com","action":"failed","status":"5.7.1","diagnosticCode":"550 5.7.1 blocked"}],"feedbackId":"f3"}}`, nil, 1},
	{"full mailbox", `{"eventType":"Bounce","bounce":{"bounceType":"Transient","bounceSubType":"MailboxFull","bouncedRecipients":[{"emailAddress":"r@example.com"}],"feedbackId":"f4"}}`, []string{"soft-bounce r@example.com"}, 0},
	{"out of office", `{"eventType":"Bounce","bounce":{"bounceType":"Transient","bounceSubType":"General","bouncedRecipients":[{"emailAddress":"r@example.com"}],"feedbackId":"f5"}}`, nil, 1},
	{"undetermined, of nobody", `{"eventType":"Bounce","bounce":{"bounceType":"Undetermined","bounceSubType":"Undetermined","bouncedRecipients":[],"feedbackId":"f6"}}`, nil, 1},
	{"delayed", `{"eventType":"Bounce","bounce":{"bounceType":"Transient","bounceSubType":"General","bouncedRecipients":[{"emailAddress":"r@example.com","action":"delayed","status":"4.4.1"}],"feedbackId":"f7"}}`, nil, 1},
	{"on our own list there", `{"eventType":"Bounce","bounce":{"bounceType":"Permanent","bounceSubType":"OnAccountSuppressionList","bouncedRecipients":[{"emailAddress":"r@example.com","action":"failed","status":"5.1.1"}],"feedbackId":"f8"}}`, nil, 1},
	{"too large", `{"eventType":"Bounce","bounce":{"bounceType":"Permanent","bounceSubType":"MessageTooLarge","bouncedRecipients":[{"emailAddress":"r@example.com","status":"5.3.4"}],"feedbackId":"f9"}}`, nil, 1},
	{"complaint", `{"notificationType":"Complaint","complaint":{"userAgent":"AnyCompany Feedback Loop (V0.01)","complainedRecipients":[{"emailAddress":"richard@example.com"}],"complaintFeedbackType":"abuse","timestamp":"2016-01-27T14:59:38.237Z","feedbackId":"c1"}}`, []string{"complaint richard@example.com"}, 0},
	{"complaint of one of two", `{"notificationType":"Complaint","complaint":{"complainedRecipients":[{"emailAddress":"a@example.com"},{"emailAddress":"b@example.com"}],"timestamp":"2016-01-27T14:59:38.237Z","feedbackId":"c2"}}`, []string{"complaint a@example.com among:2", "complaint b@example.com among:2"}, 0},
	{"not spam", `{"notificationType":"Complaint","complaint":{"complainedRecipients":[{"emailAddress":"a@example.com"}],"complaintFeedbackType":"not-spam","feedbackId":"c3"}}`, nil, 1},
	{"complaint, not tried", `{"notificationType":"Complaint","complaint":{"complainedRecipients":[{"emailAddress":"a@example.com"}],"complaintSubType":"OnAccountSuppressionList","feedbackId":"c4"}}`, nil, 1},
	{"unsubscribed by the header", `{"eventType":"Subscription","mail":{"destination":["r@example.com"]},"subscription":{"contactList":"ContactListName","timestamp":"2022-01-12T01:00:17.910Z","source":"UnsubscribeHeader","newTopicPreferences":{"unsubscribeAll":true,"topicSubscriptionStatus":[{"topicName":"ExampleTopicName","subscriptionStatus":"OptOut"}]},"oldTopicPreferences":{"unsubscribeAll":false,"topicSubscriptionStatus":[{"topicName":"ExampleTopicName","subscriptionStatus":"OptIn"}]}}}`, []string{"unsubscribe r@example.com"}, 0},
	{"unsubscribed from a topic", `{"eventType":"Subscription","mail":{"destination":["r@example.com"]},"subscription":{"newTopicPreferences":{"unsubscribeAll":false,"topicSubscriptionStatus":[{"topicName":"T","subscriptionStatus":"OptOut"},{"topicName":"U","subscriptionStatus":"OptOut"}]},"oldTopicPreferences":{"unsubscribeAll":false,"topicSubscriptionStatus":[{"topicName":"T","subscriptionStatus":"OptIn"},{"topicName":"U","subscriptionStatus":"OptOut"}]}}}`, []string{"unsubscribe r@example.com group:T"}, 0},
	{"recipients with names", `{"notificationType":"Bounce","bounce":{"bounceType":"Permanent","bounceSubType":"General","bouncedRecipients":[{"emailAddress":"Jane Doe <jane@example.com>","status":"5.1.1","action":"failed"},{"emailAddress":"\"Doe, <J>\" < joe@example.com >","status":"5.1.1","action":"failed"},{"emailAddress":"ann@example.com (Ann (of) Ex)","status":"5.1.1","action":"failed"},{"emailAddress":"Max \"Max <max@example.com>","status":"5.1.1","action":"failed"}],"feedbackId":"n1"}}`, []string{"hard-bounce jane@example.com", "hard-bounce joe@example.com", "hard-bounce ann@example.com", "hard-bounce max@example.com"}, 0},
	{"unsubscribed, with a name", `{"eventType":"Subscription","mail":{"destination":["Jane Doe <jane@example.com>"]},"subscription":{"newTopicPreferences":{"unsubscribeAll":true},"oldTopicPreferences":{}}}`, []string{"unsubscribe jane@example.com"}, 0},
	{"subscribed again", `{"eventType":"Subscription","mail":{"destination":["r@example.com"]},"subscription":{"newTopicPreferences":{"unsubscribeAll":false},"oldTopicPreferences":{"unsubscribeAll":true}}}`, nil, 0},
	{"delivery", `{"notificationType":"Delivery","delivery":{"recipients":["jane@example.com"]}}`, nil, 1},
	{"the test message", `Successfully validated SNS topic for Amazon SES event publishing.`, nil, 1},
}

func TestSES(t *testing.T) {
	p, sns := newSES(t)
	for _, version := range []string{"1", "2"} {
		for _, c := range sesRecords {
			d, err := p.Receive(t.Context(), &provider.Request{Body: marshal(t, sns.Notification(version, "m-1", c.record)), At: now})
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			if got := brief(d); !slices.Equal(got, c.want) || d.Ignored != c.ignored || d.Unreadable != 0 {
				t.Errorf("%s: %q, ignored %d, unreadable %d; want %q, %d, 0", c.name, got, d.Ignored, d.Unreadable, c.want, c.ignored)
			}
		}
	}
	if n := sns.Fetches.Load(); n != 1 {
		t.Errorf("the certificate was fetched %d times", n)
	}
	// Recipients of one notification are told apart, and a repetition has the same ids.
	d, err := p.Receive(t.Context(), &provider.Request{Body: marshal(t, sns.Notification("2", "m-1", sesRecords[1].record)), At: now})
	if err != nil || d.Events[0].ID != "f1/0" || d.Events[1].ID != "f1/1" || d.Events[0].Occurred.Year() != 2016 {
		t.Errorf("%v, %+v", err, d)
	}
}

// A message of SNS whose signature does not fit in any way, or that is genuine and of another topic, is forged.
func TestSESForged(t *testing.T) {
	p, sns := newSES(t)
	other := providertest.NewSNS(t) // with a key of its own
	good := func() map[string]string { return sns.Notification("2", "m-1", sesRecords[0].record) }
	for name, m := range map[string]map[string]string{
		"altered message":                           set(good(), "Message", strings.Replace(sesRecords[0].record, "jane", "john", 1)),
		"altered id":                                set(good(), "MessageId", "m-2"),
		"an added subject":                          set(good(), "Subject", "x"),
		"altered type":                              set(good(), "Type", "SubscriptionConfirmation"),
		"no signature":                              set(good(), "Signature", ""),
		"signature that is no base64":               set(good(), "Signature", "%%%"),
		"version 3":                                 set(good(), "SignatureVersion", "3"),
		"version 1 of a signature of 2":             set(good(), "SignatureVersion", "1"),
		"another topic of the same account":         sns.Sign("2", set(good(), "TopicArn", sns.Topic+"x")),
		"signed by another key":                     other.Notification("2", "m-1", sesRecords[0].record),
		"certificate of another host":               set(good(), "SigningCertURL", "https://sns.eu-west-1.amazonaws.com.example.net/SimpleNotificationService-0123456789abcdef.pem"),
		"certificate of another region":             set(good(), "SigningCertURL", "https://sns.eu-west-2.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"),
		"certificate of a bucket":                   set(good(), "SigningCertURL", "https://s3.amazonaws.com/sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"),
		"certificate by plain HTTP":                 set(good(), "SigningCertURL", strings.Replace(sns.CertURL, "https", "http", 1)),
		"certificate with a user":                   set(good(), "SigningCertURL", strings.Replace(sns.CertURL, "https://", "https://x@", 1)),
		"certificate at a port":                     set(good(), "SigningCertURL", strings.Replace(sns.CertURL, ".com/", ".com:8443/", 1)),
		"certificate with a query":                  set(good(), "SigningCertURL", sns.CertURL+"?x"),
		"certificate elsewhere on the host":         set(good(), "SigningCertURL", "https://"+sns.Host+"/?Action=ConfirmSubscription&TopicArn=x"),
		"certificate that is not there":             set(good(), "SigningCertURL", "https://"+sns.Host+"/SimpleNotificationService-ffffffffffffffff.pem"),
		"confirmation that leads elsewhere":         sns.Sign("2", set(sns.Confirmation("SubscriptionConfirmation"), "SubscribeURL", "https://example.net/?Action=ConfirmSubscription&TopicArn="+sns.Topic)),
		"confirmation of another topic":             sns.Sign("2", set(sns.Confirmation("SubscriptionConfirmation"), "SubscribeURL", "https://"+sns.Host+"/?Action=ConfirmSubscription&TopicArn=x&Token=1")),
		"confirmation that does something else":     sns.Sign("2", set(sns.Confirmation("SubscriptionConfirmation"), "SubscribeURL", "https://"+sns.Host+"/?Action=DeleteTopic&TopicArn="+sns.Topic)),
		"confirmation with a signature not its own": set(sns.Confirmation("SubscriptionConfirmation"), "Token", "other"),
	} {
		if _, err := p.Receive(t.Context(), &provider.Request{Body: marshal(t, m), At: now}); !errors.Is(err, provider.ErrForged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if sns.Confirmed.Load() != 0 {
		t.Error("a forged message confirmed something")
	}
	if _, err := p.Receive(t.Context(), &provider.Request{Body: marshal(t, good()), At: now.AddDate(30, 0, 0)}); !errors.Is(err, provider.ErrForged) {
		t.Errorf("signed with a certificate that has ended: %v", err)
	}
}

func set(m map[string]string, name, value string) map[string]string {
	m[name] = value
	return m
}

func TestSESControl(t *testing.T) {
	p, sns := newSES(t)
	body := marshal(t, sns.Confirmation("SubscriptionConfirmation"))
	sns.Down.Store(true)
	if _, err := p.Receive(t.Context(), &provider.Request{Body: body, At: now}); !errors.Is(err, provider.ErrLater) {
		t.Errorf("SNS down: %v", err)
	}
	sns.Down.Store(false)
	if d, err := p.Receive(t.Context(), &provider.Request{Body: body, At: now}); err != nil || d.Control == "" || sns.Confirmed.Load() != 1 {
		t.Errorf("%v, %+v, confirmed %d times", err, d, sns.Confirmed.Load())
	}
	if d, err := p.Receive(t.Context(), &provider.Request{Body: marshal(t, sns.Confirmation("UnsubscribeConfirmation")), At: now}); err != nil || d.Control == "" || sns.Confirmed.Load() != 1 {
		t.Errorf("%v, %+v, confirmed %d times", err, d, sns.Confirmed.Load())
	}
	// Messages that name ever new certificates do not make us fetch without end.
	before := sns.Fetches.Load()
	for i := range 100 {
		m := set(sns.Notification("2", "x", "x"), "SigningCertURL", fmt.Sprintf("https://%s/SimpleNotificationService-%016d.pem", sns.Host, i))
		if _, err := p.Receive(t.Context(), &provider.Request{Body: marshal(t, m), At: now}); !errors.Is(err, provider.ErrForged) && !errors.Is(err, provider.ErrLater) {
			t.Fatal(err)
		}
	}
	if n := sns.Fetches.Load() - before; n > 30 {
		t.Errorf("100 forged messages made %d fetches", n)
	}
	fetched := sns.Fetches.Load()
	if _, err := p.Receive(t.Context(), &provider.Request{Body: marshal(t, sns.Notification("2", "x", sesRecords[0].record)), At: now}); err != nil || sns.Fetches.Load() != fetched {
		t.Errorf("forged messages keep a genuine one out: %v, %d fetches", err, sns.Fetches.Load()-fetched)
	}
	for _, arn := range []string{"", "arn:aws:sqs:eu-west-1:123456789012:q", "arn:aws:sns:evil.example/:123456789012:x", "arn:aws:sns:eu-west-1:1:x"} {
		if _, err := provider.NewSES(provider.SESOptions{Topic: arn}); (err == nil) != (arn == "") {
			t.Errorf("topic %q: %v", arn, err)
		}
	}
}

// The events that SendGrid documents.
const sendGridBatch = `[
{"email":"a@example.com","timestamp":1764064800,"smtp-id":"<1>","event":"processed","category":["cat facts"],"sg_event_id":"e1","sg_message_id":"m"},
{"email":"b@example.com","timestamp":1764064800,"event":"bounce","type":"bounce","bounce_classification":"Invalid Address","sg_event_id":"e2","sg_message_id":"m","reason":"550 5.1.1 The email account that you tried to reach does not exist","status":"5.1.1","tls":0},
{"email":"c@example.com","timestamp":1764064800,"event":"bounce","type":"blocked","bounce_classification":"Reputation","sg_event_id":"e3","reason":"550 5.7.1 blocked","status":"5.7.1"},
{"email":"d@example.com","timestamp":1764064800,"event":"dropped","reason":"Bounced Address","sg_event_id":"e4","status":"5.0.0"},
{"email":"e@example.com","timestamp":1764064800,"event":"deferred","response":"400 try again later","attempt":"5","sg_event_id":"e5"},
{"email":"f@example.com","timestamp":1764064800,"event":"spamreport","category":"cat facts","sg_event_id":"e6"},
{"email":"g@example.com","timestamp":1764064800,"event":"unsubscribe","sg_event_id":"e7"},
{"email":"h@example.com","timestamp":1764064800,"event":"group_unsubscribe","sg_event_id":"e8","asm_group_id":10},
{"email":"i@example.com","timestamp":1764064800,"event":"group_resubscribe","sg_event_id":"e9","asm_group_id":10},
{"email":"j@example.com","timestamp":1764064800,"event":"bounce","type":"bounce","sg_event_id":"e10","reason":"552 5.2.2 mailbox full","status":"5.2.2"},
{"email":"k@example.com","timestamp":"1764064800","event":"open","useragent":"Mozilla","ip":"255.255.255.255","sg_event_id":"e11"},
{"event":"account_status_change","type":"suspended","timestamp":1764064800,"sg_event_id":"e12"}]`

var sendGridWant = []string{"hard-bounce b@example.com", "complaint f@example.com", "unsubscribe g@example.com", "unsubscribe h@example.com group:10", "soft-bounce j@example.com"}

func TestSendGrid(t *testing.T) {
	key, other := providertest.NewSendGridKey(t), providertest.NewSendGridKey(t)
	p, err := provider.NewSendGrid(provider.SendGridOptions{WebhookKey: key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(sendGridBatch)
	d, err := p.Receive(t.Context(), &provider.Request{Header: key.Sign(body, now), Body: body, At: now})
	if err != nil {
		t.Fatal(err)
	}
	if got := brief(d); !slices.Equal(got, sendGridWant) || d.Resubscribed != 1 || d.Ignored != 6 || d.Unreadable != 0 {
		t.Errorf("%q, %+v", got, d)
	}
	altered := []byte(strings.Replace(sendGridBatch, "b@", "z@", 1))
	resigned := key.Sign(body, now)
	resigned.Set("X-Twilio-Email-Event-Webhook-Timestamp", "1764064801")
	for name, r := range map[string]struct {
		r    *provider.Request
		want error
	}{
		"altered body":        {&provider.Request{Header: key.Sign(body, now), Body: altered, At: now}, provider.ErrForged},
		"altered timestamp":   {&provider.Request{Header: resigned, Body: body, At: now}, provider.ErrForged},
		"another key":         {&provider.Request{Header: other.Sign(body, now), Body: body, At: now}, provider.ErrForged},
		"unsigned":            {&provider.Request{Header: http.Header{}, Body: body, At: now}, provider.ErrForged},
		"two days old":        {&provider.Request{Header: key.Sign(body, now.Add(-48*time.Hour)), Body: body, At: now}, provider.ErrStale},
		"of tomorrow":         {&provider.Request{Header: key.Sign(body, now.Add(24*time.Hour)), Body: body, At: now}, provider.ErrStale},
		"not a list":          {&provider.Request{Header: key.Sign([]byte(`{"email":"a@example.com"}`), now), Body: []byte(`{"email":"a@example.com"}`), At: now}, provider.ErrMalformed},
		"two lists":           {&provider.Request{Header: key.Sign([]byte(`[][]`), now), Body: []byte(`[][]`), At: now}, provider.ErrMalformed},
		"nested without end":  {&provider.Request{Header: key.Sign(deep, now), Body: deep, At: now}, provider.ErrMalformed},
		"a retry of 20 hours": {&provider.Request{Header: key.Sign(body, now.Add(-20*time.Hour)), Body: body, At: now}, nil},
	} {
		if _, err := p.Receive(t.Context(), r.r); !errors.Is(err, r.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// One event that cannot be read does not hide the others.
	mixed := []byte(`[{"email":["x"],"event":"unsubscribe","sg_event_id":"u0"},{"email":"a@example.com","event":"unsubscribe","sg_event_id":"u1"},7,{"email":"b@example.com","event":"unsubscribe"}]`)
	d, err = p.Receive(t.Context(), &provider.Request{Header: key.Sign(mixed, now), Body: mixed, At: now})
	if err != nil || !slices.Equal(brief(d), []string{"unsubscribe a@example.com"}) || d.Unreadable != 3 {
		t.Errorf("%v, %+v", err, d)
	}
	// SendGrid puts the custom arguments of the mail beside its own fields.
	custom := []byte(`[{"email":"a@example.com","event":"unsubscribe","sg_event_id":"v1","Event":"spring sale","Email":"z@example.com","EMAIL":7,"Sg_Event_Id":"x"},
{"email":"b@example.com","event":"bounce","type":"bounce","status":"5.1.1","sg_event_id":"v2","Type":"newsletter","Status":"active","Reason":"4.2.2","Timestamp":"x"},
{"email":"c@example.com","event":"open","type":5,"sg_event_id":"v3"}]`)
	d, err = p.Receive(t.Context(), &provider.Request{Header: key.Sign(custom, now), Body: custom, At: now})
	if err != nil || !slices.Equal(brief(d), []string{"unsubscribe a@example.com", "hard-bounce b@example.com"}) || d.Unreadable != 0 {
		t.Errorf("custom arguments: %v, %+v", err, d)
	}
	for _, bad := range []string{"x", "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAL"} {
		if _, err := provider.NewSendGrid(provider.SendGridOptions{WebhookKey: bad}); err == nil {
			t.Errorf("the key %q passes", bad)
		}
	}
}

var deep = []byte(strings.Repeat("[", 100000))

const mailgunKey = "key-3ax6xnjp29jd6fds4gc373sgvjxteol0"

var token = strings.Repeat("a1b2c3d4e5", 5)

func TestMailgun(t *testing.T) {
	p := provider.NewMailgun(provider.MailgunOptions{SigningKey: []byte(mailgunKey)})
	for name, c := range map[string]struct {
		event string
		want  string
	}{
		"unsubscribed":            {`{"event":"unsubscribed","id":"Ase7i2zsRYeDXztHGENqRA","timestamp":1521243339.873676,"recipient":"alice@example.com","log-level":"info","tags":["my_tag_1"]}`, "unsubscribe alice@example.com"},
		"complained":              {`{"event":"complained","id":"ncV2XwymRUKbPek_MIM-Gw","timestamp":1521233123.501324,"recipient":"alice@example.com","tags":[]}`, "complaint alice@example.com"},
		"permanent":               {`{"event":"failed","severity":"permanent","reason":"bounce","id":"G9Bn5sl1TC6nu79C8C0bwg","timestamp":1521233195.375624,"recipient":"alice@example.com","delivery-status":{"code":550,"enhanced-code":"5.1.1","message":"5.1.1 no such user","description":""}}`, "hard-bounce alice@example.com"},
		"permanent, no code":      {`{"event":"failed","severity":"permanent","reason":"bounce","id":"x","recipient":"alice@example.com","delivery-status":{"code":605,"message":"","description":"No Such User Here"}}`, "hard-bounce alice@example.com"},
		"too old":                 {`{"event":"failed","severity":"permanent","reason":"old","id":"x","recipient":"alice@example.com","delivery-status":{"code":602,"message":"Too old"}}`, "soft-bounce alice@example.com"},
		"temporary":               {`{"event":"failed","severity":"temporary","reason":"generic","id":"x","recipient":"alice@example.com","delivery-status":{"code":452,"enhanced-code":"4.2.2"}}`, ""},
		"suppressed":              {`{"event":"failed","severity":"permanent","reason":"suppress-bounce","id":"x","recipient":"alice@example.com","delivery-status":{"code":605,"message":"","description":"Not delivering to previously bounced address"}}`, ""},
		"policy":                  {`{"event":"failed","severity":"permanent","reason":"bounce","id":"x","recipient":"alice@example.com","delivery-status":{"code":550,"message":"5.7.1 refused by policy"}}`, ""},
		"our own domain unknown":  {`{"event":"failed","severity":"permanent","reason":"bounce","id":"x","recipient":"alice@example.com","delivery-status":{"code":550,"message":"550 5.1.8 Sender address rejected: domain does not exist"}}`, ""},
		"our own address unknown": {`{"event":"failed","severity":"permanent","reason":"bounce","id":"x","recipient":"alice@example.com","delivery-status":{"code":550,"message":"550 unknown user in reply to MAIL FROM"}}`, ""},
		"too much for Gmail":      {`{"event":"failed","severity":"permanent","reason":"bounce","id":"x","recipient":"alice@example.com","delivery-status":{"code":550,"message":"550-5.2.1 The user you are trying to contact is receiving mail at a rate that"}}`, "soft-bounce alice@example.com"},
		"delivered":               {`{"event":"delivered","id":"x","recipient":"alice@example.com"}`, ""},
	} {
		d, err := p.Receive(t.Context(), &provider.Request{Body: providertest.Mailgun(mailgunKey, token, now, json.RawMessage(c.event)), At: now})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := strings.Join(brief(d), ","); got != c.want || d.Unreadable != 0 || d.Nonce != token || !d.NonceEnds.After(now.Add(8*time.Hour)) {
			t.Errorf("%s: %q, %+v", name, got, d)
		}
	}
	event := json.RawMessage(`{"event":"unsubscribed","id":"x","recipient":"alice@example.com"}`)
	for name, c := range map[string]struct {
		body []byte
		want error
	}{
		"another key":          {providertest.Mailgun("another", token, now, event), provider.ErrForged},
		"altered token":        {[]byte(strings.Replace(string(providertest.Mailgun(mailgunKey, token, now, event)), token, "x"+token[1:], 1)), provider.ErrForged},
		"shifted":              {providertest.Mailgun(mailgunKey, "7"+token, now, event)[:0], provider.ErrMalformed},
		"a short token":        {providertest.Mailgun(mailgunKey, "short", now, event), provider.ErrForged},
		"a day old":            {providertest.Mailgun(mailgunKey, token, now.Add(-24*time.Hour), event), provider.ErrStale},
		"the last retry":       {providertest.Mailgun(mailgunKey, token, now.Add(-8*time.Hour), event), nil},
		"a form":               {[]byte("timestamp=1&token=2&signature=3"), provider.ErrMalformed},
		"a signature of types": {[]byte(`{"signature":{"timestamp":{},"token":7,"signature":[]},"event-data":{}}`), provider.ErrMalformed},
	} {
		if _, err := p.Receive(t.Context(), &provider.Request{Body: c.body, At: now}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPostmark(t *testing.T) {
	p := provider.NewPostmark(provider.PostmarkOptions{User: "hook", Password: "correct horse battery", Header: "X-Optout", HeaderSecret: "staple-staple-staple", Stream: "broadcast"})
	header := func(user, password, extra string) http.Header {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(user, password)
		r.Header.Set("X-Optout", extra)
		return r.Header
	}
	right := header("hook", "correct horse battery", "staple-staple-staple")
	for name, c := range map[string]struct{ body, want string }{
		"hard bounce":           {`{"RecordType":"Bounce","MessageStream":"broadcast","ID":4323372036854775807,"Type":"HardBounce","TypeCode":1,"Name":"Hard bounce","MessageID":"883953f4","Description":"The server was unable to deliver your message (ex: unknown user, mailbox not found).","Details":"550 5.1.1 unknown user","Email":"john@example.com","BouncedAt":"2019-11-05T16:33:54.9070259Z","Inactive":true}`, "hard-bounce john@example.com"},
		"soft bounce":           {`{"RecordType":"Bounce","ID":2,"Type":"SoftBounce","Details":"452 4.2.2 full","Email":"john@example.com","BouncedAt":"2019-11-05T16:33:54Z"}`, "soft-bounce john@example.com"},
		"transient":             {`{"RecordType":"Bounce","ID":3,"Type":"Transient","Email":"john@example.com"}`, ""},
		"auto responder":        {`{"RecordType":"Bounce","ID":4,"Type":"AutoResponder","Email":"john@example.com"}`, ""},
		"blocked":               {`{"RecordType":"Bounce","ID":5,"Type":"Blocked","Email":"john@example.com"}`, ""},
		"spam notification":     {`{"RecordType":"Bounce","ID":6,"Type":"SpamNotification","Email":"john@example.com"}`, ""},
		"subscribe":             {`{"RecordType":"Bounce","ID":7,"Type":"Subscribe","Email":"john@example.com"}`, ""},
		"complaint":             {`{"RecordType":"SpamComplaint","MessageStream":"broadcast","ID":42,"Type":"SpamComplaint","TypeCode":512,"Email":"john@example.com","From":"s@example.com","BouncedAt":"2019-11-05T16:33:54Z"}`, "complaint john@example.com"},
		"unsubscribed":          {`{"RecordType":"SubscriptionChange","MessageID":"883953f4","ServerID":123456,"MessageStream":"broadcast","ChangedAt":"2020-02-01T10:53:34.416071Z","Recipient":"john@example.com","Origin":"Recipient","SuppressSending":true,"SuppressionReason":"ManualSuppression","Tag":"t","Metadata":{}}`, "unsubscribe john@example.com"},
		"put there by an owner": {`{"RecordType":"SubscriptionChange","MessageID":null,"MessageStream":"broadcast","ChangedAt":"2020-02-01T10:53:34.416071Z","Recipient":"john@example.com","Origin":"Customer","SuppressSending":true,"SuppressionReason":"ManualSuppression"}`, "unsubscribe john@example.com"},
		"resubscribed":          {`{"RecordType":"SubscriptionChange","MessageStream":"broadcast","ChangedAt":"2020-02-01T10:53:34Z","Recipient":"john@example.com","Origin":"Recipient","SuppressSending":false,"SuppressionReason":null}`, ""},
		"another stream":        {`{"RecordType":"SpamComplaint","MessageStream":"outbound","ID":43,"Email":"john@example.com"}`, ""},
		"delivery":              {`{"RecordType":"Delivery","MessageStream":"broadcast","Recipient":"john@example.com"}`, ""},
	} {
		d, err := p.Receive(t.Context(), &provider.Request{Header: right, Body: []byte(c.body), At: now})
		if err != nil || strings.Join(brief(d), ",") != c.want || d.Unreadable != 0 {
			t.Errorf("%s: %v, %+v", name, err, d)
		}
	}
	d, err := p.Receive(t.Context(), &provider.Request{Header: right, Body: []byte(`{"RecordType":"SpamComplaint","Email":"john@example.com"}`), At: now})
	if err != nil || d.Unreadable != 1 {
		t.Errorf("a complaint without id: %v, %+v", err, d)
	}
	for name, h := range map[string]http.Header{"no credential": {}, "wrong password": header("hook", "wrong", "staple-staple-staple"), "wrong user": header("x", "correct horse battery", "staple-staple-staple"),
		"wrong header": header("hook", "correct horse battery", "x"), "no header": header("hook", "correct horse battery", "")} {
		if _, err := p.Receive(t.Context(), &provider.Request{Header: h, Body: []byte(`{}`), At: now}); !errors.Is(err, provider.ErrCredential) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := provider.NewPostmark(provider.PostmarkOptions{}).Receive(t.Context(), &provider.Request{Header: right, Body: []byte(`{}`), At: now}); !errors.Is(err, provider.ErrCredential) {
		t.Errorf("without a secret set up: %v", err)
	}
}

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func TestGeneric(t *testing.T) {
	older := "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	p, err := provider.NewGeneric(provider.GenericOptions{Secrets: []string{secret, older}})
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"events":[
{"id":"1","type":"unsubscribe","address":"a@example.com","occurred_at":"2026-11-25T09:00:00Z"},
{"type":"unsubscribe","address":"b@example.com","group":"letter"},
{"type":"complaint","address":"c@example.com"},
{"type":"hard-bounce","address":"d@example.com"},
{"type":"bounce","address":"e@example.com","status":"4.2.2"},
{"type":"bounce","address":"f@example.com","status":"5.7.1"},
{"type":"resubscribe","address":"g@example.com"}]}`)
	want := []string{"unsubscribe a@example.com", "unsubscribe b@example.com group:letter", "complaint c@example.com", "hard-bounce d@example.com", "soft-bounce e@example.com"}
	for _, s := range []string{secret, older} {
		d, err := p.Receive(t.Context(), &provider.Request{Header: providertest.Standard(s, "msg_1", now, body), Body: body, At: now})
		if err != nil || !slices.Equal(brief(d), want) || d.Ignored != 1 || d.Resubscribed != 1 || d.Unreadable != 0 || d.Events[0].ID != "event/1" || d.Events[1].ID != "request/msg_1/1" {
			t.Errorf("%v, %+v", err, d)
		}
	}
	// The example of the Standard Webhooks specification's own libraries.
	known := http.Header{"Webhook-Id": {"msg_p5jXN8AQM9LWM0D4loKWxJek"}, "Webhook-Timestamp": {"1614265330"}, "Webhook-Signature": {"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}}
	if _, err := p.Receive(t.Context(), &provider.Request{Header: known, Body: []byte(`{"test": 2432232314}`), At: time.Unix(1614265330, 0)}); !errors.Is(err, provider.ErrMalformed) {
		t.Errorf("a genuine signature of the specification: %v", err)
	}
	alter := func(name, value string) http.Header {
		h := providertest.Standard(secret, "msg_1", now, body)
		h.Set(name, value)
		return h
	}
	for name, c := range map[string]struct {
		h    http.Header
		want error
	}{
		"another secret":      {providertest.Standard("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "msg_1", now, body), provider.ErrForged},
		"altered id":          {alter("Webhook-Id", "msg_2"), provider.ErrForged},
		"altered timestamp":   {alter("Webhook-Timestamp", "1764064801"), provider.ErrForged},
		"no signature":        {alter("Webhook-Signature", ""), provider.ErrForged},
		"only a newer kind":   {alter("Webhook-Signature", "v1a,AAAA"), provider.ErrForged},
		"six minutes old":     {providertest.Standard(secret, "msg_1", now.Add(-6*time.Minute), body), provider.ErrStale},
		"of the future":       {providertest.Standard(secret, "msg_1", now.Add(6*time.Minute), body), provider.ErrStale},
		"several":             {alter("Webhook-Signature", "v1,AAAA v2,BBBB "+providertest.Standard(secret, "msg_1", now, body).Get("Webhook-Signature")), nil},
		"nine, the last good": {alter("Webhook-Signature", strings.Repeat("v1,AAAA ", 8)+providertest.Standard(secret, "msg_1", now, body).Get("Webhook-Signature")), provider.ErrForged},
	} {
		if _, err := p.Receive(t.Context(), &provider.Request{Header: c.h, Body: body, At: now}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for body, unreadable := range map[string]int{`{"events":[{"type":"unsubscribed","address":"a@example.com"}]}`: 1, `{"events":[{"type":"unsubscribe","address":7}]}`: 1, `{"events":[null]}`: 1,
		`{"events":[{"type":"unsubscribe","address":"a@example.com","occurred_at":"yesterday"}]}`: 1, `{"events":[{"type":"unsubscribe"}]}`: 1} {
		d, err := p.Receive(t.Context(), &provider.Request{Header: providertest.Standard(secret, "m", now, []byte(body)), Body: []byte(body), At: now})
		if err != nil || d.Unreadable != unreadable || len(d.Events) != 0 {
			t.Errorf("%s: %v, %+v", body, err, d)
		}
	}
	for _, body := range []string{`{}`, `[]`, `{"events":{}}`, `{"events":[]}`, `x`, `{"events":[` + strings.Repeat(`{},`, 1000) + `{}]}`} {
		if _, err := p.Receive(t.Context(), &provider.Request{Header: providertest.Standard(secret, "m", now, []byte(body)), Body: []byte(body), At: now}); !errors.Is(err, provider.ErrMalformed) {
			t.Errorf("%.40s: %v", body, err)
		}
	}
	for _, bad := range [][]string{nil, {"short"}, {"whsec_AAAA"}, {secret, secret, secret, secret, secret}} {
		if _, err := provider.NewGeneric(provider.GenericOptions{Secrets: bad}); err == nil {
			t.Errorf("secrets %q pass", bad)
		}
	}
}
