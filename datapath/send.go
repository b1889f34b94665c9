package datapath

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// outKind says what an outItem is.
type outKind uint8

const (
	outWrite  outKind = iota // w: an application's write
	outAsk                   // cmd, off, n, id: a request for a block
	outReply                 // p: a block that the peer asked for
	outPacket                // raw: an encoded packet
	outBitmap                // the whole bitmap of disk d
	outMark                  // off, n: a range that is out of sync
)

// outItem is one thing to send on the data socket.
type outItem struct {
	kind outKind
	cmd  drbd.Cmd
	w    *write
	p    *peerReq
	d    *disk
	raw  []byte
	id   drbd.BlockID
	off  int64
	n    int64
}

// outQueue is what waits for the data socket. Its order is the order on the wire.
type outQueue struct {
	mu     sync.Mutex
	items  []outItem
	told   int           // bytes of packets of the conversation among them
	marks  atomic.Int64  // ranges out of sync among them
	wake   chan struct{} // capacity 1
	closed bool
	busy   bool // the sender has items in hand
	idle   sync.Cond
	unread backlog
}

func (q *outQueue) init(data net.Conn) {
	q.wake = make(chan struct{}, 1)
	q.idle.L = &q.mu
	q.unread.conn = data
}

// put queues an item and wakes the sender; on a dead link it is dropped, and false returned.
func (q *outQueue) put(it outItem) bool {
	if !q.add(it) {
		return false
	}
	q.kick()
	return true
}

// add is put for a caller that sees to the sending itself.
func (q *outQueue) add(it outItem) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	if q.told += len(it.raw); q.unread.beyond(q.told) {
		return false
	}
	if it.kind == outMark {
		if n := len(q.items); n > 0 && q.items[n-1].joins(&it) {
			return true
		}
		q.marks.Add(1)
	}
	q.items = append(q.items, it)
	return true
}

// kick makes the sender look for something to do.
func (q *outQueue) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take gives all that is queued and keeps into for what comes next.
func (q *outQueue) take(into []outItem) []outItem {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(into)
	into, q.items, q.told = q.items, into[:0], 0
	if q.busy = len(into) > 0; !q.busy {
		q.idle.Broadcast()
	}
	return into
}

// rest ends one round of sending and says whether something was queued meanwhile.
func (q *outQueue) rest() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy = len(q.items) > 0; !q.busy {
		q.idle.Broadcast()
	}
	return q.busy
}

func (q *outQueue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) == 0
}

// finish waits until all is sent, but not longer than d.
func (q *outQueue) finish(d time.Duration) {
	t := time.AfterFunc(d, q.close)
	defer t.Stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && (q.busy || len(q.items) > 0) {
		q.idle.Wait()
	}
}

// close drops what is queued and what comes.
func (q *outQueue) close() {
	q.mu.Lock()
	q.closed = true
	dropped := q.items
	q.items = nil
	q.mu.Unlock()
	for _, it := range dropped {
		if it.p != nil {
			it.p.recycle()
		}
	}
	q.idle.Broadcast()
	q.kick()
}

const (
	maxBatch      = 64      // items in one system call
	maxBatchBytes = 1 << 20 // and bytes, unless a single item has more
	maxHeadBytes  = 64      // of one item, barrier included
)

// sender is what writes the data socket: a goroutine of its own, or that of an application whose write is the only one.
// turn says which one of them; it guards the rest.
type sender struct {
	turn  turn
	l     *link
	over  bool   // the goroutine has ended, nothing is sent any more
	cur   *epoch // of the last write sent, until its barrier is sent
	heads []byte
	vec   [][]byte
	bufs  net.Buffers
	size  int
	sent  []*peerReq
	given []uint64 // writes in the batch of which the network is all that their caller waits for
	items []outItem
	w     deadlineWriter

	idle  *time.Timer
	armed bool
	count uint64 // of writes sent, and when idle was armed
	seen  uint64
}

func newSender(l *link) *sender {
	s := &sender{l: l, heads: make([]byte, 0, maxBatch*2*maxHeadBytes), vec: make([][]byte, 0, maxBatch*4),
		idle: time.NewTimer(time.Hour), w: deadlineWriter{conn: l.socks.data, limit: l.r.cfg.patience()}}
	s.turn.init()
	return s
}

// sendData writes the data socket until the link dies. What is queued while it writes goes out in one system call; an
// idle queue costs no delay.
func (l *link) sendData() error {
	s := l.sender
	defer s.end()
	for {
		s.turn.take()
		err := s.pump()
		s.turn.give()
		if err != nil {
			return err
		}
		select {
		case <-l.out.wake:
			runtime.Gosched() // whoever is about to queue something may do so: it goes out in the same system call
		case <-s.idle.C:
			s.turn.take()
			s.armed = false
			s.endEpoch()
			s.turn.give()
		case <-l.dead:
			return nil
		}
	}
}

// sendNow sends what is queued from the caller's goroutine, which saves a lone write the way through the scheduler; if
// somebody is sending already it is left to the sender.
func (l *link) sendNow() {
	s := l.sender
	if !s.turn.try() {
		l.out.kick()
		return
	}
	_, err := s.round()
	s.arm()
	more := l.out.rest()
	s.turn.give()
	if err != nil {
		l.fail(err)
	}
	if more {
		l.out.kick()
	}
}

// end waits for whoever is sending and lets nobody send any more.
func (s *sender) end() {
	s.turn.take()
	defer s.turn.give()
	s.over = true
	s.idle.Stop()
	for _, p := range s.sent {
		p.recycle()
	}
	s.sent = nil
}

// pump sends until nothing is queued. The turn is taken.
func (s *sender) pump() error {
	for {
		if more, err := s.round(); err != nil || !more {
			s.arm()
			return err
		}
	}
}

// round sends what is queued, and says whether that was anything. The turn is taken.
func (s *sender) round() (more bool, err error) {
	if s.over {
		return false, nil
	}
	s.items = s.l.out.take(s.items)
	if s.l.out.marks.Swap(0) >= maxMarks {
		s.l.r.traffic.goOn()
	}
	for i := range s.items {
		if err := s.add(&s.items[i]); err != nil {
			s.drop(i + 1)
			s.over = true
			return false, err
		}
	}
	if len(s.items) == 0 {
		s.idleBarrier()
	}
	if err := s.l.out.unread.explain(s.l, "data", s.flush()); err != nil {
		s.over = true
		return false, err
	}
	return len(s.items) > 0, nil
}

// arm sees to it that the end of an open epoch is thought of. The turn is taken.
func (s *sender) arm() {
	if s.cur != nil && !s.armed && !s.over {
		s.armed, s.seen = true, s.count
		t := s.l.r.traffic
		t.mu.Lock()
		age := t.log.age()
		t.mu.Unlock()
		s.idle.Reset(age)
	}
}

// endEpoch ends the epoch when there was no write for a while and none is unanswered. Its barrier makes the peer flush,
// which is not worth it between two writes that depend on each other: the first one is on the peer's disk (protocol C).
func (s *sender) endEpoch() {
	if s.cur == nil || s.seen != s.count {
		return
	}
	t := s.l.r.traffic
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.cur.pending == 0 {
		s.cur.closed = true
	}
}

// drop gives back what the rest of the items hold.
func (s *sender) drop(from int) {
	for _, it := range s.items[min(from, len(s.items)):] {
		if it.p != nil {
			it.p.recycle()
		}
	}
}

// add puts one item into the batch.
func (s *sender) add(it *outItem) error {
	switch it.kind {
	case outWrite:
		s.addWrite(it.w)
	case outAsk:
		req := drbd.BlockRequest{Sector: uint64(it.off / block.SectorSize), ID: it.id, Size: uint32(it.n)}
		addPacket(s, it.cmd, req, nil)
	case outReply:
		s.sent = append(s.sent, it.p)
		if it.p.kind == peerOVDigest || it.p.kind == peerCsumAsk {
			req := drbd.BlockRequest{Sector: uint64(it.p.off / block.SectorSize), ID: it.p.id, Size: uint32(it.p.n)}
			addPacket(s, it.cmd, req, it.p.sum.bytes())
			break
		}
		if it.cmd == drbd.CmdRSDeallocated {
			addPacket(s, it.cmd, drbd.BlockDesc{Sector: uint64(it.p.off / block.SectorSize), Size: uint32(it.p.n)}, nil)
			break
		}
		d := drbd.Data{Sector: uint64(it.p.off / block.SectorSize), ID: it.p.id}
		s.addBlock(it.cmd, d, it.p.buf)
	case outPacket:
		s.push(it.raw)
	case outBitmap:
		return s.sendBitmap(it.d)
	case outMark:
		if s.cur != nil {
			s.barrier() // of what was sent before this node ran Ahead; the peer's answer leads back
		}
		addPacket(s, drbd.CmdOutOfSync, drbd.BlockDesc{Sector: uint64(it.off / block.SectorSize), Size: uint32(it.n)}, nil)
	}
	if len(s.vec) > maxBatch*2 || s.size > maxBatchBytes {
		return s.flush()
	}
	return nil
}

func (s *sender) push(b []byte) {
	s.vec = append(s.vec, b)
	s.size += len(b)
}

// addPacket encodes a packet behind the other heads and puts data behind it.
func addPacket[P drbd.Payload](s *sender, cmd drbd.Cmd, p P, data []byte) {
	n := len(s.heads)
	s.heads = drbd.AppendPacket(s.heads, drbd.H100, 0, cmd, p, len(data))
	s.push(s.heads[n:])
	if len(data) > 0 {
		s.push(data)
	}
}

// addWrite sends the barrier of the epoch before, if w begins a new one, and then w.
func (s *sender) addWrite(w *write) {
	if s.cur != nil && s.cur != w.epoch {
		s.barrier()
	}
	s.cur = w.epoch
	s.count++
	if !w.answered() {
		s.given = append(s.given, w.id)
	}
	d := drbd.Data{Sector: uint64(w.off / block.SectorSize), ID: drbd.BlockIDOf(w.id), Seq: w.seq, Flags: w.flags}
	if w.cmd == drbd.CmdZeroes {
		addPacket(s, w.cmd, drbd.Range{Data: d, Size: uint32(w.n)}, nil)
		return
	}
	s.addBlock(w.cmd, d, w.p)
}

// addBlock puts the digest before the data if there is a data-integrity-alg (drbd_send_dblock, drbd_main.c).
func (s *sender) addBlock(cmd drbd.Cmd, d drbd.Data, data []byte) {
	g := s.l.r.seals
	if g == nil {
		addPacket(s, cmd, d, data)
		return
	}
	h := sealedHead{Data: d}
	g.sum(data, &h.sum)
	addPacket(s, cmd, h, data)
}

// sealedHead is the fixed part of a block's packet with the digest behind it.
type sealedHead struct {
	drbd.Data
	sum digest
}

// Append encodes both.
func (h sealedHead) Append(dst []byte) []byte { return append(h.Data.Append(dst), h.sum.bytes()...) }

func (s *sender) barrier() {
	t := s.l.r.traffic
	t.mu.Lock()
	nr := s.cur.nr
	s.cur.sent, s.cur.ended = true, time.Now()
	t.mu.Unlock()
	s.cur = nil
	addPacket(s, drbd.CmdBarrier, drbd.Barrier{ID: drbd.BarrierIDOf(nr)}, nil)
}

// idleBarrier sends the barrier of an epoch that takes no more writes and has none queued.
func (s *sender) idleBarrier() {
	if s.cur == nil {
		return
	}
	t := s.l.r.traffic
	t.mu.Lock()
	now := s.cur.closed && s.l.out.empty() // whoever queues a write holds the traffic lock
	t.mu.Unlock()
	if now {
		s.barrier()
	}
}

// flush writes the batch in one system call.
func (s *sender) flush() error {
	if len(s.vec) == 0 {
		return nil
	}
	s.w.renew()
	s.l.handed.Add(1)
	s.bufs = s.vec
	_, err := s.bufs.WriteTo(s.l.socks.data.Conn)
	s.l.r.traffic.sentBytes.Add(int64(s.size))
	clear(s.vec)
	s.vec, s.heads, s.size = s.vec[:0], s.heads[:0], 0
	for _, p := range s.sent {
		p.recycle()
	}
	s.sent = s.sent[:0]
	if len(s.given) > 0 && err == nil {
		s.l.r.traffic.handedOver(s.l, s.given)
	}
	s.given = s.given[:0]
	return err
}

// sendBitmap sends the whole bitmap. The gate is frozen, so nothing changes it meanwhile. What this node refused of the resync
// before travels on the other socket; a kernel that hears of it when the next one has begun counts it there, and calls this
// copy Inconsistent in the end.
func (s *sender) sendBitmap(d *disk) error {
	if s.l.belated.Swap(false) && !s.l.roundTrip(s.l.ctx) {
		return net.ErrClosed
	}
	enc := drbd.NewBitmapEncoder(bitmapSource{d.bm}, s.l.r.cfg.PlainBitmap)
	buf := make([]byte, 0, drbd.MaxBitmapPacket)
	for {
		payload, cmd, ok := enc.Next(buf)
		if !ok {
			return s.flush()
		}
		addPacket(s, cmd, drbd.Bytes(payload), nil)
		if err := s.flush(); err != nil {
			return err
		}
		if s.l.isDead() {
			return net.ErrClosed
		}
	}
}

// sendPacket queues a packet of the conversation on the data socket.
func sendPacket[P drbd.Payload](l *link, cmd drbd.Cmd, p P) {
	l.out.put(outItem{kind: outPacket, raw: drbd.AppendPacket(nil, drbd.H100, 0, cmd, p, 0)})
}

// maxUnread bounds, for each socket, the answers that wait for a peer that asks and does not read.
const maxUnread = 4 << 20

// backlog sees to that bound.
type backlog struct {
	conn net.Conn
	over atomic.Bool
}

// beyond says whether n bytes are too many. Then it also wakes the sender, who may be waiting for the peer to read.
func (b *backlog) beyond(n int) bool {
	if n <= maxUnread {
		return b.over.Load()
	}
	b.over.Store(true)
	_ = b.conn.SetWriteDeadline(time.Unix(1, 0)) // each time: the sender may just have set its own
	return true
}

// explain is what the sender makes of the outcome of a write.
func (b *backlog) explain(l *link, socket string, err error) error {
	if !b.over.Load() {
		return err
	}
	return brokenLink(proto.ProtocolError, "%s does not read its %s socket: more than %d MiB of answers wait for it", l.r.cfg.Peer, socket, maxUnread>>20)
}

// ackQueue is what waits for the meta socket: encoded packets.
type ackQueue struct {
	mu     sync.Mutex
	buf    []byte
	wake   chan struct{} // capacity 1
	closed bool
	busy   bool
	idle   sync.Cond
	unread backlog

	sending turn // to write to the socket; guards what follows
	batch   []byte
	w       deadlineWriter
}

func (q *ackQueue) init(meta net.Conn) {
	q.wake = make(chan struct{}, 1)
	q.idle.L = &q.mu
	q.unread.conn = meta
	q.sending.init()
}

// putAck queues a packet for the meta socket and wakes its sender.
func putAck[P drbd.Payload](q *ackQueue, cmd drbd.Cmd, p P) {
	addAck(q, cmd, p)
	q.kick()
}

// addAck is putAck for a caller that sees to the sending itself.
func addAck[P drbd.Payload](q *ackQueue, cmd drbd.Cmd, p P) {
	q.mu.Lock()
	if !q.closed && !q.unread.beyond(len(q.buf)) {
		q.buf = drbd.AppendPacket(q.buf, drbd.H100, 0, cmd, p, 0)
	}
	q.mu.Unlock()
}

func (q *ackQueue) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *ackQueue) take(into []byte) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	into, q.buf = q.buf, into[:0]
	if q.busy = len(into) > 0; !q.busy {
		q.idle.Broadcast()
	}
	return into
}

// rest ends one round of sending and says whether something was queued meanwhile.
func (q *ackQueue) rest() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy = len(q.buf) > 0; !q.busy {
		q.idle.Broadcast()
	}
	return q.busy
}

func (q *ackQueue) finish(d time.Duration) {
	t := time.AfterFunc(d, q.close)
	defer t.Stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && (q.busy || len(q.buf) > 0) {
		q.idle.Wait()
	}
}

func (q *ackQueue) close() {
	q.mu.Lock()
	q.closed, q.buf = true, nil
	q.mu.Unlock()
	q.idle.Broadcast()
	q.kick()
}

// sendMeta writes the meta socket until the link dies. Nothing it waits for depends on a disk.
func (l *link) sendMeta() error {
	for {
		l.acks.sending.take()
		more, err := l.ackRound()
		l.acks.sending.give()
		if err != nil {
			return err
		}
		if more {
			continue
		}
		select {
		case <-l.acks.wake:
			runtime.Gosched() // as in sendData
		case <-l.dead:
			return nil
		}
	}
}

// ackNow sends what is queued from the goroutine of a worker whose write was the only one, or leaves it to the sender.
func (l *link) ackNow(alone bool) {
	if !alone || !l.acks.sending.try() {
		l.acks.kick()
		return
	}
	_, err := l.ackRound()
	more := l.acks.rest()
	l.acks.sending.give()
	if err != nil {
		l.fail(err)
	}
	if more {
		l.acks.kick()
	}
}

// ackRound sends what is queued, and says whether that was anything. The turn is taken.
func (l *link) ackRound() (more bool, err error) {
	q := &l.acks
	q.batch = q.take(q.batch)
	if len(q.batch) == 0 {
		return false, q.unread.explain(l, "meta", nil)
	}
	q.w.renew()
	n, err := l.socks.meta.Write(q.batch)
	l.r.traffic.sentBytes.Add(int64(n))
	return true, q.unread.explain(l, "meta", err)
}
