package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// stub is an agent that knows one operation and can be silent: it then takes connections and says nothing.
type stub struct {
	socket string

	mu      sync.Mutex // protects what follows
	op      proto.Op
	changed chan struct{}
	silent  bool
	starts  []string // the request ids of OpStart
	lose    int      // so many answers to OpStart get lost
	conns   []net.Conn
}

func newStub(t *testing.T, node string) *stub {
	t.Helper()
	s := &stub{socket: filepath.Join(t.TempDir(), node), changed: make(chan struct{})}
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := session.NewMux()
	session.StreamFunc(mux, proto.MethodOpWatch, s.watch)
	session.HandleFunc(mux, proto.MethodOpStart, s.start)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		s.drop()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			silent := s.silent
			s.mu.Unlock()
			if !silent {
				wg.Go(func() { _ = session.Serve(ctx, c, session.Options{Node: node, Kind: session.KindAgent, Mux: mux}, nil) })
			}
		}
	})
	return s
}

func (s *stub) watch(ctx context.Context, _ session.Peer, _ proto.OpRequest, send func(proto.Op) error) error {
	for {
		s.mu.Lock()
		o, ch := s.op, s.changed
		s.mu.Unlock()
		if o.ID == "" {
			return proto.Errorf(proto.CodeNotFound, "not in this node's journal")
		}
		if err := send(o); err != nil || o.State.Final() {
			return err
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *stub) start(_ context.Context, _ session.Peer, in proto.OpStartRequest) (proto.Op, error) {
	s.mu.Lock()
	s.starts = append(s.starts, in.RequestID)
	lost := s.lose > 0
	s.lose--
	s.mu.Unlock()
	if lost {
		s.drop()
	}
	return proto.Op{ID: "1"}, nil
}

// drop breaks all connections.
func (s *stub) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
}

// set is the operation's next state; away makes the agent silent or ends that.
func (s *stub) set(rev uint64, state proto.OpState, step proto.StepState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.op = proto.Op{ID: "1", Rev: rev, State: state, Runner: "weasel", Steps: []proto.StepStatus{{
		Step: proto.Step{Index: 1, Kind: proto.StepUnmount, Node: "otter", Argv: []string{"umount", "/mnt"}}, Result: proto.StepResult{State: step}}}}
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stub) away(silent bool) {
	s.mu.Lock()
	s.silent = silent
	s.mu.Unlock()
	s.drop()
}

// pairOf is an app over two stubs.
func pairOf(t *testing.T, otter, weasel *stub) (a *app, runner cli.Node, out, errs *bytes.Buffer) {
	t.Helper()
	text := fmt.Sprintf("[[pair]]\nname='p'\n[[pair.node]]\nname='otter'\nsocket=%q\n[[pair.node]]\nname='weasel'\nsocket=%q\n", otter.socket, weasel.socket)
	out, errs = &bytes.Buffer{}, &bytes.Buffer{}
	a = &app{stdout: out, stderr: errs, config: writeConfig(t, text)}
	runner, err := a.node("weasel")
	if err != nil {
		t.Fatal(err)
	}
	return a, runner, out, errs
}

// TestFollowSilentRunner: an agent that does not answer for longer than a session takes to open is waited for.
func TestFollowSilentRunner(t *testing.T) {
	t.Parallel()
	otter, weasel := newStub(t, "otter"), newStub(t, "weasel")
	a, n, out, errs := pairOf(t, otter, weasel)
	weasel.set(1, proto.OpRunning, proto.StepRunning)
	otter.set(1, proto.OpRunning, proto.StepRunning)
	go func() {
		time.Sleep(200 * time.Millisecond)
		weasel.away(true)
		time.Sleep(6 * time.Second)
		weasel.away(false)
		weasel.set(3, proto.OpDone, proto.StepDone)
	}()
	o, err := a.followOp(t.Context(), n, "1", nil, time.Minute)
	if err != nil || o.State != proto.OpDone || strings.Count(out.String(), "umount /mnt") != 1 {
		t.Errorf("%s, %v\n%s", o.State, err, out)
	}
	if said := errs.String(); strings.Count(said, "does not answer") != 1 || !strings.Contains(said, "otter for its copy") || !strings.Contains(said, "weasel answers again") {
		t.Errorf("said %q", said)
	}
}

// TestFollowThroughTheOther: what the runner tells its peer reaches us through that.
func TestFollowThroughTheOther(t *testing.T) {
	t.Parallel()
	otter, weasel := newStub(t, "otter"), newStub(t, "weasel")
	a, n, out, _ := pairOf(t, otter, weasel)
	weasel.set(5, proto.OpRunning, proto.StepDone)
	go func() {
		time.Sleep(200 * time.Millisecond)
		weasel.away(true)
		otter.set(4, proto.OpRunning, proto.StepRunning) // older than what is known
		time.Sleep(300 * time.Millisecond)
		otter.set(6, proto.OpUndone, proto.StepDone)
	}()
	o, err := a.followOp(t.Context(), n, "1", nil, time.Minute)
	if err != nil || o.State != proto.OpUndone || strings.Count(out.String(), "umount /mnt") != 1 {
		t.Errorf("%s, %v\n%s", o.State, err, out)
	}
}

// TestFollowDetaches: patience ends, the operation is left alone, and it is said how to find it again.
func TestFollowDetaches(t *testing.T) {
	t.Parallel()
	otter, weasel := newStub(t, "otter"), newStub(t, "weasel")
	a, n, _, errs := pairOf(t, otter, weasel)
	weasel.set(1, proto.OpRunning, proto.StepRunning)
	otter.set(1, proto.OpRunning, proto.StepRunning)
	go func() {
		time.Sleep(200 * time.Millisecond)
		weasel.away(true)
	}()
	o, err := a.followOp(t.Context(), n, "1", nil, 500*time.Millisecond)
	if cli.CodeOf(err) != cli.ExitDetached || o.ID != "1" {
		t.Errorf("%s, %v", o.ID, err)
	}
	if said := errs.String(); !strings.Contains(said, "step 1 (unmount on otter) was running") || !strings.Contains(said, "santui attach 1") {
		t.Errorf("said %q", said)
	}
}

// TestStartAsksAgain: an operation whose start was asked for, and whose answer was lost, is asked for under the same id.
func TestStartAsksAgain(t *testing.T) {
	t.Parallel()
	otter, weasel := newStub(t, "otter"), newStub(t, "weasel")
	a, n, _, _ := pairOf(t, otter, weasel)
	weasel.lose = 2
	o, err := a.start(t.Context(), n, proto.OpStartRequest{RequestID: "q"}, time.Minute)
	if err != nil || o.ID != "1" || strings.Join(weasel.starts, " ") != "q q q" {
		t.Errorf("%q, %v, asked %q", o.ID, err, weasel.starts)
	}
	weasel.lose = 1000
	if _, err := a.start(t.Context(), n, proto.OpStartRequest{RequestID: "r"}, time.Second); cli.CodeOf(err) != cli.ExitDetached {
		t.Errorf("an answer that never comes: %v", err)
	}
	n.Socket = filepath.Join(t.TempDir(), "none")
	if _, err := a.start(t.Context(), n, proto.OpStartRequest{RequestID: "s"}, time.Minute); !errors.Is(err, &proto.Error{Code: proto.CodeUnreachable}) {
		t.Errorf("nobody there: %v", err)
	}
}
