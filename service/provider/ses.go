package provider

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// SESOptions are what Amazon SES needs.
type SESOptions struct {
	// Topic is the ARN of the SNS topic that SES publishes to; empty: no webhook. A signature of SNS proves only that some topic
	// sent it, and anybody can have one, so it is the topic that is trusted.
	Topic string
	// Fetch gets certificates and confirms subscriptions; nil means a client of its own. Redirects are not followed.
	Fetch *http.Client
	// API reaches the v2 API; its URL defaults to that of Region.
	API    API
	Region string
	// AccessKeyID and SecretKey sign requests (Signature Version 4); empty: no API.
	AccessKeyID, SecretKey string
}

// SESProvider speaks Amazon SES: events through Amazon SNS, and the v2 API.
type SESProvider struct {
	topic, host string
	client      *http.Client
	certs       certificates
	api         API
	opt         SESOptions
}

// NewSES makes it. It fails when the topic is no ARN of SNS.
func NewSES(o SESOptions) (*SESProvider, error) {
	p := &SESProvider{topic: o.Topic, opt: o, api: o.API.at("https://email." + o.Region + ".amazonaws.com")}
	if o.Topic != "" {
		var ok bool
		if p.host, ok = snsHost(o.Topic); !ok {
			return nil, errors.New("it is no ARN of an SNS topic, such as arn:aws:sns:us-east-1:123456789012:ses-events")
		}
	}
	c := http.Client{Timeout: 10 * time.Second}
	if o.Fetch != nil {
		c = *o.Fetch
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	p.client, p.certs.client = &c, &c
	return p, nil
}

// Receive reads a message of SNS. There is no window for its Timestamp: SNS tries for hours or days with the message as it was,
// and a replay does nothing, for every event is known by its id for ever.
func (p *SESProvider) Receive(ctx context.Context, r *Request) (*Delivery, error) {
	if p.topic == "" {
		return nil, ErrForged
	}
	var m snsMessage
	if err := decode(r.Body, &m); err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(m.TopicArn), []byte(p.topic)) != 1 {
		return nil, ErrForged
	}
	key, err := p.certs.key(ctx, m.SigningCertURL, p.host, r.At)
	if err != nil {
		return nil, err
	}
	if err := m.verify(key); err != nil {
		return nil, err
	}
	switch m.Type {
	case snsNotification:
		return readSES(&m)
	case snsSubscribe:
		u, ok := snsURL(m.SubscribeURL, p.host)
		if !ok || u.Query().Get("Action") != "ConfirmSubscription" || u.Query().Get("TopicArn") != p.topic {
			return nil, ErrForged
		}
		_, status, err := snsGet(ctx, p.client, u, 64<<10)
		if err != nil || status != http.StatusOK {
			return nil, fmt.Errorf("%w: SNS did not take the confirmation", ErrLater)
		}
		return &Delivery{Control: "subscribed to the SNS topic"}, nil
	case snsUnsubscribe:
		// Not answered by subscribing anew: whoever owns the topic may have meant it. The log and "optout provider list" tell.
		return &Delivery{Control: "unsubscribed from the SNS topic: events no longer come"}, nil
	}
	return nil, ErrMalformed
}

// sesRecord is a notification (notificationType) or an event (eventType) of SES.
type sesRecord struct {
	NotificationType string `json:"notificationType"`
	EventType        string `json:"eventType"`
	Mail             struct {
		MessageID   string   `json:"messageId"`
		Destination []string `json:"destination"`
	} `json:"mail"`
	Bounce *struct {
		Type       string `json:"bounceType"`
		SubType    string `json:"bounceSubType"`
		FeedbackID string `json:"feedbackId"`
		Timestamp  string `json:"timestamp"`
		Recipients []struct {
			Address string `json:"emailAddress"`
			Action  string `json:"action"`
			Status  string `json:"status"`
			Words   string `json:"diagnosticCode"`
		} `json:"bouncedRecipients"`
	} `json:"bounce"`
	Complaint *struct {
		Type       string `json:"complaintFeedbackType"`
		SubType    string `json:"complaintSubType"`
		FeedbackID string `json:"feedbackId"`
		Timestamp  string `json:"timestamp"`
		Recipients []struct {
			Address string `json:"emailAddress"`
		} `json:"complainedRecipients"`
	} `json:"complaint"`
	Subscription *struct {
		ContactList string `json:"contactList"`
		Timestamp   string `json:"timestamp"`
		New         struct {
			All    bool `json:"unsubscribeAll"`
			Topics []struct {
				Name   string `json:"topicName"`
				Status string `json:"subscriptionStatus"`
			} `json:"topicSubscriptionStatus"`
		} `json:"newTopicPreferences"`
		Old struct {
			All    bool `json:"unsubscribeAll"`
			Topics []struct {
				Name   string `json:"topicName"`
				Status string `json:"subscriptionStatus"`
			} `json:"topicSubscriptionStatus"`
		} `json:"oldTopicPreferences"`
	} `json:"subscription"`
}

// readSES reads what SES published.
func readSES(m *snsMessage) (*Delivery, error) {
	var r sesRecord
	if err := decode([]byte(m.Message), &r); err != nil {
		if len(m.Message) > 0 && m.Message[0] != '{' {
			return &Delivery{Ignored: 1}, nil // SES's own "Successfully validated SNS topic"
		}
		return nil, err
	}
	kind := r.EventType
	if kind == "" {
		kind = r.NotificationType
	}
	d := &Delivery{}
	switch {
	case kind == "Bounce" && r.Bounce != nil:
		r.bounced(d)
	case kind == "Complaint" && r.Complaint != nil:
		r.complained(d)
	case kind == "Subscription" && r.Subscription != nil:
		r.preferred(d, m.MessageID)
	case kind == "Bounce" || kind == "Complaint" || kind == "Subscription":
		d.Unreadable = 1
	default:
		d.Ignored = 1
	}
	return d, nil
}

// take adds an event, numbered within its notification.
func (d *Delivery) take(id string, n int, e Event) {
	if id != "" {
		e.ID = id + "/" + strconv.Itoa(n)
	}
	d.add(e)
}

func (r *sesRecord) bounced(d *Delivery) {
	b := r.Bounce
	for i, x := range b.Recipients {
		e := Event{Address: x.Address, Occurred: moment(b.Timestamp), Source: "bounce/" + text(b.Type, 40) + "/" + text(b.SubType, 40), Words: text(x.Words, maxWords)}
		e.Status = statusOf(x.Status, e.Words)
		e.What = sesBounce(b.Type, b.SubType, x.Action, e.Status, e.Words)
		d.take(b.FeedbackID, i, e)
	}
	if len(b.Recipients) == 0 {
		d.Ignored++ // SES could not tell whose it is
	}
}

// sesBounce classifies a bounce by SES's type and subtype, and the server's status.
func sesBounce(kind, sub, action, status, words string) What {
	switch sub {
	case "OnAccountSuppressionList", "UnsubscribedRecipient":
		return 0 // not tried: it is on a list of SES's, which says why and is read by polling
	case "Suppressed":
		return SoftBounce // not tried: it bounced for somebody else lately
	case "MessageTooLarge", "ContentRejected", "AttachmentRejected":
		return 0
	case "NoEmail":
		if kind == "Permanent" && status == "" {
			return HardBounce
		}
	}
	switch {
	case action != "" && action != "failed":
		return 0 // delayed, relayed, expanded, delivered (RFC 3464 section 2.3.3)
	case kind == "Permanent":
		return bounce(true, status, words)
	case status == "" && sub != "MailboxFull" && sub != "CustomTimeoutExceeded":
		return 0 // an out-of-office reply is "Transient/General" too
	}
	return bounce(false, status, words)
}

func (r *sesRecord) complained(d *Delivery) {
	c := r.Complaint
	if c.SubType == "OnAccountSuppressionList" || c.Type != "" && c.Type != "abuse" && c.Type != "other" {
		d.Ignored++ // not tried; or not-spam, auth-failure, fraud, virus: the person did not complain
		return
	}
	for i, x := range c.Recipients {
		d.take(c.FeedbackID, i, Event{What: Complained, Address: x.Address, Occurred: moment(c.Timestamp), Source: "complaint/" + text(c.Type, 40), Among: len(c.Recipients)})
	}
	if len(c.Recipients) == 0 {
		d.Unreadable++
	}
}

// preferred reads a change of the preferences of a contact. What was out before says nothing new.
func (r *sesRecord) preferred(d *Delivery, id string) {
	s := r.Subscription
	to := r.Mail.Destination
	if len(to) != 1 {
		d.Unreadable++ // a mail with a contact list has one recipient
		return
	}
	e := Event{What: Unsubscribed, Address: to[0], Occurred: moment(s.Timestamp), Source: "subscription"}
	if s.New.All {
		d.take(id, 0, e)
		return
	}
	before := map[string]bool{}
	for _, t := range s.Old.Topics {
		before[t.Name] = t.Status == "OptOut"
	}
	found := false
	for i, t := range s.New.Topics {
		if t.Status == "OptOut" && !before[t.Name] {
			found = true
			x := e
			x.Group = text(t.Name, 128)
			d.take(id, i+1, x)
		} else if t.Status == "OptIn" && before[t.Name] {
			found = true
			d.Resubscribed++
		}
	}
	if s.Old.All {
		d.Resubscribed++
	} else if !found {
		d.Ignored++
	}
}
