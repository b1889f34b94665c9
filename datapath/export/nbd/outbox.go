package nbd

import (
	"net"
	"sync"
)

// reply is a finished request on its way out.
type reply struct {
	head [replyLen]byte
	buf  *buffer // of a read; nil otherwise
	n    int     // bytes of buf to send
	cost int     // to be given back to the budget
}

// outbox writes replies in the order they come. There is no writer goroutine:
// send writes itself when nobody else does, and otherwise leaves its reply to
// the one that does. The lock is never held while writing.
type outbox struct {
	nc     net.Conn
	budget *budget

	mu      sync.Mutex
	queue   []reply
	writing bool
	err     error // the first failed write; nothing is written after it

	batch []reply // these three belong to the writer
	vec   [][]byte
	bufs  net.Buffers
}

func (o *outbox) init(nc net.Conn, b *budget) { o.nc, o.budget = nc, b }

// send queues r and writes what is queued, unless somebody is at it. The error
// is that of the connection, not of r.
func (o *outbox) send(r reply) error {
	o.mu.Lock()
	o.queue = append(o.queue, r)
	if o.writing {
		err := o.err
		o.mu.Unlock()
		return err
	}
	o.writing = true
	for len(o.queue) > 0 {
		o.queue, o.batch = o.batch[:0], o.queue
		err := o.err
		o.mu.Unlock()
		if err == nil {
			err = o.write()
		}
		o.release()
		o.mu.Lock()
		if o.err == nil {
			o.err = err
		}
	}
	o.writing = false
	err := o.err
	o.mu.Unlock()
	return err
}

// write sends the batch in one vectored write.
func (o *outbox) write() error {
	o.vec = o.vec[:0]
	for i := range o.batch {
		r := &o.batch[i]
		o.vec = append(o.vec, r.head[:])
		if r.n > 0 {
			o.vec = append(o.vec, r.buf.mem[:r.n])
		}
	}
	o.bufs = o.vec
	_, err := o.bufs.WriteTo(o.nc)
	return err
}

// release gives back the memory of the batch.
func (o *outbox) release() {
	for i := range o.batch {
		r := &o.batch[i]
		putBuffer(r.buf)
		o.budget.give(r.cost)
		*r = reply{}
	}
}

// budget is a counter that makes takers wait when it is used up.
type budget struct {
	mu   sync.Mutex
	more sync.Cond
	left int
}

func (b *budget) init(n int) {
	b.left = n
	b.more.L = &b.mu
}

// take waits for n. A single taker at a time (the holder of the turn), and no
// n above half of the whole, so it never starves.
func (b *budget) take(n int) {
	b.mu.Lock()
	for b.left < n {
		b.more.Wait()
	}
	b.left -= n
	b.mu.Unlock()
}

func (b *budget) give(n int) {
	b.mu.Lock()
	b.left += n
	b.mu.Unlock()
	b.more.Signal()
}
