package agent

import (
	"context"
	"fmt"

	"example.com/santui/agent/op"
	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// look evaluates checks and plan of a move to this node.
func (a *Agent) look(ctx context.Context, in proto.CheckRequest) (proto.PlanReply, error) {
	r, err := a.target(in.Verb, in.Resource, in.To)
	if err != nil {
		return proto.PlanReply{}, err
	}
	in.Verb, in.Resource = verbOf(in.Verb), r.name
	return a.runner.Look(ctx, in, 0)
}

// verbOf is the verb of a request; older cockpits leave it out.
func verbOf(v proto.Verb) proto.Verb {
	if v == "" {
		return proto.VerbFailover
	}
	return v
}

// target checks that the request is for this agent and this version.
func (a *Agent) target(verb proto.Verb, resource, to string) (*resource, error) {
	if !op.Runs(verbOf(verb)) {
		return nil, a.cfg.errorf(proto.CodeUnsupported, "%s is not in this version", verb)
	}
	r, err := a.resource(resource)
	if err != nil {
		return nil, err
	}
	switch to {
	case a.cfg.Node:
		return r, nil
	case a.peerName:
		return nil, a.cfg.errorf(proto.CodeWrongNode, "the agent of %s must be asked: it runs the %s to itself", to, verbOf(verb))
	default:
		return nil, a.cfg.errorf(proto.CodeNotFound, "%q is not a node of %s (there are %s and %s)", to, r.name, a.cfg.Node, a.peerName)
	}
}

func (a *Agent) opStart(ctx context.Context, p session.Peer, in proto.OpStartRequest) (proto.Op, error) {
	r, err := a.target(in.Verb, in.Resource, in.To)
	if err != nil {
		return proto.Op{}, err
	}
	in.Resource, in.Verb = r.name, verbOf(in.Verb)
	if in.Owner == "" {
		in.Owner = p.Node
	}
	o, err := a.runner.Start(ctx, in)
	if err == nil && !in.DryRun {
		a.hub.event(proto.LevelInfo, r.name, o.ID, fmt.Sprintf("%s of %s to %s started by %s", in.Verb, r.name, in.To, in.Owner))
	}
	return o, err
}

// opWatch sends an operation whenever it changes and ends when it is final.
func (a *Agent) opWatch(ctx context.Context, _ session.Peer, in proto.OpRequest, send func(proto.Op) error) error {
	var last uint64
	for {
		ch := *a.hub.changed.Load()
		o, ok := a.journal.Get(in.ID)
		if !ok {
			return a.cfg.errorf(proto.CodeNotFound, "operation %q is not in this node's journal", in.ID)
		}
		if o.Rev != last {
			if err := send(o); err != nil {
				return err
			}
			last = o.Rev
		}
		if o.State.Final() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ch:
		}
	}
}

func (a *Agent) report(_ context.Context, _ session.Peer, in proto.OpRequest) (proto.Report, error) {
	o, ok := a.journal.Get(in.ID)
	if !ok {
		return proto.Report{}, a.cfg.errorf(proto.CodeNotFound, "operation %q is not in this node's journal", in.ID).
			WithRemedy("santui ops lists what there is")
	}
	rep := proto.Report{Schema: proto.Schema, Op: o}
	for _, r := range a.resources {
		st := r.eng.Status()
		st.Stack = r.cached(a.stackShare())
		rep.After = append(rep.After, st)
	}
	return rep, nil
}

func (a *Agent) sync(ctx context.Context, _ session.Peer, in proto.SyncRequest) (proto.Empty, error) {
	r, err := a.resource(in.Resource)
	if err != nil {
		return proto.Empty{}, err
	}
	switch in.Action {
	case proto.SyncPause:
		err = r.eng.PauseSync(ctx)
	case proto.SyncResume:
		err = r.eng.ResumeSync(ctx)
	case proto.SyncRate:
		if in.Rate <= 0 {
			err = a.cfg.errorf(proto.CodeInvalid, "a rate of %d bytes a second makes no sense", in.Rate)
		} else {
			err = r.eng.SetSyncRate(in.Rate)
		}
	case proto.SyncStart:
		err = a.syncStart(ctx, r, in)
	case proto.SyncSkip:
		err = a.syncSkip(ctx, r, in)
	default:
		err = a.cfg.errorf(proto.CodeInvalid, "sync action %q", in.Action)
	}
	if err == nil {
		text := fmt.Sprintf("sync %s by %s", in.Action, in.By)
		if in.Action == proto.SyncRate {
			text = fmt.Sprintf("sync rate set to %d KiB/s by %s", in.Rate>>10, in.By)
		}
		a.hub.event(proto.LevelInfo, r.name, "", text)
	}
	return proto.Empty{}, err
}

// syncStart is the guide's "do what I say": of two copies of which neither is good, this node's is declared to be. If this
// one is good already, all of it is copied over the peer's again.
func (a *Agent) syncStart(ctx context.Context, r *resource, in proto.SyncRequest) error {
	if err := a.mayOverwrite(r, in.Confirm); err != nil {
		return err
	}
	switch st := r.eng.Status(); {
	case st.DiskState == proto.UpToDate:
		return r.eng.InvalidatePeer(ctx)
	case st.DiskState != proto.Inconsistent || st.PeerDisk != proto.Inconsistent:
		return a.cfg.errorf(proto.CodeState, "%s cannot be synchronised from here: the copies are %s here and %s on %s",
			r.name, st.DiskState, st.PeerDisk, a.peerName).WithRemedy("a good copy exists; start from the node that has it")
	}
	return r.eng.Promote(ctx, true)
}

// syncSkip declares two fresh disks to be the same. What speaks against it, the engine knows.
func (a *Agent) syncSkip(ctx context.Context, r *resource, in proto.SyncRequest) error {
	if in.Confirm != a.pair {
		return a.cfg.errorf(proto.CodeNotConfirmed, "declaring both disks of %s to be the same, without a look at them, is not confirmed", r.name).
			WithRemedy("type the pair's name: --confirm %s", a.pair)
	}
	if err := a.unlocked(); err != nil {
		return err
	}
	return r.eng.SkipInitialSync(ctx)
}

// mayOverwrite is what holds before the peer's copy is overwritten in whole or in part.
func (a *Agent) mayOverwrite(r *resource, confirm string) error {
	if confirm != a.pair {
		return a.cfg.errorf(proto.CodeNotConfirmed, "overwriting %s's copy of %s is not confirmed", a.peerName, r.name).
			WithRemedy("type the pair's name: --confirm %s", a.pair)
	}
	if err := a.unlocked(); err != nil {
		return err
	}
	switch st := r.eng.Status(); {
	case st.Conn < proto.Connected:
		return a.cfg.errorf(proto.CodeState, "%s is not connected to %s (%s)", r.name, a.peerName, st.Conn).
			WithRemedy("wait until both nodes are connected, so that the other copy can be looked at")
	case st.Conn > proto.Connected:
		return a.cfg.errorf(proto.CodeState, "%s is busy: %s", r.name, st.Conn)
	case st.PeerRole == proto.Primary:
		return a.cfg.errorf(proto.CodeState, "%s is Primary on %s, whose copy would be overwritten", r.name, a.peerName).
			WithRemedy("make it Secondary there first")
	}
	return nil
}

// unlocked refuses what must not happen in the middle of an operation.
func (a *Agent) unlocked() error {
	a.mu.Lock()
	lock := a.lock
	a.mu.Unlock()
	if lock == nil {
		return nil
	}
	e := a.cfg.errorf(proto.CodeLocked, "operation %s of %s holds the lock", lock.OpID, lock.Owner)
	e.Lock = lock
	return e
}

// verify steers an online verify, and repairs what one has found.
func (a *Agent) verify(ctx context.Context, _ session.Peer, in proto.VerifyRequest) (proto.Empty, error) {
	r, err := a.resource(in.Resource)
	if err != nil {
		return proto.Empty{}, err
	}
	switch in.Action {
	case proto.VerifyStart:
		err = r.eng.VerifyStart(ctx, in.From)
	case proto.VerifyStop:
		err = r.eng.VerifyStop(ctx)
	case proto.VerifyRepair:
		if err = a.mayOverwrite(r, in.Confirm); err == nil {
			err = r.eng.Repair(ctx)
		}
	default:
		err = a.cfg.errorf(proto.CodeInvalid, "verify action %q", in.Action)
	}
	if err == nil {
		a.hub.event(proto.LevelInfo, r.name, "", fmt.Sprintf("verify %s by %s", in.Action, in.By))
	}
	return proto.Empty{}, err
}

func (a *Agent) resourceAction(ctx context.Context, _ session.Peer, in proto.ResourceRequest) (proto.Empty, error) {
	r, err := a.resource(in.Resource)
	if err != nil {
		return proto.Empty{}, err
	}
	switch in.Action {
	case proto.ResourceOutdate, proto.ResourceResumeIO:
		// A fence-peer of the other node asks for the one, an operation that hangs may need the other.
	default:
		if err := a.unlocked(); err != nil {
			return proto.Empty{}, err
		}
	}
	switch in.Action {
	case proto.ResourceConnect:
		if in.DiscardMyData && in.Confirm != a.pair {
			return proto.Empty{}, a.cfg.errorf(proto.CodeNotConfirmed, "giving up what only this node has of %s is not confirmed", r.name).
				WithRemedy("type the pair's name: --confirm %s", a.pair)
		}
		err = r.eng.Connect(ctx, in.DiscardMyData)
	case proto.ResourceAttach:
		err = r.eng.AttachDisk(ctx)
	case proto.ResourceDetach:
		err = r.eng.DetachDisk(ctx)
	case proto.ResourceDisconnect:
		err = r.eng.Disconnect(ctx)
	case proto.ResourcePrimary:
		err = r.eng.Promote(ctx, false)
	case proto.ResourceOutdate:
		err = r.eng.Outdate(ctx)
	case proto.ResourceSuspendIO:
		err = r.eng.SuspendIO(ctx)
	case proto.ResourceResumeIO:
		err = r.eng.ResumeIO(ctx)
	case proto.ResourceSecondary:
		err = r.eng.Demote(ctx)
	case proto.ResourceResize:
		if in.Confirm != a.pair {
			return proto.Empty{}, a.cfg.errorf(proto.CodeNotConfirmed, "the resize of %s is not confirmed", r.name).
				WithRemedy("type the pair's name: --confirm %s", a.pair)
		}
		err = r.eng.Resize(ctx, in.AssumeClean)
	default:
		err = a.cfg.errorf(proto.CodeInvalid, "resource action %q", in.Action)
	}
	if err == nil {
		r.forget()
		a.hub.event(proto.LevelInfo, r.name, "", fmt.Sprintf("%s %s by %s", in.Action, r.name, in.By))
	}
	return proto.Empty{}, err
}
