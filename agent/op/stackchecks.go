package op

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// userCodes are the codes of users that have one of their own; the others are BUSY-DEVICE.
var userCodes = map[string]string{
	"mount": proto.CheckBusyMount, "nfs": proto.CheckBusyNFS, "iscsi": proto.CheckBusyTarget, "nvmet": proto.CheckBusyTarget,
}

// thinFull is the use, in percent, from which a thin pool's data or metadata, or a snapshot, counts as full.
const thinFull = 90

// volumes judges what is known about the stack beyond its groups: who else uses it, and the volumes' own condition.
func (c *checker) volumes(node string, st proto.Stack) {
	busy := map[string][]string{}
	for _, u := range st.Users {
		if code, ok := userCodes[u.Kind]; ok && !(u.Kind == "nfs" && exported(c.beside.Exports, u)) {
			busy[code] = append(busy[code], fmt.Sprintf("%s %s: %s %s", u.Kind, u.Name, u.How, u.Path))
		}
	}
	for _, code := range []string{proto.CheckBusyMount, proto.CheckBusyNFS, proto.CheckBusyTarget} {
		c.judge(code, node, busy[code], "")
	}
	var lost []string
	for _, m := range st.Mounts {
		if why := lvmops.MountProblem(m); why != "" {
			lost = append(lost, why)
		}
	}
	c.grade(proto.CheckUnwind, node, lost, quotas(st.Mounts), fmt.Sprintf("%d mounts", len(st.Mounts)))
	if len(st.VGs) == 0 {
		return
	}
	var mixed, owner, open, sick, full []string
	for _, vg := range st.VGs {
		if vg.SystemID != "" {
			owner = append(owner, fmt.Sprintf("%s belongs to the system ID %q", vg.Name, vg.SystemID))
		}
		if vg.LockType != "" && vg.LockType != "none" {
			owner = append(owner, fmt.Sprintf("%s has the lock type %s", vg.Name, vg.LockType))
		}
		mixed = append(mixed, mixedIn(vg)...)
		for _, lv := range vg.LVs {
			name := vg.Name + "/" + lv.Name
			if lv.Unexplained {
				open = append(open, name+" is open, and neither a mount nor a device nor a process was found that has it open")
			}
			sick = append(sick, sickness(name, lv)...)
			if lv.DataPct >= thinFull || lv.MetaPct >= thinFull {
				full = append(full, fmt.Sprintf("%s: data %.1f %%, metadata %.1f %%", name, lv.DataPct, lv.MetaPct))
			}
		}
	}
	c.judge(proto.CheckVGMixed, node, mixed, "")
	c.judge(proto.CheckVGOwner, node, owner, "")
	c.judge(proto.CheckLVOpen, node, open, "")
	c.judge(proto.CheckLVHealth, node, sick, "")
	c.judge(proto.CheckThinFull, node, full, "")
}

// quotas names mounts whose quotas are kept in files: the options come along, but they are enforced only once somebody runs
// quotaon (ext4(5), usrjquota).
func quotas(mounts []proto.Mount) (out []string) {
	for _, m := range mounts {
		if strings.Contains(m.Options, "usrjquota=") || strings.Contains(m.Options, "grpjquota=") {
			out = append(out, fmt.Sprintf("%s keeps quotas in files: after the move nothing enforces them until quotaon %s was run; a script of agent.toml can", m.Target, m.Target))
		}
	}
	return out
}

// mixedIn lists the volumes of a partly active group that are not active, though activating the group would make them so.
// Hidden ones, pools and those marked to be skipped are no volumes of their own in this sense (lvs(8), "lv_attr bits").
func mixedIn(vg proto.VG) []string {
	var on, off []string
	for _, lv := range vg.LVs {
		switch {
		case lv.Active:
			on = append(on, lv.Name)
		case lv.Path == "" || attr(lv, 9) == 'k' || attr(lv, 0) == 'e':
		default:
			off = append(off, vg.Name+"/"+lv.Name+" is not active, others of the group are")
		}
	}
	if len(on) == 0 {
		return nil
	}
	return off
}

// attr is one position of lv_attr, 0 where it is too short.
func attr(lv proto.LV, i int) byte {
	if i >= len(lv.Attr) {
		return 0
	}
	return lv.Attr[i]
}

func sickness(name string, lv proto.LV) []string {
	var out []string
	if lv.CheckNeeded {
		out = append(out, name+" needs a check (lv_check_needed)")
	}
	if lv.Health != "" {
		out = append(out, fmt.Sprintf("%s: lv_health_status is %q", name, lv.Health))
	}
	switch attr(lv, 4) {
	case 'I', 'S':
		out = append(out, name+" is a snapshot that was lost (it was full)")
	case 's':
		out = append(out, name+" is suspended")
	}
	return out
}

// facts judges what the nodes say about themselves.
func (c *checker) facts(v View) {
	if v.FromErr != nil || v.From.Facts == nil || v.To.Facts == nil {
		return
	}
	nodes := []proto.Observation{v.From, v.To}
	c.backing(nodes...)
	c.duplicates(nodes...)
	c.link(nodes...)
	var errs []string
	for _, o := range nodes {
		for _, e := range o.Facts.Errs {
			errs = append(errs, o.Node+": "+e)
		}
	}
	if len(errs) > 0 {
		c.add(proto.CheckFacts, "", proto.CheckUnknown, errs...)
	} else {
		c.add(proto.CheckFacts, "", proto.CheckOK)
	}
	c.disks(v)
	if v.From.Resource.Role != proto.Primary {
		return
	}
	c.selection(v)
	c.fileSystems(v)
	c.fstab(v)
	c.thinTools(v)
}

// What makes a link a poor one: so many breaks; so many segments sent again, and so much of all; a round trip so many times the
// usual one and so much above it. TCP itself delays an acknowledgement by up to 0.04 s where little is sent (TCP_DELACK_MIN,
// net/tcp.h), which is no sign of trouble.
const (
	poorBreaks = 3
	poorResent = 10
	poorLoss   = 0.01
	poorTimes  = 5
	poorMore   = 0.1
)

// link warns of a replication link that works and should not be relied on.
func (c *checker) link(nodes ...proto.Observation) {
	var bad []string
	var mtu []string
	sizes := map[int]bool{}
	for _, o := range nodes {
		if o.Facts == nil || o.Facts.Link == nil {
			return
		}
		l := *o.Facts.Link
		if l.Breaks >= poorBreaks {
			bad = append(bad, fmt.Sprintf("%s: replication broke %d times within %.0f minutes, last at %s", o.Node, l.Breaks, l.BreaksIn/60, l.LastBreak.Format(time.TimeOnly)))
		}
		if l.Resent >= poorResent && float64(l.Resent) >= poorLoss*float64(l.Sent) {
			bad = append(bad, fmt.Sprintf("%s: %.1f %% of what was sent in %.0f s had to be sent again (%d of %d segments)", o.Node,
				100*float64(l.Resent)/float64(max(l.Sent, l.Resent)), l.Window, l.Resent, l.Sent))
		}
		if l.UsualRTT > 0 && l.RTT > poorTimes*l.UsualRTT && l.RTT > l.UsualRTT+poorMore {
			bad = append(bad, fmt.Sprintf("%s: a round trip takes %.0f ms, %.1f ms at best", o.Node, 1000*l.RTT, 1000*l.UsualRTT))
		}
		if l.MTU > 0 {
			sizes[l.MTU] = true
			mtu = append(mtu, fmt.Sprintf("%s: %d bytes", o.Node, l.MTU))
		}
	}
	if len(sizes) > 1 {
		bad = append(bad, "the MTU of the path differs: "+strings.Join(mtu, ", "))
	}
	if len(bad) > 0 {
		c.add(proto.CheckLinkPoor, "", proto.CheckWarn, bad...)
	} else {
		c.add(proto.CheckLinkPoor, "", proto.CheckOK)
	}
}

// backing is the alarm: something uses a backing disk beside replication.
func (c *checker) backing(nodes ...proto.Observation) {
	var bad []string
	for _, o := range nodes {
		if o.Facts == nil {
			continue
		}
		for _, line := range BackingEvidence(o.Facts.Backing) {
			bad = append(bad, o.Node+": "+line)
		}
	}
	c.judge(proto.CheckBackingActive, "", bad, "")
}

// duplicates passes on what LVM says of a physical volume that a node sees twice.
func (c *checker) duplicates(nodes ...proto.Observation) {
	var dup []string
	for _, o := range nodes {
		if o.Facts == nil {
			continue
		}
		for _, d := range o.Facts.LVM.Duplicates {
			dup = append(dup, o.Node+": "+d)
		}
	}
	c.judge(proto.CheckDupPV, "", dup, "")
}

// BackingEvidence words what uses a backing disk.
func BackingEvidence(users []proto.User) []string {
	var out []string
	for _, u := range users {
		out = append(out, fmt.Sprintf("%s %s %s (%s)", u.Kind, u.Name, u.How, u.Device))
	}
	return out
}

// selection warns where LVM looks at a backing disk on its own.
func (c *checker) selection(v View) {
	if len(v.From.Resource.Stack.VGs) == 0 {
		return
	}
	var seen []string
	for _, o := range []proto.Observation{v.From, v.To} {
		if l := o.Facts.LVM; len(l.Backing) > 0 {
			seen = append(seen, fmt.Sprintf("LVM on %s sees %s (device selection: %s)", o.Node, strings.Join(l.Backing, ", "), l.Mechanism))
		}
	}
	if len(seen) > 0 {
		c.add(proto.CheckBackingVisible, "", proto.CheckWarn, seen...)
	} else {
		c.add(proto.CheckBackingVisible, "", proto.CheckOK)
	}
}

// disks compares the disks of the nodes, and passes on what they complain of.
func (c *checker) disks(v View) {
	from, to := v.From, v.To
	var bad, ill []string
	if to.Facts.DiskSize > 0 && to.Facts.DiskSize < from.Resource.Size {
		bad = append(bad, fmt.Sprintf("%s on %s has %d bytes, the device %d", to.Resource.Disk, to.Node, to.Facts.DiskSize, from.Resource.Size))
	}
	if d := from.Facts.DeviceSector; d > 0 && to.Facts.DiskSector > d {
		bad = append(bad, fmt.Sprintf("%s on %s has sectors of %d bytes, %s on %s of %d", to.Resource.Disk, to.Node, to.Facts.DiskSector, from.Resource.Device, from.Node, d))
	}
	c.judge(proto.CheckSize, to.Node, bad, "")
	for _, o := range []proto.Observation{from, to} {
		if o.Facts.DiskErrors > 0 {
			ill = append(ill, fmt.Sprintf("%s on %s has counted %d errors", o.Resource.Disk, o.Node, o.Facts.DiskErrors))
		}
		if s := o.Resource.DiskState; s == proto.Failed || s == proto.Diskless {
			ill = append(ill, fmt.Sprintf("%s on %s is %s", o.Resource.Disk, o.Node, s))
		}
	}
	if len(ill) > 0 {
		c.add(proto.CheckIOErrors, "", proto.CheckWarn, ill...)
	} else {
		c.add(proto.CheckIOErrors, "", proto.CheckOK)
	}
}

func (c *checker) fileSystems(v View) {
	st := v.From.Resource.Stack
	var bad, warn, unknown []string
	for _, h := range v.From.Facts.Health {
		switch {
		case h.Errors > 0:
			bad = append(bad, fmt.Sprintf("%s on %s has recorded %d errors since its last check", h.Target, v.From.Node, h.Errors))
		case h.State != "":
			bad = append(bad, fmt.Sprintf("%s on %s: %s", h.Target, v.From.Node, h.State))
		case h.ReadOnly:
			warn = append(warn, fmt.Sprintf("%s on %s is mounted read-only, and will be on %s", h.Target, v.From.Node, v.To.Node))
		}
	}
	if len(st.Mounts) == 0 {
		return
	}
	if len(bad) == 0 && len(warn) > 0 {
		c.add(proto.CheckFSHealth, v.From.Node, proto.CheckWarn, warn...)
	} else {
		c.judge(proto.CheckFSHealth, v.From.Node, append(bad, warn...), "")
	}
	for _, m := range st.Mounts {
		if line := fmt.Sprintf("%s needs %s, which the kernel on %s neither has nor can load", m.Target, m.FSType, v.To.Node); m.Root == "" &&
			len(v.To.Facts.Filesystems) > 0 && !slices.Contains(v.To.Facts.Filesystems, m.FSType) && !slices.Contains(unknown, line) {
			unknown = append(unknown, line)
		}
	}
	c.judge(proto.CheckFSKernel, v.To.Node, unknown, "")
}

// fstab warns of entries for the stack that would be mounted at boot, or that differ between the nodes.
func (c *checker) fstab(v View) {
	st := v.From.Resource.Stack
	if len(st.Mounts) == 0 {
		return
	}
	sources := map[string]bool{v.From.Resource.Device: true, v.To.Resource.Device: true}
	targets := map[string]bool{}
	for _, m := range st.Mounts {
		targets[m.Target] = true
		if m.Root == "" {
			sources[m.Source] = true
		}
	}
	for _, vg := range st.VGs {
		for _, lv := range vg.LVs {
			sources[lv.Path] = lv.Path != ""
			sources["/dev/mapper/"+strings.ReplaceAll(vg.Name, "-", "--")+"-"+strings.ReplaceAll(lv.Name, "-", "--")] = true
		}
	}
	var warn []string
	seen := map[string][2]*proto.FstabEntry{}
	for i, o := range []proto.Observation{v.From, v.To} {
		for _, e := range o.Facts.Fstab {
			if !sources[e.Source] && !targets[e.Target] {
				continue
			}
			who := o.Node
			if e.Unit != "" {
				who += " (" + e.Unit + ")"
			}
			switch opts := strings.Split(e.Options, ","); {
			case slices.Contains(opts, "x-systemd.automount"), slices.Contains(opts, "comment=systemd.automount"):
				warn = append(warn, fmt.Sprintf("%s would mount %s at %s by itself as soon as anything looks there (x-systemd.automount)", who, e.Source, e.Target))
			case !slices.Contains(opts, "noauto"):
				warn = append(warn, fmt.Sprintf("%s would mount %s at %s by itself at boot", who, e.Source, e.Target))
			}
			both := seen[e.Target]
			both[i] = &e
			seen[e.Target] = both
		}
	}
	for _, target := range sortedKeys(seen) {
		a, b := seen[target][0], seen[target][1]
		switch {
		case b == nil:
			warn = append(warn, fmt.Sprintf("%s is in fstab of %s only", target, v.From.Node))
		case a == nil:
			warn = append(warn, fmt.Sprintf("%s is in fstab of %s only", target, v.To.Node))
		case *a != *b:
			warn = append(warn, fmt.Sprintf("%s differs: %s has %s %s %s, %s has %s %s %s", target,
				v.From.Node, a.Source, a.FSType, a.Options, v.To.Node, b.Source, b.FSType, b.Options))
		}
	}
	if len(warn) > 0 {
		c.add(proto.CheckFstab, "", proto.CheckWarn, warn...)
	} else {
		c.add(proto.CheckFstab, "", proto.CheckOK, fmt.Sprintf("%d entries concern the stack", len(seen)))
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// thinTools compares the version of thin_check where the stack has a thin pool. A missing one is TOOLS.
func (c *checker) thinTools(v View) {
	if !hasThin(v.From.Resource.Stack) {
		return
	}
	a, b := v.From.Facts.ThinTools, v.To.Facts.ThinTools
	if a != b {
		c.add(proto.CheckThinTools, "", proto.CheckWarn, fmt.Sprintf("thin_check is %q on %s and %q on %s", a, v.From.Node, b, v.To.Node))
		return
	}
	c.add(proto.CheckThinTools, "", proto.CheckOK, a)
}

func hasThin(st proto.Stack) bool {
	return slices.ContainsFunc(st.VGs, func(vg proto.VG) bool {
		return slices.ContainsFunc(vg.LVs, func(lv proto.LV) bool { return attr(lv, 0) == 't' })
	})
}
