package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// TestLateOrders: a step is done only while the agent that ordered it still runs the operation and is at that step.
func TestLateOrders(t *testing.T) {
	now := proto.Observation{Node: "weasel", Pair: "lab", OpID: "op", OpStep: 3, Resource: proto.Resource{Protocol: proto.ProtocolC}}
	there := session.NewMux()
	session.HandleFunc(there, proto.MethodPeerObserve, func(context.Context, session.Peer, proto.ObserveRequest) (proto.Observation, error) {
		return now, nil
	})
	here, weasel, err := session.MemoryPair(session.Options{Node: "otter", Kind: session.KindPeer}, session.Options{Node: "weasel", Kind: session.KindPeer, Mux: there})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = weasel.Close() }()
	a := &Agent{cfg: Config{Node: "otter"}, pair: "lab", peerName: "weasel", hub: newHub("otter", slog.Default()), lock: &proto.Lock{OpID: "op", Node: "weasel"}, stepping: make(chan struct{}, 1)}
	a.peer = newPeer(a)
	a.peer.cur = here
	ask := func(undo bool) error {
		end, err := (local{a}).oneStep(t.Context(), proto.PeerStepRequest{OpID: "op", Undo: undo, Step: proto.Step{Index: 3, Resource: "r0", Kind: proto.StepDemote, UndoKind: proto.StepPromote}})
		if err == nil {
			end()
		}
		return err
	}
	for _, tt := range []struct {
		name   string
		id     string
		step   int
		undo   bool
		wanted bool
	}{
		{"at this step", "op", 3, false, true}, {"an agent that does not say", "op", 0, false, true},
		{"at another step", "op", 4, false, false}, {"between steps", "op", -1, false, false}, {"the step is taken back", "op", 3, true, false},
		{"no operation", "", 0, false, false}, {"another one", "another", 3, false, false},
	} {
		now.OpID, now.OpStep, now.OpUndo = tt.id, tt.step, tt.undo
		if err := ask(false); tt.wanted != (err == nil) || err != nil && !errors.Is(err, &proto.Error{Code: proto.CodeState}) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	now.OpID, now.OpStep, now.OpUndo = "op", 3, true
	if err := ask(true); err != nil {
		t.Errorf("the inverse that is due: %v", err)
	}
	_ = here.Close()
	if err := ask(false); !errors.Is(err, &proto.Error{Code: proto.CodeUnreachable}) {
		t.Errorf("weasel is silent: %v", err)
	}
	a.lock.Node = "otter"
	if err := ask(false); err != nil {
		t.Errorf("this agent's own operation: %v", err)
	}
}

// TestStillWantedOverALinkThatComesBack: after a restart of the other agent its orders arrive over its own link while this one's
// link to it is not back yet. The order waits for that, no longer than a question may take.
func TestStillWantedOverALinkThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there := session.NewMux()
		session.HandleFunc(there, proto.MethodPeerObserve, func(context.Context, session.Peer, proto.ObserveRequest) (proto.Observation, error) {
			return proto.Observation{Node: "weasel", Pair: "lab", OpID: "op", OpStep: 3, Resource: proto.Resource{Protocol: proto.ProtocolC}}, nil
		})
		here, weasel, err := session.MemoryPair(session.Options{Node: "otter", Kind: session.KindPeer}, session.Options{Node: "weasel", Kind: session.KindPeer, Mux: there})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = here.Close(); _ = weasel.Close() }()
		a := &Agent{cfg: Config{Node: "otter"}, pair: "lab", peerName: "weasel", hub: newHub("otter", slog.Default()), lock: &proto.Lock{OpID: "op", Node: "weasel"}}
		a.peer = newPeer(a)
		req := proto.PeerStepRequest{OpID: "op", Step: proto.Step{Index: 3, Resource: "r0", Kind: proto.StepDemote}}
		began := time.Now()
		if err := (local{a}).stillWanted(t.Context(), req); !errors.Is(err, &proto.Error{Code: proto.CodeUnreachable}) || time.Since(began) > askLimit {
			t.Errorf("a link that stays down: %v after %v", err, time.Since(began))
		}
		time.AfterFunc(2*time.Second, func() {
			a.peer.mu.Lock()
			a.peer.cur = here
			a.peer.mu.Unlock()
		})
		if err := (local{a}).stillWanted(t.Context(), req); err != nil {
			t.Errorf("a link that is back after 2 s: %v", err)
		}
	})
}

// TestOneStepAtATime: a step waits until the one before has ended, also one that nobody waits for any more.
func TestOneStepAtATime(t *testing.T) {
	a := &Agent{cfg: Config{Node: "otter"}, lock: &proto.Lock{OpID: "op", Node: "otter"}, stepping: make(chan struct{}, 1)}
	end, err := (local{a}).oneStep(t.Context(), proto.PeerStepRequest{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := (local{a}).oneStep(ctx, proto.PeerStepRequest{}); !errors.Is(err, &proto.Error{Code: proto.CodeTimeout}) {
		t.Errorf("beside another one: %v", err)
	}
	end()
	if end, err = (local{a}).oneStep(t.Context(), proto.PeerStepRequest{}); err != nil {
		t.Error(err)
	} else {
		end()
	}
}

// TestUndoOfAnOlderOperationShows: while an operation is undone after a later one has ended, it is the one that runs: the peer
// asks for it before it obeys.
func TestUndoOfAnOlderOperationShows(t *testing.T) {
	a := &Agent{cfg: Config{Node: "weasel"}, hub: newHub("weasel", slog.Default())}
	now := time.Now()
	a.op = &proto.Op{ID: "later", Rev: 9, State: proto.OpUndone, Started: now}
	a.showOp(proto.Op{ID: "older", Rev: 5, State: proto.OpUndoing, Started: now.Add(-time.Hour)})
	if a.op.ID != "older" {
		t.Errorf("shown is %s", a.op.ID)
	}
	a.op.State = proto.OpDone
	a.showOp(proto.Op{ID: "oldest", Rev: 5, State: proto.OpUndone, Started: now.Add(-2 * time.Hour)})
	if a.op.ID != "older" {
		t.Errorf("an old operation that has ended replaces a newer one: %s", a.op.ID)
	}
}

// TestTooManyTargets: a request cannot make an agent look at any number of paths, and is not answered in part.
func TestTooManyTargets(t *testing.T) {
	a := &Agent{cfg: Config{Node: "otter"}, resources: []*resource{{name: "r0"}}}
	_, err := (local{a}).Observe(t.Context(), proto.ObserveRequest{Resource: "r0", Brief: true, Targets: make([]string, proto.MaxTargets+1)})
	if !errors.Is(err, &proto.Error{Code: proto.CodeLimit}) {
		t.Error(err)
	}
}
