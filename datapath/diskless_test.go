package datapath

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// A Primary loses and regains its disk while applications write; what comes back over the wire is what changed.
func TestDisklessPrimaryUnderLoad(t *testing.T) {
	t.Parallel()
	for _, pr := range []proto.Protocol{proto.ProtocolA, proto.ProtocolC} {
		t.Run(pr.String(), func(t *testing.T) {
			p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.Protocol = pr })
			p.synced()
			a, b := p.node[0], p.node[1]
			before := a.Status().Counters.Received
			w := startWriter(a, 41, 4)
			for range 3 {
				time.Sleep(10 * time.Millisecond)
				a.ok("detach", a.Detach(bg()))
				b.await("it", func(s *Status) bool { return s.PeerDisk == proto.Diskless })
				time.Sleep(10 * time.Millisecond)
				a.ok("attach", a.Attach(bg()))
				p.await("the resync", func(s *Status) bool {
					return s.Conn == proto.Connected && s.Disk == proto.UpToDate && s.PeerDisk == proto.UpToDate
				})
			}
			w.end()
			if w.errs > 0 || a.heard("link is lost") {
				a.dump()
				t.Fatal("the link or a write did not survive it")
			}
			a.ok("flush", a.Flush())
			p.await("quiet", inSync)
			p.equal()
			w.check(t, w.acked(), a.content())
			if got := a.Status().Counters.Received - before; got > 3*testSize/2 {
				t.Errorf("%d bytes came back for a disk of %d", got, testSize)
			}
		})
	}
}

// Without disk and without peer nothing can be read or written, and it says so; with the peer it goes on.
func TestDisklessPrimaryLosesPeer(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a := p.node[0]
	want := pattern(5, 64<<10)
	a.write(1<<20, want)
	b := p.node[1]
	was := b.Status().UUIDs.Current
	a.ok("detach", a.Detach(bg()))
	// A node without disk takes back only the generation it knows; as with DRBD it must have heard of the newest one.
	b.await("a new generation", func(s *Status) bool { return s.UUIDs.Current&^1 != was&^1 })
	now := b.Status().UUIDs.Current
	a.await("news of it", func(s *Status) bool { return s.PeerUUIDs.Current&^1 == now&^1 })
	p.cable.pull()
	a.await("the cut", func(s *Status) bool { return s.Conn < proto.Connected })
	got := make([]byte, len(want))
	if _, err := a.ReadAt(got, 1<<20); !errors.Is(err, ErrNoData) || !errors.Is(err, syscall.EIO) {
		t.Errorf("read: %v", err)
	}
	if _, err := a.WriteAt(want, 0); !errors.Is(err, ErrNoData) {
		t.Errorf("write: %v", err)
	}
	p.cable.plug()
	a.await("the peer", func(s *Status) bool { return s.Conn == proto.Connected && s.PeerDisk == proto.UpToDate })
	if _, err := a.ReadAt(got, 1<<20); err != nil || string(got) != string(want) {
		t.Errorf("read through the peer that came back: %v", err)
	}
	a.write(2<<20, want)
	a.ok("attach", a.Attach(bg()))
	p.await("the resync", inSync)
	p.equal()
}

// on-io-error pass_on keeps the disk, as Inconsistent: what failed is on the peer, is read from there, and is repaired by
// the next resync.
func TestPassOnOnPrimary(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.OnIOError = OnIOErrorPassOn })
	_ = p.node[0].Close()
	faults := blocktest.NewFaults(p.node[0].disk)
	p.boot(0, faults)
	p.synced()
	a, b := p.node[0], p.node[1]
	want := pattern(9, 64<<10)
	heal := faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: 1 << 20, To: 2 << 20, Err: syscall.EIO})
	a.write(1<<20, want)
	a.await("the disk's fall", func(s *Status) bool { return s.Disk == proto.Inconsistent && s.OutOfSync == 64<<10 })
	if s := a.Status(); !strings.Contains(s.Problem, "I/O error") {
		t.Errorf("problem is %q", s.Problem)
	}
	b.await("the news", func(s *Status) bool { return s.PeerDisk == proto.Inconsistent })
	got := make([]byte, len(want))
	if _, err := a.ReadAt(got, 1<<20); err != nil || string(got) != string(want) {
		t.Errorf("what failed here is not read from the peer: %v", err)
	}
	a.write(4<<20, want)
	a.ok("flush", a.Flush())
	heal()
	if err := b.Disconnect(bg(), false); err == nil {
		t.Error("the only good copy may leave")
	}
	a.ok("detach", a.Detach(bg()))
	a.ok("attach", a.Attach(bg()))
	p.await("the repair", inSync)
	p.equal()
}

func TestPassOnOnSecondary(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.OnIOError = OnIOErrorPassOn })
	_ = p.node[1].Close()
	faults := blocktest.NewFaults(p.node[1].disk)
	p.boot(1, faults)
	p.synced()
	a, b := p.node[0], p.node[1]
	heal := faults.Inject(blocktest.Rule{Ops: blocktest.OpWrite, From: 1 << 20, To: 2 << 20, Err: syscall.EIO})
	a.write(1<<20, pattern(9, 64<<10))
	b.await("the disk's fall", func(s *Status) bool { return s.Disk == proto.Inconsistent })
	a.await("the news", func(s *Status) bool { return s.PeerDisk == proto.Inconsistent && s.OutOfSync == 64<<10 })
	heal()
	a.write(5<<20, pattern(10, 64<<10))
	b.ok("disconnect", b.Disconnect(bg(), false))
	a.await("it", func(s *Status) bool { return s.Conn < proto.Connected })
	b.ok("connect", b.Connect(bg(), false))
	p.await("the repair", inSync)
	p.equal()
}

// A read that fails here is answered by the peer.
func TestReadErrorOnPrimary(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	_ = p.node[0].Close()
	faults := blocktest.NewFaults(p.node[0].disk)
	p.boot(0, faults)
	p.synced()
	a := p.node[0]
	want, got := pattern(3, 8192), make([]byte, 8192)
	a.write(1<<20, want)
	faults.Inject(blocktest.Rule{Ops: blocktest.OpRead, From: 1 << 20, To: 1<<20 + 512, Err: syscall.EIO})
	if _, err := a.ReadAt(got, 1<<20); err != nil || string(got) != string(want) {
		t.Errorf("read: %v", err)
	}
	a.await("the detach", func(s *Status) bool { return s.Disk == proto.Diskless })
	if _, err := a.ReadAt(got, 1<<20); err != nil || string(got) != string(want) {
		t.Errorf("read without disk: %v", err)
	}
}

// A disk that fails while applications write is dropped and comes back with exactly what it missed.
func TestFailedDiskComesBack(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.ALExtents = 7 })
	_ = p.node[0].Close()
	faults := blocktest.NewFaults(p.node[0].disk)
	p.boot(0, faults)
	p.synced()
	a := p.node[0]
	w := startWriter(a, 51, 8)
	for i := range 4 {
		time.Sleep(10 * time.Millisecond)
		ops := blocktest.OpWrite
		if i%2 == 1 {
			ops = blocktest.OpAny
		}
		heal := faults.Inject(blocktest.Rule{Ops: ops, Err: syscall.EIO})
		a.await("the detach", func(s *Status) bool { return s.Disk == proto.Diskless })
		time.Sleep(10 * time.Millisecond)
		heal()
		a.ok("attach", a.Attach(bg()))
		p.await("the resync", func(s *Status) bool {
			return s.Conn == proto.Connected && s.Disk == proto.UpToDate && s.PeerDisk == proto.UpToDate
		})
	}
	w.end()
	if w.errs > 0 || a.heard("link is lost") {
		a.dump()
		t.Fatal("the link or a write did not survive it")
	}
	a.ok("flush", a.Flush())
	p.await("quiet", inSync)
	p.equal()
	w.check(t, w.acked(), a.content())
}

// TestDetachMarksOutdated: a disk that is let go while the peer's is good knows afterwards that it is behind, and is good again
// once the peer has been asked. One that is let go alone stays what it is.
func TestDetachMarksOutdated(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a := p.node[0]
	good := func() bool {
		md, err := meta.Open(a.disk.(*blocktest.Mem).Clone(), meta.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return md.Superblock().Flags&meta.FlagWasUpToDate != 0
	}
	a.ok("detach", a.Detach(bg()))
	if good() {
		t.Error("the disk that was left behind passes for UpToDate")
	}
	a.ok("attach", a.Attach(bg()))
	p.await("both good", inSync)
	if !good() {
		t.Error("the disk does not know that it is good again")
	}
	a.ok("demote", a.Demote(bg()))
	a.ok("disconnect", a.Disconnect(bg(), true))
	a.await("the end of the link", func(s *Status) bool { return s.Conn == proto.StandAlone })
	a.ok("detach", a.Detach(bg()))
	if !good() {
		t.Error("a disk that was detached alone is Outdated")
	}
}
