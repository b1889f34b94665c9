package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/cmd/internal/report"
	"example.com/santui/proto"
)

// asJSON is the format that the report package does not write: the agents' own values.
const asJSON = "json"

func (a *app) reportCmd() *cobra.Command {
	formats := []string{report.Text, asJSON, report.Markdown, report.HTML}
	format := report.Text
	cmd := &cobra.Command{
		Use: "report [OP]", Short: "What an operation did, step by step; without OP, the history and its trend", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case !slices.Contains(formats, format):
				return cli.Usagef("there is no format %q (there are %s)", format, strings.Join(formats, ", "))
			case a.json && format != report.Text && format != asJSON:
				return cli.Usagef("--json and --format %s contradict each other", format)
			case format == asJSON:
				a.json = true
			}
			if len(args) == 0 {
				return a.history(cmd.Context(), format)
			}
			_, r, err := a.whereOp(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.json {
				return cli.PrintJSON(a.stdout, r)
			}
			return report.Operation(r, time.Local).Write(a.stdout, format)
		},
	}
	cmd.Flags().StringVar(&format, "format", format, strings.Join(formats, ", ")+"; html is one file with the timeline drawn")
	a.jsonFlag(cmd)
	return cmd
}

// history shows what the agents remember, and how the outages developed.
func (a *app) history(ctx context.Context, format string) error {
	p, err := a.loadPair()
	if err != nil {
		return err
	}
	ops, err := a.allOps(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return cli.PrintJSON(a.stdout, map[string]any{"schema": proto.Schema, "ops": ops.Ops, "trends": report.Trends(ops.Ops)})
	}
	return report.History(p.Name, ops.Ops, time.Local).Write(a.stdout, format)
}

func (a *app) commandsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "commands OP", Short: "Every program that an operation ran", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, r, err := a.whereOp(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.json {
				all := []proto.Execution{}
				for _, s := range r.Op.Steps {
					all = append(append(all, s.Result.Commands...), s.Undo.Commands...)
				}
				return cli.PrintJSON(a.stdout, map[string]any{"schema": proto.Schema, "commands": all})
			}
			for _, l := range report.Commands(r.Op, time.Local) {
				_, _ = fmt.Fprintln(a.stdout, l)
			}
			return nil
		},
	}
	a.jsonFlag(cmd)
	return cmd
}
