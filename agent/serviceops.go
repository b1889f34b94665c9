package agent

import (
	"context"
	"reflect"
	"slices"
	"time"

	"example.com/santui/agent/service"
	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// beside is what serviceFacts found, when, and how long that will do for whoever asks for nothing fresh.
type beside struct {
	facts *proto.ServiceFacts
	at    time.Time
	pace  time.Duration
}

// serviceFacts tells how this node stands to what agent.toml adds to the resource, nil if that is nothing. With maxAge 0
// everything is fresh; else it may be as old as the other facts that take programs to find.
func (r *resource) serviceFacts(ctx context.Context, ops *service.Ops, maxAge time.Duration) *proto.ServiceFacts {
	if r.conf.service.Empty() {
		return nil
	}
	r.mu.Lock()
	b := r.beside
	r.mu.Unlock()
	if maxAge > 0 && !b.at.IsZero() && time.Since(b.at) < b.pace {
		return b.facts
	}
	ctx, cancel := context.WithTimeout(ctx, stackLimit)
	defer cancel()
	begin := time.Now()
	fresh := ops.Facts(ctx, r.conf.service)
	r.mu.Lock()
	defer r.mu.Unlock()
	if begin.After(r.beside.at) && begin.After(r.since) {
		r.beside = beside{&fresh, begin, paceOf(time.Since(begin), costlyShare, costlyAge)}
	}
	return &fresh
}

// configured refuses a step for anything that this node's own agent.toml does not name: what the other agent asks for is
// never run on its word alone.
func (l local) configured(s proto.Step) error {
	if s.Unit == "" && s.Script == nil && s.Address == nil && s.Export == nil {
		return nil
	}
	r, err := l.resource(s.Resource)
	if err != nil {
		return err
	}
	c := r.conf.service
	if s.Unit != "" && !slices.Contains(c.Units, s.Unit) ||
		s.Script != nil && !slices.ContainsFunc(c.Scripts, func(x proto.Script) bool { return reflect.DeepEqual(x, *s.Script) }) ||
		s.Address != nil && !slices.Contains(c.Address, *s.Address) ||
		s.Export != nil && !slices.Contains(c.Exports, *s.Export) {
		return l.cfg.errorf(proto.CodeInvalid, "step %d (%s) is not what agent.toml of this node says of %s", s.Index, s.Kind, r.name).
			WithRemedy("make the section [resource.%s] the same on both nodes and restart the agent that has not read it", r.name)
	}
	return nil
}

// serviceStep does the steps of what agent.toml adds to a resource.
func (l local) serviceStep(ctx context.Context, r *resource, kind proto.StepKind, req proto.PeerStepRequest, res *proto.StepResult) error {
	s, ops := req.Step, l.service
	var run func() (lvmops.Outcome, error)
	switch {
	case kind == proto.StepStopUnit && s.Unit != "":
		run = func() (lvmops.Outcome, error) { return ops.StopUnit(ctx, s.Unit) }
	case kind == proto.StepStartUnit && s.Unit != "":
		run = func() (lvmops.Outcome, error) { return ops.StartUnit(ctx, s.Unit) }
	case (kind == proto.StepStopScript || kind == proto.StepStartScript) && s.Script != nil:
		run = func() (lvmops.Outcome, error) {
			return ops.Script(ctx, *s.Script, kind == proto.StepStartScript, service.Occasion{Resource: r.name, Device: r.conf.device, Operation: req.OpID})
		}
	case kind == proto.StepDropAddress && s.Address != nil:
		run = func() (lvmops.Outcome, error) { return ops.DropAddress(ctx, *s.Address) }
	case kind == proto.StepAddAddress && s.Address != nil:
		run = func() (lvmops.Outcome, error) { return ops.AddAddress(ctx, *s.Address) }
	case kind == proto.StepUnexport && s.Export != nil:
		run = func() (lvmops.Outcome, error) { return ops.Unexport(ctx, *s.Export) }
	case kind == proto.StepExport && s.Export != nil:
		run = func() (lvmops.Outcome, error) { return ops.Export(ctx, *s.Export) }
	default:
		return l.cfg.errorf(proto.CodeUnsupported, "step %d: kind %q is not known here, or lacks what it is about", s.Index, kind)
	}
	return l.volume(res, run)
}
