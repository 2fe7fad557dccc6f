package rpc_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

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
	"FeedbackService/RecordBounce": "foa", "FeedbackService/RecordComplaint": "foa", "FeedbackService/SubmitReport": "foa",
	"FeedbackService/ListQueue": "spoua", "FeedbackService/GetQueuedMessage": "spoua", "FeedbackService/DecideQueue": "oa",
	"LedgerService/ListEntries": "poua", "LedgerService/GetCheckpoint": "oua", "LedgerService/Verify": "oua",
	"LedgerService/ListReceiptKeys": "oua", "LedgerService/AuditMail": "oua",
	"AdminService/CreateSender": "a", "AdminService/UpdateSender": "a", "AdminService/GetSender": "mcfspoua", "AdminService/ListSenders": "mcfspoua",
	"AdminService/CreateTopic": "a", "AdminService/UpdateTopic": "a", "AdminService/ListTopics": "mcfspoua", "AdminService/BlockDomain": "oa",
	"AdminService/UnblockDomain": "oa", "AdminService/ImportWirelessDomains": "oa", "AdminService/ListDomainRules": "oua", "AdminService/CreateApiKey": "a",
	"AdminService/ListApiKeys": "ua", "AdminService/UpdateApiKey": "a", "AdminService/RevokeApiKey": "a", "AdminService/RotateLinkKey": "a", "AdminService/ListLinkKeys": "oua", "AdminService/Backup": "a",
	"AdminService/ListProviders": "oua", "AdminService/SyncProvider": "oa", "AdminService/GetProviderDrift": "oua",
}

var letters = map[string]optoutv1.Role{"m": optoutv1.Role_ROLE_MAILER, "c": optoutv1.Role_ROLE_COLLECTOR, "f": optoutv1.Role_ROLE_FEEDBACK, "s": optoutv1.Role_ROLE_SUPPORT,
	"p": optoutv1.Role_ROLE_PRIVACY, "o": optoutv1.Role_ROLE_OPERATOR, "u": optoutv1.Role_ROLE_AUDITOR, "a": optoutv1.Role_ROLE_ADMIN}

// call calls a method of the API with an empty request.
func (r *rig) call(ctx context.Context, m protoreflect.MethodDescriptor) error {
	return r.invoke(ctx, m, dynamicpb.NewMessage(m.Input()))
}

// invoke calls a method of the API and takes its first answer.
func (r *rig) invoke(ctx context.Context, m protoreflect.MethodDescriptor, in proto.Message) error {
	full := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	out := dynamicpb.NewMessage(m.Output())
	if !m.IsStreamingServer() {
		return r.conn.Invoke(ctx, full, in, out)
	}
	s, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, full)
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
	r := newRig(t, nil)
	secrets := map[string]string{}
	for letter, role := range letters {
		secrets[letter], _ = r.key(&optoutv1.ApiKey{Role: role})
	}
	revoked, number := r.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_ADMIN})
	if _, err := r.admin.RevokeApiKey(r.ctx(), &optoutv1.RevokeApiKeyRequest{Number: number}); err != nil {
		t.Fatal(err)
	}
	for name, m := range methods(t) {
		for letter, secret := range secrets {
			err := r.call(with(t.Context(), secret), m)
			if denied := reason(err) == "ROLE_REQUIRED"; denied == strings.Contains(rights[name], letter) || status.Code(err) == codes.Unauthenticated {
				t.Errorf("%s as %s: %v", name, letters[letter], err)
			} else if denied && (status.Code(err) != codes.PermissionDenied || len(strings.Split(info(err).Metadata["needs"], ", ")) != len(rights[name])) {
				t.Errorf("%s as %s: %v does not say who may: %v", name, letters[letter], err, info(err))
			}
		}
		var answers []string
		for what, ctx := range map[string]context.Context{
			"no credential":  t.Context(),
			"a wrong one":    with(t.Context(), "optout_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
			"an empty one":   with(t.Context(), ""),
			"another scheme": metadata.AppendToOutgoingContext(t.Context(), "authorization", "Basic "+r.secret),
			"two":            with(r.ctx(), r.secret),
			"a revoked one":  with(t.Context(), revoked),
		} {
			err := r.call(ctx, m)
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

// The roles that each method's comment in the protos names are those of the matrix.
func TestRolesAreDocumented(t *testing.T) {
	files, err := filepath.Glob("../../proto/optout/v1/*.proto")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	documented := map[string]string{}
	service := regexp.MustCompile(`(?m)^service (\w+)`)
	method := regexp.MustCompile(`(?s)Roles: ([^.]+)\.[^.]*?\n  rpc (\w+)\(`)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		s := service.FindSubmatch(text)
		if s == nil {
			continue
		}
		for _, m := range method.FindAllSubmatch(text, -1) {
			roles := regexp.MustCompile(`\([^)]*\)`).ReplaceAllString(string(m[1]), "") // what is said of single reasons
			documented[string(s[1])+"/"+string(m[2])] = roles
		}
	}
	for name, may := range rights {
		for letter, role := range letters {
			word := strings.ToLower(strings.TrimPrefix(role.String(), "ROLE_"))
			says := documented[name] == "any" || regexp.MustCompile(`\b`+word+`\b`).MatchString(documented[name])
			if says != strings.Contains(may, letter) {
				t.Errorf("%s is documented for %q; %s: %v", name, documented[name], word, !says)
			}
		}
	}
}

func TestHealthIsOpenAndReflectionIsNot(t *testing.T) {
	r := newRig(t, nil)
	h, err := healthpb.NewHealthClient(r.conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	w, err := healthpb.NewHealthClient(r.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if h, err = w.Recv(); err != nil || h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health watched: %v, %v", h, err)
	}
	r.server.SetServing(false)
	if h, err = w.Recv(); err != nil || h.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health watched: %v, %v", h, err)
	}
	mailer, _ := r.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_MAILER})
	for _, c := range []struct {
		ctx  context.Context
		want codes.Code
	}{{t.Context(), codes.Unauthenticated}, {with(t.Context(), mailer), codes.OK}} {
		s, err := reflectionpb.NewServerReflectionClient(r.conn).ServerReflectionInfo(c.ctx)
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
	r := newRig(t, nil)
	r.twoSenders()
	bound, _ := r.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_MAILER, Senders: []string{"one"}})
	named, _ := r.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_MAILER, Senders: []string{"one"}, Topics: []string{"news", "recall"}})
	for _, c := range []struct{ secret, sender, topic, want string }{
		{bound, "one", "news", ""},
		{bound, "one", "offers", ""},
		{bound, "one", "recall", "TOPIC_NOT_ALLOWED"}, // required topics only by name
		{bound, "one", "nosuch", "UNKNOWN_TOPIC"},
		{bound, "two", "news", "SENDER_NOT_ALLOWED"},
		{bound, "nosuch", "news", "SENDER_NOT_ALLOWED"}, // the same answer, whether there is one or not
		{bound, "", "news", "SENDER_NOT_ALLOWED"},
		{named, "one", "recall", ""},
		{named, "one", "offers", "TOPIC_NOT_ALLOWED"},
		{r.secret, "one", "recall", ""}, // an admin's key may name every topic
		{r.secret, "nosuch", "news", "UNKNOWN_SENDER"},
	} {
		_, err := r.suppression.CheckSend(with(t.Context(), c.secret), &optoutv1.CheckSendRequest{Sender: c.sender, Topic: c.topic, Address: "a@example.com"})
		if got := reason(err); got != c.want {
			t.Errorf("sender %q, topic %q: %v, want %v", c.sender, c.topic, err, c.want)
		}
	}
	senders, err := r.admin.ListSenders(with(t.Context(), bound), &optoutv1.ListSendersRequest{})
	if err != nil || len(senders.Senders) != 1 || senders.Senders[0].Name != "one" {
		t.Errorf("a bound key sees %v, %v", senders, err)
	}
	auditor, _ := r.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_AUDITOR, Senders: []string{"one"}})
	entries, err := r.entries.ListEntries(with(t.Context(), auditor), &optoutv1.ListEntriesRequest{PageSize: 1000})
	if err != nil || len(entries.Entries) == 0 {
		t.Fatal(entries, err)
	}
	for _, e := range entries.Entries {
		if e.Sender != "one" {
			t.Errorf("a bound auditor sees %v", e)
		}
	}
	// A token says its own sender: one of the key's is pressed, one of another's opens nothing.
	own, err := r.link.IssueLink(r.ctx(), &optoutv1.IssueLinkRequest{Sender: "one", Topic: "news", Address: "a@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.subscription.Unsubscribe(with(t.Context(), bound), &optoutv1.UnsubscribeRequest{Token: own.Link.Url}); err != nil {
		t.Errorf("a token of the key's own sender: %v", err)
	}
	issued, err := r.link.IssueLink(r.ctx(), &optoutv1.IssueLinkRequest{Sender: "two", Topic: "news", Address: "a@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = r.subscription.Unsubscribe(with(t.Context(), bound), &optoutv1.UnsubscribeRequest{Token: issued.Link.Url}); reason(err) != "SENDER_NOT_ALLOWED" {
		t.Errorf("another sender's token: %v", err)
	}
	if _, err = r.link.InspectLink(with(t.Context(), auditor), &optoutv1.InspectLinkRequest{Token: issued.Link.Url}); reason(err) != "SENDER_NOT_ALLOWED" {
		t.Errorf("another sender's token: %v", err)
	}
	// A collector confirms only topics that its key may name.
	asked, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Sender: "one", Topic: "offers", Address: "a@example.com", RequestId: "1"})
	if err != nil || asked.ConfirmationToken == "" {
		t.Fatal(asked, err)
	}
	collector, _ := r.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_COLLECTOR, Topics: []string{"news"}})
	if _, err := r.subscription.ConfirmSubscription(with(t.Context(), collector), &optoutv1.ConfirmSubscriptionRequest{Token: asked.ConfirmationToken, RequestId: "2"}); reason(err) != "TOPIC_NOT_ALLOWED" {
		t.Errorf("another topic's confirmation: %v", err)
	}
}

// twoSenders creates the senders "one" and "two", each with the topics news, offers (opt-in) and recall (required).
func (r *rig) twoSenders() {
	r.t.Helper()
	for _, s := range []string{"one", "two"} {
		if _, err := r.admin.CreateSender(r.ctx(), &optoutv1.CreateSenderRequest{Sender: &optoutv1.Sender{Name: s}}); err != nil {
			r.t.Fatal(err)
		}
		for _, topic := range []*optoutv1.Topic{{Name: "news"}, {Name: "offers", ConsentRule: optoutv1.ConsentRule_CONSENT_RULE_OPT_IN}, {Name: "recall", Class: optoutv1.TopicClass_TOPIC_CLASS_REQUIRED,
			Ground: optoutv1.RequiredGround_REQUIRED_GROUND_LAW, Justification: "the law demands recalls"}} {
			if _, err := r.admin.CreateTopic(r.ctx(), &optoutv1.CreateTopicRequest{Sender: s, Topic: topic}); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// No method forgets what a key is bound to: each refuses another sender, and those that send, link, subscribe or list
// subscribers another topic.
func TestEveryMethodIsBound(t *testing.T) {
	r := newRig(t, nil)
	r.twoSenders()
	bound, _ := r.key(&optoutv1.ApiKey{Role: optoutv1.Role_ROLE_ADMIN, Senders: []string{"one"}, Topics: []string{"news"}})
	ctx := with(t.Context(), bound)
	// These name no sender: one lists only the key's, two take it from a token, and public keys are for everybody.
	unnamed := []string{"AdminService/ListSenders", "LinkService/InspectLink", "SubscriptionService/ConfirmSubscription", "LedgerService/ListReceiptKeys"}
	topical := []string{"LinkService/BatchIssueLinks", "LinkService/IssueLink", "SubscriptionService/ListSubscriptions", "SubscriptionService/Subscribe",
		"SuppressionService/BatchCheckSend", "SuppressionService/CheckSend"}
	var refusedTopic []string
	for name, m := range methods(t) {
		sender := m.Input().Fields().ByName("sender")
		if m.Name() == "GetSender" || m.Name() == "UpdateSender" {
			sender = m.Input().Fields().ByName("name")
		}
		in := dynamicpb.NewMessage(m.Input())
		name1 := func(s string) {
			if sender != nil && sender.Kind() == protoreflect.StringKind {
				in.Set(sender, protoreflect.ValueOfString(s))
			}
		}
		name1("two")
		if err := r.invoke(ctx, m, in); (reason(err) == "SENDER_NOT_ALLOWED") == slices.Contains(unnamed, name) {
			t.Errorf("%s of another sender: %v", name, err)
		}
		if topic := m.Input().Fields().ByName("topic"); topic != nil && topic.Kind() == protoreflect.StringKind {
			name1("one")
			in.Set(topic, protoreflect.ValueOfString("offers"))
			if reason(r.invoke(ctx, m, in)) == "TOPIC_NOT_ALLOWED" {
				refusedTopic = append(refusedTopic, name)
			}
		}
	}
	slices.Sort(refusedTopic)
	if !slices.Equal(refusedTopic, topical) {
		t.Errorf("another topic is refused by %v, want %v", refusedTopic, topical)
	}
}
