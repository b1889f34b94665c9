package datapath

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// gate is what the I/O path needs to know of the state. The owner publishes it.
type gate struct {
	primary bool
	frozen  bool // writes wait: the bitmap is on its way, Ahead begins or ends, or the node is about to be demoted
	// suspended: all I/O waits, until the peer is fenced, a copy is back, or an operator says so. What is under way is
	// not answered either unless the peer has it.
	suspended bool
	size      int64
	disk      *disk // takes writes; nil without a usable disk
	access    bool  // some UpToDate copy can be reached
	good      bool  // all of the disk is current; else only blocks whose bit is clear are
	link      *link // takes writes too; nil: they are marked out of sync instead
	behind    *link // is told what is marked; nil: nobody is
	peer      *link // can answer reads
	serve     bool  // this disk may answer the peer's reads
	linked    bool  // the peer is there
	tracks    bool  // the peer is a Primary without disk: this node keeps the activity log for it
	syncing   bool  // a resync is under way (conn 16..21): acknowledged writes clear bits
}

// traffic is all I/O under way on a resource, in one table under one short lock. Nothing is called with the lock held
// that waits or does I/O.
type traffic struct {
	cfg  *Config
	fail func(d *disk, meta bool, err error) // a local disk failed; must not block
	tell func(congestion)                    // the link is congested; must not block

	mu       sync.Mutex
	gate     gate
	gates    uint64        // how often it was published
	tracking int           // writes of a Primary without disk on this node's disk
	inflight int           // application writes that passed the gate
	apps     int64         // requests of applications so far, here and on the peer as far as this disk sees them
	wake     chan struct{} // closed when writers or drainers should look again
	waiting  bool          // somebody holds wake
	ranges   ranges
	log      tlog
	slots    []*slot // requests that the peer knows by handle
	free     []uint32
	asking   int // reads among them
	flushes  []*flushWait
	unsure   bool   // the next flush has to fail, see giveUp
	keeping  int64  // bytes of data that writes in the log keep
	kept     []kept // to be written again, in this order
	anew     bool   // the link was lost while they were
	count    counters
	told     time.Time // when tell was called last

	sentBytes, recvBytes atomic.Int64
	badPackets           atomic.Int64
}

// slot gives a request a handle; gen makes handles of earlier users invalid.
type slot struct {
	gen uint32
	req any // *write or *remoteRead
}

func newTraffic(cfg *Config) *traffic {
	return &traffic{cfg: cfg, wake: make(chan struct{}), log: tlog{oldest: oldestEpoch(cfg.patience())}}
}

// await gives a channel that is closed at the next change. The lock is held.
func (t *traffic) await() <-chan struct{} {
	t.waiting = true
	return t.wake
}

// rouse closes it. The lock is held.
func (t *traffic) rouse() {
	if t.waiting {
		close(t.wake)
		t.wake, t.waiting = make(chan struct{}), false
	}
}

// appRequests is how many requests applications have made.
func (t *traffic) appRequests() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.apps
}

// pause gives up the lock until something changes.
func (t *traffic) pause() {
	ch := t.await()
	t.mu.Unlock()
	<-ch
	t.mu.Lock()
}

// resumed waits for the end of a suspension. It reports false if this node was not Primary any more then: nobody may hear
// that something was done. The lock is held.
func (t *traffic) resumed() bool {
	if !t.gate.suspended {
		return true
	}
	for t.gate.primary && t.gate.suspended {
		t.pause()
	}
	return t.gate.primary
}

// again says whether a request that no copy could serve is to be tried again: if I/O without data is to be suspended, and
// the owner, who has heard of the failure since gate number seen, has not decided otherwise.
func (t *traffic) again(seen uint64, err error) bool {
	if !t.cfg.SuspendOnNoData || !errors.Is(err, ErrNoData) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.gate.primary && t.gates == seen {
		t.pause()
	}
	return t.gate.primary && (t.gate.suspended || t.gate.access)
}

// setGate publishes g. Before writes begin to be sent to a link, those that are under way without it come to their
// end, so that each write is either sent or marked. It gives up when that link dies.
func (t *traffic) setGate(g gate) {
	t.mu.Lock()
	if g.link != nil && t.gate.link != g.link {
		t.gate.frozen = true
		for t.inflight > 0 && !g.link.isDead() {
			t.waitDrain(g.link)
		}
		if !g.link.replicates {
			t.log.nextNr, g.link.replicates = 0, true
		}
	}
	// A demotion ends a suspension too: who waits for that end, or looks only later, is not to take it for a resumption.
	g.suspended = g.suspended || t.gate.suspended && !g.primary
	if old := t.gate.link; old != nil && (g.link != old || t.gate.disk != g.disk) {
		t.closeEpoch() // a disk that goes takes its copy of what the peer has not confirmed with it
	}
	t.gate = g
	t.gates++
	t.rouse()
	t.mu.Unlock()
}

// drain waits until no application write is under way; the gate must be frozen. It reports false if l died first.
func (t *traffic) drain(l *link) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closeEpoch()
	for !t.quiet() && !l.isDead() {
		t.waitDrain(l)
	}
	return t.quiet()
}

// waitDrain gives up the lock until something changes or l dies.
func (t *traffic) waitDrain(l *link) {
	ch := t.await()
	t.mu.Unlock()
	select {
	case <-ch:
	case <-l.dead:
	}
	t.mu.Lock()
}

// idle calls f, from some goroutine, once no application write is under way and the peer has confirmed all of them, or
// is given up. The gate must be frozen until then.
func (t *traffic) idle(f func()) {
	go func() {
		t.mu.Lock()
		for t.inflight > 0 || len(t.log.epochs) > 0 {
			t.closeEpoch()
			ch := t.await()
			t.mu.Unlock()
			<-ch
			t.mu.Lock()
		}
		t.mu.Unlock()
		f()
	}()
}

const moreSlots = 64 // the transfer log grows where the peer's flushes are slow

// handle gives a request a handle. The lock is held.
func (t *traffic) handle(req any) uint64 {
	if len(t.free) == 0 {
		more := make([]slot, moreSlots)
		for i := range more {
			t.free = append(t.free, uint32(len(t.slots)))
			t.slots = append(t.slots, &more[i])
		}
	}
	i := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	s := t.slots[i]
	s.req = req
	return uint64(s.gen)<<32 | uint64(i)
}

// find gives the request behind a handle, nil if there is none. The lock is held.
func (t *traffic) find(id uint64) any {
	i := uint32(id)
	if uint64(i) >= uint64(len(t.slots)) || t.slots[i].gen != uint32(id>>32) {
		return nil
	}
	return t.slots[i].req
}

// release invalidates a handle. The lock is held.
func (t *traffic) release(id uint64) {
	s := t.slots[uint32(id)]
	s.gen++
	s.req = nil
	t.free = append(t.free, uint32(id))
}

// check refuses what lies outside the device.
func (t *traffic) check(off, n int64) error {
	t.mu.Lock()
	size, primary := t.gate.size, t.gate.primary
	t.mu.Unlock()
	switch {
	case !primary:
		return fmt.Errorf("%s on %s: %w", t.cfg.Resource, t.cfg.Node, ErrNotPrimary)
	case off < 0 || n < 0 || off%block.SectorSize != 0 || n%block.SectorSize != 0 || off > size || n > size-off:
		return fmt.Errorf("%s on %s: %d bytes at %d of %d: %w", t.cfg.Resource, t.cfg.Node, n, off, size, ErrRange)
	}
	return nil
}

// noData is the error of a request that no copy could serve.
func (t *traffic) noData(what string, off, n int64, why error) error {
	err := fmt.Errorf("%s on %s: %s %d bytes at %d: %w", t.cfg.Resource, t.cfg.Node, what, n, off, ErrNoData)
	if why != nil {
		err = fmt.Errorf("%w: %w", err, why)
	}
	return err
}

// Sizes of requests.
const (
	maxWrite = drbd.MaxData
	maxRead  = drbd.MaxData
)

// flushWait is a flush that waits until all epochs up to seq are confirmed.
type flushWait struct {
	seq  uint64
	done chan struct{}
}

// closeEpoch ends the open epoch, so that its barrier goes out. The lock is held.
func (t *traffic) closeEpoch() {
	if e := t.log.open(); e != nil {
		e.closed = true
	}
	if l := t.gate.link; l != nil {
		l.out.kick()
	}
}

func (t *traffic) cutEpoch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closeEpoch()
}

// flushWait waits for all epochs up to seq; nil if nothing is missing. The lock is held.
func (t *traffic) flushWait(seq uint64) *flushWait {
	if seq <= t.log.done {
		return nil
	}
	t.closeEpoch()
	f := &flushWait{seq: seq, done: make(chan struct{})}
	t.flushes = append(t.flushes, f)
	return f
}

// awaitEpoch returns when an epoch is confirmed or given up. The lock is held on entry and return.
func (t *traffic) awaitEpoch(seq uint64) {
	if f := t.flushWait(seq); f != nil {
		t.mu.Unlock()
		<-f.done
		t.mu.Lock()
	}
}

// underWay says whether an application write has passed the gate and is not settled: it may be one that waits for the activity
// log, which is marked nowhere yet.
func (t *traffic) underWay() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.inflight > 0
}

// quiet says that no application write is under way and, where a completed write need not be on the peer's disk, that
// the peer has confirmed all. The lock is held.
func (t *traffic) quiet() bool {
	return t.inflight == 0 && (t.cfg.Protocol == proto.ProtocolC || len(t.log.epochs) == 0)
}

// confirmed wakes the flushes that waited for the epochs that are out of the log. The lock is held.
func (t *traffic) confirmed() {
	kept := t.flushes[:0]
	for _, f := range t.flushes {
		if f.seq <= t.log.done {
			close(f.done)
		} else {
			kept = append(kept, f)
		}
	}
	clear(t.flushes[len(kept):])
	t.flushes = kept
	t.rouse()
}

// barrierAck takes the peer's word that an epoch is on stable storage.
func (t *traffic) barrierAck(l *link, ack drbd.BarrierAck) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !l.replicates {
		return badMeta(drbd.CmdBarrierAck, "no write was ever sent")
	}
	e, err := t.log.confirm(ack)
	if err != nil {
		return err
	}
	for _, w := range e.writes {
		if w.netPending { // protocol A: the sender was not quick enough to say that it is out
			w.netPending = false
			t.settle(w)
		}
		t.release(w.id)
		t.unref(w)
	}
	t.count.epochs++
	t.log.recycle(e)
	t.confirmed()
	return nil
}

// giveUp ends everything that waited for a link whose goroutines have ended: what its peer did not confirm is marked
// out of sync, then forgotten; requests go on without the peer. It gives the bytes that the peer alone has, acknowledged and
// perhaps not on its disk: if it loses power they are gone, and nothing that it says when it is back is sure to tell whether
// it did. They are kept and written again. Those that nobody has kept make the next flush fail.
func (t *traffic) giveUp(l *link) (o orphans) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gate.link == l {
		t.gate.link = nil
	}
	if t.gate.peer == l {
		t.gate.peer = nil
	}
	for _, s := range t.slots {
		if rr, ok := s.req.(*remoteRead); ok && rr.link == l {
			t.finishRead(rr, errLinkLost)
		}
	}
	if !l.replicates {
		t.rouse()
		return o
	}
	alone := t.gate.alone()
	for len(t.log.epochs) > 0 {
		e := t.log.epochs[0]
		for _, w := range e.writes {
			if alone {
				o.lost += t.orphan(w)
			}
			if w.disk != nil {
				w.disk.bm.SetRange(w.off, w.n)
			}
			if w.proto != proto.ProtocolC {
				w.netFailed = true
			}
			if w.netPending {
				w.netPending, w.netFailed = false, true
				t.settle(w)
			}
			t.release(w.id)
			t.unref(w)
		}
		t.log.drop(e)
		t.log.recycle(e)
	}
	t.log.done = t.log.seq
	for i := range t.kept {
		o.kept += t.kept[i].n
	}
	t.unsure = t.unsure || o.lost > 0
	t.confirmed()
	return o
}

// wouldLink says whether l gets writes that no link, or another one, gets now.
func (t *traffic) wouldLink(l *link) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return l != nil && t.gate.link != l
}
