package lvmops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"example.com/santui/proto"
)

// cacheFor is how long a report of lvm is reused while the metadata on the device and the set of device-mapper devices
// do not change. Only how full a pool or snapshot is, and which file system lies on a volume that is not mounted, can be that
// old; mounts, processes and what is open are always read afresh.
const cacheFor = 10 * time.Second

// cached is the last report of lvm about a device.
type cached struct {
	at    time.Time
	cost  time.Duration // how long it took
	mark  []byte        // see label.mark
	dm    string        // the device-mapper devices above it
	rep   lvmReport
	fs    map[string]string // LV uuid to the file system seen on it
	notes []string          // LVs that could not be read
}

// Forget drops what is cached, so that the next Stack asks lvm again.
func (o *Ops) Forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cache = map[string]*cached{}
}

// Findings are the warnings that lvm printed with its last report about a device (duplicates, missing devices ...).
func (o *Ops) Findings(node string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.cache[node]; c != nil {
		return slices.Clone(c.rep.findings)
	}
	return nil
}

// Stack reads what sits on a replicated device. dev is the name the operator knows (/dev/drbd0), node the kernel's
// device behind it (/dev/nbd0); they may be equal. What could not be read is named in Stack.Err, next to what could;
// the error is for calls that make no sense, such as a node that is no block device, and for a cancelled context. Of processes
// nobody is left out.
//
// It opens node, and on a fresh report each active LV, read-only for a moment: serialise it with a demotion.
func (o *Ops) Stack(ctx context.Context, dev, node string) (proto.Stack, error) {
	st, _, err := o.stack(ctx, dev, node, true, func(time.Duration) time.Duration { return cacheFor })
	return st, err
}

// Watch is Stack for whoever looks again and again. A process that held nothing and has not run since is not looked at again (see
// resting). What lvm reports may be older, so that lvm takes about a quarter of share, a part of a core; a change of the metadata
// or of the active volumes shows at once all the same. cost is how long the look took, without what it waited for probes of
// others to end.
func (o *Ops) Watch(ctx context.Context, dev, node string, share float64) (st proto.Stack, cost time.Duration, err error) {
	begin := time.Now()
	st, waited, err := o.stack(ctx, dev, node, false, func(cost time.Duration) time.Duration {
		return min(max(time.Duration(4*float64(cost)/share), cacheFor), longestCache)
	})
	return st, time.Since(begin) - waited, err
}

// longestCache bounds what Watch makes of cacheFor.
const longestCache = 10 * time.Minute

// stack reads the stack. whole leaves no process out; reuse says for how long a report of lvm will do that took so long.
func (o *Ops) stack(ctx context.Context, dev, node string, whole bool, reuse func(cost time.Duration) time.Duration) (_ proto.Stack, waited time.Duration, _ error) {
	f, err := o.openFamily(dev, node)
	if err != nil {
		return proto.Stack{}, 0, err
	}
	var st proto.Stack
	var problems []string
	rep, kind, err := o.lookLVM(ctx, f, func(c *cached) bool {
		age := time.Since(c.at)
		return age < reuse(c.cost) || !whole && age < longestCache && c.rep.settled()
	})
	if err != nil {
		problems = append(problems, err.Error())
	}
	problems = append(problems, rep.notes...)
	if kind != kindPV && kind != kindPT {
		st.FS = kind
	}
	table, err := o.mountTable()
	if err != nil {
		problems = append(problems, fmt.Sprintf("the mounts of this node could not be read: %v", err))
	}
	f.grow(table)
	mine := f.mountsOf(table)
	o.remember(f, mine)
	for _, m := range mine {
		if !m.foreign {
			shown := o.withUsage(ctx, f.toProto(m, mine))
			shown.Problem = Printable(o.problem(ctx, f, table, m))
			st.Mounts = append(st.Mounts, shown)
		}
	}
	var known *resting
	if !whole {
		known = o.restingOf(node)
	}
	users, notes, err := o.usersOf(ctx, f, table, nil, known)
	if err != nil {
		return proto.Stack{}, 0, o.failed(err, "looking for users of %s", dev)
	}
	st.Users = slices.DeleteFunc(slices.Clone(users), func(u proto.User) bool { return u.Kind == "mount" && u.How == howMounted })
	opens, err := o.dmOpens(ctx, f, mine, users)
	if err != nil {
		problems = append(problems, err.Error())
	}
	for i := range rep.rep.vgs {
		st.VGs = append(st.VGs, f.showVG(&rep.rep.vgs[i], rep.fs, mine, users, opens))
	}
	st.Err = join(append(problems, notes...))
	return st, f.waited, ctx.Err()
}

// openFamily checks a device's names and finds what is above it.
func (o *Ops) openFamily(dev, node string) (*family, error) {
	for _, p := range []string{dev, node} {
		if err := validPath(p); err != nil {
			return nil, o.refuse(proto.CodeInvalid, "device: %v", err)
		}
	}
	f, err := o.newFamily(dev, node)
	if err != nil {
		return nil, &failure{o.refuse(proto.CodeNotFound, "%s (kernel device %s) is not there: %v", dev, node, err), err}
	}
	return f, nil
}

// lookLVM reads the head of the device and, only if it is a physical volume, asks lvm about it. While neither the metadata nor
// the active volumes have changed, reuse says whether the last report will do.
func (o *Ops) lookLVM(ctx context.Context, f *family, reuse func(*cached) bool) (cached, string, error) {
	head, err := o.readHead(ctx, f.node)
	if err != nil {
		return cached{}, "", fmt.Errorf("the first sectors of %s could not be read: %w", f.node, err)
	}
	kind := sniff(head)
	if kind != kindPV {
		return cached{}, kind, nil
	}
	now := cached{at: time.Now(), mark: pvLabel(head).mark, dm: f.dmKey(), fs: map[string]string{}}
	o.mu.Lock()
	old := o.cache[f.node]
	o.mu.Unlock()
	if old != nil && now.mark != nil && bytes.Equal(old.mark, now.mark) && old.dm == now.dm && reuse(old) {
		return *old, kind, nil
	}
	if now.rep, err = o.report(ctx, f.node, nil); err != nil {
		return cached{}, kind, err
	}
	for _, vg := range now.rep.vgs {
		for _, l := range vg.lvs {
			if d := f.byUUID(vg.dmUUID(l)); d != nil && !l.hidden && !l.noNode {
				h, err := o.readHead(ctx, "/dev/"+d.name)
				if err != nil {
					now.notes = append(now.notes, fmt.Sprintf("the first sectors of %s could not be read: %v", d.shown, err))
				}
				now.fs[l.uuid] = sniff(h)
			}
		}
	}
	o.keep(now.mark, &now.rep)
	now.cost = time.Since(now.at)
	o.mu.Lock()
	o.cache[f.node] = &now
	o.mu.Unlock()
	return now, kind, nil
}

// dmUUID is the device-mapper uuid of an LV: "LVM-", the VG's and the LV's uuid without dashes (LVM2
// lib/activate/dev_manager.c). Layers below an LV append a suffix such as "-tpool" or "-real".
func (vg *lvmVG) dmUUID(l lvmLV) string { return "LVM-" + plain(vg.UUID) + l.uuid }

func (f *family) byUUID(uuid string) *device {
	for _, d := range f.devices {
		if d.dmUUID == uuid {
			return d
		}
	}
	return nil
}

func (f *family) hasLayer(uuid string) bool {
	for _, d := range f.devices {
		if strings.HasPrefix(d.dmUUID, uuid) {
			return true
		}
	}
	return false
}

func (f *family) dmKey() string {
	var b strings.Builder
	for _, d := range f.sorted() {
		if d.kind == "dm" {
			fmt.Fprintf(&b, "%s %s\n", d.name, d.dmUUID)
		}
	}
	return b.String()
}

// showVG completes a volume group with what is active and in use now.
func (f *family) showVG(vg *lvmVG, fs map[string]string, mounts []mount, users []proto.User, opens map[devno]int) proto.VG {
	p := vg.VG
	p.LVs = slices.Clone(vg.LVs)
	for i, l := range vg.lvs {
		lv := &p.LVs[i]
		d := f.byUUID(vg.dmUUID(l))
		if d == nil {
			// Hidden volumes and pools are active as a layer, whose uuid has a suffix.
			lv.Active = (l.hidden || l.noNode) && f.hasLayer(vg.dmUUID(l))
			lv.Open = lv.Open && lv.Active
			continue
		}
		lv.Active = true
		if n, ok := opens[d.no]; ok {
			lv.Open = n > 0 // fresher than lvm's report
			lv.Unexplained = lv.Open && !f.explained(d, mounts, users)
		}
		lv.FS = fs[l.uuid]
		if lv.FS == kindPV || lv.FS == kindPT {
			lv.FS = ""
		}
		for _, m := range mounts {
			if m.no == d.no && !m.foreign {
				lv.Open, lv.FS = true, m.fstype
			}
		}
		lv.Open = lv.Open || slices.ContainsFunc(users, func(u proto.User) bool { return u.Device == d.shown && u.How != howActive })
	}
	return p
}

// explained says whether it is known who has a device open: a mount, another device on it, or a user found.
func (f *family) explained(d *device, mounts []mount, users []proto.User) bool {
	for _, m := range mounts {
		if m.no == d.no {
			return true
		}
	}
	for _, x := range f.devices {
		if x.below == d.name {
			return true
		}
	}
	return slices.ContainsFunc(users, func(u proto.User) bool { return u.Device == d.shown || u.Path == d.shown })
}

// probePatience is how long an opener that nobody can name may be a probe (udev's, ours) that is about to end.
const probePatience = 200 * time.Millisecond

// dmOpens counts the openers of the family's device-mapper devices. Openers without an explanation are counted twice, a
// moment apart.
func (o *Ops) dmOpens(ctx context.Context, f *family, mounts []mount, users []proto.User) (map[devno]int, error) {
	var list []devno
	for _, d := range f.sorted() {
		if d.kind == "dm" {
			list = append(list, d.no)
		}
	}
	if len(list) == 0 || o.opt.Sys != "/sys" {
		return nil, nil
	}
	counts, err := openCounts(list)
	for no, n := range counts {
		if n > 0 && !f.explained(f.devices[no], mounts, users) {
			f.waited += probePatience
			if err := Pause(ctx, probePatience); err != nil {
				return counts, err
			}
			counts, err = openCounts(list)
			break
		}
	}
	if err != nil {
		return counts, fmt.Errorf("how often the logical volumes are open could not be read: %w", err)
	}
	return counts, nil
}

// Busy lists what keeps a device, or anything on it, in use on this node: mounts in all namespaces, swap, loop devices,
// holders such as active LVs, and processes. At most proto.MaxUsers are named.
func (o *Ops) Busy(ctx context.Context, node string) ([]proto.User, error) {
	f, err := o.openFamily(node, node)
	if err != nil {
		return nil, err
	}
	table, err := o.mountTable()
	if err != nil {
		return nil, o.failed(err, "looking for users of %s", node)
	}
	f.grow(table)
	users, notes, err := o.usersOf(ctx, f, table, nil, nil)
	if err == nil && len(notes) > 0 {
		err = fmt.Errorf("the list is not complete: %s", join(notes))
	}
	if err != nil {
		return users, o.failed(err, "looking for users of %s", node)
	}
	for _, d := range f.sorted() {
		if d.kind == "dm" && strings.HasPrefix(d.dmUUID, "LVM-") && len(users) < proto.MaxUsers {
			users = append(users, proto.User{Kind: "dm", Name: d.dmName, Path: d.shown, How: howActive, Device: "/dev/" + d.below})
		}
	}
	return users, nil
}

// Words of User.How that this package looks for itself.
const (
	howMounted = "mounted"
	howActive  = "active logical volume"
	howNested  = "active logical volume of a group inside a volume or partition"
)

// usersOf lists the users of a family: mounts, kernel users, other namespaces, processes. only restricts it to one
// mount: then its submounts are users, and it is not. known are processes at rest, see scanProcs.
func (o *Ops) usersOf(ctx context.Context, f *family, table []mount, only *mount, known *resting) (users []proto.User, notes []string, err error) {
	mine := f.mountsOf(table)
	for _, m := range mine {
		on := m.foreign
		if only != nil {
			on = m.id != only.id && m.parent == only.id
		}
		switch {
		case on:
			users = append(users, proto.User{Kind: "mount", Name: m.fstype, Path: m.target, How: "mounted on top", Device: m.source})
		case only == nil:
			users = append(users, proto.User{Kind: "mount", Name: m.fstype, Path: m.target, How: howMounted, Device: f.shown(m.no)})
		}
	}
	scope := slices.DeleteFunc(slices.Clone(mine), func(m mount) bool { return m.foreign })
	if only != nil {
		scope = []mount{*only}
	}
	kernel, notes := o.kernelUsers(f, table, scope, only == nil)
	users = append(users, kernel...)
	s, err := o.scanProcs(ctx, f, table, only, known)
	if err != nil {
		return nil, nil, err
	}
	notes = append(notes, s.notes...)
	for i := range users {
		users[i].Name, users[i].Path = Printable(users[i].Name), Printable(users[i].Path)
	}
	begin := time.Now()
	users = append(users, o.lasting(ctx, s.users)...)
	f.waited += time.Since(begin)
	if more := s.more + max(0, len(users)-proto.MaxUsers); more > 0 {
		users = users[:proto.MaxUsers]
		notes = append(notes, fmt.Sprintf("%d more users are not listed", more))
	}
	return users, notes, nil
}

// kernelUsers lists users that are no processes: swap, loop devices, device-mapper and md devices that are not LVs,
// overlay mounts, NFS exports.
func (o *Ops) kernelUsers(f *family, table, scope []mount, devices bool) (users []proto.User, notes []string) {
	swaps, err := o.swaps()
	if err != nil {
		notes = append(notes, fmt.Sprintf("swap areas: %v", err))
	}
	for _, s := range swaps {
		no, ok := f.lookup(s)
		if ok && devices || !ok && covers(scope, s) {
			users = append(users, proto.User{Kind: "swap", Name: s, Path: s, How: "swap area", Device: f.shown(no)})
		}
	}
	for _, d := range f.sorted() {
		switch {
		case f.nested(d):
			if devices {
				users = append(users, proto.User{Kind: "dm", Name: d.shown, Path: "/dev/" + d.name, How: howNested, Device: "/dev/" + d.below})
			}
		case d.no == f.root, d.kind == "part", d.kind == "dm" && strings.HasPrefix(d.dmUUID, "LVM-"):
		case d.kind == "loop" && strings.HasPrefix(d.below, "/"):
			if devices || covers(scope, d.below) {
				users = append(users, proto.User{Kind: "loop", Name: "/dev/" + d.name, Path: d.below, How: "backing file"})
			}
		case devices:
			users = append(users, proto.User{Kind: d.kind, Name: d.shown, Path: "/dev/" + d.name, How: "holder", Device: "/dev/" + d.below})
		}
	}
	for _, m := range table {
		if m.fstype != "overlay" {
			continue
		}
		for _, x := range strings.FieldsFunc(m.super, func(r rune) bool { return r == ',' || r == '=' || r == ':' }) {
			if strings.HasPrefix(x, "/") && covers(scope, x) {
				users = append(users, proto.User{Kind: "mount", Name: "overlay", Path: m.target, How: "overlay layer", Device: x})
				break
			}
		}
	}
	users = append(users, o.targets(f, scope, devices)...)
	return append(users, o.nfsExports(scope)...), notes
}

// nfsExports reads the kernel NFS server's table: path, tab, clients.
func (o *Ops) nfsExports(scope []mount) (users []proto.User) {
	b, err := readBounded(filepath.Join(o.opt.Proc, "fs/nfsd/exports"), 1<<20)
	if err != nil {
		return nil // no NFS server
	}
	for line := range strings.Lines(string(b)) {
		path, clients, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if path = unescape(path); ok && !strings.HasPrefix(path, "#") && covers(scope, path) {
			users = append(users, proto.User{Kind: "nfs", Name: cut(clients, 64), Path: path, How: "exported by the kernel's NFS server"})
		}
	}
	// What exportfs(8) has noted down is exported as soon as a client asks; the kernel's table shows it only then.
	noted, err := o.Exports()
	if err != nil {
		return users
	}
	for _, e := range noted {
		known := slices.ContainsFunc(users, func(u proto.User) bool { return u.Path == e.Path })
		if !known && covers(scope, e.Path) {
			users = append(users, proto.User{Kind: "nfs", Name: cut(e.Client+"("+e.Options+")", 64), Path: e.Path, How: "exported, see exportfs -v"})
		}
	}
	return users
}

// Exports lists what exportfs(8) has noted down on this node, with the options in full. The table is empty where there is
// no NFS server. A line is a path, a tab, a client and its options in parentheses (nfs-utils support/nfs/exports.c,
// putexportent).
func (o *Ops) Exports() ([]proto.Export, error) {
	b, err := readBounded(o.opt.Etab, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, o.failed(err, "reading the NFS exports of this node")
	}
	var list []proto.Export
	for line := range strings.Lines(string(b)) {
		path, client, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if path = unescape(path); !ok || !strings.HasPrefix(path, "/") {
			continue
		}
		e := proto.Export{Path: path, Client: client}
		if name, options, ok := strings.Cut(client, "("); ok {
			e.Client, e.Options = name, strings.TrimSuffix(options, ")")
		}
		list = append(list, e)
	}
	return list, nil
}

// withUsage adds the size of a mounted file system. A file system that does not answer in time keeps its zeros.
func (o *Ops) withUsage(ctx context.Context, m proto.Mount) proto.Mount {
	st, err := aside(ctx, o, "statfs "+m.Target, func() (unix.Statfs_t, error) {
		var st unix.Statfs_t
		err := unix.Statfs(m.Target, &st)
		return st, err
	})
	if err != nil {
		o.opt.Log.Debug("no usage of a mount", "target", m.Target, "err", err)
		return m
	}
	m.Size = int64(st.Blocks) * st.Frsize
	m.Used = int64(st.Blocks-st.Bfree) * st.Frsize
	return m
}
