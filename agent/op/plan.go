package op

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// Time limits of the steps that are done inside the agents, seconds. The others are lvmops's.
const (
	limitRole   = 30
	limitAttest = 5
)

// MakePlan lists the steps that move the resource and all that sits on it from v.From to v.To. It is pure: the same view
// gives the same plan. An unfinished operation in the same direction contributes the mounts and groups that it had
// already taken down, so that repeating a failover completes it.
func MakePlan(pair string, v View, now time.Time) proto.Plan {
	p := proto.Plan{
		Schema: proto.Schema, Verb: proto.VerbFailover, Pair: pair, Resource: v.To.Resource.Name,
		From: v.From.Node, To: v.To.Node, At: now,
	}
	vgs, mounts := moved(v)
	b := builder{plan: &p}
	primary := v.From.Resource.Role == proto.Primary
	if primary {
		for _, m := range slices.Backward(v.From.Resource.Stack.Mounts) {
			b.unmount(m)
		}
		for _, vg := range v.From.Resource.Stack.VGs {
			if slices.ContainsFunc(vg.LVs, func(lv proto.LV) bool { return lv.Active }) {
				b.deactivate(vg.Name, v.From.Resource.Device)
			}
		}
		b.demote()
	}
	b.attest()
	b.promote(v.To.Resource.Device)
	for _, vg := range vgs {
		b.activate(vg, v.To.Resource.Device)
	}
	for _, m := range mounts {
		if m.Source == v.From.Resource.Device { // the nodes may know the device by different paths
			m.Source = v.To.Resource.Device
		}
		b.mount(m)
	}
	p.Effect = effect(p, mounts)
	return p
}

// moved says which volume groups and mounts shall be up on the target afterwards, in the order in which to bring them up.
func moved(v View) (vgs []string, mounts []proto.Mount) {
	for _, vg := range v.From.Resource.Stack.VGs {
		if slices.ContainsFunc(vg.LVs, func(lv proto.LV) bool { return lv.Active }) {
			vgs = append(vgs, vg.Name)
		}
	}
	mounts = slices.Clone(v.From.Resource.Stack.Mounts)
	if v.continues() {
		for _, s := range v.Unfinished.Plan.Steps {
			switch {
			case s.Kind == proto.StepActivate && !slices.Contains(vgs, s.VG):
				vgs = append(vgs, s.VG)
			case s.Kind == proto.StepMount && s.Mount != nil &&
				!slices.ContainsFunc(mounts, func(m proto.Mount) bool { return m.Target == s.Mount.Target }):
				mounts = append(mounts, *s.Mount)
			}
		}
	}
	return vgs, mounts
}

// Targets lists the mount points that the plan for this view would use on the target.
func Targets(v View) []string {
	_, mounts := moved(v)
	out := make([]string, len(mounts))
	for i, m := range mounts {
		out[i] = m.Target
	}
	return out
}

type builder struct{ plan *proto.Plan }

func (b builder) add(s proto.Step) {
	s.Index, s.Resource = len(b.plan.Steps)+1, b.plan.Resource
	b.plan.Steps = append(b.plan.Steps, s)
}

func (b builder) unmount(m proto.Mount) {
	m = steady(m)
	b.add(proto.Step{Kind: proto.StepUnmount, Node: b.plan.From, Argv: lvmops.UnmountArgv(m.Target), Limit: lvmops.LimitUnmount.Seconds(), Mount: &m,
		Undo: lvmops.MountArgv(m), UndoKind: proto.StepMount, Why: "nothing may write while the roles change"})
}

func (b builder) deactivate(vg, device string) {
	b.add(proto.Step{Kind: proto.StepDeactivate, Node: b.plan.From, Argv: lvmops.DeactivateArgv(vg, device), Limit: lvmops.LimitDeactivate.Seconds(), VG: vg,
		Undo: lvmops.ActivateArgv(vg, device), UndoKind: proto.StepActivate, Why: "the device cannot be demoted while LVM holds it"})
}

func (b builder) demote() {
	r := b.plan.Resource
	b.add(proto.Step{Kind: proto.StepDemote, Node: b.plan.From, Argv: []string{"drbdadm", "secondary", r}, Internal: true, Limit: limitRole,
		Undo: []string{"drbdadm", "primary", r}, UndoKind: proto.StepPromote, Why: "only one node may be Primary"})
}

func (b builder) attest() {
	b.add(proto.Step{Kind: proto.StepAttest, Node: b.plan.From, Argv: []string{"drbdadm", "role", b.plan.Resource}, Internal: true, Limit: limitAttest,
		Why: b.plan.From + " must say, freshly, that it is Secondary; otherwise nothing is promoted"})
}

func (b builder) promote(device string) {
	r := b.plan.Resource
	b.add(proto.Step{Kind: proto.StepPromote, Node: b.plan.To, Argv: []string{"drbdadm", "primary", r}, Internal: true, Limit: limitRole,
		Undo: []string{"drbdadm", "secondary", r}, UndoKind: proto.StepDemote, Why: device + " appears on " + b.plan.To})
}

func (b builder) activate(vg, device string) {
	b.add(proto.Step{Kind: proto.StepActivate, Node: b.plan.To, Argv: lvmops.ActivateArgv(vg, device), Limit: lvmops.LimitActivate.Seconds(), VG: vg,
		Undo: lvmops.DeactivateArgv(vg, device), UndoKind: proto.StepDeactivate, Why: "the logical volumes appear"})
}

func (b builder) mount(m proto.Mount) {
	m = steady(m)
	b.add(proto.Step{Kind: proto.StepMount, Node: b.plan.To, Argv: lvmops.MountArgv(m), Limit: lvmops.LimitMount.Seconds(), Mount: &m,
		Undo: lvmops.UnmountArgv(m.Target), UndoKind: proto.StepUnmount, Why: "the service is back"})
}

// steady strips what changes from look to look, so that a plan's hash changes only when the plan does.
func steady(m proto.Mount) proto.Mount {
	m.Size, m.Used, m.Major, m.Minor, m.NS = 0, 0, 0, 0, nil
	return m
}

func effect(p proto.Plan, mounts []proto.Mount) []string {
	var out []string
	if len(mounts) > 0 {
		targets := make([]string, len(mounts))
		for i, m := range mounts {
			targets[i] = m.Target
		}
		first, last := 1, len(p.Steps)
		out = append(out, fmt.Sprintf("%s is away from step %d to step %d.", strings.Join(targets, ", "), first, last))
	}
	return append(out,
		fmt.Sprintf("%s becomes Primary, %s becomes Secondary. No data is copied or removed.", p.To, p.From),
		"If a step fails the operation stops there and offers retry, undo or keep.")
}
