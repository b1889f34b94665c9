package agent

import (
	"context"
	"fmt"
	"time"

	"example.com/santui/agent/op"
	"example.com/santui/proto"
)

// lastWritePeriod is how often the time of the last write is stored while a Primary writes: it costs a synced file.
const lastWritePeriod = time.Minute

// track notes when the link and the role of a resource changed, durably where a takeover or a split brain needs it. The
// resource's statusLoop calls it after every change of the engine.
func (a *Agent) track(r *resource) {
	st, now := r.eng.Status(), time.Now()
	up := st.Conn >= proto.Connected
	r.mu.Lock()
	first := r.linkAt.IsZero()
	broke := r.link && !up
	if r.linkAt.IsZero() || r.link != up {
		r.link, r.linkAt = up, now
	}
	if st.Role == proto.Primary && r.wrote != 0 && st.Counters.Written > r.wrote {
		r.lastWrite = now.Truncate(time.Second)
	}
	r.wrote = st.Counters.Written
	lastWrite := r.lastWrite
	if up {
		r.split = ""
	}
	r.mu.Unlock()
	whole := up && !st.Conn.Syncing() && st.DiskState == proto.UpToDate && st.PeerDisk == proto.UpToDate
	rejoined := ""
	err := a.journal.Remember(r.name, func(k *op.Known) {
		if broke && st.LastInSync.After(k.InSync) {
			k.InSync = st.LastInSync.Round(0)
		}
		if d := lastWrite.Sub(k.LastWrite); d >= lastWritePeriod || d > 0 && (broke || st.Role != k.Role) {
			k.LastWrite = lastWrite.Round(0)
		}
		switch {
		case st.Role == proto.Primary && (k.Role != st.Role || k.Own.Primary.IsZero()):
			k.Own.Primary, k.Own.Until = now.Round(0), time.Time{}
		case st.Role == proto.Secondary && k.Role == proto.Primary && first: // its agent died: nobody saw when that was
			k.Own.Until = k.LastWrite
		case st.Role == proto.Secondary && k.Role == proto.Primary:
			k.Own.Until = now.Round(0)
		}
		if st.Role != k.Role && (st.Role == proto.Primary || st.Role == proto.Secondary) {
			k.Role, k.Since = st.Role, now.Round(0)
		}
		if whole && k.Rejoin != "" {
			rejoined, k.Rejoin = k.Rejoin, ""
		}
	})
	if err != nil {
		a.log.Warn("what is known of the resource could not be stored", "resource", r.name, "err", err)
	}
	if rejoined != "" {
		a.hub.event(proto.LevelInfo, r.name, "", a.peerName+" has rejoined: both copies are UpToDate")
	}
}

// seen remembers what is on the device of a Primary, as of the last look.
func (a *Agent) seen(r *resource) {
	st := r.eng.Status()
	r.mu.Lock()
	st.Stack = r.seen
	fresh := !r.at.IsZero()
	r.mu.Unlock()
	if !fresh || st.Role != proto.Primary || st.Node == "" {
		return
	}
	o := proto.Observation{Node: a.cfg.Node, Resource: st}
	a.mu.Lock()
	o.Lock = a.lock
	if a.op != nil && !a.op.State.Final() {
		o.OpID = a.op.ID
	}
	a.mu.Unlock()
	if err := a.journal.SeeOwn(o); err != nil {
		a.log.Warn("what is on the device could not be remembered", "resource", r.name, "err", err)
	}
}

// dress adds to what the engine says of a resource what the agent knows beside it.
func (a *Agent) dress(r *resource, st proto.Resource) proto.Resource {
	k := a.journal.Known(r.name)
	a.mu.Lock()
	lock := a.lock
	a.mu.Unlock()
	if lock != nil {
		st.Lights.SafePowerOff = proto.Light{Why: fmt.Sprintf("operation %s of %s runs", lock.OpID, lock.Owner)}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	st.ConnSince, st.LastWrite, st.NeedsRejoin, st.SplitBrain = r.linkAt, r.lastWrite, k.Rejoin, r.split != ""
	if st.LastWrite.IsZero() {
		st.LastWrite = k.LastWrite
	}
	st.WasPrimary = k.Own.Primary
	if st.Role == k.Role {
		st.RoleSince = k.Since
	}
	if st.LastInSync.IsZero() {
		st.LastInSync = k.InSync
	}
	switch {
	case r.alarm != "": // worse than anything else that can be said
		st.Problem = r.alarm
	case st.Problem != "":
	case st.DiskState == proto.Diskless && r.upErr != "":
		st.Problem = r.upErr
	case r.split != "":
		st.Problem = r.split
	case k.Rejoin != "":
		st.Problem = k.Rejoin
	}
	return st
}

// tookOver flags the pair once a takeover has made this node Primary.
func (a *Agent) tookOver(o proto.Op) {
	if o.Plan.Verb != proto.VerbTakeover || o.Runner != a.cfg.Node {
		return
	}
	for _, s := range o.Steps {
		if s.Step.Kind != proto.StepPromote || s.Step.Skip != "" || s.Result.State != proto.StepDone || s.Undo.State == proto.StepUndone {
			continue
		}
		text := fmt.Sprintf("%s took over from %s at %s (operation %s): %s must rejoin. It must not be used before",
			a.cfg.Node, o.Plan.From, s.Result.Started.Local().Format(time.DateTime), o.ID, o.Plan.From)
		if o.State.Final() && a.journal.Known(o.Plan.Resource).Rejoin == "" {
			continue // it rejoined meanwhile
		}
		if err := a.journal.Remember(o.Plan.Resource, func(k *op.Known) { k.Rejoin = text }); err != nil {
			a.log.Warn("the takeover could not be remembered", "op", o.ID, "err", err)
		}
	}
}

// compareHistories looks for a split brain while the agents see each other and the replicas do not: the engine notices
// one only on the node whose handshake got far enough.
func (a *Agent) compareHistories(ctx context.Context, r *resource) {
	st := r.eng.Status()
	if st.Conn >= proto.Connected || st.DiskState < proto.Outdated || !a.peerLink().Up {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readyPeriod)
	defer cancel()
	there, err := a.peer.Observe(ctx, proto.ObserveRequest{Resource: r.name, Brief: true})
	if err != nil || there.Resource.DiskState < proto.Outdated {
		return
	}
	text := ""
	if l := op.LineageOf(proto.Observation{Node: a.cfg.Node, Resource: st}, there); l.Split {
		text = l.Text + ". Nothing is resynced; santui resolve --discard NODE gives one side's changes up"
	}
	r.mu.Lock()
	fresh := text != "" && r.split == ""
	r.split = text
	r.mu.Unlock()
	if fresh {
		a.hub.event(proto.LevelAlert, r.name, "", text)
	}
	a.hub.poke()
}

// linkStep connects and disconnects the replication of a resource, as drbdadm would.
func (l local) linkStep(ctx context.Context, r *resource, kind proto.StepKind, res *proto.StepResult) error {
	st := r.eng.Status()
	var err error
	switch {
	case kind == proto.StepResync:
		err = l.awaitReplication(ctx, r)
	case kind == proto.StepDisconnect && st.Conn == proto.StandAlone, kind == proto.StepConnect && st.Conn > proto.StandAlone:
		res.State = proto.StepAlready
	case kind == proto.StepDisconnect:
		err = r.eng.Disconnect(ctx)
	default:
		err = r.eng.Connect(ctx, kind == proto.StepDiscard)
	}
	st = r.eng.Status()
	res.Now = fmt.Sprintf("%s is %s, %s here and %s on %s", r.name, st.Conn, st.DiskState, st.PeerDisk, l.peerName)
	return err
}

// awaitReplication waits until the copies are one or become one by a resync.
func (l local) awaitReplication(ctx context.Context, r *resource) error {
	for {
		ch := r.eng.Changed()
		st := r.eng.Status()
		switch {
		case st.Conn == proto.Connected, st.Conn.Syncing():
			return nil
		case st.Conn == proto.StandAlone:
			e := l.cfg.errorf(proto.CodeState, "%s is StandAlone: %s", r.name, st.Problem)
			return e.WithRemedy("santui rejoin tries again; santui resolve if it is a split brain")
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return l.cfg.errorf(proto.CodeTimeout, "%s did not connect: it is %s", r.name, st.Conn).WithRemedy("look at the replication link between the nodes")
		}
	}
}
