package agent

import (
	"context"
	"fmt"
	"strings"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// doctor diagnoses, and with in.Fix repairs, how LVM on this node selects its devices.
func (a *Agent) doctor(ctx context.Context, _ session.Peer, in proto.DoctorRequest) (proto.DoctorReply, error) {
	r, err := a.resource(in.Resource)
	if err != nil {
		return proto.DoctorReply{}, err
	}
	if in.Fix {
		if in.Confirm != a.pair {
			return proto.DoctorReply{}, a.cfg.errorf(proto.CodeNotConfirmed, "writing LVM's configuration is not confirmed").
				WithRemedy("type the pair's name: --confirm %s", a.pair)
		}
		if err := a.unlocked(); err != nil {
			return proto.DoctorReply{}, err
		}
	}
	reply, err := a.diagnose(ctx, r)
	if err != nil || len(reply.LVM.Backing) == 0 {
		return reply, err
	}
	fix, err := a.ops.HideBacking(ctx, r.conf.diskPath, !in.Fix)
	if err != nil {
		return reply, err
	}
	if fix.Done {
		a.hub.event(proto.LevelInfo, r.name, "", fmt.Sprintf("%s hidden from LVM in %s by %s", r.conf.diskPath, fix.File, in.By))
		r.forget()
		if reply, err = a.diagnose(ctx, r); err != nil {
			return reply, err
		}
		if hint := a.ops.InitramfsHint(); hint != "" {
			reply.Hint = "the initramfs has its own copy of LVM's configuration: " + hint
		}
	}
	reply.Fix = &fix
	return reply, nil
}

// diagnose words what is found. Healthy means that LVM leaves the backing disk alone and nothing else carries the same
// physical volume.
func (a *Agent) diagnose(ctx context.Context, r *resource) (proto.DoctorReply, error) {
	st := r.eng.Status()
	d := proto.DoctorReply{Schema: proto.Schema, Node: a.cfg.Node, Resource: r.name, Disk: r.conf.diskPath, Device: r.conf.device, Layout: proto.LayoutNone}
	var err error
	if d.LVM, err = a.ops.LVMView(ctx, r.conf.diskPath, st.Node); err != nil {
		return d, err
	}
	say := func(format string, args ...any) { d.Findings = append(d.Findings, fmt.Sprintf(format, args...)) }
	d.Findings = append(d.Findings, r.conf.withheld()...)
	if !d.LVM.Installed {
		d.Healthy = true
		say("LVM is not installed")
		return d, nil
	}
	pv := false // a physical volume on the replicated device: the Primary sees it there, a Secondary on the disk
	where := r.conf.diskPath
	if st.Node != "" {
		where = st.Node
	}
	if kind, err := a.ops.Holds(ctx, where); err == nil {
		pv = kind == "LVM2_member"
	}
	below := a.ops.OnLV(r.conf.diskPath)
	switch {
	case pv && below:
		d.Layout = proto.LayoutBoth
	case pv:
		d.Layout = proto.LayoutAbove
	case below:
		d.Layout = proto.LayoutBelow
	}
	switch d.LVM.Mechanism {
	case proto.SelectDevicesFile:
		say("the devices file %s selects devices; filter and global_filter are ignored", d.LVM.DevicesFile)
	case proto.SelectFilter:
		say("filter = %s, global_filter = %s select devices; no devices file is in force", orUnset(d.LVM.Filter), orUnset(d.LVM.GlobalFilter))
	default:
		say("LVM looks at every device: no devices file, no filter")
	}
	if lvmops.Selects(d.LVM.Filter) && !lvmops.Selects(d.LVM.GlobalFilter) && d.LVM.Mechanism == proto.SelectFilter {
		say("only filter is set: what runs lvm with a --config of its own is not bound by it; global_filter is the one for the whole system")
	}
	if d.LVM.SearchDevnames != "" && d.LVM.SearchDevnames != "none" && d.LVM.Mechanism == proto.SelectDevicesFile && pv {
		say("search_for_devnames is %q: while the replicated device is not there, LVM may look for its physical volume outside the devices file, "+
			"and find it on the backing disk; set devices/search_for_devnames to \"none\"", d.LVM.SearchDevnames)
	}
	if len(d.LVM.Backing) > 0 {
		say("LVM sees the backing disk as %s", strings.Join(d.LVM.Backing, ", "))
	} else {
		say("LVM does not look at the backing disk %s", r.conf.diskPath)
	}
	if pv && st.Node != "" && !d.LVM.Device {
		say("LVM does not look at the replicated device %s either: a filter meant for the opposite layout; santui names the device and is not affected, plain vgs shows nothing", r.conf.device)
	}
	if below && d.LVM.ScanLVs {
		say("scan_lvs is on: LVM looks for physical volumes inside logical volumes, and finds the replicated one twice")
	}
	for _, x := range d.LVM.Duplicates {
		say("%s", x)
	}
	d.Healthy = len(d.LVM.Backing) == 0 && len(d.LVM.Duplicates) == 0
	return d, nil
}

func orUnset(s string) string {
	if s == "" {
		return "(unset)"
	}
	return s
}
