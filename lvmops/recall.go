package lvmops

import (
	"crypto/sha256"
	"encoding/hex"

	"example.com/santui/proto"
)

// maxKnown bounds how many volume groups' metadata are remembered.
const maxKnown = 64

// markOf is a group's proto.VG.Mark, "" if the device does not tell.
func markOf(header []byte) string {
	if header == nil {
		return ""
	}
	sum := sha256.Sum256(header)
	return hex.EncodeToString(sum[:])
}

// keep remembers what lvm reported when the header of the device's metadata was this one, and marks the group with it. The
// header holds place, size and checksum of the newest metadata (LVM2 lib/format_text/layout.h, struct mda_header).
func (o *Ops) keep(header []byte, rep *lvmReport) {
	mark := markOf(header)
	if mark == "" || len(rep.vgs) != 1 {
		return
	}
	rep.vgs[0].Mark = mark
	o.know(rep.vgs[0])
}

func (o *Ops) know(g lvmVG) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.known) >= maxKnown {
		clear(o.known)
	}
	o.known[g.Mark] = g
}

// recall returns what is known of the metadata with this header: names, uuids and flags, nothing of what is active.
func (o *Ops) recall(header []byte) *lvmVG {
	mark := markOf(header)
	o.mu.Lock()
	defer o.mu.Unlock()
	g, ok := o.known[mark]
	if mark == "" || !ok {
		return nil
	}
	return &g
}

// Learn takes over what the other node's lvm said of a volume group. It counts for a device whose metadata carry the same
// mark, as a replica's do. A group that makes no sense is not taken over: this node's lvm is then asked.
func (o *Ops) Learn(vg proto.VG) {
	g := lvmVG{VG: vg}
	g.LVs = nil
	if g.valid() != nil || len(vg.Mark) != 2*sha256.Size {
		return
	}
	for _, lv := range vg.LVs {
		if g.add(lv) != nil {
			return
		}
	}
	o.know(g)
}
