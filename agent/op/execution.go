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
	attested time.Time // when the peer last said that it is Secondary
	silent   bool      // the peer's failure to journal was logged
}

// run executes the plan and returns when the operation is final, journalled and unlocked; the caller publishes the end.
func (x *execution) run(ctx context.Context) {
	x.save()
	for i := 0; i < len(x.op.Steps); {
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
	x.finish(proto.OpDone, fmt.Sprintf("%s is Primary on %s", x.op.Plan.Resource, x.op.Plan.To))
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
		x.save()
		select {
		case d := <-x.decide:
			x.op.Choices = nil
			switch d.Choice {
			case proto.ChoiceUndo:
				x.undo(ctx, x.nextStep())
				return true
			case proto.ChoiceResume, proto.ChoiceRetry:
				x.pausing = false
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
	if s.Step.Kind == proto.StepPromote && s.Step.Node == x.op.Plan.To && time.Since(x.attested) > attestAge {
		if res := x.attest(ctx, s.Step); res.Err != nil { // time passed since the attest step, for example over a retry
			s.Result = res
			x.save()
			return false
		}
	}
	s.Result = proto.StepResult{State: proto.StepRunning, Started: time.Now()}
	x.save()
	if s.Step.Kind == proto.StepAttest {
		s.Result = x.attest(ctx, s.Step)
	} else {
		s.Result = x.do(ctx, s.Step, false)
	}
	x.measure()
	x.save()
	return s.Result.Err == nil
}

// do executes a step or its inverse with the step's limit. When the limit passes, the node's own answer is missing: the
// state is then read again by whoever decides next, never assumed.
func (x *execution) do(ctx context.Context, s proto.Step, undo bool) proto.StepResult {
	limit := time.Duration(s.Limit * float64(time.Second))
	// A step that has begun is brought to its end even if the agent is asked to stop meanwhile.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit+grace)
	defer cancel()
	started := time.Now()
	res := x.r.node(s.Node).Step(ctx, proto.PeerStepRequest{OpID: x.op.ID, Step: s, Undo: undo})
	if res.Started.IsZero() {
		res.Started = started
	}
	res.Seconds = time.Since(started).Seconds()
	if res.Err == nil && res.State != proto.StepDone && res.State != proto.StepAlready && res.State != proto.StepUndone {
		res.Err = proto.Errorf(proto.CodeInternal, "step %d came back as %q", s.Index, res.State).On(s.Node)
	}
	if res.Err != nil {
		res.State = proto.StepFailed
	}
	return res
}

// attest asks the node that must not be Primary for a fresh statement.
func (x *execution) attest(ctx context.Context, s proto.Step) proto.StepResult {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitAttest*time.Second)
	defer cancel()
	res := proto.StepResult{State: proto.StepFailed, Started: time.Now()}
	o, err := x.r.peer.Observe(ctx, proto.ObserveRequest{Resource: s.Resource})
	res.Seconds = time.Since(res.Started).Seconds()
	switch {
	case err != nil:
		res.Err = asError(err, proto.CodeUnreachable).On(x.r.peer.Name())
	case o.Resource.Role != proto.Secondary:
		res.Err = proto.Errorf(proto.CodeState, "%s is %s, not Secondary: refusing to promote %s", s.Resource, o.Resource.Role, x.op.Plan.To).On(o.Node)
	default:
		x.attested = res.Started
		res.State, res.Now = proto.StepDone, fmt.Sprintf("%s is Secondary on %s", s.Resource, o.Node)
	}
	return res
}

// stopped waits for a decision after step i failed; a policy given at the start decides at once.
func (x *execution) stopped(ctx context.Context, i int) proto.Choice {
	s := x.op.Steps[i]
	x.op.State, x.op.Err = proto.OpStopped, s.Result.Err
	x.op.Outcome = fmt.Sprintf("step %d (%s on %s) failed: %v. Now: %s", s.Step.Index, s.Step.Kind, s.Step.Node, s.Result.Err, x.where(ctx))
	x.op.Choices = x.choices()
	x.save()
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
	x.save()
	for i := min(failed, len(x.op.Steps)-1); i >= 0; i-- {
		s := &x.op.Steps[i]
		if s.Step.UndoKind == "" || s.Result.State == proto.StepWaiting || s.Result.State == proto.StepAlready {
			continue
		}
		if i == failed && s.Step.UndoKind != proto.StepDemote && s.Step.UndoKind != proto.StepDeactivate && s.Step.UndoKind != proto.StepUnmount {
			// Taking down on the old Primary failed: its inverse is only needed if part of the effect came.
			if s.Result.Err != nil && s.Result.Err.Code != proto.CodeTimeout && s.Result.Err.Code != proto.CodeUnreachable {
				continue
			}
		}
		s.Undo = proto.StepResult{State: proto.StepUndoing, Started: time.Now()}
		x.save()
		s.Undo = x.do(ctx, s.Step, true)
		if s.Undo.Err != nil {
			x.op.Err = s.Undo.Err
			x.finish(proto.OpKept, fmt.Sprintf("undoing step %d (%s on %s) failed: %v. Now: %s",
				s.Step.Index, s.Step.Kind, s.Step.Node, s.Undo.Err, x.where(ctx)))
			return
		}
		s.Undo.State = proto.StepUndone
		x.save()
	}
	x.finish(proto.OpUndone, fmt.Sprintf("undone: everything is back on %s", x.op.Plan.From))
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

// measure updates the outage: from the start of the first step that takes the service away to the end of the last one
// that brings it back.
func (x *execution) measure() {
	var first, last time.Time
	for _, s := range x.op.Steps {
		if s.Result.State != proto.StepDone && s.Result.State != proto.StepFailed {
			continue
		}
		if first.IsZero() {
			first = s.Result.Started
		}
		last = s.Result.Started.Add(time.Duration(s.Result.Seconds * float64(time.Second)))
	}
	if !first.IsZero() {
		x.op.Outage = last.Sub(first).Seconds()
	}
}

func (x *execution) finish(state proto.OpState, outcome string) {
	x.op.State, x.op.Outcome, x.op.Ended, x.op.Choices = state, outcome, time.Now(), nil
	x.store()
	ctx, cancel := context.WithTimeout(context.Background(), limitAttest*time.Second)
	defer cancel()
	// A peer that is away keeps no lock: it forgets it with its agent, and otherwise asks us for the operation's end.
	_ = x.r.unlockBoth(ctx, x.lock)
}

// save journals the operation on both nodes, then publishes it.
func (x *execution) save() { x.r.publish(x.store()) }

// store journals the operation here, then there, and returns the copy. A peer that cannot store its copy does not stop
// the operation; this node's journal is the one that counts.
func (x *execution) store() proto.Op {
	x.op.Rev++
	copied := x.op
	copied.Steps = slices.Clone(x.op.Steps)
	if err := x.r.journal.Put(copied); err != nil {
		copied.Outcome = fmt.Sprintf("journal: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), attestAge)
	defer cancel()
	if err := x.r.peer.Journal(ctx, copied); err != nil && !x.silent {
		slog.Warn("the peer could not journal the operation", "op", copied.ID, "peer", x.r.peer.Name(), "err", err)
		x.silent = true
	}
	return copied
}

func asError(err error, code proto.ErrorCode) *proto.Error {
	var e *proto.Error
	if errors.As(err, &e) {
		return e
	}
	return proto.Errorf(code, "%v", err)
}
