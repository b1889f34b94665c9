package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// local is this node as operations see it; it implements op.Node.
type local struct{ *Agent }

// Name implements op.Node.
func (l local) Name() string { return l.cfg.Node }

// Observe implements op.Node.
func (l local) Observe(ctx context.Context, req proto.ObserveRequest) (proto.Observation, error) {
	r, err := l.resource(req.Resource)
	if err != nil {
		return proto.Observation{}, err
	}
	if n := len(req.Targets); n > proto.MaxTargets { // leaving some out would make them look ready
		return proto.Observation{}, l.cfg.errorf(proto.CodeLimit, "asked to look at %d mount points, at most %d at once are possible", n, proto.MaxTargets)
	}
	o := proto.Observation{
		Node: l.cfg.Node, Pair: l.pair, Agent: l.info, PeerLink: l.peerLink(),
		Resource: l.dress(r, r.eng.Status()),
	}
	l.mu.Lock()
	o.Lock = l.lock
	if l.op != nil && !l.op.State.Final() {
		o.OpID = l.op.ID
		o.OpStep, o.OpUndo = atStep(*l.op)
	}
	l.mu.Unlock()
	o.Targets = l.ops.MountPoints(req.Targets)
	if o.Resource.Role != proto.Primary {
		o.Left = l.ops.Leftovers(req.VGs[:min(len(req.VGs), proto.MaxFacts)])
	}
	if !req.Brief {
		l.look(ctx, r, req, &o)
	}
	o.At = time.Now() // as late as can be: the other side compares it with its own clock
	return o, nil
}

// look adds to an observation what it takes a look at stack, disks and service to know.
func (l local) look(ctx context.Context, r *resource, req proto.ObserveRequest, o *proto.Observation) {
	age := ageOf(req)
	var facts proto.Facts
	var wg sync.WaitGroup
	wg.Go(func() { facts, o.Managers = r.lookAround(ctx, l.ops, age) })
	wg.Go(func() { o.Service = r.serviceFacts(ctx, l.service, age.most) })
	stackAge := age
	if age.most > 0 {
		stackAge.most = max(age.most, r.idleAge(l.stackShare()))
	}
	o.Resource.Stack = r.stack(ctx, l.ops, stackAge, l.stackShare())
	wg.Wait()
	o.Tools, o.Journal = l.ops.Tools(), l.journal.Problem()
	var err error
	if facts.Health, err = l.ops.Health(o.Resource.Stack.Mounts); err != nil {
		facts.Errs = append(facts.Errs, err.Error())
	}
	o.Facts = &facts
	memory := l.journal.Known(r.name).Own
	o.Memory = &memory
	if o.Resource.Role != proto.Primary {
		o.VGClash = facts.LVM.Others
	}
}

// Step implements op.Node.
func (l local) Step(ctx context.Context, req proto.PeerStepRequest) proto.StepResult {
	res := proto.StepResult{Started: time.Now()}
	kind := req.Step.Kind
	if req.Undo {
		kind = req.Step.UndoKind
	}
	r, err := l.resource(req.Step.Resource)
	if err == nil {
		err = l.mayStep(req)
	}
	if err == nil && !req.DryRun {
		limit := time.Duration(req.Step.Limit * float64(time.Second))
		ctx, cancel := context.WithTimeout(ctx, min(max(limit, time.Second), maxStepLimit*time.Second))
		defer cancel()
		var end func()
		if end, err = l.oneStep(ctx, req); err == nil {
			err = l.do(ctx, r, kind, req, &res)
			end()
			l.mu.Lock()
			l.opAt = time.Now() // the step may have been a long one, and the next is on its way
			l.mu.Unlock()
			r.forget()
		}
	}
	res.Seconds = time.Since(res.Started).Seconds()
	switch {
	case err != nil:
		res.State, res.Err = proto.StepFailed, asError(err)
		if res.Err.Node == "" {
			res.Err = res.Err.On(l.cfg.Node)
		}
	case res.State == "":
		res.State = proto.StepDone
	}
	conceal(&res, l.secrets())
	if !req.DryRun {
		l.tell(req.OpID, req.Step, kind, res)
	}
	return res
}

func (l local) tell(opID string, s proto.Step, kind proto.StepKind, res proto.StepResult) {
	what := string(kind)
	switch {
	case s.Mount != nil:
		what += " " + s.Mount.Target
	case s.VG != "":
		what += " " + s.VG
	case s.Unit != "":
		what += " " + s.Unit
	case s.Script != nil:
		what += " " + s.Script.Name
	case s.Address != nil:
		what += " " + s.Address.Address
	case s.Export != nil:
		what += " " + s.Export.Path
	default:
		what += " " + s.Resource
	}
	if res.Err != nil {
		l.hub.event(proto.LevelAlert, s.Resource, opID, what+" failed: "+res.Err.Text)
		return
	}
	l.hub.event(proto.LevelInfo, s.Resource, opID, fmt.Sprintf("%s: %s, %.1f s", what, res.State, res.Seconds))
}

// mayStep refuses steps of an operation that does not hold the lock of this node, and a promotion beside a Primary.
func (l local) mayStep(req proto.PeerStepRequest) error {
	if req.Step.Node != l.cfg.Node {
		return l.cfg.errorf(proto.CodeWrongNode, "step %d belongs to %s", req.Step.Index, req.Step.Node)
	}
	if err := l.configured(req.Step); err != nil {
		return err
	}
	if req.DryRun {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock == nil || l.lock.OpID != req.OpID {
		return l.cfg.errorf(proto.CodeLocked, "operation %s does not hold this node's lock", req.OpID)
	}
	return nil
}

// atStep is the step of an operation that is under way, -1 for none, and whether it is being undone.
func atStep(o proto.Op) (index int, undo bool) {
	index = -1
	for _, s := range o.Steps {
		if s.Undo.State == proto.StepUndoing {
			return s.Step.Index, true
		}
		if s.Result.State == proto.StepRunning {
			index = s.Step.Index
		}
	}
	return index, false
}

// oneStep waits until no other step is under way on this node, and then asks whether this one is still wanted. end lets the
// next one begin.
func (l local) oneStep(ctx context.Context, req proto.PeerStepRequest) (end func(), err error) {
	select {
	case l.stepping <- struct{}{}:
	case <-ctx.Done():
		return nil, l.cfg.errorf(proto.CodeTimeout, "%s is not done: an earlier step has not ended", req.Step.Kind)
	}
	if err := l.stillWanted(ctx, req); err != nil {
		<-l.stepping
		return nil, err
	}
	return func() { <-l.stepping }, nil
}

// stillWanted asks the other agent, if it runs the operation, whether this step is the one that is due. An agent that stood still
// finds an order in its socket long after its sender has given up, undoes the operation, or has taken over.
func (l local) stillWanted(ctx context.Context, req proto.PeerStepRequest) error {
	l.mu.Lock()
	lock := l.lock
	l.mu.Unlock()
	kind := req.Step.Kind
	if req.Undo {
		kind = req.Step.UndoKind
	}
	if lock == nil || lock.Node == l.cfg.Node {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	o, err := l.askPeer(ctx, proto.ObserveRequest{Resource: req.Step.Resource, Brief: true})
	switch {
	case err != nil:
		return l.cfg.errorf(proto.CodeUnreachable, "%s is not done: whether %s still wants it could not be asked: %v", kind, l.peerName, err)
	case o.OpID != req.OpID:
		return l.cfg.errorf(proto.CodeState, "%s is not done: %s does not run operation %s any more", kind, l.peerName, req.OpID)
	case o.OpStep != 0 && (o.OpStep != req.Step.Index || o.OpUndo != req.Undo):
		return l.cfg.errorf(proto.CodeState, "%s is not done: the order for step %d is old, operation %s is at step %d now", kind, req.Step.Index, req.OpID, o.OpStep)
	}
	return nil
}

// askPeer asks again until ctx ends: after a restart of the other agent its link to this one may be back sooner than ours to it.
func (l local) askPeer(ctx context.Context, req proto.ObserveRequest) (proto.Observation, error) {
	for {
		o, err := l.peer.Observe(ctx, req)
		if err == nil {
			return o, nil
		}
		select {
		case <-ctx.Done():
			return o, err
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func (l local) do(ctx context.Context, r *resource, kind proto.StepKind, req proto.PeerStepRequest, res *proto.StepResult) error {
	s := req.Step
	switch kind {
	case proto.StepConnect, proto.StepDisconnect, proto.StepDiscard, proto.StepResync:
		return l.linkStep(ctx, r, kind, res)
	case proto.StepSentinel, proto.StepProbe, proto.StepVerify, proto.StepClean:
		return l.drillStep(ctx, kind, req, res)
	case proto.StepSnapshot:
		if s.Snapshot == nil {
			return l.cfg.errorf(proto.CodeInvalid, "step %d names no snapshot", s.Index)
		}
		return l.volume(res, func() (lvmops.Outcome, error) { return l.ops.Snapshot(ctx, r.conf.diskPath, *s.Snapshot) })
	case proto.StepDemote:
		return l.role(ctx, r, proto.Secondary, res)
	case proto.StepPromote:
		return l.role(ctx, r, proto.Primary, res)
	case proto.StepUnmount, proto.StepMount:
		if s.Mount == nil {
			return l.cfg.errorf(proto.CodeInvalid, "step %d names no mount", s.Index)
		}
		if kind == proto.StepMount {
			return l.volume(res, func() (lvmops.Outcome, error) { return l.ops.Mount(ctx, *s.Mount) })
		}
		last := l.probes.stop(s.Mount.Target)
		err := l.volume(res, func() (lvmops.Outcome, error) { return l.ops.Unmount(ctx, s.Mount.Target) })
		res.Probe = last.report(s.Mount.Target)
		return err
	case proto.StepDeactivate:
		if st := r.eng.Status(); st.Role == proto.Secondary && st.Node == "" {
			l.leftovers(s.VG, res)
			return nil
		}
		return l.volume(res, func() (lvmops.Outcome, error) { return l.ops.Deactivate(ctx, s.VG, r.conf.device) })
	case proto.StepActivate:
		if req.VG != nil {
			l.ops.Learn(*req.VG)
		}
		return l.volume(res, func() (lvmops.Outcome, error) { return l.ops.Activate(ctx, s.VG, r.conf.device) })
	default:
		return l.serviceStep(ctx, r, kind, req, res)
	}
}

// leftovers reports a deactivation on a Secondary as done: there is no device that anything could be active on. What an
// agent that died left on its dead device is named; it keeps nothing from working elsewhere, but must go before this node
// can be Primary again.
func (l local) leftovers(vg string, res *proto.StepResult) {
	res.State, res.Now = proto.StepAlready, "this node is Secondary: nothing is active on the replicated device"
	if lvmops.CheckVGName(vg) != nil {
		return
	}
	left, _ := filepath.Glob("/dev/" + vg + "/*") // the pattern is well-formed
	for _, path := range left {
		res.Output = append(res.Output, path+" is left on the device of an agent that died: remove it with `dmsetup remove "+path+"`")
	}
}

func (l local) role(ctx context.Context, r *resource, want proto.Role, res *proto.StepResult) error {
	if st := r.eng.Status(); st.Role == want && (want == proto.Secondary || st.Node != "") {
		res.State, res.Now = proto.StepAlready, fmt.Sprintf("%s is %s", r.name, want)
		return nil
	}
	change := r.eng.Demote
	if want == proto.Primary {
		change = func(ctx context.Context) error { return r.eng.Promote(ctx, false) }
	}
	if err := change(ctx); err != nil {
		return err
	}
	res.Now = fmt.Sprintf("%s is %s", r.name, r.eng.Status().Role)
	return nil
}

// volume runs one operation of lvmops and copies what it did into the result.
func (l local) volume(res *proto.StepResult, run func() (lvmops.Outcome, error)) error {
	out, err := run()
	res.Commands, res.Now, res.Output = out.Commands, out.Now, out.Findings
	if out.Already {
		res.State = proto.StepAlready
	}
	return err
}

// Lock implements op.Node. A lock that the same node's agent took for an earlier operation is replaced: that agent runs
// one operation at a time, so the earlier one is over.
func (l local) Lock(_ context.Context, want proto.Lock) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cur := l.lock; cur != nil && cur.OpID != want.OpID && (cur.Node != want.Node || want.Node == l.cfg.Node) {
		e := l.cfg.errorf(proto.CodeLocked, "operation %s of %s holds the lock", cur.OpID, cur.Owner).WithRemedy("wait, or santui attach %s", cur.OpID)
		e.Lock = cur
		return e
	}
	l.lock = &want
	l.hub.poke()
	return nil
}

// Unlock implements op.Node.
func (l local) Unlock(_ context.Context, l0 proto.Lock) error {
	l.mu.Lock()
	held := l.lock != nil && l.lock.OpID == l0.OpID
	if held {
		l.lock = nil
	}
	l.mu.Unlock()
	if held {
		l.hub.poke()
		l.probes.stopAll() // of a drill that did not come to its end
	}
	return nil
}

// Journal implements op.Node.
func (l local) Journal(_ context.Context, o proto.Op) error {
	if old, ok := l.journal.Get(o.ID); ok && old.Rev >= o.Rev {
		return nil // told again when the link came up
	}
	if err := l.journal.Put(o); err != nil {
		return err
	}
	l.showOp(o)
	return nil
}

// asError makes any error one that can cross a control link.
func asError(err error) *proto.Error {
	var e *proto.Error
	if errors.As(err, &e) {
		return e
	}
	code := proto.CodeFailed
	if errors.Is(err, context.DeadlineExceeded) {
		code = proto.CodeTimeout
	}
	return proto.Errorf(code, "%v", err)
}
