//go:build lab

package lab

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/santui/proto"
)

// wideStack has three LVs with ext4, a bind mount, a thin pool with an xfs volume and a snapshot of it, and one LV that
// is not mounted.
const wideStack = `
pvcreate -q /dev/drbd0
vgcreate -q --setautoactivation n storage /dev/drbd0
lvcreate -q -y -L 32M -n test storage
lvcreate -q -y -L 24M -n logs storage
lvcreate -q -y -L 8M -n spare storage
lvcreate -q -y --type thin-pool -L 120M --poolmetadatasize 4M -n pool storage
lvcreate -q -y -V 320M --thinpool pool -n wide storage
for lv in test logs spare; do mkfs.ext4 -q /dev/storage/$lv; done
mkfs.xfs -q -l size=64m /dev/storage/wide
mkdir -p /mnt/test /mnt/logs /mnt/wide /mnt/bind
mount /dev/storage/test /mnt/test; mount /dev/storage/logs /mnt/logs; mount /dev/storage/wide /mnt/wide
mkdir /mnt/test/sub; mount --bind /mnt/test/sub /mnt/bind
for d in test logs wide bind; do dd if=/dev/urandom of=/mnt/$d/file bs=1M count=4 status=none; done
lvcreate -q -y -s -n wide-before storage/wide
sync`

const wideListing = `cd /mnt; for d in test logs wide bind; do mountpoint -q $d; done; find test logs wide bind -name lost+found -prune -o -type f -print0 | sort -z | xargs -0 sha256sum`

// condition is one way to make a check fail or warn.
type condition struct {
	codes  []string // those that must show it
	result proto.CheckResult
	how    string // in words
	node   string // where make and undo run
	make   string
	undo   string
	want   string // part of the evidence
	limit  time.Duration
	setup  func() // instead of make
	remove func() // instead of undo
	to     string // other than weasel
	exit   int    // of the refused failover, 3 if zero
	group  string // conditions of one group are there at the same time; "": alone
}

// conditions are those that a script on one node makes and removes.
func conditions() []condition {
	start := func(name, argv string) string {
		return fmt.Sprintf("setsid %s >/dev/null 2>&1 </dev/null & echo $! >/run/%s.pid; sleep 0.3", argv, name)
	}
	end := func(name string) string { return fmt.Sprintf("kill $(cat /run/%s.pid); sleep 0.2", name) }
	fail, warn, unknown := proto.CheckFail, proto.CheckWarn, proto.CheckUnknown
	shadow := func(path, script string) string {
		return fmt.Sprintf("printf '%s' >/run/shadow; chmod 755 /run/shadow; mount --bind /run/shadow %s", script, path)
	}
	return []condition{
		{codes: []string{proto.CheckRoles}, result: fail, how: "the target is the Primary", to: "otter", want: "Primary already"},
		{codes: []string{proto.CheckBusyProc}, result: fail, how: "a process works in /mnt/test", group: "busy", node: "otter",
			make: "cd /mnt/test; " + start("cwd", "sleep 1000"), undo: end("cwd"), want: "sleep cwd /mnt/test"},
		{codes: []string{proto.CheckBusyNS}, result: fail, how: "unshare -m: another mount namespace has the mounts", group: "busy", node: "otter",
			make: start("ns", "unshare -m --propagation private sleep 1000"), undo: end("ns"), want: "sleep has /mnt/test"},
		{codes: []string{proto.CheckBusyDevice}, result: fail, how: "losetup of a file in /mnt/test", group: "busy", node: "otter",
			make: "losetup -f /mnt/test/file", undo: "losetup -j /mnt/test/file | cut -d: -f1 | xargs losetup -d", want: "loop /dev/loop"},
		{codes: []string{proto.CheckBusyDevice}, result: fail, how: "swapon of a file in /mnt/test", group: "busy", node: "otter",
			make: "dd if=/dev/zero of=/mnt/test/swap bs=1M count=2 status=none; chmod 600 /mnt/test/swap; mkswap -q /mnt/test/swap; swapon /mnt/test/swap",
			undo: "swapoff /mnt/test/swap; rm /mnt/test/swap", want: "swap /mnt/test/swap"},
		{codes: []string{proto.CheckBusyDevice}, result: fail, how: "a dm-crypt mapping of storage/spare", group: "busy", node: "otter",
			make: "modprobe dm-crypt; dmsetup create secret --table \"0 8192 crypt cipher_null-ecb - 0 /dev/storage/spare 0\"", undo: "dmsetup remove secret", want: "/dev/mapper/secret"},
		{codes: []string{proto.CheckBusyMount}, result: fail, how: "a tmpfs on /mnt/test/sub", group: "busy", node: "otter",
			make: "mount -t tmpfs none /mnt/test/sub", undo: "umount /mnt/test/sub", want: "mounted on top /mnt/test/sub"},
		{codes: []string{proto.CheckBusyNFS}, result: fail, how: "an entry in the kernel NFS server's export table", group: "busy", node: "otter",
			make: `modprobe nfsd; mount -t nfsd none /proc/fs/nfsd; echo "nfsd 10.0.0.9 2000000000 client" >/proc/net/rpc/auth.unix.ip/channel
printf 'client /mnt/test 2000000000 1 65534 65534 77\n' >/proc/net/rpc/nfsd.export/channel`,
			undo: "echo 9999999999 >/proc/net/rpc/nfsd.export/flush; umount /proc/fs/nfsd", want: "/mnt/test"},
		{codes: []string{proto.CheckBusyProc}, result: fail, how: "a process serves storage/spare, as tgtd does", group: "busy", node: "otter",
			make: "setsid sleep 1000 >/dev/null 2>&1 </dev/storage/spare & echo $! >/run/served.pid; sleep 0.3", undo: end("served"), want: "sleep open"},
		{codes: []string{proto.CheckBusyTarget}, result: fail, how: "a LIO fileio backstore over a file in /mnt/test", group: "busy", node: "otter",
			make: configfs + "modprobe target_core_file; X=/sys/kernel/config/target/core/fileio_0/f; mkdir -p $X; echo fd_dev_name=/mnt/test/file,fd_dev_size=4194304 >$X/control; echo 1 >$X/enable",
			undo: "rmdir /sys/kernel/config/target/core/fileio_0/f", want: "fileio_0/f"},
		{codes: []string{proto.CheckBusyTarget}, result: fail, how: "a LIO iblock backstore on storage/spare", group: "volumes", node: "otter",
			make: backstore("/dev/storage/spare"), undo: "rmdir /sys/kernel/config/target/core/iblock_0/x", want: "iblock_0/x"},
		{codes: []string{proto.CheckLVOpen}, result: fail, how: "a LIO backstore that lies about its udev_path", group: "target", node: "otter",
			make: backstore("/dev/storage/spare") + "; echo /dev/null >/sys/kernel/config/target/core/iblock_0/x/udev_path",
			undo: "rmdir /sys/kernel/config/target/core/iblock_0/x", want: "storage/spare is open"},
		{codes: []string{proto.CheckUnwind}, result: fail, how: "a bind mount whose whole file system is mounted nowhere", group: "backing", node: "otter",
			make: "mkdir -p /mnt/whole /mnt/part; mount /dev/storage/spare /mnt/whole; mkdir -p /mnt/whole/d; mount --bind /mnt/whole/d /mnt/part; umount /mnt/whole",
			undo: "umount /mnt/part", want: "/mnt/part shows only /d"},
		{codes: []string{proto.CheckUnwind}, result: fail, how: "an ext4 on storage/spare with its journal on a loop device", group: "outside", node: "otter",
			make: "truncate -s 8M /tmp/jd; L=$(losetup -f --show /tmp/jd); mke2fs -q -O journal_dev -b 1024 $L; mkfs.ext4 -qF -b 1024 -J device=$L /dev/storage/spare; " +
				"mkdir -p /mnt/whole; mount /dev/storage/spare /mnt/whole",
			undo: "umount /mnt/whole; losetup -j /tmp/jd | cut -d: -f1 | xargs losetup -d", want: "/mnt/whole: its ext4 needs the journal on device 7:"},
		{codes: []string{proto.CheckBusyDevice}, result: fail, how: "a volume group inside storage/spare, active", group: "nested", node: "otter",
			make: "P='--devices /dev/storage/spare --config devices/scan_lvs=1'; pvcreate -qffy $P /dev/storage/spare; vgcreate -q $P guest /dev/storage/spare; lvcreate -qy $P -L 4M -n root guest",
			undo: "P='--devices /dev/storage/spare --config devices/scan_lvs=1'; vgremove -qf $P guest; pvremove -qffy $P /dev/storage/spare; mkfs.ext4 -qF /dev/storage/spare", want: "dm /dev/guest/root"},
		{codes: []string{proto.CheckVGMixed}, result: fail, how: "lvchange -an storage/spare", group: "group", node: "otter",
			make: "lvchange -an storage/spare", undo: "lvchange -ay storage/spare", want: "storage/spare is not active"},
		{codes: []string{proto.CheckVG}, result: fail, how: "vgextend with a loop device", group: "group", node: "otter",
			make: "truncate -s 20M /tmp/pv2; L=$(losetup -f --show /tmp/pv2); pvcreate -q $L; vgextend -q storage $L",
			undo: "L=$(losetup -j /tmp/pv2 | cut -d: -f1); vgreduce -q storage $L; pvremove -q $L; losetup -d $L", want: "misses a physical volume"},
		{codes: []string{proto.CheckVGOwner}, result: fail, how: "vgchange --systemid otter", group: "volumes", node: "otter",
			make: `cp /etc/lvm/lvm.conf /tmp/lvm.saved; echo 'global { system_id_source = "uname" }' >>/etc/lvm/lvm.conf; vgchange -qy --systemid otter storage`,
			undo: `vgchange -qy --systemid "" storage; cp /tmp/lvm.saved /etc/lvm/lvm.conf`, want: `system ID "otter"`},
		{codes: []string{proto.CheckVGAuto}, result: warn, how: "vgchange --setautoactivation y", group: "volumes", node: "otter",
			make: "vgchange -q --setautoactivation y storage", undo: "vgchange -q --setautoactivation n storage", want: "storage"},
		{codes: []string{proto.CheckLVHealth}, result: fail, how: "a snapshot that overflowed", group: "volumes", node: "otter",
			make: "lvcreate -q -y -s -L 4M -n small storage/logs; dd if=/dev/urandom of=/mnt/logs/more bs=1M count=8 conv=fsync status=none",
			undo: "lvremove -qy storage/small; rm /mnt/logs/more", want: "snapshot that was lost"},
		{codes: []string{proto.CheckThinFull}, result: fail, how: "a thin pool filled to 94 %", group: "volumes", node: "otter",
			make: "lvcreate -q -y --type thin-pool -L 8M -n cup storage; lvcreate -q -y -V 16M --thinpool cup -n tea storage; dd if=/dev/urandom of=/dev/storage/tea bs=64k count=120 oflag=direct status=none",
			undo: "lvremove -qy storage/tea storage/cup", want: "storage/cup: data 9", limit: 30 * time.Second},
		{codes: []string{proto.CheckFSHealth}, result: fail, how: "trigger_fs_error of ext4 on storage/logs", group: "volumes", node: "otter",
			make: "D=dm-$((0x$(stat -Lc %T /dev/storage/logs))); echo 1 >/sys/fs/ext4/$D/trigger_fs_error",
			undo: "umount /mnt/logs; e2fsck -fy /dev/storage/logs >/dev/null 2>&1 || true; mount /dev/storage/logs /mnt/logs", want: "/mnt/logs on otter has recorded 1 errors"},
		{codes: []string{proto.CheckFSHealth}, result: warn, how: "/mnt/logs remounted read-only", group: "target", node: "otter",
			make: "mount -o remount,ro /mnt/logs", undo: "mount -o remount,rw /mnt/logs", want: "mounted read-only"},
		{codes: []string{proto.CheckFSKernel}, result: fail, how: "fixture: /proc/filesystems and the modules' lists without xfs", group: "target", node: "weasel",
			make: "grep -v xfs /proc/filesystems >/run/fs; mount --bind /run/fs /proc/filesystems; for f in dep builtin; do M=/lib/modules/$(uname -r)/modules.$f; grep -v /xfs.ko $M >/run/$f; mount --bind /run/$f $M; done",
			undo: "umount /proc/filesystems; for f in dep builtin; do umount /lib/modules/$(uname -r)/modules.$f; done", want: "/mnt/wide needs xfs"},
		{codes: []string{proto.CheckFstab}, result: warn, how: "fstab of otter mounts storage/test at boot, weasel has nothing", group: "target", node: "otter",
			make: "echo '/dev/mapper/storage-test /mnt/test ext4 defaults 0 2' >/etc/fstab", undo: ": >/etc/fstab", want: "otter would mount"},
		{codes: []string{proto.CheckFstab}, result: warn, how: "a mount unit of weasel with an enabled automount unit", group: "target", node: "weasel",
			make: "S=/etc/systemd/system; mkdir -p $S/local-fs.target.wants; printf '[Mount]\\nWhat=/dev/storage/logs\\nWhere=/mnt/logs\\nType=ext4\\n' >$S/mnt-logs.mount; " +
				"ln -s ../mnt-logs.automount $S/local-fs.target.wants/",
			undo: "rm -r /etc/systemd/system/mnt-logs.mount /etc/systemd/system/local-fs.target.wants", want: "weasel (mnt-logs.mount) would mount"},
		{codes: []string{proto.CheckJournal}, result: fail, how: "half a MiB left for weasel's journal", group: "target", node: "weasel",
			make: "mount -t tmpfs -o size=512k none /var/lib/santui/ops", undo: "umount /var/lib/santui/ops", want: "KiB free, 1024 are needed"},
		{codes: []string{proto.CheckMountPoint}, result: fail, how: "the directory /mnt/logs is missing on weasel", group: "target", node: "weasel",
			make: "rmdir /mnt/logs", undo: "mkdir /mnt/logs", want: "/mnt/logs does not exist on weasel"},
		{codes: []string{proto.CheckMountPoint}, result: fail, how: "a tmpfs on weasel's /mnt/logs", group: "backing", node: "weasel",
			make: "mount -t tmpfs none /mnt/logs", undo: "umount /mnt/logs", want: "mounted on weasel"},
		{codes: []string{proto.CheckVGClash}, result: fail, how: "another VG storage on weasel", group: "target", node: "weasel",
			make: "truncate -s 20M /tmp/vg; L=$(losetup -f --show /tmp/vg); pvcreate -q $L; vgcreate -q storage $L",
			undo: "L=$(losetup -j /tmp/vg | cut -d: -f1); vgremove -qf storage; losetup -d $L", want: "storage exists on weasel"},
		{codes: []string{proto.CheckTools}, result: fail, how: "thin_check hidden on weasel", group: "target", node: "weasel",
			make: "mount --bind /dev/null /usr/sbin/thin_check", undo: "umount /usr/sbin/thin_check", want: "thin_check is missing on weasel"},
		{codes: []string{proto.CheckThinTools}, result: warn, how: "thin_check of another version on weasel", group: "backing", node: "weasel",
			make: shadow("/usr/sbin/thin_check", `#!/bin/sh\necho 1.0.4\n`), undo: "umount /usr/sbin/thin_check", want: `"1.0.4" on weasel`},
		{codes: []string{proto.CheckManager}, result: fail, how: "a process keepalived on weasel", group: "target", node: "weasel",
			make: "cp /bin/sleep /run/keepalived; " + start("manager", "/run/keepalived 1000"), undo: end("manager"), want: "keepalived runs on weasel"},
		{codes: []string{proto.CheckClock}, result: warn, how: "weasel's clock 20 s ahead", group: "target", node: "weasel",
			make: "date -s '+20 seconds' >/dev/null", undo: "date -s '-20 seconds' >/dev/null", want: "differ by"},
		{codes: []string{proto.CheckBackingActive, proto.CheckDupPV}, result: fail, how: "losetup over weasel's backing disk, storage/logs activated on it", group: "backing", node: "weasel",
			make: "L=$(losetup -f --show /dev/ubdb); lvchange -qay --devices $L storage/logs", undo: "L=$(losetup -j /dev/ubdb | cut -d: -f1); lvchange -qan --devices $L storage/logs; losetup -d $L", want: "weasel: "},
		{codes: []string{proto.CheckDupPV}, result: fail, how: "a clone of the PV on a loop device of otter", group: "backing", node: "otter",
			make: "dd if=/dev/drbd0 of=/tmp/clone bs=1M count=2 status=none; truncate -s 256M /tmp/clone; losetup -f /tmp/clone", undo: "losetup -j /tmp/clone | cut -d: -f1 | xargs losetup -d", want: "otter: /dev/loop"},
		{codes: []string{proto.CheckBackingVisible}, result: warn, how: "no filter in lvm.conf of weasel", group: "backing", node: "weasel",
			make: "cp /etc/lvm/lvm.conf /tmp/lvm.saved; sed -i '/filter/d' /etc/lvm/lvm.conf", undo: "cp /tmp/lvm.saved /etc/lvm/lvm.conf", want: "LVM on weasel sees /dev/"},
		{codes: []string{proto.CheckStack, proto.CheckFacts}, result: unknown, how: "lvm on otter prints nonsense", node: "otter",
			make: shadow("/usr/sbin/lvm", `#!/bin/sh\necho no sense\n`) + "; touch -d 2001-01-01 /etc/lvm/lvm.conf; sleep 10",
			undo: "umount /usr/sbin/lvm; touch /etc/lvm/lvm.conf", want: "lvm's report is not the JSON", limit: 30 * time.Second},
	}
}

const configfs = "modprobe target_core_mod; mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config; "

// backstore makes a block backstore of the kernel's iSCSI target.
func backstore(device string) string {
	return configfs + "modprobe target_core_iblock; X=/sys/kernel/config/target/core/iblock_0/x; " +
		"mkdir -p $X; echo udev_path=" + device + " >$X/control; echo 1 >$X/enable"
}

// TestLongChecks makes the condition behind every check real on a pair that runs, looks at the refusal, its evidence and that
// nothing was changed, removes the condition and sees the pair ready again. Then the whole stack is moved there and back.
func TestLongChecks(t *testing.T) {
	t.Parallel()
	p := newPair(t, Options{Modules: []string{"xfs"}}, AgentOptions{DRBDConf: strings.Replace(GuideConf, "30M", "200M", 1)})
	p.sh(p.weasel, "mkdir -p /mnt/test /mnt/logs /mnt/wide /mnt/bind")
	p.sh(p.otter, wideStack)
	want := p.sh(p.otter, wideListing)
	p.synced("weasel")
	p.ready()
	all := append(conditions(), p.arranged()...)
	results := map[string][]string{}
	for _, g := range grouped(all) {
		var names []string
		for _, c := range g {
			names = append(names, c.codes...)
		}
		t.Run(strings.Join(names, "+"), func(t *testing.T) {
			p.t = t
			for i, said := range p.prove(g) {
				for _, code := range g[i].codes {
					results[code] = append(results[code], fmt.Sprintf("%-17s %-64s %-8s %s", code, g[i].how, g[i].result, said))
				}
			}
		})
	}
	p.t = t
	results[proto.CheckLinkPoor] = append(results[proto.CheckLinkPoor], p.flaps())
	p.table(results)
	p.failover("weasel")
	if got := p.sh(p.weasel, wideListing); got != want {
		t.Fatalf("files on weasel:\n%s\nwritten on otter:\n%s", got, want)
	}
	if out := p.sh(p.weasel, "lvs --noheadings -o lv_name,lv_active --devices /dev/drbd0 storage | tr -s ' \\n' ' '"); !strings.Contains(out, "wide active") {
		t.Errorf("volumes on weasel: %s", out)
	}
	// lvm's own copy of the metadata (vgcfgbackup) came with the activation: vgchange sees that the one there is older.
	if out := p.sh(p.weasel, "grep -c \"seqno = $(vgs --noheadings -o vg_seqno --devices /dev/drbd0 storage 2>/dev/null | tr -d ' ')\" /etc/lvm/backup/storage"); strings.TrimSpace(out) != "1" {
		t.Errorf("weasel's backup of the metadata is an older one: %s", out)
	}
	p.failover("otter")
	if got := p.sh(p.otter, wideListing); got != want {
		t.Fatalf("files back on otter:\n%s\nwritten:\n%s", got, want)
	}
}

// flaps pulls the cable until the check says that the link breaks too often. The condition lasts for ten minutes: it comes last.
func (p *pair) flaps() (line string) {
	p.t.Helper()
	c := condition{codes: []string{proto.CheckLinkPoor}, result: proto.CheckWarn, want: "replication broke"}
	shown := func() (string, bool) {
		list := p.checks("weasel").Checks
		said, ok := c.shownIn(list)
		line = fmt.Sprintf("%-17s %-64s %-8s %s", proto.CheckLinkPoor, "the cable is pulled three times within ten minutes", c.result, said)
		return fmt.Sprint(unwell(list)), ok
	}
	for range 3 {
		if _, ok := shown(); ok {
			return line
		}
		p.must(p.weasel.CutLink(p.t.Context()))
		p.until("the break is noticed", 60*time.Second, func() (string, bool) {
			out, _ := p.santui("status")
			return out, strings.Contains(out, "WFConnection")
		})
		p.must(p.weasel.HealLink(p.t.Context()))
		p.synced("weasel")
	}
	p.until("the breaks are told", 20*time.Second, shown)
	return line
}

// table prints what was shown, in the order of the table of codes, and what no condition was made for.
func (p *pair) table(results map[string][]string) {
	var b strings.Builder
	for _, c := range proto.Codes {
		for _, line := range results[c.Name] {
			b.WriteString("\n  " + line)
		}
		if len(results[c.Name]) == 0 {
			b.WriteString("\n  " + c.Name + " was not made real here")
			p.t.Errorf("no condition for %s", c.Name)
		}
	}
	p.t.Logf("code -> how made real -> result -> evidence%s", b.String())
}

// ready waits until a failover to weasel is possible without a warning.
func (p *pair) ready() {
	p.t.Helper()
	p.until("ready again", 60*time.Second, func() (string, bool) {
		var bad []string
		for _, c := range p.checks("weasel").Checks {
			if c.Result != proto.CheckOK && c.Code != proto.CheckUnfinished {
				bad = append(bad, c.Code+": "+strings.Join(c.Evidence, ", "))
			}
		}
		return strings.Join(bad, "; "), len(bad) == 0
	})
}

// fingerprint is all that an operation could have changed.
func (p *pair) fingerprint() string {
	const script = "grep /mnt/ /proc/mounts; ls /dev/mapper; readlink /dev/drbd0 || true"
	var out [3]string
	var wg sync.WaitGroup
	for i, n := range p.l.Nodes() {
		wg.Go(func() { out[i], _ = n.Sh(p.t.Context(), script) })
	}
	wg.Go(func() {
		list, _ := p.santui("ops")
		for line := range strings.Lines(list) { // one that runs gets on meanwhile: which there are counts
			id, _, _ := strings.Cut(line, " ")
			out[2] += id + "\n"
		}
	})
	wg.Wait()
	return strings.Join(out[:], "\n--\n")
}

// grouped puts conditions of one group together, in the order of their first.
func grouped(all []condition) [][]condition {
	var groups [][]condition
	at := map[string]int{}
	for _, c := range all {
		if i, ok := at[c.group]; ok && c.group != "" {
			groups[i] = append(groups[i], c)
			continue
		}
		at[c.group] = len(groups)
		groups = append(groups, []condition{c})
	}
	return groups
}

// prove makes the conditions of a group, looks at each, removes them and looks again. It returns the evidence seen.
func (p *pair) prove(group []condition) []string {
	p.t.Helper()
	began := time.Now()
	to, exit, limit, vetoes := "weasel", 3, 30*time.Second, 0
	for _, c := range group {
		if c.to != "" {
			to = c.to
		}
		exit, limit = max(exit, c.exit), max(limit, c.limit)
		if c.result != proto.CheckWarn {
			vetoes++
		}
		switch {
		case c.setup != nil:
			c.setup()
		case c.make != "":
			p.sh(p.l.Node(c.node), c.make)
		}
	}
	evidence := make([]string, len(group))
	removed := false
	defer func() { // a condition that did not show must not spoil the groups that follow
		for _, c := range slices.Backward(group) {
			switch {
			case removed:
			case c.remove != nil:
				c.remove()
			case c.undo != "":
				_, _ = p.l.Node(c.node).Sh(p.t.Context(), c.undo)
			}
		}
	}()
	p.until("all conditions show", limit, func() (string, bool) {
		list, missing := p.checks(to).Checks, ""
		for i, c := range group {
			if said, ok := c.shownIn(list); ok {
				evidence[i] = said
			} else if evidence[i] == "" {
				missing += fmt.Sprintf("\n%v %q is missing", c.codes, c.want)
			}
		}
		if missing != "" {
			missing += fmt.Sprintf("\nin %v", unwell(list))
		}
		return missing, missing == ""
	})
	if vetoes > 0 {
		before := p.fingerprint()
		out, code := p.santui("failover", "--to", to, "--confirm", PairName)
		if code != exit {
			p.t.Errorf("failover: exit %d, want %d\n%s", code, exit, out)
		}
		for _, c := range group {
			if c.result != proto.CheckWarn && c.exit == 0 && !strings.Contains(out, c.codes[0]) {
				p.t.Errorf("the refusal does not name %s:\n%s", c.codes[0], out)
			}
		}
		if after := p.fingerprint(); after != before {
			p.t.Errorf("the refused failover changed something:\n%s\nbefore:\n%s", after, before)
		}
	}
	removed = true
	for _, c := range slices.Backward(group) {
		switch {
		case c.remove != nil:
			c.remove()
		case c.undo != "":
			p.sh(p.l.Node(c.node), c.undo)
		}
	}
	p.ready()
	p.t.Logf("shown and removed in %.1f s", time.Since(began).Seconds())
	return evidence
}

// shownIn finds the condition's codes with its result, its evidence in one of them, and a remedy.
func (c condition) shownIn(list []proto.Check) (string, bool) {
	missing, said := slices.Clone(c.codes), ""
	for _, ch := range list {
		text := strings.Join(ch.Evidence, "; ")
		if !slices.Contains(c.codes, ch.Code) || ch.Remedy == "" || (ch.Result != c.result && !(c.result == proto.CheckWarn && ch.Result == proto.CheckFail)) {
			continue
		}
		missing = slices.DeleteFunc(missing, func(s string) bool { return s == ch.Code })
		for _, e := range ch.Evidence {
			if strings.Contains(e, c.want) {
				said = e
			}
		}
		if said == "" && strings.Contains(text, c.want) {
			said = text
		}
	}
	return said, len(missing) == 0 && said != ""
}

func unwell(list []proto.Check) []string {
	var all []string
	for _, ch := range list {
		if ch.Result != proto.CheckOK {
			all = append(all, fmt.Sprintf("\n%s %s: %s", ch.Code, ch.Result, strings.Join(ch.Evidence, "; ")))
		}
	}
	return all
}

// arranged are the conditions that take more than a script on one node.
func (p *pair) arranged() []condition {
	ctx := p.t.Context()
	restart := func(script string) {
		if err := p.weasel.StopAgent(ctx); err != nil {
			p.t.Fatal(err)
		}
		p.sh(p.weasel, script)
		if err := p.weasel.StartAgent(ctx); err != nil {
			p.t.Fatal(err)
		}
	}
	var running chan struct{}
	return []condition{
		{codes: []string{proto.CheckAgents, proto.CheckLink}, result: proto.CheckFail, how: "the cable is pulled", want: "does not answer", limit: 60 * time.Second,
			setup: func() { p.must(p.weasel.CutLink(ctx)) }, remove: func() { p.must(p.weasel.HealLink(ctx)) }},
		{codes: []string{proto.CheckSync, proto.CheckDisk}, result: proto.CheckFail, how: "a resync at 1 MiB/s after a break", want: "SyncTarget", limit: 60 * time.Second,
			setup: func() {
				p.do("sync", "rate", "1M")
				p.must(p.weasel.CutLink(ctx))
				p.until("the break is noticed", 60*time.Second, func() (string, bool) {
					out, _ := p.santui("status")
					return out, strings.Contains(out, "WFConnection")
				})
				p.sh(p.otter, "dd if=/dev/urandom of=/mnt/wide/much bs=1M count=20 conv=fsync status=none; rm /mnt/wide/much; sync")
				p.must(p.weasel.HealLink(ctx))
			}, remove: func() { p.must(p.weasel.HealLink(ctx)); p.do("sync", "rate", "200M") }},
		{codes: []string{proto.CheckLinkPoor}, result: proto.CheckWarn, how: "otter's interface loses 4 % (netem), while it writes", want: "had to be sent again", limit: 90 * time.Second,
			setup: func() { p.poor("loss 4%"); p.busy() }, remove: func() { p.poor(""); p.rest() }},
		{codes: []string{proto.CheckLinkPoor}, result: proto.CheckWarn, how: "otter's interface delays by 0.15 s (netem), while it writes", want: "a round trip takes", limit: 90 * time.Second,
			setup: func() { p.poor("delay 150ms"); p.busy() }, remove: func() { p.poor(""); p.rest() }},
		{codes: []string{proto.CheckVersions, proto.CheckKernels}, result: proto.CheckWarn, how: "weasel's agent is another version, under setarch --uname-2.6", want: "weasel runs other",
			setup: func() {
				other := filepath.Join(p.t.TempDir(), "other")
				if out, err := exec.CommandContext(ctx, "go", "build", "-ldflags", "-X example.com/santui/agent.Version=other", "-o", other, "example.com/santui/cmd/santui-agent").CombinedOutput(); err != nil {
					p.t.Fatalf("%v: %s", err, out)
				}
				p.must(p.weasel.Put(ctx, other, "/run/other"))
				restart("printf '#!/bin/sh\\nexec setarch '$(uname -m)' --uname-2.6 /run/other \"$@\"\\n' >/run/wrap; chmod 755 /run/wrap; mount --bind /run/wrap " + agentPath)
			}, remove: func() { restart("umount " + agentPath) }, limit: 30 * time.Second},
		{codes: []string{proto.CheckDisagree}, result: proto.CheckFail, how: "protocol A in weasel's drbd.conf", want: "protocol A", limit: 30 * time.Second,
			setup: func() { restart("sed -i 's/protocol C/protocol A/' /etc/drbd.conf") },
			remove: func() {
				restart("sed -i 's/protocol A/protocol C/' /etc/drbd.conf")
				p.santui("connect", "--on", "otter") // refused if only weasel had noticed and gone StandAlone
			}},
		{codes: []string{proto.CheckSize}, result: proto.CheckFail, how: "weasel's disk has sectors of 4096 bytes (losetup -b)", want: "sectors of 4096", limit: 30 * time.Second,
			setup:  func() { restart("L=$(losetup -b 4096 --direct-io=on -f --show /dev/ubdb); ln -sf $L /dev/md3") },
			remove: func() { restart("ln -sf ubdb /dev/md3; losetup -j /dev/ubdb | cut -d: -f1 | xargs losetup -d") }},
		{codes: []string{proto.CheckIOErrors}, result: proto.CheckWarn, how: "weasel's disk fails (dm error target) and is detached", want: "weasel is Diskless", limit: 30 * time.Second,
			setup: func() {
				restart("dmsetup create failing --table \"0 $(blockdev --getsz /dev/ubdb) linear /dev/ubdb 0\"; ln -sf mapper/failing /dev/md3")
				p.until("weasel has its disk again", 30*time.Second, func() (string, bool) {
					out, _ := p.santui("status")
					return out, strings.Count(out, "UpToDate") >= 2 && strings.Contains(out, "Connected")
				})
				p.sh(p.weasel, "dmsetup suspend --noflush failing; dmsetup load failing --table \"0 $(blockdev --getsz /dev/ubdb) error\"; dmsetup resume failing")
				p.sh(p.otter, "dd if=/dev/urandom of=/mnt/logs/poke bs=64k count=4 conv=fsync status=none; rm /mnt/logs/poke; sync")
			}, remove: func() { restart("dmsetup remove failing; ln -sf ubdb /dev/md3") }},
		{codes: []string{proto.CheckLocked}, result: proto.CheckFail, how: "another failover runs (umount takes its time, then fails)", want: "holds the lock", limit: 20 * time.Second, exit: 8,
			setup: func() {
				p.sh(p.otter, "printf '#!/bin/sh\\nsleep 4\\nexit 1\\n' >/usr/sbin/umount; chmod 755 /usr/sbin/umount")
				running = make(chan struct{})
				go func() {
					defer close(running)
					p.santui("failover", "--to", "weasel", "--confirm", PairName)
				}()
			}, remove: func() { <-running; p.sh(p.otter, "rm /usr/sbin/umount") }},
		{codes: []string{proto.CheckUnfinished}, result: proto.CheckWarn, how: "a failover with --keep stopped at its first step", want: "attention",
			setup: func() {
				p.sh(p.otter, "printf '#!/bin/sh\\nexit 1\\n' >/usr/sbin/umount; chmod 755 /usr/sbin/umount")
				if out, code := p.santui("failover", "--to", "weasel", "--keep", "--confirm", PairName); code != 7 {
					p.t.Errorf("failover --keep: exit %d\n%s", code, out)
				}
			}, remove: func() { p.sh(p.otter, "rm /usr/sbin/umount") }},
	}
}

// poor makes otter's interface a bad one, or a good one again.
func (p *pair) poor(how string) {
	p.t.Helper()
	script := "dev=$(ip -o addr show to " + p.otter.Addr() + " | awk '{ print $2; exit }'); "
	if how == "" {
		p.sh(p.otter, script+"tc qdisc del dev $dev root")
		return
	}
	p.sh(p.otter, script+"tc qdisc replace dev $dev root netem limit 10000 "+how)
}

// busy writes on otter until rest.
func (p *pair) busy() {
	p.t.Helper()
	p.sh(p.otter, `printf '#!/bin/sh\nwhile test -e /run/busy; do dd if=/dev/urandom of=/run/noise bs=64k count=4 status=none; cd /mnt/test; dd if=/run/noise of=noise bs=64k conv=fsync status=none; cd /; done\n' >/run/busy.sh
touch /run/busy; chmod 755 /run/busy.sh; setsid /run/busy.sh >/dev/null 2>&1 </dev/null & echo $! >/run/busy.pid`)
}

func (p *pair) rest() {
	p.t.Helper()
	p.sh(p.otter, "rm /run/busy; while kill -0 $(cat /run/busy.pid) 2>/dev/null; do sleep 0.2; done; rm /mnt/test/noise; sync")
}

func (p *pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}
