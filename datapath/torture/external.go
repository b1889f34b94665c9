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

// outside says that the seed's metadata is external.
func (w *world) outside() bool { return w.seed%3 == 1 }

// newMD makes the disk for external metadata, nil for seeds whose metadata is internal.
func (w *world) newMD() *blocktest.Mem {
	switch {
	case !w.outside():
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

// crashed are a node's disks after a loss of power, of which percent of what is in the cache survives, or another part of
// metadata.
func (n *node) crashed(d, md *blocktest.Mem, seed uint64, percent, turn int) (data, metadata *blocktest.Mem) {
	switch {
	case md != nil:
		return d.CrashClone(seed, percent), md.CrashClone(seed+1, percentOf(percent, turn))
	case n.w.twist.grow || n.w.seed < 100: // metadata may be anywhere, or as it was before this was drawn
		return d.CrashClone(seed, percent), nil
	}
	return d.CrashCloneSplit(seed, percent, n.w.usableOf(d.Size()), percentOf(percent, turn)), nil
}

// percentOf is how much of a second disk's cache survives where so much of the first one's does: often all of one and
// nothing of the other.
func percentOf(percent, turn int) int { return []int{percent, 0, 100}[turn%3] }
