package datapath

import (
	"bytes"
	"testing"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/proto/drbd"
)

// TestMaxEpochSize: no more writes than max-epoch-size are between two barriers, however many are under way.
func TestMaxEpochSize(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.MaxEpochSize = 3 })
	p.secondary()
	done := make(chan error, 10)
	for i := range int64(cap(done)) {
		go func() { _, err := p.n.WriteAt(block.Buffer(4096), i*4096); done <- err }()
	}
	for writes, since := 0, 0; writes < cap(done); {
		switch cmd, b := p.next(p.rd); cmd {
		case drbd.CmdData:
			d, err := drbd.ParseData(b)
			p.must(err)
			writes++
			if since++; since > 3 {
				t.Fatalf("%d writes without a barrier", since)
			}
			p.ack(drbd.CmdWriteAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
		case drbd.CmdBarrier:
			bar, err := drbd.ParseBarrier(b)
			p.must(err)
			p.ack(drbd.CmdBarrierAck, drbd.BarrierAck{ID: bar.ID, SetSize: uint32(since)})
			since = 0
		}
	}
	for range cap(done) {
		p.must(<-done)
	}
}

// TestReceivedDataIsBounded: a peer that writes faster than the disk does makes the node hold no more than max-buffers.
func TestReceivedDataIsBounded(t *testing.T) {
	t.Parallel()
	p, faults := faultyPuppet(t)
	p.primary()
	unblock := make(chan struct{})
	heal := faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, To: testSize / 2, Block: unblock})
	p.n.traffic.mu.Lock()
	l := p.n.traffic.gate.link
	p.n.traffic.mu.Unlock()
	l.limit.mu.Lock()
	l.limit.limit = 1 << 20
	l.limit.mu.Unlock()
	// Together, for the receiver does a lone write itself and takes no other one meanwhile.
	w := bytes.Repeat(drbd.AppendPacket(nil, drbd.H100, 0, drbd.CmdData, raw(data(0, 8<<10)), 0), 8)
	_ = p.data.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	sent := 0
	for ; sent < 1000; sent++ {
		if _, err := p.data.Write(w); err != nil {
			break
		}
	}
	l.limit.mu.Lock()
	used := l.limit.used
	l.limit.mu.Unlock()
	if sent == 1000 || used > 1<<20 || used < 1<<19 {
		t.Errorf("%d writes were taken, %d bytes are held, the bound is %d", sent, used, 1<<20)
	}
	heal()
	close(unblock)
	p.hangUp()
}

// TestOverlappingWrites: of two writes to one block the second one is sent when the peer has the first, and the peer's are done
// and acknowledged in their order.
func TestOverlappingWrites(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	p.secondary()
	d, first := p.wrote(3)
	second := make(chan error, 1)
	go func() { _, err := p.n.WriteAt(pattern(2, 8192), 2*4096); second <- err }()
	_ = p.data.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if h, err := p.rd.Next(); err == nil {
		t.Fatalf("%v was sent before the answer to the write that it overlaps", h.Cmd)
	}
	_ = p.data.SetReadDeadline(time.Now().Add(8 * time.Second))
	p.ack(drbd.CmdWriteAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
	p.must(<-first)
	d, err := drbd.ParseData(p.expect(drbd.CmdData))
	p.must(err)
	p.ack(drbd.CmdWriteAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 8192})
	p.must(<-second)
	p.hangUp()

	q, faults := faultyPuppet(t)
	q.primary()
	unblock := make(chan struct{})
	faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, To: 4096, Times: 1, Block: unblock})
	for i := range byte(8) {
		d := drbd.Data{Sector: 0, ID: drbd.BlockIDOf(uint64(i)), Seq: uint32(i), Flags: drbd.DPSendWriteAck}
		q.send(drbd.CmdData, raw(append(d.Append(nil), bytes.Repeat([]byte{i + 1}, 4096)...)))
	}
	time.Sleep(20 * time.Millisecond)
	close(unblock)
	for i := range uint64(8) {
		a, err := drbd.ParseBlockAck(q.expectMeta(drbd.CmdWriteAck))
		q.must(err)
		if a.ID.Number() != i {
			t.Fatalf("write %d is answered as number %d", a.ID.Number(), i)
		}
	}
	if got := q.n.content()[0]; got != 8 {
		t.Errorf("write %d is on the disk, expected the last one", got)
	}
}
