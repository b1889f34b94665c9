package lvmops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"example.com/santui/proto"
)

// DevicesDir is where lvm keeps its devices files (lvmdevices(8)).
const devicesDir = "lvm/devices"

// LVMView asks lvm what it makes of this node's devices on its own, without --devices. disk is the backing disk, node the
// kernel's replicated device or "" while there is none. The settings are asked for again only when one of lvm's files
// has changed.
func (o *Ops) LVMView(ctx context.Context, disk, node string) (proto.LVMFacts, error) {
	v, _, err := o.lvmView(ctx, disk, node)
	return v, err
}

// lvmView also returns the devices that lvm looked at.
func (o *Ops) lvmView(ctx context.Context, disk, node string) (v proto.LVMFacts, names []string, err error) {
	v.Mechanism = proto.SelectNone
	set, err := o.deviceSettings(ctx)
	if errors.Is(err, ErrNotFound) {
		return v, nil, nil
	}
	if err != nil {
		return v, nil, o.failed(err, "asking lvm for its device settings")
	}
	v.Installed, v.SearchDevnames = true, strings.Trim(set["search_for_devnames"], `"`)
	v.Filter, v.GlobalFilter, v.ScanLVs = set["filter"], set["global_filter"], set["scan_lvs"] == "1"
	file := o.devicesFile(set)
	switch _, err := os.Stat(file); {
	case set["use_devicesfile"] == "1" && err == nil:
		v.Mechanism, v.DevicesFile = proto.SelectDevicesFile, file // lvm then ignores both filters (lvmdevices(8))
	case Selects(v.Filter) || Selects(v.GlobalFilter):
		v.Mechanism = proto.SelectFilter
	}
	res, err := o.run(ctx, nil, Cmd{Argv: []string{"pvs", "-a", "--reportformat", "json", "-o", "pv_name,pv_uuid,vg_name"}, Limit: LimitLook})
	if err != nil {
		return v, nil, o.failed(err, "listing the devices that lvm sees")
	}
	rows, err := parsePVs(res.Stdout)
	if err != nil {
		return v, nil, o.failed(err, "listing the devices that lvm sees")
	}
	o.judgeRows(ctx, &v, rows, disk, node)
	for _, r := range rows {
		names = append(names, r["pv_name"])
	}
	slices.Sort(names)
	return v, names, nil
}

func (o *Ops) devicesFile(set map[string]string) string {
	return filepath.Join(o.opt.Etc, devicesDir, strings.Trim(set["devicesfile"], `"`))
}

// Selects says whether a filter setting is there and more than "everything".
func Selects(filter string) bool { return filter != "" && filter != `["a|.*|"]` && filter != "[]" }

// judgeRows sorts what lvm sees: the backing disk, the replicated device, others with the same physical volume, others.
func (o *Ops) judgeRows(ctx context.Context, v *proto.LVMFacts, rows []map[string]string, disk, node string) {
	own := o.pvUUID(ctx, disk)
	for _, r := range rows {
		name := r["pv_name"]
		switch {
		case o.sameDevice(name, disk):
			v.Backing = append(v.Backing, name)
			continue
		case node != "" && o.sameDevice(name, node):
			v.Device = true
			continue
		case own != "" && plain(r["pv_uuid"]) == own:
			v.Duplicates = append(v.Duplicates, Printable(fmt.Sprintf("%s carries physical volume %s of %s too", name, r["pv_uuid"], disk)))
			continue
		}
		if n := r["vg_name"]; n != "" && !slices.Contains(v.Others, n) {
			v.Others = append(v.Others, n)
		}
	}
	slices.Sort(v.Others)
	v.Duplicates, v.Others = v.Duplicates[:min(len(v.Duplicates), proto.MaxFacts)], v.Others[:min(len(v.Others), proto.MaxFacts)]
}

// pvUUID is the uuid of the physical volume that a device carries, without dashes; "" if it carries none.
func (o *Ops) pvUUID(ctx context.Context, path string) string {
	head, err := o.readHead(ctx, path)
	if err != nil {
		return ""
	}
	if l := pvLabel(head); l != nil {
		return l.pvUUID
	}
	return ""
}

// sameDevice says whether two paths lead to one block device.
func (o *Ops) sameDevice(a, b string) bool {
	if a == b {
		return true
	}
	ma, mi, err := o.opt.DeviceNumber(a)
	if err != nil {
		return false
	}
	mb, mj, err := o.opt.DeviceNumber(b)
	return err == nil && ma == mb && mi == mj
}

// deviceSettings returns lvm's settings of section devices, as lvmconfig prints their values.
func (o *Ops) deviceSettings(ctx context.Context) (map[string]string, error) {
	key := o.settingsKey()
	o.mu.Lock()
	old, oldKey := o.settings, o.settingsAt
	o.mu.Unlock()
	if old != nil && key == oldKey {
		return old, nil
	}
	res, err := o.run(ctx, nil, Cmd{Argv: []string{"lvmconfig", "--typeconfig", "full", "devices"}, Limit: LimitLook})
	if err != nil {
		return nil, err
	}
	set := map[string]string{}
	for line := range strings.Lines(string(res.Stdout)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			set[k] = v
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settings, o.settingsAt = set, key
	return set, nil
}

// settingsKey changes whenever one of lvm's configuration files does.
func (o *Ops) settingsKey() string {
	var b strings.Builder
	for _, f := range []string{"lvm/lvm.conf", "lvm/lvmlocal.conf"} {
		b.WriteString(fileState(filepath.Join(o.opt.Etc, f)))
	}
	return b.String()
}

// fileState is a line that changes with a file; "" if it is not there.
func fileState(path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s %d %d\n", path, fi.Size(), fi.ModTime().UnixNano())
}

// BackingUsers lists what uses a backing disk beside replication: loop devices, device-mapper devices, mounts, swap. The
// replication's own opening of the disk does not show here. Only sysfs and the mount table are read, so it is cheap
// enough to be asked every few seconds.
func (o *Ops) BackingUsers(disk string) ([]proto.User, error) {
	if err := validPath(disk); err != nil {
		return nil, o.refuse(proto.CodeInvalid, "backing disk: %v", err)
	}
	ma, mi, err := o.opt.DeviceNumber(disk)
	if err != nil {
		return o.fileUsers(disk), nil
	}
	table, err := o.mountTable()
	if err != nil {
		return nil, o.failed(err, "looking for users of the backing disk %s", disk)
	}
	f := o.familyOf(devno{ma, mi}, disk, disk)
	f.grow(table)
	var users []proto.User
	for _, d := range f.sorted() {
		// A partition table inside the replicated data shows on the backing disk as well; it is no user.
		if d.no == f.root || d.kind == "part" || strings.HasPrefix(d.name, "drbd") {
			continue
		}
		users = append(users, proto.User{Kind: d.kind, Name: Printable(d.shown), Path: "/dev/" + d.name, How: "on the backing disk", Device: Printable(d.below)})
	}
	for _, m := range f.mountsOf(table) {
		users = append(users, proto.User{Kind: "mount", Name: m.fstype, Path: Printable(m.target), How: "mounted from the backing disk", Device: f.shown(m.no)})
	}
	swaps, err := o.swaps()
	for _, s := range swaps {
		if no, ok := f.lookup(s); ok {
			users = append(users, proto.User{Kind: "swap", Name: s, Path: s, How: "swap area on the backing disk", Device: f.shown(no)})
		}
	}
	return users[:min(len(users), proto.MaxFacts)], err
}

// fileUsers lists the loop devices over a backing disk that is a file.
func (o *Ops) fileUsers(file string) []proto.User {
	var users []proto.User
	for _, name := range entries(filepath.Join(o.opt.Sys, "block")) {
		if strings.HasPrefix(name, "loop") && readLine(filepath.Join(o.opt.Sys, "block", name, "loop/backing_file")) == file {
			users = append(users, proto.User{Kind: "loop", Name: "/dev/" + name, Path: "/dev/" + name, How: "on the backing disk", Device: file})
		}
	}
	return users
}
