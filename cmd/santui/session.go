package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// answerTime is how long a command waits for an agent before it counts as unreachable.
const answerTime = 15 * time.Second

// programTime is how long ssh, or another program, may take until the agent's first word. It is more than the 10 s that ssh
// gives a connection (session.SSH), so that ssh's own words about a host that does not answer are what the operator reads.
const programTime = 13 * time.Second

func (a *app) loadPair() (cli.Pair, error) {
	path, err := cli.ConfigPath(a.config)
	if err != nil {
		return cli.Pair{}, err
	}
	pairs, err := cli.LoadPairs(path)
	if err != nil {
		return cli.Pair{}, err
	}
	return pairs.Find(a.pair)
}

func sessionOptions(nodes ...cli.Node) session.Options {
	o := session.Options{Node: owner(), Version: cli.Version, Kind: session.KindCockpit}
	for _, n := range nodes {
		if n.ByProgram() { // it may have a long way to go, by jump hosts, before the agent can say anything
			o.PrologueTimeout = programTime
		}
	}
	return o
}

// connect opens a session to the agent of a node.
func connect(ctx context.Context, n cli.Node) (*session.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	conn, err := n.Dial(ctx)
	if err != nil {
		return nil, unreachable(n, err)
	}
	s, err := session.Client(ctx, conn, sessionOptions(n))
	if err != nil {
		return nil, unreachable(n, err)
	}
	return s, nil
}

// unreachable says which node is silent, why, and what to try: the reason's own remedy if it has one.
func unreachable(n cli.Node, err error) error {
	text, remedy := err.Error(), "is santui-agent running there?"
	var pe *proto.Error
	if errors.As(err, &pe) {
		text = pe.Text
		if pe.Remedy != "" {
			remedy = pe.Remedy
		}
	}
	return proto.Errorf(proto.CodeUnreachable, "the agent does not answer: %s", text).On(n.Name).WithRemedy("%s", remedy)
}

// call sends one request to the agent of a node.
func call[Out any](ctx context.Context, n cli.Node, m proto.Method, in any) (Out, error) {
	var out Out
	s, err := connect(ctx, n)
	if err != nil {
		return out, err
	}
	defer func() { _ = s.Close() }()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	err = s.Call(ctx, m, in, &out)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = proto.Errorf(proto.CodeTimeout, "the agent is there, but gave no answer (%s) within %v", m, answerTime).On(n.Name).
			WithRemedy("the node is overloaded, or something on it hangs; try again, and see with santui ops whether an operation has begun")
	}
	return out, err
}

// nodeStatus is what one node said, or why it did not.
type nodeStatus struct {
	Node      string          `json:"node"`
	Reachable bool            `json:"reachable"`
	Error     string          `json:"error,omitempty"`
	Snapshot  *proto.Snapshot `json:"snapshot,omitempty"`
}

// pairStatus is the document of `santui status --json`.
type pairStatus struct {
	Schema string       `json:"schema"`
	Pair   string       `json:"pair"`
	AsOf   time.Time    `json:"as_of"`
	Nodes  []nodeStatus `json:"nodes"`
}

// ask collects the snapshots of both nodes at once.
func ask(ctx context.Context, p cli.Pair) pairStatus {
	st := pairStatus{Schema: proto.Schema, Pair: p.Name, Nodes: make([]nodeStatus, len(p.Node))}
	var wg sync.WaitGroup
	for i, n := range p.Node {
		wg.Go(func() {
			st.Nodes[i].Node = n.Name
			snap, err := call[proto.Snapshot](ctx, n, proto.MethodSnapshot, nil)
			if err != nil {
				st.Nodes[i].Error = err.Error()
				return
			}
			st.Nodes[i].Reachable, st.Nodes[i].Snapshot = true, &snap
		})
	}
	wg.Wait()
	st.AsOf = time.Now()
	return st
}

// silent is the error of a status in which a node is missing.
func (s pairStatus) silent() error {
	for _, n := range s.Nodes {
		if !n.Reachable {
			return cli.Exit(cli.ExitUnreachable, fmt.Errorf("%s", n.Error))
		}
	}
	return nil
}

// merge applies one watch event to the snapshot that came before it.
func merge(snap proto.Snapshot, raw json.RawMessage) (proto.Snapshot, error) {
	var e proto.WatchEvent
	if err := json.Unmarshal(raw, &e); err != nil {
		return snap, fmt.Errorf("an event cannot be read: %w", err)
	}
	switch {
	case e.Snapshot != nil:
		return *e.Snapshot, nil
	case e.Delta != nil:
		next, ok := snap.Apply(*e.Delta)
		if !ok {
			return snap, fmt.Errorf("a change from %d to %d does not follow %d", e.Delta.Base, e.Delta.Seq, snap.Seq)
		}
		return next, nil
	default:
		return snap, nil
	}
}
