package scene

import "example.com/santui/proto"

// Doctors are what the doctors of both nodes find: otter's LVM looks at the backing disk, weasel's does not.
func Doctors() map[string]proto.DoctorReply {
	healthy := proto.DoctorReply{Schema: proto.Schema, Node: "weasel", Resource: "r0", Disk: "/dev/md3", Device: "/dev/drbd0", Layout: proto.LayoutAbove, Healthy: true,
		Findings: []string{"filter in /etc/lvm/lvm.conf is in force", "LVM leaves /dev/md3 alone"}}
	open := healthy
	open.Node, open.Healthy = "otter", false
	open.Findings = []string{"no filter and no devices file: LVM looks at every disk", "LVM sees the physical volume on /dev/md3, behind replication's back"}
	open.Fix = &proto.LVMFix{File: "/etc/lvm/lvm.conf", Diff: []string{"-\t# filter = [ \"a|.*|\" ]", "+\tfilter = [ \"r|^/dev/md3$|\", \"a|.*|\" ]"}}
	open.Hint = "rebuild the initramfs, which holds a copy of lvm.conf: update-initramfs -u"
	return map[string]proto.DoctorReply{"otter": open, "weasel": healthy}
}
