//go:build lab

package lab

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/santui/datapath/conformance"
)

// upgradedFrom is the commit whose agents TestLongUpgrade begins with.
const upgradedFrom = "1b82571acb97ea906d0b2a74d87e6133c4a13878"

// oldAgent builds santui-agent as it was at upgradedFrom.
func oldAgent(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Skipf("the sources are not in a repository of git: %v", err)
	}
	repo, src := strings.TrimSpace(string(root)), t.TempDir()
	if out, err := exec.Command("git", "-C", repo, "cat-file", "-e", upgradedFrom).CombinedOutput(); err != nil {
		t.Skipf("the repository has not the history that the older agent is built of: %v: %s", err, out)
	}
	archive := filepath.Join(src, "src.tar")
	for _, c := range [][]string{
		{"git", "-C", repo, "archive", "-o", archive, upgradedFrom}, {"tar", "-C", src, "-xf", archive},
		{"go", "build", "-C", src, "-o", "santui-agent", "./cmd/santui-agent"},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
	}
	return filepath.Join(src, "santui-agent")
}

// TestLongUpgrade: the agents of a pair in use are replaced one after the other by those of this tree, each while its node is
// Secondary: the first while nobody writes, the second under load. The data stays, and nothing is resynced but what was
// written meanwhile; in between an old and a new agent move the service.
func TestLongUpgrade(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.SantuiSantui, "upgrade")
	ctx, old := t.Context(), oldAgent(t)
	conf := DRBDConf{NetExtra: "    connect-int 1;\n    ping-int 1;\n" + patience}
	l := &Lab{state: testState("")}
	l.attachNodes()
	p := newPair(t, Options{DiskSize: 128 << 20}, AgentOptions{Binary: old, DRBDConf: conf.Text(&Node{lab: l, name: "otter"}, &Node{lab: l, name: "weasel", index: 1})})
	a := &area{t: t, size: 64 << 20, loads: 4, acked: map[int][]int64{}}
	p.sh(p.weasel, "mkdir -p /mnt/w; sync") // a failover mounts where the other node did
	a.make(p.otter)
	p.synced("weasel")
	a.end(a.write(p.otter, 0, 2*time.Second), false)

	replace := func(n *Node) {
		t.Helper()
		was := strings.TrimSpace(p.sh(n, "sha256sum <"+agentPath))
		if err := n.StopAgent(ctx); err != nil {
			t.Fatal(err)
		}
		if err := n.Put(ctx, built("santui-agent"), agentPath); err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(p.sh(n, "sha256sum <"+agentPath)) == was {
			t.Fatal("the new agent is the old one")
		}
		if err := n.StartAgent(ctx); err != nil {
			t.Fatal(err)
		}
	}
	received := func(n *Node) int64 {
		t.Helper()
		e := end{p: &inPlace{&mixed{t: t, l: p.l, ours: n, theirs: n}}, n: n}
		defer e.hangUp()
		v := e.sees("two good copies", view.inSync)
		return v.Received
	}
	verify := func(n *Node, what string) {
		t.Helper()
		for round := range a.acked {
			a.verify(n, round)
		}
		t.Logf("%s: all writes of %d loads are there", what, len(a.acked))
	}

	a.sh(p.otter, "umount /mnt/w") // a mounted file system writes on its own
	replace(p.weasel)
	p.synced("weasel")
	n := received(p.weasel)
	t.Logf("nobody wrote while weasel's agent was replaced, %d bytes came to the new one", n)
	if n > 64<<10 { // the handshake
		t.Error("something was resynced")
	}
	a.mount(p.otter)
	verify(p.otter, "weasel's agent is new")
	p.failover("weasel")
	verify(p.weasel, "moved to the new agent")
	a.end(a.write(p.weasel, 1, 2*time.Second), false)
	p.synced("otter")

	w := a.write(p.weasel, 2, 10*time.Second)
	replace(p.otter)
	a.end(w, false)
	p.synced("otter")
	n = received(p.otter)
	t.Logf("%d writes acknowledged while otter's agent was replaced, %d KiB came to the new one", len(a.acked[2]), n>>10)
	if n > p.usable/2 {
		t.Error("much more was resynced than was written")
	}
	verify(p.weasel, "otter's agent is new")
	p.failover("otter")
	verify(p.otter, "moved back")
	a.end(a.write(p.otter, 3, 2*time.Second), false)
	a.fsck(p.otter, func() { p.synced("weasel") })
	verify(p.otter, "both agents are new")
	a.sh(p.otter, "umount /mnt/w")
	p.identical()
	for _, n := range p.l.Nodes() {
		if out := p.sh(n, "drbdmeta --force 0 v08 /dev/ubdb internal dump-md 2>&1"); !strings.Contains(out, "# bits-set 0;") || strings.Contains(out, "unclean") {
			t.Errorf("%s: dump-md:\n%.900s", n.Name(), out)
		}
	}
}
