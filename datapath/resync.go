package datapath

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// askedBlock is a block that this node, as SyncTarget, asked for.
type askedBlock struct {
	off, n  int64
	disk    *disk
	arrived bool
	stale   bool // of a resync that was stopped: its bits stay
	lost    bool // its disk left before the answer came: nothing is written, and nobody need wait for it
	span    span
	ready   chan struct{} // capacity 1
}

// askedBlocks are the blocks asked for on one link and not yet on the disk. It outlives a resync that was stopped: what
// was asked for may still arrive.
type askedBlocks struct {
	mu     sync.Mutex
	m      map[int64]*askedBlock // by offset
	bytes  int64
	failed *meta.Bitmap  // blocks that could not be read or written, as target or as source; nil: none
	kick   chan struct{} // capacity 1: something arrived
	equal  atomic.Int64  // bytes that were the same already, by their checksums
	came   int64         // bytes that were asked for and came, or will not
}

func (a *askedBlocks) init() {
	a.m = map[int64]*askedBlock{}
	a.kick = make(chan struct{}, 1)
}

func (a *askedBlocks) wake() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

func (a *askedBlocks) outstanding() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bytes
}

// flow is what a pacer must know.
func (a *askedBlocks) flow() (came, inFlight int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.came, a.bytes
}

// bad is how many blocks failed and are still out of sync. A refusal from before the disk came back may overtake, on the meta
// socket, what began the present resync; and an application may have written a block since. DRBD counts such blocks too
// (drbd_rs_failed_io, drbd_actlog.c), and leaves a target Inconsistent that has them all.
func (a *askedBlocks) bad(bm *meta.Bitmap) (n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed == nil || bm == nil {
		return 0
	}
	for bit, ok := a.failed.NextSet(0); ok; {
		end, more := a.failed.NextClear(bit)
		if !more {
			end = a.failed.Bits()
		}
		n += bm.CountRange(int64(bit)*meta.BlockSize, int64(end-bit)*meta.BlockSize)
		bit, ok = a.failed.NextSet(end)
	}
	return n
}

func (a *askedBlocks) isBad(bit uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed != nil && a.failed.Test(bit)
}

// forget makes nothing of the failures of an earlier resync on this link: the disk may be another one now.
func (a *askedBlocks) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = nil
}

// fail notes that a block could not be read or written. a.mu is held.
func (a *askedBlocks) fail(size, off, n int64) {
	if a.failed == nil {
		a.failed, _ = meta.NewBitmap(size)
	}
	if a.failed != nil {
		a.failed.SetRange(off, n)
	}
}

// claim finds the block that an answer is for. Nobody may send a block that was not asked for, or twice.
func (a *askedBlocks) claim(off, n int64) *askedBlock {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.m[off]
	if b == nil || b.n != n || b.arrived {
		return nil
	}
	b.arrived = true
	return b
}

// cleared clears the bits of a block that arrived or need not.
func (a *askedBlocks) cleared(b *askedBlock, d *disk) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !b.stale {
		d.bm.ClearRange(b.off, b.n)
	}
}

// drain returns when everything that was asked for is answered, after drainTime, or when the link ends.
func (a *askedBlocks) drain(l *link) {
	enough := time.NewTimer(drainTime)
	defer enough.Stop()
	for a.outstanding() > 0 {
		select {
		case <-a.kick:
		case <-l.dead:
			return
		case <-enough.C:
			return
		}
	}
}

// expire lets what a resync that was stopped has asked for clear no bits any more: the peer may run Ahead now, and mark blocks
// that are among it. If the disk has left it is lost: no answer may come to another disk, and none may ever come
// (w_e_end_rsdata_req, drbd_worker.c, drops them for a peer that is Diskless), so applications wait no longer.
func (a *askedBlocks) expire(l *link, lost bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.m {
		b.stale = true
		if lost && !b.lost {
			b.lost = true
			a.unblock(l, b)
		}
	}
}

// unblock lets applications write where a block was asked for. a.mu is held.
func (a *askedBlocks) unblock(l *link, b *askedBlock) {
	t := l.r.traffic
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ranges.remove(&b.span)
}

// lost is how many blocks may never be answered.
func (a *askedBlocks) lost() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.m {
		if b.lost {
			n++
		}
	}
	return n
}

// expired says whether some of them are still to be answered.
func (a *askedBlocks) expired() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.m {
		if b.stale {
			return true
		}
	}
	return false
}

// done ends an asked block. A failed one is not asked for again on this link.
func (a *askedBlocks) done(l *link, b *askedBlock, ok bool) {
	t := l.r.traffic
	t.mu.Lock()
	size := t.gate.size
	t.mu.Unlock()
	a.mu.Lock()
	if !b.lost {
		a.unblock(l, b)
	}
	delete(a.m, b.off)
	a.bytes -= b.n
	a.came += b.n
	if !ok && !b.stale {
		a.fail(size, b.off, b.n)
	}
	a.mu.Unlock()
	a.wake()
}

// abandon lets applications write where blocks were asked for that will not come.
func (a *askedBlocks) abandon(l *link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for off, b := range a.m {
		if !b.lost {
			a.unblock(l, b)
		}
		delete(a.m, off)
	}
	a.bytes = 0
}

const (
	drainTime        = time.Second // how long a disk that leaves waits for answers
	maxResyncRequest = drbd.MaxData
	resyncExtent     = 16 << 20 // BM_EXT_SIZE, drbd_int.h: no request crosses it
)

// resync is the SyncTarget's side of a resync: one goroutine asks for blocks, paced by the rate.
type resync struct {
	l      *link
	d      *disk
	paused atomic.Bool
	cancel context.CancelFunc
	done   chan struct{}
	pacer  pacer
}

func startResync(l *link, d *disk, paused bool) *resync {
	ctx, cancel := context.WithCancel(l.ctx)
	rs := &resync{l: l, d: d, cancel: cancel, done: make(chan struct{}), pacer: newPacer(&l.r.rate, l.asked.flow)}
	rs.paused.Store(paused)
	l.asked.equal.Store(0)
	go func() {
		defer close(rs.done)
		defer cancel()
		rs.run(ctx)
	}()
	return rs
}

// stop returns when nothing is asked for any more.
func (rs *resync) stop() {
	rs.cancel()
	<-rs.done
}

func (rs *resync) pause(on bool) {
	rs.paused.Store(on)
	rs.l.asked.wake()
}

// run asks for every block whose bit is set until none is left that did not fail.
func (rs *resync) run(ctx context.Context) {
	cursor, asked := uint64(0), false
	for ctx.Err() == nil && rs.l.asked.expired() { // an old answer might pass for a new one
		if n := rs.l.asked.lost(); n > 0 {
			rs.l.fail(brokenLink(proto.NetworkFailure, "%d requests of a resync before the disk left were not answered, and may be yet", n))
			return
		}
		rs.wait(ctx)
	}
	for ctx.Err() == nil {
		if rs.paused.Load() {
			rs.wait(ctx)
			rs.pacer.restart()
			continue
		}
		off, n, ok := rs.next(&cursor)
		switch {
		case ok:
			asked = true
			if !rs.pacer.wait(ctx, n) || !rs.room(ctx, n) || !rs.ask(ctx, off, n) {
				continue
			}
		case rs.l.asked.outstanding() > 0:
			rs.wait(ctx)
		case asked: // bits may have been set behind the cursor
			cursor, asked = 0, false
		default:
			rs.finish(ctx)
			return
		}
	}
}

func (rs *resync) wait(ctx context.Context) {
	select {
	case <-rs.l.asked.kick:
	case <-ctx.Done():
	}
}

// next finds the next run of set bits at or behind the cursor and moves the cursor behind it.
func (rs *resync) next(cursor *uint64) (off, n int64, ok bool) {
	bit, ok := rs.d.bm.NextSet(*cursor)
	for ok && rs.l.asked.isBad(bit) {
		bit, ok = rs.d.bm.NextSet(bit + 1)
	}
	if !ok {
		return 0, 0, false
	}
	limit := bit + uint64(rs.largest()/meta.BlockSize)
	const bitsPerExtent = resyncExtent / meta.BlockSize
	limit = min(limit, (bit/bitsPerExtent+1)*bitsPerExtent)
	thin := uint64(rs.l.granularity() / meta.BlockSize)
	if thin > 0 {
		if into := bit % thin; into > 0 {
			limit = min(limit, bit-into+thin)
		} else {
			limit = bit + thin
		}
	}
	end := limit
	if e, ok := rs.d.bm.NextClear(bit); ok {
		end = min(end, e)
	}
	*cursor = end
	off = int64(bit) * meta.BlockSize
	n = min(int64(end)*meta.BlockSize, rs.d.bm.Size()) - off
	return off, n, n > 0
}

// largest is the size of a request: such that there are some each second, so that a low rate does not come in gulps.
func (rs *resync) largest() int64 {
	n, most := rs.pacer.rate(time.Now())/16, int64(maxResyncRequest)
	if rs.l.csums.Load() {
		most = maxCsumRequest
	}
	return max(meta.BlockSize, min(most, n-n%meta.BlockSize))
}

// room waits until so little is outstanding that n more bytes may be asked for.
func (rs *resync) room(ctx context.Context, n int64) bool {
	limit := int64(rs.l.r.cfg.MaxBuffers) * block4k / 2
	for {
		if out := rs.l.asked.outstanding(); out == 0 || out+n <= limit {
			return ctx.Err() == nil
		}
		if rs.wait(ctx); ctx.Err() != nil {
			return false
		}
	}
}

// ask waits until no application writes there and asks for the block.
func (rs *resync) ask(ctx context.Context, off, n int64) bool {
	l, t := rs.l, rs.l.r.traffic
	b := &askedBlock{off: off, n: n, disk: rs.d, ready: make(chan struct{}, 1)}
	b.span = span{off: off, end: off + n, kind: spanAsked, granted: func() { b.ready <- struct{}{} }}
	t.mu.Lock()
	now := t.ranges.add(&b.span)
	t.mu.Unlock()
	ok := true
	if !now {
		select {
		case <-b.ready:
		case <-ctx.Done():
			ok = false
		}
	}
	if !ok || rs.paused.Load() || rs.d.bm.CountRange(off, n) == 0 {
		t.mu.Lock()
		t.ranges.remove(&b.span)
		t.mu.Unlock()
		return false
	}
	l.asked.mu.Lock()
	l.asked.m[off] = b
	l.asked.bytes += n
	l.asked.mu.Unlock()
	if !l.csums.Load() || !l.askCsum(rs.d, off, n) {
		cmd := drbd.CmdRSDataRequest
		if l.thin(off, n) {
			cmd = drbd.CmdRSThinReq
		}
		l.out.put(outItem{kind: outAsk, cmd: cmd, off: off, n: n, id: drbd.IDSyncer})
	}
	return true
}

// finish makes what arrived durable, waits until the source has seen every acknowledgement, and tells the owner.
func (rs *resync) finish(ctx context.Context) {
	if err := rs.d.dev.Flush(); err != nil {
		rs.l.r.diskFailed(rs.d, false, err)
		return
	}
	if n := rs.l.asked.equal.Load(); n > 0 {
		rs.l.r.event(proto.LevelInfo, "checksum based resync: %d KiB were the same already and were not copied", n>>10)
	}
	if rs.l.roundTrip(ctx) {
		rs.l.r.inbox.put(resyncFinished{rs: rs, failed: rs.l.asked.bad(rs.d.bm)})
	}
}

// bitmapSource shows a bitmap to the encoder.
type bitmapSource struct{ bm *meta.Bitmap }

func (b bitmapSource) Len() uint64 { return b.bm.Bits() }

func (b bitmapSource) NextSet(from uint64) uint64 {
	if bit, ok := b.bm.NextSet(from); ok {
		return bit
	}
	return b.bm.Bits()
}

func (b bitmapSource) NextClear(from uint64) uint64 {
	if bit, ok := b.bm.NextClear(from); ok {
		return bit
	}
	return b.bm.Bits()
}

func (b bitmapSource) Word(i uint64) uint64 {
	var p [8]byte
	if b.bm.ReadWords(i, p[:]) == 0 {
		return 0
	}
	var v uint64
	for k := range p {
		v |= uint64(p[k]) << (8 * k)
	}
	return v
}
