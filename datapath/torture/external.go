package torture

import (
	"example.com/santui/datapath/block"
	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/meta"
)

// slot is where a seed's external metadata is.
func (w *world) slot() int {
	if w.seed%2 == 0 {
		return 1
	}
	return meta.Flexible
}

// newMD makes the disk for external metadata, nil for seeds whose metadata is internal.
func (w *world) newMD() *blocktest.Mem {
	switch {
	case w.seed%3 != 1:
		return nil
	case w.slot() == meta.Flexible:
		return blocktest.NewMem(1<<20 + 512)
	}
	return blocktest.NewMem(2 * meta.SlotSize)
}

func (w *world) metaDisk(md *blocktest.Mem) meta.MetaDisk {
	if md == nil {
		return meta.MetaDisk{}
	}
	return meta.MetaDisk{Device: md, Index: w.slot()}
}

// openMD opens the disk for external metadata; the one for the data is open.
func (inc *incarnation) openMD() (block.Device, error) {
	inc.mu.Lock()
	defer inc.mu.Unlock()
	inc.disk.md = newDisk(inc, inc.md)
	return inc.disk.md, nil
}

// percentOf is how much of a second disk's cache survives where so much of the first one's does: often all of one and
// nothing of the other.
func percentOf(percent, turn int) int { return []int{percent, 0, 100}[turn%3] }
