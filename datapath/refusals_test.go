package datapath

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

func (n *node) count(text string) (c int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.said {
		if strings.Contains(s, text) {
			c++
		}
	}
	return c
}

// hears waits for an event.
func (n *node) hears(text string) {
	n.t.Helper()
	for end := time.Now().Add(10 * time.Second); n.count(text) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			n.dump()
			n.t.Fatalf("%s: no %q", n.name, text)
		}
	}
}

// TestLateRefusal: what a peer without disk refused in the resync before may come, on the meta socket, when the next one has
// begun. The blocks are copied in that all the same, and the peer is UpToDate then.
func TestLateRefusal(t *testing.T) {
	t.Parallel()
	n := nineNode(t, nil)
	n.n.ok("promote", n.n.Promote(bg(), true))
	n.n.ok("demote", n.n.Demote(bg()))
	n.becomesTarget()
	for i := range uint64(37) {
		n.ack(drbd.CmdNegAck, drbd.BlockAck{Sector: i * 8, ID: drbd.IDSyncer, Size: 4096})
	}
	n.n.await("the refusals", func(s *Status) bool { return s.Sync != nil && s.Sync.Failed == 37*4096 })
	n.copiesAll()
	n.state(both)
	n.n.await("the end of the resync", inSync)
	n.n.hears("37 blocks of a resync, 148 KiB, the first one at sector 0")
	if c := n.n.count("cannot write"); c != 1 {
		n.n.dump()
		t.Errorf("%d alerts", c)
	}
}

// TestBlockRefused: a block that the target cannot write stays marked on both nodes, and the target Inconsistent. Once an
// application has written it there it is as good as the others, and a resync that ends then leaves nothing behind.
func TestBlockRefused(t *testing.T) {
	t.Parallel()
	for _, written := range []bool{false, true} {
		p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.OnIOError = OnIOErrorPassOn })
		faults, _ := p.faulty(1)
		p.synced()
		a, b := p.node[0], p.node[1]
		b.ok("disconnect", b.Disconnect(bg(), false))
		a.await("it", func(s *Status) bool { return s.Conn < proto.Connected })
		a.write(0, pattern(1, 2<<20))
		heal := faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: 0, To: 4096, Err: syscall.EIO})
		for _, n := range p.node {
			n.ok("rate", n.SetResyncRate(256<<10))
		}
		b.ok("connect", b.Connect(bg(), false))
		failed := func(s *Status) bool { return s.Sync != nil && s.Sync.Failed > 0 }
		p.await("the failure", failed)
		if written {
			heal()
			a.write(0, pattern(2, int(a.Status().Sync.Failed)))
			p.await("the write", func(s *Status) bool { return !failed(s) })
		}
		for _, n := range p.node {
			n.ok("rate", n.SetResyncRate(100<<20))
		}
		if written {
			p.await("the end", inSync)
			p.equal()
			continue
		}
		p.await("the end", func(s *Status) bool {
			return s.Conn == proto.Connected && min(s.Disk, s.PeerDisk) == proto.Inconsistent && s.OutOfSync > 0 && s.OutOfSync < 1<<20
		})
		a.hears("cannot write")
		heal()
		b.ok("disconnect", b.Disconnect(bg(), false))
		a.await("it", func(s *Status) bool { return s.Conn < proto.Connected })
		b.ok("connect", b.Connect(bg(), false))
		p.await("the repair", inSync)
		p.equal()
	}
}

// TestSourceLosesDisk: the disk of a SyncSource leaves while much is asked for: one alert with a count.
func TestSourceLosesDisk(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	faults, _ := p.faulty(0)
	p.synced()
	a, b := p.node[0], p.node[1]
	a.ok("demote", a.Demote(bg()))
	slow := faults.Inject(blocktest.Rule{Ops: blocktest.OpRead, To: a.Size(), Delay: 500 * time.Millisecond})
	for _, n := range p.node {
		n.ok("rate", n.SetResyncRate(1<<20)) // small requests
	}
	a.ok("invalidate-remote", a.InvalidateRemote(bg()))
	b.await("requests", func(s *Status) bool { return s.Counters.Pending > 64 }) // more than one
	slow()
	faults.Inject(blocktest.Rule{Ops: blocktest.OpRead, To: a.Size(), Err: syscall.EIO})
	a.await("no disk", func(s *Status) bool { return s.Disk == proto.Diskless })
	b.hears("cannot read")
	time.Sleep(2 * refusalQuiet)
	if c := b.count("cannot read"); c != 1 || !b.heard("left in the middle of the resync: they stay out of sync") {
		b.dump()
		t.Errorf("%d alerts", c)
	}
}
