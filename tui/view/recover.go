package view

import (
	"fmt"

	"example.com/santui/proto"
)

// other is the node that is not called name.
func (p Pair) other(name string) Node {
	for _, n := range p.Nodes {
		if n.Name != name {
			return n
		}
	}
	return Node{}
}

// driven says whether the agent that runs the operation answers; a state that nobody answers for may be long past.
func (p Pair) driven() bool {
	n, ok := p.Node(p.Op.Runner)
	return !ok || n.Live()
}

// leftHalfWay says whether the newest operation was left in the middle of its plan.
func (p Pair) leftHalfWay() bool {
	return p.Op != nil && (p.Op.State == proto.OpOrphaned || p.Op.State == proto.OpKept)
}

// marks names what is extraordinary about a live node.
func (p *Pair) marks() {
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if !n.Live() || n.Resource == nil {
			continue
		}
		there := p.other(n.Name)
		switch {
		case n.Resource.SplitBrain:
			n.Mark = "SPLIT BRAIN"
		case n.Resource.NeedsRejoin != "":
			n.Mark = "TOOK OVER"
		case there.Resource != nil && there.Resource.NeedsRejoin != "":
			n.Mark = "MUST REJOIN"
		case n.Resource.Conn == proto.StandAlone:
			n.Mark = "STANDALONE"
		}
	}
}

// split says whether any live node sees a split brain.
func (p Pair) split() bool {
	for _, n := range p.Nodes {
		if n.Live() && n.Resource != nil && n.Resource.SplitBrain {
			return true
		}
	}
	return false
}

func (p Pair) alone() bool {
	for _, n := range p.Nodes {
		if n.Live() && n.Resource != nil && n.Resource.Conn == proto.StandAlone {
			return true
		}
	}
	return false
}

// takeover: exactly one node answers, and it has lost the other one too. How long that must have been so, its agent
// judges.
func (p Pair) takeover() Way {
	stale := p.Stale()
	switch {
	case len(p.Nodes) < 2:
		return Way{Why: "the pair has only one node here"}
	case len(stale) == 0:
		return Way{Why: "both agents answer; f moves the service as planned"}
	case len(stale) == len(p.Nodes):
		return Way{Why: "no agent answers"}
	}
	to := p.other(stale[0].Name)
	w := Way{From: stale[0].Name, To: to.Name}
	r := to.Resource
	switch {
	case r == nil:
		w.Why = "no resource is known on " + to.Name
	case r.Role == proto.Primary && (!p.leftHalfWay() || p.Op.Plan.To != to.Name):
		w.Why = to.Name + " is Primary already"
	case to.Snapshot.PeerLink.Up:
		w.Why = fmt.Sprintf("%s still reaches %s; only the way from here is broken", to.Name, w.From)
	case r.Conn >= proto.Connected:
		w.Why = fmt.Sprintf("%s still replicates with %s", to.Name, w.From)
	case r.DiskState != proto.UpToDate:
		w.Why = fmt.Sprintf("%s is %s", to.Name, r.DiskState)
	case p.Running() && p.Op.Runner == to.Name:
		w.Why = fmt.Sprintf("operation %s is under way on %s", p.Op.ID, to.Name)
	}
	return w
}

// whyNotTogether is what rejoin and resolve have in common: both agents answer and do not replicate.
func (p Pair) whyNotTogether() string {
	switch {
	case len(p.Nodes) < 2:
		return "the pair has only one node here"
	case p.silent() != "":
		return p.silent()
	case p.Running():
		return fmt.Sprintf("operation %s is under way on %s", p.Op.ID, p.Op.Runner)
	}
	linked := true
	for _, n := range p.Nodes {
		if n.Resource == nil {
			return fmt.Sprintf("%s is not known on %s", p.Resource, n.Name)
		}
		linked = linked && n.Resource.Conn >= proto.Connected
	}
	if linked {
		return "the nodes replicate"
	}
	return ""
}

// rejoin: the nodes are to find together again; the data of the one that took over, or is Primary, stays.
func (p Pair) rejoin() Way {
	w := Way{Why: p.whyNotTogether()}
	if w.Why == "" && (p.forked() || p.split()) {
		w.Why = "both have changes of their own; one side's must be given up: D"
	}
	for _, fits := range []func(Node) bool{
		func(n Node) bool { return n.Resource != nil && n.Resource.NeedsRejoin != "" },
		func(n Node) bool { return n.Role() == proto.Primary },
		func(Node) bool { return true },
	} {
		for _, n := range p.Nodes {
			if fits(n) {
				w.To, w.From = n.Name, p.other(n.Name).Name
				return w
			}
		}
	}
	return w
}

// resolve: the changes of one side are given up. The one proposed to stay is the only Primary, or else the one that wrote
// last.
func (p Pair) resolve() Way {
	w := Way{Why: p.whyNotTogether()}
	if w.Why == "" && !p.split() && !p.forked() && (!p.alone() || p.tookOver() != "") {
		w.Why = "no node says that there is a split brain"
	}
	if len(p.Nodes) < 2 {
		return w
	}
	a, b := p.Nodes[0], p.Nodes[1]
	if b.Role() == proto.Primary && a.Role() != proto.Primary ||
		a.Role() == b.Role() && a.Resource != nil && b.Resource != nil && b.Resource.LastWrite.After(a.Resource.LastWrite) {
		a, b = b, a
	}
	w.To, w.From = a.Name, b.Name
	return w
}

// setup: a volume group and a file system are made on a resource that carries nothing, or what stopped half way is finished.
func (p Pair) setup() Way {
	w := Way{To: p.Primary, From: p.other(p.Primary).Name}
	n, _ := p.Node(p.Primary)
	switch {
	case len(p.Nodes) < 2:
		w.Why = "the pair has only one node here"
	case p.silent() != "":
		w.Why = p.silent()
	case p.Primary == "":
		w.Why = "no node is Primary"
	case p.forked():
		w.Why = "both nodes say they are Primary"
	case p.Running():
		w.Why = fmt.Sprintf("operation %s is under way on %s", p.Op.ID, p.Op.Runner)
	case p.leftHalfWay() && p.Op.Plan.Verb == proto.VerbSetup:
	case len(n.Resource.Stack.VGs) > 0:
		w.Why = fmt.Sprintf("%s carries volume group %s", p.Resource, n.Resource.Stack.VGs[0].Name)
	case len(n.Resource.Stack.Mounts) > 0:
		w.Why = fmt.Sprintf("%s is mounted on %s", p.Resource, n.Resource.Stack.Mounts[0].Target)
	}
	return w
}

func (p Pair) whyNoUndo() string {
	switch op := p.Op; {
	case op == nil:
		return "there is no operation"
	case !op.State.Final():
		return fmt.Sprintf("operation %s is not over: a attaches to it", op.ID)
	case !p.leftHalfWay():
		return "no operation was left half way"
	case op.Plan.Verb == proto.VerbResolve || op.Plan.Verb == proto.VerbRejoin || op.Plan.Verb == proto.VerbSetup:
		return fmt.Sprintf("a %s is not undone; run it again to complete it", op.Plan.Verb)
	case !p.driven():
		return fmt.Sprintf("the agent of %s, which ran it, does not answer", op.Runner)
	}
	return ""
}

// recovery is what to do next while the nodes live and do not follow each other, or an operation was left half way.
func (p Pair) recovery() (Line, bool) {
	switch {
	case p.split() && p.Resolve.Why == "":
		return Line{Alert, "split brain: D shows both sides and gives the changes of one up"}, true
	case p.leftHalfWay() && p.Undo == "":
		return Line{Alert, fmt.Sprintf("a %s was left half way (%s): u undoes it, the same again carries on", p.Op.Plan.Verb, p.Op.State)}, true
	case p.leftHalfWay() && p.Op.Plan.Verb == proto.VerbSetup && p.Setup.Why == "":
		return Line{Alert, "a set-up stopped half way: V with the same names carries on"}, true
	case p.Rejoin.Why == "" && p.tookOver() != "":
		return Line{Warn, fmt.Sprintf("%s must rejoin: J lets it follow %s", p.Rejoin.From, p.Rejoin.To)}, true
	case p.Rejoin.Why == "" && p.alone():
		return Line{Warn, "the nodes do not look for each other (StandAlone): J connects them"}, true
	}
	return Line{}, false
}

// tookOver is the statement of the node that took over and has not been followed since.
func (p Pair) tookOver() string {
	for _, n := range p.Nodes {
		if n.Resource != nil && n.Resource.NeedsRejoin != "" {
			return n.Resource.NeedsRejoin
		}
	}
	return ""
}

// statement is what the operator said about the gone node when the takeover began.
func (p Pair) statement() string {
	if p.Op == nil || p.Op.Plan.Verb != proto.VerbTakeover || p.Op.Statement == "" || p.tookOver() == "" {
		return ""
	}
	return fmt.Sprintf("%s said of %s: %q.", p.Op.Owner, p.Op.Plan.From, p.Op.Statement)
}

// apart explains what it means that both nodes answer and do not follow each other.
func (p Pair) apart() []string {
	var out []string
	switch {
	case p.forked():
		out = []string{"Both nodes are Primary: each writes on its own, and neither has what the other one wrote. Stop all writing on one of them.",
			"D shows both sides and gives one up."}
	case p.split():
		out = []string{"Both copies were written apart (split brain). Nothing is copied until one side's changes are given up."}
		for _, n := range p.Nodes {
			if r := n.Resource; r != nil {
				out = append(out, fmt.Sprintf("%s: %s, %s changed since the fork", n.Name, r.Role, Bytes(r.OutOfSync)))
			}
		}
		out = append(out, "D shows both sides and asks which one to give up.")
	case p.tookOver() != "" && p.whyNotTogether() == "":
		out = []string{p.tookOver() + ".", p.statement(), "J lets " + p.Rejoin.From + " follow " + p.Rejoin.To + " again."}
	case p.alone() && p.whyNotTogether() == "":
		out = []string{"A node stands alone: it does not look for its peer, and what is written is on one copy only.", "J connects both and lets the older copy follow."}
	}
	var full []string
	for _, l := range out {
		if l != "" {
			full = append(full, l)
		}
	}
	return full
}
