package datapath

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// TestLinkInfo: what the kernel counts of a link, and that an end which a node makes is no break.
func TestLinkInfo(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	a := p.node[0]
	if i := a.LinkInfo(); i != (LinkInfo{}) {
		t.Errorf("before there is a link: %+v", i)
	}
	p.synced()
	a.write(0, pattern(1, 64<<10))
	i := a.LinkInfo()
	if i.Since.IsZero() || i.Sent < 1 || i.Resent > i.Sent || i.RTT <= 0 || i.BestRTT <= 0 || i.BestRTT > time.Second || i.MTU < 1280 || i.Broken != 0 {
		t.Errorf("link: %+v", i)
	}
	a.ok("disconnect", a.Disconnect(bg(), false))
	a.await("it", alone)
	if i := a.LinkInfo(); i != (LinkInfo{}) {
		t.Errorf("after a disconnect: %+v", i)
	}
}

// TestFencePeerCodes: what each exit code of fence-peer means to a Primary that lost its peer, and to a Secondary that
// restarted alone and is to take over.
func TestFencePeerCodes(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "fencing")
	t.Parallel()
	p, s := scripted(t, func(_ int, c *Config) { c.Fencing, c.ConnectInt = FencingResource, 20*time.Millisecond }, "fence-peer")
	p.synced()
	a := p.node[0]
	for code, peer := range map[int]proto.DiskState{
		3: proto.Inconsistent, 4: proto.Outdated, 5: proto.Outdated, 6: proto.DUnknown, 7: proto.Outdated, 0: proto.DUnknown, 1: proto.DUnknown, 20: proto.DUnknown,
	} {
		s[0].on("fence-peer", code)
		p.cable.pull()
		for end := time.Now().Add(10 * time.Second); !a.heard(fmt.Sprintf("fence-peer: exit code %d", code)); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no verdict %d", code)
			}
		}
		if st := a.Status(); st.PeerDisk != peer || st.Disk != proto.UpToDate || st.Suspended {
			t.Errorf("a Primary, exit code %d: %v/%v, suspended %v", code, st.Disk, st.PeerDisk, st.Suspended)
		}
		a.write(int64(code)<<16, pattern(uint64(code), 8192))
		p.cable.plug()
		p.await("the resync", inSync)
		p.equal()
	}
	a.ok("demote", a.Demote(bg()))
	for code, want := range map[int]struct {
		disk     proto.DiskState
		promoted bool
	}{
		1: {proto.Consistent, false}, 5: {proto.Consistent, false}, 6: {proto.Outdated, false}, 0: {proto.Consistent, false},
		3: {proto.UpToDate, true}, 4: {proto.UpToDate, true}, 7: {proto.UpToDate, true},
	} {
		p.cable.pull()
		a.await("the break", func(s *Status) bool { return s.Conn < proto.Connected })
		_ = p.node[1].Close()
		b := p.boot(1, p.node[1].disk)
		b.ok("attach", b.Attach(bg()))
		b.ok("connect", b.Connect(bg(), false))
		s[1].on("fence-peer", code)
		if err := b.Promote(bg(), false); (err == nil) != want.promoted {
			t.Errorf("a promotion with exit code %d: %v", code, err)
		}
		if d := b.Status().Disk; d != want.disk {
			t.Errorf("a Secondary, exit code %d: %v, want %v", code, d, want.disk)
		}
		if want.promoted {
			b.write(1<<20, pattern(uint64(code), 4096))
			b.ok("demote", b.Demote(bg()))
		}
		p.cable.plug()
		p.await("the resync", inSync)
		p.equal()
	}
}

// TestAttachAfterResize: both disks grow while the Secondary's is detached. When that comes back the device grows, and it
// takes what it missed and the new part: the bitmaps were kept.
func TestAttachAfterResize(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "attach-while-connected-resize")
	t.Parallel()
	const before, after = 32 << 20, 48 << 20
	p := newPair(t, before, before, nil)
	p.synced()
	a, b := p.node[0], p.node[1]
	for i, n := range p.node {
		if _, err := n.disk.WriteAt(pattern(uint64(i), 1<<20), 8<<20); err != nil { // to see whether it is copied
			t.Fatal(err)
		}
	}
	b.ok("detach", b.Detach(bg()))
	a.await("it", func(s *Status) bool { return s.PeerDisk == proto.Diskless })
	a.write(1<<20, pattern(7, 128<<10))
	for _, n := range p.node {
		n.disk.(*blocktest.Mem).Extend(after)
	}
	was := b.Status().Counters.Received
	b.ok("attach", b.Attach(bg()))
	p.await("the resync", sized(usable(t, before)))
	b.ok("resize", b.Resize(bg(), false))
	p.await("the new size", sized(usable(t, after)))
	a.write(usable(t, after)-1<<20, pattern(8, 128<<10))
	if got := b.Status().Counters.Received - was; got > usable(t, after)-usable(t, before)+1<<20 {
		t.Errorf("%d KiB came, the new part has %d", got>>10, (usable(t, after)-usable(t, before))>>10)
	}
	for i, n := range p.node {
		if string(n.content1(8<<20)) != string(pattern(uint64(i), 4096)) {
			t.Error("what nobody wrote was copied")
		}
		if _, err := n.disk.WriteAt(pattern(3, 1<<20), 8<<20); err != nil {
			t.Fatal(err)
		}
	}
	p.equal()
}

// TestSnapshotUnderLoad: a Primary without peer comes back with a copy of its disk that was taken in one moment under
// load, its cache included or lost.
func TestSnapshotUnderLoad(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "resync-snapshot")
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	for round, survive := range []int{100, 50, 0} { // per cent
		p.cable.pull()
		p.await("the break", func(s *Status) bool { return s.Conn < proto.Connected })
		a := p.node[0]
		w := startWriter(a, uint64(60+round), 4)
		time.Sleep(20 * time.Millisecond)
		acked := w.acked()
		disk := a.disk.(*blocktest.Mem)
		snapshot := disk.CrashClone(uint64(round), survive)
		if survive == 100 {
			snapshot = disk.Clone()
		}
		time.Sleep(20 * time.Millisecond)
		w.end()
		_ = a.Close()
		a = p.boot(0, snapshot)
		a.ok("attach", a.Attach(bg()))
		a.ok("connect", a.Connect(bg(), false))
		p.cable.plug()
		p.await("the resync", inSync)
		p.equal()
		if survive == 100 {
			w.check(t, acked, p.node[1].content())
		}
		a.ok("promote", a.Promote(bg(), false))
	}
}

// counting ends a link at an exact byte.
type counting struct {
	net.Conn
	left *atomic.Int64
	cut  func()
}

func (c counting) count(n int) {
	if now := c.left.Add(-int64(n)); now <= 0 && now+int64(n) > 0 {
		c.cut()
	}
}

func (c counting) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), 16)])
	c.count(n)
	return n, err
}

func (c counting) Write(p []byte) (int, error) {
	if n := int(c.left.Load()); n > 0 && n < len(p) {
		n, err := c.Conn.Write(p[:n])
		c.count(n)
		return n, errors.Join(err, errCut)
	}
	n, err := c.Conn.Write(p)
	c.count(n)
	return n, err
}

// TestResyncEndLost: the link breaks at every few bytes of a small resync, so that either node misses the other's last
// words. What was written meanwhile, and the resync after it, are complete.
func TestResyncEndLost(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "resync-finish")
	t.Parallel()
	var left atomic.Int64
	var p *pair
	p = newPair(t, testSize, testSize, func(_ int, c *Config) {
		c.ConnectInt, c.CRAMAlg, c.Secret = 10*time.Millisecond, "", nil
		c.Dial = func(ctx context.Context, laddr, raddr string) (net.Conn, error) {
			conn, err := p.cable.dial(ctx, laddr, raddr)
			if err != nil {
				return nil, err
			}
			return counting{conn, &left, p.cable.pull}, nil
		}
	})
	left.Store(1 << 40)
	p.synced()
	a := p.node[0]
	// resync changes four blocks behind a cut cable and lets so many bytes pass when it is whole again.
	resync := func(i int, bytes int64) {
		p.cable.pull()
		p.await("the break", func(s *Status) bool { return s.Conn < proto.Connected })
		for k := range 4 {
			a.write(int64(i%100)<<16+int64(k)<<14, pattern(uint64(i)<<8|uint64(k), 4096))
		}
		left.Store(bytes)
		p.cable.plug()
	}
	resync(0, 1<<40)
	p.await("a resync without a break", inSync)
	all := 1<<40 - left.Load()
	broken := 0
	for i, bytes := 1, int64(64); bytes < all+256; i++ {
		resync(i, bytes)
		for end := time.Now().Add(2 * time.Second); left.Load() > 0 && (!inSync(p.node[0].Status()) || !inSync(p.node[1].Status())) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if left.Load() <= 0 {
			broken++
		}
		p.cable.pull() // the words that are still under way are lost too
		p.await("the break", func(s *Status) bool { return s.Conn < proto.Connected })
		a.write(8<<20+int64(i%100)<<14, pattern(uint64(i), 4096))
		left.Store(1 << 40)
		p.cable.plug()
		p.await("the next resync", inSync)
		p.equal()
		if bytes += 1777; bytes > all-2048 {
			bytes -= 1777 - 113
		}
	}
	if broken < 10 {
		t.Errorf("the link broke only %d times", broken)
	}
	t.Logf("a resync is %d bytes; the link broke %d times in one", all, broken)
}

// pipes is a network inside this process, for a bubble.
type pipes struct {
	mu sync.Mutex
	at map[string]*pipeListener
}

// pipe is an end of a net.Pipe with room for what is not read yet.
type pipe struct {
	net.Conn
	out  chan []byte
	done chan struct{}
	once sync.Once
}

func newPipe(c net.Conn) *pipe {
	p := &pipe{Conn: c, out: make(chan []byte, 1024), done: make(chan struct{})}
	go func() {
		for {
			select {
			case b := <-p.out:
				_, _ = c.Write(b)
			case <-p.done:
				return
			}
		}
	}()
	return p
}

func (p *pipe) Write(b []byte) (int, error) {
	select {
	case p.out <- bytes.Clone(b):
		return len(b), nil
	case <-p.done:
		return 0, net.ErrClosed
	}
}

func (p *pipe) SetWriteDeadline(time.Time) error { return nil }

func (p *pipe) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

func (p *pipe) Close() error {
	p.once.Do(func() { close(p.done) })
	return p.Conn.Close()
}

type pipeListener struct {
	of   *pipes
	addr string
	in   chan net.Conn
	done chan struct{}
	once sync.Once
}

func (p *pipes) listen(_ context.Context, addr string) (net.Listener, error) {
	l := &pipeListener{of: p, addr: addr, in: make(chan net.Conn), done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at[addr] = l
	return l, nil
}

func (p *pipes) dial(ctx context.Context, _, raddr string) (net.Conn, error) {
	p.mu.Lock()
	l := p.at[raddr]
	p.mu.Unlock()
	if l == nil {
		return nil, errCut
	}
	a, b := net.Pipe()
	here, there := newPipe(a), newPipe(b)
	select {
	case l.in <- there:
		return here, nil
	case <-l.done:
	case <-ctx.Done():
	}
	_, _ = here.Close(), there.Close()
	return nil, errCut
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.in:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestLeastRate: a resync beside a busy application gets its least rate, no more and no less, whether its rate is fixed or
// found; when the application rests, all of it.
func TestLeastRate(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "c-min-rate", "resync-controller")
	const least = 2 << 20
	for name, control := range map[string]*SyncControl{"fixed": nil, "found": {FillTarget: 1 << 20, MinRate: least}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := &pipes{at: map[string]*pipeListener{}}
				p := newPair(t, testSize, testSize, func(_ int, c *Config) {
					c.Listen, c.Dial, c.ResyncRate, c.SyncControl, c.YieldRate = network.listen, network.dial, 64<<20, control, least
				})
				p.synced()
				a := p.node[0]
				for _, busy := range []bool{true, false} {
					ctx, stop := context.WithCancel(t.Context())
					var apps sync.WaitGroup
					apps.Go(func() {
						for i := int64(0); busy && sleep(ctx, 5*time.Millisecond); i++ {
							a.write(i%64*4096, pattern(uint64(i), 4096))
						}
					})
					time.Sleep(time.Second)
					began := time.Now()
					a.ok("invalidate-remote", a.InvalidateRemote(bg()))
					a.await("the resync", func(s *Status) bool { return s.Conn != proto.SyncSource && inSync(s) })
					took := time.Since(began)
					stop()
					apps.Wait()
					alone := time.Duration(a.Size()) * time.Second / least
					if busy && (took < alone*8/10 || took > alone*12/10) || !busy && took > alone/4 {
						t.Errorf("busy %v: %v, at the least rate it is %v", busy, took, alone)
					}
					p.equal()
				}
				for _, n := range p.node {
					_ = n.Close()
				}
			})
		})
	}
}
