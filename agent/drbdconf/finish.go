package drbdconf

import (
	"fmt"
	"slices"
	"strings"
)

// complete fills in what a host leaves to its resource, and says what is missing.
func (p *parser) complete(r *Resource, d *draft, h *hostDraft) {
	v := h.vol
	if !v.hasDevice {
		v.device, v.minor, v.hasDevice = d.vol.device, d.vol.minor, d.vol.hasDevice
	}
	if v.disk.pos.Line == 0 {
		v.disk = d.vol.disk
	}
	if v.metaDisk.pos.Line == 0 {
		v.metaDisk, v.metaIndex = d.vol.metaDisk, d.vol.metaIndex
	}
	h.host.Device, h.host.Minor, h.host.Disk, h.host.MetaDisk = v.device.text, v.minor, v.disk.text, v.metaDisk.text
	h.host.MetaIndex = v.metaIndex
	if r.structural {
		return
	}
	missing := func(ok bool, what, example string) {
		if !ok {
			p.errorf(h.host.Pos, "as in: "+example, "\"on %s\" in resource %s has no %s", h.host.Name, r.Name, what)
		}
	}
	missing(v.hasDevice, "device", "device /dev/drbd0;")
	missing(v.disk.pos.Line != 0, "disk", "disk /dev/md3;")
	missing(v.metaDisk.pos.Line != 0, "meta-disk", "meta-disk internal;")
	missing(h.host.Address.IsValid() || p.hasErrorAfter(h.host.Pos), "address", "address 10.0.0.1:7788;")
}

// hasErrorAfter says whether a mistake in or after the place was noted; a value may then be missing because of it.
func (p *parser) hasErrorAfter(at Pos) bool {
	return slices.ContainsFunc(p.errs, func(e *Error) bool {
		return e.File == at.File && (e.Line > at.Line || e.Line == at.Line && e.Col > at.Col)
	})
}

// finish merges common into the resources, types the options and checks the whole. Only a file whose parts are all right
// gets that far: other mistakes would follow from theirs.
func (p *parser) finish() {
	if len(p.conf.Resources) == 0 {
		p.errorf(Pos{p.files[0], 1, 1}, "as in: resource r0 { ... }", "no resource is configured")
	}
	u := unique{p: p, at: map[string]Pos{}}
	for _, r := range p.conf.Resources {
		for k, v := range p.common.set {
			if _, own := r.set[k]; !own {
				r.set[k] = v
			}
		}
		for _, f := range p.common.Unsupported {
			f.Resource = r.Name
			r.Unsupported = append(r.Unsupported, f)
		}
		r.fixRate()
		p.apply(r)
		p.checkResource(r)
		u.resource(r)
	}
	p.order()
	for _, f := range p.common.Unsupported {
		f.Resource = ""
		p.conf.Unsupported = append(p.conf.Unsupported, f)
	}
}

// apply types every option of a resource, defaults included, and notes what has no effect.
func (p *parser) apply(r *Resource) {
	for i := range options {
		o := &options[i]
		if o.section == "global" {
			continue
		}
		k := key{o.section, o.name}
		v, isSet := r.set[k]
		if !isSet {
			v = defaultValue(o)
		}
		val, problem, _ := o.check(v)
		if problem != "" && isSet { // cannot be: it was checked where it stands
			p.errorf(v.pos, "", "%s", problem)
			continue
		}
		if o.set != nil && (isSet || o.def != "") {
			o.set(r, val)
		}
		if isSet && !o.isDefault(val) {
			p.note(r, o, v, val)
		}
	}
}

// fixRate switches the controller off where the rate stands in a section syncer; see Disk.CPlanAhead.
func (r *Resource) fixRate() {
	rate, plan := key{"disk", "resync-rate"}, key{"disk", "c-plan-ahead"}
	if v := r.set[rate]; v.syncer {
		v.syncer = false
		r.set[rate] = v
		if _, isSet := r.set[plan]; !isSet {
			r.set[plan] = value{pos: v.pos, words: []string{"0"}}
		}
	}
}

func (p *parser) note(r *Resource, o *option, v value, val parsed) {
	f := Finding{Pos: v.pos, Resource: r.Name, Option: o.section + " " + o.name, Why: o.ignored}
	if o.kind != kWord || o.section != "handlers" {
		f.Option = strings.TrimSpace(f.Option + " " + v.text())
	}
	if o.refused != "" {
		f.Why, f.Refused = o.refused, true
	}
	switch {
	case o.name == "on-io-error" && val.text == "panic":
		f.Why, f.Refused = "a program in user space cannot stop the kernel; use detach, or call-local-io-error with a handler", true
	case o.name == "rr-conflict" && val.text != "call-pri-lost":
		f.Why, f.Refused = "the copy of a Primary is never overwritten; only disconnect and call-pri-lost are", true
	case o.name == "al-extents" && (val.num < minALExtents || val.num > maxALExtents):
		r.Disk.ALExtents = min(max(int(val.num), minALExtents), maxALExtents)
		f.Why = fmt.Sprintf("%d are used: an activity log of 32 KiB holds %d to %d", r.Disk.ALExtents, minALExtents, maxALExtents)
	}
	if f.Why != "" {
		r.Unsupported = append(r.Unsupported, f)
	}
}

// The bounds of al-extents with the usual activity log of 32 KiB: DRBD_AL_EXTENTS_MIN, and seven transactions of 919
// extents (drbd_limits.h).
const (
	minALExtents = 67
	maxALExtents = 6433
)

// checkResource checks what needs the whole resource.
func (p *parser) checkResource(r *Resource) {
	if alg, ok := r.set[key{"net", "cram-hmac-alg"}]; ok && r.Net.Secret.Reveal() == nil {
		p.errorf(alg.pos, `add: shared-secret "...";`, "cram-hmac-alg in resource %s needs a shared-secret", r.Name)
	}
	if s, ok := r.set[key{"net", "shared-secret"}]; ok && r.Net.CRAMAlg == "" {
		r.Unsupported = append(r.Unsupported, Finding{Pos: s.pos, Resource: r.Name, Option: "net shared-secret", Why: "without cram-hmac-alg the nodes do not authenticate"})
	}
	if f, ok := r.set[key{"disk", "fencing"}]; ok && r.Disk.Fencing != "dont-care" && r.Handlers["fence-peer"] == "" {
		r.Unsupported = append(r.Unsupported, Finding{Pos: f.pos, Resource: r.Name, Option: "disk fencing " + f.text(),
			Why: "without a handler fence-peer a lost peer is never known to be fenced"})
	}
	if r.structural {
		return
	}
	if n := len(r.Hosts); n != 2 {
		known := make([]string, n)
		for i, h := range r.Hosts {
			known[i] = h.Name
		}
		p.errorf(r.Pos, "santui replicates between exactly two nodes", "resource %s has %d sections \"on HOST\" (%s), not 2", r.Name, n, strings.Join(known, ", "))
		return
	}
	if a, b := r.Hosts[0], r.Hosts[1]; a.Address.IsValid() && b.Address.IsValid() && a.Address.Addr().Is4() != b.Address.Addr().Is4() {
		p.errorf(b.Pos, "", "%s and %s of resource %s have addresses of different families", a.Name, b.Name, r.Name)
	}
}

// unique finds what two resources, or two nodes, cannot share.
type unique struct {
	p  *parser
	at map[string]Pos
}

func (u unique) resource(r *Resource) {
	for _, h := range r.Hosts {
		if h.Address.IsValid() { // an address belongs to one node, so both nodes' count
			u.once("address\x00"+h.Address.String(), h.Pos, "address "+h.Address.String(), "")
		}
		if h.Minor >= 0 && h.Device != "" {
			u.once(fmt.Sprintf("minor\x00%s\x00%d", h.Name, h.Minor), h.Pos, fmt.Sprintf("device minor %d", h.Minor), h.Name)
		}
		if h.Disk != "" {
			u.once("disk\x00"+h.Name+"\x00"+h.Disk, h.Pos, "disk "+h.Disk, h.Name)
		}
		if h.MetaDisk != "" && h.External() {
			u.metaDisk(h)
		}
	}
}

// metaDisk: a device for metadata is nobody's disk, and shared by slots only.
func (u unique) metaDisk(h *Host) {
	id := "disk\x00" + h.Name + "\x00" + h.MetaDisk
	if h.MetaIndex == Flexible {
		u.once(id, h.Pos, "meta-disk "+h.MetaDisk, h.Name)
		return
	}
	slots := "slots\x00" + h.Name + "\x00" + h.MetaDisk
	if _, shared := u.at[slots]; !shared {
		u.once(id, h.Pos, "meta-disk "+h.MetaDisk, h.Name)
		u.at[slots] = h.Pos
	}
	u.once(fmt.Sprintf("%s\x00%d", slots, h.MetaIndex), h.Pos, fmt.Sprintf("meta-disk %s[%d]", h.MetaDisk, h.MetaIndex), h.Name)
}

func (u unique) once(id string, at Pos, what, node string) {
	first, taken := u.at[id]
	if !taken {
		u.at[id] = at
		return
	}
	if node != "" {
		what += " on " + node
	}
	u.p.errorf(at, fmt.Sprintf("the first is at %s", first), "%s is used twice", what)
}
