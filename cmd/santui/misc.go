package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
)

func (a *app) explainCmd() *cobra.Command {
	names := make([]string, len(proto.AllCodes()))
	for i, c := range proto.AllCodes() {
		names[i] = c.Name
	}
	cmd := &cobra.Command{
		Use: "explain [CODE]", Short: "What a check means and what to do about it", Args: cobra.MaximumNArgs(1), ValidArgs: names,
		Long: "--json prints {schema, codes: [{code, title, hard, why, remedy}]}: all of them, or the one that is named.",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				if a.json {
					return a.printCodes(proto.AllCodes()...)
				}
				for _, c := range proto.AllCodes() {
					_, _ = fmt.Fprintf(a.stdout, "%-15s %s\n", c.Name, c.Title)
				}
				return nil
			}
			c, ok := proto.CodeOf(strings.ToUpper(args[0]))
			if !ok {
				return cli.Usagef("there is no check %q; `santui explain` lists them", args[0])
			}
			if a.json {
				return a.printCodes(c)
			}
			kind := "a soft veto: --accept " + c.Name + " overrides it, and the report says so"
			if c.Hard {
				kind = "a hard veto: nothing overrides it"
			}
			_, err := fmt.Fprintf(a.stdout, "%s: %s\n\nWhen it fails: %s\nWhat to do:    %s\nKind:          %s\n", c.Name, c.Title, c.Why, c.Remedy, kind)
			return err
		},
	}
	a.jsonFlag(cmd)
	return cmd
}

// printCodes is the document of `santui explain --json`.
func (a *app) printCodes(codes ...proto.Code) error {
	type code struct {
		Code   string `json:"code"`
		Title  string `json:"title"`
		Hard   bool   `json:"hard"`
		Why    string `json:"why"`
		Remedy string `json:"remedy"`
	}
	doc := struct {
		Schema string `json:"schema"`
		Codes  []code `json:"codes"`
	}{Schema: proto.Schema}
	for _, c := range codes {
		doc.Codes = append(doc.Codes, code{c.Name, c.Title, c.Hard, c.Why, c.Remedy})
	}
	return cli.PrintJSON(a.stdout, doc)
}

func (a *app) configCmd() *cobra.Command {
	config := &cobra.Command{Use: "config", Short: "The cockpit's configuration: path, check"}
	path := &cobra.Command{
		Use: "path", Short: "Where it is", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			path, err := cli.ConfigPath(a.config)
			if err == nil && a.json {
				return cli.PrintJSON(a.stdout, configDoc{Schema: proto.Schema, Path: path})
			}
			if err == nil {
				_, err = fmt.Fprintln(a.stdout, path)
			}
			return err
		},
	}
	check := &cobra.Command{
		Use: "check", Short: "Read it and name the pairs", Args: cobra.NoArgs,
		Long: "--json prints {schema, path, pairs: [{name, nodes: [NAME, NAME]}]}.",
		RunE: func(*cobra.Command, []string) error {
			path, err := cli.ConfigPath(a.config)
			if err != nil {
				return err
			}
			pairs, err := cli.LoadPairs(path)
			if err != nil {
				return err
			}
			doc := configDoc{Schema: proto.Schema, Path: path, Pairs: []configPair{}}
			for _, p := range pairs.Pair {
				doc.Pairs = append(doc.Pairs, configPair{p.Name, []string{p.Node[0].Name, p.Node[1].Name}})
			}
			if a.json {
				return cli.PrintJSON(a.stdout, doc)
			}
			for _, p := range pairs.Pair {
				_, _ = fmt.Fprintf(a.stdout, "%s: %s and %s\n", p.Name, p.Node[0].Name, p.Node[1].Name)
			}
			return nil
		},
	}
	for _, cmd := range []*cobra.Command{path, check} {
		a.jsonFlag(cmd)
		config.AddCommand(cmd)
	}
	return config
}

// configDoc is the document of `santui config`; path leaves the pairs out.
type configDoc struct {
	Schema string       `json:"schema"`
	Path   string       `json:"path"`
	Pairs  []configPair `json:"pairs,omitempty"`
}

type configPair struct {
	Name  string   `json:"name"`
	Nodes []string `json:"nodes"`
}
