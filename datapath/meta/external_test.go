package meta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
)

const mib = 1 << 20

// outside makes external metadata for data and opens it, as create does with internal one.
func outside(t tb, data block.Device, md MetaDisk, extents int) *Metadata {
	t.Helper()
	if err := Create(ctx, data, CreateOptions{MetaDisk: md}); err != nil {
		t.Fatal(err)
	}
	m, err := Open(data, OpenOptions{ALExtents: extents, MetaDisk: md})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SetAgreedSize(ctx, m.Layout().UsableSize, false); err != nil {
		t.Fatal(err)
	}
	if err := m.Update(ctx, func(sb *Superblock) { sb.Flags |= FlagPrimary }); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestLayoutExternal(t *testing.T) {
	for _, c := range []struct {
		data, md        int64
		index           int
		off, bm, usable int64
	}{
		{1 << 30, 4 * mib, Flexible, 0, 4*mib - 36<<10, 1 << 30},
		{1<<30 + 3*512, 4*mib + 512, Flexible, 0, 4*mib - 36<<10 + 512, 1<<30 + 3*512},
		{1<<40 + 100, mib, Flexible, 0, mib - 36<<10, (mib - 36<<10) * 8 * 4096}, // as much as the bitmap covers
		{1 << 30, 128 * mib, 0, 0, 128*mib - 36<<10, 1 << 30},
		{1 << 30, 4 << 30, 31, 31 * 128 * mib, 128*mib - 36<<10, 1 << 30},
		{8 << 40, 128 * mib, 0, 0, 128*mib - 36<<10, 262072 * 32768 * 512}, // DRBD_MAX_SECTORS_FIXED_BM, drbd_int.h
	} {
		l, err := LayoutExternal(c.data, c.md, c.index)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if l.MDOffset != c.off || l.ALOffset != c.off+4096 || l.BMOffset != c.off+36<<10 || l.BMSize != c.bm || l.UsableSize != c.usable {
			t.Errorf("%+v: %+v", c, l)
		}
	}
	for _, c := range []struct {
		data, md int64
		index    int
		want     error
	}{
		{1 << 30, mib - 512, Flexible, ErrTooSmall}, {1 << 30, 256*mib - 512, 1, ErrTooSmall}, {512, mib, Flexible, ErrTooSmall},
		{1 << 30, 2 << 40, Flexible, ErrTooLarge}, {1 << 30, 1 << 40, 256, ErrInvalid}, {1 << 30, 1 << 40, -2, ErrInvalid},
	} {
		if _, err := LayoutExternal(c.data, c.md, c.index); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// The metadata stays inside its device or slot, and its bitmap covers the data.
func TestLayoutExternalProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.Int64Range(BlockSize, 2*maxDevice).Draw(t, "data")
		md := rapid.Int64Range(minFlexible, maxFlexible).Draw(t, "md")
		index := rapid.IntRange(Flexible, MaxIndex).Draw(t, "index")
		l, err := LayoutExternal(data, md, index)
		if err != nil {
			if index < 0 || md >= int64(index+1)*SlotSize {
				t.Fatal(err)
			}
			return
		}
		end := l.BMOffset + l.BMSize
		if end > md || index >= 0 && (l.MDOffset != int64(index)*SlotSize || end != l.MDOffset+SlotSize) || !l.external() || end != l.MDOffset+l.MDSize() {
			t.Fatalf("%+v", l)
		}
		if l.UsableSize > data || l.UsableSize%sectorSize != 0 || l.UsableSize > maxDevice || l.BMSize*8*BlockSize < l.UsableSize {
			t.Fatalf("%+v", l)
		}
	})
}

// TestExternal lives a life on two devices: the data's one gets nothing but flushes, all of it is the resource's, and
// what was marked is there again. The bitmap of the odd one ends within a page.
func TestExternal(t *testing.T) {
	for _, c := range []struct {
		name     string
		data, md int64
		index    int
	}{{"flexible", 64*mib + 512, 4 * mib, Flexible}, {"full to the last bit", 40 << 30, mib + 36<<10 + 512, Flexible}, {"slot 0", 64 * mib, 128 * mib, 0}, {"slot 2", 64*mib + 7*512, 400 * mib, 2}} {
		t.Run(c.name, func(t *testing.T) {
			data, mem := blocktest.NewFaults(blocktest.NewMem(c.data)), blocktest.NewMem(c.md)
			md := MetaDisk{mem, c.index}
			if _, err := Open(data, OpenOptions{MetaDisk: md}); !errors.Is(err, ErrNoMetadata) {
				t.Errorf("Open of a blank disk: %v", err)
			}
			m := outside(t, data, md, 7)
			size := m.Layout().UsableSize
			if whole := c.data; size != min(whole, m.Layout().BMSize*8*4096) {
				t.Errorf("%d of %d bytes can be used", size, whole)
			}
			m.Bitmap().SetBits(5, 9)
			m.Bitmap().SetRange(size-512, 512)
			begin(t, m, 0, 3)
			if err := m.Bitmap().WriteDirty(ctx); err != nil {
				t.Fatal(err)
			}
			crashed := MetaDisk{mem.CrashClone(1, 0), c.index}
			a, err := Open(data, OpenOptions{MetaDisk: crashed})
			if err != nil {
				t.Fatal(err)
			}
			if res, err := a.ApplyAL(ctx); err != nil || res != (ApplyResult{Extents: 2, Bits: 2048 - 4}) {
				t.Errorf("%+v, %v", res, err)
			}
			end(t, m, 0, 3)
			want := contents(m.Bitmap())
			if err := m.MarkClean(ctx); err != nil {
				t.Fatal(err)
			}
			a, err = Open(data, OpenOptions{MetaDisk: MetaDisk{mem.CrashClone(1, 0), c.index}})
			if err != nil || a.NeedsApplyAL() || a.Superblock().AgreedSize != size || !slices.Equal(contents(a.Bitmap()), want) {
				t.Errorf("again: %v, %+v", err, a)
			}
			if n := data.Calls(blocktest.OpWrite | blocktest.OpZero | blocktest.OpDiscard | blocktest.OpRead); n != 0 {
				t.Errorf("%d accesses to the data", n)
			}
			if err := Create(ctx, data, CreateOptions{MetaDisk: md}); !errors.Is(err, ErrMetadataExists) {
				t.Errorf("a second Create: %v", err)
			}
		})
	}
}

// Slots do not touch each other.
func TestExternalSlots(t *testing.T) {
	data, md := blocktest.NewMem(32*mib), blocktest.NewMem(3*SlotSize)
	var slots [3]*Metadata
	for i := range slots {
		slots[i] = outside(t, data, MetaDisk{md, i}, 7)
		slots[i].Bitmap().SetBits(uint64(i), 100)
		if err := slots[i].Update(ctx, func(sb *Superblock) { sb.UUIDs.Current = uint64(1000 + i) }); err != nil {
			t.Fatal(err)
		}
		if err := slots[i].MarkClean(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := Create(ctx, data, CreateOptions{MetaDisk: MetaDisk{md, 1}, Force: true}); err != nil {
		t.Fatal(err)
	}
	for i := range slots {
		m, err := Open(data, OpenOptions{MetaDisk: MetaDisk{md, i}})
		if err != nil {
			t.Fatal(err)
		}
		if fresh := m.Superblock().UUIDs.Current == JustCreated; fresh != (i == 1) || !fresh && m.Bitmap().Weight() != uint64(100-i) {
			t.Errorf("slot %d: %+v, %d bits", i, m.Superblock(), m.Bitmap().Weight())
		}
	}
}

// TestExternalRefuses: what is on the device for the metadata is not overwritten unasked, whatever slot it is in.
func TestExternalRefuses(t *testing.T) {
	data := blocktest.NewMem(32 * mib)
	ext4 := func(size int64) *blocktest.Mem {
		d := blocktest.NewMem(3 * SlotSize)
		p := make([]byte, 4096)
		binary.LittleEndian.PutUint16(p[1024+0x38:], 0xef53)
		binary.LittleEndian.PutUint32(p[1024+0x4:], uint32(size/1024))
		if _, err := d.WriteAt(p, 0); err != nil {
			t.Fatal(err)
		}
		return d
	}
	used := func(size int64, index int) *blocktest.Mem {
		d := blocktest.NewMem(size)
		outside(t, data, MetaDisk{d, index}, 7)
		return d
	}
	internal := blocktest.NewMem(3 * SlotSize)
	create(t, internal, 7)
	for _, c := range []struct {
		name  string
		md    *blocktest.Mem
		index int
		want  error
	}{
		{"a file system", ext4(mib), Flexible, ErrDataExists},
		{"a file system in slot 0", ext4(mib), 0, ErrDataExists},
		{"a file system that ends before", ext4(128 * mib), 1, nil},
		{"a file system that does not", ext4(129 * mib), 1, ErrDataExists},
		{"another one's slot", used(3*SlotSize, 1), 1, ErrMetadataExists},
		{"a slot beside others", used(3*SlotSize, 1), 2, nil},
		{"the last slot", used(3*SlotSize, 2), 0, nil},
		{"flexible over a slot", used(3*SlotSize, 1), Flexible, ErrMetadataExists},
		{"a slot in flexible", used(3*SlotSize, Flexible), 2, ErrMetadataExists},
		{"a disk with internal metadata", internal, 0, ErrMetadataExists},
		{"a slot that is not there", blocktest.NewMem(3*SlotSize - 512), 2, ErrTooSmall},
	} {
		md := blocktest.NewFaults(c.md)
		err := Create(ctx, data, CreateOptions{MetaDisk: MetaDisk{md, c.index}})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if n := md.Calls(blocktest.OpWrite | blocktest.OpZero); c.want != nil && n != 0 {
			t.Errorf("%s: refused after %d writes", c.name, n)
		}
		if c.want == ErrMetadataExists || c.want == ErrDataExists {
			if err := Create(ctx, data, CreateOptions{MetaDisk: MetaDisk{c.md, c.index}, Force: true}); err != nil {
				t.Errorf("%s by force: %v", c.name, err)
			}
		}
	}
}

func TestExternalOpenRefuses(t *testing.T) {
	data, md := blocktest.NewMem(32*mib), blocktest.NewMem(2*SlotSize)
	outside(t, data, MetaDisk{md, Flexible}, 7)
	shorter := func(n int64) *blocktest.Mem {
		d, p := blocktest.NewMem(n), make([]byte, 64<<10)
		_, err1 := md.ReadAt(p, 0)
		_, err2 := d.WriteAt(p, 0)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, c := range []struct {
		name string
		data *blocktest.Mem
		md   MetaDisk
		says string
	}{
		{"slot 0 of flexible", data, MetaDisk{md, 0}, "md_size_sect at byte 64 of the superblock is 524288, expected 262144"},
		{"a metadata device that shrank", data, MetaDisk{shorter(mib), Flexible}, "is 524288, expected 2048"},
		{"a data device that shrank", blocktest.NewMem(31 * mib), MetaDisk{md, Flexible}, "la_size_sect at byte 0 of the superblock is 65536, expected at most 63488"},
	} {
		if _, err := Open(c.data, OpenOptions{MetaDisk: c.md}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// The other way round is as with the kernel: the superblock says how much of the device counts.
	if _, err := Open(data, OpenOptions{MetaDisk: MetaDisk{shorter(4 * SlotSize), Flexible}}); err != nil {
		t.Errorf("a metadata device that grew: %v", err)
	}
	head := make([]byte, 64<<10)
	if _, err := md.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	tail := blocktest.NewMem(16 * mib)
	if _, err := tail.WriteAt(head[:4096], 16*mib-4096); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(tail, OpenOptions{}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "this is external metadata") {
		t.Errorf("external where internal is expected: %v", err)
	}
}

// TestExternalGrow: the data's device grows, and then the other one, without which there is no room for more. Nothing
// moves; cut anywhere, the metadata reads, with every mark and active extent.
func TestExternalGrow(t *testing.T) {
	const before, room = 8 << 30, mib - 36<<10
	data, mem := blocktest.NewMem(before), blocktest.NewMem(mib)
	f := blocktest.NewFaults(mem)
	m := outside(t, data, MetaDisk{f, Flexible}, 7)
	at := m.Layout()
	m.Bitmap().SetBits(77, 99)
	if err := m.Bitmap().WriteDirty(ctx); err != nil {
		t.Fatal(err)
	}
	begin(t, m, 3, 5)
	want := [][2]int64{{3 * ext, ext}, {5 * ext, ext}, {77 * 4096, 22 * 4096}}
	var clones []*blocktest.Mem
	f.Inject(blocktest.Rule{Ops: blocktest.OpWrite | blocktest.OpFlush | blocktest.OpZero, Hook: func(blocktest.Op, int64, int64) {
		for _, survive := range []int{0, 50} {
			clones = append(clones, mem.CrashClone(uint64(len(clones)), survive))
		}
	}})
	grow := func(to, md, usable int64) {
		t.Helper()
		data.Extend(to)
		mem.Extend(md)
		for _, d := range []*blocktest.Mem{data, mem} {
			if _, err := d.Grow(); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Move(ctx, to, forget); err != nil {
			t.Fatal(err)
		}
		if err := m.SetAgreedSize(ctx, m.Layout().UsableSize, true); err != nil {
			t.Fatal(err)
		}
		if l := m.Layout(); l.UsableSize != usable || l.MDOffset != 0 || l.ALOffset != at.ALOffset || l.BMOffset != at.BMOffset {
			t.Errorf("%+v", l)
		}
	}
	grow(16<<30, mib, 16<<30)
	grow(40<<30, mib, room*8*4096) // no bits for more
	grow(64<<30, 4*mib, 64<<30)
	if got := m.Bitmap().Weight(); got != 22+(64<<30-before)/4096 {
		t.Errorf("%d bits", got)
	}
	if len(clones) < 50 {
		t.Fatalf("%d clones", len(clones))
	}
	for i, c := range append(clones, mem.CrashClone(0, 0)) {
		a, err := Open(data, OpenOptions{ALExtents: 7, MetaDisk: MetaDisk{c, Flexible}})
		if err != nil {
			t.Fatalf("cut %d: %v", i, err)
		}
		if _, err := a.ApplyAL(ctx); err != nil {
			t.Fatalf("cut %d: %v", i, err)
		}
		for _, r := range append(want, [2]int64{before, a.Bitmap().Size() - before}) {
			if got := a.Bitmap().CountRange(r[0], r[1]); got != uint64(r[1]/4096) {
				t.Fatalf("cut %d: of %v %d blocks are marked", i, r, got)
			}
		}
	}
}

// TestExternalOrder takes the power from two disks that each have a cache of their own, before every write and flush of
// either: a block whose last content is not on the data's disk is marked by bitmap or activity log.
func TestExternalOrder(t *testing.T) {
	content := bytes.Repeat([]byte{0xda}, 8192)
	for _, c := range []struct {
		name   string
		logged bool
		do     func(m *Metadata) error
	}{
		{"extents go", true, func(m *Metadata) error { return m.AL().Begin(ctx, 100*ext, 5*ext) }},
		{"a new size after a resync", false, func(m *Metadata) error { return m.SetAgreedSize(ctx, m.Layout().UsableSize, true) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			disks := [2]*blocktest.Mem{blocktest.NewMem(1 << 30), blocktest.NewMem(4 * mib)}
			data, md := blocktest.NewFaults(disks[0]), blocktest.NewFaults(disks[1])
			m := outside(t, data, MetaDisk{md, Flexible}, 7)
			if err := m.SetAgreedSize(ctx, 512*mib, false); err != nil {
				t.Fatal(err)
			}
			m.Bitmap().SetAll()
			if err := m.Bitmap().WriteDirty(ctx); err != nil {
				t.Fatal(err)
			}
			for e := range int64(5) { // both copies have it, the bits go
				if c.logged {
					begin(t, m, e)
				}
				if _, err := data.WriteAt(content, e*ext); err != nil {
					t.Fatal(err)
				}
				m.Bitmap().ClearRange(e*ext, int64(len(content)))
				if c.logged {
					end(t, m, e)
				}
			}
			var clones [][2]*blocktest.Mem
			cut := blocktest.Rule{Ops: blocktest.OpWrite | blocktest.OpFlush | blocktest.OpZero, Hook: func(blocktest.Op, int64, int64) {
				for _, survive := range [][2]int{{0, 0}, {0, 100}, {50, 100}, {100, 0}, {0, 50}} {
					n := uint64(len(clones))
					clones = append(clones, [2]*blocktest.Mem{disks[0].CrashClone(n, survive[0]), disks[1].CrashClone(n, survive[1])})
				}
			}}
			data.Inject(cut)
			md.Inject(cut)
			if err := c.do(m); err != nil {
				t.Fatal(err)
			}
			cut.Hook(0, 0, 0)
			if len(clones) < 20 {
				t.Fatalf("%d clones", len(clones))
			}
			for i, c := range clones {
				a, err := Open(c[0], OpenOptions{ALExtents: 7, MetaDisk: MetaDisk{c[1], Flexible}})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := a.ApplyAL(ctx); err != nil {
					t.Fatal(err)
				}
				for e := range int64(5) {
					got := make([]byte, len(content))
					if _, err := c[0].ReadAt(got, e*ext); err != nil {
						t.Fatal(err)
					}
					for b := range int64(2) {
						if !bytes.Equal(got[b*4096:][:4096], content[:4096]) && !a.Bitmap().Test(uint64(e*ext/4096+b)) {
							t.Fatalf("cut %d: block %d of extent %d was lost and is not marked", i, b, e)
						}
					}
				}
			}
		})
	}
}

// An error of either device ends the use of the metadata.
func TestExternalErrors(t *testing.T) {
	for name, which := range map[string]int{"data": 0, "metadata": 1} {
		disks := [2]*blocktest.Faults{blocktest.NewFaults(blocktest.NewMem(1 << 30)), blocktest.NewFaults(blocktest.NewMem(4 * mib))}
		m := outside(t, disks[0], MetaDisk{disks[1], Flexible}, 7)
		for e := range int64(7) {
			begin(t, m, e)
			end(t, m, e)
		}
		disks[which].Inject(blocktest.Rule{Ops: blocktest.OpFlush, Fail: true})
		for range 2 {
			if err := m.AL().Begin(ctx, 10*ext, 512); !errors.Is(err, ErrMetaIO) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
