package datapath

import (
	"bytes"
	"crypto/md5"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"example.com/santui/datapath/block"
	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// same is the payload of a write-same of size bytes.
func same(sector uint64, size uint32, data []byte) raw {
	r := drbd.Range{Data: drbd.Data{Sector: sector, ID: drbd.BlockIDOf(7), Flags: drbd.DPSendWriteAck | drbd.DPWSame}, Size: size}
	return append(r.Append(nil), data...)
}

// ioDisk notes how it is written.
type ioDisk struct {
	block.Device
	mu      sync.Mutex
	largest int
	zeroed  int64
	unmaps  int
}

func (d *ioDisk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	d.largest = max(d.largest, len(p))
	d.mu.Unlock()
	return d.Device.WriteAt(p, off)
}

func (d *ioDisk) WriteZeroes(off, n int64, unmap bool) error {
	d.mu.Lock()
	d.zeroed += n
	if unmap {
		d.unmaps++
	}
	d.mu.Unlock()
	return d.Device.WriteZeroes(off, n, unmap)
}

func (d *ioDisk) seen() (largest int, zeroed int64, unmaps int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.largest, d.zeroed, d.unmaps
}

// watched makes the node's disk tell how it is written.
func watched(c *Config) *ioDisk {
	d := &ioDisk{}
	open := c.Open
	c.Open = func() (dev block.Device, err error) {
		d.Device, err = open()
		return d, err
	}
	return d
}

// TestWriteSame: a block fills its range, in pieces of at most 1 MiB; one of zeroes is written as zeroes, whose space is
// not given back. It is acknowledged with the size of its range, and counts once in its epoch.
func TestWriteSame(t *testing.T) {
	t.Parallel()
	var disk *ioDisk
	p := puppetNode(t, func(c *Config) { disk = watched(c) })
	p.primary()
	const off, size = 1 << 20, 5<<20 + 4096
	for _, n := range []int{512, 4096} {
		b := pattern(uint64(n), n)
		p.send(drbd.CmdWSame, same(off/512, size, b))
		a, err := drbd.ParseBlockAck(p.expectMeta(drbd.CmdWriteAck))
		if err != nil || a.Sector != off/512 || a.Size != size || a.ID != drbd.BlockIDOf(7) {
			t.Errorf("acknowledged %+v, %v", a, err)
		}
		c := p.n.content()
		if !bytes.Equal(c[off:off+size], bytes.Repeat(b, size/n)) || !empty(c[:off]) || !empty(c[off+size:]) {
			t.Errorf("block of %d bytes: the range is not filled with it", n)
		}
	}
	largest, before, unmaps := disk.seen()
	if largest > 1<<20 || before > 0 {
		t.Errorf("written in pieces of %d bytes, %d bytes as zeroes", largest, before)
	}
	p.send(drbd.CmdWSame, same(off/512, size, make([]byte, 512)))
	p.expectMeta(drbd.CmdWriteAck)
	if _, zeroed, now := disk.seen(); zeroed-before != size || now != unmaps || !empty(p.n.content()) {
		t.Errorf("%d bytes were written as zeroes, %d given back", zeroed-before, now-unmaps)
	}
	p.send(drbd.CmdBarrier, drbd.Barrier{})
	if a, err := drbd.ParseBarrierAck(p.expectMeta(drbd.CmdBarrierAck)); err != nil || a.SetSize != 3 {
		t.Errorf("epoch %+v, %v", a, err)
	}
}

// TestWriteSameDigest: with a data-integrity-alg the digest is of the one block (drbd_csum_bio, drbd_worker.c).
func TestWriteSameDigest(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, func(c *Config) { c.DataIntegrityAlg = "md5" })
	p.primary()
	b := pattern(1, 4096)
	sum := md5.Sum(b)
	p.send(drbd.CmdWSame, same(0, 1<<20, append(sum[:], b...)))
	p.expectMeta(drbd.CmdWriteAck)
	if want := bytes.Repeat(b, 256); !bytes.Equal(p.n.content()[:1<<20], want) {
		t.Error("the range is not filled")
	}
	p.send(drbd.CmdWSame, same(0, 1<<20, append(sum[:], pattern(2, 4096)...)))
	p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected })
	if !p.n.heard("data-integrity-alg") || !bytes.Equal(p.n.content()[:4096], b) {
		p.n.dump()
		t.Error("a damaged block was written, or the damage not named")
	}
}

// TestWriteSameUnagreed: a peer that did not agree to write-same must not send one, and gets SIZES of 32 bytes.
func TestWriteSameUnagreed(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	p.cannot = drbd.FeatureWSame
	p.primary()
	if s, err := drbd.ParseSizes(p.expect(drbd.CmdSizes)); err != nil || s.Limits != nil {
		t.Errorf("sizes %+v, %v", s, err)
	}
	p.throw(hostile{cmd: drbd.CmdWSame, pl: same(0, 4096, pattern(1, 512))})
	p.n.await("the end of the link", func(s *Status) bool { return s.Conn < proto.Connected && s.Counters.ProtocolErrors == 1 })
	if !p.n.heard("write-same was not agreed") || !empty(p.n.content()) {
		p.n.dump()
		t.Error("it was written, or is not named")
	}
}

// TestQueueLimits: what the peer is told of the disk when write-same is agreed.
func TestQueueLimits(t *testing.T) {
	t.Parallel()
	for _, off := range []bool{false, true} {
		p := puppetNode(t, func(c *Config) { c.DisableWriteSame = off })
		p.primary()
		s, err := drbd.ParseSizes(p.expect(drbd.CmdSizes))
		want := drbd.QueueLimits{PhysicalBlock: 512, LogicalBlock: 512, IOMin: 512, Discard: true, DiscardZeroes: true, WriteSame: !off}
		if err != nil || s.Limits == nil || *s.Limits != want {
			t.Errorf("sizes %+v, %+v, %v", s, s.Limits, err)
		}
	}
}

// TestWriteSameMixed: overlapping writes of all kinds, many under way, leave what one after the other would; with a
// diskless Primary they are marked.
func TestWriteSameMixed(t *testing.T) {
	t.Parallel()
	p := puppetNode(t, nil)
	p.primary()
	r := rand.New(rand.NewPCG(1, 2))
	_ = p.meta.SetDeadline(time.Now().Add(time.Minute))
	_ = p.data.SetDeadline(time.Now().Add(time.Minute))
	want := make([]byte, p.n.Size())
	const all = 300
	for i := range all {
		unit := 512 << r.IntN(4)
		off := r.IntN(32<<10/unit) * unit
		n := (1 + r.IntN(64<<10/unit)) * unit
		switch b := pattern(uint64(i), n); r.IntN(4) {
		case 0:
			d := drbd.Data{Sector: uint64(off / 512), ID: drbd.BlockIDOf(7), Flags: drbd.DPSendWriteAck}
			p.send(drbd.CmdData, raw(append(d.Append(nil), b...)))
			copy(want[off:], b)
		case 1:
			d := drbd.Data{Sector: uint64(off / 512), ID: drbd.BlockIDOf(7), Flags: drbd.DPSendWriteAck | drbd.DPZeroes}
			p.send(drbd.CmdZeroes, drbd.Range{Data: d, Size: uint32(n)})
			clear(want[off : off+n])
		default:
			p.send(drbd.CmdWSame, same(uint64(off/512), uint32(n), b[:unit]))
			copy(want[off:], bytes.Repeat(b[:unit], n/unit))
		}
	}
	p.send(drbd.CmdBarrier, drbd.Barrier{})
	if a, err := drbd.ParseBarrierAck(p.expectMeta(drbd.CmdBarrierAck)); err != nil || a.SetSize != all {
		t.Errorf("epoch %+v, %v", a, err)
	}
	if !bytes.Equal(p.n.content(), want) {
		t.Error("the disk is not as the packets say")
	}
	p.send(drbd.CmdState, drbd.State{Role: proto.Primary, Peer: proto.Secondary, Conn: proto.Connected, Disk: proto.Diskless, PeerDisk: proto.UpToDate})
	p.n.await("the peer without disk", func(s *Status) bool { return s.PeerDisk == proto.Diskless })
	p.send(drbd.CmdWSame, same(0, 8<<20, pattern(1, 512)))
	p.expectMeta(drbd.CmdWriteAck)
	p.n.await("the marks", func(s *Status) bool { return s.OutOfSync == 8<<20 })
}
