package lvmops

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// problem says why a mount of the family could not be brought back on the other node as it is here, though its command line
// is fine: "" if it could. table is the mount table that it is of.
func (o *Ops) problem(ctx context.Context, f *family, table []mount, m mount) string {
	if d := f.devices[m.no]; d != nil && d.kind == "part" {
		return fmt.Sprintf("it is mounted from %s, a partition of the device; only the whole device and logical volumes are moved", d.shown)
	}
	if p := parentOf(table, m); p != nil && p.fstype == "autofs" {
		return fmt.Sprintf("an automounter (%s) watches it and may mount it again in the middle of a move; stop that first (systemctl stop the .automount unit, or autofs)",
			p.source)
	}
	if out := o.outside(ctx, f, m); len(out) > 0 {
		return fmt.Sprintf("its %s needs %s too, which is not on the replicated device", m.fstype, strings.Join(out, ", "))
	}
	return ""
}

// outside lists the devices of a mounted file system that are not of the family: the other disks of a btrfs, the log or
// realtime device of an xfs, the journal of an ext4 that is on a disk of its own.
func (o *Ops) outside(ctx context.Context, f *family, m mount) (out []string) {
	d := f.devices[m.no]
	switch {
	case d == nil:
	case m.fstype == "btrfs":
		// fs/btrfs/sysfs.c: a folder for each mounted file system, by its uuid
		at, _ := filepath.Glob(filepath.Join(o.opt.Sys, "fs/btrfs/*/devices", d.name)) // the pattern is well-formed
		for _, path := range at {
			for _, name := range entries(filepath.Dir(path)) {
				no, ok := parseDevno(readLine(filepath.Join(o.opt.Sys, "class/block", name, "dev")))
				if !ok || f.devices[no] == nil {
					out = append(out, "/dev/"+name)
				}
			}
		}
	case m.fstype == "xfs":
		for opt := range strings.SplitSeq(m.super, ",") {
			key, path, _ := strings.Cut(opt, "=")
			if key == "logdev" || key == "rtdev" {
				if _, ok := f.lookup(unescape(path)); !ok {
					out = append(out, unescape(path))
				}
			}
		}
	case m.fstype == "ext4" || m.fstype == "ext3":
		if no, ok := o.extJournal(ctx, d); ok && f.devices[no] == nil {
			out = append(out, "the journal on device "+no.String())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// extJournal is the device that holds the journal of a mounted ext3 or ext4; ok is false if the file system holds it itself, or
// has none. The kernel lists journals by device, those inside a file system with their inode (fs/jbd2/journal.c,
// jbd2_journal_init_inode), so that nearly always nothing has to be read.
func (o *Ops) extJournal(ctx context.Context, d *device) (devno, bool) {
	for _, name := range entries(filepath.Join(o.opt.Proc, "fs/jbd2")) {
		if strings.HasPrefix(name, d.name+"-") {
			return devno{}, false
		}
	}
	head, err := o.readHead(ctx, "/dev/"+d.name)
	if err != nil {
		return devno{}, false // what cannot be read is named elsewhere
	}
	return extJournalIn(head)
}

// extJournalIn reads the device of an external journal off a superblock: compat feature HAS_JOURNAL, s_journal_inum and
// s_journal_dev (linux fs/ext4/ext4.h, struct ext4_super_block), a device number as new_decode_dev reads it (linux/kdev_t.h).
func extJournalIn(head []byte) (devno, bool) {
	const sb = 1024
	if len(head) < sb+0x100 || head[sb+0x38] != 0x53 || head[sb+0x39] != 0xef {
		return devno{}, false
	}
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(head[sb+off:]) }
	if word(0x5c)&extJournal == 0 || word(0xe0) != 0 || word(0xe4) == 0 {
		return devno{}, false
	}
	dev := word(0xe4)
	return devno{dev >> 8 & 0xfff, dev&0xff | dev>>12&0xfff00}, true
}

// nested says whether a logical volume above the device belongs to a group whose physical volume is not the device itself, but
// a volume or partition on it: a virtual machine's disk, for example, that LVM of this node looked into. No plan takes it down.
func (f *family) nested(d *device) bool {
	const group = len("LVM-") + 32 // of the uuid: the part that all volumes of a group share
	if !strings.HasPrefix(d.dmUUID, "LVM-") || len(d.dmUUID) < group {
		return false
	}
	for _, b := range f.devices {
		if b.name == d.below {
			return b.no != f.root && !strings.HasPrefix(b.dmUUID, d.dmUUID[:group])
		}
	}
	return false
}
