package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usage prints how a command is used: the line, examples, commands by group, its own flags, and apart from them the flags that
// say which service to ask, which are the same everywhere.
func usage(cmd *cobra.Command) error {
	w := cmd.OutOrStderr()
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "Usage:\n  %s COMMAND\n", cmd.CommandPath())
	} else {
		fmt.Fprintf(w, "Usage:\n  %s\n", cmd.UseLine())
	}
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(w, "\nAlso called:\n  %s\n", strings.Join(cmd.Aliases, ", "))
	}
	if cmd.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		for _, g := range cmd.Groups() {
			commands(w, cmd, g.ID, g.Title)
		}
		commands(w, cmd, "", "Commands")
	}
	own, connection := pflag.NewFlagSet("", pflag.ContinueOnError), pflag.NewFlagSet("", pflag.ContinueOnError)
	own.SortFlags, connection.SortFlags = false, false
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Annotations[connectionFlag] != nil {
			connection.AddFlag(f)
		} else {
			own.AddFlag(f)
		}
	})
	flags(w, "Flags", own)
	flags(w, "Which service to ask, and how (each is also a variable: --server is OPTOUT_SERVER)", connection)
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nMore about one: %s COMMAND --help\n", cmd.CommandPath())
	}
	return nil
}

func commands(w io.Writer, cmd *cobra.Command, group, title string) {
	for _, c := range cmd.Commands() {
		if c.GroupID != group || !c.IsAvailableCommand() {
			continue
		}
		if title != "" {
			fmt.Fprintf(w, "\n%s:\n", title)
			title = ""
		}
		fmt.Fprintf(w, "  %-*s  %s\n", c.NamePadding(), c.Name(), c.Short)
	}
}

func flags(w io.Writer, title string, fs *pflag.FlagSet) {
	if text := fs.FlagUsagesWrapped(120); text != "" {
		fmt.Fprintf(w, "\n%s:\n%s", title, text)
	}
}
