package datapath

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
)

// coarse is a memory disk that insists on blocks of 4 KiB.
type coarse struct{ *blocktest.Mem }

func (coarse) LogicalBlockSize() int { return 4096 }

func (c coarse) ReadAt(p []byte, off int64) (int, error) {
	if err := block.CheckRange(c, off, int64(len(p))); err != nil {
		return 0, err
	}
	return c.Mem.ReadAt(p, off)
}

func (c coarse) WriteAt(p []byte, off int64) (int, error) {
	if err := block.CheckRange(c, off, int64(len(p))); err != nil {
		return 0, err
	}
	return c.Mem.WriteAt(p, off)
}

func TestSectorsOnCoarseDisk(t *testing.T) {
	blocktest.Suite(t, func(t *testing.T) block.Device { return withSectors(coarse{blocktest.NewMem(4 << 20)}) })
	d, want := withSectors(coarse{blocktest.NewMem(1 << 20)}), make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 500 {
		n := 512 * (1 + r.Int64N(40))
		off := 512 * r.Int64N((1<<20-n)/512)
		if i%5 == 0 {
			if err := d.WriteZeroes(off, n, true); err != nil {
				t.Fatal(err)
			}
			clear(want[off : off+n])
			continue
		}
		p := pattern(uint64(i), int(n))
		if _, err := d.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
		copy(want[off:], p)
	}
	got := make([]byte, 1<<20)
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("content differs: %v", err)
	}
}
