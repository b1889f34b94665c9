package scene

import "example.com/santui/proto"

// Empty is the healthy pair whose resource carries nothing yet.
func Empty() Scene {
	s := InSync()
	s.Name = "empty"
	s.Inputs[0].Snapshot.Resources[0].Stack = proto.Stack{}
	return s
}

// SetupOp is a set-up before its first step.
func SetupOp() proto.Op {
	dev := "/dev/drbd0"
	m := proto.Mount{Source: "/dev/storage/data", Target: "/srv/store", FSType: "ext4"}
	steps := []proto.Step{
		{Kind: proto.StepPVCreate, Argv: []string{"pvcreate", "--devices", dev, dev}, Limit: 60, Why: "the replicated device becomes a physical volume"},
		{Kind: proto.StepVGCreate, Argv: []string{"vgcreate", "--devices", dev, "--setautoactivation", "n", "storage", dev}, Limit: 60, Why: "only a move activates the group"},
		{Kind: proto.StepLVCreate, Argv: []string{"lvcreate", "--devices", dev, "-y", "-L", "10737418240b", "-n", "data", "storage"}, Limit: 60, Why: "the logical volume"},
		{Kind: proto.StepMkfs, Argv: []string{"mkfs.ext4", "-q", "/dev/storage/data"}, Limit: 1800, Why: "the file system"},
		{Kind: proto.StepMount, Argv: []string{"mount", "-t", "ext4", "/dev/storage/data", "/srv/store"}, Limit: 300, Why: "the service can start", Mount: &m,
			Undo: []string{"umount", "/srv/store"}, UndoKind: proto.StepUnmount},
	}
	op := proto.Op{Schema: proto.Schema, ID: "20261122-140215-setup", State: proto.OpRunning, Owner: "root@laptop", Runner: "otter", Started: Now, Rev: 1}
	for i := range steps {
		steps[i].Index, steps[i].Node, steps[i].Resource, steps[i].VG = i+1, "otter", "r0", "storage"
		op.Steps = append(op.Steps, proto.StepStatus{Step: steps[i], Result: proto.StepResult{State: proto.StepWaiting}})
	}
	op.Plan = proto.Plan{Schema: proto.Schema, Verb: proto.VerbSetup, Pair: "store-1", Resource: "r0", From: "otter", To: "otter", At: Now, Steps: steps,
		Effect: []string{"/dev/drbd0 gets a volume group, a volume and a file system; they replicate to weasel like all that is written.",
			"If a step fails the set-up stops there; the same command carries on."}}
	op.PlanHash = op.Plan.Hash()
	op.Checks = proto.CheckList{Schema: proto.Schema, Verb: proto.VerbSetup, Resource: "r0", From: "otter", To: "otter", At: Now,
		Checks: []proto.Check{checkOK(proto.CheckAgents, "otter and weasel"), checkOK(proto.CheckLocked, "lock free")}}
	return op
}
