package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"example.com/santui/proto"
)

// readyPeriod is how often the node that could become Primary evaluates whether it could.
const readyPeriod = 5 * time.Second

// readyLoop evaluates the checks of a failover to this node while it is Secondary, so that both panels can always say
// whether it is ready, or why not.
func (a *Agent) readyLoop(ctx context.Context) {
	tick := time.NewTimer(untilBeat(readyPeriod))
	defer tick.Stop()
	for {
		for _, r := range a.resources {
			if a.moving() {
				break
			}
			a.readiness(ctx, r)
			a.compareHistories(ctx, r)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Reset(untilBeat(readyPeriod))
		}
	}
}

func (a *Agent) readiness(ctx context.Context, r *resource) {
	if st := r.eng.Status(); st.Role != proto.Secondary || st.PeerRole == proto.Secondary {
		a.mu.Lock()
		delete(a.ready, r.name)
		delete(a.told, r.name)
		a.mu.Unlock()
		a.hub.poke()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readyPeriod)
	defer cancel()
	reply, err := a.runner.Look(ctx, proto.CheckRequest{Verb: proto.VerbFailover, Resource: r.name}, stackPeriod+time.Second)
	if err != nil { // what could not be looked at is not ready, whatever it was before
		code, _ := proto.CodeOf(proto.CheckFacts)
		reply.Checks = proto.CheckList{Schema: proto.Schema, Verb: proto.VerbFailover, Resource: r.name, From: a.peerName, To: a.cfg.Node,
			Checks: []proto.Check{{Code: code.Name, Node: a.cfg.Node, Result: proto.CheckUnknown, Title: code.Title, Evidence: []string{err.Error()}, Remedy: code.Remedy}}}
	}
	reply.Checks.At = time.Time{} // else every look would be news to every cockpit
	a.mu.Lock()
	a.ready[r.name] = reply.Checks
	a.mu.Unlock()
	a.announce(r.name, reply.Checks)
	a.hub.poke()
}

// verdict is what the event list says of a resource's readiness, and what the last look has found.
type verdict struct{ told, found string }

// announce puts a line into the event list when what blocks a failover has changed, once two looks in a row agree: a look that was
// slow, or a process that just passed by, is no news.
func (a *Agent) announce(resource string, l proto.CheckList) {
	text, level := "failover to "+a.cfg.Node+" ready", proto.LevelInfo
	if bad := l.Blocking(); len(bad) > 0 {
		var codes []string
		for _, c := range bad {
			if !slices.Contains(codes, c.Code) {
				codes = append(codes, c.Code)
			}
		}
		text, level = "failover to "+a.cfg.Node+" not ready: "+strings.Join(codes, ", "), proto.LevelWarn
	}
	a.mu.Lock()
	v := a.told[resource]
	news := v.found == text && v.told != text
	v.found = text
	if news {
		v.told = text
	}
	a.told[resource] = v
	a.mu.Unlock()
	if news {
		a.hub.event(level, resource, "", text)
	}
}
