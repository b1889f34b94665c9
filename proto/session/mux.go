package session

import (
	"context"
	"encoding/json"
	"fmt"

	"example.com/santui/proto"
)

// Handler answers a call. The result is sent as JSON. ctx ends when the caller gives up, its deadline passes or the
// session breaks; the handler must then return soon.
type Handler func(ctx context.Context, p Peer, in json.RawMessage) (any, error)

// StreamHandler answers a request with events. send may be used by several goroutines; it fails when the caller is
// gone, does not read for Options.WriteTimeout, or the event is larger than proto.MaxFrame, and after its first failure
// it always fails. The stream ends when the handler returns.
type StreamHandler func(ctx context.Context, p Peer, in json.RawMessage, send func(any) error) error

// Peer is who asks.
type Peer struct {
	Hello
	// Session leads back: a handler may call the caller.
	Session *Session
}

// Mux maps methods to handlers. Fill it before use; it must not change afterwards. One Mux may serve many sessions.
type Mux struct {
	calls   map[proto.Method]Handler
	streams map[proto.Method]StreamHandler
}

// NewMux returns an empty Mux.
func NewMux() *Mux {
	return &Mux{calls: map[proto.Method]Handler{}, streams: map[proto.Method]StreamHandler{}}
}

// Handle answers calls of m. A second registration of a method replaces the first.
func (x *Mux) Handle(m proto.Method, h Handler) {
	delete(x.streams, m)
	x.calls[m] = h
}

// HandleStream answers m with a stream of events.
func (x *Mux) HandleStream(m proto.Method, h StreamHandler) {
	delete(x.calls, m)
	x.streams[m] = h
}

// HandleFunc is Mux.Handle with typed input. Input that is not JSON of type In is refused with proto.CodeInvalid;
// unknown fields are ignored.
func HandleFunc[In, Out any](x *Mux, m proto.Method, f func(ctx context.Context, p Peer, in In) (Out, error)) {
	x.Handle(m, func(ctx context.Context, p Peer, raw json.RawMessage) (any, error) {
		in, err := decode[In](m, raw)
		if err != nil {
			return nil, err
		}
		return f(ctx, p, in)
	})
}

// StreamFunc is Mux.HandleStream with typed input and events.
func StreamFunc[In, Event any](x *Mux, m proto.Method, f func(ctx context.Context, p Peer, in In, send func(Event) error) error) {
	x.HandleStream(m, func(ctx context.Context, p Peer, raw json.RawMessage, send func(any) error) error {
		in, err := decode[In](m, raw)
		if err != nil {
			return err
		}
		return f(ctx, p, in, func(e Event) error { return send(e) })
	})
}

func decode[T any](m proto.Method, raw json.RawMessage) (T, error) {
	var v T
	if len(raw) == 0 {
		return v, nil
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, proto.Errorf(proto.CodeInvalid, "%s: the request cannot be read: %v", m, err)
	}
	return v, nil
}

// StreamOf is Caller.Stream with typed events.
func StreamOf[Event any](ctx context.Context, c Caller, m proto.Method, in any, on func(Event) error) error {
	return c.Stream(ctx, m, in, func(raw json.RawMessage) error {
		var e Event
		if err := json.Unmarshal(raw, &e); err != nil {
			return fmt.Errorf("%s: an event from %s cannot be read: %w", m, nodeName(c.Peer().Node), err)
		}
		return on(e)
	})
}
