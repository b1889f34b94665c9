package datapath

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/conformance"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

const testSize = 16 << 20

func TestInitialSync(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "resync-initial")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.up()
	p.await("connection", connected)
	a := p.node[0]
	a.ok("promote", a.Promote(bg(), true))
	for i := range 32 {
		a.write(int64(i)*400<<10, pattern(uint64(i), 64<<10))
	}
	p.await("the sync", inSync)
	a.ok("flush", a.Flush())
	p.equal()
	if s := a.Status(); s.UUIDs.Bitmap != 0 || s.UUIDs.Current&^1 != p.node[1].Status().UUIDs.Current {
		t.Errorf("histories differ after the sync: %x, %x", s.UUIDs, p.node[1].Status().UUIDs)
	}
}

func TestForcedAloneThenConnect(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	a, b := p.node[0], p.node[1]
	a.ok("attach", a.Attach(bg()))
	a.ok("promote", a.Promote(bg(), true))
	a.write(0, pattern(1, 1<<20))
	a.write(3<<20, pattern(2, 3<<20))
	b.ok("attach", b.Attach(bg()))
	for _, n := range p.node {
		n.ok("connect", n.Connect(bg(), false))
	}
	p.await("the sync", inSync)
	p.equal()
}

func TestReplicatedWrites(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a, b := p.node[0], p.node[1]
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for i := range 100 {
				n := 512 * (1 + r.IntN(64))
				off := 512 * r.Int64N((a.Size()-int64(n))/512)
				if _, err := a.WriteAt(pattern(uint64(w*1000+i), n), off); err != nil {
					t.Error(err)
					return
				}
				if i%20 == 0 {
					if err := a.Flush(); err != nil {
						t.Error(err)
					}
				}
			}
		}()
	}
	wg.Wait()
	a.write(5<<20, pattern(77, 3<<20+512)) // split
	p.equal()
	got := make([]byte, 4096)
	if _, err := a.ReadAt(got, 5<<20); err != nil || string(got) != string(pattern(77, 3<<20+512)[:4096]) {
		t.Errorf("read back: %v", err)
	}
	a.ok("flush", a.Flush())
	if s := a.Status(); s.OutOfSync != 0 || s.Conn != proto.Connected {
		t.Errorf("after writes: %+v", s)
	}
	if n := b.disk.(*blocktest.Mem).Unflushed(); n != 0 {
		t.Errorf("after a flush the peer's disk still has %d sectors in its cache", n)
	}
}

func TestDiscardAndZeroes(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "unusual-bios")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a := p.node[0]
	a.write(0, pattern(1, 8<<20))
	a.ok("discard", a.Discard(1<<20, 5<<20))
	a.ok("zeroes", a.WriteZeroes(512, 1024, false))
	p.equal()
	got := make([]byte, 6<<20)
	if _, err := a.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if got[511] == 0 && got[510] == 0 || strings.Trim(string(got[512:1536]), "\x00") != "" || strings.Trim(string(got[1<<20:]), "\x00") != "" {
		t.Error("ranges do not read as zeroes")
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a, b := p.node[0], p.node[1]
	for _, off := range []int64{-512, 1, a.Size(), a.Size() - 512} {
		if _, err := a.WriteAt(make([]byte, 1024), off); !errors.Is(err, ErrRange) {
			t.Errorf("write at %d: %v", off, err)
		}
	}
	if _, err := b.ReadAt(make([]byte, 512), 0); !errors.Is(err, ErrNotPrimary) || !errors.Is(err, syscall.EROFS) {
		t.Errorf("read on a Secondary: %v", err)
	}
	if err := b.Promote(bg(), false); err == nil {
		t.Error("two Primaries")
	}
	if err := b.OpenDevice(); !errors.Is(err, ErrNotPrimary) {
		t.Errorf("open on a Secondary: %v", err)
	}
	a.ok("open", a.OpenDevice())
	if err := a.Demote(bg()); !errors.Is(err, ErrInUse) {
		t.Errorf("demote while open: %v", err)
	}
	a.ok("close", a.CloseDevice())
	if err := a.CloseDevice(); err == nil {
		t.Error("closed twice")
	}
}

func TestFailoverBothWays(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "switch-primaries")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a, b := p.node[0], p.node[1]
	for i := range 3 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		data := pattern(uint64(i), 256<<10)
		from.write(int64(i)<<20, data)
		from.ok("demote", from.Demote(bg()))
		to.ok("promote", to.Promote(bg(), false))
		got := make([]byte, len(data))
		if _, err := to.ReadAt(got, int64(i)<<20); err != nil || string(got) != string(data) {
			t.Fatalf("round %d: data is not there: %v", i, err)
		}
		to.write(int64(i)<<20, pattern(uint64(i+100), 4096))
	}
	p.equal()
}

// writer writes random blocks until stopped and remembers what each block may hold.
type writer struct {
	n    *node
	stop chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	sent map[int64][]uint64 // block -> seeds of all contents sent, oldest first
	ack  map[int64]int      // block -> the newest of them that was acknowledged
	errs int
}

const (
	writerBlock = 4096
	reserved    = 1 << 20 // at the end of the device, left alone by writers
)

func startWriter(n *node, seed uint64, lanes int) *writer {
	w := &writer{n: n, stop: make(chan struct{}), sent: map[int64][]uint64{}, ack: map[int64]int{}}
	blocks := (n.Size() - reserved) / writerBlock
	for lane := range lanes {
		w.wg.Add(1)
		go func() {
			defer w.wg.Done()
			r := rand.New(rand.NewPCG(seed, uint64(lane)))
			for i := uint64(0); ; i++ {
				select {
				case <-w.stop:
					return
				default:
				}
				blk := r.Int64N(blocks/int64(lanes))*int64(lanes) + int64(lane) // lanes do not overlap
				if !w.write(blk, seed<<48|uint64(lane)<<40|i) {
					return
				}
			}
		}()
	}
	return w
}

func (w *writer) write(blk int64, seed uint64) bool {
	w.mu.Lock()
	w.sent[blk] = append(w.sent[blk], seed)
	nr := len(w.sent[blk]) - 1
	w.mu.Unlock()
	_, err := w.n.WriteAt(pattern(seed, writerBlock), blk*writerBlock)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.errs++
		return false
	}
	w.ack[blk] = nr
	return true
}

func (w *writer) end() {
	close(w.stop)
	w.wg.Wait()
}

// acked is what was acknowledged until now.
func (w *writer) acked() map[int64]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.ack)
}

// check says that every block holds what was acknowledged for it, or something sent later.
func (w *writer) check(t *testing.T, acked map[int64]int, content []byte) {
	t.Helper()
	for blk, nr := range acked {
		got := string(content[blk*writerBlock:][:writerBlock])
		if !slices.ContainsFunc(w.sent[blk][nr:], func(seed uint64) bool { return got == string(pattern(seed, writerBlock)) }) {
			t.Fatalf("acknowledged block %d is lost", blk)
		}
	}
}

func TestCutsWhileWriting(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "busy-resync")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a := p.node[0]
	for round := range 4 {
		w := startWriter(a, uint64(round+1), 8)
		time.Sleep(time.Duration(20+rand.IntN(40)) * time.Millisecond)
		p.cable.pull()
		p.await("the break", func(s *Status) bool { return s.Conn < proto.Connected })
		time.Sleep(20 * time.Millisecond)
		p.cable.plug()
		p.await("reconnection", connected)
		time.Sleep(20 * time.Millisecond)
		w.end()
		if w.errs > 0 {
			a.dump()
			t.Fatal("a write failed although the local disk is fine")
		}
		p.await("the resync", inSync)
		p.equal()
		w.check(t, w.acked(), p.node[1].content())
	}
	if s := a.Status(); s.OutOfSync != 0 {
		t.Errorf("left out of sync: %d", s.OutOfSync)
	}
}

func TestBitmapResyncIsPartial(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "resync-bitmap")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a := p.node[0]
	p.cable.pull()
	p.await("the break", func(s *Status) bool { return s.Conn < proto.Connected })
	a.write(1<<20, pattern(9, 64<<10))
	if s := a.Status(); s.PeerDisk != proto.DUnknown {
		t.Errorf("peer disk is %v", s.PeerDisk)
	}
	before := p.node[1].Status().Counters.Written
	p.cable.plug()
	p.await("the resync", inSync)
	p.equal()
	if n := p.node[1].Status().Counters.Written - before; n < 64<<10 || n > 2<<20 {
		t.Errorf("resynced %d bytes for 64 KiB of changes", n)
	}
}

// A Primary loses power, comes back, and its copy counts: what was flushed before must be there, whatever its disk's
// cache lost.
func TestPrimaryCrash(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	for round := range 3 {
		a := p.node[0]
		w := startWriter(a, uint64(round+50), 4)
		flushed, at := pattern(uint64(round), 64<<10), a.Size()-reserved
		a.write(at, flushed)
		a.ok("flush", a.Flush())
		time.Sleep(30 * time.Millisecond)
		p.cable.pull()
		left := a.disk.(*blocktest.Mem).CrashClone(uint64(round), 50)
		w.end()
		_ = a.Close()
		a = p.boot(0, left)
		p.cable.plug()
		a.ok("attach", a.Attach(bg()))
		if !a.heard("activity log") {
			a.dump()
			t.Fatal("the activity log of the crashed Primary was not applied")
		}
		a.ok("connect", a.Connect(bg(), false))
		p.await("the resync", inSync)
		p.equal()
		if string(a.content()[at:][:len(flushed)]) != string(flushed) {
			t.Fatal("a flushed write is lost")
		}
		a.ok("promote", a.Promote(bg(), false))
	}
}

// A Primary loses power and the other node takes over: it has all that was acknowledged. When the old Primary comes
// back it follows.
func TestTakeover(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	for round := range 3 {
		from, to := round%2, 1-round%2
		a, b := p.node[from], p.node[to]
		w := startWriter(a, uint64(round+20), 8)
		time.Sleep(30 * time.Millisecond)
		acked := w.acked()
		left := a.disk.(*blocktest.Mem).CrashClone(uint64(round), 30) // power is gone here
		p.cable.pull()
		w.end()
		_ = a.Close()
		b.await("the break", func(s *Status) bool { return s.Conn < proto.Connected })
		b.ok("promote", b.Promote(bg(), false))
		w.check(t, acked, b.content())
		w2 := startWriter(b, uint64(round+30), 4)
		a = p.boot(from, left)
		p.cable.plug()
		a.ok("attach", a.Attach(bg()))
		a.ok("connect", a.Connect(bg(), false))
		p.await("connection", connected)
		time.Sleep(20 * time.Millisecond)
		w2.end()
		p.await("the resync", inSync)
		p.equal()
		if s := a.Status(); s.Role != proto.Secondary {
			t.Fatalf("the old Primary came back as %v", s.Role)
		}
		w2.check(t, w2.acked(), a.content())
	}
}

func TestSecondaryCrash(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	for round := range 3 {
		w := startWriter(p.node[0], uint64(round+80), 4)
		time.Sleep(30 * time.Millisecond)
		p.cable.pull()
		left := p.node[1].disk.(*blocktest.Mem).CrashClone(uint64(round), 50)
		_ = p.node[1].Close()
		time.Sleep(10 * time.Millisecond)
		b := p.boot(1, left)
		p.cable.plug()
		b.ok("attach", b.Attach(bg()))
		b.ok("connect", b.Connect(bg(), false))
		p.await("reconnection", connected)
		time.Sleep(20 * time.Millisecond)
		w.end()
		p.await("the resync", inSync)
		if w.errs > 0 {
			t.Fatal("a write failed although the Primary's disk is fine")
		}
		p.equal()
		w.check(t, w.acked(), p.node[1].content())
	}
}

func TestAttachAgain(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a := p.node[0]
	a.write(0, pattern(3, 1<<20))
	_ = p.node[1].Close()
	_ = a.Close()
	p.boot(0, a.disk)
	p.boot(1, p.node[1].disk)
	p.up()
	p.await("connection", inSync)
	if p.node[0].heard("activity log") {
		t.Error("a clean shutdown left an activity log to apply")
	}
	if s := p.node[0].Status(); s.Role != proto.Secondary {
		t.Errorf("came up as %v", s.Role)
	}
}

func TestWrongSecret(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(i int, c *Config) {
		if i == 1 {
			c.Secret = []byte("other")
		}
	})
	p.up()
	p.await("StandAlone", alone)
	for _, n := range p.node {
		if !n.heard("shared-secret") || !n.heard("otter") || !n.heard("weasel") {
			n.dump()
			t.Errorf("%s does not say what is wrong", n.name)
		}
	}
}

func TestNoSecretAgainstSecret(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(i int, c *Config) {
		if i == 1 {
			c.CRAMAlg, c.Secret = "", nil
		}
	})
	p.up()
	// Whoever finds out first goes StandAlone; the other one may only see that it hangs up.
	deadline := time.Now().Add(5 * time.Second)
	for {
		for _, n := range p.node {
			if n.heard("cram-hmac-alg") && alone(n.Status()) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody says that only one node authenticates")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestSmallerPeer(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "connect-differing-sizes")
	t.Parallel()
	p := newPair(t, testSize, testSize/2, nil)
	a := p.node[0]
	a.ok("attach", a.Attach(bg()))
	a.ok("promote", a.Promote(bg(), true))
	b := p.node[1]
	b.ok("attach", b.Attach(bg()))
	for _, n := range p.node {
		n.ok("connect", n.Connect(bg(), false))
	}
	a.await("refusal", alone)
	if !a.heard("too small") {
		a.dump()
		t.Error("does not say that the peer is too small")
	}
}

func TestDifferentSizesFresh(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "connect-differing-sizes")
	t.Parallel()
	p := newPair(t, testSize, testSize/2, nil)
	p.synced()
	if a, b := p.node[0].Size(), p.node[1].Size(); a != b || a > testSize/2 {
		t.Errorf("sizes %d and %d", a, b)
	}
	p.equal()
}

// fork lets both nodes write on their own: otter at the beginning, then weasel, Primary now, at 1 MiB. The cable is cut.
func (p *pair) fork() {
	p.t.Helper()
	a, b := p.node[0], p.node[1]
	p.cable.pull()
	p.await("the break", func(s *Status) bool { return s.Conn < proto.Connected })
	a.write(0, pattern(1, 8192))
	a.ok("demote", a.Demote(bg()))
	b.ok("promote", b.Promote(bg(), false))
	b.write(1<<20, pattern(2, 8192))
}

func TestSplitBrain(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "split-brain")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a, b := p.node[0], p.node[1]
	p.fork()
	p.cable.plug()
	p.await("StandAlone", alone)
	for _, n := range p.node {
		if !n.heard("split brain") {
			n.dump()
			t.Errorf("%s does not call it a split brain", n.name)
		}
		if !strings.Contains(n.Status().Problem, "split brain") {
			t.Errorf("%s: problem is %q", n.name, n.Status().Problem)
		}
	}
	if string(a.content()[1<<20:][:8192]) == string(pattern(2, 8192)) || string(b.content()[:8192]) == string(pattern(1, 8192)) {
		t.Fatal("data was touched in a split brain")
	}
	a.ok("connect", a.Connect(bg(), true))
	b.ok("connect", b.Connect(bg(), false))
	p.await("the resync", inSync)
	p.equal()
	if string(a.content()[1<<20:][:8192]) != string(pattern(2, 8192)) {
		t.Error("the winner's data did not come")
	}
	if string(a.content()[:8192]) == string(pattern(1, 8192)) {
		t.Error("the loser's data stayed")
	}
}

func TestPauseAndRate(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.ResyncRate = 2 << 20 })
	p.up()
	p.await("connection", connected)
	a, b := p.node[0], p.node[1]
	a.ok("promote", a.Promote(bg(), true))
	a.await("the sync", func(s *Status) bool { return s.Conn == proto.SyncSource })
	a.ok("pause", a.PauseSync(bg()))
	p.await("the pause", func(s *Status) bool { return s.Conn == proto.PausedSyncS || s.Conn == proto.PausedSyncT })
	time.Sleep(700 * time.Millisecond) // what was asked for still comes
	left := b.Status().OutOfSync
	time.Sleep(400 * time.Millisecond)
	if now := b.Status(); now.OutOfSync != left || left == 0 || now.Sync == nil || !now.Sync.Paused || now.Sync.By != "otter" {
		t.Errorf("not paused: %d, %d, %+v", left, now.OutOfSync, now.Sync)
	}
	a.write(0, pattern(1, 1<<20))
	a.ok("resume", a.ResumeSync(bg()))
	p.await("the sync again", func(s *Status) bool { return s.Conn.Syncing() && s.Sync != nil && !s.Sync.Paused })
	b.ok("rate", b.SetResyncRate(1<<30))
	p.await("the end", inSync)
	p.equal()
}

func TestWritesDuringSlowSync(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.ResyncRate = 24 << 20 })
	p.up()
	p.await("connection", connected)
	a := p.node[0]
	a.ok("promote", a.Promote(bg(), true))
	a.await("the sync", func(s *Status) bool { return s.Conn == proto.SyncSource })
	w := startWriter(a, 7, 8)
	p.await("the end", inSync)
	w.end()
	p.equal()
	w.check(t, w.acked(), p.node[1].content())
}

// A SyncTarget can be Primary: what it does not have yet it reads from the peer.
func TestPrimaryAsSyncTarget(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.ResyncRate = 8 << 20 })
	a, b := p.node[0], p.node[1]
	a.ok("attach", a.Attach(bg()))
	a.ok("promote", a.Promote(bg(), true))
	want := pattern(4, 1<<20)
	a.write(12<<20, want)
	a.ok("demote", a.Demote(bg()))
	b.ok("attach", b.Attach(bg()))
	for _, n := range p.node {
		n.ok("connect", n.Connect(bg(), false))
	}
	b.await("the sync", func(s *Status) bool { return s.Conn == proto.SyncTarget })
	b.ok("promote", b.Promote(bg(), false))
	got := make([]byte, len(want))
	if _, err := b.ReadAt(got, 12<<20); err != nil || string(got) != string(want) {
		t.Fatalf("read through the peer: %v", err)
	}
	w := startWriter(b, 9, 8)
	p.await("the end", inSync)
	w.end()
	p.equal()
	w.check(t, w.acked(), a.content())
}

func TestDetachAndDisklessPrimary(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "toggle-disk")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a, b := p.node[0], p.node[1]
	want := pattern(6, 64<<10)
	a.write(0, want)
	a.ok("detach", a.Detach(bg()))
	a.await("Diskless", func(s *Status) bool { return s.Disk == proto.Diskless })
	b.await("it", func(s *Status) bool { return s.PeerDisk == proto.Diskless })
	got := make([]byte, len(want))
	if _, err := a.ReadAt(got, 0); err != nil || string(got) != string(want) {
		t.Fatalf("read without disk: %v", err)
	}
	a.write(2<<20, pattern(8, 64<<10))
	a.ok("flush", a.Flush())
	b.await("marks of what the missing disk lacks", func(s *Status) bool { return s.OutOfSync >= 64<<10 })
	a.ok("attach", a.Attach(bg()))
	p.await("the resync", inSync)
	p.equal()
}

func TestSecondaryDetachAndAttach(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "toggle-disk")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a, b := p.node[0], p.node[1]
	w := startWriter(a, 11, 4)
	for range 3 {
		time.Sleep(20 * time.Millisecond)
		b.ok("detach", b.Detach(bg()))
		a.await("it", func(s *Status) bool { return s.PeerDisk == proto.Diskless })
		time.Sleep(20 * time.Millisecond)
		b.ok("attach", b.Attach(bg()))
		p.await("the resync", func(s *Status) bool {
			return s.Conn == proto.Connected && s.Disk == proto.UpToDate && s.PeerDisk == proto.UpToDate
		})
	}
	w.end()
	if w.errs > 0 || a.heard("link is lost") {
		a.dump()
		t.Fatal("the link or a write did not survive it")
	}
	p.await("quiet", inSync)
	p.equal()
	w.check(t, w.acked(), b.content())
}

func TestFUAFromPeer(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	p.primary()
	d := drbd.Data{Sector: 64, ID: drbd.BlockIDOf(7), Flags: drbd.DPSendWriteAck | drbd.DPFUA}
	p.send(drbd.CmdData, drbd.Bytes(append(d.Append(nil), pattern(1, 4096)...)))
	p.expectMeta(drbd.CmdWriteAck)
	if n := p.n.disk.(*blocktest.Mem).Unflushed(); n != 0 {
		t.Errorf("acknowledged a FUA write with %d sectors in the cache", n)
	}
}

func TestDiskErrorOnPrimary(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "io-errors")
	t.Parallel()
	var faults *blocktest.Faults
	p := newPair(t, testSize, testSize, nil)
	_ = p.node[0].Close()
	faults = blocktest.NewFaults(p.node[0].disk)
	p.boot(0, faults)
	p.synced()
	a := p.node[0]
	a.write(0, pattern(1, 1<<20))
	faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite | blocktest.OpRead | blocktest.OpFlush, Err: syscall.EIO})
	w := startWriter(a, 3, 4)
	a.await("Diskless", func(s *Status) bool { return s.Disk == proto.Diskless })
	time.Sleep(20 * time.Millisecond)
	w.end()
	if w.errs > 0 {
		a.dump()
		t.Fatal("a write failed although the peer's disk is fine")
	}
	w.check(t, w.acked(), p.node[1].content())
	if !strings.Contains(a.Status().Problem, "I/O error") {
		t.Errorf("problem is %q", a.Status().Problem)
	}
	got := make([]byte, 4096)
	a.ok("read through the peer", func() error { _, err := a.ReadAt(got, 0); return err }())
}

// TestFailedDiskAlone: a disk that failed while the peer's was good is none to go on with alone. A peer that was cut off before
// it heard of that is the source all the same.
func TestFailedDiskAlone(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	_ = p.node[0].Close()
	faults := blocktest.NewFaults(p.node[0].disk)
	a := p.boot(0, faults)
	p.synced()
	heal := faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, To: 4 << 20, Fail: true})
	want := pattern(1, 4096)
	a.write(1<<20, want)
	p.cable.pull()
	a.await("Diskless", func(s *Status) bool { return s.Disk == proto.Diskless && s.Conn < proto.Connected })
	heal()
	a.ok("demote", a.Demote(bg()))
	a.ok("attach", a.Attach(bg()))
	if s := a.Status(); s.Disk != proto.Inconsistent {
		t.Errorf("the disk that failed is %v", s.Disk)
	}
	if err := a.Promote(bg(), false); err == nil {
		t.Error("promoted alone")
	}
	p.cable.plug()
	p.await("the resync", inSync)
	p.equal()
	if got := p.node[1].content()[1<<20:][:4096]; !slices.Equal(got, want) {
		t.Error("what the peer alone took is lost")
	}
}

func TestDiskErrorOnSecondary(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "io-errors")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	_ = p.node[1].Close()
	faults := blocktest.NewFaults(p.node[1].disk)
	p.boot(1, faults)
	p.synced()
	a, b := p.node[0], p.node[1]
	heal := faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, Err: syscall.EIO})
	w := startWriter(a, 3, 4)
	b.await("Diskless", func(s *Status) bool { return s.Disk == proto.Diskless })
	a.await("it", func(s *Status) bool { return s.PeerDisk <= proto.Failed })
	w.end()
	if w.errs > 0 {
		a.dump()
		t.Fatal("a write failed although the local disk is fine")
	}
	w.check(t, w.acked(), a.content())
	heal() // what the disk refused is among what the resync brings
	b.ok("attach", b.Attach(bg()))
	p.await("the resync", inSync)
	p.equal()
}

func TestDisconnectTellsPeer(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a, b := p.node[0], p.node[1]
	b.ok("disconnect", b.Disconnect(bg(), false))
	if s := b.Status(); s.Conn != proto.StandAlone {
		t.Errorf("conn is %v", s.Conn)
	}
	a.await("it", func(s *Status) bool { return s.Conn == proto.WFConnection })
	a.write(0, pattern(5, 4096))
	b.ok("connect", b.Connect(bg(), false))
	p.await("the resync", inSync)
	p.equal()
}

func TestRefusals(t *testing.T) {
	base := Config{Resource: "r0", Node: "otter", Peer: "weasel", Open: nil, LocalAddr: "a", PeerAddr: "b"}
	for _, f := range []func(c *Config){
		func(c *Config) { c.AllowTwoPrimaries = true },
		func(c *Config) { c.RRConflict = "violently" },
	} {
		c := base
		c.Open = func() (block.Device, error) { return nil, nil }
		f(&c)
		_, err := New(c)
		if !errors.Is(err, &proto.Error{Code: proto.CodeUnsupported}) {
			t.Errorf("%+v: %v", c.Protocol, err)
		}
	}
}

func TestCommandsEndWithContext(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	ctx, cancel := context.WithCancel(bg())
	cancel()
	if err := p.node[0].Attach(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("attach: %v", err)
	}
	if err := p.node[0].Promote(bg(), true); err == nil {
		t.Error("promoted without disk and peer")
	}
	_ = p.node[0].Close()
	if err := p.node[0].Attach(bg()); !errors.Is(err, ErrClosed) {
		t.Errorf("attach after close: %v", err)
	}
}

// TestSkipInitialSync: two fresh disks are declared to be the same. Nothing is copied, also not after a reconnection; what
// is written from then on is on both.
func TestSkipInitialSync(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "skip-initial-sync")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	a, b := p.node[0], p.node[1]
	if err := a.SkipInitialSync(bg()); err == nil {
		t.Error("without disk and peer")
	}
	p.up()
	p.await("connection", connected)
	differs := pattern(3, 4096)
	if _, err := a.disk.WriteAt(differs, 1<<20); err != nil {
		t.Fatal(err)
	}
	a.ok("skip", a.SkipInitialSync(bg()))
	p.await("two good copies", inSync)
	b.ok("promote", b.Promote(bg(), false))
	b.write(2<<20, pattern(4, 64<<10))
	p.cable.pull()
	p.await("the end of the link", func(s *Status) bool { return !connected(s) })
	b.write(3<<20, pattern(5, 64<<10))
	p.cable.plug()
	p.await("resync", inSync)
	got := make([]byte, 4096)
	if _, err := b.disk.ReadAt(got, 1<<20); err != nil || strings.Trim(string(got), "\x00") != "" {
		t.Errorf("what differed was copied: %v", err)
	}
	if _, err := a.disk.WriteAt(make([]byte, 4096), 1<<20); err != nil {
		t.Fatal(err)
	}
	p.equal()
	if err := a.SkipInitialSync(bg()); err == nil {
		t.Error("allowed over used disks")
	}
}

// TestRateIsKept: a resync is never faster than its rate, not in its first moment either, fixed or found. One that yields
// to busy applications comes to its end.
func TestRateIsKept(t *testing.T) {
	t.Parallel()
	for name, tweak := range map[string]func(c *Config){
		"fixed": func(c *Config) { c.ResyncRate = 32 << 20 },
		"found": func(c *Config) {
			c.ResyncRate, c.SyncControl = 1<<30, &SyncControl{FillTarget: 4 << 20, MaxRate: 32 << 20}
		},
		"csums": func(c *Config) { c.ResyncRate, c.CsumsAlg = 32<<20, "crc32c" },
		"yields": func(c *Config) {
			c.SyncControl, c.YieldRate = &SyncControl{FillTarget: 4 << 20, MaxRate: 32 << 20}, 16<<20
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, testSize, testSize, func(_ int, c *Config) { tweak(c) })
			p.up()
			p.await("connection", connected)
			began := time.Now()
			a := p.node[0]
			a.ok("promote", a.Promote(bg(), true))
			if name == "yields" {
				w := startWriter(a, 7, 2)
				p.await("the sync", inSync)
				w.end()
				w.check(t, w.acked(), a.content())
			} else {
				p.await("the sync", inSync)
				if took := time.Since(began); took < time.Duration(float64(a.Size())/(32<<20)*float64(time.Second)) {
					t.Errorf("%d KiB at 32 MiB/s in %v", a.Size()>>10, took)
				}
			}
			p.equal()
		})
	}
}
