package agent

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"example.com/santui/agent/op"
	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// guardPeriod is how often the backing disks are looked at; it takes a few reads of sysfs.
const guardPeriod = 3 * time.Second

// costlyAge is how old the facts that take programs to find (lvm, thin_check) may be at least while nobody asks for fresh
// ones.
const costlyAge = 30 * time.Second

// managers are the programs of cluster managers, and what people call them.
var managers = map[string]string{
	"pacemakerd": "Pacemaker", "corosync": "Corosync", "drbd-reactor": "drbd-reactor", "keepalived": "keepalived", "heartbeat": "Heartbeat",
}

// costly is what takes programs or a walk over all processes to find.
type costly struct {
	facts    proto.Facts
	managers []string
	at       time.Time
	pace     time.Duration // how long it will do for whoever asks for nothing fresh
}

// lookAround finds out what checks need to know about this node, and which cluster managers run on it. With age 0
// everything is fresh; else what takes programs to find may be older.
func (r *resource) lookAround(ctx context.Context, ops *lvmops.Ops, of age) (proto.Facts, []string) {
	ctx, cancel := context.WithTimeout(ctx, stackLimit)
	defer cancel()
	st := r.eng.Status()
	c := r.costlyFacts(ctx, ops, st, of)
	f := c.facts
	f.Errs = slices.Clone(f.Errs)
	note := func(err error) {
		if err != nil {
			f.Errs = append(f.Errs, err.Error())
		}
	}
	var err error
	f.Backing, err = r.backingUsers(ops, of.most)
	note(err)
	f.Fstab, err = ops.Fstab()
	note(err)
	f.DiskSize, f.DiskSector = ops.DiskGeometry(r.conf.diskPath)
	f.DiskErrors = ops.DiskErrors(r.conf.diskPath)
	r.mu.Lock()
	if r.guarded {
		f.Link = r.linkLook.facts()
	}
	r.mu.Unlock()
	if st.Node != "" {
		_, f.DeviceSector = ops.DiskGeometry(st.Node)
	}
	return f, c.managers
}

func (r *resource) costlyFacts(ctx context.Context, ops *lvmops.Ops, st proto.Resource, of age) costly {
	r.mu.Lock()
	c := r.costly
	r.mu.Unlock()
	if of.most > 0 && !c.at.IsZero() && time.Since(c.at) < c.pace {
		return c
	}
	c = costly{at: time.Now()}
	f := &c.facts
	note := func(err error) {
		if err != nil {
			f.Errs = append(f.Errs, err.Error())
		}
	}
	var err error
	if of.whole {
		f.LVM, err = ops.LVMView(ctx, r.conf.diskPath, st.Node)
		note(err)
		f.BackingLV, err = ops.BackingLV(ctx, r.conf.diskPath)
	} else {
		f.LVM, f.BackingLV, err = ops.Around(ctx, r.conf.diskPath, st.Node)
	}
	note(err)
	f.Filesystems, err = ops.Filesystems()
	note(err)
	f.ThinTools, err = ops.ThinTools(ctx)
	note(err)
	f.Versions = ops.Versions(ctx)
	running, err := ops.Running(slices.Sorted(maps.Keys(managers)))
	note(err)
	for _, p := range running {
		c.managers = append(c.managers, managers[p])
	}
	c.pace = costlyAge
	if len(f.Errs) == 0 {
		c.pace = paceOf(time.Since(c.at), costlyShare, costlyAge)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.at.After(r.costly.at) && c.at.After(r.since) {
		r.costly = c
	}
	return c
}

// guard watches the backing disk and the link, whatever the role and whether or not a move is planned: what uses the disk beside
// replication makes the copies diverge without anybody noticing, and that a link is a poor one shows over minutes only.
func (a *Agent) guard(ctx context.Context, r *resource) {
	tick := time.NewTimer(untilBeat(guardPeriod))
	defer tick.Stop()
	for {
		info := r.eng.LinkInfo()
		r.mu.Lock()
		r.linkLook.note(time.Now(), info)
		r.guarded = true
		r.mu.Unlock()
		users, err := r.backingUsers(a.ops, 0)
		if err == nil {
			a.alarm(r, users)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Reset(untilBeat(guardPeriod))
		}
	}
}

// backing is what backingUsers found, and when.
type backing struct {
	users []proto.User
	at    time.Time
}

// backingUsers lists what uses the backing disk beside replication, as it is now or, with a maxAge, as the guard saw it.
func (r *resource) backingUsers(ops *lvmops.Ops, maxAge time.Duration) ([]proto.User, error) {
	r.mu.Lock()
	b := r.backing
	r.mu.Unlock()
	begin := time.Now()
	if maxAge > 0 && begin.Sub(b.at) < 2*guardPeriod {
		return b.users, nil
	}
	users, err := ops.BackingUsers(r.conf.diskPath)
	if err == nil {
		r.mu.Lock()
		r.backing = backing{users, begin}
		r.mu.Unlock()
	}
	return users, err
}

// alarm tells when the use of the backing disk changes.
func (a *Agent) alarm(r *resource, users []proto.User) {
	text := ""
	if len(users) > 0 {
		text = proto.CheckBackingActive + ": something uses the backing disk " + r.conf.diskPath + " behind replication's back: " +
			strings.Join(op.BackingEvidence(users), "; ")
	}
	r.mu.Lock()
	old := r.alarm
	r.alarm = text
	r.mu.Unlock()
	switch {
	case text == old:
	case text != "":
		a.hub.event(proto.LevelAlert, r.name, "", text)
	default:
		a.hub.event(proto.LevelInfo, r.name, "", "nothing uses the backing disk "+r.conf.diskPath+" beside replication any more; verify that copy")
	}
}
