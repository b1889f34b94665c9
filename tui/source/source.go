package source

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"example.com/santui/proto"
	"example.com/santui/tui/clean"
	"example.com/santui/tui/view"
)

// Update is what is known of one node now; Snapshot is whole, deltas are already applied.
type Update = view.Input

// Source feeds the cockpit: one per pair.
type Source interface {
	// Nodes are the pair's nodes as configured.
	Nodes() []string
	// Watch sends an update for a node whenever something changed, the newest only. It may be called once; the channel
	// is closed when ctx ends.
	Watch(ctx context.Context) <-chan Update
	// Call sends a request to the agent of a node and reads the result into out.
	Call(ctx context.Context, node string, m proto.Method, in, out any) error
	// Stream sends a request and calls on for each event until the agent ends the stream.
	Stream(ctx context.Context, node string, m proto.Method, in any, on func(json.RawMessage) error) error
	// RetryNow cuts a node's waiting time before the next attempt short.
	RetryNow(node string)
}

// Decode reads one event of a stream and makes its text safe to draw.
func Decode[T any](raw json.RawMessage) (T, error) {
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("an event of the agent cannot be read: %w", err)
	}
	return clean.Value(v), nil
}

// Call is Source.Call with a result whose text is safe to draw.
func Call[T any](ctx context.Context, s Source, node string, m proto.Method, in any) (T, error) {
	var v T
	err := s.Call(ctx, node, m, in, &v)
	return clean.Value(v), err
}

// latest hands the newest value per node from writers that never wait to one reader.
type latest struct {
	mu    sync.Mutex // protects what follows
	order []string
	vals  map[string]Update
	ready chan struct{} // capacity 1: something is there
}

func newLatest() *latest {
	return &latest{vals: map[string]Update{}, ready: make(chan struct{}, 1)}
}

func (l *latest) put(u Update) {
	l.mu.Lock()
	if _, ok := l.vals[u.Node]; !ok {
		l.order = append(l.order, u.Node)
	}
	l.vals[u.Node] = u
	l.mu.Unlock()
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

func (l *latest) take() (Update, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.order) == 0 {
		return Update{}, false
	}
	n := l.order[0]
	u := l.vals[n]
	l.order = l.order[1:]
	delete(l.vals, n)
	return u, true
}

// pump sends what comes into out until ctx ends, then closes it.
func (l *latest) pump(ctx context.Context, out chan<- Update) {
	defer close(out)
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.ready:
		}
		for u, ok := l.take(); ok; u, ok = l.take() {
			select {
			case out <- u:
			case <-ctx.Done():
				return
			}
		}
	}
}
