package agent

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"example.com/santui/proto"
)

// hub publishes the agent's snapshot. Anybody may poke it; one goroutine builds.
type hub struct {
	build   func() proto.Snapshot // reads all sources; called by run only
	log     *slog.Logger
	pokes   chan struct{}
	cur     atomic.Pointer[proto.Snapshot]
	changed atomic.Pointer[chan struct{}]
	readers atomic.Int32 // of watch

	mu     sync.Mutex // protects what follows
	events []proto.Event
	seq    uint64
	node   string
}

// hubPause is the shortest time between two snapshots: a burst of changes becomes one.
const hubPause = 200 * time.Millisecond

func newHub(node string, log *slog.Logger) *hub {
	h := &hub{log: log, pokes: make(chan struct{}, 1), node: node}
	ch := make(chan struct{})
	h.changed.Store(&ch)
	h.cur.Store(&proto.Snapshot{Schema: proto.Schema, Node: node})
	return h
}

// poke asks for a new snapshot soon. It never blocks.
func (h *hub) poke() {
	select {
	case h.pokes <- struct{}{}:
	default:
	}
}

// event appends a line to the event list and the log.
func (h *hub) event(level proto.Level, resource, opID, text string) {
	slogLevel := map[proto.Level]slog.Level{proto.LevelWarn: slog.LevelWarn, proto.LevelAlert: slog.LevelError}[level]
	h.log.Log(context.Background(), slogLevel, text, "resource", resource, "op", opID)
	h.list(level, resource, opID, text)
}

// list appends a line to the event list only, for what was logged already.
func (h *hub) list(level proto.Level, resource, opID, text string) {
	h.mu.Lock()
	h.seq++
	h.events = append(h.events, proto.Event{
		Seq: h.seq, At: time.Now(), Node: h.node, Resource: resource, Level: level, Text: text, OpID: opID,
	})
	if n := len(h.events); n > proto.MaxEvents {
		h.events = append([]proto.Event(nil), h.events[n-proto.MaxEvents:]...)
	}
	h.mu.Unlock()
	h.poke()
}

func (h *hub) eventList() []proto.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.events[:len(h.events):len(h.events)]
}

// run builds snapshots until ctx ends.
func (h *hub) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.pokes:
		}
		select { // let a burst gather
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		h.publish()
		timer.Reset(hubPause)
	}
}

func (h *hub) publish() {
	old, s := h.cur.Load(), h.build()
	s.Seq, s.At = old.Seq, old.At
	if reflect.DeepEqual(*old, s) {
		return
	}
	s.Seq, s.At = old.Seq+1, time.Now()
	h.cur.Store(&s)
	next := make(chan struct{})
	close(*h.changed.Swap(&next))
}

// watched says whether somebody looks at what is published.
func (h *hub) watched() bool { return h.readers.Load() > 0 }

// watch sends the snapshot, then what changes, until ctx ends. A slow receiver skips intermediate states: each delta
// leads from what it got last to what is newest.
func (h *hub) watch(ctx context.Context, send func(proto.WatchEvent) error) error {
	h.readers.Add(1)
	defer h.readers.Add(-1)
	ch := *h.changed.Load()
	last := *h.cur.Load()
	if err := send(proto.WatchEvent{Snapshot: &last}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ch:
		}
		ch = *h.changed.Load()
		cur := *h.cur.Load()
		if cur.Seq == last.Seq {
			continue
		}
		d := proto.Diff(last, cur)
		if err := send(proto.WatchEvent{Delta: &d}); err != nil {
			return err
		}
		last = cur
	}
}
