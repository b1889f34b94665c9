package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// TestLateOrders: a step that would make this node Primary, or give its data up, is done only while the agent that ordered it
// still runs the operation.
func TestLateOrders(t *testing.T) {
	runs := "op"
	there := session.NewMux()
	session.HandleFunc(there, proto.MethodPeerObserve, func(context.Context, session.Peer, proto.ObserveRequest) (proto.Observation, error) {
		return proto.Observation{Node: "weasel", Pair: "lab", OpID: runs, Resource: proto.Resource{Protocol: proto.ProtocolC}}, nil
	})
	here, weasel, err := session.MemoryPair(session.Options{Node: "otter", Kind: session.KindPeer}, session.Options{Node: "weasel", Kind: session.KindPeer, Mux: there})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = weasel.Close() }()
	a := &Agent{cfg: Config{Node: "otter"}, pair: "lab", peerName: "weasel", hub: newHub("otter", slog.Default()), lock: &proto.Lock{OpID: "op", Node: "weasel"}}
	a.peer = newPeer(a)
	a.peer.cur = here
	ask := func(kind proto.StepKind) error {
		return (local{a}).stillWanted(t.Context(), kind, proto.PeerStepRequest{OpID: "op", Step: proto.Step{Resource: "r0"}})
	}
	late := []proto.StepKind{proto.StepPromote, proto.StepDiscard, proto.StepAddAddress}
	for _, kind := range append(late, proto.StepUnmount) {
		if err := ask(kind); err != nil {
			t.Errorf("%s while the operation runs: %v", kind, err)
		}
	}
	for _, other := range []string{"", "another"} {
		runs = other
		for _, kind := range late {
			if err := ask(kind); !errors.Is(err, &proto.Error{Code: proto.CodeState}) {
				t.Errorf("%s while weasel runs %q: %v", kind, other, err)
			}
		}
	}
	if err := ask(proto.StepUnmount); err != nil {
		t.Errorf("what only takes down: %v", err)
	}
	_ = here.Close()
	if err := ask(proto.StepPromote); !errors.Is(err, &proto.Error{Code: proto.CodeUnreachable}) {
		t.Errorf("weasel is silent: %v", err)
	}
	a.lock.Node = "otter"
	if err := ask(proto.StepPromote); err != nil {
		t.Errorf("this agent's own operation: %v", err)
	}
}
