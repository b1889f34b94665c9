package meta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
)

var ctx = context.Background()

func TestCreateAndOpen(t *testing.T) {
	mem := blocktest.NewMem(1 << 30)
	if _, err := Open(mem, OpenOptions{}); !errors.Is(err, ErrNoMetadata) {
		t.Errorf("Open of a blank disk: %v", err)
	}
	if err := Create(ctx, mem, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if mem.Unflushed() != 0 {
		t.Error("something is not flushed")
	}
	if err := Create(ctx, mem, CreateOptions{}); !errors.Is(err, ErrMetadataExists) {
		t.Errorf("a second Create: %v", err)
	}
	m, err := Open(mem, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := Superblock{UUIDs: UUIDs{Current: JustCreated}, Flags: FlagALClean, ALExtents: DefaultALExtents}
	if got := m.Superblock(); got != want {
		t.Errorf("superblock %+v", got)
	}
	if m.NeedsApplyAL() || m.NeedsFullSync() || m.Bitmap().Bits() != 0 || m.AL().Capacity() != DefaultALExtents {
		t.Error("fresh metadata is not as it should be")
	}
	if err := Create(ctx, mem, CreateOptions{Force: true}); err != nil {
		t.Errorf("by force: %v", err)
	}
}

func TestOptionsRefused(t *testing.T) {
	mem := blocktest.NewMem(1 << 30)
	for _, o := range []CreateOptions{{ALStripes: 2}, {ALStripeSize: 65536}, {ALExtents: 6}, {ALExtents: 6434}} {
		if err := Create(ctx, mem, o); !errors.Is(err, ErrUnsupported) {
			t.Errorf("Create(%+v): %v", o, err)
		}
	}
	for _, n := range []int{6, 6434, -1} {
		if _, err := Open(mem, OpenOptions{ALExtents: n}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("Open with %d extents: %v", n, err)
		}
	}
	if err := Create(ctx, blocktest.NewMem(16<<10), CreateOptions{}); !errors.Is(err, ErrTooSmall) {
		t.Errorf("tiny disk: %v", err)
	}
}

func TestUpdate(t *testing.T) {
	mem := blocktest.NewMem(1 << 30)
	f := blocktest.NewFaults(mem)
	if err := Create(ctx, f, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	m, err := Open(f, OpenOptions{ALExtents: 100})
	if err != nil {
		t.Fatal(err)
	}
	set := func(sb *Superblock) {
		sb.UUIDs = UUIDs{10, 11, [2]uint64{12, 13}}
		sb.Flags = FlagConsistent | FlagWasUpToDate | FlagALClean
	}
	if err := m.Update(ctx, set); err != nil {
		t.Fatal(err)
	}
	want := Superblock{UUIDs: UUIDs{10, 11, [2]uint64{12, 13}}, Flags: FlagConsistent | FlagWasUpToDate, Unclean: true, ALExtents: 100}
	again, err := Open(mem.CrashClone(0, 0), OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if m.Superblock() != want || again.Superblock() != want {
		t.Errorf("%+v\n%+v", m.Superblock(), again.Superblock())
	}
	if err := again.Update(ctx, func(*Superblock) {}); !errors.Is(err, ErrUnclean) {
		t.Errorf("Update of an unclean superblock: %v", err)
	}
	n := f.Calls(blocktest.OpWrite)
	if err := m.Update(ctx, set); err != nil || f.Calls(blocktest.OpWrite) != n {
		t.Errorf("an Update without change: %v", err)
	}
	if err := m.Update(ctx, func(sb *Superblock) { sb.AgreedSize = 512 }); !errors.Is(err, ErrInvalid) {
		t.Errorf("change of the agreed size: %v", err)
	}
	f.Inject(blocktest.Rule{Ops: blocktest.OpFlush, Fail: true})
	for range 2 {
		if err := m.Update(ctx, func(sb *Superblock) { sb.UUIDs.Current = 99 }); !errors.Is(err, ErrMetaIO) {
			t.Errorf("failing disk: %v", err)
		}
	}
	if m.Superblock() != want {
		t.Error("a failed Update must not show")
	}
}

func TestSetAgreedSize(t *testing.T) {
	mem := blocktest.NewMem(1 << 30)
	if err := Create(ctx, mem, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	m, err := Open(mem, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		size   int64
		setNew bool
		weight uint64
	}{{512 << 20, true, 131072}, {768 << 20, false, 131072}, {256<<20 + 512, false, 65537}, {m.Layout().UsableSize, true, uint64(m.Layout().UsableSize/4096) - 0}} {
		if err := m.SetAgreedSize(ctx, c.size, c.setNew); err != nil {
			t.Fatal(err)
		}
		clone := mem.CrashClone(0, 0)
		a, err := Open(clone, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if m.Bitmap().Weight() != c.weight || a.Bitmap().Weight() != c.weight || a.Superblock().AgreedSize != c.size || a.Bitmap().Size() != c.size {
			t.Errorf("size %d: weight %d, on disk %d and %d bytes; want %d", c.size, m.Bitmap().Weight(), a.Bitmap().Weight(), a.Superblock().AgreedSize, c.weight)
		}
	}
	for size, want := range map[int64]error{-512: ErrInvalid, 100: ErrInvalid, m.Layout().UsableSize + 512: ErrTooLarge} {
		if err := m.SetAgreedSize(ctx, size, true); !errors.Is(err, want) {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

func TestMarkClean(t *testing.T) {
	mem := blocktest.NewMem(1 << 30)
	m := create(t, mem, 7)
	begin(t, m, 1)
	m.Bitmap().SetRange(0, 4096)
	if err := m.MarkClean(ctx); !errors.Is(err, ErrBusy) {
		t.Errorf("with a write under way: %v", err)
	}
	end(t, m, 1)
	if err := m.MarkClean(ctx); err != nil {
		t.Fatal(err)
	}
	again, err := Open(mem.CrashClone(0, 0), OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if again.NeedsApplyAL() || again.Bitmap().Weight() != 1 || len(replayed(t, mem)) != 0 || m.AL().Active() != 0 {
		t.Error("not clean")
	}
	// Used again it is unclean before the first transaction.
	begin(t, m, 5)
	if err := covered(mem.CrashClone(0, 0), [][2]int64{{5 * ext, ext}, {0, 4096}}); err != nil {
		t.Error(err)
	}
}

func TestApplyAL(t *testing.T) {
	mem := blocktest.NewMem(1 << 30)
	m := create(t, mem, 7)
	begin(t, m, 3, 200)
	m.Bitmap().SetRange(3*ext, 8192)
	if err := m.Bitmap().WriteDirty(ctx); err != nil {
		t.Fatal(err)
	}
	secondary := mem.Clone()

	m, err := Open(mem, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !m.NeedsApplyAL() {
		t.Fatal("an unclean disk must need ApplyAL")
	}
	if err := m.AL().Begin(ctx, 0, 512); !errors.Is(err, ErrUnclean) {
		t.Errorf("Begin before ApplyAL: %v", err)
	}
	if err := m.SetAgreedSize(ctx, 4096, false); !errors.Is(err, ErrUnclean) {
		t.Errorf("SetAgreedSize before ApplyAL: %v", err)
	}
	if err := m.MarkClean(ctx); !errors.Is(err, ErrUnclean) {
		t.Errorf("MarkClean before ApplyAL: %v", err)
	}
	if m, err = Open(mem, OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	res, err := m.ApplyAL(ctx)
	if err != nil || res != (ApplyResult{Extents: 2, Bits: 2046}) {
		t.Errorf("%+v, %v", res, err)
	}
	if f := m.Superblock().Flags; f != FlagPrimary|FlagALClean || m.NeedsApplyAL() || m.Superblock().Unclean {
		t.Errorf("flags %v", f)
	}
	if res, err := m.ApplyAL(ctx); err != nil || res != (ApplyResult{}) {
		t.Errorf("a second time: %+v, %v", res, err)
	}
	begin(t, m, 7) // the log works at once

	// Without the Primary flag nothing is marked.
	if m, err = Open(secondary, OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.sb.Flags &^= FlagPrimary
	m.mu.Unlock()
	if res, err := m.ApplyAL(ctx); err != nil || res != (ApplyResult{}) || m.Bitmap().Weight() != 2 {
		t.Errorf("Secondary: %+v, %v", res, err)
	}
}

func TestApplyALUnreadable(t *testing.T) {
	mem := blocktest.NewMem(1 << 30)
	m := create(t, mem, 7)
	begin(t, m, 3)
	if _, err := mem.WriteAt(bytes.Repeat([]byte{0x55}, ALSize), m.Layout().ALOffset); err != nil {
		t.Fatal(err)
	}
	m, err := Open(mem, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.ApplyAL(ctx); !errors.Is(err, ErrALUnreadable) || !m.NeedsApplyAL() {
		t.Errorf("ApplyAL: %v", err)
	}
	res, err := m.ApplyALWithFullSync(ctx)
	if err != nil || res.Bits != m.Bitmap().Bits() || m.NeedsApplyAL() {
		t.Errorf("ApplyALWithFullSync: %+v, %v", res, err)
	}
	if len(replayed(t, mem)) != 0 {
		t.Error("the log should be fresh")
	}
}

func TestNeedsFullSync(t *testing.T) {
	for f, want := range map[Flags]bool{0: false, FlagFullSync: true, FlagALDisabled: false, FlagALDisabled | FlagPrimary: true,
		FlagALDisabled | FlagCrashedPrimary: true, FlagPrimary: false} {
		if m := (&Metadata{sb: Superblock{Flags: f}}); m.NeedsFullSync() != want {
			t.Errorf("%v: %v", f, !want)
		}
	}
}

// crashes runs do on a copy of mem once for every write and flush it makes, with the
// power cut just before it, and calls check for the disks that are left.
func crashes(t *testing.T, mem *blocktest.Mem, do func(dev block.Device) error, check func(t *testing.T, clone *blocktest.Mem)) {
	t.Helper()
	run := mem.Clone()
	f := blocktest.NewFaults(run)
	points := 0
	var clones []*blocktest.Mem
	f.Inject(blocktest.Rule{Ops: blocktest.OpWrite | blocktest.OpFlush | blocktest.OpZero, Hook: func(blocktest.Op, int64, int64) {
		for seed, survive := range []int{0, 30, 70, 100} {
			clones = append(clones, run.CrashClone(uint64(points*10+seed), survive))
		}
		points++
	}})
	if err := do(f); err != nil {
		t.Fatal(err)
	}
	if points < 3 {
		t.Fatalf("only %d points to cut at", points)
	}
	for _, c := range append(clones, run.CrashClone(0, 0)) {
		check(t, c)
	}
}

func TestCreateCrash(t *testing.T) {
	mem := blocktest.NewMem(256 << 20)
	m := create(t, mem, 7)
	old := m.Superblock()
	m.Bitmap().SetAll()
	begin(t, m, 1, 2, 3)
	if err := m.Bitmap().WriteDirty(ctx); err != nil {
		t.Fatal(err)
	}
	before := 0
	crashes(t, mem, func(d block.Device) error { return Create(ctx, d, CreateOptions{Force: true}) }, func(t *testing.T, c *blocktest.Mem) {
		m, err := Open(c, OpenOptions{})
		if errors.Is(err, ErrNoMetadata) {
			before++
			return
		}
		if err != nil {
			t.Fatalf("neither valid nor gone: %v", err)
		}
		p := make([]byte, m.Layout().BMSize)
		if _, err := c.ReadAt(p, m.Layout().BMOffset); err != nil {
			t.Fatal(err)
		}
		r, err := m.readRing()
		if err != nil {
			t.Fatal(err)
		}
		switch blank := len(bytes.Trim(p, "\x00")) == 0; {
		case m.Superblock().UUIDs.Current == JustCreated && m.Superblock().AgreedSize == 0:
			if !blank || !r.clean() {
				t.Fatalf("a fresh superblock over an old bitmap (blank %v) or log (clean %v)", blank, r.clean())
			}
		case m.Superblock() == old:
			if blank || r.clean() {
				t.Fatal("the old superblock over new parts")
			}
		default:
			t.Fatalf("a superblock from nowhere: %+v", m.Superblock())
		}
	})
	if before == 0 {
		t.Error("no cut left the disk without metadata")
	}
}

func TestApplyALCrash(t *testing.T) {
	for _, extents := range []int{9, DefaultALExtents, MaxALExtents} {
		t.Run(fmt.Sprint(extents), func(t *testing.T) { applyALCrash(t, extents) })
	}
}

func applyALCrash(t *testing.T, extents int) {
	mem := blocktest.NewMem(1 << 30)
	m := create(t, mem, extents)
	begin(t, m, 1, 50, 200)
	end(t, m, 50)
	begin(t, m, 60, 61, 62, 63, 64, 65, 66)
	want := [][2]int64{{1 * ext, ext}, {200 * ext, ext}}
	for e := int64(60); e < 67; e++ {
		want = append(want, [2]int64{e * ext, ext})
	}
	check := func(t *testing.T, c *blocktest.Mem) {
		m, err := Open(c, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.ApplyAL(ctx); err != nil {
			t.Fatal(err)
		}
		for _, r := range want {
			if n := m.Bitmap().CountRange(r[0], r[1]); n != 1024 {
				t.Fatalf("%d of 1024 bits at %d", n, r[0])
			}
		}
	}
	apply := func(d block.Device) error {
		m, err := Open(d, OpenOptions{})
		if err == nil {
			_, err = m.ApplyAL(ctx)
		}
		return err
	}
	crashes(t, mem, apply, check)
	// And with one block torn already.
	m, err := Open(mem, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	torn := int64(m.al.number) % alBlocks
	if _, err := mem.WriteAt(make([]byte, 512), m.Layout().ALOffset+torn*alBlockSize+512); err != nil {
		t.Fatal(err)
	}
	crashes(t, mem, apply, check)
}

func TestSetAgreedSizeCrash(t *testing.T) {
	mem := blocktest.NewMem(1 << 30)
	m := create(t, mem, 7)
	if err := m.SetAgreedSize(ctx, 512<<20, false); err != nil {
		t.Fatal(err)
	}
	if err := m.MarkClean(ctx); err != nil {
		t.Fatal(err)
	}
	crashes(t, mem, func(d block.Device) error {
		m, err := Open(d, OpenOptions{ALExtents: 7})
		if err != nil {
			return err
		}
		return m.SetAgreedSize(ctx, m.Layout().UsableSize, true)
	}, func(t *testing.T, c *blocktest.Mem) {
		m, err := Open(c, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := uint64(0)
		if size := m.Superblock().AgreedSize; size != 512<<20 {
			want = uint64((size - 512<<20) / 4096)
		}
		if m.Bitmap().Weight() != want {
			t.Fatalf("%d bytes agreed, %d bits set, want %d", m.Superblock().AgreedSize, m.Bitmap().Weight(), want)
		}
	})
}

func TestProbe(t *testing.T) {
	const size = 256 << 20
	l := layout(t, size)
	le, be := binary.LittleEndian, binary.BigEndian
	type sig = func(p []byte, claimed int64)
	for _, c := range []struct {
		name  string
		at    int64
		sized bool
		write sig
	}{
		{"ext4", 0, true, func(p []byte, n int64) {
			le.PutUint16(p[1024+0x38:], 0xef53)
			le.PutUint32(p[1024+0x18:], 2)
			le.PutUint32(p[1024+4:], uint32(n/4096))
		}},
		{"xfs", 0, true, func(p []byte, n int64) {
			copy(p, "XFSB")
			be.PutUint32(p[4:], 4096)
			be.PutUint64(p[8:], uint64(n/4096))
		}},
		{"btrfs", 64 << 10, true, func(p []byte, n int64) { copy(p[0x40:], "_BHRfS_M"); le.PutUint64(p[0xc9+8:], uint64(n)) }},
		{"ntfs", 0, true, func(p []byte, n int64) {
			copy(p[3:], "NTFS    ")
			le.PutUint16(p[11:], 512)
			le.PutUint64(p[0x28:], uint64(n/512-1))
		}},
		{"swap", 0, true, func(p []byte, n int64) { copy(p[4086:], "SWAPSPACE2"); le.PutUint32(p[1028:], uint32(n/4096-1)) }},
		{"lvm", 512, true, func(p []byte, n int64) {
			copy(p, "LABELONE")
			le.PutUint32(p[20:], 32)
			copy(p[24:], "LVM2 001")
			le.PutUint64(p[64:], uint64(n))
		}},
		{"luks", 0, false, func(p []byte, _ int64) { copy(p, "LUKS\xba\xbe") }},
		{"gpt", 512, true, func(p []byte, n int64) { copy(p, "EFI PART"); le.PutUint64(p[32:], uint64(n/512-1)) }},
		{"gpt backup", size - 512, false, func(p []byte, _ int64) { copy(p, "EFI PART") }},
		{"md 1.0", size - 8192, false, func(p []byte, _ int64) { le.PutUint32(p, 0xa92b4efc) }},
		{"md 0.90", size - 65536, false, func(p []byte, _ int64) { le.PutUint32(p, 0xa92b4efc) }},
		{"DRBD v07", size - 128<<20, false, func(p []byte, _ int64) { be.PutUint32(p[28:], magic07) }},
		{"DRBD v09", size - 4096, false, func(p []byte, _ int64) { be.PutUint32(p[60:], magic09) }},
	} {
		for claimed, fits := range map[int64]bool{size: false, l.UsableSize + 4096: false, l.UsableSize: true} {
			mem := blocktest.NewMem(size)
			p := make([]byte, min(8192, size-c.at))
			c.write(p, claimed)
			if _, err := mem.WriteAt(p, c.at); err != nil {
				t.Fatal(err)
			}
			want := ErrDataExists
			if c.name[0] == 'D' {
				want = ErrMetadataExists
			} else if c.sized && fits {
				want = nil
			}
			if err := Create(ctx, mem, CreateOptions{}); !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("%s of %d bytes: %v, want %v", c.name, claimed, err, want)
			}
			if err := Create(ctx, mem, CreateOptions{Force: true}); err != nil {
				t.Errorf("%s by force: %v", c.name, err)
			}
			found, err := Probe(mem)
			if err != nil || slices.ContainsFunc(found, func(c Content) bool { return c.DRBD != "" && c.DRBD != "v08" }) {
				t.Errorf("%s: after Create there is %+v, %v", c.name, found, err)
			}
		}
	}
	// Sizes that cannot be are unknown, not small.
	mem := blocktest.NewMem(size)
	p := make([]byte, 512)
	copy(p, "XFSB")
	be.PutUint32(p[4:], math.MaxUint32)
	be.PutUint64(p[8:], math.MaxUint64)
	if _, err := mem.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if err := Create(ctx, mem, CreateOptions{}); !errors.Is(err, ErrDataExists) {
		t.Errorf("absurd size: %v", err)
	}
}
