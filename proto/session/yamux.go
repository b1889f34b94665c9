package session

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"

	"example.com/santui/proto"
)

// yamuxMuxer is yamux behind the muxer interface. What it adds: a write that yamux gave up on closes the whole session,
// because yamux itself would leave the other side waiting (hashicorp/yamux issue 142).
type yamuxMuxer struct {
	s    *yamux.Session
	trip *trip
}

// trip is what the newest keep-alive ping measured.
type trip struct {
	mu  sync.Mutex // protects both
	rtt time.Duration
	at  time.Time
}

// newYamuxClient asks a little sooner than the server would, so that one of the two asks and not both at the same moment.
func newYamuxClient(conn io.ReadWriteCloser, o Options) (muxer, error) {
	return newYamux(conn, o, yamux.Client, o.KeepAlive-o.KeepAlive/8)
}

func newYamuxServer(conn io.ReadWriteCloser, o Options) (muxer, error) {
	return newYamux(conn, o, yamux.Server, o.KeepAlive)
}

func newYamux(conn io.ReadWriteCloser, o Options, open func(io.ReadWriteCloser, *yamux.Config) (*yamux.Session, error), silence time.Duration) (muxer, error) {
	h := &hearing{ReadWriteCloser: conn, began: time.Now()}
	s, err := open(h, yamuxConfig(o))
	if err != nil {
		return nil, err
	}
	m := yamuxMuxer{s, new(trip)}
	go m.keepAlive(h, silence)
	return m, nil
}

// hearing notes when the other side was heard last.
type hearing struct {
	io.ReadWriteCloser
	began time.Time
	last  atomic.Int64 // since began
}

func (h *hearing) Read(b []byte) (int, error) {
	n, err := h.ReadWriteCloser.Read(b)
	h.last.Store(int64(time.Since(h.began)))
	return n, err
}

func (h *hearing) silent() time.Duration { return time.Since(h.began) - time.Duration(h.last.Load()) }

// keepAlive pings a side that has been silent for so long, and ends the session if it stays so. Whatever arrives, the other
// side's pings included, shows that it lives; yamux's own keep-alive pings all the same, from both sides.
func (m yamuxMuxer) keepAlive(h *hearing, silence time.Duration) {
	t := time.NewTimer(silence)
	defer t.Stop()
	for {
		select {
		case <-m.s.CloseChan():
			return
		case <-t.C:
		}
		if h.silent() >= silence {
			rtt, err := m.s.Ping()
			if err != nil {
				_ = m.s.Close()
				return
			}
			m.trip.mu.Lock()
			m.trip.rtt, m.trip.at = rtt, time.Now()
			m.trip.mu.Unlock()
		}
		t.Reset(max(silence-h.silent(), time.Millisecond))
	}
}

// yamuxConfig sets everything: the defaults notice a dead peer only after 39 s and log to stderr, over the cockpit.
func yamuxConfig(o Options) *yamux.Config {
	return &yamux.Config{
		AcceptBacklog:          proto.MaxStreams,
		EnableKeepAlive:        false, // see keepAlive
		KeepAliveInterval:      o.KeepAlive,
		ConnectionWriteTimeout: o.WriteTimeout,
		MaxStreamWindowSize:    256 << 10,
		StreamOpenTimeout:      o.WriteTimeout,
		StreamCloseTimeout:     closeTimeout,
		Logger:                 yamuxLogger{o.Logger},
	}
}

func (m yamuxMuxer) Open() (stream, error) {
	st, err := m.s.OpenStream()
	if err != nil {
		m.check(err)
		return nil, err
	}
	return yamuxStream{st, m}, nil
}

func (m yamuxMuxer) Accept() (stream, error) {
	// When the session ends, AcceptStream may find streams that were never accepted before it finds the reason.
	for range 2 * proto.MaxStreams {
		st, err := m.s.AcceptStream()
		if err == nil {
			return yamuxStream{st, m}, nil
		}
		m.check(err)
		if !m.s.IsClosed() {
			continue
		}
		if !errors.Is(err, yamux.ErrSessionShutdown) {
			return nil, endReason(err)
		}
	}
	_ = m.s.Close()
	return nil, endReason(yamux.ErrSessionShutdown)
}

// endReason says in words why a connection ended. A reset is an end, too: TCP sends it when the other side closed
// before it had read everything.
func endReason(err error) error {
	switch {
	case errors.Is(err, yamux.ErrSessionShutdown), errors.Is(err, yamux.ErrConnectionWriteTimeout):
		return fmt.Errorf("the other side does not answer: %w", err)
	case errors.Is(err, io.EOF):
		return errPeerClosed
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%w (%w)", errPeerClosed, err)
	default:
		return err
	}
}

func (m yamuxMuxer) Close() error          { return m.s.Close() }
func (m yamuxMuxer) Done() <-chan struct{} { return m.s.CloseChan() }

func (m yamuxMuxer) RTT() (time.Duration, time.Time) {
	m.trip.mu.Lock()
	defer m.trip.mu.Unlock()
	return m.trip.rtt, m.trip.at
}

func (m yamuxMuxer) check(err error) {
	if errors.Is(err, yamux.ErrConnectionWriteTimeout) {
		_ = m.s.Close()
	}
}

type yamuxStream struct {
	*yamux.Stream
	m yamuxMuxer
}

func (s yamuxStream) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	if err != nil {
		s.m.check(err)
	}
	return n, err
}

func (s yamuxStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b) // a read sends window updates
	if err != nil {
		s.m.check(err)
	}
	return n, err
}

// yamuxLogger sends what yamux says to slog. Its words are for developers, its errors included: what a broken
// connection means for a request is said by the request.
type yamuxLogger struct{ l *slog.Logger }

func (y yamuxLogger) Print(v ...any)            { y.log(fmt.Sprint(v...)) }
func (y yamuxLogger) Printf(f string, v ...any) { y.log(fmt.Sprintf(f, v...)) }
func (y yamuxLogger) Println(v ...any)          { y.log(fmt.Sprint(v...)) }

func (y yamuxLogger) log(s string) {
	y.l.Debug("yamux: " + strings.TrimSpace(strings.NewReplacer("[ERR] yamux: ", "", "[WARN] yamux: ", "").Replace(s)))
}
