package session_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

type jsonRaw = json.RawMessage

var agentOptions = session.Options{Node: "otter", Version: "1.1", Kind: session.KindAgent, PrologueTimeout: time.Second, RequestTimeout: 200 * time.Millisecond, WriteTimeout: 300 * time.Millisecond}

func hello(lo, hi uint16, body string) []byte {
	b := binary.BigEndian.AppendUint16([]byte("SANTUI"), lo)
	b = binary.BigEndian.AppendUint16(b, hi)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

const goodHello = `{"node":"admin@laptop","version":"1.0","kind":"cockpit","codec":"unknown fields are ignored"}`

// serverAnswer lets a server read b and returns its error and all that it sent.
func serverAnswer(t *testing.T, o session.Options, b []byte) (sent []byte, err error) {
	t.Helper()
	client, server := tcpConns(t)
	done := make(chan error, 1)
	go func() {
		s, err := session.Server(context.Background(), server, o)
		if err == nil {
			_ = s.Close()
			_ = s.Wait()
		}
		done <- err
	}()
	if _, err := client.Write(b); err != nil {
		t.Fatal(err)
	}
	_ = client.(*net.TCPConn).CloseWrite() // fails when the server was quicker
	sent, _ = io.ReadAll(client)           // may end with a reset, which is fine
	return sent, <-done
}

func TestServerPrologue(t *testing.T) {
	denied := agentOptions
	denied.Admit = func(h session.Hello) error {
		return proto.Errorf(proto.CodeDenied, "no room for %s", h.Node)
	}
	for _, c := range []struct {
		name string
		o    session.Options
		in   []byte
		code proto.ErrorCode
		sent string // part of the refusal
	}{
		{"good", agentOptions, hello(1, 1, goodHello), "", `"node":"otter"`},
		{"wider range", agentOptions, hello(0, 99, goodHello), "", "SANTUI\x00\x00\x01"},
		{"too new", agentOptions, hello(2, 9, goodHello), proto.CodeVersion, "the caller 2 to 9"},
		{"too old", agentOptions, hello(0, 0, goodHello), proto.CodeVersion, "the caller 0 to 0"},
		{"upside down", agentOptions, hello(9, 1, goodHello), proto.CodeVersion, "the caller 9 to 1"},
		{"refused", denied, hello(1, 1, goodHello), proto.CodeDenied, "no room for admin@laptop"},
		{"not ours", agentOptions, []byte("GET / HTTP/1.1\r\n\r\n"), proto.CodeInvalid, ""},
		{"oversize", agentOptions, hello(1, 1, strings.Repeat("x", 5000)), proto.CodeLimit, "5000 bytes"},
		{"no JSON", agentOptions, hello(1, 1, "{"), proto.CodeInvalid, "not valid JSON"},
		{"long name", agentOptions, hello(1, 1, `{"node":"`+strings.Repeat("x", 300)+`"}`), proto.CodeLimit, "300 bytes"},
		{"escape in name", agentOptions, hello(1, 1, `{"node":"\u001b[2J","kind":"peer"}`), proto.CodeInvalid, "control characters"},
		{"unknown kind", agentOptions, hello(1, 1, `{"node":"x","kind":"king"}`), proto.CodeInvalid, "king"},
		{"cut", agentOptions, hello(1, 1, goodHello)[:20], proto.CodeUnreachable, ""},
		{"nothing", agentOptions, nil, proto.CodeUnreachable, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			sent, err := serverAnswer(t, c.o, c.in)
			if got := session.Code(err); got != c.code {
				t.Errorf("code %q of %v, want %q", got, err, c.code)
			}
			if !strings.Contains(string(sent), c.sent) {
				t.Errorf("the server sent %q, want %q in it", sent, c.sent)
			}
		})
	}
}

// answerClient lets a client meet a server that answers b.
func answerClient(t *testing.T, b []byte) error {
	t.Helper()
	client, server := tcpConns(t)
	go func() {
		_, _ = server.Write(b)
		_ = server.(*net.TCPConn).CloseWrite()
	}()
	s, err := session.Client(t.Context(), client, session.Options{Kind: session.KindCockpit, PrologueTimeout: time.Second})
	if err == nil {
		_ = s.Close()
		_ = s.Wait()
	}
	return err
}

func TestClientPrologue(t *testing.T) {
	answer := func(status byte, version uint16, body string) []byte {
		b := append([]byte("SANTUI"), status)
		b = binary.BigEndian.AppendUint16(b, version)
		b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
		return append(b, body...)
	}
	for _, c := range []struct {
		name string
		in   []byte
		code proto.ErrorCode
		text string
	}{
		{"good", answer(0, 1, `{"node":"otter","kind":"agent"}`), "", ""},
		{"refused", answer(1, 0, `{"code":"version","text":"too old"}`), proto.CodeVersion, "too old"},
		{"refused without reason", answer(1, 0, `{`), proto.CodeDenied, "no reason"},
		{"version not offered", answer(0, 7, `{"node":"otter","kind":"agent"}`), proto.CodeVersion, "version 7"},
		{"unknown status", answer(5, 1, `{}`), proto.CodeInvalid, "status 5"},
		{"login script", []byte("Welcome to otter!\n"), proto.CodeUnreachable, "login script"},
		{"short login script", []byte("hi\n"), proto.CodeUnreachable, `"hi\n"`},
		{"closed", nil, proto.CodeUnreachable, "EOF"},
		{"cut", answer(0, 1, `{"node":"otter","kind":"agent"}`)[:15], proto.CodeUnreachable, "EOF"},
		{"oversize", answer(0, 1, strings.Repeat(" ", 5000)), proto.CodeLimit, "5000 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := answerClient(t, c.in)
			if got := session.Code(err); got != c.code {
				t.Errorf("code %q of %v, want %q", got, err, c.code)
			}
			if c.text != "" && !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %q, want %q in it", err, c.text)
			}
		})
	}
}

func TestSilentSide(t *testing.T) {
	o := agentOptions
	o.PrologueTimeout = 50 * time.Millisecond
	for name, open := range map[string]func(context.Context, io.ReadWriteCloser, session.Options) (*session.Session, error){
		"client": session.Client, "server": session.Server,
	} {
		a, _ := tcpConns(t)
		began := time.Now()
		_, err := open(t.Context(), a, o)
		if session.Code(err) != proto.CodeUnreachable || time.Since(began) > 2*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(began))
		}
	}
	a, _ := tcpConns(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := session.Client(ctx, a, agentOptions); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while opening: %v", err)
	}
}

// rawClient is a client that speaks yamux by hand.
func rawClient(t *testing.T, o session.Options) *yamux.Session {
	t.Helper()
	client, server := tcpConns(t)
	done := make(chan error, 1)
	go func() { done <- session.Serve(context.Background(), server, o, nil) }()
	if _, err := client.Write(hello(1, 1, goodHello)); err != nil {
		t.Fatal(err)
	}
	var head [11]byte
	if _, err := io.ReadFull(client, head[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, client, int64(binary.BigEndian.Uint16(head[9:]))); err != nil {
		t.Fatal(err)
	}
	cfg := yamux.DefaultConfig()
	cfg.LogOutput = io.Discard
	s, err := yamux.Client(client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return s
}

// ask writes b on a new stream and returns everything that comes back.
func ask(t *testing.T, s *yamux.Session, b []byte) []byte {
	t.Helper()
	st, err := s.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := st.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := st.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(st)
	if err != nil {
		t.Fatalf("after %q: %v", out, err)
	}
	return out
}

func rawFrame(kind byte, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	return append(append(b, kind), body...)
}

func TestMalformedRequests(t *testing.T) {
	x := session.NewMux()
	session.HandleFunc(x, "echo", func(_ context.Context, _ session.Peer, in int) (int, error) { return in, nil })
	o := agentOptions
	o.Mux = x
	s := rawClient(t, o)
	good := rawFrame(1, `{"method":"echo","in":7,"future":true}`)
	end := string(rawFrame(5, ""))
	for _, c := range []struct {
		name string
		in   []byte
		want string
	}{
		{"good", good, string(rawFrame(2, "7")) + end},
		{"oversize", []byte{0xff, 0xff, 0xff, 0xff, 1}, `"code":"limit"`},
		{"unknown kind", rawFrame(9, "{}"), `"code":"invalid"`},
		{"kind 0", rawFrame(0, "{}"), `"code":"invalid"`},
		{"not a request", rawFrame(2, "7"), `"code":"invalid"`},
		{"no JSON", rawFrame(1, "{"), `"code":"invalid"`},
		{"no method", rawFrame(1, "{}"), `"code":"not-found"`},
		{"bad input", rawFrame(1, `{"method":"echo","in":"x"}`), `"code":"invalid"`},
		{"absurd timeout", rawFrame(1, `{"method":"echo","in":7,"timeout":1e300}`), string(rawFrame(2, "7")) + end},
		{"negative timeout", rawFrame(1, `{"method":"echo","in":7,"timeout":-1}`), string(rawFrame(2, "7")) + end},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := string(ask(t, s, c.in))
			if !strings.Contains(got, c.want) || !strings.HasSuffix(got, end) {
				t.Errorf("got %q, want %q in it and the end frame last", got, c.want)
			}
		})
	}
	for name, in := range map[string][]byte{"half a header": good[:3], "half a payload": good[:12], "silence": nil} {
		if got := ask(t, s, in); len(got) != 0 {
			t.Errorf("%s: got %q, want nothing once its time is over", name, got)
		}
	}
	if got := string(ask(t, s, good)); !strings.HasSuffix(got, end) {
		t.Errorf("the session did not survive: %q", got)
	}
}

func TestMoreThanARequestCancels(t *testing.T) {
	x := session.NewMux()
	left := make(chan error, 1)
	session.HandleFunc(x, "wait", func(ctx context.Context, _ session.Peer, _ proto.Empty) (proto.Empty, error) {
		<-ctx.Done()
		left <- context.Cause(ctx)
		return proto.Empty{}, ctx.Err()
	})
	o := agentOptions
	o.Mux = x
	s := rawClient(t, o)
	ask(t, s, append(rawFrame(1, `{"method":"wait"}`), "more"...))
	if err := <-left; !strings.Contains(err.Error(), "more than its request") {
		t.Error(err)
	}
}

func TestTooManyStreams(t *testing.T) {
	o := agentOptions
	o.RequestTimeout = time.Minute // silent streams stay
	s := rawClient(t, o)
	// What comes faster than it is accepted is reset by yamux, so open until the session ends.
	limit := time.After(10 * time.Second)
	for {
		if _, err := s.OpenStream(); err != nil {
			return
		}
		select {
		case <-s.CloseChan():
			return
		case <-limit:
			t.Fatalf("the session survived %d open streams", s.NumStreams())
		case <-time.After(time.Millisecond):
		}
	}
}

// rawServer is a server that answers each stream with b, by hand.
func rawServer(t *testing.T, b []byte) *session.Session {
	t.Helper()
	client, server := tcpConns(t)
	cfg := yamux.DefaultConfig()
	cfg.LogOutput = io.Discard
	var wg sync.WaitGroup
	wg.Go(func() {
		var head [12]byte
		_, _ = io.ReadFull(server, head[:])
		_, _ = io.CopyN(io.Discard, server, int64(binary.BigEndian.Uint16(head[10:])))
		h := []byte(`{"node":"otter","kind":"agent"}`)
		_, _ = server.Write(append(append([]byte("SANTUI\x00\x00\x01"), 0, byte(len(h))), h...))
		y, err := yamux.Server(server, cfg)
		if err != nil {
			t.Error(err)
			return
		}
		defer y.Close()
		for {
			st, err := y.AcceptStream()
			if err != nil {
				return
			}
			_, _ = st.Write(b)
			_ = st.Close()
		}
	})
	s, err := session.Client(t.Context(), client, session.Options{Kind: session.KindCockpit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Close()
		_ = s.Wait()
		wg.Wait()
	})
	return s
}

func TestMalformedAnswers(t *testing.T) {
	join := func(f ...[]byte) []byte { return bytes.Join(f, nil) }
	end := rawFrame(5, "")
	for _, c := range []struct {
		name   string
		answer []byte
		text   string
	}{
		{"nothing", nil, "unexpected EOF"},
		{"no end", rawFrame(2, "7"), "unexpected EOF"},
		{"no result", end, "without a result"},
		{"two results", join(rawFrame(2, "7"), rawFrame(2, "8"), end), "out of place"},
		{"event to a call", join(rawFrame(3, "7"), end), "out of place"},
		{"chunk", join(rawFrame(4, "7"), end), "out of place"},
		{"request", join(rawFrame(1, "7"), end), "out of place"},
		{"result after error", join(rawFrame(6, `{"code":"busy"}`), rawFrame(2, "8"), end), "out of place"},
		{"error that is no JSON", join(rawFrame(6, `{`), end), "cannot be read"},
		{"result of another type", join(rawFrame(2, `"x"`), end), "cannot be read"},
		{"oversize", []byte{0xff, 0, 0, 0, 2}, "the limit is"},
		{"cut", rawFrame(2, "12345678")[:8], "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out int
			err := rawServer(t, c.answer).Call(t.Context(), "x", nil, &out)
			if !errors.Is(err, session.ErrBroken) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want ErrBroken with %q", err, c.text)
			}
		})
	}
	err := rawServer(t, join(rawFrame(6, `{"text":"x"}`), end)).Call(t.Context(), "x", nil, nil)
	if errors.Is(err, session.ErrBroken) || session.Code(err) != proto.CodeInternal {
		t.Errorf("an error without code: %v", err)
	}
}

// holeConn swallows everything once it is shut: the other side is there but nothing arrives, as after a power cut.
type holeConn struct {
	net.Conn
	shut   atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (c *holeConn) Write(b []byte) (int, error) {
	if c.shut.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *holeConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.shut.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *holeConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func TestHalfOpenPeer(t *testing.T) {
	a, b := tcpConns(t)
	x := session.NewMux()
	entered := make(chan struct{})
	x.HandleStream("watch", func(ctx context.Context, _ session.Peer, _ jsonRaw, _ func(any) error) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	})
	o := agentOptions
	o.KeepAlive, o.Mux = 50*time.Millisecond, x
	served := make(chan error, 1)
	go func() { served <- session.Serve(context.Background(), b, o, nil) }()
	hole := &holeConn{Conn: a, closed: make(chan struct{})}
	c, err := session.Client(t.Context(), hole, session.Options{Kind: session.KindCockpit, KeepAlive: 50 * time.Millisecond, WriteTimeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-entered; hole.shut.Store(true) }()
	began := time.Now()
	err = c.Stream(t.Context(), "watch", nil, func(jsonRaw) error { return nil })
	if !errors.Is(err, session.ErrBroken) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v, want that the other side does not answer", err)
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("noticed only after %v", d)
	}
	_ = c.Wait()
	if err := <-served; err != nil && !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("the serving side: %v", err)
	}
}

// stuckConn stops writing: the send buffer is full and the other side never reads.
type stuckConn struct {
	*holeConn
	stuck atomic.Bool
}

func (c *stuckConn) Write(b []byte) (int, error) {
	if c.stuck.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}

func TestStuckWriteClosesTheSession(t *testing.T) {
	a, b := tcpConns(t)
	go func() { _ = session.Serve(context.Background(), b, agentOptions, nil) }()
	conn := &stuckConn{holeConn: &holeConn{Conn: a, closed: make(chan struct{})}}
	c, err := session.Client(t.Context(), conn, session.Options{Kind: session.KindCockpit, KeepAlive: time.Hour, WriteTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	conn.stuck.Store(true)
	err = c.Call(t.Context(), "x", strings.Repeat("x", 1000), nil)
	if !errors.Is(err, session.ErrBroken) {
		t.Errorf("got %v, want ErrBroken", err)
	}
	select {
	case <-c.Done():
	case <-time.After(2 * time.Second):
		t.Error("the session is still open")
	}
	_ = c.Wait()
}

func TestServeEndsWithContext(t *testing.T) {
	a, b := tcpConns(t)
	x := session.NewMux()
	entered := make(chan struct{})
	var left atomic.Bool
	x.Handle("wait", func(ctx context.Context, _ session.Peer, _ jsonRaw) (any, error) {
		close(entered)
		<-ctx.Done()
		left.Store(true)
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- session.Serve(ctx, b, agentOptions, x) }()
	c, err := session.Client(t.Context(), a, session.Options{Kind: session.KindCockpit})
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-entered; cancel() }()
	if err := c.Call(t.Context(), "wait", nil, nil); !errors.Is(err, session.ErrBroken) {
		t.Errorf("got %v, want ErrBroken", err)
	}
	if err := <-served; err != nil || !left.Load() {
		t.Errorf("Serve: %v; its handler has returned: %v", err, left.Load())
	}
	_ = c.Wait()
}

// yamux logs to stderr unless told otherwise, which would write over the cockpit.
func TestLogsGoToSlog(t *testing.T) {
	var buf lockedBuffer
	a, b := tcpConns(t)
	o := agentOptions
	o.Logger = slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug}))
	done := make(chan error, 1)
	go func() { done <- session.Serve(context.Background(), b, o, nil) }()
	if _, err := a.Write(append(hello(1, 1, goodHello), bytes.Repeat([]byte{0x7f}, 64)...)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("garbage behind the prologue was accepted")
	}
	if s := buf.String(); !strings.Contains(s, "Invalid protocol version") || !strings.Contains(s, "level=DEBUG") {
		t.Errorf("the log: %q", s)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestBrokenErrorText(t *testing.T) {
	err := error(&session.BrokenError{Method: "plan", Node: "otter", Cause: fmt.Errorf("x: %w", io.EOF)})
	if want := "plan on otter: the session broke before the answer was complete: x: EOF"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	var pe *proto.Error
	if !errors.As(err, &pe) || pe.Code != proto.CodeUnreachable || pe.Remedy == "" || !errors.Is(err, io.EOF) {
		t.Errorf("as proto.Error: %+v", pe)
	}
}
