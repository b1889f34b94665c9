package lvmops

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/santui/proto"
)

// Bounds of the walk over /proc.
const (
	maxProcs = 65536
	maxFDs   = 2000000 // of all processes together; beyond it no move is possible, so not a number that a busy server has
	maxMaps  = 8 << 20
)

// namespace is a mount namespace as seen through one of its processes.
type namespace struct {
	inode   uint64
	pid     int
	rooted  bool // that process' root is the namespace's, so its table is complete
	table   []mount
	mine    []mount
	visible bool // the agent's own
}

// scan walks the processes of this machine for users of a family.
type scan struct {
	f       *family
	own     []mount // the family's mounts in the agent's namespace
	spaces  map[uint64]*namespace
	ids     map[int]mount   // mount ids of the family, of all namespaces: the kernel numbers them machine-wide
	targets []string        // where these mounts are
	vague   bool            // one of them is known only as a process sees it whose root is not the namespace's
	mapped  map[devno]devno // numbers that maps shows for files of the family, to the device
	only    *mount          // if set, users of this one mount are looked for
	users   []proto.User
	open    []int // descriptors of the process that is looked at
	fds     int
	more    int // users beyond the limit
	notes   []string
}

// task is a process that runs a program, as far as a walk has looked at it.
type task struct {
	pid      int
	dir, exe string // see program
	ns       *namespace
}

// scanProcs lists the processes and mount namespaces that use the family. only, if not nil, restricts it to one mount.
func (o *Ops) scanProcs(ctx context.Context, f *family, table []mount, only *mount) (*scan, error) {
	s := &scan{f: f, own: f.mountsOf(table), only: only, spaces: map[uint64]*namespace{}, ids: map[int]mount{}, mapped: map[devno]devno{}}
	for no := range f.devices {
		s.mapped[no] = no
	}
	self := nsInode(filepath.Join(o.opt.Proc, "self/ns/mnt"))
	s.spaces[self] = &namespace{inode: self, rooted: true, table: table, mine: s.own, visible: true}
	s.learn(s.spaces[self])
	pids := o.processes()
	tasks := make([]task, 0, len(pids))
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if dir, exe, ok := o.program(pid); ok {
			if ns := s.enter(pid, dir); ns != nil {
				tasks = append(tasks, task{pid, dir, exe, ns})
			}
		}
	}
	for _, ns := range s.sortedSpaces() {
		s.foreignMounts(ns)
	}
	for i := range tasks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.process(ctx, &tasks[i])
	}
	return s, nil
}

// nsInode reads the number in a link such as "mnt:[4026531840]"; 0 if there is none.
func nsInode(path string) uint64 {
	l, err := os.Readlink(path)
	if err != nil {
		return 0
	}
	_, l, _ = strings.Cut(l, "[")
	n, err := strconv.ParseUint(strings.TrimSuffix(l, "]"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// enter notes a process' namespace and reads its mounts if they are not known yet.
func (s *scan) enter(pid int, dir string) *namespace {
	inode := nsInode(dir + "/ns/mnt")
	if inode == 0 {
		return nil // it is gone, or a zombie
	}
	ns := s.spaces[inode]
	if ns != nil && ns.rooted {
		return ns
	}
	root, err := os.Readlink(dir + "/root")
	if err != nil || (ns != nil && root != "/") {
		return ns
	}
	table, err := readMounts(dir + "/mountinfo")
	if err != nil {
		return ns
	}
	ns = &namespace{inode: inode, pid: pid, rooted: root == "/", table: table, mine: s.f.mountsOf(table)}
	s.spaces[inode] = ns
	s.learn(ns)
	return ns
}

func (s *scan) learn(ns *namespace) {
	for _, m := range ns.mine {
		if s.only == nil || m.id == s.only.id {
			s.ids[m.id] = m
			s.vague = s.vague || !ns.rooted
			if !slices.Contains(s.targets, m.target) {
				s.targets = append(s.targets, m.target)
			}
		}
		if !m.foreign {
			s.mapped[m.sb] = m.no
		}
	}
}

// near says whether a path that the kernel shows may lead into one of the mounts. It saves looking closer at nearly all.
func (s *scan) near(path string) bool {
	return s.vague || slices.ContainsFunc(s.targets, func(t string) bool { return strings.HasPrefix(path, t) })
}

func (s *scan) sortedSpaces() []*namespace {
	list := make([]*namespace, 0, len(s.spaces))
	for _, ns := range s.spaces {
		list = append(list, ns)
	}
	slices.SortFunc(list, func(a, b *namespace) int { return a.pid - b.pid })
	return list
}

// foreignMounts reports mounts in a namespace other than the agent's. Those that go away together with the agent's,
// because their parents share propagation, hold nobody up and are not reported.
func (s *scan) foreignMounts(ns *namespace) {
	if ns.visible || s.only != nil {
		return
	}
	for _, m := range ns.mine {
		if m.foreign || s.follows(ns, m) {
			continue
		}
		s.note(proto.User{Kind: "mount-namespace", PID: ns.pid, UID: s.uid(ns.pid), Name: s.f.o.comm(ns.pid), Path: m.target,
			How: fmt.Sprintf("mounted in mount namespace %d", ns.inode), Device: s.f.shown(m.no)})
	}
}

// follows says whether unmounting in the agent's namespace unmounts m as well: an unmount propagates along the peer
// group of the mount it happens on (mount_namespaces(7)).
func (s *scan) follows(ns *namespace, m mount) bool {
	theirs := parentOf(ns.table, m)
	if theirs == nil {
		return false
	}
	for _, o := range s.own {
		if o.no != m.no || o.root != m.root {
			continue
		}
		for _, v := range s.spaces {
			if !v.visible {
				continue
			}
			p := parentOf(v.table, o)
			if p != nil && p.shared != "" && (p.shared == theirs.shared || p.shared == theirs.master) {
				return true
			}
		}
	}
	return false
}

func parentOf(table []mount, m mount) *mount {
	for i := range table {
		if table[i].id == m.parent && table[i].id != m.id {
			return &table[i]
		}
	}
	return nil
}

// note keeps a user, up to the protocol's limit.
func (s *scan) note(u proto.User) {
	if len(s.users) >= proto.MaxUsers {
		s.more++
		return
	}
	u.Name, u.Path = Printable(cut(u.Name, 64)), Printable(cut(u.Path, proto.MaxOutputLine))
	u.Unit = Printable(unitOf(readLine(filepath.Join(s.f.o.opt.Proc, strconv.Itoa(u.PID), "cgroup"))))
	s.users = append(s.users, u)
}

// process looks at one process: its directories, its executable, its open files and what it has mapped.
func (s *scan) process(ctx context.Context, t *task) {
	var held []proto.User
	hold := func(no devno, how, path string) {
		device := s.f.shown(no)
		i := slices.IndexFunc(held, func(u proto.User) bool { return u.Device == device })
		if i < 0 {
			held = append(held, proto.User{Kind: "process", PID: t.pid, Path: path, How: how, Device: device})
			return
		}
		if u := &held[i]; !slices.Contains(strings.Split(u.How, ","), how) {
			u.How += "," + how
		}
	}
	if len(s.ids) > 0 {
		for _, link := range []string{"cwd", "root"} {
			if path, err := os.Readlink(t.dir + "/" + link); err == nil {
				s.byText(t.ns, path, link, hold)
			}
		}
		s.byText(t.ns, t.exe, "exe", hold)
	}
	s.files(t.dir, hold)
	if len(s.ids) > 0 {
		s.maps(ctx, t.dir, hold)
	}
	for _, u := range held {
		u.Name, u.UID = s.f.o.comm(t.pid), s.uid(t.pid)
		s.note(u)
	}
}

// probeTime is how long a process that does no more than hold the device's node open may take to let go of it before it
// counts as a user. pvs, blkid and udev open every disk they find for a moment; a demotion waits for them anyway.
const probeTime = time.Second

// lasting drops the processes that held nothing but the device itself, and have let go of it within probeTime.
func (o *Ops) lasting(ctx context.Context, users []proto.User) []proto.User {
	probing := func(u proto.User) bool { return u.Kind == "process" && u.How == "open" }
	gone := func(u proto.User) bool { return probing(u) && !o.holds(u.PID, u.Path) }
	for deadline := time.Now().Add(probeTime); ctx.Err() == nil && time.Now().Before(deadline); {
		if users = slices.DeleteFunc(users, gone); !slices.ContainsFunc(users, probing) {
			break
		}
		time.Sleep(probeTime / 40)
	}
	return users
}

// holds says whether a process has a path open.
func (o *Ops) holds(pid int, path string) bool {
	dir, _, ok := o.program(pid)
	if !ok {
		return false
	}
	for _, fd := range numbered(nil, dir+"/fd") {
		if to, err := os.Readlink(dir + "/fd/" + strconv.Itoa(fd)); err == nil && to == path {
			return true
		}
	}
	return false
}

// byText finds the mount that a path of a namespace leads into, from the text alone: opening or stat'ing it could hang.
func (s *scan) byText(ns *namespace, path, how string, hold func(devno, string, string)) {
	if len(ns.mine) == 0 || !strings.HasPrefix(path, "/") || !s.near(path) {
		return
	}
	m := covering(ns.table, path)
	if m == nil {
		return
	}
	if mine, ok := s.ids[m.id]; ok && !mine.foreign {
		hold(mine.no, how, path)
	}
}

// files looks at the open files of a process. An open file's mount is known by its number (fdinfo), whatever namespace
// it was opened in; an open block device by its name.
func (s *scan) files(dir string, hold func(devno, string, string)) {
	s.open = numbered(s.open[:0], dir+"/fd")
	for _, fd := range s.open {
		if s.fds++; s.fds > maxFDs {
			if s.fds == maxFDs+1 {
				s.notes = append(s.notes, fmt.Sprintf("more than %d open files; the rest was not looked at", maxFDs))
			}
			return
		}
		path, err := os.Readlink(dir + "/fd/" + strconv.Itoa(fd))
		if err != nil && gone(err) || err == nil && !strings.HasPrefix(path, "/") {
			continue
		}
		if s.only == nil && strings.HasPrefix(path, "/dev/") {
			if no, ok := s.f.lookup(path); ok {
				hold(no, "open", path)
				continue
			}
		}
		// A path begins with where the mount is, unless it is too long to be shown, or the kernel has no more of it than a name
		// (open_by_handle_at(2)).
		if len(s.ids) == 0 || err == nil && !s.near(path) && strings.LastIndexByte(path, '/') > 0 {
			continue
		}
		info := readLine(dir + "/fdinfo/" + strconv.Itoa(fd))
		if m, ok := s.ids[mountID(info)]; ok && !m.foreign {
			hold(m.no, "fd", path)
		}
	}
}

// mountID finds the mnt_id line of an fdinfo file (proc(5)); -1 if there is none.
func mountID(info string) int {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			if id, err := strconv.Atoi(strings.TrimSpace(v)); err == nil {
				return id
			}
		}
	}
	return -1
}

// mapping is a file of the family that a process has mapped.
type mapping struct {
	no   devno
	path string
}

// maps looks at mapped files by device number. Reading maps waits for the process' memory lock, which a process that
// hangs in a page fault may hold: so it is read aside.
func (s *scan) maps(ctx context.Context, dir string, hold func(devno, string, string)) {
	list, err := aside(ctx, s.f.o, dir+"/maps", func() ([]mapping, error) {
		pooled := mapsBufs.Get().(*[]byte) //nolint:errcheck // the pool holds nothing else
		defer mapsBufs.Put(pooled)
		b, err := appendFile((*pooled)[:0], dir+"/maps", maxMaps)
		*pooled = b
		return mappings(b, s.mapped), err
	})
	if err != nil && !gone(err) {
		s.notes = append(s.notes, fmt.Sprintf("the memory of process %s could not be looked at: %v", filepath.Base(dir), err))
	}
	for _, m := range list {
		if s.only == nil || within(m.path, s.only.target) {
			hold(m.no, "mmap", m.path)
		}
	}
}

// mappings finds the files of some devices in a process' maps. Most lines are of no device, or of the one before.
func mappings(maps []byte, devices map[devno]devno) (list []mapping) {
	var other []byte // a device that is none of them
	for line := range bytes.Lines(maps) {
		// address perms offset dev inode pathname; dev is hexadecimal (proc(5))
		rest := line
		for range 3 {
			_, rest, _ = bytes.Cut(rest, []byte(" "))
		}
		dev, _, _ := bytes.Cut(rest, []byte(" "))
		if bytes.Equal(dev, other) || string(dev) == "00:00" {
			continue
		}
		a, c, ok := strings.Cut(string(dev), ":")
		ma, err1 := strconv.ParseUint(a, 16, 32)
		mi, err2 := strconv.ParseUint(c, 16, 32)
		no, mine := devices[devno{uint32(ma), uint32(mi)}]
		if !ok || err1 != nil || err2 != nil || !mine {
			other = dev
			continue
		}
		_, rest, _ = bytes.Cut(rest, []byte(" "))
		_, path, _ := bytes.Cut(rest, []byte(" "))
		list = append(list, mapping{no, unescape(strings.Trim(string(path), " \n"))})
	}
	return list
}

// unitOf finds the systemd unit that a process belongs to in the text of its /proc/PID/cgroup: the first part of its path
// in systemd's own hierarchy, or the unified one, that names a service or a scope. "" if there is none.
func unitOf(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		// hierarchy:controllers:path (cgroups(7))
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 || f[1] != "" && f[1] != "name=systemd" {
			continue
		}
		for part := range strings.SplitSeq(f[2], "/") {
			if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") {
				return part
			}
		}
	}
	return ""
}

// comm is a process' name. cmdline is not read: it waits for the memory lock.
func (o *Ops) comm(pid int) string {
	return readLine(filepath.Join(o.opt.Proc, strconv.Itoa(pid), "comm"))
}

func (s *scan) uid(pid int) int {
	for line := range strings.Lines(readLine(filepath.Join(s.f.o.opt.Proc, strconv.Itoa(pid), "status"))) {
		if v, ok := strings.CutPrefix(line, "Uid:"); ok {
			if f := strings.Fields(v); len(f) > 0 {
				if uid, err := strconv.Atoi(f[0]); err == nil {
					return uid
				}
			}
		}
	}
	return 0
}
