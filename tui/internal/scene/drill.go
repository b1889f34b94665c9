package scene

import (
	"encoding/json"
	"slices"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/source"
	"example.com/santui/tui/view"
)

// Plan moves r0 from otter to weasel.
func Plan() proto.Plan {
	mount := proto.Mount{Source: "/dev/storage/test", Target: "/srv/store", FSType: "ext4", Options: "rw,relatime"}
	up, down := []string{"vgchange", "--devices", "/dev/drbd0", "-ay", "storage"}, []string{"vgchange", "--devices", "/dev/drbd0", "-an", "storage"}
	mnt, umnt := []string{"mount", "-t", "ext4", "-o", "rw,relatime", "/dev/storage/test", "/srv/store"}, []string{"umount", "/srv/store"}
	steps := []proto.Step{
		{Kind: proto.StepUnmount, Node: "otter", Argv: umnt, Undo: mnt, UndoKind: proto.StepMount, Limit: 60, Mount: &mount, Why: "nothing may write while the roles change"},
		{Kind: proto.StepDeactivate, Node: "otter", Argv: down, Undo: up, UndoKind: proto.StepActivate, Limit: 30, VG: "storage", Why: "the device cannot be demoted while LVM holds it"},
		{Kind: proto.StepDemote, Node: "otter", Argv: []string{"drbdadm", "secondary", "r0"}, Internal: true, Undo: []string{"drbdadm", "primary", "r0"}, UndoKind: proto.StepPromote, Limit: 30, Why: "only one node may be Primary"},
		{Kind: proto.StepAttest, Node: "otter", Argv: []string{"drbdadm", "role", "r0"}, Internal: true, Limit: 5, Why: "otter must say, freshly, that it is Secondary"},
		{Kind: proto.StepPromote, Node: "weasel", Argv: []string{"drbdadm", "primary", "r0"}, Internal: true, Undo: []string{"drbdadm", "secondary", "r0"}, UndoKind: proto.StepDemote, Limit: 30, Why: "/dev/drbd0 appears on weasel"},
		{Kind: proto.StepActivate, Node: "weasel", Argv: up, Undo: down, UndoKind: proto.StepDeactivate, Limit: 30, VG: "storage", Why: "the logical volumes appear"},
		{Kind: proto.StepMount, Node: "weasel", Argv: mnt, Undo: umnt, UndoKind: proto.StepUnmount, Limit: 60, Mount: &mount, Why: "the service is back"},
	}
	for i := range steps {
		steps[i].Index, steps[i].Resource = i+1, "r0"
	}
	return proto.Plan{Schema: proto.Schema, Verb: proto.VerbFailover, Pair: "store-1", Resource: "r0", From: "otter", To: "weasel", At: Now, Steps: steps,
		Effect: []string{"/srv/store is away from step 1 to step 7.", "weasel becomes Primary, otter becomes Secondary. No data is copied or removed.",
			"If a step fails the operation stops there and offers retry, undo or keep."}}
}

// Reply is the plan with its checks.
func Reply(extra ...proto.Check) proto.PlanReply {
	p := Plan()
	return proto.PlanReply{Plan: p, Hash: p.Hash(), Checks: Checks(extra...), Last: 7.4}
}

// Op is the operation before its first step.
func Op() proto.Op {
	r := Reply()
	op := proto.Op{Schema: proto.Schema, ID: "20261122-140215-9zk", Plan: r.Plan, PlanHash: r.Hash, Checks: r.Checks, State: proto.OpRunning,
		Owner: "root@laptop", Runner: "weasel", Started: Now.Add(4 * time.Second), Rev: 1}
	for _, s := range r.Plan.Steps {
		op.Steps = append(op.Steps, proto.StepStatus{Step: s, Result: proto.StepResult{State: proto.StepWaiting}})
	}
	return op
}

func seconds(k proto.StepKind) float64 {
	return map[proto.StepKind]float64{proto.StepUnmount: 0.4, proto.StepDeactivate: 0.3, proto.StepDemote: 0.2, proto.StepAttest: 0.1, proto.StepPromote: 0.2,
		proto.StepActivate: 0.5, proto.StepMount: 0.3}[k]
}

var says = map[proto.StepKind][]string{
	proto.StepDeactivate: {`0 logical volume(s) in volume group "storage" now active`},
	proto.StepActivate:   {`1 logical volume(s) in volume group "storage" now active`},
}

// Done marks the first n steps as done, and the one after them as running.
func Done(op proto.Op, n int) proto.Op {
	op.Steps = slices.Clone(op.Steps)
	at := op.Started
	for i := range op.Steps {
		s := &op.Steps[i]
		switch {
		case i < n:
			t := seconds(s.Step.Kind)
			s.Result = proto.StepResult{State: proto.StepDone, Started: at, Seconds: t}
			if !s.Step.Internal {
				s.Result.Commands = []proto.Execution{{Node: s.Step.Node, Argv: s.Step.Argv, Started: at, Seconds: t, Output: says[s.Step.Kind]}}
			} else {
				s.Result.Now = map[proto.StepKind]string{proto.StepDemote: "r0 is Secondary on otter", proto.StepAttest: "r0 is Secondary on otter, 0.1 s ago", proto.StepPromote: "r0 is Primary on weasel"}[s.Step.Kind]
			}
			at = at.Add(time.Duration(t * float64(time.Second)))
			op.Outage += t
		case i == n:
			s.Result = proto.StepResult{State: proto.StepRunning, Started: at}
		}
	}
	op.Rev = uint64(2 + n)
	return op
}

// Finished is the operation at its end.
func Finished() proto.Op {
	op := Done(Op(), 7)
	op.State, op.Outcome, op.Ended, op.Rev = proto.OpDone, "r0 is Primary on weasel", op.Started.Add(2*time.Second), 20
	return op
}

// Stopped is the operation after its sixth step ran into its time limit.
func Stopped() proto.Op {
	op := Done(Op(), 5)
	s := &op.Steps[5]
	err := &proto.Error{Code: proto.CodeTimeout, Node: "weasel", Resource: "r0", Text: "vgchange of storage took longer than 30 s; the process was ended and the state read again",
		Remedy: "look at the disk's latency, then try again"}
	s.Result = proto.StepResult{State: proto.StepFailed, Started: op.Started.Add(1200 * time.Millisecond), Seconds: 30, Err: err, Now: "storage not active, nothing mounted",
		Commands: []proto.Execution{{Node: "weasel", Argv: s.Step.Argv, Started: op.Started, Seconds: 30, Exit: -1, Err: "time limit",
			Output: []string{"  WARNING: VG storage not found, scanning devices ..."}}}}
	op.State, op.Err, op.Choices, op.Outage, op.Rev = proto.OpStopped, err, []proto.Choice{proto.ChoiceRetry, proto.ChoiceUndo, proto.ChoiceKeep}, 31.2, 8
	op.Outcome = "step 6 (activate on weasel) failed: time limit. Now: otter is Secondary, nothing active; weasel is Primary, nothing mounted"
	return op
}

// Undone is the stopped operation after everything went back.
func Undone() proto.Op {
	op := Stopped()
	for i := range op.Steps[:6] {
		if s := &op.Steps[i]; s.Step.UndoKind != "" {
			s.Undo = proto.StepResult{State: proto.StepUndone, Started: op.Started.Add(40 * time.Second), Seconds: 0.3}
		}
	}
	op.State, op.Choices, op.Rev, op.Outcome = proto.OpUndone, nil, 30, "undone: everything is back on otter"
	return op
}

// Running is the pair while the operation runs.
func Running() Scene {
	s := InSync()
	s.Name = "op-running"
	op := Done(Op(), 4)
	s.Inputs[1].Snapshot.Op = &op
	s.Inputs[1].Snapshot.Lock = &proto.Lock{OpID: op.ID, Owner: op.Owner, Node: "weasel", Since: op.Started}
	r := &s.Inputs[0].Snapshot.Resources[0]
	r.Role, r.Stack, r.Node, r.Open = proto.Secondary, proto.Stack{}, "", 0
	r.Lights.SafePowerOff = yes("Secondary, nothing uses it")
	s.Inputs[1].Snapshot.Resources[0].PeerRole = proto.Secondary
	return s
}

// Moved is the pair after the failover: weasel is Primary.
func Moved() Scene {
	a, b := snapshot("otter", "weasel"), primary(snapshot("weasel", "otter"))
	op := Finished()
	b.Op = &op
	back := Checks()
	back.From, back.To = back.To, back.From
	a.Readiness = []proto.CheckList{back}
	b.Events = []proto.Event{event(9, "weasel", -time.Minute, proto.LevelInfo, "failover of r0 to weasel done, service away 2.0 s")}
	return Scene{"moved", []view.Input{live(a), live(b)}}
}

func must(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // a value of this package does not marshal
	}
	return b
}

func updates(after float64, s Scene) []source.Record {
	var out []source.Record
	for _, in := range s.Inputs {
		r := source.Record{After: after, Node: in.Node, Snapshot: in.Snapshot}
		if !in.LinkUp {
			r.Down, r.Retry = "no answer yet", 3
			if in.Err != nil {
				r.Down = in.Err.Error()
			}
		}
		out = append(out, r)
		after = 0
	}
	return out
}

// Static is a recording of one scene that answers every request of the wizard. With fail the operation stops half way.
func Static(s Scene, fail bool, extra ...proto.Check) []source.Record {
	out := updates(0, s)
	for _, in := range s.Inputs {
		if in.Snapshot != nil && in.Snapshot.Op != nil && in.Snapshot.Op.State.Final() {
			out = append(out, source.Record{Method: proto.MethodReport, Out: must(proto.Report{Schema: proto.Schema, Op: *in.Snapshot.Op})})
		}
	}
	return append(out, answers(fail, extra...)...)
}

func answers(fail bool, extra ...proto.Check) []source.Record {
	dry := Op()
	dry.State, dry.Outcome = proto.OpDone, "dry run: both agents accept every step; nothing was changed"
	out := []source.Record{
		{Method: proto.MethodPlan, After: 0.2, Out: must(Reply(extra...))},
		{Method: proto.MethodPlan, Case: string(proto.VerbDrill), After: 0.2, Out: must(DrillReply(extra...))},
		{Method: proto.MethodPlan, Case: string(proto.VerbTakeover), After: 0.2, Out: must(TakeoverReply(extra...))},
		{Method: proto.MethodPlan, Case: string(proto.VerbResolve), After: 0.2, Out: must(ResolveReply(extra...))},
		{Method: proto.MethodPlan, Case: string(proto.VerbRejoin), After: 0.2, Out: must(RejoinReply(extra...))},
		{Method: proto.MethodOpStart, Case: "dry-run", After: 0.3, Out: must(dry)},
		{Method: proto.MethodOpStart, After: 0.2, Out: must(Op())},
		{Method: proto.MethodOps, Out: must(proto.OpsReply{Schema: proto.Schema, Ops: []proto.Op{}})},
		{Method: proto.MethodOpDecide, Case: string(proto.ChoiceUndo), Out: must(Stopped())},
		{Method: proto.MethodOpDecide, Out: must(Stopped())},
		{Method: proto.MethodSetup, Event: true, Case: "dry-run", Out: must(SetupOp())},
		{Method: proto.MethodDoctor, Case: "otter", Out: must(Doctors()["otter"])},
		{Method: proto.MethodDoctor, Case: "weasel", Out: must(Doctors()["weasel"])},
		{Method: proto.MethodSync, Out: must(proto.Empty{})},
		{Method: proto.MethodVerify, Out: must(proto.Empty{})},
	}
	event := func(c string, op proto.Op) {
		out = append(out, source.Record{Method: proto.MethodOpWatch, Event: true, Case: c, After: 0.6, Out: must(op)})
	}
	last := 7
	if fail {
		last = 5
	}
	for n := range last {
		event("", Done(Op(), n))
	}
	final := Finished()
	if fail {
		event("", Stopped())
		event(string(proto.ChoiceUndo), Undone())
		kept := Stopped()
		kept.State, kept.Choices, kept.Rev, kept.Outcome = proto.OpKept, nil, 30, "stopped at step 6 and left so"
		event(string(proto.ChoiceKeep), kept)
		retried := Finished()
		retried.Rev = 30
		event(string(proto.ChoiceRetry), retried)
	} else {
		event("", final)
		moved := updates(0, Moved())
		for i := range moved {
			moved[i].Method, moved[i].Event = proto.MethodOpWatch, true
		}
		out = append(out, moved...)
	}
	out = append(out, source.Record{Method: proto.MethodReport, Out: must(proto.Report{Schema: proto.Schema, Op: final})})
	if fail {
		out = append(out, source.Record{Method: proto.MethodReport, Case: string(proto.ChoiceUndo), Out: must(proto.Report{Schema: proto.Schema, Op: Undone()})})
	}
	return out
}

// Film is a recording with a sync that runs to its end in the given number of seconds, then a pair to fail over.
func Film(length int, fail bool) []source.Record {
	out := updates(0, Syncing(0.02))
	for i := 1; i < length; i++ {
		out = append(out, updates(1, Syncing(float64(i)/float64(length)))...)
	}
	return append(append(out, updates(1, InSync())...), answers(fail)...)
}
