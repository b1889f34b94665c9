package op

import (
	"strings"
	"testing"

	"example.com/santui/proto"
)

func TestSnapshotOf(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(v *View, lv *proto.BackingLV)
		size int64 // MiB
		want string
	}{
		{"room for all", func(_ *View, lv *proto.BackingLV) { lv.Free = 2 << 30 }, 1024 + 12 + 4, "holds all of it"},
		{"room for the changes", func(v *View, lv *proto.BackingLV) { lv.Free, v.From.Resource.OutOfSync = 300<<20, 100<<20 }, 256, "lost once 256 MiB of r0"},
		{"few changes", func(v *View, lv *proto.BackingLV) { lv.Free, v.From.Resource.OutOfSync = 300<<20, 4096 }, 64, "lost once 64 MiB"},
		{"both sides count", func(v *View, lv *proto.BackingLV) { lv.Free, v.To.Resource.OutOfSync = 300<<20, 100<<20 }, 256, "256 MiB"},
		{"no room", func(_ *View, lv *proto.BackingLV) { lv.Free = 60 << 20 }, 0, "60 MiB free"},
		{"all of it changed", func(v *View, lv *proto.BackingLV) { lv.Free, v.From.Resource.OutOfSync = 1000<<20, 1<<30 }, 0, "takes 1040"},
		{"no LV", func(v *View, _ *proto.BackingLV) { v.From.Facts.BackingLV = nil }, 0, "/dev/sdb on otter is no logical volume"},
		{"nothing known", func(v *View, _ *proto.BackingLV) { v.From.Facts = nil }, 0, "no logical volume"},
		{"thin", func(_ *View, lv *proto.BackingLV) { lv.Type = "thin" }, 0, "type thin"},
		{"scan_lvs", func(v *View, _ *proto.BackingLV) { v.From.Facts.LVM.ScanLVs = true }, 0, "scan_lvs"},
		{"left out", func(v *View, _ *proto.BackingLV) { v.NoSnapshot = true }, 0, "left out as asked"},
		{"bad name", func(v *View, _ *proto.BackingLV) { v.From.Resource.Name = "a b" }, 0, "no name for a logical volume"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lv := &proto.BackingLV{VG: "disks", LV: "r0", Type: "linear", Size: 1 << 30, Free: 4 << 30, Extent: 4 << 20}
			v := View{From: proto.Observation{Node: "otter", Facts: &proto.Facts{BackingLV: lv},
				Resource: proto.Resource{Name: "r0", Disk: "/dev/sdb", UUIDs: proto.UUIDs{Current: 0xabcdef}}}, To: proto.Observation{Node: "weasel"}}
			tt.set(&v, lv)
			s, _ := snapshotOf(v)
			if text := strings.Join(snapshotEffect(v), " "); !strings.Contains(text, tt.want) {
				t.Errorf("%q, want %q", text, tt.want)
			}
			p := MakePlan(proto.VerbResolve, "demo", v, v.From.At)
			i := 0
			for p.Steps[i].Kind != proto.StepSnapshot {
				i++
			}
			switch step := p.Steps[i]; {
			case tt.size == 0:
				if s != nil || step.Skip == "" || step.Snapshot != nil || p.Steps[i+1].Skip != "" {
					t.Errorf("%+v, %+v", s, step)
				}
			case s == nil || s.Size != tt.size<<20 || s.Size > lv.Free || s.Name != "santui-r0-0000000000abcdee" || step.Skip != "" ||
				strings.Join(step.Argv, " ") != "lvcreate --snapshot --yes --name "+s.Name+" --size "+step.Argv[6]+" disks/r0":
				t.Errorf("%+v, %v", s, step.Argv)
			}
		})
	}
}
