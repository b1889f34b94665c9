//go:build lab

package lab

import (
	"errors"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
)

// coldSettings add a service address, which stands for all that agent.toml can add.
const coldSettings = "[[resource.r0.address]]\naddress = \"10.0.0.100/24\"\ninterface = \"eth0\"\n"

// TestColdStart brings the service up after both nodes were off: cut, and shut down in order. Nothing promotes itself; a failover
// knows what was up, says from whom, and brings all of it back with the data. Where nobody remembers anything it only promotes.
func TestColdStart(t *testing.T) {
	t.Parallel()
	g := newVerbRig(t, rigOptions{settings: coldSettings})
	g.sh(g.otter, "ip addr add 10.0.0.100/24 dev eth0")
	g.remembered(g.otter)

	for _, n := range g.l.Nodes() {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	g.bootBoth()
	t.Log(g.must(0, []string{"check", "--to", "otter"}, "ok    LAST-PRIMARY", "otter was Primary last, since", "ok    LAST-STACK", "VG storage with 1 LV, ext4 on /mnt/test: what otter had as Primary"))
	g.must(0, []string{"check", "--to", "weasel"}, "warn  LAST-PRIMARY", "otter was Primary last, since", "ok    LAST-STACK")
	g.patient("failover", "--to", "otter", "--dry-run")
	t.Log(g.patient("failover", "--to", "otter", "--confirm", PairName))
	g.onService(g.otter)
	g.address(g.otter)

	g.sh(g.otter, "dd if=/dev/urandom of=/mnt/test/more bs=1M count=2 status=none; sync")
	g.sums = g.read(g.otter)
	// As a system that shuts down does it: from the top down, with looks of both agents in between.
	for _, down := range []string{"ip addr del 10.0.0.100/24 dev eth0", "umount /mnt/test", "vgchange -q -an storage"} {
		g.sh(g.otter, down)
		time.Sleep(4 * time.Second)
	}
	for _, n := range g.l.Nodes() {
		if err := errors.Join(n.StopAgent(t.Context()), n.Stop(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	g.bootBoth()
	g.patient("failover", "--to", "weasel", "--confirm", PairName)
	g.onService(g.weasel)
	g.address(g.weasel)
	g.move(g.otter)

	for _, n := range g.l.Nodes() {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	g.bootBoth("rm -r /var/lib/santui/ops")
	g.must(0, []string{"check", "--to", "weasel"}, "warn  LAST-PRIMARY", "neither agent remembers", "warn  LAST-STACK", "weasel only becomes Primary")
	out := g.patient("failover", "--to", "weasel", "--confirm", PairName)
	if r := g.snap(g.weasel).Resources[0]; r.Role != proto.Primary || len(r.Stack.Mounts) > 0 || strings.Contains(out, "mount /dev") {
		t.Errorf("weasel is %s with %+v\n%s", r.Role, r.Stack.Mounts, out)
	}
	g.sh(g.weasel, "vgchange -q -ay storage && mount /dev/storage/test /mnt/test")
	g.onService(g.weasel)
}

// remembered waits until a node's agent has seen its own stack, and the other one that.
func (g *verbRig) remembered(n *Node) {
	g.t.Helper()
	g.until(30*time.Second, n.Name()+"'s service is remembered", func() bool {
		for _, x := range g.l.Nodes() {
			if out, err := x.Sh(g.t.Context(), "cat /var/lib/santui/ops/known/r0.json"); err != nil || !strings.Contains(out, "/mnt/test") {
				return false
			}
		}
		return true
	})
}

// bootBoth starts both nodes and their agents, and waits until both copies are one and both nodes Secondary.
func (g *verbRig) bootBoth(before ...string) {
	g.t.Helper()
	for _, n := range g.l.Nodes() {
		if err := n.Start(g.t.Context()); err != nil {
			g.t.Fatal(err)
		}
		for _, script := range append(before, "mkdir -p /mnt/test") {
			g.sh(n, script)
		}
	}
	for _, n := range g.l.Nodes() {
		g.startAgain(n)
	}
	g.whole()
	for _, n := range g.l.Nodes() {
		if r := g.snap(n).Resources[0].Role; r != proto.Secondary {
			g.t.Errorf("%s comes back as %s", n.Name(), r)
		}
	}
}

// address demands the service address on one node, and not on the other.
func (g *verbRig) address(at *Node) {
	g.t.Helper()
	for _, n := range g.l.Nodes() {
		out, err := n.Sh(g.t.Context(), "ip -o addr show dev eth0")
		if has := strings.Contains(out, "10.0.0.100/"); err != nil || has != (n == at) {
			g.t.Errorf("%s, service on %s: %v\n%s", n.Name(), at.Name(), err, out)
		}
	}
}
