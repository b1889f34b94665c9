package op

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"example.com/santui/proto"
)

func TestMain(m *testing.M) {
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		_ = os.Setenv("TMPDIR", "/dev/shm") // thousands of synced journal files
	}
	goleak.VerifyTestMain(m)
}

type rig struct {
	t             *testing.T
	w             *pairModel
	otter, weasel *fakeNode
	r             *Runner
	changes       chan proto.Op
}

func newRig(t *testing.T) *rig {
	t.Helper()
	w, otter, weasel := newWorld()
	j, err := OpenJournal(filepath.Join(t.TempDir(), "ops"), "weasel")
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{t: t, w: w, otter: otter, weasel: weasel, changes: make(chan proto.Op, 1000)}
	g.r = NewRunner("demo", weasel, otter, j, func(o proto.Op) { g.changes <- o })
	t.Cleanup(g.r.Close)
	return g
}

// start begins a failover to weasel and returns the first operation that is final or waits for a decision.
func (g *rig) start(t *testing.T, policy proto.Choice) proto.Op {
	t.Helper()
	_, err := g.r.Start(t.Context(), proto.OpStartRequest{Verb: proto.VerbFailover, Resource: "r0", To: "weasel", Confirm: "demo", OnFailure: policy, Owner: "me@here"})
	if err != nil {
		t.Fatal(err)
	}
	return g.wait(t)
}

func (g *rig) wait(t *testing.T) proto.Op {
	t.Helper()
	for o := range g.changes {
		if o.State.Final() || len(o.Choices) > 0 {
			return o
		}
	}
	t.Fatal("no more changes")
	return proto.Op{}
}

func TestFailover(t *testing.T) {
	g := newRig(t)
	o := g.start(t, "")
	if o.State != proto.OpDone || g.w.home() != "weasel" {
		t.Fatalf("state %s, service: %s, outcome %s", o.State, g.w.home(), o.Outcome)
	}
	var kinds []string
	for _, s := range o.Steps {
		kinds = append(kinds, string(s.Step.Kind)+"@"+s.Step.Node)
	}
	want := "unmount@otter deactivate@otter demote@otter attest@otter promote@weasel activate@weasel mount@weasel"
	if got := strings.Join(kinds, " "); got != want {
		t.Errorf("steps %s, want %s", got, want)
	}
	if o.Outage <= 0 {
		t.Errorf("outage %v", o.Outage)
	}
	g.r.Close()
	if g.w.nodes["otter"].locked != nil || g.w.nodes["weasel"].locked != nil {
		t.Error("lock left behind")
	}
	if p := g.w.nodes["otter"].journal[o.ID]; p.State != proto.OpDone {
		t.Errorf("peer's journal says %s", p.State)
	}
}

// TestFaultMatrix makes every step fail before and after its effect, with an error and with a timeout, and demands that
// undo brings the service home, that retry completes the move, and that there are never two Primaries.
func TestFaultMatrix(t *testing.T) {
	steps := []struct {
		kind proto.StepKind
		node string
	}{
		{proto.StepUnmount, "otter"}, {proto.StepDeactivate, "otter"}, {proto.StepDemote, "otter"},
		{proto.StepPromote, "weasel"}, {proto.StepActivate, "weasel"}, {proto.StepMount, "weasel"},
	}
	for _, s := range steps {
		for _, after := range []bool{false, true} {
			code := proto.CodeFailed
			if after {
				code = proto.CodeTimeout
			}
			for _, choice := range []proto.Choice{proto.ChoiceUndo, proto.ChoiceRetry, proto.ChoiceKeep} {
				t.Run(fmt.Sprintf("%s after=%v %s", s.kind, after, choice), func(t *testing.T) {
					g := newRig(t)
					f := &fault{kind: s.kind, node: s.node, after: after, code: code, times: 1}
					if s.node == "otter" {
						g.otter.fault = f
					} else {
						g.weasel.fault = f
					}
					o := g.start(t, "")
					if o.State != proto.OpStopped {
						t.Fatalf("state %s: %s", o.State, o.Outcome)
					}
					if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: choice}); err != nil {
						t.Fatal(err)
					}
					o = g.wait(t)
					switch choice {
					case proto.ChoiceUndo:
						if o.State != proto.OpUndone || g.w.home() != "otter" {
							t.Errorf("undo ended %s, service: %s (%s)", o.State, g.w.home(), o.Outcome)
						}
					case proto.ChoiceRetry:
						if o.State != proto.OpDone || g.w.home() != "weasel" {
							t.Errorf("retry ended %s, service: %s (%s)", o.State, g.w.home(), o.Outcome)
						}
					case proto.ChoiceKeep:
						if o.State != proto.OpKept {
							t.Errorf("keep ended %s", o.State)
						}
						if o2 := g.start(t, ""); o2.State != proto.OpDone || g.w.home() != "weasel" {
							t.Errorf("a second failover ended %s, service: %s (%s)", o2.State, g.w.home(), o2.Outcome)
						}
					}
					if b := g.w.broken(); b != nil {
						t.Error(b)
					}
				})
			}
		}
	}
}

func TestPeerDiesMidway(t *testing.T) {
	g := newRig(t)
	g.otter.fault = &fault{kind: proto.StepDemote, code: proto.CodeUnreachable, times: 99}
	o := g.start(t, "")
	if o.State != proto.OpStopped {
		t.Fatal(o.State)
	}
	g.w.mu.Lock()
	g.w.nodes["otter"].gone = true
	g.w.mu.Unlock()
	if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceUndo}); err != nil {
		t.Fatal(err)
	}
	if o = g.wait(t); o.State != proto.OpKept || !strings.Contains(o.Outcome, "otter does not answer") {
		t.Errorf("%s: %s", o.State, o.Outcome)
	}
	if g.w.nodes["weasel"].role == proto.Primary {
		t.Error("promoted beside a silent Primary")
	}
}

func TestRefusals(t *testing.T) {
	req := proto.OpStartRequest{Verb: proto.VerbFailover, Resource: "r0", To: "weasel", Confirm: "demo"}
	for _, tt := range []struct {
		name    string
		breakIt func(*rig, *proto.OpStartRequest)
		code    proto.ErrorCode
	}{
		{"not confirmed", func(_ *rig, r *proto.OpStartRequest) { r.Confirm = "dem" }, proto.CodeNotConfirmed},
		{"plan changed", func(_ *rig, r *proto.OpStartRequest) { r.PlanHash = "000000000000" }, proto.CodeStale},
		{"peer silent", func(g *rig, _ *proto.OpStartRequest) { g.w.nodes["otter"].gone = true }, proto.CodeVeto},
		{"lock held", func(g *rig, _ *proto.OpStartRequest) { g.w.nodes["otter"].locked = &proto.Lock{OpID: "x"} }, proto.CodeLocked},
		{"process", func(g *rig, _ *proto.OpStartRequest) {
			g.w.nodes["otter"].users = []proto.User{{Kind: "process", PID: 1, Name: "smbd"}}
		}, proto.CodeVeto},
		{"verb", func(_ *rig, r *proto.OpStartRequest) { r.Verb = proto.VerbSetup }, proto.CodeUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, r := newRig(t), req
			tt.breakIt(g, &r)
			_, err := g.r.Start(t.Context(), r)
			if !errors.Is(err, &proto.Error{Code: tt.code}) {
				t.Errorf("got %v, want code %s", err, tt.code)
			}
			if g.w.home() != "otter" {
				t.Errorf("something changed: %s", g.w.home())
			}
		})
	}
	t.Run("accepted soft veto", func(t *testing.T) {
		g, r := newRig(t), req
		g.w.nodes["otter"].users = []proto.User{{Kind: "process", PID: 1, Name: "smbd"}}
		r.Accept = []string{proto.CheckBusyProc}
		o, err := g.r.Start(t.Context(), r)
		if err != nil || len(o.Accepted) != 1 {
			t.Errorf("%v %v", o.Accepted, err)
		}
	})
	t.Run("dry run", func(t *testing.T) {
		g, r := newRig(t), req
		r.DryRun, r.Confirm = true, ""
		o, err := g.r.Start(t.Context(), r)
		if err != nil || o.State != proto.OpDone || g.w.home() != "otter" {
			t.Errorf("%s %v %s", o.State, err, g.w.home())
		}
	})
}

func TestRequestIDStartsOnce(t *testing.T) {
	g := newRig(t)
	req := proto.OpStartRequest{Verb: proto.VerbFailover, Resource: "r0", To: "weasel", Confirm: "demo", RequestID: "q1"}
	a, err := g.r.Start(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	g.wait(t)
	b, err := g.r.Start(t.Context(), req)
	if err != nil || a.ID != b.ID {
		t.Errorf("%s then %s, %v", a.ID, b.ID, err)
	}
	g.reborn(t) // the agent has died, and the command asks again
	if b, err = g.r.Start(t.Context(), req); err != nil || a.ID != b.ID {
		t.Errorf("after the agent's death: %s then %s, %v", a.ID, b.ID, err)
	}
}

func TestPauseAndResume(t *testing.T) {
	g := newRig(t)
	g.otter.fault = &fault{kind: proto.StepUnmount, code: proto.CodeFailed, times: 1}
	o := g.start(t, "")
	if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceRetry}); err != nil {
		t.Fatal(err)
	}
	if o = g.wait(t); o.State != proto.OpDone {
		t.Errorf("%s %s", o.State, o.Outcome)
	}
}

func TestJournalSurvives(t *testing.T) {
	dir := t.TempDir()
	j, err := OpenJournal(dir, "weasel")
	if err != nil {
		t.Fatal(err)
	}
	o := proto.Op{ID: "20261122-1", Runner: "weasel", State: proto.OpRunning, Plan: proto.Plan{Resource: "r0", To: "weasel"}, Rev: 3}
	if err := j.Put(o); err != nil {
		t.Fatal(err)
	}
	old := o
	old.Rev, old.State = 2, proto.OpDone
	if err := j.Put(old); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "broken.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err = OpenJournal(dir, "weasel")
	if err == nil || !strings.Contains(err.Error(), "broken.json is damaged") {
		t.Errorf("damaged file: %v", err)
	}
	got, ok := j.Get(o.ID)
	if !ok || got.State != proto.OpOrphaned || got.Rev < o.Rev+2 { // the peer may have the next revision already
		t.Errorf("state %s, revision %d, want orphaned and newer than what the peer can have", got.State, got.Rev)
	}
	if u := j.Unfinished("r0"); u == nil || u.ID != o.ID {
		t.Errorf("unfinished: %v", u)
	}
	if err := j.Put(proto.Op{ID: "../x"}); err == nil {
		t.Error("accepted a path as id")
	}
}

func TestChecksCoverTable(t *testing.T) {
	g := newRig(t)
	v, err := g.r.view(context.Background(), proto.ObserveRequest{Resource: "r0"}, proto.VerbFailover)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, c := range Checks(v) {
		seen[c.Code] = true
		if c.Blocks() {
			t.Errorf("%s blocks a healthy pair: %v", c.Code, c.Evidence)
		}
	}
	for _, c := range proto.Codes {
		if !seen[c.Name] && c.Name != proto.CheckUnfinished {
			t.Errorf("%s is never evaluated", c.Name)
		}
	}
}

// TestPartOfAStepIsTakenBack: a step that failed with an answer may have had part of its effect, as a vgchange that met one open
// volume; undo brings that back too.
func TestPartOfAStepIsTakenBack(t *testing.T) {
	for _, kind := range []proto.StepKind{proto.StepUnmount, proto.StepDeactivate, proto.StepDemote} {
		g := newRig(t)
		g.otter.fault = &fault{kind: kind, after: true, code: proto.CodeBusy, times: 1}
		o := g.start(t, proto.ChoiceUndo)
		for !o.State.Final() {
			o = g.wait(t)
		}
		if o.State != proto.OpUndone || g.w.home() != "otter" {
			t.Errorf("%s: %s: %s; service: %s", kind, o.State, o.Outcome, g.w.home())
		}
	}
}

// TestRetriedStepIsTakenBack: a step whose effect came although it seemed to fail finds it there when it is tried again; it is
// still this operation's, and undo takes it back.
func TestRetriedStepIsTakenBack(t *testing.T) {
	for _, kind := range []proto.StepKind{proto.StepUnmount, proto.StepDeactivate, proto.StepDemote} {
		g := newRig(t)
		g.otter.fault = &fault{kind: kind, after: true, code: proto.CodeTimeout, times: 1}
		g.weasel.fault = &fault{kind: proto.StepPromote, code: proto.CodeFailed, times: 1}
		o := g.start(t, "")
		for _, choice := range []proto.Choice{proto.ChoiceRetry, proto.ChoiceUndo} {
			if o.State != proto.OpStopped {
				t.Fatalf("%s: %s: %s", kind, o.State, o.Outcome)
			}
			if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: choice}); err != nil {
				t.Fatal(err)
			}
			o = g.wait(t)
		}
		if o.State != proto.OpUndone || g.w.home() != "otter" {
			t.Errorf("%s: %s: %s; service: %s", kind, o.State, o.Outcome, g.w.home())
		}
	}
}

// TestNothingOldIsPromoted: where replication breaks in the middle of a move and the Primary goes on writing, the other copy is
// not promoted, neither by the move nor by its undo.
func TestNothingOldIsPromoted(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps int // before the link breaks
		keeps string
	}{{"on the way there", 0, "otter"}, {"on the way back", 5, "weasel"}} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t)
			g.weasel.fault = &fault{kind: proto.StepMount, code: proto.CodeFailed, times: 99}
			req := request(proto.VerbFailover)
			req.StepByStep = true
			o := g.begin(t, req)
			decide := func(c proto.Choice) {
				t.Helper()
				if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: c, Confirm: "demo"}); err != nil {
					t.Fatal(err)
				}
				o = g.wait(t)
			}
			for range tt.steps {
				decide(proto.ChoiceResume)
			}
			g.w.mu.Lock()
			g.w.disconnect(proto.WFConnection)
			g.w.write(tt.keeps, "new", "only there")
			g.w.mu.Unlock()
			for !o.State.Final() {
				if o.State == proto.OpStopped {
					decide(proto.ChoiceUndo)
				} else {
					decide(proto.ChoiceResume)
				}
			}
			g.w.mu.Lock()
			defer g.w.mu.Unlock()
			for name, m := range g.w.nodes {
				if m.role == proto.Primary && m.data["new"] != "only there" {
					t.Errorf("%s is Primary without what %s wrote; %s: %s", name, tt.keeps, o.State, o.Outcome)
				}
			}
			a, b := g.w.nodes["otter"], g.w.nodes["weasel"]
			if l := LineageOf(proto.Observation{Node: "otter", Resource: proto.Resource{UUIDs: a.uuids}}, proto.Observation{Node: "weasel", Resource: proto.Resource{UUIDs: b.uuids}}); l.Split {
				t.Errorf("forked: %s; %s: %s", l.Text, o.State, o.Outcome)
			}
			if tt.steps > 0 && (o.State != proto.OpKept || !strings.Contains(o.Outcome, "weasel has data that otter lacks")) {
				t.Errorf("%s: %s", o.State, o.Outcome)
			}
		})
	}
}

// TestNoJournalNoStep: a step that this node cannot journal is not begun, and undo goes home all the same.
func TestNoJournalNoStep(t *testing.T) {
	g := newRig(t)
	req := request(proto.VerbFailover)
	req.StepByStep = true
	o := g.begin(t, req)
	for range 2 {
		if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceResume}); err != nil {
			t.Fatal(err)
		}
		o = g.wait(t)
	}
	if err := os.RemoveAll(g.r.journal.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceResume}); err != nil {
		t.Fatal(err)
	}
	if o = g.wait(t); o.State != proto.OpStopped || !strings.Contains(o.Steps[2].Result.Err.Error(), "was not begun") || g.w.nodes["otter"].role != proto.Primary {
		t.Fatalf("%s: %+v", o.State, o.Steps[2].Result)
	}
	if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceUndo}); err != nil {
		t.Fatal(err)
	}
	if o = g.wait(t); o.State != proto.OpUndone || g.w.home() != "otter" {
		t.Errorf("%s: %s; service: %s", o.State, o.Outcome, g.w.home())
	}
}

// TestWholeLook: an operation begins with looks that leave nothing out, on both nodes; a check does not need them.
func TestWholeLook(t *testing.T) {
	g := newRig(t)
	asked := func(want bool) {
		t.Helper()
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		for name, m := range g.w.nodes {
			if len(m.asked) != 1 || m.asked[0].Whole != want || m.asked[0].MaxAge != 0 {
				t.Errorf("%s was asked for %+v, want one fresh look, whole: %v", name, m.asked, want)
			}
			m.asked = nil
		}
	}
	if _, err := g.r.Look(t.Context(), proto.CheckRequest{Verb: proto.VerbFailover, Resource: "r0"}, 0); err != nil {
		t.Fatal(err)
	}
	asked(false)
	req := proto.OpStartRequest{Verb: proto.VerbFailover, Resource: "r0", To: "weasel", Confirm: "demo", Owner: "me@here", DryRun: true}
	if _, err := g.r.Start(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	asked(true)
}

// TestUnsentWritesAreNotLeftBehind: under protocol A a link that has just broken may have taken writes with it that the old Primary
// knows of, although the histories are the same.
func TestUnsentWritesAreNotLeftBehind(t *testing.T) {
	for _, lost := range []int64{0, 4096} {
		g := newRig(t)
		req := request(proto.VerbFailover)
		req.StepByStep = true
		o := g.begin(t, req)
		resume := func() {
			t.Helper()
			if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceResume}); err != nil {
				t.Fatal(err)
			}
			o = g.wait(t)
		}
		for range 4 { // otter has said that it is Secondary
			resume()
		}
		g.w.mu.Lock()
		g.w.disconnect(proto.WFConnection)
		g.w.nodes["otter"].oos = lost
		g.w.mu.Unlock()
		resume()
		if promoted := g.w.nodes["weasel"].role == proto.Primary; promoted != (lost == 0) {
			t.Errorf("%d bytes only on otter: promoted %v; %s: %s", lost, promoted, o.State, o.Outcome)
		}
	}
}

// mute is an agent that has stopped in the middle of everything: it takes a request and never answers.
type mute struct{ Node }

func (mute) Observe(ctx context.Context, _ proto.ObserveRequest) (proto.Observation, error) {
	<-ctx.Done()
	return proto.Observation{}, ctx.Err()
}

// TestCheckBesideAMuteAgent: whoever asks waits 15 s. Until then the checks say that the other agent is silent.
func TestCheckBesideAMuteAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, otter, weasel := newWorld()
		j, err := OpenJournal(filepath.Join(t.TempDir(), "ops"), "weasel")
		if err != nil {
			t.Fatal(err)
		}
		r := NewRunner("lab", weasel, mute{otter}, j, func(proto.Op) {})
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		reply, err := r.Look(ctx, proto.CheckRequest{Verb: proto.VerbTakeover, Resource: "r0", To: "weasel"}, 0)
		if err != nil || ctx.Err() != nil {
			t.Fatalf("%v, %v", err, ctx.Err())
		}
		if len(reply.Checks.Checks) == 0 || reply.Checks.From != "otter" {
			t.Errorf("%+v", reply.Checks)
		}
		r.Close()
	})
}
