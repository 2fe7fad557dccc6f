package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A flag with this annotation is also a variable: --public-url is OPTOUT_PUBLIC_URL. Only what says where and how (the flags of
// serve, and how to reach a service) is; what says what to do (a topic, a reason, --dry-run) is taken from the command line
// alone, so that a forgotten variable never narrows a person's no.
const fromEnvironment = "optout-environment"

// envPrefix begins the name of every variable.
const envPrefix = "OPTOUT_"

// envKey is the variable that holds an API key; it has no flag, so that keys stay out of process lists.
const envKey = "OPTOUT_KEY"

// variable is the name of the variable that is also the flag.
func variable(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnv marks flags as variables.
func fromEnv(fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Annotations == nil {
			f.Annotations = map[string][]string{}
		}
		f.Annotations[fromEnvironment] = []string{variable(f.Name)}
	})
}

// fill gives the flags that the command line left alone the value of their variable, and where there is none, of the file:
// flag before variable before file before default.
func (p *program) fill(fs *pflag.FlagSet, file map[string]fileValue) (err error) {
	fs.VisitAll(func(f *pflag.Flag) {
		if err != nil || f.Changed || f.Annotations[fromEnvironment] == nil {
			return
		}
		if text, ok := p.env[variable(f.Name)]; ok {
			if e := fs.Set(f.Name, text); e != nil {
				err = wrongUsage(variable(f.Name), badValue(f, text), "unset it, or give what \"--"+f.Name+"\" takes")
			}
			return
		}
		if v, ok := file[f.Name]; ok {
			if len(v.values) > 1 && !strings.HasSuffix(f.Value.Type(), "Slice") {
				err = wrongUsage(v.where, "it takes one value, not a list", "keep one")
				return
			}
			for _, text := range v.values {
				if e := fs.Set(f.Name, text); e != nil {
					err = wrongUsage(v.where, badValue(f, text), "it takes what \"--"+f.Name+"\" takes")
					return
				}
			}
		}
	})
	return err
}

func badValue(f *pflag.Flag, text string) string {
	return fmt.Sprintf("%q is not a valid value for %s (%s)", clip(text), f.Name, f.Value.Type())
}

// misspelt returns a warning for each OPTOUT_ variable that is none of ours but nearly one.
func (p *program) misspelt(cmd *cobra.Command) []string {
	known := []string{envKey}
	for _, c := range append(cmd.Root().Commands(), cmd) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Annotations[fromEnvironment] != nil {
				known = append(known, variable(f.Name))
			}
		})
	}
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(p.env)) {
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(known, name) {
			continue
		}
		if near := nearest(name, known); near != "" {
			warnings = append(warnings, fmt.Sprintf("the variable %s is none that optout reads; did you mean %s?", name, near))
		}
	}
	return warnings
}

// flagNames lists the flags of a command.
func flagNames(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// nearest returns the candidate that is a slip of the fingers away from word, or "": a distance of at most two, and of fewer
// than half its letters.
func nearest(word string, candidates []string) string {
	best, found := 3, ""
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < best && 2*d < len(strings.TrimPrefix(c, envPrefix)) {
			best, found = d, c
		}
	}
	return found
}

// distance is how many letters must be changed, put in, taken out or swapped with their neighbour to make b out of a.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			rows[i][j] = min(change, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// clip shortens a word of the caller's for an error.
func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}
