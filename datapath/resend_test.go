package datapath

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// reboot takes the power from node i, whose cache is lost, and boots it again.
func (p *pair) reboot(i int, faults *blocktest.Faults, mem *blocktest.Mem, heal func()) *blocktest.Mem {
	p.t.Helper()
	left := mem.CrashClone(1, 0)
	p.cable.pull()
	heal()
	_ = p.node[i].Close()
	p.cable.plug()
	p.boot(i, left)
	return left
}

// TestOnlyCopyLosesPower: a Primary without disk loses its peer, whose disk has not confirmed what the peer acknowledged, and
// the peer comes back without it. Nothing of it is missing afterwards, neither here nor after the next flush on the disk.
func TestOnlyCopyLosesPower(t *testing.T) {
	t.Parallel()
	for _, suspend := range []bool{false, true} {
		p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.SuspendOnNoData, c.PingTimeout = suspend, 5*time.Second })
		faults, mem := p.faulty(1)
		p.synced()
		a := p.node[0]
		a.ok("detach", a.Detach(bg()))
		a.write(1<<20, pattern(4, 4096)) // the peer logs the extent, which takes flushes
		a.ok("flush", a.Flush())
		block := make(chan struct{})
		heal := faults.Inject(blocktest.Rule{Ops: blocktest.OpFlush, Block: block})
		a.write(1<<20, pattern(5, 64<<10))
		a.write(1<<20, pattern(6, 8192)) // over part of it
		a.ok("zeroes", a.WriteZeroes(1<<20+4096, 512, true))
		flushed := make(chan error, 1)
		go func() { flushed <- a.Flush() }()
		left := p.reboot(1, faults, mem, func() { heal(); close(block) })
		a.await("the cut", func(s *Status) bool { return s.Conn < proto.Connected })
		late := make(chan error, 1)
		go func() {
			_, err := a.WriteAt(pattern(7, 512), 1<<20+1024)
			late <- err
		}()
		if !suspend {
			if err := <-late; !errors.Is(err, ErrNoData) {
				t.Errorf("a write without any copy: %v", err)
			}
			if err := <-flushed; !errors.Is(err, ErrNoData) {
				t.Errorf("a flush without any copy: %v", err)
			}
		}
		b := p.node[1]
		b.ok("attach", b.Attach(bg()))
		b.ok("connect", b.Connect(bg(), false))
		a.await("the peer", func(s *Status) bool { return s.Conn == proto.Connected && s.PeerDisk == proto.UpToDate && !s.Suspended })
		if !a.heard("72 KiB of writes that weasel had acknowledged may not have been on its disk") {
			t.Errorf("suspend %v: no word to operators\n%q", suspend, a.said)
		}
		want := append([]byte(nil), pattern(5, 64<<10)...)
		copy(want, pattern(6, 8192))
		clear(want[4096:4608])
		if suspend {
			a.ok("the write that waited", <-late)
			a.ok("the flush that waited", <-flushed)
			copy(want[1024:], pattern(7, 512))
		}
		got := make([]byte, len(want))
		if _, err := a.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, want) {
			t.Errorf("suspend %v: acknowledged writes are gone (%v)", suspend, err)
		}
		a.ok("flush", a.Flush())
		if _, err := left.CrashClone(2, 0).ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, want) {
			t.Errorf("suspend %v: what was flushed is not on the disk (%v)", suspend, err)
		}
		a.ok("attach", a.Attach(bg()))
		p.await("the resync", inSync)
		p.equal()
		if n, owes := a.traffic.owes(); owes || a.traffic.keeping != 0 {
			t.Errorf("%d bytes are still kept, %d in the log", n, a.traffic.keeping)
		}
	}
}

// TestKeptIsBounded: a Primary without disk does not keep more than max-buffers, however slow the peer's flushes are.
func TestKeptIsBounded(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.MaxBuffers, c.PingTimeout = 256, 5*time.Second })
	faults, _ := p.faulty(1)
	p.synced()
	a := p.node[0]
	a.ok("detach", a.Detach(bg()))
	a.write(1<<20, pattern(4, 4096))
	a.ok("flush", a.Flush())
	block := make(chan struct{})
	heal := faults.Inject(blocktest.Rule{Ops: blocktest.OpFlush, Block: block})
	w := startWriter(a, 77, 16)
	time.Sleep(300 * time.Millisecond)
	a.traffic.mu.Lock()
	keeping, limit := a.traffic.keeping, a.traffic.cfg.mayKeep()
	a.traffic.mu.Unlock()
	if keeping > limit+maxWrite {
		t.Errorf("%d bytes are kept, allowed are %d", keeping, limit)
	}
	heal()
	close(block)
	a.ok("flush", a.Flush())
	w.end()
	if w.errs > 0 {
		t.Errorf("%d writes failed", w.errs)
	}
	a.ok("flush", a.Flush())
	a.traffic.mu.Lock()
	defer a.traffic.mu.Unlock()
	if a.traffic.keeping != 0 {
		t.Errorf("%d bytes are kept though all is confirmed", a.traffic.keeping)
	}
}

// TestResendOverAndOver: the link breaks again while what was kept is written again, and the peer that comes back cannot
// write zeroes any more. It begins from the start, in the old order, and nothing else comes before it.
func TestResendOverAndOver(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.SuspendOnNoData = true })
	p.secondary()
	detached := make(chan error, 1)
	go func() { detached <- p.n.Detach(bg()) }()
	p.expect(drbd.CmdStateChgReq)
	p.ack(drbd.CmdStateChgReply, drbd.SSSuccess)
	p.must(<-detached)
	u := p.n.Status().PeerUUIDs
	for _, blk := range []int64{3, 4} {
		d, done := p.wrote(blk)
		p.ack(drbd.CmdWriteAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
		p.must(<-done)
	}
	zeroed := make(chan error, 1)
	go func() { zeroed <- p.n.WriteZeroes(5*4096, 4096, false) }()
	z, err := drbd.ParseRange(drbd.CmdZeroes, p.expect(drbd.CmdZeroes))
	p.must(err)
	p.ack(drbd.CmdWriteAck, drbd.BlockAck{Sector: z.Sector, ID: z.ID, Size: 4096})
	p.must(<-zeroed)
	p.hangUp()
	p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
	late := make(chan error, 1)
	go func() {
		_, err := p.n.WriteAt(block.Buffer(4096), 9*4096)
		late <- err
	}()
	p.cannot = drbd.FeatureZeroes
	for round := range 3 {
		p.hello(proto.Secondary, proto.UpToDate, drbd.UUIDs{Current: u.Current, Bitmap: u.Bitmap, History0: u.History[0], History1: u.History[1]})
		if round < 2 {
			p.again(round)
			p.expect(drbd.CmdData)
			p.hangUp()
			p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
			continue
		}
		if p.again(3); !p.n.Status().Suspended {
			t.Error("I/O goes on before the peer has confirmed what was written again")
		}
	}
	if d := p.again(1); d.Sector != 9*8 {
		t.Errorf("after it came a write at sector %d", d.Sector)
	}
	p.must(<-late)
}

// again takes so many of the writes that are written again, of blocks 3 to 5, with the barriers before them, and
// acknowledges all of it but a barrier that comes later. It gives the last one.
func (p *puppet) again(writes int) (d drbd.Data) {
	p.t.Helper()
	for i, since := 0, p.unconfirmed; i < writes; {
		switch cmd, b := p.next(p.rd); cmd {
		case drbd.CmdBarrier:
			bar, err := drbd.ParseBarrier(b)
			p.must(err)
			p.ack(drbd.CmdBarrierAck, drbd.BarrierAck{ID: bar.ID, SetSize: since})
			since = 0
		case drbd.CmdData:
			var err error
			d, err = drbd.ParseData(b)
			p.must(err)
			if writes > 1 && (d.Sector != uint64(3+i)*8 || len(b) != drbd.SizeData+4096) {
				p.t.Fatalf("write %d is %d bytes at sector %d", i, len(b)-drbd.SizeData, d.Sector)
			}
			p.ack(drbd.CmdWriteAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
			since++
			i++
		}
		p.unconfirmed = since
	}
	return d
}

// TestKeptIsGivenUp: a Primary that has lost both copies is demoted; operators hear what nobody has.
func TestKeptIsGivenUp(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.SuspendOnNoData = true })
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
	p.must(p.n.Demote(bg()))
	if _, owes := p.n.traffic.owes(); owes || !p.n.heard("gives up 4 KiB of writes") {
		t.Errorf("nobody was told: %q", p.n.said)
	}
}
