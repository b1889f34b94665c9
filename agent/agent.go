package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"example.com/santui/agent/op"
	"example.com/santui/agent/service"
	"example.com/santui/datapath"
	"example.com/santui/lvmops"
	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// stopPatience is how long an agent that is asked to end waits for devices that are in use.
const stopPatience = 30 * time.Second

// Agent is one node's daemon. Make it with New, then Run it once.
type Agent struct {
	cfg       Config
	pair      string
	peerName  string
	info      proto.AgentInfo
	log       *slog.Logger
	ops       *lvmops.Ops
	service   *service.Ops
	hub       *hub
	journal   *op.Journal
	runner    *op.Runner
	peer      *peer
	identity  *session.Identity
	resources []*resource
	syncOrder datapath.SyncOrder // of all resources
	probes    probes
	stepping  chan struct{} // holds a token while a step is under way on this node
	mux       *session.Mux
	peerMux   *session.Mux

	mu    sync.Mutex // protects what follows
	lock  *proto.Lock
	op    *proto.Op                  // newest operation this agent runs or takes part in
	opAt  time.Time                  // when it last got on
	ready map[string]proto.CheckList // resource -> readiness
	told  map[string]verdict         // resource -> what the event list says of it
}

// New reads drbd.conf and the journal and prepares everything, without touching disks or the network.
func New(cfg Config, log *slog.Logger) (*Agent, error) {
	a := &Agent{cfg: cfg, log: log, hub: newHub(cfg.Node, log), ready: map[string]proto.CheckList{}, told: map[string]verdict{}, stepping: make(chan struct{}, 1)}
	a.info = proto.AgentInfo{Version: Version, PID: os.Getpid(), StartedAt: time.Now(), Kernel: kernelRelease()}
	var err error
	if a.ops, err = lvmops.New(lvmops.Options{Runner: lvmops.NewExec(), Node: cfg.Node, Log: log}); err != nil {
		return nil, err
	}
	a.service = service.New(service.Options{Runner: lvmops.NewExec(), Exports: a.ops.Exports, Node: cfg.Node})
	confs, err := loadResources(cfg)
	if err != nil {
		return nil, err
	}
	a.peerName = confs[0].peer
	a.pair = cfg.pairName(a.peerName)
	for _, c := range confs {
		r, err := a.newResource(c)
		if err != nil {
			return nil, err
		}
		a.resources = append(a.resources, r)
	}
	if a.identity, err = EnsureIdentity(cfg); err != nil {
		return nil, fmt.Errorf("this node's key: %w", err)
	}
	a.journal, err = op.OpenJournal(filepath.Join(cfg.StateDir, "ops"), cfg.Node)
	if a.journal == nil {
		return nil, err
	}
	if err != nil {
		a.hub.event(proto.LevelWarn, "", "", err.Error())
	}
	for _, r := range a.resources {
		if o := a.journal.Unfinished(r.name); o != nil {
			a.op = o
		}
	}
	a.peer = newPeer(a)
	a.runner = op.NewRunner(a.pair, local{a}, a.peer, a.journal, a.showOp)
	a.runner.Limits = cfg.Limits
	a.mux, a.peerMux = a.cockpitMux(), a.newPeerMux()
	a.hub.build = a.snapshot
	return a, nil
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Run brings the resources up and serves until ctx ends; then it takes everything down in order. A device that is in use
// keeps the agent alive for a while, because what is mounted on it would lose its disk.
func (a *Agent) Run(ctx context.Context) error {
	listeners, err := a.listen(ctx)
	if err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { a.hub.run(run) })
	for _, r := range a.resources {
		wg.Go(func() { r.statusLoop(run, func() { a.track(r); a.hub.poke() }) })
		wg.Go(func() { r.stackLoop(run, a.ops, a.moving, a.stackShare, func() { a.seen(r); a.hub.poke() }) })
		wg.Go(func() { a.up(run, r) })
		wg.Go(func() { a.guard(run, r) })
	}
	wg.Go(func() { a.peer.run(run) })
	wg.Go(func() { a.readyLoop(run) })
	if a.cfg.InhibitShutdown {
		wg.Go(func() { a.newInhibitor().run(run, a.hub) })
	}
	for _, l := range listeners {
		wg.Go(func() { a.serve(run, l) })
	}
	a.hub.event(proto.LevelInfo, "", "", fmt.Sprintf("agent %s started on %s, pair %s", Version, a.cfg.Node, a.pair))
	<-ctx.Done()
	a.runner.Close()
	a.probes.stopAll()
	err = a.down()
	cancel()
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	wg.Wait()
	return err
}

func (a *Agent) up(ctx context.Context, r *resource) {
	if err := r.eng.Up(ctx); err != nil && ctx.Err() == nil {
		r.mu.Lock()
		r.upErr = err.Error()
		r.mu.Unlock()
		a.hub.event(proto.LevelAlert, r.name, "", err.Error())
	}
}

// down closes every resource; one that is in use is tried again until patience ends.
func (a *Agent) down() error {
	deadline := time.Now().Add(stopPatience)
	var errs []error
	for _, r := range a.resources {
		told := false
		for {
			ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
			err := r.eng.Close(ctx)
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, &proto.Error{Code: proto.CodeBusy}) || time.Now().After(deadline) {
				errs = append(errs, err)
				break
			}
			if !told {
				told = true
				a.hub.event(proto.LevelAlert, r.name, "", "asked to stop, but the device is in use: "+err.Error())
			}
			time.Sleep(500 * time.Millisecond)
		}
	}
	return errors.Join(errs...)
}

// resource finds a resource by name; "" means the only one.
func (a *Agent) resource(name string) (*resource, error) {
	if name == "" && len(a.resources) == 1 {
		return a.resources[0], nil
	}
	var known []string
	for _, r := range a.resources {
		if r.name == name {
			return r, nil
		}
		known = append(known, r.name)
	}
	return nil, a.cfg.errorf(proto.CodeNotFound, "resource %q is not in %s (there is %v)", name, a.cfg.DRBDConf, known)
}

// showOp makes o the operation that the snapshot shows.
func (a *Agent) showOp(o proto.Op) {
	a.mu.Lock()
	newer := a.op == nil || a.op.ID == o.ID && a.op.Rev < o.Rev ||
		a.op.ID != o.ID && (!o.Started.Before(a.op.Started) || a.op.State.Final() && !o.State.Final()) // an old one that is undone now
	ended := newer && o.State.Final() && (a.op == nil || a.op.ID != o.ID || !a.op.State.Final())
	if newer {
		a.op, a.opAt = &o, time.Now()
	}
	a.mu.Unlock()
	if newer && !underWay(o) {
		for _, r := range a.resources {
			r.wake()
		}
	}
	a.tookOver(o)
	if ended {
		level := proto.LevelInfo
		if o.State != proto.OpDone {
			level = proto.LevelAlert
		}
		a.hub.event(level, o.Plan.Resource, o.ID, fmt.Sprintf("%s of %s to %s: %s", o.Plan.Verb, o.Plan.Resource, o.Plan.To, o.Outcome))
	}
	a.hub.poke()
}

// moveQuiet is how long looks that nobody asked for wait for the next step of an operation. They take programs and
// processor time away from the steps, and what they saw would be old with the next one.
const moveQuiet = 5 * time.Second

// moving says whether an operation is in the middle of its steps.
func (a *Agent) moving() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.op != nil && underWay(*a.op) && time.Since(a.opAt) < moveQuiet
}

func underWay(o proto.Op) bool { return o.State == proto.OpRunning || o.State == proto.OpUndoing }

func (a *Agent) peerLink() proto.PeerLink { return a.peer.link() }

// snapshot reads all sources; the hub calls it.
func (a *Agent) snapshot() proto.Snapshot {
	s := proto.Snapshot{
		Schema: proto.Schema, Pair: a.pair, Node: a.cfg.Node, Peer: a.peerName, Agent: a.info, PeerLink: a.peerLink(), Events: a.hub.eventList(),
	}
	for _, r := range a.resources {
		st := a.dress(r, r.eng.Status())
		st.Stack = r.cached(a.stackShare())
		s.Resources = append(s.Resources, st)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Lock, s.Op = a.lock, a.op
	for _, r := range s.Resources {
		if l, ok := a.ready[r.Name]; ok && r.Role == proto.Secondary && r.PeerRole != proto.Secondary {
			s.Readiness = append(s.Readiness, l)
		}
	}
	return s
}

// snapshotNow is the snapshot for somebody who asks once: what a step has just changed must show in it, even if the hub has
// not come to it yet.
func (a *Agent) snapshotNow(ctx context.Context) proto.Snapshot {
	for _, r := range a.resources {
		r.stack(ctx, a.ops, age{most: stackPeriod}, watchedShare)
	}
	s := a.snapshot()
	s.Seq, s.At = a.hub.cur.Load().Seq, time.Now()
	return s
}
