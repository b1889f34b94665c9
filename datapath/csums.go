package datapath

import (
	"example.com/santui/datapath/block"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// Checksum based resync: the target sends the digest of what it has with its request, and the source answers with the
// block only if it has something else (make_resync_request and w_e_end_csum_rs_req, drbd_worker.c). Data that changes on
// the way does no harm: what the source writes after it compared reaches the target behind the answer, and what the target
// received before makes its digest an old one, which brings the block.

// maxCsumRequest keeps requests small: a block that differs brings all of its request.
const maxCsumRequest = 64 << 10

// askCsum has a worker read the block on the own disk and ask for it with the digest; false if the disk is going.
func (l *link) askCsum(d *disk, off, n int64) bool {
	t := l.r.traffic
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.dying {
		return false
	}
	d.refs++
	p := l.newReq(peerCsumAsk, off, n, drbd.Data{ID: drbd.IDSyncer})
	p.disk = d
	l.work.put(p)
	return true
}

// doCsumAsk asks for a block with the digest of the own one, or without if that cannot be read.
func (l *link) doCsumAsk(p *peerReq) {
	buf := block.GetBuffer(int(p.n))
	_, err := p.disk.dev.ReadAt(buf, p.off)
	if err != nil {
		l.r.diskFailed(p.disk, false, err)
	} else {
		l.r.csums.sum(buf, &p.sum)
	}
	block.PutBuffer(buf)
	t, d := l.r.traffic, p.disk
	t.mu.Lock()
	d.put()
	if err == nil {
		t.count.read += p.n
	}
	t.mu.Unlock()
	if err != nil {
		l.out.put(outItem{kind: outAsk, cmd: drbd.CmdRSDataRequest, off: p.off, n: p.n, id: drbd.IDSyncer})
		p.recycle()
		return
	}
	if !l.out.put(outItem{kind: outReply, cmd: drbd.CmdCSumRSRequest, p: p}) {
		p.recycle()
	}
}

// doCsum compares a block with the target's digest of it, in its turn among writes, and sends it if they differ.
func (l *link) doCsum(p *peerReq) {
	p.buf = block.GetBuffer(int(p.n))
	_, err := p.disk.dev.ReadAt(p.buf, p.off)
	if err != nil {
		l.r.diskFailed(p.disk, false, err)
		l.answer(drbd.CmdNegRSDReply, p)
		l.r.traffic.leave(p, false)
		p.recycle()
		return
	}
	var own digest
	l.r.csums.sum(p.buf, &own)
	if !own.is(p.sum.bytes()) {
		l.queueReply(p, drbd.CmdRSDataReply, true)
		return
	}
	if proto.ConnState(l.conn.Load()).Syncing() {
		p.disk.bm.ClearRange(p.off, p.n)
	}
	l.answer(drbd.CmdRSIsInSync, p)
	l.r.traffic.leave(p, true)
	p.recycle()
}

// sameAlready takes the source's word that a block need not be sent.
func (l *link) sameAlready(p drbd.BlockAck) error {
	off, n := int64(p.Sector)*block.SectorSize, int64(p.Size)
	a := l.asked.claim(off, n)
	if a == nil || !l.csums.Load() {
		return badMeta(drbd.CmdRSIsInSync, "%d bytes at sector %d: nobody asked whether they are", n, p.Sector)
	}
	t := l.r.traffic
	t.mu.Lock()
	d := t.gate.disk
	t.mu.Unlock()
	if d != nil {
		l.asked.cleared(a, d)
	}
	l.asked.equal.Add(n)
	l.asked.done(l, a, true)
	return nil
}
