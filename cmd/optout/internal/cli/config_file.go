package cli

import (
	"fmt"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"
)

// fileValue is what a configuration file says about one flag.
type fileValue struct {
	values []string
	where  string // file, line and key, for errors
}

// readConfig reads a configuration file: a YAML mapping whose keys are among flags, each with a value or a list of values.
// Whatever else it holds is an error, so that a misspelt key never passes for a default.
func readConfig(path string, flags []string) (map[string]fileValue, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, wrongUsage("--config", err.Error(), "name a YAML file that can be read")
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, wrongUsage(path, err.Error(), "write one \"flag: value\" a line, for example \"public-url: https://mail.example.com\"")
	}
	found := map[string]fileValue{}
	if len(doc.Content) == 0 {
		return found, nil // an empty file
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, wrongUsage(fmt.Sprintf("%s:%d", path, top.Line), "it is not a mapping", "write one \"flag: value\" a line")
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		where := fmt.Sprintf("%s:%d: %s", path, key.Line, clip(key.Value))
		if !slices.Contains(flags, key.Value) {
			remedy := "keys are the flags of \"optout serve\", without --"
			if near := nearest(key.Value, flags); near != "" {
				remedy = "did you mean \"" + near + "\"? " + remedy
			}
			return nil, wrongUsage(where, "unknown key", remedy)
		}
		if _, twice := found[key.Value]; twice {
			return nil, wrongUsage(where, "it stands there twice", "keep one")
		}
		v := fileValue{where: where}
		items := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			items = value.Content
		}
		for _, n := range items {
			if n.Kind == yaml.AliasNode {
				n = n.Alias
			}
			if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
				return nil, wrongUsage(where, "its value is not a plain one", "give a text, a number or true or false")
			}
			v.values = append(v.values, n.Value)
		}
		found[key.Value] = v
	}
	return found, nil
}
