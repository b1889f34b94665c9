package op

import (
	"fmt"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// snapshotSlack is the least size of a snapshot that is smaller than its origin, bytes.
const snapshotSlack = 64 << 20

// limitSnapshot bounds the snapshot step, seconds.
const limitSnapshot = 60

// snapshotOf decides on a snapshot of the copy that a resolve gives up. Its name tells the generation that is lost, so a
// repeated resolve finds it again. It is as large as its origin if the group has room, and then never overflows; else it
// takes at least twice what both sides have changed, for the resync and what follows. why says why there is none.
func snapshotOf(v View) (s *proto.LVSnapshot, why string) {
	f, node := v.From.Facts, v.From.Node
	switch {
	case v.NoSnapshot:
		return nil, "left out as asked"
	case f == nil || f.BackingLV == nil:
		return nil, fmt.Sprintf("%s on %s is no logical volume", v.From.Resource.Disk, node)
	}
	lv := *f.BackingLV
	where := fmt.Sprintf("%s/%s on %s", lv.VG, lv.LV, node)
	s = &proto.LVSnapshot{VG: lv.VG, Origin: lv.LV, Name: fmt.Sprintf("santui-%s-%016x", v.From.Resource.Name, v.From.Resource.UUIDs.Current&^1)}
	switch {
	case f.LVM.ScanLVs:
		return nil, "lvm on " + node + " looks for physical volumes on logical ones (scan_lvs): a copy would show as a duplicate"
	case lv.Type == "thin" || lv.Type == "snapshot":
		return nil, fmt.Sprintf("%s is of type %s; make a copy by hand if it is wanted", where, lv.Type)
	case lv.Extent <= 0:
		return nil, "the extent size of " + lv.VG + " is not known"
	case lvmops.CheckLVName(s.Name) != nil:
		return nil, fmt.Sprintf("%q is no name for a logical volume", s.Name)
	}
	extents := func(n int64) int64 { return (n + lv.Extent - 1) / lv.Extent * lv.Extent }
	full := extents(lv.Size+lv.Size/100) + lv.Extent // the exception table takes 16 bytes a chunk of 4 KiB
	part := int64(snapshotSlack)                     // doubled as needed, so that a few more writes do not change the plan
	for part < 2*(v.From.Resource.OutOfSync+v.To.Resource.OutOfSync) && part < full {
		part *= 2
	}
	part = extents(part)
	if s.Size = full; full > lv.Free {
		s.Size = part
	}
	if s.Size = min(s.Size, full); s.Size > lv.Free {
		return nil, fmt.Sprintf("%s has %d MiB free, a snapshot of %s takes %d", lv.VG, lv.Free>>20, where, s.Size>>20)
	}
	return s, ""
}

// snapshot adds the step, or shows why it is not done.
func (b *builder) snapshot(v View) {
	s, why := snapshotOf(v)
	step := proto.Step{Kind: proto.StepSnapshot, Node: v.From.Node, Limit: limitSnapshot, Snapshot: s, Why: "what is given up stays readable until somebody removes it"}
	if s == nil {
		step.Argv, b.skip = []string{"lvcreate", "--snapshot"}, why
		b.add(step)
		b.skip = ""
		return
	}
	step.Argv = lvmops.SnapshotArgv(*s)
	b.add(step)
}

// snapshotEffect words what becomes of the data that is given up.
func snapshotEffect(v View) []string {
	s, why := snapshotOf(v)
	if s == nil {
		return []string{fmt.Sprintf("No copy is made of what %s loses: %s.", v.From.Node, why)}
	}
	room := "it holds all of it"
	if lv := v.From.Facts.BackingLV; s.Size < lv.Size {
		room = fmt.Sprintf("it is lost once %d MiB of %s have been overwritten", s.Size>>20, lv.LV)
	}
	return []string{
		fmt.Sprintf("Snapshot %s/%s keeps what %s has now: %s.", s.VG, s.Name, v.From.Node, room),
		fmt.Sprintf("Writes on %s are slower until it is removed there: lvremove %s/%s", v.From.Node, s.VG, s.Name),
	}
}
