package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
	"example.com/santui/tui/clean"
)

func (a *app) drillCmd() *cobra.Command {
	f := moveFlags{verb: proto.VerbDrill}
	cmd := &cobra.Command{
		Use: "drill --to NODE", Short: "Move the service to NODE and back, and prove that the data came along", Args: cobra.NoArgs,
		Long: "Writes files of random bytes, moves the service to NODE, verifies them there, writes more, moves it back and\n" +
			"verifies all. The report says how long the service and the storage were away. --confirm PAIR is the consent.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.move(cmd.Context(), f) },
	}
	f.register(a, cmd)
	cmd.Flags().StringVar(&f.to, "to", "", "the node that shall be Primary for a while")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "when a step fails, leave things as they are")
	return cmd
}

func (a *app) takeoverCmd() *cobra.Command {
	f := moveFlags{verb: proto.VerbTakeover, keep: true}
	cmd := &cobra.Command{
		Use: "takeover --to NODE --peer-is-off TEXT", Short: "The other node is gone: make NODE Primary without it", Args: cobra.NoArgs,
		Long: "Only when the other node has been silent on both links for 30 s and NODE's copy is UpToDate. Mounts on NODE what the\n" +
			"other node was last seen to have. If the other node still writes, the data forks: --peer-is-off says how you know that\n" +
			"it is off, and is recorded. --confirm PAIR is the consent. When a step fails, things are left as they are (exit code 7).",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.move(cmd.Context(), f) },
	}
	f.register(a, cmd)
	cmd.Flags().StringVar(&f.to, "to", "", "the node that shall become Primary")
	cmd.Flags().StringVar(&f.statement, "peer-is-off", "", "how you know that the other node is off")
	return cmd
}

func (a *app) rejoinCmd() *cobra.Command {
	f := moveFlags{verb: proto.VerbRejoin, keep: true}
	cmd := &cobra.Command{
		Use: "rejoin [--to NODE]", Short: "After a takeover: connect the node that came back and let it follow", Args: cobra.NoArgs,
		Long: "Connects both nodes and waits until they replicate. Usually the nodes do this by themselves and there is nothing to do.\n" +
			"If both have changed the data, it says so: santui resolve.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.to == "" {
				to, err := a.survivor(cmd.Context())
				if err != nil {
					return err
				}
				f.to = to
			}
			return a.move(cmd.Context(), f)
		},
	}
	f.register(a, cmd)
	cmd.Flags().StringVar(&f.to, "to", "", "the node whose data stays (default: the one that took over, or is Primary)")
	return cmd
}

// survivor is the node that a returning one follows.
func (a *app) survivor(ctx context.Context) (string, error) {
	p, err := a.loadPair()
	if err != nil {
		return "", err
	}
	st := ask(ctx, p)
	for _, fits := range []func(proto.Resource) bool{
		func(r proto.Resource) bool { return r.NeedsRejoin != "" },
		func(r proto.Resource) bool { return r.Role == proto.Primary },
	} {
		for _, n := range st.Nodes {
			if n.Snapshot == nil {
				continue
			}
			for _, r := range n.Snapshot.Resources {
				if fits(r) {
					return n.Node, nil
				}
			}
		}
	}
	if err := st.silent(); err != nil {
		return "", err
	}
	return "", cli.Usagef("neither node is Primary or has taken over: name the node whose data stays with --to NODE")
}

func (a *app) resolveCmd() *cobra.Command {
	f := moveFlags{verb: proto.VerbResolve, keep: true}
	var discard string
	cmd := &cobra.Command{
		Use: "resolve --discard NODE", Short: "Split brain: give the changes of NODE up", Args: cobra.NoArgs,
		Long: "NODE is taken down if it is Primary, connects as the one that loses, and is resynchronised from the other node. What only\n" +
			"NODE has is overwritten; this cannot be undone. If NODE's backing disk is a logical volume whose group has room, a snapshot\n" +
			"keeps it until you remove it. --dry-run and `santui check --verb resolve` show both sides next to each other. --confirm PAIR\n" +
			"is the consent.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if discard == "" {
				return cli.Usagef("--discard NODE is missing: whose changes are to be lost?")
			}
			p, err := a.loadPair()
			if err != nil {
				return err
			}
			if _, err := p.Find(discard); err != nil {
				return err
			}
			for _, n := range p.Node {
				if n.Name != discard {
					f.to = n.Name
				}
			}
			return a.move(cmd.Context(), f)
		},
	}
	f.register(a, cmd)
	cmd.Flags().BoolVar(&f.noSnapshot, "no-snapshot", false, "make no snapshot of what is lost")
	cmd.Flags().StringVar(&discard, "discard", "", "the node whose changes are lost")
	return cmd
}

func (a *app) undoCmd() *cobra.Command {
	var confirm string
	var patience time.Duration
	cmd := &cobra.Command{
		Use: "undo OP", Short: "Undo an operation that its agent's death, or a decision, left half way", Args: cobra.ExactArgs(1),
		Long: "Runs the inverse of every step that was done, newest first. --confirm PAIR is the consent.",
		RunE: func(cmd *cobra.Command, args []string) error {
			_, r, err := a.whereOp(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			n, err := a.node(r.Op.Runner)
			if err != nil {
				return err
			}
			d := proto.DecideRequest{ID: args[0], Choice: proto.ChoiceUndo, Confirm: confirm, By: owner()}
			if err := a.beginUndo(cmd.Context(), n, d, patience); err != nil {
				return err
			}
			o, err := a.followOp(cmd.Context(), n, args[0], nil, patience)
			if err != nil {
				return err
			}
			if err := a.opEnd(o); o.State != proto.OpUndone {
				return err
			}
			return nil
		},
	}
	a.jsonFlag(cmd)
	cmd.Flags().StringVar(&confirm, "confirm", "", "the pair's name: the consent")
	patienceFlag(cmd.Flags(), &patience)
	return cmd
}

// printWarnings shows what holds but must be known before a verb is confirmed.
func printWarnings(w io.Writer, l proto.CheckList) {
	for _, c := range clean.Value(l).Checks { // names of mounts and volume groups are somebody else's text
		if c.Result == proto.CheckOK {
			continue
		}
		for _, e := range c.Evidence {
			_, _ = fmt.Fprintf(w, "%-13s %s\n", c.Code, e)
		}
	}
}

// away words the outages of an operation.
func away(o proto.Op) string {
	if o.Plan.Verb == proto.VerbTakeover { // the service had been away before anybody asked
		if o.State != proto.OpDone || o.Outage == 0 {
			return ""
		}
		return fmt.Sprintf(" (service up %.1f s after the start)", o.Outage)
	}
	if len(o.Outages) == 0 {
		if o.Outage == 0 {
			return ""
		}
		return fmt.Sprintf(" (service away %.1f s)", o.Outage)
	}
	var parts []string
	for _, x := range o.Outages {
		text := fmt.Sprintf("service away %.1f s", x.Service)
		if x.Storage > 0 {
			text += fmt.Sprintf(", storage %.2f s", x.Storage)
		}
		if len(o.Outages) > 1 {
			text += " to " + x.To
		}
		parts = append(parts, text)
	}
	return " (" + strings.Join(parts, "; ") + ")"
}

// whatNow says what an operator can do about an operation that did not come to its end.
func whatNow(o proto.Op) string {
	switch o.Plan.Verb {
	case proto.VerbResolve, proto.VerbRejoin:
		return fmt.Sprintf("santui %s again completes it", o.Plan.Verb)
	case proto.VerbTakeover:
		return fmt.Sprintf("santui takeover --to %s carries on, santui undo %s goes back", o.Plan.To, o.ID)
	default:
		return fmt.Sprintf("santui failover --to %s carries on, santui undo %s goes back", o.Plan.To, o.ID)
	}
}

// last names the step that an operation came to.
func last(o proto.Op) string {
	text := "no step had begun"
	for _, s := range o.Steps {
		if s.Result.State != proto.StepWaiting && s.Result.State != "" {
			text = fmt.Sprintf("step %d (%s on %s) was %s", s.Step.Index, s.Step.Kind, s.Step.Node, s.Result.State)
		}
	}
	return text
}
