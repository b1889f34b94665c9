package op

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"example.com/santui/proto"
)

// SentinelDir is where a drill keeps its files, below each mount point.
const SentinelDir = ".santui-drill"

// The sets of files: written before the move, and between the moves.
const (
	FirstSet  = "1"
	secondSet = "2"
)

// sentinelMounts are the mounts of a service that a drill writes to: whole file systems, writable.
func sentinelMounts(mounts []proto.Mount) []proto.Mount {
	var out []proto.Mount
	for _, m := range mounts {
		if m.Root == "" && !slices.Contains(strings.Split(m.Options, ","), "ro") {
			out = append(out, m)
		}
	}
	return out
}

// drill is a failover and a failback with files written before each and verified after each.
func (b *builder) drill(v View) {
	a, c := v.From, v.To
	s := moved(proto.VerbDrill, v)
	files := sentinelMounts(s.mounts)
	each := func(do func(proto.Mount)) {
		for _, m := range files {
			do(m)
		}
	}
	probe := func(node string) {
		if len(files) > 0 {
			b.probe(node, files[len(files)-1]) // unmounted first and mounted last
		}
	}
	back := s
	back.mounts, back.device = s.mountsOn(c.Resource.Device), c.Resource.Device
	each(func(m proto.Mount) { b.sentinel(a.Node, m, FirstSet) })
	probe(a.Node)
	b.down(a.Node, s)
	b.attest(a.Node, c.Node)
	b.up(c, s)
	probe(c.Node)
	each(func(m proto.Mount) { b.verify(c.Node, m) })
	each(func(m proto.Mount) { b.sentinel(c.Node, m, secondSet) })
	b.down(c.Node, back)
	b.attest(c.Node, a.Node)
	b.up(a, back)
	probe(a.Node)
	each(func(m proto.Mount) { b.verify(a.Node, m) })
	each(func(m proto.Mount) { b.clean(a.Node, m) })
	var targets []string
	for _, m := range s.mounts {
		targets = append(targets, m.Target)
	}
	b.plan.Effect = []string{
		fmt.Sprintf("%s is away twice: while the service moves to %s, and while it moves back.", strings.Join(targets, ", "), c.Node),
		fmt.Sprintf("Files of random bytes are written to %s below each mount point and removed at the end.", SentinelDir),
		fmt.Sprintf("Afterwards %s is Primary as before.", a.Node),
	}
}

// takeover makes To Primary and brings up what From was last seen to have. The steps that a planned move would have done
// on From are shown as skipped.
func (b *builder) takeover(v View) {
	s := moved(proto.VerbTakeover, v)
	if s.empty() { // units, scripts and exports without their mounts do harm
		s.beside = proto.Service{}
	}
	b.skip = v.From.Node + " does not answer"
	b.down(v.From.Node, s)
	b.skip = ""
	b.add(proto.Step{Kind: proto.StepGone, Node: v.To.Node, Argv: []string{"drbdadm", "cstate", b.plan.Resource}, Internal: true, Limit: limitAttest,
		Why: v.From.Node + " must still be silent on both links; otherwise nothing is promoted"})
	b.up(v.To, s)
	b.plan.Effect = []string{
		fmt.Sprintf("%s becomes Primary without asking %s. If %s still writes, the data forks.", v.To.Node, v.From.Node, v.From.Node),
		fmt.Sprintf("What %s wrote after the link broke is not here, and is lost once it rejoins.", v.From.Node),
		"Needs the pair's name and a statement how you know that " + v.From.Node + " is off; both are recorded.",
	}
	if s.empty() {
		b.plan.Effect = append(b.plan.Effect, "What was mounted on "+v.From.Node+" is not known: nothing is activated, mounted or started.")
	}
}

// rejoin connects both nodes and waits until they replicate.
func (b *builder) rejoin() {
	b.connect(b.plan.From)
	b.connect(b.plan.To)
	b.resync(b.plan.From)
	b.plan.Effect = []string{
		fmt.Sprintf("%s follows %s again. What changed while they were apart is resynchronised.", b.plan.From, b.plan.To),
		"Nothing moves and nothing is unmounted.",
	}
}

// resolve discards the changes of From: it is taken down if it is Primary, and connects as the one that loses.
func (b *builder) resolve(v View) {
	from := v.From
	if from.Resource.Role == proto.Primary {
		b.down(from.Node, serviceOf(from.Resource.Stack, from.Resource.Device, v.beside()))
	}
	b.attest(from.Node, "")
	if !resolved(v) {
		b.snapshot(v)
		b.disconnect(from.Node)
		b.discard(from.Node)
	}
	b.connect(v.To.Node)
	b.resync(from.Node)
	b.plan.Effect = []string{
		fmt.Sprintf("What only %s has is overwritten with %s's data, block by block. This cannot be undone.", from.Node, v.To.Node),
	}
	if !resolved(v) {
		b.plan.Effect = append(b.plan.Effect, snapshotEffect(v)...)
	}
	for _, m := range from.Resource.Stack.Mounts {
		b.plan.Effect = append(b.plan.Effect, fmt.Sprintf("%s is unmounted on %s and not mounted elsewhere.", m.Target, from.Node))
	}
	if v.To.Resource.Role != proto.Primary {
		b.plan.Effect = append(b.plan.Effect, fmt.Sprintf("Neither node is Primary afterwards; santui failover --to %s brings the service up.", v.To.Node))
	}
}

func (b *builder) sentinel(node string, m proto.Mount, set string) {
	m = steady(m)
	dir := path.Join(m.Target, SentinelDir, set)
	b.add(proto.Step{Kind: proto.StepSentinel, Node: node, Argv: []string{"dd", "if=/dev/urandom", "of=" + dir + "/1", "bs=1M", "count=4", "conv=fsync"},
		Internal: true, Limit: limitSentinel, Mount: &m, Set: set, Undo: []string{"rm", "-r", path.Join(m.Target, SentinelDir)}, UndoKind: proto.StepClean,
		Why: "set " + set + ": these bytes must arrive"})
}

func (b *builder) probe(node string, m proto.Mount) {
	m = steady(m)
	b.add(proto.Step{Kind: proto.StepProbe, Node: node, Argv: []string{"dd", "of=" + path.Join(m.Target, SentinelDir, "probe"), "conv=fsync"},
		Internal: true, Limit: limitSentinel, Mount: &m, Why: "a small write again and again, to measure the outage"})
}

func (b *builder) verify(node string, m proto.Mount) {
	m = steady(m)
	b.add(proto.Step{Kind: proto.StepVerify, Node: node, Argv: []string{"sha256sum", "--check", path.Join(m.Target, SentinelDir, "*", "SHA256SUMS")},
		Internal: true, Limit: limitSentinel, Mount: &m, Why: "every byte that was written must be here"})
}

func (b *builder) clean(node string, m proto.Mount) {
	m = steady(m)
	b.add(proto.Step{Kind: proto.StepClean, Node: node, Argv: []string{"rm", "-r", path.Join(m.Target, SentinelDir)},
		Internal: true, Limit: limitSentinel, Mount: &m, Why: "the drill leaves nothing behind"})
}

func (b *builder) connect(node string) {
	r := b.plan.Resource
	b.add(proto.Step{Kind: proto.StepConnect, Node: node, Argv: []string{"drbdadm", "connect", r}, Internal: true, Limit: limitConnect,
		Why: node + " looks for the other node"})
}

func (b *builder) disconnect(node string) {
	r := b.plan.Resource
	b.add(proto.Step{Kind: proto.StepDisconnect, Node: node, Argv: []string{"drbdadm", "disconnect", r}, Internal: true, Limit: limitConnect,
		Why: "who loses must be said before the nodes meet"})
}

func (b *builder) discard(node string) {
	r := b.plan.Resource
	b.add(proto.Step{Kind: proto.StepDiscard, Node: node, Argv: []string{"drbdadm", "connect", "--discard-my-data", r}, Internal: true, Limit: limitConnect,
		Undo: []string{"drbdadm", "disconnect", r}, UndoKind: proto.StepDisconnect, Why: "the changes of " + node + " lose"})
}

func (b *builder) resync(node string) {
	b.add(proto.Step{Kind: proto.StepResync, Node: node, Argv: []string{"drbdadm", "cstate", b.plan.Resource}, Internal: true, Limit: limitResync,
		Why: "both nodes replicate again"})
}
