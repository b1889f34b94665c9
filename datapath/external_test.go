package datapath

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// outside gives both nodes of a pair disks for external metadata: node 0 flexible, node 1 in slot 1.
func outside(t *testing.T, sizeA, sizeB int64) (p *pair, data, md [2]*blocktest.Mem, faults [2]*blocktest.Faults) {
	t.Helper()
	data = [2]*blocktest.Mem{blocktest.NewMem(sizeA), blocktest.NewMem(sizeB)}
	md = [2]*blocktest.Mem{blocktest.NewMem(1 << 20), blocktest.NewMem(2 * meta.SlotSize)}
	index := [2]int{meta.Flexible, 1}
	for i := range data {
		if err := meta.Create(bg(), data[i], meta.CreateOptions{MetaDisk: meta.MetaDisk{Device: md[i], Index: index[i]}}); err != nil {
			t.Fatal(err)
		}
		faults[i] = blocktest.NewFaults(md[i])
	}
	p = &pair{t: t, cable: &cable{}, addr: [2]string{freePort(t), freePort(t)}, tweak: func(i int, c *Config) {
		c.OpenMeta, c.MetaPath, c.MetaIndex = func() (block.Device, error) { return keepOpen{faults[i]}, nil }, "md"+names[i], index[i]
	}}
	for i := range data {
		p.boot(i, data[i])
	}
	t.Cleanup(func() {
		for _, n := range p.node {
			_ = n.Close()
		}
	})
	return p, data, md, faults
}

// TestExternalMetadata: a pair with its metadata elsewhere has all of its disks for data, to the last odd sector, and
// keeps what it knows over a crash and over going down in good order.
func TestExternalMetadata(t *testing.T) {
	const size = 24<<20 + 3*512
	p, data, md, _ := outside(t, size, 32<<20)
	p.synced()
	if s := p.node[0].Status(); s.Size != size {
		t.Fatalf("%d bytes", s.Size)
	}
	p.node[0].write(size-1536, pattern(1, 1536))
	p.node[0].write(5<<20, pattern(2, 1<<20))
	p.cable.pull()
	p.await("the cut", func(s *Status) bool { return s.Conn < proto.Connected })
	p.node[0].write(9<<20, pattern(3, 64<<10))
	p.node[0].write(size-512, pattern(4, 512))
	if err := p.node[0].Flush(); err != nil {
		t.Fatal(err)
	}

	// The Primary loses power: the log on the other disk marks what it was writing.
	d, m := data[0].CrashClone(7, 0), md[0].CrashClone(7, 0)
	_ = p.node[0].Close()
	was := p.tweak
	p.tweak = func(i int, c *Config) {
		if was(i, c); i == 0 {
			c.OpenMeta = func() (block.Device, error) { return keepOpen{m}, nil }
		}
	}
	n := p.boot(0, d)
	n.ok("attach", n.Attach(bg()))
	if !n.heard("the activity log marked") {
		n.dump()
		t.Error("nobody said that the activity log was applied")
	}
	p.cable.plug()
	n.ok("connect", n.Connect(bg(), false))
	p.await("the resync", inSync)
	p.equal()

	// Closed in good order, the metadata is clean, and the device that holds it has no more than that.
	for i, n := range p.node {
		_ = n.Close()
		on, index := []*blocktest.Mem{m, md[1]}[i], []int{meta.Flexible, 1}[i]
		a, err := meta.Open(n.disk, meta.OpenOptions{MetaDisk: meta.MetaDisk{Device: on, Index: index}})
		if err != nil || a.NeedsApplyAL() || a.Superblock().AgreedSize != size || a.Bitmap().Weight() != 0 {
			t.Errorf("%s: %v, %+v", n.name, err, a)
		}
	}
}

// TestExternalMetadataErrors: when the device for the metadata fails, the disk is dropped and the application goes on with
// the peer's copy; without it, or with another one's, nothing is attached, and the disk is given back.
func TestExternalMetadataErrors(t *testing.T) {
	p, _, _, faults := outside(t, 24<<20, 24<<20)
	opened := 0
	was := p.tweak
	p.tweak = func(i int, c *Config) {
		was(i, c)
		c.Open = func() (block.Device, error) { return countedIn(p.node[i].disk, &opened), nil }
	}
	for i, c := range []struct {
		open func() (block.Device, error)
		says string
	}{
		{func() (block.Device, error) { return nil, block.ErrInUse }, "open the device mdotter for the metadata of r0: device is in use"},
		{func() (block.Device, error) { return countedIn(blocktest.NewMem(1<<20), &opened), nil }, "(metadata on mdotter) of r0: superblock at 0: no DRBD metadata"},
		{func() (block.Device, error) { return countedIn(blocktest.NewMem(512<<10), &opened), nil }, "the device for metadata has 524288 bytes, at least 1048576 are needed"},
	} {
		before := p.tweak
		p.tweak = func(i int, cfg *Config) {
			before(i, cfg)
			cfg.OpenMeta = c.open
		}
		_ = p.node[0].Close()
		n := p.boot(0, p.node[0].disk)
		p.tweak = before
		if err := n.Attach(bg()); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%d: %v", i, err)
		}
		if opened != 0 {
			t.Fatalf("%d: %d devices are still open", i, opened)
		}
	}
	_ = p.node[0].Close()
	p.boot(0, p.node[0].disk)
	p.synced()
	heal := faults[0].Inject(blocktest.Rule{Ops: blocktest.OpWrite, Err: syscall.EIO})
	p.node[0].write(0, pattern(1, 4096)) // needs a transaction of the activity log
	p.node[0].await("the detach", func(s *Status) bool { return s.Disk == proto.Diskless })
	p.node[0].write(8<<20, pattern(2, 4096))
	got := make([]byte, 4096)
	if _, err := p.node[0].ReadAt(got, 0); err != nil || !bytes.Equal(got, pattern(1, 4096)) {
		t.Errorf("%v", err)
	}
	heal()
	p.node[0].ok("attach again", p.node[0].Attach(bg()))
	p.await("the resync", inSync)
	p.equal()
}

// counted is a device that tells whether it was closed.
type counted struct {
	block.Device
	open *int
}

func countedIn(d block.Device, open *int) block.Device { *open++; return counted{d, open} }

func (c counted) Close() error { *c.open--; return nil }

// TestExternalMetadataResize: the metadata stays where it is while the device grows, and the new part is resynced. A disk
// that grew while its node was down counts as it was until it is asked for.
func TestExternalMetadataResize(t *testing.T) {
	const before, after, last = 8 << 20, 24<<20 + 512, 32 << 20
	p, data, md, _ := outside(t, before, before)
	var kept [2]atomic.Int64
	was := p.tweak
	p.tweak = func(i int, c *Config) {
		was(i, c)
		c.LastSize, c.KeepSize = kept[i].Load, func(n int64) error { kept[i].Store(n); return nil }
	}
	for i := range data {
		_ = p.node[i].Close()
		p.boot(i, data[i])
	}
	p.synced()
	p.node[0].write(3<<20, pattern(1, 1<<20))
	extend := func(to int64) {
		for i, d := range data {
			from := d.Size()
			d.Extend(to)
			if _, err := d.Grow(); err != nil {
				t.Fatal(err)
			}
			if _, err := d.WriteAt(pattern(uint64(90+i), 512), from); err != nil {
				t.Fatal(err)
			}
		}
	}
	extend(after)
	p.node[1].ok("resize", p.node[1].Resize(bg(), false))
	p.await("the new size", sized(after))
	p.node[0].write(after-1536, pattern(2, 1536))
	p.node[0].ok("flush", p.node[0].Flush())
	p.equal()

	p.node[0].ok("demote", p.node[0].Demote(bg()))
	for i, n := range p.node {
		_ = n.Close()
		data[i].Reopen()
		md[i].Reopen()
	}
	extend(last)
	for i := range p.node {
		p.boot(i, data[i])
	}
	p.up()
	p.await("the size of before", sized(after))
	for _, n := range p.node {
		if !n.heard("the disk has grown from 24 to 32 MiB") {
			t.Errorf("%s: nobody said that the disk has grown", n.name)
		}
		n.ok("resize", n.Resize(bg(), false))
	}
	p.await("the new size", sized(last))
	p.equal()
	if err := errors.Join(p.node[0].Close(), p.node[1].Close()); err != nil {
		t.Error(err)
	}
}
