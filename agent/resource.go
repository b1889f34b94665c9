package agent

import (
	"context"
	"sync"
	"time"

	"example.com/santui/agent/engine"
	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// resource is one entry of drbd.conf on this node.
type resource struct {
	name string
	conf resourceConf
	eng  engine.Engine
	look chan struct{} // holds a token while a look at the stack runs: a look must not see another one's lvm as a user
	news chan struct{} // capacity 1: something was changed, look now

	mu    sync.Mutex // protects what follows
	seen  proto.Stack
	at    time.Time // when seen was read; zero if it must be read again
	since time.Time // a look that began before this does not count
	upErr string

	link      bool      // replication was connected at the last look
	linkAt    time.Time // since when
	wrote     int64     // bytes written at the last look
	lastWrite time.Time
	split     string // the two agents found a split brain by their histories

	costly   proto.Facts // of lookAround
	costlyAt time.Time
	beside   *proto.ServiceFacts // of serviceFacts
	besideAt time.Time
	alarm    string // what uses the backing disk beside replication
}

// stackPeriod is how often the stack of a Primary is read, stackLimit how long that may take.
const (
	stackPeriod = 3 * time.Second
	stackLimit  = 10 * time.Second
)

// stack returns what sits on the device, at most maxAge old. On a Secondary there is nothing, by construction.
func (r *resource) stack(ctx context.Context, ops *lvmops.Ops, maxAge time.Duration) proto.Stack {
	st := r.eng.Status()
	if st.Role != proto.Primary || st.Node == "" {
		return proto.Stack{}
	}
	asked := time.Now()
	recent := func() (proto.Stack, bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.seen, !r.at.IsZero() && asked.Sub(r.at) <= maxAge
	}
	if seen, ok := recent(); ok {
		return seen
	}
	ctx, cancel := context.WithTimeout(ctx, stackLimit)
	defer cancel()
	select {
	case r.look <- struct{}{}:
		defer func() { <-r.look }()
	case <-ctx.Done():
		return proto.Stack{Err: "an earlier look at the stack does not end: " + ctx.Err().Error()}
	}
	if seen, ok := recent(); ok { // the one that we waited for is fresh enough
		return seen
	}
	looks := 1
	if maxAge == 0 {
		looks = freshLooks
	}
	var begin time.Time
	seen := patient(ctx, looks, func() proto.Stack {
		begin = time.Now()
		seen, err := ops.Stack(ctx, st.Device, st.Node)
		if err != nil {
			seen.Err = err.Error()
		}
		return seen
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if begin.After(r.at) && begin.After(r.since) {
		r.seen, r.at = seen, begin
	}
	return seen
}

// freshLooks is how often whoever wants to move looks at a stack that does not answer in time, all within stackLimit: a node
// that is busy for a moment is no reason to refuse.
const freshLooks = 4

// patient looks until a look is complete, ctx ends, or it has been tried often enough.
func patient(ctx context.Context, looks int, look func() proto.Stack) proto.Stack {
	for {
		seen := look()
		if looks--; looks <= 0 || !lvmops.Slow(seen) || ctx.Err() != nil {
			return seen
		}
	}
}

// cached returns the last look at the stack without making one.
func (r *resource) cached() proto.Stack {
	if st := r.eng.Status(); st.Role != proto.Primary || st.Node == "" {
		return proto.Stack{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

// forget makes the next look a fresh one, and a soon one. It is called after every change to the stack.
func (r *resource) forget() {
	r.mu.Lock()
	r.at, r.costlyAt, r.besideAt, r.since = time.Time{}, time.Time{}, time.Time{}, time.Now()
	r.mu.Unlock()
	r.wake()
}

// wake makes stackLoop look now.
func (r *resource) wake() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// stackLoop keeps the look fresh while this node is Primary, until ctx ends. It lets the steps of an operation go first.
func (r *resource) stackLoop(ctx context.Context, ops *lvmops.Ops, moving func() bool, poke func()) {
	tick := time.NewTicker(stackPeriod)
	defer tick.Stop()
	for {
		if !moving() {
			r.stack(ctx, ops, stackPeriod/2)
			poke()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.news:
		}
	}
}

// statusLoop turns changes of the engine into new snapshots, until ctx ends.
func (r *resource) statusLoop(ctx context.Context, poke func()) {
	for {
		ch := r.eng.Changed()
		poke()
		select {
		case <-ctx.Done():
			return
		case <-ch:
		}
	}
}
