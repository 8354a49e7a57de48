// Reads deployment files as the programs that will use them do, strictly, and prints what it read as JSON.
//
//	deploycheck compose FILE     Docker Compose's own loader (schema, variables, merges, dependencies)
//	deploycheck dockerfile FILE  BuildKit's parser and its lint rules; prints {"warnings": [...], "stages": n}
//	deploycheck dashboard FILE   Grafana's dashboard types, no unknown field allowed
//	deploycheck alerts FILE      Grafana's alert rule types, for each rule of a provisioning file (as JSON)
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/grafana/grafana-foundation-sdk/go/alerting"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func main() {
	if len(os.Args) != 3 {
		fail(errors.New("usage: deploycheck compose|dockerfile|dashboard|alerts FILE"))
	}
	checks := map[string]func(string) (any, error){
		"compose": compose, "dockerfile": dockerfile, "dashboard": dashboards, "alerts": alerts,
	}
	check, known := checks[os.Args[1]]
	if !known {
		fail(fmt.Errorf("unknown check %q", os.Args[1]))
	}
	answer, err := check(os.Args[2])
	if err != nil {
		fail(err)
	}
	text, err := json.Marshal(answer)
	if err != nil {
		fail(err)
	}
	fmt.Println(string(text))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func compose(path string) (any, error) {
	options, err := cli.NewProjectOptions([]string{path}, cli.WithOsEnv, cli.WithResolvedPaths(true))
	if err != nil {
		return nil, err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return nil, err
	}
	text, err := project.MarshalJSON()
	return json.RawMessage(text), err
}

func dockerfile(path string) (any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	warnings := []string{}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	for _, warning := range parsed.Warnings {
		warnings = append(warnings, warning.Short)
	}
	lint := linter.New(&linter.Config{
		Warn: func(rule, _, _, message string, _ []parser.Range) { warnings = append(warnings, rule+": "+message) },
	})
	stages, _, err := instructions.Parse(parsed.AST, lint)
	return map[string]any{"warnings": warnings, "stages": len(stages)}, err
}

// found turns the SDK's list of mistakes, which is never nil, into an error or none.
func found(err error) error {
	var mistakes cog.BuildErrors
	if errors.As(err, &mistakes) && len(mistakes) == 0 {
		return nil
	}
	return err
}

func dashboards(path string) (any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	plugins.RegisterDefaultPlugins()
	board := dashboard.Dashboard{}
	if err := found(board.UnmarshalJSONStrict(text)); err != nil {
		return nil, err
	}
	return map[string]any{"panels": len(board.Panels)}, found(board.Validate())
}

func alerts(path string) (any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Groups []struct {
			Name  string
			OrgID int64 `json:"orgId"`
			Rules []map[string]any
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, err
	}
	read := 0
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			// A file says these once for its group; the API's type wants them in every rule.
			rule["folderUID"], rule["ruleGroup"], rule["orgID"] = "perfstream", group.Name, group.OrgID
			text, err := json.Marshal(rule)
			if err != nil {
				return nil, err
			}
			typed := alerting.Rule{}
			if err := found(typed.UnmarshalJSONStrict(text)); err != nil {
				return nil, fmt.Errorf("%v: %w", rule["title"], err)
			}
			if err := found(typed.Validate()); err != nil {
				return nil, fmt.Errorf("%v: %w", rule["title"], err)
			}
			read++
		}
	}
	return map[string]any{"rules": read}, nil
}
