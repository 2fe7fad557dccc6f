package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
)

const (
	mailer    = ledger.RoleMailer
	collector = ledger.RoleCollector
	feedback  = ledger.RoleFeedback
	support   = ledger.RoleSupport
	privacy   = ledger.RolePrivacy
	operator  = ledger.RoleOperator
	auditor   = ledger.RoleAuditor
	admin     = ledger.RoleAdmin
)

var anyRole = []ledger.Role{mailer, collector, feedback, support, privacy, operator, auditor, admin}

// policy names the roles that may call each method. A method without a row stops the start.
var policy = map[string][]ledger.Role{
	"/optout.v1.SuppressionService/CheckSend":          {mailer, admin},
	"/optout.v1.SuppressionService/BatchCheckSend":     {mailer, admin},
	"/optout.v1.SuppressionService/ListSuppressions":   {support, privacy, operator, auditor, admin},
	"/optout.v1.SuppressionService/CreateSuppression":  {support, feedback, privacy, operator, admin},
	"/optout.v1.SuppressionService/LiftSuppression":    {operator, privacy, admin},
	"/optout.v1.SuppressionService/VoidEntries":        {operator, admin},
	"/optout.v1.SuppressionService/ImportSuppressions": {operator, admin},
	"/optout.v1.SuppressionService/ExplainAddress":     {support, privacy, operator, auditor, admin},

	"/optout.v1.SubscriptionService/Subscribe":           {collector, admin},
	"/optout.v1.SubscriptionService/ConfirmSubscription": {collector, admin},
	"/optout.v1.SubscriptionService/Unsubscribe":         {mailer, collector, support, feedback, operator, admin},
	"/optout.v1.SubscriptionService/GetRecipient":        {collector, support, privacy, operator, auditor, admin},
	"/optout.v1.SubscriptionService/ListSubscriptions":   {collector, privacy, operator, auditor, admin},
	"/optout.v1.SubscriptionService/UpdatePreferences":   {collector, support, admin},
	"/optout.v1.SubscriptionService/UnlinkPerson":        {operator, privacy, admin},

	"/optout.v1.LinkService/IssueLink":       {mailer, admin},
	"/optout.v1.LinkService/BatchIssueLinks": {mailer, admin},
	"/optout.v1.LinkService/InspectLink":     {support, privacy, operator, auditor, admin},

	"/optout.v1.LedgerService/ListEntries":   {privacy, operator, auditor, admin},
	"/optout.v1.LedgerService/GetCheckpoint": {operator, auditor, admin},
	"/optout.v1.LedgerService/Verify":        {operator, auditor, admin},

	"/optout.v1.AdminService/CreateSender":          {admin},
	"/optout.v1.AdminService/UpdateSender":          {admin},
	"/optout.v1.AdminService/GetSender":             anyRole,
	"/optout.v1.AdminService/ListSenders":           anyRole,
	"/optout.v1.AdminService/CreateTopic":           {admin},
	"/optout.v1.AdminService/UpdateTopic":           {admin},
	"/optout.v1.AdminService/ListTopics":            anyRole,
	"/optout.v1.AdminService/BlockDomain":           {operator, admin},
	"/optout.v1.AdminService/UnblockDomain":         {operator, admin},
	"/optout.v1.AdminService/ImportWirelessDomains": {operator, admin},
	"/optout.v1.AdminService/ListDomainRules":       {operator, auditor, admin},
	"/optout.v1.AdminService/CreateApiKey":          {admin},
	"/optout.v1.AdminService/ListApiKeys":           {auditor, admin},
	"/optout.v1.AdminService/RevokeApiKey":          {admin},
	"/optout.v1.AdminService/RotateLinkKey":         {admin},
	"/optout.v1.AdminService/ListLinkKeys":          {operator, auditor, admin},
	"/optout.v1.AdminService/Backup":                {admin},

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      anyRole,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": anyRole,
}

// open methods need no credential: what they tell is no secret.
var open = map[string]bool{
	"/grpc.health.v1.Health/Check": true,
	"/grpc.health.v1.Health/Watch": true,
	"/grpc.health.v1.Health/List":  true,
}

// global methods act on the whole installation, so a key that is bound to senders may not call them.
var global = map[string]bool{
	"/optout.v1.LedgerService/GetCheckpoint":        true,
	"/optout.v1.LedgerService/Verify":               true,
	"/optout.v1.AdminService/CreateSender":          true,
	"/optout.v1.AdminService/ImportWirelessDomains": true,
	"/optout.v1.AdminService/CreateApiKey":          true,
	"/optout.v1.AdminService/ListApiKeys":           true,
	"/optout.v1.AdminService/RevokeApiKey":          true,
	"/optout.v1.AdminService/RotateLinkKey":         true,
	"/optout.v1.AdminService/ListLinkKeys":          true,
	"/optout.v1.AdminService/Backup":                true,
}

// checkPolicy compares the tables with the methods that are registered.
func checkPolicy(services map[string]grpc.ServiceInfo) error {
	methods := map[string]bool{}
	for name, s := range services {
		for _, m := range s.Methods {
			full := "/" + name + "/" + m.Name
			methods[full] = true
			if policy[full] == nil && !open[full] {
				return fmt.Errorf("method %s has no policy", full)
			}
		}
	}
	for m := range policy {
		if !methods[m] {
			return fmt.Errorf("the policy names %s, which is no method", m)
		}
	}
	return nil
}

type callerKey struct{}

func withCaller(ctx context.Context, k *ledger.APIKey) context.Context {
	return context.WithValue(ctx, callerKey{}, k)
}

// caller is the API key that calls. Behind the interceptors there always is one.
func caller(ctx context.Context) *ledger.APIKey {
	return ctx.Value(callerKey{}).(*ledger.APIKey)
}

// by is what the core is told of the caller.
func by(ctx context.Context) ledger.By {
	k := caller(ctx)
	return ledger.By{Key: k.Number, Role: k.Role, Channel: ledger.ByAPI}
}

// admit authenticates the caller and looks up the role. Whatever is wrong with a credential, the answer is the same.
func (h *handlers) admit(ctx context.Context, method string) (*ledger.APIKey, error) {
	if open[method] {
		return nil, nil
	}
	var k *ledger.APIKey
	if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) == 1 {
		if scheme, secret, ok := strings.Cut(values[0], " "); ok && strings.EqualFold(scheme, "bearer") {
			k = h.Ledger.Registry().Authenticate(secret)
		}
	}
	if k == nil {
		return nil, errUnauthenticated
	}
	if !slices.Contains(policy[method], k.Role) {
		return nil, needsRole(policy[method])
	}
	if global[method] && len(k.Senders) > 0 {
		return nil, errSenderNotAllowed
	}
	return k, nil
}

// Requests tell by these which sender and topics they name.
type (
	namesSender interface{ GetSender() string }
	namesTopic  interface{ GetTopic() string }
	namesToken  interface {
		GetToken() string
		GetSender() string
	}
)

// bounds checks sender and topic against those that the key is bound to. A key that is bound learns nothing of other senders,
// not even whether they exist.
func (h *handlers) bounds(k *ledger.APIKey, req any) error {
	if k == nil {
		return nil
	}
	name := ""
	switch r := req.(type) {
	case namesToken: // the sender is in the token, and is checked when that is open
		if r.GetToken() != "" {
			return nil
		}
		name = r.GetSender()
	case namesSender:
		name = r.GetSender()
	case interface{ GetName() string }:
		name = r.GetName()
	default:
		return nil
	}
	if name == "" {
		if _, ok := req.(*optoutv1.ListEntriesRequest); ok {
			return nil // every sender of the key
		}
		name = ledger.DefaultSender
	}
	if !k.MayUseSender(name) {
		return errSenderNotAllowed
	}
	r, ok := req.(namesTopic)
	if !ok || r.GetTopic() == "" {
		return nil
	}
	s := h.Ledger.Registry().Sender(name)
	if s == nil {
		return nil // the core says that it is unknown
	}
	if t := s.Topic(r.GetTopic()); t != nil && !k.MayUseTopic(t) {
		return errTopicNotAllowed
	}
	return nil
}
