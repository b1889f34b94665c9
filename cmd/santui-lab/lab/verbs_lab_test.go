//go:build lab

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// verbsConf is the guide's resource with a short ping, so that a dead peer is noticed in some three seconds; one that only has a
// busy machine gets two to answer.
var verbsConf = strings.Replace(GuideConf, "on-disconnect reconnect;", "on-disconnect reconnect; ping-int 1; ping-timeout 20; connect-int 1;", 1)

// verbStack makes the two-node guide's stack on the Primary, small.
const verbStack = `for i in $(seq 100); do blockdev --getsize64 /dev/drbd0 >/dev/null 2>&1 && break; sleep 0.1; done
pvcreate -q /dev/drbd0 && vgcreate -q --setautoactivation n storage /dev/drbd0 && lvcreate -q -y -l 75%FREE -n test storage &&
mkfs.ext4 -q /dev/storage/test && mkdir -p /mnt/test && mount /dev/storage/test /mnt/test &&
for i in 1 2 3 4; do dd if=/dev/urandom of=/mnt/test/file-$i bs=1M count=2 status=none; done; sync`

// verbRig is a pair in the lab and what the tests of verbs do with it.
type verbRig struct {
	t             *testing.T
	l             *Lab
	otter, weasel *Node
	santui, conf  string
	sums          string // of the files on the service, as of the last change
	matrix        []string
	open          map[*Node]*session.Session
}

// rigOptions say in what a verbRig differs from the guide's pair.
type rigOptions struct {
	settings string // more of agent.toml
	size     int64  // bytes of each node's disk
	disk     string // a script that makes the replicated disk, /dev/md3, on each node
}

// newVerbRig starts a pair with the guide's stack on otter.
func newVerbRig(t *testing.T, o rigOptions) *verbRig {
	t.Helper()
	if o.size == 0 {
		o.size = 64 << 20
	}
	santui, agent := built("santui"), built("santui-agent")
	l := ForTest(t, Options{DiskSize: o.size})
	g := &verbRig{t: t, l: l, otter: l.Node("otter"), weasel: l.Node("weasel"), santui: santui, open: map[*Node]*session.Session{}}
	t.Cleanup(func() {
		for _, s := range g.open {
			_ = s.Close()
		}
	})
	var err error
	if g.conf, err = l.CockpitConfig(); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Nodes() {
		g.sh(n, o.disk)
	}
	if err := l.InstallAgents(t.Context(), AgentOptions{Binary: agent, DRBDConf: verbsConf, CreateMD: true, Settings: o.settings}); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Nodes() {
		if err := n.StartAgent(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range l.Nodes() {
				if n.Running() {
					t.Logf("agent of %s:\n%s", n.Name(), n.AgentLog(context.Background()))
				}
			}
		}
	})
	g.until(30*time.Second, "the first sync starts", func() bool {
		_, code := g.run("sync", "start", "--from", "otter", "--confirm", PairName)
		return code == 0
	})
	g.sh(g.weasel, "mkdir -p /mnt/test")
	g.sh(g.otter, verbStack)
	g.whole()
	g.sums = g.read(g.otter)
	return g
}

// run runs santui and returns what it printed and its exit code.
func (g *verbRig) run(args ...string) (string, int) {
	g.t.Helper()
	cmd := exec.CommandContext(g.t.Context(), g.santui, append([]string{"--config", g.conf}, args...)...)
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}

// must runs santui and demands an exit code and words in what it prints.
func (g *verbRig) must(code int, args []string, words ...string) string {
	g.t.Helper()
	out, got := g.run(args...)
	if got != code {
		g.t.Fatalf("santui %s: exit %d, want %d\n%s", strings.Join(args, " "), got, code, out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			g.t.Errorf("santui %s: no %q in\n%s", strings.Join(args, " "), w, out)
		}
	}
	return out
}

func (g *verbRig) sh(n *Node, script string) string {
	g.t.Helper()
	out, err := n.Sh(g.t.Context(), script)
	if err != nil {
		g.t.Fatalf("%s: %v\n%s", n.Name(), err, out)
	}
	return out
}

func (g *verbRig) read(n *Node) string {
	g.t.Helper()
	return g.sh(n, "mountpoint -q /mnt/test && cd /mnt/test && sha256sum $(ls | grep -v lost)")
}

// onService demands that the service is on a node, with every file as written, and that the other node is passive.
func (g *verbRig) onService(n *Node) {
	g.t.Helper()
	if got := g.read(n); got != g.sums {
		g.t.Errorf("the files on %s are not those written:\n%s\nwant\n%s", n.Name(), got, g.sums)
	}
	other := g.otter
	if n == other {
		other = g.weasel
	}
	if r := g.snap(other).Resources[0]; r.Role != proto.Secondary {
		g.t.Errorf("%s is %s beside a Primary", other.Name(), r.Role)
	}
	if out, _ := other.Sh(g.t.Context(), "dmsetup ls; mount | grep /mnt/test"); strings.Contains(out, "storage") {
		g.t.Errorf("%s still has %s", other.Name(), out)
	}
}

// cockpit opens a session to a node's agent, as the cockpit does. On a busy machine an agent may not answer at once.
func (g *verbRig) cockpit(n *Node) (s *session.Session) {
	g.t.Helper()
	var err error
	g.until(time.Minute, n.Name()+"'s agent opens a session", func() bool {
		if s, err = g.dial(n); err != nil {
			g.t.Log(err)
		}
		return err == nil
	})
	return s
}

func (g *verbRig) dial(n *Node) (*session.Session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return g.l.cockpit(ctx, n)
}

// trySnap asks a node's agent, over one session that is opened again when it is broken.
func (g *verbRig) trySnap(n *Node) (proto.Snapshot, error) {
	ctx, cancel := context.WithTimeout(g.t.Context(), 10*time.Second)
	defer cancel()
	var snap proto.Snapshot
	if s := g.open[n]; s != nil {
		if err := s.Call(ctx, proto.MethodSnapshot, nil, &snap); err == nil {
			return snap, nil
		}
		_ = s.Close() // it is broken
		delete(g.open, n)
	}
	s, err := g.dial(n)
	if err != nil {
		return snap, err
	}
	g.open[n] = s
	return snap, s.Call(ctx, proto.MethodSnapshot, nil, &snap)
}

func (g *verbRig) snap(n *Node) proto.Snapshot {
	g.t.Helper()
	var s proto.Snapshot
	g.until(time.Minute, n.Name()+"'s agent answers", func() bool {
		var err error
		if s, err = g.trySnap(n); err != nil {
			g.t.Log(err)
		}
		return err == nil
	})
	return s
}

func (g *verbRig) until(limit time.Duration, what string, ok func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) {
			out, _ := g.run("status")
			g.t.Fatalf("waited %s until %s\n%s", limit, what, out)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// whole waits until both agents see each other and both copies are UpToDate.
func (g *verbRig) whole() {
	g.t.Helper()
	g.until(90*time.Second, "both copies are UpToDate", func() bool {
		for _, n := range g.l.Nodes() {
			s, err := g.trySnap(n)
			if err != nil || !s.PeerLink.Up || len(s.Resources) != 1 || s.Lock != nil {
				return false
			}
			if r := s.Resources[0]; r.Conn != proto.Connected || r.DiskState != proto.UpToDate || r.PeerDisk != proto.UpToDate || r.OutOfSync != 0 {
				return false
			}
		}
		return true
	})
}

// killAgent is kill -9 of a node's agent; startAgain starts it and waits until it answers.
func (g *verbRig) killAgent(n *Node) {
	g.t.Helper()
	g.sh(n, "kill -9 $(cat /run/santui-agent.pid); while kill -0 $(cat /run/santui-agent.pid) 2>/dev/null; do sleep 0.05; done")
}

func (g *verbRig) startAgain(n *Node) {
	g.t.Helper()
	if err := n.StartAgent(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
	g.until(20*time.Second, "the agent of "+n.Name()+" answers", func() bool { _, err := g.trySnap(n); return err == nil })
}

// patient runs a verb until no check blocks it: on a busy machine a look at the stack may not be complete at once.
func (g *verbRig) patient(args ...string) string {
	g.t.Helper()
	var out string
	g.until(60*time.Second, "nothing blocks santui "+strings.Join(args, " "), func() bool {
		var code int
		if out, code = g.run(args...); code == 3 {
			g.t.Logf("santui %s: %s", strings.Join(args, " "), out)
			return false
		}
		if code != 0 {
			g.t.Fatalf("santui %s: exit %d\n%s", strings.Join(args, " "), code, out)
		}
		return true
	})
	return out
}

// move fails over and looks at the result.
func (g *verbRig) move(to *Node) {
	g.t.Helper()
	g.patient("failover", "--to", to.Name(), "--confirm", PairName)
	g.onService(to)
}

func (g *verbRig) note(format string, args ...any) {
	row := fmt.Sprintf(format, args...)
	g.matrix = append(g.matrix, row)
	g.t.Log(row) // a run that is cut short has shown it
}

// step starts an operation that pauses before every step, and lets it do n of them.
func (g *verbRig) step(req proto.OpStartRequest, on *Node, n int) proto.Op {
	g.t.Helper()
	s := g.cockpit(on)
	defer func() { _ = s.Close() }()
	req.Resource, req.Confirm, req.Owner, req.StepByStep = "r0", PairName, "test", true
	var o proto.Op
	g.until(60*time.Second, "the operation starts", func() bool { // patient with a veto, as move is
		err := s.Call(g.t.Context(), proto.MethodOpStart, req, &o)
		if err != nil && !errors.Is(err, &proto.Error{Code: proto.CodeVeto}) {
			g.t.Fatal(err)
		}
		return err == nil
	})
	for i := 0; ; i++ {
		g.until(60*time.Second, "the operation pauses", func() bool {
			var r proto.Report
			if err := s.Call(g.t.Context(), proto.MethodReport, proto.OpRequest{ID: o.ID}, &r); err != nil {
				g.t.Fatal(err)
			}
			o = r.Op
			return o.State != proto.OpRunning
		})
		if i == n || o.State != proto.OpPaused {
			return o
		}
		if err := s.Call(g.t.Context(), proto.MethodOpDecide, proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceResume, By: "test"}, &o); err != nil {
			g.t.Fatal(err)
		}
		before := o.Rev
		g.until(60*time.Second, "the step begins", func() bool {
			var r proto.Report
			err := s.Call(g.t.Context(), proto.MethodReport, proto.OpRequest{ID: o.ID}, &r)
			return err == nil && r.Op.Rev > before
		})
	}
}

// TestLongVerbs runs drill, takeover, rejoin, resolve and undo on two kernels with the guide's LVM stack.
func TestLongVerbs(t *testing.T) {
	t.Parallel()
	g := newVerbRig(t, rigOptions{})
	defer func() { t.Logf("matrix:\n%s", strings.Join(g.matrix, "\n")) }()
	for _, part := range []struct {
		name string
		do   func(*verbRig)
	}{
		{"drill", (*verbRig).testDrill},
		{"agent death", (*verbRig).testAgentDeath},
		{"takeover", (*verbRig).testTakeover},
		{"leftovers", (*verbRig).testLeftovers},
		{"split brain", (*verbRig).testSplitBrain},
	} {
		began := time.Now()
		if !t.Run(part.name, func(t *testing.T) { g.t = t; part.do(g) }) {
			g.t = t
			return
		}
		g.t = t
		t.Logf("%s took %.1f s", part.name, time.Since(began).Seconds())
	}
}

func (g *verbRig) testDrill() {
	t := g.t
	g.must(4, []string{"drill", "--to", "weasel"}, "--confirm")
	g.patient("drill", "--to", "weasel", "--dry-run")
	out := g.patient("drill", "--to", "weasel", "--confirm", PairName, "--json")
	var o proto.Op
	if err := json.Unmarshal([]byte(out), &o); err != nil {
		t.Fatal(err)
	}
	if len(o.Outages) != 2 {
		t.Fatalf("outages %+v", o.Outages)
	}
	for _, x := range o.Outages {
		if x.Service <= 0 || x.Storage < x.Service/2 || x.Storage > x.Service+2 {
			t.Errorf("outage %+v", x)
		}
		g.note("drill, move to %-6s: service away %.2f s, storage away %.2f s", x.To, x.Service, x.Storage)
	}
	if !strings.Contains(o.Outcome, "all as written") {
		t.Error(o.Outcome)
	}
	g.onService(g.otter)
	if out, err := g.otter.Sh(t.Context(), "ls -a /mnt/test"); err != nil || strings.Contains(out, "drill") {
		t.Errorf("left behind: %s, %v", out, err)
	}
	t.Log(g.must(0, []string{"report"}, "drill  2      service", "drill  2      storage", "median"))
}

// testAgentDeath kills the agent that runs a failover between any two steps. The operation is orphaned; a failover to the
// same node carries on, or undo goes back. Every failover that succeeds turns the direction.
func (g *verbRig) testAgentDeath() {
	from, to := g.otter, g.weasel
	for n := range 7 { // unmount, deactivate, demote, attest, promote, activate
		o := g.step(proto.OpStartRequest{Verb: proto.VerbFailover, To: to.Name()}, to, n)
		g.killAgent(to)
		if n == 2 {
			g.must(5, []string{"attach", o.ID}, "does not answer")
		}
		g.startAgain(to)
		g.whole()
		if n == 2 {
			g.must(7, []string{"attach", o.ID}, "orphaned", "santui undo "+o.ID)
			g.must(4, []string{"undo", o.ID}, "--confirm")
		}
		if n%2 == 0 {
			g.must(0, []string{"undo", o.ID, "--confirm", PairName}, "everything is back on "+from.Name())
			if n == 6 { // the volume group was active on the device that died with the agent; the step's result says so
				g.must(0, []string{"report", o.ID, "--json"}, "dmsetup remove /dev/storage/test")
				g.sh(to, "dmsetup remove /dev/storage/test")
			}
			g.onService(from)
			g.note("agent of %-6s killed after %d steps: orphaned; undo: service back on %s", to.Name(), n, from.Name())
			continue
		}
		g.move(to)
		g.note("agent of %-6s killed after %d steps: orphaned; failover again: service on %s", to.Name(), n, to.Name())
		from, to = to, from
	}
	if from == g.weasel {
		g.move(g.otter)
	}
}

// finish lets a paused operation go on to its end.
func (g *verbRig) finish(o proto.Op, on *Node) proto.Op {
	g.t.Helper()
	s := g.cockpit(on)
	defer func() { _ = s.Close() }()
	g.until(3*time.Minute, "the operation ends", func() bool {
		var r proto.Report
		if err := s.Call(g.t.Context(), proto.MethodReport, proto.OpRequest{ID: o.ID}, &r); err != nil {
			g.t.Fatal(err)
		}
		if o = r.Op; o.State == proto.OpPaused {
			var reply proto.Op // an error means that it goes on already
			_ = s.Call(g.t.Context(), proto.MethodOpDecide, proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceResume, By: "test"}, &reply)
		}
		return o.State.Final()
	})
	return o
}

// silence waits until weasel has not heard of otter for long enough.
func (g *verbRig) silence() {
	g.t.Helper()
	g.until(60*time.Second, "otter counts as gone", func() bool {
		out, code := g.run("check", "--to", "weasel", "--verb", "takeover")
		if code == 0 {
			g.t.Log(out)
		}
		return code == 0
	})
}

const statement = "its power plug is in my hand"

func (g *verbRig) testTakeover() {
	t := g.t
	g.must(3, []string{"takeover", "--to", "weasel", "--confirm", PairName, "--peer-is-off", statement}, "PEER-GONE", "answers")
	time.Sleep(6 * time.Second) // weasel's agent looks at otter's stack every five seconds
	if err := g.otter.Kill(); err != nil {
		t.Fatal(err)
	}
	g.must(3, []string{"takeover", "--to", "weasel", "--confirm", PairName, "--peer-is-off", statement}, "PEER-GONE")
	g.must(3, []string{"failover", "--to", "weasel", "--confirm", PairName}, "AGENTS")
	g.silence()
	g.must(4, []string{"takeover", "--to", "weasel", "--peer-is-off", statement}, "--confirm")
	g.must(4, []string{"takeover", "--to", "weasel", "--confirm", PairName}, "--peer-is-off")
	t.Log(g.must(0, []string{"takeover", "--to", "weasel", "--confirm", PairName, "--peer-is-off", statement}, "skipped", "it must rejoin"))
	if got := g.read(g.weasel); got != g.sums {
		t.Errorf("files on weasel after the takeover:\n%s\nwant\n%s", got, g.sums)
	}
	if r := g.snap(g.weasel).Resources[0]; !strings.Contains(r.NeedsRejoin, "otter must rejoin") || !strings.Contains(r.Problem, "rejoin") {
		t.Errorf("not flagged: %q, %q", r.NeedsRejoin, r.Problem)
	}
	g.note("power cut of otter while Primary: takeover: service on weasel, flagged")
	g.sh(g.weasel, "dd if=/dev/urandom of=/mnt/test/after bs=1M count=3 status=none; sync")
	g.sums = g.read(g.weasel)
	if err := g.otter.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.startAgain(g.otter)
	if r := g.snap(g.otter).Resources[0]; r.Role != proto.Secondary {
		t.Errorf("otter comes back as %s", r.Role)
	}
	g.whole()
	g.must(0, []string{"rejoin", "--to", "weasel"}, "already", "otter follows weasel again")
	g.until(10*time.Second, "the flag is gone", func() bool { return g.snap(g.weasel).Resources[0].NeedsRejoin == "" })
	g.onService(g.weasel)
	g.note("otter is back: Secondary, resynced, flag gone")
	g.sh(g.otter, "mkdir -p /mnt/test")
	g.move(g.otter)
	g.note("failback to otter: every file as written on either side")
	out := g.must(0, []string{"ops", "--json"})
	if !strings.Contains(out, statement) {
		t.Error("the statement is not recorded")
	}
}

// forget runs a script on weasel while its agent is stopped.
func (g *verbRig) forget(script string) {
	g.t.Helper()
	if err := g.weasel.StopAgent(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
	g.sh(g.weasel, script)
	g.startAgain(g.weasel)
}

// testLeftovers kills the agent of the Primary, whose machine lives on, and takes over, knowing what was mounted there or
// not: rejoin names the mount and the volume that stand on the dead device, and what uses the backing disk.
func (g *verbRig) testLeftovers() {
	time.Sleep(6 * time.Second)
	g.killAgent(g.otter)
	const known = "/var/lib/santui/ops/known"
	g.forget("mv " + known + " /run/known")
	g.silence()
	g.must(0, []string{"check", "--to", "weasel", "--verb", "takeover"}, "warn  LAST-STACK", "weasel has never seen what is mounted on otter", "warn  DATA-AT-RISK")
	g.forget("rm -rf " + known + "; mv /run/known " + known)
	g.silence()
	g.patient("takeover", "--to", "weasel", "--confirm", PairName, "--peer-is-off", "its agent is dead")
	g.startAgain(g.otter)
	g.whole()
	g.sh(g.otter, "losetup -f /dev/ubdb")
	g.must(3, []string{"rejoin", "--to", "weasel"}, "BACKING-ACTIVE", "otter: loop /dev/loop")
	g.sh(g.otter, "losetup -d $(losetup -j /dev/ubdb | cut -d: -f1)")
	g.must(0, []string{"check", "--to", "weasel", "--verb", "rejoin"}, "warn  LEFTOVERS")
	g.t.Log(g.must(0, []string{"rejoin", "--to", "weasel"}, "LEFTOVERS", "/mnt/test on otter still shows /dev/mapper/storage-test: umount it there", "dmsetup remove storage-test"))
	g.must(3, []string{"failover", "--to", "otter", "--confirm", PairName}, "VG-CLASH")
	g.sh(g.otter, "umount /mnt/test; dmsetup remove storage-test")
	g.until(time.Minute, "nothing is left", func() bool {
		out, _ := g.run("check", "--to", "weasel", "--verb", "rejoin")
		return strings.Contains(out, "ok    LEFTOVERS")
	})
	g.note("agent of otter killed while Primary; takeover; back: rejoin names the mount and the volume that are left")
	g.move(g.otter)
}

// fork cuts the link, makes both nodes Primary, lets both write, and heals the link: weasel's data is what counts.
func (g *verbRig) fork() {
	t := g.t
	t.Helper()
	time.Sleep(6 * time.Second) // weasel's agent looks at otter's stack every five seconds
	if err := g.otter.CutLink(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.silence()
	g.patient("takeover", "--to", "weasel", "--confirm", PairName, "--peer-is-off", "I only believe so")
	g.sh(g.otter, "dd if=/dev/urandom of=/mnt/test/lost bs=1M count=1 status=none; sync")
	g.sh(g.weasel, "dd if=/dev/urandom of=/mnt/test/kept bs=1M count=2 status=none; sync")
	g.sums = g.read(g.weasel)
	if err := g.otter.HealLink(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.until(60*time.Second, "both nodes call it a split brain", func() bool {
		for _, n := range g.l.Nodes() {
			s, err := g.trySnap(n)
			if err != nil || !s.PeerLink.Up || s.Resources[0].Conn >= proto.Connected || !strings.Contains(s.Resources[0].Problem, "split brain") {
				return false
			}
		}
		return true
	})
	g.note("cut and forced: two Primaries; healed: split brain on both, nothing resynced")
}

func (g *verbRig) testSplitBrain() {
	t := g.t
	g.fork()
	g.must(3, []string{"rejoin", "--to", "weasel"}, "SPLIT", "santui resolve")
	t.Log(g.must(0, []string{"check", "--to", "weasel", "--verb", "resolve"}, "FORKED", "B) changed since the fork", "discards: otter: Primary since"))
	g.must(4, []string{"resolve", "--discard", "otter"}, "--confirm")
	if got := g.read(g.weasel); got != g.sums {
		t.Errorf("a refused resolve changed something:\n%s", got)
	}
	if out := g.patient("resolve", "--discard", "otter", "--confirm", PairName); !strings.Contains(out, "the changes of otter are discarded") {
		t.Error(out)
	}
	g.whole()
	g.onService(g.weasel)
	g.note("resolve --discard otter: otter taken down, resynced; weasel's data stays")
	g.must(3, []string{"resolve", "--discard", "otter", "--confirm", PairName}, "FORKED")
	g.move(g.otter)
	g.note("failover to otter: weasel's data is there too")
}
