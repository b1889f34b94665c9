//go:build lab

package lab

import (
	"errors"
	"fmt"
	"slices"
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

// program is one that a failover runs: on which node, after how many steps, what its command line holds, and how a script that
// stands in its place runs the real one.
type program struct {
	name, on, word, real string
	after                int
}

var programs4 = []program{
	{"umount", "otter", "/mnt/test", "/usr/bin/umount", 0},
	{"vgchange", "otter", "-an", "/usr/sbin/lvm vgchange", 1},
	{"vgchange", "weasel", "-ay", "/usr/sbin/lvm vgchange", 5},
	{"mount", "weasel", "/mnt/test", "/usr/bin/mount", 6},
}

// stuckFS is a file system on a node that is frozen: who writes to it waits in the kernel and cannot be killed.
const stuckFS = `truncate -s 4M /run/stuck.img && mkfs.ext4 -q /run/stuck.img && mkdir -p /run/stuck && /usr/bin/mount -o loop /run/stuck.img /run/stuck && fsfreeze -f /run/stuck`

// hangsLate hangs, and so does a copy of it that no time limit ends and that has the effect when the kernel lets it go, as a
// program does that waits inside of the system call.
const hangsLate = `case $0 in /run/late/*) : >/run/stuck/x; exec $R "$@" ;; esac
mkdir -p /run/late; cp $0 /run/late/; setsid -f /run/late/${0##*/} "$@" >/dev/null 2>&1 </dev/null; : >/run/stuck/x`

// commandFaults let a program fail or hang, before it has its effect and after it. What hangs is ended by its time limit if it
// can be; what waits in the kernel cannot, and its effect comes late, when the kernel lets it go.
func commandFaults() []fault {
	kinds := []struct{ name, text string }{
		{"fails before its effect", "echo injected >&2; exit 5"},
		{"fails after its effect", `$R "$@"; echo injected >&2; exit 5`},
		{"is stopped before its effect", `kill -STOP $$; exit 5`},
		{"is stopped after its effect", `$R "$@"; kill -STOP $$`},
		{"hangs in the kernel before its effect", hangsLate},
		{"hangs in the kernel after its effect", `$R "$@"; : >/run/stuck/x`},
		{"leaves a child and prints without end", `sleep 20 & yes injected | head -c 30M; $R "$@"`},
	}
	var all []fault
	for _, p := range programs4 {
		for i, k := range kinds {
			if i == len(kinds)-1 && p.after > 0 {
				continue // once is enough
			}
			stuck := strings.Contains(k.text, "stuck")
			all = append(all, fault{name: fmt.Sprintf("%s %s on %s %s", p.name, strings.TrimPrefix(p.word, "/mnt/test"), p.on, k.name), at: []int{p.after},
				make: func(g *verbRig, _ int) { g.shim(p, k.text, stuck) }, mend: func(g *verbRig, _ int) { g.unshim(p, stuck) }})
		}
	}
	return all
}

// shim puts a script in the place of a program; what its command line does not concern passes through.
func (g *verbRig) shim(p program, text string, stuck bool) {
	g.t.Helper()
	n := g.l.Node(p.on)
	if stuck {
		g.sh(n, stuckFS)
	}
	script := fmt.Sprintf("#!/bin/sh\nR=%q\ncase \"$*\" in *%s*) ;; *) exec $R \"$@\" ;; esac\n%s\n", p.real, p.word, text)
	if err := n.WriteFile(g.t.Context(), "/run/shim", []byte(script), 0o755); err != nil {
		g.t.Fatal(err)
	}
	path := "/usr/sbin/" + p.name // found before /usr/bin
	g.sh(n, fmt.Sprintf("if [ -e %[1]s ]; then cp -a %[1]s /run/shim.saved; fi; rm -f %[1]s; cp /run/shim %[1]s; chmod 755 %[1]s", path))
}

// unshim puts the program back and, if it hangs, lets it go and waits for its end.
func (g *verbRig) unshim(p program, stuck bool) {
	g.t.Helper()
	n, path := g.l.Node(p.on), "/usr/sbin/"+p.name
	g.sh(n, fmt.Sprintf("rm -f %[1]s; if [ -e /run/shim.saved ] || [ -L /run/shim.saved ]; then cp -a /run/shim.saved %[1]s; rm -f /run/shim.saved; fi", path))
	if stuck {
		g.sh(n, fmt.Sprintf("fsfreeze -u /run/stuck; for i in $(seq 100); do pgrep -x %s >/dev/null || break; sleep 0.1; done; /usr/bin/umount /run/stuck", p.name))
	}
}

// headerFault overwrites the file system's header after the volume was activated on weasel, and puts it back.
func headerFault() fault {
	const dev = "/dev/storage/test"
	return fault{name: "the header of the file system is not there", at: []int{6},
		make: func(g *verbRig, _ int) {
			g.sh(g.weasel, "dd if="+dev+" of=/srv/header bs=4k count=1 status=none; dd if=/dev/zero of="+dev+" bs=4k count=1 conv=fsync status=none; blockdev --flushbufs "+dev)
		},
		mend: func(g *verbRig, _ int) {
			g.sh(g.otter, "test -e "+dev+" && dd if=/srv/header of="+dev+" bs=4k count=1 conv=fsync status=none && blockdev --flushbufs "+dev)
		}}
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
	t.Parallel()
	g := newVerbRig(t, rigOptions{settings: "[limits]\nunmount = 12\ndeactivate = 20\nactivate = 16\nmount = 12\n"})
	g.note("%-56s %-6s %-10s %-22s %s", "fault", "after", "ends", "roles", "brought home by")
	defer func() { t.Logf("matrix:\n%s", strings.Join(g.matrix, "\n")) }()
	cell := func(name string, do func()) {
		if t.Run(name, func(t *testing.T) { g.t = t; do() }) {
			return
		}
		g.note("%-56s %-6s failed", name, "")
		t.Run("fresh start after "+name, func(t *testing.T) { g.t = t; g.afresh() })
	}
	defer func() { g.t = t }()
	cell("late order", g.lateOrder)
	for _, f := range slices.Concat(commandFaults(), []fault{headerFault()}, nodeFaults()) {
		for _, n := range f.at {
			cell(fmt.Sprintf("%s after %d", f.name, n), func() { g.suffer(f, n) })
		}
	}
}

// afresh brings the pair home by force after a cell that failed, for the cells that follow: both nodes boot, and the service
// comes up on otter.
func (g *verbRig) afresh() {
	g.t.Helper()
	if err := g.l.Heal(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
	for _, n := range g.l.Nodes() {
		if err := errors.Join(n.Kill(), n.Start(g.t.Context())); err != nil {
			g.t.Fatal(err)
		}
		g.startAgain(n)
		g.sh(n, "mkdir -p /mnt/test")
	}
	g.whole()
	g.patient("failover", "--to", "otter", "--confirm", PairName)
	g.sh(g.otter, "mountpoint -q /mnt/test || { vgchange -q -ay storage && mount /dev/storage/test /mnt/test; }")
	g.onService(g.otter)
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
