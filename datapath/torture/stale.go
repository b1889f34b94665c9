package torture

import (
	"context"
	"slices"

	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/proto"
)

// shelved is a disk as it once was, taken out of a node without power.
type shelved struct {
	mem, md *blocktest.Mem
	current uint64 // the generation that it holds
}

// shelve puts a copy of a dead node's disk aside, or puts the one back that was. That one is found out if its generation is
// over: a disk that went back in time within one generation is a thing that DRBD's metadata cannot tell.
func (w *world) shelve(n *node) {
	switch old := n.old; {
	case old == nil || !w.isOver(n, old) && w.chance(30):
		d, md := n.mem.Clone(), (*blocktest.Mem)(nil)
		if n.md != nil {
			md = n.md.Clone()
		}
		m, err := n.openMeta(d.Clone(), clone(md))
		if err == nil {
			n.old = &shelved{mem: d, md: md, current: m.Superblock().UUIDs.Current &^ 1}
		}
	case w.isOver(n, old) && w.chance(70):
		n.mem, n.md, n.old = old.mem, old.md, nil
		w.mu.Lock()
		defer w.mu.Unlock()
		m := w.model
		m.level[n.i], m.crashed[n.i], m.tainted[n.i] = behind, false, false
		m.full, m.diskLost = true, true // all is resynced, and until then blocks differ that are marked nowhere
		w.part()
		w.note("an old disk is put back into %s", n.name)
		w.seen.saw("disk: an old one put back")
	}
}

func clone(m *blocktest.Mem) *blocktest.Mem {
	if m == nil {
		return nil
	}
	return m.Clone()
}

// isOver says that the other node, whose copy is good, has the generation of an old disk in its history.
func (w *world) isOver(n *node, old *shelved) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	peer := w.nodes[1-n.i].inc
	if peer == nil || w.model.level[1-n.i] != current || w.model.failing[1-n.i] || w.model.tainted[1-n.i] {
		return false
	}
	s := peer.res.Status()
	older := slices.ContainsFunc(s.UUIDs.History[:], func(u uint64) bool { return u != 0 && u&^1 == old.current })
	// During a resync one from before its start passes for a node that did not hear of it (rule 71, as with DRBD), and what was
	// resynced already is not again. An older one leaves the history if the source is promoted alone.
	h := s.UUIDs.History[0] &^ 1
	began := s.UUIDs.Bitmap != 0 && (h == old.current || s.UUIDs.Bitmap&^1 == h+1<<48)
	return s.Disk == proto.UpToDate && !began && s.Conn < proto.Connected && older && s.UUIDs.Current&^1 != old.current && s.UUIDs.Bitmap&^1 != old.current
}

// replace lets a node's disk go and attaches it again, as its policy for errors leaves to the operator.
func (w *world) replace(inc *incarnation) {
	w.command(inc, "detach (its disk passed errors on)", func(ctx context.Context) error { return inc.res.Detach(ctx) })
}
