package op

import (
	"context"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
)

// TestStackChecks makes each condition appear in a healthy view and looks for its code, its result and its evidence.
func TestStackChecks(t *testing.T) {
	user := func(kind string) func(*View) {
		return func(v *View) {
			v.From.Resource.Stack.Users = append(v.From.Resource.Stack.Users, proto.User{Kind: kind, Name: "thing", How: "held", Path: "/mnt/x"})
		}
	}
	lv := func(f func(*proto.LV)) func(*View) {
		return func(v *View) { f(&v.From.Resource.Stack.VGs[0].LVs[0]) }
	}
	link := func(f func(a, b *proto.LinkFacts)) func(*View) {
		return func(v *View) {
			good := proto.LinkFacts{BreaksIn: 600, Sent: 1000, Window: 30, RTT: 0.0005, UsualRTT: 0.0004, MTU: 1500}
			a, b := good, good
			f(&a, &b)
			v.From.Facts.Link, v.To.Facts.Link = &a, &b
		}
	}
	entry := proto.FstabEntry{Source: "/dev/mapper/storage-test", Target: "/mnt", FSType: "ext4", Options: "noauto"}
	cases := []struct {
		code   string
		result proto.CheckResult
		want   string
		make   func(*View)
	}{
		{proto.CheckBackingActive, proto.CheckFail, "weasel: loop /dev/loop3", func(v *View) {
			v.To.Facts.Backing = []proto.User{{Kind: "loop", Name: "/dev/loop3", How: "on the backing disk", Device: "ubdb"}}
		}},
		{proto.CheckBackingActive, proto.CheckFail, "otter: dm", func(v *View) { v.From.Facts.Backing = []proto.User{{Kind: "dm", Name: "/dev/storage/test"}} }},
		{proto.CheckDupPV, proto.CheckFail, "otter: /dev/sdx", func(v *View) { v.From.Facts.LVM.Duplicates = []string{"/dev/sdx carries it too"} }},
		{proto.CheckBackingVisible, proto.CheckWarn, "weasel sees /dev/md3", func(v *View) { v.To.Facts.LVM.Backing = []string{"/dev/md3"} }},
		{proto.CheckBusyMount, proto.CheckFail, "mount thing: held /mnt/x", user("mount")},
		{proto.CheckBusyNFS, proto.CheckFail, "nfs thing", user("nfs")},
		{proto.CheckBusyTarget, proto.CheckFail, "iscsi thing", user("iscsi")},
		{proto.CheckBusyTarget, proto.CheckFail, "nvmet thing", user("nvmet")},
		{proto.CheckBusyDevice, proto.CheckFail, "md thing", user("md")},
		{proto.CheckVGMixed, proto.CheckFail, "storage/test is not active", lv(func(l *proto.LV) { l.Active = false })},
		{proto.CheckVGMixed, proto.CheckOK, "", lv(func(l *proto.LV) { l.Active, l.Attr = false, "Vwi---tz-k" })},
		{proto.CheckVGOwner, proto.CheckFail, `the system ID "otter"`, func(v *View) { v.From.Resource.Stack.VGs[0].SystemID = "otter" }},
		{proto.CheckVGOwner, proto.CheckFail, "sanlock", func(v *View) { v.From.Resource.Stack.VGs[0].LockType = "sanlock" }},
		{proto.CheckLVOpen, proto.CheckFail, "storage/test is open", lv(func(l *proto.LV) { l.Open, l.Unexplained = true, true })},
		{proto.CheckLVHealth, proto.CheckFail, "needs a check", lv(func(l *proto.LV) { l.CheckNeeded = true })},
		{proto.CheckLVHealth, proto.CheckFail, `"partial"`, lv(func(l *proto.LV) { l.Health = "partial" })},
		{proto.CheckLVHealth, proto.CheckFail, "it was full", lv(func(l *proto.LV) { l.Attr = "swi-I-s---" })},
		{proto.CheckThinFull, proto.CheckFail, "metadata 97.0 %", lv(func(l *proto.LV) { l.MetaPct = 97 })},
		{proto.CheckThinTools, proto.CheckWarn, `"0.9.0" on otter and "1.0.4" on weasel`, func(v *View) { v.To.Facts.ThinTools = "1.0.4" }},
		{proto.CheckTools, proto.CheckFail, "thin_check is missing on weasel", func(v *View) { v.To.Tools["thin_check"] = "" }},
		{proto.CheckVGClash, proto.CheckFail, "weasel has storage-test, left by", func(v *View) { v.To.Left = []string{"storage-test, left by an agent that died"} }},
		{proto.CheckFSHealth, proto.CheckFail, "recorded 3 errors", func(v *View) { v.From.Facts.Health = []proto.FSHealth{{Target: "/mnt", Errors: 3}} }},
		{proto.CheckFSHealth, proto.CheckFail, "shutdown", func(v *View) { v.From.Facts.Health = []proto.FSHealth{{Target: "/mnt", State: "shutdown"}} }},
		{proto.CheckFSHealth, proto.CheckWarn, "read-only", func(v *View) { v.From.Facts.Health = []proto.FSHealth{{Target: "/mnt", ReadOnly: true}} }},
		{proto.CheckFSKernel, proto.CheckFail, "/mnt needs ext4", func(v *View) { v.To.Facts.Filesystems = []string{"xfs"} }},
		{proto.CheckUnwind, proto.CheckFail, "mounted nowhere as a whole", func(v *View) { v.From.Resource.Stack.Mounts[0].Root = "/sub" }},
		{proto.CheckUnwind, proto.CheckFail, "/mnt: its btrfs needs /dev/sdc", func(v *View) { v.From.Resource.Stack.Mounts[0].Problem = "its btrfs needs /dev/sdc too" }},
		{proto.CheckUnwind, proto.CheckWarn, "/mnt keeps quotas in files", func(v *View) { v.From.Resource.Stack.Mounts[0].Options = "rw,usrjquota=aquota.user,jqfmt=vfsv0" }},
		{proto.CheckFstab, proto.CheckWarn, "is in fstab of otter only", func(v *View) { v.From.Facts.Fstab = []proto.FstabEntry{entry} }},
		{proto.CheckFstab, proto.CheckOK, "1 entries", func(v *View) {
			v.From.Facts.Fstab, v.To.Facts.Fstab = []proto.FstabEntry{entry}, []proto.FstabEntry{entry}
		}},
		{proto.CheckFstab, proto.CheckWarn, "differs", func(v *View) {
			other := entry
			other.Options = "noauto,ro"
			v.From.Facts.Fstab, v.To.Facts.Fstab = []proto.FstabEntry{entry}, []proto.FstabEntry{other}
		}},
		{proto.CheckFstab, proto.CheckWarn, "weasel would mount /dev/sdc1 at /mnt", func(v *View) {
			v.To.Facts.Fstab = []proto.FstabEntry{{Source: "/dev/sdc1", Target: "/mnt", FSType: "xfs", Options: "defaults"}}
		}},
		{proto.CheckFstab, proto.CheckWarn, "otter (mnt.mount) would mount /dev/storage/test at /mnt by itself as soon as", func(v *View) {
			v.From.Facts.Fstab = []proto.FstabEntry{{Source: "/dev/storage/test", Target: "/mnt", FSType: "ext4", Options: "defaults,noauto,x-systemd.automount", Unit: "mnt.mount"}}
		}},
		{proto.CheckSize, proto.CheckFail, "sectors of 4096", func(v *View) { v.To.Facts.DiskSector = 4096 }},
		{proto.CheckSize, proto.CheckFail, "has 512 bytes", func(v *View) { v.To.Facts.DiskSize = 512 }},
		{proto.CheckIOErrors, proto.CheckWarn, "counted 7 errors", func(v *View) { v.To.Facts.DiskErrors = 7 }},
		{proto.CheckIOErrors, proto.CheckWarn, "Diskless", func(v *View) { v.From.Resource.DiskState = proto.Diskless }},
		{proto.CheckKernels, proto.CheckWarn, "weasel runs 5.10.0-33-amd64, otter runs 6.1.0-28-amd64", func(v *View) {
			v.From.Agent.Kernel, v.To.Agent.Kernel = "6.1.0-28-amd64", "5.10.0-33-amd64"
		}},
		{proto.CheckKernels, proto.CheckOK, "6.12.5", func(v *View) { v.From.Agent.Kernel, v.To.Agent.Kernel = "6.1.0-28-amd64", "6.12.5" }},
		{proto.CheckJournal, proto.CheckFail, "otter: /var/lib/santui/ops has 3 KiB free", func(v *View) { v.From.Journal = "/var/lib/santui/ops has 3 KiB free" }},
		{proto.CheckLinkPoor, proto.CheckOK, "", link(func(a, b *proto.LinkFacts) {})},
		{proto.CheckLinkPoor, proto.CheckOK, "", link(func(a, b *proto.LinkFacts) { a.Breaks, a.Resent, b.RTT = 2, 9, 0.09 })},
		{proto.CheckLinkPoor, proto.CheckOK, "", link(func(a, b *proto.LinkFacts) { a.Resent, a.Sent, b.MTU = 900, 100_000, 0 })},
		{proto.CheckLinkPoor, proto.CheckWarn, "otter: replication broke 3 times within 10 minutes, last at 03:04:05", link(func(a, b *proto.LinkFacts) {
			a.Breaks, a.LastBreak = 3, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		})},
		{proto.CheckLinkPoor, proto.CheckWarn, "weasel: 2.0 % of what was sent in 30 s had to be sent again (20 of 1000 segments)", link(func(a, b *proto.LinkFacts) { b.Resent = 20 })},
		{proto.CheckLinkPoor, proto.CheckWarn, "otter: a round trip takes 150 ms, 0.4 ms at best", link(func(a, b *proto.LinkFacts) { a.RTT = 0.15 })},
		{proto.CheckLinkPoor, proto.CheckWarn, "the MTU of the path differs: otter: 9000 bytes, weasel: 1500 bytes", link(func(a, b *proto.LinkFacts) { a.MTU = 9000 })},
		{proto.CheckFacts, proto.CheckUnknown, "otter: lvm hangs", func(v *View) { v.From.Facts.Errs = []string{"lvm hangs"} }},
	}
	for _, c := range cases {
		g := newRig(t)
		v, err := g.r.view(context.Background(), proto.ObserveRequest{Resource: "r0"}, proto.VerbFailover)
		if err != nil {
			t.Fatal(err)
		}
		c.make(&v)
		found := false
		for _, got := range Checks(v) {
			if got.Code != c.code {
				continue
			}
			found = true
			def, _ := proto.CodeOf(c.code)
			if got.Result != c.result || !strings.Contains(strings.Join(got.Evidence, "\n"), c.want) || got.Hard != def.Hard {
				t.Errorf("%s: %s %q, want %s %q", c.code, got.Result, got.Evidence, c.result, c.want)
			}
			if got.Result != proto.CheckOK && got.Remedy == "" {
				t.Errorf("%s: no remedy", c.code)
			}
		}
		if !found {
			t.Errorf("%s is not evaluated", c.code)
		}
	}
}
