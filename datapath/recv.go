package datapath

import (
	"errors"
	"fmt"
	"net"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/state"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// receiveData reads the data socket until the link dies. Packets of the conversation are handed to the owner one at a
// time, so that what follows them meets the state they led to.
func (l *link) receiveData() error {
	rd := drbd.NewReader(l.socks.data.r, drbd.SocketData, drbd.H100)
	for {
		h, err := rd.Next()
		if isEOF(err) && l.awaits.Load() {
			// The answer to what was asked may be on the other socket, whose receiver then meets the end too.
			l.lingers(partingTime)
		}
		if err != nil {
			return l.stopped(err)
		}
		l.arrived = time.Now()
		l.lastData.Store(since0(l.arrived))
		l.r.traffic.recvBytes.Add(int64(h.Length) + drbd.HeaderSizeH100)
		if err := l.data(rd, h); err != nil {
			return l.stopped(err)
		}
	}
}

// lingers waits for the end of the link, at most so long.
func (l *link) lingers(limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-l.dead:
	case <-t.C:
	}
}

// stopped makes nothing of errors that come from the link being closed here.
func (l *link) stopped(err error) error {
	if l.isDead() {
		return nil
	}
	return err
}

func (l *link) data(rd *drbd.Reader, h drbd.Header) error {
	switch h.Cmd {
	case drbd.CmdData:
		return l.peerWrite(rd, h)
	case drbd.CmdZeroes, drbd.CmdTrim:
		return l.peerZeroes(rd, h)
	case drbd.CmdWSame:
		return l.peerSame(rd, h)
	case drbd.CmdRSDataReply:
		return l.resyncReply(rd, h)
	case drbd.CmdRSDeallocated:
		return l.deallocated(rd, h)
	case drbd.CmdDataReply:
		return l.dataReply(rd, h)
	case drbd.CmdRSDataRequest, drbd.CmdRSThinReq, drbd.CmdDataRequest, drbd.CmdOVRequest, drbd.CmdCSumRSRequest:
		return l.blockRequest(rd, h)
	case drbd.CmdOVReply:
		return l.verifyReply(rd, h)
	case drbd.CmdBarrier:
		return l.barrier(rd)
	case drbd.CmdBitmap, drbd.CmdCompressedBitmap:
		return l.bitmap(rd, h)
	case drbd.CmdOutOfSync:
		return l.outOfSync(rd, h)
	case drbd.CmdUnplugRemote:
		return nil
	}
	if h.Cmd.Ignorable() {
		return nil
	}
	return l.conversation(rd, h)
}

// refused names what a packet belongs to that this version does not do.
func (l *link) refused(cmd drbd.Cmd, what string) error {
	return badData(cmd, "%s is not in this version of santui", what)
}

// conversation handles the packets that concern the state.
func (l *link) conversation(rd *drbd.Reader, h drbd.Header) error {
	b, err := rd.Rest()
	if err != nil {
		return err
	}
	switch h.Cmd {
	case drbd.CmdProtocol:
		return l.protocol(b)
	case drbd.CmdProtocolUpdate:
		return l.protocol(b)
	case drbd.CmdSyncParam89:
		return l.syncParam(b)
	case drbd.CmdSizes:
		p, err := drbd.ParseSizes(b)
		return l.tell(state.PeerSizes{Sizes: p}, err)
	case drbd.CmdUUIDs:
		p, err := drbd.ParseUUIDs(b)
		return l.tell(state.PeerUUIDsReceived{UUIDs: p}, err)
	case drbd.CmdState:
		p, err := drbd.ParseState(b)
		return l.tell(state.PeerState{State: p}, err) // the owner adds the counts
	case drbd.CmdSyncUUID:
		p, err := drbd.ParseSyncUUID(b)
		return l.tell(state.SyncUUIDReceived{UUID: uint64(p)}, err)
	case drbd.CmdStateChgReq, drbd.CmdConnStChgReq:
		p, err := drbd.ParseChange(b)
		return l.tell(state.PeerChangeReq{Change: p, ConnWide: h.Cmd == drbd.CmdConnStChgReq}, err)
	case drbd.CmdAuthChallenge:
		return fatalLink("%s asks this node to authenticate, but %s has no cram-hmac-alg and shared-secret configured here",
			l.r.cfg.Peer, l.r.cfg.Resource)
	}
	return badData(h.Cmd, "it does not belong here")
}

// tell hands an event to the owner and waits until it was handled.
func (l *link) tell(ev state.Event, err error) error {
	if err != nil {
		return err
	}
	if !l.r.inbox.put(fromPeer{l: l, ev: ev, wait: true}) {
		return net.ErrClosed
	}
	select {
	case <-l.answered:
		return nil
	case <-l.dead:
		return net.ErrClosed
	}
}

// protocol compares the options that both nodes must agree on (receive_protocol, drbd_receiver.c).
func (l *link) protocol(b []byte) error {
	p, err := drbd.ParseProtocol(b)
	if err != nil {
		return err
	}
	c := &l.r.cfg
	differ := func(what string, theirs, ours any) error {
		return fatalLink("%s has %s %v, this node %v: make %s equal on both nodes, then connect", c.Peer, what, theirs, ours, c.Resource)
	}
	switch {
	case p.Protocol != c.Protocol:
		return differ("protocol", p.Protocol, c.Protocol)
	case p.IntegrityAlg != c.DataIntegrityAlg:
		return differ("data-integrity-alg", orNone(p.IntegrityAlg), orNone(c.DataIntegrityAlg))
	case p.TwoPrimaries:
		return differ("allow-two-primaries", "yes", "no")
	case p.Flags&drbd.ConnDryRun != 0:
		return fatalLink("%s asks for a dry run of the connection, which is not in this version of santui", c.Peer)
	}
	own := c.afterSB()
	for i, theirs := range []uint32{p.AfterSB0P, p.AfterSB1P, p.AfterSB2P} {
		if theirs != drbd.MirrorAfterSB(own[i]) {
			return differ(fmt.Sprintf("after-sb-%dpri", i), afterSBName(theirs), afterSBName(own[i]))
		}
	}
	return nil
}

func orNone(alg string) string {
	if alg == "" {
		return "none"
	}
	return alg
}

func (l *link) syncParam(b []byte) error {
	p, err := drbd.ParseSyncParam(b)
	if err != nil {
		return err
	}
	c := &l.r.cfg
	switch {
	case p.CSumsAlg != c.CsumsAlg:
		return fatalLink("%s has csums-alg %q, this node %q: make %s equal on both nodes, then connect", c.Peer, p.CSumsAlg, c.CsumsAlg, c.Resource)
	case p.VerifyAlg != c.VerifyAlg:
		return fatalLink("%s has verify-alg %q, this node %q: make %s equal on both nodes, then connect", c.Peer, p.VerifyAlg, c.VerifyAlg, c.Resource)
	}
	return nil
}

// inside checks that n bytes at sector lie on the device.
func (l *link) inside(cmd drbd.Cmd, sector uint64, n int64) (off int64, err error) {
	size := l.r.Size()
	if sector > uint64(size)/block.SectorSize || n > size-int64(sector)*block.SectorSize {
		return 0, badData(cmd, "%d bytes at sector %d reach beyond the end of the device, %d", n, sector, size/block.SectorSize)
	}
	return int64(sector) * block.SectorSize, nil
}

func (l *link) newReq(kind peerKind, off, n int64, d drbd.Data) *peerReq {
	p := peerReqs.Get().(*peerReq) //nolint:errcheck // the pool holds nothing else
	p.kind, p.off, p.n, p.id, p.flags, p.link, p.alone = kind, off, n, d.ID, d.Flags, l, false
	return p
}

// mayWrite refuses writes while this node is Primary, as there is one writer at a time, and before the histories are compared.
func (l *link) mayWrite(cmd drbd.Cmd) error {
	if err := l.met(cmd); err != nil {
		return err
	}
	t := l.r.traffic
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gate.primary {
		return badData(cmd, "the peer writes although this node is Primary")
	}
	return nil
}

// met refuses what must not come before it is known that the two copies go together.
func (l *link) met(cmd drbd.Cmd) error {
	if c := proto.ConnState(l.conn.Load()); c < proto.Connected {
		return badData(cmd, "the nodes have not agreed about their data yet, in %v", c)
	}
	return nil
}

// readData reads what stands before a block. With a data-integrity-alg the block's digest does, which l.sum takes.
func (l *link) readData(rd *drbd.Reader, h drbd.Header) (drbd.Data, int64, error) {
	b, err := rd.Fixed()
	if err != nil {
		return drbd.Data{}, 0, err
	}
	d, err := drbd.ParseData(b)
	if err != nil {
		return d, 0, err
	}
	n, err := l.blockSize(rd, h)
	return d, n, err
}

// blockSize gives the size of the block behind the fixed part, and reads its digest.
func (l *link) blockSize(rd *drbd.Reader, h drbd.Header) (int64, error) {
	l.sum.n = 0
	if g := l.r.seals; g != nil {
		l.sum.n = g.size
	}
	n, err := drbd.BlockSize(h.Cmd, h.Length, l.sum.n)
	if err == nil && l.sum.n > 0 {
		err = rd.ReadBlock(l.sum.bytes())
	}
	return int64(n), err
}

// block reads a block of n bytes, within the budget.
func (l *link) block(rd *drbd.Reader, p *peerReq, n int64) error {
	if !l.limit.take(max(n, block4k)) {
		return net.ErrClosed
	}
	if n > 0 {
		p.buf = block.GetBuffer(int(n))
		return l.sealed(rd, p.buf)
	}
	return nil
}

// sealed reads a block and compares it with the digest that came before it.
func (l *link) sealed(rd *drbd.Reader, p []byte) error {
	if err := rd.ReadBlock(p); err != nil || l.r.seals == nil {
		return err
	}
	var own digest
	l.r.seals.sum(p, &own)
	if !own.is(l.sum.bytes()) {
		return rd.Bad("the data is not what was sent: its digest differs (data-integrity-alg). It was damaged on the way, or changed by the " +
			"application while it was sent")
	}
	return nil
}

func (l *link) peerWrite(rd *drbd.Reader, h drbd.Header) error {
	d, n, err := l.readData(rd, h)
	if err != nil {
		return err
	}
	if err := l.mayWrite(h.Cmd); err != nil {
		return err
	}
	off, err := l.inside(h.Cmd, d.Sector, n)
	if err != nil {
		return err
	}
	p := l.newReq(peerWrite, off, n, d)
	if err := l.block(rd, p, n); err != nil {
		return err
	}
	p.alone = l.socks.data.r.Buffered() == 0
	l.enterWrite(p)
	return nil
}

// enterWrite counts a write in its epoch and starts it; without a disk it is refused at once, but counted. A lone write is
// on the disk and answered when it returns.
func (l *link) enterWrite(p *peerReq) {
	here := l.lone.takes(l.arrived, l.rx.begin() == 0 && p.alone)
	now, ok := l.r.traffic.queue(p, spanPeer)
	switch {
	case !ok:
		l.answer(drbd.CmdNegAck, p)
		l.rx.end(nil)
		p.recycle()
	case now && here:
		l.doWrite(p)
		l.lone.ended = time.Now()
	case now:
		l.work.put(p)
	}
}

func (l *link) peerZeroes(rd *drbd.Reader, h drbd.Header) error {
	b, err := rd.Fixed()
	if err != nil {
		return err
	}
	r, err := drbd.ParseRange(h.Cmd, b)
	if err != nil {
		return err
	}
	if err := l.mayWrite(h.Cmd); err != nil {
		return err
	}
	off, err := l.inside(h.Cmd, r.Sector, int64(r.Size))
	if err != nil {
		return err
	}
	p := l.newReq(peerZeroes, off, int64(r.Size), r.Data)
	if h.Cmd == drbd.CmdTrim {
		p.flags |= drbd.DPDiscard
	}
	if !l.limit.take(p.cost()) {
		return net.ErrClosed
	}
	l.enterWrite(p)
	return nil
}

// peerSame takes one logical block that fills a range (receive_Data and read_in_block, drbd_receiver.c; the digest covers
// the one block). It stays one block until it is written.
func (l *link) peerSame(rd *drbd.Reader, h drbd.Header) error {
	if l.agreed.features&drbd.FeatureWSame == 0 {
		return badData(h.Cmd, "write-same was not agreed")
	}
	b, err := rd.Fixed()
	if err != nil {
		return err
	}
	r, err := drbd.ParseRange(h.Cmd, b)
	if err != nil {
		return err
	}
	n, err := l.blockSize(rd, h)
	if err != nil {
		return err
	}
	if err := l.mayWrite(h.Cmd); err != nil {
		return err
	}
	off, err := l.inside(h.Cmd, r.Sector, int64(r.Size))
	if err != nil {
		return err
	}
	if n&(n-1) != 0 || off%n != 0 || int64(r.Size)%n != 0 {
		return badData(h.Cmd, "%d bytes at sector %d are not whole blocks of %d bytes", r.Size, r.Sector, n)
	}
	p := l.newReq(peerSame, off, int64(r.Size), r.Data)
	if err := l.block(rd, p, n); err != nil {
		return err
	}
	l.enterWrite(p)
	return nil
}

// resyncReply takes a block that this node asked for, and no other.
func (l *link) resyncReply(rd *drbd.Reader, h drbd.Header) error {
	d, n, err := l.readData(rd, h)
	if err != nil {
		return err
	}
	off, err := l.inside(h.Cmd, d.Sector, n)
	if err != nil {
		return err
	}
	a := l.asked.claim(off, n)
	if a == nil {
		return badData(h.Cmd, "%d bytes at sector %d: nobody asked for them", n, d.Sector)
	}
	p := l.newReq(peerResync, off, n, drbd.Data{ID: drbd.IDSyncer})
	p.asked = a
	if err := l.block(rd, p, n); err != nil {
		return err
	}
	l.enterResync(p)
	return nil
}

// deallocated takes the source's word that a block, asked for as one that may be empty, holds nothing but zeroes
// (receive_rs_deallocated, drbd_receiver.c).
func (l *link) deallocated(rd *drbd.Reader, h drbd.Header) error {
	b, err := rd.Fixed()
	if err != nil {
		return err
	}
	d, err := drbd.ParseBlockDesc(h.Cmd, b)
	if err != nil {
		return err
	}
	off, err := l.inside(h.Cmd, d.Sector, int64(d.Size))
	if err != nil {
		return err
	}
	var a *askedBlock
	if n := int64(d.Size); l.thin(off, n) {
		a = l.asked.claim(off, n)
	}
	if a == nil {
		return badData(h.Cmd, "%d bytes at sector %d: nobody asked whether they are empty", d.Size, d.Sector)
	}
	p := l.newReq(peerResync, off, a.n, drbd.Data{ID: drbd.IDSyncer})
	p.asked = a
	if !l.limit.take(p.cost()) {
		return net.ErrClosed
	}
	l.enterResync(p)
	return nil
}

// enterResync starts the write of a block that was asked for; without the disk that it was for it is refused.
func (l *link) enterResync(p *peerReq) {
	if !l.r.traffic.enter(p, spanResync) {
		l.belated.Store(true)
		l.answer(drbd.CmdNegAck, p)
		l.asked.done(l, p.asked, false)
		p.recycle()
	}
}

func (l *link) dataReply(rd *drbd.Reader, h drbd.Header) error {
	d, n, err := l.readData(rd, h)
	if err != nil {
		return err
	}
	t := l.r.traffic
	rr, err := t.claimRead(l, d.Sector, d.ID, int(n))
	if err != nil {
		return err
	}
	if err := l.sealed(rd, rr.p); err != nil {
		t.answered(rr, errLinkLost)
		return err
	}
	t.answered(rr, nil)
	return nil
}

// request reads the fixed part of a request for a block, and where on the device it is.
func (l *link) request(rd *drbd.Reader, h drbd.Header) (req drbd.BlockRequest, off int64, err error) {
	b, err := rd.Fixed()
	if err != nil {
		return req, 0, err
	}
	if req, err = drbd.ParseBlockRequest(h.Cmd, b); err != nil {
		return req, 0, err
	}
	off, err = l.inside(h.Cmd, req.Sector, int64(req.Size))
	return req, off, err
}

// blockRequest reads a block for the peer: for its resync, or for its application.
func (l *link) blockRequest(rd *drbd.Reader, h drbd.Header) error {
	req, off, err := l.request(rd, h)
	if err != nil {
		return err
	}
	kind := peerRead
	if resyncs := h.Cmd == drbd.CmdRSDataRequest || h.Cmd == drbd.CmdRSThinReq || h.Cmd == drbd.CmdCSumRSRequest; resyncs &&
		proto.ConnState(l.conn.Load()) == proto.Ahead {
		// Its answer would clear bits that are being set (w_e_end_rsdata_req, drbd_worker.c).
		putAck(&l.acks, drbd.CmdRSCancel, drbd.BlockAck{Sector: req.Sector, ID: req.ID, Size: req.Size, Seq: l.nextSeq()})
		_, err = rd.Rest()
		return err
	}
	switch h.Cmd {
	case drbd.CmdRSDataRequest:
		kind = peerRSRead
	case drbd.CmdRSThinReq:
		if kind = peerThinRead; l.agreed.features&drbd.FeatureThinResync == 0 {
			return badData(h.Cmd, "thin resync was not agreed")
		}
	case drbd.CmdCSumRSRequest:
		if kind = peerCsum; l.r.csums == nil {
			return l.refused(h.Cmd, "checksum based resync without a csums-alg")
		}
	case drbd.CmdOVRequest:
		if kind = peerOVDigest; l.r.verifies == nil {
			return l.refused(h.Cmd, "online verify without a verify-alg")
		}
	}
	if !l.reads.take(int64(req.Size)) {
		return net.ErrClosed
	}
	p := l.newReq(kind, off, int64(req.Size), drbd.Data{ID: req.ID})
	if kind == peerCsum {
		sum, err := rd.Rest()
		if err == nil && len(sum) != l.r.csums.size {
			err = badData(h.Cmd, "the digest has %d bytes", len(sum))
		}
		if err != nil {
			p.recycle()
			return err
		}
		p.sum.n = copy(p.sum.b[:], sum)
	}
	if l.yields(kind) {
		l.late.put(p)
		return nil
	}
	l.enterRead(p)
	return nil
}

// enterRead has a block read in its turn, or refuses it.
func (l *link) enterRead(p *peerReq) {
	if l.r.traffic.enter(p, spanRead) {
		return
	}
	neg := drbd.CmdNegRSDReply
	if p.kind == peerRead {
		neg = drbd.CmdNegDReply
	}
	l.answer(neg, p)
	p.recycle()
}

// barrier waits until the epoch's writes are on the disk, makes them durable and says so. Until then the writes of the
// next epoch wait in the socket, so that no crash can leave a later write without an earlier one.
func (l *link) barrier(rd *drbd.Reader) error {
	b, err := rd.Fixed()
	if err != nil {
		return err
	}
	p, err := drbd.ParseBarrier(b)
	if err != nil {
		return err
	}
	n, wrote := l.rx.finish()
	if n == 0 {
		return nil // DRBD does not answer the barrier of an empty epoch
	}
	t := l.r.traffic
	t.mu.Lock()
	d := t.gate.disk
	if d != nil {
		d.refs++
	}
	t.mu.Unlock()
	if d != nil {
		err = d.dev.Flush()
		t.mu.Lock()
		d.put()
		t.mu.Unlock()
		if err != nil {
			// Without the answer the peer counts the whole epoch as out of sync.
			l.r.diskFailed(d, false, err)
			return brokenLink(networkFailure, "the local disk could not be flushed: %v", err)
		}
	}
	if wrote != nil && wrote != d { // it is going, or has gone
		if !wrote.failed.Load() {
			select {
			case <-wrote.released:
			case <-l.dead:
				return net.ErrClosed
			}
		}
		if wrote.failed.Load() || !wrote.flushed {
			return brokenLink(networkFailure, "the local disk failed with writes in its cache")
		}
	}
	putAck(&l.acks, drbd.CmdBarrierAck, drbd.BarrierAck{ID: p.ID, SetSize: n})
	return nil
}

// bitmap merges a part of the peer's bitmap into the own one.
func (l *link) bitmap(rd *drbd.Reader, h drbd.Header) error {
	b, err := rd.Rest()
	if err != nil {
		return err
	}
	t := l.r.traffic
	t.mu.Lock()
	d := t.gate.disk
	t.mu.Unlock()
	if c := proto.ConnState(l.conn.Load()); d == nil || c != proto.WFBitMapS && c != proto.WFBitMapT {
		return badData(h.Cmd, "no bitmap is expected in %v", c)
	}
	if l.bits == nil || l.bitsOf != d { // what is left of one for a disk that has gone counts for nothing
		l.bitsOf = d
		l.bits = drbd.NewBitmapDecoder(d.bm.Bits(), func(first, last uint64) { d.bm.SetBits(first, last+1) })
	}
	done, err := l.bits.Add(h.Cmd, b)
	if err != nil || !done {
		return err
	}
	l.bits = nil
	return l.tell(state.BitmapReceived{}, nil)
}

// outOfSync marks what the peer changed without sending it: it runs Ahead, or its disk has failed.
func (l *link) outOfSync(rd *drbd.Reader, h drbd.Header) error {
	b, err := rd.Fixed()
	if err != nil {
		return err
	}
	p, err := drbd.ParseBlockDesc(h.Cmd, b)
	if err != nil {
		return err
	}
	off, err := l.inside(h.Cmd, p.Sector, int64(p.Size))
	if err == nil {
		err = l.met(h.Cmd)
	}
	if err != nil {
		return err
	}
	l.rx.await() // an older write may be about to clear the bits
	t := l.r.traffic
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gate.disk != nil {
		t.gate.disk.bm.SetRange(off, int64(p.Size))
	}
	return nil
}

// receiveMeta reads the meta socket until the link dies, answers pings and sends its own when nothing comes. The socket's
// deadline is moved only when it has passed or has to be sooner: moving it costs as much as the rest of an acknowledgement.
func (l *link) receiveMeta() error {
	s, c := l.socks.meta, &l.r.cfg
	heard, asked := time.Now(), false
	for {
		wait, was := c.PingInt, asked
		if asked = l.pings.outstanding(); asked {
			wait = c.PingTimeout
			if !was {
				heard = time.Now()
			}
		}
		if s.r.Buffered() < drbd.HeaderSizeH100 {
			l.metaUntil(heard.Add(wait))
		}
		head, err := s.r.Peek(drbd.HeaderSizeH100)
		if err == nil {
			if err = l.metaPacket(head); err != nil {
				return l.stopped(err)
			}
			heard = time.Now() // what it took to handle the packet is not the peer's silence
			continue
		}
		var nerr net.Error
		if !errors.As(err, &nerr) || !nerr.Timeout() || l.isDead() {
			return l.metaEnded(err)
		}
		l.deadline = time.Time{}
		switch silent := time.Since(heard); {
		case silent < wait: // the deadline was that of an earlier packet
		case !asked:
			if !l.pings.outstanding() {
				l.ping()
			}
		case time.Duration(since0(time.Now())-l.lastData.Load()) > wait:
			return brokenLink(networkFailure, "%s did not answer a ping within %v", c.Peer, wait)
		default: // no answer, but the peer may be busy sending data (drbd_ack_receiver, drbd_receiver.c)
			heard = time.Now()
		}
	}
}

// metaUntil lets the meta socket wait no longer than t.
func (l *link) metaUntil(t time.Time) {
	if l.deadline.IsZero() || t.Before(l.deadline) {
		l.deadline = t
		_ = l.socks.meta.SetReadDeadline(t)
	}
}

// metaEnded lets the data socket come to its end first: the peer's reason may still be in it (drbd_ack_receiver,
// drbd_receiver.c).
func (l *link) metaEnded(err error) error {
	t := time.NewTimer(l.r.cfg.PingTimeout)
	defer t.Stop()
	select {
	case <-l.dead:
		return nil
	case <-t.C:
		return err
	}
}

func (l *link) metaPacket(head []byte) error {
	h, err := drbd.ParseHeader(head, drbd.H100)
	if err == nil {
		err = drbd.Check(drbd.SocketMeta, h)
	}
	if err != nil {
		var pe *drbd.PacketError
		if errors.As(err, &pe) {
			pe.Socket = drbd.SocketMeta
		}
		return err
	}
	n := drbd.HeaderSizeH100 + int(h.Length)
	s := l.socks.meta
	if s.r.Buffered() < n {
		l.deadline = time.Time{}
		l.metaUntil(time.Now().Add(l.r.cfg.PingInt))
	}
	b, err := s.r.Peek(n)
	if err != nil {
		return fmt.Errorf("meta socket: rest of %v: %w", h.Cmd, err)
	}
	err = l.metaCommand(h.Cmd, b[drbd.HeaderSizeH100:])
	l.r.traffic.recvBytes.Add(int64(n))
	_, _ = s.r.Discard(n)
	return err
}

func (l *link) metaCommand(cmd drbd.Cmd, b []byte) error {
	switch cmd {
	case drbd.CmdPing:
		putAck(&l.acks, drbd.CmdPingAck, drbd.Empty{})
		return nil
	case drbd.CmdPingAck:
		l.pings.pong()
		return nil
	case drbd.CmdBarrierAck:
		p, err := drbd.ParseBarrierAck(b)
		if err != nil {
			return err
		}
		_ = l.handed.Load()
		return l.r.traffic.barrierAck(l, p)
	case drbd.CmdStateChgReply, drbd.CmdConnStChgReply:
		p, err := drbd.ParseRetCode(b)
		if err != nil {
			return err
		}
		if !l.awaits.CompareAndSwap(true, false) {
			return badMeta(cmd, "nothing was asked")
		}
		l.r.inbox.put(fromPeer{l: l, ev: state.PeerChangeReply{Code: p}})
		return nil
	case drbd.CmdDelayProbe:
		return nil
	}
	p, err := drbd.ParseBlockAck(b)
	if err != nil {
		return err
	}
	return l.blockAck(cmd, p)
}

func (l *link) blockAck(cmd drbd.Cmd, p drbd.BlockAck) error {
	_ = l.handed.Load() // what is answered here was handed to the socket before
	t := l.r.traffic
	switch cmd {
	case drbd.CmdWriteAck, drbd.CmdRSWriteAck, drbd.CmdNegAck, drbd.CmdRecvAck:
		if p.ID == drbd.IDSyncer && cmd != drbd.CmdRecvAck {
			return l.resyncAck(cmd, p)
		}
		return t.ack(l, cmd, p)
	case drbd.CmdNegDReply:
		return t.refusedRead(l, p)
	case drbd.CmdOVResult:
		return l.verifyResult(p)
	case drbd.CmdRSIsInSync:
		return l.sameAlready(p)
	case drbd.CmdRSCancel:
		a := l.asked.claim(int64(p.Sector)*block.SectorSize, int64(p.Size))
		if a == nil {
			return badMeta(cmd, "%d bytes at sector %d: nobody asked for them", p.Size, p.Sector)
		}
		l.asked.done(l, a, true) // still out of sync
		return nil
	case drbd.CmdNegRSDReply:
		if part, ok := l.ov.claim(int64(p.Sector)*block.SectorSize, int64(p.Size)); ok {
			if part != nil {
				l.ov.done(t, part, int64(p.Sector)*block.SectorSize, int64(p.Size), false, false)
			}
			return nil
		}
		a := l.asked.claim(int64(p.Sector)*block.SectorSize, int64(p.Size))
		if a == nil {
			return badMeta(cmd, "%d bytes at sector %d: nobody asked for them", p.Size, p.Sector)
		}
		l.refusals.add(&l.refusals.reads, p.Sector, p.Size)
		l.asked.done(l, a, false)
		return nil
	}
	return badMeta(cmd, "it belongs to something that is not in this version of santui")
}

// resyncAck takes the target's word that a block this node sent is on its disk, or is not.
func (l *link) resyncAck(cmd drbd.Cmd, p drbd.BlockAck) error {
	size := l.r.Size()
	if p.Sector > uint64(size)/block.SectorSize || int64(p.Size) > size-int64(p.Sector)*block.SectorSize {
		return badMeta(cmd, "%d bytes at sector %d reach beyond the end of the device", p.Size, p.Sector)
	}
	off := int64(p.Sector) * block.SectorSize
	if cmd == drbd.CmdNegAck {
		l.refusals.add(&l.refusals.writes, p.Sector, p.Size)
		l.asked.mu.Lock()
		defer l.asked.mu.Unlock()
		l.asked.fail(size, off, int64(p.Size))
		return nil
	}
	t := l.r.traffic
	t.mu.Lock()
	defer t.mu.Unlock()
	// What is written while the link takes no writes any more is marked, perhaps after this block was read for the peer.
	if t.gate.disk != nil && t.gate.link == l && proto.ConnState(l.conn.Load()) != proto.Ahead {
		t.gate.disk.bm.ClearRange(off, int64(p.Size))
	}
	return nil
}
