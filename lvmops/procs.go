package lvmops

import (
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
	kernel  []task // threads of the kernel, if somebody wants to know
	open    []int  // descriptors of the process that is looked at
	fds     int
	more    int // users beyond the limit
	notes   []string
}

// task is a process that runs a program, as far as a walk has looked at it.
type task struct {
	process
	dir, exe string // see program
	ns       *namespace
	ran      sched // before anything else of it was read
	alone    bool  // it had one thread then, which schedstat tells of
	held     []proto.User
	vague    bool // not all of it could be looked at
}

// scanProcs lists the processes and mount namespaces that use the family. only, if not nil, restricts it to one mount. known,
// if not nil, is what an earlier walk found at rest, see resting.
func (o *Ops) scanProcs(ctx context.Context, f *family, table []mount, only *mount, known *resting) (*scan, error) {
	s := &scan{f: f, own: f.mountsOf(table), only: only, spaces: map[uint64]*namespace{}, ids: map[int]mount{}, mapped: map[devno]devno{}}
	for no := range f.devices {
		s.mapped[no] = no
	}
	self := nsInode(filepath.Join(o.opt.Proc, "self/ns/mnt"))
	s.spaces[self] = &namespace{inode: self, rooted: true, table: table, mine: s.own, visible: true}
	s.learn(s.spaces[self])
	list, err := o.processes()
	if err != nil {
		s.notes = append(s.notes, err.Error())
	}
	tasks, still, err := s.begin(ctx, list, known)
	if err != nil {
		return nil, err
	}
	for _, ns := range s.sortedSpaces() {
		s.foreignMounts(ns)
	}
	reader := s.readMaps(tasks)
	for i := range tasks {
		if err := ctx.Err(); err != nil {
			reader.leave()
			return nil, err
		}
		s.links(&tasks[i])
		s.files(&tasks[i])
	}
	if err := s.mapsOf(ctx, reader, tasks); err != nil {
		return nil, err
	}
	for i := range tasks {
		s.report(&tasks[i])
	}
	if known != nil {
		s.keepResting(tasks, still, known)
	}
	return s, nil
}

// begin finds out what program each process runs, and in which mount namespace, but for those that are still at rest.
func (s *scan) begin(ctx context.Context, list []process, known *resting) (tasks []task, still []process, err error) {
	tasks = make([]task, 0, len(list))
	add := func(p process, ran sched) {
		alone := ran != sched{} && oneThread(s.f.o.dirOf(p.pid))
		dir, exe, ok := s.f.o.program(p.pid)
		t := task{process: p, dir: dir, exe: exe, ran: ran, alone: alone}
		if !ok {
			s.kernel = append(s.kernel, t)
		} else if t.ns = s.enter(p.pid, dir); t.ns != nil {
			tasks = append(tasks, t)
		}
	}
	for _, p := range list {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		var ran sched
		if known != nil {
			ran = s.f.o.schedOf(p.pid)
		}
		if known.still(p, ran) {
			still = append(still, p)
			continue
		}
		add(p, ran)
	}
	for _, p := range still {
		if ns := known.at[p.pid].ns; ns != 0 {
			s.space(ns, p.pid, s.f.o.dirOf(p.pid))
		}
	}
	if known == nil || known.key == s.key() {
		return tasks, still, nil
	}
	for _, p := range still { // what they were looked at for has changed
		add(p, known.at[p.pid].ran)
	}
	slices.SortFunc(tasks, func(a, b task) int { return a.pid - b.pid })
	return tasks, nil, nil
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

// enter notes a process' namespace.
func (s *scan) enter(pid int, dir string) *namespace {
	inode := nsInode(dir + "/ns/mnt")
	if inode == 0 {
		return nil // it is gone, or a zombie
	}
	return s.space(inode, pid, dir)
}

// space reads the mounts of a namespace through one of its processes, if they are not known yet.
func (s *scan) space(inode uint64, pid int, dir string) *namespace {
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

// hold notes that a process uses a device of the family.
func (s *scan) hold(t *task, no devno, how, path string) {
	device := s.f.shown(no)
	i := slices.IndexFunc(t.held, func(u proto.User) bool { return u.Device == device })
	if i < 0 {
		t.held = append(t.held, proto.User{Kind: "process", PID: t.pid, Path: path, How: how, Device: device})
		return
	}
	if u := &t.held[i]; !slices.Contains(strings.Split(u.How, ","), how) {
		u.How += "," + how
	}
}

// links looks at a process' directories and its executable.
func (s *scan) links(t *task) {
	if len(s.ids) == 0 {
		return
	}
	for _, link := range []string{"cwd", "root"} {
		if path, err := os.Readlink(t.dir + "/" + link); err == nil {
			s.byText(t, path, link)
		}
	}
	s.byText(t, t.exe, "exe")
}

// report notes what was found of a process.
func (s *scan) report(t *task) {
	for _, u := range t.held {
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
func (s *scan) byText(t *task, path, how string) {
	if len(t.ns.mine) == 0 || !strings.HasPrefix(path, "/") || !s.near(path) {
		return
	}
	m := covering(t.ns.table, path)
	if m == nil {
		return
	}
	if mine, ok := s.ids[m.id]; ok && !mine.foreign {
		s.hold(t, mine.no, how, path)
	}
}

// files looks at the open files of a process. An open file's mount is known by its number (fdinfo), whatever namespace
// it was opened in; an open block device by its name.
func (s *scan) files(t *task) {
	dir := t.dir
	s.open = numbered(s.open[:0], dir+"/fd")
	for _, fd := range s.open {
		if s.fds++; s.fds > maxFDs {
			t.vague = true
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
				s.hold(t, no, "open", path)
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
			s.hold(t, m.no, "fd", path)
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
