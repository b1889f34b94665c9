package view

import (
	"cmp"
	"slices"
	"time"

	"example.com/santui/proto"
)

// Input is what is known of one node: the newest snapshot, and whether its agent answers.
type Input struct {
	Node     string
	Snapshot *proto.Snapshot // nil if never heard of
	LinkUp   bool            // a session is open and alive
	Err      error           // why the link is down
	NextTry  time.Time       // when the next attempt begins, zero if none is planned
	At       time.Time       // the receiver's clock at the last sign of life
	RTT      time.Duration   // of an exchange with the agent, steady while it changes little; 0 if not measured
}

// Contact says how far a node's values can be trusted.
type Contact int

// The grades of contact. Stale values are shown as old and nothing is decided by them.
const (
	Waiting Contact = iota // never answered
	Live
	Stale
)

// Level grades a statement.
type Level int

// The levels.
const (
	Plain Level = iota
	Good
	Warn
	Alert
)

// Node is one node of the pair.
type Node struct {
	Name     string
	Contact  Contact
	Age      time.Duration // since the last sign of life, if not Live
	Err      error
	NextTry  time.Time
	Since    time.Time       // the last sign of life, receiver's clock
	Snapshot *proto.Snapshot // nil while Waiting
	Resource *proto.Resource // nil if the node does not have it
	Mark     string          // what is extraordinary about it, in one or two words: SPLIT BRAIN, MUST REJOIN ...
	RTT      time.Duration   // of the last exchange with its agent, 0 if not measured
}

// Live says whether the node's values are current.
func (n Node) Live() bool { return n.Contact == Live }

// Role is the node's role as it last said.
func (n Node) Role() proto.Role {
	if n.Resource == nil {
		return proto.RoleUnknown
	}
	return n.Resource.Role
}

// Sync is the synchronisation that runs.
type Sync struct {
	proto.Sync
	Title string  // "full sync", "resync" or "verify"
	Done  float64 // 0 to 1
}

// Way is the direction of a verb: To's copy is the good one afterwards. Why says why it cannot begin now, "" if it can.
type Way struct{ From, To, Why string }

// Line is one sentence and how grave it is.
type Line struct {
	Level Level
	Text  string
}

// Pair is what holds for one resource of the pair, both nodes taken together.
type Pair struct {
	Name      string
	Resource  string
	Resources []string // all of them, the most endangered first
	Nodes     []Node   // as configured
	// Primary and Secondary are names of nodes, empty if none is known to be. A stale node keeps the role it had.
	Primary, Secondary string
	Conn               string // replication in DRBD's word, or "unknown"
	ConnLevel          Level
	Sync               *Sync
	Op                 *proto.Op // the newest operation that any agent shows
	Lock               *proto.Lock
	Events             []proto.Event // of both nodes, newest first
	Danger             int           // 0 is healthy; grows with what is wrong
	// Failover says why a planned failover cannot begin now, "" if it can. To is where it would go, From the other node: the
	// Primary or, where no node is, the one that is to stay Secondary. Cold says that the service is to be brought up and not
	// moved; To is then the node that was Primary last, if that is known.
	From, To, Failover string
	Cold               bool
	// Drill says why not even the checks of a drill can be asked for, "" if they can.
	Drill string
	// Check says why not even the checks can be asked for, "" if they can.
	Check string
	// Start says why no copy can be declared the good one now, "" if it can.
	Start string
	// Takeover, Rejoin and Resolve say where these verbs would lead, and why they cannot begin now.
	Takeover, Rejoin, Resolve Way
	// Setup says why LVM cannot be set up on the resource, "" if it can; To is the Primary, on which it would run.
	Setup Way
	// Verify says whether a verify can be started or, while one runs, stopped; To is the node that compares.
	Verify Way
	// Undo says why Op cannot be undone from outside, "" if it was left half way and can.
	Undo string
	Next Line
	// Meaning explains, while a node does not answer, what that may mean.
	Meaning []string
}

// Node finds a node by name.
func (p Pair) Node(name string) (Node, bool) {
	i := slices.IndexFunc(p.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{Name: name}, false
	}
	return p.Nodes[i], true
}

// Running says whether an operation is under way or waits for a decision.
func (p Pair) Running() bool { return p.Op != nil && !p.Op.State.Final() }

// Stale returns the nodes whose values are not current, those that never answered included.
func (p Pair) Stale() []Node {
	return slices.DeleteFunc(slices.Clone(p.Nodes), Node.Live)
}

// Derive puts the inputs together for one resource; with resource "" it takes the most endangered one. now is the
// receiver's clock.
func Derive(pair, resource string, in []Input, now time.Time) Pair {
	names := resourceNames(in)
	var all []Pair
	for _, r := range names {
		all = append(all, derive(pair, r, in, now))
	}
	slices.SortStableFunc(all, func(a, b Pair) int { return cmp.Compare(b.Danger, a.Danger) })
	order := make([]string, len(all))
	for i, p := range all {
		order[i] = p.Resource
	}
	i := slices.Index(order, resource)
	if len(all) == 0 || i < 0 && resource != "" {
		p := derive(pair, resource, in, now)
		p.Resources = order
		return p
	}
	p := all[max(i, 0)]
	p.Resources = order
	return p
}

func resourceNames(in []Input) []string {
	var names []string
	for _, i := range in {
		if i.Snapshot == nil {
			continue
		}
		for _, r := range i.Snapshot.Resources {
			if !slices.Contains(names, r.Name) {
				names = append(names, r.Name)
			}
		}
	}
	return names
}

func derive(pair, resource string, in []Input, now time.Time) Pair {
	p := Pair{Name: pair, Resource: resource}
	for _, i := range in {
		p.Nodes = append(p.Nodes, node(resource, i, now))
		if i.Snapshot == nil {
			continue
		}
		if p.Name == "" {
			p.Name = i.Snapshot.Pair
		}
		p.Op = newer(p.Op, i.Snapshot.Op)
		if i.Snapshot.Lock != nil && i.LinkUp {
			p.Lock = i.Snapshot.Lock
		}
	}
	p.roles()
	p.marks()
	p.link()
	p.sync()
	p.Events = events(in)
	p.Danger = p.danger()
	p.Check, p.Failover, p.Start = p.whyNoCheck(), p.whyNoFailover(), p.whyNoStart()
	if p.Drill = p.Check; p.Cold && p.Drill == "" {
		p.Drill = "no node is Primary: a drill moves a service that is up"
	}
	p.Takeover, p.Rejoin, p.Resolve, p.Undo = p.takeover(), p.rejoin(), p.resolve(), p.whyNoUndo()
	p.Verify, p.Setup = p.verify(), p.setup()
	p.Next, p.Meaning = p.next(), p.meaning()
	return p
}

func node(resource string, i Input, now time.Time) Node {
	n := Node{Name: i.Node, Err: i.Err, NextTry: i.NextTry, Since: i.At, Snapshot: i.Snapshot, RTT: i.RTT}
	switch {
	case i.Snapshot == nil:
		n.Contact = Waiting
	case i.LinkUp:
		n.Contact = Live
	default:
		n.Contact, n.Age = Stale, now.Sub(i.At)
	}
	if i.Snapshot != nil {
		if k := slices.IndexFunc(i.Snapshot.Resources, func(r proto.Resource) bool { return r.Name == resource }); k >= 0 {
			n.Resource = &i.Snapshot.Resources[k]
		}
	}
	return n
}

// newer picks, of two views of operations, the one to show: the later state of one operation, the unfinished one of two,
// else the one that began later.
func newer(a, b *proto.Op) *proto.Op {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.ID == b.ID:
		if b.Rev > a.Rev {
			return b
		}
		return a
	case a.State.Final() != b.State.Final():
		if a.State.Final() {
			return b
		}
		return a
	case b.Started.After(a.Started):
		return b
	}
	return a
}

func (p *Pair) roles() {
	for _, n := range p.Nodes {
		switch n.Role() {
		case proto.Primary:
			if old, _ := p.Node(p.Primary); p.Primary == "" || !old.Live() {
				p.Primary = n.Name
			}
		case proto.Secondary:
			if p.Secondary == "" {
				p.Secondary = n.Name
			}
		case proto.RoleUnknown:
		}
	}
	if p.Primary == "" {
		p.cold()
		return
	}
	p.From = p.Primary
	for _, n := range p.Nodes {
		if n.Name != p.Primary {
			p.To = n.Name
		}
	}
}

// cold recognises a pair that is at rest with no node Primary, as after both have booted, and recommends a node.
func (p *Pair) cold() {
	good := false
	for _, n := range p.Nodes {
		if !n.Live() || n.Role() != proto.Secondary {
			return
		}
		good = good || n.Resource.DiskState == proto.UpToDate
	}
	if len(p.Nodes) != 2 || !good || p.Running() {
		return
	}
	better := func(a, b *proto.Resource) bool {
		if !a.WasPrimary.Equal(b.WasPrimary) {
			return a.WasPrimary.After(b.WasPrimary)
		}
		return a.DiskState == proto.UpToDate && b.DiskState != proto.UpToDate
	}
	p.Cold, p.To, p.From = true, p.Nodes[0].Name, p.Nodes[1].Name
	if better(p.Nodes[1].Resource, p.Nodes[0].Resource) {
		p.To, p.From = p.From, p.To
	}
}

// link takes the replication state from a live node, the Primary's first.
func (p *Pair) link() {
	p.Conn, p.ConnLevel = "unknown", Warn
	for _, n := range p.byWeight() {
		if !n.Live() || n.Resource == nil {
			continue
		}
		c := n.Resource.Conn
		p.Conn = c.String()
		switch {
		case c == proto.StandAlone, c == proto.ProtocolError:
			p.ConnLevel = Alert
		case c < proto.Connected, c >= proto.Ahead:
			p.ConnLevel = Warn
		default:
			p.ConnLevel = Good
		}
		return
	}
}

// byWeight lists the nodes with the Primary first.
func (p *Pair) byWeight() []Node {
	out := slices.Clone(p.Nodes)
	slices.SortStableFunc(out, func(a, b Node) int {
		return cmp.Compare(weight(a), weight(b))
	})
	return out
}

func weight(n Node) int {
	if n.Role() == proto.Primary {
		return 0
	}
	return 1
}

func (p *Pair) sync() {
	for _, n := range p.byWeight() {
		if !n.Live() || n.Resource == nil || n.Resource.Sync == nil {
			continue
		}
		s := Sync{Sync: *n.Resource.Sync, Title: "resync"}
		switch {
		case s.Kind == "verify":
			s.Title = "verify"
		case s.Total > 0 && n.Resource.Size > 0 && s.Total >= n.Resource.Size:
			s.Title = "full sync"
		}
		if s.Total > 0 {
			s.Done = min(max(float64(s.Total-s.Left)/float64(s.Total), 0), 1)
		}
		p.Sync = &s
		return
	}
}

// events merges both lists by the agents' clocks, which is good enough to read and good for nothing else.
func events(in []Input) []proto.Event {
	var out []proto.Event
	for _, i := range in {
		if i.Snapshot != nil {
			out = append(out, i.Snapshot.Events...)
		}
	}
	slices.SortStableFunc(out, func(a, b proto.Event) int { return b.At.Compare(a.At) })
	return slices.CompactFunc(out, func(a, b proto.Event) bool {
		return a.Node == b.Node && a.Seq == b.Seq && a.At.Equal(b.At) && a.Text == b.Text
	})
}

// NotRun says whether a step of an operation that is not over is still to be run, or to be tried again.
func NotRun(s proto.StepStatus) bool {
	return s.Result.State == "" || s.Result.State == proto.StepWaiting || s.Result.State == proto.StepFailed
}

// Executions lists the programs that an operation ran, in the order in which they started.
func Executions(op proto.Op) []proto.Execution {
	var out []proto.Execution
	for _, s := range op.Steps {
		out = append(out, s.Result.Commands...)
		out = append(out, s.Undo.Commands...)
	}
	slices.SortStableFunc(out, func(a, b proto.Execution) int { return a.Started.Compare(b.Started) })
	return out
}
