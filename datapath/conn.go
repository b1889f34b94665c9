package datapath

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

const (
	networkFailure = proto.NetworkFailure
)

// link is an established connection to the peer with its goroutines: receiver and sender of each socket, a watch for
// requests that stay unanswered, and workers that do what the peer asks for on the local disk. A link dies once, by
// fail or by end; the owner then joins it.
type link struct {
	r      *Resource
	socks  *sockets
	agreed agreement

	ctx     context.Context // ends when the link dies
	cancel  context.CancelFunc
	dead    chan struct{} // closed when the link dies
	once    sync.Once
	cause   *linkError     // why; set before dead is closed; nil if the owner ended it
	wg      sync.WaitGroup // sockets and watch
	workers sync.WaitGroup

	out    outQueue
	sender *sender
	acks   ackQueue
	seq    atomic.Uint32
	conn   atomic.Int32 // the owner's connection state
	turn   atomic.Int64 // when it last changed, see since0
	held   atomic.Bool  // a packet waits for a handler
	csums  atomic.Bool  // the resync of which this node is the target compares checksums
	stuck  bool         // it was told why this node does not run Ahead; the owner's

	replicates bool // writes were sent on this link; the traffic lock guards it
	tracked    bool // a Primary without disk wrote over this link; the traffic lock guards it

	lastData atomic.Int64  // when something arrived on the data socket, see since0
	pings    pingBook      // pings sent and answered
	handed   atomic.Uint64 // batches given to the data socket; orders the sender before the answers, for Go's memory model
	awaits   atomic.Bool   // a change request is unanswered
	answered chan struct{} // capacity 1: the owner handled a control packet

	deadline time.Time // of the meta socket's receiver
	arrived  time.Time // when the packet did that the data socket's receiver has in hand
	lone     lone
	rx       rxEpoch
	work     workQueue
	late     workQueue // what the peer's resync asked for, while it yields to applications
	limit    budget    // bytes taken from the peer and not yet on disk
	reads    budget    // bytes read for the peer and not yet sent
	asked    askedBlocks
	refusals refusals
	belated  atomic.Bool // an answer to a resync that was stopped has been refused
	ov       verifyBook
	bits     *drbd.BitmapDecoder // of a bitmap that is arriving
	bitsOf   *disk               // for it
	sum      digest              // of the block that is arriving; the receiver's
}

const (
	peerWorkers  = 16
	maxPeerReads = 8 << 20
)

func newLink(r *Resource, s *sockets, a agreement) *link {
	ctx, cancel := context.WithCancel(context.Background())
	l := &link{r: r, socks: s, agreed: a, ctx: ctx, cancel: cancel, dead: make(chan struct{}), answered: make(chan struct{}, 1)}
	l.out.init(s.data)
	l.sender = newSender(l)
	l.acks.init(s.meta)
	l.acks.w = deadlineWriter{conn: s.meta, limit: r.cfg.Timeout}
	l.pings.init()
	l.work.init()
	l.late.init()
	l.rx.init()
	l.asked.init()
	l.ov.init()
	l.limit.init(int64(max(r.cfg.MaxBuffers*block4k, drbd.MaxData)))
	l.reads.init(maxPeerReads)
	return l
}

const block4k = 4096

// start launches the goroutines; join waits for them.
func (l *link) start() {
	for _, f := range []func() error{l.receiveData, l.sendData, l.receiveMeta, l.sendMeta, l.watch, l.serveLate} {
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			if err := f(); err != nil {
				l.fail(err)
			}
		}()
	}
	for range peerWorkers {
		l.workers.Add(1)
		go func() {
			defer l.workers.Done()
			l.worker()
		}()
	}
}

// fail ends the link because of err and tells the owner. Only the first call counts.
func (l *link) fail(err error) {
	l.end(asLinkError(err))
}

func (l *link) end(cause *linkError) {
	l.once.Do(func() {
		l.cause = cause
		close(l.dead)
		l.cancel()
		l.out.close()
		l.acks.close()
		l.limit.close()
		l.reads.close()
		l.late.close()
		l.socks.close()
		if cause != nil {
			l.r.inbox.put(linkLost{l, cause})
		}
	})
}

func (l *link) isDead() bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

// partingTime is how long a link that is given up may take to send what is queued.
const partingTime = 500 * time.Millisecond

// join ends the link if it still lives, after sending what is queued, and returns when nothing of it runs any more:
// what the peer sent is on the disk or was refused.
func (l *link) join() {
	if !l.isDead() {
		l.out.finish(partingTime)
		l.acks.finish(partingTime)
		l.hangUp()
	}
	l.end(nil)
	l.wg.Wait()
	for p := l.late.get(); p != nil; p = l.late.get() {
		p.recycle()
	}
	l.r.traffic.abandon(l)
	l.work.close()
	l.workers.Wait()
	l.asked.abandon(l)
	l.refusals.tell(l, true, false)
	l.ov.abandon(l.r.traffic)
}

// hangUp says that nothing more will be sent and lets the peer finish. Closing at once would make the kernel throw away
// what the peer has not read yet, perhaps the very packet that tells it why. The meta socket ends later: DRBD's asender
// takes its end for a lost link (drbd_asender, drbd_receiver.c) and would look for this node again, not having read yet,
// for example, that there is a split brain.
func (l *link) hangUp() {
	l.out.close()
	l.acks.close()
	type halfCloser interface{ CloseWrite() error }
	for _, s := range []*sock{l.socks.data, l.socks.meta} {
		if c, ok := s.Conn.(halfCloser); ok {
			_ = c.CloseWrite()
		}
		l.lingers(partingTime) // until the receiver has met the peer's end
	}
}

func (l *link) nextSeq() uint32 { return l.seq.Add(1) }

// watch gives up a peer that leaves a read or write unanswered for timeout times ko-count (drbd_req.c, request_timer_fn).
func (l *link) watch() error {
	limit := l.r.cfg.patience()
	if limit == 0 {
		<-l.dead
		return nil
	}
	tick := time.NewTicker(min(time.Second, limit/4+time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-l.dead:
			return nil
		case now := <-tick.C:
			if c, since := proto.ConnState(l.conn.Load()), l.quiet(now); hurried(c) && since > limit && !l.held.Load() {
				return brokenLink(proto.Timeout, "%s has said nothing for %v in %v", l.r.cfg.Peer, since.Round(time.Second), c)
			}
			if since, ok := l.ov.oldest(); ok && now.Sub(since) > limit {
				return brokenLink(proto.Timeout, "%s left a request for a digest unanswered for %v (timeout times ko-count)", l.r.cfg.Peer, limit)
			}
			if since, ok := l.r.traffic.oldest(l); ok && now.Sub(since) > limit {
				return brokenLink(proto.Timeout, "%s left a request of an application unanswered for %v (timeout times ko-count)", l.r.cfg.Peer, limit)
			}
		}
	}
}

// hurried says whether the two nodes are in the middle of agreeing, with applications perhaps waiting for it.
func hurried(c proto.ConnState) bool {
	return c == proto.WFReportParams || c > proto.Connected && c < proto.SyncSource
}

// quiet is how long neither the state has changed nor the data socket brought anything.
func (l *link) quiet(now time.Time) time.Duration {
	return time.Duration(since0(now) - max(l.turn.Load(), l.lastData.Load()))
}

// oldest is since when the peer has owed an answer: for the oldest epoch's barrier, for a write in it, or for a read.
func (t *traffic) oldest(l *link) (since time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if since, ok = t.oldestWrite(l); t.asking == 0 {
		return since, ok
	}
	for _, s := range t.slots {
		if rr, is := s.req.(*remoteRead); is && rr.link == l && (!ok || rr.since.Before(since)) {
			since, ok = rr.since, true
		}
	}
	return since, ok
}

// oldestWrite is oldest without reads. The lock is held.
func (t *traffic) oldestWrite(l *link) (time.Time, bool) {
	if !l.replicates || len(t.log.epochs) == 0 {
		return time.Time{}, false
	}
	switch e := t.log.epochs[0]; {
	case e.sent:
		return e.ended, true
	case e.pending > 0:
		return e.opened, true
	default:
		return time.Time{}, false
	}
}

// pingBook pairs pings with their answers.
type pingBook struct {
	mu             sync.Mutex
	sent, received uint64
	changed        chan struct{}
}

func (b *pingBook) init() { b.changed = make(chan struct{}) }

// ping sends a ping and gives its number.
func (l *link) ping() uint64 {
	l.pings.mu.Lock()
	defer l.pings.mu.Unlock()
	l.pings.sent++
	putAck(&l.acks, drbd.CmdPing, drbd.Empty{})
	return l.pings.sent
}

func (b *pingBook) pong() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.received < b.sent {
		b.received++
		close(b.changed)
		b.changed = make(chan struct{})
	}
}

func (b *pingBook) outstanding() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.received < b.sent
}

// roundTrip returns when the peer has answered a ping sent now, hence has handled all acknowledgements before it, or
// when the link or ctx has ended.
func (l *link) roundTrip(ctx context.Context) bool {
	n := l.ping()
	for {
		l.pings.mu.Lock()
		done, ch := l.pings.received >= n, l.pings.changed
		l.pings.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-ch:
		case <-l.dead:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// budget bounds the bytes that a peer can make this node hold.
type budget struct {
	mu     sync.Mutex
	free   sync.Cond
	limit  int64
	used   int64
	closed bool
}

func (b *budget) init(limit int64) {
	b.limit = limit
	b.free.L = &b.mu
}

// take waits for n bytes; more than the limit is let through when nothing else is held. False when the link died.
func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.closed && b.used > 0 && b.used+n > b.limit {
		b.free.Wait()
	}
	if b.closed {
		return false
	}
	b.used += n
	return true
}

// halfGone says that half of it is taken.
func (b *budget) halfGone() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used > b.limit/2
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	b.used -= n
	b.mu.Unlock()
	b.free.Signal()
}

func (b *budget) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.free.Broadcast()
}

func badPacket(s drbd.Socket, cmd drbd.Cmd, format string, args ...any) error {
	return &drbd.PacketError{Socket: s, Header: drbd.Header{Cmd: cmd}, Kind: drbd.BadPayload, Text: fmt.Sprintf(format, args...)}
}

func badData(cmd drbd.Cmd, format string, args ...any) error {
	return badPacket(drbd.SocketData, cmd, format, args...)
}

// deadlineWriter writes to a socket and gives up when the peer takes nothing for a time; limit 0 is never.
type deadlineWriter struct {
	conn    net.Conn
	limit   time.Duration
	renewed time.Time
}

// renew moves the deadline, at most ten times a second: it costs a system call's worth of time.
func (d *deadlineWriter) renew() {
	if d.limit == 0 {
		return
	}
	if now := time.Now(); now.Sub(d.renewed) > 100*time.Millisecond {
		d.renewed = now
		_ = d.conn.SetWriteDeadline(now.Add(d.limit))
	}
}
