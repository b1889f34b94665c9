package lvmops

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/moby/sys/mountinfo"

	"example.com/santui/proto"
)

// maxMountinfo bounds what is read of one process' mount table, in bytes.
const maxMountinfo = 16 << 20

// mount is one line of a mount table.
type mount struct {
	id, parent int
	no         devno
	sb         devno // the number that the table has: another than no with btrfs
	root       string
	target     string
	vfs        string // options of the mount
	super      string // options of the file system
	fstype     string
	source     string
	shared     string // peer group, "" if private
	master     string // peer group it receives from
	depth      int    // distance from the root of the tree
	foreign    bool   // no device of the family, but mounted on one that is
}

// mountTable reads the mounts of this process' namespace.
func (o *Ops) mountTable() ([]mount, error) {
	return readMounts(filepath.Join(o.opt.Proc, "self/mountinfo"))
}

func readMounts(path string) ([]mount, error) {
	b, err := readBounded(path, maxMountinfo)
	if err != nil {
		return nil, err
	}
	infos, err := mountinfo.GetMountsFromReader(bytes.NewReader(b), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	table := make([]mount, 0, len(infos))
	for _, i := range infos {
		no := devno{uint32(i.Major), uint32(i.Minor)}
		m := mount{id: i.ID, parent: i.Parent, no: no, sb: no, root: i.Root, target: i.Mountpoint,
			vfs: i.Options, super: i.VFSOptions, fstype: i.FSType, source: i.Source}
		for _, f := range strings.Fields(i.Optional) {
			if v, ok := strings.CutPrefix(f, "shared:"); ok {
				m.shared = v
			}
			if v, ok := strings.CutPrefix(f, "master:"); ok {
				m.master = v
			}
		}
		table = append(table, m)
	}
	setDepths(table)
	return table, nil
}

func setDepths(table []mount) {
	at := make(map[int]int, len(table))
	for i, m := range table {
		at[m.id] = i
	}
	for i := range table {
		j := i
		for table[i].depth < len(table) { // the bound ends a cycle, which only a forged table has
			p, ok := at[table[j].parent]
			if !ok || p == j {
				break
			}
			table[i].depth++
			j = p
		}
	}
}

// mountsOf picks the family's mounts out of a table, and the foreign ones that sit on them, deepest last.
func (f *family) mountsOf(table []mount) []mount {
	var mine []mount
	ids := map[int]bool{}
	for _, m := range table {
		if f.owns(&m) {
			ids[m.id] = true
			mine = append(mine, m)
		}
	}
	for grown := true; grown; {
		grown = false
		for _, m := range table {
			if !ids[m.id] && ids[m.parent] {
				ids[m.id], grown = true, true
				m.foreign = true
				mine = append(mine, m)
			}
		}
	}
	sort.SliceStable(mine, func(i, j int) bool {
		if mine[i].depth != mine[j].depth {
			return mine[i].depth < mine[j].depth
		}
		return !mine[i].isBind() && mine[j].isBind() // what a bind mount shows has to be there first
	})
	return mine
}

// owns says whether a mount's file system lives on a device of the family. btrfs has numbers of its own: there the
// source decides, and the number is put right.
func (f *family) owns(m *mount) bool {
	if _, ok := f.devices[m.no]; ok {
		return true
	}
	if m.no.major == 0 && strings.HasPrefix(m.source, "/dev/") {
		if n, ok := f.lookup(m.source); ok {
			m.no = n
			return true
		}
	}
	return false
}

// covers says whether a path lies in one of the mounts.
func covers(mounts []mount, path string) bool {
	for _, m := range mounts {
		if within(path, m.target) {
			return true
		}
	}
	return false
}

// covering finds the mount of a table that a path of the same namespace leads into: the longest target, and of equal
// ones the deepest.
func covering(table []mount, path string) *mount {
	var best *mount
	for i := range table {
		m := &table[i]
		if !within(path, m.target) {
			continue
		}
		if best == nil || len(m.target) > len(best.target) || (len(m.target) == len(best.target) && m.depth >= best.depth) {
			best = m
		}
	}
	return best
}

func within(path, dir string) bool {
	return dir == "/" || path == dir || (strings.HasPrefix(path, dir) && path[len(dir)] == '/')
}

// topmost returns what a path shows: the last mount whose target it is exactly.
func topmost(table []mount, target string) *mount {
	var best *mount
	for i := range table {
		if table[i].target == target && (best == nil || table[i].depth >= best.depth) {
			best = &table[i]
		}
	}
	return best
}

func countAt(table []mount, target string) int {
	n := 0
	for _, m := range table {
		if m.target == target {
			n++
		}
	}
	return n
}

// dropped are options that a mount table shows and mount(8) needs not, or must not, be given again: defaults, and
// states.
var dropped = []string{"rw", "ro", "seclabel", "attr2", "inode64", "logbufs=8", "logbsize=32k", "noquota", "emergency_ro", "shutdown",
	"space_cache=v2", "subvolid="}

// options merges a mount's own options and its file system's to what mount(8) takes. If either is read-only, the file
// system is.
func (m *mount) options() string {
	vfs, super := strings.Split(m.vfs, ","), strings.Split(m.super, ",")
	opts := []string{"rw"}
	if slices.Contains(vfs, "ro") || slices.Contains(super, "ro") {
		opts[0] = "ro"
	}
	if m.isBind() {
		super = nil // a bind mount shares them with the mount it shows
	}
	for _, x := range append(vfs, super...) {
		skip := x == "" || slices.Contains(opts, x) || slices.ContainsFunc(dropped, func(d string) bool {
			return x == d || (strings.HasSuffix(d, "=") && strings.HasPrefix(x, d))
		})
		if !skip {
			opts = append(opts, x)
		}
	}
	return strings.Join(opts, ",")
}

// isBind: a part of the file system is mounted. With btrfs that is a subvolume, which an option names.
func (m *mount) isBind() bool { return m.root != "/" && m.fstype != "btrfs" }

// toProto shows a mount. all are the family's mounts of the same namespace: they tell where the whole file system of a
// bind mount can be reached.
func (f *family) toProto(m mount, all []mount) proto.Mount {
	p := proto.Mount{Source: f.shown(m.no), Target: m.target, FSType: m.fstype, Options: m.options(), Major: m.no.major, Minor: m.no.minor}
	if !m.isBind() {
		return p
	}
	p.Root = m.root
	for _, b := range all {
		if b.no == m.no && b.id != m.id && !b.isBind() && b.depth <= m.depth {
			p.Source = filepath.Join(b.target, m.root)
			break
		}
	}
	return p
}
