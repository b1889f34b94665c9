package op

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
)

// world prepares a rig for a verb and says what must hold when the verb is done, and when it is undone.
type world struct {
	name    string
	verb    proto.Verb
	prepare func(*rig)
	done    func(*rig) string // "" or what is wrong
	undone  func(*rig) string
}

func home(want string) func(*rig) string {
	return func(g *rig) string {
		if h := g.w.home(); h != want {
			return "service: " + h
		}
		return ""
	}
}

// powerCut is otter going away while it is Primary; weasel has seen its stack before.
func powerCut(g *rig) {
	if _, err := g.r.Look(g.t.Context(), proto.CheckRequest{Verb: proto.VerbFailover, Resource: "r0"}, 0); err != nil {
		g.t.Fatal(err)
	}
	if o, err := g.otter.Observe(g.t.Context(), proto.ObserveRequest{Resource: "r0"}); err != nil || g.r.journal.SeePeer(o) != nil {
		g.t.Fatal(err)
	}
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	m := g.w.nodes["otter"]
	m.gone, m.role, m.active, m.mounted, m.locked = true, proto.Secondary, false, false, nil
	m.run(false)
	g.w.disconnect(proto.WFConnection)
}

// back is otter coming back after weasel took over and wrote.
func back(g *rig) {
	powerCut(g)
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	m := g.w.nodes["weasel"]
	m.role, m.active, m.mounted = proto.Primary, true, true
	g.w.fork(m)
	g.w.write("weasel", "new", "data")
	g.w.nodes["otter"].gone = false
	for _, m := range g.w.nodes {
		m.conn = proto.StandAlone
	}
}

// split is both nodes having written on their own.
func split(g *rig) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	g.w.disconnect(proto.StandAlone)
	m := g.w.nodes["weasel"]
	m.role, m.active, m.mounted = proto.Primary, true, true
	g.w.fork(m)
	g.w.write("weasel", "new", "weasel's")
	g.w.write("otter", "new", "otter's")
}

// splitOverLVM is one where otter's backing disk is a logical volume whose group has room.
func splitOverLVM(g *rig) {
	split(g)
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	g.w.nodes["otter"].lv = &proto.BackingLV{VG: "disks", LV: "r0", Type: "linear", Size: 1 << 30, Free: 4 << 30, Extent: 4 << 20}
}

func follows(g *rig) string {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	a, b := g.w.nodes["otter"], g.w.nodes["weasel"]
	if a.conn != proto.Connected || a.role != proto.Secondary || b.role != proto.Primary || !b.mounted || a.data["new"] != b.data["new"] || b.data["new"] == "" {
		return fmt.Sprintf("otter %s %s %v, weasel %s %v", a.conn, a.role, a.data, b.role, b.data)
	}
	return ""
}

// passive says whether weasel has nothing of the service.
func passive(g *rig) string {
	if m := g.w.nodes["weasel"]; m.role != proto.Secondary || m.active || m.mounted || m.address || m.script || m.unit || m.export {
		return g.w.home()
	}
	return ""
}

// with adds to a world what agent.toml can name.
func with(prepare func(*rig)) func(*rig) {
	return func(g *rig) {
		g.w.equip()
		prepare(g)
	}
}

var worlds = []world{
	{"failover+", proto.VerbFailover, with(func(*rig) {}), home("weasel"), home("otter")},
	{"drill+", proto.VerbDrill, with(func(*rig) {}), home("otter"), home("otter")},
	{"takeover+", proto.VerbTakeover, with(powerCut), home("weasel"), passive},
	{"resolve+", proto.VerbResolve, with(split), func(g *rig) string {
		if m := g.w.nodes["otter"]; m.address || m.script || m.unit || m.export {
			return "otter still has something of the service"
		}
		return follows(g)
	}, func(*rig) string { return "" }},
	{"failover", proto.VerbFailover, func(*rig) {}, home("weasel"), home("otter")},
	{"cold", proto.VerbFailover, outage, home("weasel"), dark},
	{"cold+", proto.VerbFailover, with(outage), home("weasel"), dark},
	{"drill", proto.VerbDrill, func(*rig) {}, home("otter"), home("otter")},
	{"takeover", proto.VerbTakeover, powerCut, home("weasel"), passive},
	{"rejoin", proto.VerbRejoin, back, follows, home("weasel")},
	{"resolve", proto.VerbResolve, splitOverLVM, func(g *rig) string {
		if d := g.w.nodes["otter"].kept["new"]; d != "otter's" {
			return "the snapshot holds " + d
		}
		return follows(g)
	}, func(g *rig) string {
		if d := g.w.nodes["weasel"].data["new"]; d != "weasel's" {
			return "the winner's data is " + d
		}
		return ""
	}},
}

// request starts a verb as the command line does.
func request(verb proto.Verb) proto.OpStartRequest {
	return proto.OpStartRequest{Verb: verb, Resource: "r0", To: "weasel", Confirm: "demo", Owner: "me@here", Statement: "I pulled its plug"}
}

func (g *rig) begin(t *testing.T, req proto.OpStartRequest) proto.Op {
	t.Helper()
	if _, err := g.r.Start(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	return g.wait(t)
}

// reborn replaces the runner by one that knows only the journal, as an agent does that was started again.
func (g *rig) reborn(t *testing.T) { g.rebornFrom(t, g.r.journal.dir) }

// rebornFrom is reborn with the journal as it was at some moment.
func (g *rig) rebornFrom(t *testing.T, dir string) {
	t.Helper()
	g.r.Close()
	g.w.dead = false
	for len(g.changes) > 0 {
		<-g.changes
	}
	j, err := OpenJournal(dir, "weasel")
	if err != nil {
		t.Fatal(err)
	}
	g.w.nodes["weasel"].locked, g.w.nodes["otter"].locked = nil, nil // what the link's return does
	g.r = NewRunner("demo", g.weasel, g.otter, j, func(o proto.Op) { g.changes <- o })
	t.Cleanup(g.r.Close)
}

// cells of the matrix: what was injected, what was chosen, how it ended.
type cell struct{ verb, step, fault, choice, end, state string }

func printMatrix(t *testing.T, rows []cell) {
	t.Helper()
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "\n%-9s %-26s %-22s %-16s %-10s %s", r.verb, r.step, r.fault, r.choice, r.end, r.state)
	}
	t.Log(b.String())
}

func planOf(t *testing.T, wd world) []proto.Step {
	t.Helper()
	g := newRig(t)
	wd.prepare(g)
	reply, err := g.r.Look(t.Context(), proto.CheckRequest{Verb: wd.verb, Resource: "r0"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !reply.Checks.Ready() {
		t.Fatalf("%s: blocked by %+v", wd.verb, reply.Checks.Blocking())
	}
	return reply.Plan.Steps
}

// TestVerbMatrix makes every step of every verb fail once, before its effect and after it, and lets the operator undo,
// retry or keep. Whatever is chosen, the operation ends in a state that is named, there are never two Primaries that
// there were not before, and the pair gets where it shall.
func TestVerbMatrix(t *testing.T) {
	var rows []cell
	for _, wd := range worlds {
		for _, s := range planOf(t, wd) {
			if s.Skip != "" || s.Kind == proto.StepAttest || s.Kind == proto.StepGone {
				continue // done by the runner itself
			}
			if strings.HasSuffix(wd.name, "+") && s.Unit == "" && s.Script == nil && s.Address == nil && s.Export == nil {
				continue // its plain twin has it
			}
			for _, after := range []bool{false, true} {
				for _, choice := range []proto.Choice{proto.ChoiceUndo, proto.ChoiceRetry, proto.ChoiceKeep} {
					row := cell{wd.name, fmt.Sprintf("%d %s@%s", s.Index, s.Kind, s.Node), "fails before", string(choice), "", "ok"}
					if after {
						row.fault = "times out after effect"
					}
					t.Run(strings.Join([]string{row.verb, row.step, row.fault, row.choice}, " "), func(t *testing.T) {
						row.end, row.state = faulted(t, wd, s, after, choice)
						if row.state != "ok" {
							t.Error(row.state)
						}
					})
					rows = append(rows, row)
				}
			}
		}
	}
	printMatrix(t, rows)
}

// faulted runs a verb whose step s fails once and returns how the operation ended, and "ok" or what is wrong.
func faulted(t *testing.T, wd world, s proto.Step, after bool, choice proto.Choice) (end, verdict string) {
	g := newRig(t)
	wd.prepare(g)
	node := g.weasel
	if s.Node == "otter" {
		node = g.otter
	}
	node.fault = &fault{kind: s.Kind, node: s.Node, after: after, code: proto.CodeFailed, times: 1}
	if after {
		node.fault.code = proto.CodeTimeout
	}
	o := g.begin(t, request(wd.verb))
	if o.State != proto.OpStopped {
		return string(o.State), "did not stop: " + o.Outcome
	}
	if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: choice}); err != nil {
		return "", err.Error()
	}
	o = g.wait(t)
	if b := g.w.broken(); b != nil {
		return string(o.State), strings.Join(b, ", ")
	}
	wrong := ""
	switch choice {
	case proto.ChoiceRetry:
		if wrong = wd.done(g); o.State != proto.OpDone {
			wrong = o.Outcome
		}
	case proto.ChoiceUndo:
		wrong = wd.undone(g)
		// A loser that was demoted beside the winner is not promoted again: that would be two Primaries.
		if o.State != proto.OpUndone && wd.verb != proto.VerbResolve {
			wrong = o.Outcome
		}
	case proto.ChoiceKeep:
		if o.State != proto.OpKept {
			return string(o.State), o.Outcome
		}
		wrong = g.afterKeep(t, wd, o)
	}
	if wrong != "" {
		return string(o.State), wrong
	}
	return string(o.State), "ok"
}

// afterKeep brings an operation home that was left half way: by undo, or where there is none, by the same verb again.
func (g *rig) afterKeep(t *testing.T, wd world, o proto.Op) string {
	t.Helper()
	if wd.verb == proto.VerbRejoin || wd.verb == proto.VerbResolve {
		if next := g.begin(t, request(wd.verb)); next.State != proto.OpDone {
			return "again: " + next.Outcome
		}
		return wd.done(g)
	}
	if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceUndo, Confirm: "demo", By: "me"}); err != nil {
		return err.Error()
	}
	if o = g.wait(t); o.State != proto.OpUndone {
		return "undo later: " + o.Outcome
	}
	return wd.undone(g)
}

// TestAgentDeath ends the runner between any two steps of every verb. Its successor finds the operation orphaned and
// brings the pair home: by undo, or by the verb again.
func TestAgentDeath(t *testing.T) {
	var rows []cell
	for _, wd := range worlds {
		if wd.name == "drill+" {
			continue // its two halves are failovers
		}
		for i := range planOf(t, wd) {
			for _, how := range []string{"undo", "again"} {
				if how == "undo" && (wd.verb == proto.VerbRejoin || wd.verb == proto.VerbResolve) || how == "again" && wd.verb == proto.VerbDrill {
					continue
				}
				row := cell{wd.name, fmt.Sprintf("after %d steps", i), "agent dies", how, "", "ok"}
				t.Run(fmt.Sprintf("%s %d %s", wd.name, i, how), func(t *testing.T) {
					if row.end, row.state = died(t, wd, i, how); row.state != "ok" {
						t.Error(row.state)
					}
				})
				rows = append(rows, row)
			}
		}
	}
	printMatrix(t, rows)
}

func died(t *testing.T, wd world, steps int, how string) (end, verdict string) {
	g := newRig(t)
	wd.prepare(g)
	req := request(wd.verb)
	req.StepByStep = true
	o := g.begin(t, req)
	for range steps {
		if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceResume}); err != nil {
			return "", err.Error()
		}
		o = g.wait(t)
	}
	g.reborn(t)
	return g.orphaned(t, wd, o.ID, how)
}

// orphaned brings home an operation whose runner has died.
func (g *rig) orphaned(t *testing.T, wd world, id, how string) (end, verdict string) {
	t.Helper()
	o, _ := g.r.journal.Get(id)
	if o.State != proto.OpOrphaned {
		return string(o.State), "not orphaned: " + o.Outcome
	}
	if how == "undo" {
		if wrong := g.afterKeep(t, wd, o); wrong != "" {
			return string(o.State), wrong
		}
	} else {
		if next := g.begin(t, request(wd.verb)); next.State != proto.OpDone {
			return string(o.State), next.Outcome
		}
		if wrong := wd.done(g); wrong != "" {
			return string(o.State), wrong
		}
	}
	if b := g.w.broken(); b != nil {
		return string(o.State), strings.Join(b, ", ")
	}
	return string(o.State), "ok"
}

// TestVerbRefusals makes the conditions of each verb's own checks real and demands the refusal, and that nothing changed.
func TestVerbRefusals(t *testing.T) {
	whole := func(*rig) {}
	for _, tt := range []struct {
		name    string
		verb    proto.Verb
		prepare func(*rig)
		change  func(*rig, *proto.OpStartRequest)
		code    proto.ErrorCode
		check   string
	}{
		{"takeover beside a node that answers", proto.VerbTakeover, whole, nil, proto.CodeVeto, proto.CheckPeerGone},
		{"takeover too early", proto.VerbTakeover, powerCut, func(g *rig, _ *proto.OpStartRequest) {
			g.w.nodes["weasel"].since = g.w.nodes["weasel"].since.Add(SilentFor + 10*time.Second)
		}, proto.CodeVeto, proto.CheckPeerGone},
		{"takeover while replication is connected", proto.VerbTakeover, powerCut, func(g *rig, _ *proto.OpStartRequest) {
			g.w.nodes["weasel"].conn = proto.Connected
		}, proto.CodeVeto, proto.CheckPeerGone},
		{"takeover without a statement", proto.VerbTakeover, powerCut, func(_ *rig, r *proto.OpStartRequest) { r.Statement = " " }, proto.CodeNotConfirmed, ""},
		{"takeover not confirmed", proto.VerbTakeover, powerCut, func(_ *rig, r *proto.OpStartRequest) { r.Confirm = "" }, proto.CodeNotConfirmed, ""},
		{"takeover onto a disk that is used beside replication", proto.VerbTakeover, powerCut, func(g *rig, _ *proto.OpStartRequest) {
			g.w.nodes["weasel"].backing = []proto.User{{Kind: "dm", Name: "/dev/storage/test", How: "on the backing disk"}}
		}, proto.CodeVeto, proto.CheckBackingActive},
		{"failover while agent.toml differs", proto.VerbFailover, with(whole), func(g *rig, _ *proto.OpStartRequest) {
			g.w.nodes["otter"].config = &proto.Service{Units: []string{"nmbd.service"}}
		}, proto.CodeVeto, proto.CheckDrift},
		{"failover to a node with the address", proto.VerbFailover, with(whole), func(g *rig, _ *proto.OpStartRequest) {
			g.w.nodes["weasel"].address = true
		}, proto.CodeVeto, proto.CheckAddress},
		{"takeover by a node whose unit runs", proto.VerbTakeover, with(powerCut), func(g *rig, _ *proto.OpStartRequest) {
			g.w.nodes["weasel"].unit = true
		}, proto.CodeVeto, proto.CheckUnits},
		{"drill without a mount", proto.VerbDrill, func(g *rig) { g.w.nodes["otter"].mounted = false }, nil, proto.CodeVeto, proto.CheckSentinel},
		{"drill not confirmed", proto.VerbDrill, whole, func(_ *rig, r *proto.OpStartRequest) { r.Confirm = "" }, proto.CodeNotConfirmed, ""},
		{"rejoin in a split brain", proto.VerbRejoin, func(g *rig) { split(g); g.w.nodes["otter"].role = proto.Secondary }, nil, proto.CodeVeto, proto.CheckSplit},
		{"failover in a split brain", proto.VerbFailover, func(g *rig) { split(g); g.w.nodes["weasel"].role = proto.Secondary }, nil, proto.CodeVeto, proto.CheckSplit},
		{"rejoin beside a forked Primary", proto.VerbRejoin, split, nil, proto.CodeVeto, proto.CheckSplit},
		{"rejoin of a Primary", proto.VerbRejoin, func(g *rig) { g.w.nodes["otter"].role = proto.Primary }, nil, proto.CodeVeto, proto.CheckRoles},
		{"rejoin of a node whose disk is used beside replication", proto.VerbRejoin, back, func(g *rig, _ *proto.OpStartRequest) {
			g.w.nodes["otter"].backing = []proto.User{{Kind: "dm", Name: "/dev/storage/test", How: "on the backing disk"}}
		}, proto.CodeVeto, proto.CheckBackingActive},
		{"resolve beside a disk that is used beside replication", proto.VerbResolve, split, func(g *rig, _ *proto.OpStartRequest) {
			g.w.nodes["otter"].backing = []proto.User{{Kind: "dm", Name: "/dev/storage/test", How: "on the backing disk"}}
		}, proto.CodeVeto, proto.CheckBackingActive},
		{"resolve without a split brain", proto.VerbResolve, back, nil, proto.CodeVeto, proto.CheckForked},
		{"resolve while connected", proto.VerbResolve, whole, nil, proto.CodeVeto, proto.CheckForked},
		{"resolve not confirmed", proto.VerbResolve, split, func(_ *rig, r *proto.OpStartRequest) { r.Confirm = "dem" }, proto.CodeNotConfirmed, ""},
		{"resolve under a process", proto.VerbResolve, split, func(g *rig, _ *proto.OpStartRequest) {
			g.w.nodes["otter"].users = []proto.User{{Kind: "process", PID: 1, Name: "smbd"}}
		}, proto.CodeVeto, proto.CheckBusyProc},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, req := newRig(t), request(tt.verb)
			tt.prepare(g)
			if tt.change != nil {
				tt.change(g, &req)
			}
			before := g.w.home()
			_, err := g.r.Start(t.Context(), req)
			var pe *proto.Error
			if !errors.As(err, &pe) || pe.Code != tt.code {
				t.Fatalf("got %v, want code %s", err, tt.code)
			}
			if tt.check != "" && !slices.ContainsFunc(pe.Checks, func(c proto.Check) bool {
				return c.Code == tt.check && len(c.Evidence) > 0 && c.Remedy != ""
			}) {
				t.Errorf("no %s among %+v", tt.check, pe.Checks)
			}
			if g.w.home() != before {
				t.Errorf("something changed: %s", g.w.home())
			}
		})
	}
}

// TestRejoinNamesLeftovers: what a dead agent left on the node that returns is named, with what to do, and hinders nothing.
func TestRejoinNamesLeftovers(t *testing.T) {
	g := newRig(t)
	back(g)
	for _, left := range []bool{true, false} {
		g.w.nodes["otter"].left = left
		reply, err := g.r.Look(t.Context(), proto.CheckRequest{Verb: proto.VerbRejoin, Resource: "r0"}, 0)
		if err != nil || !reply.Checks.Ready() {
			t.Fatalf("%v, blocked by %+v", err, reply.Checks.Blocking())
		}
		i := slices.IndexFunc(reply.Checks.Checks, func(c proto.Check) bool { return c.Code == proto.CheckLeftovers })
		want, said := proto.CheckOK, "1 mount points and 1 volume groups"
		if left {
			want, said = proto.CheckWarn, "/mnt on otter still shows /dev/mapper/storage-test: umount it there\notter has storage-test, left by an agent that died"
		}
		if c := reply.Checks.Checks[i]; c.Result != want || !strings.Contains(strings.Join(c.Evidence, "\n"), said) {
			t.Errorf("%s %q", c.Result, c.Evidence)
		}
	}
	g.w.nodes["otter"].left = true
	if o := g.begin(t, request(proto.VerbRejoin)); o.State != proto.OpDone {
		t.Errorf("%s: %s", o.State, o.Outcome)
	}
}

// TestTakeoverOverDeadLock takes over while the gone node's own operation still holds this node's lock.
func TestTakeoverOverDeadLock(t *testing.T) {
	g := newRig(t)
	powerCut(g)
	g.w.nodes["weasel"].locked = &proto.Lock{OpID: "x", Node: "otter", Owner: "other@there"}
	o := g.begin(t, request(proto.VerbTakeover))
	if o.State != proto.OpDone || g.w.home() != "weasel" || o.Statement == "" || len(o.AtRisk) == 0 {
		t.Errorf("%s: %s; %+v", o.State, o.Outcome, o)
	}
	g.w.nodes["weasel"].locked = &proto.Lock{OpID: "y", Node: "weasel"}
	if _, err := g.r.Start(t.Context(), request(proto.VerbTakeover)); !errors.Is(err, &proto.Error{Code: proto.CodeLocked}) && !errors.Is(err, &proto.Error{Code: proto.CodeVeto}) {
		t.Errorf("a lock of this node is ignored: %v", err)
	}
}

// TestPeerReturnsDuringTakeover: the node that was gone answers again before the promotion.
func TestPeerReturnsDuringTakeover(t *testing.T) {
	g := newRig(t)
	powerCut(g)
	req := request(proto.VerbTakeover)
	req.StepByStep = true
	o := g.begin(t, req)
	for _, s := range o.Steps {
		if s.Step.Kind == proto.StepPromote {
			break
		}
		if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceResume}); err != nil {
			t.Fatal(err)
		}
		o = g.wait(t)
	}
	g.w.mu.Lock()
	g.w.nodes["otter"].gone = false
	g.w.mu.Unlock()
	if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceResume}); err != nil {
		t.Fatal(err)
	}
	if o = g.wait(t); o.State != proto.OpStopped || g.w.nodes["weasel"].role == proto.Primary || !strings.Contains(o.Outcome, "not gone") {
		t.Errorf("%s: %s", o.State, o.Outcome)
	}
}

// TestUndoneHidesNothing: a failover that carries on and is undone leaves the operation before it as unfinished as it was.
func TestUndoneHidesNothing(t *testing.T) {
	g := newRig(t)
	g.weasel.fault = &fault{kind: proto.StepPromote, node: "weasel", code: proto.CodeFailed, times: 2}
	req := request(proto.VerbFailover)
	req.OnFailure = proto.ChoiceKeep
	kept := g.end(t, req)
	req.OnFailure = proto.ChoiceUndo
	if undone := g.end(t, req); undone.State != proto.OpUndone || !strings.Contains(undone.Outcome, "as they were") {
		t.Errorf("%s: %s", undone.State, undone.Outcome)
	}
	if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: kept.ID, Choice: proto.ChoiceUndo, Confirm: "demo"}); err != nil {
		t.Fatal(err)
	}
	if o := g.wait(t); o.State != proto.OpUndone || g.w.home() != "otter" {
		t.Errorf("%s, service: %s", o.Outcome, g.w.home())
	}
}

// end starts an operation that decides by itself and waits until it is over.
func (g *rig) end(t *testing.T, req proto.OpStartRequest) proto.Op {
	t.Helper()
	o := g.begin(t, req)
	for !o.State.Final() {
		o = g.wait(t)
	}
	return o
}

func TestKnownSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ops")
	j, err := OpenJournal(dir, "weasel")
	if err != nil {
		t.Fatal(err)
	}
	o := proto.Observation{Resource: proto.Resource{Name: "../r 0", Device: "/dev/drbd0", Role: proto.Primary,
		Stack: proto.Stack{Mounts: []proto.Mount{{Source: "/dev/storage/test", Target: "/mnt", Used: 7}}}}}
	if err := j.SeePeer(o); err != nil {
		t.Fatal(err)
	}
	at := j.Known("../r 0").PeerAt
	o.Resource.Stack.Mounts[0].Used = 8
	if err := j.SeePeer(o); err != nil || !j.Known("../r 0").PeerAt.Equal(at) {
		t.Errorf("a change of usage counts as a change of the stack: %v", err)
	}
	for _, unusable := range []func(*proto.Observation){
		func(o *proto.Observation) { o.Resource.Role = proto.Secondary },
		func(o *proto.Observation) { o.Resource.Stack.Err = "incomplete" },
		func(o *proto.Observation) { o.OpID = "x" },
		func(o *proto.Observation) { o.Lock = &proto.Lock{} },
	} {
		bad := o
		bad.Resource.Stack = proto.Stack{}
		unusable(&bad)
		if err := j.SeePeer(bad); err != nil {
			t.Fatal(err)
		}
	}
	if j, err = OpenJournal(dir, "weasel"); err != nil {
		t.Fatal(err)
	}
	if k := j.Known("../r 0"); len(k.Peer.Mounts) != 1 || k.Peer.Mounts[0].Target != "/mnt" || k.PeerDevice != "/dev/drbd0" {
		t.Errorf("remembered %+v", k)
	}
}

func TestOutages(t *testing.T) {
	g := newRig(t)
	o := g.begin(t, request(proto.VerbDrill))
	if o.State != proto.OpDone || len(o.Outages) != 2 {
		t.Fatalf("%s: %+v", o.Outcome, o.Outages)
	}
	if a, b := o.Outages[0], o.Outages[1]; a.From != "otter" || a.To != "weasel" || b.From != "weasel" || b.To != "otter" || o.Outage != max(a.Service, b.Service) {
		t.Errorf("%+v", o.Outages)
	}
}

func TestAmount(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 bytes", 512: "512 bytes", 4096: "4096 bytes (4.0 KiB)", 37707776: "37707776 bytes (36.0 MiB)", 3 << 40: "3298534883328 bytes (3.0 TiB)",
	} {
		if got := amount(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
