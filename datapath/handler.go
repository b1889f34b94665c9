package datapath

import (
	"context"
	"sync/atomic"
	"time"

	"example.com/santui/datapath/state"
	"example.com/santui/proto"
)

// handlers are the commands under way. Those that only tell run one after the other, in the order in which things
// happened; what something waits for starts at once. All of them end with the owner.
type handlers struct {
	ctx     context.Context
	last    chan struct{} // closed when the newest of the queue has ended
	waiting atomic.Int32  // in the queue
}

// maxHandlers bounds the queue, for a link that comes and goes faster than its handlers end.
const maxHandlers = 16

// has says whether there is a command for a handler.
func (o *owner) has(handler string) bool {
	h := o.r.cfg.Helper
	return h != nil && h.Has(handler)
}

// runHandler queues a handler that nothing waits for.
func (o *owner) runHandler(name string) {
	h := &o.handlers
	if !o.has(name) {
		return
	}
	if h.waiting.Add(1) > maxHandlers {
		h.waiting.Add(-1)
		o.r.event(proto.LevelWarn, "handler %s is not run: %d others have not ended", name, maxHandlers)
		return
	}
	before, done := h.last, make(chan struct{})
	h.last = done
	o.r.background.Go(func() {
		defer close(done)
		defer h.waiting.Add(-1)
		if before != nil {
			<-before
		}
		o.r.handler(h.ctx, name)
	})
}

// await runs a handler now and then calls f in the owner's goroutine with its exit code, -1 if it has none.
func (o *owner) await(name string, f func(exit int)) {
	o.r.background.Go(func() {
		exit := o.r.handler(o.handlers.ctx, name)
		o.r.inbox.put(handlerEnded{func() { f(exit) }})
	})
}

// fencePeer calls fence-peer. Without one nothing is known of the peer, as if the handler had failed.
func (o *owner) fencePeer() {
	if !o.has("fence-peer") {
		o.r.event(proto.LevelAlert, "fencing is %s, but no handler fence-peer is configured", o.r.cfg.Fencing)
		o.r.inbox.put(handlerEnded{func() { _ = o.step(state.FencePeerDone{Exit: -1}) }})
		return
	}
	o.await("fence-peer", func(exit int) { _ = o.step(state.FencePeerDone{Exit: exit}) })
}

// handler runs one, tells operators what came of it, and gives its exit code, -1 if it has none.
func (r *Resource) handler(ctx context.Context, name string) int {
	if ctx.Err() != nil {
		return -1
	}
	begin := time.Now()
	exit, said, err := r.cfg.Helper.Run(ctx, name)
	took := time.Since(begin).Round(10 * time.Millisecond)
	if said != "" {
		said = ": " + said
	}
	switch {
	case err != nil:
		r.event(proto.LevelAlert, "handler %s: %v", name, err)
		return -1
	case exit != 0:
		r.event(proto.LevelWarn, "handler %s ended with exit code %d after %v%s", name, exit, took, said)
	default:
		r.event(proto.LevelInfo, "handler %s done in %v%s", name, took, said)
	}
	return exit
}

// handledFirst holds back a packet that would begin a resync until the handler for that has ended, as DRBD does
// (drbd_start_resync, drbd_worker.c). Its receiver waits too, so nothing overtakes it. If the handler says no, the link
// goes down until an operator connects.
func (o *owner) handledFirst(m fromPeer) bool {
	if m.l != o.link {
		return false
	}
	name := o.beginsResync(m.ev)
	if name == "" {
		return false
	}
	m.l.held.Store(true)
	o.await(name, func(exit int) {
		m.l.held.Store(false)
		m.l.turn.Store(since0(time.Now()))
		if exit != 0 && m.l == o.link {
			_ = o.step(state.PeerRejected{Text: "the handler " + name + " does not want the resync. Remove its reason, then connect"})
		}
		o.deliver(m)
	})
	return true
}

// beginsResync gives the handler that is to be run before an event, "" if there is none.
func (o *owner) beginsResync(ev state.Event) string {
	const source, target = "before-resync-source", "before-resync-target"
	if o.st.Conn.Syncing() || !o.has(source) && !o.has(target) {
		return ""
	}
	name := ""
	switch st, _, _ := state.Step(o.st, ev); st.Conn {
	case proto.SyncSource, proto.PausedSyncS:
		name = source
	case proto.SyncTarget, proto.PausedSyncT:
		name = target
	}
	if name == "" || !o.has(name) {
		return ""
	}
	return name
}
