package session

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"syscall"

	"github.com/hashicorp/yamux"

	"example.com/santui/proto"
)

// yamuxMuxer is yamux behind the muxer interface. What it adds: a write that yamux gave up on closes the whole session,
// because yamux itself would leave the other side waiting (hashicorp/yamux issue 142).
type yamuxMuxer struct{ s *yamux.Session }

func newYamuxClient(conn io.ReadWriteCloser, o Options) (muxer, error) {
	s, err := yamux.Client(conn, yamuxConfig(o))
	return yamuxMuxer{s}, err
}

func newYamuxServer(conn io.ReadWriteCloser, o Options) (muxer, error) {
	s, err := yamux.Server(conn, yamuxConfig(o))
	return yamuxMuxer{s}, err
}

// yamuxConfig sets everything: the defaults notice a dead peer only after 39 s and log to stderr, over the cockpit.
func yamuxConfig(o Options) *yamux.Config {
	return &yamux.Config{
		AcceptBacklog:          proto.MaxStreams,
		EnableKeepAlive:        true,
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
	case errors.Is(err, yamux.ErrKeepAliveTimeout):
		return fmt.Errorf("the other side does not answer: %w", err)
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
