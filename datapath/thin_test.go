package datapath

import (
	"testing"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

const thinPiece = 64 << 10

func thinly(_ int, c *Config) { c.RSDiscardGranularity = thinPiece }

// TestThinResync: what is all zeroes at the source is not sent, and is zeroes at the target whatever was there.
func TestThinResync(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, thinly)
	a, b := p.node[0], p.node[1]
	if _, err := b.disk.WriteAt(pattern(7, testSize/2), 0); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{1 << 20, 5<<20 + 4096} {
		if _, err := a.disk.WriteAt(pattern(uint64(off), 100<<10), off); err != nil {
			t.Fatal(err)
		}
	}
	p.synced()
	p.equal()
	if n := a.Status().Counters.Sent; n > 1<<20 {
		t.Errorf("%d bytes sent for 200 KiB of data", n)
	}
	p.cable.pull()
	a.await("the cut", func(s *Status) bool { return s.Conn < proto.Connected })
	a.ok("discard", a.Discard(1<<20, 1<<20))
	a.write(4<<20+512, pattern(9, 4096)) // a piece that is marked only in part
	before := a.Status().Counters.Sent
	p.cable.plug()
	p.await("the resync", inSync)
	p.equal()
	if n := a.Status().Counters.Sent - before; n > 256<<10 {
		t.Errorf("%d bytes sent for 4 KiB of data", n)
	}
}

// TestThinOneSided: a node without the option answers one that has it.
func TestThinOneSided(t *testing.T) {
	t.Parallel()
	p := newPair(t, testSize, testSize, func(i int, c *Config) {
		if i == 1 {
			thinly(i, c)
		}
	})
	p.synced()
	p.equal()
	if n := p.node[0].Status().Counters.Sent; n > 1<<20 {
		t.Errorf("%d bytes sent", n)
	}
}

func TestThinSource(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	p.secondary()
	p.send(drbd.CmdRSThinReq, drbd.BlockRequest{Sector: 256, ID: drbd.IDSyncer, Size: 512 << 10})
	if d, err := drbd.ParseBlockDesc(drbd.CmdRSDeallocated, p.expect(drbd.CmdRSDeallocated)); err != nil || d != (drbd.BlockDesc{Sector: 256, Size: 512 << 10}) {
		t.Errorf("%+v, %v", d, err)
	}
	done := make(chan error, 1)
	go func() { _, err := p.n.WriteAt(pattern(1, 512), 256*512+300<<10); done <- err }()
	d, err := drbd.ParseData(p.expect(drbd.CmdData))
	p.must(err)
	p.ack(drbd.CmdWriteAck, drbd.BlockAck{Sector: d.Sector, ID: d.ID, Size: 512})
	p.must(<-done)
	p.send(drbd.CmdRSThinReq, drbd.BlockRequest{Sector: 256, ID: drbd.IDSyncer, Size: 512 << 10})
	if b := p.expect(drbd.CmdRSDataReply); len(b) != drbd.SizeData+512<<10 {
		t.Errorf("%d bytes", len(b))
	}
}

// thinTarget is a node that has asked a puppet for its first piece.
func thinTarget(t *testing.T) nine {
	t.Helper()
	n := nine{puppetNode(t, func(c *Config) { thinly(0, c) })}
	n.becomesSource()
	n.startsSync()
	if q, err := drbd.ParseBlockRequest(drbd.CmdRSThinReq, n.expect(drbd.CmdRSThinReq)); err != nil || q.Sector != 0 || q.Size != thinPiece {
		t.Fatalf("%+v, %v", q, err)
	}
	return n
}

func TestThinHostile(t *testing.T) {
	for _, h := range []struct {
		name string
		d    drbd.BlockDesc
	}{
		{"nothing", drbd.BlockDesc{}},
		{"of another size", drbd.BlockDesc{Size: thinPiece / 2}},
		{"of odd size", drbd.BlockDesc{Size: 513}},
		{"more than was asked", drbd.BlockDesc{Size: 64 << 20}},
		{"not asked for", drbd.BlockDesc{Sector: 8, Size: thinPiece}},
		{"beyond the end", drbd.BlockDesc{Sector: 1 << 60, Size: thinPiece}},
		{"huge", drbd.BlockDesc{Size: 1<<32 - 512}},
	} {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			n := thinTarget(t)
			n.throw(hostile{cmd: drbd.CmdRSDeallocated, pl: h.d})
			n.n.await("the end of the link", func(s *Status) bool { return s.Counters.ProtocolErrors == 1 })
		})
	}
	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		n := thinTarget(t)
		for range 2 {
			n.throw(hostile{cmd: drbd.CmdRSDeallocated, pl: drbd.BlockDesc{Size: thinPiece}})
		}
		n.n.await("the end of the link", func(s *Status) bool { return s.Counters.ProtocolErrors == 1 })
	})
}

func TestThinConfig(t *testing.T) {
	for _, size := range []int64{-1, 1, 512, 12288, 2 << 20} {
		c := puppetNode(t, nil).n.cfg
		c.RSDiscardGranularity = size
		if r, err := New(c); err == nil {
			_ = r.Close()
			t.Errorf("%d is taken", size)
		}
	}
}
