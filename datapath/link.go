package datapath

import (
	"bufio"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// sock is one of the two connections of a link.
type sock struct {
	net.Conn
	r        *bufio.Reader
	kind     drbd.Socket
	accepted bool
	since    time.Time
	told     atomic.Int64 // segments sent when LinkInfo was asked last
}

const (
	dataReadBuffer = 64 << 10
	metaReadBuffer = 4 << 10
)

func newSock(c net.Conn, kind drbd.Socket, accepted bool) *sock {
	size := dataReadBuffer
	if kind == drbd.SocketMeta {
		size = metaReadBuffer
	}
	return &sock{Conn: c, r: bufio.NewReaderSize(c, size), kind: kind, accepted: accepted, since: time.Now()}
}

// alive says whether the peer still holds its end, as far as that can be seen without waiting.
func (s *sock) alive() bool {
	_ = s.SetReadDeadline(time.Now().Add(time.Millisecond))
	defer func() { _ = s.SetReadDeadline(time.Time{}) }()
	_, err := s.r.Peek(1)
	var nerr net.Error
	return err == nil || errors.As(err, &nerr) && nerr.Timeout()
}

// linkError is why a link ended: what the state machine shall see, and whether trying again makes no sense.
type linkError struct {
	kind  proto.ConnState
	fatal bool // needs an operator: StandAlone
	err   error
}

func (e *linkError) Error() string { return e.err.Error() }
func (e *linkError) Unwrap() error { return e.err }

func fatalLink(format string, args ...any) error {
	return &linkError{kind: proto.Disconnecting, fatal: true, err: fmt.Errorf(format, args...)}
}

func brokenLink(kind proto.ConnState, format string, args ...any) error {
	return &linkError{kind: kind, err: fmt.Errorf(format, args...)}
}

// asLinkError classifies err: a malformed packet is a ProtocolError, the end of the stream a BrokenPipe, silence a
// Timeout, the rest a NetworkFailure.
func asLinkError(err error) *linkError {
	var le *linkError
	if errors.As(err, &le) {
		return le
	}
	var pe *drbd.PacketError
	if errors.As(err, &pe) {
		return &linkError{kind: proto.ProtocolError, err: err}
	}
	var nerr net.Error
	switch {
	case isEOF(err):
		return &linkError{kind: proto.BrokenPipe, err: fmt.Errorf("peer closed the connection: %w", err)}
	case errors.As(err, &nerr) && nerr.Timeout():
		return &linkError{kind: proto.Timeout, err: err}
	}
	return &linkError{kind: proto.NetworkFailure, err: err}
}

// sockets are the two connections once both nodes hold them.
type sockets struct {
	data, meta *sock
}

// resolve says that this node breaks ties (RESOLVE_CONFLICTS): it accepted the meta socket.
func (s *sockets) resolve() bool { return s.meta.accepted }

func (s *sockets) close() {
	for _, c := range []*sock{s.data, s.meta} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// Times of setting up a link that drbd.conf does not name.
const (
	metaPatience = 300 * time.Millisecond // how long the peer may take to answer a data socket with a meta socket
	keepOwn      = 2 * time.Second        // a crossed socket older than this gives way
	maxLabelling = 8                      // accepted connections that have not told yet what they are
)

// connector makes one pair of sockets. Both nodes listen and dial; each connection says which socket it is
// (conn_connect, drbd_receiver.c). Goroutines: one accepts, one per accepted connection reads its label, one dials;
// all have ended when run returns.
type connector struct {
	cfg      *Config
	got      sockets
	accepted chan *sock
	dialed   chan net.Conn // nil: did not work
	timer    *time.Timer
	dialing  bool
	rnd      *rand.Rand      // jitter; the dialling loop's
	report   func(err error) // why dialing or listening does not work, for the event list
}

// run returns when both sockets are there or ctx has ended.
func (c *connector) run(ctx context.Context) (*sockets, error) {
	ctx, cancel := context.WithCancel(ctx)
	ln, err := c.cfg.Listen(ctx, c.cfg.LocalAddr)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("%s: listen on %s for replication: %w (is the address up on this node, the port free?)", c.cfg.Node, c.cfg.LocalAddr, err)
	}
	c.accepted, c.dialed = make(chan *sock), make(chan net.Conn)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.accept(ctx, ln)
	}()
	c.timer = time.NewTimer(c.firstDial())
	err = c.loop(ctx)
	cancel()
	c.timer.Stop()
	_ = ln.Close()
	if c.dialing {
		if conn := <-c.dialed; conn != nil {
			_ = conn.Close()
		}
	}
	<-done
	if err != nil {
		c.got.close()
		return nil, err
	}
	return &c.got, nil
}

// rand is a random duration below d.
func (c *connector) rand(d time.Duration) time.Duration {
	if c.rnd == nil {
		var seed [32]byte
		_, _ = crand.Read(seed[:]) // never fails since Go 1.24
		c.rnd = rand.New(rand.NewChaCha8(seed))
	}
	return time.Duration(c.rnd.Int64N(int64(d)))
}

// firstDial keeps the two nodes from dialling in the same instant: the one with the smaller address goes first.
func (c *connector) firstDial() time.Duration {
	if c.smaller() {
		return 0
	}
	return 100*time.Millisecond + c.rand(200*time.Millisecond)
}

func (c *connector) smaller() bool { return c.cfg.LocalAddr < c.cfg.PeerAddr }

func (c *connector) loop(ctx context.Context) error {
	for c.got.data == nil || c.got.meta == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-c.accepted:
			c.take(s)
		case conn := <-c.dialed:
			c.dialing = false
			c.label(conn)
		case <-c.timer.C:
			c.probe()
			c.dial(ctx)
		}
	}
	return nil
}

// probe lets go of a socket that the peer has given up.
func (c *connector) probe() {
	for _, p := range []**sock{&c.got.data, &c.got.meta} {
		if *p != nil && !(*p).alive() {
			_ = (*p).Close()
			*p = nil
		}
	}
}

func (c *connector) pause(d time.Duration) { c.timer.Reset(d) }

// retry is connect-int with the jitter of one seventh that DRBD has.
func (c *connector) retry() time.Duration {
	d := c.cfg.ConnectInt
	return d - d/7 + c.rand(2*d/7+1)
}

func (c *connector) dial(ctx context.Context) {
	if c.dialing {
		return
	}
	c.dialing = true
	go func() {
		dctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectInt)
		defer cancel()
		conn, err := c.cfg.Dial(dctx, c.cfg.LocalAddr, c.cfg.PeerAddr)
		if err != nil {
			if c.report != nil && ctx.Err() == nil {
				c.report(err)
			}
			conn = nil
		}
		c.dialed <- conn
	}()
}

// label tells the peer what the dialled connection is.
func (c *connector) label(conn net.Conn) {
	if conn == nil {
		c.pause(c.retry())
		return
	}
	kind, cmd := drbd.SocketData, drbd.CmdInitialData
	if c.got.data != nil {
		kind, cmd = drbd.SocketMeta, drbd.CmdInitialMeta
	}
	if c.got.data != nil && c.got.meta != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(c.cfg.PingTimeout * 4))
	if _, err := conn.Write(drbd.AppendHeader(nil, drbd.H80, drbd.Header{Cmd: cmd})); err != nil {
		_ = conn.Close()
		c.pause(c.retry())
		return
	}
	_ = conn.SetWriteDeadline(time.Time{})
	if kind == drbd.SocketData {
		c.got.data = newSock(conn, kind, false)
		c.pause(metaPatience + c.rand(metaPatience))
		return
	}
	c.got.meta = newSock(conn, kind, false)
	c.pause(c.retry())
}

// take keeps an accepted connection. When both nodes opened the same socket, the node with the larger address keeps
// its own as long as it works, the other takes the peer's; the kernel always takes the accepted one.
func (c *connector) take(s *sock) {
	slot := &c.got.data
	if s.kind == drbd.SocketMeta {
		slot = &c.got.meta
	}
	if old := *slot; old != nil {
		if !old.accepted && !c.smaller() && time.Since(old.since) < keepOwn && old.alive() {
			_ = s.Close()
			return
		}
		_ = old.Close()
	}
	*slot = s
	switch {
	case s.kind == drbd.SocketData && c.got.meta == nil:
		c.pause(0)
	case c.got.data == nil:
		c.pause(metaPatience)
	}
}

// accept labels what comes in until the listener is closed.
func (c *connector) accept(ctx context.Context, ln net.Listener) {
	slots := make(chan struct{}, maxLabelling)
	for {
		conn, err := ln.Accept()
		if err != nil {
			break
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			c.readLabel(ctx, conn)
		}()
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
}

func (c *connector) readLabel(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	_ = conn.SetReadDeadline(time.Now().Add(4 * c.cfg.PingTimeout))
	if ctx.Err() != nil {
		_ = conn.Close()
		return
	}
	var head [drbd.HeaderSizeH80]byte
	kind := drbd.SocketData
	err := readFull(conn, head[:])
	if err == nil {
		var h drbd.Header
		h, err = drbd.ParseHeader(head[:], drbd.H80)
		switch {
		case err != nil:
		case h.Cmd == drbd.CmdInitialMeta && h.Length == 0:
			kind = drbd.SocketMeta
		case h.Cmd != drbd.CmdInitialData || h.Length != 0:
			err = fmt.Errorf("first packet is %v", h.Cmd)
		}
	}
	stop()
	if err != nil {
		c.cfg.Logger.Debug("incoming connection is no replication socket", "from", conn.RemoteAddr(), "err", err)
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	select {
	case c.accepted <- newSock(conn, kind, true):
	case <-ctx.Done():
		_ = conn.Close()
	}
}
