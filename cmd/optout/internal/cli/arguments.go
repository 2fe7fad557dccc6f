package cli

import (
	"crypto/rand"
	"fmt"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
)

// needArgs demands a number of arguments; most of -1 is any.
func needArgs(least, most int, what, remedy string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return wrongUsage(what, "it is missing", remedy)
		case most == 0 && len(args) > 0:
			return wrongUsage("", "it takes no arguments", remedy)
		case most > 0 && len(args) > most:
			return wrongUsage("", fmt.Sprintf("%d arguments are too many", len(args)), remedy)
		}
		return nil
	}
}

// oneAddress demands exactly one address.
var oneAddress = needArgs(1, 1, "ADDRESS", "give one address, such as ada@example.com")

// required refuses to run a command without a flag, before anybody is asked.
func required(cmd *cobra.Command, flag, remedy string) {
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if before != nil {
			if err := before(cmd, args); err != nil {
				return err
			}
		}
		if cmd.Flags().Lookup(flag).Value.String() == "" {
			return wrongUsage("--"+flag, "it is missing", remedy)
		}
		return nil
	}
}

// requiredTopic refuses to run a command without --topic.
func requiredTopic(cmd *cobra.Command) {
	required(cmd, "topic", "name the topic of the mail; see \"optout topic list\"")
}

// requiredWhy refuses to run a command without --justification.
func requiredWhy(cmd *cobra.Command) {
	required(cmd, "justification", "say why, for the ledger")
}

// scopeOf is what a topic and "commercial" mean, given by flags of these names; neither means ALL.
func scopeOf(topicFlag, topic, commercialFlag string, commercial bool) (*optoutv1.Scope, error) {
	switch {
	case topic != "" && commercial:
		return nil, wrongUsage("--"+commercialFlag, "it does not go with --"+topicFlag, "give one of them, or neither for ALL correspondence")
	case commercial:
		return &optoutv1.Scope{Kind: optoutv1.ScopeKind_SCOPE_KIND_COMMERCIAL}, nil
	case topic != "":
		return &optoutv1.Scope{Kind: optoutv1.ScopeKind_SCOPE_KIND_TOPIC, Topic: topic}, nil
	}
	return &optoutv1.Scope{Kind: optoutv1.ScopeKind_SCOPE_KIND_ALL}, nil
}

// requestID is the id that makes a write act at most once: the caller's, or one for this run.
func requestID(given string) string {
	if given != "" {
		return given
	}
	return "optout-" + rand.Text()
}

// requestIDFlag explains --request-id.
const requestIDFlag = "`ID` that makes the command act once however often it is repeated: 1 to 128 printable ASCII characters (default: a new one)"
