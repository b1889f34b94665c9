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
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				for _, c := range proto.AllCodes() {
					_, _ = fmt.Fprintf(a.stdout, "%-15s %s\n", c.Name, c.Title)
				}
				return nil
			}
			c, ok := proto.CodeOf(strings.ToUpper(args[0]))
			if !ok {
				return cli.Usagef("there is no check %q; `santui explain` lists them", args[0])
			}
			kind := "a soft veto: --accept " + c.Name + " overrides it, and the report says so"
			if c.Hard {
				kind = "a hard veto: nothing overrides it"
			}
			_, err := fmt.Fprintf(a.stdout, "%s: %s\n\nWhen it fails: %s\nWhat to do:    %s\nKind:          %s\n", c.Name, c.Title, c.Why, c.Remedy, kind)
			return err
		},
	}
	return cmd
}

func (a *app) configCmd() *cobra.Command {
	config := &cobra.Command{Use: "config", Short: "The cockpit's configuration: path, check"}
	config.AddCommand(&cobra.Command{
		Use: "path", Short: "Where it is", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			path, err := cli.ConfigPath(a.config)
			if err == nil {
				_, err = fmt.Fprintln(a.stdout, path)
			}
			return err
		},
	}, &cobra.Command{
		Use: "check", Short: "Read it and name the pairs", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			path, err := cli.ConfigPath(a.config)
			if err != nil {
				return err
			}
			pairs, err := cli.LoadPairs(path)
			if err != nil {
				return err
			}
			for _, p := range pairs.Pair {
				_, _ = fmt.Fprintf(a.stdout, "%s: %s and %s\n", p.Name, p.Node[0].Name, p.Node[1].Name)
			}
			return nil
		},
	})
	return config
}
