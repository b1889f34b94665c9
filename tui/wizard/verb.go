package wizard

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/view"
)

// VerbUndo is the wizard's way back for an operation that does not run any more. To the agents it is a decision about
// that operation, not an operation of its own.
const VerbUndo proto.Verb = "undo"

// NewUndo begins on page 1 for an operation that was left half way.
func NewUndo(o Options, op proto.Op) (*Model, []Request) {
	m := &Model{o: o, verb: VerbUndo, resource: op.Plan.Resource, from: op.Plan.From, to: op.Plan.To, undoing: &op, choice: -1, ticks: map[string]bool{}, follow: true}
	return m, m.load()
}

// NewSetup begins on page 1 for a set-up on the agent of to, the Primary; from is the other node.
func NewSetup(o Options, from, to string, req proto.SetupRequest) (*Model, []Request) {
	m := &Model{o: o, verb: proto.VerbSetup, resource: req.Resource, from: from, to: to, setup: &req, choice: -1, ticks: map[string]bool{}, follow: true}
	return m, m.load()
}

// SetupBegan is the first state of a set-up that was asked for. The stream that brought it brings the others.
func (m *Model) SetupBegan(op proto.Op, now time.Time) []Request {
	if !m.starting {
		return nil
	}
	m.starting = false
	m.toPage(Run)
	return m.See(op, now)
}

// LoadedOp is the answer to LoadOp: the operation as its agent's journal has it.
func (m *Model) LoadedOp(gen int, op proto.Op, err error, now time.Time) {
	if gen != m.gen {
		return
	}
	if err == nil {
		m.undoing = &op
	}
	m.Loaded(gen, undoReply(*m.undoing, now), err, now)
}

// undoReply makes checks and plan of undoing an operation out of its journal: the inverses of what was begun, newest
// first. The agent judges again whether that is still possible.
func undoReply(op proto.Op, now time.Time) proto.PlanReply {
	p := op.Plan
	p.At, p.Verb, p.Steps = now, VerbUndo, nil
	for _, s := range slices.Backward(op.Steps) {
		if s.Step.UndoKind == "" || s.Step.Skip != "" {
			continue
		}
		switch s.Result.State {
		case "", proto.StepWaiting, proto.StepSkipped, proto.StepAlready:
			continue
		default:
		}
		p.Steps = append(p.Steps, proto.Step{Index: len(p.Steps) + 1, Kind: s.Step.UndoKind, Node: s.Step.Node, Resource: s.Step.Resource, Argv: s.Step.Undo,
			Internal: s.Step.Internal, Limit: s.Step.Limit, Why: fmt.Sprintf("undoes step %d: %s", s.Step.Index, view.Command(s.Step.Argv))})
	}
	p.Effect = []string{fmt.Sprintf("What the %s of %s did is taken back, newest first, as far as it came.", op.Plan.Verb, op.Started.Local().Format(time.DateTime)),
		"A step that finds nothing to take back does nothing."}
	if len(p.Steps) == 0 {
		p.Effect = append(p.Effect, "No step of it had an effect: only the operation is brought to its end.")
	}
	code, _ := proto.CodeOf(proto.CheckUnfinished)
	left := proto.Check{Code: code.Name, Node: op.Runner, Result: proto.CheckWarn, Title: code.Title,
		Evidence: []string{fmt.Sprintf("%s %s: %s", op.ID, op.State, op.Outcome)}, Remedy: "this undo, or the same verb again"}
	if op.State != proto.OpOrphaned && op.State != proto.OpKept {
		left.Result, left.Hard, left.Remedy = proto.CheckFail, true, "nothing is left to undo"
		left.Title = "the operation was left half way"
	}
	agents := proto.Check{Code: proto.CheckAgents, Node: op.Runner, Result: proto.CheckOK, Hard: true, Title: "the agent that ran it answers"}
	return proto.PlanReply{Plan: p, Hash: p.Hash(), Checks: proto.CheckList{Schema: proto.Schema, Verb: VerbUndo, Resource: p.Resource, From: p.From, To: p.To,
		At: now, Checks: []proto.Check{agents, left}}}
}

// phrase is what is typed on the third page. What may fork or lose data takes more than the pair's name.
func (m *Model) phrase() string {
	switch m.verb {
	case proto.VerbTakeover:
		return m.pairName() + " FORCE"
	case proto.VerbResolve:
		return m.pairName() + " DISCARD " + m.from
	default:
		return m.pairName()
	}
}

// confirmed is the consent that the agent wants, "" unless the phrase is typed.
func (m *Model) confirmed() string {
	if strings.TrimRight(m.typed, " ") != m.phrase() {
		return ""
	}
	return m.pairName()
}

// question is the title of the third page.
func (m *Model) question() string {
	switch m.verb {
	case proto.VerbDrill:
		return "move the service to " + m.to + " and back?"
	case proto.VerbTakeover:
		return "make " + m.to + " the Primary WITHOUT " + m.from + "?"
	case proto.VerbResolve:
		return "give up what only " + m.from + " has?"
	case proto.VerbRejoin:
		return "let " + m.from + " follow " + m.to + "?"
	case proto.VerbSetup:
		return "write to " + m.resource + ", on both nodes?"
	case VerbUndo:
		return "undo " + string(m.undoing.Plan.Verb) + " " + m.undoing.ID + "?"
	default:
		return "make " + m.to + " the Primary?"
	}
}

// changes says, a line a node, what becomes of it.
func (m *Model) changes() [][2]string {
	switch m.verb {
	case proto.VerbDrill:
		return [][2]string{{m.from, "Primary   > Secondary > Primary"}, {m.to, "Secondary > Primary   > Secondary"}}
	case proto.VerbTakeover:
		return [][2]string{{m.from, "does not answer: must be OFF"}, {m.to, "Secondary > Primary"}}
	case proto.VerbResolve:
		return [][2]string{{m.to, "stays: its copy is the good one"}, {m.from, "its changes are LOST, then it follows"}}
	case proto.VerbRejoin:
		return [][2]string{{m.to, "stays as it is"}, {m.from, "follows, older blocks are overwritten"}}
	case proto.VerbSetup:
		mount := "not mounted"
		if m.setup.Mount != "" {
			mount = "mounted on " + m.setup.Mount
		}
		return [][2]string{{m.to, fmt.Sprintf("gets %s/%s, %s, %s", m.setup.VG, m.setup.LV, m.setup.FSType, mount)}, {m.from, "gets the same blocks"}}
	case VerbUndo:
		return nil
	default:
		return [][2]string{{m.from, "Primary   > Secondary"}, {m.to, "Secondary > Primary"}}
	}
}

// risks are the words of the checks that say what may be lost; where there are none, the plan's effect.
func (m *Model) risks() []string {
	for _, c := range m.reply.Checks.Checks {
		if (c.Code == proto.CheckDataRisk || c.Code == proto.CheckDiscard) && len(c.Evidence) > 0 {
			return c.Evidence
		}
	}
	n := 1
	if m.verb == VerbUndo {
		n = len(m.reply.Plan.Effect)
	}
	return m.reply.Plan.Effect[:min(n, len(m.reply.Plan.Effect))]
}

// sides are both sides of a split brain next to each other, as the agents describe them.
func (m *Model) sides() []string {
	if m.verb != proto.VerbResolve || m.reply == nil {
		return nil
	}
	for _, c := range m.reply.Checks.Checks {
		if c.Code == proto.CheckDiscard {
			return c.Evidence
		}
	}
	return nil
}

// shell is the same on the command line.
func (m *Model) shell() string {
	pair := m.pairName()
	switch m.verb {
	case proto.VerbTakeover:
		return "santui takeover --to " + m.to + " --confirm " + pair + " --peer-is-off \"...\""
	case proto.VerbResolve:
		return "santui resolve --discard " + m.from + " --confirm " + pair
	case proto.VerbRejoin:
		return "santui rejoin --to " + m.to
	case proto.VerbSetup:
		return m.setupShell()
	case VerbUndo:
		return "santui undo " + m.undoing.ID + " --confirm " + pair
	default:
		return "santui " + string(m.verb) + " --to " + m.to + " --confirm " + pair
	}
}

func (m *Model) setupShell() string {
	argv := []string{"santui", "setup", "--vg", m.setup.VG, "--lv", m.setup.LV, "--fs", m.setup.FSType}
	if m.setup.Size > 0 {
		argv = append(argv, "--size", fmt.Sprint(m.setup.Size))
	}
	if m.setup.Mount != "" {
		argv = append(argv, "--mount", m.setup.Mount)
	}
	return view.Command(append(argv, "--confirm", m.pairName()))
}
