package datapath

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/conformance"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

func under(pr proto.Protocol) func(c *Config) { return func(c *Config) { c.Protocol = pr } }

// wrote starts a write of a block and gives what the peer gets of it.
func (p *puppet) wrote(blk int64) (drbd.Data, chan error) {
	p.t.Helper()
	done := make(chan error, 1)
	go func() { _, err := p.n.WriteAt(block.Buffer(4096), blk*4096); done <- err }()
	d, err := drbd.ParseData(p.expect(drbd.CmdData))
	p.must(err)
	return d, done
}

// pending fails if something ends that must wait.
func pending(t *testing.T, what string, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("%s ended too early: %v", what, err)
	case <-time.After(20 * time.Millisecond):
	}
}

func TestProtocolA(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "protocol-a-io")
	p := puppetNode(t, under(proto.ProtocolA))
	p.secondary()
	d, done := p.wrote(0)
	p.must(<-done) // no answer needed
	if d.Flags != drbd.DPSync {
		t.Errorf("flags %#x", d.Flags)
	}
	first, err := drbd.ParseBarrier(p.expect(drbd.CmdBarrier))
	p.must(err)
	_, done = p.wrote(1) // depends on the first one: another epoch
	p.must(<-done)
	flushed := make(chan error, 1)
	go func() { flushed <- p.n.Flush() }()
	second, err := drbd.ParseBarrier(p.expect(drbd.CmdBarrier))
	if err != nil || second.ID == first.ID {
		t.Fatalf("barrier %+v after %+v: %v", second, first, err)
	}
	demoted := make(chan error, 1)
	p.ack(drbd.CmdBarrierAck, drbd.BarrierAck{ID: first.ID, SetSize: 1})
	pending(t, "flush", flushed)
	go func() { demoted <- p.n.Demote(bg()) }()
	pending(t, "demotion", demoted)
	p.ack(drbd.CmdBarrierAck, drbd.BarrierAck{ID: second.ID, SetSize: 1})
	p.must(<-flushed)
	p.must(<-demoted)
	if s := p.n.Status(); s.OutOfSync != 0 || s.Counters.Pending != 0 {
		t.Errorf("after it %+v", s)
	}
}

func TestProtocolANegAckAfterCompletion(t *testing.T) {
	p := puppetNode(t, under(proto.ProtocolA))
	p.secondary()
	d, done := p.wrote(3)
	p.must(<-done)
	p.ack(drbd.CmdNegAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
	p.n.await("the mark", func(s *Status) bool { return s.OutOfSync == 4096 })
	b, err := drbd.ParseBarrier(p.expect(drbd.CmdBarrier))
	p.must(err)
	p.ack(drbd.CmdBarrierAck, drbd.BarrierAck{ID: b.ID, SetSize: 1})
	p.n.ok("flush", p.n.Flush())
	if s := p.n.Status(); s.OutOfSync != 4096 {
		t.Errorf("the barrier's answer took the mark away: %+v", s)
	}
}

// TestNextWriteIsBehindABarrier: what the application writes after a write of protocol A or B was done may depend on it, and
// the peer need not have that one on its disk.
func TestNextWriteIsBehindABarrier(t *testing.T) {
	for _, pr := range []proto.Protocol{proto.ProtocolA, proto.ProtocolB} {
		t.Run(pr.String(), func(t *testing.T) {
			p := puppetNode(t, under(pr))
			p.secondary()
			for i := range int64(8) { // at once: an epoch ends by itself when nothing is written for a while
				done := make(chan error, 1)
				go func() { _, err := p.n.WriteAt(block.Buffer(4096), i*4096); done <- err }()
				ended := i == 0
				cmd, b := p.next(p.rd)
				for ; cmd != drbd.CmdData; cmd, b = p.next(p.rd) {
					ended = ended || cmd == drbd.CmdBarrier
				}
				if !ended {
					t.Fatalf("write %d is in the epoch of the one that was done before it", i)
				}
				d, err := drbd.ParseData(b)
				p.must(err)
				if pr == proto.ProtocolB {
					p.ack(drbd.CmdRecvAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
				}
				p.must(<-done)
			}
		})
	}
}

// What the peer has not confirmed is out of sync when the link breaks, whatever the application was told.
func TestUnconfirmedIsMarked(t *testing.T) {
	for _, pr := range []proto.Protocol{proto.ProtocolA, proto.ProtocolB, proto.ProtocolC} {
		t.Run(pr.String(), func(t *testing.T) {
			p := puppetNode(t, under(pr))
			p.secondary()
			for i := range int64(3) {
				d, done := p.wrote(2 * i)
				switch pr {
				case proto.ProtocolB:
					p.ack(drbd.CmdRecvAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
				case proto.ProtocolC:
					p.ack(drbd.CmdWriteAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
				}
				p.must(<-done)
			}
			p.hangUp()
			p.n.await("the marks", func(s *Status) bool { return s.Conn < proto.Connected && s.OutOfSync == 3*4096 })
		})
	}
}

func TestProtocolB(t *testing.T) {
	p := puppetNode(t, under(proto.ProtocolB))
	p.secondary()
	d, done := p.wrote(0)
	if d.Flags != drbd.DPSync|drbd.DPSendRecvAck {
		t.Errorf("flags %#x", d.Flags)
	}
	pending(t, "write", done)
	p.ack(drbd.CmdRecvAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
	p.must(<-done)
	b, err := drbd.ParseBarrier(p.expect(drbd.CmdBarrier))
	p.must(err)
	demoted := make(chan error, 1)
	go func() { demoted <- p.n.Demote(bg()) }()
	pending(t, "demotion", demoted)
	p.ack(drbd.CmdBarrierAck, drbd.BarrierAck{ID: b.ID, SetSize: 1})
	p.must(<-demoted)
}

// A demotion that nobody waits for any more lets writes go on.
func TestDemotionGivenUp(t *testing.T) {
	p := puppetNode(t, under(proto.ProtocolB))
	p.secondary()
	d, done := p.wrote(0)
	p.ack(drbd.CmdRecvAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
	p.must(<-done)
	ctx, cancel := context.WithTimeout(bg(), 50*time.Millisecond)
	defer cancel()
	if err := p.n.Demote(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	d, done = p.wrote(1)
	p.ack(drbd.CmdRecvAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
	p.must(<-done)
}

func TestUnaskedReceipt(t *testing.T) {
	p := puppetNode(t, nil)
	p.secondary()
	d, _ := p.wrote(0)
	p.ack(drbd.CmdRecvAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 4096})
	p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
	if !p.n.heard("Connected -> ProtocolError") {
		p.n.dump()
		t.Error("a receipt was taken for an answer")
	}
}

// As Secondary: what is answered, and when.
func TestAnswersOfASecondary(t *testing.T) {
	p := puppetNode(t, under(proto.ProtocolB))
	p.primary()
	send := func(id uint64, flags uint32) {
		d := drbd.Data{Sector: id * 8, ID: drbd.BlockIDOf(id), Flags: flags}
		p.send(drbd.CmdData, raw(append(d.Append(nil), pattern(id, 4096)...)))
	}
	next := func(want drbd.Cmd, id uint64) {
		t.Helper()
		cmd, b := p.next(p.md)
		a, err := drbd.ParseBlockAck(b)
		if err != nil || cmd != want || a.ID != drbd.BlockIDOf(id) || a.Sector != id*8 || a.Size != 4096 {
			t.Fatalf("%v %+v, %v where %v for %d belongs", cmd, a, err, want, id)
		}
	}
	send(1, drbd.DPSendRecvAck)
	next(drbd.CmdRecvAck, 1)
	send(2, 0) // nothing
	send(3, drbd.DPSendWriteAck)
	next(drbd.CmdWriteAck, 3)
	send(4, drbd.DPSendRecvAck|drbd.DPSendWriteAck)
	next(drbd.CmdRecvAck, 4)
	next(drbd.CmdWriteAck, 4)
	p.send(drbd.CmdBarrier, drbd.Barrier{ID: drbd.BarrierIDOf(5)})
	b, err := drbd.ParseBarrierAck(p.expectMeta(drbd.CmdBarrierAck))
	if err != nil || b.SetSize != 4 {
		t.Errorf("barrier ack %+v, %v", b, err)
	}
	if n := p.n.disk.(*blocktest.Mem).Unflushed(); n != 0 {
		t.Errorf("%d sectors in the cache after it", n)
	}
}

// TestFailedWriteIsRefused: a Primary must not take a block for one that the peer has, whether it asked for an answer or not.
func TestFailedWriteIsRefused(t *testing.T) {
	for _, flags := range []uint32{drbd.DPSendWriteAck, drbd.DPSendRecvAck, 0} {
		var faults *blocktest.Faults
		p := puppetNode(t, func(c *Config) {
			c.Protocol = proto.ProtocolB
			open := c.Open
			c.Open = func() (block.Device, error) {
				dev, err := open()
				faults = blocktest.NewFaults(dev)
				return faults, err
			}
		})
		p.primary()
		faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, Err: syscall.EIO})
		d := drbd.Data{Sector: 8, ID: drbd.BlockIDOf(1), Flags: flags}
		p.send(drbd.CmdData, raw(append(d.Append(nil), pattern(1, 4096)...)))
		cmd, b := p.next(p.md)
		for cmd != drbd.CmdWriteAck && cmd != drbd.CmdNegAck {
			cmd, b = p.next(p.md)
		}
		a, err := drbd.ParseBlockAck(b)
		if err != nil || cmd != drbd.CmdNegAck || a.ID != d.ID || a.Sector != 8 || a.Size != 4096 {
			t.Errorf("flags %#x: %v %+v, %v", flags, cmd, a, err)
		}
	}
}

// TestFailedDiskIsNotConfirmed: a disk that fails takes what is in its cache along. The barrier behind those writes gets no
// answer, and the Primary marks them.
func TestFailedDiskIsNotConfirmed(t *testing.T) {
	t.Parallel()
	p, faults := faultyPuppet(t)
	p.primary()
	write := func(blk uint64, want drbd.Cmd) {
		t.Helper()
		d := drbd.Data{Sector: blk * 8, ID: drbd.BlockIDOf(blk), Flags: drbd.DPSendWriteAck}
		p.send(drbd.CmdData, raw(append(d.Append(nil), pattern(blk, 4096)...)))
		cmd, _ := p.next(p.md)
		for cmd != drbd.CmdWriteAck && cmd != drbd.CmdNegAck {
			cmd, _ = p.next(p.md)
		}
		if cmd != want {
			t.Fatalf("block %d: %v, want %v", blk, cmd, want)
		}
	}
	write(1, drbd.CmdWriteAck)
	faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, Err: syscall.EIO})
	write(2, drbd.CmdNegAck)
	p.n.await("the disk's end", func(s *Status) bool { return s.Disk == proto.Diskless })
	p.send(drbd.CmdBarrier, drbd.Barrier{ID: drbd.BarrierIDOf(7)})
	p.n.await("the link's end", func(s *Status) bool { return s.Conn < proto.Connected })
}

func TestPairUnderEachProtocol(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "protocol-a-io")
	for _, pr := range []proto.Protocol{proto.ProtocolA, proto.ProtocolB} {
		t.Run(pr.String(), func(t *testing.T) {
			p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.Protocol = pr })
			p.synced()
			a, b := p.node[0], p.node[1]
			for round := range 4 {
				w := startWriter(a, uint64(20+round), 8)
				time.Sleep(30 * time.Millisecond)
				if round%2 == 0 {
					p.cable.pull()
					p.await("the cut", func(s *Status) bool { return s.Conn < proto.Connected })
					time.Sleep(10 * time.Millisecond)
					p.cable.plug()
					p.await("the resync", func(s *Status) bool {
						return s.Conn == proto.Connected && s.Disk == proto.UpToDate && s.PeerDisk == proto.UpToDate
					})
				}
				w.end()
				if w.errs > 0 {
					a.dump()
					t.Fatal("a write failed")
				}
				// A planned move: the new Primary has every write that was acknowledged.
				a.ok("demote", a.Demote(bg()))
				b.ok("promote", b.Promote(bg(), false))
				w.check(t, w.acked(), b.content())
				p.equal()
				p.await("nothing left", inSync)
				a, b = b, a
			}
		})
	}
}

// The peer's disk goes and comes back on the same link while writes are only received, or not even that.
func TestPeerDetachUnderEachProtocol(t *testing.T) {
	for _, pr := range []proto.Protocol{proto.ProtocolA, proto.ProtocolB} {
		t.Run(pr.String(), func(t *testing.T) {
			p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.Protocol = pr })
			p.synced()
			a, b := p.node[0], p.node[1]
			w := startWriter(a, 31, 8)
			for range 5 {
				time.Sleep(10 * time.Millisecond)
				b.ok("detach", b.Detach(bg()))
				a.await("it", func(s *Status) bool { return s.PeerDisk == proto.Diskless })
				time.Sleep(10 * time.Millisecond)
				b.ok("attach", b.Attach(bg()))
				p.await("the resync", func(s *Status) bool {
					return s.Conn == proto.Connected && s.Disk == proto.UpToDate && s.PeerDisk == proto.UpToDate
				})
			}
			w.end()
			a.ok("flush", a.Flush())
			if w.errs > 0 || a.heard("link is lost") {
				a.dump()
				t.Fatal("the link or a write did not survive it")
			}
			p.await("nothing left", inSync)
			p.equal()
		})
	}
}

func TestProtocolsMustAgree(t *testing.T) {
	p := puppetNode(t, under(proto.ProtocolA))
	p.accept()
	p.features(drbd.Features{Min: 86, Max: 101})
	p.send(drbd.CmdProtocol, drbd.Protocol{Protocol: proto.ProtocolC})
	p.n.await("StandAlone", alone)
	if !p.n.heard("protocol C, this node A") {
		p.n.dump()
		t.Error("does not name the protocols")
	}
}

// A peer that answers pings but no write is dropped after timeout times ko-count, or with KoNever never.
func TestKoCount(t *testing.T) {
	for _, ko := range []int{2, KoNever} {
		t.Run(fmt.Sprint(ko), func(t *testing.T) {
			p := puppetNode(t, func(c *Config) { c.Timeout, c.KoCount = 50*time.Millisecond, ko })
			p.secondary()
			_, done := p.wrote(0)
			select {
			case err := <-done:
				if ko == KoNever {
					t.Fatalf("gave up: %v", err)
				}
				p.must(err)
				p.n.await("the mark", func(s *Status) bool { return s.OutOfSync == 4096 })
			case <-time.After(600 * time.Millisecond):
				if ko != KoNever {
					p.n.dump()
					t.Fatal("did not give up")
				}
			}
			if gone := p.n.heard("Connected -> Timeout"); gone == (ko == KoNever) {
				p.n.dump()
				t.Errorf("Timeout: %v", gone)
			}
		})
	}
}

// TestUnansweredRead: so is one that does not answer a read, which has no other copy to go to.
func TestUnansweredRead(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.Timeout, c.KoCount = 100*time.Millisecond, 2 })
	p.secondary()
	detached := make(chan error, 1)
	go func() { detached <- p.n.Detach(bg()) }()
	p.expect(drbd.CmdStateChgReq)
	p.ack(drbd.CmdStateChgReply, drbd.SSSuccess)
	p.must(<-detached)
	done := make(chan error, 1)
	go func() { _, err := p.n.ReadAt(block.Buffer(4096), 0); done <- err }()
	p.expect(drbd.CmdDataRequest)
	select {
	case err := <-done:
		if !errors.Is(err, ErrNoData) {
			t.Errorf("read: %v", err)
		}
		p.n.await("Timeout", func(*Status) bool { return p.n.heard("Connected -> Timeout") })
	case <-time.After(5 * time.Second):
		t.Fatal("the read waits for ever")
	}
}

// TestPeerStopsReading: so is one that takes no more data, whatever else it answers.
func TestPeerStopsReading(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) {
		c.Timeout, c.KoCount, c.SndBuf, c.PingInt = 100*time.Millisecond, 3, 64<<10, 50*time.Millisecond
	})
	p.secondary()
	go func() { // the meta socket's pings are answered
		for meta := p.meta; ; {
			h, err := p.md.Next()
			if err != nil {
				return
			}
			if h.Cmd == drbd.CmdPing {
				_, _ = meta.Write(drbd.AppendPacket(nil, drbd.H100, 0, drbd.CmdPingAck, drbd.Empty{}, 0))
			}
		}
	}()
	done := make(chan error, 16)
	for i := range int64(cap(done)) {
		go func() {
			_, err := p.n.WriteAt(block.Buffer(1<<20), i<<19)
			done <- err
		}()
	}
	for range cap(done) {
		select {
		case err := <-done:
			p.must(err) // alone
		case <-time.After(5 * time.Second):
			p.n.dump()
			t.Fatal("a write waits for ever")
		}
	}
	p.n.await("Timeout, and the marks", func(s *Status) bool { return s.OutOfSync > 8<<20 && p.n.heard("Connected -> Timeout") })
}

// Allocations of both nodes together, once pools and activity log are warm.
func TestWriteAllocatesNothing(t *testing.T) {
	b, ok := debug.ReadBuildInfo()
	if ok && slices.Contains(b.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("under the race detector sync.Pool forgets a quarter of what it is given, on purpose")
	}
	a, buf := benchPair(t), block.Buffer(4096)
	i := int64(0)
	write := func() {
		i++
		if _, err := a.WriteAt(buf, (i*7919)%(a.Size()/4096)*4096); err != nil {
			t.Error(err)
		}
	}
	for range 5000 {
		write()
	}
	if n := testing.AllocsPerRun(5000, write); n >= 1 { // tests beside it and the owner's status allocate a little
		t.Errorf("%.2f allocations per write", n)
	}
}

func TestUnknownProtocolIsRefused(t *testing.T) {
	_, err := New(Config{Resource: "r0", Node: "otter", Peer: "weasel", LocalAddr: "a", PeerAddr: "b", Protocol: 9,
		Open: func() (block.Device, error) { return nil, nil }})
	if !errors.Is(err, &proto.Error{Code: proto.CodeUnsupported}) || !strings.Contains(err.Error(), "protocol") {
		t.Errorf("%v", err)
	}
}
