package drbdconf

import (
	"slices"
	"strings"
)

// order finds out which resources are resynced before which: by resync-after, and by DRBD 0.7's group, of which the lower
// ones go first. What names no resource, or comes after itself, is a mistake (ERR_RESYNC_AFTER and
// ERR_RESYNC_AFTER_CYCLE, linux/drbd.h).
func (p *parser) order() {
	after := key{"disk", "resync-after"}
	for _, r := range p.conf.Resources {
		for _, o := range p.conf.Resources {
			if o.group < r.group {
				r.ResyncAfter = append(r.ResyncAfter, o.Name)
			}
		}
		v, isSet := r.set[after]
		if !isSet {
			continue
		}
		name, volume, hasVolume := strings.Cut(v.text(), "/")
		known := make([]string, len(p.conf.Resources))
		for i, o := range p.conf.Resources {
			known[i] = o.Name
		}
		switch {
		case !slices.Contains(known, name):
			p.errorf(v.pos, "it names a resource: "+oneOf(known), "resource %s is to be resynced after %q, which is not configured", r.Name, name)
		case hasVolume && volume != "0":
			p.errorf(v.pos, "a resource has one volume, 0", "resource %s is to be resynced after volume %s of %s", r.Name, volume, name)
		case !slices.Contains(r.ResyncAfter, name):
			r.ResyncAfter = append(r.ResyncAfter, name)
		}
	}
	seen := map[*Resource]bool{}
	for _, r := range p.conf.Resources {
		if loop := p.loop(r, seen); loop != nil {
			p.errorf(loop[0].set[after].pos, "", "resource %s would be resynced after itself: %s", loop[0].Name, chain(loop))
			return
		}
	}
}

// loop follows what goes before r until it comes back to where it was, and gives the way round. seen is false for a
// resource on the way, true for one from which no loop is left to find.
func (p *parser) loop(r *Resource, seen map[*Resource]bool) []*Resource {
	if done, known := seen[r]; known {
		if done {
			return nil
		}
		return []*Resource{r}
	}
	seen[r] = false
	for _, name := range r.ResyncAfter {
		i := slices.IndexFunc(p.conf.Resources, func(o *Resource) bool { return o.Name == name })
		if i < 0 {
			continue // noted above
		}
		if way := p.loop(p.conf.Resources[i], seen); way != nil {
			if len(way) > 1 && way[0] == way[len(way)-1] {
				return way
			}
			return append(way, r)
		}
	}
	seen[r] = true
	return nil
}

// chain words a way round: it was found from its end.
func chain(way []*Resource) string {
	names := make([]string, len(way))
	for i, r := range way {
		names[len(way)-1-i] = r.Name
	}
	return strings.Join(names, " after ")
}
