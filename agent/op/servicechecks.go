package op

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"example.com/santui/proto"
)

// exported says whether an NFS user of the stack is an export that agent.toml names. The kernel may list several clients
// of a directory as one, with commas between (nfs-utils utils/mountd/auth.c).
func exported(named []proto.Export, u proto.User) bool {
	clients, _, _ := strings.Cut(u.Name, "(")
	for client := range strings.SplitSeq(clients, ",") {
		if !slices.ContainsFunc(named, func(e proto.Export) bool { return e.Path == u.Path && e.Client == client }) {
			return false
		}
	}
	return true
}

// service judges what agent.toml adds to the resource. A takeover has nothing to ask the other node.
func (c *checker) service(v View) {
	to, from := v.To.Service, v.From.Service
	if to == nil && from == nil {
		return
	}
	if v.FromErr == nil {
		c.drift(v)
	}
	if to == nil {
		return // the drift blocks; nothing is known that could be judged
	}
	nodes := []proto.Observation{v.To}
	if v.FromErr == nil && from != nil {
		nodes = []proto.Observation{v.From, v.To}
	}
	c.units(v, nodes)
	c.scripts(nodes)
	c.addresses(v, nodes)
	c.exports(v)
	c.keep(v)
}

// drift lists in what the two nodes' sections differ.
func (c *checker) drift(v View) {
	var a, b proto.Service
	if v.From.Service != nil {
		a = v.From.Service.Config
	}
	if v.To.Service != nil {
		b = v.To.Service.Config
	}
	var bad []string
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		if f, g := x.Field(i), y.Field(i); (f.Len() > 0 || g.Len() > 0) && !reflect.DeepEqual(f.Interface(), g.Interface()) {
			bad = append(bad, fmt.Sprintf("%s: %s has %v, %s has %v", strings.ToLower(x.Type().Field(i).Name), v.From.Node, f, v.To.Node, g))
		}
	}
	c.judge(proto.CheckDrift, "", bad, "")
}

// unknown adds a code whose condition a node could not look at, and says whether it did.
func (c *checker) unknown(code string, o proto.Observation, want, got int) bool {
	if got >= want {
		return false
	}
	evidence := []string{fmt.Sprintf("%s tells of %d, %d are configured", o.Node, got, want)}
	for _, e := range o.Service.Errs {
		evidence = append(evidence, o.Node+": "+e)
	}
	if len(evidence) > 1 {
		evidence = evidence[1:]
	}
	c.add(code, o.Node, proto.CheckUnknown, evidence...)
	return true
}

func (c *checker) units(v View, nodes []proto.Observation) {
	if len(c.beside.Units) == 0 {
		return
	}
	var bad, warn []string
	for _, o := range nodes {
		if c.unknown(proto.CheckUnits, o, len(c.beside.Units), len(o.Service.Units)) {
			return
		}
		for _, u := range o.Service.Units {
			runs := u.Active != "inactive" && u.Active != "failed"
			primary := o.Resource.Role == proto.Primary
			switch {
			case u.Load != "loaded":
				bad = append(bad, fmt.Sprintf("%s is %s on %s", u.Name, u.Load, o.Node))
			case runs && !primary:
				bad = append(bad, fmt.Sprintf("%s is %s on %s, where the service is not", u.Name, u.Active, o.Node))
			case !runs && primary && !v.continues():
				warn = append(warn, fmt.Sprintf("%s is %s on %s; it is started all the same after the move", u.Name, u.Active, o.Node))
			}
			if u.File == "enabled" {
				warn = append(warn, fmt.Sprintf("%s is enabled on %s: it starts at boot, with or without its mounts", u.Name, o.Node))
			}
		}
	}
	c.grade(proto.CheckUnits, "", bad, warn, strings.Join(c.beside.Units, ", "))
}

func (c *checker) scripts(nodes []proto.Observation) {
	if len(c.beside.Scripts) == 0 {
		return
	}
	var bad []string
	for _, o := range nodes {
		for _, why := range o.Service.Scripts {
			bad = append(bad, o.Node+": "+why)
		}
	}
	c.judge(proto.CheckScripts, "", bad, fmt.Sprint(len(c.beside.Scripts)))
}

func (c *checker) addresses(v View, nodes []proto.Observation) {
	if len(c.beside.Address) == 0 {
		return
	}
	var bad, warn []string
	for _, o := range nodes {
		if c.unknown(proto.CheckAddress, o, len(c.beside.Address), len(o.Service.Addresses)) {
			return
		}
		for _, a := range o.Service.Addresses {
			primary := o.Resource.Role == proto.Primary
			switch {
			case a.Problem != "":
				bad = append(bad, fmt.Sprintf("%s: %s on %s", a.Address.Address, a.Problem, o.Node))
			case a.Held != "" && !primary:
				bad = append(bad, fmt.Sprintf("%s is on %s (%s), where the service is not", a.Address.Address, o.Node, a.Held))
			case a.Held != "" && a.Held != a.Interface:
				bad = append(bad, fmt.Sprintf("%s is on %s of %s, not on %s", a.Address.Address, a.Held, o.Node, a.Interface))
			case a.Held == "" && primary && !v.continues():
				warn = append(warn, fmt.Sprintf("%s is not on %s; it is added all the same after the move", a.Address.Address, o.Node))
			}
		}
	}
	c.grade(proto.CheckAddress, "", bad, warn, "")
}

func (c *checker) exports(v View) {
	if len(c.beside.Exports) == 0 {
		return
	}
	var bad, warn []string
	if to := v.To.Service; to.NFS != "" {
		bad = append(bad, v.To.Node+": "+to.NFS)
	} else if to.Unserved {
		warn = append(warn, "the NFS server does not run on "+v.To.Node+": the exports are noted down, and nobody serves them")
	}
	if v.FromErr == nil && v.From.Service != nil && v.From.Resource.Role == proto.Primary {
		warn = append(warn, otherOptions(v.From.Node, c.beside.Exports, v.From.Service.Exports)...)
	}
	c.grade(proto.CheckExports, v.To.Node, bad, warn, fmt.Sprint(len(c.beside.Exports)))
}

// otherOptions lists the exports that are not there as agent.toml says, so that the move changes them.
func otherOptions(node string, want, have []proto.Export) []string {
	var out []string
	for _, e := range want {
		i := slices.IndexFunc(have, func(h proto.Export) bool { return h.Path == e.Path && h.Client == e.Client })
		if i < 0 {
			out = append(out, fmt.Sprintf("%s is not exported to %s on %s; it is made all the same after the move", e.Path, e.Client, node))
			continue
		}
		effective := strings.Split(have[i].Options, ",")
		for o := range strings.SplitSeq(e.Options, ",") {
			if !slices.Contains(effective, o) {
				out = append(out, fmt.Sprintf("%s is exported to %s on %s without %q, which agent.toml says", e.Path, e.Client, node, o))
			}
		}
	}
	return out
}

// keep refuses mounts to keep that are on the device.
func (c *checker) keep(v View) {
	if len(c.beside.Keep) == 0 {
		return
	}
	var bad []string
	for _, m := range v.From.Resource.Stack.Mounts {
		if slices.Contains(c.beside.Keep, m.Target) {
			bad = append(bad, fmt.Sprintf("%s is %s, on the replicated device of %s", m.Target, m.Source, v.From.Node))
		}
	}
	c.judge(proto.CheckKeep, v.From.Node, bad, strings.Join(c.beside.Keep, ", "))
}
