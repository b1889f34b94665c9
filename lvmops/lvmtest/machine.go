package lvmtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"example.com/santui/lvmops"
)

// Machine is a small stateful fake of a node: trees that look like /proc, /sys and /dev in a directory of the test's,
// and a Runner that changes them as lvm, mkfs, mount and umount would. It needs no root. What it knows is what lvmops
// asks for; lvm's real output is in the transcripts.
type Machine struct {
	dir string

	mu      sync.Mutex
	numbers map[string][2]uint32 // device path to number
	vgs     []*group
	mounts  []mounted
	next    int
	calls   [][]string
	fail    map[string]Failure
}

// Failure makes a program fail.
type Failure struct {
	Times  int  // how often, -1 for ever
	After  bool // the program does its work first, then reports the failure
	Exit   int
	Stderr string
	Cause  error // instead of an exit code, for example lvmops.ErrTimeout
}

type group struct {
	name, uuid, pv string
	seqno          int
	lvs            []*volume
}

type volume struct {
	name, uuid string
	attr       string
	size       int64
	minor      int // of its device-mapper device, -1 while inactive
	content    []byte
}

type mounted struct{ source, target, fstype, options string }

// headSize is how much of a device's content exists.
const headSize = 128 << 10

// NewMachine makes a machine in an empty directory.
func NewMachine(dir string) (*Machine, error) {
	m := &Machine{dir: dir, numbers: map[string][2]uint32{}, fail: map[string]Failure{}}
	for name, text := range map[string]string{"proc/swaps": "Filename Type Size Used Priority\n", "proc/self/mountinfo": "", "dev/null": ""} {
		if err := write(filepath.Join(dir, name), text); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{"sys/block", "sys/class/block", "sys/dev/block", "proc/self/ns"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Symlink("mnt:[1]", filepath.Join(dir, "proc/self/ns/mnt")); err != nil {
		return nil, err
	}
	return m, m.writeMounts()
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// Options are those of an Ops on this machine.
func (m *Machine) Options(node string) lvmops.Options {
	return lvmops.Options{Runner: m, Node: node, Proc: filepath.Join(m.dir, "proc"), Sys: filepath.Join(m.dir, "sys"), Dev: filepath.Join(m.dir, "dev"),
		DeviceNumber: func(path string) (uint32, uint32, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			n, ok := m.numbers[path]
			if !ok {
				return 0, 0, fmt.Errorf("%s: %w", path, os.ErrNotExist)
			}
			return n[0], n[1], nil
		}}
}

// AddDevice makes an empty block device /dev/NAME. alias, if not "", is a second path to it.
func (m *Machine) AddDevice(name string, major, minor uint32, alias string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if alias != "" {
		if err := m.link(alias, name, [2]uint32{major, minor}); err != nil {
			return err
		}
	}
	return m.addDevice(name, major, minor, make([]byte, headSize))
}

// link makes a second path, in /dev, to a device.
func (m *Machine) link(path, name string, no [2]uint32) error {
	m.numbers[path] = no
	at := filepath.Join(m.dir, path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.Symlink(filepath.Join(m.dir, "dev", name), at)
}

func (m *Machine) addDevice(name string, major, minor uint32, content []byte) error {
	no := fmt.Sprintf("%d:%d", major, minor)
	m.numbers["/dev/"+name] = [2]uint32{major, minor}
	block := filepath.Join(m.dir, "sys/block", name)
	if err := os.MkdirAll(filepath.Join(block, "holders"), 0o755); err != nil {
		return err
	}
	if err := write(filepath.Join(block, "dev"), no+"\n"); err != nil {
		return err
	}
	for _, link := range []string{"sys/dev/block/" + no, "sys/class/block/" + name} {
		if err := os.Symlink(block, filepath.Join(m.dir, link)); err != nil {
			return err
		}
	}
	return write(filepath.Join(m.dir, "dev", name), string(content))
}

// SetFailure makes a program fail from now on; Failure{} ends that.
func (m *Machine) SetFailure(program string, f Failure) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail[program] = f
}

// Calls returns the command lines so far, without the looks (lvm fullreport).
func (m *Machine) Calls() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []string
	for _, c := range m.calls {
		if c[0] != "lvm" {
			list = append(list, strings.Join(c, " "))
		}
	}
	return list
}

// Reports counts the looks, which Calls leaves out.
func (m *Machine) Reports() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.calls {
		if c[0] == "lvm" {
			n++
		}
	}
	return n
}

// SetAttr makes a volume one of another type, as lv_attr shows it (lvs(8)).
func (m *Machine) SetAttr(vg, lv, attr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.find(vg).lvs {
		if v.name == lv {
			v.attr = attr
		}
	}
}

// DeviceEvent makes the kernel count an event of a device.
func (m *Machine) DeviceEvent() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	return write(filepath.Join(m.dir, "sys/kernel/uevent_seqnum"), strconv.Itoa(m.next)+"\n")
}

// AddProcess makes a process with a working directory.
func (m *Machine) AddProcess(pid int, name, cwd string) error {
	dir := m.process(pid)
	if err := os.MkdirAll(filepath.Join(dir, "task", strconv.Itoa(pid)), 0o755); err != nil {
		return err
	}
	if err := m.RunProcess(pid); err != nil {
		return err
	}
	for f, text := range map[string]string{"comm": name + "\n", "status": "Name:\t" + name + "\nUid:\t1000\t1000\t1000\t1000\n", "maps": ""} {
		if err := write(filepath.Join(dir, f), text); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "ns"), 0o755); err != nil {
		return err
	}
	for link, to := range map[string]string{"cwd": cwd, "root": "/", "exe": "/bin/" + name, "ns/mnt": "mnt:[1]"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) process(pid int) string { return filepath.Join(m.dir, "proc", strconv.Itoa(pid)) }

// RunProcess lets a process have a processor for a moment.
func (m *Machine) RunProcess(pid int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	return write(filepath.Join(m.process(pid), "schedstat"), fmt.Sprintf("%d %d %d\n", 1000*m.next, m.next, m.next))
}

// MoveProcess changes a process' working directory, which it can not do itself without RunProcess.
func (m *Machine) MoveProcess(pid int, cwd string) error {
	link := filepath.Join(m.process(pid), "cwd")
	if err := os.Remove(link); err != nil {
		return err
	}
	return os.Symlink(cwd, link)
}

// AddThread gives a process one more thread.
func (m *Machine) AddThread(pid, tid int) error {
	return os.Mkdir(filepath.Join(m.process(pid), "task", strconv.Itoa(tid)), 0o755)
}

// RemoveProcess ends a process.
func (m *Machine) RemoveProcess(pid int) error { return os.RemoveAll(m.process(pid)) }

// Run implements lvmops.Runner.
func (m *Machine) Run(ctx context.Context, cmd lvmops.Cmd) (lvmops.Result, error) {
	if err := ctx.Err(); err != nil {
		return answer(cmd, Run{Exit: -1}, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, slices.Clone(cmd.Argv))
	f, bad := m.fail[cmd.Argv[0]]
	bad = bad && f.Times != 0
	if bad {
		f.Times--
		m.fail[cmd.Argv[0]] = f
	}
	if bad && !f.After {
		return answer(cmd, Run{Exit: f.Exit, Stderr: f.Stderr}, f.Cause)
	}
	r, err := m.do(cmd.Argv)
	if bad {
		return answer(cmd, Run{Exit: f.Exit, Stderr: f.Stderr}, f.Cause)
	}
	return answer(cmd, r, err)
}

// said is a run that failed with a message.
func said(exit int, format string, args ...any) (Run, error) {
	return Run{Exit: exit, Stderr: fmt.Sprintf(format, args...) + "\n"}, nil
}

func (m *Machine) do(argv []string) (Run, error) {
	last := argv[len(argv)-1]
	if len(argv) == 2 && slices.Contains([]string{"version", "--version", "-V"}, last) {
		return Run{Stdout: argv[0] + " version 1.2.3 (2020-01-01)\n"}, nil
	}
	switch argv[0] {
	case "lvm":
		return m.report(argv[slices.Index(argv, "--devices")+1])
	case "pvs":
		return m.pvs()
	case "lvmconfig":
		return Run{Stdout: "use_devicesfile=0\nscan_lvs=0\n"}, nil
	case "pvcreate":
		return Run{}, m.stamp(last, 512, label())
	case "vgcreate":
		m.next++
		g := &group{name: argv[len(argv)-2], uuid: uuid("vg", m.next), pv: m.kernelName(last)}
		m.vgs = append(m.vgs, g)
		return Run{}, m.commit(g, last)
	case "lvcreate":
		return m.lvcreate(argv)
	case "vgchange":
		return m.vgchange(argv[1] == "-ay", last)
	case "mkfs.ext4":
		return Run{}, m.stamp(last, 1024, ext4())
	case "mkfs.xfs":
		return Run{}, m.stamp(last, 0, []byte("XFSB"))
	case "mount":
		return m.mount(argv)
	case "umount":
		return m.umount(last)
	default:
		return Run{Exit: -1}, fmt.Errorf("%s: %w", argv[0], lvmops.ErrNotFound)
	}
}

// commit changes a group's metadata, which shows in the header of the metadata area.
func (m *Machine) commit(g *group, device string) error {
	g.seqno++
	return m.stamp(device, mdaAt, fmt.Appendf(nil, "%s %s %d", g.name, g.uuid, g.seqno))
}

// mdaAt is where the one metadata area begins.
const mdaAt = 4096

// label is a PV label, see lvmops' reader for its layout.
func label() []byte {
	b := make([]byte, 512)
	copy(b, "LABELONE")
	b[8], b[20] = 1, 32
	copy(b[24:], "LVM2 001")
	copy(b[32:], uuid("pv", 1))
	// Behind uuid and size: the end of the list of data areas, then the metadata area.
	binary.LittleEndian.PutUint64(b[32+40+16:], mdaAt)
	binary.LittleEndian.PutUint64(b[32+40+24:], headSize-mdaAt)
	return b
}

func ext4() []byte {
	b := make([]byte, 1024)
	b[0x38], b[0x39], b[0x5c], b[0x60] = 0x53, 0xef, 0x04, 0x42
	return b
}

func uuid(kind string, n int) string { return fmt.Sprintf("%s%030d", kind, n) }

// kernelName finds a device's own name from any of its paths.
func (m *Machine) kernelName(path string) string {
	n := m.numbers[path]
	if real, err := filepath.EvalSymlinks(filepath.Join(m.dir, "sys/dev/block", fmt.Sprintf("%d:%d", n[0], n[1]))); err == nil {
		return filepath.Base(real)
	}
	return ""
}

// stamp writes into a device.
func (m *Machine) stamp(path string, off int, what []byte) error {
	file := filepath.Join(m.dir, "dev", m.kernelName(path))
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	copy(b[off:], what)
	return os.WriteFile(file, b, 0o644)
}

func (m *Machine) find(vg string) *group {
	for _, g := range m.vgs {
		if g.name == vg {
			return g
		}
	}
	return nil
}

func (m *Machine) lvcreate(argv []string) (Run, error) {
	g := m.find(argv[len(argv)-1])
	if g == nil {
		return said(5, "  Volume group %q not found", argv[len(argv)-1])
	}
	size := int64(64 << 20)
	if i := slices.Index(argv, "--size"); i > 0 {
		n, err := strconv.ParseInt(strings.TrimSuffix(argv[i+1], "b"), 10, 64)
		if err != nil {
			return said(3, "  Invalid argument for --size")
		}
		size = n
	}
	m.next++
	v := &volume{name: argv[slices.Index(argv, "--name")+1], attr: "-wi-a-----", uuid: uuid("lv", m.next), size: size, minor: -1, content: make([]byte, headSize)}
	g.lvs = append(g.lvs, v)
	if err := m.commit(g, argv[slices.Index(argv, "--devices")+1]); err != nil {
		return Run{}, err
	}
	return Run{}, m.activate(g, v)
}

func (m *Machine) vgchange(up bool, vg string) (Run, error) {
	g := m.find(vg)
	if g == nil {
		return said(5, "  Volume group %q not found", vg)
	}
	for _, v := range g.lvs {
		if !up && slices.ContainsFunc(m.mounts, func(x mounted) bool { return m.numbers[x.source] == [2]uint32{254, uint32(v.minor)} }) {
			return said(5, "  Logical volume %s/%s contains a filesystem in use.", vg, v.name)
		}
	}
	active := 0
	for _, v := range g.lvs {
		var err error
		if up {
			active++
			err = m.activate(g, v)
		} else {
			err = m.deactivate(g, v)
		}
		if err != nil {
			return Run{}, err
		}
	}
	return Run{Stdout: fmt.Sprintf("  %d logical volume(s) in volume group %q now active\n", active, vg)}, nil
}

func (m *Machine) activate(g *group, v *volume) error {
	if v.minor >= 0 {
		return nil
	}
	m.next++
	v.minor = m.next
	name := fmt.Sprintf("dm-%d", v.minor)
	if err := m.addDevice(name, 254, uint32(v.minor), v.content); err != nil {
		return err
	}
	block := filepath.Join(m.dir, "sys/block", name)
	mangled := strings.ReplaceAll(g.name, "-", "--") + "-" + strings.ReplaceAll(v.name, "-", "--")
	for _, p := range []string{"/dev/" + g.name + "/" + v.name, "/dev/mapper/" + mangled} {
		if err := m.link(p, name, [2]uint32{254, uint32(v.minor)}); err != nil {
			return err
		}
	}
	for f, text := range map[string]string{filepath.Join(block, "dm/name"): mangled + "\n", filepath.Join(block, "dm/uuid"): "LVM-" + g.uuid + v.uuid + "\n",
		filepath.Join(m.dir, "sys/block", g.pv, "holders", name): ""} {
		if err := write(f, text); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) deactivate(g *group, v *volume) error {
	if v.minor < 0 {
		return nil
	}
	name := fmt.Sprintf("dm-%d", v.minor)
	b, err := os.ReadFile(filepath.Join(m.dir, "dev", name))
	if err != nil {
		return err
	}
	no := [2]uint32{254, uint32(v.minor)}
	for p, n := range m.numbers {
		if n == no {
			delete(m.numbers, p)
			if err := os.Remove(filepath.Join(m.dir, p)); err != nil {
				return err
			}
		}
	}
	for _, p := range []string{"sys/block/" + name, "sys/class/block/" + name, fmt.Sprintf("sys/dev/block/254:%d", v.minor),
		"sys/block/" + g.pv + "/holders/" + name} {
		if err := os.RemoveAll(filepath.Join(m.dir, p)); err != nil {
			return err
		}
	}
	v.content, v.minor = b, -1
	return nil
}

func (m *Machine) report(node string) (Run, error) {
	type row map[string]string
	var groups []map[string][]row
	for _, g := range m.vgs {
		if g.pv != m.kernelName(node) {
			continue
		}
		lvs := []row{}
		for _, v := range g.lvs {
			lvs = append(lvs, row{"lv_name": v.name, "lv_uuid": v.uuid, "lv_size": strconv.FormatInt(v.size, 10), "lv_attr": v.attr, "lv_device_open": "0"})
		}
		groups = append(groups, map[string][]row{"lv": lvs, "pv": {{"pv_name": node, "pv_missing": "0"}},
			"vg": {{"vg_name": g.name, "vg_uuid": g.uuid, "vg_seqno": strconv.Itoa(g.seqno), "vg_autoactivation": "0"}}})
	}
	var b bytes.Buffer
	if groups == nil {
		groups = []map[string][]row{}
	}
	err := json.NewEncoder(&b).Encode(map[string]any{"report": groups})
	return Run{Stdout: b.String()}, err
}

func (m *Machine) pvs() (Run, error) {
	var rows []string
	for _, g := range m.vgs {
		rows = append(rows, fmt.Sprintf(`{"pv_name":"/dev/%s", "vg_name":%q}`, g.pv, g.name))
	}
	for path, no := range m.numbers { // pvs -a names every device, but logical volumes only to scan them
		if strings.Count(path, "/") == 2 && no[0] != 254 && !slices.ContainsFunc(m.vgs, func(g *group) bool { return "/dev/"+g.pv == path }) {
			rows = append(rows, fmt.Sprintf(`{"pv_name":%q, "vg_name":""}`, path))
		}
	}
	slices.Sort(rows)
	return Run{Stdout: `{"report":[{"pv":[` + strings.Join(rows, ",") + `]}]}`}, nil
}

func (m *Machine) mount(argv []string) (Run, error) {
	x := mounted{source: argv[len(argv)-2], target: argv[len(argv)-1], options: "rw,relatime", fstype: "ext4"}
	if i := slices.Index(argv, "-t"); i > 0 {
		x.fstype = argv[i+1]
	}
	if i := slices.Index(argv, "-o"); i > 0 {
		x.options = argv[i+1]
	}
	if _, ok := m.numbers[x.source]; !ok {
		return said(32, "mount: %s: special device %s does not exist.", x.target, x.source)
	}
	m.mounts = append(m.mounts, x)
	return Run{}, m.writeMounts()
}

func (m *Machine) umount(target string) (Run, error) {
	procs, err := filepath.Glob(filepath.Join(m.dir, "proc/[0-9]*/cwd"))
	if err != nil {
		return Run{}, err
	}
	for _, p := range procs {
		if cwd, err := os.Readlink(p); err == nil && (cwd == target || strings.HasPrefix(cwd, target+"/")) {
			return said(32, "umount: %s: target is busy.", target)
		}
	}
	for i := len(m.mounts) - 1; i >= 0; i-- {
		if m.mounts[i].target == target {
			m.mounts = slices.Delete(m.mounts, i, i+1)
			return Run{}, m.writeMounts()
		}
	}
	return said(32, "umount: %s: not mounted.", target)
}

// writeMounts renders the mount table, see proc(5).
func (m *Machine) writeMounts() error {
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)
	var b strings.Builder
	b.WriteString("1 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n")
	for i, x := range m.mounts {
		n := m.numbers[x.source]
		vfs, _, _ := strings.Cut(x.options, ",")
		fmt.Fprintf(&b, "%d 1 %d:%d / %s %s shared:%d - %s %s %s\n", i+100, n[0], n[1], escape.Replace(x.target), x.options, i+100, x.fstype, escape.Replace(x.source), vfs)
	}
	return write(filepath.Join(m.dir, "proc/self/mountinfo"), b.String())
}
