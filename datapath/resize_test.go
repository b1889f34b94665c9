package datapath

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/conformance"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

func usable(t *testing.T, size int64) int64 {
	t.Helper()
	l, err := meta.LayoutFor(size)
	if err != nil {
		t.Fatal(err)
	}
	return l.UsableSize
}

func sized(n int64) func(s *Status) bool {
	return func(s *Status) bool { return inSync(s) && s.Size == n }
}

// TestResize: both disks have grown. Whichever node is asked, and whichever is Primary, the device grows, writes go on,
// and the new part is the same on both.
func TestResize(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "resize")
	const before, after = 8 << 20, 24 << 20
	for _, c := range []struct {
		name   string
		asked  int
		demote bool
	}{{"on the Primary", 0, false}, {"on the Secondary", 1, false}, {"on a Secondary of two", 1, true}, {"on the other Secondary of two", 0, true}} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, before, before, nil)
			p.synced()
			data := pattern(1, 1<<20)
			p.node[0].write(3<<20, data)
			var stop atomic.Bool
			wrote := make(chan error, 1)
			if c.demote {
				p.node[0].ok("demote", p.node[0].Demote(bg()))
				wrote <- nil
			} else {
				go func() {
					var err error
					for i := int64(0); !stop.Load() && err == nil; i++ {
						_, err = p.node[0].WriteAt(pattern(uint64(i), 4096), i%500*4096+5<<20)
					}
					wrote <- err
				}()
			}
			for i, n := range p.node {
				n.disk.(*blocktest.Mem).Extend(after)
				spoil := pattern(uint64(90+i), 1<<20)
				if _, err := n.disk.(*blocktest.Mem).Grow(); err != nil {
					t.Fatal(err)
				}
				if _, err := n.disk.WriteAt(spoil, 20<<20); err != nil {
					t.Fatal(err)
				}
			}
			p.node[c.asked].ok("resize", p.node[c.asked].Resize(bg(), false))
			p.await("the new size", sized(usable(t, after)))
			stop.Store(true)
			if err := <-wrote; err != nil {
				t.Fatalf("a write while the device grew: %v", err)
			}
			if c.demote {
				p.node[0].ok("promote", p.node[0].Promote(bg(), false))
			}
			p.node[0].write(usable(t, after)-1<<20, data)
			p.node[0].ok("flush", p.node[0].Flush())
			p.equal()
			got := make([]byte, len(data))
			if _, err := p.node[0].ReadAt(got, usable(t, after)-1<<20); err != nil || !bytes.Equal(got, data) {
				t.Errorf("the last MiB: %v", err)
			}
		})
	}
}

// TestResizeOneSide: the peer's disk has not grown. The device stays as it is, and grows when the peer's disk has.
func TestResizeOneSide(t *testing.T) {
	const before, after = 32 << 20, 64 << 20
	p := newPair(t, before, before, nil)
	p.synced()
	p.node[0].disk.(*blocktest.Mem).Extend(after)
	p.node[0].ok("resize", p.node[0].Resize(bg(), false))
	if s := p.node[0].Status(); s.Size != usable(t, before) || s.Conn != proto.Connected {
		t.Errorf("%+v", s)
	}
	p.node[1].disk.(*blocktest.Mem).Extend(48 << 20)
	p.node[1].ok("resize", p.node[1].Resize(bg(), false))
	p.await("the smaller size", sized(usable(t, 48<<20)))
	p.equal()

	// Without the link the metadata moves, and the device grows when the peer has agreed.
	p.node[1].ok("disconnect", p.node[1].Disconnect(bg(), false))
	p.node[1].disk.(*blocktest.Mem).Extend(after)
	p.node[1].ok("resize alone", p.node[1].Resize(bg(), false))
	if s := p.node[1].Status(); s.Size != usable(t, 48<<20) {
		t.Errorf("alone: %d bytes", s.Size)
	}
}

// TestResizeAssumeClean: nothing is resynced if the operator says that the new parts are equal.
func TestResizeAssumeClean(t *testing.T) {
	p := newPair(t, 32<<20, 32<<20, nil)
	p.synced()
	for _, n := range p.node {
		n.disk.(*blocktest.Mem).Extend(64 << 20)
	}
	p.node[1].ok("resize", p.node[1].Resize(bg(), true))
	p.await("the new size", sized(usable(t, 64<<20)))
	for _, n := range p.node {
		if n.heard("SyncSource") && !n.heard("as asked") {
			n.dump()
			t.Error("nobody said that the new part counts as in sync")
		}
	}
}

// TestResizeRestart: the disk grew and the node restarted before anybody asked for the new size; its metadata is found
// where the end was. A node without that memory says that there is no metadata.
func TestResizeRestart(t *testing.T) {
	p := newPair(t, 32<<20, 32<<20, nil)
	p.synced()
	var last atomic.Int64
	keep := func(i int, c *Config) {
		c.LastSize, c.KeepSize = last.Load, func(n int64) error { last.Store(n); return nil }
	}
	p.tweak = keep
	disk := p.node[1].disk.(*blocktest.Mem)
	restart := func() *node {
		_ = p.node[1].Close()
		disk.Reopen()
		return p.boot(1, disk)
	}
	restart().ok("attach", p.node[1].Attach(bg()))
	if last.Load() != 32<<20 {
		t.Fatalf("%d bytes kept", last.Load())
	}
	disk.Extend(64 << 20)
	n := restart()
	n.ok("attach", n.Attach(bg()))
	n.ok("connect", n.Connect(bg(), false))
	p.await("connection", inSync)
	if !n.heard("the disk has grown") {
		n.dump()
		t.Error("nobody said that the disk has grown")
	}
	p.node[0].disk.(*blocktest.Mem).Extend(64 << 20)
	n.ok("resize", n.Resize(bg(), false))
	p.await("the new size", sized(usable(t, 64<<20)))
	if last.Load() != 64<<20 {
		t.Errorf("%d bytes kept", last.Load())
	}
	last.Store(0)
	n = restart()
	n.ok("attach", n.Attach(bg()))
	disk.Extend(128 << 20)
	last.Store(0)
	n = restart()
	if err := n.Attach(bg()); err == nil || !strings.Contains(err.Error(), "no DRBD metadata") {
		t.Errorf("%v", err)
	}
}

// tail copies the metadata at the end of a disk to the end of one as large.
func tail(t *testing.T, from, to *blocktest.Mem) {
	t.Helper()
	md, err := meta.Open(from, meta.OpenOptions{ALExtents: 67})
	if err != nil {
		t.Fatal(err)
	}
	at := md.Layout().BMOffset
	b := make([]byte, from.Size()-at)
	_, err = from.ReadAt(b, at)
	_, err2 := to.WriteAt(b, at)
	if err := errors.Join(err, err2, to.Flush()); err != nil {
		t.Fatal(err)
	}
}

// TestGrownIntoMetadata: a volume has grown into what was another resource's, whose metadata is at the end now. Which one is
// right cannot be told: attach says so, and changes nothing. Another disk that has metadata at its end only is taken, and named;
// one whose metadata was just made is taken.
func TestGrownIntoMetadata(t *testing.T) {
	t.Parallel()
	const small, large = 32 << 20, 64 << 20
	other := newPair(t, large, large, nil)
	other.synced()
	p := newPair(t, small, small, nil)
	p.synced()
	_ = other.node[1].Close()
	_ = p.node[1].Close()
	foreign, disk := other.node[1].disk.(*blocktest.Mem), p.node[1].disk.(*blocktest.Mem)
	var last atomic.Int64
	p.tweak = func(_ int, c *Config) {
		c.LastSize, c.KeepSize = last.Load, func(n int64) error { last.Store(n); return nil }
	}
	attach := func(d *blocktest.Mem) (*node, error) {
		last.Store(small)
		n := p.boot(1, d)
		t.Cleanup(func() { _ = n.Close() })
		return n, n.Attach(bg())
	}
	disk.Extend(large)
	foreign.Reopen()
	disk.Reopen()
	tail(t, foreign, disk)
	before := disk.Clone()
	if _, err := attach(disk); !errors.Is(err, ErrTwoMetadata) || !strings.Contains(err.Error(), "superblock at 67104768") {
		t.Errorf("%v", err)
	}
	if !sameContent(t, before, disk) || last.Load() != small {
		t.Error("something was changed")
	}
	n, err := attach(foreign)
	n.ok("attach", err)
	if !n.heard("this is another disk than before") {
		n.dump()
		t.Error("another disk is not named")
	}
	fresh := freshDisk(t, large)
	n, err = attach(fresh)
	n.ok("attach", err)
	if n.heard("another disk") || n.Status().Disk != proto.Inconsistent {
		n.dump()
		t.Error("a fresh disk")
	}
}

// TestResizeRefused: not without a disk, not during a resync, and never smaller.
func TestResizeRefused(t *testing.T) {
	p := newPair(t, 32<<20, 32<<20, nil)
	if err := p.node[0].Resize(bg(), false); err == nil || !strings.Contains(err.Error(), "no usable disk") {
		t.Errorf("without a disk: %v", err)
	}
	p.synced()
	p.node[0].disk.(*blocktest.Mem).Extend(16 << 20)
	if err := p.node[0].Resize(bg(), false); err == nil || !strings.Contains(err.Error(), "too small") {
		t.Errorf("smaller: %v", err)
	}
	if s := p.node[0].Status(); !inSync(s) || s.Size != usable(t, 32<<20) {
		t.Errorf("%+v", s)
	}
}
