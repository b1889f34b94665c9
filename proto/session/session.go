package session

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"example.com/santui/proto"
)

// Times that a session uses unless Options say otherwise.
const (
	DefaultPrologueTimeout = 5 * time.Second  // for the whole prologue, TLS included
	DefaultRequestTimeout  = 5 * time.Second  // from the start of a stream to its whole request
	DefaultWriteTimeout    = 5 * time.Second  // one frame, or anything of yamux
	DefaultKeepAlive       = 2 * time.Second  // silence after which the other side is pinged
	closeTimeout           = 10 * time.Second // a stream half closed
	drainTimeout           = time.Second      // for the other side to close a stream that we ended
)

// Limits of a session beside proto.MaxFrame and proto.MaxStreams.
const (
	// MaxInFlight bounds the bytes of requests being served, per session.
	MaxInFlight = 8 << 20
	// maxIncoming bounds the open streams of the other side. One that keeps to proto.MaxStreams gets there only while
	// we are slow to notice that it closed streams, so we wait before we end the session.
	maxIncoming = 2 * proto.MaxStreams
)

// Options describe our side of a session. The zero value of a time means its default.
type Options struct {
	Node    string // our node name; a cockpit says user@host
	Version string // of our program
	Kind    Kind
	// Mux answers what the other side asks. nil refuses everything.
	Mux *Mux
	// Admit may refuse a caller in the prologue, preferably with a *proto.Error. Serving side only.
	Admit  func(Hello) error
	Logger *slog.Logger // nil discards

	PrologueTimeout time.Duration
	RequestTimeout  time.Duration
	WriteTimeout    time.Duration
	KeepAlive       time.Duration // see DefaultKeepAlive
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&o.PrologueTimeout, DefaultPrologueTimeout)
	set(&o.RequestTimeout, DefaultRequestTimeout)
	set(&o.WriteTimeout, DefaultWriteTimeout)
	set(&o.KeepAlive, DefaultKeepAlive)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Mux == nil {
		o.Mux = NewMux()
	}
	return o
}

// Caller sends requests to the other side of a session. It is safe for concurrent use.
type Caller interface {
	// Call sends in and reads the result into out; nil for either means there is none. The error is a *proto.Error
	// that the other side returned, a *BrokenError, or wraps the error of ctx.
	Call(ctx context.Context, m proto.Method, in, out any) error
	// Stream sends in and calls on for every event, in order, until the other side ends the stream (nil), fails, or on
	// returns an error, which Stream then returns. A slow on slows the sender, which may give up on us.
	Stream(ctx context.Context, m proto.Method, in any, on func(json.RawMessage) error) error
	// Peer is what the other side said of itself.
	Peer() Hello
	// Done is closed when the session is over.
	Done() <-chan struct{}
	// Err says why, once Done is closed; nil before.
	Err() error
	// Close ends the session and every request on it. It does not wait for handlers.
	Close() error
}

// Session is one end of a session.
type Session struct {
	o    Options
	peer Hello
	mx   muxer
	log  *slog.Logger

	ctx    context.Context // of all handlers
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // accept loop and handlers

	slots    chan struct{} // requests of ours under way
	handling chan struct{} // handlers that run
	incoming chan struct{} // streams of the other side
	inFlight atomic.Int64  // bytes of requests being served

	closed atomic.Bool // Close was called here
	done   chan struct{}
	err    error // valid once done is closed
}

var _ Caller = (*Session)(nil)

// muxer carries streams over one connection: yamux, or its in-memory twin.
type muxer interface {
	Open() (stream, error)
	Accept() (stream, error) // its error says why the connection ended
	Close() error
	Done() <-chan struct{}
	// RTT is the round trip that the newest keep-alive ping measured, and when; the zero time if none did.
	RTT() (time.Duration, time.Time)
}

// stream is one stream of a muxer. Close ends our direction only; Read goes on until the other side closes or the read
// deadline passes. EOF may also mean that the connection broke.
type stream interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Client opens a session as the side that dialled. It owns conn from now on, also when it fails; conn.Close must make a
// blocked Read and Write return. ctx covers the opening only.
func Client(ctx context.Context, conn io.ReadWriteCloser, o Options) (*Session, error) {
	return open(ctx, conn, o, callerPrologue, newYamuxClient)
}

// Server opens a session as the side that was dialled; otherwise it is like Client.
func Server(ctx context.Context, conn io.ReadWriteCloser, o Options) (*Session, error) {
	return open(ctx, conn, o, serverPrologue, newYamuxServer)
}

// Serve is Server, then serving h (o.Mux if nil) until the session is over or ctx ends. It returns after the last
// handler has returned: nil after an orderly end, an error if the session could not be opened or broke.
func Serve(ctx context.Context, conn io.ReadWriteCloser, o Options, h *Mux) error {
	if h != nil {
		o.Mux = h
	}
	s, err := Server(ctx, conn, o)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	err = s.Wait()
	if errors.Is(err, io.EOF) || errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

type prologue func(io.ReadWriter, Options) (Hello, error)

func open(ctx context.Context, conn io.ReadWriteCloser, o Options, p prologue, mk func(io.ReadWriteCloser, Options) (muxer, error)) (*Session, error) {
	o = o.withDefaults()
	peer, err := runPrologue(ctx, conn, o, p)
	if err != nil {
		return nil, err
	}
	mx, err := mk(conn, o)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return start(mx, peer, o), nil
}

// start runs a session over a muxer.
func start(mx muxer, peer Hello, o Options) *Session {
	s := &Session{o: o, peer: peer, mx: mx, log: o.Logger.With("peer", peer.Node, "kind", string(peer.Kind)),
		slots: make(chan struct{}, proto.MaxStreams), handling: make(chan struct{}, proto.MaxStreams),
		incoming: make(chan struct{}, maxIncoming), done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.wg.Add(1)
	go s.acceptLoop()
	return s
}

// Peer is what the other side said of itself in the prologue.
func (s *Session) Peer() Hello { return s.peer }

// Done is closed when the session is over.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err says why the session is over; nil while it is not. It wraps io.EOF when the other side closed the connection,
// and is ErrClosed when we did.
func (s *Session) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// RTT is the round trip that the newest keep-alive ping of this side measured, and when that was: the zero time if none has
// been needed yet.
func (s *Session) RTT() (time.Duration, time.Time) { return s.mx.RTT() }

// Close ends the session and cancels every handler and request on it. It does not wait for handlers; Wait does.
func (s *Session) Close() error {
	s.closed.Store(true)
	return s.mx.Close()
}

// Wait waits until the session is over and all its handlers have returned, and returns Err. A handler must not call it.
func (s *Session) Wait() error {
	s.wg.Wait()
	return s.err
}

// acceptLoop serves what the other side asks until the connection ends, and then closes the session.
func (s *Session) acceptLoop() {
	defer s.wg.Done()
	for {
		st, err := s.mx.Accept()
		if err != nil {
			if s.closed.Load() {
				err = ErrClosed
			}
			s.finish(err)
			return
		}
		if !s.room() {
			s.finish(proto.Errorf(proto.CodeLimit, "%s opened more than %d streams", nodeName(s.peer.Node), maxIncoming))
			return
		}
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			defer func() { <-s.incoming }()
			s.serve(st)
		}()
	}
}

// room waits until the other side may have one stream more, and takes it.
func (s *Session) room() bool {
	select {
	case s.incoming <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(2 * drainTimeout)
	defer t.Stop()
	select {
	case s.incoming <- struct{}{}:
		return true
	case <-t.C:
		return false
	}
}

func (s *Session) finish(err error) {
	_ = s.mx.Close()
	s.err = err
	s.cancel(err)
	close(s.done)
	s.log.Debug("session over", "err", err)
}
