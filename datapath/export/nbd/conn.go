package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxUnanswered bounds the memory one connection can hold: the payloads of
	// all requests not yet answered, and requestCost for each of them.
	maxUnanswered = 2 * MaxRequest
	requestCost   = 512
	// drainTime is how long a client may take to fetch its last replies when
	// the server stops.
	drainTime = 5 * time.Second
)

// conn is a connection in the transmission phase.
type conn struct {
	nc   net.Conn
	r    *bufio.Reader
	b    Backend
	size atomic.Int64 // as far as it is known

	turn    chan struct{} // one token: the right to read the next request
	over    chan struct{} // closed when nothing more will be read
	endErr  error         // why; written before over is closed
	workers int           // started so far; belongs to the holder of the turn
	max     int
	waiting atomic.Int32 // workers that wait for the turn
	wg      sync.WaitGroup

	budget budget
	out    outbox
}

// request is one request in work. Every worker has one and uses it again.
type request struct {
	header
	raw  [requestLen]byte
	buf  *buffer
	cost int
}

// transmit serves nc until the client disconnects (nil), the stream ends or
// breaks, or ctx is done.
func transmit(ctx context.Context, nc net.Conn, r *bufio.Reader, b Backend, workers int) error {
	c := &conn{nc: nc, r: r, b: b, max: workers,
		turn: make(chan struct{}, 1), over: make(chan struct{})}
	c.size.Store(b.Size())
	c.budget.init(maxUnanswered)
	c.out.init(nc, &c.budget)
	stop := context.AfterFunc(ctx, func() {
		// Ends the reader; what is in work is still answered.
		_ = nc.SetWriteDeadline(time.Now().Add(drainTime))
		_ = nc.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	c.startWorker()
	c.turn <- struct{}{}
	c.wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.endErr
}

func (c *conn) startWorker() {
	c.workers++
	c.wg.Add(1)
	go c.work()
}

// work takes turns at reading, and serves what it has read.
func (c *conn) work() {
	defer c.wg.Done()
	q := new(request)
	for {
		c.waiting.Add(1)
		select {
		case <-c.turn:
			c.waiting.Add(-1)
		case <-c.over:
			return
		}
		if err := c.next(q); err != nil {
			if !errors.Is(err, io.EOF) {
				c.endErr = err
			}
			close(c.over) // the turn is not passed on: nobody reads again
			return
		}
		if c.waiting.Load() == 0 && c.workers < c.max {
			c.startWorker()
		}
		c.turn <- struct{}{}
		c.serve(q)
	}
}

// next reads one request with its payload. io.EOF is an orderly end.
func (c *conn) next(q *request) error {
	if _, err := io.ReadFull(c.r, q.raw[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: request cut short", ErrProtocol)
		}
		return err
	}
	if err := q.decode(&q.raw); err != nil {
		return err
	}
	if q.cmd == cmdDisc {
		return io.EOF
	}
	n := q.payload()
	if q.cmd == cmdRead && c.check(q) != 0 {
		n = 0 // it will be refused, perhaps for its length
	}
	q.cost = n + requestCost
	c.budget.take(q.cost)
	if n == 0 {
		return nil
	}
	q.buf = getBuffer(n)
	if q.cmd == cmdRead {
		return nil
	}
	if _, err := io.ReadFull(c.r, q.buf.mem[:n]); err != nil {
		putBuffer(q.buf)
		q.buf = nil
		return fmt.Errorf("%w: write of %d bytes cut short: %w", ErrProtocol, n, err)
	}
	return nil
}

// check refuses what cannot be served. What lies behind the end is looked at again:
// the device may have grown.
func (c *conn) check(q *request) uint32 {
	no := q.check(c.size.Load())
	if no != 0 {
		size := c.b.Size()
		c.size.Store(size)
		no = q.check(size)
	}
	return no
}

// serve works on a request and queues the reply.
func (c *conn) serve(q *request) {
	no := c.check(q)
	if no == 0 {
		no = errorNumber(c.do(q))
	}
	data := 0
	if q.cmd == cmdRead && no == 0 {
		data = int(q.len)
	} else {
		putBuffer(q.buf)
		q.buf = nil
	}
	var r reply
	binary.BigEndian.PutUint32(r.head[0:], magicReply)
	binary.BigEndian.PutUint32(r.head[4:], no)
	binary.BigEndian.PutUint64(r.head[8:], q.cookie)
	r.buf, r.n, r.cost = q.buf, data, q.cost
	q.buf = nil
	if c.out.send(r) != nil {
		_ = c.nc.Close() // the reader finds out
	}
}

// do runs a checked request against the backend.
func (c *conn) do(q *request) error {
	off, n := int64(q.off), int64(q.len)
	var err error
	switch q.cmd {
	case cmdFlush:
		return c.b.Flush()
	case cmdRead:
		if n == 0 {
			return nil
		}
		got, err := c.b.ReadAt(q.buf.mem[:n], off)
		return whole(got, int(n), err)
	case cmdWrite:
		if n != 0 {
			var got int
			got, err = c.b.WriteAt(q.buf.mem[:n], off)
			err = whole(got, int(n), err)
		}
	case cmdTrim:
		if n != 0 {
			err = c.b.Discard(off, n)
		}
	case cmdWriteZeroes:
		if n != 0 {
			err = c.b.WriteZeroes(off, n, q.flags&cmdFlagNoHole == 0)
		}
	}
	if err == nil && q.flags&cmdFlagFUA != 0 {
		err = c.b.Flush()
	}
	return err
}

// whole makes an error of a transfer that is short without one. A full
// transfer with io.EOF, which io.ReaderAt allows at the end, is none.
func whole(got, want int, err error) error {
	if got == want && (err == nil || errors.Is(err, io.EOF)) {
		return nil
	}
	if err == nil {
		return syscall.EIO
	}
	return err
}
