package wizard

import (
	"fmt"
	"strings"

	"example.com/santui/proto"
	"example.com/santui/tui/view"
)

// checkText writes checks as plain text, for the clipboard.
func checkText(l proto.CheckList) string {
	var b strings.Builder
	for _, c := range l.Checks {
		fmt.Fprintf(&b, "%-7s %-13s %s %s\n", c.Result, c.Code, c.Node, c.Title)
		for _, e := range c.Evidence {
			fmt.Fprintf(&b, "        %s\n", e)
		}
		if c.Blocks() && c.Remedy != "" {
			fmt.Fprintf(&b, "        remedy: %s\n", c.Remedy)
		}
	}
	return b.String()
}

// planText writes the plan's commands, one a line, each under the node it runs on.
func planText(p proto.Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s of %s from %s to %s\n", p.Verb, p.Resource, p.From, p.To)
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "# %d on %s: %s (limit %s)\n%s%s\n", s.Index, s.Node, s.Why, view.Limit(s.Limit), skipMark(s), view.Command(s.Argv))
		if len(s.Undo) > 0 {
			fmt.Fprintf(&b, "# undone by: %s\n", view.Command(s.Undo))
		}
	}
	return b.String()
}

// skipMark keeps a step from being pasted into a shell that is only shown, or that no program does.
func skipMark(s proto.Step) string {
	switch {
	case s.Skip != "":
		return "# skipped, " + s.Skip + ": "
	case s.Internal:
		return "# inside the agent, like: "
	default:
		return ""
	}
}

// stepOutput is what a step said: its programs with their output and exit codes, or the agent's own words.
func stepOutput(s proto.StepStatus) []string {
	out := resultOutput(s.Step.Node, s.Step.Argv, s.Step.Internal, s.Result)
	return append(out, resultOutput(s.Step.Node, s.Step.Undo, s.Step.Internal, s.Undo)...)
}

func resultOutput(node string, argv []string, internal bool, r proto.StepResult) []string {
	if r.State == "" || r.State == proto.StepWaiting {
		return nil
	}
	if r.State == proto.StepSkipped {
		return []string{node + ": not done, " + r.Now + ": " + view.Command(argv)}
	}
	var out []string
	for _, e := range r.Commands {
		out = append(out, e.Node+"$ "+view.Command(e.Argv))
		for _, l := range e.Output {
			out = append(out, "  "+l)
		}
		end := fmt.Sprintf("  exit %d  %s", e.Exit, view.Seconds(e.Seconds))
		if e.Err != "" {
			end += "  " + e.Err
		}
		out = append(out, end)
	}
	if len(r.Commands) == 0 {
		line := node + "$ " + view.Command(argv)
		if internal {
			line += "   (inside the agent)"
		}
		out = append(out, line)
		for _, l := range r.Output {
			out = append(out, "  "+l)
		}
	}
	if r.Err != nil {
		out = append(out, node+": "+r.Err.Text)
		if r.Err.Remedy != "" {
			out = append(out, node+": what can be done: "+r.Err.Remedy)
		}
	}
	if r.Now != "" {
		out = append(out, node+": now "+r.Now)
	}
	return out
}

// opText writes an operation as plain text.
func opText(op proto.Op) string {
	var b strings.Builder
	fmt.Fprintf(&b, "operation %s: %s of %s from %s to %s, by %s: %s\n", op.ID, op.Plan.Verb, op.Plan.Resource, op.Plan.From, op.Plan.To, op.Owner, op.State)
	if op.Outcome != "" {
		fmt.Fprintf(&b, "%s\n", op.Outcome)
	}
	for _, s := range op.Steps {
		fmt.Fprintf(&b, "%-8s %d %s  %s  %s\n", stateWord(op, s), s.Step.Index, s.Step.Node, view.Command(s.Step.Argv), took(s.Result))
		for _, l := range stepOutput(s) {
			fmt.Fprintf(&b, "    %s\n", l)
		}
	}
	return b.String()
}

// reportText writes a report for a ticket.
func reportText(r proto.Report) string {
	op := r.Op
	var b strings.Builder
	b.WriteString(opText(op))
	if t := strings.TrimSpace(outageText(op)); t != "" {
		fmt.Fprintf(&b, "%s\n", t)
	}
	if op.Statement != "" {
		fmt.Fprintf(&b, "%s said of %s: %s\n", op.Owner, op.Plan.From, op.Statement)
	}
	for _, l := range op.AtRisk {
		fmt.Fprintf(&b, "at risk: %s\n", l)
	}
	if len(op.Accepted) > 0 {
		fmt.Fprintf(&b, "accepted by %s: %s\n", op.Owner, strings.Join(op.Accepted, ", "))
	}
	return b.String()
}

// stateWord is where a step stands, its undoing included.
func stateWord(op proto.Op, s proto.StepStatus) string {
	waits := s.Result.State == "" || s.Result.State == proto.StepWaiting
	switch {
	case s.Undo.State == proto.StepFailed:
		return "UNDO!"
	case s.Undo.State != "" && s.Undo.State != proto.StepWaiting:
		return string(s.Undo.State)
	case s.Result.State == proto.StepFailed:
		return "FAILED"
	case waits && op.State.Final():
		return "not run"
	case waits:
		return string(proto.StepWaiting)
	}
	return string(s.Result.State)
}

func took(r proto.StepResult) string {
	if r.State == "" || r.State == proto.StepWaiting || r.State == proto.StepRunning || r.State == proto.StepSkipped {
		return ""
	}
	return view.Seconds(r.Seconds)
}
