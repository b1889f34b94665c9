//go:build lab

package lab

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
)

// failoverSteps is how many steps the failover of the guide's stack has: unmount, deactivate, demote and attest on otter,
// promote, activate and mount on weasel.
const failoverSteps = 7

// fault is something that happens to a failover from otter to weasel.
type fault struct {
	name string
	at   []int                   // after how many steps
	make func(g *verbRig, n int) // while the operation waits for its next step
	mend func(g *verbRig, n int) // when it has ended, or its runner has
	dies bool                    // its runner does
}

func every() []int {
	var all []int
	for n := range failoverSteps {
		all = append(all, n)
	}
	return all
}

// commandFaults are those of umount, the first program that a failover runs: before it has its effect and after it. The other
// programs and the time limits have the model of agent/op.
func commandFaults() []fault {
	const path = "/usr/sbin/umount" // found before the program itself
	var all []fault
	for _, s := range []struct{ name, text string }{
		{"umount fails before its effect", "echo injected >&2; exit 5"},
		{"umount fails after its effect", `$R "$@"; echo injected >&2; exit 5`},
		{"umount leaves a child and prints without end", `sleep 20 & yes injected | head -c 30M; $R "$@"`},
	} {
		put := fmt.Sprintf("R=$(command -v umount); printf '#!/bin/sh\\nR=%%s\\n%%s\\n' $R '%s' >/run/shim; chmod 755 /run/shim; cp /run/shim %s", s.text, path)
		all = append(all, fault{name: s.name, at: []int{0},
			make: func(g *verbRig, _ int) { g.sh(g.otter, put) }, mend: func(g *verbRig, _ int) { g.sh(g.otter, "rm "+path) }})
	}
	return all
}

// nodeFaults are those of agents, machines and the cable.
func nodeFaults() []fault {
	cut := func(g *verbRig, _ int) {
		if err := g.otter.CutLink(g.t.Context()); err != nil {
			g.t.Fatal(err)
		}
		g.until(30*time.Second, "the cut is noticed", func() bool {
			a, errA := g.trySnap(g.otter)
			b, errB := g.trySnap(g.weasel)
			return errA == nil && errB == nil && a.Resources[0].Conn < proto.Connected && b.Resources[0].Conn < proto.Connected
		})
	}
	heal := func(g *verbRig, _ int) {
		if err := g.otter.HealLink(g.t.Context()); err != nil {
			g.t.Fatal(err)
		}
	}
	kill := func(n *Node, g *verbRig) {
		if err := n.Kill(); err != nil {
			g.t.Fatal(err)
		}
	}
	boot := func(n *Node, g *verbRig) {
		if err := n.Start(g.t.Context()); err != nil {
			g.t.Fatal(err)
		}
		g.startAgain(n)
		g.sh(n, "mkdir -p /mnt/test")
	}
	signal := func(name string) func(*verbRig, int) {
		return func(g *verbRig, _ int) { g.sh(g.otter, "kill -"+name+" $(cat /run/santui-agent.pid)") }
	}
	return []fault{
		{name: "the cable is pulled", at: every(), make: cut, mend: heal},
		{name: "otter's agent is killed", at: every(), make: func(g *verbRig, _ int) { g.killAgent(g.otter) }, mend: func(g *verbRig, n int) {
			g.startAgain(g.otter)
			if n < 2 { // what rejoin would name
				g.sh(g.otter, "umount /mnt/test || true; dmsetup remove storage-test")
			}
		}},
		{name: "otter's agent stands still", at: []int{0, 1, 2, 3}, make: signal("STOP"), mend: signal("CONT")},
		{name: "otter loses its power", at: every(), make: func(g *verbRig, _ int) { kill(g.otter, g) }, mend: func(g *verbRig, _ int) { boot(g.otter, g) }},
		{name: "weasel, which runs it, loses its power", at: every(), dies: true,
			make: func(g *verbRig, _ int) { kill(g.weasel, g) }, mend: func(g *verbRig, _ int) { boot(g.weasel, g) }},
	}
}

// TestLongFaults lets a program, an agent, a machine and the cable fail at the steps of a failover, and brings the pair home. Each
// time the operation ends in a state that is named, the agents agree on it, there are never two Primaries, and no byte is lost.
func TestLongFaults(t *testing.T) {
	g := newVerbRig(t, rigOptions{})
	g.note("%-56s %-6s %-10s %-22s %s", "fault", "after", "ends", "roles", "brought home by")
	defer func() { t.Logf("matrix:\n%s", strings.Join(g.matrix, "\n")) }()
	if !t.Run("late order", func(t *testing.T) { g.t = t; g.lateOrder() }) {
		g.t = t
		return
	}
	g.t = t
	for _, f := range append(commandFaults(), nodeFaults()...) {
		for _, n := range f.at {
			if !t.Run(fmt.Sprintf("%s after %d", f.name, n), func(t *testing.T) { g.t = t; g.suffer(f, n) }) {
				g.t = t
				return
			}
			g.t = t
		}
	}
}

// suffer is one cell of the matrix.
func (g *verbRig) suffer(f fault, n int) {
	g.t.Helper()
	o := g.step(proto.OpStartRequest{Verb: proto.VerbFailover, To: "weasel", OnFailure: proto.ChoiceUndo}, g.weasel, n)
	f.make(g, n)
	if !f.dies {
		o = g.finish(o, g.weasel)
	}
	roles := g.roles()
	if strings.Count(roles, "Primary") > 1 {
		g.t.Fatalf("two Primaries after %s", o.Outcome)
	}
	f.mend(g, n)
	g.whole()
	g.until(20*time.Second, "both agents say the same of "+o.ID, func() bool {
		there := g.opOn(g.otter, o.ID)
		o = g.opOn(g.weasel, o.ID)
		return o.State.Final() && there.State == o.State && there.Rev == o.Rev
	})
	how := "-"
	switch o.State {
	case proto.OpKept, proto.OpOrphaned:
		how = "undo"
		out, code := g.run("undo", o.ID, "--confirm", PairName)
		var now proto.Op // on a busy machine the command may have lost sight of it
		g.until(3*time.Minute, "the undo ends", func() bool { now = g.opOn(g.weasel, o.ID); return now.State.Final() })
		if now.State != proto.OpUndone {
			g.t.Logf("undo: exit %d\n%s", code, out)
			how = "failover"
			g.move(g.weasel)
		}
	case proto.OpDone:
		g.onService(g.weasel)
	case proto.OpUndone:
		g.onService(g.otter)
	default:
		g.t.Errorf("ended %s: %s", o.State, o.Outcome)
	}
	if g.snap(g.weasel).Resources[0].Role == proto.Primary {
		g.onService(g.weasel)
		g.move(g.otter)
	}
	g.onService(g.otter)
	g.note("%-56s %-6d %-10s %-22s %s", f.name, n, o.State, roles, how)
}

// lateOrder lets otter's agent stand still while it is told, by an undo, to become Primary again, until weasel has given up and
// taken over. Then it goes on, finds the order, and must not obey.
func (g *verbRig) lateOrder() {
	g.t.Helper()
	o := g.step(proto.OpStartRequest{Verb: proto.VerbFailover, To: "weasel"}, g.weasel, 3)
	g.sh(g.otter, "kill -STOP $(cat /run/santui-agent.pid)")
	s := g.cockpit(g.weasel)
	defer func() { _ = s.Close() }()
	if err := s.Call(g.t.Context(), proto.MethodOpDecide, proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceUndo, By: "test"}, &o); err != nil {
		g.t.Fatal(err)
	}
	if o = g.finish(o, g.weasel); o.State != proto.OpKept {
		g.t.Errorf("%s: %s", o.State, o.Outcome)
	}
	g.silence()
	g.patient("takeover", "--to", "weasel", "--confirm", PairName, "--peer-is-off", "it stands still")
	g.sh(g.weasel, "dd if=/dev/urandom of=/mnt/test/after bs=64k count=1 status=none; sync")
	g.sums = g.read(g.weasel)
	g.sh(g.otter, "kill -CONT $(cat /run/santui-agent.pid)")
	g.whole()
	g.onService(g.weasel)
	g.note("%-56s %-6d %-10s %-22s %s", "otter stands still, is told to be Primary, and wakes up late", 3, o.State, g.roles(), "takeover")
	g.move(g.otter)
}

// roles are those of the nodes that answer.
func (g *verbRig) roles() string {
	var out []string
	for _, n := range g.l.Nodes() {
		word := "-"
		if n.Running() {
			if s, err := g.trySnap(n); err == nil {
				word = s.Resources[0].Role.String()
			}
		}
		out = append(out, word)
	}
	return strings.Join(out, ", ")
}

// opOn is what a node's agent says of an operation.
func (g *verbRig) opOn(n *Node, id string) proto.Op {
	g.t.Helper()
	s := g.cockpit(n)
	defer func() { _ = s.Close() }()
	var r proto.Report
	if err := s.Call(g.t.Context(), proto.MethodReport, proto.OpRequest{ID: id}, &r); err != nil {
		g.t.Fatal(err)
	}
	return r.Op
}
