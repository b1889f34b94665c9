package datapath

import (
	"context"
	"sync"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

const (
	verifyBlock = block4k   // one request, as DRBD does it: one bit of the bitmap
	verifyChunk = 64 << 10  // blocks that are asked for together; applications do not write there meanwhile
	maxVerify   = 512 << 10 // asked for and not yet compared
	maxDiffer   = 100       // ranges that differ, in a result
)

// verifyPart is a run of blocks asked for together.
type verifyPart struct {
	span  span
	left  int           // blocks not yet compared
	ready chan struct{} // capacity 1
	since time.Time
}

// verifyBook is what this node knows of the online verify on one link, as the one that compares or as the one that
// answers. It outlives a verify that was aborted: answers may still come.
type verifyBook struct {
	mu      sync.Mutex
	kick    chan struct{} // capacity 1: something was compared
	started time.Time
	size    int64                 // of the device
	from    int64                 // where it began, -1 while unknown
	checked int64                 // bytes compared
	failed  int64                 // bytes that a node could not read
	differ  *meta.Bitmap          // blocks that differ, nil for none
	asked   map[int64]*verifyPart // by offset of the block: compared here, no digest yet; nil part: given up
	open    int64                 // bytes asked for in parts that count
	replies int64                 // digests sent whose result has not come
}

func (b *verifyBook) init() {
	b.kick = make(chan struct{}, 1)
	b.asked = map[int64]*verifyPart{}
	b.from = -1
}

// begin starts a new account. from is -1 if the first request will tell.
func (b *verifyBook) begin(size, from int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.started, b.size, b.from, b.checked, b.failed, b.differ = time.Now(), size, from, 0, 0, nil
}

func (b *verifyBook) wake() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// flow is what a pacer must know.
func (b *verifyBook) flow() (came, inFlight int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.checked, b.open
}

func (b *verifyBook) outstanding() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// oldest is when the oldest unanswered part was asked for.
func (b *verifyBook) oldest() (since time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.asked {
		if p != nil && (!ok || p.since.Before(since)) {
			since, ok = p.since, true
		}
	}
	return since, ok
}

// claim finds what a digest of n bytes at off answers. nil, true: it comes too late and counts no more.
func (b *verifyBook) claim(off, n int64) (*verifyPart, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.asked[off]
	if !ok || n != min(verifyBlock, b.size-off) {
		return nil, false
	}
	delete(b.asked, off)
	return p, true
}

// note counts a block as compared. The lock is held.
func (b *verifyBook) note(off, n int64, same bool) {
	b.checked += n
	if same {
		return
	}
	if b.differ == nil {
		b.differ, _ = meta.NewBitmap(b.size)
	}
	if b.differ != nil {
		b.differ.SetRange(off, n)
	}
}

// done ends a block of part p; it was compared, or could not be.
func (b *verifyBook) done(t *traffic, p *verifyPart, off, n int64, compared, same bool) {
	b.mu.Lock()
	if compared {
		b.note(off, n, same)
	} else {
		b.failed += n
	}
	b.open -= n
	p.left--
	last := p.left == 0
	b.mu.Unlock()
	if last {
		t.mu.Lock()
		t.ranges.remove(&p.span)
		t.mu.Unlock()
	}
	b.wake()
}

// abandon lets applications write where digests were asked for that will not count any more. Blocks that are being
// compared end by themselves.
func (b *verifyBook) abandon(t *traffic) {
	b.mu.Lock()
	var free []*verifyPart
	for off, p := range b.asked {
		if p == nil {
			continue
		}
		b.asked[off] = nil
		b.open -= min(verifyBlock, b.size-off)
		if p.left--; p.left == 0 {
			free = append(free, p)
		}
	}
	b.mu.Unlock()
	t.mu.Lock()
	for _, p := range free {
		t.ranges.remove(&p.span)
	}
	t.mu.Unlock()
	b.wake()
}

// replied counts a digest that is about to be sent; the lowest offset is where the peer began.
func (b *verifyBook) replied(off int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.replies++
	if b.from < 0 || off < b.from {
		b.from = off
	}
}

// result takes the peer's verdict on a block whose digest it got; false if it got none.
func (b *verifyBook) result(off, n int64, same bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.replies == 0 {
		return false
	}
	b.replies--
	b.note(off, n, same)
	return true
}

// soFar is how much of the device from where the verify began has been compared.
func (b *verifyBook) soFar() (started time.Time, total, checked, differ int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.differ != nil {
		differ = min(int64(b.differ.Weight())*verifyBlock, b.size)
	}
	return b.started, b.size - max(b.from, 0), b.checked, differ
}

// outcome words what was found.
func (b *verifyBook) outcome(v *proto.Verify) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v.Started, v.Ended, v.Size, v.From, v.Checked, v.Failed = b.started, time.Now(), b.size, max(b.from, 0), b.checked, b.failed
	v.Complete = v.From == 0 && b.checked >= b.size && b.failed == 0
	if b.differ == nil {
		return
	}
	v.Differ = min(int64(b.differ.Weight())*verifyBlock, b.size)
	for bit, ok := b.differ.NextSet(0); ok && len(v.Ranges) < maxDiffer; bit, ok = b.differ.NextSet(bit) {
		n, _ := b.differ.Run(bit)
		r := proto.Extent{Offset: int64(bit) * verifyBlock}
		bit += n
		r.Length = min(int64(bit)*verifyBlock, b.size) - r.Offset
		v.Ranges = append(v.Ranges, r)
	}
}

// verify is the side that compares: one goroutine asks for digests, paced by the resync rate.
type verify struct {
	l      *link
	d      *disk
	pos    int64
	end    int64
	pacer  pacer
	ask    context.Context // ends when no more is to be asked for
	halt   context.CancelFunc
	cancel context.CancelFunc
	done   chan struct{}
}

func startVerify(l *link, d *disk, from, size int64) *verify {
	ctx, cancel := context.WithCancel(l.ctx)
	v := &verify{l: l, d: d, pos: from, end: size, cancel: cancel, done: make(chan struct{}), pacer: newPacer(&l.r.rate, l.ov.flow)}
	v.ask, v.halt = context.WithCancel(ctx)
	go func() {
		defer close(v.done)
		defer cancel()
		v.run(ctx)
	}()
	return v
}

// stop returns when nothing is asked for any more.
func (v *verify) stop() {
	v.cancel()
	<-v.done
	v.l.ov.abandon(v.l.r.traffic)
}

// run asks for all blocks up to the end, or until it is halted, and reports when all are compared.
func (v *verify) run(ctx context.Context) {
	defer v.halt()
	for v.pos < v.end && v.ask.Err() == nil {
		n := min(verifyChunk-v.pos%verifyChunk, v.end-v.pos)
		if v.pacer.wait(v.ask, n) && v.room(v.ask, n) && v.part(v.ask, v.pos, n) {
			v.pos += n
		}
	}
	if v.room(ctx, maxVerify) && v.l.roundTrip(ctx) {
		v.l.r.inbox.put(verifyFinished{v})
	}
}

// room waits until so little is outstanding that n more bytes may be asked for.
func (v *verify) room(ctx context.Context, n int64) bool {
	for v.l.ov.outstanding()+n > maxVerify {
		select {
		case <-v.l.ov.kick:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

// part waits until no application writes there and asks for the digests.
func (v *verify) part(ctx context.Context, off, n int64) bool {
	l, t := v.l, v.l.r.traffic
	p := &verifyPart{left: int((n + verifyBlock - 1) / verifyBlock), ready: make(chan struct{}, 1), since: time.Now()}
	p.span = span{off: off, end: off + n, kind: spanAsked, granted: func() { p.ready <- struct{}{} }}
	t.mu.Lock()
	now := t.ranges.add(&p.span)
	t.mu.Unlock()
	if !now {
		select {
		case <-p.ready:
		case <-ctx.Done():
			t.mu.Lock()
			t.ranges.remove(&p.span)
			t.mu.Unlock()
			return false
		}
	}
	b := &l.ov
	b.mu.Lock()
	p.since = time.Now()
	b.open += n
	for o := off; o < off+n; o += verifyBlock {
		b.asked[o] = p
	}
	b.mu.Unlock()
	for o := off; o < off+n; o += verifyBlock {
		l.out.put(outItem{kind: outAsk, cmd: drbd.CmdOVRequest, off: o, n: min(verifyBlock, off+n-o), id: drbd.IDSyncer})
	}
	return true
}

// verifyReply takes a digest that was asked for. The local block is read in its turn: after what the peer wrote before
// it computed the digest, and before what it writes later.
func (l *link) verifyReply(rd *drbd.Reader, h drbd.Header) error {
	req, off, err := l.request(rd, h)
	if err != nil {
		return err
	}
	sum, err := rd.Rest()
	if err != nil {
		return err
	}
	part, ok := l.ov.claim(off, int64(req.Size))
	switch {
	case !ok:
		return badData(h.Cmd, "%d bytes at sector %d: nobody asked for them", req.Size, req.Sector)
	case part == nil:
		return nil
	case l.r.verifies == nil || len(sum) != l.r.verifies.size:
		return badData(h.Cmd, "the digest has %d bytes", len(sum))
	}
	p := l.newReq(peerOVCheck, off, int64(req.Size), drbd.Data{ID: req.ID})
	p.part, p.sum.n = part, copy(p.sum.b[:], sum)
	if !l.r.traffic.enter(p, spanVerify) {
		l.ov.done(l.r.traffic, part, off, p.n, false, false)
		p.recycle()
	}
	return nil
}

// doVerify compares a block with the peer's digest of it and tells the outcome.
func (l *link) doVerify(p *peerReq) {
	buf := block.GetBuffer(int(p.n))
	_, err := p.disk.dev.ReadAt(buf, p.off)
	same := false
	if err != nil {
		l.r.diskFailed(p.disk, false, err)
	} else {
		var own digest
		l.r.verifies.sum(buf, &own)
		same = own.is(p.sum.bytes())
	}
	block.PutBuffer(buf)
	result := uint64(drbd.OVInSync)
	if !same {
		result = drbd.OVOutOfSync
		p.disk.bm.SetRange(p.off, p.n)
	}
	p.id = drbd.BlockIDOf(result)
	l.answer(drbd.CmdOVResult, p)
	part, off, n := p.part, p.off, p.n
	l.r.traffic.leave(p, err == nil)
	p.recycle()
	l.ov.done(l.r.traffic, part, off, n, err == nil, same)
}

// doDigest reads a block and queues its digest for the peer, which compares. Like resync data it is read in its turn.
func (l *link) doDigest(p *peerReq) {
	buf := block.GetBuffer(int(p.n))
	_, err := p.disk.dev.ReadAt(buf, p.off)
	if err != nil {
		l.r.diskFailed(p.disk, false, err)
		l.r.verifies.none(&p.sum)
	} else {
		l.r.verifies.sum(buf, &p.sum)
	}
	block.PutBuffer(buf)
	l.ov.replied(p.off)
	l.queueReply(p, drbd.CmdOVReply, err == nil)
}

// verifyResult takes the verdict of the side that compares.
func (l *link) verifyResult(p drbd.BlockAck) error {
	off, err := l.inside(drbd.CmdOVResult, p.Sector, int64(p.Size))
	if err != nil {
		return err
	}
	same := p.ID.Number() != drbd.OVOutOfSync
	if !l.ov.result(off, int64(p.Size), same) {
		return badMeta(drbd.CmdOVResult, "nothing was compared")
	}
	if same {
		return nil
	}
	t := l.r.traffic
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gate.disk != nil {
		t.gate.disk.bm.SetRange(off, int64(p.Size))
	}
	return nil
}
