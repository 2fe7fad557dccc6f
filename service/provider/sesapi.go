package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Lists is the account-level suppression list.
func (p *SESProvider) Lists() []string { return []string{"suppressed"} }

// sesAddresses is the path of ListSuppressedDestinations and PutSuppressedDestination.
const sesAddresses = "/v2/email/suppression/addresses"

// List reads one page by ListSuppressedDestinations. The cursor is NextToken.
func (p *SESProvider) List(ctx context.Context, _ string, since time.Time, cursor string) (*Page, error) {
	q := url.Values{"PageSize": {"1000"}}
	if !since.IsZero() {
		q.Set("StartDate", since.UTC().Format(time.RFC3339))
	}
	if cursor != "" {
		q.Set("NextToken", cursor)
	}
	var answer struct {
		NextToken *string
		Items     []struct {
			EmailAddress   loose
			Reason         loose
			LastUpdateTime loose
		} `json:"SuppressedDestinationSummaries"`
	}
	if _, err := p.api.call(ctx, p.sign, http.MethodGet, sesAddresses+"?"+q.Encode(), nil, &answer); err != nil {
		return nil, err
	}
	page := &Page{}
	if answer.NextToken != nil {
		page.Next = *answer.NextToken
	}
	for _, i := range answer.Items {
		at := seconds(string(i.LastUpdateTime))
		if at.IsZero() {
			at = moment(string(i.LastUpdateTime))
		}
		e := Event{ID: "suppressed/" + string(i.Reason) + "/" + string(i.LastUpdateTime), Address: string(i.EmailAddress), Occurred: at, Source: "list/" + text(string(i.Reason), 20), Listed: true}
		switch i.Reason {
		case "BOUNCE":
			e.What = HardBounce
		case "COMPLAINT":
			e.What = Complained
		default:
			page.Unreadable++
			continue
		}
		page.add(e)
	}
	return page, nil
}

// SuppressAtOnce is 1: PutSuppressedDestination takes one address.
func (p *SESProvider) SuppressAtOnce() int { return 1 }

// Suppress adds an address by PutSuppressedDestination. SES knows two reasons; COMPLAINT is the one that says that the person does
// not want the mail.
func (p *SESProvider) Suppress(ctx context.Context, addresses []string) ([]int, error) {
	for _, a := range addresses {
		body := map[string]string{"EmailAddress": a, "Reason": "COMPLAINT"}
		if _, err := p.api.call(ctx, p.sign, http.MethodPut, sesAddresses, body, nil); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// sign signs a request by Signature Version 4, for the service "ses".
func (p *SESProvider) sign(r *http.Request, body []byte) error {
	sum := sha256.Sum256(body)
	return v4.NewSigner().SignHTTP(r.Context(), aws.Credentials{AccessKeyID: p.opt.AccessKeyID, SecretAccessKey: p.opt.SecretKey}, r, hex.EncodeToString(sum[:]), "ses", p.opt.Region, p.api.Now())
}
