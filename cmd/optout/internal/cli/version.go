package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (p *program) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Long:    `Prints the version of this program, the revision it was built from, and the Go version.`,
		Example: `  optout version --json`,
		Args:    needArgs(0, 0, "", "see \"optout version --help\""),
	}
	cmd.Flags().BoolVar(&p.json, "json", p.json, "answer in JSON")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.RunE = func(*cobra.Command, []string) error {
		version, revision := buildVersion()
		if p.json {
			fmt.Fprintf(p.Stdout, "%s\n", appendJSON(nil, map[string]string{"version": version, "revision": revision, "go": runtime.Version()}))
		} else {
			fmt.Fprintf(p.Stdout, "optout %s (revision %s, %s)\n", version, revision, runtime.Version())
		}
		return nil
	}
	return cmd
}

// buildVersion is what the Go tool recorded when the program was built.
func buildVersion() (version, revision string) {
	version, revision = "(devel)", "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version, revision
	}
	version = or(info.Main.Version, version)
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			revision += ", changed since"
		}
	}
	return version, revision
}
