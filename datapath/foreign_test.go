package datapath

import (
	"strings"
	"testing"
	"time"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/conformance"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// elsewhere is the disk of a node of another pair, with other data.
func elsewhere(t *testing.T) *blocktest.Mem {
	t.Helper()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	p.node[0].write(0, pattern(99, 1<<20))
	p.node[0].ok("demote", p.node[0].Demote(bg()))
	for _, n := range p.node {
		_ = n.Close()
	}
	return p.node[1].disk.(*blocktest.Mem)
}

// TestForeignDisk: the disk of another pair, attached while connected, is refused in words, by either role, and neither copy
// changes.
func TestForeignDisk(t *testing.T) {
	conformance.Ran(t, conformance.SantuiSantui, "attach-foreign")
	t.Parallel()
	for _, secondary := range []bool{true, false} {
		p := newPair(t, testSize, testSize, nil)
		p.synced()
		a, b := p.node[0], p.node[1]
		a.write(0, pattern(1, 1<<20))
		a.ok("flush", a.Flush())
		if !secondary {
			a.ok("demote", a.Demote(bg()))
		}
		_ = b.Close()
		a.await("the loss", func(s *Status) bool { return s.Conn < proto.Connected })
		disk := elsewhere(t)
		before := disk.Clone()
		b = p.boot(1, disk)
		b.ok("connect", b.Connect(bg(), false))
		p.await("the connection", connected)
		err := b.Attach(bg())
		if err == nil || !strings.Contains(err.Error(), "does not go together") || !strings.Contains(err.Error(), "create-md") {
			t.Errorf("attach: %v", err)
		}
		b.await("no disk", func(s *Status) bool {
			return s.Disk == proto.Diskless && s.PeerDisk == proto.UpToDate && s.Conn == proto.Connected
		})
		a.await("no disk there", func(s *Status) bool { return s.PeerDisk == proto.Diskless && s.Conn == proto.Connected })
		if !sameContent(t, before, disk) {
			t.Error("the foreign disk was changed")
		}
		if string(a.content()[:1<<20]) != string(pattern(1, 1<<20)) {
			t.Error("the good copy was changed")
		}
		// The remedy. The size of the device is known here without a disk, and the new metadata has none.
		b.ok("create-md", meta.Create(bg(), disk, meta.CreateOptions{Force: true, ALExtents: 67}))
		b.ok("attach", b.Attach(bg()))
		p.await("the full sync", inSync)
		p.equal()
	}
}

// TestForeignDiskConnects: the disk of another pair is attached alone and then connected: StandAlone, both as they were, and
// the reason says what it may be before it says how a split brain is resolved.
func TestForeignDiskConnects(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, nil)
	p.synced()
	a, b := p.node[0], p.node[1]
	a.write(0, pattern(1, 1<<20))
	_ = b.Close()
	a.await("the loss", func(s *Status) bool { return s.Conn < proto.Connected })
	b = p.boot(1, elsewhere(t))
	b.ok("attach", b.Attach(bg()))
	b.ok("connect", b.Connect(bg(), false))
	p.await("StandAlone", alone)
	for i, n := range p.node {
		if !strings.Contains(n.Status().Problem, "neither is the disk of another pair") {
			n.dump()
			t.Errorf("problem: %s", n.Status().Problem)
		}
		if string(n.content()[:1<<20]) != string(pattern([]uint64{1, 99}[i], 1<<20)) {
			t.Errorf("%s was changed", n.name)
		}
	}
}

// TestSilentRefusal: a peer that does not say a word to a late attach, as a kernel that does not accept the disk: the disk is
// let go.
func TestSilentRefusal(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.Timeout, c.KoCount = 100*time.Millisecond, 5 })
	p.primary()
	done := make(chan error, 1)
	go func() { done <- p.n.Detach(bg()) }()
	p.expect(drbd.CmdStateChgReq)
	p.ack(drbd.CmdStateChgReply, drbd.SSSuccess)
	p.must(<-done)
	p.n.ok("attach", p.n.Attach(bg()))
	p.n.await("the question", func(s *Status) bool { return s.Disk == proto.Negotiating })
	p.n.await("the end of patience", func(s *Status) bool { return s.Disk == proto.Diskless && s.Conn == proto.Connected })
	if !p.n.heard("does not say whether the disk") || p.n.Status().Problem == "" {
		p.n.dump()
		t.Error("does not say why")
	}
}
