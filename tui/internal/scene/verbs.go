package scene

import (
	"time"

	"example.com/santui/proto"
)

func only(l proto.CheckList, extra []proto.Check, codes ...string) proto.CheckList {
	for _, name := range codes {
		k := checkOK(name, "")
		k.Evidence = nil
		for _, x := range extra {
			if x.Code == name {
				k = x
			}
		}
		l.Checks = append(l.Checks, k)
	}
	return l
}

func warned(code, node string, evidence ...string) proto.Check {
	c, _ := proto.CodeOf(code)
	return proto.Check{Code: code, Node: node, Result: proto.CheckWarn, Hard: c.Hard, Title: c.Title, Evidence: evidence, Remedy: c.Remedy}
}

func passed(code, node, evidence string) proto.Check {
	k := checkOK(code, evidence)
	k.Node = node
	return k
}

func reply(verb proto.Verb, from, to string, checks proto.CheckList, effect []string, steps ...proto.Step) proto.PlanReply {
	for i := range steps {
		steps[i].Index, steps[i].Resource = i+1, "r0"
	}
	p := proto.Plan{Schema: proto.Schema, Verb: verb, Pair: "store-1", Resource: "r0", From: from, To: to, At: Now, Steps: steps, Effect: effect}
	checks.Schema, checks.Verb, checks.Resource, checks.From, checks.To, checks.At = proto.Schema, verb, "r0", from, to, Now
	return proto.PlanReply{Plan: p, Hash: p.Hash(), Checks: checks, Last: 7.4}
}

// DrillReply moves r0 to weasel and back.
func DrillReply(extra ...proto.Check) proto.PlanReply {
	there := Plan()
	mount := there.Steps[0].Mount
	file := func(kind proto.StepKind, node, why string, argv ...string) proto.Step {
		return proto.Step{Kind: kind, Node: node, Argv: argv, Internal: true, Limit: 60, Mount: mount, Why: why}
	}
	steps := []proto.Step{file(proto.StepSentinel, "otter", "set 1: these bytes must arrive", "dd", "if=/dev/urandom", "of=/srv/store/.santui-drill/1/1", "bs=1M", "count=4", "conv=fsync")}
	steps = append(steps, there.Steps...)
	steps = append(steps, file(proto.StepVerify, "weasel", "every byte that was written must be here", "sha256sum", "--check", "/srv/store/.santui-drill/*/SHA256SUMS"))
	for _, s := range there.Steps {
		if s.Node = "weasel"; s.Kind == proto.StepPromote || s.Kind == proto.StepActivate || s.Kind == proto.StepMount {
			s.Node = "otter"
		}
		steps = append(steps, s)
	}
	steps = append(steps, file(proto.StepClean, "otter", "the drill leaves nothing behind", "rm", "-r", "/srv/store/.santui-drill"))
	l := Checks(extra...)
	return reply(proto.VerbDrill, "otter", "weasel", l, []string{"/srv/store is away twice: while the service moves to weasel, and while it moves back.",
		"Files of random bytes are written to .santui-drill below each mount point and removed at the end.", "Afterwards otter is Primary as before."}, steps...)
}

// TakeoverReply makes weasel Primary without otter.
func TakeoverReply(extra ...proto.Check) proto.PlanReply {
	var steps []proto.Step
	for _, s := range Plan().Steps {
		switch s.Kind {
		case proto.StepAttest:
			s = proto.Step{Kind: proto.StepGone, Node: "weasel", Argv: []string{"drbdadm", "cstate", "r0"}, Internal: true, Limit: 5, Why: "otter must still be silent on both links"}
		case proto.StepUnmount, proto.StepDeactivate, proto.StepDemote:
			s.Skip = "otter does not answer"
		default:
		}
		steps = append(steps, s)
	}
	extra = append([]proto.Check{
		passed(proto.CheckPeerGone, "otter", "no control link to otter since 14:01:31, WFConnection since 14:01:31"), passed(proto.CheckLocked, "", "lock free"),
		passed(proto.CheckRoles, "weasel", "weasel is Secondary"), passed(proto.CheckDisk, "weasel", "/dev/md3 on weasel"),
		warned(proto.CheckDataRisk, "weasel", "weasel was last identical to otter at 14:01:31, 40s ago",
			"0 bytes are known to differ; what otter wrote after 14:01:31, when the link broke, is missing here"),
		passed(proto.CheckLastStack, "weasel", "storage active, /srv/store mounted, as of 14:01:29"),
	}, extra...)
	l := only(proto.CheckList{}, extra, proto.CheckPeerGone, proto.CheckLocked, proto.CheckRoles, proto.CheckDisk, proto.CheckDataRisk, proto.CheckLastStack, proto.CheckMountPoint, proto.CheckTools)
	return reply(proto.VerbTakeover, "otter", "weasel", l, []string{"weasel becomes Primary without asking otter. If otter still writes, the data forks.",
		"What otter wrote after the link broke is not here, and is lost once it rejoins.",
		"Needs the pair's name and a statement how you know that otter is off; both are recorded."}, steps...)
}

// Taken is a takeover at its end.
func Taken() proto.Op {
	r := TakeoverReply()
	op := proto.Op{Schema: proto.Schema, ID: "20261122-135838-4c1", Plan: r.Plan, PlanHash: r.Hash, Checks: r.Checks, State: proto.OpDone, Owner: "root@laptop",
		Runner: "weasel", Started: ago(3*time.Minute + 33*time.Second), Ended: ago(3*time.Minute + 31*time.Second), Outage: 1.0, Rev: 20,
		Statement: "power cable pulled at the rack by me", AtRisk: r.Checks.Checks[4].Evidence, Outcome: "r0 is Primary on weasel, without otter: it must rejoin"}
	for _, s := range r.Plan.Steps {
		res := proto.StepResult{State: proto.StepDone, Started: op.Started, Seconds: seconds(s.Kind)}
		if s.Skip != "" {
			res = proto.StepResult{State: proto.StepSkipped, Now: s.Skip}
		}
		op.Steps = append(op.Steps, proto.StepStatus{Step: s, Result: res})
	}
	return op
}

// ResolveReply gives weasel's changes up.
func ResolveReply(extra ...proto.Check) proto.PlanReply {
	step := func(kind proto.StepKind, node, why string, limit float64, argv ...string) proto.Step {
		return proto.Step{Kind: kind, Node: node, Argv: argv, Internal: true, Limit: limit, Why: why}
	}
	extra = append([]proto.Check{
		passed(proto.CheckAgents, "", "otter and weasel"), passed(proto.CheckLocked, "", "lock free"), passed(proto.CheckDisk, "otter", "/dev/md3 on otter"),
		passed(proto.CheckForked, "", "split brain: both changed the data on their own"),
		warned(proto.CheckDiscard, "weasel", "stays:    otter: Primary since 12:02:11, last write 14:01:58, 3145728 bytes (3.0 MiB) changed since the fork",
			"discards: weasel: Secondary since 13:58:03, last write 13:57:40, 1048576 bytes (1.0 MiB) changed since the fork",
			"1048576 bytes (1.0 MiB) that only weasel has are lost; they are not copied anywhere first"),
	}, extra...)
	l := only(proto.CheckList{}, extra, proto.CheckAgents, proto.CheckLocked, proto.CheckDisk, proto.CheckForked, proto.CheckDiscard)
	return reply(proto.VerbResolve, "weasel", "otter", l, []string{"What only weasel has is overwritten with otter's data, block by block. This cannot be undone."},
		step(proto.StepAttest, "weasel", "weasel must be Secondary: a Primary's changes are not discarded under its users", 5, "drbdadm", "role", "r0"),
		step(proto.StepDisconnect, "weasel", "who loses must be said before the nodes meet", 15, "drbdadm", "disconnect", "r0"),
		step(proto.StepDiscard, "weasel", "the changes of weasel lose", 15, "drbdadm", "connect", "--discard-my-data", "r0"),
		step(proto.StepConnect, "otter", "otter looks for the other node", 15, "drbdadm", "connect", "r0"),
		step(proto.StepResync, "weasel", "both nodes replicate again", 60, "drbdadm", "cstate", "r0"))
}

// RejoinReply lets otter follow weasel.
func RejoinReply(extra ...proto.Check) proto.PlanReply {
	l := only(proto.CheckList{}, append([]proto.Check{passed(proto.CheckSplit, "", "otter follows weasel: weasel has newer data")}, extra...),
		proto.CheckAgents, proto.CheckLocked, proto.CheckRoles, proto.CheckDisk, proto.CheckSplit)
	connect := func(node string) proto.Step {
		return proto.Step{Kind: proto.StepConnect, Node: node, Argv: []string{"drbdadm", "connect", "r0"}, Internal: true, Limit: 15, Why: node + " looks for the other node"}
	}
	return reply(proto.VerbRejoin, "otter", "weasel", l, []string{"otter follows weasel again. What changed while they were apart is resynchronised.", "Nothing moves and nothing is unmounted."},
		connect("otter"), connect("weasel"),
		proto.Step{Kind: proto.StepResync, Node: "otter", Argv: []string{"drbdadm", "cstate", "r0"}, Internal: true, Limit: 60, Why: "both nodes replicate again"})
}

// Replies are the answers to a request for a plan, by verb.
func Replies(extra ...proto.Check) map[proto.Verb]proto.PlanReply {
	return map[proto.Verb]proto.PlanReply{proto.VerbFailover: Reply(extra...), proto.VerbDrill: DrillReply(extra...), proto.VerbTakeover: TakeoverReply(extra...),
		proto.VerbResolve: ResolveReply(extra...), proto.VerbRejoin: RejoinReply(extra...)}
}
