package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
	"example.com/santui/tui/clean"
	"example.com/santui/tui/safe"
)

// Endpoint says how to reach the agent of one node.
type Endpoint struct {
	Node string
	Dial func(context.Context) (io.ReadWriteCloser, error)
}

// Live is a Source over real agents.
type Live struct {
	ctx     context.Context // of the sessions
	options session.Options
	nodes   []string
	links   map[string]*link
	news    *latest
}

// link is the way to one agent.
type link struct {
	node string
	dial func(context.Context) (io.ReadWriteCloser, error)
	news *latest
	pace pace

	mu     sync.Mutex      // protects what follows
	keeper *session.Keeper // nil before Watch
	cur    Update          // what was told last; its Snapshot is safe to draw
	mute   bool            // the session is open and the agent does not answer on it
	again  func()          // ends the present watch, so that it begins anew
}

// pace is how an agent is asked for a sign of life. A session's own keep-alive says that its process is there, not that it
// works.
type pace struct {
	every, limit time.Duration
	seq          int // how many signs of life apart the watch is compared with the agent's newest snapshot
}

// smallRTT is a time below which differences say nothing.
const smallRTT = 10 * time.Millisecond

var usualPace = pace{every: 2 * time.Second, limit: 4 * time.Second, seq: 15}

// NewLive prepares a Source over the endpoints. Watch opens a session to each; they are kept open until ctx ends or
// Close. o describes the caller; its Kind is set to session.KindCockpit if empty.
func NewLive(ctx context.Context, endpoints []Endpoint, o session.Options) *Live {
	if o.Kind == "" {
		o.Kind = session.KindCockpit
	}
	l := &Live{ctx: ctx, options: o, links: map[string]*link{}, news: newLatest()}
	for _, e := range endpoints {
		l.nodes = append(l.nodes, e.Node)
		l.links[e.Node] = &link{node: e.Node, dial: e.Dial, news: l.news, pace: usualPace, cur: Update{Node: e.Node}}
	}
	return l
}

// Close ends all sessions and waits for them.
func (l *Live) Close() error {
	var errs []error
	for _, k := range l.links {
		if keeper := k.kept(); keeper != nil {
			errs = append(errs, keeper.Close())
		}
	}
	return errors.Join(errs...)
}

// Nodes implements Source.
func (l *Live) Nodes() []string { return l.nodes }

// Watch implements Source.
func (l *Live) Watch(ctx context.Context) <-chan Update {
	for _, k := range l.links {
		k.mu.Lock()
		if k.keeper == nil {
			k.keeper = session.Keep(l.ctx, k.dial, l.options,
				func(s *session.Session) {
					safe.Go(ctx, func() { k.watch(ctx, s) })
					safe.Go(ctx, func() { k.vouch(ctx, s) })
				}, k.down)
		}
		k.mu.Unlock()
	}
	out := make(chan Update)
	safe.Go(ctx, func() { l.news.pump(ctx, out) })
	return out
}

// RetryNow implements Source.
func (l *Live) RetryNow(node string) {
	if k, ok := l.links[node]; ok {
		if keeper := k.kept(); keeper != nil {
			keeper.RetryNow()
		}
	}
}

func (k *link) kept() *session.Keeper {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keeper
}

// Call implements Source.
func (l *Live) Call(ctx context.Context, node string, m proto.Method, in, out any) error {
	s, err := l.session(node, m)
	if err != nil {
		return err
	}
	return s.Call(ctx, m, in, out)
}

// Stream implements Source.
func (l *Live) Stream(ctx context.Context, node string, m proto.Method, in any, on func(json.RawMessage) error) error {
	s, err := l.session(node, m)
	if err != nil {
		return err
	}
	return s.Stream(ctx, m, in, on)
}

func (l *Live) session(node string, m proto.Method) (*session.Session, error) {
	k, ok := l.links[node]
	if !ok {
		return nil, proto.Errorf(proto.CodeNotFound, "%s: the pair has no node %q", m, node)
	}
	var s *session.Session
	if keeper := k.kept(); keeper != nil {
		s = keeper.Session()
	}
	if s == nil {
		return nil, proto.Errorf(proto.CodeUnreachable, "%s: no session to the agent", m).On(node).WithRemedy("wait for it to answer, or retry now")
	}
	return s, nil
}

// watch follows the agent's snapshots for as long as the session lasts. A delta that does not fit, or a stream that
// ends while the session lives, begins again with a whole snapshot.
func (k *link) watch(ctx context.Context, s *session.Session) {
	for ctx.Err() == nil && s.Err() == nil {
		var have *proto.Snapshot
		stream, cut := context.WithCancel(ctx)
		k.mu.Lock()
		k.again = cut
		k.mu.Unlock()
		err := s.Stream(stream, proto.MethodWatch, proto.Empty{}, func(raw json.RawMessage) error {
			var e proto.WatchEvent
			if err := json.Unmarshal(raw, &e); err != nil {
				return proto.Errorf(proto.CodeInvalid, "watch: the agent sent what cannot be read: %v", err).On(k.node)
			}
			next, err := follow(have, e)
			if err != nil {
				return err
			}
			have = next
			k.up(*have)
			return nil
		})
		hung := stream.Err() != nil
		cut()
		if err != nil && s.Err() == nil && !hung {
			k.refused(err)
		}
		t := time.NewTimer(time.Second) // the session may be alive and the agent unable; do not spin
		select {
		case <-t.C:
		case <-ctx.Done():
		case <-s.Done():
		}
		t.Stop()
	}
}

// vouch asks the agent for a sign of life every few seconds for as long as the session lasts. Without one the node counts
// as silent, whatever the session says; a watch that stands still while the agent has newer states is begun again.
func (k *link) vouch(ctx context.Context, s *session.Session) {
	t := time.NewTicker(k.pace.every)
	defer t.Stop()
	var behind uint64 // the agent's newest snapshot a moment ago, 0 if it was not asked for
	for n := 1; ; n++ {
		asked, cancel := context.WithTimeout(ctx, k.pace.limit)
		began := time.Now()
		err := s.Call(asked, proto.MethodPing, proto.Empty{}, nil) // any answer will do, a refusal too
		late := asked.Err() != nil
		cancel()
		if ctx.Err() != nil || s.Err() != nil {
			return
		}
		if late {
			k.silent(err)
		} else {
			k.answered(time.Since(began))
		}
		k.catchUp(behind)
		behind = 0
		if n%k.pace.seq == 0 && !late {
			behind = k.newest(ctx, s)
		}
		select {
		case <-t.C:
		case <-s.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

// newest is the number of the agent's newest snapshot if the watch has not brought it yet.
func (k *link) newest(ctx context.Context, s *session.Session) uint64 {
	ctx, cancel := context.WithTimeout(ctx, k.pace.limit)
	defer cancel()
	var snap proto.Snapshot
	if s.Call(ctx, proto.MethodSnapshot, proto.Empty{}, &snap) != nil {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cur.Snapshot == nil || snap.Seq <= k.cur.Snapshot.Seq {
		return 0
	}
	return snap.Seq
}

// catchUp begins the watch anew if it has not come as far as the agent was a round ago.
func (k *link) catchUp(seq uint64) {
	k.mu.Lock()
	again := k.again
	stuck := seq > 0 && k.cur.LinkUp && k.cur.Snapshot != nil && k.cur.Snapshot.Seq < seq
	k.mu.Unlock()
	if stuck && again != nil {
		again()
	}
}

func (k *link) silent(err error) {
	k.mu.Lock()
	up := k.cur.LinkUp
	k.mute = true
	k.mu.Unlock()
	if !up {
		return
	}
	k.change(func(u *Update) {
		u.LinkUp, u.RTT = false, 0
		u.Err = fmt.Errorf("the session is open, but the agent does not answer within %v", k.pace.limit)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			u.Err = errors.New(clean.String(err.Error()))
		}
	})
}

// answered takes in a sign of life. The time it took is told only when it changed much: a screen on which nothing happens
// stays the same.
func (k *link) answered(rtt time.Duration) {
	k.mu.Lock()
	back := k.mute && !k.cur.LinkUp && k.cur.Snapshot != nil
	k.mute = false
	if k.cur.LinkUp || back {
		k.cur.At = time.Now()
	}
	told := k.cur.RTT
	k.mu.Unlock()
	if near := rtt < 3*told && rtt > told/3 || rtt < smallRTT && told < smallRTT; !back && told > 0 && near {
		return
	}
	k.change(func(u *Update) {
		u.RTT = rtt
		if back {
			u.LinkUp, u.Err, u.NextTry = true, nil, time.Time{}
		}
	})
}

var errGap = errors.New("a delta does not follow the snapshot before it")

func follow(have *proto.Snapshot, e proto.WatchEvent) (*proto.Snapshot, error) {
	switch {
	case e.Snapshot != nil:
		return e.Snapshot, nil
	case e.Delta == nil:
		return nil, errors.New("the agent sent an empty event")
	case have == nil:
		return nil, errGap
	}
	next, ok := have.Apply(*e.Delta)
	if !ok {
		return nil, errGap
	}
	return &next, nil
}

func (k *link) change(f func(u *Update)) {
	k.mu.Lock()
	f(&k.cur)
	u := k.cur
	k.mu.Unlock()
	k.news.put(u)
}

func (k *link) up(s proto.Snapshot) {
	s = clean.Value(s)
	k.change(func(u *Update) {
		u.Snapshot, u.LinkUp, u.Err, u.NextTry, u.At = &s, true, nil, time.Time{}, time.Now()
		k.mute = false
	})
}

// refused tells that the session is there but the agent does not let us watch.
func (k *link) refused(err error) {
	if errors.Is(err, errGap) {
		return
	}
	k.change(func(u *Update) {
		u.LinkUp, u.Err = false, errors.New(clean.String(err.Error()))
	})
}

func (k *link) down(err error, retry time.Duration) {
	k.change(func(u *Update) {
		k.mute = false
		u.LinkUp, u.RTT, u.NextTry = false, 0, time.Now().Add(retry)
		if err != nil {
			u.Err = errors.New(clean.String(err.Error()))
		}
	})
}
