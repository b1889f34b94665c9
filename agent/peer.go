package agent

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// peer is the other agent behind the control link; it implements op.Node. Its methods fail with CodeUnreachable while
// the link is down.
type peer struct {
	a *Agent

	mu    sync.Mutex // protects what follows
	cur   *session.Session
	since time.Time
	err   string
	rtt   float64
}

// peerPing is how often the link's round trip is measured.
const peerPing = 5 * time.Second

// askLimit bounds a question that the peer answers without a look at anything.
const askLimit = 5 * time.Second

func newPeer(a *Agent) *peer { return &peer{a: a, since: time.Now(), err: "not connected yet"} }

// run keeps the link up until ctx ends.
func (p *peer) run(ctx context.Context) {
	c := p.a.cfg.Peer
	if c.Address == "" {
		p.down(errors.New("no [peer] in the agent's settings"))
		<-ctx.Done()
		return
	}
	keeper := session.Keep(ctx, func(ctx context.Context) (io.ReadWriteCloser, error) {
		return session.DialPeer(ctx, c.Address, p.a.identity, c.Pin)
	}, p.a.sessionOptions(session.KindPeer, nil), p.up, p.lost)
	defer func() { _ = keeper.Close() }()
	tick := time.NewTimer(untilBeat(peerPing))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Reset(untilBeat(peerPing))
			p.ping(ctx)
		}
	}
}

func (p *peer) up(s *session.Session) {
	if name := s.Peer().Node; name != p.a.peerName {
		p.a.hub.event(proto.LevelAlert, "", "", "the agent at "+p.a.cfg.Peer.Address+" calls itself "+name+", not "+p.a.peerName)
		_ = s.Close()
		return
	}
	p.mu.Lock()
	p.cur, p.since, p.err = s, time.Now(), ""
	p.mu.Unlock()
	p.a.hub.event(proto.LevelInfo, "", "", "control link to "+p.a.peerName+" is up")
	go func() { // it calls the peer, which the keeper must not wait for
		p.a.dropStaleLock(s)
		p.a.tellOps(s)
	}()
}

// tellOps brings the peer's copy of the journal up to date: what this agent ran while the link was down, and what it
// found orphaned when it started.
func (a *Agent) tellOps(s *session.Session) {
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	told := 0
	for _, o := range a.journal.All() {
		if o.Runner != a.cfg.Node || !o.State.Final() {
			continue
		}
		if err := s.Call(ctx, proto.MethodPeerJournal, o, nil); err != nil {
			return // the link is down again, and will come back
		}
		if told++; told == maxTold {
			return
		}
	}
}

// maxTold is how many of the newest operations the peer is told when the link comes up, answerLimit how long that may
// take.
const (
	maxTold     = 5
	answerLimit = 10 * time.Second
)

func (p *peer) lost(err error, _ time.Duration) {
	if p.down(err) {
		p.a.hub.event(proto.LevelWarn, "", "", "control link to "+p.a.peerName+" is down: "+err.Error())
	}
}

// down records that the link is not there and reports whether it was before.
func (p *peer) down(err error) bool {
	p.mu.Lock()
	was := p.cur != nil
	p.cur, p.rtt = nil, 0
	if was {
		p.since = time.Now()
	}
	p.err = err.Error()
	p.mu.Unlock()
	p.a.hub.poke()
	return was
}

// ping measures the round trip, unless the session's own keep-alive has done so just now.
func (p *peer) ping(ctx context.Context) {
	p.mu.Lock()
	s := p.cur
	p.mu.Unlock()
	if s == nil {
		return
	}
	rtt, at := s.RTT()
	if time.Since(at) > peerPing {
		ctx, cancel := context.WithTimeout(ctx, peerPing)
		defer cancel()
		begin := time.Now()
		if err := s.Call(ctx, proto.MethodPing, nil, nil); err != nil {
			return
		}
		rtt = time.Since(begin)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cur == s {
		p.rtt = rtt.Round(100 * time.Microsecond).Seconds()
	}
}

func (p *peer) link() proto.PeerLink {
	p.mu.Lock()
	defer p.mu.Unlock()
	return proto.PeerLink{Up: p.cur != nil, Since: p.since, RTT: p.rtt, Err: p.err}
}

func (p *peer) call(ctx context.Context, m proto.Method, in, out any) error {
	p.mu.Lock()
	s, why := p.cur, p.err
	p.mu.Unlock()
	if s == nil {
		return proto.Errorf(proto.CodeUnreachable, "no control link to %s: %s", p.a.peerName, why).On(p.a.cfg.Node).
			WithRemedy("look at the agent on %s and the network between the nodes", p.a.peerName)
	}
	return s.Call(ctx, m, in, out)
}

// Name implements op.Node.
func (p *peer) Name() string { return p.a.peerName }

// Observe implements op.Node.
func (p *peer) Observe(ctx context.Context, req proto.ObserveRequest) (proto.Observation, error) {
	var o proto.Observation
	err := p.call(ctx, proto.MethodPeerObserve, req, &o)
	if err == nil && o.Pair != p.a.pair {
		err = p.a.cfg.errorf(proto.CodeInvalid, "%s belongs to pair %q, this node to %q", p.a.peerName, o.Pair, p.a.pair).
			WithRemedy("set the same pair in both agents' settings")
	}
	if err == nil && !req.Brief {
		if err := p.a.journal.SeePeer(o); err != nil {
			p.a.log.Warn("the peer's stack could not be remembered", "err", err)
		}
	}
	return o, err
}

// Step implements op.Node.
func (p *peer) Step(ctx context.Context, req proto.PeerStepRequest) proto.StepResult {
	res := proto.StepResult{Started: time.Now()}
	if err := p.call(ctx, proto.MethodPeerStep, req, &res); err != nil {
		res.State, res.Err = proto.StepFailed, asError(err)
		if res.Err.Code == proto.CodeFailed {
			res.Err = proto.Errorf(session.Code(err), "%v", err)
		}
		res.Err = res.Err.On(p.a.peerName)
	}
	return res
}

// Lock implements op.Node.
func (p *peer) Lock(ctx context.Context, l proto.Lock) error {
	return p.call(ctx, proto.MethodPeerLock, l, nil)
}

// Unlock implements op.Node.
func (p *peer) Unlock(ctx context.Context, l proto.Lock) error {
	return p.call(ctx, proto.MethodPeerUnlock, l, nil)
}

// Journal implements op.Node.
func (p *peer) Journal(ctx context.Context, o proto.Op) error {
	return p.call(ctx, proto.MethodPeerJournal, o, nil)
}

// dropStaleLock releases the lock of an operation that the peer's agent ran when it died: the new agent does not know it
// as running.
func (a *Agent) dropStaleLock(s *session.Session) {
	a.mu.Lock()
	l := a.lock
	a.mu.Unlock()
	if l == nil || l.Node != a.peerName {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	var o proto.Observation
	err := s.Call(ctx, proto.MethodPeerObserve, proto.ObserveRequest{Resource: a.resources[0].name, Brief: true}, &o)
	if err != nil || o.OpID == l.OpID {
		return
	}
	if err := (local{a}).Unlock(ctx, *l); err == nil {
		a.hub.event(proto.LevelWarn, "", l.OpID, "released the lock of "+l.OpID+": "+a.peerName+" does not run it any more")
	}
}
