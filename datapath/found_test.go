package datapath

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"syscall"
	"testing"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// The tests of this file are the shortest forms of what datapath/torture found.

// marks gives what a disk would have marked after a loss of power now, activity log applied; of its cache nothing is left.
func marks(t *testing.T, d *blocktest.Mem) *meta.Bitmap {
	t.Helper()
	md, err := meta.Open(d.CrashClone(1, 0), meta.OpenOptions{ALExtents: 67})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := md.ApplyAL(bg()); err != nil {
		t.Fatal(err)
	}
	return md.Bitmap()
}

// faulty puts node i's disk, before the pair is used, behind rules.
func (p *pair) faulty(i int) (*blocktest.Faults, *blocktest.Mem) {
	p.t.Helper()
	mem := p.node[i].disk.(*blocktest.Mem)
	_ = p.node[i].Close()
	faults := blocktest.NewFaults(mem)
	p.boot(i, faults)
	return faults, mem
}

// faultyPuppet is puppetNode with the node's disk behind rules.
func faultyPuppet(t *testing.T) (p *puppet, faults *blocktest.Faults) {
	t.Helper()
	p = puppetNode(t, func(c *Config) {
		open := c.Open
		c.Open = func() (block.Device, error) {
			d, err := open()
			faults = blocktest.NewFaults(d)
			return faults, err
		}
	})
	return p, faults
}

// A write whose extent the activity log cannot take any more goes to the peer, which marks it durably: this node's disk
// knows nothing of it.
func TestWriteWithoutActivityLog(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	faults, mem := p.faulty(0)
	p.synced()
	a, b := p.node[0], p.node[1]
	a.write(0, pattern(1, 4096))
	md, err := meta.Open(mem, meta.OpenOptions{ALExtents: 67})
	if err != nil {
		t.Fatal(err)
	}
	l := md.Layout()
	faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: l.ALOffset, To: l.ALOffset + l.ALSize, Times: 1, Err: syscall.EIO})
	a.write(9<<20, pattern(2, 8192))
	if got := b.content()[9<<20:][:8192]; string(got) != string(pattern(2, 8192)) {
		t.Fatal("the write is not on the disk that is left")
	}
	if !marks(t, mem).Test(9<<20/4096) && !marks(t, b.disk.(*blocktest.Mem)).Test(9<<20/4096) {
		t.Error("after a loss of power of both nodes nobody would know that the copies differ")
	}
	a.await("the detach", func(s *Status) bool { return s.Disk == proto.Diskless })
	a.ok("attach", a.Attach(bg()))
	p.await("the resync", inSync)
	p.equal()
}

// Without a peer such a write fails, says why, and was not done anywhere.
func TestWriteWithoutActivityLogAlone(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	faults, mem := p.faulty(0)
	a := p.node[0]
	a.ok("attach", a.Attach(bg()))
	a.ok("promote", a.Promote(bg(), true))
	faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: a.Size(), Err: syscall.ENOSPC})
	if _, err := a.WriteAt(pattern(2, 4096), 9<<20); !errors.Is(err, ErrNoData) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	if n := mem.Unflushed(); n != 0 {
		t.Errorf("%d sectors were written", n)
	}
}

// Demotion puts down the flag without which nobody applies the activity log: what it stood for is in the bitmap by then.
func TestDemotionKeepsMarks(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a := p.node[0]
	p.cable.pull()
	a.await("the break", func(s *Status) bool { return s.Conn < proto.Connected })
	a.write(5<<20, pattern(1, 8192))
	a.ok("demote", a.Demote(bg()))
	if bm := marks(t, a.disk.(*blocktest.Mem)); bm.CountRange(5<<20, 8192) != 2 || bm.Weight() > 1024 {
		t.Errorf("%d of 2 blocks, %d in all are marked after a loss of power", bm.CountRange(5<<20, 8192), bm.Weight())
	}
}

// A flush of a Primary whose own copy is not good is worth nothing once the good one is out of reach.
func TestFlushWithoutGoodCopy(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.ResyncRate = 64 << 10 })
	a, b := p.node[0], p.node[1]
	a.ok("attach", a.Attach(bg()))
	a.ok("promote", a.Promote(bg(), true))
	a.ok("demote", a.Demote(bg()))
	b.ok("attach", b.Attach(bg()))
	for _, n := range p.node {
		n.ok("connect", n.Connect(bg(), false))
	}
	b.await("the sync", func(s *Status) bool { return s.Conn == proto.SyncTarget })
	b.ok("promote", b.Promote(bg(), false))
	b.write(1<<20, pattern(1, 4096))
	b.ok("flush through the peer", b.Flush())
	p.cable.pull()
	b.await("the break", func(s *Status) bool { return s.Conn < proto.Connected })
	if err := b.Flush(); !errors.Is(err, ErrNoData) {
		t.Errorf("flush without a good copy: %v", err)
	}
}

// A Primary without disk loses its link before it hears what the peer calls the generation that began then. The old disk
// may lack what applications were told is done, though its generation is the last that this node knows of.
func TestOldDiskStaysOut(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	p.secondary()
	detached := make(chan error, 1)
	go func() { detached <- p.n.Detach(bg()) }()
	p.expect(drbd.CmdStateChgReq)
	p.ack(drbd.CmdStateChgReply, drbd.SSSuccess)
	p.must(<-detached)
	d, done := p.wrote(3)
	p.ack(drbd.CmdWriteAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
	p.must(<-done)
	p.hangUp()
	p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
	if err := p.n.Attach(bg()); err == nil || p.n.Status().Disk >= proto.Inconsistent {
		t.Errorf("the old disk came back alone: %v, %v", p.n.Status().Disk, err)
	}
}

// What a Primary without disk sends while its link is given up is refused: nobody would keep the marks.
func TestNoWritesWithoutMarks(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	p.primary()
	p.send(drbd.CmdState, drbd.State{Role: proto.Primary, Peer: proto.Secondary, Conn: proto.Connected, Disk: proto.Diskless, PeerDisk: proto.UpToDate})
	p.n.await("the loss of the disk", func(s *Status) bool { return s.PeerDisk == proto.Diskless })
	write := func(blk int64, what byte) {
		d := drbd.Data{Sector: uint64(blk) * 8, ID: drbd.BlockIDOf(7), Flags: drbd.DPSendWriteAck}
		p.send(drbd.CmdData, raw(append(d.Append(nil), bytes.Repeat([]byte{what}, 4096)...)))
	}
	write(1, 0xaa)
	p.expectMeta(drbd.CmdWriteAck)
	parted := make(chan error, 1)
	go func() { parted <- p.n.Disconnect(bg(), true) }()
	if _, err := io.Copy(io.Discard, p.data); err != nil { // until the node sends no more; it listens for a while yet
		t.Fatal(err)
	}
	if !marks(t, p.n.disk.(*blocktest.Mem)).Test(1) {
		t.Error("the flag under which the activity log counts is down, and a mark is in memory only")
	}
	write(1<<10, 0xbb)
	p.must(<-parted)
	p.n.await("the end", alone)
	bm := marks(t, p.n.disk.(*blocktest.Mem))
	for _, blk := range []int64{1, 1 << 10} {
		if written := p.n.content()[blk*4096] != 0; written != bm.Test(uint64(blk)) {
			t.Errorf("block %d: written %v, marked %v", blk, written, !written)
		}
	}
}

// A block that a disk could not take is asked for again when the disk came back over the same link.
func TestFailedBlockIsTriedAgain(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	faults, _ := p.faulty(1)
	p.synced()
	a, b := p.node[0], p.node[1]
	p.cable.pull()
	p.await("the break", func(s *Status) bool { return s.Conn < proto.Connected })
	a.write(2<<20, pattern(1, 64<<10))
	heal := faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: 2 << 20, To: 3 << 20, Err: syscall.EIO})
	p.cable.plug()
	b.await("the detach", func(s *Status) bool { return s.Conn == proto.Connected && s.Disk == proto.Diskless })
	heal()
	b.ok("attach", b.Attach(bg()))
	p.await("the resync", inSync)
	p.equal()
}

// The mark of a write that this node's disk refused may go with the disk. The peer, which did it, hears of it.
func TestPeerHearsOfFailedWrite(t *testing.T) {
	t.Parallel()
	p, faults := faultyPuppet(t)
	p.secondary()
	faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite | blocktest.OpZero, From: 3 << 12, To: 4 << 12, Err: syscall.EIO})
	d, done := p.wrote(3)
	p.ack(drbd.CmdWriteAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
	oos, err := drbd.ParseBlockDesc(drbd.CmdOutOfSync, p.expect(drbd.CmdOutOfSync))
	if err != nil || oos.Sector != d.Sector || oos.Size != 4096 {
		t.Errorf("%+v, %v", oos, err)
	}
	p.must(<-done)
}

// The peer of a Primary without disk marks a write before it is done: it may have to show its bitmap meanwhile.
func TestMarksComeFirst(t *testing.T) {
	t.Parallel()
	p, faults := faultyPuppet(t)
	p.primary()
	p.send(drbd.CmdState, drbd.State{Role: proto.Primary, Peer: proto.Secondary, Conn: proto.Connected, Disk: proto.Diskless, PeerDisk: proto.UpToDate})
	p.n.await("the loss of the disk", func(s *Status) bool { return s.PeerDisk == proto.Diskless })
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, Block: hold}) // the activity log's, and the data's
	p.send(drbd.CmdData, raw(data(80, 4096)))
	p.n.await("the mark", func(s *Status) bool { return s.OutOfSync == 4096 })
	release()
	p.expectMeta(drbd.CmdWriteAck)
}

// A Primary whose disk comes back is told to resync. Until the peer's marks are here too, nothing is read from that disk: its
// own bitmap knows nothing of what was written without it.
func TestReadBeforeMarks(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	p.secondary()
	n := p.n
	had := n.Status().UUIDs
	detached := going(func() error { return n.Detach(bg()) })
	p.expect(drbd.CmdStateChgReq)
	p.ack(drbd.CmdStateChgReply, drbd.SSSuccess)
	n.ok("detach", <-detached)
	now := drbd.UUIDs{Current: had.Current + 2, Bitmap: had.Current, History0: had.History[0], History1: had.History[1], Bits: 1}
	p.send(drbd.CmdUUIDs, now)
	n.ok("attach", n.Attach(bg()))
	p.send(drbd.CmdUUIDs, now)
	p.send(drbd.CmdState, drbd.State{Role: proto.Secondary, Peer: proto.Primary, Conn: proto.WFBitMapS, Disk: proto.UpToDate, PeerDisk: proto.Consistent})
	n.await("the resync", func(s *Status) bool { return s.Conn == proto.WFBitMapT })
	got := make([]byte, 4096)
	read := going(func() error { _, err := n.ReadAt(got, 0); return err })
	p.expect(drbd.CmdDataRequest)
	pending(t, "a read that the peer has not answered", read)
}

// TestFailedDiskConfirmsNothing: a Primary that is alone loses its disk, and a command comes before the owner's message about that.
// A write or a flush that was under way is not confirmed, and a demotion does not leave the disk as clean.
func TestFailedDiskConfirmsNothing(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"write", "flush", "demote"} {
		p := newPair(t, testSize, testSize, nil)
		a := p.node[0]
		p.synced()
		a.write(1<<20, pattern(4, 4096))
		p.cable.pull()
		a.await("the end of the link", func(s *Status) bool { return s.Conn == proto.WFConnection })
		a.write(1<<20, pattern(5, 4096))
		a.traffic.mu.Lock()
		d := a.traffic.gate.disk
		a.traffic.mu.Unlock()
		d.fault.Store(&diskFault{d, true, syscall.EIO})
		d.failed.Store(true)
		switch what {
		case "write":
			if _, err := a.WriteAt(pattern(6, 4096), 1<<20); !errors.Is(err, ErrNoData) {
				t.Errorf("write: %v", err)
			}
		case "flush":
			if err := a.Flush(); !errors.Is(err, ErrNoData) {
				t.Errorf("flush: %v", err)
			}
		case "demote":
			a.ok("demote", a.Demote(bg()))
			md, err := meta.Open(a.disk, meta.OpenOptions{ALExtents: 67})
			if err != nil {
				t.Fatal(err)
			}
			if f := md.Superblock().Flags; f&meta.FlagPrimary == 0 {
				t.Errorf("a disk that has failed was left as clean: %v", f)
			}
			a.await("the loss of the disk", func(s *Status) bool { return s.Disk == proto.Diskless })
		}
	}
}
