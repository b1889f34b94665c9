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
	limitRole     = 30
	limitAttest   = 5
	limitSentinel = 60
	limitConnect  = 15
	limitResync   = 60
)

// usualLimit is the limit of the steps whose programs have one, as set or lvmops' own, 0 for the others.
func usualLimit(kind proto.StepKind, set map[proto.StepKind]float64) float64 {
	if l := set[kind]; l > 0 {
		return l
	}
	switch kind {
	case proto.StepUnmount:
		return lvmops.LimitUnmount.Seconds()
	case proto.StepDeactivate:
		return lvmops.LimitDeactivate.Seconds()
	case proto.StepActivate:
		return lvmops.LimitActivate.Seconds()
	case proto.StepMount:
		return lvmops.LimitMount.Seconds()
	default:
		return 0
	}
}

// MakePlan lists the steps of a verb for this view. It is pure: the same view gives the same plan. An unfinished
// operation between the same nodes contributes the mounts and groups that it had already taken down, so that repeating
// a failover completes it.
func MakePlan(verb proto.Verb, pair string, v View, now time.Time) proto.Plan {
	p := proto.Plan{
		Schema: proto.Schema, Verb: verb, Pair: pair, Resource: v.To.Resource.Name,
		From: v.From.Node, To: v.To.Node, At: now,
	}
	b := builder{plan: &p, limits: v.Limits}
	switch verb {
	case proto.VerbDrill:
		b.drill(v)
	case proto.VerbTakeover:
		b.takeover(v)
	case proto.VerbRejoin:
		b.rejoin()
	case proto.VerbResolve:
		b.resolve(v)
	default:
		b.failover(v)
	}
	return p
}

// moving is what has to move: volume groups and mounts in the order in which to bring them up.
type moving struct {
	vgs    []string
	mounts []proto.Mount
	device string // the replicated device, in terms of the mounts' sources
	beside proto.Service
}

// serviceOf reads the service off a stack and adds what agent.toml says.
func serviceOf(st proto.Stack, device string, beside proto.Service) moving {
	s := moving{mounts: slices.Clone(st.Mounts), device: device, beside: beside}
	for _, vg := range st.VGs {
		if slices.ContainsFunc(vg.LVs, func(lv proto.LV) bool { return lv.Active }) {
			s.vgs = append(s.vgs, vg.Name)
		}
	}
	return s
}

// also adds what an unfinished operation had planned to bring up.
func (s *moving) also(o *proto.Op) {
	for _, st := range o.Plan.Steps {
		switch {
		case st.Kind == proto.StepActivate && !slices.Contains(s.vgs, st.VG):
			s.vgs = append(s.vgs, st.VG)
		case st.Kind == proto.StepMount && st.Mount != nil &&
			!slices.ContainsFunc(s.mounts, func(m proto.Mount) bool { return m.Target == st.Mount.Target }):
			s.mounts = append(s.mounts, *st.Mount)
		}
	}
}

func (s *moving) empty() bool { return len(s.vgs) == 0 && len(s.mounts) == 0 }

// moved says which volume groups and mounts shall be up on the target afterwards.
func moved(verb proto.Verb, v View) moving {
	s := serviceOf(v.From.Resource.Stack, v.From.Resource.Device, v.beside())
	switch verb {
	case proto.VerbResolve, proto.VerbRejoin:
		return moving{}
	case proto.VerbTakeover:
		s = serviceOf(v.Known.Peer, v.Known.PeerDevice, v.beside())
	case proto.VerbFailover:
		if v.cold() {
			s = v.remembered().service(v)
		}
	default:
	}
	if v.continues() {
		s.also(v.Unfinished)
	}
	return s
}

// Targets lists the mount points that the plan for this view would use on the target.
func Targets(verb proto.Verb, v View) []string {
	return targets(moved(verb, v).mounts)
}

func targets(mounts []proto.Mount) []string {
	out := make([]string, len(mounts))
	for i, m := range mounts {
		out[i] = m.Target
	}
	return out
}

// groups lists the uuids of the volume groups that the plan for this view would activate on the target.
func groups(verb proto.Verb, v View) []string {
	st := v.From.Resource.Stack
	switch {
	case verb == proto.VerbTakeover:
		st = v.Known.Peer
	case verb == proto.VerbFailover && v.cold():
		st = v.remembered().stack
	}
	return uuids(st)
}

func uuids(st proto.Stack) []string {
	var out []string
	for _, vg := range st.VGs {
		out = append(out, vg.UUID)
	}
	return out
}

type builder struct {
	plan   *proto.Plan
	skip   string // for every step added from now on
	limits map[proto.StepKind]float64
}

func (b *builder) failover(v View) {
	from, to := v.From, v.To
	s := moved(proto.VerbFailover, v)
	if from.Resource.Role == proto.Primary {
		b.down(from.Node, serviceOf(from.Resource.Stack, from.Resource.Device, v.beside()))
	}
	b.attest(from.Node, to.Node)
	b.up(to, s)
	if v.cold() {
		b.plan.Effect = awakening(*b.plan, s, v.remembered())
		return
	}
	b.plan.Effect = effect(*b.plan, s.mounts)
}

// down takes the service away from a node and makes it Secondary.
func (b *builder) down(node string, s moving) {
	b.leave(node, s.beside)
	for _, m := range slices.Backward(s.mounts) {
		b.unmount(node, m)
	}
	for _, vg := range s.vgs {
		b.deactivate(node, vg, s.device)
	}
	b.demote(node)
}

// up makes a node Primary and brings the service up on it.
func (b *builder) up(on proto.Observation, s moving) {
	device := on.Resource.Device
	b.promote(on.Node, device)
	for _, vg := range s.vgs {
		b.activate(on.Node, vg, device)
	}
	for _, m := range s.mountsOn(device) {
		b.mount(on.Node, m)
	}
	b.arrive(on.Node, s.beside)
}

// mountsOn translates the sources: the nodes may know the device by different paths.
func (s moving) mountsOn(device string) []proto.Mount {
	out := slices.Clone(s.mounts)
	for i := range out {
		if out[i].Source == s.device {
			out[i].Source = device
		}
	}
	return out
}

func (b *builder) add(s proto.Step) {
	s.Index, s.Resource, s.Skip = len(b.plan.Steps)+1, b.plan.Resource, b.skip
	if l := usualLimit(s.Kind, b.limits); l > 0 {
		s.Limit = l
	}
	b.plan.Steps = append(b.plan.Steps, s)
}

func (b *builder) unmount(node string, m proto.Mount) {
	m = steady(m)
	b.add(proto.Step{Kind: proto.StepUnmount, Node: node, Argv: lvmops.UnmountArgv(m.Target), Mount: &m,
		Undo: lvmops.MountArgv(m), UndoKind: proto.StepMount, Why: "nothing may write while the roles change"})
}

func (b *builder) deactivate(node, vg, device string) {
	b.add(proto.Step{Kind: proto.StepDeactivate, Node: node, Argv: lvmops.DeactivateArgv(vg, device), VG: vg,
		Undo: lvmops.ActivateArgv(vg, device), UndoKind: proto.StepActivate, Why: "the device cannot be demoted while LVM holds it"})
}

func (b *builder) demote(node string) {
	r := b.plan.Resource
	b.add(proto.Step{Kind: proto.StepDemote, Node: node, Argv: []string{"drbdadm", "secondary", r}, Internal: true, Limit: limitRole,
		Undo: []string{"drbdadm", "primary", r}, UndoKind: proto.StepPromote, Why: "only one node may be Primary"})
}

func (b *builder) attest(node, promoted string) {
	why := node + " must say, freshly, that it is Secondary; otherwise nothing is promoted"
	switch promoted {
	case b.plan.To:
	case "":
		why = node + " must be Secondary: a Primary's changes are not discarded under its users"
	default:
		why = node + " must be Secondary before " + promoted + " is promoted"
	}
	b.add(proto.Step{Kind: proto.StepAttest, Node: node, Argv: []string{"drbdadm", "role", b.plan.Resource}, Internal: true, Limit: limitAttest, Why: why})
}

func (b *builder) promote(node, device string) {
	r := b.plan.Resource
	b.add(proto.Step{Kind: proto.StepPromote, Node: node, Argv: []string{"drbdadm", "primary", r}, Internal: true, Limit: limitRole,
		Undo: []string{"drbdadm", "secondary", r}, UndoKind: proto.StepDemote, Why: device + " appears on " + node})
}

func (b *builder) activate(node, vg, device string) {
	b.add(proto.Step{Kind: proto.StepActivate, Node: node, Argv: lvmops.ActivateArgv(vg, device), VG: vg,
		Undo: lvmops.DeactivateArgv(vg, device), UndoKind: proto.StepDeactivate, Why: "the logical volumes appear"})
}

func (b *builder) mount(node string, m proto.Mount) {
	m = steady(m)
	b.add(proto.Step{Kind: proto.StepMount, Node: node, Argv: lvmops.MountArgv(m), Mount: &m,
		Undo: lvmops.UnmountArgv(m.Target), UndoKind: proto.StepUnmount, Why: "the service is back"})
}

// steady strips what changes from look to look, so that a plan's hash changes only when the plan does.
func steady(m proto.Mount) proto.Mount {
	m.Size, m.Used, m.Major, m.Minor, m.NS, m.Problem = 0, 0, 0, 0, nil, ""
	return m
}

func effect(p proto.Plan, mounts []proto.Mount) []string {
	var out []string
	if len(mounts) > 0 {
		first, last := 1, len(p.Steps)
		out = append(out, fmt.Sprintf("%s is away from step %d to step %d.", strings.Join(targets(mounts), ", "), first, last))
	}
	return append(out,
		fmt.Sprintf("%s becomes Primary, %s becomes Secondary. No data is copied or removed.", p.To, p.From),
		"If a step fails the operation stops there and offers retry, undo or keep.")
}
