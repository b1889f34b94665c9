package op

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.com/santui/proto"
)

// loss is a way in which the runner loses the other node in the middle of an operation, and how that node comes back.
type loss struct {
	name   string
	happen func(*pairModel)
	mend   func(*pairModel)
}

// lose is otter, and both links to it, going away. What stays tells what is left on it when it is back: everything, or only
// what is on its disk.
func lose(w *pairModel, stays bool) {
	otter, weasel := w.nodes["otter"], w.nodes["weasel"]
	otter.gone = true
	if weasel.conn > proto.WFConnection {
		weasel.conn = proto.WFConnection
	}
	if weasel.role == proto.Primary {
		w.fork(weasel)
	}
	if stays && otter.conn > proto.WFConnection {
		otter.conn = proto.WFConnection
	}
	if !stays {
		otter.role, otter.locked, otter.conn, otter.discard = proto.Secondary, nil, proto.WFConnection, false
	}
}

var losses = []loss{
	{"node dies", func(w *pairModel) {
		m := w.nodes["otter"]
		lose(w, false)
		m.active, m.mounted = false, false
		m.run(false)
	}, func(*pairModel) {}},
	{"its agent dies", func(w *pairModel) { lose(w, false) }, func(w *pairModel) {
		// What the operator removes because santui names it: it stands on a device that is dead.
		if m := w.nodes["otter"]; m.role == proto.Secondary {
			m.active, m.mounted = false, false
			m.run(false)
		}
	}},
	{"links cut", func(w *pairModel) { lose(w, true) }, func(*pairModel) {}},
}

// TestPeerLost loses the other node at every step of every verb, before the step's effect and after it. The operation ends in
// a state that is named; when the node is back, undo or the verb again brings the pair home, there were never two Primaries,
// and what says that it is undone is undone.
func TestPeerLost(t *testing.T) {
	var rows []cell
	for _, wd := range worlds {
		if wd.verb == proto.VerbTakeover || wd.name == "drill+" {
			continue // there is no other node; its two halves are failovers
		}
		for _, s := range planOf(t, wd) {
			if s.Skip != "" || strings.HasSuffix(wd.name, "+") && s.Unit == "" && s.Script == nil && s.Address == nil && s.Export == nil {
				continue // its plain twin has it
			}
			for _, l := range losses {
				for _, after := range []bool{false, true} {
					row := cell{wd.name, fmt.Sprintf("%d %s@%s", s.Index, s.Kind, s.Node), l.name + " before", "", "", "ok"}
					if after {
						row.fault = l.name + " after"
					}
					t.Run(strings.Join([]string{row.verb, row.step, row.fault}, " "), func(t *testing.T) {
						if row.end, row.choice, row.state = lost(t, wd, s.Index-1, l, after); row.state != "ok" {
							t.Error(row.state)
						}
					})
					rows = append(rows, row)
				}
			}
		}
	}
	printMatrix(t, rows)
}

// lost runs a verb up to a step, at which the other node is lost.
func lost(t *testing.T, wd world, step int, l loss, after bool) (end, how, verdict string) {
	g := newRig(t)
	wd.prepare(g)
	req := request(wd.verb)
	req.StepByStep = true
	o := g.begin(t, req)
	happen := func() {
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		l.happen(g.w)
	}
	for i := range step + 1 {
		if i == step && !after {
			happen()
		}
		if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceResume}); err != nil {
			return "", "", err.Error()
		}
		o = g.wait(t)
	}
	if after && !o.State.Final() {
		happen()
	}
	for !o.State.Final() {
		choice := proto.ChoiceResume
		if o.State == proto.OpStopped {
			choice = proto.ChoiceUndo
		}
		if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: choice}); err != nil {
			return "", "", err.Error()
		}
		o = g.wait(t)
	}
	end = string(o.State)
	g.w.mu.Lock()
	g.w.nodes["otter"].gone = false
	g.w.nodes["weasel"].locked, g.w.nodes["otter"].locked = nil, nil // what the link's return does
	g.w.meet()
	g.w.mu.Unlock()
	how, verdict = g.home(t, wd, l, o)
	if b := g.w.broken(); b != nil {
		verdict = strings.Join(b, ", ")
	}
	return end, how, verdict
}

// home brings the pair to where the operation shall leave it, or to where it was before.
func (g *rig) home(t *testing.T, wd world, l loss, o proto.Op) (how, verdict string) {
	t.Helper()
	back := func() bool { return wd.verb != proto.VerbResolve && wd.verb != proto.VerbRejoin && wd.undone(g) == "" }
	switch {
	case o.State == proto.OpDone:
		if wrong := wd.done(g); wrong != "" {
			return "", "it is not done: " + wrong
		}
		return "-", "ok"
	case o.State == proto.OpUndone && wd.verb != proto.VerbResolve && wd.verb != proto.VerbRejoin:
		if !back() {
			return "", "it is not undone: " + wd.undone(g)
		}
		return "-", "ok"
	case o.State == proto.OpKept && wd.verb != proto.VerbResolve && wd.verb != proto.VerbRejoin:
		if _, err := g.r.Decide(t.Context(), proto.DecideRequest{ID: o.ID, Choice: proto.ChoiceUndo, Confirm: "demo", By: "me"}); err != nil {
			return "", err.Error()
		}
		if undone := g.wait(t); undone.State == proto.OpUndone {
			if !back() {
				return "", "it says that it is undone: " + wd.undone(g)
			}
			return "undo", "ok"
		}
	}
	g.w.mu.Lock()
	l.mend(g.w)
	g.w.mu.Unlock()
	verb := wd.verb
	if verb == proto.VerbDrill { // is not taken up again: the service is brought up where it was
		verb = proto.VerbFailover
	}
	reply, err := g.r.Look(context.Background(), proto.CheckRequest{Verb: verb, Resource: "r0"}, 0)
	if err != nil {
		return "", err.Error()
	}
	if verb == proto.VerbResolve && slices.ContainsFunc(reply.Checks.Blocking(), func(c proto.Check) bool { return c.Code == proto.CheckForked }) {
		return "nothing", follows(g) // it had its effect already
	}
	next := g.end(t, request(verb))
	if next.State != proto.OpDone {
		return "", "again: " + next.Outcome
	}
	if wd.verb == proto.VerbDrill {
		if h := g.w.home(); h != "weasel" {
			return "", "failover: service: " + h
		}
		return "failover", "ok"
	}
	if wrong := wd.done(g); wrong != "" {
		return "", "again: " + wrong
	}
	return "again", "ok"
}
