package session

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"example.com/santui/proto"
)

// memWindow is how much one side may write before the other reads, as in yamux; bytes.
const memWindow = 256 << 10

// MemoryPair opens a session within this process, without yamux: same prologue, frames, limits and errors. It works
// inside testing/synctest. client is the side that dialled.
func MemoryPair(clientOptions, serverOptions Options) (client, server *Session, err error) {
	co, so := clientOptions.withDefaults(), serverOptions.withDefaults()
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	type result struct {
		peer Hello
		err  error
	}
	got := make(chan result, 1)
	go func() {
		h, err := runPrologue(context.Background(), b, so, serverPrologue)
		got <- result{h, err}
	}()
	sh, err := runPrologue(context.Background(), a, co, callerPrologue)
	r := <-got
	if err == nil {
		err = r.err
	}
	if err != nil {
		return nil, nil, err
	}
	link := &memLink{done: make(chan struct{})}
	ca, sa := make(chan stream, proto.MaxStreams), make(chan stream, proto.MaxStreams)
	return start(&memMuxer{link, ca, sa}, sh, co), start(&memMuxer{link, sa, ca}, r.peer, so), nil
}

// memLink is what both ends share.
type memLink struct {
	once sync.Once
	done chan struct{}
}

// memMuxer is one end.
type memMuxer struct {
	link *memLink
	in   chan stream
	out  chan stream
}

func (m *memMuxer) Open() (stream, error) {
	up, down := newMemPipe(m.link.done), newMemPipe(m.link.done)
	select {
	case <-m.link.done:
		return nil, io.EOF
	default:
	}
	select {
	case m.out <- memStream{r: up, w: down}:
		return memStream{r: down, w: up}, nil
	case <-m.link.done:
		return nil, io.EOF
	}
}

// RTT is never measured: there is nothing in between.
func (m *memMuxer) RTT() (time.Duration, time.Time) { return 0, time.Time{} }

func (m *memMuxer) Accept() (stream, error) {
	select {
	case st := <-m.in:
		return st, nil
	case <-m.link.done:
		return nil, errPeerClosed
	}
}

func (m *memMuxer) Close() error {
	m.link.once.Do(func() { close(m.link.done) })
	return nil
}

func (m *memMuxer) Done() <-chan struct{} { return m.link.done }

// memStream is one end of a stream.
type memStream struct{ r, w *memPipe }

func (s memStream) Read(b []byte) (int, error)         { return s.r.read(b) }
func (s memStream) Write(b []byte) (int, error)        { return s.w.write(b) }
func (s memStream) Close() error                       { s.w.close(); return nil }
func (s memStream) SetReadDeadline(t time.Time) error  { s.r.deadline(&s.r.readBy, t); return nil }
func (s memStream) SetWriteDeadline(t time.Time) error { s.w.deadline(&s.w.writeBy, t); return nil }

// memPipe is one direction.
type memPipe struct {
	done <-chan struct{} // of the link

	// mu protects the rest. changed is closed and replaced whenever something changes.
	mu      sync.Mutex
	changed chan struct{}
	buf     []byte
	closed  bool
	readBy  time.Time
	writeBy time.Time
}

func newMemPipe(done <-chan struct{}) *memPipe {
	return &memPipe{done: done, changed: make(chan struct{})}
}

// notify wakes whoever waits; mu is held.
func (p *memPipe) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *memPipe) deadline(d *time.Time, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*d = t
	p.notify()
}

func (p *memPipe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.notify()
}

func (p *memPipe) read(b []byte) (int, error) {
	for {
		p.mu.Lock()
		if len(p.buf) > 0 {
			n := copy(b, p.buf)
			p.buf = p.buf[n:]
			p.notify()
			p.mu.Unlock()
			return n, nil
		}
		closed, by, ch := p.closed, p.readBy, p.changed
		p.mu.Unlock()
		if closed {
			return 0, io.EOF
		}
		if !p.wait(ch, by) {
			return 0, os.ErrDeadlineExceeded
		}
		select {
		case <-p.done:
			return 0, io.EOF // as yamux: a broken connection looks like an end
		default:
		}
	}
}

func (p *memPipe) write(b []byte) (n int, err error) {
	for len(b) > 0 {
		select {
		case <-p.done:
			return n, io.ErrClosedPipe
		default:
		}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return n, io.ErrClosedPipe
		}
		if k := min(len(b), memWindow-len(p.buf)); k > 0 {
			p.buf = append(p.buf, b[:k]...)
			b, n = b[k:], n+k
			p.notify()
			p.mu.Unlock()
			continue
		}
		by, ch := p.writeBy, p.changed
		p.mu.Unlock()
		if !p.wait(ch, by) {
			return n, os.ErrDeadlineExceeded
		}
	}
	return n, nil
}

// wait waits for a change, the end of the link or the deadline; it reports false for the last.
func (p *memPipe) wait(changed <-chan struct{}, by time.Time) bool {
	var expired <-chan time.Time
	if !by.IsZero() {
		d := time.Until(by)
		if d <= 0 {
			return false
		}
		t := time.NewTimer(d)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-changed:
	case <-p.done:
	case <-expired:
		return false
	}
	return true
}
