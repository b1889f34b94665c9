package engine

import (
	"strings"
	"testing"

	"example.com/santui/datapath"
	"example.com/santui/proto"
)

// TestLightsApart: neither side of a congested link passes for in sync or redundant.
func TestLightsApart(t *testing.T) {
	ahead := lights("weasel", &datapath.Status{Role: proto.Primary, Conn: proto.Ahead, Disk: proto.UpToDate, PeerDisk: proto.Consistent, OutOfSync: 8192})
	behind := lights("otter", &datapath.Status{Role: proto.Secondary, Conn: proto.Behind, Disk: proto.Outdated, PeerDisk: proto.UpToDate, OutOfSync: 8192})
	for _, l := range []proto.Lights{ahead, behind} {
		if l.InSync.On || l.Redundant.On || !strings.Contains(l.InSync.Why, "congested") || !strings.Contains(l.InSync.Why, " 8 KiB ") {
			t.Errorf("%+v", l)
		}
	}
	differ := lights("otter", &datapath.Status{Role: proto.Secondary, Conn: proto.Connected, Disk: proto.UpToDate, PeerDisk: proto.UpToDate, OutOfSync: 4096})
	if differ.InSync.On || differ.SafePowerOff.On || !strings.Contains(differ.SafePowerOff.Why, "4 KiB differ from otter") {
		t.Errorf("a verify has found differences: %+v", differ)
	}
	if ahead.SafePowerOff.On || !behind.SafePowerOff.On {
		t.Errorf("%+v, %+v", ahead.SafePowerOff, behind.SafePowerOff)
	}
}
