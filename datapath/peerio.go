package datapath

import (
	"sync"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// peerKind says what the peer wants done on the local disk.
type peerKind uint8

const (
	peerWrite    peerKind = iota // DATA
	peerZeroes                   // ZEROES, TRIM
	peerSame                     // WSAME
	peerResync                   // RS_DATA_REPLY
	peerRSRead                   // RS_DATA_REQUEST
	peerThinRead                 // RS_THIN_REQ
	peerRead                     // DATA_REQUEST
	peerCsum                     // CSUM_RS_REQUEST
	peerCsumAsk                  // a request of this node that needs the digest of a block
	peerOVDigest                 // OV_REQUEST
	peerOVCheck                  // OV_REPLY
)

// reads says whether the peer wants to be sent what is read. Only an UpToDate disk may answer.
func (k peerKind) reads() bool {
	return k == peerRSRead || k == peerThinRead || k == peerRead || k == peerOVDigest || k == peerCsum
}

// writes says whether a Primary writes; it counts in an epoch.
func (k peerKind) writes() bool { return k == peerWrite || k == peerZeroes || k == peerSame }

// modifies says whether the disk is written.
func (k peerKind) modifies() bool { return k.writes() || k == peerResync }

// peerReq is one request of the peer on the local disk. It goes from the receiver, in its turn among overlapping ones,
// to a worker, and for reads on to the sender.
type peerReq struct {
	kind    peerKind
	off     int64
	n       int64
	buf     []byte
	id      drbd.BlockID
	flags   uint32
	link    *link
	disk    *disk
	logs    bool // holds the activity log's extent
	tracked bool // counts in traffic.tracking
	alone   bool // nothing came behind it
	span    span
	asked   *askedBlock
	part    *verifyPart
	sum     digest
}

var peerReqs = sync.Pool{New: func() any {
	p := &peerReq{}
	p.span.req = p
	p.span.granted = func() { p.link.work.put(p) }
	return p
}}

// cost is what the request counts for in the budget: its data, and at least one page, as it takes memory by itself.
func (p *peerReq) cost() int64 { return max(int64(len(p.buf)), block4k) }

// recycle gives the request and its buffer back.
func (p *peerReq) recycle() {
	if p.kind.reads() {
		p.link.reads.give(p.n)
	} else if p.kind.modifies() {
		p.link.limit.give(p.cost())
	}
	if p.buf != nil {
		block.PutBuffer(p.buf)
	}
	p.buf, p.link, p.disk, p.asked, p.part, p.logs, p.sum.n = nil, nil, nil, nil, nil, false, 0
	peerReqs.Put(p)
}

// workQueue hands requests to the workers of a link. It is bounded by the budgets of what it carries.
type workQueue struct {
	mu     sync.Mutex
	some   sync.Cond
	queue  []*peerReq
	head   int
	closed bool
}

func (q *workQueue) init() { q.some.L = &q.mu }

func (q *workQueue) put(p *peerReq) {
	q.mu.Lock()
	q.queue = append(q.queue, p)
	q.mu.Unlock()
	q.some.Signal()
}

// get waits for a request; nil when the queue was closed and is empty.
func (q *workQueue) get() *peerReq {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.head == len(q.queue) {
		if q.closed {
			return nil
		}
		q.some.Wait()
	}
	p := q.queue[q.head]
	q.queue[q.head] = nil
	if q.head++; q.head == len(q.queue) {
		q.queue, q.head = q.queue[:0], 0
	}
	return p
}

func (q *workQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.some.Broadcast()
}

// rxEpoch counts the writes since the last barrier.
type rxEpoch struct {
	mu     sync.Mutex
	quiet  sync.Cond
	count  uint32
	active int
	disk   *disk // that the writes of the epoch went to; nil: none did
}

func (e *rxEpoch) init() { e.quiet.L = &e.mu }

// begin gives the number of writes active before this one.
func (e *rxEpoch) begin() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.count++
	e.active++
	return e.active - 1
}

// end gives the number of writes still active. d is the disk that took this one, nil if none did.
func (e *rxEpoch) end(d *disk) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d != nil {
		e.disk = d
	}
	if e.active--; e.active == 0 {
		e.quiet.Broadcast()
	}
	return e.active
}

// await waits until all writes so far are on the disk.
func (e *rxEpoch) await() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.active > 0 {
		e.quiet.Wait()
	}
}

// finish waits until all writes of the epoch are on the disk and starts the next one. It gives their number, and the disk.
func (e *rxEpoch) finish() (uint32, *disk) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.active > 0 {
		e.quiet.Wait()
	}
	n, d := e.count, e.disk
	e.count, e.disk = 0, nil
	return n, d
}

// enter hands p to a worker in its turn. It reports false when there is no disk to do it on.
func (t *traffic) enter(p *peerReq, kind spanKind) bool {
	now, ok := t.queue(p, kind)
	if now {
		p.link.work.put(p)
	}
	return ok
}

// queue is enter for a caller that sees to p itself if its turn is now.
func (t *traffic) queue(p *peerReq, kind spanKind) (now, ok bool) {
	t.mu.Lock()
	d := t.gate.disk
	if p.kind.reads() && !t.gate.serve {
		d = nil
	}
	writes := p.kind.writes()
	if writes && p.link.tracked && !t.gate.linked {
		d = nil // nobody would keep the marks: the Primary has no disk, and its link is ending
	}
	if p.asked != nil && p.asked.disk != d {
		d = nil // another disk than the one it was asked for
	}
	if d == nil || p.off+p.n > t.gate.size {
		t.mu.Unlock()
		return false, false
	}
	d.refs++
	p.disk = d
	if writes || p.kind == peerRead {
		t.apps++
	}
	if p.logs = t.gate.tracks && writes; p.logs {
		p.tracked, p.link.tracked = true, true
		t.tracking++
		// At once, for a bitmap may be asked for before a worker gets to it.
		d.bm.SetRange(p.off, p.n)
	}
	now = true
	if p.kind != peerRead {
		p.span.off, p.span.end, p.span.kind = p.off, p.off+p.n, kind
		now = t.ranges.add(&p.span)
	}
	if writes {
		// Protocol B: it is here. No worker can answer before this.
		if p.flags&drbd.DPSendRecvAck != 0 {
			p.link.answer(drbd.CmdRecvAck, p)
		}
	}
	t.mu.Unlock()
	return now, true
}

// lone decides who does the peer's writes: the receiver itself while they come one at a time, as a worker would have to be
// woken for each, or the workers. Whether one had to wait in the socket for the one before it, it sees by the clock. It
// belongs to the receiver.
type lone struct {
	ended   time.Time // the receiver's last write; zero: somebody else did the last one
	workers int       // so many more writes are the workers'
}

const (
	loneGap   = 10 * time.Microsecond // an answer, and what the peer makes of it, take longer
	loneAgain = 64
)

// takes says whether the receiver does the write that arrived; alone: no other one is under way or has arrived.
func (o *lone) takes(arrived time.Time, alone bool) bool {
	if !alone || !o.ended.IsZero() && arrived.Sub(o.ended) < loneGap {
		o.workers = loneAgain
	}
	o.ended = time.Time{}
	if o.workers > 0 {
		o.workers--
		return false
	}
	return true
}

// tracked ends what enter began for a Primary without disk. The lock is held.
func (t *traffic) tracked(p *peerReq) {
	if p.tracked {
		p.tracked = false
		if t.tracking--; t.tracking == 0 {
			t.rouse()
		}
	}
}

// awaitTracked returns when no write is under way whose marks this node keeps for a Primary without disk. The gate lets
// no more of them in.
func (t *traffic) awaitTracked() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.tracking > 0 && !t.gate.tracks {
		ch := t.await()
		t.mu.Unlock()
		<-ch
		t.mu.Lock()
	}
}

// leave ends p's turn. bytes counts in its direction if the disk did it.
func (t *traffic) leave(p *peerReq, ok bool) {
	t.mu.Lock()
	if p.kind != peerRead {
		t.ranges.remove(&p.span)
	}
	t.tracked(p)
	if ok {
		if !p.kind.modifies() {
			t.count.read += p.n
		} else {
			t.count.written += p.n
		}
	}
	p.disk.put()
	t.mu.Unlock()
}

// worker does what the peer asks for until the queue is closed and empty.
func (l *link) worker() {
	for p := l.work.get(); p != nil; p = l.work.get() {
		switch p.kind {
		case peerWrite, peerZeroes, peerSame:
			l.doWrite(p)
		case peerResync:
			l.doResync(p)
		case peerRSRead, peerThinRead, peerRead:
			l.doRead(p)
		case peerCsum:
			l.doCsum(p)
		case peerCsumAsk:
			l.doCsumAsk(p)
		case peerOVDigest:
			l.doDigest(p)
		case peerOVCheck:
			l.doVerify(p)
		}
	}
}

// doWrite writes what a Primary sent and acknowledges it.
func (l *link) doWrite(p *peerReq) {
	err := l.track(p)
	if err == nil {
		if err = p.write(); err != nil {
			l.r.diskFailed(p.disk, false, err)
		}
	}
	if p.logs {
		_ = p.disk.md.AL().End(p.off, p.n)
	}
	cmd := drbd.CmdWriteAck
	switch {
	case err != nil:
		cmd = drbd.CmdNegAck
	case p.flags&drbd.DPMaySetInSync != 0 && proto.ConnState(l.conn.Load()).Syncing():
		cmd = drbd.CmdRSWriteAck
		p.disk.bm.ClearRange(p.off, p.n)
	}
	// Answers to overlapping requests go out in the order in which they were done.
	if p.flags&drbd.DPSendWriteAck != 0 || cmd == drbd.CmdNegAck {
		addAck(&l.acks, cmd, l.ackOf(p))
	}
	d := p.disk
	l.r.traffic.leave(p, err == nil)
	if err != nil {
		d = nil
	}
	alone := l.rx.end(d) == 0 && p.alone
	p.recycle()
	l.ackNow(alone)
}

// write does what a Primary asks for. A flush flag makes what came before durable first, FUA this write before it is
// acknowledged.
func (p *peerReq) write() error {
	dev := p.disk.dev
	if p.flags&drbd.DPFlush != 0 {
		if err := dev.Flush(); err != nil {
			return err
		}
	}
	switch {
	case p.kind == peerZeroes:
		if err := dev.WriteZeroes(p.off, p.n, p.flags&drbd.DPDiscard != 0); err != nil {
			return err
		}
	case p.kind == peerSame:
		if err := p.fill(dev); err != nil {
			return err
		}
	case p.n > 0:
		if _, err := dev.WriteAt(p.buf, p.off); err != nil {
			return err
		}
	}
	if p.flags&drbd.DPFUA != 0 {
		return dev.Flush()
	}
	return nil
}

// fillSize is how much of a range filled with one block is made at a time; so each worker has at most one buffer of it.
const fillSize = 1 << 20

// fill writes the one block of a write-same all over its range.
func (p *peerReq) fill(dev block.Device) error {
	if empty(p.buf) {
		return dev.WriteZeroes(p.off, p.n, false)
	}
	b := block.GetBuffer(int(min(p.n, fillSize)))
	defer block.PutBuffer(b)
	for at := 0; at < len(b); {
		at += copy(b[at:], p.buf)
	}
	for done := int64(0); done < p.n; {
		n := min(p.n-done, int64(len(b)))
		if _, err := dev.WriteAt(b[:n], p.off+done); err != nil {
			return err
		}
		done += n
	}
	return nil
}

// track keeps the activity log for a Primary that has no disk.
func (l *link) track(p *peerReq) error {
	if !p.logs {
		return nil
	}
	if err := p.disk.md.AL().Begin(l.ctx, p.off, p.n); err != nil {
		p.logs = false
		if l.ctx.Err() == nil {
			l.r.diskFailed(p.disk, true, err)
		}
		return err
	}
	return nil
}

func (l *link) ackOf(p *peerReq) drbd.BlockAck {
	return drbd.BlockAck{Sector: uint64(p.off / block.SectorSize), ID: p.id, Size: uint32(p.n), Seq: l.nextSeq()}
}

func (l *link) answer(cmd drbd.Cmd, p *peerReq) { putAck(&l.acks, cmd, l.ackOf(p)) }

// doResync writes a block that this node asked for as SyncTarget; without data it holds zeroes.
func (l *link) doResync(p *peerReq) {
	var err error
	if p.buf == nil {
		err = p.disk.dev.WriteZeroes(p.off, p.n, true)
	} else {
		_, err = p.disk.dev.WriteAt(p.buf, p.off)
	}
	cmd := drbd.CmdRSWriteAck
	if err != nil {
		l.r.diskFailed(p.disk, false, err)
		cmd = drbd.CmdNegAck
	} else {
		l.asked.cleared(p.asked, p.disk)
	}
	l.answer(cmd, p)
	l.r.traffic.leave(p, err == nil)
	l.asked.done(l, p.asked, err == nil)
	p.recycle()
}

// doRead reads a block for the peer and queues the answer. The turn of a resync read ends when the answer is queued:
// whatever an application writes there later is sent later.
func (l *link) doRead(p *peerReq) {
	p.buf = block.GetBuffer(int(p.n))
	_, err := p.disk.dev.ReadAt(p.buf, p.off)
	cmd, neg := drbd.CmdDataReply, drbd.CmdNegDReply
	if p.kind != peerRead {
		cmd, neg = drbd.CmdRSDataReply, drbd.CmdNegRSDReply
	}
	if err != nil {
		l.r.diskFailed(p.disk, false, err)
		l.answer(neg, p)
		l.r.traffic.leave(p, false)
		p.recycle()
		return
	}
	if p.kind == peerThinRead && empty(p.buf) {
		cmd = drbd.CmdRSDeallocated
	}
	l.queueReply(p, cmd, true)
}

// queueReply ends p's turn and hands it to the sender, which may recycle it as soon as it is queued. read: the disk did
// it.
func (l *link) queueReply(p *peerReq, cmd drbd.Cmd, read bool) {
	t, d := l.r.traffic, p.disk
	t.mu.Lock()
	if p.kind != peerRead {
		t.ranges.remove(&p.span)
	}
	if read {
		t.count.read += p.n
	}
	sent := l.out.put(outItem{kind: outReply, cmd: cmd, p: p})
	d.put()
	t.mu.Unlock()
	if !sent {
		p.recycle()
	}
}

// abandon refuses what still waits for its turn on a link whose receiver has ended. The peer counts it as lost.
func (t *traffic) abandon(l *link) {
	for {
		t.mu.Lock()
		s := t.ranges.head
		for s != nil && (s.req == nil || s.req.link != l || s.waits == 0) {
			s = s.next
		}
		if s == nil {
			t.mu.Unlock()
			return
		}
		p := s.req
		t.ranges.remove(s)
		t.tracked(p)
		p.disk.put()
		t.mu.Unlock()
		if p.kind.writes() {
			l.rx.end(nil)
		}
		if p.part != nil {
			l.ov.done(t, p.part, p.off, p.n, false, false)
		}
		p.recycle()
	}
}
