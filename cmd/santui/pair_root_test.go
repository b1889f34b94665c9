//go:build root

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/cmd/internal/demo"
	"example.com/santui/proto"
)

// rig is a pair of real agents and a configuration that names them.
type rig struct {
	*demo.Pair
	config string
}

func newRig(t *testing.T, size int64, rate string) *rig {
	t.Helper()
	t.Setenv("SANTUI_DEMO_DIR", demoBase(t))
	p, err := demo.Start(t.Context(), demo.Options{Size: size, Rate: rate, Agent: filepath.Join(bin, "santui-agent"), Say: demo.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range demo.Nodes {
				b, _ := os.ReadFile(filepath.Join(p.Dir, n, "agent.log"))
				t.Logf("log of %s:\n%s", n, b)
			}
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	text := fmt.Sprintf("[[pair]]\nname = %q\n", demo.Name)
	for _, n := range p.CLI().Node {
		text += fmt.Sprintf("[[pair.node]]\nname = %q\nsocket = %q\n", n.Name, n.Socket)
	}
	return &rig{p, writeConfig(t, text)}
}

// run runs santui on the pair and demands the exit code and the words.
func (r *rig) run(t *testing.T, code int, args string, words ...string) result {
	t.Helper()
	res := execute(t, "santui", append([]string{"--config", r.config}, strings.Fields(args)...)...)
	if res.code != code {
		t.Errorf("santui %s: want exit %d, got %v", args, code, res)
	}
	for _, w := range words {
		if !strings.Contains(res.out+res.err, w) {
			t.Errorf("santui %s: no %q in %v", args, w, res)
		}
	}
	return res
}

// decode runs santui with --json and decodes its document.
func decode[T any](t *testing.T, r *rig, code int, args string) T {
	t.Helper()
	var doc T
	res := r.run(t, code, args+" --json")
	if err := json.Unmarshal([]byte(res.out), &doc); err != nil {
		t.Fatalf("santui %s --json: %v: %v", args, err, res)
	}
	return doc
}

func (r *rig) pid(t *testing.T, node string) int {
	t.Helper()
	s, err := r.Snapshot(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	return s.Agent.PID
}

// inside is a path as a node's agent sees it.
func (r *rig) inside(t *testing.T, node, path string) string {
	return fmt.Sprintf("/proc/%d/root%s", r.pid(t, node), path)
}

func (r *rig) mountedOn(t *testing.T, node string) bool {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", r.pid(t, node)))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), " "+r.Mount+" ")
}

// on demands that node, and only node, is Primary and has the file system, with the file in it.
func (r *rig) on(t *testing.T, node string) {
	t.Helper()
	for _, n := range demo.Nodes {
		s, err := r.Snapshot(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		want := proto.Secondary
		if n == node {
			want = proto.Primary
		}
		if got := s.Resources[0].Role; got != want || r.mountedOn(t, n) != (n == node) {
			t.Errorf("%s is %v, mounted: %v", n, got, r.mountedOn(t, n))
		}
	}
	if b, err := os.ReadFile(r.inside(t, node, r.Mount+"/file")); err != nil || len(b) != 1<<20 {
		t.Errorf("the file on %s: %d bytes, %v", node, len(b), err)
	}
}

// busy starts a process that works in the mount on a node.
func (r *rig) busy(t *testing.T, node string) (pid int, stop func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nsenter", "-m", "-t", fmt.Sprint(r.pid(t, node)), "--", "sh", "-c", `cd "$0" && echo in && exec sleep 600`, r.Mount)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "in\n" {
		stop()
		t.Fatalf("the busy process: %q %v", line, err)
	}
	return cmd.Process.Pid, stop
}

// TestCommandLine walks one pair through its life with the real programs: sync, moves, refusals, a lost agent.
func TestCommandLine(t *testing.T) {
	r := newRig(t, 64<<20, "4M")
	if err := r.StartSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct {
		name string
		run  func(*testing.T, *rig)
	}{
		{"sync", duringSync}, {"status", whenSynced}, {"consent", consent}, {"busy", busyMount}, {"lock", heldLock}, {"failover", moves}, {"killed", lostAgent},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, r) }) {
			return
		}
	}
}

func duringSync(t *testing.T, r *rig) {
	poll(t, 10*time.Second, "the sync runs", func() (bool, string) {
		st := r.run(t, 0, "status")
		return strings.Contains(st.out, "cs:SyncSource") && strings.Contains(st.out, "cs:SyncTarget"), st.out
	})
	r.run(t, 0, "status", "pair demo", "otter: agent", "weasel: agent", "cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent",
		"cs:SyncTarget ro:Secondary/Primary ds:Inconsistent/UpToDate", "finish:", "speed:")
	l := decode[proto.CheckList](t, r, 3, "check --to weasel")
	i := slices.IndexFunc(l.Checks, func(c proto.Check) bool { return c.Code == proto.CheckSync })
	if i < 0 || l.Checks[i].Result != proto.CheckFail || !l.Checks[i].Hard || len(l.Checks[i].Evidence) == 0 || l.Checks[i].Remedy == "" || l.Schema != proto.Schema {
		t.Errorf("%+v", l)
	}
	r.run(t, 3, "check --to weasel", "FAIL  SYNC", "not possible now")
	r.run(t, 3, "failover --to weasel --confirm demo", "SYNC")
	r.run(t, 3, "sync start --from otter --confirm demo", "r0")
	r.run(t, 4, "sync start --from otter --confirm demon", "--confirm demo")

	r.run(t, 0, "sync pause")
	conns := func() (bool, string) {
		st := r.run(t, 0, "status")
		return strings.Contains(st.out, "PausedSyncS") && strings.Contains(st.out, "PausedSyncT"), st.out
	}
	poll(t, 10*time.Second, "the sync is paused on both nodes", conns)
	r.run(t, 0, "sync status", "weasel r0 PausedSyncT", "paused")
	r.run(t, 0, "sync resume")
	poll(t, 10*time.Second, "the sync goes on", func() (bool, string) {
		st := r.run(t, 0, "status")
		return strings.Contains(st.out, "cs:SyncTarget"), st.out
	})
	r.run(t, 0, "sync rate 500M")
	poll(t, 30*time.Second, "both copies are UpToDate", func() (bool, string) {
		st := r.run(t, 0, "status")
		return strings.Count(st.out, "cs:Connected") == 2 && strings.Count(st.out, "ds:UpToDate/UpToDate") == 2, st.out
	})
	r.run(t, 3, "sync pause", "no resync")

	r.run(t, 0, "suspend-io --on otter --json", `"schema": "santui/1"`, `"action": "suspend-io"`, `"node": "otter"`)
	r.run(t, 0, "resume-io --on otter --resource r0 --json", `"action": "resume-io"`, `"resource": "r0"`)
	r.run(t, 3, "outdate --on weasel --json", `"error"`, `"exit": 3`)
	poll(t, 30*time.Second, "the event list says so", func() (bool, string) {
		s, err := r.Snapshot(t.Context(), "weasel")
		if err != nil {
			return false, err.Error()
		}
		var said []string
		for _, e := range s.Events {
			if strings.HasPrefix(e.Text, "failover to weasel ") {
				said = append(said, string(e.Level)+" "+e.Text)
			}
		}
		n := len(said)
		return n > 0 && len(slices.Compact(said)) == n && said[n-1] == "info failover to weasel ready", fmt.Sprintf("%q", said)
	})
}

func whenSynced(t *testing.T, r *rig) {
	if err := r.MakeFS(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.WriteFile("otter", "file", 1); err != nil {
		t.Fatal(err)
	}
	poll(t, 15*time.Second, "the cached look at the stack shows the mount and a ready target", func() (bool, string) {
		st := r.run(t, 0, "status")
		return strings.Contains(st.out, r.Mount+" (ext4)") && strings.Contains(st.out, "failover of r0 to weasel: ready"), st.out
	})
	st := decode[pairStatus](t, r, 0, "status")
	if st.Schema != proto.Schema || st.Pair != "demo" || time.Since(st.AsOf) > time.Minute || len(st.Nodes) != 2 {
		t.Errorf("%+v", st)
	}
	for i, n := range st.Nodes {
		if n.Node != demo.Nodes[i] || !n.Reachable || n.Snapshot == nil || n.Snapshot.Resources[0].OutOfSync != 0 || n.Snapshot.Resources[0].Size == 0 {
			t.Errorf("%+v", n)
		}
	}
	r.run(t, 0, "check --to weasel", "ok    SYNC", "ready")

	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "santui"), "--config", r.config, "watch", "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	sc := bufio.NewScanner(out)
	sc.Buffer(nil, 1<<22)
	for i := 0; i < 200 && (seen["otter"] < 2 || seen["weasel"] < 1) && sc.Scan(); i++ {
		var n struct {
			Schema string
			nodeStatus
		}
		if err := json.Unmarshal(sc.Bytes(), &n); err != nil || n.Schema != proto.Schema || !n.Reachable || n.Snapshot == nil {
			t.Fatalf("%v: %s", err, sc.Bytes())
		}
		seen[n.Node]++
		if _, err := r.WriteFile("otter", "news", 2); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	for sc.Scan() {
	}
	_ = cmd.Wait()
	if seen["otter"] < 2 || seen["weasel"] < 1 || cmd.ProcessState.ExitCode() != cli.ExitTerminated {
		t.Errorf("%v lines, %v", seen, cmd.ProcessState)
	}
}

func consent(t *testing.T, r *rig) {
	r.run(t, 4, "failover --to weasel", "not confirmed", "--confirm")
	r.run(t, 4, "failover --to weasel --confirm demon", "not confirmed", "--confirm demo")
	r.run(t, 5, "failover --to weasel --confirm demo --plan 0123", "plan changed")
	r.run(t, 2, "failover --to weasel --confirm demo --resource r9", "r9", "r0")
	r.run(t, 0, "failover --to weasel --dry-run", "nothing was changed")
	o := decode[proto.Op](t, r, 0, "failover --to weasel --dry-run")
	if o.State != proto.OpDone || len(o.Steps) != 5 {
		t.Errorf("%+v", o)
	}
	if ops := decode[proto.OpsReply](t, r, 0, "ops"); len(ops.Ops) != 0 {
		t.Errorf("nothing ran, yet the journal has %+v", ops.Ops)
	}
	r.on(t, "otter")
}

func busyMount(t *testing.T, r *rig) {
	pid, stop := r.busy(t, "otter")
	defer stop()
	r.run(t, 3, "failover --to weasel --confirm demo", "BUSY-PROC", fmt.Sprintf("pid %d sleep", pid), "stop the listed processes")
	r.run(t, 3, "check --to weasel", fmt.Sprintf("pid %d sleep", pid))
	r.on(t, "otter")
	r.run(t, 6, "failover --to weasel --confirm demo --accept BUSY-PROC", "unmount", "undone", "everything is back on otter", fmt.Sprint(pid))
	r.on(t, "otter")
	ops := decode[proto.OpsReply](t, r, 0, "ops")
	if len(ops.Ops) != 1 || ops.Ops[0].State != proto.OpUndone || !slices.Equal(ops.Ops[0].Accepted, []string{proto.CheckBusyProc}) {
		t.Errorf("%+v", ops.Ops)
	}
	r.run(t, 6, "attach "+ops.Ops[0].ID, "undone")
	r.run(t, 7, "failover --to weasel --confirm demo --accept BUSY-PROC --keep", "left so")
	r.on(t, "otter")
}

// heldLock lets an operation stop half way, without a policy for that, and meets its lock.
func heldLock(t *testing.T, r *rig) {
	_, stop := r.busy(t, "otter")
	defer stop()
	c, err := r.Session(t.Context(), "weasel")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	var o proto.Op
	if err := c.Call(t.Context(), proto.MethodOpStart, proto.OpStartRequest{
		RequestID: "1", Verb: proto.VerbFailover, To: "weasel", Confirm: demo.Name, Accept: []string{proto.CheckBusyProc}, Owner: "ann@desk",
	}, &o); err != nil {
		t.Fatal(err)
	}
	r.run(t, 8, "failover --to weasel --confirm demo", "ann@desk", "santui attach "+o.ID)
	poll(t, time.Minute, "the operation stops", func() (bool, string) {
		rep := decode[proto.Report](t, r, 0, "report "+o.ID)
		return rep.Op.State == proto.OpStopped, string(rep.Op.State)
	})
	r.run(t, 8, "failover --to weasel --confirm demo", "ann@desk")
	r.run(t, 8, "failover --to otter --confirm demo", "ann@desk")
	r.run(t, 3, "check --to weasel", "FAIL  LOCKED", "ann@desk")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Call(ctx, proto.MethodOpDecide, proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceUndo, By: "ann@desk"}, &o); err != nil {
		t.Fatal(err)
	}
	r.run(t, 6, "attach "+o.ID, "undone")
	r.on(t, "otter")
}

func moves(t *testing.T, r *rig) {
	// Ends what --keep left half way further up: the whole service is on otter.
	r.run(t, 0, "failover --to otter --confirm demo", "already", "r0 is Primary on otter")
	r.run(t, 3, "failover --to otter --confirm demo", "ROLES", "otter is Primary already")
	r.run(t, 0, "failover --to weasel --confirm demo", "done", "r0 is Primary on weasel")
	r.on(t, "weasel")
	r.run(t, 3, "failover --to weasel --confirm demo", "ROLES", "weasel is Primary already")
	o := decode[proto.Op](t, r, 0, "failover --to otter --confirm demo")
	if o.State != proto.OpDone || o.Outage <= 0 {
		t.Errorf("%+v", o)
	}
	r.on(t, "otter")
	r.run(t, 0, "failover --to weasel --confirm demo")
	r.on(t, "weasel")

	r.run(t, 0, "ops", o.ID, "undone", "done")
	r.run(t, 0, "report "+o.ID, "confirmed by  root@", "service away", "umount "+r.Mount, "r0 is Primary", "otter         agent", "kernel")
	if rep := decode[proto.Report](t, r, 0, "report "+o.ID); rep.Op.ID != o.ID || rep.Schema != proto.Schema {
		t.Errorf("%+v", rep)
	}
	r.run(t, 0, "commands "+o.ID, "umount", r.Mount, "exit 0")
	r.run(t, 0, "attach "+o.ID, "done: r0 is Primary on otter")
	r.run(t, 2, "attach 20200101-000000-0000", "not in this node's journal")
	r.run(t, 2, "report 20200101-000000-0000", "santui ops")
}

// lostAgent kills the Secondary's agent.
func lostAgent(t *testing.T, r *rig) {
	if err := syscall.Kill(r.pid(t, "otter"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.run(t, 5, "status", "otter: the agent does not answer", "weasel: agent", "ro:Primary/")
	st := decode[pairStatus](t, r, 5, "status")
	if st.Nodes[0].Reachable || !st.Nodes[1].Reachable {
		t.Errorf("%+v", st)
	}
	r.run(t, 5, "check --to otter", "otter: the agent does not answer")
	r.run(t, 3, "check --to weasel", "FAIL  AGENTS", "otter does not answer weasel")
	r.run(t, 3, "failover --to weasel --confirm demo", "AGENTS")
	r.run(t, 0, "ops", "done")
	poll(t, 30*time.Second, "weasel notices", func() (bool, string) {
		st := r.run(t, 5, "status")
		return strings.Contains(st.out, "no control link to otter") && strings.Contains(st.out, "cs:WFConnection"), st.out
	})
	if _, err := r.WriteFile("weasel", "alone", 3); err != nil {
		t.Errorf("the Primary must carry on alone: %v", err)
	}
}
