package proto

import (
	"reflect"
	"slices"
)

// Diff returns what turns old into new. Both must come from the same agent.
func Diff(old, cur Snapshot) Delta {
	d := Delta{Base: old.Seq, Seq: cur.Seq, At: cur.At}
	if old.PeerLink != cur.PeerLink {
		link := cur.PeerLink
		d.PeerLink = &link
	}
	for _, r := range cur.Resources {
		i := slices.IndexFunc(old.Resources, func(o Resource) bool { return o.Name == r.Name })
		if i < 0 || !reflect.DeepEqual(old.Resources[i], r) {
			d.Resources = append(d.Resources, r)
		}
	}
	for _, o := range old.Resources {
		if !slices.ContainsFunc(cur.Resources, func(r Resource) bool { return r.Name == o.Name }) {
			d.Removed = append(d.Removed, o.Name)
		}
	}
	if !reflect.DeepEqual(old.Op, cur.Op) {
		d.OpSet, d.Op = true, cur.Op
	}
	if !reflect.DeepEqual(old.Lock, cur.Lock) {
		d.LockSet, d.Lock = true, cur.Lock
	}
	if !reflect.DeepEqual(old.Readiness, cur.Readiness) {
		d.ReadySet, d.Readiness = true, cur.Readiness
	}
	var last uint64
	if n := len(old.Events); n > 0 {
		last = old.Events[n-1].Seq
	}
	for _, e := range cur.Events {
		if e.Seq > last {
			d.Events = append(d.Events, e)
		}
	}
	return d
}

// Apply returns s changed by d. It reports false, and s as it was, when d does not follow s: the caller must then ask
// for a whole snapshot.
func (s Snapshot) Apply(d Delta) (Snapshot, bool) {
	if d.Base != s.Seq {
		return s, false
	}
	s.Seq, s.At = d.Seq, d.At
	if d.PeerLink != nil {
		s.PeerLink = *d.PeerLink
	}
	s.Resources = slices.DeleteFunc(slices.Clone(s.Resources), func(r Resource) bool { return slices.Contains(d.Removed, r.Name) })
	for _, r := range d.Resources {
		if i := slices.IndexFunc(s.Resources, func(o Resource) bool { return o.Name == r.Name }); i >= 0 {
			s.Resources[i] = r
		} else {
			s.Resources = append(s.Resources, r)
		}
	}
	if d.OpSet {
		s.Op = d.Op
	}
	if d.LockSet {
		s.Lock = d.Lock
	}
	if d.ReadySet {
		s.Readiness = d.Readiness
	}
	if len(d.Events) > 0 {
		s.Events = append(slices.Clone(s.Events), d.Events...)
		if n := len(s.Events); n > MaxEvents {
			s.Events = s.Events[n-MaxEvents:]
		}
	}
	return s, true
}
