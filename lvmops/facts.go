package lvmops

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"example.com/santui/proto"
)

// Health says what is wrong with mounted file systems: errors that ext4 has recorded (fs/ext4/sysfs.c, errors_count),
// read-only ones, ones that were shut down. Healthy ones are left out.
func (o *Ops) Health(mounts []proto.Mount) ([]proto.FSHealth, error) {
	table, err := o.mountTable()
	if err != nil {
		return nil, o.failed(err, "looking at the health of the file systems")
	}
	var out []proto.FSHealth
	for _, pm := range mounts {
		no := devno{pm.Major, pm.Minor}
		i := slices.IndexFunc(table, func(m mount) bool { return m.no == no && m.target == pm.Target })
		if i < 0 {
			continue
		}
		h := proto.FSHealth{Target: pm.Target}
		super := strings.Split(table[i].super, ",")
		h.ReadOnly = slices.Contains(super, "ro")
		for _, s := range []string{"emergency_ro", "shutdown"} {
			if slices.Contains(super, s) {
				h.State = s
			}
		}
		if real, err := filepath.EvalSymlinks(filepath.Join(o.opt.Sys, "dev/block", no.String())); err == nil {
			text := readLine(filepath.Join(o.opt.Sys, "fs/ext4", filepath.Base(real), "errors_count"))
			h.Errors, _ = strconv.ParseInt(text, 10, 64) // not ext4: no such file, no errors
		}
		if h.ReadOnly || h.Errors > 0 || h.State != "" {
			out = append(out, h)
		}
	}
	return out, nil
}

// Filesystems lists the file system types that this node's kernel has, or has a module for.
func (o *Ops) Filesystems() ([]string, error) {
	b, err := readBounded(filepath.Join(o.opt.Proc, "filesystems"), 1<<20)
	if err != nil {
		return nil, o.failed(err, "looking which file systems the kernel has")
	}
	dir := filepath.Join("/lib/modules", readLine(filepath.Join(o.opt.Proc, "sys/kernel/osrelease")))
	key := string(b)
	for _, f := range moduleLists {
		key += fileState(filepath.Join(dir, f))
	}
	o.mu.Lock()
	list, at := o.fs, o.fsAt
	o.mu.Unlock()
	if at == key {
		return slices.Clone(list), nil
	}
	list = filesystems(b, dir)
	o.mu.Lock()
	o.fs, o.fsAt = list, key
	o.mu.Unlock()
	return slices.Clone(list), nil
}

// moduleLists name what the kernel has as modules, built in or not; they are long.
var moduleLists = []string{"modules.builtin", "modules.dep"}

func filesystems(b []byte, dir string) (list []string) {
	for line := range strings.Lines(string(b)) {
		if kind, name, ok := strings.Cut(strings.TrimRight(line, "\n"), "\t"); ok && kind == "" {
			list = append(list, name)
		}
	}
	for _, f := range moduleLists {
		b, err := readBounded(filepath.Join(dir, f), 8<<20)
		if err != nil {
			continue // a kernel without modules has what /proc/filesystems says
		}
		for line := range strings.Lines(string(b)) {
			path, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			if name, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok && strings.HasPrefix(path, "kernel/fs/") && !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	slices.Sort(list)
	return list
}

// DiskGeometry is a block device's size and logical block size in bytes; zeros for what is none.
func (o *Ops) DiskGeometry(path string) (size int64, sector int) {
	ma, mi, err := o.opt.DeviceNumber(path)
	if err != nil {
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
			return fi.Size(), 0
		}
		return 0, 0
	}
	dir := filepath.Join(o.opt.Sys, "dev/block", devno{ma, mi}.String())
	sectors, err := strconv.ParseInt(readLine(filepath.Join(dir, "size")), 10, 64)
	if err != nil {
		return 0, 0
	}
	text := readLine(filepath.Join(dir, "queue/logical_block_size"))
	if text == "" { // a partition: the disk's
		text = readLine(filepath.Join(dir, "../queue/logical_block_size"))
	}
	sector, _ = strconv.Atoi(text)
	return sectors * 512, sector
}

// DiskErrors is the kernel's count of failed commands of a disk; only SCSI disks have one (device/ioerr_cnt, hexadecimal).
func (o *Ops) DiskErrors(path string) int64 {
	ma, mi, err := o.opt.DeviceNumber(path)
	if err != nil {
		return 0
	}
	text := readLine(filepath.Join(o.opt.Sys, "dev/block", devno{ma, mi}.String(), "device/ioerr_cnt"))
	n, _ := strconv.ParseInt(strings.TrimPrefix(text, "0x"), 16, 64) // none: no errors known
	return n
}

// Fstab reads /etc/fstab and the mount units beside it. Lines that make no sense are skipped, as mount(8) does.
func (o *Ops) Fstab() ([]proto.FstabEntry, error) {
	b, err := readBounded(filepath.Join(o.opt.Etc, "fstab"), 256<<10)
	if os.IsNotExist(err) {
		return o.mountUnits(), nil
	}
	if err != nil {
		return nil, o.failed(err, "reading fstab")
	}
	var list []proto.FstabEntry
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") || len(line) > 4096 || len(list) >= proto.MaxFstab {
			continue
		}
		e := proto.FstabEntry{Source: unescape(f[0]), Target: unescape(f[1]), FSType: f[2], Options: "defaults"}
		if len(f) > 3 {
			e.Options = f[3]
		}
		if strings.HasPrefix(e.Target, "/") {
			list = append(list, e)
		}
	}
	return append(list, o.mountUnits()...), nil
}

// mountUnits reads the administrator's own mount units (systemd.mount(5)). Those that systemd makes of fstab are elsewhere.
func (o *Ops) mountUnits() (list []proto.FstabEntry) {
	dir := filepath.Join(o.opt.Etc, "systemd/system")
	enabled := func(unit string) bool {
		links, _ := filepath.Glob(filepath.Join(dir, "*.*s", unit)) // .wants and .requires; the pattern is well-formed
		return len(links) > 0
	}
	for _, name := range entries(dir) {
		base, ok := strings.CutSuffix(name, ".mount")
		text := readLine(filepath.Join(dir, name))
		if !ok || text == "" || len(list) >= proto.MaxFacts {
			continue
		}
		e := proto.FstabEntry{Unit: Printable(name), Options: "defaults"}
		for line := range strings.Lines(text) {
			switch key, v, _ := strings.Cut(strings.TrimSpace(line), "="); strings.TrimSpace(key) {
			case "What":
				e.Source = strings.TrimSpace(v)
			case "Where":
				e.Target = strings.TrimSpace(v)
			case "Type":
				e.FSType = strings.TrimSpace(v)
			case "Options":
				e.Options = strings.TrimSpace(v)
			}
		}
		if !enabled(name) {
			e.Options += ",noauto"
		}
		if enabled(base + ".automount") {
			e.Options += ",x-systemd.automount"
		}
		if strings.HasPrefix(e.Target, "/") {
			list = append(list, e)
		}
	}
	return list
}

// MountProblem says why a mount could not be brought back the way it is now, "" if it can: then a plan must not take it
// down.
func MountProblem(m proto.Mount) string {
	if err := (&Ops{}).checkMount(m); err != nil {
		return asText(err)
	}
	if m.Problem != "" {
		return m.Target + ": " + m.Problem
	}
	return ""
}

func asText(err error) string {
	if pe, ok := err.(*proto.Error); ok { //nolint:errorlint // checkMount returns it bare
		return pe.Text
	}
	return err.Error()
}

// targets lists the kernel's storage targets over the family or over files in its mounts: LIO's backstores and nvmet's
// namespaces, as configfs shows them (drivers/target/target_core_configfs.c, drivers/nvme/target/configfs.c).
func (o *Ops) targets(f *family, scope []mount, devices bool) (users []proto.User) {
	config := filepath.Join(o.opt.Sys, "kernel/config")
	add := func(kind, name, path, how string) {
		no, ok := f.lookup(path)
		if ok && devices || !ok && covers(scope, path) {
			users = append(users, proto.User{Kind: kind, Name: cut(name, 64), Path: path, How: how, Device: f.shown(no)})
		}
	}
	cores, _ := filepath.Glob(filepath.Join(config, "target/core/*/*/info")) // the pattern is well-formed
	for _, info := range cores {
		dir := filepath.Dir(info)
		path := readLine(filepath.Join(dir, "udev_path"))
		if path == "" {
			path = lioPath(readLine(info))
		}
		name := filepath.Base(filepath.Dir(dir)) + "/" + filepath.Base(dir)
		add("iscsi", name, path, "backstore of the kernel's iSCSI target")
	}
	paths, _ := filepath.Glob(filepath.Join(config, "nvmet/subsystems/*/namespaces/*/device_path"))
	for _, p := range paths {
		add("nvmet", filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(p)))), readLine(p), "namespace of the kernel's NVMe target")
	}
	return users
}

// lioPath finds the file or device in a backstore's info, where its udev_path was not set.
func lioPath(info string) string {
	for _, mark := range []string{"File: ", "iBlock device: "} {
		if _, rest, ok := strings.Cut(info, mark); ok {
			word, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			if !strings.HasPrefix(word, "/") {
				word = "/dev/" + word
			}
			return word
		}
	}
	return ""
}
