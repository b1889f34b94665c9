package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// setupStep is a step of a set-up with what does it.
type setupStep struct {
	proto.Step
	run func(context.Context) (lvmops.Outcome, error)
}

// setup makes the guide's stack on the replicated device of this node, step by step. A device that holds anything else
// is refused; of a set-up that stopped half way, the steps that are done are found done. The operation goes on to its
// end even if the one who asked for it goes away.
func (a *Agent) setup(ctx context.Context, _ session.Peer, in proto.SetupRequest, send func(proto.Op) error) error {
	r, err := a.resource(in.Resource)
	if err != nil {
		return err
	}
	if in.FSType == "" {
		in.FSType = "ext4"
	}
	if err := a.setupValid(in); err != nil {
		return err
	}
	steps := a.setupSteps(r, in)
	plan := proto.Plan{Schema: proto.Schema, Verb: proto.VerbSetup, Pair: a.pair, Resource: r.name, From: a.cfg.Node, To: a.cfg.Node, At: time.Now()}
	now := time.Now()
	o := proto.Op{Schema: proto.Schema, State: proto.OpRunning, Owner: in.Owner, Runner: a.cfg.Node, Started: now, Rev: 1,
		ID: now.UTC().Format("20060102-150405-") + "setup"}
	for _, s := range steps {
		plan.Steps = append(plan.Steps, s.Step)
		o.Steps = append(o.Steps, proto.StepStatus{Step: s.Step, Result: proto.StepResult{State: proto.StepWaiting}})
	}
	plan.Effect = []string{fmt.Sprintf("%s gets a volume group, a volume and a file system; they replicate to %s like all that is written.", r.conf.device, a.peerName),
		"If a step fails the set-up stops there; the same command carries on."}
	o.Plan, o.PlanHash = plan, plan.Hash()
	o.Checks = proto.CheckList{Schema: proto.Schema, Verb: proto.VerbSetup, Resource: r.name, From: a.cfg.Node, To: a.cfg.Node, At: now, Checks: a.setupChecks(ctx, r, in)}
	if bad := o.Checks.Blocking(); len(bad) > 0 {
		e := a.cfg.errorf(proto.CodeVeto, "setting up %s is not possible now: %s", r.name, summary(bad)).WithRemedy("%s", bad[0].Remedy)
		e.Resource, e.Checks = r.name, bad
		return e
	}
	if in.DryRun {
		o.State, o.Outcome, o.Ended = proto.OpDone, "dry run: nothing was changed", time.Now()
		return send(o)
	}
	if in.Confirm != a.pair {
		return a.cfg.errorf(proto.CodeNotConfirmed, "setting up %s is not confirmed", r.name).WithRemedy("type the pair's name: --confirm %s", a.pair)
	}
	return a.runSetup(context.WithoutCancel(ctx), r, o, steps, send)
}

func summary(checks []proto.Check) string {
	text := ""
	for i, c := range checks {
		if i > 0 {
			text += "; "
		}
		text += c.Code
		if len(c.Evidence) > 0 {
			text += " (" + c.Evidence[0] + ")"
		}
	}
	return text
}

func (a *Agent) setupValid(in proto.SetupRequest) error {
	err := lvmops.CheckVGName(in.VG)
	if err == nil {
		err = lvmops.CheckLVName(in.LV)
	}
	if err == nil && in.FSType != "ext4" && in.FSType != "xfs" {
		err = fmt.Errorf("file system type %q: this version makes ext4 and xfs", in.FSType)
	}
	if err == nil && (in.Size < 0 || in.Size%512 != 0) {
		err = fmt.Errorf("a size of %d bytes is no positive multiple of 512", in.Size)
	}
	if err == nil && in.Mount != "" {
		if why := lvmops.MountProblem(proto.Mount{Source: "/dev/" + in.VG + "/" + in.LV, Target: in.Mount, FSType: in.FSType}); why != "" {
			err = fmt.Errorf("%s", why)
		}
	}
	if err != nil {
		return a.cfg.errorf(proto.CodeInvalid, "%v", err)
	}
	return nil
}

func (a *Agent) setupSteps(r *resource, in proto.SetupRequest) []setupStep {
	dev, path := r.conf.device, "/dev/"+in.VG+"/"+in.LV
	var steps []setupStep
	add := func(kind proto.StepKind, argv []string, limit time.Duration, why string, run func(context.Context) (lvmops.Outcome, error)) *proto.Step {
		steps = append(steps, setupStep{proto.Step{Index: len(steps) + 1, Kind: kind, Node: a.cfg.Node, Resource: r.name, Argv: argv,
			Limit: limit.Seconds(), Why: why, VG: in.VG}, run})
		return &steps[len(steps)-1].Step
	}
	add(proto.StepPVCreate, lvmops.PVCreateArgv(dev), lvmops.LimitSetup, "the replicated device becomes a physical volume",
		func(ctx context.Context) (lvmops.Outcome, error) { return a.ops.PVCreate(ctx, dev) })
	add(proto.StepVGCreate, lvmops.VGCreateArgv(in.VG, dev), lvmops.LimitSetup, "autoactivation is off: only a move activates the group",
		func(ctx context.Context) (lvmops.Outcome, error) { return a.ops.VGCreate(ctx, in.VG, dev) })
	add(proto.StepLVCreate, lvmops.LVCreateArgv(in.VG, in.LV, in.Size, dev), lvmops.LimitSetup, "the logical volume",
		func(ctx context.Context) (lvmops.Outcome, error) {
			return a.ops.LVCreate(ctx, in.VG, in.LV, in.Size, dev)
		})
	add(proto.StepMkfs, lvmops.MkfsArgv(in.FSType, path), lvmops.LimitMkfs, "the file system",
		func(ctx context.Context) (lvmops.Outcome, error) { return a.ops.Mkfs(ctx, in.FSType, path) })
	if in.Mount != "" {
		m := proto.Mount{Source: path, Target: in.Mount, FSType: in.FSType}
		s := add(proto.StepMount, lvmops.MountArgv(m), lvmops.LimitMount, "the service can start",
			func(ctx context.Context) (lvmops.Outcome, error) { return a.ops.Mount(ctx, m) })
		s.Mount, s.Undo, s.UndoKind = &m, lvmops.UnmountArgv(in.Mount), proto.StepUnmount
	}
	return steps
}

// setupChecks looks at both nodes: the device must be empty here, LVM must leave both backing disks alone, names and mount
// points must be free on both.
func (a *Agent) setupChecks(ctx context.Context, r *resource, in proto.SetupRequest) []proto.Check {
	var out []proto.Check
	judge := func(code, node string, bad []string, good string) {
		def, _ := proto.CodeOf(code)
		c := proto.Check{Code: code, Node: node, Result: proto.CheckOK, Hard: true, Title: def.Title, Evidence: []string{good}}
		if len(bad) > 0 {
			c.Result, c.Evidence, c.Remedy = proto.CheckFail, bad, def.Remedy
		}
		out = append(out, c)
	}
	req := proto.ObserveRequest{Resource: r.name}
	if in.Mount != "" {
		req.Targets = []string{in.Mount}
	}
	here, err := local{a}.Observe(ctx, req)
	if err != nil {
		judge(proto.CheckAgents, a.cfg.Node, []string{err.Error()}, "")
		return out
	}
	there, err := a.peer.Observe(ctx, req)
	if err != nil {
		judge(proto.CheckAgents, a.peerName, []string{fmt.Sprintf("%s does not answer: %v", a.peerName, err)}, "")
		return out
	}
	var role, held, seen, clash, points, tools []string
	if here.Resource.Role != proto.Primary {
		role = append(role, fmt.Sprintf("%s is %s on %s; a stack is made on the Primary", r.name, here.Resource.Role, a.cfg.Node))
	}
	if here.Resource.Role == proto.Primary {
		held = a.occupied(ctx, here, in.VG)
	}
	for _, o := range []proto.Observation{here, there} {
		if o.Lock != nil {
			judge(proto.CheckLocked, o.Node, []string{fmt.Sprintf("operation %s of %s holds the lock", o.Lock.OpID, o.Lock.Owner)}, "")
		}
		if o.Facts == nil {
			continue
		}
		if l := o.Facts.LVM; len(l.Backing) > 0 {
			seen = append(seen, fmt.Sprintf("LVM on %s sees the backing disk as %s", o.Node, l.Backing[0]))
		}
		if slices.Contains(o.Facts.LVM.Others, in.VG) {
			clash = append(clash, fmt.Sprintf("%s exists on %s outside the replicated device", in.VG, o.Node))
		}
		for _, mp := range o.Targets {
			mine := mp.Mounted != "" && o.Node == a.cfg.Node && slices.ContainsFunc(o.Resource.Stack.Mounts, func(m proto.Mount) bool { return m.Target == mp.Path })
			switch {
			case mp.Mounted != "" && !mine:
				points = append(points, fmt.Sprintf("%s has %s mounted on %s", mp.Path, mp.Mounted, o.Node))
			case !mp.Dir:
				points = append(points, fmt.Sprintf("%s is no directory on %s", mp.Path, o.Node))
			}
		}
		for _, t := range []string{"pvcreate", "vgcreate", "lvcreate", "vgchange", "mount", "umount"} {
			if o.Tools[t] == "" {
				tools = append(tools, t+" is missing on "+o.Node)
			}
		}
	}
	judge(proto.CheckRoles, a.cfg.Node, role, "Primary")
	judge(proto.CheckStack, a.cfg.Node, held, r.conf.device+" holds nothing else")
	judge(proto.CheckBackingVisible, "", seen, "")
	judge(proto.CheckVGClash, "", clash, in.VG)
	judge(proto.CheckMountPoint, "", points, in.Mount)
	judge(proto.CheckTools, "", tools, "")
	return out
}

// occupied says what the device holds that is no part of a set-up of this volume group.
func (a *Agent) occupied(ctx context.Context, o proto.Observation, vg string) []string {
	var out []string
	kind, err := a.ops.Holds(ctx, o.Resource.Device)
	switch {
	case err != nil:
		out = append(out, err.Error())
	case kind != "" && kind != "LVM2_member":
		out = append(out, fmt.Sprintf("%s holds %s; if that is not needed: wipefs --all %s", o.Resource.Device, kind, o.Resource.Device))
	}
	for _, g := range o.Resource.Stack.VGs {
		if g.Name != vg {
			out = append(out, fmt.Sprintf("%s belongs to volume group %s", o.Resource.Device, g.Name))
		}
	}
	if o.Resource.Stack.Err != "" {
		out = append(out, o.Resource.Stack.Err)
	}
	return out
}

// runSetup takes the lock on both nodes and runs the steps.
func (a *Agent) runSetup(ctx context.Context, r *resource, o proto.Op, steps []setupStep, send func(proto.Op) error) error {
	lock := proto.Lock{OpID: o.ID, Owner: o.Owner, Node: a.cfg.Node, Since: o.Started}
	here := local{a}
	if err := here.Lock(ctx, lock); err != nil {
		return err
	}
	defer func() { _ = here.Unlock(ctx, lock) }() // it is this operation's
	if err := a.peer.Lock(ctx, lock); err != nil {
		return err
	}
	defer func() {
		if err := a.peer.Unlock(ctx, lock); err != nil {
			a.log.Warn("the peer could not be unlocked", "op", o.ID, "err", err)
		}
	}()
	gone := false // the one who asked; the operation goes on
	save := func() error {
		o.Rev++
		if err := here.Journal(ctx, o); err != nil {
			return err
		}
		if err := a.peer.Journal(ctx, o); err != nil {
			a.log.Warn("the peer could not journal the operation", "op", o.ID, "err", err)
		}
		shown := o
		shown.Steps = slices.Clone(o.Steps)
		gone = gone || send(shown) != nil
		return nil
	}
	a.hub.event(proto.LevelInfo, r.name, o.ID, fmt.Sprintf("setup of %s started by %s", r.name, o.Owner))
	for i, s := range steps {
		o.Steps = slices.Clone(o.Steps)
		o.Steps[i].Result = proto.StepResult{State: proto.StepRunning, Started: time.Now()}
		if err := save(); err != nil { // nothing is done that is not in the journal
			return err
		}
		res := proto.StepResult{State: proto.StepDone, Started: time.Now()}
		step, cancel := context.WithTimeout(ctx, time.Duration(s.Limit*float64(time.Second)))
		err := here.volume(&res, func() (lvmops.Outcome, error) { return s.run(step) })
		cancel()
		res.Seconds = time.Since(res.Started).Seconds()
		if err != nil {
			res.State, res.Err = proto.StepFailed, asError(err)
		}
		o.Steps[i].Result = res
		here.tell(o.ID, s.Step, s.Kind, res)
		if err != nil {
			o.State, o.Err, o.Ended = proto.OpKept, res.Err, time.Now()
			o.Outcome = fmt.Sprintf("stopped at step %d (%s); the same command carries on from there", s.Index, s.Kind)
			r.forget()
			return save()
		}
	}
	r.forget()
	o.State, o.Ended = proto.OpDone, time.Now()
	o.Outcome = fmt.Sprintf("%s on %s carries volume group %s", r.name, a.cfg.Node, o.Plan.Steps[0].VG)
	return save()
}
