package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"example.com/santui/proto"
)

// request is the payload of a request frame.
type request struct {
	Method proto.Method `json:"method"`
	// Timeout is how long the caller will wait, in seconds from now; 0 means no limit. It is relative because the
	// clocks of the two sides may differ.
	Timeout float64         `json:"timeout,omitempty"`
	In      json.RawMessage `json:"in,omitempty"`
}

// Call sends a request and reads its result.
func (s *Session) Call(ctx context.Context, m proto.Method, in, out any) error {
	var got bool
	return s.exchange(ctx, m, in, func(f frame) error {
		if f.kind != frameResponse || got {
			return unexpected(f.kind)
		}
		got = true
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(f.payload, out); err != nil {
			return fmt.Errorf("the result cannot be read: %w", err)
		}
		return nil
	}, func() error {
		if !got {
			return fmt.Errorf("the answer ended without a result: %w", io.ErrUnexpectedEOF)
		}
		return nil
	})
}

// Stream sends a request and hands each event to on.
func (s *Session) Stream(ctx context.Context, m proto.Method, in any, on func(json.RawMessage) error) error {
	var own error // of on, returned as it is
	err := s.exchange(ctx, m, in, func(f frame) error {
		if f.kind != frameEvent {
			return unexpected(f.kind)
		}
		own = on(f.payload)
		return own
	}, func() error { return nil })
	if own != nil {
		return own
	}
	return err
}

func unexpected(k frameKind) error {
	return fmt.Errorf("a frame of kind %d is out of place", k)
}

// exchange runs one request: on gets every frame but error and end, atEnd says whether the end came at a good place.
func (s *Session) exchange(ctx context.Context, m proto.Method, in any, on func(frame) error, atEnd func() error) error {
	if err := s.acquire(ctx, m); err != nil {
		return err
	}
	defer func() { <-s.slots }()
	req, err := encodeRequest(ctx, m, in)
	if err != nil {
		return err
	}
	st, err := s.mx.Open()
	if err != nil {
		return s.failed(ctx, m, err)
	}
	defer func() { _ = st.Close() }()
	_ = st.SetWriteDeadline(time.Now().Add(s.o.WriteTimeout))
	stop := context.AfterFunc(ctx, func() { // closing tells the other side, the deadlines wake us
		_ = st.SetReadDeadline(time.Unix(1, 0))
		_ = st.SetWriteDeadline(time.Unix(1, 0))
		_ = st.Close()
	})
	defer stop()
	if _, err := st.Write(appendFrame(nil, frameRequest, req)); err != nil {
		return s.failed(ctx, m, err)
	}
	return s.readAnswer(ctx, m, st, on, atEnd)
}

func (s *Session) readAnswer(ctx context.Context, m proto.Method, st stream, on func(frame) error, atEnd func() error) error {
	var remote *proto.Error
	for {
		f, err := readFrame(st)
		if err != nil {
			return s.failed(ctx, m, err)
		}
		switch {
		case f.kind == frameEnd:
			if remote != nil {
				if ctx.Err() != nil && (remote.Code == proto.CodeInterrupted || remote.Code == proto.CodeTimeout) {
					return s.failed(ctx, m, remote) // the echo of our own giving up
				}
				return remote
			}
			if err := atEnd(); err != nil {
				return s.failed(ctx, m, err)
			}
			return nil
		case remote != nil:
			return s.failed(ctx, m, unexpected(f.kind))
		case f.kind == frameError:
			remote = &proto.Error{}
			if err := json.Unmarshal(f.payload, remote); err != nil {
				return s.failed(ctx, m, fmt.Errorf("the error cannot be read: %w", err))
			}
			if remote.Code == "" {
				remote.Code = proto.CodeInternal
			}
		default:
			if err := on(f); err != nil {
				return s.failed(ctx, m, err)
			}
		}
	}
}

// acquire waits for one of our proto.MaxStreams slots.
func (s *Session) acquire(ctx context.Context, m proto.Method) error {
	if err := ctx.Err(); err != nil {
		return s.failed(ctx, m, err)
	}
	select {
	case s.slots <- struct{}{}:
		return nil
	default:
	}
	t := time.NewTimer(s.o.RequestTimeout)
	defer t.Stop()
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return s.failed(ctx, m, ctx.Err())
	case <-s.done:
		return s.failed(ctx, m, s.err)
	case <-t.C:
		return proto.Errorf(proto.CodeLimit, "%s: %d requests to %s are under way already", m, proto.MaxStreams, nodeName(s.peer.Node))
	}
}

func encodeRequest(ctx context.Context, m proto.Method, in any) ([]byte, error) {
	r := request{Method: m}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("%s: encoding the request: %w", m, err)
		}
		r.In = b
	}
	if d, ok := ctx.Deadline(); ok {
		r.Timeout = max(time.Until(d).Seconds(), 0.001)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("%s: encoding the request: %w", m, err)
	}
	if len(b) > proto.MaxFrame {
		return nil, proto.Errorf(proto.CodeLimit, "%s: the request takes %d bytes, the limit is %d", m, len(b), proto.MaxFrame)
	}
	return b, nil
}

// failed makes the error of a request that got no whole answer.
func (s *Session) failed(ctx context.Context, m proto.Method, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s on %s: %w", m, nodeName(s.peer.Node), ctx.Err())
	}
	select {
	case <-s.mx.Done(): // the reason of the session says more than the EOF of a stream
		<-s.done
		err = s.err
	default:
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	}
	return &BrokenError{Method: m, Node: s.peer.Node, Cause: err}
}
