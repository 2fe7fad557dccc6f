package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
)

// completionTime is how long a shell waits for names from the service; without an answer it completes nothing.
const completionTime = 300 * time.Millisecond

// lister asks the service for the names that a word may be, with their descriptions.
type lister func(ctx context.Context, c *call) ([]cobra.Completion, error)

func topics(ctx context.Context, c *call) ([]cobra.Completion, error) {
	r, err := c.admin.ListTopics(ctx, &optoutv1.ListTopicsRequest{Sender: c.sender})
	var names []cobra.Completion
	for _, t := range r.GetTopics() {
		names = append(names, cobra.CompletionWithDesc(t.Name, t.Description))
	}
	return names, err
}

func senders(ctx context.Context, c *call) ([]cobra.Completion, error) {
	r, err := c.admin.ListSenders(ctx, &optoutv1.ListSendersRequest{})
	var names []cobra.Completion
	for _, s := range r.GetSenders() {
		names = append(names, cobra.CompletionWithDesc(s.Name, s.DisplayName))
	}
	return names, err
}

// complete completes a flag, or the first argument, with what the service lists.
func (p *program) complete(to *connection, list lister) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		c, err := p.open(ctx, cmd, to)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.close()
		names, err := list(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// fileArgument completes the one argument with the names of files.
func fileArgument(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}
