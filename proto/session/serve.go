package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"example.com/santui/proto"
)

// errCallerGone is the cause of a handler's context when the caller closed its stream.
var errCallerGone = fmt.Errorf("the caller gave up: %w", context.Canceled)

// serve answers one stream of the other side.
func (s *Session) serve(st stream) {
	defer func() { _ = st.Close() }()
	_ = st.SetReadDeadline(time.Now().Add(s.o.RequestTimeout))
	f, err := readFrame(st)
	out := &answerer{st: st, o: s.o}
	if err != nil {
		if pe := (*proto.Error)(nil); errors.As(err, &pe) {
			_ = out.fail(pe.On(s.o.Node))
		}
		s.log.Debug("a stream without a request", "err", err)
		return
	}
	var r request
	if f.kind != frameRequest || json.Unmarshal(f.payload, &r) != nil {
		_ = out.fail(proto.Errorf(proto.CodeInvalid, "the first frame of a stream is not a request").On(s.o.Node))
		return
	}
	release, err := s.admit(len(f.payload))
	if err != nil {
		s.answer(out, r.Method, err)
		return
	}
	defer release()

	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	_ = st.SetReadDeadline(time.Time{})
	gone := make(chan struct{})
	go func() { // in yamux, only a read notices that the caller closed
		defer close(gone)
		var b [1]byte
		if n, _ := st.Read(b[:]); n > 0 {
			cancel(fmt.Errorf("the caller sent more than its request: %w", context.Canceled))
		} else {
			cancel(errCallerGone)
		}
	}()
	s.run(ctx, out, r)
	_ = st.Close()
	_ = st.SetReadDeadline(time.Now().Add(drainTimeout))
	<-gone
}

// admit takes a handler's slot and its bytes.
func (s *Session) admit(n int) (release func(), err error) {
	if s.inFlight.Add(int64(n)) > MaxInFlight {
		s.inFlight.Add(int64(-n))
		return nil, proto.Errorf(proto.CodeLimit, "requests of more than %d bytes are under way on this session", MaxInFlight)
	}
	t := time.NewTimer(drainTimeout)
	defer t.Stop()
	select {
	case s.handling <- struct{}{}:
		return func() { <-s.handling; s.inFlight.Add(int64(-n)) }, nil
	case <-t.C:
	case <-s.ctx.Done():
	}
	s.inFlight.Add(int64(-n))
	return nil, proto.Errorf(proto.CodeLimit, "%d requests are under way on this session", proto.MaxStreams)
}

// run finds and runs the handler, and sends its answer.
func (s *Session) run(ctx context.Context, out *answerer, r request) {
	if r.Timeout > 0 && r.Timeout < 1e9 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, time.Duration(r.Timeout*float64(time.Second)))
		defer stop()
	}
	out.ctx = ctx
	p := Peer{Hello: s.peer, Session: s}
	if h, ok := s.o.Mux.calls[r.Method]; ok {
		v, err := guard(s.log, r.Method, func() (any, error) { return h(ctx, p, r.In) })
		if err == nil {
			if err = out.put(frameResponse, v, true); err == nil || out.broken() {
				return
			}
		}
		s.answer(out, r.Method, err)
		return
	}
	if h, ok := s.o.Mux.streams[r.Method]; ok {
		send := func(v any) error { return out.put(frameEvent, v, false) }
		_, err := guard(s.log, r.Method, func() (any, error) { return nil, h(ctx, p, r.In, send) })
		s.answer(out, r.Method, err)
		return
	}
	s.answer(out, r.Method, proto.Errorf(proto.CodeNotFound, "%s does not know the request %.40q", nodeName(s.o.Node), r.Method).
		WithRemedy("is the other side of a newer version?"))
}

// guard turns a panic into an error.
func guard(log *slog.Logger, m proto.Method, f func() (any, error)) (v any, err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("a handler panicked", "method", string(m), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			v, err = nil, fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// answer ends a stream with err, or without an error.
func (s *Session) answer(out *answerer, m proto.Method, err error) {
	if err == nil {
		_ = out.end()
		return
	}
	pe, leaked := toWire(err, m, s.o.Node)
	if leaked {
		s.log.Error("a request failed", "method", string(m), "err", err)
	}
	_ = out.fail(pe)
}

// answerer writes the frames of one answer. mu orders them; a frame that could not be written whole breaks the answer.
type answerer struct {
	st  stream
	o   Options
	ctx context.Context // of the handler

	mu   sync.Mutex
	err  error // the first failure of a write
	over bool  // end was written
}

// put writes v as a frame of kind k, and end behind it if last. A value that cannot be sent leaves the answer usable.
func (a *answerer) put(k frameKind, v any, last bool) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	if len(b) > proto.MaxFrame {
		return proto.Errorf(proto.CodeLimit, "the answer takes %d bytes, the limit is %d", len(b), proto.MaxFrame)
	}
	if !last { // writing to a stream that the caller closed succeeds in yamux: the context knows
		if err := context.Cause(a.ctx); err != nil {
			return err
		}
	}
	buf := appendFrame(make([]byte, 0, len(b)+2*frameHeader), k, b)
	if last {
		buf = appendFrame(buf, frameEnd, nil)
	}
	return a.write(buf, last)
}

// fail writes an error and the end.
func (a *answerer) fail(pe *proto.Error) error {
	b, err := json.Marshal(pe)
	if err != nil || len(b) > proto.MaxFrame {
		b, err = json.Marshal(&proto.Error{Code: pe.Code, Node: pe.Node, Text: fmt.Sprintf("%.1000s", pe.Text)})
		if err != nil {
			return err
		}
	}
	return a.write(appendFrame(appendFrame(nil, frameError, b), frameEnd, nil), true)
}

func (a *answerer) end() error { return a.write(appendFrame(nil, frameEnd, nil), true) }

func (a *answerer) broken() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err != nil
}

func (a *answerer) write(b []byte, last bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over && a.err == nil {
		return io.ErrClosedPipe // send after the handler returned
	}
	if a.err != nil {
		return a.err
	}
	_ = a.st.SetWriteDeadline(time.Now().Add(a.o.WriteTimeout))
	if _, err := a.st.Write(b); err != nil {
		a.err = fmt.Errorf("sending to the caller: %w", err)
		return a.err
	}
	a.over = last
	return nil
}
