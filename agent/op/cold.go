package op

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/santui/proto"
)

// A failover while no node is Primary, as after both have booted, brings the service up. What that is nobody can see: it is
// what an agent remembers, and if none remembers anything, nothing.

// cold says whether both nodes are Secondary.
func (v View) cold() bool {
	return v.FromErr == nil && v.From.Resource.Role == proto.Secondary && v.To.Resource.Role == proto.Secondary
}

// memory is what is known of a service that is nowhere up. The zero value is nothing.
type memory struct {
	stack  proto.Stack
	device string // in terms of the mounts' sources
	source string // who knows it, in words; "" if nobody knows anything
	at     time.Time
}

// service is what a memory says is to be brought up. Units, scripts and exports of which nobody knows on what they stood would
// do harm.
func (m memory) service(v View) moving {
	beside := v.beside()
	if m.source == "" && !v.continues() {
		beside = proto.Service{}
	}
	return serviceOf(m.stack, m.device, beside)
}

// remembered is the newest that the agents and this node's journal know: what each node had in its own last turn as Primary,
// what this node saw of the other one if that has forgotten, what the last operation brought up. Only where nobody has ever seen
// anything, fstab counts, for what names the replicated device itself.
func (v View) remembered() memory {
	var best memory
	take := func(m memory) {
		if m.source != "" && m.at.After(best.at) {
			best = m
		}
	}
	for _, o := range []proto.Observation{v.From, v.To} {
		if k := o.Memory; k != nil && !k.At.IsZero() {
			take(memory{k.Stack, k.Device, fmt.Sprintf("what %s had as Primary, by its own agent's memory of %s", o.Node, stamp(k.At)), k.At})
		}
	}
	if k := v.Known; !k.PeerAt.IsZero() && (v.From.Memory == nil || v.From.Memory.At.IsZero()) {
		take(memory{k.Peer, k.PeerDevice, fmt.Sprintf("what %s saw on %s at %s", v.To.Node, v.From.Node, stamp(k.PeerAt)), k.PeerAt})
	}
	take(v.brought())
	if best.source == "" {
		best = v.listed()
	}
	return best
}

// brought is what the last operation had brought up when it ended.
func (v View) brought() memory {
	o := v.Moved
	if o == nil {
		return memory{}
	}
	m := memory{at: o.Ended, device: v.To.Resource.Device, source: fmt.Sprintf("what operation %s brought up on %s at %s", o.ID, o.Plan.To, stamp(o.Ended))}
	if o.Plan.To == v.From.Node {
		m.device = v.From.Resource.Device
	}
	for _, s := range o.Steps {
		if s.Step.Node != o.Plan.To || s.Result.State != proto.StepDone && s.Result.State != proto.StepAlready {
			continue
		}
		switch {
		case s.Step.Kind == proto.StepActivate:
			m.stack.VGs = append(m.stack.VGs, proto.VG{Name: s.Step.VG, LVs: []proto.LV{{Active: true}}})
		case s.Step.Kind == proto.StepMount && s.Step.Mount != nil:
			m.stack.Mounts = append(m.stack.Mounts, *s.Step.Mount)
		}
	}
	return m
}

// listed is what fstab of the target has for the replicated device itself.
func (v View) listed() memory {
	m := memory{device: v.To.Resource.Device}
	if v.To.Facts == nil {
		return m
	}
	for _, e := range v.To.Facts.Fstab {
		if e.Source != m.device || !strings.HasPrefix(e.Target, "/") {
			continue
		}
		m.source = fmt.Sprintf("fstab of %s, which names %s", v.To.Node, m.device)
		m.stack.Mounts = append(m.stack.Mounts, proto.Mount{Source: e.Source, Target: e.Target, FSType: strings.TrimPrefix(e.FSType, "auto"), Options: mountOptions(e.Options)})
	}
	return m
}

// mountOptions are those of fstab that mount(8) passes on to the file system.
func mountOptions(fstab string) string {
	opts := slices.DeleteFunc(strings.Split(fstab, ","), func(o string) bool {
		switch o {
		case "", "defaults", "auto", "noauto", "nofail", "user", "nouser", "users", "owner", "group", "_netdev":
			return true
		}
		return strings.HasPrefix(o, "x-") || strings.HasPrefix(o, "comment=")
	})
	return strings.Join(opts, ",")
}

// cold judges what only matters while no node is Primary: where the service was last, what it was, and what it left there.
func (c *checker) cold(v View) {
	turn := func(o proto.Observation) (time.Time, string) {
		k := o.Memory
		if k == nil || k.Primary.IsZero() {
			return time.Time{}, ""
		}
		text := fmt.Sprintf("%s was Primary last, since %s", o.Node, stamp(k.Primary))
		if !k.Until.IsZero() {
			text += ", at least until " + stamp(k.Until)
		}
		return k.Primary, text
	}
	from, fromText := turn(v.From)
	to, toText := turn(v.To)
	switch {
	case from.IsZero() && to.IsZero():
		c.add(proto.CheckLastRole, "", proto.CheckWarn, "neither agent remembers that its node was Primary")
	case from.After(to):
		c.add(proto.CheckLastRole, v.To.Node, proto.CheckWarn, fromText+fmt.Sprintf("; its disk is %s, %s's is %s", v.From.Resource.DiskState, v.To.Node, v.To.Resource.DiskState))
	default:
		c.add(proto.CheckLastRole, v.To.Node, proto.CheckOK, toText)
	}
	if m := v.remembered(); m.source == "" {
		evidence := []string{"neither agent has seen what was on " + v.To.Resource.Device + ": " + v.To.Node + " only becomes Primary"}
		if v.To.Facts != nil {
			for _, e := range v.To.Facts.Fstab {
				evidence = append(evidence, fmt.Sprintf("fstab of %s has %s at %s; whether that is on %s cannot be known before it is Primary", v.To.Node, e.Source, e.Target, v.To.Resource.Device))
			}
		}
		c.add(proto.CheckLastStack, v.To.Node, proto.CheckWarn, evidence[:min(len(evidence), 10)]...)
	} else {
		c.add(proto.CheckLastStack, v.To.Node, proto.CheckOK, describe(m.stack)+": "+m.source)
	}
	c.leftovers(v)
}

// awakening words what a plan does while no node is Primary.
func awakening(p proto.Plan, s moving, m memory) []string {
	out := []string{fmt.Sprintf("No node is Primary now. %s becomes Primary, %s stays Secondary. No data is copied or removed.", p.To, p.From)}
	switch {
	case m.source == "" && s.empty():
		out = append(out, "What was mounted is not known to either agent: nothing is activated, mounted or started by guess.")
	case m.source == "":
		out = append(out, "What is brought up is what the operation left half way was about.")
	case s.empty():
		out = append(out, "Nothing is activated or mounted: that is "+m.source+".")
	default:
		out = append(out, strings.Join(append(slices.Clone(s.vgs), targets(s.mounts)...), ", ")+" come up: "+m.source+".")
	}
	return append(out, "If a step fails the operation stops there and offers retry, undo or keep.")
}
