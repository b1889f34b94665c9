package view

import (
	"fmt"
	"strings"

	"example.com/santui/proto"
)

// StaleError tells in a few words why a node's values are not current.
func (n Node) StaleError() string {
	if n.Err == nil {
		return "no answer yet"
	}
	return n.Err.Error()
}

// both are the nodes by role, if there is exactly one Primary and both are live.
func (p Pair) both() (primary, other Node, ok bool) {
	primary, okP := p.Node(p.From)
	other, okO := p.Node(p.To)
	return primary, other, okP && okO && primary.Live() && other.Live() && primary.Resource != nil && other.Resource != nil
}

// forked says whether both nodes call themselves Primary right now.
func (p Pair) forked() bool {
	n := 0
	for _, x := range p.Nodes {
		if x.Live() && x.Role() == proto.Primary {
			n++
		}
	}
	return n > 1
}

func (p Pair) silent() string {
	var names []string
	for _, n := range p.Stale() {
		names = append(names, n.Name)
	}
	switch len(names) {
	case 0:
		return ""
	case 1:
		return names[0] + " does not answer"
	default:
		return strings.Join(names, " and ") + " do not answer"
	}
}

func (p Pair) whyNoCheck() string {
	switch {
	case len(p.Nodes) < 2:
		return "the pair has only one node here"
	case p.silent() != "":
		return p.silent()
	case p.Resource == "":
		return "the agents have no resource"
	case p.forked():
		return "both nodes say they are Primary"
	case p.Primary == "" && !p.Cold:
		return "no node is Primary, so there is nothing to move"
	case p.Running():
		return fmt.Sprintf("operation %s of %s is under way on %s", p.Op.ID, p.Op.Owner, p.Op.Runner)
	}
	return ""
}

func (p Pair) whyNoFailover() string {
	if why := p.whyNoCheck(); why != "" {
		return why
	}
	_, to, ok := p.both()
	switch {
	case !ok:
		return p.Resource + " is not known on both nodes"
	case to.Resource.DiskState != proto.UpToDate:
		return fmt.Sprintf("%s is %s%s", to.Name, to.Resource.DiskState, p.syncNote())
	case to.Resource.Conn < proto.Connected:
		return "replication is " + to.Resource.Conn.String()
	case to.Resource.Conn != proto.Connected:
		return "replication is " + to.Resource.Conn.String() + p.syncNote()
	case p.Lock != nil:
		return fmt.Sprintf("operation %s of %s holds the lock", p.Lock.OpID, p.Lock.Owner)
	}
	for _, r := range to.Snapshot.Readiness {
		if r.To != to.Name || r.Resource != p.Resource {
			continue
		}
		if blocking := r.Blocking(); len(blocking) > 0 {
			return blocked(blocking[0])
		}
		return ""
	}
	return "the agent of " + to.Name + " has not evaluated its checks yet"
}

// blocked tells a veto: what should hold, and what was seen instead.
func blocked(c proto.Check) string {
	s := "not so: " + c.Title
	if c.Result == proto.CheckUnknown {
		s = "not known whether " + c.Title
	}
	if c.Node != "" {
		s += " (" + c.Node + ")"
	}
	if len(c.Evidence) > 0 {
		s += ": " + c.Evidence[0]
	}
	return s
}

func (p Pair) syncNote() string {
	if p.Sync == nil {
		return ""
	}
	return fmt.Sprintf(" (%s %.0f%%)", p.Sync.Title, float64(int(p.Sync.Done*100)))
}

// whyNoStart: a copy can be declared good only where no copy is good yet.
func (p Pair) whyNoStart() string {
	switch {
	case len(p.Nodes) < 2:
		return "the pair has only one node here"
	case p.silent() != "":
		return p.silent()
	case p.Running():
		return fmt.Sprintf("operation %s is under way", p.Op.ID)
	}
	for _, n := range p.Nodes {
		switch {
		case n.Resource == nil:
			return p.Resource + " is not known on " + n.Name
		case n.Resource.DiskState != proto.Inconsistent:
			return fmt.Sprintf("%s is %s; only a new pair, Inconsistent on both sides, needs it", n.Name, n.Resource.DiskState)
		case n.Resource.Role == proto.Primary:
			return n.Name + " is Primary"
		case n.Resource.Conn != proto.Connected:
			return "replication is " + n.Resource.Conn.String()
		}
	}
	return ""
}

// next is the one line that says what to do or what to know.
func (p Pair) next() Line {
	if p.forked() {
		return Line{Alert, "both nodes say they are Primary: stop all writing on one of them before anything else"}
	}
	if op := p.Op; p.Running() && p.driven() {
		switch op.State {
		case proto.OpStopped:
			return Line{Alert, fmt.Sprintf("operation %s stopped half way and waits for a decision: a attaches to it", op.ID)}
		case proto.OpPaused:
			return Line{Warn, fmt.Sprintf("operation %s of %s is paused: a attaches to it", op.ID, op.Owner)}
		default:
			return Line{Plain, fmt.Sprintf("operation %s moves %s to %s: a attaches to it", op.ID, op.Plan.Resource, op.Plan.To)}
		}
	}
	if s := p.silent(); s != "" {
		if p.Takeover.Why == "" {
			return Line{Alert, s + ".  R retries now.  F takes over on " + p.Takeover.To + " (asks how you know that " + p.Takeover.From + " is off)"}
		}
		return Line{Warn, "planned failover not possible: " + s + ".  R retries now"}
	}
	if l, ok := p.recovery(); ok {
		return l
	}
	for _, n := range p.byWeight() {
		if n.Resource != nil && n.Resource.Problem != "" {
			return Line{Alert, n.Name + ": " + n.Resource.Problem}
		}
	}
	switch {
	case p.Start == "":
		return Line{Warn, "no copy is declared good yet: s opens sync, where one can be chosen"}
	case p.Resource == "":
		return Line{Warn, "the agents have no resource: check drbd.conf on both nodes"}
	case p.Cold && p.Failover == "":
		to, _ := p.Node(p.To)
		text := fmt.Sprintf("no node is Primary: f brings %s up on %s", p.Resource, p.To)
		if !to.Resource.WasPrimary.IsZero() {
			text += ", which was Primary last"
		}
		return Line{Warn, text}
	case p.Cold:
		return Line{Warn, "no node is Primary, and none can be made Primary now: " + p.Failover}
	case p.Primary == "":
		return Line{Warn, "no node is Primary: nothing can use " + p.Resource + " until one is made Primary"}
	case p.Failover != "":
		return Line{Warn, "failover not possible now: " + p.Failover}
	}
	text := fmt.Sprintf("ready: f moves %s from %s to %s", p.Resource, p.Primary, p.To)
	if p.Setup.Why == "" {
		text += ".  It carries nothing yet: V sets LVM up"
	}
	return Line{Good, text}
}

// meaning explains a silence: the path to the agent may be broken, the node may be down, or it may be cut off and write on.
func (p Pair) meaning() []string {
	stale := p.Stale()
	if len(stale) == 0 {
		return p.apart()
	}
	if len(p.Nodes) < 2 {
		return nil
	}
	if len(stale) == len(p.Nodes) {
		if p.Primary == "" && p.Secondary == "" {
			lines := []string{"No agent has answered yet. Is santui-agent running, and can this machine reach it? R retries now."}
			for _, n := range p.Nodes {
				if n.Err != nil {
					lines = append(lines, n.Name+": "+n.Err.Error())
				}
			}
			return lines
		}
		return []string{"Neither agent answers, so this machine may be what is cut off. Both nodes may well be at work.",
			"Values marked (old) are from the last contact. R retries now."}
	}
	s := stale[0]
	other, _ := p.Node(p.To)
	if other.Name == s.Name || other.Name == "" {
		for _, n := range p.Nodes {
			if n.Name != s.Name {
				other = n
			}
		}
	}
	linked := other.Resource != nil && other.Resource.Conn >= proto.Connected
	control := other.Snapshot != nil && other.Snapshot.PeerLink.Up
	was := s.Role() == proto.Primary || other.Resource != nil && other.Resource.PeerRole == proto.Primary
	var text string
	switch {
	case !linked && control:
		text = fmt.Sprintf("%s does not answer here, but the agent of %s still reaches it: the way from this machine, or its agent's socket, is broken. The nodes do not replicate: %s.",
			s.Name, other.Name, notLinked(other))
	case linked:
		text = fmt.Sprintf("%s does not answer here, but %s still reaches it: the way from this machine, or its agent's socket, is broken. The pair is at work.", s.Name, other.Name)
	case other.Role() == proto.Primary:
		text = fmt.Sprintf("%s does not answer, and %s has lost it too. %s is Primary and goes on without a second copy.", s.Name, other.Name, other.Name)
		if other.Resource.NeedsRejoin != "" {
			text += " " + other.Resource.NeedsRejoin + "."
		}
	case was:
		text = fmt.Sprintf("%s does not answer, and %s has lost it too. %s may be down, or only cut off and STILL PRIMARY: F makes %s Primary, once you know that %s is off.", s.Name, other.Name, s.Name, other.Name, s.Name)
	default:
		text = fmt.Sprintf("%s does not answer, and %s has lost it too. %s goes on without a second copy.", s.Name, other.Name, other.Name)
	}
	tail := "R retries now."
	if text2 := p.statement(); text2 != "" {
		tail = text2 + " " + tail
	}
	if s.Contact == Stale {
		tail = "Values marked (old) are from the last contact. " + tail
	}
	return []string{text, tail}
}

// notLinked is why a node does not replicate: its problem, or else the state of its connection.
func notLinked(n Node) string {
	switch {
	case n.Resource == nil:
		return "the resource is not known there"
	case n.Resource.Problem != "":
		return strings.TrimRight(n.Resource.Problem, ".")
	}
	return n.Resource.Conn.String()
}

// Weights of the danger score: what threatens data weighs more than what threatens service.
const (
	dangerForked   = 1000
	dangerStopped  = 300
	dangerProblem  = 200
	dangerSilent   = 100
	dangerNoLink   = 50
	dangerBadDisk  = 40
	dangerNoMaster = 10
	dangerSync     = 5
)

// danger adds up what is wrong, 0 for a healthy pair. Resources are ordered by it.
func (p Pair) danger() int {
	d := dangerSilent * len(p.Stale())
	if p.forked() {
		d += dangerForked
	}
	if p.Op != nil && (p.Op.State == proto.OpStopped || p.Op.State == proto.OpKept || p.Op.State == proto.OpOrphaned) {
		d += dangerStopped
	}
	if p.Primary == "" {
		d += dangerNoMaster
	}
	if p.Sync != nil {
		d += dangerSync
	}
	for _, n := range p.Nodes {
		if n.Resource == nil {
			continue
		}
		if n.Resource.Problem != "" {
			d += dangerProblem
		}
		if n.Resource.Conn < proto.Connected {
			d += dangerNoLink
		}
		if n.Resource.DiskState != proto.UpToDate {
			d += dangerBadDisk
		}
	}
	return d
}
