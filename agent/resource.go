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

	mu     sync.Mutex // protects what follows
	seen   proto.Stack
	at     time.Time     // when seen was read; zero if it must be read again
	glance string        // what ops.Glance said just before
	cost   time.Duration // of the last look that was not read from scratch
	since  time.Time     // a look that began before this does not count
	upErr  string

	link      bool      // replication was connected at the last look
	linkAt    time.Time // since when
	wrote     int64     // bytes written at the last look
	lastWrite time.Time
	split     string // the two agents found a split brain by their histories

	costly  costly  // of lookAround
	beside  beside  // of serviceFacts
	backing backing // of backingUsers
	alarm   string  // what uses the backing disk beside replication

	linkLook linkLook
	guarded  bool // linkLook has been fed
}

// stackPeriod is how often the agent glances at the stack of a Primary, and looks at it unless that takes too much of a
// core (see paceOf); stackLimit is how long a look may take.
const (
	stackPeriod = 3 * time.Second
	stackLimit  = 10 * time.Second
)

// age says how old a look may be: at most so much. 0 asks for a fresh one, which may leave out what shows that it has not changed
// since an earlier one, unless whole is set.
type age struct {
	most  time.Duration
	whole bool
}

func ageOf(req proto.ObserveRequest) age {
	return age{time.Duration(req.MaxAge * float64(time.Second)), req.Whole}
}

// stack returns what sits on the device. share is how much of a core lvm may take of somebody who asks again and again and for
// nothing fresh. On a Secondary there is nothing, by construction.
func (r *resource) stack(ctx context.Context, ops *lvmops.Ops, of age, share float64) proto.Stack {
	st := r.eng.Status()
	if st.Role != proto.Primary || st.Node == "" {
		return proto.Stack{}
	}
	asked := time.Now()
	recent := func() (proto.Stack, bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.seen, !r.at.IsZero() && asked.Sub(r.at) <= of.most
	}
	if seen, ok := recent(); ok && !of.whole {
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
	if seen, ok := recent(); ok && !of.whole { // the one that we waited for is fresh enough
		return seen
	}
	looks := 1
	if of.most == 0 {
		looks, share = freshLooks, freshShare
	}
	var begin time.Time
	var glance string
	var cost time.Duration
	seen := patient(ctx, looks, func() (seen proto.Stack) {
		var err error
		begin, glance = time.Now(), ops.Glance(ctx, st.Node)
		if of.whole {
			seen, err = ops.Stack(ctx, st.Device, st.Node)
		} else {
			seen, cost, err = ops.Watch(ctx, st.Device, st.Node, share)
		}
		if err != nil {
			seen.Err = err.Error()
		}
		return seen
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if begin.After(r.at) && begin.After(r.since) {
		r.seen, r.at, r.glance = seen, begin, glance
		if of.most > 0 {
			r.cost = cost
		}
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

// cached returns the last look at the stack without making one, and how old it may be.
func (r *resource) cached(share float64) proto.Stack {
	if st := r.eng.Status(); st.Role != proto.Primary || st.Node == "" {
		return proto.Stack{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen
	if pace := paceOf(r.cost, share, stackPeriod); pace > 2*stackPeriod {
		const step = 10 * time.Second // so that not every look is news to every cockpit
		seen.Every = pace.Round(step).Seconds()
	}
	return seen
}

// idleAge is how old a look may be for who asks for nothing fresh: as old as the loop lets it become.
func (r *resource) idleAge(share float64) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return paceOf(r.cost, share, stackPeriod) + 2*stackPeriod
}

// forget makes the next look a fresh one, and a soon one. It is called after every change to the stack.
func (r *resource) forget() {
	r.mu.Lock()
	r.at, r.costly.at, r.beside.at, r.since = time.Time{}, time.Time{}, time.Time{}, time.Now()
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

// due says whether the loop looks at the stack now, as far as time and its last glance tell.
func (r *resource) due(now time.Time, glance string, share float64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen.Err != "" {
		share = watchedShare // it may be over soon
	}
	return r.at.IsZero() || glance != r.glance || now.Sub(r.at) > paceOf(r.cost, share, stackPeriod)-stackPeriod/2
}

// stackLoop keeps the look as fresh as share allows while this node is Primary, until ctx ends. What a glance shows is
// followed by a look at once; what only a look shows, such as a process that opens a file, may take until the next one. It
// lets the steps of an operation go first.
func (r *resource) stackLoop(ctx context.Context, ops *lvmops.Ops, moving func() bool, share func() float64, poke func()) {
	tick := time.NewTimer(untilBeat(stackPeriod))
	defer tick.Stop()
	const anew = 1 // ns: no look that was there before is so young
	for {
		if !moving() {
			if st := r.eng.Status(); st.Role == proto.Primary && st.Node != "" && r.due(time.Now(), ops.Glance(ctx, st.Node), share()) {
				r.stack(ctx, ops, age{most: anew}, share())
			}
			poke()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Reset(untilBeat(stackPeriod))
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
