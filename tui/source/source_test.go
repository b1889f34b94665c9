package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent is the serving end of a session in this process.
type agent struct {
	mu     sync.Mutex // protects what follows
	conns  []net.Conn
	refuse bool
	first  *proto.Snapshot // sent at the start of each watch, as agents do
	events chan proto.WatchEvent
	mute   bool // pings are not answered
	seq    uint64
	wg     sync.WaitGroup
}

func (a *agent) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuse {
		return nil, errors.New("connection re\x1b[31mfused")
	}
	here, there := net.Pipe()
	a.conns = append(a.conns, there)
	x := session.NewMux()
	session.HandleFunc(x, proto.MethodPing, func(ctx context.Context, _ session.Peer, _ proto.Empty) (proto.Empty, error) {
		if a.quiet() {
			<-ctx.Done()
		}
		return proto.Empty{}, nil
	})
	session.HandleFunc(x, proto.MethodSnapshot, func(context.Context, session.Peer, proto.Empty) (proto.Snapshot, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		return proto.Snapshot{Node: "otter", Seq: a.seq}, nil
	})
	session.HandleFunc(x, proto.MethodOps, func(context.Context, session.Peer, proto.Empty) (proto.OpsReply, error) {
		return proto.OpsReply{Schema: "santui/\x07"}, nil
	})
	session.StreamFunc(x, proto.MethodWatch, func(ctx context.Context, _ session.Peer, _ proto.Empty, send func(proto.WatchEvent) error) error {
		a.mu.Lock()
		first := a.first
		a.mu.Unlock()
		if err := send(proto.WatchEvent{Snapshot: first}); err != nil {
			return err
		}
		for {
			select {
			case e := <-a.events:
				if err := send(e); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	a.wg.Go(func() {
		_ = session.Serve(context.Background(), there, session.Options{Node: "otter", Kind: session.KindAgent}, x)
	})
	return here, nil
}

func (a *agent) cut(refuse bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse = refuse
	for _, c := range a.conns {
		_ = c.Close()
	}
	a.conns = nil
}

func (a *agent) quiet() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mute
}

func (a *agent) silence(mute bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mute = mute
}

func (a *agent) restart(seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.first = &proto.Snapshot{Node: "otter", Seq: seq}
}

func next(t *testing.T, ch <-chan Update, ok func(Update) bool) Update {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case u := <-ch:
			if ok(u) {
				return u
			}
		case <-limit:
			t.Fatal("no such update came")
		}
	}
}

func TestLive(t *testing.T) {
	a := &agent{events: make(chan proto.WatchEvent, 4), first: &proto.Snapshot{Node: "otter", Pair: "st\x1b[2Jore", Seq: 4}}
	ctx, cancel := context.WithCancel(context.Background())
	l := NewLive(ctx, []Endpoint{{Node: "otter", Dial: a.dial}}, session.Options{Node: "root@laptop"})
	ch := l.Watch(ctx)
	u := next(t, ch, func(u Update) bool { return u.LinkUp })
	if u.Snapshot.Seq != 4 || u.Snapshot.Pair != "store" || u.At.IsZero() {
		t.Errorf("%+v", u)
	}
	a.events <- proto.WatchEvent{Delta: &proto.Delta{Base: 4, Seq: 5, OpSet: true, Op: &proto.Op{ID: "x"}}}
	u = next(t, ch, func(u Update) bool { return u.Snapshot.Seq == 5 })
	if u.Snapshot.Op == nil || u.Snapshot.Pair != "store" {
		t.Errorf("delta: %+v", u.Snapshot)
	}
	if r, err := Call[proto.OpsReply](ctx, l, "otter", proto.MethodOps, proto.Empty{}); err != nil || r.Schema != "santui/?" {
		t.Errorf("%+v, %v", r, err)
	}
	a.cut(true)
	u = next(t, ch, func(u Update) bool { return !u.LinkUp && u.Err != nil && strings.Contains(u.Err.Error(), "refused") })
	if u.Snapshot == nil || u.Snapshot.Seq != 5 || u.NextTry.Before(time.Now()) {
		t.Errorf("down: %+v", u)
	}
	if err := l.Call(ctx, "otter", proto.MethodOps, proto.Empty{}, nil); !errors.Is(err, &proto.Error{Code: proto.CodeUnreachable}) {
		t.Errorf("%v", err)
	}
	if err := l.Call(ctx, "badger", proto.MethodOps, proto.Empty{}, nil); !errors.Is(err, &proto.Error{Code: proto.CodeNotFound}) {
		t.Errorf("%v", err)
	}
	a.cut(false)
	a.restart(9)
	l.RetryNow("otter")
	next(t, ch, func(u Update) bool { return u.LinkUp && u.Snapshot.Seq == 9 })
	// A gap makes it ask for a whole snapshot again.
	a.restart(72)
	a.events <- proto.WatchEvent{Delta: &proto.Delta{Base: 70, Seq: 71}}
	next(t, ch, func(u Update) bool { return u.LinkUp && u.Snapshot.Seq == 72 })
	cancel()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	a.cut(true)
	a.wg.Wait()
	for range ch { // closed by the end of ctx
	}
}

// TestASilentAgentIsNoticed holds an agent whose session lives and which answers nothing, and a watch that stands still.
func TestASilentAgentIsNoticed(t *testing.T) {
	a := &agent{events: make(chan proto.WatchEvent, 4), first: &proto.Snapshot{Node: "otter", Seq: 4}}
	ctx, cancel := context.WithCancel(context.Background())
	l := NewLive(ctx, []Endpoint{{Node: "otter", Dial: a.dial}}, session.Options{Node: "root@laptop"})
	l.links["otter"].pace = pace{every: 20 * time.Millisecond, limit: 200 * time.Millisecond, seq: 2}
	ch := l.Watch(ctx)
	next(t, ch, func(u Update) bool { return u.LinkUp && u.RTT > 0 })
	a.silence(true)
	u := next(t, ch, func(u Update) bool { return !u.LinkUp })
	if u.Err == nil || !strings.Contains(u.Err.Error(), "does not answer within 200ms") || u.Snapshot == nil || u.RTT != 0 || u.At.IsZero() {
		t.Errorf("%+v", u)
	}
	a.silence(false)
	u = next(t, ch, func(u Update) bool { return u.LinkUp })
	if u.Err != nil || u.RTT == 0 {
		t.Errorf("%+v", u)
	}
	a.restart(6) // the agent went on, and the watch did not tell
	a.mu.Lock()
	a.seq = 6
	a.mu.Unlock()
	next(t, ch, func(u Update) bool { return u.LinkUp && u.Snapshot.Seq == 6 })
	cancel()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	a.cut(true)
	a.wg.Wait()
	for range ch { // closed by the end of ctx
	}
}

func TestLatestWins(t *testing.T) {
	l := newLatest()
	for seq := range uint64(5) {
		l.put(Update{Node: "otter", Snapshot: &proto.Snapshot{Seq: seq}})
	}
	l.put(Update{Node: "weasel"})
	u, _ := l.take()
	v, _ := l.take()
	if _, more := l.take(); u.Snapshot.Seq != 4 || v.Node != "weasel" || more {
		t.Errorf("%+v %+v %v", u, v, more)
	}
}

func TestRecordingsSurviveTheFile(t *testing.T) {
	in := []Record{{Node: "otter", Snapshot: &proto.Snapshot{Node: "otter", Seq: 3}}, {After: 1, Node: "weasel", Down: "gone", Retry: 2},
		{Method: proto.MethodPlan, Out: json.RawMessage(`{"hash":"x"}`)}}
	var b bytes.Buffer
	if err := WriteRecords(&b, in); err != nil {
		t.Fatal(err)
	}
	out, err := ReadRecords(&b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(in, out); d != "" {
		t.Error(d)
	}
	if _, err := ReadRecords(strings.NewReader("{}\n{oops")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("%v", err)
	}
}

func TestReplayAnswersByCase(t *testing.T) {
	op := func(id string, s proto.OpState) json.RawMessage {
		b, _ := json.Marshal(proto.Op{ID: id, State: s})
		return b
	}
	p := NewReplay([]Record{
		{Node: "otter", Snapshot: &proto.Snapshot{Seq: 1}},
		{Method: proto.MethodOpStart, Out: op("real", proto.OpRunning)},
		{Method: proto.MethodOpStart, Case: "dry-run", Out: op("dry", proto.OpDone)},
		{Method: proto.MethodOpDecide, Out: op("real", proto.OpRunning)},
		{Method: proto.MethodOpWatch, Event: true, Out: op("real", proto.OpStopped)},
		{Method: proto.MethodOpWatch, Event: true, Case: "undo", Out: op("real", proto.OpUndone)},
	}, 100)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for dry, want := range map[bool]string{true: "dry", false: "real"} {
		if got, err := Call[proto.Op](ctx, p, "otter", proto.MethodOpStart, proto.OpStartRequest{DryRun: dry}); err != nil || got.ID != want {
			t.Errorf("dry %v: %+v, %v", dry, got, err)
		}
	}
	if err := p.Call(ctx, "otter", proto.MethodReport, proto.OpRequest{}, nil); !errors.Is(err, &proto.Error{Code: proto.CodeUnsupported}) {
		t.Errorf("%v", err)
	}
	var states []proto.OpState
	err := p.Stream(ctx, "otter", proto.MethodOpWatch, proto.OpRequest{}, func(raw json.RawMessage) error {
		o, err := Decode[proto.Op](raw)
		states = append(states, o.State)
		if o.State == proto.OpStopped {
			return p.Call(ctx, "otter", proto.MethodOpDecide, proto.DecideRequest{Choice: proto.ChoiceUndo}, nil)
		}
		return err
	})
	if err != nil || !cmp.Equal(states, []proto.OpState{proto.OpStopped, proto.OpUndone}) {
		t.Errorf("%v, %v", states, err)
	}
}
