package datapath

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"example.com/santui/datapath/block"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// errLinkLost ends requests that waited for a link.
var errLinkLost = errors.New("the link to the peer was lost")

// write is one application write on its way to both copies. Between begin and settle it belongs to its caller's
// goroutine; what is marked below belongs to the traffic lock. It stays in the transfer log after its caller has gone.
type write struct {
	off, n   int64
	cmd      drbd.Cmd // CmdData or CmdZeroes
	p        []byte   // CmdData: the caller's buffer, in use until settled
	unmap    bool     // CmdZeroes: the space may be given back
	disk     *disk    // nil: no local disk
	link     *link    // nil: the peer does not get it
	id       uint64
	seq      uint32
	flags    uint32
	proto    proto.Protocol // what the peer must say before the caller hears that it is done
	gate     uint64         // number of the gate it passed
	epoch    *epoch
	epochSeq uint64
	span     span
	ready    chan struct{} // capacity 1: the span's turn has come
	done     chan struct{} // capacity 1: settled while the caller waited

	// Under the traffic lock.
	localPending, netPending bool
	localFailed, netFailed   bool
	inSync                   bool // the peer's RS_WRITE_ACK: both copies are equal here
	settled                  bool
	good                     bool // the local disk was UpToDate
	refs                     int8 // caller, transfer log
	keeps, again             bool // see resend.go: it is kept until the peer has confirmed it; it was kept
	keptBytes                int64
	copied                   []byte
}

var writes = sync.Pool{New: func() any {
	w := &write{ready: make(chan struct{}, 1), done: make(chan struct{}, 1)}
	w.span.granted = func() { w.ready <- struct{}{} }
	return w
}}

// answered says whether the peer owes the write an answer of its own. Under protocol A its epoch's is enough.
func (w *write) answered() bool { return w.proto != proto.ProtocolA }

// WriteAt writes p at off on both copies and returns when both have it, or when the one that is left has. Under
// protocol B it is enough that the peer has received it, under A that it was handed to the network; Flush waits for more.
// off and len(p) are multiples of 512. An error means that no copy is sure to have it.
func (r *Resource) WriteAt(p []byte, off int64) (int, error) {
	if err := r.traffic.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) {
		n := min(len(p)-done, maxWrite)
		if err := r.traffic.write(drbd.CmdData, p[done:done+n], off+int64(done), int64(n), false); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// WriteZeroes makes n bytes from off read as zeroes on both copies; with unmap the space may be given back.
func (r *Resource) WriteZeroes(off, n int64, unmap bool) error {
	if err := r.traffic.check(off, n); err != nil {
		return err
	}
	for n > 0 {
		cmd, step, p := drbd.CmdZeroes, min(n, maxRange), []byte(nil)
		if !r.traffic.peerZeroes() {
			cmd, step = drbd.CmdData, min(n, int64(len(zeroes)))
			p = zeroes[:step]
		}
		if err := r.traffic.write(cmd, p, off, step, unmap); err != nil {
			return err
		}
		off, n = off+step, n-step
	}
	return nil
}

// Discard gives n bytes from off back. Both copies read as zeroes there afterwards: what a disk makes of a plain
// discard is its own affair, and the copies would differ. EOPNOTSUPP when the peer did not agree to zeroes.
func (r *Resource) Discard(off, n int64) error {
	if err := r.traffic.check(off, n); err != nil {
		return err
	}
	if !r.traffic.peerZeroes() {
		return fmt.Errorf("%s: discard: %s cannot write zeroes (feature not agreed): %w", r.cfg.Resource, r.cfg.Peer, syscall.EOPNOTSUPP)
	}
	return r.WriteZeroes(off, n, true)
}

// zeroes is the data of a write of zeroes to a peer that does not know CmdZeroes. It is never written to.
var zeroes = block.Buffer(256 << 10)

// peerZeroes says whether CmdZeroes can be used: nobody listens, or the peer agreed to it.
func (t *traffic) peerZeroes() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.gate.link == nil || t.gate.link.agreed.features&drbd.FeatureZeroes != 0
}

// write does one write of at most 1 MiB of data or 4 MiB of zeroes.
func (t *traffic) write(cmd drbd.Cmd, p []byte, off, n int64, unmap bool) error {
	for {
		seen, err := t.writeOnce(cmd, p, off, n, unmap, false)
		if err == nil || seen == 0 || !t.again(seen, err) {
			return err
		}
	}
}

// writeOnce also gives the number of the gate that the write passed, 0 if it did not. again: it was kept, and is written again.
func (t *traffic) writeOnce(cmd drbd.Cmd, p []byte, off, n int64, unmap, again bool) (seen uint64, err error) {
	w := writes.Get().(*write) //nolint:errcheck // the pool holds nothing else
	w.cmd, w.p, w.off, w.n, w.unmap, w.again = cmd, p, off, n, unmap, again
	err = t.begin(w, nil)
	for err == nil && w.disk != nil {
		alErr := t.activate(w.disk, off, n)
		if alErr == nil {
			break
		}
		t.fail(w.disk, true, alErr)
		err = t.restart(w, alErr)
	}
	if err != nil {
		writes.Put(w)
		return 0, err
	}
	w.keep()
	seen = w.gate
	if l := t.send(w); l != nil {
		l.sendNow()
	}
	if w.disk != nil {
		if err = w.disk.write(w); err != nil {
			t.fail(w.disk, false, err)
		}
	}
	return seen, t.finish(w, err)
}

// restart takes back a write that the activity log does not cover and begins it again when the node has let go of its
// disk and told the peer, which then keeps the log. Sent as it is it would be marked durably on neither node.
func (t *traffic) restart(w *write, cause error) error {
	t.mu.Lock()
	d := w.disk
	w.disk = nil
	d.put()
	t.keeping -= w.keptBytes
	w.keeps, w.keptBytes = false, 0
	t.ranges.remove(&w.span)
	if t.inflight--; t.inflight == 0 {
		t.rouse()
	}
	for t.gate.disk == d {
		t.pause()
	}
	t.mu.Unlock()
	return t.begin(w, cause)
}

// activate makes the activity log's extents of a write durable. The log may be full of extents of writes that wait for
// the end of their epoch, so that ends now.
func (t *traffic) activate(d *disk, off, n int64) error {
	al := d.md.AL()
	if al.TryBegin(off, n) {
		return nil
	}
	t.cutEpoch()
	return al.Begin(context.Background(), off, n)
}

// begin takes w through the gate and waits for its turn among overlapping writes. cause is why it has to begin again.
func (t *traffic) begin(w *write, cause error) error {
	t.mu.Lock()
	for t.gate.primary && (t.gate.frozen || t.gate.suspended && !w.again || t.log.writes > maxLogged*t.cfg.MaxEpochSize ||
		t.gate.behind.full() || t.keepsTooMuch(w)) {
		t.pause()
	}
	if !t.gate.primary || !t.gate.access || t.gate.disk == nil && t.gate.link == nil {
		primary := t.gate.primary
		t.mu.Unlock()
		if !primary {
			return fmt.Errorf("%s on %s: %w", t.cfg.Resource, t.cfg.Node, ErrNotPrimary)
		}
		return t.noData("write", w.off, w.n, cause)
	}
	t.inflight++
	t.apps++
	w.gate = t.gates
	w.disk = t.gate.disk
	if w.disk != nil {
		w.disk.refs++
	}
	w.link, w.epoch, w.refs, w.good = nil, nil, 1, t.gate.good
	w.localPending, w.netPending, w.localFailed, w.netFailed, w.inSync, w.settled = w.disk != nil, false, false, false, false, false
	w.span.off, w.span.end, w.span.kind = w.off, w.off+w.n, spanApp
	t.promise(w)
	turn := t.ranges.add(&w.span)
	t.mu.Unlock()
	if !turn {
		<-w.ready
	}
	return nil
}

// send queues w for the peer, or marks it out of sync if the peer does not get it. Both happen before the local write
// begins. If w is the only one under way it gives the link, and the caller has to send.
func (t *traffic) send(w *write) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.gate.link
	if l == nil {
		if w.disk != nil && w.disk.bm.SetRange(w.off, w.n) > 0 {
			t.gate.behind.announce(w.off, w.n)
		}
		return nil
	}
	w.link, w.netPending = l, true
	w.refs++
	w.id = t.handle(w)
	w.seq = l.nextSeq()
	w.proto = t.cfg.Protocol
	if t.gate.syncing || w.disk == nil || !w.good {
		// Its answer clears bits, or the peer's copy is the only one that is good.
		w.proto = proto.ProtocolC
	}
	w.flags = drbd.DPSync
	switch w.proto {
	case proto.ProtocolC:
		w.flags |= drbd.DPSendWriteAck
	case proto.ProtocolB:
		w.flags |= drbd.DPSendRecvAck
	case proto.ProtocolA: // no write is acknowledged by itself
	}
	if t.gate.syncing {
		w.flags |= drbd.DPMaySetInSync
	}
	if w.cmd == drbd.CmdZeroes {
		w.flags |= drbd.DPZeroes
		if w.unmap {
			w.flags |= drbd.DPDiscard
		}
	}
	t.log.add(w, t.cfg.MaxEpochSize)
	if w.keeps && t.keeping > t.cfg.mayKeep()/2 {
		w.epoch.closed = true
	}
	if t.cfg.OnCongestion != CongestionBlock {
		t.watchCongestion(w)
	}
	if t.inflight == 1 {
		l.out.add(outItem{kind: outWrite, w: w})
		return l
	}
	l.out.put(outItem{kind: outWrite, w: w})
	return nil
}

// finish waits until w is settled and tells the outcome.
func (t *traffic) finish(w *write, err error) error {
	t.mu.Lock()
	if w.localPending {
		w.localPending, w.localFailed = false, err != nil
		if err == nil {
			t.count.written += w.n
		}
	}
	t.settle(w)
	if !w.settled {
		t.mu.Unlock()
		<-w.done
		t.mu.Lock()
	}
	if w.localFailed && w.link != nil && w.proto != proto.ProtocolC {
		t.awaitEpoch(w.epochSeq) // the peer's copy is the only one: its word that it has arrived is not enough
	}
	// A disk that was not current when the peer went away does not count as a copy.
	w.good = w.good || t.gate.good
	disk := w.disk
	for w.link == nil && t.gate.primary && t.gate.frozen {
		t.pause() // it passed the gate before the peer was lost: not confirmed before the generation is on the disk, as in flushOnce
		disk = t.gate.disk
	}
	lost := (w.disk.gone() || w.disk != disk || w.localFailed || !w.good) && (w.link == nil || w.netFailed)
	replicated := w.link != nil && !w.netFailed
	off, n, again := w.off, w.n, w.again
	t.unref(w)
	primary := replicated || again || t.resumed()
	t.mu.Unlock()
	switch {
	case lost:
		return t.noData("write", off, n, err)
	case !primary:
		return fmt.Errorf("%s on %s: suspended write of %d bytes at %d: %w", t.cfg.Resource, t.cfg.Node, n, off, ErrNotPrimary)
	}
	return nil
}

// settle completes w towards its caller when neither leg is pending any more. A leg that failed leaves the range
// marked. The lock is held.
func (t *traffic) settle(w *write) {
	if w.settled || w.localPending || w.netPending {
		return
	}
	w.settled = true
	if w.disk != nil {
		switch {
		case w.localFailed || w.netFailed:
			w.disk.bm.SetRange(w.off, w.n)
			if w.link != nil && !w.netFailed {
				// The mark may go with the disk; the peer keeps it too.
				sendPacket(w.link, drbd.CmdOutOfSync, drbd.BlockDesc{Sector: uint64(w.off / block.SectorSize), Size: uint32(w.n)})
			}
		case w.inSync:
			w.disk.bm.ClearRange(w.off, w.n)
		}
	}
	t.ranges.remove(&w.span)
	if e := w.epoch; e != nil && w.proto != proto.ProtocolC {
		// The peer may not have written it yet: what the application writes now must come behind a barrier. Under protocol
		// C it is on the peer's disk, and the sender ends the epoch when nothing more comes.
		e.closed = true
		w.link.out.kick()
	}
	if t.inflight--; t.inflight == 0 {
		t.rouse()
	}
	w.p = nil
	w.done <- struct{}{}
}

// unref lets go of one user of w; the last one gives the activity log its extent back. The lock is held.
func (t *traffic) unref(w *write) {
	if w.refs--; w.refs > 0 {
		return
	}
	if w.disk != nil {
		if !w.localFailed {
			_ = w.disk.md.AL().End(w.off, w.n)
		}
		w.disk.put()
	}
	t.unkeep(w)
	w.disk, w.link, w.epoch, w.p = nil, nil, nil, nil
	select { // settled before its caller waited
	case <-w.done:
	default:
	}
	writes.Put(w)
}

// ack takes the peer's answer to a write.
func (t *traffic) ack(l *link, cmd drbd.Cmd, a drbd.BlockAck) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	w, ok := t.find(a.ID.Number()).(*write)
	if !ok || w.link != l || a.Sector != uint64(w.off/block.SectorSize) || int64(a.Size) != w.n {
		return badMeta(cmd, "%d bytes at sector %d: no such write is under way", a.Size, a.Sector)
	}
	if cmd == drbd.CmdRecvAck && w.proto != proto.ProtocolB {
		return badMeta(cmd, "the receipt of a write of protocol %v was not asked for", w.proto)
	}
	if cmd == drbd.CmdNegAck && w.disk != nil {
		w.disk.bm.SetRange(w.off, w.n) // perhaps long after the caller heard that it was done
	}
	if !w.netPending {
		w.netFailed = w.netFailed || cmd == drbd.CmdNegAck
		return nil // after its receipt, or repeated
	}
	if w.netPending = false; w.answered() {
		w.epoch.pending--
	}
	switch cmd {
	case drbd.CmdNegAck:
		w.netFailed = true
	case drbd.CmdRSWriteAck:
		w.inSync = true
	}
	t.settle(w)
	return nil
}

// handedOver takes the sender's word that the network has a write of protocol A. It may have been confirmed meanwhile.
func (t *traffic) handedOver(l *link, ids []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if w, ok := t.find(id).(*write); ok && w.link == l && w.netPending {
			w.netPending = false
			t.settle(w)
		}
	}
}

// Flush returns when every write that was completed before is on stable storage on both copies, or on the one that is
// left.
func (r *Resource) Flush() error {
	if err := r.traffic.check(0, 0); err != nil {
		return err
	}
	return r.traffic.flush()
}

func (t *traffic) flush() error {
	for {
		seen, err := t.flushOnce()
		if err == nil || seen == 0 || !t.again(seen, err) {
			return err
		}
	}
}

// flushOnce also gives the number of the gate that the flush passed, 0 if there was no copy to flush.
func (t *traffic) flushOnce() (seen uint64, err error) {
	t.mu.Lock()
	t.resumed()
	d := t.gate.disk
	if t.gate.access {
		seen = t.gates
	}
	if d != nil {
		d.refs++
	}
	wait := t.flushWait(t.log.seq)
	t.mu.Unlock()
	if d != nil {
		if err = d.dev.Flush(); err != nil {
			t.fail(d, false, err)
		}
	}
	if wait != nil {
		<-wait.done
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if d != nil {
		d.put()
	}
	for t.gate.primary && t.gate.frozen {
		t.pause() // what the peer did not confirm is not confirmed alone before that is on the disk, as a generation
	}
	lost := (d.gone() || err != nil || !t.gate.good) && t.gate.link == nil
	switch {
	case !t.resumed():
		return seen, fmt.Errorf("%s on %s: flush: %w", t.cfg.Resource, t.cfg.Node, ErrNotPrimary)
	case lost, t.unsure:
		t.unsure = false
		return seen, t.noData("flush", 0, 0, err)
	}
	return seen, nil
}
