package op

import (
	"slices"

	"example.com/santui/agent/service"
	"example.com/santui/proto"
)

// beside is what agent.toml adds to the resource, as the node says whose agent runs the operation. That the other node
// says the same is a check.
func (v View) beside() proto.Service {
	if v.To.Service == nil {
		return proto.Service{}
	}
	return v.To.Service.Config
}

// leave takes down what stands beside the stack: first nobody reaches the service any more, then what runs on the mounts
// ends, then what the kernel offers of them.
func (b *builder) leave(node string, s proto.Service) {
	for _, a := range s.Address {
		b.dropAddress(node, a)
	}
	for _, x := range s.Scripts {
		b.script(node, x, proto.StepStopScript, proto.StepStartScript)
	}
	for _, u := range s.Units {
		b.unit(node, u, proto.StepStopUnit, proto.StepStartUnit)
	}
	for _, e := range s.Exports {
		b.export(node, e, proto.StepUnexport, proto.StepExport)
	}
}

// arrive is the reverse of leave.
func (b *builder) arrive(node string, s proto.Service) {
	for _, e := range slices.Backward(s.Exports) {
		b.export(node, e, proto.StepExport, proto.StepUnexport)
	}
	for _, u := range slices.Backward(s.Units) {
		b.unit(node, u, proto.StepStartUnit, proto.StepStopUnit)
	}
	for _, x := range slices.Backward(s.Scripts) {
		b.script(node, x, proto.StepStartScript, proto.StepStopScript)
	}
	for _, a := range slices.Backward(s.Address) {
		b.addAddress(node, a)
	}
}

func (b *builder) dropAddress(node string, a proto.Address) {
	b.add(proto.Step{Kind: proto.StepDropAddress, Node: node, Argv: service.DropAddressArgv(a), Limit: service.LimitAddress.Seconds(), Address: &a,
		Undo: service.AddAddressArgv(a), UndoKind: proto.StepAddAddress, Why: "clients wait for the address instead of meeting half a service"})
}

func (b *builder) addAddress(node string, a proto.Address) {
	b.add(proto.Step{Kind: proto.StepAddAddress, Node: node, Argv: service.AddAddressArgv(a), Limit: service.LimitAddress.Seconds(), Address: &a,
		Undo: service.DropAddressArgv(a), UndoKind: proto.StepDropAddress, Why: "everything is up: the address moves here, and the neighbours are told"})
}

func (b *builder) script(node string, x proto.Script, kind, undo proto.StepKind) {
	s := proto.Step{Kind: kind, Node: node, Argv: x.Stop, Limit: x.Limit, Script: &x, Undo: x.Start, UndoKind: undo, Why: "script " + x.Name + " of agent.toml, before the unmount"}
	if kind == proto.StepStartScript {
		s.Argv, s.Undo, s.Why = x.Start, x.Stop, "script "+x.Name+" of agent.toml, after the mount"
	}
	b.add(s)
}

func (b *builder) unit(node, unit string, kind, undo proto.StepKind) {
	s := proto.Step{Kind: kind, Node: node, Argv: service.StopUnitArgv(unit), Limit: service.LimitUnit.Seconds(), Unit: unit,
		Undo: service.StartUnitArgv(unit), UndoKind: undo, Why: unit + " works on the mounts"}
	if kind == proto.StepStartUnit {
		s.Argv, s.Undo = s.Undo, s.Argv
	}
	b.add(s)
}

func (b *builder) export(node string, e proto.Export, kind, undo proto.StepKind) {
	s := proto.Step{Kind: kind, Node: node, Argv: service.UnexportArgv(e), Limit: service.LimitExport.Seconds(), Export: &e,
		Undo: service.ExportArgv(e), UndoKind: undo, Why: "the NFS server must let go of the mounts"}
	if kind == proto.StepExport {
		s.Argv, s.Undo, s.Why = s.Undo, s.Argv, "NFS clients find it again"
	}
	b.add(s)
}
