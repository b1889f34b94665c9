package datapath

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/conformance"
	"example.com/santui/proto"
)

// Scenarios of DRBD's own test suite that no other test here shows, with santui on both nodes.

// TestPromoteWhileConnecting: both nodes want to be Primary while they shake hands, again and again. Every command ends,
// there is never more than one Primary in a connection, and what was written is on both.
func TestPromoteWhileConnecting(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "promote-while-connecting", "two-primaries-reject")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	p.node[0].ok("demote", p.node[0].Demote(bg()))
	won := 0
	for round := range 6 {
		p.node[0].ok("disconnect", p.node[0].Disconnect(bg(), false))
		p.node[1].await("the end of the link", func(s *Status) bool { return !connected(s) })
		p.node[0].ok("connect", p.node[0].Connect(bg(), false))
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
		first := p.node[round%2]
		ctx, cancel := context.WithTimeout(bg(), 20*time.Second)
		// A promotion before the handshake is one without the peer, and a new generation; a second one would be a split brain.
		err := first.Promote(ctx, false)
		if ctx.Err() != nil {
			first.dump()
			t.Fatalf("round %d: the promotion does not end: %v", round, err)
		}
		p.await("connection", inSync)
		if err == nil {
			won++
			if err := p.node[1-round%2].Promote(ctx, false); err == nil {
				t.Fatalf("round %d: two Primaries", round)
			}
			first.write(int64(round)<<16, pattern(uint64(round), 64<<10))
			first.ok("demote", first.Demote(bg()))
		}
		cancel()
	}
	if won == 0 {
		t.Error("no promotion was granted")
	}
	p.equal()
}

// TestTwoPrimariesMeet: both nodes were promoted while they did not see each other. No connection with two Primaries comes
// about, and no data is touched.
func TestTwoPrimariesMeet(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "two-primaries-reject")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a, b := p.node[0], p.node[1]
	p.cable.pull()
	p.await("the end of the link", func(s *Status) bool { return !connected(s) })
	b.ok("promote", b.Promote(bg(), false))
	b.write(0, pattern(9, 4096))
	p.cable.plug()
	p.await("StandAlone", alone)
	for _, n := range p.node {
		if s := n.Status(); s.Problem == "" || s.Role != proto.Primary {
			n.dump()
			t.Errorf("%s: %v, problem %q", n.name, s.Role, s.Problem)
		}
	}
	if string(a.content()[:4096]) == string(pattern(9, 4096)) {
		t.Error("data went over")
	}
}

// TestRevertOlderData: a Secondary's disk is set back to a snapshot of an older generation. That is noticed, and the newer data
// comes.
func TestRevertOlderData(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "revert-older-data")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a := p.node[0]
	a.write(0, pattern(1, 256<<10))
	_ = p.node[1].Close()
	disk := p.node[1].disk.(*blocktest.Mem)
	old := disk.Clone()
	a.await("the end of the link", func(s *Status) bool { return !connected(s) })
	a.write(1<<20, pattern(2, 256<<10))
	for i, d := range []*blocktest.Mem{disk, old} {
		b := p.boot(1, d)
		b.ok("attach", b.Attach(bg()))
		b.ok("connect", b.Connect(bg(), false))
		p.await("the resync", inSync)
		p.equal()
		if i == 0 {
			_ = b.Close()
			a.await("the end of the link", func(s *Status) bool { return !connected(s) })
		}
	}
}

// TestWritesWhilePaused: a resync is paused by either node in turn while applications write, where it has been and where it
// has not.
func TestWritesWhilePaused(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "resync-write-during-pause")
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.ResyncRate = 8 << 20 })
	p.up()
	p.await("connection", connected)
	a := p.node[0]
	a.ok("promote", a.Promote(bg(), true))
	w := startWriter(a, 41, 4)
	for round := range 6 {
		n := p.node[round%2]
		n.ok("pause", n.PauseSync(bg()))
		if round < 2 {
			p.await("the pause", func(s *Status) bool { return s.Conn == proto.PausedSyncS || s.Conn == proto.PausedSyncT })
		}
		time.Sleep(20 * time.Millisecond)
		n.ok("resume", n.ResumeSync(bg()))
		time.Sleep(20 * time.Millisecond)
	}
	for _, n := range p.node {
		n.ok("rate", n.SetResyncRate(1<<30))
	}
	p.await("the sync", func(s *Status) bool { return s.Conn == proto.Connected && s.PeerDisk == proto.UpToDate })
	w.end()
	a.ok("flush", a.Flush())
	p.await("quiet", inSync)
	p.equal()
	w.check(t, w.acked(), p.node[1].content())
}

// TestStressAL: writes all over a device of 64 extents with an activity log of 7, from many sides, with a crash of the
// Primary in the middle. No more than the log covers is resynced.
func TestStressAL(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "stress-al")
	t.Parallel()
	const size, extents, extent = 256 << 20, 7, 4 << 20
	p := newPair(t, size, size, func(_ int, c *Config) { c.ALExtents = extents })
	p.up()
	p.await("connection", connected)
	a := p.node[0]
	a.ok("skip", a.SkipInitialSync(bg()))
	p.await("two good copies", inSync)
	a.ok("promote", a.Promote(bg(), false))
	scatter := func(n *node, writes int) map[int64]uint64 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		done := map[int64]uint64{}
		for lane := range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				r := rand.New(rand.NewPCG(uint64(lane), uint64(writes)))
				for i := range writes {
					seed := uint64(lane)<<32 | uint64(i)
					off := (r.Int64N(60)*extent + int64(lane)*256<<10) + r.Int64N(64)*4096
					if _, err := n.WriteAt(pattern(seed, 4096), off); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					done[off] = seed
					mu.Unlock()
				}
			}()
		}
		wg.Wait()
		return done
	}
	done := scatter(a, 150)
	a.ok("flush", a.Flush())
	if n := a.traffic.gate.disk.md.Stats().ALWrites; n < 4*extents {
		t.Errorf("only %d transactions of the activity log", n)
	}
	p.cable.pull()
	left := a.disk.(*blocktest.Mem).CrashClone(3, 50)
	_ = a.Close()
	p.node[1].await("the end of the link", func(s *Status) bool { return !connected(s) })
	a = p.boot(0, left)
	p.cable.plug()
	a.ok("attach", a.Attach(bg()))
	if marked := a.Status().OutOfSync; marked == 0 || marked > extents*extent {
		t.Errorf("%d KiB are marked after the crash; the activity log covers %d", marked>>10, extents*extent>>10)
	}
	a.ok("connect", a.Connect(bg(), false))
	p.await("the resync", inSync)
	p.equal()
	for off, seed := range done {
		if string(a.content1(off)) != string(pattern(seed, 4096)) {
			t.Fatalf("the flushed write at %d is lost", off)
		}
	}
}

// content1 reads one block straight from the disk.
func (n *node) content1(off int64) []byte {
	n.t.Helper()
	b := make([]byte, 4096)
	if _, err := n.disk.ReadAt(b, off); err != nil {
		n.t.Fatal(err)
	}
	return b
}

// TestDiskReturnsWithoutFullSync: a disk that was let go while connected comes back and takes only what it missed.
func TestDiskReturnsWithoutFullSync(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "attach-while-connected-not-uptodate")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a, b := p.node[0], p.node[1]
	for round := range 2 {
		b.ok("detach", b.Detach(bg()))
		a.await("it", func(s *Status) bool { return s.PeerDisk == proto.Diskless })
		a.write(int64(round)<<20, pattern(uint64(round), 256<<10))
		before := b.Status().Counters.Received
		b.ok("attach", b.Attach(bg()))
		p.await("the resync", inSync)
		if got := b.Status().Counters.Received - before; got > 1<<20 {
			t.Errorf("%d KiB came where 256 were missing", got>>10)
		}
		p.equal()
	}
}
