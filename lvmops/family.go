package lvmops

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

// maxFamily bounds how many devices are followed above one replicated device.
const maxFamily = 4096

// devno is a block device's number.
type devno struct{ major, minor uint32 }

func (d devno) String() string { return fmt.Sprintf("%d:%d", d.major, d.minor) }

func parseDevno(s string) (devno, bool) {
	a, b, ok := strings.Cut(strings.TrimSpace(s), ":")
	if !ok {
		return devno{}, false
	}
	ma, err1 := strconv.ParseUint(a, 10, 32)
	mi, err2 := strconv.ParseUint(b, 10, 32)
	return devno{uint32(ma), uint32(mi)}, err1 == nil && err2 == nil
}

// device is one block device of a family.
type device struct {
	no     devno
	name   string // the kernel's: nbd0, dm-3, loop1
	kind   string // "", part, dm, loop, md or other
	dmName string
	dmUUID string
	below  string // what it holds: a kernel name or a file
	shown  string // the operator's name
}

// family is the replicated device and every block device that sits on it, directly or through a file system.
type family struct {
	o       *Ops
	node    string
	root    devno
	devices map[devno]*device
	paths   map[string]devno // paths by which devices are known to be named
	waited  time.Duration    // for probes to end
}

// newFamily starts with the device itself and adds partitions and holders, recursively.
func (o *Ops) newFamily(dev, node string) (*family, error) {
	ma, mi, err := o.opt.DeviceNumber(node)
	if err != nil {
		return nil, err
	}
	return o.familyOf(devno{ma, mi}, dev, node), nil
}

// familyOf is newFamily for a device whose number is known; its names may be "".
func (o *Ops) familyOf(no devno, dev, node string) *family {
	f := &family{o: o, node: node, root: no, devices: map[devno]*device{}, paths: map[string]devno{}}
	f.add(no, "", "")
	if dev != "" {
		f.devices[no].shown = dev
		f.paths[dev], f.paths[node] = no, no
	}
	return f
}

// grow reads the agent's mount table and takes in loop devices on it, until nothing is added any more.
func (f *family) grow(table []mount) {
	for n := -1; n != len(f.devices); {
		n = len(f.devices)
		f.addLoops(f.mountsOf(table))
	}
}

// add takes in a device and what holds it.
func (f *family) add(no devno, kind, below string) {
	if _, ok := f.devices[no]; ok || len(f.devices) >= maxFamily {
		return
	}
	dir := filepath.Join(f.o.opt.Sys, "dev/block", no.String())
	d := &device{no: no, kind: kind, below: below}
	if to, err := os.Readlink(dir); err == nil {
		d.name = filepath.Base(to)
	} else {
		d.name = filepath.Base(f.node)
	}
	d.dmUUID, d.dmName = readLine(filepath.Join(dir, "dm/uuid")), readLine(filepath.Join(dir, "dm/name"))
	if d.kind == "" && below != "" {
		d.kind = kindOf(d)
	}
	d.shown = "/dev/" + strings.ReplaceAll(d.name, "!", "/")
	if d.dmName != "" {
		d.shown = "/dev/mapper/" + d.dmName
		f.paths[d.shown] = no
	}
	if p := lvPath(d); p != "" {
		d.shown = p
	}
	f.devices[no] = d
	f.paths[d.shown] = no
	f.paths["/dev/"+d.name] = no
	for _, h := range entries(filepath.Join(dir, "holders")) {
		if n, ok := parseDevno(readLine(filepath.Join(f.o.opt.Sys, "class/block", h, "dev"))); ok {
			f.add(n, "", d.name)
		}
	}
	if d.dmName != "" {
		return // partitions of it are devices of device-mapper's, too
	}
	for _, p := range entries(dir) {
		if !strings.HasPrefix(p, d.name) { // partitions are named after their disk (block/partitions/core.c, add_partition)
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, p, "partition")); err != nil {
			continue
		}
		if n, ok := parseDevno(readLine(filepath.Join(dir, p, "dev"))); ok {
			f.add(n, "part", d.name)
		}
	}
}

func kindOf(d *device) string {
	switch {
	case d.dmUUID != "" || d.dmName != "" || strings.HasPrefix(d.name, "dm-"):
		return "dm"
	case strings.HasPrefix(d.name, "md"):
		return "md"
	case strings.HasPrefix(d.name, "loop"):
		return "loop"
	default:
		return "holder"
	}
}

// addLoops takes in loop devices whose backing file is a device of the family or lies in a mount of it.
func (f *family) addLoops(mounts []mount) {
	for _, name := range entries(filepath.Join(f.o.opt.Sys, "block")) {
		if !strings.HasPrefix(name, "loop") {
			continue
		}
		dir := filepath.Join(f.o.opt.Sys, "block", name)
		file := readLine(filepath.Join(dir, "loop/backing_file"))
		if file == "" {
			continue
		}
		n, ok := parseDevno(readLine(filepath.Join(dir, "dev")))
		if !ok {
			continue
		}
		if _, known := f.lookup(file); known || covers(mounts, file) {
			f.add(n, "loop", file)
		}
	}
}

// lookup says which device of the family a path in /dev names. Only paths in /dev are ever stat'ed.
func (f *family) lookup(path string) (devno, bool) {
	if n, ok := f.paths[path]; ok {
		return n, n != devno{}
	}
	if !strings.HasPrefix(path, "/dev/") {
		return devno{}, false
	}
	ma, mi, err := f.o.opt.DeviceNumber(path)
	n := devno{ma, mi}
	if _, ok := f.devices[n]; err != nil || !ok {
		n = devno{}
	}
	f.paths[path] = n
	return n, n != devno{}
}

// lvPath is the /dev/VG/LV of a device-mapper device that is a logical volume as such, "" for anything else, layers
// below a volume included. In the name of the device every dash of a VG or LV is doubled (LVM2 libdm,
// dm_build_dm_name); its uuid is "LVM-" and two uuids of 32 letters, a layer's is longer.
func lvPath(d *device) string {
	if len(d.dmUUID) != len("LVM-")+64 || !strings.HasPrefix(d.dmUUID, "LVM-") {
		return ""
	}
	const dash = "\x00"
	vg, lv, ok := strings.Cut(strings.ReplaceAll(d.dmName, "--", dash), "-")
	if !ok || vg == "" || lv == "" || strings.Contains(lv, "-") {
		return ""
	}
	return strings.ReplaceAll("/dev/"+vg+"/"+lv, dash, "-")
}

// sorted returns the devices in a stable order, the replicated one first.
func (f *family) sorted() []*device {
	list := make([]*device, 0, len(f.devices))
	for _, d := range f.devices {
		list = append(list, d)
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if (a.no == f.root) != (b.no == f.root) {
			return a.no == f.root
		}
		if a.no.major != b.no.major {
			return a.no.major < b.no.major
		}
		return a.no.minor < b.no.minor
	})
	return list
}

func (f *family) shown(no devno) string {
	if d := f.devices[no]; d != nil {
		return d.shown
	}
	return no.String()
}

// readLine reads a small sysfs or procfs file; "" if it is not there.
func readLine(path string) string {
	b, err := appendFile(make([]byte, 0, 1024), path, 64<<10, true)
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(b), "\n")
}

// swaps returns the files and devices of /proc/swaps, unescaped.
func (o *Ops) swaps() ([]string, error) {
	b, err := readBounded(filepath.Join(o.opt.Proc, "swaps"), 1<<20)
	if err != nil {
		return nil, err
	}
	var list []string
	sc := bufio.NewScanner(strings.NewReader(string(b)))
	for first := true; sc.Scan(); first = false {
		if name, _, ok := strings.Cut(sc.Text(), " "); ok && !first {
			list = append(list, unescape(strings.TrimSuffix(name, "\\040(deleted)")))
		}
	}
	return list, sc.Err()
}

// unescape undoes the octal escapes of /proc (\040 and the like, fs/seq_file.c mangle_path).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
