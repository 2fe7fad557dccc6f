package rpc_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
)

// Bad input gets a code, a reason, a field or a remedy, and no personal data.
func TestErrorsTellWhatToDo(t *testing.T) {
	r := newRig(t, nil)
	none := &timestamppb.Timestamp{Nanos: -1}
	many := make([]string, 10001)
	support, privacy, operator := r.as(optoutv1.Role_ROLE_SUPPORT), r.as(optoutv1.Role_ROLE_PRIVACY), r.as(optoutv1.Role_ROLE_OPERATOR)
	for name, c := range map[string]struct {
		call func() error
		code codes.Code
		want string
	}{
		"unknown topic": {func() error {
			_, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Topic: "nosuch", Address: "a@example.com"})
			return err
		}, codes.NotFound, "UNKNOWN_TOPIC"},
		"unknown topic, headers wanted": {func() error {
			_, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Topic: "nosuch", Address: "a@example.com", WantHeaders: true})
			return err
		}, codes.NotFound, "UNKNOWN_TOPIC"},
		"unknown sender": {func() error {
			_, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Sender: "nosuch", Topic: "news", Address: "a@example.com"})
			return err
		}, codes.NotFound, "UNKNOWN_SENDER"},
		"unknown sender of a link": {func() error {
			_, err := r.link.IssueLink(r.ctx(), &optoutv1.IssueLinkRequest{Sender: "nosuch", Topic: "news", Address: "a@example.com"})
			return err
		}, codes.NotFound, "UNKNOWN_SENDER"},
		"no topic": {func() error {
			_, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Address: "a@example.com"})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"no topic of a link": {func() error {
			_, err := r.link.IssueLink(r.ctx(), &optoutv1.IssueLinkRequest{Address: "a@example.com"})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"malformed address": {func() error {
			_, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Topic: "news", Address: "Secret Name <secret@example.com>"})
			return err
		}, codes.InvalidArgument, "INVALID_ADDRESS"},
		"malformed address of a link": {func() error {
			_, err := r.link.IssueLink(r.ctx(), &optoutv1.IssueLinkRequest{Topic: "news", Address: "secret@@example.com"})
			return err
		}, codes.InvalidArgument, "INVALID_ADDRESS"},
		"malformed address explained": {func() error {
			_, err := r.suppression.ExplainAddress(r.ctx(), &optoutv1.ExplainAddressRequest{Address: "secret@@example.com"})
			return err
		}, codes.InvalidArgument, "INVALID_ADDRESS"},
		"too many addresses": {func() error {
			_, err := r.suppression.BatchCheckSend(r.ctx(), &optoutv1.BatchCheckSendRequest{Topic: "news", Addresses: many})
			return err
		}, codes.InvalidArgument, "TOO_MANY_ITEMS"},
		"an address to import with a bad time": {func() error {
			_, err := r.suppression.ImportSuppressions(r.ctx(), &optoutv1.ImportSuppressionsRequest{Source: "x", Rows: []*optoutv1.ImportedSuppression{{Address: "secret@example.com", OccurredAt: none}}})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"yes without request_id": {func() error {
			_, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "news", Address: "a@example.com"})
			return err
		}, codes.InvalidArgument, "REQUEST_ID_REQUIRED"},
		"yes to a required topic": {func() error {
			_, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "law", Address: "a@example.com", RequestId: "1"})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"yes with a bad time": {func() error {
			_, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "news", Address: "a@example.com", RequestId: "1", ExpiresAt: none})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"implied consent without end": {func() error {
			_, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "news", Address: "a@example.com", RequestId: "1", Basis: optoutv1.ConsentBasis_CONSENT_BASIS_IMPLIED_INQUIRY})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"evidence too long": {func() error {
			_, err := r.subscription.Subscribe(r.ctx(), &optoutv1.SubscribeRequest{Topic: "news", Address: "a@example.com", RequestId: "1",
				Evidence: &optoutv1.ConsentEvidence{UserAgent: strings.Repeat("x", 501)}})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"lifting an opt-out": {func() error {
			_, err := r.suppression.LiftSuppression(r.ctx(), &optoutv1.LiftSuppressionRequest{Address: "a@example.com", Reason: optedOutAll, Justification: "please", RequestId: "1"})
			return err
		}, codes.FailedPrecondition, "NOT_LIFTABLE"},
		"an operator lifting a restriction": {func() error {
			_, err := r.suppression.LiftSuppression(operator, &optoutv1.LiftSuppressionRequest{Address: "a@example.com", Reason: optoutv1.DenialReason_DENIAL_REASON_RESTRICTED, Justification: "please", RequestId: "1"})
			return err
		}, codes.PermissionDenied, "ROLE_REQUIRED"},
		"the privacy role lifting a bounce": {func() error {
			_, err := r.suppression.LiftSuppression(privacy, &optoutv1.LiftSuppressionRequest{Address: "a@example.com", Reason: optoutv1.DenialReason_DENIAL_REASON_UNDELIVERABLE, Justification: "please", RequestId: "1"})
			return err
		}, codes.PermissionDenied, "ROLE_REQUIRED"},
		"support restricting": {func() error {
			_, err := r.suppression.CreateSuppression(support, &optoutv1.CreateSuppressionRequest{Address: "a@example.com", Reason: optoutv1.DenialReason_DENIAL_REASON_UNDER_13})
			return err
		}, codes.PermissionDenied, "ROLE_REQUIRED"},
		"a reason that cannot be recorded": {func() error {
			_, err := r.suppression.CreateSuppression(support, &optoutv1.CreateSuppressionRequest{Address: "a@example.com", Reason: optoutv1.DenialReason_DENIAL_REASON_NO_CONSENT})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"voiding a person's word": {func() error {
			o := r.optOut("a@example.com")
			_, err := r.suppression.VoidEntries(r.ctx(), &optoutv1.VoidEntriesRequest{Entries: []uint64{o.Entry}, Justification: "x", Evidence: "x", RequestId: "1"})
			return err
		}, codes.FailedPrecondition, "NOT_VOIDABLE"},
		"voiding nothing": {func() error {
			_, err := r.suppression.VoidEntries(r.ctx(), &optoutv1.VoidEntriesRequest{Entries: []uint64{1 << 40}, Justification: "x", Evidence: "x", RequestId: "1"})
			return err
		}, codes.NotFound, "NOT_FOUND"},
		"random token": {func() error {
			_, err := r.link.InspectLink(r.ctx(), &optoutv1.InspectLinkRequest{Token: strings.Repeat("a", 61)})
			return err
		}, codes.NotFound, "INVALID_TOKEN"},
		"position of another ledger": {func() error {
			_, err := r.suppression.CheckSend(r.ctx(), &optoutv1.CheckSendRequest{Topic: "news", Address: "a@example.com", AtLeast: &optoutv1.Position{LedgerId: "another", Number: 1}})
			return err
		}, codes.FailedPrecondition, "OTHER_LEDGER"},
		"loosening a topic": {func() error {
			_, err := r.admin.UpdateTopic(r.ctx(), &optoutv1.UpdateTopicRequest{Name: "news", Class: optoutv1.TopicClass_TOPIC_CLASS_TRANSACTIONAL})
			return err
		}, codes.FailedPrecondition, "LOOSENING"},
		"topic name taken": {func() error {
			_, err := r.admin.CreateTopic(r.ctx(), &optoutv1.CreateTopicRequest{Topic: &optoutv1.Topic{Name: "news"}})
			return err
		}, codes.AlreadyExists, "NAME_TAKEN"},
		"no topic at all": {func() error {
			_, err := r.admin.CreateTopic(r.ctx(), &optoutv1.CreateTopicRequest{})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"required topic without justification": {func() error {
			_, err := r.admin.CreateTopic(r.ctx(), &optoutv1.CreateTopicRequest{Topic: &optoutv1.Topic{Name: "must", Class: optoutv1.TopicClass_TOPIC_CLASS_REQUIRED, Ground: optoutv1.RequiredGround_REQUIRED_GROUND_LAW}})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"sender name taken": {func() error {
			_, err := r.admin.CreateSender(r.ctx(), &optoutv1.CreateSenderRequest{Sender: &optoutv1.Sender{Name: "default"}})
			return err
		}, codes.AlreadyExists, "NAME_TAKEN"},
		"no sender at all": {func() error {
			_, err := r.admin.CreateSender(r.ctx(), &optoutv1.CreateSenderRequest{})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"no API key at all": {func() error {
			_, err := r.admin.CreateApiKey(r.ctx(), &optoutv1.CreateApiKeyRequest{})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"revoking the last admin key": {func() error {
			_, err := r.admin.RevokeApiKey(r.ctx(), &optoutv1.RevokeApiKeyRequest{Number: 1})
			return err
		}, codes.FailedPrecondition, "LAST_ADMIN"},
		"revoking no key": {func() error {
			_, err := r.admin.RevokeApiKey(r.ctx(), &optoutv1.RevokeApiKeyRequest{Number: 99})
			return err
		}, codes.NotFound, "NOT_FOUND"},
		"unblocking what is not blocked": {func() error {
			_, err := r.admin.UnblockDomain(r.ctx(), &optoutv1.UnblockDomainRequest{Domain: "example.net", Justification: "x", RequestId: "u"})
			return err
		}, codes.NotFound, "NOT_FOUND"},
		"an empty wireless list": {func() error {
			_, err := r.admin.ImportWirelessDomains(r.ctx(), &optoutv1.ImportWirelessDomainsRequest{ListDate: timestamppb.New(time.Now())})
			return err
		}, codes.InvalidArgument, "TOO_MANY_ITEMS"},
		"an audit of nothing": {func() error {
			_, err := r.entries.AuditMail(r.ctx(), &optoutv1.AuditMailRequest{})
			return err
		}, codes.InvalidArgument, "TOO_MANY_ITEMS"},
		"an audit of mail to nobody": {func() error {
			_, err := r.entries.AuditMail(r.ctx(), &optoutv1.AuditMailRequest{Items: []*optoutv1.AuditItem{{Receipt: "x"}}})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"an audit of mail of no topic": {func() error {
			_, err := r.entries.AuditMail(r.ctx(), &optoutv1.AuditMailRequest{Items: []*optoutv1.AuditItem{{Addresses: []string{"secret@example.com"}, Topic: "nosuch"}}})
			return err
		}, codes.NotFound, "UNKNOWN_TOPIC"},
		"an audit with a negative age": {func() error {
			_, err := r.entries.AuditMail(r.ctx(), &optoutv1.AuditMailRequest{MaxAge: durationpb.New(-1), Items: []*optoutv1.AuditItem{{Addresses: []string{"secret@example.com"}}}})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"a wireless list without time": {func() error {
			_, err := r.admin.ImportWirelessDomains(r.ctx(), &optoutv1.ImportWirelessDomainsRequest{ListDate: none})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
	} {
		err := c.call()
		if status.Code(err) != c.code || reason(err) != c.want {
			t.Errorf("%s: %v (%v)", name, err, reason(err))
			continue
		}
		if strings.Contains(strings.ToLower(err.Error()+info(err).String()), "secret") {
			t.Errorf("%s: it carries personal data: %v", name, err)
		}
		i := info(err)
		if i.Metadata["remedy"] == "" && i.Metadata["field"] == "" || status.Convert(err).Message() == "" {
			t.Errorf("%s: no field and no remedy: %v, %v", name, err, i)
		}
		if c.want == "TOO_MANY_ITEMS" && i.Metadata["limit"] != "10000" && !strings.Contains(name, "audit") {
			t.Errorf("%s: limit %q", name, i.Metadata["limit"])
		}
		if c.want == "ROLE_REQUIRED" && !strings.Contains(i.Metadata["needs"], "admin") {
			t.Errorf("%s: needs %q", name, i.Metadata["needs"])
		}
	}
}
