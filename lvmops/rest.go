package lvmops

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Most processes of a node sleep. One that has not been on a processor since a walk found that it holds nothing has opened,
// entered and mapped nothing since, and need not be looked at again: of it, only that is read. What the walk compared it with
// must be the same too: see key.
//
// Two things escape that: a process that shares its table of files or its memory with a process of another thread group
// (clone(2) with CLONE_FILES or CLONE_VM, without CLONE_THREAD), which used it for both and has ended without waking it. So an
// operation begins with a walk that leaves nobody out.

// sched is a thread's line in schedstat: nanoseconds on a processor, nanoseconds of waiting for one, and how often it got one
// (kernel: Documentation/scheduler/sched-stats.rst; fs/proc/base.c, proc_pid_schedstat). Zero where the kernel does not count.
type sched [3]uint64

// schedOf reads the first thread's.
func (o *Ops) schedOf(pid int) (s sched) {
	var buf [96]byte
	b, err := appendFile(buf[:0], o.dirOf(pid)+"/schedstat", len(buf), true)
	if err != nil {
		return sched{}
	}
	f := bytes.Fields(b)
	if len(f) != len(s) {
		return sched{}
	}
	for i := range s {
		if s[i], err = strconv.ParseUint(string(f[i]), 10, 64); err != nil {
			return sched{}
		}
	}
	return s
}

// resting are processes that a walk found to hold nothing of a family.
type resting struct {
	key string // what they were compared with
	at  map[int]rest
}

// rest is one of them.
type rest struct {
	inode uint64 // see process
	ran   sched
	ns    uint64 // its mount namespace, 0 of a kernel thread
}

// still says whether a process has not run since.
func (k *resting) still(p process, ran sched) bool {
	if k == nil {
		return false
	}
	r, ok := k.at[p.pid]
	return ok && r.inode == p.inode && r.ran == ran
}

// restingOf returns what the last walk for a device found at rest; of a first one, nothing.
func (o *Ops) restingOf(node string) *resting {
	o.mu.Lock()
	defer o.mu.Unlock()
	if k := o.rest[node]; k != nil {
		return k
	}
	return &resting{}
}

// keepResting notes which processes hold nothing.
func (s *scan) keepResting(tasks []task, still []process, known *resting) {
	k := &resting{key: s.key(), at: make(map[int]rest, len(tasks)+len(still)+len(s.kernel))}
	for _, p := range still {
		k.at[p.pid] = known.at[p.pid]
	}
	for _, t := range s.kernel {
		if t.ran != (sched{}) {
			k.at[t.pid] = rest{inode: t.inode, ran: t.ran}
		}
	}
	for i := range tasks {
		if t := &tasks[i]; t.alone && !t.vague && len(t.held) == 0 && t.exe != "" {
			k.at[t.pid] = rest{t.inode, t.ran, t.ns.inode}
		}
	}
	s.f.o.mu.Lock()
	defer s.f.o.mu.Unlock()
	s.f.o.rest[s.f.node] = k
}

// oneThread says whether a process has no other thread than its first: its task directory has one directory for each, and
// counts them as links (fs/proc/base.c, proc_task_getattr).
func oneThread(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir+"/task", &st) == nil && st.Nlink == 3
}

// key tells what processes are compared with: the family's devices and names, and its mounts in every namespace.
func (s *scan) key() string {
	var b strings.Builder
	for _, d := range s.f.sorted() {
		fmt.Fprintf(&b, "%v %s %s\n", d.no, d.name, d.shown)
	}
	spaces := s.sortedSpaces()
	slices.SortFunc(spaces, func(a, b *namespace) int { return cmp.Compare(a.inode, b.inode) })
	for _, ns := range spaces {
		for _, m := range ns.mine {
			fmt.Fprintf(&b, "%d %v %d %d %v %v %q %q %v\n", ns.inode, ns.rooted, m.id, m.parent, m.no, m.sb, m.root, m.target, m.foreign)
		}
	}
	return b.String()
}
