package source

import (
	"context"
	"encoding/json"
	"errors"
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

	mu     sync.Mutex      // protects what follows
	keeper *session.Keeper // nil before Watch
	cur    Update          // what was told last; its Snapshot is safe to draw
}

// NewLive prepares a Source over the endpoints. Watch opens a session to each; they are kept open until ctx ends or
// Close. o describes the caller; its Kind is set to session.KindCockpit if empty.
func NewLive(ctx context.Context, endpoints []Endpoint, o session.Options) *Live {
	if o.Kind == "" {
		o.Kind = session.KindCockpit
	}
	l := &Live{ctx: ctx, options: o, links: map[string]*link{}, news: newLatest()}
	for _, e := range endpoints {
		l.nodes = append(l.nodes, e.Node)
		l.links[e.Node] = &link{node: e.Node, dial: e.Dial, news: l.news, cur: Update{Node: e.Node}}
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
				func(s *session.Session) { safe.Go(ctx, func() { k.watch(ctx, s) }) }, k.down)
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
		err := s.Stream(ctx, proto.MethodWatch, proto.Empty{}, func(raw json.RawMessage) error {
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
		if err != nil && s.Err() == nil {
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
	})
}

// refused tells that the session is there but the agent does not let us watch.
func (k *link) refused(err error) {
	if errors.Is(err, errGap) {
		return
	}
	k.change(func(u *Update) {
		if u.LinkUp {
			u.At = time.Now()
		}
		u.LinkUp, u.Err = false, errors.New(clean.String(err.Error()))
	})
}

func (k *link) down(err error, retry time.Duration) {
	k.change(func(u *Update) {
		if u.LinkUp {
			u.At = time.Now() // the session's keep-alive vouched for it until now
		}
		u.LinkUp, u.NextTry = false, time.Now().Add(retry)
		if err != nil {
			u.Err = errors.New(clean.String(err.Error()))
		}
	})
}
