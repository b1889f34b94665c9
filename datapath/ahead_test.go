package datapath

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/conformance"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// valve is a network that takes nothing but small packets while it is shut.
type valve struct {
	mu   sync.Mutex
	cond sync.Cond
	shut bool
}

func newValve() *valve {
	v := &valve{}
	v.cond.L = &v.mu
	return v
}

func (v *valve) set(shut bool) {
	v.mu.Lock()
	v.shut = shut
	v.mu.Unlock()
	v.cond.Broadcast()
}

func (v *valve) on(c *Config) {
	dial, listen := c.Dial, c.Listen
	c.Dial = func(ctx context.Context, laddr, raddr string) (net.Conn, error) {
		conn, err := dial(ctx, laddr, raddr)
		return valved{conn, v}, err
	}
	c.Listen = func(ctx context.Context, addr string) (net.Listener, error) {
		ln, err := listen(ctx, addr)
		return valvedListener{ln, v}, err
	}
}

type valvedListener struct {
	net.Listener
	v *valve
}

func (l valvedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return valved{conn, l.v}, err
}

type valved struct {
	net.Conn
	v *valve
}

func (c valved) Write(p []byte) (int, error) {
	c.v.mu.Lock()
	for c.v.shut && len(p) >= 4096 {
		c.v.cond.Wait()
	}
	c.v.mu.Unlock()
	return c.Conn.Write(p)
}

// pullsAhead configures both nodes to run ahead when n bytes are under way.
func pullsAhead(n int64) func(c *Config) {
	return func(c *Config) {
		c.Protocol, c.OnCongestion, c.CongestionFill = proto.ProtocolA, CongestionPullAhead, n
	}
}

func is(c proto.ConnState) func(s *Status) bool { return func(s *Status) bool { return s.Conn == c } }

// shutPair is a pair whose Primary, the first node, runs Ahead when fill bytes are under way. Nothing gets through to the peer
// until the valve is set to false.
func shutPair(t *testing.T, fill int64) (*pair, *valve) {
	t.Helper()
	v := newValve()
	p := newPair(t, testSize, testSize, func(i int, c *Config) {
		if pullsAhead(fill)(c); i == 0 {
			v.on(c)
		}
	})
	p.synced()
	t.Cleanup(func() { v.set(false) })
	v.set(true)
	return p, v
}

func TestAheadOfSlowLink(t *testing.T) {
	t.Parallel()
	conformance.Ran(t, conformance.SantuiSantui, "ahead-behind")
	p, v := shutPair(t, 128<<10)
	a, b := p.node[0], p.node[1]
	var stuck sync.WaitGroup
	for i := range int64(3) { // their data is not in the network yet
		stuck.Go(func() { a.write(i<<18, pattern(uint64(i), 64<<10)) })
	}
	a.await("the pull", is(proto.Ahead))
	for i := range int64(64) { // nobody waits for the link any more
		a.write((16+i)*65536, pattern(uint64(100+i), 8192))
	}
	a.ok("discard", a.Discard(2<<20, 1<<20))
	a.await("the marks", func(s *Status) bool {
		return s.Conn == proto.Ahead && s.PeerDisk == proto.Consistent && s.OutOfSync >= 1<<20
	})
	v.set(false)
	stuck.Wait()
	b.await("the news", func(s *Status) bool { return s.Conn == proto.Behind && s.Disk == proto.Outdated && s.OutOfSync > 0 })
	a.write(5<<20, pattern(200, 4096))
	p.await("the resync", inSync)
	p.equal()
	if !a.heard("congestion-fill 128 KiB") || !b.heard("Behind -> SyncTarget") {
		a.dump()
		b.dump()
		t.Error("the events do not tell")
	}
	a.ok("demote", a.Demote(bg()))
	b.ok("promote", b.Promote(bg(), false))
}

// TestDemoteAhead: a demotion does not leave the peer behind.
func TestDemoteAhead(t *testing.T) {
	t.Parallel()
	p, v := shutPair(t, 64<<10)
	a, b := p.node[0], p.node[1]
	var stuck sync.WaitGroup
	stuck.Go(func() { a.write(0, pattern(1, 64<<10)) })
	a.await("the pull", is(proto.Ahead))
	a.write(1<<20, pattern(2, 4096))
	v.set(false)
	stuck.Wait()
	a.ok("demote", a.Demote(bg()))
	b.ok("promote", b.Promote(bg(), false))
	p.await("the resync", inSync)
	p.equal()
}

// runsAhead makes the node a Primary that has left a puppet behind, with 2 blocks under way.
func runsAhead(t *testing.T) (p *puppet, epochs []drbd.BarrierAck) {
	t.Helper()
	p = puppetNode(t, pullsAhead(8192))
	p.secondary()
	for i := range int64(2) {
		_, done := p.wrote(i)
		p.must(<-done)
		if i == 0 {
			epochs = append(epochs, p.barrier())
		}
	}
	p.n.await("the pull", is(proto.Ahead))
	return p, append(epochs, p.barrier())
}

// barrier reads the next one and gives its answer.
func (p *puppet) barrier() drbd.BarrierAck {
	p.t.Helper()
	b, err := drbd.ParseBarrier(p.expect(drbd.CmdBarrier))
	p.must(err)
	return drbd.BarrierAck{ID: b.ID, SetSize: 1}
}

func (p *puppet) marked() drbd.BlockDesc {
	p.t.Helper()
	d, err := drbd.ParseBlockDesc(drbd.CmdOutOfSync, p.expect(drbd.CmdOutOfSync))
	p.must(err)
	return d
}

func TestAheadOfPuppet(t *testing.T) {
	t.Parallel()
	p, epochs := runsAhead(t)
	p.n.write(5*4096, pattern(5, 4096))
	p.n.write(5*4096, pattern(6, 4096)) // it knows
	p.n.write(9*4096+512, pattern(7, 512))
	if a, b := p.marked(), p.marked(); a != (drbd.BlockDesc{Sector: 40, Size: 4096}) || b != (drbd.BlockDesc{Sector: 73, Size: 512}) {
		t.Errorf("announced %+v and %+v", a, b)
	}
	// What the peer asks for now would clear marks.
	p.send(drbd.CmdRSDataRequest, drbd.BlockRequest{Sector: 40, ID: drbd.IDSyncer, Size: 4096})
	if c, err := drbd.ParseBlockAck(p.expectMeta(drbd.CmdRSCancel)); err != nil || c.Sector != 40 || c.Size != 4096 || c.ID != drbd.IDSyncer {
		t.Errorf("%+v, %v", c, err)
	}
	p.ack(drbd.CmdRSWriteAck, drbd.BlockAck{Sector: 40, ID: drbd.IDSyncer, Size: 4096})
	for _, e := range epochs {
		p.ack(drbd.CmdBarrierAck, e)
	}
	p.expect(drbd.CmdSyncUUID)
	p.n.await("the resync", is(proto.SyncSource))
	if s := p.n.Status(); s.OutOfSync != 8192 || s.UUIDs.Bitmap == 0 {
		t.Errorf("%+v", s)
	}
	for _, sector := range []uint64{40, 72} {
		p.send(drbd.CmdRSDataRequest, drbd.BlockRequest{Sector: sector, ID: drbd.IDSyncer, Size: 4096})
		p.expect(drbd.CmdRSDataReply)
		p.ack(drbd.CmdRSWriteAck, drbd.BlockAck{Sector: sector, ID: drbd.IDSyncer, Size: 4096})
	}
	p.n.await("the answers", func(s *Status) bool { return s.OutOfSync == 0 })
	p.send(drbd.CmdState, drbd.State{Role: proto.Secondary, Peer: proto.Primary, Conn: proto.Connected, Disk: proto.UpToDate, PeerDisk: proto.UpToDate})
	p.n.await("the end", inSync)
}

// TestAheadUnconfirmed: until the peer has confirmed what was sent before, the link is still congested. No resync begins, for
// writers would wait until it may.
func TestAheadUnconfirmed(t *testing.T) {
	t.Parallel()
	p, epochs := runsAhead(t)
	p.n.write(5*4096, pattern(5, 4096))
	p.marked()
	p.ack(drbd.CmdBarrierAck, epochs[0]) // one of two
	time.Sleep(calmTime + 500*time.Millisecond)
	done := make(chan error, 1)
	go func() { _, err := p.n.WriteAt(block.Buffer(4096), 9*4096); done <- err }()
	select {
	case err := <-done:
		p.must(err)
	case <-time.After(2 * time.Second):
		p.n.dump()
		t.Fatal("a write waits for the link that this node left behind")
	}
	if b := p.marked(); b.Sector != 72 {
		t.Errorf("announced %+v", b)
	}
	p.ack(drbd.CmdBarrierAck, epochs[1])
	p.n.await("the resync", is(proto.SyncSource))
}

// TestSourceMarksUntilAnswered: a block that was sent in a resync is out of sync until the peer says that it has it.
func TestSourceMarksUntilAnswered(t *testing.T) {
	t.Parallel()
	p, epochs := runsAhead(t)
	p.n.write(5*4096, pattern(5, 4096))
	p.n.write(9*4096, pattern(6, 4096))
	for _, e := range epochs {
		p.ack(drbd.CmdBarrierAck, e)
	}
	p.n.await("the resync", is(proto.SyncSource))
	for _, sector := range []uint64{40, 72} {
		p.send(drbd.CmdRSDataRequest, drbd.BlockRequest{Sector: sector, ID: drbd.IDSyncer, Size: 4096})
		p.expect(drbd.CmdRSDataReply)
	}
	p.ack(drbd.CmdRSWriteAck, drbd.BlockAck{Sector: 40, ID: drbd.IDSyncer, Size: 4096})
	p.n.await("the answer", func(s *Status) bool { return s.OutOfSync <= 4096 })
	p.hangUp()
	p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
	if s := p.n.Status(); s.OutOfSync != 4096 {
		p.n.dump()
		t.Errorf("%d bytes out of sync, one block was sent and not confirmed", s.OutOfSync)
	}
}

// TestLateAnswerOfATarget: the link is given up, and what is written from then on is marked. That the target has the block as it
// was before, which it says before the socket is closed, does not take the mark away.
func TestLateAnswerOfATarget(t *testing.T) {
	t.Parallel()
	p, epochs := runsAhead(t)
	p.n.write(5*4096, pattern(5, 4096))
	for _, e := range epochs {
		p.ack(drbd.CmdBarrierAck, e)
	}
	p.n.await("the resync", is(proto.SyncSource))
	p.send(drbd.CmdRSDataRequest, drbd.BlockRequest{Sector: 40, ID: drbd.IDSyncer, Size: 4096})
	p.expect(drbd.CmdRSDataReply)
	tr := p.n.traffic
	tr.mu.Lock()
	g := tr.gate
	tr.mu.Unlock()
	g.link = nil // as for TearDown
	tr.setGate(g)
	p.n.write(5*4096, pattern(6, 4096))
	p.ack(drbd.CmdRSWriteAck, drbd.BlockAck{Sector: 40, ID: drbd.IDSyncer, Size: 4096})
	p.ack(drbd.CmdPing, drbd.Empty{})
	p.expectMeta(drbd.CmdPingAck)
	if marked := g.disk.bm.Weight(); marked != 1 {
		t.Errorf("%d blocks are marked, one was written that the peer did not get", marked)
	}
}

// TestAheadLinkLost: whatever was sent or only announced is resynced when the peer is back.
func TestAheadLinkLost(t *testing.T) {
	t.Parallel()
	p, _ := runsAhead(t)
	p.n.write(5*4096, pattern(5, 4096))
	p.marked()
	p.hangUp()
	p.n.await("the marks", func(s *Status) bool { return s.Conn < proto.Connected && s.OutOfSync == 3*4096 && s.UUIDs.Bitmap != 0 })
	p.n.write(6*4096, pattern(6, 4096))
}

// TestNotAheadWithMarks: bits of which the peer may not know would make the resync endless.
func TestNotAheadWithMarks(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, pullsAhead(4096))
	p.secondary()
	p.send(drbd.CmdOutOfSync, drbd.BlockDesc{Sector: 800, Size: 4096})
	p.n.await("the mark", func(s *Status) bool { return s.OutOfSync == 4096 })
	_, done := p.wrote(0)
	p.must(<-done)
	p.n.await("a word about it", func(*Status) bool { return p.n.heard("does not run Ahead while 1 blocks are out of sync") })
	_, done = p.wrote(1)
	p.must(<-done)
	if s := p.n.Status(); s.Conn != proto.Connected {
		t.Errorf("%v", s.Conn)
	}
}

func TestCongestedExtents(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { pullsAhead(0)(c); c.CongestionExtents = 2 })
	p.secondary()
	_, done := p.wrote(0)
	p.must(<-done)
	_, done = p.wrote(1)
	p.must(<-done) // the same extent
	if s := p.n.Status(); s.Conn != proto.Connected {
		t.Errorf("%v", s.Conn)
	}
	_, done = p.wrote(2048)
	p.must(<-done)
	p.n.await("the pull", is(proto.Ahead))
}

func TestCongestionDisconnects(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { pullsAhead(4096)(c); c.OnCongestion = CongestionDisconnect })
	p.secondary()
	_, done := p.wrote(0)
	p.must(<-done)
	p.n.await("the end of the link", alone)
}

// TestBehindPuppet: left behind, resynced, left behind again in the middle of that.
func TestBehindPuppet(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, under(proto.ProtocolA))
	p.primary()
	state := drbd.State{Role: proto.Primary, Peer: proto.Secondary, Conn: proto.Ahead, Disk: proto.UpToDate, PeerDisk: proto.Consistent}
	p.send(drbd.CmdState, state)
	p.n.await("it", func(s *Status) bool { return s.Conn == proto.Behind && s.Disk == proto.Outdated })
	if err := p.n.Promote(bg(), false); err == nil {
		t.Error("promoted Behind")
	}
	p.send(drbd.CmdOutOfSync, drbd.BlockDesc{Sector: 80, Size: 4096})
	p.send(drbd.CmdOutOfSync, drbd.BlockDesc{Sector: 8000, Size: 512})
	p.send(drbd.CmdSyncUUID, drbd.SyncUUID(0xabcdef0123456780))
	p.n.await("the resync", func(s *Status) bool {
		return s.Conn == proto.SyncTarget && s.Disk == proto.Inconsistent && s.OutOfSync == 8192
	})
	asked := func(sector uint64) {
		t.Helper()
		if q, err := drbd.ParseBlockRequest(drbd.CmdRSDataRequest, p.expect(drbd.CmdRSDataRequest)); err != nil || q.Sector != sector || q.Size != 4096 {
			t.Fatalf("%+v, %v; want sector %d", q, err, sector)
		}
	}
	asked(80)
	asked(8000)
	// Ahead again: one answer comes late, the other one not at all.
	p.send(drbd.CmdState, state)
	p.n.await("it again", func(s *Status) bool { return s.Conn == proto.Behind && s.Disk == proto.Inconsistent })
	p.send(drbd.CmdOutOfSync, drbd.BlockDesc{Sector: 80, Size: 4096})
	reply := func(sector uint64, fill byte) {
		b := drbd.Data{Sector: sector, ID: drbd.IDSyncer}.Append(nil)
		for range 4096 {
			b = append(b, fill)
		}
		p.send(drbd.CmdRSDataReply, raw(b))
		p.expectMeta(drbd.CmdRSWriteAck)
	}
	reply(80, 1)
	p.ack(drbd.CmdRSCancel, drbd.BlockAck{Sector: 8000, ID: drbd.IDSyncer, Size: 4096})
	p.send(drbd.CmdSyncUUID, drbd.SyncUUID(0xabcdef0123456790))
	asked(80)
	asked(8000)
	reply(80, 2)
	reply(8000, 3)
	for end := false; !end; {
		h, err := p.md.Next()
		p.must(err)
		if end = h.Cmd == drbd.CmdPing; end {
			p.ack(drbd.CmdPingAck, drbd.Empty{})
		}
	}
	p.n.await("the end", func(s *Status) bool { return s.Conn == proto.Connected && s.Disk == proto.UpToDate && s.OutOfSync == 0 })
	if c := p.n.content(); c[80*512] != 2 || c[8000*512] != 3 {
		t.Errorf("%d and %d", c[80*512], c[8000*512])
	}
}

func TestCongestionConfig(t *testing.T) {
	for _, f := range []func(c *Config){
		func(c *Config) { c.OnCongestion = CongestionPullAhead }, // protocol C
		func(c *Config) { c.OnCongestion, c.Protocol = "hurry", proto.ProtocolA },
		func(c *Config) { c.CongestionFill = -1 },
		func(c *Config) { c.CongestionExtents = -1 },
	} {
		p := &pair{t: t, cable: &cable{}, addr: [2]string{freePort(t), freePort(t)}}
		c := p.boot(0, freshDisk(t, testSize)).cfg
		_ = p.node[0].Close()
		f(&c)
		if r, err := New(c); err == nil {
			_ = r.Close()
			t.Errorf("%+v is taken", c.OnCongestion)
		}
	}
}
