package torture

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"example.com/santui/proto/drbd"
)

// network is the cable between the two nodes: every byte takes its time, in order, per direction of a connection.
type network struct {
	w *world

	downMu  sync.Mutex
	changed chan struct{} // closed at each change of down
	down    [2]bool       // bytes sent by this node do not arrive for now; they do when it is up again

	mu        sync.Mutex
	listeners [2]*listener
	conns     map[*conn]struct{} // one end of each, the dialling one
	serial    int
	weak      int // so many of the next connections break after little
}

func newNetwork(w *world) *network {
	return &network{w: w, changed: make(chan struct{}), conns: map[*conn]struct{}{}}
}

// set changes which directions pass.
func (n *network) set(down [2]bool) {
	n.downMu.Lock()
	defer n.downMu.Unlock()
	n.down = down
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *network) passes(from int) (bool, <-chan struct{}) {
	n.downMu.Lock()
	defer n.downMu.Unlock()
	return !n.down[from], n.changed
}

// reset breaks all connections at both ends.
func (n *network) reset() {
	for _, c := range n.list() {
		c.in.abort(syscall.ECONNRESET)
		c.out.abort(syscall.ECONNRESET)
	}
}

// breakAfter breaks each connection once so many bytes more have passed in the direction from node from.
func (n *network) breakAfter(from int, bytes int64) {
	for _, c := range n.list() {
		h := c.out
		if c.inc.n.i != from {
			h = c.in
		}
		h.mu.Lock()
		h.left = bytes
		h.limited = true
		h.rouse()
		h.mu.Unlock()
	}
}

// weaken makes the next k connections break, most of them in the middle of a handshake.
func (n *network) weaken(k int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.weak = k
}

// damage turns over a bit of the k-th block of data from now on that node from sends.
func (n *network) damage(from, k int) {
	for _, c := range n.list() {
		h := c.out
		if c.inc.n.i != from {
			h = c.in
		}
		h.mu.Lock()
		h.tap.damage = k
		h.mu.Unlock()
	}
}

func (n *network) list() []*conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*conn, 0, len(n.conns))
	for c := range n.conns {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *conn) int { return a.out.serial - b.out.serial })
	return out
}

// powerOff takes an incarnation off the network: its ends fail at once, the other ends hear nothing until they send and
// the node is up again.
func (n *network) powerOff(inc *incarnation) {
	for _, c := range n.list() {
		for _, end := range []*conn{c, c.other} {
			if end.inc == inc {
				end.in.abort(syscall.EIO)
				end.out.freeze(syscall.EIO)
			}
		}
	}
	n.mu.Lock()
	l := n.listeners[inc.n.i]
	n.mu.Unlock()
	if l != nil && l.inc == inc {
		_ = l.Close()
	}
}

// powerOn makes the peers of dead connections learn that nobody is there any more.
func (n *network) powerOn(node int) {
	for _, c := range n.list() {
		for _, end := range []*conn{c, c.other} {
			if end.inc.n.i == node && end.inc.isDead() {
				end.out.abort(syscall.ECONNRESET)
				end.in.abort(syscall.ECONNRESET)
			}
		}
	}
}

// listener implements net.Listener.
type listener struct {
	n      *network
	inc    *incarnation
	queue  chan *conn
	closed chan struct{}
	once   sync.Once
}

type addr string

func (a addr) Network() string { return "sim" }
func (a addr) String() string  { return string(a) }

func (n *network) listen(inc *incarnation) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if inc.isDead() {
		return nil, syscall.EIO
	}
	if n.listeners[inc.n.i] != nil {
		return nil, syscall.EADDRINUSE
	}
	l := &listener{n: n, inc: inc, queue: make(chan *conn, 16), closed: make(chan struct{})}
	n.listeners[inc.n.i] = l
	return l, nil
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.n.mu.Lock()
		if l.n.listeners[l.inc.n.i] == l {
			l.n.listeners[l.inc.n.i] = nil
		}
		l.n.mu.Unlock()
		close(l.closed)
		for {
			select {
			case c := <-l.queue:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr(l.inc.n.addr) }

// dial connects inc to the other node.
func (n *network) dial(ctx context.Context, inc *incarnation) (net.Conn, error) {
	for hop := range 2 { // SYN, SYN-ACK
		from := inc.n.i
		if hop == 1 {
			from = 1 - from
		}
		for {
			ok, ch := n.passes(from)
			if ok && !inc.isDead() {
				break
			}
			select {
			case <-ch:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if !sleepCtx(ctx, n.w.jitter(netDelay, from)) {
			return nil, ctx.Err()
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[1-inc.n.i]
	if l == nil || inc.isDead() || l.inc.isDead() {
		return nil, syscall.ECONNREFUSED
	}
	n.serial++
	there, back := newHalf(n, inc.n.i, n.serial), newHalf(n, 1-inc.n.i, n.serial)
	a, b := &conn{inc: inc, in: back, out: there}, &conn{inc: l.inc, in: there, out: back}
	a.other, b.other = b, a
	if n.weak > 0 {
		n.weak--
		h := []*half{there, back}[n.serial%2]
		draw := int64(n.w.jitter(weakDraw, n.serial))
		h.limited, h.left = true, draw%[]int64{100, 700, 5000}[draw/5000%3]
	}
	select {
	case l.queue <- b:
	default:
		return nil, syscall.ECONNREFUSED
	}
	for c := range n.conns {
		if c.in.finished() && c.out.finished() {
			delete(n.conns, c)
		}
	}
	n.conns[a] = struct{}{}
	return a, nil
}

// conn is one end of a connection.
type conn struct {
	inc     *incarnation
	other   *conn
	in, out *half
}

func (c *conn) Read(p []byte) (int, error) { return c.in.read(p) }

func (c *conn) Write(p []byte) (int, error) {
	c.inc.tick("net")
	if c.inc.isDead() {
		return 0, syscall.EIO
	}
	return c.out.write(p)
}

func (c *conn) Close() error {
	c.in.hangUp()
	c.out.finish()
	return nil
}

// CloseWrite ends the stream to the peer.
func (c *conn) CloseWrite() error {
	c.out.finish()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return addr(c.inc.n.addr) }
func (c *conn) RemoteAddr() net.Addr { return addr(c.other.inc.n.addr) }

func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	c.in.readBy = t
	c.in.rouse()
	c.in.mu.Unlock()
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.mu.Lock()
	c.out.writeBy = t
	c.out.rouse()
	c.out.mu.Unlock()
	return nil
}

type chunk struct {
	at   time.Time
	data []byte
}

// half is one direction of a connection: a socket buffer and the wire.
type half struct {
	n       *network
	from    int
	serial  int
	mu      sync.Mutex
	changed chan struct{}
	queue   []chunk
	size    int
	sent    int64
	lag     time.Duration
	last    time.Time // when the newest byte arrives
	eof     bool      // the writer has finished
	gone    bool      // the reader has gone: what is written is lost, and then refused
	rerr    error     // for the reader, at once
	werr    error     // for the writer, at once
	limited bool      // breaks after left bytes
	left    int64
	readBy  time.Time
	writeBy time.Time
	tap     tap
	same    *sameWire // nil: what is written travels as it is
}

const socketBuffer = 256 << 10

func newHalf(n *network, from, serial int) *half {
	h := &half{n: n, from: from, serial: serial, changed: make(chan struct{}), lag: n.w.upTo(n.w.hardware.lag, from+2*serial)}
	if w := n.w; w.hardware.same {
		h.same = &sameWire{digest: w.extra.integrity != "" || w.twist.damage}
	}
	return h
}

func (h *half) rouse() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) finished() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rerr != nil || h.gone
}

// abort breaks this direction for both ends; what is on the way is lost.
func (h *half) abort(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.rerr == nil {
		h.rerr = err
	}
	if h.werr == nil {
		h.werr = err
	}
	h.queue, h.size = nil, 0
	h.rouse()
}

// freeze breaks the writer's end; the reader hears nothing more than what is on the way.
func (h *half) freeze(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.werr == nil {
		h.werr = err
	}
	h.rouse()
}

func (h *half) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.werr == nil {
		h.eof = true
		h.werr = net.ErrClosed
	}
	h.rouse()
}

func (h *half) hangUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	if h.rerr == nil {
		h.rerr = net.ErrClosed
	}
	h.queue, h.size = nil, 0
	h.rouse()
}

func (h *half) write(p []byte) (int, error) {
	done := 0
	h.mu.Lock()
	defer h.mu.Unlock()
	for done < len(p) {
		switch {
		case h.werr != nil:
			return done, h.werr
		case h.gone:
			return done, syscall.EPIPE
		case h.passed(h.writeBy):
			return done, os.ErrDeadlineExceeded
		case h.size >= socketBuffer:
			h.wait(h.writeBy, time.Time{}, nil)
			continue
		}
		n := min(len(p)-done, socketBuffer-h.size)
		data := append([]byte(nil), p[done:done+n]...)
		if done += n; h.same != nil {
			if data = h.same.turn(data); len(data) == 0 {
				continue
			}
			n = len(data)
		}
		at := time.Now().Add(h.n.w.jitter(netDelay, h.from, h.serial, int(h.sent)) + time.Duration(n)*time.Nanosecond*8 + h.lag)
		if h.tap.feed(data, &h.n.w.seen); h.tap.cmd == drbd.CmdBarrierAck {
			at = at.Add(h.n.w.upTo(h.n.w.hardware.slowAck, h.from))
		}
		if at.Before(h.last) {
			at = h.last
		}
		h.last = at
		h.queue = append(h.queue, chunk{at, data})
		h.size += n
		h.sent += int64(n)
		h.rouse()
	}
	return done, nil
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		up, upCh := h.n.passes(h.from)
		switch {
		case h.rerr != nil:
			return 0, h.rerr
		case h.passed(h.readBy):
			return 0, os.ErrDeadlineExceeded
		case h.limited && h.left <= 0 && up:
			h.rerr, h.werr = syscall.ECONNRESET, syscall.ECONNRESET
			h.rouse()
			return 0, h.rerr
		case len(h.queue) > 0 && up && !time.Now().Before(h.queue[0].at):
			c := &h.queue[0]
			b := c.data
			if h.limited && int64(len(b)) > h.left {
				b = b[:h.left]
			}
			n := copy(p, b)
			if c.data = c.data[n:]; len(c.data) == 0 {
				h.queue = h.queue[1:]
			}
			h.size -= n
			h.left -= int64(n)
			h.rouse()
			return n, nil
		case len(h.queue) == 0 && h.eof && up:
			return 0, io.EOF
		}
		var at time.Time
		if len(h.queue) > 0 && up {
			at = h.queue[0].at
		}
		h.wait(h.readBy, at, upCh)
	}
}

func (h *half) passed(by time.Time) bool { return !by.IsZero() && !time.Now().Before(by) }

// wait gives up the lock until something changes or one of the times has come.
func (h *half) wait(by, at time.Time, up <-chan struct{}) {
	if by.IsZero() || !at.IsZero() && at.Before(by) {
		by = at
	}
	var alarm <-chan time.Time
	if !by.IsZero() {
		t := time.NewTimer(time.Until(by))
		defer t.Stop()
		alarm = t.C
	}
	ch := h.changed
	h.mu.Unlock()
	select {
	case <-ch:
	case <-up:
	case <-alarm:
	}
	h.mu.Lock()
}

func sleepCtx(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

var errPower = errors.New("no power")
