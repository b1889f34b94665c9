package op

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"example.com/santui/proto"
)

// execution is one running operation. All of it belongs to the goroutine that calls run.
type execution struct {
	r        *Runner
	op       proto.Op
	lock     proto.Lock
	policy   proto.Choice // what to do on failure, "" = wait for a decision
	decide   chan proto.DecideRequest
	pausing  bool
	each     bool                         // pause before every step
	attested map[string]proto.Observation // what a node said when it last was Secondary; At is when it was asked
	groups   []proto.VG                   // of the node that has them, at the start
	silent   bool                         // the peer's failure to journal was logged, or is no news
}

// run executes the plan and returns when the operation is final, journalled and unlocked; the caller publishes the end.
func (x *execution) run(ctx context.Context) {
	for i := 0; i < len(x.op.Steps); {
		x.pausing = x.pausing || x.each
		if done := x.between(ctx); done {
			return
		}
		if x.step(ctx, i) {
			i++
			continue
		}
		switch x.stopped(ctx, i) {
		case proto.ChoiceRetry:
			x.op.State, x.op.Err, x.op.Choices = proto.OpRunning, nil, nil
		case proto.ChoiceUndo:
			x.undo(ctx, i)
			return
		default:
			x.finish(proto.OpKept, fmt.Sprintf("stopped at step %d (%s on %s) and left so: %s",
				x.op.Steps[i].Step.Index, x.op.Steps[i].Step.Kind, x.op.Steps[i].Step.Node, x.where(ctx)))
			return
		}
	}
	x.finish(proto.OpDone, x.success())
}

// success words the end of an operation whose steps are all done.
func (x *execution) success() string {
	p := x.op.Plan
	switch p.Verb {
	case proto.VerbDrill:
		text := fmt.Sprintf("there and back: %s is Primary on %s", p.Resource, p.From)
		var n int
		var bytes int64
		for _, s := range x.op.Steps {
			if s.Step.Kind == proto.StepVerify && s.Result.Sentinel != nil {
				n, bytes = n+s.Result.Sentinel.Files, bytes+s.Result.Sentinel.Bytes
			}
		}
		return text + fmt.Sprintf("; %d files read back, %d KiB, all as written", n, bytes>>10)
	case proto.VerbTakeover:
		return fmt.Sprintf("%s is Primary on %s, without %s: it must rejoin", p.Resource, p.To, p.From)
	case proto.VerbRejoin:
		return fmt.Sprintf("%s follows %s again", p.From, p.To)
	case proto.VerbResolve:
		return fmt.Sprintf("the changes of %s are discarded: it follows %s again", p.From, p.To)
	default:
		return fmt.Sprintf("%s is Primary on %s", p.Resource, p.To)
	}
}

// between handles what may happen between two steps: a request to pause, or the agent shutting down. It reports whether
// the operation is over.
func (x *execution) between(ctx context.Context) bool {
	for {
		select {
		case d := <-x.decide:
			x.pausing = d.Choice == proto.ChoicePause
			if d.Choice == proto.ChoiceUndo {
				x.undo(ctx, x.nextStep())
				return true
			}
			continue
		default:
		}
		if ctx.Err() != nil {
			x.finish(proto.OpOrphaned, "the agent on "+x.r.local.Name()+" was stopped: "+progress(x.op))
			return true
		}
		if !x.pausing {
			if x.op.State == proto.OpPaused {
				x.op.State = proto.OpRunning
			}
			return false
		}
		x.op.State, x.op.Choices = proto.OpPaused, []proto.Choice{proto.ChoiceResume, proto.ChoiceUndo}
		x.publish()
		select {
		case d := <-x.decide:
			x.op.Choices = nil
			switch d.Choice {
			case proto.ChoiceUndo:
				x.undo(ctx, x.nextStep())
				return true
			case proto.ChoiceResume, proto.ChoiceRetry:
				x.pausing = false
			default:
			}
		case <-ctx.Done():
		}
	}
}

func (x *execution) nextStep() int {
	i := slices.IndexFunc(x.op.Steps, func(s proto.StepStatus) bool { return s.Result.State == proto.StepWaiting })
	if i < 0 {
		return len(x.op.Steps)
	}
	return i
}

// step runs step i and reports success.
func (x *execution) step(ctx context.Context, i int) bool {
	s := &x.op.Steps[i]
	if s.Step.Skip != "" {
		s.Result = skipped(s.Step)
		return true
	}
	if s.Step.Kind == proto.StepPromote {
		if res := x.mayPromote(ctx, s.Step); res.Err != nil {
			s.Result = res
			x.publish()
			return false
		}
	}
	tried := s.Result.State == proto.StepFailed
	s.Result = proto.StepResult{State: proto.StepRunning, Started: time.Now()}
	if err := x.save(); err != nil { // what nobody could take back after this agent's death is not begun
		s.Result = proto.StepResult{State: proto.StepFailed, Started: s.Result.Started, Err: proto.Errorf(proto.CodeFailed,
			"the step was not begun, because it could not be journalled: %v", err).On(x.r.local.Name()).WithRemedy("make room in the agent's state directory")}
		x.publish()
		return false
	}
	switch s.Step.Kind {
	case proto.StepAttest:
		s.Result = x.attest(ctx, s.Step.Node, s.Step.Resource)
	case proto.StepGone:
		s.Result = x.gone(ctx, s.Step)
	default:
		s.Result = x.do(ctx, s.Step, false)
	}
	if tried && s.Result.State == proto.StepAlready {
		s.Result.State = proto.StepDone // by the attempt that was thought to have failed: undo must take it back
	}
	x.measure()
	if s.Result.Err != nil {
		x.publish()
	}
	return s.Result.Err == nil // journalled with the beginning of the next step, or the end
}

// skipped is the result of a step that the plan shows but does not do.
func skipped(s proto.Step) proto.StepResult {
	return proto.StepResult{State: proto.StepSkipped, Now: s.Skip}
}

// mayPromote demands a fresh statement of the node that must not be Primary: time may have passed since the plan's own
// step, for example over a retry. In a takeover that node is gone, which must still be so.
func (x *execution) mayPromote(ctx context.Context, s proto.Step) proto.StepResult {
	if x.op.Plan.Verb == proto.VerbTakeover {
		return x.gone(ctx, s)
	}
	other := x.op.Plan.From
	if s.Node == other {
		other = x.op.Plan.To
	}
	if time.Since(x.attested[other].At) > attestAge {
		if res := x.attest(ctx, other, s.Resource); res.Err != nil {
			return res
		}
	}
	return x.current(ctx, s, x.attested[other])
}

// current proves that the copy which is to be promoted has all that the other one has: the replication link may have broken
// since the checks, while the other node, as Primary, went on writing.
func (x *execution) current(ctx context.Context, s proto.Step, other proto.Observation) proto.StepResult {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitAttest*time.Second)
	defer cancel()
	res := proto.StepResult{State: proto.StepFailed, Started: time.Now()}
	o, err := x.r.node(s.Node).Observe(ctx, proto.ObserveRequest{Resource: s.Resource, Brief: true})
	res.Seconds = time.Since(res.Started).Seconds()
	const remedy = "repair the replication link; when both copies are UpToDate, santui failover to either node carries on"
	switch {
	case err != nil:
		res.Err = asError(err, proto.CodeUnreachable).On(s.Node)
	case o.Resource.Role == proto.Primary: // nothing is about to be promoted
		res.State = proto.StepDone
	case o.Resource.DiskState != proto.UpToDate:
		res.Err = proto.Errorf(proto.CodeState, "%s on %s is %s: it is not promoted", s.Resource, s.Node, o.Resource.DiskState).On(s.Node).WithRemedy(remedy)
	case o.Resource.Conn >= proto.Connected && other.Resource.Conn >= proto.Connected:
		res.State = proto.StepDone
	default: // what it said a moment ago may be from before the link broke
		if again := x.attest(ctx, other.Node, s.Resource); again.Err != nil {
			return again
		}
		other = x.attested[other.Node]
		if l := LineageOf(o, other); l.Split || l.Source == other.Node || l.Source == "" && other.Resource.OutOfSync > 0 {
			res.Err = proto.Errorf(proto.CodeState, "%s has data that %s lacks, since replication broke: %s. %s is not promoted", other.Node, s.Node, l.Text, s.Node).
				On(s.Node).WithRemedy(remedy)
			break
		}
		res.State = proto.StepDone
	}
	return res
}

// gone proves again that the other node is silent on both links.
func (x *execution) gone(ctx context.Context, s proto.Step) proto.StepResult {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitAttest*time.Second)
	defer cancel()
	res := proto.StepResult{State: proto.StepFailed, Started: time.Now()}
	peer, err := x.r.peer.Observe(ctx, proto.ObserveRequest{Resource: s.Resource, Brief: true})
	o, here := x.r.local.Observe(ctx, proto.ObserveRequest{Resource: s.Resource, Brief: true})
	res.Seconds = time.Since(res.Started).Seconds()
	switch {
	case err == nil:
		res.Err = proto.Errorf(proto.CodeState, "%s answers: it is %s. It is not gone", peer.Node, peer.Resource.Role).On(x.r.peer.Name())
	case here == nil && o.PeerLink.Up:
		res.Err = proto.Errorf(proto.CodeState, "the control link to %s is up: it is not gone", x.r.peer.Name()).On(o.Node)
	case here != nil:
		res.Err = asError(here, proto.CodeFailed).On(x.r.local.Name())
	case o.Resource.Conn >= proto.Connected:
		res.Err = proto.Errorf(proto.CodeState, "replication with %s is %s: it is not gone", x.r.peer.Name(), o.Resource.Conn).On(o.Node)
	default:
		res.State, res.Now = proto.StepDone, fmt.Sprintf("%s does not answer, replication is %s", x.r.peer.Name(), o.Resource.Conn)
	}
	return res
}

// do executes a step or its inverse with the step's limit. When the limit passes, the node's own answer is missing: the
// state is then read again by whoever decides next, never assumed.
func (x *execution) do(ctx context.Context, s proto.Step, undo bool) proto.StepResult {
	if undo { // what takes a step back may need longer: a mount replays a journal
		s.Limit = max(s.Limit, usualLimit(s.UndoKind, x.r.Limits))
	}
	limit := time.Duration(s.Limit * float64(time.Second))
	// A step that has begun is brought to its end even if the agent is asked to stop meanwhile.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit+grace)
	defer cancel()
	started := time.Now()
	res := x.r.node(s.Node).Step(ctx, proto.PeerStepRequest{OpID: x.op.ID, Step: s, Undo: undo, Sentinels: x.written(s), VG: x.group(s)})
	res.Started = started // by one clock, whichever node did it
	res.Seconds = time.Since(started).Seconds()
	if res.Err == nil && res.State != proto.StepDone && res.State != proto.StepAlready && res.State != proto.StepUndone {
		res.Err = proto.Errorf(proto.CodeInternal, "step %d came back as %q", s.Index, res.State).On(s.Node)
	}
	if res.Err != nil {
		res.State = proto.StepFailed
	}
	return res
}

// written lists the sets of files that a verify must find.
func (x *execution) written(s proto.Step) []proto.Sentinel {
	if s.Kind != proto.StepVerify || s.Mount == nil {
		return nil
	}
	var out []proto.Sentinel
	for _, st := range x.op.Steps {
		if w := st.Result.Sentinel; st.Step.Kind == proto.StepSentinel && w != nil && w.Target == s.Mount.Target {
			out = append(out, *w)
		}
	}
	return out
}

// group is what is known of the volume group that a step is about.
func (x *execution) group(s proto.Step) *proto.VG {
	i := slices.IndexFunc(x.groups, func(vg proto.VG) bool { return vg.Name == s.VG })
	if s.VG == "" || i < 0 {
		return nil
	}
	return &x.groups[i]
}

// attest asks a node that must not be Primary for a fresh statement.
func (x *execution) attest(ctx context.Context, node, resource string) proto.StepResult {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitAttest*time.Second)
	defer cancel()
	res := proto.StepResult{State: proto.StepFailed, Started: time.Now()}
	o, err := x.r.node(node).Observe(ctx, proto.ObserveRequest{Resource: resource, Brief: true})
	res.Seconds = time.Since(res.Started).Seconds()
	switch {
	case err != nil:
		res.Err = asError(err, proto.CodeUnreachable).On(node)
	case o.Resource.Role != proto.Secondary:
		res.Err = proto.Errorf(proto.CodeState, "%s is %s, not Secondary: refusing to go on", resource, o.Resource.Role).On(o.Node)
	default:
		if x.attested == nil {
			x.attested = map[string]proto.Observation{}
		}
		o.At = res.Started // by our clock
		x.attested[node] = o
		res.State, res.Now = proto.StepDone, fmt.Sprintf("%s is Secondary on %s", resource, o.Node)
	}
	return res
}

// stopped waits for a decision after step i failed; a policy given at the start decides at once.
func (x *execution) stopped(ctx context.Context, i int) proto.Choice {
	s := x.op.Steps[i]
	x.op.State, x.op.Err = proto.OpStopped, s.Result.Err
	x.op.Outcome = fmt.Sprintf("step %d (%s on %s) failed: %v. Now: %s", s.Step.Index, s.Step.Kind, s.Step.Node, s.Result.Err, x.where(ctx))
	x.op.Choices = x.choices()
	x.publish()
	if x.policy != "" {
		return x.policy
	}
	for {
		select {
		case d := <-x.decide:
			if slices.Contains(x.op.Choices, d.Choice) {
				return d.Choice
			}
		case <-ctx.Done():
			return proto.ChoiceKeep
		}
	}
}

// choices orders what is offered: while nothing was promoted, going back is the safest; afterwards, going on.
func (x *execution) choices() []proto.Choice {
	for _, s := range x.op.Steps {
		if s.Step.Kind == proto.StepPromote && s.Result.State == proto.StepDone {
			return []proto.Choice{proto.ChoiceRetry, proto.ChoiceUndo, proto.ChoiceKeep}
		}
	}
	return []proto.Choice{proto.ChoiceUndo, proto.ChoiceRetry, proto.ChoiceKeep}
}

// undo runs the inverse of every step up to and including failed that may have had an effect, newest first. A failed step
// is undone too: a time limit says nothing about whether the effect came after all, and inverses are idempotent.
func (x *execution) undo(ctx context.Context, failed int) {
	x.op.State, x.op.Choices = proto.OpUndoing, nil
	x.publish()
	for i := min(failed, len(x.op.Steps)-1); i >= 0; i-- {
		s := &x.op.Steps[i]
		if s.Step.UndoKind == "" || s.Step.Skip != "" || s.Result.State == proto.StepWaiting || s.Result.State == proto.StepAlready {
			continue
		}
		if i == failed && allOrNothing(s.Step.UndoKind) {
			if s.Result.Err != nil && s.Result.Err.Code != proto.CodeTimeout && s.Result.Err.Code != proto.CodeUnreachable {
				continue
			}
		}
		s.Undo = proto.StepResult{State: proto.StepUndoing, Started: time.Now()}
		x.publish() // going home does not wait for a journal that is full
		if s.Step.UndoKind == proto.StepPromote {
			s.Undo = x.mayPromote(ctx, s.Step)
		}
		if s.Undo.Err == nil {
			s.Undo = x.do(ctx, s.Step, true)
		}
		if s.Undo.Err != nil {
			x.op.Err = s.Undo.Err
			x.finish(proto.OpKept, fmt.Sprintf("undoing step %d (%s on %s) failed: %v. Now: %s",
				s.Step.Index, s.Step.Kind, s.Step.Node, s.Undo.Err, x.where(ctx)))
			return
		}
		s.Undo.State = proto.StepUndone
		x.publish()
	}
	p := x.op.Plan
	text := "undone: everything is back on " + p.From
	switch {
	case p.Verb == proto.VerbTakeover:
		text = "undone: " + p.To + " is Secondary again"
	case !takesDown(p):
		text = "undone: both nodes are as they were before" // it had carried on what another one left
	default:
		if err := x.astray(ctx); err != nil {
			x.op.Err = err
			x.finish(proto.OpKept, fmt.Sprintf("undone as far as it can be, but the service is not back: %v. Now: %s", err, x.where(ctx)))
			return
		}
	}
	x.finish(proto.OpUndone, text)
}

// takesDown says whether a plan takes the service away from a node.
func takesDown(p proto.Plan) bool {
	return slices.ContainsFunc(p.Steps, func(s proto.Step) bool { return s.Kind == proto.StepDemote })
}

// astray says why the service is not back on the node it came from although every inverse worked: no step of the plan had
// demoted that node, but the end of its agent has.
func (x *execution) astray(ctx context.Context) *proto.Error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitAttest*time.Second)
	defer cancel()
	p := x.op.Plan
	o, err := x.r.node(p.From).Observe(ctx, proto.ObserveRequest{Resource: p.Resource, Brief: true})
	switch {
	case err != nil:
		return asError(err, proto.CodeUnreachable).On(p.From)
	case o.Resource.Role != proto.Primary:
		return proto.Errorf(proto.CodeState, "%s is %s: its agent has ended since, and what it had mounted stands on a dead device", p.From, o.Resource.Role).
			On(p.From).WithRemedy("santui failover --to either node brings the service up; unmount and dmsetup remove what is left on %s first if it is to be there", p.From)
	}
	return nil
}

// allOrNothing says of an inverse whether its step, when it failed with an answer, has changed nothing. Of most steps that
// cannot be said: a group that is in use may be inactive but for the volume that is open, and a unit that did not stop well may
// have stopped half. Their inverses look first.
func allOrNothing(undo proto.StepKind) bool {
	return undo == proto.StepClean || undo == proto.StepDisconnect
}

// where reads both nodes again and says in one sentence what is where.
func (x *execution) where(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitAttest*time.Second)
	defer cancel()
	text := ""
	for _, n := range []Node{x.r.node(x.op.Plan.From), x.r.node(x.op.Plan.To)} {
		o, err := n.Observe(ctx, proto.ObserveRequest{Resource: x.op.Plan.Resource})
		if text != "" {
			text += "; "
		}
		if err != nil {
			text += n.Name() + " does not answer"
			continue
		}
		text += fmt.Sprintf("%s is %s, %s", n.Name(), o.Resource.Role, describe(o.Resource.Stack))
	}
	return text
}

// measure updates the outages.
func (x *execution) measure() {
	x.op.Outages, x.op.Outage = outages(x.op), 0
	for _, o := range x.op.Outages {
		x.op.Outage = max(x.op.Outage, o.Service)
	}
}

// outages measures every move of an operation: from the start of the first step that takes the service away to the end
// of the last one that brings it back, and between the probe's writes. All times are of the runner's clock.
func outages(o proto.Op) []proto.Outage {
	var out []proto.Outage
	var first, lastWrite time.Time
	promoted := false
	for _, s := range o.Steps {
		if s.Result.State != proto.StepDone && s.Result.State != proto.StepFailed {
			continue
		}
		end := s.Result.Started.Add(seconds(s.Result.Seconds))
		up := bringsUp(s.Step.Kind)
		switch s.Step.Kind {
		case proto.StepUnmount, proto.StepDeactivate, proto.StepDemote, proto.StepAttest:
		case proto.StepDropAddress, proto.StepStopScript, proto.StepStopUnit, proto.StepUnexport:
		case proto.StepProbe:
			if p := s.Result.Probe; p != nil && len(out) > 0 && !lastWrite.IsZero() {
				now := &out[len(out)-1]
				now.Storage, now.LastWrite = end.Add(-seconds(p.Age)).Sub(lastWrite).Seconds(), lastWrite
				lastWrite = time.Time{}
			}
			continue
		default:
			if !up {
				continue
			}
		}
		if len(out) == 0 || promoted && !up {
			first, promoted = s.Result.Started, false
			from, to := o.Plan.From, o.Plan.To
			if (s.Step.Node == to) != up {
				from, to = to, from
			}
			out = append(out, proto.Outage{From: from, To: to, Began: first})
		}
		promoted = promoted || s.Step.Kind == proto.StepPromote
		out[len(out)-1].Service = end.Sub(first).Seconds()
		if p := s.Result.Probe; p != nil {
			lastWrite = end.Add(-seconds(p.Age))
		}
	}
	if o.Plan.Verb == proto.VerbResolve || o.Plan.Verb == proto.VerbRejoin || o.Plan.Verb == proto.VerbFailover && !takesDown(o.Plan) {
		return nil // it moved nothing, or the service had been away before it began
	}
	return out
}

// bringsUp says whether a step belongs to the half of a move that brings the service up.
func bringsUp(kind proto.StepKind) bool {
	switch kind {
	case proto.StepPromote, proto.StepActivate, proto.StepMount, proto.StepExport, proto.StepStartUnit, proto.StepStartScript, proto.StepAddAddress:
		return true
	default:
		return false
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (x *execution) finish(state proto.OpState, outcome string) {
	x.op.State, x.op.Outcome, x.op.Ended, x.op.Choices = state, outcome, time.Now(), nil
	_, _ = x.store() // the outcome tells of it
	ctx, cancel := context.WithTimeout(context.Background(), limitAttest*time.Second)
	defer cancel()
	// A peer that is away keeps no lock: it forgets it with its agent, and otherwise asks us for the operation's end.
	_ = x.r.unlockBoth(ctx, x.lock)
}

// save journals the operation on both nodes, then publishes it. The error is that of this node's journal, the one that counts.
func (x *execution) save() error {
	o, err := x.store()
	x.r.publish(o)
	return err
}

// publish is save where nothing depends on the journal.
func (x *execution) publish() { _ = x.save() } // the outcome tells of it

// store journals the operation here and there at once, and returns the copy. A peer that cannot store its copy does not
// stop the operation.
func (x *execution) store() (proto.Op, error) {
	x.op.Rev++
	copied := x.op
	copied.Steps = slices.Clone(x.op.Steps)
	there := make(chan error, 1)
	go func(o proto.Op) {
		ctx, cancel := context.WithTimeout(context.Background(), attestAge)
		defer cancel()
		there <- x.r.peer.Journal(ctx, o)
	}(copied)
	failed := x.r.journal.Put(copied)
	if failed != nil {
		copied.Outcome = fmt.Sprintf("journal: %v", failed)
	}
	if err := <-there; err != nil && !x.silent {
		slog.Warn("the peer could not journal the operation", "op", copied.ID, "peer", x.r.peer.Name(), "err", err)
		x.silent = true
	}
	return copied, failed
}

func asError(err error, code proto.ErrorCode) *proto.Error {
	var e *proto.Error
	if errors.As(err, &e) {
		return e
	}
	return proto.Errorf(code, "%v", err)
}
