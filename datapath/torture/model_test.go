package torture

import (
	"math/rand/v2"
	"testing"

	"example.com/santui/datapath/block/blocktest"
)

// TestWhatACacheBringsBack: of two writes of one place that were under way at the same time a read finds the later one. The
// earlier one may be back after a loss of power as long as nothing was flushed, and not after that.
func TestWhatACacheBringsBack(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		disk := blocktest.NewMem(1 << 20)
		m := newModel(rand.New(rand.NewPCG(1, 1)), 1<<20, false)
		off, p := m.windows[0].off, make([]byte, 4096)
		a, b := m.begin(0, off, 4096, false), m.begin(0, off, 4096, false)
		for _, id := range []uint32{a, b} {
			fill(p, id, off)
			if _, err := disk.WriteAt(p, off); err != nil {
				t.Fatal(err)
			}
		}
		m.finish(0, a, off, 4096, true)
		m.finish(0, b, off, 4096, true)
		if flushed {
			if err := disk.Flush(); err != nil {
				t.Fatal(err)
			}
			m.flush(0, m.tick())
		}
		back, err := m.mayBring(off, 4096, [2]*blocktest.Mem{disk, disk})
		if err == nil {
			err = m.verify(0, p, off, back, false)
		}
		if err == nil {
			err = m.safe(0, disk)
		}
		if err != nil {
			t.Errorf("flushed %v: %v", flushed, err)
		}
		if c := m.at(0, off, 512)[0]; m.may(c.now, a) || m.may(c.durable, a) == flushed || !m.may(c.durable, b) {
			t.Errorf("flushed %v: may be read: %s; after a loss of power: %s", flushed, m.list(c.now), m.list(c.durable))
		}
	}
}
