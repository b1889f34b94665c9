package torture

import (
	"slices"
	"time"
)

// apart is what may differ since both copies were last known to be equal. No more than that may ever be resynced.
type apart struct {
	together bool                // both are in sync, and know it
	since    time.Time           // what was last written before is on both disks
	touched  map[int64]time.Time // when a write to a block was last under way
	recent   [2][]int64          // extents that each node has logged, the newest last
	memory   int                 // how many of them can be in the activity log
	extents  map[int64]bool      // all of these count: they were in the activity log of a Primary that went down
	grown    int64               // bytes by which disks grew since the device was last as large as they are
}

const (
	extentBytes  = 4 << 20
	extentBlocks = extentBytes / 4096
	// waiting is how many extents more than its slots can be in the activity log: as many as writes wait for a slot.
	waiting = 8
	// owed is how long the peer may owe the confirmation of a write: then the link ends.
	owed = 10 * time.Second
)

// touch takes note of a write that begins or ends on node i.
func (a *apart) touch(i int, off, n int64) {
	now := time.Now()
	for b := off / 4096; b <= (off+n-1)/4096; b++ {
		a.touched[b] = now
	}
	a.log(i, off, n)
}

// underWay takes note of writes that have been for long: a disk may stand still, and the peer owes their answers besides.
func (a *apart) underWay(pending map[uint32][2]int64) {
	now := time.Now()
	for _, r := range pending {
		for b := r[0] / 4096; b <= (r[0]+r[1]-1)/4096; b++ {
			a.touched[b] = now
		}
	}
}

// log takes note of extents that node i has in its activity log: it writes there, or its peer does that has no disk.
func (a *apart) log(i int, off, n int64) {
	for e := off / extentBytes; e <= (off+n-1)/extentBytes; e++ {
		r := slices.DeleteFunc(a.recent[i], func(x int64) bool { return x == e })
		a.recent[i] = append(r, e)[max(0, len(r)+1-a.memory):]
	}
}

// join: both nodes know that the copies are equal.
func (a *apart) join() { a.together, a.extents = true, nil }

// part: one of them no longer does. A node tells of the end of a link when its disk has what is to be remembered about it, and that
// one may have stood still. The lock is held.
func (w *world) part() {
	a := &w.model.apart
	if !a.together {
		return
	}
	from := time.Now()
	for _, n := range w.nodes {
		if n.inc == nil {
			continue
		}
		n.inc.mu.Lock()
		if time.Since(n.inc.stalled) < owed && n.inc.still.Before(from) {
			from = n.inc.still
		}
		n.inc.mu.Unlock()
	}
	a.together, a.since = false, from.Add(-owed)
}

// down: node i ended as Primary and did not leave its metadata clean.
func (a *apart) down(i int) {
	if a.extents == nil {
		a.extents = map[int64]bool{}
	}
	for _, e := range a.recent[i] {
		a.extents[e] = true
	}
}

// mayDiffer is how many blocks can have to be resynced.
func (m *model) mayDiffer(size int64) int64 {
	a := &m.apart
	if m.full || m.unread {
		return size / 4096
	}
	n := int64(len(a.extents))*extentBlocks + a.grown/4096
	for b, at := range a.touched {
		if !at.Before(a.since) && !a.extents[b/extentBlocks] {
			n++
		}
	}
	return min(n, size/4096)
}
