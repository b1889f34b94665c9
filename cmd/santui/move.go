package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
	"example.com/santui/tui/clean"
	"github.com/spf13/cobra"
)

func (a *app) checkCmd() *cobra.Command {
	var to, resource, verb string
	cmd := &cobra.Command{
		Use: "check --to NODE", Short: "Every check of a failover (or of another verb), its evidence and remedy", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := a.node(to)
			if err != nil {
				return err
			}
			l, err := call[proto.CheckList](cmd.Context(), n, proto.MethodCheck, proto.CheckRequest{Verb: proto.Verb(verb), Resource: resource, To: to})
			if err != nil {
				return err
			}
			if a.json {
				err = cli.PrintJSON(a.stdout, l)
			} else {
				printChecks(a.stdout, l)
			}
			if err == nil && !l.Ready() {
				err = cli.Exit(cli.ExitVeto, nil)
			}
			return err
		},
	}
	a.jsonFlag(cmd)
	cmd.Flags().StringVar(&to, "to", "", "the node that shall become Primary")
	cmd.Flags().StringVar(&resource, "resource", "", "the resource (default: the only one)")
	cmd.Flags().StringVar(&verb, "verb", string(proto.VerbFailover), "failover, drill, takeover, rejoin or resolve")
	return cmd
}

// node finds the node of the configured pair that a move goes to.
func (a *app) node(name string) (cli.Node, error) {
	if name == "" {
		return cli.Node{}, cli.Usagef("--to NODE is missing")
	}
	p, err := a.loadPair()
	if err != nil {
		return cli.Node{}, err
	}
	return p.Find(name)
}

func printChecks(w io.Writer, l proto.CheckList) {
	l = clean.Value(l) // names of mounts and volume groups are somebody else's text
	_, _ = fmt.Fprintf(w, "%s of %s from %s to %s\n", l.Verb, l.Resource, l.From, l.To)
	for _, c := range l.Checks {
		word := map[proto.CheckResult]string{proto.CheckOK: "ok  ", proto.CheckWarn: "warn", proto.CheckFail: "FAIL", proto.CheckUnknown: "????"}[c.Result]
		first := ""
		if len(c.Evidence) > 0 {
			first = c.Evidence[0]
		}
		_, _ = fmt.Fprintf(w, "%s  %-15s %-48s %s\n", word, c.Code, c.Title, first)
		if c.Result == proto.CheckOK {
			continue
		}
		for _, e := range c.Evidence[min(1, len(c.Evidence)):] {
			_, _ = fmt.Fprintf(w, "%72s%s\n", "", e)
		}
		if c.Remedy != "" {
			_, _ = fmt.Fprintf(w, "%22s> %s\n", "", c.Remedy)
		}
	}
	if l.Ready() {
		_, _ = fmt.Fprintln(w, "ready")
	} else {
		_, _ = fmt.Fprintf(w, "not possible now: %d blocking\n", len(l.Blocking()))
	}
}

// moveFlags are the options of the verbs that are operations.
type moveFlags struct {
	verb                        proto.Verb
	to, resource, confirm, hash string
	statement                   string
	dryRun, keep, step          bool
	noSnapshot                  bool
	patience                    time.Duration
	accept                      []string
}

// register adds the options that all of these verbs have.
func (f *moveFlags) register(a *app, cmd *cobra.Command) {
	a.jsonFlag(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.resource, "resource", "", "the resource (default: the only one)")
	fl.StringVar(&f.confirm, "confirm", "", "the pair's name: the consent")
	fl.StringVar(&f.hash, "plan", "", "run only if the plan still has this hash")
	fl.BoolVar(&f.dryRun, "dry-run", false, "the agents validate every step; nothing is changed")
	fl.StringSliceVar(&f.accept, "accept", nil, "codes of soft vetoes to override, recorded in the report")
	patienceFlag(fl, &f.patience)
	fl.BoolVar(&f.step, "step", false, "ask before every step, and when one fails (on a terminal)")
}

func (a *app) failoverCmd() *cobra.Command {
	f := moveFlags{verb: proto.VerbFailover}
	cmd := &cobra.Command{
		Use: "failover --to NODE", Short: "Move the service to the other node, planned", Args: cobra.NoArgs,
		Long: "Unmounts, deactivates and demotes on the Primary, then promotes, activates and mounts on NODE.\n" +
			"Without --confirm PAIR it shows the plan and asks for the pair's name; without a terminal it refuses.\n" +
			"When a step fails, what was done is undone (exit code 6), or with --keep left as it is (exit code 7).",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.move(cmd.Context(), f) },
	}
	f.register(a, cmd)
	cmd.Flags().StringVar(&f.to, "to", "", "the node that shall become Primary")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "when a step fails, leave things as they are")
	return cmd
}

// move starts an operation and follows it to its end.
func (a *app) move(ctx context.Context, f moveFlags) error {
	n, err := a.node(f.to)
	if err != nil {
		return err
	}
	req := proto.OpStartRequest{
		RequestID: requestID(), Verb: f.verb, Resource: f.resource, To: f.to, Confirm: f.confirm, PlanHash: f.hash,
		Statement: f.statement, DryRun: f.dryRun, OnFailure: proto.ChoiceUndo, Accept: f.accept, Owner: owner(), NoSnapshot: f.noSnapshot,
	}
	if f.keep {
		req.OnFailure = proto.ChoiceKeep
	}
	var ask *asker
	if f.step && !f.dryRun {
		in, ok := a.terminal()
		if !ok {
			return cli.Usagef("--step asks before every step: it needs a terminal, and no --json")
		}
		ask = newAsker(in, a.stdout)
		req.StepByStep, req.OnFailure = true, ""
	}
	if f.confirm == "" && !f.dryRun && f.verb != proto.VerbRejoin {
		if req.Confirm, req.PlanHash, err = a.confirm(ctx, n, f, ask); err != nil {
			return err
		}
	}
	o, err := a.start(ctx, n, req, f.patience)
	if err != nil {
		return err
	}
	if f.dryRun && !a.json {
		printPlan(a.stdout, o.Plan)
	}
	if !f.dryRun {
		if !a.json {
			_, _ = fmt.Fprintf(a.stdout, "operation %s: %s of %s from %s to %s\n", o.ID, o.Plan.Verb, o.Plan.Resource, o.Plan.From, o.Plan.To)
			if f.verb == proto.VerbRejoin { // the one that nobody had to confirm
				printWarnings(a.stdout, o.Checks)
			}
		}
		if o, err = a.followOp(ctx, n, o.ID, ask, f.patience); err != nil {
			return err
		}
	}
	return a.opEnd(o)
}

func requestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails; see crypto/rand
	return hex.EncodeToString(b[:])
}

// confirm shows the plan and asks for the pair's name. Without a terminal nobody can be asked.
func (a *app) confirm(ctx context.Context, n cli.Node, f moveFlags, ask *asker) (typed, hash string, err error) {
	in, ok := a.terminal()
	if !ok {
		return "", "", proto.Errorf(proto.CodeNotConfirmed, "the %s to %s is not confirmed", f.verb, f.to).
			WithRemedy("--confirm with the pair's name is the consent; --dry-run changes nothing")
	}
	reply, err := call[proto.PlanReply](ctx, n, proto.MethodPlan, proto.CheckRequest{Verb: f.verb, Resource: f.resource, To: f.to, NoSnapshot: f.noSnapshot})
	if err != nil {
		return "", "", err
	}
	if f.verb != proto.VerbFailover {
		printWarnings(a.stdout, reply.Checks)
	}
	printPlan(a.stdout, reply.Plan)
	_, _ = fmt.Fprintf(a.stdout, "\nType the pair's name, %s, to start: ", reply.Plan.Pair)
	if ask == nil {
		ask = newAsker(in, a.stdout)
	}
	select {
	case typed = <-ask.lines:
	case <-ctx.Done():
	}
	if typed = strings.TrimSpace(typed); typed == "" {
		return "", "", proto.Errorf(proto.CodeNotConfirmed, "nothing was typed; nothing was done")
	}
	return typed, reply.Hash, nil
}

func printPlan(w io.Writer, p proto.Plan) {
	p = clean.Value(p) // names of mounts and volume groups are somebody else's text
	for _, s := range p.Steps {
		limit := fmt.Sprintf("limit %3.0f s", s.Limit)
		if s.Skip != "" {
			limit = "skipped: " + s.Skip
		}
		_, _ = fmt.Fprintf(w, "%2d  %-10s %-52s %s\n", s.Index, s.Node, shown(s), limit)
	}
	for _, e := range p.Effect {
		_, _ = fmt.Fprintln(w, "    "+e)
	}
}

// printSteps prints each step's end once.
func (a *app) printSteps(o proto.Op, printed map[string]bool) {
	o = clean.Value(o) // names of mounts and volume groups are somebody else's text
	line := func(prefix string, s proto.Step, r proto.StepResult) {
		key := prefix + string(s.Kind) + fmt.Sprint(s.Index) + string(r.State) + r.Started.String()
		if printed[key] {
			return
		}
		printed[key] = true
		argv := s
		if prefix != "" {
			argv.Argv = s.Undo
		}
		_, _ = fmt.Fprintf(a.stdout, "%s%-8s %2d  %-10s %-52s %5.1f s\n", prefix, r.State, s.Index, s.Node, shown(argv), r.Seconds)
		if r.Err != nil {
			_, _ = fmt.Fprintf(a.stdout, "         %v\n", r.Err)
		}
		for _, found := range r.Output {
			_, _ = fmt.Fprintf(a.stdout, "         ! %s\n", found)
		}
	}
	for _, s := range o.Steps {
		switch s.Result.State {
		case proto.StepDone, proto.StepAlready, proto.StepFailed, proto.StepSkipped:
			line("", s.Step, s.Result)
		default:
		}
		switch s.Undo.State {
		case proto.StepUndone, proto.StepFailed:
			line("undo ", s.Step, s.Undo)
		default:
		}
	}
}

// opEnd prints the outcome and maps it to the exit code.
func (a *app) opEnd(o proto.Op) error {
	var err error
	if a.json {
		err = cli.PrintJSON(a.stdout, o)
	} else {
		_, err = fmt.Fprintf(a.stdout, "%s: %s%s\n", o.State, o.Outcome, away(o))
	}
	if err != nil {
		return err
	}
	if (o.State == proto.OpOrphaned || o.State == proto.OpKept) && !a.json {
		_, _ = fmt.Fprintln(a.stdout, "  "+whatNow(o))
	}
	switch o.State {
	case proto.OpDone:
		return nil
	case proto.OpUndone:
		return cli.Exit(cli.ExitUndone, nil)
	case proto.OpAborted:
		return cli.Exit(cli.ExitVeto, nil)
	default:
		return cli.Exit(cli.ExitAttention, nil)
	}
}

func (a *app) opsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ops", Short: "Operations that the agents remember, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ops, err := a.allOps(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return cli.PrintJSON(a.stdout, ops)
			}
			for _, o := range ops.Ops {
				_, _ = fmt.Fprintf(a.stdout, "%s  %s  %-9s %s %s > %s  %5.1f s  %s\n", o.ID, o.Started.Local().Format(time.DateTime), o.State, o.Plan.Verb, o.Plan.From, o.Plan.To, o.Outage, o.Outcome)
			}
			return nil
		},
	}
	a.jsonFlag(cmd)
	return cmd
}

// allOps takes the list from the first agent that answers: both journals hold every operation.
func (a *app) allOps(ctx context.Context) (proto.OpsReply, error) {
	p, err := a.loadPair()
	if err != nil {
		return proto.OpsReply{}, err
	}
	var errs []error
	for _, n := range p.Node {
		ops, err := call[proto.OpsReply](ctx, n, proto.MethodOps, nil)
		if err == nil {
			return ops, nil
		}
		errs = append(errs, err)
	}
	return proto.OpsReply{}, errors.Join(errs...)
}

// whereOp finds the operation and an agent that knows it, the one that ran it if it answers.
func (a *app) whereOp(ctx context.Context, id string) (cli.Node, proto.Report, error) {
	p, err := a.loadPair()
	if err != nil {
		return cli.Node{}, proto.Report{}, err
	}
	var at cli.Node
	var best proto.Report
	var errs []error
	for _, n := range p.Node {
		r, err := call[proto.Report](ctx, n, proto.MethodReport, proto.OpRequest{ID: id})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if best.Op.ID == "" || r.Op.Rev > best.Op.Rev || r.Op.Runner == n.Name {
			at, best = n, r
		}
	}
	if best.Op.ID == "" {
		return at, best, errors.Join(errs...)
	}
	return at, best, nil
}

func (a *app) attachCmd() *cobra.Command {
	var patience time.Duration
	cmd := &cobra.Command{
		Use: "attach OP", Short: "Follow an operation until it ends; on a terminal, decide where it waits", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, r, err := a.whereOp(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !r.Op.State.Final() && n.Name != r.Op.Runner {
				e := proto.Errorf(proto.CodeUnreachable, "the agent of %s, which runs %s, does not answer; %s last heard: %s", r.Op.Runner, args[0], n.Name, last(r.Op))
				return e.WithRemedy("when it is back, its journal says how far it came; if the node is gone: santui takeover")
			}
			var ask *asker
			if in, ok := a.terminal(); ok {
				ask = newAsker(in, a.stdout)
			}
			o, err := a.followOp(cmd.Context(), n, args[0], ask, patience)
			if err != nil {
				return err
			}
			return a.opEnd(o)
		},
	}
	a.jsonFlag(cmd)
	patienceFlag(cmd.Flags(), &patience)
	return cmd
}
