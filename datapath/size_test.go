package datapath

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/conformance"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// agreedOnDisk is what the metadata says, once it is at the end of a disk that has grown.
func agreedOnDisk(t *testing.T, n *node) int64 {
	t.Helper()
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var md *meta.Metadata
		if md, err = meta.Open(n.disk.(*blocktest.Mem).Clone(), meta.OpenOptions{ALExtents: 67}); err == nil {
			defer func() { _ = md.Close() }()
			return md.Superblock().AgreedSize
		}
	}
	t.Fatal(err)
	return 0
}

// TestSizeOption: size in the drbd.conf of either node limits the device on both, also when the disks have grown.
func TestSizeOption(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "size-option")
	t.Parallel()
	const size = 12 << 20
	for limited := range 2 {
		p := newPair(t, testSize, testSize+4<<20, func(i int, c *Config) {
			if i == limited {
				c.Size = size
			}
		})
		p.synced()
		for _, n := range p.node {
			n.disk.(*blocktest.Mem).Extend(2 * testSize)
		}
		p.node[1].ok("resize", p.node[1].Resize(bg(), false))
		p.await("the resize", inSync)
		p.node[0].write(size-4096, pattern(1, 4096))
		if _, err := p.node[0].WriteAt(pattern(1, 4096), size); err == nil {
			t.Error("a write beyond the limit")
		}
		for _, n := range p.node {
			if s := n.Status(); s.Size != size || s.SizeLimit != size || agreedOnDisk(t, n) != size {
				t.Errorf("limit on %s: %s has %d bytes, limit %d, on disk %d", names[limited], n.name, s.Size, s.SizeLimit, agreedOnDisk(t, n))
			}
		}
		p.equal()
	}
}

// restart starts a node again over its disk, with another size in drbd.conf.
func (p *pair) restart(i int, size int64) *node {
	p.t.Helper()
	_ = p.node[i].Close()
	p.tweak = func(_ int, c *Config) { c.Size = size }
	return p.boot(i, p.node[i].disk)
}

// TestSizeOptionRefused: a size that the disk does not have, or that would cut the device, is refused, and nothing changes.
func TestSizeOptionRefused(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a, b := p.node[0], p.node[1]
	whole := a.Size()
	a.ok("demote", a.Demote(bg()))
	for size, why := range map[int64]string{whole + 512: "size in drbd.conf says", whole - 4096: "it would shrink"} {
		a = p.restart(0, size)
		before := a.disk.(*blocktest.Mem).Clone()
		if err := a.Attach(bg()); err == nil || !heardIn(err, why) {
			t.Errorf("size %d: %v", size, err)
		}
		if !sameContent(t, before, a.disk.(*blocktest.Mem)) {
			t.Errorf("size %d: the disk was changed", size)
		}
	}
	// The peer alone has a smaller device, as its disk is new.
	_ = b.Close()
	p.tweak = func(_ int, c *Config) { c.Size = whole - 4096 }
	b = p.boot(1, freshDisk(t, testSize))
	a = p.restart(0, 0)
	a.ok("attach", a.Attach(bg()))
	a.ok("promote", a.Promote(bg(), false))
	b.ok("attach", b.Attach(bg()))
	a.ok("connect", a.Connect(bg(), false))
	b.ok("connect", b.Connect(bg(), false))
	a.await("StandAlone", alone)
	if !a.heard("size in the peer's drbd.conf says") || a.Size() != whole {
		a.dump()
		t.Error("not refused for its reason")
	}
}

// TestSizeOptionRaised: with a larger size on both nodes the device grows when they meet. As with DRBD nothing resyncs the new
// part by itself; the nodes say so and what to do, and that does it: a Primary that loses the peer begins a generation.
func TestSizeOptionRaised(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "size-option")
	t.Parallel()
	const before, after = 8 << 20, 12 << 20
	p := newPair(t, testSize, testSize, func(_ int, c *Config) { c.Size = before })
	p.synced()
	p.node[0].write(0, pattern(1, before))
	p.node[0].ok("flush", p.node[0].Flush())
	for i := range p.node {
		p.restart(i, after)
	}
	p.up()
	p.await("the new size", func(s *Status) bool {
		return s.Conn == proto.Connected && s.Size == after && s.OutOfSync == after-before
	})
	if string(p.node[1].content()[:before]) != string(p.node[0].content()[:before]) {
		t.Error("the copies differ")
	}
	a, b := p.node[0], p.node[1]
	for _, n := range p.node {
		if !strings.Contains(n.Status().Problem, "verify repair") {
			n.dump()
			t.Errorf("problem: %q", n.Status().Problem)
		}
	}
	b.spoil(after-8192, pattern(3, 4096))
	a.ok("promote", a.Promote(bg(), false))
	a.ok("disconnect", a.Disconnect(bg(), false))
	b.await("the loss", func(s *Status) bool { return s.Conn < proto.Connected })
	a.ok("connect", a.Connect(bg(), false))
	p.await("the new part", func(s *Status) bool { return inSync(s) && s.Problem == "" })
	p.equal()
}

// TestSizeOfPeer: a limit that travels in P_SIZES holds from the handshake on, and a connected peer that was resized lifts it
// (receive_sizes, drbd_receiver.c).
func TestSizeOfPeer(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	const size = 8 << 20
	p.user = size / 512
	p.hello(proto.Secondary, proto.Inconsistent, drbd.UUIDs{Current: drbd.UUIDJustCreated, Flags: drbd.UUIDInconsistent})
	p.n.await("the limit", func(s *Status) bool { return s.SizeLimit == size && s.Size == size })
	whole := usable(t, testSize)
	p.send(drbd.CmdSizes, drbd.Sizes{Disk: uint64(whole / 512), MaxBio: 1 << 20, Flags: drbd.SizesNoResync})
	p.n.await("the whole disk", func(s *Status) bool { return s.SizeLimit == 0 && s.Size == whole })
}

// TestSizeIsTold: the peer hears the configured size, and a diskless node has none.
func TestSizeIsTold(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.Size = 8 << 20 })
	p.primary()
	if s, err := drbd.ParseSizes(p.expect(drbd.CmdSizes)); err != nil || s.User != 8<<20/512 || s.Disk != uint64(usable(t, testSize)/512) {
		t.Errorf("%+v, %v", s, err)
	}
}

func heardIn(err error, text string) bool { return strings.Contains(err.Error(), text) }

func sameContent(t *testing.T, a, b *blocktest.Mem) bool {
	t.Helper()
	x, y := make([]byte, a.Size()), make([]byte, b.Size())
	_, err := a.ReadAt(x, 0)
	_, err2 := b.ReadAt(y, 0)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	return bytes.Equal(x, y)
}
