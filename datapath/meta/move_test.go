package meta

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
)

// find opens the metadata of a disk that may or may not have been moved, as an attach does.
func find(t *testing.T, dev block.Device, before int64) (m *Metadata, moved bool) {
	t.Helper()
	m, err := Open(dev, OpenOptions{ALExtents: 7})
	if err == nil {
		return m, true
	}
	if !errors.Is(err, ErrNoMetadata) {
		t.Fatal(err)
	}
	if m, err = Open(dev, OpenOptions{ALExtents: 7, DeviceSize: before}); err != nil {
		t.Fatalf("neither at the new end nor at the old one: %v", err)
	}
	return m, false
}

// forget keeps nothing in mind.
func forget() error { return nil }

// TestMoveCrash cuts the power at every write of a move, with writes under way: always exactly one superblock counts, its
// log has every active extent, its bitmap every bit, and the data is untouched.
func TestMoveCrash(t *testing.T) {
	const before, after = 256 << 20, 400<<20 + 512
	for _, capacity := range []int{7, 1237} {
		mem := blocktest.NewMem(before)
		m := create(t, mem, capacity)
		data := bytes.Repeat([]byte{0xda}, 8192)
		if _, err := mem.WriteAt(data, m.Layout().UsableSize-8192); err != nil {
			t.Fatal(err)
		}
		m.Bitmap().SetBits(77, 99)
		m.Bitmap().SetBits(40000, 65000)
		if err := m.Bitmap().WriteDirty(ctx); err != nil {
			t.Fatal(err)
		}
		begin(t, m, 3, 5, 60)
		if err := mem.Flush(); err != nil {
			t.Fatal(err)
		}
		active, bits := m.AL().Extents(), contents(m.Bitmap())
		sb, usable := m.Superblock(), m.Layout().UsableSize

		mem.Extend(after)
		if n, err := mem.Grow(); n != after || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		f := blocktest.NewFaults(mem)
		m.dev, m.bm.dev, m.al.dev = f, f, f
		var clones []*blocktest.Mem
		var kept []int64
		last := int64(before)
		f.Inject(blocktest.Rule{Ops: blocktest.OpWrite | blocktest.OpFlush | blocktest.OpZero, Hook: func(blocktest.Op, int64, int64) {
			for _, survive := range []int{0, 30, 70, 100} {
				clones, kept = append(clones, mem.CrashClone(uint64(len(clones)), survive)), append(kept, last)
			}
		}})
		if err := m.Move(ctx, after, func() error { last = after; return nil }); err != nil {
			t.Fatal(err)
		}
		if mem.Unflushed() != 0 {
			t.Error("something is not flushed")
		}
		clones, kept = append(clones, mem.CrashClone(0, 0)), append(kept, last)
		moves := 0
		for i, c := range clones {
			again := c.Clone() // grows once more
			again.Extend(after + 64<<20)
			again.Reopen()
			if a, _ := find(t, again, kept[i]); a.Superblock() != sb {
				t.Fatalf("cut %d, and it has grown again: superblock %+v, want %+v", i, a.Superblock(), sb)
			}
			a, moved := find(t, c, before)
			if moved {
				moves++
			}
			if got := a.Superblock(); got != sb {
				t.Fatalf("cut %d: superblock %+v, want %+v", i, got, sb)
			}
			r, err := a.readRing()
			if err != nil {
				t.Fatal(err)
			}
			extents, err := r.extents()
			if err != nil || !slices.Equal(extents, active) || a.Damage() != "" {
				t.Fatalf("cut %d: extents %v, %v, %q; want %v", i, extents, err, a.Damage(), active)
			}
			if !slices.Equal(contents(a.Bitmap()), bits) {
				t.Fatalf("cut %d: %d bits, want %d", i, a.Bitmap().Weight(), len(bits))
			}
			got := make([]byte, 8192)
			if _, err := c.ReadAt(got, usable-8192); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("cut %d: the data has changed: %v", i, err)
			}
		}
		if moves == 0 || moves == len(clones) {
			t.Errorf("%d of %d cuts left moved metadata", moves, len(clones))
		}
		if _, err := Open(clones[len(clones)-1], OpenOptions{DeviceSize: before}); !errors.Is(err, ErrNoMetadata) {
			t.Errorf("the old superblock is still there: %v", err)
		}

		// There is room now, the log goes on, and what it says is true.
		if err := m.SetAgreedSize(ctx, m.Layout().UsableSize, true); err != nil {
			t.Fatal(err)
		}
		end(t, m, 3, 5, 60)
		begin(t, m, 90, 61)
		m.Bitmap().SetRange(99<<20, 4096)
		if err := covered(mem.CrashClone(3, 0), [][2]int64{{90 * ext, ext}, {61 * ext, ext}, {77 * 4096, 22 * 4096}, {usable, m.Layout().UsableSize - usable}}); err != nil {
			t.Error(err)
		}
	}
}

func TestMoveRefused(t *testing.T) {
	mem := blocktest.NewMem(256 << 20)
	m := create(t, mem, 7)
	if err := m.Move(ctx, 256<<20, forget); err != nil {
		t.Errorf("to where it is: %v", err)
	}
	mem.Extend(256<<20 + 40<<10)
	if _, err := mem.Grow(); err != nil {
		t.Fatal(err)
	}
	if err := m.Move(ctx, mem.Size(), forget); !errors.Is(err, ErrTooSmall) {
		t.Errorf("over itself: %v", err)
	}
	begin(t, m, 3)
	if _, err := Open(mem, OpenOptions{}); !errors.Is(err, ErrNoMetadata) {
		t.Errorf("at the end of a disk that has grown: %v", err)
	}
	if _, err := Open(mem, OpenOptions{DeviceSize: 1 << 30}); !errors.Is(err, ErrTooSmall) {
		t.Errorf("behind the end: %v", err)
	}
	a, err := Open(mem, OpenOptions{DeviceSize: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Move(ctx, 1<<30, forget); !errors.Is(err, ErrUnclean) {
		t.Errorf("before the log is applied: %v", err)
	}
	f := blocktest.NewFaults(mem)
	m.dev, m.bm.dev, m.al.dev = f, f, f
	f.Inject(blocktest.Rule{Ops: blocktest.OpFlush, Skip: 3, Fail: true})
	mem.Extend(512 << 20)
	if _, err := mem.Grow(); err != nil {
		t.Fatal(err)
	}
	if err := m.Move(ctx, mem.Size(), forget); !errors.Is(err, ErrMetaIO) {
		t.Errorf("failing disk: %v", err)
	}
	if err := m.AL().Begin(ctx, 40*ext, 4096); !errors.Is(err, ErrMetaIO) {
		t.Errorf("a write after a move that failed: %v", err)
	}
	if _, moved := find(t, mem, 256<<20); moved {
		t.Error("the metadata moved")
	}
}
