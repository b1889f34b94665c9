package op

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/santui/proto"
)

// grace is what a step may take beyond its own limit before the runner stops waiting for the answer. A program that cannot be
// ended is given up three of lvmops.Exec's graces after its limit, and the node's word on it says more than silence.
const grace = 10 * time.Second

// attestAge is how old the peer's statement that it is Secondary may be when the promotion starts.
const attestAge = 2 * time.Second

// Runner starts operations on the node that becomes Primary and keeps at most one running.
type Runner struct {
	// Limits are time limits of steps, seconds, other than the usual ones. To be set before the first use.
	Limits map[proto.StepKind]float64

	pair        string
	local, peer Node
	journal     *Journal
	publish     func(proto.Op)

	wg sync.WaitGroup

	mu  sync.Mutex // protects cur
	cur *running
}

// running is the handle that others have on the operation's goroutine.
type running struct {
	id      string
	decide  chan proto.DecideRequest
	done    chan struct{}
	aborted context.CancelFunc
}

func newRunning(id string, cancel context.CancelFunc) *running {
	return &running{id: id, decide: make(chan proto.DecideRequest), done: make(chan struct{}), aborted: cancel}
}

// NewRunner returns a Runner. publish is called with a copy before every step and when something else changes, from the
// operation's goroutine; it must not block.
func NewRunner(pair string, local, peer Node, journal *Journal, publish func(proto.Op)) *Runner {
	return &Runner{pair: pair, local: local, peer: peer, journal: journal, publish: publish}
}

// Close interrupts the running operation between two steps and waits for it. The journal then says how far it came.
func (r *Runner) Close() {
	r.mu.Lock()
	if r.cur != nil {
		r.cur.aborted()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// Runs says whether this version carries a verb out as an operation between the two nodes of a pair.
func Runs(verb proto.Verb) bool {
	switch verb {
	case proto.VerbFailover, proto.VerbDrill, proto.VerbTakeover, proto.VerbRejoin, proto.VerbResolve:
		return true
	default:
		return false
	}
}

// Look asks both agents and evaluates checks and plan of a verb on this node. The looks at the stacks may be maxAge old;
// 0 asks for fresh ones.
func (r *Runner) Look(ctx context.Context, req proto.CheckRequest, maxAge time.Duration) (proto.PlanReply, error) {
	v, err := r.view(ctx, proto.ObserveRequest{Resource: req.Resource, MaxAge: maxAge.Seconds()}, req.Verb)
	if err != nil {
		return proto.PlanReply{}, err
	}
	v.NoSnapshot = req.NoSnapshot
	return r.reply(req.Verb, v), nil
}

func (r *Runner) reply(verb proto.Verb, v View) proto.PlanReply {
	now := time.Now()
	plan := MakePlan(verb, r.pair, v, now)
	return proto.PlanReply{
		Plan: plan, Hash: plan.Hash(), Last: r.journal.LastOutage(plan.Resource),
		Checks: proto.CheckList{
			Schema: proto.Schema, Verb: verb, Resource: plan.Resource, From: plan.From, To: plan.To, At: now, Checks: ChecksOf(verb, v),
		},
	}
}

// peerLook is how long the other agent may take for its answer: more than a look at its node takes at most (10 s, stackLimit of
// package agent), and less than a command waits for ours (15 s). A check says that an agent is silent; it is not silent itself.
const peerLook = 12 * time.Second

// view asks both agents the same, and what a verb needs to know beside it.
func (r *Runner) view(ctx context.Context, here proto.ObserveRequest, verb proto.Verb) (View, error) {
	resource, ask := here.Resource, here
	v := View{Known: r.journal.Known(resource), Limits: r.Limits}
	if verb == proto.VerbRejoin || verb == proto.VerbFailover { // what the other node may have left of the service
		ask.Targets, ask.VGs = targets(v.Known.Peer.Mounts), uuids(v.Known.Peer)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		asked, cancel := context.WithTimeout(ctx, peerLook)
		defer cancel()
		v.From, v.FromErr = r.peer.Observe(asked, ask)
		v.Heard = time.Now()
	})
	var err error
	v.To, err = r.local.Observe(ctx, here)
	wg.Wait()
	if err != nil {
		return v, fmt.Errorf("look at %s: %w", resource, err)
	}
	if v.FromErr != nil {
		v.From = proto.Observation{Node: r.peer.Name()}
	}
	v.Unfinished, v.Moved = r.journal.Unfinished(resource), r.journal.lastMove(resource)
	if v.Unfinished == nil && v.FromErr != nil {
		v.Unfinished = r.journal.abandoned(resource, r.peer.Name())
	}
	// What the plan would use here is known only now.
	places, err := r.local.Observe(ctx, proto.ObserveRequest{Resource: resource, Brief: true, Targets: Targets(verb, v), VGs: groups(verb, v)})
	if err != nil {
		return v, fmt.Errorf("look at %s: %w", resource, err)
	}
	v.To.Targets, v.To.Left = places.Targets, places.Left
	return v, nil
}

// Start begins an operation on this node and returns at once with it running. A refusal is a *proto.Error: CodeVeto with
// the blocking checks, CodeNotConfirmed, CodeStale (the plan changed), CodeLocked.
func (r *Runner) Start(ctx context.Context, req proto.OpStartRequest) (proto.Op, error) {
	if !Runs(req.Verb) {
		return proto.Op{}, proto.Errorf(proto.CodeUnsupported, "%s is not in this version", req.Verb).On(r.local.Name())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if o, ok := r.journal.requested(req.RequestID); ok {
		return o, nil
	}
	if r.cur != nil {
		o, _ := r.journal.Get(r.cur.id)
		return proto.Op{}, lockedBy(r.local.Name(), proto.Lock{OpID: o.ID, Owner: o.Owner, Node: r.local.Name(), Since: o.Started})
	}
	v, err := r.view(ctx, proto.ObserveRequest{Resource: req.Resource, Whole: true}, req.Verb)
	if err != nil {
		return proto.Op{}, err
	}
	o, err := r.prepare(ctx, req, v)
	if err != nil || req.DryRun {
		return o, err
	}
	x := &execution{r: r, op: o, policy: req.OnFailure, each: req.StepByStep, groups: v.From.Resource.Stack.VGs, silent: req.Verb == proto.VerbTakeover}
	if err := r.launch(ctx, x, o.Owner, x.run); err != nil {
		return proto.Op{}, err
	}
	return o, nil
}

// launch takes the locks, journals the operation and starts its goroutine. Callers hold mu.
func (r *Runner) launch(ctx context.Context, x *execution, owner string, run func(context.Context)) error {
	x.lock = proto.Lock{OpID: x.op.ID, Owner: owner, Node: r.local.Name(), Since: time.Now()}
	if err := r.lockBoth(ctx, x.lock, x.op.Plan.Verb); err != nil {
		return err
	}
	if err := r.journal.Put(x.op); err != nil {
		return errors.Join(err, r.unlockBoth(context.WithoutCancel(ctx), x.lock))
	}
	running, cancel := context.WithCancel(context.Background())
	r.cur = newRunning(x.op.ID, cancel)
	x.decide = r.cur.decide
	done, publish := r.cur.done, r.publish
	r.wg.Go(func() {
		defer cancel()
		defer close(done)
		run(running)
		r.mu.Lock()
		r.cur = nil
		r.mu.Unlock()
		publish(x.op) // last, so that whoever sees the end can start the next one
	})
	return nil
}

// prepare refuses or builds the operation from a fresh look; with DryRun it lets both agents validate every step.
func (r *Runner) prepare(ctx context.Context, req proto.OpStartRequest, v View) (proto.Op, error) {
	v.NoSnapshot = req.NoSnapshot
	reply := r.reply(req.Verb, v)
	now := time.Now()
	o := proto.Op{
		Schema: proto.Schema, ID: newID(now), Plan: reply.Plan, PlanHash: reply.Hash, Checks: reply.Checks, State: proto.OpRunning,
		Owner: req.Owner, Runner: r.local.Name(), RequestID: req.RequestID, Started: now, Rev: 1, Statement: strings.TrimSpace(req.Statement),
		Versions: versions(v),
	}
	for _, c := range reply.Checks.Checks {
		if c.Code == proto.CheckDataRisk || c.Code == proto.CheckDiscard {
			o.AtRisk = c.Evidence
		}
	}
	for _, s := range reply.Plan.Steps {
		o.Steps = append(o.Steps, proto.StepStatus{Step: s, Result: proto.StepResult{State: proto.StepWaiting}})
	}
	var blocking []proto.Check
	for _, c := range reply.Checks.Blocking() {
		if !c.Hard && slices.Contains(req.Accept, c.Code) {
			o.Accepted = append(o.Accepted, c.Code)
			continue
		}
		blocking = append(blocking, c)
	}
	if err := locked(req.Verb, v); err != nil {
		return proto.Op{}, err
	}
	if len(blocking) > 0 {
		return proto.Op{}, veto(r.local.Name(), reply.Plan, blocking)
	}
	if req.PlanHash != "" && req.PlanHash != reply.Hash {
		return proto.Op{}, proto.Errorf(proto.CodeStale, "the plan changed since it was shown (%s, now %s)", req.PlanHash, reply.Hash).
			On(r.local.Name()).WithRemedy("look at the plan again")
	}
	if req.DryRun {
		return r.dryRun(ctx, o)
	}
	return o, r.confirmed(req, reply.Plan)
}

// versions says what runs on the nodes that answered.
func versions(v View) map[string]string {
	out := map[string]string{}
	for _, o := range []proto.Observation{v.From, v.To} {
		if o.Agent.Version == "" {
			continue
		}
		out[o.Node] = "agent " + o.Agent.Version + ", kernel " + o.Agent.Kernel
		if o.Facts == nil {
			continue
		}
		for _, name := range sortedKeys(o.Facts.Versions) {
			out[o.Node] += ", " + name + " " + o.Facts.Versions[name]
		}
	}
	return out
}

// confirmed checks the typed consent. A rejoin needs none: it discards nothing and moves nothing.
func (r *Runner) confirmed(req proto.OpStartRequest, p proto.Plan) error {
	if req.Confirm != r.pair && req.Verb != proto.VerbRejoin {
		return proto.Errorf(proto.CodeNotConfirmed, "the %s of %s to %s is not confirmed", p.Verb, p.Resource, p.To).
			WithRemedy("type the pair's name: --confirm %s", r.pair)
	}
	if req.Verb == proto.VerbTakeover && len(strings.TrimSpace(req.Statement)) < minStatement {
		return proto.Errorf(proto.CodeNotConfirmed, "the takeover needs your statement how you know that %s is off; it is recorded", p.From).
			WithRemedy("--peer-is-off \"powered off at the rack by me\"")
	}
	return nil
}

// minStatement is the shortest statement about a gone peer that is taken for one, bytes.
const minStatement = 5

// locked is the refusal while another operation holds the lock of either node. It is more than a veto: the lock's owner
// is somebody to talk to.
func locked(verb proto.Verb, v View) error {
	for _, o := range []proto.Observation{v.From, v.To} {
		if o.Lock != nil && (verb != proto.VerbTakeover || o.Lock.Node != v.From.Node) {
			return lockedBy(o.Node, *o.Lock)
		}
	}
	return nil
}

func lockedBy(node string, l proto.Lock) *proto.Error {
	e := proto.Errorf(proto.CodeLocked, "operation %s of %s holds the lock since %s", l.OpID, l.Owner, l.Since.Local().Format(time.TimeOnly)).
		On(node).WithRemedy("wait, or santui attach %s", l.OpID)
	e.Lock = &l
	return e
}

func veto(node string, p proto.Plan, blocking []proto.Check) *proto.Error {
	codes := make([]string, len(blocking))
	for i, c := range blocking {
		codes[i] = c.Code
		if len(c.Evidence) > 0 {
			codes[i] += " (" + c.Evidence[0] + ")"
		}
	}
	e := proto.Errorf(proto.CodeVeto, "%s of %s to %s is not possible now: %s", p.Verb, p.Resource, p.To, strings.Join(codes, "; ")).On(node)
	e.Resource, e.Checks = p.Resource, blocking
	e.Remedy = blocking[0].Remedy
	for _, c := range blocking {
		if c.Code == proto.CheckSplit { // nothing else can be cured before
			e.Remedy = c.Remedy
		}
	}
	return e
}

func (r *Runner) dryRun(ctx context.Context, o proto.Op) (proto.Op, error) {
	o.State, o.Outcome = proto.OpDone, "dry run: both agents accept every step; nothing was changed"
	for i, s := range o.Steps {
		if s.Step.Skip != "" {
			o.Steps[i].Result = skipped(s.Step)
			continue
		}
		res := r.node(s.Step.Node).Step(ctx, proto.PeerStepRequest{OpID: o.ID, Step: s.Step, DryRun: true})
		o.Steps[i].Result = res
		if res.Err != nil {
			o.State, o.Err, o.Outcome = proto.OpAborted, res.Err, fmt.Sprintf("dry run: step %d would be refused: %v", s.Step.Index, res.Err)
			break
		}
	}
	o.Ended = time.Now()
	return o, nil
}

func newID(now time.Time) string {
	var b [2]byte
	_, _ = rand.Read(b[:]) // never fails; see crypto/rand
	return now.UTC().Format("20060102-150405-") + hex.EncodeToString(b[:])
}

func (r *Runner) node(name string) Node {
	if name == r.local.Name() {
		return r.local
	}
	return r.peer
}

// lockBoth takes the lock here and there, or nowhere. In a takeover there is only here, and a lock that the gone node
// held here has died with it.
func (r *Runner) lockBoth(ctx context.Context, l proto.Lock, verb proto.Verb) error {
	if verb == proto.VerbTakeover {
		o, err := r.local.Observe(ctx, proto.ObserveRequest{Brief: true})
		if err == nil && o.Lock != nil && o.Lock.Node == r.peer.Name() {
			err = r.local.Unlock(ctx, *o.Lock)
		}
		return errors.Join(err, r.local.Lock(ctx, l))
	}
	if err := r.local.Lock(ctx, l); err != nil {
		return err
	}
	if err := r.peer.Lock(ctx, l); err != nil {
		return errors.Join(err, r.local.Unlock(context.WithoutCancel(ctx), l))
	}
	return nil
}

func (r *Runner) unlockBoth(ctx context.Context, l proto.Lock) error {
	return errors.Join(r.peer.Unlock(ctx, l), r.local.Unlock(ctx, l))
}

// Decide passes an operator's choice to the running operation.
func (r *Runner) Decide(ctx context.Context, d proto.DecideRequest) (proto.Op, error) {
	r.mu.Lock()
	cur := r.cur
	r.mu.Unlock()
	if cur == nil || cur.id != d.ID {
		return r.undoLater(ctx, d)
	}
	select {
	case cur.decide <- d:
	case <-cur.done:
	case <-ctx.Done():
		return proto.Op{}, proto.Errorf(proto.CodeBusy, "operation %s is in the middle of a step and did not take the decision", d.ID).
			On(r.local.Name()).WithRemedy("try again when the step has ended")
	}
	o, _ := r.journal.Get(d.ID)
	return o, nil
}

// undoLater undoes an operation that does not run any more because its agent died or it was left half way. The inverses
// are idempotent and look before they act, so it does not matter how far it really came.
func (r *Runner) undoLater(ctx context.Context, d proto.DecideRequest) (proto.Op, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur != nil {
		o, _ := r.journal.Get(r.cur.id)
		return proto.Op{}, lockedBy(r.local.Name(), proto.Lock{OpID: o.ID, Owner: o.Owner, Node: r.local.Name(), Since: o.Started})
	}
	o, err := r.mayUndo(d)
	if err != nil {
		return proto.Op{}, err
	}
	last := -1
	for i := range o.Steps {
		res := &o.Steps[i].Result
		switch res.State {
		case proto.StepWaiting, proto.StepSkipped:
			continue
		case proto.StepRunning:
			res.State = proto.StepFailed
			res.Err = proto.Errorf(proto.CodeTimeout, "the agent ended during this step").On(r.local.Name())
		default:
		}
		last = i
	}
	o.Ended, o.Err = time.Time{}, nil
	o.State, o.Outcome = proto.OpUndoing, "being undone by "+d.By
	o.Rev++
	x := &execution{r: r, op: o, policy: proto.ChoiceKeep}
	return o, r.launch(ctx, x, d.By, func(ctx context.Context) { x.undo(ctx, last) })
}

// mayUndo finds the operation and says why it cannot be undone any more.
func (r *Runner) mayUndo(d proto.DecideRequest) (proto.Op, error) {
	o, ok := r.journal.Get(d.ID)
	refuse := func(code proto.ErrorCode, format string, args ...any) (proto.Op, error) {
		return proto.Op{}, proto.Errorf(code, format, args...).On(r.local.Name())
	}
	if !ok {
		return refuse(proto.CodeNotFound, "operation %s is not in this node's journal", d.ID)
	}
	newest := r.journal.Unfinished(o.Plan.Resource)
	switch {
	case o.Runner != r.local.Name():
		return refuse(proto.CodeWrongNode, "operation %s was run by the agent of %s, which must be asked", o.ID, o.Runner)
	case o.State != proto.OpOrphaned && o.State != proto.OpKept:
		return refuse(proto.CodeState, "operation %s is %s: there is nothing left to decide", o.ID, o.State)
	case newest == nil || newest.ID != o.ID:
		return refuse(proto.CodeState, "a later operation has come to an end since %s: undoing it now would undo that one too", o.ID)
	case o.Plan.Verb == proto.VerbResolve || o.Plan.Verb == proto.VerbRejoin:
		return refuse(proto.CodeState, "a %s is not undone; run it again to complete it", o.Plan.Verb)
	case d.Choice != proto.ChoiceUndo:
		e := proto.Errorf(proto.CodeState, "operation %s is not running", o.ID).On(r.local.Name())
		return proto.Op{}, e.WithRemedy("santui %s --to %s carries on, santui undo %s goes back", proto.VerbFailover, o.Plan.To, o.ID)
	case d.Confirm != r.pair:
		e := proto.Errorf(proto.CodeNotConfirmed, "undoing %s is not confirmed", o.ID).On(r.local.Name())
		return proto.Op{}, e.WithRemedy("type the pair's name: --confirm %s", r.pair)
	}
	o.Steps = slices.Clone(o.Steps)
	return o, nil
}

// progress says in words how far an operation came.
func progress(o proto.Op) string {
	last := "no step was completed"
	for _, s := range o.Steps {
		if s.Result.State == proto.StepDone || s.Result.State == proto.StepAlready {
			last = fmt.Sprintf("the last completed step is %d (%s on %s)", s.Step.Index, s.Step.Kind, s.Step.Node)
		}
	}
	return last
}
