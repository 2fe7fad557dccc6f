package client

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	optoutv1 "optout/proto/optout/v1"
)

// IssueLink issues the unsubscribe link of one address for mail of a topic. The link stops ALL correspondence unless scope says
// otherwise.
func (c *Client) IssueLink(ctx context.Context, topic, address string, scope *optoutv1.Scope, mailing uint32) (*optoutv1.UnsubscribeLink, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	resp, err := c.link.IssueLink(ctx, &optoutv1.IssueLinkRequest{Sender: c.sender, Topic: topic, Address: address, Scope: scope, Mailing: mailing})
	if err != nil {
		return nil, wrap(err)
	}
	return resp.Link, nil
}

// BatchIssueLinks issues the links of any number of addresses, in order; it splits them into calls by itself.
func (c *Client) BatchIssueLinks(ctx context.Context, topic string, addresses []string, scope *optoutv1.Scope, mailing uint32) ([]*optoutv1.LinkResult, error) {
	var all []*optoutv1.LinkResult
	for len(addresses) > 0 {
		n := min(batchSize, len(addresses))
		results, err := c.linkChunk(ctx, &optoutv1.BatchIssueLinksRequest{Sender: c.sender, Topic: topic, Addresses: addresses[:n], Scope: scope, Mailing: mailing})
		if err != nil {
			return nil, err
		}
		all, addresses = append(all, results...), addresses[n:]
	}
	return all, nil
}

func (c *Client) linkChunk(ctx context.Context, r *optoutv1.BatchIssueLinksRequest) ([]*optoutv1.LinkResult, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	resp, err := c.link.BatchIssueLinks(ctx, r)
	if err != nil {
		return nil, wrap(err)
	}
	if len(resp.Results) != len(r.Addresses) {
		return nil, errors.New("optout: the service did not answer every address")
	}
	return resp.Results, nil
}

// Subscribe records a person's yes to a topic. The sender is this client's when r names none. A request_id is made when r has
// none, once a call, so that the client's own retries never beat a newer no; whoever repeats a call that failed must give the
// same id both times, and so make it. r is left as it is.
func (c *Client) Subscribe(ctx context.Context, r *optoutv1.SubscribeRequest) (*optoutv1.SubscribeResponse, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	r = proto.CloneOf(r) // an id that stayed in the caller's request would be used again, for another person
	if r.Sender == "" {
		r.Sender = c.sender
	}
	if r.RequestId == "" {
		r.RequestId = newRequestID()
	}
	resp, err := c.subscription.Subscribe(ctx, r)
	return resp, wrap(err)
}

// ConfirmSubscription brings back the token that was mailed to the address. The confirmation counts at the position of the
// request that it confirms, so bringing a token back twice is harmless.
func (c *Client) ConfirmSubscription(ctx context.Context, token string) (*optoutv1.ConfirmSubscriptionResponse, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	resp, err := c.subscription.ConfirmSubscription(ctx, &optoutv1.ConfirmSubscriptionRequest{Token: token, RequestId: newRequestID()})
	return resp, wrap(err)
}

// Unsubscribe records a person's no; a nil scope is ALL correspondence. When it returns without error the no is durable and
// every later check sees it.
func (c *Client) Unsubscribe(ctx context.Context, address string, scope *optoutv1.Scope) (*optoutv1.UnsubscribeResponse, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	resp, err := c.subscription.Unsubscribe(ctx, &optoutv1.UnsubscribeRequest{Sender: c.sender, Address: address, Scope: scope, RequestId: newRequestID()})
	return resp, wrap(err)
}

// Sender shows the sender's settings.
func (c *Client) Sender(ctx context.Context) (*optoutv1.Sender, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	resp, err := c.admin.GetSender(ctx, &optoutv1.GetSenderRequest{Name: c.sender})
	if err != nil {
		return nil, wrap(err)
	}
	return resp.Sender, nil
}

// Topic shows one topic of the sender.
func (c *Client) Topic(ctx context.Context, name string) (*optoutv1.Topic, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	resp, err := c.admin.ListTopics(ctx, &optoutv1.ListTopicsRequest{Sender: c.sender})
	if err != nil {
		return nil, wrap(err)
	}
	for _, t := range resp.Topics {
		if t.Name == name {
			return t, nil
		}
	}
	return nil, &Error{Code: codes.NotFound, Reason: optoutv1.ErrorReason_ERROR_REASON_UNKNOWN_TOPIC, Field: "topic", Message: "there is no such topic", Remedy: "create it, or name another"}
}
