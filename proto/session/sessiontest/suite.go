package sessiontest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// Open opens one session for a test of the suite. Its options carry short times; it must use them as they are.
type Open func(t *testing.T, client, server session.Options) (c, s *session.Session)

// writeTimeout is what the suite sets as Options.WriteTimeout.
const writeTimeout = 300 * time.Millisecond

// Suite runs what every kind of session must pass. It waits for real events, never for times alone, so it also runs
// under a fake clock.
func Suite(t *testing.T, open Open) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*testing.T, Open)
	}{
		{"Call", testCall}, {"CallBack", testCallBack}, {"Errors", testErrors}, {"NoLeak", testNoLeak},
		{"Panic", testPanic}, {"Stream", testStream}, {"StreamStops", testStreamStops}, {"Cancel", testCancel},
		{"Deadline", testDeadline}, {"SlowReader", testSlowReader}, {"Broken", testBroken}, {"Closed", testClosed},
		{"Oversize", testOversize}, {"Parallel", testParallel}, {"TooMany", testTooMany},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open) })
	}
}

func dial(t *testing.T, open Open, h *session.Mux) (c, s *session.Session) {
	t.Helper()
	return open(t, session.Options{Node: "admin@laptop", Version: "1.0", Kind: session.KindCockpit, WriteTimeout: writeTimeout, RequestTimeout: writeTimeout},
		session.Options{Node: "otter", Version: "1.1", Kind: session.KindAgent, Mux: h, WriteTimeout: writeTimeout, RequestTimeout: writeTimeout})
}

type text struct {
	S string `json:"s"`
}

func echoMux() *session.Mux {
	x := session.NewMux()
	session.HandleFunc(x, "echo", func(_ context.Context, _ session.Peer, in text) (text, error) { return in, nil })
	return x
}

func testCall(t *testing.T, open Open) {
	c, s := dial(t, open, echoMux())
	var out text
	if err := c.Call(t.Context(), "echo", text{"héllo"}, &out); err != nil || out.S != "héllo" {
		t.Fatalf("echo: %q, %v", out.S, err)
	}
	if err := c.Call(t.Context(), "echo", nil, nil); err != nil {
		t.Fatalf("without input and output: %v", err)
	}
	big := text{strings.Repeat("x", proto.MaxFrame-200)}
	if err := c.Call(t.Context(), "echo", big, &out); err != nil || out != big {
		t.Fatalf("a request of nearly the largest size: %d bytes back, %v", len(out.S), err)
	}
	want := session.Hello{Node: "otter", Version: "1.1", Kind: session.KindAgent, Proto: 1}
	if c.Peer() != want {
		t.Errorf("the client sees %+v, want %+v", c.Peer(), want)
	}
	want = session.Hello{Node: "admin@laptop", Version: "1.0", Kind: session.KindCockpit, Proto: 1}
	if s.Peer() != want {
		t.Errorf("the server sees %+v, want %+v", s.Peer(), want)
	}
	if c.Err() != nil {
		t.Errorf("Err of a live session: %v", c.Err())
	}
}

func testCallBack(t *testing.T, open Open) {
	x := session.NewMux()
	x.Handle("ask", func(ctx context.Context, p session.Peer, _ json.RawMessage) (any, error) {
		var out text
		err := p.Session.Call(ctx, "who", nil, &out)
		return out, err
	})
	y := session.NewMux()
	y.Handle("who", func(context.Context, session.Peer, json.RawMessage) (any, error) { return text{"me"}, nil })
	c, _ := open(t, session.Options{Node: "weasel", Kind: session.KindPeer, Mux: y}, session.Options{Node: "otter", Kind: session.KindPeer, Mux: x})
	var out text
	if err := c.Call(t.Context(), "ask", nil, &out); err != nil || out.S != "me" {
		t.Fatalf("a handler that calls back: %q, %v", out.S, err)
	}
}

func testErrors(t *testing.T, open Open) {
	x := echoMux()
	sent := &proto.Error{Code: proto.CodeLocked, Text: "locked", Remedy: "wait", Resource: "r0",
		Checks: []proto.Check{{Code: "X", Result: proto.CheckFail}}, Lock: &proto.Lock{OpID: "7", Owner: "ann"}}
	x.Handle("locked", func(context.Context, session.Peer, json.RawMessage) (any, error) {
		return nil, fmt.Errorf("wrapped: %w", sent)
	})
	c, _ := dial(t, open, x)
	err := c.Call(t.Context(), "locked", nil, nil)
	var pe *proto.Error
	if !errors.As(err, &pe) {
		t.Fatalf("got %v, want a *proto.Error", err)
	}
	if pe.Code != sent.Code || pe.Text != sent.Text || pe.Remedy != sent.Remedy || pe.Node != "otter" || pe.Resource != "r0" ||
		len(pe.Checks) != 1 || pe.Checks[0].Code != "X" || pe.Lock == nil || pe.Lock.OpID != "7" {
		t.Errorf("the error changed on its way: %+v", pe)
	}
	wantCode(t, c.Call(t.Context(), "nonsense", nil, nil), proto.CodeNotFound)
	wantCode(t, c.Call(t.Context(), "echo", []int{1}, nil), proto.CodeInvalid)
	if err := c.Call(t.Context(), "echo", text{"still alive"}, nil); err != nil {
		t.Errorf("after errors: %v", err)
	}
}

func wantCode(t *testing.T, err error, code proto.ErrorCode) {
	t.Helper()
	if got := session.Code(err); got != code {
		t.Errorf("code %q of %v, want %q", got, err, code)
	}
}

func testNoLeak(t *testing.T, open Open) {
	x := session.NewMux()
	x.Handle("f", func(context.Context, session.Peer, json.RawMessage) (any, error) {
		return nil, errors.New("secret detail")
	})
	c, _ := dial(t, open, x)
	err := c.Call(t.Context(), "f", nil, nil)
	wantCode(t, err, proto.CodeInternal)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("an internal error leaked: %v", err)
	}
}

func testPanic(t *testing.T, open Open) {
	x := echoMux()
	x.Handle("boom", func(context.Context, session.Peer, json.RawMessage) (any, error) { panic("secret") })
	x.HandleStream("booms", func(_ context.Context, _ session.Peer, _ json.RawMessage, send func(any) error) error {
		if err := send(text{"one"}); err != nil {
			return err
		}
		panic("secret")
	})
	c, _ := dial(t, open, x)
	err := c.Call(t.Context(), "boom", nil, nil)
	wantCode(t, err, proto.CodeInternal)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("a panic leaked: %v", err)
	}
	n := 0
	err = c.Stream(t.Context(), "booms", nil, func(json.RawMessage) error { n++; return nil })
	wantCode(t, err, proto.CodeInternal)
	if n != 1 {
		t.Errorf("%d events before the panic, want 1", n)
	}
	if err := c.Call(t.Context(), "echo", nil, nil); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

func testStream(t *testing.T, open Open) {
	const n = 500
	x := session.NewMux()
	session.StreamFunc(x, "count", func(_ context.Context, _ session.Peer, _ proto.Empty, send func(int) error) error {
		for i := range n {
			if err := send(i); err != nil {
				return err
			}
		}
		return nil
	})
	c, _ := dial(t, open, x)
	next := 0
	err := session.StreamOf(t.Context(), c, "count", proto.Empty{}, func(i int) error {
		if i != next {
			return fmt.Errorf("event %d arrived, want %d", i, next)
		}
		next++
		return nil
	})
	if err != nil || next != n {
		t.Fatalf("%d events, %v", next, err)
	}
}

// endless sends until it fails, and reports how the handler ended.
func endless(size int) (*session.Mux, <-chan error) {
	x := echoMux()
	ended := make(chan error, 1)
	x.HandleStream("endless", func(_ context.Context, _ session.Peer, _ json.RawMessage, send func(any) error) error {
		v := text{strings.Repeat("x", size)}
		for {
			if err := send(v); err != nil {
				ended <- err
				return err
			}
		}
	})
	return x, ended
}

func testStreamStops(t *testing.T, open Open) {
	x, ended := endless(10)
	c, _ := dial(t, open, x)
	enough := errors.New("enough")
	if err := c.Stream(t.Context(), "endless", nil, func(json.RawMessage) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v, want the callback's own error", err)
	}
	if err := <-ended; err == nil {
		t.Error("the handler was not told")
	}
}

func testCancel(t *testing.T, open Open) {
	x := echoMux()
	entered, left := make(chan struct{}), make(chan error, 1)
	x.Handle("wait", func(ctx context.Context, _ session.Peer, _ json.RawMessage) (any, error) {
		close(entered)
		<-ctx.Done()
		left <- ctx.Err()
		return nil, ctx.Err()
	})
	c, _ := dial(t, open, x)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	err := c.Call(ctx, "wait", nil, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler's context: %v", err)
	}
	if err := c.Call(t.Context(), "echo", nil, nil); err != nil {
		t.Errorf("after a cancelled call: %v", err)
	}
	if err := c.Call(ctx, "echo", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with a dead context: %v", err)
	}
}

func testDeadline(t *testing.T, open Open) {
	x := session.NewMux()
	left := make(chan error, 1)
	x.Handle("wait", func(ctx context.Context, _ session.Peer, _ json.RawMessage) (any, error) {
		if _, ok := ctx.Deadline(); !ok {
			left <- errors.New("the deadline did not arrive")
			return nil, nil
		}
		<-ctx.Done()
		left <- nil
		return nil, ctx.Err()
	})
	c, _ := dial(t, open, x)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantCode(t, c.Call(ctx, "wait", nil, nil), proto.CodeTimeout)
	if err := <-left; err != nil {
		t.Error(err)
	}
}

func testSlowReader(t *testing.T, open Open) {
	x, ended := endless(10 << 10)
	c, _ := dial(t, open, x)
	hold := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		first := true
		done <- c.Stream(t.Context(), "endless", nil, func(json.RawMessage) error {
			if first {
				first = false
				<-hold
			}
			return nil
		})
	}()
	if err := <-ended; err == nil { // the sender gives up on the stream ...
		t.Error("the handler was not told")
	}
	if err := c.Call(t.Context(), "echo", text{"x"}, nil); err != nil { // ... and the session lives on
		t.Errorf("beside a slow stream: %v", err)
	}
	close(hold)
	if err := <-done; !errors.Is(err, session.ErrBroken) {
		t.Errorf("the slow reader got %v, want ErrBroken", err)
	}
}

func testBroken(t *testing.T, open Open) {
	x := session.NewMux()
	entered, left := make(chan struct{}), make(chan struct{})
	x.Handle("wait", func(ctx context.Context, _ session.Peer, _ json.RawMessage) (any, error) {
		close(entered)
		<-ctx.Done()
		close(left)
		return nil, nil
	})
	c, s := dial(t, open, x)
	go func() { <-entered; _ = s.Close() }()
	err := c.Call(t.Context(), "wait", nil, nil)
	if !errors.Is(err, session.ErrBroken) {
		t.Errorf("got %v, want ErrBroken", err)
	}
	wantCode(t, err, proto.CodeUnreachable)
	<-left
	<-c.Done()
	if err := c.Err(); !errors.Is(err, io.EOF) {
		t.Errorf("Err after the other side closed: %v, want io.EOF", err)
	}
	if err := s.Wait(); !errors.Is(err, session.ErrClosed) {
		t.Errorf("Err of the side that closed: %v, want ErrClosed", err)
	}
	err = c.Call(t.Context(), "wait", nil, nil)
	if !errors.Is(err, session.ErrBroken) || !errors.Is(err, io.EOF) {
		t.Errorf("a call on a dead session: %v", err)
	}
}

func testClosed(t *testing.T, open Open) {
	x := session.NewMux()
	entered := make(chan struct{})
	x.HandleStream("wait", func(ctx context.Context, _ session.Peer, _ json.RawMessage, _ func(any) error) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	})
	c, s := dial(t, open, x)
	go func() { <-entered; _ = c.Close() }()
	err := c.Stream(t.Context(), "wait", nil, func(json.RawMessage) error { return nil })
	if !errors.Is(err, session.ErrBroken) || !errors.Is(err, session.ErrClosed) {
		t.Errorf("a stream when its own side closes: %v", err)
	}
	if err := s.Wait(); !errors.Is(err, io.EOF) {
		t.Errorf("the other side: %v, want io.EOF", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

func testOversize(t *testing.T, open Open) {
	x := echoMux()
	x.Handle("big", func(context.Context, session.Peer, json.RawMessage) (any, error) {
		return strings.Repeat("x", proto.MaxFrame), nil
	})
	c, _ := dial(t, open, x)
	wantCode(t, c.Call(t.Context(), "echo", text{strings.Repeat("x", proto.MaxFrame)}, nil), proto.CodeLimit)
	wantCode(t, c.Call(t.Context(), "big", nil, nil), proto.CodeLimit)
	if err := c.Call(t.Context(), "echo", nil, nil); err != nil {
		t.Errorf("after oversize: %v", err)
	}
}

func testParallel(t *testing.T, open Open) {
	c, _ := dial(t, open, echoMux())
	var wg sync.WaitGroup
	for i := range 4 * proto.MaxStreams { // more than may be under way at once: the rest waits its turn
		wg.Go(func() {
			in, out := text{fmt.Sprint(i)}, text{}
			if err := c.Call(t.Context(), "echo", in, &out); err != nil || in != out {
				t.Errorf("call %d: %v, %v", i, out, err)
			}
		})
	}
	wg.Wait()
}

func testTooMany(t *testing.T, open Open) {
	x := session.NewMux()
	entered, release := make(chan struct{}, proto.MaxStreams), make(chan struct{})
	x.Handle("wait", func(ctx context.Context, _ session.Peer, _ json.RawMessage) (any, error) {
		entered <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil, nil
	})
	c, _ := dial(t, open, x)
	var wg sync.WaitGroup
	for range proto.MaxStreams {
		wg.Go(func() {
			if err := c.Call(t.Context(), "wait", nil, nil); err != nil {
				t.Errorf("one of the permitted calls: %v", err)
			}
		})
	}
	for range proto.MaxStreams {
		<-entered
	}
	wantCode(t, c.Call(t.Context(), "wait", nil, nil), proto.CodeLimit)
	close(release)
	wg.Wait()
}
