package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"example.com/santui/agent/op"
	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// guardPeriod is how often the backing disks are looked at; it takes a few reads of sysfs.
const guardPeriod = 3 * time.Second

// costlyAge is how old the facts that take programs to find (lvm, thin_check) may be while nobody asks for fresh ones.
const costlyAge = 30 * time.Second

// lookAround finds out what checks need to know about this node. With maxAge 0 everything is fresh; else what takes
// programs to find may be older.
func (r *resource) lookAround(ctx context.Context, ops *lvmops.Ops, maxAge time.Duration) proto.Facts {
	ctx, cancel := context.WithTimeout(ctx, stackLimit)
	defer cancel()
	st := r.eng.Status()
	f := r.costlyFacts(ctx, ops, st, maxAge)
	f.Errs = slices.Clone(f.Errs)
	note := func(err error) {
		if err != nil {
			f.Errs = append(f.Errs, err.Error())
		}
	}
	var err error
	f.Backing, err = ops.BackingUsers(r.conf.diskPath)
	note(err)
	f.Fstab, err = ops.Fstab()
	note(err)
	f.DiskSize, f.DiskSector = ops.DiskGeometry(r.conf.diskPath)
	f.DiskErrors = ops.DiskErrors(r.conf.diskPath)
	if st.Node != "" {
		_, f.DeviceSector = ops.DiskGeometry(st.Node)
	}
	return f
}

func (r *resource) costlyFacts(ctx context.Context, ops *lvmops.Ops, st proto.Resource, maxAge time.Duration) proto.Facts {
	r.mu.Lock()
	f, at := r.costly, r.costlyAt
	r.mu.Unlock()
	if maxAge > 0 && !at.IsZero() && time.Since(at) < costlyAge {
		return f
	}
	begin := time.Now()
	f = proto.Facts{}
	note := func(err error) {
		if err != nil {
			f.Errs = append(f.Errs, err.Error())
		}
	}
	var err error
	f.LVM, err = ops.LVMView(ctx, r.conf.diskPath, st.Node)
	note(err)
	f.BackingLV, err = ops.BackingLV(ctx, r.conf.diskPath)
	note(err)
	f.Filesystems, err = ops.Filesystems()
	note(err)
	f.ThinTools, err = ops.ThinTools(ctx)
	note(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if begin.After(r.costlyAt) {
		r.costly, r.costlyAt = f, begin
	}
	return f
}

// guard watches the backing disk, whatever the role and whether or not a move is planned: what uses it beside
// replication makes the copies diverge without anybody noticing.
func (a *Agent) guard(ctx context.Context, r *resource) {
	tick := time.NewTicker(guardPeriod)
	defer tick.Stop()
	for {
		users, err := a.ops.BackingUsers(r.conf.diskPath)
		if err == nil {
			a.alarm(r, users)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
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
