package rpc

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc"

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

	"/optout.v1.FeedbackService/RecordBounce":     {feedback, operator, admin},
	"/optout.v1.FeedbackService/RecordComplaint":  {feedback, operator, admin},
	"/optout.v1.FeedbackService/SubmitReport":     {feedback, operator, admin},
	"/optout.v1.FeedbackService/ListQueue":        {support, privacy, operator, auditor, admin},
	"/optout.v1.FeedbackService/GetQueuedMessage": {support, privacy, operator, auditor, admin},
	"/optout.v1.FeedbackService/DecideQueue":      {operator, admin},

	"/optout.v1.LedgerService/ListEntries":     {privacy, operator, auditor, admin},
	"/optout.v1.LedgerService/GetCheckpoint":   {operator, auditor, admin},
	"/optout.v1.LedgerService/Verify":          {operator, auditor, admin},
	"/optout.v1.LedgerService/ListReceiptKeys": {operator, auditor, admin},
	"/optout.v1.LedgerService/AuditMail":       {operator, auditor, admin},

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
	"/optout.v1.AdminService/UpdateApiKey":          {admin},
	"/optout.v1.AdminService/RevokeApiKey":          {admin},
	"/optout.v1.AdminService/RotateLinkKey":         {admin},
	"/optout.v1.AdminService/ListLinkKeys":          {operator, auditor, admin},
	"/optout.v1.AdminService/Backup":                {admin},
	"/optout.v1.AdminService/ListProviders":         {operator, auditor, admin},
	"/optout.v1.AdminService/SyncProvider":          {operator, admin},
	"/optout.v1.AdminService/GetProviderDrift":      {operator, auditor, admin},

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      anyRole,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": anyRole,
}

// open methods need no credential: what they tell is no secret.
var open = set(
	"/grpc.health.v1.Health/Check",
	"/grpc.health.v1.Health/Watch",
	"/grpc.health.v1.Health/List",
)

// global methods act on the whole installation, so a key that is bound to senders may not call them.
var global = set(
	"/optout.v1.FeedbackService/SubmitReport", // a message may name any sender's address
	"/optout.v1.LedgerService/GetCheckpoint",
	"/optout.v1.LedgerService/Verify",
	"/optout.v1.AdminService/CreateSender",
	"/optout.v1.AdminService/ImportWirelessDomains",
	"/optout.v1.AdminService/CreateApiKey",
	"/optout.v1.AdminService/ListApiKeys",
	"/optout.v1.AdminService/UpdateApiKey",
	"/optout.v1.AdminService/RevokeApiKey",
	"/optout.v1.AdminService/RotateLinkKey",
	"/optout.v1.AdminService/ListLinkKeys",
	"/optout.v1.AdminService/Backup",
)

// topical methods send, link or subscribe to the topic that the request names, or list who gets it, so the key must be allowed
// to name it. A no is taken about any topic: to refuse one would be the worse error.
var topical = set(
	"/optout.v1.SuppressionService/CheckSend",
	"/optout.v1.SuppressionService/BatchCheckSend",
	"/optout.v1.SubscriptionService/Subscribe",
	"/optout.v1.SubscriptionService/ListSubscriptions",
	"/optout.v1.LinkService/IssueLink",
	"/optout.v1.LinkService/BatchIssueLinks",
)

func set(methods ...string) map[string]bool {
	s := map[string]bool{}
	for _, m := range methods {
		s[m] = true
	}
	return s
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
	for _, m := range slices.Concat(slices.Collect(maps.Keys(policy)), slices.Collect(maps.Keys(open)), slices.Collect(maps.Keys(global)),
		slices.Collect(maps.Keys(topical))) {
		if !methods[m] {
			return fmt.Errorf("the policy names %s, which is no method", m)
		}
	}
	return nil
}

// sight is what a role may see of people's data. The zero value sees none of it.
type sight struct {
	// listed: addresses in clear in ListSuppressions. (ListSubscriptions is for roles that all may.)
	listed bool
	// story: what evidence ExplainAddress shows.
	story detail
	// ledger: what evidence ListEntries shows.
	ledger detail
	// queue: what evidence the review queue shows: who decides must read what was said.
	queue detail
}

// detail is how much of an entry's evidence is shown.
type detail uint8

const (
	_ detail = iota // nothing
	// inWords is the address that was asked about and what was said, but not where the person was: no IP address, no user
	// agent, and no other address of the person.
	inWords
	everything
)

// sights is the one place that says which role sees what of people's data. Whoever has no row sees none.
var sights = map[ledger.Role]sight{
	support:  {story: inWords, queue: inWords},
	operator: {story: inWords, listed: true, queue: inWords},
	privacy:  {story: everything, listed: true, ledger: everything, queue: everything},
	auditor:  {story: everything, listed: true, ledger: everything, queue: everything},
	admin:    {story: everything, listed: true, ledger: everything, queue: everything},
}

// words are the names of evidence that inWords shows. What is not here is not shown, so evidence that is new stays hidden
// until somebody decides.
var words = set("address", "note", "source", "wording", "method", "language", "policy_version", "evidence", "subject", "words", "from", "authentication", "diagnostic")

// evidenceOut shows as much of an entry's evidence as d allows. own tells whether the entry is about the address that was
// asked about.
func evidenceOut(evidence map[string]string, d detail, own bool) map[string]string {
	switch d {
	case everything:
		return evidence
	case inWords:
		shown := maps.Clone(evidence)
		maps.DeleteFunc(shown, func(name, _ string) bool { return !words[name] || name == "address" && !own })
		return shown
	}
	return nil
}
