package rpc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"optout/client/clienttest"
	optoutv1 "optout/proto/optout/v1"
)

// rights is who may call what, written out apart from the service's own table: m mailer, c collector, f feedback, s support,
// p privacy, o operator, u auditor, a admin.
var rights = map[string]string{
	"SuppressionService/CheckSend": "ma", "SuppressionService/BatchCheckSend": "ma", "SuppressionService/ListSuppressions": "spoua",
	"SuppressionService/CreateSuppression": "sfpoa", "SuppressionService/LiftSuppression": "opa", "SuppressionService/VoidEntries": "oa",
	"SuppressionService/ImportSuppressions": "oa", "SuppressionService/ExplainAddress": "spoua",
	"SubscriptionService/Subscribe": "ca", "SubscriptionService/ConfirmSubscription": "ca", "SubscriptionService/Unsubscribe": "mcsfoa",
	"SubscriptionService/GetRecipient": "cspoua", "SubscriptionService/ListSubscriptions": "cpoua", "SubscriptionService/UpdatePreferences": "csa",
	"SubscriptionService/UnlinkPerson": "opa",
	"LinkService/IssueLink":            "ma", "LinkService/BatchIssueLinks": "ma", "LinkService/InspectLink": "spoua",
	"LedgerService/ListEntries": "poua", "LedgerService/GetCheckpoint": "oua", "LedgerService/Verify": "oua",
	"AdminService/CreateSender": "a", "AdminService/UpdateSender": "a", "AdminService/GetSender": "mcfspoua", "AdminService/ListSenders": "mcfspoua",
	"AdminService/CreateTopic": "a", "AdminService/UpdateTopic": "a", "AdminService/ListTopics": "mcfspoua", "AdminService/BlockDomain": "oa",
	"AdminService/UnblockDomain": "oa", "AdminService/ImportWirelessDomains": "oa", "AdminService/ListDomainRules": "oua", "AdminService/CreateApiKey": "a",
	"AdminService/ListApiKeys": "ua", "AdminService/RevokeApiKey": "a", "AdminService/RotateLinkKey": "a", "AdminService/ListLinkKeys": "oua", "AdminService/Backup": "a",
}

var letters = map[string]optoutv1.Role{"m": optoutv1.Role_ROLE_MAILER, "c": optoutv1.Role_ROLE_COLLECTOR, "f": optoutv1.Role_ROLE_FEEDBACK, "s": optoutv1.Role_ROLE_SUPPORT,
	"p": optoutv1.Role_ROLE_PRIVACY, "o": optoutv1.Role_ROLE_OPERATOR, "u": optoutv1.Role_ROLE_AUDITOR, "a": optoutv1.Role_ROLE_ADMIN}

// api is a connection to a real service.
type api struct {
	t    *testing.T
	svc  *clienttest.Service
	conn *grpc.ClientConn
}

func newAPI(t *testing.T, options ...clienttest.Option) *api {
	t.Helper()
	svc := clienttest.Start(t, options...)
	conn, err := grpc.NewClient(svc.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &api{t, svc, conn}
}

func with(ctx context.Context, secret string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+secret)
}

func (a *api) ctx() context.Context { return with(a.t.Context(), a.svc.Key) }

func (a *api) admin() optoutv1.AdminServiceClient { return optoutv1.NewAdminServiceClient(a.conn) }

// key makes an API key and returns its secret and number.
func (a *api) key(k *optoutv1.ApiKey) (string, uint32) {
	a.t.Helper()
	k.Label = "test"
	resp, err := a.admin().CreateApiKey(a.ctx(), &optoutv1.CreateApiKeyRequest{Key: k})
	if err != nil {
		a.t.Fatal(err)
	}
	return resp.Secret, resp.Key.Number
}

// call calls a method of the API with an empty request and returns the answer's code.
func (a *api) call(ctx context.Context, m protoreflect.MethodDescriptor) error {
	full := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	in, out := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	if !m.IsStreamingServer() {
		return a.conn.Invoke(ctx, full, in, out)
	}
	s, err := a.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, full)
	if err != nil {
		return err
	}
	if err := s.SendMsg(in); err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	return s.RecvMsg(out)
}

func methods(t *testing.T) map[string]protoreflect.MethodDescriptor {
	all := map[string]protoreflect.MethodDescriptor{}
	protoregistry.GlobalFiles.RangeFilesByPackage("optout.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				all[string(s.Name())+"/"+string(s.Methods().Get(j).Name())] = s.Methods().Get(j)
			}
		}
		return true
	})
	if len(all) != len(rights) {
		t.Errorf("the API has %d methods, the matrix %d", len(all), len(rights))
	}
	return all
}

// Every method × every role, and no credential, a wrong one and a revoked one.
func TestRightsMatrix(t *testing.T) {
	a := newAPI(t)
	secrets := map[string]string{}
	for letter, role := range letters {
		secrets[letter], _ = a.key(&optoutv1.ApiKey{Role: role})
	}
	revoked, number := a.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_ADMIN})
	if _, err := a.admin().RevokeApiKey(a.ctx(), &optoutv1.RevokeApiKeyRequest{Number: number}); err != nil {
		t.Fatal(err)
	}
	for name, m := range methods(t) {
		for letter, secret := range secrets {
			got := status.Code(a.call(with(t.Context(), secret), m))
			allowed := got != codes.PermissionDenied && got != codes.Unauthenticated
			if want := strings.Contains(rights[name], letter); allowed != want {
				t.Errorf("%s as %s: %v, want allowed %v", name, letters[letter], got, want)
			}
		}
		var answers []string
		for what, ctx := range map[string]context.Context{
			"no credential":  t.Context(),
			"a wrong one":    with(t.Context(), "optout_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
			"an empty one":   with(t.Context(), ""),
			"another scheme": metadata.AppendToOutgoingContext(t.Context(), "authorization", "Basic "+a.svc.Key),
			"two":            with(a.ctx(), a.svc.Key),
			"a revoked one":  with(t.Context(), revoked),
		} {
			err := a.call(ctx, m)
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s with %s: %v", name, what, err)
			}
			answers = append(answers, err.Error())
		}
		for _, x := range answers {
			if x != answers[0] {
				t.Errorf("%s tells wrong credentials apart: %q, %q", name, answers[0], x)
			}
		}
	}
}

func TestHealthIsOpenAndReflectionIsNot(t *testing.T) {
	a := newAPI(t)
	h, err := healthpb.NewHealthClient(a.conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	mailer, _ := a.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_MAILER})
	for _, c := range []struct {
		ctx  context.Context
		want codes.Code
	}{{t.Context(), codes.Unauthenticated}, {with(t.Context(), mailer), codes.OK}} {
		s, err := reflectionpb.NewServerReflectionClient(a.conn).ServerReflectionInfo(c.ctx)
		if err == nil {
			s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
			_, err = s.Recv()
			s.CloseSend()
		}
		if status.Code(err) != c.want {
			t.Errorf("reflection: %v, want %v", err, c.want)
		}
	}
}

// A key is bound to senders and topics, and learns nothing of others.
func TestKeysAreBoundToSendersAndTopics(t *testing.T) {
	a := newAPI(t)
	for _, s := range []string{"one", "two"} {
		if _, err := a.admin().CreateSender(a.ctx(), &optoutv1.CreateSenderRequest{Sender: &optoutv1.Sender{Name: s}}); err != nil {
			t.Fatal(err)
		}
		for _, topic := range []*optoutv1.Topic{{Name: "news"}, {Name: "offers"}, {Name: "recall", Class: optoutv1.TopicClass_TOPIC_CLASS_REQUIRED,
			Ground: optoutv1.RequiredGround_REQUIRED_GROUND_LAW, Justification: "the law demands recalls"}} {
			if _, err := a.admin().CreateTopic(a.ctx(), &optoutv1.CreateTopicRequest{Sender: s, Topic: topic}); err != nil {
				t.Fatal(err)
			}
		}
	}
	bound, _ := a.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_MAILER, Senders: []string{"one"}})
	named, _ := a.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_MAILER, Senders: []string{"one"}, Topics: []string{"news", "recall"}})
	checks := optoutv1.NewSuppressionServiceClient(a.conn)
	for _, c := range []struct {
		secret, sender, topic string
		want                  optoutv1.ErrorReason
	}{
		{bound, "one", "news", 0},
		{bound, "one", "offers", 0},
		{bound, "one", "recall", optoutv1.ErrorReason_ERROR_REASON_TOPIC_NOT_ALLOWED},
		{bound, "two", "news", optoutv1.ErrorReason_ERROR_REASON_SENDER_NOT_ALLOWED},
		{bound, "nosuch", "news", optoutv1.ErrorReason_ERROR_REASON_SENDER_NOT_ALLOWED},
		{bound, "", "news", optoutv1.ErrorReason_ERROR_REASON_SENDER_NOT_ALLOWED},
		{named, "one", "recall", 0},
		{named, "one", "offers", optoutv1.ErrorReason_ERROR_REASON_TOPIC_NOT_ALLOWED},
	} {
		_, err := checks.CheckSend(with(t.Context(), c.secret), &optoutv1.CheckSendRequest{Sender: c.sender, Topic: c.topic, Address: "a@example.com"})
		if got := reason(err); got != c.want {
			t.Errorf("sender %q, topic %q: %v, want %v", c.sender, c.topic, err, c.want)
		}
	}
	senders, err := a.admin().ListSenders(with(t.Context(), bound), &optoutv1.ListSendersRequest{})
	if err != nil || len(senders.Senders) != 1 || senders.Senders[0].Name != "one" {
		t.Errorf("a bound key sees %v, %v", senders, err)
	}
	// A token of another sender opens nothing for a bound key.
	link, err := optoutv1.NewLinkServiceClient(a.conn).IssueLink(a.ctx(), &optoutv1.IssueLinkRequest{Sender: "two", Topic: "news", Address: "a@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = optoutv1.NewSubscriptionServiceClient(a.conn).Unsubscribe(with(t.Context(), bound), &optoutv1.UnsubscribeRequest{Token: link.Link.Url})
	if reason(err) != optoutv1.ErrorReason_ERROR_REASON_SENDER_NOT_ALLOWED {
		t.Errorf("another sender's token: %v", err)
	}
	// A bound admin key does not rule the installation.
	local, _ := a.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_ADMIN, Senders: []string{"one"}})
	if _, err := a.admin().CreateApiKey(with(t.Context(), local), &optoutv1.CreateApiKeyRequest{Key: &optoutv1.ApiKey{Label: "x", Role: optoutv1.Role_ROLE_ADMIN}}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a bound admin key made a key: %v", err)
	}
}
